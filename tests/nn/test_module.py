"""Modules: names and order as torch's, shared parameters once, saving, repr."""

import inspect
import re

import numpy as np
import pytest

import nn


def test_names_are_the_paths_of_attributes():
    model = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2, bias=False))
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias", "2.weight"]
    assert [type(m).__name__ for m in model.modules()] == ["Sequential", "Linear", "GELU", "Linear"]
    assert model(np.ones((5, 3), np.float32)).shape == (5, 2)


def test_a_shared_parameter_is_listed_once():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias", "1.bias"]


def test_loading_needs_the_same_names_and_shapes(tmp_path):
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    nn.save(model.state_dict(), tmp_path / "w.safetensors")
    other.load_state_dict(nn.load(tmp_path / "w.safetensors"))
    np.testing.assert_array_equal(other.weight.numpy(), model.weight.numpy())
    with pytest.raises(KeyError, match="lacks"):
        other.load_state_dict({"weight": model.weight.numpy()})
    with pytest.raises(ValueError, match="has shape"):
        other.load_state_dict({"weight": np.zeros((2, 2), "f4"), "bias": model.bias.numpy()})


def test_train_and_eval_reach_every_module():
    model = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5)))
    assert all(not m.training for m in model.eval().modules())
    assert all(m.training for m in model.train().modules())


def test_repr_shows_the_tree():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Dropout(0.1))
    assert repr(model) == (
        "Sequential(\n  (0): Linear(3, 4, bias=True)\n  (1): LayerNorm(4, eps=1e-05)\n  (2): Dropout(p=0.1)\n)"
    )


SHOWN = ("Conv1d", "Conv2d", "Dropout", "Embedding", "Flatten", "GroupNorm", "LayerNorm", "Linear", "MultiHeadAttention",
         "RMSNorm", "Sequential", "Tensor", "load", "no_grad", "save")  # fmt: skip


@pytest.mark.parametrize("name", SHOWN)
def test_examples_run(name, tmp_path):
    shown = re.findall(r"Example: `(.*?)`\.", inspect.getdoc(getattr(nn, name)))
    assert shown
    for example in shown:
        exec(example, {"nn": nn, "np": np, "path": tmp_path / "x.safetensors"})
