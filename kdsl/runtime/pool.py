"""The thread pool, in LLVM text: `@launch` runs the blocks of one kernel on all cores and returns when they are done.

    launch(kernel, args, blocks):  kernel(args, lo, hi) for pieces lo .. hi of 0 .. blocks

One word says what there is to do: number of the job << 32 | pieces left. A thread claims a piece by counting the word down,
and only while the word still is what it read, so that it can never take the arguments of one job for a piece of another: they
are written while nothing is left. The launching thread works too and waits only for pieces that somebody has claimed, so
that a worker which the system does not let run costs nothing. Workers spin for a moment, then sleep on a condition variable.
When the pool is busy with another thread's job, a kernel runs in its own thread. How many pieces there are does not matter for
results: what a block computes does not depend on who runs it.
Read before: codegen/llvm/driver.py. Read next: runtime/native.py.
"""

from __future__ import annotations

import os

from kdsl.errors import ArgumentError

SPIN = 2000  # looks at the word before a worker goes to sleep: some 50 microseconds
STACK_BYTES = 16 << 20  # near memory of kernels lies on the stack

_TEXT = """
@word = internal global i64 0, align 64
@kernel = internal global ptr null, align 64
@args = internal global ptr null
@blocks = internal global i64 0
@pieces = internal global i64 0
@done = internal global i64 0, align 64
@sleepers = internal global i64 0, align 64
@busy = internal global i64 0, align 64
@started = internal global i64 0
@wanted = internal global i64 0
@mutex = internal global [16 x i64] zeroinitializer, align 64
@condition = internal global [16 x i64] zeroinitializer, align 64
declare i32 @pthread_mutex_init(ptr, ptr)
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_init(ptr, ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_signal(ptr)
declare i32 @pthread_attr_init(ptr)
declare i32 @pthread_attr_setstacksize(ptr, i64)
declare i32 @pthread_attr_setdetachstate(ptr, i32)
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @sched_yield()

; forget all threads: at the start, and in the child of a fork. %workers: how many there shall be beside the callers
define void @pool_reset(i64 %workers) {
  store i64 0, ptr @word
  store i64 0, ptr @done
  store i64 0, ptr @sleepers
  store i64 0, ptr @started
  store i64 0, ptr @busy
  store i64 %workers, ptr @wanted
  %m = call i32 @pthread_mutex_init(ptr @mutex, ptr null)
  %c = call i32 @pthread_cond_init(ptr @condition, ptr null)
  ret void
}

; claim one piece and run it; false when nothing is left
define internal i1 @claim() {
entry:
  br label %try
try:
  %v = load atomic i64, ptr @word acquire, align 8
  %left = and i64 %v, 4294967295
  %nothing = icmp eq i64 %left, 0
  br i1 %nothing, label %no, label %read
read:
  %kernel = load atomic ptr, ptr @kernel monotonic, align 8
  %args = load atomic ptr, ptr @args monotonic, align 8
  %blocks = load atomic i64, ptr @blocks monotonic, align 8
  %pieces = load atomic i64, ptr @pieces monotonic, align 8
  %less = sub i64 %v, 1
  %swap = cmpxchg ptr @word, i64 %v, i64 %less acq_rel acquire
  %mine = extractvalue { i64, i1 } %swap, 1
  br i1 %mine, label %run, label %try
run:
  %i = sub i64 %pieces, %left
  %i1 = add i64 %i, 1
  %lo.n = mul i64 %blocks, %i
  %hi.n = mul i64 %blocks, %i1
  %lo = udiv i64 %lo.n, %pieces
  %hi = udiv i64 %hi.n, %pieces
  call void %kernel(ptr %args, i64 %lo, i64 %hi)
  %old = atomicrmw add ptr @done, i64 1 release
  ret i1 true
no:
  ret i1 false
}

define internal ptr @worker(ptr %nothing) {
entry:
  br label %spin
spin:
  %k = phi i64 [ 0, %entry ], [ 0, %work ], [ %k1, %again ], [ 0, %awake ]
  %v = load atomic i64, ptr @word monotonic, align 8
  %left = and i64 %v, 4294967295
  %some = icmp ne i64 %left, 0
  br i1 %some, label %work, label %again
work:
  %claimed = call i1 @claim()
  br label %spin
again:
  PAUSE
  %k1 = add i64 %k, 1
  %tired = icmp ugt i64 %k1, SPIN
  br i1 %tired, label %sleep, label %spin
sleep:
  %l = call i32 @pthread_mutex_lock(ptr @mutex)
  %more = atomicrmw add ptr @sleepers, i64 1 seq_cst
  br label %look
look:
  %v2 = load atomic i64, ptr @word seq_cst, align 8
  %left2 = and i64 %v2, 4294967295
  %none = icmp eq i64 %left2, 0
  br i1 %none, label %wait, label %awake
wait:
  %w = call i32 @pthread_cond_wait(ptr @condition, ptr @mutex)
  br label %look
awake:
  %fewer = atomicrmw sub ptr @sleepers, i64 1 seq_cst
  %u = call i32 @pthread_mutex_unlock(ptr @mutex)
  br label %spin
}

; start the workers; where the system refuses one, there are fewer
define internal void @start() {
entry:
  %attribute = alloca [16 x i64], align 16
  %thread = alloca i64
  %a = call i32 @pthread_attr_init(ptr %attribute)
  %s = call i32 @pthread_attr_setstacksize(ptr %attribute, i64 STACK)
  %d = call i32 @pthread_attr_setdetachstate(ptr %attribute, i32 DETACHED)
  %wanted = load i64, ptr @wanted
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %i1, %create ]
  %all = icmp uge i64 %i, %wanted
  br i1 %all, label %end, label %create
create:
  %failed = call i32 @pthread_create(ptr %thread, ptr %attribute, ptr @worker, ptr null)
  %i1 = add i64 %i, 1
  %ok = icmp eq i32 %failed, 0
  br i1 %ok, label %next, label %fewer
fewer:
  store i64 %i, ptr @wanted
  br label %end
end:
  store i64 1, ptr @started
  ret void
}

define void @launch(ptr %kernel, ptr %args, i64 %blocks) {
entry:
  %wanted = load i64, ptr @wanted
  %single = icmp eq i64 %wanted, 0
  %small = icmp ult i64 %blocks, 2
  %alone = or i1 %single, %small
  br i1 %alone, label %here, label %ask
ask:
  %taken = atomicrmw xchg ptr @busy, i64 1 acquire
  %free = icmp eq i64 %taken, 0
  br i1 %free, label %ready, label %here
here:
  call void %kernel(ptr %args, i64 0, i64 %blocks)
  ret void
ready:
  %started = load i64, ptr @started
  %cold = icmp eq i64 %started, 0
  br i1 %cold, label %begin, label %publish
begin:
  call void @start()
  br label %publish
publish:
  %threads = add i64 %wanted, 1
  %many = mul i64 %threads, 8
  %fine = icmp ult i64 %blocks, %many
  %pieces = select i1 %fine, i64 %blocks, i64 %many
  store atomic ptr %kernel, ptr @kernel monotonic, align 8
  store atomic ptr %args, ptr @args monotonic, align 8
  store atomic i64 %blocks, ptr @blocks monotonic, align 8
  store atomic i64 %pieces, ptr @pieces monotonic, align 8
  store atomic i64 0, ptr @done monotonic, align 8
  %old = load atomic i64, ptr @word monotonic, align 8
  %job = add i64 %old, 4294967296
  %word = or i64 %job, %pieces
  store atomic i64 %word, ptr @word seq_cst, align 8
  %sleepers = load atomic i64, ptr @sleepers seq_cst, align 8
  %asleep = icmp sgt i64 %sleepers, 0
  br i1 %asleep, label %wake, label %drain
wake:
  %l = call i32 @pthread_mutex_lock(ptr @mutex)
  %others = sub i64 %pieces, 1
  %enough = icmp ult i64 %others, %sleepers
  %need = select i1 %enough, i64 %others, i64 %sleepers
  br label %signal
signal:
  %n = phi i64 [ %need, %wake ], [ %n1, %signal ]
  %s = call i32 @pthread_cond_signal(ptr @condition)
  %n1 = sub i64 %n, 1
  %rest = icmp sgt i64 %n1, 0
  br i1 %rest, label %signal, label %woken
woken:
  %u = call i32 @pthread_mutex_unlock(ptr @mutex)
  br label %drain
drain:
  %claimed = call i1 @claim()
  br i1 %claimed, label %drain, label %wait
wait:
  %k = phi i64 [ 0, %drain ], [ %k1, %pause ], [ %k, %yield ]
  %done = load atomic i64, ptr @done acquire, align 8
  %all = icmp uge i64 %done, %pieces
  br i1 %all, label %end, label %patience
patience:
  %long = icmp ugt i64 %k, SPIN
  br i1 %long, label %yield, label %pause
pause:
  PAUSE
  %k1 = add i64 %k, 1
  br label %wait
yield:
  %y = call i32 @sched_yield()
  br label %wait
end:
  store atomic i64 0, ptr @busy release, align 8
  ret void
}
"""


def text(arm: bool, mac: bool) -> str:
    """The pool for one kind of machine."""
    pause = "call void @llvm.aarch64.hint(i32 1)" if arm else "call void @llvm.x86.sse2.pause()"
    declare = "declare void @llvm.aarch64.hint(i32)" if arm else "declare void @llvm.x86.sse2.pause()"
    out = _TEXT.replace("PAUSE", pause).replace("SPIN", str(SPIN)).replace("STACK", str(STACK_BYTES))
    return out.replace("DETACHED", "2" if mac else "1") + declare + "\n"


def threads() -> int:
    """KDSL_THREADS, or the cores that this process may use."""
    chosen = os.environ.get("KDSL_THREADS", "")
    if chosen:
        if not chosen.isdecimal() or int(chosen) < 1:
            raise ArgumentError(f"KDSL_THREADS is {chosen!r}, not a number of threads", location=False)
        return int(chosen)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
