"""Steps whose channels lie in groups: one axis is walked by the loops around the scan in part, by those of the step in part.

    h:[groups * each, state]     b:[groups, state]     kd.repeat(b, each), or a fold over `each` of what has the channels apart
A block has one group: what it keeps near is of one group, whichever of the two letters of the axis the block stands at.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kdsl as kd
from kdsl.ir.meaning import evaluate
from kdsl.transforms.differentiate import vjp
from kdsl.transforms.simplify import simplify


def repeated(h, b, u, each):
    """The gradient folds over `each` and over the state, and keeps values of [groups * each] and of [groups * each, state]."""

    def step(h, now):
        b, u = now
        h = h * kd.exp(u)[..., None] + kd.repeat(kd.tanh(b), each, axis=1)
        m = kd.sum(h, axis=2)
        return h / (1 + m * m)[..., None], kd.sum(h * h, axis=2)

    return kd.scan(step, h, (b, u))


def inner_groups(h, b, u, each):
    """The same where the groups are the inner letter of the axis."""
    n, groups, state = b.shape[1:]

    def step(h, now):
        b, u = now
        wide = kd.reshape(kd.broadcast_to(kd.tanh(b)[:, None], (n, each, groups, state)), h.shape)
        h = h * kd.exp(u)[..., None] + wide
        m = kd.sum(h, axis=2)
        return h / (1 + m * m)[..., None], kd.sum(h * h, axis=2)

    return kd.scan(step, h, (b, u))


def folded(h, b, u, each):
    """The step itself folds over the channels of a group, and over the state."""
    n, groups, state = b.shape[1:]

    def step(h, now):
        b, u = now
        m = kd.tanh(kd.sum(kd.reshape(h, (n, groups, each, state)), axis=2) * b)
        h = h * kd.exp(u)[..., None] / (1 + kd.sum(h * h, axis=2, keepdims=True)) + kd.repeat(m, each, axis=1)
        return h, kd.sum(h, axis=2)

    return kd.scan(step, h, (b, u))


def arguments(n, groups, each, state, length, dtype="f8"):
    rng = np.random.default_rng(n + 10 * groups + 100 * each)
    shapes = [(n, groups * each, state), (length, n, groups, state), (length, n, groups * each)]
    return [(rng.standard_normal(s) * 0.5).astype(dtype) for s in shapes]


def compare(f, sizes):
    args = arguments(*sizes)
    k = kd.kernel(lambda h, b, u: f(h, b, u, sizes[2]))
    results = k(*args)
    for got, want in zip(results, k.reference(*args), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)
    cotangents = [np.random.default_rng(0).standard_normal(r.shape) for r in results]
    wanted = evaluate(vjp(simplify(k.traced(k.read(args, {})).function)), *args, *cotangents)
    _, pullback = k.pullback(*args)
    for got in (k.vjp(*args, *cotangents), pullback(*cotangents)):
        for g, w in zip(got, wanted, strict=True):
            np.testing.assert_allclose(g, w, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("f", [repeated, inner_groups, folded], ids=lambda f: f.__name__)
@pytest.mark.parametrize("sizes", [(1, 2, 2, 8, 5), (2, 3, 5, 3, 4), (2, 2, 9, 17, 3), (3, 1, 4, 8, 2), (2, 4, 1, 8, 2)])
def test_groups_of_channels(f, sizes):
    compare(f, sizes)


@settings(max_examples=6, deadline=None)
@given(
    st.sampled_from((repeated, inner_groups, folded)),
    st.tuples(*(st.sampled_from((1, 2, 3, 4, 5, 8)) for _ in range(4)), st.sampled_from((0, 1, 2, 9))),
)
def test_any_groups(f, sizes):
    compare(f, sizes)


def test_half_precision():
    """What is summed over a group is rounded in the step: the fold is no result of its own."""

    @kd.kernel
    def k(h, b, u):
        def step(h, now):
            b, u = (kd.astype(x, kd.f32) for x in now)
            h = h * kd.exp(u)[..., None] + kd.repeat(b, 2, axis=1) * u[..., None]
            return h, kd.astype(kd.sum(h * kd.repeat(b, 2, axis=1), axis=2), kd.bf16)

        return kd.scan(step, h, (b, u))

    h, b, u = arguments(2, 3, 2, 8, 5, "f4")
    b, u = b.astype(kd.bf16.numpy), u.astype(kd.bf16.numpy)
    results = k(h, b, u)
    cotangents = [np.ones(r.shape, r.dtype) for r in results]
    want = evaluate(vjp(simplify(k.traced(k.read((h, b, u), {})).function)), h, b, u, *cotangents)
    for g, w in zip(k.vjp(h, b, u, *cotangents), want, strict=True):
        np.testing.assert_allclose(np.asarray(g, "f4"), np.asarray(w, "f4"), rtol=2e-2, atol=2e-2)
