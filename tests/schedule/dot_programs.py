"""Builds functions with contractions, plans and schedules them as one kernel, and runs them: interpreted and compiled."""

import numpy as np

import kdsl.dtypes as dt
from kdsl.ir import loops as ir
from kdsl.ir.interpreter import interpret
from kdsl.ir.loop_verify import verify_loops
from kdsl.ir.ops import Op
from kdsl.ir.rules import Builder
from kdsl.ir.tensor import TensorType, Value
from kdsl.schedule.dots import schedule_dots
from kdsl.schedule.packing import row_major
from kdsl.target import LEVELS
from kdsl.transforms.plan_dots import plan_dots
from tests.codegen.llvm.harness import run

LEVEL = "x86-64-v3"


def parameter(name, shape, dtype=dt.f32):
    return Value(TensorType(dtype, tuple(shape)), name)


def program(builder, parameters, results, level=LEVEL, tiling=None):
    """One kernel (and its packing kernels) of all equations, verified."""
    plan = plan_dots(builder.equations, results, "k", None, LEVELS[level])
    memory = {
        v: ir.Buffer(v.name, v.dtype, v.shape, row_major(v.shape), "argument", i)
        for i, v in enumerate(parameters)
    }
    memory |= {
        v: ir.Buffer(f"out{i}", v.dtype, v.shape, row_major(v.shape), "result", i)
        for i, v in enumerate(results)
    }
    kernels = schedule_dots(plan, memory.__getitem__, LEVELS[level], tiling)
    buffers = dict.fromkeys([*memory.values(), *(b for k in kernels for b in k.buffers)])
    out = ir.Program(
        "p", tuple(buffers), tuple(kernels), tuple(dict.fromkeys(s for k in kernels for s in k.sizes))
    )
    verify_loops(out)
    return out


def both(p, arrays, level=LEVEL):
    """The results of the interpreter and of machine code."""
    return interpret(p, *arrays), run(p, *arrays, level=level)


def values(rng, parameters):
    out = []
    for v in parameters:
        if v.dtype.is_floating:
            out.append(rng.standard_normal(v.shape).astype(v.dtype.numpy))
        else:
            out.append(rng.integers(-3, 4, v.shape).astype(v.dtype.numpy))
    return out


def causal(b, shape, window=None):
    """[.., rows, line]: row >= line, and within a window."""
    index = [b.emit(Op.IOTA, shape=shape[-2:], axis=a, dtype=dt.i64) for a in (0, 1)]
    mask = b.emit(Op.GE, *index)
    if window:
        mask = b.emit(Op.AND, mask, b.emit(Op.LT, b.emit(Op.SUB, *index), window))
    return b.broadcast_to(mask, shape)


def attention(batch, rows, line, width, out_width=None, mask="causal", window=None, cap=None, dtype=dt.f32):
    """softmax(q @ k.mT * s) @ v with variants: (builder, parameters, results)."""
    out_width = out_width or width
    b = Builder()
    q, k, v = (
        parameter(n, s, dtype)
        for n, s in (
            ("q", (batch, rows, width)),
            ("k", (batch, line, width)),
            ("v", (batch, line, out_width)),
        )
    )
    s = b.emit(Op.MUL, b.dot("btd", "bsd", "bts", q, k), width**-0.5)
    if cap:
        s = b.emit(Op.MUL, b.emit(Op.TANH, b.emit(Op.MUL, s, 1 / cap)), float(cap))
    if mask:
        s = b.emit(Op.WHERE, causal(b, (batch, rows, line), window), s, -np.inf)
    top = b.emit(Op.BROADCAST, b.reduce(Op.MAX, s, (2,)), shape=s.shape, axes=(0, 1))
    e = b.emit(Op.EXP, b.emit(Op.SUB, s, top))
    total = b.reduce(Op.SUM, e, (2,))
    o = b.dot("bts", "bsd", "btd", e, v)
    return b, [q, k, v], [b.emit(Op.DIV, o, b.emit(Op.BROADCAST, total, shape=o.shape, axes=(0, 1))), total]


def attention_meaning(q, k, v, mask="causal", window=None, cap=None):
    q, k, v = (x.astype("f8") for x in (q, k, v))
    s = q @ k.swapaxes(1, 2) * q.shape[2] ** -0.5
    if cap:
        s = np.tanh(s / cap) * cap
    if mask:
        i, j = np.ogrid[: s.shape[1], : s.shape[2]]
        s = np.where((i >= j) & (i - j < window if window else True), s, -np.inf)
    e = np.exp(s - s.max(2, keepdims=True))
    return e @ v / e.sum(2, keepdims=True), e.sum(2)
