"""nn.functional and the layers: values and gradients are torch's."""

import numpy as np
import pytest

import nn
from nn import functional as F
from tests.nn.comparing import array, compare, rng

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("shape", [(4, 8), (2, 3, 17), (5, 1), (7, 64)])
def test_activations_and_softmax(shape):
    x = array(*shape)
    compare(F.relu, torch.relu, x)
    compare(F.gelu, lambda x: torch.nn.functional.gelu(x, approximate="tanh"), x)
    compare(F.silu, torch.nn.functional.silu, x)
    compare(F.softmax, lambda x: torch.softmax(x, -1), x)
    compare(F.log_softmax, lambda x: torch.log_softmax(x, -1), x)


@pytest.mark.parametrize("shape", [(4, 8), (2, 3, 17), (33, 64)])
def test_norms(shape):
    x, w, b = array(*shape), array(shape[-1]), array(shape[-1])
    compare(F.layer_norm, lambda x, w, b: torch.nn.functional.layer_norm(x, w.shape, w, b), x, w, b)
    compare(F.rms_norm, lambda x, w: torch.nn.functional.rms_norm(x, w.shape, w, 1e-5), x, w)


@pytest.mark.parametrize("shape", [(4, 8), (2, 3, 17), (50, 31)])
def test_linear(shape):
    x, w, b = array(*shape), array(13, shape[-1]), array(13)
    compare(F.linear, torch.nn.functional.linear, x, w, b)
    compare(F.linear, torch.nn.functional.linear, x, w)
    compare(F.linear_activation, lambda x, w, b: torch.nn.functional.gelu(x @ w.T + b, approximate="tanh"), x, w, b)
    for name in ("gelu", "relu", "silu"):
        ours, theirs = F.linear_activation, getattr(torch.nn.functional, name)
        compare(lambda *a: ours(*a, activation=name), lambda x, w, b: theirs(x @ w.T + b), x, w, b)  # noqa: B023


def test_linear_residual_is_the_sum_and_its_dropout_has_one_mask():
    x, w, b, r = array(3, 7, 12), array(5, 12), array(5), array(3, 7, 5)
    compare(F.linear_residual, lambda x, w, b, r: r + torch.nn.functional.linear(x, w, b), x, w, b, r)
    nn.manual_seed(0)
    key, step = F.generator.draw()
    mask = F.dropout(np.ones((3, 7, 5), np.float32), key, step, p=0.5).numpy()
    t = torch.from_numpy(mask)
    compare(
        lambda x, w, b, r: F.linear_residual(x, w, b, r, key, step, p=0.5),
        lambda x, w, b, r: r + torch.nn.functional.linear(x, w, b) * t,
        x, w, b, r,
    )  # fmt: skip


def test_embedding_adds_the_gradients_of_equal_ids():
    ids, table = rng.integers(0, 10, (3, 7)), array(10, 5)
    compare(F.embedding, torch.nn.functional.embedding, ids, table)


@pytest.mark.parametrize(("b", "t", "heads", "d"), [(2, 11, 3, 16), (1, 1, 2, 4), (2, 33, 2, 32), (3, 64, 1, 8)])
def test_causal_attention(b, t, heads, d):
    def theirs(qkv):
        q, k, v = (x.reshape(b, t, heads, d).transpose(1, 2) for x in qkv.split(heads * d, -1))
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return y.transpose(1, 2).reshape(b, t, heads * d)

    compare(lambda x: F.causal_attention(x, heads=heads), theirs, array(b, t, 3 * heads * d), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("v", [3, 65, 1000])
def test_cross_entropy_ignores_minus_one(v):
    x, t = array(4, 6, v), rng.integers(0, v, (4, 6))
    t[0, :3] = -1
    y = nn.Tensor(x, requires_grad=True)
    z = torch.from_numpy(x.copy()).requires_grad_()
    loss = F.cross_entropy(y, t)
    want = torch.nn.functional.cross_entropy(z.reshape(-1, v), torch.from_numpy(t).reshape(-1), ignore_index=-1)
    assert loss.item() == pytest.approx(want.item(), rel=1e-5)
    loss.backward()
    want.backward()
    np.testing.assert_allclose(y.grad.numpy(), z.grad.numpy(), rtol=1e-4, atol=1e-7)


def test_dropout_keeps_the_share_and_the_gradient_has_the_mask():
    nn.manual_seed(0)
    x = nn.Tensor(np.ones((100, 100), np.float32), requires_grad=True)
    key, step = F.generator.draw()
    y = F.dropout(x, key, step, p=0.25)
    values = set(np.unique(y.numpy()).tolist())
    assert values == {0.0, np.float32(1 / 0.75)}
    assert abs(np.mean(y.numpy() == 0) - 0.25) < 0.02
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.numpy())
    np.testing.assert_array_equal(F.dropout(x, key, step, p=0.25).numpy(), y.numpy())
