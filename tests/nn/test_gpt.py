"""GPT: logits, loss and gradients equal a torch GPT with the same weights; training resumes exactly; no NumPy arithmetic."""

import numpy as np
import pytest

import kdsl as kd
import nn

CONFIG = {
    "vocab_size": 11,
    "block_size": 9,
    "n_layer": 2,
    "n_head": 2,
    "n_embd": 12,
    "embd_pdrop": 0.0,
    "resid_pdrop": 0.0,
    "attn_pdrop": 0.0,
}


def make(**changes):
    nn.manual_seed(3)
    return nn.GPT(nn.GPTConfig(**{**CONFIG, **changes}))


def batch(step, size=4):
    rng = np.random.default_rng([7, step])
    ids = rng.integers(0, 11, (size, 10))
    return ids[:, :-1], ids[:, 1:]


def torch_gpt(torch, state, ids, targets):
    """The same GPT in torch, from a dictionary of tensors."""
    F = torch.nn.functional
    x = state["wte.weight"][ids] + state["wpe.weight"][: ids.shape[1]]
    B, T, C = x.shape
    for i in range(CONFIG["n_layer"]):
        p = {k[len(f"h.{i}.") :]: v for k, v in state.items() if k.startswith(f"h.{i}.")}
        h = F.layer_norm(x, (C,), p["ln_1.weight"], p["ln_1.bias"])
        qkv = F.linear(h, p["attn.c_attn.weight"], p["attn.c_attn.bias"])
        q, k, v = (y.reshape(B, T, 2, C // 2).transpose(1, 2) for y in qkv.split(C, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, C)
        x = x + F.linear(y, p["attn.c_proj.weight"], p["attn.c_proj.bias"])
        h = F.layer_norm(x, (C,), p["ln_2.weight"], p["ln_2.bias"])
        h = F.gelu(F.linear(h, p["c_fc.weight"], p["c_fc.bias"]), approximate="tanh")
        x = x + F.linear(h, p["c_proj.weight"], p["c_proj.bias"])
    logits = F.linear(F.layer_norm(x, (C,), state["ln_f.weight"], state["ln_f.bias"]), state["lm_head.weight"])
    return logits, F.cross_entropy(logits.reshape(-1, 11), targets.reshape(-1), ignore_index=-1)


@pytest.mark.oracle
def test_logits_loss_and_gradients_equal_torch():
    torch = pytest.importorskip("torch")
    model = make()
    ids, targets = batch(0)
    logits, loss = model(ids, targets)
    loss.backward()
    state = {k: torch.from_numpy(v.copy()).requires_grad_() for k, v in model.state_dict().items()}
    want_logits, want = torch_gpt(torch, state, torch.from_numpy(ids), torch.from_numpy(targets))
    want.backward()
    np.testing.assert_allclose(logits.numpy(), want_logits.detach().numpy(), rtol=1e-4, atol=1e-5)
    assert loss.item() == pytest.approx(want.item(), rel=1e-5)
    for name, p in model.named_parameters():
        np.testing.assert_allclose(p.grad.numpy(), state[name].grad.numpy(), rtol=2e-3, atol=2e-6, err_msg=name)


def test_presets_and_parameter_count():
    model = nn.GPT(nn.GPTConfig(vocab_size=3, block_size=11, model_type="gpt-nano"))
    assert sum(p.numel() for p in model.parameters()) == 85_728
    with pytest.raises(ValueError, match="not both"):
        nn.GPTConfig(3, 11, "gpt-nano", n_layer=2)


def trainer(folder, steps=8, **changes):
    return nn.Trainer(make(**changes), batch, nn.TrainerConfig(steps=steps, lr=1e-3, save_every=4), folder)


def test_resuming_gives_the_losses_of_an_uninterrupted_run(tmp_path):
    straight = trainer(tmp_path / "a", resid_pdrop=0.1)
    straight.run(progress=False)
    first = trainer(tmp_path / "b", resid_pdrop=0.1)
    first.callbacks.append(lambda t: setattr(t, "_stop", t.step == 4))
    assert not first.run(progress=False)
    second = trainer(tmp_path / "b", resid_pdrop=0.1)
    assert second.resume()
    assert second.run(progress=False)
    assert second.losses == straight.losses
    assert (tmp_path / "a" / "losses.png").exists()


def test_nothing_is_compiled_after_the_second_step_or_the_second_token():
    t = trainer(None, steps=4)
    t.train_step()
    t.train_step()
    before = kd.compilations()
    t.train_step()
    t.train_step()
    assert kd.compilations() == before
    model = make()
    model.generate(np.zeros((1, 1), np.int64), 2)
    before = kd.compilations()
    model.generate(np.zeros((1, 1), np.int64), 6)
    assert kd.compilations() == before


class Forbidden:
    """Stands in for a function of NumPy: it, and its methods (reduce, at …), raise on floating-point data."""

    def __init__(self, function):
        self._function = function

    def __call__(self, *args, **kwargs):
        floating = [a for a in args if isinstance(a, (np.ndarray, np.generic)) and a.dtype.kind == "f"]
        assert not floating, f"np.{self._function.__name__} was called on floating-point data"
        return self._function(*args, **kwargs)

    def __getattr__(self, name):
        value = getattr(self._function, name)
        return Forbidden(value) if callable(value) else value


def test_a_training_step_does_no_numpy_arithmetic(monkeypatch):
    """Everything floating runs in kernels: NumPy's ufuncs, matmul and reductions raise."""
    t = trainer(None, steps=4)
    t.train_step()
    reductions = (
        "matmul",
        "dot",
        "einsum",
        "sum",
        "mean",
        "max",
        "min",
        "prod",
        "tensordot",
        "var",
        "std",
        "cumsum",
        "clip",
        "linalg",
    )
    for name, value in [(name, getattr(np, name)) for name in dir(np)]:
        if isinstance(value, np.ufunc) or (name in reductions and callable(value)):
            monkeypatch.setattr(np, name, Forbidden(value))
    with pytest.raises(AssertionError, match="floating-point"):
        np.add(np.ones(2), 1.0)
    t.train_step()


def test_generate_is_greedy_or_drawn_from_the_top(tmp_path):
    model = make()
    ids = np.array([[1, 2, 3]])
    greedy = model.generate(ids, 4)
    assert greedy.shape == (1, 7) and (greedy[:, :3] == ids).all()
    np.testing.assert_array_equal(model.generate(ids, 4, do_sample=True, top_k=1), greedy)
    nn.save(model.state_dict(), tmp_path / "w.safetensors")
    other = make()
    for p in other.parameters():
        p.data[...] = 0
    other.load_state_dict(nn.load(tmp_path / "w.safetensors"))
    np.testing.assert_array_equal(other.generate(ids, 4), greedy)


def test_cross_entropy_starts_at_the_logarithm_of_the_vocabulary_and_falls():
    t = nn.Trainer(make(), lambda step: batch(0), nn.TrainerConfig(steps=60, lr=3e-3))
    t.run(progress=False)
    assert t.losses[0] == pytest.approx(np.log(11), abs=0.1)
    assert t.losses[-1] < 0.6 * t.losses[0]
