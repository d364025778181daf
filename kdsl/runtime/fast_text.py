"""The native text of the fast call (runtime/fast.py says what it is for).

A record is a table of 8-byte words:

    0 the next record      1 arguments          2 their table        3 sizes           4 results        5 their table
    6 constants            7 (slot, address)…   8 @program           9 @arena         10 @shapes       11 exact sizes or null
    12 give up the GIL     13 finish: 0 the only result, 1 a tuple, else a callable   14 index checks  15 their table

    argument: kind, dtype object (or the object itself), slot, ndim, axes, flags that must be set, item bytes, compare strides
    axes: for each axis extent or -1 - size number, stride in bytes or NAMED_STRIDE + size number
    result: dtype object, slot, ndim, item bytes, visible           check: slot of least, slot of largest, extent, bytes

`slot` is the position in the table of pointers that @program takes.
Read before: runtime/fast.py, docs/decisions/stages.md. Read next: runtime/fast_fits_text.py.
"""

from __future__ import annotations

import re

from kdsl.runtime import fast_fits_text

ARRAY, SAME, FLOAT, DOUBLE = range(4)
NAMED_STRIDE = 1 << 61
UNKNOWN = -(1 << 63)  # a size that no argument has told yet
# Fields of PyArrayObject beyond those every object has.
FLAGS, OWNER = 64, 88

_TEXT = """
@api = internal global [4 x ptr] zeroinitializer
declare ptr @PyErr_NoMemory()
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare ptr @PyTuple_New(i64)
declare i32 @PyTuple_SetItem(ptr, i64, ptr)
declare ptr @PyObject_CallFunctionObjArgs(ptr, ...)
declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)
@_Py_NotImplementedStruct = external global i8

; ndarray, PyArray_NewFromDescr, float, the allocator's capsule
define void @fast_setup(ptr %given) {
  %c = call ptr @memcpy(ptr @api, ptr %given, i64 32)
  ret void
}

define ptr @fast_call(ptr %self, ptr %arguments, i64 %given) {
entry:
  %sizes = alloca [256 x i64], align 16
  %pointers = alloca [256 x ptr], align 16
  %numbers = alloca [256 x i64], align 16
  %hidden = alloca [256 x i64], align 16
  %extents = alloca [256 x i64], align 16
  %results = alloca [256 x ptr], align 16
  %ndarray = WORD ptr @api 0
  %new = WORD ptr @api 1
  %owner = WORD ptr @api 3
  %head = WORD ptr %self 2
  %first = WORD ptr %head 0
  br label %record
record:
  %r = phi ptr [ %first, %entry ], [ %after, %miss ]
  %none = icmp eq ptr %r, null
  br i1 %none, label %unknown, label %begin
unknown:
  call void @Py_IncRef(ptr @_Py_NotImplementedStruct)
  ret ptr @_Py_NotImplementedStruct
miss:
  %after = WORD ptr %r 0
  br label %record
begin:
  %fit = call i1 @fits(ptr %r, ptr %arguments, i64 %given, ptr %sizes, ptr %pointers, ptr %numbers)
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
  br i1 %is.large, label %without, label %with
without:
  %thread = call ptr @PyEval_SaveThread()
  call void %program(ptr %pointers, ptr %sizes, ptr %arena, ptr @launch)
  call void @PyEval_RestoreThread(ptr %thread)
  br label %ran
with:
  call void %program(ptr %pointers, ptr %sizes, ptr %arena, ptr @launch)
  br label %ran
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
  br label %undo

; --- the results, as the kernel's user wants them
finish:
  %way = WORD i64 %r 13
  %only = icmp eq i64 %way, 0
  br i1 %only, label %single.result, label %tuple
single.result:
  %alone = load ptr, ptr %results
  ret ptr %alone
tuple:
  %all = call ptr @PyTuple_New(i64 %made)
  %no.tuple = icmp eq ptr %all, null
  br i1 %no.tuple, label %undo, label %fill
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
  %slow = phi i1 [ false, %exhausted ], [ false, %refused ], [ true, %outside ], [ false, %tuple ]
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
    for name, value in (("NAMED_STRIDE", NAMED_STRIDE), ("UNKNOWN", UNKNOWN), ("OWNER", OWNER), ("FLAGS", FLAGS)):
        out = out.replace(name, str(value))
    word = r"\1.word = getelementptr i64, ptr \3, i64 \4\n  \1 = load \2, ptr \1.word, align 8"
    return re.sub(r"(%[\w.]+) = WORD (\w+) ([%@][\w.]+) (\d+)", word, out)
