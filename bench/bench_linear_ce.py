"""What is a loss over a large vocabulary worth in one kernel? Linear + cross-entropy, its logits stored or walked in blocks."""

import numpy as np

import kdsl as kd


@kd.kernel
def linear(x, w, b):
    return x @ w + b


@kd.kernel
def cross_entropy(s, t):
    return kd.mean(kd.logsumexp(s, axis=-1) - kd.take_along_axis(s, t[:, None], axis=1)[:, 0])


@kd.kernel
def both(x, w, b, t):
    return cross_entropy(linear(x, w, b), t)


def operands(array, torch, n, d, v):
    x, w, b = array(n, d), array(d, v) / np.float32(d**0.5), array(v)
    t = np.random.default_rng(1).integers(0, v, n)
    return (x, w, b, t), tuple(map(torch.from_numpy, (x, w, b, t)))


def test_forward(race, torch, array):
    ours, (x, w, b, t) = operands(array, torch, 1024, 128, 50257)
    theirs = lambda: torch.nn.functional.cross_entropy(torch.addmm(b, x, w), t)  # noqa: E731
    assert abs(float(both(*ours)) - float(theirs())) < 1e-4
    stored = lambda: cross_entropy(linear(*ours[:3]), ours[3])  # noqa: E731
    race("linear + cross-entropy 1024x128x50257", lambda: both(*ours), {"torch": theirs, "logits stored": stored}, 1.5)


def test_forward_and_backward(race, torch, array):
    ours, (x, w, b, t) = operands(array, torch, 1024, 128, 50257)
    leaves = [v.requires_grad_() for v in (x, w, b)]

    def theirs():
        loss = torch.nn.functional.cross_entropy(torch.addmm(b, x, w), t)
        return torch.autograd.grad(loss, leaves)

    def mine():
        _, pullback = both.pullback(*ours)
        return pullback(np.float32(1))

    for got, want in zip(mine(), theirs()):
        assert np.abs(got - want.numpy()).max() <= 1e-4 * np.abs(want.numpy()).max()
    race("linear + cross-entropy forward and backward 1024x128x50257", mine, {"torch": theirs}, 1.5)
