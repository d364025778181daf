"""The native text of the fast call: finds the record that fits, makes the results' memory, calls, hands over.

In:  the words of runtime/fast_record.py.  Out: `@fast_call`, and `@fast_into` for calls with `out=` (runtime/fast.py binds both).
Read before: runtime/fast_record.py, runtime/fast_fits_text.py, runtime/fast_out_text.py, runtime/fast_results_text.py.
Read next: runtime/fast_native.py.
"""

from __future__ import annotations

from kdsl.runtime import fast_fits_text, fast_out_text, fast_results_text
from kdsl.runtime.fast_record import FLAGS, ITEMS, NAMED_STRIDE, OWNER, ROOM, UNKNOWN, words_written

_TEXT = """
@api = internal global [9 x ptr] zeroinitializer
declare ptr @PyErr_NoMemory()
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare ptr @PyTuple_New(i64)
declare i32 @PyTuple_SetItem(ptr, i64, ptr)
declare ptr @PyObject_CallFunctionObjArgs(ptr, ...)
declare ptr @PyLong_FromLongLong(i64)
declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)
@_Py_NotImplementedStruct = external global i8

; ndarray, PyArray_NewFromDescr, float, the allocator's capsule, int, str, tuple, list, PyArray_CopyInto
define void @fast_setup(ptr %given) {
  %c = call ptr @memcpy(ptr @api, ptr %given, i64 72)
  ret void
}

define ptr @fast_call(ptr %self, ptr %arguments, i64 %given, ptr %names) {
  %result = call ptr @fast_run(ptr %self, ptr %arguments, i64 %given, ptr %names, ptr null, i64 0, i64 0, ptr null)
  ret ptr %result
}

; %kind: 0 new arrays, 1 the results go into the one array of %outs, 2 into all of them; then %out is returned
define internal ptr @fast_run(ptr %self, ptr %arguments, i64 %given, ptr %names, ptr %outs, i64 %n.outs, i64 %kind, ptr %out) {
entry:
  %objects = alloca [ROOM x ptr], align 16
  %sizes = alloca [ROOM x i64], align 16
  %pointers = alloca [ROOM x ptr], align 16
  %numbers = alloca [ROOM x i64], align 16
  %hidden = alloca [ROOM x i64], align 16
  %extents = alloca [ROOM x i64], align 16
  %results = alloca [ROOM x ptr], align 16
  %ndarray = WORD ptr @api 0
  %new = WORD ptr @api 1
  %owner = WORD ptr @api 3
  %head = WORD ptr %self 2
  %first = WORD ptr %head 0
  %no.names = icmp eq ptr %names, null
  br i1 %no.names, label %gather, label %named
named:
  %keywords.given = WORD i64 %names 2
  br label %gather
gather:
  %keywords = phi i64 [ 0, %entry ], [ %keywords.given, %named ]
  %total = add i64 %given, %keywords
  %too.many = icmp ugt i64 %total, ROOM
  br i1 %too.many, label %unknown, label %note
note:
  %a = phi i64 [ 0, %gather ], [ %a1, %note.one ]
  %a.more = icmp ult i64 %a, %total
  br i1 %a.more, label %note.one, label %record
note.one:
  %a.from = getelementptr ptr, ptr %arguments, i64 %a
  %a.object = load ptr, ptr %a.from
  %a.to = getelementptr ptr, ptr %objects, i64 %a
  store ptr %a.object, ptr %a.to
  %a1 = add i64 %a, 1
  br label %note
record:
  %r = phi ptr [ %first, %note ], [ %after, %miss ]
  %none = icmp eq ptr %r, null
  br i1 %none, label %unknown, label %begin
unknown:
  call void @Py_IncRef(ptr @_Py_NotImplementedStruct)
  ret ptr @_Py_NotImplementedStruct
miss:
  %after = WORD ptr %r 0
  br label %record
begin:
  %way = WORD i64 %r 13
  %into = icmp ne i64 %kind, 0
  %way.into = sub i64 %kind, 1
  %same.way = icmp eq i64 %way, %way.into
  %new.arrays = xor i1 %into, true
  %gives = or i1 %same.way, %new.arrays
  br i1 %gives, label %try, label %miss
try:
  %fit = call i1 @fits(ptr %r, ptr %objects, i64 %given, i64 %keywords, ptr %names, ptr %sizes, ptr %pointers, ptr %numbers)
  br i1 %fit, label %constants, label %miss

; --- it fits: constants and results
constants:
  %n.constants = WORD i64 %r 6
  %constant.table = WORD ptr %r 7
  br label %constant
constant:
  %c = phi i64 [ 0, %constants ], [ %c1, %constant.one ]
  %c.more = icmp ult i64 %c, %n.constants
  br i1 %c.more, label %constant.one, label %shapes
constant.one:
  %c3 = mul i64 %c, 3
  %c.at = getelementptr i64, ptr %constant.table, i64 %c3
  %c.slot = WORD i64 %c.at 0
  %c.data = WORD ptr %c.at 1
  %c.to = getelementptr ptr, ptr %pointers, i64 %c.slot
  store ptr %c.data, ptr %c.to
  %c1 = add i64 %c, 1
  br label %constant
shapes:
  %shapes.code = WORD ptr %r 10
  call void %shapes.code(ptr %sizes, ptr %extents)
  %n.results = WORD i64 %r 4
  %result.table = WORD ptr %r 5
  br label %result
result:
  %j = phi i64 [ 0, %shapes ], [ %j1, %result.next ]
  %made = phi i64 [ 0, %shapes ], [ %made1, %result.next ]
  %dims = phi ptr [ %extents, %shapes ], [ %dims1, %result.next ]
  %j.more = icmp ult i64 %j, %n.results
  br i1 %j.more, label %result.one, label %all.placed
result.next:
  %made1 = phi i64 [ %made, %conceal ], [ %made.one, %own ], [ %made.two, %straight ]
  %dims1 = getelementptr i64, ptr %dims, i64 %result.ndim
  %j1 = add i64 %j, 1
  br label %result
result.one:
  %j5 = mul i64 %j, 5
  %result.at = getelementptr i64, ptr %result.table, i64 %j5
  %result.descr = WORD ptr %result.at 0
  %result.slot = WORD i64 %result.at 1
  %result.ndim = WORD i64 %result.at 2
  %result.item = WORD i64 %result.at 3
  %result.visible = WORD i64 %result.at 4
  %result.to = getelementptr ptr, ptr %pointers, i64 %result.slot
  %shown = icmp ne i64 %result.visible, 0
  br i1 %shown, label %where, label %conceal
conceal:
  %hidden.at = getelementptr i64, ptr %hidden, i64 %j
  store ptr %hidden.at, ptr %result.to
  br label %result.next
where:
  br i1 %into, label %enough, label %count
enough:
  %has.place = icmp ult i64 %made, %n.outs
  br i1 %has.place, label %placed, label %misfit
placed:
  %place.at = getelementptr ptr, ptr %outs, i64 %made
  %place = load ptr, ptr %place.at
  %how = call i64 @place(ptr %place, ptr %r, ptr %result.at, i64 %j, i64 %made, ptr %dims, ptr %objects, ptr %outs, i64 %n.outs)
  switch i64 %how, label %misfit [ i64 1, label %straight
                                   i64 2, label %count ]
straight:
  call void @Py_IncRef(ptr %place)
  %place.data = WORD ptr %place 2
  store ptr %place.data, ptr %result.to
  %place.to = getelementptr ptr, ptr %results, i64 %made
  store ptr %place, ptr %place.to
  %made.two = add i64 %made, 1
  br label %result.next
misfit: ; the long way says what is wrong with it
  br label %undo
count:
  %k = phi i64 [ 0, %where ], [ 0, %placed ], [ %k1, %count.one ]
  %bytes = phi i64 [ %result.item, %where ], [ %result.item, %placed ], [ %bytes1, %count.one ]
  %k.more = icmp ult i64 %k, %result.ndim
  br i1 %k.more, label %count.one, label %make
count.one:
  %dim.at = getelementptr i64, ptr %dims, i64 %k
  %dim = load i64, ptr %dim.at
  %bytes1 = mul i64 %bytes, %dim
  %k1 = add i64 %k, 1
  br label %count
make:
  %memory = call ptr @allocate(i64 %bytes)
  %no.memory = icmp eq ptr %memory, null
  br i1 %no.memory, label %exhausted, label %wrap
wrap:
  call void @Py_IncRef(ptr %result.descr)
  %nd = trunc i64 %result.ndim to i32
  %x = call ptr %new(ptr %ndarray, ptr %result.descr, i32 %nd, ptr %dims, ptr null, ptr %memory, i32 1281, ptr null)
  %no.array = icmp eq ptr %x, null
  br i1 %no.array, label %refused, label %own
own:
  call void @Py_IncRef(ptr %owner)
  %owner.at = getelementptr i8, ptr %x, i64 OWNER
  store ptr %owner, ptr %owner.at
  %x.flags.at = getelementptr i8, ptr %x, i64 FLAGS
  %x.flags = load i32, ptr %x.flags.at
  %x.flags1 = or i32 %x.flags, 4
  store i32 %x.flags1, ptr %x.flags.at
  store ptr %memory, ptr %result.to
  %x.at = getelementptr ptr, ptr %results, i64 %made
  store ptr %x, ptr %x.at
  %made.one = add i64 %made, 1
  br label %result.next
exhausted:
  %e.none = call ptr @PyErr_NoMemory()
  br label %undo
refused:
  call void @release(ptr %memory)
  br label %undo

all.placed:
  %too.few = icmp ult i64 %made, %n.outs
  br i1 %too.few, label %misfit, label %temporaries

; --- temporaries, and the call
temporaries:
  %arena.code = WORD ptr %r 9
  %need = call i64 %arena.code(ptr %sizes)
  %needs = icmp sgt i64 %need, 0
  br i1 %needs, label %reserve, label %go
reserve:
  %reserved = call ptr @allocate(i64 %need)
  %no.arena = icmp eq ptr %reserved, null
  br i1 %no.arena, label %exhausted, label %go
go:
  %arena = phi ptr [ null, %temporaries ], [ %reserved, %reserve ]
  %program = WORD ptr %r 8
  %large = WORD i64 %r 12
  %is.large = icmp ne i64 %large, 0
  %n.objects = WORD i64 %r 18
  %n.held = WORD i64 %r 19
  %held.table = WORD ptr %r 20
  br i1 %is.large, label %without, label %with
without: ; other threads may change a list meanwhile: hold its elements
  br label %hold
hold:
  %o = phi i64 [ 0, %without ], [ %o1, %hold.one ]
  %o.more = icmp ult i64 %o, %n.objects
  br i1 %o.more, label %hold.one, label %released
hold.one:
  %o.at = getelementptr ptr, ptr %objects, i64 %o
  %o.object = load ptr, ptr %o.at
  call void @Py_IncRef(ptr %o.object)
  %o1 = add i64 %o, 1
  br label %hold
released:
  %thread = call ptr @PyEval_SaveThread()
  call void %program(ptr %pointers, ptr %sizes, ptr %arena, ptr @launch)
  call void @PyEval_RestoreThread(ptr %thread)
  br label %keep
with:
  call void %program(ptr %pointers, ptr %sizes, ptr %arena, ptr @launch)
  br label %keep

; --- the objects that are handed on with the results
keep:
  %p = phi i64 [ 0, %released ], [ 0, %with ], [ %p1, %keep.one ]
  %p.more = icmp ult i64 %p, %n.held
  br i1 %p.more, label %keep.one, label %kept
keep.one:
  %p.at = getelementptr i64, ptr %held.table, i64 %p
  %p.number = load i64, ptr %p.at
  %p.object.at = getelementptr ptr, ptr %objects, i64 %p.number
  %p.object = load ptr, ptr %p.object.at
  call void @Py_IncRef(ptr %p.object)
  %p1 = add i64 %p, 1
  br label %keep
kept:
  br i1 %is.large, label %let.go, label %ran
let.go:
  %g = phi i64 [ 0, %kept ], [ %g1, %let.go.one ]
  %g.more = icmp ult i64 %g, %n.objects
  br i1 %g.more, label %let.go.one, label %ran
let.go.one:
  %g.at = getelementptr ptr, ptr %objects, i64 %g
  %g.object = load ptr, ptr %g.at
  call void @Py_DecRef(ptr %g.object)
  %g1 = add i64 %g, 1
  br label %let.go
ran:
  call void @release(ptr %arena)
  %inside = call i1 @indices_inside(ptr %r, ptr %pointers)
  br i1 %inside, label %finish, label %drop
drop:
  %refuse = phi i1 [ true, %ran ], [ false, %hand.on ]
  br label %drop.next
drop.next:
  %x.i = phi i64 [ 0, %drop ], [ %x.i1, %drop.one ]
  %x.more = icmp ult i64 %x.i, %n.held
  br i1 %x.more, label %drop.one, label %undo
drop.one:
  %x.from = getelementptr i64, ptr %held.table, i64 %x.i
  %x.number = load i64, ptr %x.from
  %x.object.at = getelementptr ptr, ptr %objects, i64 %x.number
  %x.object = load ptr, ptr %x.object.at
  call void @Py_DecRef(ptr %x.object)
  %x.i1 = add i64 %x.i, 1
  br label %drop.next

; --- the results, as the kernel's user wants them
finish:
  br i1 %into, label %fill, label %way.out
fill:
  %filled = call i32 @fill_places(ptr %outs, ptr %results, i64 %made)
  %is.filled = icmp eq i32 %filled, 0
  br i1 %is.filled, label %as.given, label %failed
as.given:
  call void @Py_IncRef(ptr %out)
  ret ptr %out
way.out:
  %only = icmp eq i64 %way, 0
  br i1 %only, label %single.result, label %hand.on
single.result:
  %alone = load ptr, ptr %results
  ret ptr %alone
hand.on:
  %n.told = WORD i64 %r 21
  %before.told = add i64 %made, %n.held
  %in.all = add i64 %before.told, %n.told
  %all = call ptr @PyTuple_New(i64 %in.all)
  %no.tuple = icmp eq ptr %all, null
  br i1 %no.tuple, label %drop, label %tuple
tuple:
  %handed.over = call ptr @hand_over(ptr %r, ptr %all, ptr %results, i64 %made, ptr %objects, ptr %sizes)
  ret ptr %handed.over

; --- give back what was made; with an index outside, the long way tells which
undo:
  %slow = phi i1 [ false, %exhausted ], [ false, %refused ], [ true, %misfit ], [ %refuse, %drop.next ]
  br label %undo.next
undo.next:
  %u = phi i64 [ 0, %undo ], [ %u1, %undo.one ]
  %u.more = icmp ult i64 %u, %made
  br i1 %u.more, label %undo.one, label %undone
undo.one:
  %u.at = getelementptr ptr, ptr %results, i64 %u
  %u.x = load ptr, ptr %u.at
  call void @Py_DecRef(ptr %u.x)
  %u1 = add i64 %u, 1
  br label %undo.next
undone:
  br i1 %slow, label %unknown, label %failed
failed:
  ret ptr null
}
"""


def text() -> str:
    """The text, with `%x = WORD type table number` and the numbers above written out."""
    out = fast_fits_text.TEXT + fast_out_text.TEXT + fast_results_text.TEXT + _TEXT
    for name, value in (("NAMED_STRIDE", NAMED_STRIDE), ("UNKNOWN", UNKNOWN), ("OWNER", OWNER), ("FLAGS", FLAGS),
                        ("ITEMS", ITEMS), ("ROOM", ROOM)):  # fmt: skip
        out = out.replace(name, str(value))
    return words_written(out)
