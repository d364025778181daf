"""from_pretrained and save_pretrained: Hugging Face's models and ours are one."""

import json

import numpy as np
import pytest

import nn

torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
pytestmark = pytest.mark.oracle

CONFIGS = {
    "small": {"vocab_size": 97, "n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 4},
    "relu, inner width": {
        "vocab_size": 101, "n_positions": 24, "n_embd": 48, "n_layer": 3, "n_head": 3, "n_inner": 80,
        "activation_function": "relu", "layer_norm_epsilon": 1e-3,
    },
    "own head": {
        "vocab_size": 64, "n_positions": 8, "n_embd": 16, "n_layer": 1, "n_head": 2, "tie_word_embeddings": False,
        "activation_function": "gelu",
    },
}  # fmt: skip


def gpt2(settings):
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(**settings, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    )
    with torch.no_grad():
        for p in model.parameters():  # biases that are not 0
            p.add_(torch.randn_like(p) * 0.05)
    return model


@pytest.mark.parametrize("name", CONFIGS)
def test_gpt2_logits_loss_and_gradients(name, tmp_path):
    theirs = gpt2(CONFIGS[name])
    theirs.save_pretrained(tmp_path)
    ours = nn.GPT.from_pretrained(tmp_path)
    ids = np.random.default_rng(0).integers(0, ours.config.vocab_size, (2, ours.config.block_size))
    targets = np.roll(ids, -1, 1)
    logits, loss = ours(ids, targets)
    loss.backward()
    out = theirs(torch.from_numpy(ids)).logits
    their_loss = torch.nn.functional.cross_entropy(out.flatten(0, 1), torch.from_numpy(targets).flatten())
    their_loss.backward()
    np.testing.assert_allclose(logits.numpy(), out.detach().numpy(), rtol=1e-4, atol=2e-5)
    assert abs(loss.item() - their_loss.item()) < 1e-5
    gradients = dict(theirs.named_parameters())
    for our_name, p in ours.named_parameters():
        called, transposed = ours.their_name(our_name)
        g = gradients.pop(called).grad
        np.testing.assert_allclose(p.grad.numpy(), (g.T if transposed else g).numpy(), rtol=1e-3, atol=1e-5)
    assert not gradients  # every parameter of theirs, each once


def test_gpt2_generates_the_same_tokens(tmp_path):
    theirs = gpt2(CONFIGS["small"]).eval()
    theirs.save_pretrained(tmp_path)
    ours = nn.GPT.from_pretrained(tmp_path)
    start = np.array([[5, 7, 11]])
    expected = theirs.generate(torch.from_numpy(start), max_new_tokens=10, do_sample=False, pad_token_id=0)
    assert (ours.generate(start, 10) == expected.numpy()).all()


def test_what_we_save_they_read(tmp_path):
    nn.manual_seed(4)
    ours = nn.GPT(nn.GPTConfig(vocab_size=53, block_size=9, n_layer=2, n_head=2, n_embd=24, activation="silu")).eval()
    ours.save_pretrained(tmp_path)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    ids = np.random.default_rng(0).integers(0, 53, (3, 9))
    np.testing.assert_allclose(ours(ids).numpy(), theirs(torch.from_numpy(ids)).logits.detach().numpy(), rtol=1e-4, atol=2e-5)
    again = nn.GPT.from_pretrained(tmp_path)
    assert again.config == ours.config
    assert all((a == b).all() for a, b in zip(again.state_dict().values(), ours.state_dict().values()))


def test_dropout_and_all_settings_come_from_the_file(tmp_path):
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**CONFIGS["small"], resid_pdrop=0.25)).save_pretrained(tmp_path)
    config = nn.GPT.from_pretrained(tmp_path).config
    assert (config.resid_pdrop, config.embd_pdrop, config.vocab_size, config.tie_word_embeddings) == (0.25, 0.1, 97, True)


def test_files_in_several_parts_and_in_half_precision(tmp_path):
    theirs = gpt2(CONFIGS["small"])
    theirs.half().save_pretrained(tmp_path, max_shard_size="20KB")
    assert not (tmp_path / "model.safetensors").exists()
    ours = nn.GPT.from_pretrained(tmp_path)
    assert (ours.wte.weight.numpy() == theirs.transformer.wte.weight.detach().float().numpy()).all()


def test_a_setting_that_we_do_not_have_is_refused(tmp_path):
    gpt2(CONFIGS["small"]).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for name, value in (("model_type", "llama"), ("scale_attn_by_inverse_layer_idx", True)):
        (tmp_path / "config.json").write_text(json.dumps({**config, name: value}))
        with pytest.raises(ValueError, match=name):
            nn.GPT.from_pretrained(tmp_path)


# --- what else lies in such folders -------------------------------------------------------------------------------------------
def weights(tmp_path):
    return nn.load(tmp_path / "model.safetensors")


def test_an_array_that_nobody_reads_is_a_mistake(tmp_path):
    gpt2(CONFIGS["small"]).save_pretrained(tmp_path)
    arrays = weights(tmp_path)
    nn.save({**arrays, "transformer.h.0.attn.adapter": np.zeros(3, "f4")}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"lacks: transformer\.h\.0\.attn\.adapter"):
        nn.GPT.from_pretrained(tmp_path)
    name = "transformer.h.1.ln_1.weight"
    nn.save({k: v for k, v in arrays.items() if k != name}, tmp_path / "model.safetensors")
    with pytest.raises(KeyError, match=name):
        nn.GPT.from_pretrained(tmp_path)
    nn.save({**arrays, name: np.zeros(3, "f4")}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"has shape \(3,\)"):
        nn.GPT.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="neither"):
        nn.GPT.from_pretrained(tmp_path)


def test_masks_a_tied_head_and_names_without_a_prefix(tmp_path):
    """What older GPT-2 files hold."""
    gpt2(CONFIGS["small"]).save_pretrained(tmp_path)
    ids = np.array([[1, 2, 3]])
    want = nn.GPT.from_pretrained(tmp_path)(ids).numpy()
    arrays = {k.removeprefix("transformer."): v for k, v in weights(tmp_path).items()}
    for i in range(2):
        arrays |= {f"h.{i}.attn.bias": np.tril(np.ones((1, 1, 16, 16), "u1")), f"h.{i}.attn.masked_bias": np.float32(-1e4)[None]}
    nn.save({**arrays, "lm_head.weight": arrays["wte.weight"]}, tmp_path / "model.safetensors")
    assert (nn.GPT.from_pretrained(tmp_path)(ids).numpy() == want).all()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_files_that_torch_wrote(dtype, tmp_path):
    """pytorch_model.bin, whole and in parts, is read without torch."""
    theirs = gpt2(CONFIGS["small"]).to(getattr(torch, dtype))
    theirs.save_pretrained(tmp_path)
    want = nn.GPT.from_pretrained(tmp_path).state_dict()
    (tmp_path / "model.safetensors").unlink()
    state = theirs.state_dict()
    state["transformer.h.0.attn.c_attn.weight"] = state["transformer.h.0.attn.c_attn.weight"].T.contiguous().T  # other strides
    torch.save(state, tmp_path / "pytorch_model.bin")
    assert all((a == want[k]).all() for k, a in nn.GPT.from_pretrained(tmp_path).state_dict().items())
    (tmp_path / "pytorch_model.bin").unlink()
    places = {name: f"pytorch_model-{i % 3}.bin" for i, name in enumerate(state)}
    for file in set(places.values()):
        torch.save({k: v for k, v in state.items() if places[k] == file}, tmp_path / file)
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    assert all((a == want[k]).all() for k, a in nn.GPT.from_pretrained(tmp_path).state_dict().items())


class Code:
    def __reduce__(self):
        return print, ("code of the file's ran",)


def test_a_file_of_torchs_runs_no_code(tmp_path, capsys):
    from nn.torch_files import load_torch

    torch.save({"a": torch.arange(6.0).reshape(2, 3)[:, 1:], "b": torch.zeros(0, 3), "c": torch.tensor(True)}, tmp_path / "good")
    got = load_torch(tmp_path / "good")
    assert got["a"].tolist() == [[1, 2], [4, 5]] and got["b"].shape == (0, 3) and got["c"].dtype == bool
    torch.save({"a": Code()}, tmp_path / "evil")
    torch.save([1, 2], tmp_path / "list")
    torch.save({"a": torch.zeros(3)}, tmp_path / "old", _use_new_zipfile_serialization=False)
    for name, said in (("evil", "holds more than tensors"), ("list", "no dict of tensors"), ("old", "before torch 1.6")):
        with pytest.raises(ValueError, match=said):
            load_torch(tmp_path / name)
    assert not capsys.readouterr().out
