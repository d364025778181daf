"""Mamba and Mamba-2: Hugging Face's logits, losses and gradients; a state that continues; mamba_ssm's own op tests."""

import numpy as np
import pytest

import nn
from nn import functional as F

torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
pytestmark = pytest.mark.oracle

MAMBA = {
    "small": {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
    "biases, three taps": {
        "vocab_size": 64, "hidden_size": 24, "num_hidden_layers": 3, "state_size": 16, "use_bias": True, "conv_kernel": 3,
        "time_step_rank": 5, "layer_norm_epsilon": 1e-3,
    },
    "own head": {
        "vocab_size": 33, "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4, "expand": 3, "use_conv_bias": False,
        "tie_word_embeddings": False,
    },
}  # fmt: skip
MAMBA2 = {
    "small": {
        "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "head_dim": 16, "num_heads": 4,
        "n_groups": 1, "chunk_size": 8,
    },
    "groups": {
        "vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "state_size": 16, "head_dim": 12, "num_heads": 4,
        "n_groups": 2, "chunk_size": 16, "use_bias": True, "tie_word_embeddings": True,
    },
    "limits": {
        "vocab_size": 41, "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4, "head_dim": 8, "num_heads": 4,
        "n_groups": 4, "chunk_size": 4, "time_step_limit": (0.01, 0.05), "conv_kernel": 3,
    },
}  # fmt: skip
MODELS = {
    **{f"Mamba, {k}": ("Mamba", "MambaConfig", "MambaForCausalLM", v) for k, v in MAMBA.items()},
    **{f"Mamba-2, {k}": ("Mamba2", "Mamba2Config", "Mamba2ForCausalLM", v) for k, v in MAMBA2.items()},
}


def theirs_and_ours(name, folder):
    kind, config, model, settings = MODELS[name]
    torch.manual_seed(0)
    theirs = getattr(transformers, model)(getattr(transformers, config)(**settings))
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(torch.randn_like(p) * 0.05)
    theirs.save_pretrained(folder)
    return theirs, getattr(nn, kind).from_pretrained(folder)


@pytest.mark.parametrize("name", MODELS)
def test_logits_loss_and_gradients_are_hugging_faces(name, tmp_path):
    theirs, ours = theirs_and_ours(name, tmp_path)
    ids = np.random.default_rng(0).integers(0, ours.config.vocab_size, (2, 21))
    targets = np.roll(ids, -1, 1)
    logits, loss = ours(ids, targets)
    loss.backward()
    out = theirs(torch.from_numpy(ids)).logits
    their_loss = torch.nn.functional.cross_entropy(out.flatten(0, 1), torch.from_numpy(targets).flatten())
    their_loss.backward()
    np.testing.assert_allclose(logits.numpy(), out.detach().numpy(), rtol=1e-4, atol=3e-5)
    assert abs(loss.item() - their_loss.item()) < 1e-5
    gradients = dict(theirs.named_parameters())
    for our_name, p in ours.named_parameters():
        g = gradients.pop(ours.their_name(our_name)[0]).grad.numpy()
        scale = max(1e-2, np.abs(g).max())
        np.testing.assert_allclose(p.grad.numpy() / scale, g / scale, rtol=2e-3, atol=2e-5, err_msg=our_name)
    assert not gradients


@pytest.mark.parametrize("name", MODELS)
def test_a_state_continues_where_the_text_stopped(name, tmp_path):
    """Token by token, and in pieces: the logits of the whole text."""
    _, ours = theirs_and_ours(name, tmp_path)
    ids = np.random.default_rng(0).integers(0, ours.config.vocab_size, (2, 11))
    whole = ours(ids).numpy()
    for cuts in ([1] * 11, [5, 1, 5], [11]):
        state, got, at = None, [], 0
        for n in cuts:
            logits, state = ours.step(ids[:, at : at + n], state)
            got.append(logits)
            at += n
        np.testing.assert_allclose(np.concatenate(got, 1), whole, rtol=1e-4, atol=3e-5)


@pytest.mark.parametrize("name", ["Mamba, small", "Mamba-2, small"])
def test_generate_gives_the_parallel_forms_tokens(name, tmp_path):
    _, ours = theirs_and_ours(name, tmp_path)
    ids = np.array([[3, 5, 7], [1, 2, 1]])
    slow = ids
    for _ in range(9):
        slow = np.concatenate([slow, ours(slow).numpy()[:, -1].argmax(-1)[:, None]], 1)
    assert (ours.generate(ids, 9) == slow).all()
    first, state = ours.generate(ids, 4, return_state=True)
    assert (ours.generate(first[:, -1:], 5, state=state) == slow[:, 6:]).all()
    drawn = ours.generate(ids, 20, temperature=2.0, do_sample=True, top_k=3)
    assert drawn.shape == (2, 23)
    assert drawn.max() < 97


@pytest.mark.parametrize("name", MODELS)
def test_what_we_save_they_read(name, tmp_path):
    theirs, ours = theirs_and_ours(name, tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    again = type(theirs).from_pretrained(tmp_path / "ours")
    mine = type(ours).from_pretrained(tmp_path / "ours")
    assert mine.config == ours.config
    for p, q in zip(theirs.parameters(), again.parameters()):
        assert torch.equal(p, q)


def test_the_official_names_are_read(tmp_path):
    """mamba_ssm keeps backbone.embedding, its own config.json, and rows beyond the vocabulary."""
    import json

    nn.manual_seed(0)
    model = nn.Mamba(nn.MambaConfig(vocab_size=16, d_model=8, n_layer=1, d_state=4))
    model.save_pretrained(tmp_path)
    arrays = {k.replace("embeddings", "embedding"): v for k, v in nn.load(tmp_path / "model.safetensors").items()}
    nn.save(arrays, tmp_path / "model.safetensors")
    own = {"d_model": 8, "n_layer": 1, "vocab_size": 11, "ssm_cfg": {"d_state": 4}, "rms_norm": True}
    (tmp_path / "config.json").write_text(json.dumps(own))
    ids = np.array([[1, 2, 3]])
    assert (nn.Mamba.from_pretrained(tmp_path)(ids).numpy() == model(ids).numpy()).all()


OFFICIAL = {"d_model": 16, "n_layer": 2, "vocab_size": 11, "rms_norm": True, "residual_in_fp32": True, "fused_add_norm": True}


def test_the_official_names_of_mamba_2_are_read(tmp_path):
    """As mamba_ssm's save_pretrained writes them: pytorch_model.bin, with the tied head beside the embedding."""
    import json

    nn.manual_seed(0)
    shape = {"d_state": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 4}
    model = nn.Mamba2(nn.Mamba2Config(vocab_size=16, d_model=16, n_layer=2, **shape))
    model.save_pretrained(tmp_path)
    arrays = nn.load(tmp_path / "model.safetensors")
    arrays = {k.replace("embeddings", "embedding"): torch.from_numpy(v) for k, v in arrays.items()}
    (tmp_path / "model.safetensors").unlink()
    torch.save({**arrays, "lm_head.weight": arrays["backbone.embedding.weight"]}, tmp_path / "pytorch_model.bin")
    ssm = {"layer": "Mamba2", "d_state": 8, "headdim": 8, "ngroups": 2, "chunk_size": 4}
    own = {**OFFICIAL, "ssm_cfg": ssm, "pad_vocab_size_multiple": 16, "attn_layer_idx": [], "tie_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(own))
    ids = np.array([[1, 2, 3, 4, 5]])
    read = nn.Mamba2.from_pretrained(tmp_path)
    assert read.config == model.config
    assert (read(ids).numpy() == model(ids).numpy()).all()
    for wrong in ({"d_ssm": 8}, {"norm_before_gate": True}, {"layer": "Mamba1"}, {"d_conv2": 3}):
        (tmp_path / "config.json").write_text(json.dumps({**own, "ssm_cfg": {**ssm, **wrong}}))
        with pytest.raises(ValueError, match=next(iter(wrong))):
            nn.Mamba2.from_pretrained(tmp_path)
    for wrong in ({"attn_layer_idx": [1]}, {"rms_norm": False}, {"d_intermediate": 32}):
        (tmp_path / "config.json").write_text(json.dumps({**own, **wrong}))
        with pytest.raises(ValueError, match=next(iter(wrong))):
            nn.Mamba2.from_pretrained(tmp_path)


def test_official_settings_and_a_head_of_its_own(tmp_path):
    import json

    nn.manual_seed(0)
    config = nn.MambaConfig(vocab_size=16, d_model=16, n_layer=2, d_state=4, dt_rank=3, tie_embeddings=False, dt_floor=1e-3)
    model = nn.Mamba(config)
    model.save_pretrained(tmp_path)
    ssm = {"layer": "Mamba1", "d_state": 4, "dt_rank": 3, "dt_init": "random", "dt_init_floor": 1e-3}
    (tmp_path / "config.json").write_text(json.dumps({**OFFICIAL, "ssm_cfg": ssm, "tie_embeddings": False}))
    read = nn.Mamba.from_pretrained(tmp_path)
    assert read.config == config
    assert (read.lm_head.weight.numpy() == model.lm_head.weight.numpy()).all()
    (tmp_path / "config.json").write_text(json.dumps({**OFFICIAL, "ssm_cfg": {"layer": "Mamba2"}}))
    with pytest.raises(ValueError, match="layer"):
        nn.Mamba.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["Mamba, small", "Mamba-2, small"])
def test_files_in_bf16_and_in_parts(name, tmp_path):
    theirs, ours = theirs_and_ours(name, tmp_path / "whole")
    theirs.to(torch.bfloat16).save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    ours = type(ours).from_pretrained(tmp_path / "parts")
    weights = dict(theirs.named_parameters())
    for called, p in ours.named_parameters():
        assert p.numpy().dtype == np.float32
        assert (p.numpy() == weights[ours.their_name(called)[0]].detach().float().numpy()).all(), called


@pytest.mark.parametrize("name", ["Mamba, small", "Mamba-2, groups"])
def test_bf16_weights_keep_an_f32_state(name, tmp_path):
    import ml_dtypes

    _, ours = theirs_and_ours(name, tmp_path)
    ids = np.random.default_rng(0).integers(0, ours.config.vocab_size, (2, 13))
    want, _ = ours(ids, ids)
    for p in ours.parameters():
        p.data = p.data.astype(ml_dtypes.bfloat16)
    logits, loss = ours(ids, ids)
    loss.backward()
    scale = np.abs(want.numpy()).max()
    assert np.abs(logits.numpy().astype("f4") - want.numpy()).max() < 0.05 * scale
    for p in ours.parameters():
        assert p.grad.numpy().dtype == ml_dtypes.bfloat16 and np.isfinite(p.grad.numpy().astype("f4")).all()
    first, state = ours.step(ids[:, :6])
    second, state = ours.step(ids[:, 6:], state)
    assert all(part.dtype == np.float32 for own in state for part in own[1:])
    whole = np.concatenate([first, second], 1).astype("f4")
    assert np.abs(whole - logits.numpy().astype("f4")).max() < 0.02 * scale


def test_the_official_initialisation():
    nn.manual_seed(0)
    block = nn.Mamba(nn.MambaConfig(vocab_size=11, n_layer=4, d_model=64)).layers[0]
    np.testing.assert_allclose(block.A_log.numpy(), np.log(np.arange(1, 17, dtype="f4"))[None].repeat(128, 0), rtol=1e-6)
    dt = np.log1p(np.exp(block.dt_proj.bias.numpy().astype("f8")))
    assert dt.min() >= 1e-3 * 0.999 and dt.max() <= 0.1 * 1.001
    assert 0.2 < (dt < 0.01).mean() < 0.8  # uniform in the logarithm
    assert np.abs(block.dt_proj.weight.numpy()).max() <= 4**-0.5
    assert (block.D.numpy() == 1).all()


# --- mamba_ssm's op tests (its shapes, options and tolerances) ------------------------------------------------------------------
def reference(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):
    """selective_scan_ref in f64, without its in-place writes."""
    u, delta, A, B, C = (t.double() for t in (u, delta, A, B, C))
    if delta_bias is not None:
        delta = delta + delta_bias.double()[..., None]
    if delta_softplus:
        delta = torch.nn.functional.softplus(delta)
    batch, dim, length = u.shape

    def each(v, t):
        if v.dim() == 2:
            return v
        if v.dim() == 3:
            return v[:, None, :, t]
        return v[..., t].repeat_interleave(dim // v.shape[1], dim=1)

    h, ys = torch.zeros(batch, dim, A.shape[1], dtype=torch.float64), []
    for t in range(length):
        h = torch.exp(delta[:, :, t, None] * A) * h + (delta[:, :, t] * u[:, :, t])[..., None] * each(B, t)
        ys.append((h * each(C, t)).sum(-1))
    y = torch.stack(ys, 2) if ys else torch.zeros_like(u)
    if D is not None:
        y = y + u * D.double()[:, None]
    if z is not None:
        y = y * torch.nn.functional.silu(z.double())
    return y, h


@pytest.mark.parametrize("kind", ["constant", "varying", "1 group", "2 groups"])
@pytest.mark.parametrize("length", [128, 256, *(pytest.param(n, marks=pytest.mark.slow) for n in (512, 1024, 2048, 4096))])
@pytest.mark.parametrize("dtype", ["f4", "bf16", pytest.param("f2", marks=pytest.mark.slow)])
@pytest.mark.parametrize("options", [True, False])
def test_selective_scan(kind, length, dtype, options):
    import ml_dtypes

    torch.random.manual_seed(0)
    batch, dim, states = 2, 4, 8
    shape = {
        "constant": (dim, states), "varying": (batch, states, length), "1 group": (batch, 1, states, length),
        "2 groups": (batch, 2, states, length),
    }[kind]  # fmt: skip
    half = dtype != "f4"
    numpy = {"f4": np.float32, "f2": np.float16, "bf16": ml_dtypes.bfloat16}[dtype]
    rtol, atol = {"f4": (6e-4, 2e-3), "f2": (3e-3, 5e-3), "bf16": (3e-2, 5e-2)}[dtype]
    rtolw, atolw = max(1e-3, rtol), max(1e-3, atol)

    def short(t):
        return t.to(torch.float16 if dtype == "f2" else torch.bfloat16).float() if half else t

    given = {
        "u": short(torch.randn(batch, dim, length)), "delta": short(0.5 * torch.rand(batch, dim, length)),
        "A": -0.5 * torch.rand(dim, states), "B": torch.randn(shape), "C": torch.randn(shape),
    }  # fmt: skip
    if kind != "constant":
        given["B"], given["C"] = short(given["B"]), short(given["C"])
    if options:
        given |= {"D": torch.randn(dim), "z": short(torch.randn(batch, dim, length)), "delta_bias": 0.5 * torch.rand(dim)}
    wide = {"A", "D", "delta_bias"} | ({"B", "C"} if kind == "constant" else set())
    ours = {k: nn.Tensor(v.numpy().astype(np.float32 if k in wide else numpy), requires_grad=True) for k, v in given.items()}
    theirs = {k: v.clone().requires_grad_() for k, v in given.items()}
    order = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
    y, last = F.selective_scan(*(ours.get(k) for k in order), delta_softplus=options, return_last_state=True)
    t, h = reference(**theirs, delta_softplus=options)
    np.testing.assert_allclose(y.numpy().astype("f4"), t.detach().numpy(), rtol=rtol, atol=atol)
    np.testing.assert_allclose(last.numpy(), h.detach().numpy(), rtol=rtol, atol=atol)
    g = short(torch.randn(batch, dim, length))
    y.backward(nn.Tensor(g.numpy().astype(numpy)))
    t.backward(g.double())
    tolerance = {
        "u": (2 * rtol, 2 * atol), "delta": (5 * rtol, 10 * atol), "A": (rtolw, 5 * atolw), "B": (rtol, atol), "C": (rtol, atol),
        "D": (rtolw, atolw), "z": (rtolw, atolw), "delta_bias": (rtolw, atolw),
    }  # fmt: skip
    if kind == "constant":
        tolerance |= {"B": (rtolw, 5 * atolw), "C": (rtolw, 5 * atolw)}
    for k, v in ours.items():
        r, a = tolerance[k]
        np.testing.assert_allclose(v.grad.numpy().astype("f4"), theirs[k].grad.numpy(), rtol=r, atol=a, err_msg=k)


@pytest.mark.parametrize("groups", [None, 1, 2])
@pytest.mark.parametrize("gate", [True, False])
def test_selective_state_update(groups, gate):
    compare_state_update(2, 48, 16, groups, gate, "f4")


@pytest.mark.parametrize("dim", [2048, 2064, 4096])
@pytest.mark.parametrize("states", [16, 32, 64])
@pytest.mark.parametrize("dtype", ["f4", "f2", "bf16"])
def test_selective_state_update_of_the_official_sizes(dim, states, dtype):
    compare_state_update(2, dim, states, None, bool(states % 3), dtype)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 31, 37])
@pytest.mark.parametrize("groups", [None, 2])
def test_short_and_odd_lengths(length, groups):
    """From views whose strides are negative and transposed, with the options by position as mamba_ssm takes them."""
    rng = np.random.default_rng(0)
    f = lambda *s: rng.standard_normal(s).astype("f4")  # noqa: E731
    wide, slim = (2, 4, length), (2, *([groups] if groups else []), 3, length)
    u, delta, z = f(length, 2, 4).transpose(1, 2, 0), f(*wide)[::-1, :, ::-1], f(2, 4, 2 * length)[..., ::2]
    B, C, A = f(*slim)[..., ::-1], np.asfortranarray(f(*slim)), -rng.random((3, 4)).astype("f4").T
    D, bias = f(8)[::-2], f(4)
    given = [nn.Tensor(v, requires_grad=True) for v in (u, delta, A, B, C, D, z, bias)]
    theirs = [torch.from_numpy(v.copy()).double().requires_grad_() for v in (u, delta, A, B, C, D, z, bias)]
    y, last = F.selective_scan(*given, True, True)
    t, h = reference(*theirs, delta_softplus=True)
    np.testing.assert_allclose(y.numpy(), t.detach().numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(last.numpy(), h.detach().numpy(), rtol=1e-5, atol=1e-5)
    (y.sum() + (last * last).sum()).backward()
    (t.sum() + (h * h).sum()).backward()
    for v, w in zip(given, theirs):
        wanted = np.zeros(w.shape) if w.grad is None else w.grad.numpy()
        np.testing.assert_allclose(v.grad.numpy(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("tied", [True, False])
def test_selective_state_update_with_heads(groups, tied):
    """mamba_ssm's test of the same name: one number of dt, A, D and dt_bias for a head is given as a stride of 0."""
    rng = np.random.default_rng(0)
    batch, heads, width, states = 2, 4, 5, 16
    f = lambda *s: rng.standard_normal(s).astype("f4")  # noqa: E731
    shape = (batch, heads, width)
    state, x, z = f(*shape, states), f(*shape), f(*shape)
    B, C = f(batch, groups, states), f(batch, groups, states)
    if tied:
        dt, D, bias = (np.broadcast_to(v[..., None], (*v.shape, width)) for v in (f(batch, heads), f(heads), f(heads)))
        A = np.broadcast_to(-np.exp(f(heads))[:, None, None], (heads, width, states))
    else:
        dt, D, bias, A = f(*shape), f(heads, width), f(heads, width), -np.exp(f(heads, width, states))
    b, c = (v.repeat(heads // groups, 1)[:, :, None] for v in (B, C))
    step = np.log1p(np.exp((dt + bias).astype("f8")))
    h = np.exp(step[..., None] * A) * state + (step * x)[..., None] * b
    want = ((h * c).sum(-1) + D * x) * z / (1 + np.exp(-z.astype("f8")))
    y = F.selective_state_update(state, x, dt, A, B, C, D, z, bias, True)
    np.testing.assert_allclose(state, h, rtol=3e-4, atol=1e-4)
    np.testing.assert_allclose(y.numpy(), want, rtol=3e-4, atol=1e-4)


def test_groups_that_do_not_divide_the_channels():
    import kdsl as kd

    u, B = np.ones((1, 4, 5), "f4"), np.ones((1, 3, 2, 5), "f4")
    with pytest.raises(kd.ShapeError, match="3 groups do not divide 4 channels"):
        F.selective_scan(u, u, -np.ones((4, 2), "f4"), B, B)


def compare_state_update(batch, dim, states, groups, gate, dtype):
    import ml_dtypes

    rng = np.random.default_rng(0)
    rtol, atol = {"f4": (3e-4, 1e-3), "f2": (5e-3, 1e-2), "bf16": (1e-2, 5e-2)}[dtype]
    f = lambda *s: rng.standard_normal(s).astype("f4")  # noqa: E731
    state, x, dt, D, bias = f(batch, dim, states), f(batch, dim), f(batch, dim), f(dim), f(dim)
    x = x.astype(ml_dtypes.bfloat16 if dtype == "bf16" else dtype)
    A = -rng.random((dim, states)).astype("f4")
    B, C = (f(batch, states) if groups is None else f(batch, groups, states) for _ in range(2))
    z = f(batch, dim) if gate else None
    before = state.copy()
    y = F.selective_state_update(state, x, dt, A, B, C, D, z, bias, dt_softplus=True)
    step = np.log1p(np.exp((dt + bias).astype("f8")))
    b, c = (v[:, None] if groups is None else v.repeat(dim // groups, 1) for v in (B, C))
    x = x.astype("f8")
    h = np.exp(step[..., None] * A) * before + (step * x)[..., None] * b
    expected = (h * c).sum(-1) + D * x
    if gate:
        expected = expected * z / (1 + np.exp(-z.astype("f8")))
    np.testing.assert_allclose(state, h, rtol=rtol, atol=atol)
    np.testing.assert_allclose(y.numpy().astype("f8"), expected, rtol=rtol, atol=atol)
