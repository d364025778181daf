"""How far ahead of torch eager are fused row kernels: softmax, layer norm and its backward, cross-entropy?"""

import numpy as np

import kdsl as kd
from nn import functional as F

softmax = kd.kernel(F.softmax.function)
layer_norm = kd.kernel(F.layer_norm.function)


def close(a, b, tolerance=2e-4):
    a, b = np.asarray(a), np.asarray(b)
    assert np.abs(a - b).max() <= tolerance * max(1.0, np.abs(b).max())


def test_softmax(race, torch, array):
    x = array(4096, 1024)
    t, out = torch.from_numpy(x), np.empty_like(x)
    close(softmax(x), torch.softmax(t, -1))
    race(
        "softmax 4096x1024",
        lambda: softmax(x),
        {"torch": lambda: torch.softmax(t, -1), "copy": lambda: np.copyto(out, x)},
        1.7,
    )


def test_layer_norm(race, torch, array):
    x, w, b = array(4096, 1024), array(1024), array(1024)
    t, u, v = map(torch.from_numpy, (x, w, b))
    close(layer_norm(x, w, b), torch.nn.functional.layer_norm(t, (1024,), u, v))
    race(
        "layer norm forward 4096x1024",
        lambda: layer_norm(x, w, b),
        {"torch": lambda: torch.nn.functional.layer_norm(t, (1024,), u, v)},
        1.2,
    )


def test_layer_norm_backward(race, torch, array):
    x, w, b, dy = array(4096, 1024), array(1024), array(1024), array(4096, 1024)
    t, u, v, g = map(torch.from_numpy, (x, w, b, dy))
    _, mean, rstd = torch.native_layer_norm(t, (1024,), u, v, 1e-5)
    theirs = lambda: torch.ops.aten.native_layer_norm_backward(g, t, (1024,), mean, rstd, u, v, [True] * 3)  # noqa: E731
    _, pullback = layer_norm.pullback(x, w, b)
    for ours, want in zip(pullback(dy), theirs()):
        close(ours, want)
    race("layer norm backward 4096x1024 (dx, dw, db)", lambda: pullback(dy), {"torch": theirs}, 1.0)


def test_cross_entropy(race, torch, array):
    x, targets = array(1024, 50257), np.random.default_rng(1).integers(0, 50257, 1024)

    @kd.kernel
    def cross_entropy(logits, targets):
        nll = kd.logsumexp(logits, axis=-1) - kd.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
        return kd.mean(nll)

    t, i = torch.from_numpy(x), torch.from_numpy(targets)
    scratch = torch.empty_like(t)

    def theirs():
        torch.ops.aten._log_softmax.out(t, -1, False, out=scratch)
        return torch.nn.functional.nll_loss(scratch, i)

    close(cross_entropy(x, targets), theirs(), 1e-5)
    others = {"torch into a given output": theirs, "torch": lambda: torch.nn.functional.cross_entropy(t, i)}
    race("cross-entropy forward 1024x50257", lambda: cross_entropy(x, targets), others, 1.5, rounds=5)
