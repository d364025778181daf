"""Section 9 of the contract: nn.Tensor, modules, GPT, what compiles once."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import kdsl as kd
import nn
from tests.contract.saying import Counted
from tests.tolerance import assert_close

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(9)


def tiny_gpt(**more):
    nn.manual_seed(0)
    settings = {"embd_pdrop": 0.0, "resid_pdrop": 0.0, "attn_pdrop": 0.0, **more}
    return nn.GPT(nn.GPTConfig(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=16, **settings))


# -- Tensor -----------------------------------------------------------------------------------------------------------


def test_tensor_has_data_grad_and_backward():
    """`nn.Tensor`: data, grad (an nn.Tensor), `backward()`"""
    x = nn.Tensor(np.array([1.0, 2.0, 3.0], "f4"), requires_grad=True)
    assert isinstance(x.data, np.ndarray) and x.grad is None
    ((x * x).sum()).backward()
    assert isinstance(x.grad, nn.Tensor)
    assert_close(x.grad.numpy(), np.array([2, 4, 6], "f4"))


def test_gradients_add_up_until_they_are_zeroed():
    """by torch's names (grad accumulates)"""
    x = nn.Tensor(np.ones(3, "f4"), requires_grad=True)
    (x * 2).sum().backward()
    (x * 3 + x).sum().backward()
    assert_close(x.grad.numpy(), np.full(3, 6, "f4"))


OPERATORS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "reflected": lambda a, b: 2 - a + 1 / b + 3 * a,
    "-x": lambda a, b: -a,
    "**": lambda a, b: a**2,
    "@": lambda a, b: a @ b.T,
    "[]": lambda a, b: a[0] * b[:, 1:2],
    "<": lambda a, b: a < b,
}


@pytest.mark.parametrize("name", OPERATORS)
def test_tensor_has_operators(name):
    """operators and methods by torch's names"""
    a, b = RNG.uniform(0.5, 2, (3, 4)).astype("f4"), RNG.uniform(0.5, 2, (3, 4)).astype("f4")
    assert_close(OPERATORS[name](nn.Tensor(a), nn.Tensor(b)).numpy(), OPERATORS[name](a, b), operations=4)


METHODS = {
    "sum": (lambda x: x.sum(), lambda x: x.sum()),
    "sum dim": (lambda x: x.sum(dim=1), lambda x: x.sum(1)),
    "sum keepdim": (lambda x: x.sum(dim=-1, keepdim=True), lambda x: x.sum(-1, keepdims=True)),
    "mean": (lambda x: x.mean(dim=0), lambda x: x.mean(0)),
    "exp": (lambda x: x.exp(), np.exp),
    "log": (lambda x: x.log(), np.log),
    "sqrt": (lambda x: x.sqrt(), np.sqrt),
    "tanh": (lambda x: x.tanh(), np.tanh),
    "sigmoid": (lambda x: x.sigmoid(), lambda x: 1 / (1 + np.exp(-x))),
    "relu": (lambda x: (x - 1).relu(), lambda x: np.maximum(x - 1, 0)),
    "abs": (lambda x: x.abs(), np.abs),
    "reshape": (lambda x: x.reshape(2, 6), lambda x: x.reshape(2, 6)),
    "view": (lambda x: x.view(-1, 3), lambda x: x.reshape(-1, 3)),
    "transpose": (lambda x: x.transpose(0, 1), lambda x: x.T),
    "permute": (lambda x: x.permute(1, 0), lambda x: x.T),
    "T": (lambda x: x.T, lambda x: x.T),
}


@pytest.mark.parametrize("name", METHODS)
def test_tensor_has_methods_by_torchs_names(name):
    """operators and methods by torch's names"""
    x = RNG.uniform(0.5, 2, (3, 4)).astype("f4")
    ours, numpys = METHODS[name]
    assert_close(ours(nn.Tensor(x)).numpy(), np.asarray(numpys(x)), operations=12)


def test_one_tape_node_per_kernel_call():
    """eager, one tape node per kernel call (no node where no gradient is wanted)"""
    x = nn.Tensor(np.ones((2, 3), "f4"), requires_grad=True)
    y = nn.functional.softmax(x)
    assert y.node is not None and (nn.Tensor(np.ones(3, "f4")) * 2).node is None
    with nn.no_grad():
        assert (x * 2).node is None


def test_numpy_always_works():
    """`numpy()` always works (never asks for detach)"""
    x = nn.Tensor(np.ones(3, "f4"), requires_grad=True)
    assert_close((x * 2).numpy(), np.full(3, 2, "f4"))
    assert_close(x.numpy(), np.ones(3, "f4"))


def test_item_gives_a_python_number():
    """`item()` gives a Python number"""
    x = nn.Tensor(np.ones(3, "f4"), requires_grad=True)
    assert type(x.sum().item()) is float
    assert type(nn.Tensor(np.array(3)).item()) is int


def test_only_kdsls_public_names_are_used():
    """Only kdsl's public names are used"""
    for path in (ROOT / "nn").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            assert not [n for n in names if n.startswith("kdsl.")], f"{path}: {names}"
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "kd":
                assert not node.attr.startswith("_") or node.attr.startswith("__"), (
                    f"{path}:{node.lineno} kd.{node.attr}"
                )


def test_numpy_holds_data_and_computes_nothing():
    """NumPy holds data and computes nothing (it would raise here)"""
    model = tiny_gpt()
    optimizer = nn.optim.AdamW(model.parameters(), lr=1e-3)
    ids = RNG.integers(0, 11, (3, 8))

    def step():
        _, loss = model(ids, ids)
        model.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    step()

    def no(*_args, **_kwargs):
        raise AssertionError("NumPy computed")

    names = [
        "exp",
        "log",
        "sqrt",
        "tanh",
        "matmul",
        "dot",
        "einsum",
        "sum",
        "mean",
        "max",
        "add",
        "multiply",
        "divide",
        "where",
        "var",
    ]
    with mock.patch.multiple(np, **dict.fromkeys(names, no)):
        loss = step()
    assert np.isfinite(loss.item())


# -- modules ----------------------------------------------------------------------------------------------------------


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.norm = nn.LayerNorm(4)
        self.second = nn.Linear(4, 2, bias=False)

    def forward(self, x):
        return self.second(self.norm(self.first(x)))


def test_module_parameter_and_state_dict():
    """`nn.Module, Parameter, state_dict`"""
    model = Two()
    assert list(model.state_dict()) == ["first.weight", "first.bias", "norm.weight", "norm.bias", "second.weight"]
    assert all(isinstance(p, nn.Parameter) for p in model.parameters())
    assert [p.shape for p in model.parameters()] == [(4, 3), (4,), (4,), (4,), (2, 4)]
    other = Two()
    other.load_state_dict(model.state_dict())
    x = nn.Tensor(np.ones((5, 3), "f4"))
    assert (other(x).numpy() == model(x).numpy()).all()


@pytest.mark.oracle
@pytest.mark.parametrize("shape", [(5, 6), (2, 3, 6), (0, 6), (1, 6)])
def test_layers_do_what_torchs_do(shape):
    """layers by torch's names (`nn.Linear, Embedding, LayerNorm, RMSNorm, Dropout ...`)"""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(17)
    x = rng.standard_normal(shape).astype("f4")
    for ours, theirs in [
        (nn.Linear(6, 4), torch.nn.Linear(6, 4)),
        (nn.LayerNorm(6), torch.nn.LayerNorm(6)),
        (nn.RMSNorm(6), torch.nn.RMSNorm(6, eps=ours_eps())),
        (nn.GELU(), torch.nn.GELU(approximate="tanh")),
        (nn.ReLU(), torch.nn.ReLU()),
    ]:
        state = {k: torch.from_numpy(np.asarray(getattr(v, "data", v)).copy()) for k, v in ours.state_dict().items()}
        theirs.load_state_dict(state)
        a, b = nn.Tensor(x, requires_grad=True), torch.from_numpy(x).requires_grad_()
        y, t = ours(a), theirs(b)
        assert_close(y.numpy(), t.detach().numpy(), operations=64, scale=2)
        g = rng.standard_normal(y.shape).astype("f4")  # not y: the squares of a normalised row sum to a constant
        y.backward(nn.Tensor(g))
        t.backward(torch.from_numpy(g))
        assert_close(a.grad.numpy(), b.grad.numpy(), operations=256, scale=4)


def ours_eps():
    return getattr(nn.RMSNorm(6), "eps", 1e-5)


def test_embedding_looks_up_rows():
    """`nn.Linear, Embedding ...`"""
    layer = nn.Embedding(7, 3)
    ids = np.array([[0, 6], [6, 6]])
    y = layer(ids)
    assert y.shape == (2, 2, 3)
    y.sum().backward()
    (weight,) = layer.parameters()
    assert_close(weight.grad.numpy(), np.array([1, 0, 0, 0, 0, 0, 3], "f4")[:, None] * np.ones(3, "f4"))
    with pytest.raises(IndexError):
        layer(np.array([7])).numpy()


def test_dropout_only_drops_while_training():
    """`... Dropout`"""
    nn.manual_seed(0)
    layer, x = nn.Dropout(0.25), nn.Tensor(np.ones((100, 100), "f4"))
    y = layer(x).numpy()
    assert set(np.unique(y)) == {0, np.float32(1 / 0.75)} and abs((y == 0).mean() - 0.25) < 0.03
    layer.eval()
    assert (layer(x).numpy() == 1).all()


@pytest.mark.parametrize("name", ["Conv1d", "Conv2d", "MultiHeadAttention", "BatchNorm1d", "GroupNorm", "MaxPool2d"])
def test_layer_library(name):
    """layers by torch's names (`... Conv1d, Conv2d, MultiHeadAttention …`)"""
    assert issubclass(getattr(nn, name), nn.Module)


def test_mamba():
    """`nn.Mamba(nn.MambaConfig(...))`, `nn.Mamba2`"""
    assert issubclass(nn.Mamba, nn.Module) and issubclass(nn.Mamba2, nn.Module)
    nn.Mamba(nn.MambaConfig(vocab_size=11, n_layer=1, d_model=16))(np.zeros((1, 4), "i8"))


def test_functions_of_functional_are_kernels_with_derived_gradients():
    """`nn.functional` (each function one @kernel and its derived gradient)"""
    x = nn.Tensor(RNG.standard_normal((3, 5)).astype("f4"), requires_grad=True)
    for name in ("relu", "gelu", "silu", "softmax", "log_softmax"):
        y = getattr(nn.functional, name)(x)
        y.sum().backward()
    assert np.isfinite(x.grad.numpy()).all()


def test_mlp_and_optim_and_data_and_trainer_are_there():
    """`nn.MLP` ..., `nn.optim`, `nn.data`, `nn.Trainer`"""
    model = nn.MLP(2, [16, 1])
    assert model(nn.Tensor(np.ones((3, 2), "f4"))).shape == (3, 1)
    for name in ("optim", "data", "Trainer", "GPT", "GPTConfig"):
        assert hasattr(nn, name)


def test_a_small_model_learns():
    """`nn.MLP`, `nn.optim`"""
    nn.manual_seed(1)
    model = nn.MLP(1, [16, 1])
    optimizer = nn.optim.AdamW(model.parameters(), lr=2e-2, weight_decay=0.0)
    x = np.linspace(-1, 1, 33, dtype="f4")[:, None]
    losses = []
    for _ in range(120):
        loss = nn.functional.mse_loss(model(nn.Tensor(x)), nn.Tensor(np.sin(3 * x)))
        model.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 20


def test_save_and_load_are_safetensors_and_atomic(tmp_path):
    """`nn.save/load` (safetensors, atomic)"""
    from safetensors.numpy import load_file

    model = tiny_gpt()
    path = tmp_path / "model.safetensors"
    arrays = {k: np.asarray(getattr(v, "data", v)) for k, v in model.state_dict().items()}
    nn.save(arrays, path)
    assert set(load_file(path)) == set(arrays)
    back = nn.load(path)
    assert all((back[k] == arrays[k]).all() for k in arrays)
    before = path.read_bytes()
    with pytest.raises(Exception):  # noqa: B017
        nn.save({"a": object()}, path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


# -- GPT --------------------------------------------------------------------------------------------------------------


def test_model_of_ids_gives_logits_of_all_positions():
    """`model(ids)` gives logits of all positions"""
    model = tiny_gpt()
    for batch, time in [(1, 1), (2, 5), (3, 8)]:
        assert model(RNG.integers(0, 11, (batch, time))).shape == (batch, time, 11)


def test_model_with_targets_gives_logits_and_loss():
    """`model(ids, targets)` gives (logits, loss), the mean cross-entropy over targets that are not -1"""
    model = tiny_gpt()
    ids, targets = RNG.integers(0, 11, (3, 8)), RNG.integers(0, 11, (3, 8))
    targets[0, :5] = -1
    logits, loss = model(ids, targets)
    z = logits.numpy().astype("f8")
    z = z - z.max(-1, keepdims=True)
    picked = np.take_along_axis(z - np.log(np.exp(z).sum(-1, keepdims=True)), np.maximum(targets, 0)[..., None], -1)[
        ..., 0
    ]
    assert_close(np.asarray(loss.numpy()), np.array(-picked[targets >= 0].mean(), "f4"), operations=64)


def test_the_future_is_not_seen():
    """`model(ids)` gives logits of all positions (causal)"""
    model = tiny_gpt()
    ids = RNG.integers(0, 11, (1, 8))
    other = ids.copy()
    other[0, 5:] = (other[0, 5:] + 1) % 11
    a, b = model(ids).numpy(), model(other).numpy()
    assert_close(a[:, :5], b[:, :5])
    assert np.abs(a[:, 5:] - b[:, 5:]).max() > 0


def test_ids_and_targets_may_be_tensors_or_arrays():
    """ids and targets may be nn.Tensor or arrays"""
    model = tiny_gpt()
    ids = RNG.integers(0, 11, (2, 4))
    a = model(ids, ids)[1].item()
    assert a == model(nn.Tensor(ids), nn.Tensor(ids))[1].item() == model(ids.astype("i4"), nn.Tensor(ids))[1].item()


def test_generate_continues():
    """`model.generate(...)`"""
    model = tiny_gpt()
    start = np.array([[1, 2, 3]])
    got = np.asarray(model.generate(start, 9))
    assert got.shape == (1, 12) and (got[:, :3] == start).all() and got.min() >= 0 and got.max() < 11


@pytest.mark.oracle
def test_from_pretrained_reads_what_hugging_face_wrote(tmp_path):
    """`from_pretrained(folder)` reads what Hugging Face's `save_pretrained` wrote"""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=97, n_positions=16, n_embd=32, n_layer=2, n_head=4, resid_pdrop=0.25)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = nn.GPT.from_pretrained(tmp_path)
    ids = RNG.integers(0, 97, (2, 16))
    with torch.no_grad():
        assert_close(ours.eval()(ids).numpy(), theirs(torch.from_numpy(ids)).logits.numpy(), operations=256, scale=4)
    assert ours.config.resid_pdrop == 0.25
    # the same set; their Conv1D keeps (input, output), our Linear (output, input)
    assert sorted(sorted(p.shape) for p in ours.parameters()) == sorted(sorted(p.shape) for p in theirs.parameters())


def test_kernels_do_not_compile_again_as_sizes_change():
    """nn's kernels name their batch and time axes: training and generation do not compile again as sizes change"""
    model = tiny_gpt()
    optimizer = nn.optim.AdamW(model.parameters(), lr=1e-3)

    def step(batch, time):
        ids = RNG.integers(0, 11, (batch, time))
        _, loss = model(ids, ids)
        model.zero_grad()
        loss.backward()
        optimizer.step()

    step(3, 8), step(2, 5)
    model.generate(np.array([[1]]), 2)
    with Counted() as made:
        for batch, time in [(1, 8), (4, 7), (5, 2), (2, 8), (1, 1)]:
            step(batch, time)
        model.generate(np.array([[1, 2], [3, 4]]), 6)
    assert made.made == 0


# -- nn.compile -------------------------------------------------------------------------------------------------------


@pytest.mark.waits_for("nn.compile")
def test_compile_traces_a_whole_training_step():
    """`nn.compile(step)` traces a whole training step (forward, backward, clipping, optimizer) into one program"""
    runs = []
    models = [tiny_gpt(), tiny_gpt()]
    ids = RNG.integers(0, 11, (3, 8))

    def make(model):
        optimizer = nn.optim.AdamW(model.parameters(), lr=1e-3, max_norm=1.0)

        def step(ids, lr: kd.f32):
            runs.append(1)
            optimizer.lr = lr
            _, loss = model(ids, ids)
            model.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        return step

    eager, compiled = make(models[0]), nn.compile(make(models[1]))
    a = [eager(ids, lr).item() for lr in (1e-3, 1e-2, 1e-3)]
    runs.clear()
    b = [compiled(ids, lr).item() for lr in (1e-3, 1e-2, 1e-3)]
    assert len(runs) == 1
    assert_close(np.array(b, "f4"), np.array(a, "f4"), operations=256)


@pytest.mark.waits_for("nn.compile")
def test_item_in_a_compiled_step_is_an_error_with_the_line():
    """`item()`, printing or branching on a traced value is an error with the line"""
    x = nn.Parameter(np.ones(3, "f4"))
    for bad in (lambda: x.sum().item(), lambda: print(x.sum()), lambda: 1 if x.sum() > 0 else 2):
        with pytest.raises(kd.KdslError, match="test_9_nn"):
            nn.compile(bad)()


@pytest.mark.waits_for("nn.compile")
def test_an_exception_leaves_all_state_as_before_the_call():
    """an exception leaves all state as before the call"""
    x = nn.Parameter(np.ones(3, "f4"))

    def step():
        x.data[...] = 5
        raise KeyError("mine")

    with pytest.raises(KeyError):
        nn.compile(step)()
    assert (x.numpy() == 1).all()


def test_nn_imports_no_other_library_to_compute():
    """Only kdsl's public names are used; NumPy holds data"""
    import subprocess

    program = "import sys, nn; print([m for m in ('torch', 'jax', 'numba', 'scipy') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert out.stdout.strip() == "[]", out.stderr
