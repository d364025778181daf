"""The native text for results: whether the indices that a program used were inside, and results as the user wants them.

Read before: runtime/fast_record.py. Read next: runtime/fast_text.py.
"""

TEXT = """
; least and largest index must lie in -extent .. extent-1, unless there was none (least > largest)
define internal i1 @indices_inside(ptr %r, ptr %pointers) {
entry:
  %n.checks = WORD i64 %r 14
  %check.table = WORD ptr %r 15
  br label %check
check:
  %h = phi i64 [ 0, %entry ], [ %h1, %check.good ]
  %h.more = icmp ult i64 %h, %n.checks
  br i1 %h.more, label %check.one, label %yes
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
  br i1 %good, label %check.good, label %no
check.good:
  %h1 = add i64 %h, 1
  br label %check
yes:
  ret i1 true
no:
  ret i1 false
}

; the tuple %all filled with results, the objects and sizes that are handed on with them; as a tuple or through the finisher
define internal ptr @hand_over(ptr %r, ptr %all, ptr %results, i64 %made, ptr %objects, ptr %sizes) {
entry:
  %way = WORD i64 %r 13
  %n.held = WORD i64 %r 19
  %held.table = WORD ptr %r 20
  %n.told = WORD i64 %r 21
  %told.table = WORD ptr %r 22
  %before.told = add i64 %made, %n.held
  br label %fill
fill:
  %m = phi i64 [ 0, %entry ], [ %m1, %fill.one ]
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
}
"""
