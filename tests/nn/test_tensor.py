"""nn.Tensor: values and gradients are torch's."""

import numpy as np
import pytest

import nn

rng = np.random.default_rng(0)


def array(*shape):
    return rng.standard_normal(shape).astype("f4")


def test_gradients_add_up_over_uses_and_calls():
    x = nn.Tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = (x * x).sum() + (3.0 * x).sum()
    y.backward()
    np.testing.assert_allclose(x.grad.numpy(), [5.0, 7.0, 9.0], rtol=1e-6)
    (x * 2.0).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [7.0, 9.0, 11.0], rtol=1e-6)


def test_micrograd_more_ops():
    """micrograd's README expression: g = 24.7041, dg/da = 138.8338, dg/db = 645.5773."""
    a, b = (nn.Tensor(np.array(v), requires_grad=True) for v in (-4.0, 2.0))
    c = a + b
    d = a * b + b**3
    c = c + c + 1
    c = c + 1 + c + (-a)
    d = d + d * 2 + (b + a).relu()
    d = d + 3 * d + (b - a).relu()
    e = c - d
    f = e**2
    g = f / 2.0
    g = g + 10.0 / f
    g.backward()
    assert f"{g.item():.4f} {a.grad.item():.4f} {b.grad.item():.4f}" == "24.7041 138.8338 645.5773"


def test_backward_of_many_elements_needs_a_gradient():
    with pytest.raises(RuntimeError, match="needs a gradient"):
        (nn.Tensor([1.0, 2.0], requires_grad=True) * 2.0).backward()


def test_no_grad_keeps_no_tape():
    x = nn.Tensor([1.0], requires_grad=True)
    with nn.no_grad():
        y = x * 2.0
    assert not y.requires_grad and y.node is None


def test_numpy_never_asks_for_detach_and_item_is_a_number():
    x = nn.Tensor([1.5], requires_grad=True) * 2.0
    assert x.numpy().tolist() == [3.0]
    assert type(x.item()) is float


def test_a_long_tape_does_not_recurse():
    x = nn.Tensor([1.0], requires_grad=True)
    y = x
    for _ in range(3000):
        y = y + 1.0
    y.backward()
    assert x.grad.numpy().tolist() == [1.0]


@pytest.mark.oracle
@pytest.mark.parametrize(
    "expression",
    [
        "a + b", "a - b", "a * b", "a / b", "a ** 3", "2.0 - a", "1.0 / b", "-a", "a.exp()", "b.log()",
        "b.sqrt()", "a.tanh()", "a.sigmoid()", "a.relu()", "a.sum()", "a.sum(0)", "a.mean(1, True)",
        "a.reshape(12)", "a.permute(1, 0)", "a[1:, ::2]", "a[2]", "a @ c", "a.abs()", "a.amax(1)", "a + d",
        "d * a",
    ],
)  # fmt: skip
def test_operators_equal_torch(expression):
    torch = pytest.importorskip("torch")
    arrays = {"a": array(3, 4), "b": np.abs(array(3, 4)) + 0.5, "c": array(4, 5), "d": array(4)}
    ours = {k: nn.Tensor(v, requires_grad=True) for k, v in arrays.items()}
    theirs = {k: torch.from_numpy(v.copy()).requires_grad_() for k, v in arrays.items()}
    y, t = eval(expression, {}, ours), eval(expression, {}, theirs)
    np.testing.assert_allclose(y.numpy(), t.detach().numpy(), rtol=2e-5, atol=2e-6)
    g = array(*y.shape)
    y.backward(g)
    t.backward(torch.from_numpy(np.asarray(g)))
    for k in arrays:
        if theirs[k].grad is None:
            assert ours[k].grad is None
        else:
            np.testing.assert_allclose(ours[k].grad.numpy(), theirs[k].grad.numpy(), rtol=2e-5, atol=2e-6)


def test_lists_scalars_and_half_precision():
    assert nn.Tensor([[1, 2], [3, 4]]).dtype == np.int64
    assert nn.Tensor([1.0, 2.0]).dtype == np.float32
    assert nn.Tensor(np.float64(2.0)).dtype == np.float64
    x = nn.Tensor(3.0, requires_grad=True)
    assert x.shape == () and x.numel() == 1 and float(x) == 3.0
    (x * x * x).backward()
    assert x.grad.item() == 27.0
    h = nn.Tensor([1.0, -2.0, 3.0], requires_grad=True, dtype="bf16")
    y = (h * h).sum()
    y.backward()
    assert h.dtype.name == y.dtype.name == h.grad.dtype.name == "bfloat16"
    assert y.item() == 14.0 and h.grad.astype("f32").tolist() == [2.0, -4.0, 6.0]
    assert nn.Tensor([1.0, 2.0]).astype("f64").dtype == np.float64


def test_gradients_go_through_casts_and_stay_away_from_integers():
    x = nn.Tensor([1.0, 2.0], requires_grad=True)
    x.astype("f64").sum().backward()
    assert x.grad.dtype == np.float32 and x.grad.tolist() == [1.0, 1.0]
    assert not (x > 1.5).requires_grad and (x > 1.5).tolist() == [False, True]
    assert x[nn.Tensor([1, 1, 0])].tolist() == [2.0, 2.0, 1.0]


def test_repr_says_values_and_whether_gradients_flow():
    assert repr(nn.Tensor([1.0, 2.5])) == "Tensor([1. , 2.5])"
    assert repr(nn.Tensor([1.0], requires_grad=True)) == "Tensor([1.], requires_grad=True)"
