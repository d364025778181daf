"""Plans and schedules functions with contractions for a GPU as one kernel, verifies and interprets them, and compares."""

import numpy as np

from kdsl.ir import loops as ir
from kdsl.ir.interpreter import interpret
from kdsl.ir.loop_verify import verify_loops
from kdsl.ir.meaning import evaluate
from kdsl.ir.tensor import Function
from kdsl.schedule.gpu.dots import schedule_gpu_dots
from kdsl.schedule.packing import row_major
from kdsl.target import parse_target
from kdsl.transforms.plan_dots import plan_dots
from tests.schedule.dot_programs import values
from tests.tolerance import assert_close

TARGET = parse_target("cuda:sm_90")


def program(builder, parameters, results, tiling=None, strides=None):
    """One kernel (or its parts) of all equations, verified."""
    strides = strides or {}
    plan = plan_dots(builder.equations, results, "product", lambda v: v not in strides, TARGET)
    memory = {
        v: ir.Buffer(v.name, v.dtype, v.shape, strides.get(v, row_major(v.shape)), "argument", i)
        for i, v in enumerate(parameters)
    }
    memory |= {
        v: ir.Buffer(f"out{i}", v.dtype, v.shape, row_major(v.shape), "result", i) for i, v in enumerate(results)
    }
    kernels = schedule_gpu_dots(plan, memory.__getitem__, TARGET, tiling)
    buffers = dict.fromkeys([*memory.values(), *(b for k in kernels for b in k.buffers)])
    sizes = dict.fromkeys(s for k in kernels for s in k.sizes)
    out = ir.Program("p", tuple(buffers), tuple(kernels), tuple(sizes))
    verify_loops(out)
    check_tiles(out)
    return out


def check_tiles(p):
    """Every tile has two axes at most, powers of two."""
    for k in p.kernels:
        stack = [t for s in ir.walk(k.body) for t in ir.tiles_of(s)]
        while stack:
            t = stack.pop()
            assert len(t.shape) <= 2 and all(n & (n - 1) == 0 for n in t.shape), t.shape
            stack += ir.children(t)


def agrees(builder, parameters, results, tiling=None, arrays=None, operations=None, strides=None):
    """The interpreted kernel gives what the equations mean; the program."""
    p = program(builder, parameters, results, tiling, strides)
    if arrays is None:
        arrays = values(np.random.default_rng(0), parameters)
    function = Function("f", tuple(parameters), tuple(builder.equations), tuple(results))
    for got, want in zip(interpret(p, *arrays), evaluate(function, *arrays), strict=True):
        assert_close(got, want, operations=operations or 4096)
    return p
