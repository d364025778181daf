"""nn on a real GPU: the CPU's losses, generated ids, and no waiting in between."""

from __future__ import annotations

import numpy as np
import pytest

import nn
from tests.nn.test_devices import classified, gpt, letters, points, read, train

pytestmark = pytest.mark.gpu
CASES = {
    "mlp": (lambda: nn.MLP(3, [32, 2]), classified, lambda step: points(step, 64)),
    "gpt": (gpt, read, letters),
    "mamba": (lambda: nn.Mamba(nn.MambaConfig(11, d_model=32, n_layer=2, d_state=8)), read, letters),
}


@pytest.mark.parametrize("name", CASES)
def test_losses_are_the_cpus(name):
    make, loss_of, batch = CASES[name]
    want, *_ = train(make, loss_of, batch, 5, "cpu", max_norm=1.0)
    got, model, _ = train(make, loss_of, batch, 5, "cuda", max_norm=1.0)
    np.testing.assert_allclose(got, want, rtol=2e-4)
    assert model.device == "cuda:0"


def test_generated_ids_are_the_cpus():
    nn.manual_seed(1)
    model = gpt()
    ids = letters(5, time=6)[0]
    want = model.generate(ids, 5)
    np.testing.assert_array_equal(model.to("cuda").generate(ids, 5), want)
