"""The native text that runs a program on a GPU: memory, numbers and launches by one call, straight to the driver's functions.

In:  a table (runtime/cuda_plan.py fills it).  Out: `run(table, stream, own)`, 0 or what failed; `free(entries, address, stream)`.

    entries  0 cuLaunchKernel   1 cuMemAllocFromPoolAsync   2 cuMemFreeAsync   3 cuMemsetD32Async
             4 cuCtxGetCurrent  5 cuCtxSetCurrent           6 the context      7 the pool
    table    0 entries     1 rooms      2 their table     3 bytes of scratch     4 places in scratch     5 their table
             6 numbers     7 their table                  8 launches             9 their table
    room     address of a word, bytes: memory for a result; its address goes into the word (only with `own`)
    place    address of a word, offset in the scratch memory, which is freed behind the last launch
    number   address of the word that has its place, its bits, how many 4-byte parts it has
    launch   function, blocks, threads, bytes of shared memory, the addresses of the words that are its parameters

What failed: the driver's status, plus WHERE times 1 (no memory), 2 (a number), 3 (a launch; the launch's number times 4 WHERE on
top). Then nothing is left allocated.
Read before: runtime/fast_record.py. Read next: runtime/cuda_memory.py.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache

from kdsl.runtime import cpu
from kdsl.runtime.fast_record import words_written
from kdsl.target import LEVELS, host_level

WHERE = 1 << 20
NO_MEMORY, NO_NUMBER, NO_LAUNCH = 1, 2, 3

_TEXT = """
; this thread's calls go to the device's context
define internal void @enter(ptr %e) {
  %place = alloca ptr
  store ptr null, ptr %place
  %get = WORD ptr %e 4
  %got = call i32 %get(ptr %place)
  %now = load ptr, ptr %place
  %wanted = WORD ptr %e 6
  %same = icmp eq ptr %now, %wanted
  br i1 %same, label %done, label %change
change:
  %set = WORD ptr %e 5
  %changed = call i32 %set(ptr %wanted)
  br label %done
done:
  ret void
}

define i32 @gpu_free(ptr %e, i64 %address, ptr %stream) {
  call void @enter(ptr %e)
  %free = WORD ptr %e 2
  %status = call i32 %free(i64 %address, ptr %stream)
  ret i32 %status
}

define i64 @gpu_run(ptr %t, ptr %stream, i64 %own) {
entry:
  %new = alloca i64
  store i64 0, ptr %new
  %e = WORD ptr %t 0
  call void @enter(ptr %e)
  %launch = WORD ptr %e 0
  %allocate = WORD ptr %e 1
  %free = WORD ptr %e 2
  %set = WORD ptr %e 3
  %pool = WORD ptr %e 7
  %rooms = WORD ptr %t 2
  %scratch.bytes = WORD i64 %t 3
  %n.places = WORD i64 %t 4
  %places = WORD ptr %t 5
  %n.numbers = WORD i64 %t 6
  %numbers = WORD ptr %t 7
  %n.launches = WORD i64 %t 8
  %launches = WORD ptr %t 9
  %all.rooms = WORD i64 %t 1
  %owns = icmp ne i64 %own, 0
  %n.rooms = select i1 %owns, i64 %all.rooms, i64 0
  br label %room

room:
  %r = phi i64 [ 0, %entry ], [ %r1, %room.made ]
  %r.more = icmp ult i64 %r, %n.rooms
  br i1 %r.more, label %room.one, label %scratch
room.one:
  %r2 = mul i64 %r, 2
  %room.at = getelementptr i64, ptr %rooms, i64 %r2
  %room.word = WORD ptr %room.at 0
  %room.bytes = WORD i64 %room.at 1
  store i64 0, ptr %room.word
  %room.empty = icmp eq i64 %room.bytes, 0
  br i1 %room.empty, label %room.made, label %room.allocate
room.allocate:
  %room.status = call i32 %allocate(ptr %room.word, i64 %room.bytes, ptr %pool, ptr %stream)
  %room.good = icmp eq i32 %room.status, 0
  br i1 %room.good, label %room.made, label %no.room
room.made:
  %r1 = add i64 %r, 1
  br label %room
no.room:
  %no.room.status = zext i32 %room.status to i64
  %no.room.what = add i64 %no.room.status, WHERE_MEMORY
  br label %undo

scratch:
  %no.scratch = icmp eq i64 %scratch.bytes, 0
  br i1 %no.scratch, label %place, label %scratch.allocate
scratch.allocate:
  %scratch.status = call i32 %allocate(ptr %new, i64 %scratch.bytes, ptr %pool, ptr %stream)
  %scratch.good = icmp eq i32 %scratch.status, 0
  br i1 %scratch.good, label %place, label %scratch.failed
scratch.failed:
  store i64 0, ptr %new
  %scratch.failed.status = zext i32 %scratch.status to i64
  %scratch.failed.what = add i64 %scratch.failed.status, WHERE_MEMORY
  br label %undo
place:
  %p = phi i64 [ 0, %scratch ], [ 0, %scratch.allocate ], [ %p1, %place.one ]
  %first = load i64, ptr %new
  %p.more = icmp ult i64 %p, %n.places
  br i1 %p.more, label %place.one, label %number
place.one:
  %p2 = mul i64 %p, 2
  %place.at = getelementptr i64, ptr %places, i64 %p2
  %place.word = WORD ptr %place.at 0
  %place.offset = WORD i64 %place.at 1
  %place.address = add i64 %first, %place.offset
  store i64 %place.address, ptr %place.word
  %p1 = add i64 %p, 1
  br label %place

number:
  %n = phi i64 [ 0, %place ], [ %n1, %number.set ]
  %n.more = icmp ult i64 %n, %n.numbers
  br i1 %n.more, label %number.one, label %kernel
number.one:
  %n3 = mul i64 %n, 3
  %number.at = getelementptr i64, ptr %numbers, i64 %n3
  %number.word = WORD ptr %number.at 0
  %bits = WORD i64 %number.at 1
  %parts = WORD i64 %number.at 2
  %low.address = load i64, ptr %number.word
  %low = trunc i64 %bits to i32
  %low.status = call i32 %set(i64 %low.address, i32 %low, i64 1, ptr %stream)
  %two = icmp eq i64 %parts, 2
  br i1 %two, label %number.high, label %number.checked
number.high:
  %high.address = add i64 %low.address, 4
  %high.bits = lshr i64 %bits, 32
  %high = trunc i64 %high.bits to i32
  %high.status = call i32 %set(i64 %high.address, i32 %high, i64 1, ptr %stream)
  br label %number.checked
number.checked:
  %other.status = phi i32 [ 0, %number.one ], [ %high.status, %number.high ]
  %number.status = or i32 %low.status, %other.status
  %number.good = icmp eq i32 %number.status, 0
  br i1 %number.good, label %number.set, label %number.failed
number.set:
  %n1 = add i64 %n, 1
  br label %number
number.failed:
  %number.failed.status = zext i32 %number.status to i64
  %number.failed.what = add i64 %number.failed.status, WHERE_NUMBER
  br label %undo

kernel:
  %k = phi i64 [ 0, %number ], [ %k1, %kernel.next ]
  %k.more = icmp ult i64 %k, %n.launches
  br i1 %k.more, label %kernel.one, label %launched
kernel.one:
  %k5 = mul i64 %k, 5
  %kernel.at = getelementptr i64, ptr %launches, i64 %k5
  %function = WORD ptr %kernel.at 0
  %blocks = WORD i32 %kernel.at 1
  %threads = WORD i32 %kernel.at 2
  %near = WORD i32 %kernel.at 3
  %words = WORD ptr %kernel.at 4
  %none = icmp eq i32 %blocks, 0
  br i1 %none, label %kernel.next, label %kernel.launch
kernel.launch:
  %kernel.status = call i32 %launch(ptr %function, i32 %blocks, i32 1, i32 1, i32 %threads, i32 1, i32 1, i32 %near, ptr %stream,
                                    ptr %words, ptr null)
  %kernel.good = icmp eq i32 %kernel.status, 0
  br i1 %kernel.good, label %kernel.next, label %kernel.failed
kernel.next:
  %k1 = add i64 %k, 1
  br label %kernel
kernel.failed:
  %kernel.failed.status = zext i32 %kernel.status to i64
  %kernel.number = mul i64 %k, WHERE_KERNEL
  %kernel.where = add i64 %kernel.number, WHERE_LAUNCH
  %kernel.failed.what = add i64 %kernel.failed.status, %kernel.where
  br label %undo

launched:
  %used = icmp ne i64 %first, 0
  br i1 %used, label %give.back, label %done
give.back:
  %given.back = call i32 %free(i64 %first, ptr %stream)
  br label %done
done:
  ret i64 0

undo:
  %what = phi i64 [ %no.room.what, %no.room ], [ %scratch.failed.what, %scratch.failed ],
                  [ %number.failed.what, %number.failed ], [ %kernel.failed.what, %kernel.failed ]
  %made = phi i64 [ %r, %no.room ], [ %n.rooms, %scratch.failed ], [ %n.rooms, %number.failed ], [ %n.rooms, %kernel.failed ]
  %taken = load i64, ptr %new
  %some = icmp ne i64 %taken, 0
  br i1 %some, label %undo.scratch, label %undo.rooms
undo.scratch:
  %undone = call i32 %free(i64 %taken, ptr %stream)
  br label %undo.rooms
undo.rooms:
  %u = phi i64 [ 0, %undo ], [ 0, %undo.scratch ], [ %u1, %undo.next ]
  %u.more = icmp ult i64 %u, %made
  br i1 %u.more, label %undo.one, label %failed
undo.one:
  %u2 = mul i64 %u, 2
  %undo.at = getelementptr i64, ptr %rooms, i64 %u2
  %undo.word = WORD ptr %undo.at 0
  %undo.address = load i64, ptr %undo.word
  %undo.some = icmp ne i64 %undo.address, 0
  br i1 %undo.some, label %undo.free, label %undo.next
undo.free:
  %undo.freed = call i32 %free(i64 %undo.address, ptr %stream)
  br label %undo.next
undo.next:
  %u1 = add i64 %u, 1
  br label %undo.rooms
failed:
  ret i64 %what
}
"""


def text() -> str:
    """The text, its numbers and `WORD`s written out."""
    kernel = WHERE << 2
    numbers = {"KERNEL": kernel, "MEMORY": NO_MEMORY * WHERE, "NUMBER": NO_NUMBER * WHERE, "LAUNCH": NO_LAUNCH * WHERE}
    out = _TEXT
    for name, value in numbers.items():
        out = out.replace(f"WHERE_{name}", str(value))
    return words_written(out)


@lru_cache
def functions() -> tuple[Callable[..., int], Callable[..., int]]:
    """(run, free), which Python may call; other threads may run during the first."""
    library = cpu.load(text(), LEVELS[host_level()])
    run = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(library.address("gpu_run"))
    free = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_void_p)(library.address("gpu_free"))
    return run, free
