"""One token of one sequence has kernels of its own: the same numbers, nothing compiled later, and no part passed by."""

import numpy as np
import pytest

import kdsl as kd
import nn
from nn.layers import Linear
from nn.mamba import MambaBlock
from nn.module import Parameter
from nn.normalisation import LayerNorm

MODELS = {
    "Mamba": (nn.Mamba, lambda: nn.MambaConfig(vocab_size=31, d_model=24, n_layer=2, bias=True, d_state=5)),
    "Mamba-2": (nn.Mamba2, lambda: nn.Mamba2Config(vocab_size=31, d_model=24, n_layer=2, head_dim=12, d_state=4, chunk_size=8)),
}
IDS = np.random.default_rng(0).integers(0, 31, (1, 12))


def made(name):
    kind, config = MODELS[name]
    return kind(config())


def stepwise(model, ids):
    logits, state = model.step(ids[:, :3])
    out = [logits]
    for t in range(3, ids.shape[1]):
        logits, state = model.step(ids[:, t : t + 1], state)
        out.append(logits)
    return np.concatenate(out, 1)


@pytest.mark.parametrize("name", MODELS)
def test_token_by_token_is_the_parallel_form(name):
    model = made(name)
    whole = model(IDS).numpy()
    np.testing.assert_allclose(stepwise(model, IDS), whole, rtol=2e-4, atol=2e-5 * np.abs(whole).max())


@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_compiled_after_the_first_prompt(name):
    model = made(name)
    model.step(IDS[:, :5].repeat(2, 0))
    model.generate(IDS[:, :3], 1), model.generate(IDS[:, :3].repeat(2, 0), 2)
    before = kd.compilations()
    for batch, time in ((1, 3), (1, 1), (3, 2), (2, 9)):
        model.generate(IDS[:, :time].repeat(batch, 0), 3)
    assert kd.compilations() == before


def test_other_parts_are_not_passed_by():
    """A head with a bias, a norm of another kind, a block with a forward of its own."""

    class Louder(MambaBlock):
        def forward(self, x, state=None):
            out = super().forward(x, state)
            return (out[0] * 2.0, *out[1:]) if state else out * 2.0

    def biased(model):
        model.lm_head = Linear(24, 31)

    def other_norm(model):
        model.norm_f = LayerNorm(24)
        model.norm_f.bias.data[...] = 0.5

    def other_block(model):
        model.layers[1].__class__ = Louder

    def new_weight(model):
        model.layers[0].in_proj.weight = Parameter(model.layers[0].in_proj.weight.data * 1.5)

    for change in (biased, other_norm, other_block, new_weight):
        model = made("Mamba")
        stepwise(model, IDS)
        change(model)
        whole = model(IDS).numpy()
        np.testing.assert_allclose(stepwise(model, IDS), whole, rtol=2e-4, atol=2e-5 * np.abs(whole).max())


def test_an_id_outside_is_an_error():
    model = made("Mamba")
    _, state = model.step(IDS)
    with pytest.raises(IndexError):
        model.step(np.array([[31]]), state)
