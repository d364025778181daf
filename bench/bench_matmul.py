"""Do contractions reach the best library on this machine, and what does fusing bias and GELU into them give?"""

import numpy as np
import pytest

import kdsl as kd
from nn import functional as F

matmul = kd.kernel(lambda a, b: a @ b)


@pytest.mark.parametrize(
    ("m", "k", "n"),
    [
        (128, 128, 128),
        (256, 256, 256),
        (512, 512, 512),
        (1024, 1024, 1024),
        (1024, 192, 576),
        (1024, 192, 768),
        (1024, 768, 192),
        (1024, 768, 768),
    ],
)
def test_matmul(race, torch, array, m, k, n):
    a, b = array(m, k), array(k, n)
    ta, tb, out = torch.from_numpy(a), torch.from_numpy(b), np.empty((m, n), np.float32)
    assert np.abs(matmul(a, b) - a @ b).max() < 1e-3
    to = torch.empty(m, n)
    others = {"torch": lambda: torch.mm(ta, tb, out=to), "NumPy": lambda: np.matmul(a, b, out=out)}
    race(f"matmul {m}x{k} @ {k}x{n}", lambda: matmul(a, b), others, 0.93, work=f"{2 * m * k * n} flop")


def test_linear_gelu(race, torch, array):
    x, w, b = array(1024, 768), array(768, 3072), array(3072)
    f = kd.kernel(lambda x, w, b: F.gelu.function(x @ w + b))
    tx, tw, tb = map(torch.from_numpy, (x, w, b))
    theirs = lambda: torch.nn.functional.gelu(torch.addmm(tb, tx, tw), approximate="tanh")  # noqa: E731
    assert np.abs(f(x, w, b) - theirs().numpy()).max() < 1e-3
    race("gelu(x @ w + b), x 1024x768, w 768x3072", lambda: f(x, w, b), {"torch": theirs}, 1.8)
