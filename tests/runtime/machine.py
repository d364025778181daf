"""Hand-written LLVM text and programs for the tests of the runtime."""

from itertools import pairwise

from kdsl.codegen.llvm.driver import emit_driver
from kdsl.dtypes import f32, i64
from kdsl.ir.loops import Buffer, Kernel, Parallel, Program
from kdsl.ir.sizes import size
from kdsl.runtime.cpu import load
from kdsl.target import LEVELS, host_level

HOST = LEVELS[host_level()]
N = size("N")
BLOCK = 64

# args: x, y, N.  y[i] = x[i] * 2 + 1 for the elements of blocks lo .. hi-1
DOUBLE = """
define void @double(ptr %args, i64 %lo, i64 %hi) {
entry:
  %x = load ptr, ptr %args
  %y.at = getelementptr i64, ptr %args, i64 1
  %y = load ptr, ptr %y.at
  %n.at = getelementptr i64, ptr %args, i64 2
  %n = load i64, ptr %n.at
  %start = mul i64 %lo, 64
  %stop = mul i64 %hi, 64
  %inside = icmp slt i64 %stop, %n
  %end = select i1 %inside, i64 %stop, i64 %n
  br label %loop
loop:
  %i = phi i64 [ %start, %entry ], [ %i1, %body ]
  %more = icmp slt i64 %i, %end
  br i1 %more, label %body, label %done
body:
  %from = getelementptr float, ptr %x, i64 %i
  %v = load float, ptr %from
  %w = fmul float %v, 2.0
  %r = fadd float %w, 1.0
  %to = getelementptr float, ptr %y, i64 %i
  store float %r, ptr %to
  %i1 = add i64 %i, 1
  br label %loop
done:
  ret void
}
"""

# args: a table of counters.  Each block adds 1 to its counter.
COUNT = """
define void @count(ptr %args, i64 %lo, i64 %hi) {
entry:
  br label %loop
loop:
  %i = phi i64 [ %lo, %entry ], [ %i1, %body ]
  %more = icmp slt i64 %i, %hi
  br i1 %more, label %body, label %done
body:
  %at = getelementptr i64, ptr %args, i64 %i
  %old = atomicrmw add ptr %at, i64 1 monotonic
  %i1 = add i64 %i, 1
  br label %loop
done:
  ret void
}
"""

# args: index (i64 of N), least, largest, N.  One block: the least and largest of an index tensor, and index[i] * 1 into y.
BOUNDS = """
define void @bounds(ptr %args, i64 %lo, i64 %hi) {
entry:
  %x = load ptr, ptr %args
  %least.at = getelementptr i64, ptr %args, i64 1
  %least.to = load ptr, ptr %least.at
  %largest.at = getelementptr i64, ptr %args, i64 2
  %largest.to = load ptr, ptr %largest.at
  %n.at = getelementptr i64, ptr %args, i64 3
  %n = load i64, ptr %n.at
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i1, %body ]
  %least = phi i64 [ 9223372036854775807, %entry ], [ %least1, %body ]
  %largest = phi i64 [ -9223372036854775808, %entry ], [ %largest1, %body ]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %body, label %done
body:
  %from = getelementptr i64, ptr %x, i64 %i
  %v = load i64, ptr %from
  %below = icmp slt i64 %v, %least
  %least1 = select i1 %below, i64 %v, i64 %least
  %above = icmp sgt i64 %v, %largest
  %largest1 = select i1 %above, i64 %v, i64 %largest
  %i1 = add i64 %i, 1
  br label %loop
done:
  store i64 %least, ptr %least.to
  store i64 %largest, ptr %largest.to
  ret void
}
"""


def chain(steps: int, n=N) -> Program:
    """y = double(double(… x)): `steps` kernels, steps - 1 temporaries."""
    x, y = Buffer("x", f32, (n,), (1,), "argument"), Buffer("y", f32, (n,), (1,), "result")
    buffers = [x, *(Buffer(f"t{i}", f32, (n,), (1,), "temporary") for i in range(steps - 1)), y]
    body = (Parallel("i", 0, N, BLOCK, ()),)
    kernels = tuple(Kernel(f"k{i}", (a, b), ("N",), body) for i, (a, b) in enumerate(pairwise(buffers)))
    return Program("chain", tuple(buffers), kernels, ("N",))


def library_of(program: Program, text: str = DOUBLE, name: str = "double"):
    """The program, each kernel of which is the function `name` of `text`."""
    return load(text + emit_driver(program, dict.fromkeys(program.kernels, name), HOST), HOST)


def doubled(x, steps: int):
    for _ in range(steps):
        x = x * 2 + 1
    return x


def index_program() -> Program:
    """Only the least and the largest of an index tensor."""
    index = Buffer("index", i64, (N,), (1,), "argument")
    least, largest = Buffer("least", i64, (), (), "result", 0), Buffer("largest", i64, (), (), "result", 1)
    kernel = Kernel("bounds", (index, least, largest), ("N",), ())
    return Program("indices", (index, least, largest), (kernel,), ("N",))
