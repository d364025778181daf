"""Which equations share a kernel: the fusions that users are promised, on programs that no pattern knows."""

from __future__ import annotations

import numpy as np
import pytest

import kdsl as kd
from kdsl import pipeline
from kdsl.transforms import judge as judge_module
from kdsl.transforms.group import group
from kdsl.transforms.plan import plan
from tests.schedule.grouped import agrees

rng = np.random.default_rng(0)
N, D = 37, 100


def normal(*shape):
    return rng.standard_normal(shape).astype("f4")


def softmax(x):
    e = kd.exp(x - kd.max(x, axis=-1, keepdims=True))
    return e / kd.sum(e, axis=-1, keepdims=True)


def softmax_without_maximum(x, b):
    e = kd.exp(kd.tanh(x + b) * 4)
    return e / kd.sum(e, axis=-1, keepdims=True)


def log_softmax(x):
    m = x - kd.max(x, axis=-1, keepdims=True)
    return m - kd.log(kd.sum(kd.exp(m), axis=-1, keepdims=True))


def softmax_down(x):
    e = kd.exp(x - kd.max(x, axis=0, keepdims=True))
    return e / kd.sum(e, axis=0, keepdims=True)


def layer_norm(x, w, b):
    c = x - kd.mean(x, axis=-1, keepdims=True)
    return c * kd.rsqrt(kd.mean(c * c, axis=-1, keepdims=True) + 1e-5) * w + b


def rms_norm(x, w):
    return x * kd.rsqrt(kd.mean(x * x, axis=-1, keepdims=True) + 1e-5) * w


def cross_entropy(x, t):
    m = kd.max(x, axis=-1, keepdims=True)
    total = kd.log(kd.sum(kd.exp(x - m), axis=-1)) + m[:, 0]
    return kd.mean(total - kd.take_along_axis(x, t[:, None], axis=1)[:, 0])


def cross_entropy_by_hit(x, t):
    m = kd.max(x, axis=-1, keepdims=True)
    hit = kd.sum(kd.where(kd.arange(D)[None, :] == t[:, None], x, 0.0), axis=-1)
    return kd.mean(kd.log(kd.sum(kd.exp(x - m), axis=-1)) + m[:, 0] - hit)


def gelu(x, b):
    x = x + b
    return 0.5 * x * (1 + kd.tanh(0.7978845608 * (x + 0.044715 * x * x * x)))


def batch_norm(x):
    c = x - kd.mean(x, axis=(0, 2), keepdims=True)
    return c * kd.rsqrt(kd.mean(c * c, axis=(0, 2), keepdims=True) + 1e-5)


def rotary(x, c):
    return x * c + kd.concat([-x[:, D // 2 :], x[:, : D // 2]], axis=1)


X, W, T = normal(N, D), normal(D), rng.integers(0, D, N)
PROGRAMS = [
    (softmax, [X]), (softmax_without_maximum, [X, W]), (log_softmax, [X]), (softmax_down, [X]), (layer_norm, [X, W, W]),
    (rms_norm, [X, W]), (cross_entropy, [X, T]), (cross_entropy_by_hit, [X, T]), (gelu, [X, W]), (batch_norm, [normal(4, 6, 35)]),
    (rotary, [X, X]), (lambda x, y: x + y.T, [normal(33, 40), normal(40, 33)]),
]  # fmt: skip


def count(grouping):
    return sum(p.kind == "kernel" for p in grouping.plans)


@pytest.mark.parametrize("function, arrays", PROGRAMS, ids=lambda x: getattr(x, "__name__", ""))
def test_forward_is_one_kernel_and_right(function, arrays, monkeypatch, tmp_path):
    monkeypatch.setenv("KDSL_CACHE_DIR", str(tmp_path))  # nothing is found: it is grouped now
    seen = []
    monkeypatch.setattr(pipeline, "group", lambda f, *rest: seen.append(f) or group(f, *rest))
    pipeline._programs.clear()
    kd.kernel(function)(*arrays)
    f = seen[-1]
    grouping = agrees(list(f.parameters), list(f.equations), list(f.results), arrays)
    assert count(grouping) == 1, [r.reason for r in grouping.refusals]


@pytest.mark.parametrize("function, arrays", PROGRAMS, ids=lambda x: getattr(x, "__name__", ""))
def test_backward_is_one_kernel_and_right(function, arrays, monkeypatch, tmp_path):
    monkeypatch.setenv("KDSL_CACHE_DIR", str(tmp_path))
    seen = []
    monkeypatch.setattr(pipeline, "group", lambda f, *rest: seen.append(f) or group(f, *rest))
    k = kd.kernel(function)
    cotangent = normal(*np.shape(k(*arrays)))
    pipeline._programs.clear()
    k.vjp(*arrays, cotangent)
    f = seen[-1]
    grouping = agrees(list(f.parameters), list(f.equations), list(f.results), [*arrays, cotangent])
    assert count(grouping) == 1, [r.reason for r in grouping.refusals]


def block(x, w1, b1, wq, wk, wv, wo, w2, b2, wf, bf, wp):
    """A transformer's block: what a model's programs are made of."""
    heads = lambda y: kd.permute_dims(kd.reshape(y, (2, 8, 3, 4)), (0, 2, 1, 3))  # noqa: E731
    h = layer_norm(x, w1, b1)
    scores = heads(h @ wq) @ heads(h @ wk).mT
    mask = kd.arange(8)[None, :] <= kd.arange(8)[:, None]
    mixed = softmax(kd.where(mask, scores, -np.inf)) @ heads(h @ wv)
    x = x + kd.reshape(kd.permute_dims(mixed, (0, 2, 1, 3)), (2, 8, 12)) @ wo
    return x + gelu(layer_norm(x, w2, b2) @ wf, bf) @ wp


def test_grouping_asks_for_few_plans(monkeypatch, tmp_path):
    monkeypatch.setenv("KDSL_CACHE_DIR", str(tmp_path))
    seen, asked = [], []
    monkeypatch.setattr(pipeline, "group", lambda f, *rest: seen.append(f) or group(f, *rest))
    monkeypatch.setattr(judge_module, "plan", lambda *a, **k: asked.append(1) or plan(*a, **k))
    shapes = [(2, 8, 12), (12,), (12,), *[(12, 12)] * 4, (12,), (12,), (12, 48), (48,), (48, 12), (2, 8, 12)]
    kd.kernel(block).vjp.stages(*(kd.f32[s] for s in shapes))["grouped"]
    assert len(asked) < len(seen[-1].equations)


VIEWS = [
    (lambda x, y: kd.exp(x.T) * y, (40, 33), (33, 40)),
    (lambda x, y: kd.sum(kd.exp(x[1:, ::2]) * y, axis=-1), (41, 66), (40, 33)),
    (lambda x, y: kd.tanh(x[::-1] + y), (40, 33), (40, 33)),
    (lambda x, y: kd.tanh(kd.concat([x, y], axis=-1)) * 2, (40, 33), (40, 20)),
    (lambda x, y: kd.sum(kd.tanh(kd.concat([x, y], axis=0)), axis=0), (40, 33), (20, 33)),
    (lambda x, y: kd.exp(kd.stack([x, y], axis=1)), (40, 33), (40, 33)),
]


@pytest.mark.parametrize("function, first, second", VIEWS)
def test_views_are_never_copied(function, first, second):
    (kernel,) = kd.kernel(function).explain(kd.f32[first], kd.f32[second]).kernels
    assert len(kernel.reads) == 2 and len(kernel.writes) == 1


def test_finishers_of_equal_shapes_share_a_kernel():
    types = kd.f32[512, 100], kd.f32[100], kd.f32[100], kd.f32[512, 100]
    kinds = [k.kind for k in kd.kernel(layer_norm).vjp.explain(*types).kernels]
    assert kinds == ["kernel", "finisher"]


def test_a_map_of_finished_sums_adds_their_parts():
    """Two sums of different kinds, their quotient, a sum that is a result too: one kernel and one finisher."""

    def f(x, m):
        total, count = kd.sum(kd.where(m, x, 0.0)), kd.sum(m)
        return total / count, total

    x, m = normal(70_000), rng.random(70_000) < 0.5
    found = kd.kernel(f).explain(x, m)
    assert [k.kind for k in found.kernels] == ["kernel", "finisher"] and len(found.kernels[1].writes) == 2
    kd.kernel(f).verify(x, m)


def test_maps_of_single_numbers_are_repeated():
    """1 / t is computed by every kernel that wants it; nobody stores it."""

    def f(x, t):
        r = kd.exp(1.0 / t) + t
        return softmax(x * r), kd.sum(x.T * r, axis=0)

    found = kd.kernel(f).explain(normal(N, D), np.float32(2))
    assert not found.stored_intermediates
    kd.kernel(f).verify(normal(N, D), np.float32(2))


GATHERS = [
    lambda x, i: kd.take_along_axis(log_softmax(x), i[:, None], axis=1),
    lambda x, i: kd.sum(kd.take(softmax(x), i[:9], axis=1), axis=1),
    lambda x, i: kd.exp(x)[:, i[3]] - kd.sum(x, axis=1),
    lambda x, i: kd.take_along_axis(kd.exp(x) * kd.max(x, axis=1, keepdims=True), i[:, None], axis=1) + kd.sum(x),
]


@pytest.mark.parametrize("function", GATHERS)
def test_gathers_from_maps_are_gathers_from_their_inputs(function):
    x, i = normal(N, D), rng.integers(-D, D, N)
    stored = kd.kernel(function).explain(x, i).stored_intermediates
    assert all("37, 100" not in s for s in stored), stored
    kd.kernel(function).verify(x, i)
    with pytest.raises(kd.OutOfRangeError):
        kd.kernel(function)(x, np.full_like(i, D))


GRADIENTS_OF_VIEWS = [
    (lambda x, y: kd.tanh(kd.concat([x, y], axis=1)), (24, 30), (24, 50), 2),
    (lambda x, y: kd.tanh(kd.concat([x, y.T], axis=0)), (30, 24), (24, 50), 2),
    (lambda x, y: kd.exp(x[:, ::-3]) * y, (24, 90), (24, 30), 2),
    (lambda x, y: (kd.exp(x[:, ::2]) * y, kd.sin(x[:, 1::2])), (24, 90), (24, 45), 2),
    (lambda x, y: sum(kd.tanh(t) * y for t in kd.split(x, 3, axis=1)), (24, 90), (24, 30), 2),
    (lambda x, y: x * y + kd.concat([-x[:, 50:], x[:, :50]], axis=1), (24, 100), (24, 100), 1),
]


@pytest.mark.parametrize("function, first, second, most", GRADIENTS_OF_VIEWS)
def test_gradients_of_views_are_never_copied(function, first, second, most):
    kernel, arrays = kd.kernel(function), [normal(*first), normal(*second)]
    results = kernel.reference(*arrays)
    results = results if isinstance(results, tuple) else (results,)
    found = kernel.vjp.explain(*arrays, *(normal(*r.shape) for r in results))
    assert len(found.kernels) <= most and all(k.operations for k in found.kernels), str(found)  # none that only moves
    kernel.verify(*arrays)


def test_masked_cross_entropy_is_one_kernel_either_way():
    """A pullback keeps the count of the rows that matter: its backward waits for nothing."""

    def loss(x, t):
        keep = t != 3
        each = kd.logsumexp(x, axis=-1) - kd.take_along_axis(x, t[:, None], axis=1)[:, 0]
        return kd.sum(kd.where(keep, each, 0.0)) / kd.sum(keep)

    found = kd.kernel(loss).pullback.explain(normal(N, D), rng.integers(0, D, N))
    assert [k.kind for k in found.kernels].count("kernel") == 2
