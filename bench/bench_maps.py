"""How far ahead of torch eager are chains of elementwise functions, and what does a small call cost beside NumPy's?"""

import numpy as np
import pytest

import kdsl as kd
from nn import functional as F

gelu = kd.kernel(F.gelu.function)


def test_gelu(race, torch, array):
    x = array(4096, 1024)
    t, out = torch.from_numpy(x), np.empty_like(x)
    assert np.abs(gelu(x) - torch.nn.functional.gelu(t, approximate="tanh").numpy()).max() < 2e-6
    others = {"torch": lambda: torch.nn.functional.gelu(t, approximate="tanh"), "copy": lambda: np.copyto(out, x)}
    race("GELU of 4M elements", lambda: gelu(x), others, 4.0)


def test_small_call(race, array):
    a, b, c = array(64), array(64), array(64)
    f = kd.kernel(lambda a, b, c: a + b * c)
    assert np.allclose(f(a, b, c), a + b * c)
    race("a + b * c on 64 elements", lambda: f(a, b, c), {"NumPy": lambda: a + b * c}, 1.0)


@pytest.mark.parametrize("axis", [0, 1])
def test_concat(race, array, axis):
    a, b = array(1000, 1000), array(1000, 1000)
    f = kd.kernel(lambda a, b: kd.concat([a, b], axis=axis))
    assert np.array_equal(f(a, b), np.concatenate([a, b], axis))
    race(f"2 x 1M elements concatenated along axis {axis}", lambda: f(a, b), {"NumPy": lambda: np.concatenate([a, b], axis)}, 1.0)
