"""Products that are folded along a long axis are walked in blocks: nothing of rows x line is stored, results are the same."""

from __future__ import annotations

import numpy as np
import pytest

import kdsl as kd
from kdsl.ir.meaning import evaluate
from kdsl.ir.verify import verify
from kdsl.target import parse_target
from kdsl.transforms import line_blocks, long_lines
from kdsl.transforms.expand import expand
from kdsl.transforms.simplify import simplify
from tests.language.running import trace
from tests.tolerance import assert_close
from tests.whole import compare, forward, poisoned  # noqa: F401

rng = np.random.default_rng(3)
N, D, V = 13, 24, 101


def normal(*shape):
    return rng.standard_normal(shape).astype("f4")


def softmax_loss(s, t):
    return kd.mean(kd.logsumexp(s, axis=-1) - kd.take_along_axis(s, t[..., None], axis=-1)[..., 0])


def smoothed(s, t):
    m = s - kd.max(s, axis=-1, keepdims=True)
    log_p = m - kd.log(kd.sum(kd.exp(m), axis=-1, keepdims=True))
    return 0.9 * kd.take_along_axis(log_p, t[:, None], axis=-1)[:, 0] + 0.1 * kd.mean(s, axis=-1)


def soft_cap(s, t):
    return softmax_loss(5 * kd.tanh(s / 5), t)


def masked(s, t):
    return softmax_loss(kd.where(kd.arange(V) < 77, s, -np.inf), kd.minimum(t, 76))


def without_maximum(s, t):
    return kd.log(kd.sum(kd.exp(s), axis=-1)), kd.min(s, axis=-1)


def from_below(s, t):
    return kd.sum(kd.exp(2 * (kd.min(s, axis=-1, keepdims=True) - s)), axis=-1)


def plain_maximum(s, t):
    m = kd.max(s, axis=-1, keepdims=True)
    return kd.sum(kd.exp(s - m), axis=-1), kd.any(s > 1, axis=-1), m[:, 0]


HEADS = [softmax_loss, smoothed, soft_cap, masked, without_maximum, from_below, plain_maximum]
LAYERS = {
    "a bias": (lambda x, w, b: x @ w + b, [normal(N, D), normal(D, V), normal(V)]),
    "no bias": (lambda x, w, b: x @ w, [normal(N, D), normal(D, V), normal(V)]),
    "tied": (lambda x, w, b: 0.3 * (x @ w.T), [normal(N, D), normal(V, D), normal(V)]),
    "computed": (lambda x, w, b: kd.tanh(x) @ (w * 2.0) - b, [normal(N, D), normal(D, V), normal(V)]),
}
T = rng.integers(-V, V, N)


@pytest.fixture
def short_blocks(monkeypatch):
    """Lines of any length are long, blocks have 16 or 32 positions."""
    monkeypatch.setattr(long_lines, "_is_long", lambda line, target: isinstance(line.product.result.shape[line.axis], int))
    monkeypatch.setattr(line_blocks, "block_length", lambda line, target: 16 if line.length % 16 else 32)


def traced(f, *arrays):
    return trace(f, *arrays)[0]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("head", HEADS)
def test_blocks_keep_the_meaning(head, layer, short_blocks, poisoned):  # noqa: F811
    make, arrays = LAYERS[layer]
    f = traced(lambda x, w, b, t: head(make(x, w, b), t), *arrays, T)
    core = expand(simplify(f))
    done = line_blocks.line_blocks(core, parse_target("cpu"))
    verify(done)
    assert all(e.result.shape != (N, V) for e in done.equations), done
    every = [*arrays, T]
    for got, expected in zip(evaluate(done, *every), evaluate(f, *every), strict=True):
        assert_close(got, expected, "float32", operations=200, scale=1.0)
    compare(forward(f, every), f, every)


@pytest.mark.parametrize("head", [softmax_loss, plain_maximum])
def test_infinities(head, short_blocks):
    """Rows and blocks that are -inf throughout, inf and NaN give what NumPy gives."""
    make, (x, w, b) = LAYERS["a bias"]
    f = traced(lambda x, w, b, t: head(make(x, w, b), t), x, w, b, T)
    f = expand(simplify(f))
    done = line_blocks.line_blocks(f, parse_target("cpu"))
    for change in ((slice(None), -np.inf), (slice(16, 48), -np.inf), (40, np.inf), (99, np.nan), (slice(1, None), -300.0)):
        c = b.copy()
        c[change[0]] = change[1]
        with np.errstate(all="ignore"):
            for got, expected in zip(evaluate(done, x, w, c, T), evaluate(f, x, w, c, T), strict=True):
                assert_close(got, expected, "float32", operations=200, scale=1.0)
    with np.errstate(all="ignore"):
        for got, expected in zip(evaluate(done, x * 30, w, b, T), evaluate(f, x * 30, w, b, T), strict=True):
            assert_close(got, expected, "float32", operations=2000, scale=100.0)


REFUSED = [
    lambda s, t: kd.exp(s - kd.max(s, axis=-1, keepdims=True)),  # stored
    lambda s, t: kd.argmax(s, axis=-1),
    lambda s, t: kd.max(s, axis=0),  # along the rows too
    lambda s, t: kd.sum(kd.exp(s - kd.mean(s, axis=-1, keepdims=True)), axis=-1),  # a mean is no bound
    lambda s, t: kd.sum((s - kd.max(s, axis=-1, keepdims=True)) ** 2, axis=-1),  # no factor
    lambda s, t: kd.sum(kd.exp(s - kd.max(s, axis=-1)[::-1, None]), axis=-1),  # another row's maximum
]


@pytest.mark.parametrize("head", REFUSED)
def test_what_wants_the_line_whole_is_stored(head, short_blocks):
    make, arrays = LAYERS["a bias"]
    f = traced(lambda x, w, b, t: head(make(x, w, b), t), *arrays, T)
    core = expand(simplify(f))
    assert line_blocks.line_blocks(core, parse_target("cpu")) is core
    compare(forward(f, [*arrays, T]), f, [*arrays, T])


def test_no_logits_of_a_large_vocabulary():
    def loss(x, w, b, t):
        return softmax_loss(x @ w + b, t)

    types = kd.f32[2048, 64], kd.f32[64, 50257], kd.f32[50257], kd.i64[2048]
    found = kd.kernel(loss).explain(*types)
    assert max(map(largest, stored(found))) < 2048 * 256
    few = kd.kernel(loss).explain(kd.f32[64, 64], kd.f32[64, 1000], kd.f32[1000], kd.i64[64])
    assert max(map(largest, stored(few))) == 64 * 1000  # small enough to be stored


def stored(found):
    return [s for k in found.kernels if k.kind == "kernel" for s in k.stored_intermediates]


def largest(text):
    return int(np.prod([int(n) for n in text.split("[")[1].rstrip("]").split(",") if n.strip()]))


@pytest.mark.parametrize("rows", [0, 1, 5, 31])
def test_named_rows(rows, short_blocks):
    def loss(x: kd.f32["B", "T", D], w: kd.f32[V, D], t: kd.i64["B", "T"]):
        s = x @ w.T
        return kd.sum(kd.logsumexp(s, axis=-1) - kd.take_along_axis(s, t[..., None], axis=-1)[..., 0])

    x, w, t = normal(rows, 7, D), normal(V, D), rng.integers(0, V, (rows, 7))
    kd.kernel(loss).verify(x, w, t)


def test_index_errors_are_kept(short_blocks):
    make, arrays = LAYERS["a bias"]
    with pytest.raises(kd.OutOfRangeError):
        kd.kernel(lambda x, w, b, t: softmax_loss(make(x, w, b), t))(*arrays, np.full(N, V))
