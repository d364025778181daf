"""nn on a GPU that is kdsl's emulator (tests/emulated_gpu.py): the CPU's numbers, and no transfer that nobody asked for."""

from __future__ import annotations

import numpy as np
import pytest

import kdsl as kd
import nn
from nn import devices
from nn import functional as F

pytestmark = pytest.mark.oracle
CLOSE = {"rtol": 2e-5, "atol": 2e-6}


def points(step, count=8):
    x = np.random.default_rng(step).standard_normal((count, 3)).astype("f4")
    return x, (x.sum(1) > 0).astype(np.int64)


def letters(step, batch=2, time=8, vocabulary=11):
    return tuple(np.random.default_rng(step).integers(0, vocabulary, (2, batch, time)))


def classified(model, x, targets):
    return F.cross_entropy(model(x), targets)


def read(model, ids, targets):
    return model(ids, targets)[1]


class Transfers:
    """What crosses between the memories while it is open, and how often the host waits."""

    def __init__(self, driver):
        self.driver = driver

    def __enter__(self):
        self.before = self.driver.counts.copy()
        return self

    def __exit__(self, *error):
        found = self.driver.counts - self.before
        self.to, self.back, self.waits = (found[name] for name in ("to the GPU", "from the GPU", "synchronisations"))


def train(make, loss_of, batch, steps, device, driver=None, **options):
    """The losses of a few steps, and the model."""
    nn.manual_seed(3)
    model = make().to(device)
    optimizer = nn.optim.AdamW(model.parameters(), lr=1e-2, **options)
    losses = []
    for i in range(steps):
        x, targets = (nn.Tensor(a, device=device) for a in batch(i))
        loss = loss_of(model, x, targets)
        model.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, model, optimizer


def equal_to_the_cpu(make, loss_of, batch, steps, **options):
    want, on_cpu, _ = train(make, loss_of, batch, steps, "cpu", **options)
    got, on_gpu, optimizer = train(make, loss_of, batch, steps, "cuda", **options)
    np.testing.assert_allclose(got, want, **CLOSE)
    assert on_gpu.device == "cuda:0"
    for name, value in on_cpu.state_dict().items():
        np.testing.assert_allclose(on_gpu.state_dict()[name], value, rtol=2e-3, atol=2e-4, err_msg=name)
    return on_gpu, optimizer


def test_mlp(emulated_gpu):
    equal_to_the_cpu(lambda: nn.MLP(3, [5, 2]), classified, points, 2)


def test_a_step_moves_nothing(emulated_gpu):
    """After the first, which makes the optimizer's memory: no bytes cross, and nobody waits."""
    make = lambda: nn.MLP(3, [5, 2])  # noqa: E731
    _, model, optimizer = train(make, classified, points, 1, "cuda", max_norm=1.0)
    x, targets = (nn.Tensor(a, device="cuda") for a in points(7))
    with Transfers(emulated_gpu) as transfers:
        loss = classified(model, x, targets)
        model.zero_grad()
        loss.backward()
        optimizer.step()
    assert (transfers.to, transfers.back, transfers.waits) == (0, 0, 0)
    assert np.isfinite(optimizer.norm)


def gpt(dropout=0.1):
    rates = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), dropout)
    return nn.GPT(nn.GPTConfig(11, 8, n_layer=1, n_head=2, n_embd=16, **rates))


@pytest.mark.slow
def test_gpt(emulated_gpu):
    model, _ = equal_to_the_cpu(gpt, read, letters, 3, max_norm=1.0)
    ids = letters(5, time=6)[0]
    for sample in (False, True):
        nn.manual_seed(4)
        want = gpt_on_cpu(model).generate(ids, 4, do_sample=sample, top_k=5)
        nn.manual_seed(4)
        got = model.generate(ids, 4, do_sample=sample, top_k=5)
        assert type(got) is np.ndarray
        np.testing.assert_array_equal(got, want)


def gpt_on_cpu(model):
    count = F.generator.count
    twin = gpt()
    twin.load_state_dict(model.state_dict())
    F.generator.count = count
    return twin


@pytest.mark.slow
def test_mamba(emulated_gpu):
    config = nn.MambaConfig(11, d_model=16, n_layer=1, d_state=4)
    model, _ = equal_to_the_cpu(lambda: nn.Mamba(config), read, letters, 3, max_norm=1.0)
    twin = nn.Mamba(config)
    twin.load_state_dict(model.state_dict())
    ids = letters(5, time=6)[0]
    np.testing.assert_array_equal(model.generate(ids, 3), twin.generate(ids, 3))


@pytest.mark.slow
def test_mamba2(emulated_gpu):
    config = nn.Mamba2Config(11, d_model=16, n_layer=1, d_state=8, head_dim=8, chunk_size=4)
    equal_to_the_cpu(lambda: nn.Mamba2(config), read, letters, 3, max_norm=1.0)


def test_tensors_know_where_they_are(emulated_gpu):
    x = nn.Tensor([[1.0, 2.0], [3.0, 4.0]], device="cuda")
    assert x.device == "cuda:0" and x.dtype == np.float32 and x.shape == (2, 2) and len(x) == 2
    assert x.tolist() == [[1.0, 2.0], [3.0, 4.0]] and "device='cuda:0'" in repr(x)
    assert x.cpu().device == "cpu" and x.cpu().numpy() is not None
    assert x.to("cuda") is x and x.to(device="cuda:0", dtype=kd.f32) is x
    assert x.to(kd.f16).dtype == np.float16 and x.to("cpu", kd.f64).dtype == np.float64
    assert (x * 2 + 1).device == "cuda:0" and float((x @ x).sum()) == 54.0


def test_gradients_cross_where_the_values_did(emulated_gpu):
    x = nn.Tensor([1.0, 2.0], requires_grad=True)
    y = x.to("cuda")
    ((y * y).cpu() * nn.Tensor([1.0, 10.0])).sum().backward()
    assert x.grad.device == "cpu" and x.grad.tolist() == [2.0, 40.0]


def test_mixed_devices_are_an_error_that_names_both(emulated_gpu):
    there, here = nn.Tensor([1.0, 2.0], device="cuda"), nn.Tensor([1.0, 2.0])
    for a, b in ((there, here), (here, there)):
        with pytest.raises(kd.DeviceError, match=r"cuda:0.*cpu|cpu.*cuda:0"):
            a + b
    model = nn.Linear(2, 2).to("cuda")
    with pytest.raises(kd.DeviceError, match="cuda:0"):
        model(here.reshape(1, 2))


def test_random_numbers_are_the_cpus(emulated_gpu):
    drop = nn.Dropout(0.5)
    x = np.ones((4, 33), "f4")
    nn.manual_seed(9)
    want = [drop(nn.Tensor(x)).numpy() for _ in range(2)]
    nn.manual_seed(9)
    got = [drop(nn.Tensor(x, device="cuda")).numpy() for _ in range(2)]
    np.testing.assert_array_equal(got, want)


def test_states_are_saved_from_and_loaded_to_any_device(emulated_gpu, tmp_path):
    _, model, optimizer = train(lambda: nn.MLP(3, [5, 2]), classified, points, 1, "cuda")
    nn.save(model.state_dict(), tmp_path / "model.safetensors")
    twin = nn.MLP(3, [5, 2])
    twin.load_state_dict(nn.load(tmp_path / "model.safetensors"))
    again = nn.MLP(3, [5, 2]).to("cuda")
    again.load_state_dict(twin.state_dict())
    assert all(type(v) is np.ndarray for v in model.state_dict().values())
    for a, b, c in zip(*(m.state_dict().values() for m in (model, twin, again))):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    other = nn.optim.AdamW(again.parameters(), lr=1e-2)
    other.load_state_dict(optimizer.state_dict())
    for m, o in ((model, optimizer), (again, other)):
        x, targets = (nn.Tensor(a, device="cuda") for a in points(7))
        m.zero_grad()
        classified(m, x, targets).backward()
        o.step()
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], value)


def test_a_model_moves_between_steps(emulated_gpu):
    """The optimizer follows its parameters, with what it remembers."""
    want, *_ = train(lambda: nn.MLP(3, [5, 2]), classified, points, 3, "cpu")
    nn.manual_seed(3)
    model = nn.MLP(3, [5, 2])
    optimizer = nn.optim.AdamW(model.parameters(), lr=1e-2)
    got = []
    for i, device in enumerate(("cpu", "cuda", "cpu")):
        model.to(device)
        x, targets = (nn.Tensor(a, device=device) for a in points(i))
        loss = classified(model, x, targets)
        model.zero_grad()
        loss.backward()
        optimizer.step()
        got.append(loss.item())
    np.testing.assert_allclose(got, want, **CLOSE)


def test_views_and_copies(emulated_gpu):
    for device in ("cpu", "cuda"):
        data = devices.moved(np.arange(12, dtype="f4"), device)
        part = devices.view(data, (2, 3), 4)
        np.testing.assert_array_equal(devices.numpy(part), [[4, 5, 6], [7, 8, 9]])
        devices.assign(part, np.full((2, 3), 5, np.int64))
        np.testing.assert_array_equal(devices.numpy(data), [0, 1, 2, 3, 5, 5, 5, 5, 5, 5, 10, 11])
    with pytest.raises(ValueError):
        devices.moved(np.zeros(4, "f4"), "cuda").view((2, 3))


class Bigram(nn.Module):
    """The smallest model that a Trainer trains."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(11, 11)

    def forward(self, ids, targets):
        logits = self.table(ids)
        return logits, F.cross_entropy(logits, targets)


def test_a_trainer_moves_its_batches_and_resumes_on_another_device(emulated_gpu, tmp_path):
    def run(devices, folder):
        nn.manual_seed(2)
        for steps, device in devices:
            config = nn.TrainerConfig(steps=4, lr=1e-2, save_every=100)
            trainer = nn.Trainer(Bigram().to(device), letters, config, folder, held_out=letters)
            trainer.resume()
            while trainer.step < steps:
                trainer.train_step()
            trainer.save()
        return trainer.losses, trainer.evaluate(1)

    want, held_out = run([(4, "cpu")], tmp_path / "cpu")
    got, evaluated = run([(2, "cuda"), (4, "cpu")], tmp_path / "both")
    np.testing.assert_allclose(got, want, **CLOSE)
    np.testing.assert_allclose(evaluated, held_out, **CLOSE)


def test_buffers_move_and_change_there(emulated_gpu):
    x = np.random.default_rng(0).standard_normal((6, 3)).astype("f4")
    want, norm = nn.BatchNorm1d(3), nn.BatchNorm1d(3).to("cuda")
    np.testing.assert_allclose(norm(nn.Tensor(x, device="cuda")).numpy(), want(nn.Tensor(x)).numpy(), rtol=1e-5, atol=1e-6)
    for a, b in zip(norm.state_dict().values(), want.state_dict().values()):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert norm.running_mean.device == norm.num_batches_tracked.device == "cuda:0"


def test_an_array_of_the_host_is_numpys():
    assert type(nn.Tensor(kd.asarray(np.ones(2))).data) is np.ndarray
