"""Convolution, pooling, batch and group normalisation, general attention: values and gradients are torch's."""

import numpy as np
import pytest

import nn
from nn import functional as F
from tests.nn.comparing import array, compare, rng

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle
T = torch.nn.functional


@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), [
    (1, 0, 1, 1), (2, 1, 1, 1), (1, 2, 2, 2), (3, 1, 1, 4), (1, 3, 1, 4),
])  # fmt: skip
@pytest.mark.parametrize("shape", [(3, 4, 17), (1, 4, 7), (0, 4, 9)])
def test_conv1d(shape, stride, padding, dilation, groups):
    compare(
        lambda x, w, b: F.conv1d(x, w, b, stride=stride, padding=padding, dilation=dilation, groups=groups),
        lambda x, w, b: T.conv1d(x, w, b, stride, padding, dilation, groups),
        array(*shape), array(8, 4 // groups, 3), array(8), atol=1e-5,
    )  # fmt: skip


@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), [
    (1, 0, 1, 1), (2, 1, 1, 1), (1, (2, 1), (2, 1), 2), ((3, 1), 1, 1, 4),
])  # fmt: skip
def test_conv2d(stride, padding, dilation, groups):
    compare(
        lambda x, w, b: F.conv2d(x, w, b, stride=stride, padding=padding, dilation=dilation, groups=groups),
        lambda x, w, b: T.conv2d(x, w, b, stride, padding, dilation, groups),
        array(3, 4, 9, 11), array(8, 4 // groups, 3, 2), array(8), atol=3e-5,
    )  # fmt: skip


def test_same_padding_keeps_the_length_and_causal_padding_the_past():
    x, w = array(2, 3, 9), array(5, 3, 3)
    compare(lambda x, w: F.conv1d(x, w, padding="same"), lambda x, w: T.conv1d(x, w, padding="same"), x, w, atol=1e-5)
    compare(lambda x, w: F.conv1d(x, w, padding="causal"), lambda x, w: T.conv1d(T.pad(x, (2, 0)), w), x, w, atol=1e-5)


@pytest.mark.parametrize(("window", "stride", "padding"), [(2, None, 0), (3, 2, 1), ((2, 3), (1, 2), (0, 1))])
@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
def test_pools_of_images(name, window, stride, padding):
    compare(
        lambda x: getattr(F, name)(x, kernel_size=window, stride=stride, padding=padding),
        lambda x: getattr(T, name)(x, window, stride, padding),
        array(2, 3, 8, 9),
    )


@pytest.mark.parametrize("name", ["max_pool1d", "avg_pool1d"])
def test_pools_of_lines(name):
    ours, theirs = getattr(F, name), getattr(T, name)
    compare(lambda x: ours(x, kernel_size=3, stride=2, padding=1), lambda x: theirs(x, 3, 2, 1), array(2, 3, 8))


@pytest.mark.parametrize("shape", [(4, 6, 7), (2, 6, 4, 5), (1, 6, 3)])
def test_norms_of_channels(shape):
    x, w, b, m, v = array(*shape), array(6), array(6), array(6), np.abs(array(6))
    close = {"rtol": 2e-4, "atol": 2e-5}
    compare(lambda x, w, b: F.group_norm(x, w, b, num_groups=3), lambda x, w, b: T.group_norm(x, 3, w, b), x, w, b, **close)
    compare(
        lambda x, w, b: F.batch_norm_train(x, m, v, w, b)[0],
        lambda x, w, b: T.batch_norm(x, torch.from_numpy(m.copy()), torch.from_numpy(v.copy()), w, b, training=True),
        x, w, b, **close,
    )  # fmt: skip
    compare(
        lambda x, w, b: F.batch_norm(x, m, v, w, b),
        lambda x, w, b: T.batch_norm(x, torch.from_numpy(m), torch.from_numpy(v), w, b), x, w, b, **close,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["softplus", "elu", "leaky_relu", "sigmoid", "tanh"])
def test_activations(name):
    compare(getattr(F, name), getattr(T, name), array(3, 17))


def test_gelu_of_its_own_form():
    compare(lambda x: F.gelu(x, approximate="none"), T.gelu, array(3, 17))


def test_losses():
    compare(F.l1_loss, T.l1_loss, array(5, 3), array(5, 3))
    y = rng.random((5, 3)).astype("f4")
    compare(F.binary_cross_entropy_with_logits, T.binary_cross_entropy_with_logits, array(5, 3), y)


def seen(*shape):
    mask = rng.random(shape) < 0.7
    mask[..., 0] = True
    return mask


@pytest.mark.parametrize("mask", [None, "causal", "shared", "for each example", "added"])
def test_scaled_dot_product_attention(mask):
    q, k, v = array(2, 3, 7, 4), array(2, 3, 9, 4), array(2, 3, 9, 5)
    ours, theirs = F.scaled_dot_product_attention, T.scaled_dot_product_attention
    if mask in (None, "causal"):
        how = {"is_causal": mask == "causal"}
        compare(lambda *a: ours(*a, **how), lambda *a: theirs(*a, **how), q, k, v, atol=1e-5)
    elif mask == "added":
        compare(ours, theirs, q, k, v, array(2, 3, 7, 9), atol=1e-5)
    else:
        m = seen(7, 9) if mask == "shared" else seen(2, 1, 7, 9)
        compare(lambda *a: ours(*a, m), lambda *a: theirs(*a, torch.from_numpy(m)), q, k, v, atol=1e-5)


def test_layers_have_torchs_parameters_and_results():
    x, image = array(3, 6, 11), array(2, 4, 9, 8)
    cases = [
        (nn.Conv1d(6, 8, 3, padding=1, groups=2), torch.nn.Conv1d(6, 8, 3, padding=1, groups=2), x),
        (nn.Conv2d(4, 6, (3, 2), stride=2, bias=False), torch.nn.Conv2d(4, 6, (3, 2), stride=2, bias=False), image),
        (nn.MaxPool1d(2), torch.nn.MaxPool1d(2), x), (nn.AvgPool1d(3, 1), torch.nn.AvgPool1d(3, 1), x),
        (nn.MaxPool2d(2, 1), torch.nn.MaxPool2d(2, 1), image), (nn.AvgPool2d(3), torch.nn.AvgPool2d(3), image),
        (nn.GroupNorm(3, 6), torch.nn.GroupNorm(3, 6), x), (nn.BatchNorm1d(6), torch.nn.BatchNorm1d(6), x),
        (nn.BatchNorm2d(4), torch.nn.BatchNorm2d(4), image), (nn.SiLU(), torch.nn.SiLU(), x), (nn.Tanh(), torch.nn.Tanh(), x),
        (nn.Sigmoid(), torch.nn.Sigmoid(), x), (nn.Flatten(), torch.nn.Flatten(), x),
    ]  # fmt: skip
    for ours, theirs, data in cases:
        state = {k: torch.from_numpy(v.copy()) for k, v in ours.state_dict().items()}
        theirs.load_state_dict(state)
        compare(ours, theirs, data, rtol=2e-4, atol=2e-5)
        for name, value in theirs.state_dict().items():  # running statistics have moved alike
            np.testing.assert_allclose(ours.state_dict()[name], value.numpy(), rtol=1e-5, atol=1e-6)
        compare(ours.eval(), theirs.eval(), data, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_multi_head_attention(causal):
    nn.manual_seed(2)
    ours = nn.MultiHeadAttention(12, 3)
    theirs = torch.nn.MultiheadAttention(12, 3, batch_first=True)
    theirs.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in ours.state_dict().items()})
    hidden = torch.triu(torch.ones(7, 7, dtype=torch.bool), 1) if causal else None
    compare(
        lambda x: ours(x, is_causal=causal),
        lambda x: theirs(x, x, x, attn_mask=hidden, need_weights=False)[0],
        array(2, 7, 12), rtol=2e-4, atol=2e-5,
    )  # fmt: skip
    q, k, v = array(2, 7, 12), array(2, 5, 12), array(2, 5, 12)
    compare(ours, lambda *a: theirs(*a, need_weights=False)[0], q, k, v, rtol=2e-4, atol=2e-5)


def test_a_small_network_of_convolutions_learns():
    """Horizontal against vertical bars."""
    nn.manual_seed(0)
    draws = np.random.default_rng(0)
    images, labels = np.zeros((64, 1, 8, 8), "f4"), draws.integers(0, 2, 64)
    for image, label in zip(images, labels):
        at = draws.integers(0, 8)
        image[0][(at, slice(None)) if label else (slice(None), at)] = 1
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 2)
    )
    optimizer = nn.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(30):
        loss = F.cross_entropy(model(nn.Tensor(images)), labels)
        model.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
