"""The native text of the fast call (runtime/fast.py says what it is for).

A record is a table of 8-byte words:

    0 the next record      1 arguments          2 their table        3 sizes           4 results        5 their table
    6 constants            7 (slot, address)…   8 @program           9 @arena         10 @shapes       11 exact sizes or null
    12 give up the GIL     13 finish: 0 the only result, 1 a tuple, else a callable   14 index checks  15 their table
    16 keyword arguments   17 their names       18 objects in all    19 objects handed on   20 their numbers
    21 sizes handed on     22 their numbers

    object (first the positional arguments, then the keyword ones, then the elements of containers among all of them), 8 words:
        ARRAY              dtype object, slot, ndim, axes, flags that must be set, item bytes, compare strides
        SAME               the object itself
        FLOAT, DOUBLE      -, slot: a Python float that the program takes as f32 or f64
        EQUAL              an equal object, -, -, its type
        BITS               the bits of a Python float
        TUPLE, LIST, DICT  the type, -, length, keys of a dict, number of the first element among the objects
        SIZE               -, number of the size: a Python int that is the value of a named size
    axes: for each axis extent or -1 - size number, stride in bytes or NAMED_STRIDE + size number
    result: dtype object, slot, ndim, item bytes, visible           check: slot of least, slot of largest, extent, bytes

`slot` is the position in the table of pointers that @program takes.
Read before: runtime/fast.py, docs/decisions/stages.md. Read next: runtime/fast_fits_text.py.
"""

from __future__ import annotations

import re

from kdsl.runtime import fast_fits_text

ARRAY, SAME, FLOAT, DOUBLE, EQUAL, BITS, TUPLE, LIST, DICT, SIZE = range(10)
ROOM = 1024  # objects, results, sizes, axes of results, pointers
NAMED_STRIDE = 1 << 61
UNKNOWN = -(1 << 63)  # a size that no argument has told yet
# Fields of PyArrayObject beyond those every object has.
FLAGS, OWNER = 64, 88
ITEMS = 24  # where a tuple has its elements, and a list the address of its own

_TEXT = """
@api = internal global [6 x ptr] zeroinitializer
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

; ndarray, PyArray_NewFromDescr, float, the allocator's capsule, int, str
define void @fast_setup(ptr %given) {
  %c = call ptr @memcpy(ptr @api, ptr %given, i64 48)
  ret void
}

define ptr @fast_call(ptr %self, ptr %arguments, i64 %given, ptr %names) {
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
  %c2 = mul i64 %c, 2
  %c.at = getelementptr i64, ptr %constant.table, i64 %c2
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
  br i1 %j.more, label %result.one, label %temporaries
result.next:
  %made1 = phi i64 [ %made, %conceal ], [ %made.one, %own ]
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
  br i1 %shown, label %count, label %conceal
conceal:
  %hidden.at = getelementptr i64, ptr %hidden, i64 %j
  store ptr %hidden.at, ptr %result.to
  br label %result.next
count:
  %k = phi i64 [ 0, %result.one ], [ %k1, %count.one ]
  %bytes = phi i64 [ %result.item, %result.one ], [ %bytes1, %count.one ]
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
  %n.checks = WORD i64 %r 14
  %check.table = WORD ptr %r 15
  br label %check

; --- indices: least and largest must lie in -extent .. extent-1, unless there was none (least > largest)
check:
  %h = phi i64 [ 0, %ran ], [ %h1, %check.good ]
  %h.more = icmp ult i64 %h, %n.checks
  br i1 %h.more, label %check.one, label %finish
check.one:
  %h4 = mul i64 %h, 4
  %check.at = getelementptr i64, ptr %check.table, i64 %h4
  %least.slot = WORD i64 %check.at 0
  %largest.slot = WORD i64 %check.at 1
  %limit = WORD i64 %check.at 2
  %width = WORD i64 %check.at 3
  %least.to = getelementptr ptr, ptr %pointers, i64 %least.slot
  %least.at = load ptr, ptr %least.to
  %largest.to = getelementptr ptr, ptr %pointers, i64 %largest.slot
  %largest.at = load ptr, ptr %largest.to
  %is.narrow = icmp eq i64 %width, 4
  br i1 %is.narrow, label %read4, label %read8
read4:
  %least4 = load i32, ptr %least.at
  %largest4 = load i32, ptr %largest.at
  %least4.wide = sext i32 %least4 to i64
  %largest4.wide = sext i32 %largest4 to i64
  br label %bounds
read8:
  %least8 = load i64, ptr %least.at
  %largest8 = load i64, ptr %largest.at
  br label %bounds
bounds:
  %least = phi i64 [ %least4.wide, %read4 ], [ %least8, %read8 ]
  %largest = phi i64 [ %largest4.wide, %read4 ], [ %largest8, %read8 ]
  %lowest = sub i64 0, %limit
  %low = icmp sge i64 %least, %lowest
  %high = icmp slt i64 %largest, %limit
  %inside = and i1 %low, %high
  %empty = icmp sgt i64 %least, %largest
  %good = or i1 %inside, %empty
  br i1 %good, label %check.good, label %outside
check.good:
  %h1 = add i64 %h, 1
  br label %check
outside:
  br label %drop
drop:
  %refuse = phi i1 [ true, %outside ], [ false, %tuple ]
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
  %way = WORD i64 %r 13
  %only = icmp eq i64 %way, 0
  br i1 %only, label %single.result, label %tuple
single.result:
  %alone = load ptr, ptr %results
  ret ptr %alone
tuple:
  %n.told = WORD i64 %r 21
  %told.table = WORD ptr %r 22
  %before.told = add i64 %made, %n.held
  %in.all = add i64 %before.told, %n.told
  %all = call ptr @PyTuple_New(i64 %in.all)
  %no.tuple = icmp eq ptr %all, null
  br i1 %no.tuple, label %drop, label %fill
fill:
  %m = phi i64 [ 0, %tuple ], [ %m1, %fill.one ]
  %m.more = icmp ult i64 %m, %made
  br i1 %m.more, label %fill.one, label %filled
fill.one:
  %m.at = getelementptr ptr, ptr %results, i64 %m
  %one = load ptr, ptr %m.at
  %m.set = call i32 @PyTuple_SetItem(ptr %all, i64 %m, ptr %one)
  %m1 = add i64 %m, 1
  br label %fill
filled:
  %v = phi i64 [ 0, %fill ], [ %v1, %filled.one ]
  %v.more = icmp ult i64 %v, %n.held
  br i1 %v.more, label %filled.one, label %tell
filled.one:
  %v.from = getelementptr i64, ptr %held.table, i64 %v
  %v.number = load i64, ptr %v.from
  %v.object.at = getelementptr ptr, ptr %objects, i64 %v.number
  %v.object = load ptr, ptr %v.object.at
  %v.place = add i64 %made, %v
  %v.set = call i32 @PyTuple_SetItem(ptr %all, i64 %v.place, ptr %v.object)
  %v1 = add i64 %v, 1
  br label %filled
tell:
  %t = phi i64 [ 0, %filled ], [ %t1, %tell.set ]
  %t.more = icmp ult i64 %t, %n.told
  br i1 %t.more, label %tell.one, label %complete
tell.one:
  %t.from = getelementptr i64, ptr %told.table, i64 %t
  %t.number = load i64, ptr %t.from
  %t.at = getelementptr i64, ptr %sizes, i64 %t.number
  %t.value = load i64, ptr %t.at
  %t.object = call ptr @PyLong_FromLongLong(i64 %t.value)
  %no.int = icmp eq ptr %t.object, null
  br i1 %no.int, label %untold, label %tell.set
tell.set:
  %t.place = add i64 %before.told, %t
  %t.set = call i32 @PyTuple_SetItem(ptr %all, i64 %t.place, ptr %t.object)
  %t1 = add i64 %t, 1
  br label %tell
untold:
  call void @Py_DecRef(ptr %all)
  ret ptr null
complete:
  %flat = icmp eq i64 %way, 1
  br i1 %flat, label %as.tuple, label %hand.over
as.tuple:
  ret ptr %all
hand.over:
  %finisher = inttoptr i64 %way to ptr
  %shaped = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %finisher, ptr %all, ptr null)
  call void @Py_DecRef(ptr %all)
  ret ptr %shaped

; --- give back what was made; with an index outside, the long way tells which
undo:
  %slow = phi i1 [ false, %exhausted ], [ false, %refused ], [ %refuse, %drop.next ]
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
    out = fast_fits_text.TEXT + _TEXT
    for name, value in (("NAMED_STRIDE", NAMED_STRIDE), ("UNKNOWN", UNKNOWN), ("OWNER", OWNER), ("FLAGS", FLAGS),
                        ("ITEMS", ITEMS), ("ROOM", ROOM)):  # fmt: skip
        out = out.replace(name, str(value))
    word = r"\1.word = getelementptr i64, ptr \3, i64 \4\n  \1 = load \2, ptr \1.word, align 8"
    return re.sub(r"(%[\w.]+) = WORD (\w+) ([%@][\w.]+) (\d+)", word, out)
