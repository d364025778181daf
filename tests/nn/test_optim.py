"""Optimizers: updates are torch's; state goes round through a dictionary; parameters keep their identity."""

import numpy as np
import pytest

import nn

rng = np.random.default_rng(5)


def parameters(dtypes=("f4", "f4", "f4")):
    shapes = [(3, 5), (7,), ()]
    return [nn.module.Parameter(rng.standard_normal(shape).astype(d)) for shape, d in zip(shapes, dtypes)]


def give_gradients(ps, step):
    for i, p in enumerate(ps):
        g = np.random.default_rng([step, i]).standard_normal(p.shape).astype(p.dtype)
        p.grad = nn.Tensor(g)


def state_of(ps):
    return [p.numpy().copy() for p in ps]


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("SGD", {"lr": 0.1}), ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
        ("AdamW", {"lr": 0.01}), ("AdamW", {"lr": 0.01, "betas": (0.8, 0.95), "weight_decay": 0.1, "eps": 1e-6}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtypes", [("f4", "f4", "f4"), ("f4", "f8", "f4")])
def test_updates_equal_torch(name, settings, dtypes):
    torch = pytest.importorskip("torch")
    ours = parameters(dtypes)
    theirs = [torch.from_numpy(p.numpy().copy()).requires_grad_() for p in ours]
    a, b = getattr(nn.optim, name)(ours, **settings), getattr(torch.optim, name)(theirs, **settings)
    for step in range(5):
        give_gradients(ours, step)
        for p, q in zip(ours, theirs):
            q.grad = torch.from_numpy(np.array(p.grad.numpy()))
        a.step()
        b.step()
    for p, q in zip(ours, theirs):
        np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=2e-5, atol=1e-6)


@pytest.mark.oracle
def test_clipping_equals_torch():
    torch = pytest.importorskip("torch")
    ours = parameters()
    theirs = [torch.from_numpy(p.numpy().copy()).requires_grad_() for p in ours]
    give_gradients(ours, 0)
    for p, q in zip(ours, theirs):
        q.grad = torch.from_numpy(np.array(p.grad.numpy()))
    want = torch.nn.utils.clip_grad_norm_(theirs, 0.5).item()
    optimizer = nn.optim.AdamW(ours, max_norm=0.5)
    optimizer.step()
    assert optimizer.norm == pytest.approx(want, rel=1e-5)
    assert nn.optim.clip_grad_norm_(ours, 0.5) == pytest.approx(want, rel=1e-5)
    for p, q in zip(ours, theirs):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_state_goes_round(name):
    make = getattr(nn.optim, name)
    one, two = parameters(), parameters()
    a = make(one, lr=0.1)
    for step in range(3):
        give_gradients(one, step)
        a.step()
    for p, q in zip(one, two):
        q.data[...] = p.data
    b = make(two, lr=0.1)
    b.load_state_dict(a.state_dict())
    for optimizer, ps in ((a, one), (b, two)):
        give_gradients(ps, 3)
        optimizer.step()
    assert a.steps == b.steps == 4
    for x, y in zip(state_of(one), state_of(two)):
        np.testing.assert_array_equal(x, y)


def test_parameters_without_gradients_stay_and_new_values_are_taken_in():
    ps = parameters()
    optimizer = nn.optim.SGD(ps, lr=1.0, momentum=0.9)
    give_gradients(ps, 0)
    ps[1].grad = None
    before = state_of(ps)
    optimizer.step()
    np.testing.assert_array_equal(ps[1].numpy(), before[1])
    assert not np.array_equal(ps[0].numpy(), before[0])
    ps[0].data = np.full((3, 5), 2.0, np.float32)
    give_gradients(ps, 1)
    kept = optimizer.state_dict()
    optimizer.step()
    v = 0.9 * kept["0.v"] + ps[0].grad.numpy()
    np.testing.assert_allclose(ps[0].numpy(), 2.0 - v, rtol=1e-5, atol=1e-6)


def test_the_cosine_schedule():
    lr = [nn.optim.cosine_schedule(step, 100, 1.0, warmup=10, floor=0.1) for step in range(101)]
    assert lr[0] == pytest.approx(0.1) and lr[9] == pytest.approx(1.0) and lr[10] == pytest.approx(1.0)
    assert lr[55] == pytest.approx(0.55) and lr[100] == pytest.approx(0.1)
    assert lr[10:] == sorted(lr[10:], reverse=True)
