"""The native text of `out=`: which of the caller's arrays a program may write into as they are.

A result goes straight into the caller's array where that is C-contiguous and aligned and lies apart from all that the
program reads and from the other results' arrays; or exactly over an argument of which the record says that each element is
read before it is written. Otherwise it goes to new memory and is copied when everything has been read. An array that cannot
take the result at all sends the call the long way, which says what is wrong.
Read before: runtime/fast_record.py, runtime/out.py. Read next: runtime/fast_text.py.
"""

TEXT = """
; the addresses from .. to that the elements of an array lie in
define internal void @span(ptr %x, i64 %item, ptr %span) {
entry:
  %data = WORD i64 %x 2
  %ndim32 = WORD i32 %x 3
  %ndim = zext i32 %ndim32 to i64
  %shape = WORD ptr %x 4
  %strides = WORD ptr %x 5
  br label %axis
axis:
  %d = phi i64 [ 0, %entry ], [ %d1, %one ]
  %low = phi i64 [ %data, %entry ], [ %low1, %one ]
  %high = phi i64 [ %data, %entry ], [ %high1, %one ]
  %any = phi i64 [ %item, %entry ], [ %any1, %one ]
  %more = icmp ult i64 %d, %ndim
  br i1 %more, label %one, label %done
one:
  %n.at = getelementptr i64, ptr %shape, i64 %d
  %n = load i64, ptr %n.at
  %step.at = getelementptr i64, ptr %strides, i64 %d
  %step = load i64, ptr %step.at
  %steps = sub i64 %n, 1
  %far = mul i64 %steps, %step
  %back = icmp slt i64 %far, 0
  %down = select i1 %back, i64 %far, i64 0
  %up = select i1 %back, i64 0, i64 %far
  %low1 = add i64 %low, %down
  %high1 = add i64 %high, %up
  %empty = icmp eq i64 %n, 0
  %any1 = select i1 %empty, i64 0, i64 %any
  %d1 = add i64 %d, 1
  br label %axis
done:
  %nothing = icmp eq i64 %any, 0
  %last = add i64 %high, %any
  %to = select i1 %nothing, i64 %low, i64 %last
  store i64 %low, ptr %span
  %to.at = getelementptr i64, ptr %span, i64 1
  store i64 %to, ptr %to.at
  ret void
}

; whether low .. high meets the span
define internal i1 @meets(i64 %low, i64 %high, ptr %span) {
  %from = WORD i64 %span 0
  %to = WORD i64 %span 1
  %before = icmp ult i64 %low, %to
  %after = icmp ult i64 %from, %high
  %both = and i1 %before, %after
  ret i1 %both
}

; how result %number, the %m-th that is shown, gets into an array: 0 not at all, 1 straight, 2 as a copy
define internal i64 @place(ptr %target, ptr %r, ptr %result, i64 %number, i64 %m, ptr %dims, ptr %objects, ptr %outs, i64 %n.outs)
{
entry:
  %span = alloca [2 x i64]
  %ndarray = WORD ptr @api 0
  %type = WORD ptr %target 1
  %is.array = icmp eq ptr %type, %ndarray
  br i1 %is.array, label %dtype, label %never
dtype:
  %descr = WORD ptr %result 0
  %ndim = WORD i64 %result 2
  %item = WORD i64 %result 3
  %data = WORD i64 %target 2
  %have.ndim32 = WORD i32 %target 3
  %have.ndim = zext i32 %have.ndim32 to i64
  %shape = WORD ptr %target 4
  %strides = WORD ptr %target 5
  %have.descr = WORD ptr %target 7
  %flags = WORD i32 %target 8
  %same.descr = icmp eq ptr %have.descr, %descr
  %same.ndim = icmp eq i64 %have.ndim, %ndim
  %writable = and i32 %flags, 1024
  %is.writable = icmp ne i32 %writable, 0
  %good1 = and i1 %same.descr, %same.ndim
  %good2 = and i1 %good1, %is.writable
  br i1 %good2, label %axis, label %never
axis:
  %d = phi i64 [ 0, %dtype ], [ %d1, %one ]
  %bytes = phi i64 [ %item, %dtype ], [ %bytes1, %one ]
  %more = icmp ult i64 %d, %ndim
  br i1 %more, label %one, label %layout
one:
  %want.at = getelementptr i64, ptr %dims, i64 %d
  %want = load i64, ptr %want.at
  %n.at = getelementptr i64, ptr %shape, i64 %d
  %n = load i64, ptr %n.at
  %step.at = getelementptr i64, ptr %strides, i64 %d
  %step = load i64, ptr %step.at
  %bytes1 = mul i64 %bytes, %n
  %same = icmp eq i64 %want, %n
  %stays = icmp eq i64 %step, 0
  %several = icmp ugt i64 %n, 1
  %folded = and i1 %stays, %several
  %usable = xor i1 %folded, true
  %good = and i1 %same, %usable
  %d1 = add i64 %d, 1
  br i1 %good, label %axis, label %never
layout: ; aligned and C-contiguous
  %order = and i32 %flags, 257
  %plain = icmp eq i32 %order, 257
  %high = add i64 %data, %bytes
  br i1 %plain, label %constants, label %copy

; --- what the program reads beside its arguments
constants:
  %n.constants = WORD i64 %r 6
  %constant.table = WORD ptr %r 7
  br label %constant
constant:
  %c = phi i64 [ 0, %constants ], [ %c1, %constant.one ]
  %c.more = icmp ult i64 %c, %n.constants
  br i1 %c.more, label %constant.one, label %arguments
constant.one:
  %c3 = mul i64 %c, 3
  %c.at = getelementptr i64, ptr %constant.table, i64 %c3
  %c.from = WORD i64 %c.at 1
  %c.bytes = WORD i64 %c.at 2
  %c.to = add i64 %c.from, %c.bytes
  %c.before = icmp ult i64 %data, %c.to
  %c.after = icmp ult i64 %c.from, %high
  %c.meets = and i1 %c.before, %c.after
  %c1 = add i64 %c, 1
  br i1 %c.meets, label %copy, label %constant

; --- its arguments
arguments:
  %specs = WORD ptr %r 2
  %n.objects = WORD i64 %r 18
  br label %argument
argument:
  %i = phi i64 [ 0, %arguments ], [ %i1, %apart ]
  %i.more = icmp ult i64 %i, %n.objects
  br i1 %i.more, label %look, label %results
apart:
  %i1 = add i64 %i, 1
  br label %argument
look:
  %spec.at = mul i64 %i, 8
  %spec = getelementptr i64, ptr %specs, i64 %spec.at
  %kind = WORD i64 %spec 0
  %is.tensor = icmp eq i64 %kind, 0
  br i1 %is.tensor, label %tensor, label %apart
tensor:
  %object.at = getelementptr ptr, ptr %objects, i64 %i
  %object = load ptr, ptr %object.at
  %object.item = WORD i64 %spec 6
  call void @span(ptr %object, i64 %object.item, ptr %span)
  %meets = call i1 @meets(i64 %data, i64 %high, ptr %span)
  br i1 %meets, label %over, label %apart
over: ; the very same elements, and the record allows it
  %object.data = WORD i64 %object 2
  %slot = WORD i64 %spec 2
  %same.data = icmp eq i64 %object.data, %data
  %n.over = WORD i64 %r 23
  %over.table = WORD ptr %r 24
  br i1 %same.data, label %pair, label %copy
pair:
  %p = phi i64 [ 0, %over ], [ %p1, %pair.one ]
  %p.more = icmp ult i64 %p, %n.over
  br i1 %p.more, label %pair.one, label %copy
pair.one:
  %p2 = mul i64 %p, 2
  %pair.at = getelementptr i64, ptr %over.table, i64 %p2
  %pair.result = WORD i64 %pair.at 0
  %pair.slot = WORD i64 %pair.at 1
  %is.result = icmp eq i64 %pair.result, %number
  %is.slot = icmp eq i64 %pair.slot, %slot
  %allowed = and i1 %is.result, %is.slot
  %p1 = add i64 %p, 1
  br i1 %allowed, label %apart, label %pair

; --- the other results' arrays
results:
  %n.results = WORD i64 %r 4
  %result.table = WORD ptr %r 5
  br label %other
other:
  %j = phi i64 [ 0, %results ], [ %j1, %other.next ]
  %k = phi i64 [ 0, %results ], [ %k1, %other.next ]
  %j.more = icmp ult i64 %j, %n.results
  %k.more = icmp ult i64 %k, %n.outs
  %both.more = and i1 %j.more, %k.more
  br i1 %both.more, label %other.one, label %straight
other.next:
  %k.step = phi i64 [ 0, %other.one ], [ 1, %other.shown ], [ 1, %other.array ], [ 1, %other.span ]
  %k1 = add i64 %k, %k.step
  %j1 = add i64 %j, 1
  br label %other
other.one:
  %j5 = mul i64 %j, 5
  %other.at = getelementptr i64, ptr %result.table, i64 %j5
  %shown = WORD i64 %other.at 4
  %is.shown = icmp ne i64 %shown, 0
  br i1 %is.shown, label %other.shown, label %other.next
other.shown:
  %itself = icmp eq i64 %k, %m
  br i1 %itself, label %other.next, label %other.array
other.array:
  %place.at = getelementptr ptr, ptr %outs, i64 %k
  %x = load ptr, ptr %place.at
  %x.type = WORD ptr %x 1
  %x.array = icmp eq ptr %x.type, %ndarray
  br i1 %x.array, label %other.span, label %other.next
other.span:
  %x.item = WORD i64 %other.at 3
  call void @span(ptr %x, i64 %x.item, ptr %span)
  %x.meets = call i1 @meets(i64 %data, i64 %high, ptr %span)
  br i1 %x.meets, label %copy, label %other.next
straight:
  ret i64 1
copy:
  ret i64 2
never:
  ret i64 0
}

; copy what was computed elsewhere; 0, or -1 with an error set
define internal i32 @fill_places(ptr %outs, ptr %results, i64 %made) {
entry:
  %copy.into = WORD ptr @api 8
  br label %next
next:
  %m = phi i64 [ 0, %entry ], [ %m1, %go.on ]
  %status = phi i32 [ 0, %entry ], [ %status1, %go.on ]
  %more = icmp ult i64 %m, %made
  br i1 %more, label %one, label %done
one:
  %place.at = getelementptr ptr, ptr %outs, i64 %m
  %place = load ptr, ptr %place.at
  %result.at = getelementptr ptr, ptr %results, i64 %m
  %result = load ptr, ptr %result.at
  %straight = icmp eq ptr %place, %result
  br i1 %straight, label %go.on, label %copy
copy:
  %copied = call i32 %copy.into(ptr %place, ptr %result)
  %worst = call i32 @llvm.smin.i32(i32 %status, i32 %copied)
  br label %go.on
go.on:
  %status1 = phi i32 [ %status, %one ], [ %worst, %copy ]
  call void @Py_DecRef(ptr %result)
  %m1 = add i64 %m, 1
  br label %next
done:
  ret i32 %status
}
declare i32 @llvm.smin.i32(i32, i32)

; fast_call with the caller's arrays for results, or a tuple or list of them, before the other arguments
define ptr @fast_into(ptr %self, ptr %arguments, i64 %given, ptr %names) {
entry:
  %outs = alloca [ROOM x ptr], align 16
  %ndarray = WORD ptr @api 0
  %tuple = WORD ptr @api 6
  %list = WORD ptr @api 7
  %out = load ptr, ptr %arguments
  %type = WORD ptr %out 1
  %rest = getelementptr ptr, ptr %arguments, i64 1
  %others = sub i64 %given, 1
  %is.array = icmp eq ptr %type, %ndarray
  br i1 %is.array, label %hold, label %several
several:
  %is.tuple = icmp eq ptr %type, %tuple
  %is.list = icmp eq ptr %type, %list
  %is.known = or i1 %is.tuple, %is.list
  br i1 %is.known, label %count, label %unknown
count:
  %length = WORD i64 %out 2
  %fits = icmp ule i64 %length, ROOM
  br i1 %fits, label %items, label %unknown
items:
  %inside = getelementptr i8, ptr %out, i64 ITEMS
  br i1 %is.list, label %elsewhere, label %hold
elsewhere:
  %apart = load ptr, ptr %inside
  br label %hold
hold: ; another thread may change a list meanwhile
  %from = phi ptr [ %arguments, %entry ], [ %inside, %items ], [ %apart, %elsewhere ]
  %n = phi i64 [ 1, %entry ], [ %length, %items ], [ %length, %elsewhere ]
  %kind = phi i64 [ 1, %entry ], [ 2, %items ], [ 2, %elsewhere ]
  br label %held
held:
  %h = phi i64 [ 0, %hold ], [ %h1, %hold.one ]
  %h.more = icmp ult i64 %h, %n
  br i1 %h.more, label %hold.one, label %go
hold.one:
  %h.from = getelementptr ptr, ptr %from, i64 %h
  %h.object = load ptr, ptr %h.from
  %h.to = getelementptr ptr, ptr %outs, i64 %h
  store ptr %h.object, ptr %h.to
  call void @Py_IncRef(ptr %h.object)
  %h1 = add i64 %h, 1
  br label %held
go:
  %result = call ptr @fast_run(ptr %self, ptr %rest, i64 %others, ptr %names, ptr %outs, i64 %n, i64 %kind, ptr %out)
  br label %let
let:
  %g = phi i64 [ 0, %go ], [ %g1, %let.one ]
  %g.more = icmp ult i64 %g, %n
  br i1 %g.more, label %let.one, label %done
let.one:
  %g.from = getelementptr ptr, ptr %outs, i64 %g
  %g.object = load ptr, ptr %g.from
  call void @Py_DecRef(ptr %g.object)
  %g1 = add i64 %g, 1
  br label %let
done:
  ret ptr %result
unknown:
  call void @Py_IncRef(ptr @_Py_NotImplementedStruct)
  ret ptr @_Py_NotImplementedStruct
}
"""
