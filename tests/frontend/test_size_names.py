"""Any identifier may name a size, also those that schedules give their loops."""

import numpy as np
import pytest

import kdsl as kd

NAMES = [("t", "p"), ("o0", "s0"), ("rb", "kb"), ("one", "b_0"), ("r_0", "j_0"), ("x_0", "t_0"), ("N", "M")]


@pytest.mark.parametrize(("first", "second"), NAMES)
def test_names_of_sizes_are_the_users(first, second):
    x = np.linspace(-1, 1, 7 * 9, dtype="f4").reshape(7, 9)
    programs = [
        kd.kernel(lambda x: kd.exp(x @ x.T) @ x, types={"x": kd.f32[first, second]}),
        kd.kernel(lambda x: x - kd.max(x, axis=-1, keepdims=True), types={"x": kd.f32[first, second]}),
        kd.kernel(lambda x: (x + x.shape[0]).T, types={"x": kd.f32[first, second]}),
    ]
    for f in programs:
        np.testing.assert_allclose(f(x), f.reference(x), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(f(x[:5]), f.reference(x[:5]), rtol=1e-5, atol=1e-6)
