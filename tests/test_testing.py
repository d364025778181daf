"""Contracts on GPU code: the gallery holds them, and each of them notices code that breaks it."""

import importlib.util

import numpy as np
import pytest

import kdsl as kd
from kdsl.testing import gpu_code, loads_per_byte, wide_share

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(importlib.util.find_spec("numba_cuda") is None, reason="needs numba-cuda: pip install 'kdsl[cuda]'"),
]
BOTH = pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])


@kd.kernel
def gelu(x):
    return 0.5 * x * (1.0 + kd.erf(x * 0.7071067811865476))


@kd.kernel
def softmax(x):
    e = kd.exp(x - kd.max(x, axis=-1, keepdims=True))
    return e / kd.sum(e, axis=-1, keepdims=True)


@kd.kernel
def layer_norm(x, w, b):
    centred = x - kd.mean(x, axis=-1, keepdims=True)
    return centred * kd.rsqrt(kd.mean(centred * centred, axis=-1, keepdims=True) + 1e-5) * w + b


@kd.kernel
def linear(x, w, b):
    return kd.maximum(x @ w + b, 0.0)


@kd.kernel
def turned(x):
    return kd.exp(x.T)


X = kd.f32[512, 1024]
GALLERY = {
    "gelu": (gelu, (X,)),
    "gelu.vjp": (gelu.vjp, (X, X)),
    "softmax": (softmax, (X,)),
    "softmax.vjp": (softmax.vjp, (X, X)),
    "layer_norm": (layer_norm, (X, kd.f32[1024], kd.f32[1024])),
    "turned": (turned, (X,)),
    "linear": (linear, (kd.f32[256, 128], kd.f32[128, 256], kd.f32[256])),
    "linear in bf16": (linear, (kd.bf16[256, 128], kd.bf16[128, 256], kd.bf16[256])),
}


@BOTH
@pytest.mark.parametrize("name", GALLERY)
def test_no_kernel_of_the_gallery_spills(name, arch):
    f, types = GALLERY[name]
    code = gpu_code(f, *types, arch=arch)
    assert code.kernels and code.spill_bytes == 0
    assert 0 < code.registers <= 255 and code.near_bytes <= 160 * 1024


@pytest.mark.parametrize("name", ["gelu", "gelu.vjp", "softmax", "softmax.vjp", "layer_norm", "turned"])
def test_rows_and_maps_go_in_pieces_of_16_bytes(name):
    f, types = GALLERY[name]
    code = gpu_code(f, *types)
    assert code.wide_accesses > 0 and code.narrow_accesses == 0


def test_narrow_accesses_are_noticed():
    assert gpu_code(kd.kernel(lambda x: x[:, ::2] + 1), X).narrow_accesses > 0


@BOTH
def test_products_of_bf16_use_tensor_cores_and_copies(arch):
    f, types = GALLERY["linear in bf16"]
    code = gpu_code(f, *types, arch=arch)
    assert code.tensor_core > 0 and code.async_copies > 0
    f, types = GALLERY["linear"]
    assert gpu_code(f, *types, arch=arch).tensor_core == 0  # f32 in f32


def test_arguments_are_read_once():
    x = np.random.default_rng(0).standard_normal((16, 1024)).astype("f4")
    assert loads_per_byte(gelu, x) == 1.0
    assert loads_per_byte(softmax, x) == 1.0
    assert loads_per_byte(softmax.vjp, x, x) == 1.0
    assert loads_per_byte(kd.kernel(lambda x: x + x[:, ::-1]), x) == 2.0


@kd.kernel
def named_gelu(x: kd.f32["N", "D"]):
    return gelu.function(x)


def test_a_line_of_any_length_goes_in_pieces_of_16_bytes():
    x = np.random.default_rng(0).standard_normal((37, 1001)).astype("f4")
    add = kd.kernel(lambda x, y: x + y)
    for f, *arrays in ((named_gelu, x), (named_gelu.vjp, x, x), (gelu, x), (add, x, x)):
        assert wide_share(f, *arrays) > 0.999 and loads_per_byte(f, *arrays) == 1.0
    assert wide_share(kd.kernel(lambda x: x[:, ::2] + 1), x) < 0.9


def test_what_is_no_kernel_is_refused():
    with pytest.raises(kd.KdslError, match="neither a kernel nor the vjp"):
        gpu_code(np.exp, X)
