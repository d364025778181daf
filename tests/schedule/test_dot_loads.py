"""What a product's kernel reads besides arrays as they lie: random masks, rows by number, padded and joined arrays."""

import math

import numpy as np
import pytest

import kdsl as kd


def attention(q, k, v, seed):
    s = (q @ k.mT) * (1 / math.sqrt(q.shape[-1]))
    i, j = kd.arange(q.shape[-2])[:, None], kd.arange(k.shape[-2])[None, :]
    s = kd.where(j <= i, s, -math.inf)
    e = kd.exp(s - kd.max(s, axis=-1, keepdims=True))
    p = e / kd.sum(e, axis=-1, keepdims=True)
    drawn = kd.random.bernoulli(kd.random.key(seed), 0.8, p.shape)
    return kd.where(drawn, p / 0.8, 0.0) @ v


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(s).astype("f4") for s in shapes]


def far(explained):
    """The arrays with a row of scores for each query that some kernel writes."""
    return [w for k in explained.kernels for w in k.writes if "37, 37" in str(w)]


def test_dropout_of_weights_is_drawn_again_by_every_kernel():
    q, k, v, g = arrays(*[(2, 37, 8)] * 4)
    f, seed = kd.kernel(attention), np.uint32(3)
    f.verify(q, k, v, seed)
    forward, backward = f.explain(q, k, v, seed), f.vjp.explain(q, k, v, seed, g)
    assert not far(forward) and not far(backward)
    assert [x.kind for x in forward.kernels].count("kernel") == 1
    assert len([x for x in backward.kernels if x.kind == "kernel" and len(x.reads) > 2]) == 1


@pytest.mark.parametrize("dropped", ["q", "x"])
def test_dropout_before_and_behind_a_product(dropped):
    def f(q, x, seed):
        drawn = kd.random.bernoulli(kd.random.key(seed), 0.5, q.shape if dropped == "q" else (q.shape[0], x.shape[1]))
        if dropped == "q":
            return kd.where(drawn, q, 0.0) @ x
        return kd.where(drawn, q @ x, 0.0)

    q, x = arrays((13, 7), (7, 19))
    kd.kernel(f).verify(q, x, np.uint32(1))


CASES = {
    "rows by number": (lambda i, table, w: kd.take(table, i, axis=0) @ w, [(20, 33), (33, 18)]),
    "padded rows": (lambda i, x, w: kd.pad(x, ((2, 1), (0, 0))) @ w, [(7, 13), (13, 19)]),
    "padded sum": (lambda i, x, w: kd.pad(x, ((0, 0), (3, 2))) @ w, [(7, 13), (18, 19)]),
    "joined along the sum": (lambda i, x, y, w: kd.concat([x, y], axis=1) @ w, [(7, 13), (7, 9), (22, 18)]),
    "joined rows": (lambda i, x, y, w: kd.concat([x, y], axis=0) @ w, [(7, 9), (5, 9), (9, 18)]),
    "joined columns": (lambda i, x, w, y: x @ kd.concat([w, y], axis=1), [(7, 9), (9, 4), (9, 18)]),
    "a part": (lambda i, x, w: x[:, 2:9] @ w[::-1, 1:], [(7, 13), (7, 19)]),
    "added behind": (lambda i, x, w, y: x @ w + kd.concat([y, y], axis=1), [(7, 9), (9, 18), (7, 9)]),
    "rows by number behind": (lambda i, x, w, table: x @ w + kd.take(table, i[0], axis=0), [(3, 9), (9, 18), (11, 18)]),
    "scores with a bias by distance": (
        lambda i, q, k, table, v: _softmax(
            q @ k.T + kd.take(table, kd.arange(9)[:, None] - kd.arange(9)[None, :] + 8, axis=0)
        )
        @ v,
        [(9, 4), (9, 4), (17,), (9, 5)],
    ),
}


def _softmax(s):
    e = kd.exp(s - kd.max(s, axis=-1, keepdims=True))
    return e / kd.sum(e, axis=-1, keepdims=True)


@pytest.mark.parametrize("case", CASES)
def test_loads(case):
    f, shapes = CASES[case]
    kd.kernel(f).verify(np.array([[3, 0, -2], [5, 5, 10]]), *arrays(*shapes))


@pytest.mark.parametrize("shape", [(0, 5, 7), (1, 3, 1), (5, 4, 16), (6, 8, 17), (7, 9, 33), (37, 5, 50), (61, 1, 2)])
def test_named_sizes(shape):
    m, k, n = shape
    x, w, b = arrays((m, k), (k, n), (n,))
    f = kd.kernel(lambda x, w, b: kd.exp(x @ w) + b, types=(kd.f32["M", "K"], kd.f32["K", "N"], kd.f32["N"]))
    np.testing.assert_allclose(f(x, w, b), np.exp(x @ w) + b, rtol=1e-5, atol=1e-5)


def test_tiles_of_named_rows_are_not_checked():
    f = kd.kernel(lambda x, w: x @ w, types=(kd.f32["M", 32], kd.f32[32, 32]))
    text = f.stages(kd.f32["M", 32], kd.f32[32, 32])["scheduled"]
    assert "store(out" in text and "edge(" not in text


@pytest.mark.parametrize("rows", [1, 6, 23, 24, 25, 30, 31])
@pytest.mark.parametrize("depth", [5, 1200])
def test_few_named_rows_read_the_other_operand_in_place(rows, depth):
    x, w = arrays((rows, depth), (depth, 35))
    f = kd.kernel(lambda x, w: x @ w, types=(kd.f32["M", depth], kd.f32[depth, 35]))
    np.testing.assert_allclose(f(x, w), x @ w, rtol=1e-5, atol=1e-3)


def test_attention_with_named_sizes():
    f = kd.kernel(attention, types=(kd.f32["B", "T", 8], kd.f32["B", "T", 8], kd.f32["B", "T", 8], kd.u32[()]))
    for t in (1, 5, 6, 7, 37, 50):
        q, k, v = arrays(*[(2, t, 8)] * 3)
        seed = np.uint32(5)
        np.testing.assert_allclose(f(q, k, v, seed), kd.kernel(attention)(q, k, v, seed), rtol=1e-5, atol=1e-5)
