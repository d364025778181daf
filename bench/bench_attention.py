"""Is the derived causal attention, forward and backward, ahead of torch's scaled_dot_product_attention?"""

import math

import numpy as np
import pytest

import kdsl as kd
from nn import functional as F


@kd.kernel
def attention(q, k, v):
    s = (q @ k.mT) * (1 / math.sqrt(q.shape[-1]))
    i, j = kd.arange(q.shape[-2])[:, None], kd.arange(q.shape[-2])[None, :]
    return F.softmax.function(kd.where(j <= i, s, -math.inf)) @ v


SHAPES = pytest.mark.parametrize(("h", "t", "d"), [(24, 256, 64), (12, 1024, 64)])


@SHAPES
def test_forward(race, torch, array, h, t, d):
    q, k, v = (array(h, t, d) for _ in range(3))
    tq, tk, tv = (torch.from_numpy(x[None]) for x in (q, k, v))
    theirs = lambda: torch.nn.functional.scaled_dot_product_attention(tq, tk, tv, is_causal=True)  # noqa: E731
    assert np.abs(attention(q, k, v) - theirs().numpy()[0]).max() < 1e-4
    race(f"causal attention forward ({h}, {t}, {d})", lambda: attention(q, k, v), {"torch SDPA": theirs}, 2.5, rounds=9)


@SHAPES
def test_forward_and_backward(race, torch, array, h, t, d):
    q, k, v, g = (array(h, t, d) for _ in range(4))
    tq, tk, tv = (torch.from_numpy(x[None]).requires_grad_() for x in (q, k, v))
    tg = torch.from_numpy(g[None])

    def theirs():
        tq.grad = tk.grad = tv.grad = None
        torch.nn.functional.scaled_dot_product_attention(tq, tk, tv, is_causal=True).backward(tg)
        return tq.grad, tk.grad, tv.grad

    def ours():
        _, pullback = attention.pullback(q, k, v)
        return pullback(g)

    for a, b in zip(ours(), theirs()):
        assert np.abs(a - b.numpy()[0]).max() < 1e-3
    race(f"causal attention forward and backward ({h}, {t}, {d})", ours, {"torch SDPA": theirs}, 2.0, rounds=7)
