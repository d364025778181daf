"""Property: random tile expressions, in every kind of statement, as machine code equal the interpreter's."""

import numpy as np
import pytest

import kdsl.dtypes as dt
from kdsl.ir import loops as ir
from kdsl.ir.interpreter import interpret
from kdsl.ir.loop_verify import verify_loops
from kdsl.ir.sizes import minimum, size

from .harness import run

M, N = 53, 41  # the memory that is read; tiles lie anywhere in or across it


class Random:
    """Draws tiles of a wanted shape."""

    def __init__(self, seed, dtype):
        self.rng = np.random.default_rng(seed)
        self.stored, self.dtype = dtype, dtype.compute
        # contiguous, transposed, backwards, every other element
        self.memory = [
            ir.Buffer("a", dtype, (M, N), (N, 1), "argument", 0),
            ir.Buffer("b", dtype, (M, N), (1, M), "argument", 1),
            ir.Buffer("c", dtype, (M, N), (-N, -1), "argument", 2),
            ir.Buffer("d", dtype, (M, N), (4 * N, 2), "argument", 3),
        ]
        self.bound = []  # statements before
        self.count = 0

    def fresh(self):
        self.count += 1
        return f"t{self.count}"

    def load(self, shape):
        m = self.memory[self.rng.integers(4)]
        start = [int(self.rng.integers(-3, n)) for n in (M, N)]
        axes = [ir.axis(0), ir.axis(1)]
        if self.rng.integers(3) == 0:
            axes.reverse()
        if self.rng.integers(4) == 0:
            axes[1] = axes[1] * -1 + 5
        if self.rng.integers(6) == 0:
            axes[0] = (axes[0] + 3) // 2
        if self.rng.integers(6) == 0:
            axes[1] = axes[1] % 3
        fill = [0, 1.5 if self.dtype.is_floating else 3][self.rng.integers(2)]
        view = ir.View(m, tuple(s + a for s, a in zip(start, axes, strict=True)), (True, True), fill)
        return ir.Load(view, shape)

    def tile(self, shape, depth):
        kind = self.rng.integers(12) if depth else 0
        r, c = shape
        if kind <= 1:
            return self.load(shape)
        if kind <= 4:
            other = (r if self.rng.integers(2) else 1, c if self.rng.integers(2) else 1)
            op = ["add", "mul", "maximum", "minimum", "sub"][self.rng.integers(5)]
            parts = [self.tile(shape, depth - 1), self.tile(other, depth - 1)]
            return ir.Map(op, tuple(parts), self.dtype)
        if kind == 5:
            return ir.Permute(self.tile((c, r), depth - 1), (1, 0))
        if kind == 6:
            low = [int(self.rng.integers(0, 4)) for _ in shape]
            return ir.Slice(self.tile((r + low[0] + 1, c + low[1] + 2), depth - 1), tuple(low), shape)
        if kind == 7:
            axis = int(self.rng.integers(2))
            inner = (int(self.rng.integers(1, 19)), c) if axis == 0 else (r, int(self.rng.integers(1, 300)))
            return ir.Broadcast(
                ir.Fold(["sum", "max", "min"][self.rng.integers(3)], self.tile(inner, depth - 1), axis), shape
            )
        if kind == 8:
            return ir.Prefix(
                ["sum", "max"][self.rng.integers(2)], self.tile(shape, depth - 1), int(self.rng.integers(2))
            )
        if kind == 9:
            k = int([1, 3, 8, 37][self.rng.integers(4)])
            return ir.Dot(self.tile(shape, depth - 1), self.tile((r, k), depth - 1), self.tile((k, c), depth - 1))
        if kind == 10:
            rows = ir.Map("mod", (self.numbers((r, 1), 0), ir.Constant(M, dt.i64)), dt.i64)
            columns = ir.Map("mod", (self.numbers((r, c), 1), ir.Constant(N, dt.i64)), dt.i64)
            mask = ir.Map("lt", (columns, ir.Constant(int(self.rng.integers(N + 3)), dt.i64)), dt.bool_)
            return ir.Gather(
                self.memory[self.rng.integers(4)], (rows, columns), shape, mask if self.rng.integers(2) else None, 2
            )
        name = self.fresh()
        self.bound.append(ir.Let(name, self.tile(shape, depth - 1)))
        return ir.Name(name, shape, self.dtype)

    def numbers(self, shape, axis):
        a = int(self.rng.integers(1, 9))
        return ir.Map(
            "mul",
            (ir.Index(axis, tuple(n if i == axis else 1 for i, n in enumerate(shape)), dt.i64), ir.Constant(a, dt.i64)),
            dt.i64,
        )

    def program(self):
        shape = (int([1, 2, 5, 18][self.rng.integers(4)]), int([1, 3, 8, 17, 50][self.rng.integers(5)]))
        tile = self.tile(shape, 2)
        y = ir.Buffer("y", self.stored, shape, (shape[1], 1), "result", 0)
        z = ir.Buffer("z", self.stored, shape, (shape[1], 1), "result", 1)
        near = ir.Near("near", self.stored, shape)
        here = (ir.axis(0), ir.axis(1))
        again = ir.Map("add", (ir.Load(ir.View(near, here), shape), ir.Name("kept", shape, self.dtype)), self.dtype)
        flipped = ir.Load(ir.View(near, (shape[0] - 1 - ir.axis(0), ir.axis(1))), shape)
        body = [
            near, *self.bound, ir.Let("kept", tile), ir.Put(near, here, ir.Name("kept", shape, self.dtype)),
            ir.Let("before", ir.Load(ir.View(near, here), shape)),
            ir.Put(near, here, ir.Map("add", (flipped, ir.Constant(1, self.dtype)), self.dtype)),
            ir.Store(ir.View(y, here), ir.Name("before", shape, self.dtype)), ir.Store(ir.View(z, here), again),
        ]  # fmt: skip
        buffers = (*self.memory, y, z)
        return ir.Program(
            "tiles", buffers, (ir.Kernel("tiles", buffers, (), (ir.Parallel("p", 0, 1, 1, tuple(body)),)),)
        )

    def arguments(self):
        numbers = (
            self.rng.standard_normal((2 * M, 2 * N))
            if self.dtype.is_floating
            else self.rng.integers(-9, 9, (2 * M, 2 * N))
        )
        x = numbers.astype(self.stored.numpy)
        if self.dtype.is_floating and self.rng.integers(2):
            x[self.rng.integers(0, M, 3), self.rng.integers(0, N, 3)] = np.nan, np.inf, -0.0
        dense = np.ascontiguousarray(x[:M, :N])
        return dense, dense.T.copy().T, dense[::-1, ::-1].copy()[::-1, ::-1], x[::2, ::2]


@pytest.mark.parametrize("dtype", [dt.f32, dt.f64, dt.i32, dt.bf16], ids=str)
@pytest.mark.parametrize("seed", range(8))
def test_tiles(seed, dtype):
    random = Random(seed, dtype)
    program = random.program()
    arguments = random.arguments()
    wanted = interpret(program, *arguments)
    for level in ("x86-64-v3", "x86-64-v4" if seed % 2 else "arm64"):
        results = run(program, *arguments, level=level)
        for result, want in zip(results, wanted, strict=True):
            a, b = result.astype(np.float64), want.astype(np.float64)
            scale = np.max(np.abs(b[np.isfinite(b)]), initial=1.0)
            bound = {"f32": 1e-5, "f64": 1e-13, "i32": 0, "bf16": 2e-2}[dtype.name] * scale
            assert np.array_equal(np.isnan(a), np.isnan(b))
            same = np.isnan(b) | (a == b) | (np.abs(a - b) <= bound)
            assert same.all(), (np.argwhere(~same)[:4], a[~same][:4], b[~same][:4])


@pytest.mark.parametrize("n", [0, 1, 5, 16, 37])
def test_streams_and_conditions(n):
    """A backward stream with a carry of running sums, an If inside, bounds that the code computes."""
    x = ir.Buffer("x", dt.f32, (size("N"),), (1,), "argument", 0)
    y = ir.Buffer("y", dt.f32, (size("N"),), (1,), "result", 0)
    i = size("i")
    load = ir.Load(ir.View(x, (i + ir.axis(0),), (True,)), (8,))
    carry = ir.Name("s", (8,), dt.f32)
    body = (
        ir.Let("v", ir.Map("add", (load, carry), dt.f32)),
        ir.Store(ir.View(y, (i + ir.axis(0),), (True,)), ir.Name("v", (8,), dt.f32)),
        ir.If(ir.Map("lt", (ir.Scalar(i, dt.i64), ir.Constant(8, dt.i64)), dt.bool_),
              (ir.Store(ir.View(y, (i + ir.axis(0),), (True,)), ir.Map("neg", (ir.Name("v", (8,), dt.f32),), dt.f32)),)),
    )  # fmt: skip
    zero = ir.Broadcast(ir.Constant(0.0, dt.f32), (8,))
    stream = ir.Stream(
        "i", 0, minimum(size("N"), 1000), 8, body, (ir.Carry("s", zero, ir.Name("v", (8,), dt.f32)),), "backward"
    )
    kernel = ir.Kernel("sums", (x, y), ("N",), (ir.Parallel("p", 0, 1, 1, (stream,)),))
    program = ir.Program("sums", (x, y), (kernel,), ("N",))
    verify_loops(program)
    data = np.random.default_rng(0).standard_normal(n).astype(np.float32)
    (wanted,) = interpret(program, data, sizes={"N": n})
    (result,) = run(program, data, sizes={"N": n})
    np.testing.assert_array_equal(result, wanted)
