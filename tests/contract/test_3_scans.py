"""Section 3 of the contract: kd.scan and kd.associative_scan."""

from __future__ import annotations

import numpy as np
import pytest

import kdsl as kd
from tests.contract.saying import equal
from tests.tolerance import assert_close

RNG = np.random.default_rng(3)


def _add(carry, x):
    return carry + x, carry * x


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("length", [0, 1, 2, 7, 65])
def test_scan_is_lax_scan(length, axis, reverse):
    """`kd.scan(step, init, xs, axis=0, reverse=False)` is lax.scan: `step(carry, x) -> (carry, y)`"""
    xs = RNG.standard_normal((length, 3) if axis == 0 else (3, length)).astype("f4")
    last, ys = kd.kernel(lambda xs: kd.scan(_add, kd.zeros(3), xs, axis=axis, reverse=reverse))(xs)
    carry, outs = np.zeros(3, "f4"), []
    rows = np.moveaxis(xs, axis, 0)
    for x in rows[::-1] if reverse else rows:
        outs.append(carry * x)
        carry = carry + x
    stacked = np.stack(outs[::-1] if reverse else outs) if outs else np.zeros((0, 3), "f4")
    assert_close(last, carry, operations=length + 1, scale=3)
    assert_close(ys, np.moveaxis(stacked, 0, axis), operations=length + 1, scale=9)


def test_scan_takes_nested_structures():
    """carry, xs, y are tensors or nested tuples, lists, dicts of them; y may be None"""

    @kd.kernel
    def f(a, b):
        def step(carry, x):
            return {"s": carry["s"] + x[0], "t": [carry["t"][0] * x[1]["b"]]}, None

        return kd.scan(step, {"s": kd.zeros(()), "t": [kd.ones(())]}, (a, {"b": b}))

    a, b = np.arange(4, dtype="f4"), np.full(4, 2, "f4")
    carry, ys = f(a, b)
    equal(carry["s"], np.array(6, "f4"))
    equal(carry["t"][0], np.array(16, "f4"))
    assert ys is None


@pytest.mark.parametrize(
    "step", [lambda c, x: (kd.concat([c, c]), x), lambda c, x: (c.astype(kd.f64), x), lambda c, x: ((c, c), x)]
)
def test_the_carry_keeps_structure_shape_and_dtype(step):
    """the carry keeps structure, shape and dtype"""
    with pytest.raises(kd.KdslError):
        kd.kernel(lambda xs: kd.scan(step, kd.zeros(2), xs))(np.ones((3, 2), "f4"))



def test_step_may_use_any_tensor_and_gradients_flow_to_it():
    """step may use any tensor of the enclosing kernel, and gradients flow to it"""

    @kd.kernel
    def f(w, xs):
        last, _ = kd.scan(lambda c, x: (c * w + x, None), kd.zeros(()), xs)
        return last

    xs = np.array([1.0, 2.0, 3.0], "f4")
    dw, dxs = f.vjp(np.float32(0.5), xs, np.float32(1))
    assert_close(dw, np.float32(2 * 0.5 * 1 + 2))
    assert_close(dxs, np.array([0.25, 0.5, 1], "f4"))


def test_length_0_returns_init_and_empty_ys():
    """Length 0 returns init and empty ys"""
    last, ys = kd.kernel(lambda xs: kd.scan(_add, kd.ones(3), xs))(np.ones((0, 3), "f4"))
    equal(last, np.ones(3, "f4"))
    equal(ys, np.ones((0, 3), "f4"))


def test_a_step_is_traced_once():
    """A step is traced once"""
    runs = []

    def step(c, x):
        runs.append(1)
        return c + x, c

    kd.kernel(lambda xs: kd.scan(step, kd.zeros(()), xs))(np.ones(100, "f4"))
    assert len(runs) == 1


@pytest.mark.parametrize("reverse", [False, True])
def test_associative_scan_is_inclusive(reverse):
    """`kd.associative_scan(combine, xs, axis=0, reverse=False)` is inclusive, `combine(earlier, later)`"""
    a, b = RNG.uniform(0.5, 1, 37).astype("f4"), RNG.standard_normal(37).astype("f4")

    def combine(earlier, later):
        return earlier[0] * later[0], earlier[1] * later[0] + later[1]

    got = kd.kernel(lambda a, b: kd.associative_scan(combine, (a, b), reverse=reverse))(a, b)
    h, expected = 0.0, []
    for x, y in list(zip(a, b))[:: -1 if reverse else 1]:
        h = h * x + y
        expected.append(h)
    assert_close(got[1], np.array(expected[:: -1 if reverse else 1], "f4"), operations=37, scale=3)


def test_the_carry_is_compared_by_its_names():
    """the carry keeps structure (whatever order a dict's names are in)"""

    def step(c, x):
        return {"b": c["b"] + x, "a": c["a"] * x}, None

    (got, _) = kd.kernel(lambda xs: kd.scan(step, {"a": kd.ones(()), "b": kd.zeros(())}, xs))(np.array([2, 3], "f4"))
    equal(got["a"], np.array(6, "f4"))
    equal(got["b"], np.array(5, "f4"))
    with pytest.raises(kd.ArgumentError, match="structure"):
        kd.kernel(lambda xs: kd.scan(lambda c, x: ({"a": x}, None), {"a": 0.0, "b": 0.0}, xs))(np.ones(3, "f4"))


@pytest.mark.parametrize("dtype", ["bool", "i8", "i32", "u64", "f16", "bf16", "f32", "f64"])
def test_carries_of_several_dtypes_and_shapes(dtype):
    """carry, xs, y are tensors or nested tuples, lists, dicts of them (of any dtype and shape each)"""
    d = getattr(kd, dtype)

    def step(carry, x):
        seen, (count, largest), off = carry
        return (x, [count + 1, kd.maximum(largest, kd.sum(kd.astype(x, kd.f64)))], ~off), (seen, count)

    k = kd.kernel(lambda xs: kd.scan(step, (kd.zeros(3, dtype=d), [0, kd.full((), -1e9, dtype=kd.f64)], False), xs))
    xs = (np.arange(15).reshape(5, 3) % 2 if dtype == "bool" else np.arange(15).reshape(5, 3)).astype(d.numpy)
    (last, (count, largest), off), (before, counts) = k(xs)
    equal(last, xs[-1])
    equal(before, np.concatenate([np.zeros((1, 3), d.numpy), xs[:-1]]))
    equal(count, np.array(5))
    equal(counts, np.arange(5))
    equal(off, np.array(True))
    equal(largest, xs.astype("f8").sum(1).max())


def test_combine_gives_what_it_takes():
    """`combine(earlier, later)` (tensors of the types that it takes)"""
    n = np.arange(1, 6)
    for wrong in (lambda a, b: a / b, lambda a, b: kd.stack([a, b]), lambda a, b: (a, b)):
        with pytest.raises(kd.KdslError):
            kd.kernel(lambda n, wrong=wrong: kd.associative_scan(wrong, n))(n)


def test_a_step_may_use_an_array_from_outside():
    """An array caught in a closure is a constant (in a step, too)"""
    w = np.array([[0.5, 1], [-1, 0.25]], "f4")
    xs = np.ones((3, 2), "f4")
    last, _ = kd.kernel(lambda xs: kd.scan(lambda c, x: (c @ w + x, None), kd.zeros(2), xs))(xs)
    c = np.zeros(2, "f4")
    for x in xs:
        c = c @ w + x
    assert_close(last, c, operations=12, scale=4)
