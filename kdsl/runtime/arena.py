"""The allocator for results and temporaries, in LLVM text. Freed blocks are kept and handed out again.

Pages fresh from the system cost more than most kernels that fill them, so a result's memory comes from a result that has died.
Blocks come in sizes 2**e * (1, 1.25, 1.5, 1.75); one list of free blocks for each size; a header of 64 bytes in front of the
data holds the size, so that data lie on cache lines. At most LIMIT bytes are kept free: beyond that all free blocks go back to
the system. Large blocks start on 2 MiB and ask for huge pages. One spin lock guards the lists.
The four functions at the end are what NumPy calls on arrays that own such memory (NEP 49).
Read next: runtime/native.py.
"""

from __future__ import annotations

import os

LIMIT = 2 << 30  # bytes kept free, at most; also at most an eighth of the machine's memory

_TEXT = """
@lists = internal global [256 x ptr] zeroinitializer, align 64
@lock = internal global i32 0, align 64
@kept = internal global i64 0, align 64
@limit = internal global i64 0
@fresh = internal global i64 0
@reused = internal global i64 0
declare i32 @posix_memalign(ptr, i64, i64)
declare void @free(ptr)
declare i32 @madvise(ptr, i64, i32)
declare ptr @memcpy(ptr, ptr, i64)
declare ptr @memset(ptr, i32, i64)
declare i64 @llvm.ctlz.i64(i64, i1)

define void @arena_limit(i64 %bytes) {
  store i64 %bytes, ptr @limit
  ret void
}
; bytes kept free, blocks asked from the system, blocks used again
define void @arena_statistics(ptr %out) {
  %kept = load i64, ptr @kept
  %fresh = load i64, ptr @fresh
  %reused = load i64, ptr @reused
  store i64 %kept, ptr %out
  %o1 = getelementptr i64, ptr %out, i64 1
  store i64 %fresh, ptr %o1
  %o2 = getelementptr i64, ptr %out, i64 2
  store i64 %reused, ptr %o2
  ret void
}
define void @arena_lock() {
entry:
  br label %try
try:
  %k = phi i64 [ 0, %entry ], [ %k1, %spin ], [ %k, %yield ]
  %old = atomicrmw xchg ptr @lock, i32 1 acquire
  %mine = icmp eq i32 %old, 0
  br i1 %mine, label %end, label %busy
busy:
  %long = icmp ugt i64 %k, 1000
  br i1 %long, label %yield, label %spin
spin:
  PAUSE
  %k1 = add i64 %k, 1
  br label %try
yield:
  %y = call i32 @sched_yield()
  br label %try
end:
  ret void
}
define void @arena_unlock() {
  store atomic i32 0, ptr @lock release, align 4
  ret void
}
; give all free blocks back; the lock is held
define internal void @trim() {
entry:
  br label %list
list:
  %i = phi i64 [ 0, %entry ], [ %i1, %next ]
  %head = getelementptr [256 x ptr], ptr @lists, i64 0, i64 %i
  br label %block
block:
  %b = load ptr, ptr %head
  %empty = icmp eq ptr %b, null
  br i1 %empty, label %next, label %give
give:
  %after.at = getelementptr i64, ptr %b, i64 2
  %after = load ptr, ptr %after.at
  store ptr %after, ptr %head
  call void @free(ptr %b)
  br label %block
next:
  %i1 = add i64 %i, 1
  %more = icmp ult i64 %i1, 256
  br i1 %more, label %list, label %end
end:
  store i64 0, ptr @kept
  ret void
}
define void @arena_trim() {
  call void @arena_lock()
  call void @trim()
  call void @arena_unlock()
  ret void
}

; header words: bytes of the block, its list, the next free block
define ptr @allocate(i64 %bytes) {
entry:
  %huge = icmp ugt i64 %bytes, 140737488355328
  br i1 %huge, label %fail, label %measure
measure:
  %need = add i64 %bytes, 64
  %tiny = icmp ult i64 %need, 256
  %n = select i1 %tiny, i64 256, i64 %need
  %n1 = sub i64 %n, 1
  %zeros = call i64 @llvm.ctlz.i64(i64 %n1, i1 true)
  %e = sub i64 63, %zeros
  %shift = sub i64 %e, 2
  %quarter = lshr i64 %n1, %shift
  %class.q = and i64 %quarter, 3
  %class.e = shl i64 %e, 2
  %class = add i64 %class.e, %class.q
  %steps = add i64 %quarter, 1
  %size = shl i64 %steps, %shift
  %head = getelementptr [256 x ptr], ptr @lists, i64 0, i64 %class
  call void @arena_lock()
  %b = load ptr, ptr %head
  %empty = icmp eq ptr %b, null
  br i1 %empty, label %ask, label %reuse
reuse:
  %after.at = getelementptr i64, ptr %b, i64 2
  %after = load ptr, ptr %after.at
  store ptr %after, ptr %head
  %kept = load i64, ptr @kept
  %kept1 = sub i64 %kept, %size
  store i64 %kept1, ptr @kept
  %reused = load i64, ptr @reused
  %reused1 = add i64 %reused, 1
  store i64 %reused1, ptr @reused
  call void @arena_unlock()
  %data = getelementptr i8, ptr %b, i64 64
  ret ptr %data
ask:
  %fresh = load i64, ptr @fresh
  %fresh1 = add i64 %fresh, 1
  store i64 %fresh1, ptr @fresh
  call void @arena_unlock()
  %place = alloca ptr
  %large = icmp uge i64 %size, 4194304
  %alignment = select i1 %large, i64 2097152, i64 64
  %failed = call i32 @posix_memalign(ptr %place, i64 %alignment, i64 %size)
  %ok = icmp eq i32 %failed, 0
  br i1 %ok, label %got, label %fail
got:
  %new = load ptr, ptr %place
  br i1 %large, label %advise, label %fill
advise:
  ADVISE
  br label %fill
fill:
  store i64 %size, ptr %new
  %class.at = getelementptr i64, ptr %new, i64 1
  store i64 %class, ptr %class.at
  %new.data = getelementptr i8, ptr %new, i64 64
  ret ptr %new.data
fail:
  ret ptr null
}

define void @release(ptr %data) {
entry:
  %nothing = icmp eq ptr %data, null
  br i1 %nothing, label %end, label %some
some:
  %b = getelementptr i8, ptr %data, i64 -64
  %size = load i64, ptr %b
  %class.at = getelementptr i64, ptr %b, i64 1
  %class = load i64, ptr %class.at
  %head = getelementptr [256 x ptr], ptr @lists, i64 0, i64 %class
  call void @arena_lock()
  %kept = load i64, ptr @kept
  %limit = load i64, ptr @limit
  %sum = add i64 %kept, %size
  %over = icmp ugt i64 %sum, %limit
  br i1 %over, label %full, label %keep
full:
  call void @trim()
  %never = icmp ugt i64 %size, %limit
  br i1 %never, label %give, label %keep
give:
  call void @arena_unlock()
  call void @free(ptr %b)
  ret void
keep:
  %now = load i64, ptr @kept
  %now1 = add i64 %now, %size
  store i64 %now1, ptr @kept
  %first = load ptr, ptr %head
  %next.at = getelementptr i64, ptr %b, i64 2
  store ptr %first, ptr %next.at
  store ptr %b, ptr %head
  call void @arena_unlock()
  ret void
end:
  ret void
}

; --- NumPy's four ---
define ptr @numpy_malloc(ptr %context, i64 %bytes) {
  %p = call ptr @allocate(i64 %bytes)
  ret ptr %p
}
define ptr @numpy_calloc(ptr %context, i64 %count, i64 %each) {
entry:
  %both = call { i64, i1 } @llvm.umul.with.overflow.i64(i64 %count, i64 %each)
  %bytes = extractvalue { i64, i1 } %both, 0
  %over = extractvalue { i64, i1 } %both, 1
  br i1 %over, label %fail, label %ask
ask:
  %p = call ptr @allocate(i64 %bytes)
  %none = icmp eq ptr %p, null
  br i1 %none, label %fail, label %clear
clear:
  %c = call ptr @memset(ptr %p, i32 0, i64 %bytes)
  ret ptr %p
fail:
  ret ptr null
}
declare { i64, i1 } @llvm.umul.with.overflow.i64(i64, i64)
define ptr @numpy_realloc(ptr %context, ptr %old, i64 %bytes) {
entry:
  %p = call ptr @allocate(i64 %bytes)
  %none = icmp eq ptr %p, null
  %first = icmp eq ptr %old, null
  %stop = or i1 %none, %first
  br i1 %stop, label %end, label %move
move:
  %b = getelementptr i8, ptr %old, i64 -64
  %size = load i64, ptr %b
  %had = sub i64 %size, 64
  %shrinks = icmp ult i64 %bytes, %had
  %n = select i1 %shrinks, i64 %bytes, i64 %had
  %c = call ptr @memcpy(ptr %p, ptr %old, i64 %n)
  call void @release(ptr %old)
  br label %end
end:
  ret ptr %p
}
define void @numpy_free(ptr %context, ptr %p, i64 %bytes) {
  call void @release(ptr %p)
  ret void
}
"""


def text(arm: bool, linux: bool) -> str:
    """The allocator for one kind of machine."""
    pause = "call void @llvm.aarch64.hint(i32 1)" if arm else "call void @llvm.x86.sse2.pause()"
    huge_pages = "%advised = call i32 @madvise(ptr %new, i64 %size, i32 14)"
    return _TEXT.replace("PAUSE", pause).replace("ADVISE", huge_pages if linux else "")


def limit() -> int:
    """How many bytes may be kept free."""
    try:
        return min(LIMIT, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 8)
    except (ValueError, OSError, AttributeError):
        return LIMIT
