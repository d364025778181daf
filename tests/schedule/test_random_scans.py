"""Random scans give what their NumPy meaning gives, forward and backward, whatever frame they get."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kdsl as kd
from kdsl.ir.meaning import evaluate
from kdsl.transforms.differentiate import vjp
from kdsl.transforms.simplify import simplify

SIZES = (1, 2, 3, 4, 5, 8, 9, 17)


class Step:
    """A random step: two carries of (batch, state) and (batch,) or the like, slices, closures, folds, products."""

    def __init__(self, seed):
        rng = self.rng = np.random.default_rng(seed)
        self.batch, self.state = (int(rng.choice(SIZES)) for _ in "bs")
        self.length = int(rng.choice([0, 1, 2, 3, 7, 8, 9, 17]))
        self.reverse = bool(rng.integers(2))
        self.axis = int(rng.integers(2))
        self.choices = [int(n) for n in rng.integers(0, 14, int(rng.integers(2, 7)))]
        self.returns = int(rng.integers(4))

    def arguments(self, dtype="f8"):
        n, m, t = self.batch, self.state, self.length
        shapes = [(n, m), (n,), _with(t, (n, m), self.axis), _with(t, (n,), self.axis), (m, m), (m,), ()]
        return [(self.rng.standard_normal(s) * 0.6).astype(dtype) for s in shapes]

    def __call__(self, h, s, xs, us, w, bias, scale):
        def step(carry, now):
            h, s = carry
            x, u = now
            for choice in self.choices:
                h, s = self.change(choice, h, s, x, u, w, bias, scale)
            ys = [None, h, (h * x, kd.sum(h, axis=1)), {"s": s, "n": kd.sum(h * x, axis=0)}][self.returns]
            return (h, s), ys

        return kd.scan(step, (h, s), (xs, us), axis=self.axis, reverse=self.reverse)

    def change(self, choice, h, s, x, u, w, bias, scale):
        match choice:
            case 0:
                return kd.tanh(h + x), s
            case 1:
                return h * kd.exp(-(u * u))[:, None] + x * bias, s
            case 2:
                return h, s * 0.5 + kd.sum(h * x, axis=1)
            case 3:
                return h * 0.7 + s[:, None] * bias, s
            case 4:
                return kd.tanh(h @ w), s
            case 5:
                return h, kd.sin(s) + u * scale
            case 6:
                return kd.where(x > 0, h, h * 0.5 - x), s
            case 7:
                return kd.flip(h, axis=1) * 0.8 + x, s
            case 8:
                return h / (1 + kd.sum(h * h, axis=1, keepdims=True)), s
            case 9:
                return h, kd.tanh(s) + kd.max(h, axis=1)
            case 10:
                return kd.concat([h[:, 1:], x[:, :1]], axis=1), s
            case 11:
                return h * 0.9, s + kd.mean(s) * 0.1
            case 12:
                return kd.tanh(h + kd.sum(kd.tanh(x + scale), axis=0)), s
            case _:
                return h * scale + x * u[:, None], s * kd.cos(u)


def _with(n, shape, axis):
    return (*shape[:axis], n, *shape[axis:])


def leaves(x):
    if isinstance(x, dict):
        x = tuple(x.values())
    return [y for part in x for y in leaves(part)] if isinstance(x, tuple) else [] if x is None else [x]


def compare(seed, choices=None, sizes=None):
    step = Step(seed)
    step.choices = choices or step.choices
    step.batch, step.state, step.length = sizes or (step.batch, step.state, step.length)
    args = step.arguments()
    k = kd.kernel(step)
    results = leaves(k(*args))
    for got, want in zip(results, leaves(k.reference(*args)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9, err_msg=f"seed {seed}")
    cotangents = [step.rng.standard_normal(r.shape) for r in results]
    derived = vjp(simplify(k.traced(k.read(args, {})).function))
    want = evaluate(derived, *args, *cotangents)
    _, pullback = k.pullback(*args)
    for got in (k.vjp(*args, *cotangents), pullback(*cotangents)):
        for g, w in zip(got, want, strict=True):
            np.testing.assert_allclose(g, w, rtol=1e-8, atol=1e-8, err_msg=f"seed {seed}")


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 100_000))
def test_random_scans(seed):
    compare(seed)


@pytest.mark.parametrize("seed", [*range(15), 12158])  # the last one stacks zeros along an axis between two others
def test_the_same_random_scans_each_time(seed):
    compare(seed)


@pytest.mark.parametrize("sizes", [(1, 9, 9), (9, 3, 4), (2, 2, 3)])
@pytest.mark.parametrize("choices", [(6, 7), (6, 10, 7, 2), (0, 7), (10, 6)])
def test_a_map_of_the_carry_read_at_another_place(choices, sizes):
    """The carry is read turned or shifted behind maps whose slices are read in place as well: no block has a part of it."""
    compare(2, choices, sizes)
