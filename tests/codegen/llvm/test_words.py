"""16-bit numbers that go from memory to memory, or into every lane of a vector: their words are not made anew."""

import ml_dtypes
import numpy as np
import pytest

import kdsl as kd

DTYPES = {"f16": np.float16, "bf16": ml_dtypes.bfloat16}
EVERY = np.arange(1 << 16, dtype=np.uint16)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1 << 16,), (256, 256)])
def test_a_copy_keeps_every_word(dtype, shape):
    x = EVERY.view(DTYPES[dtype]).reshape(shape)
    y = kd.kernel(lambda x: kd.flip(x))(x)
    assert (y.view(np.uint16) == x[tuple(slice(None, None, -1) for _ in shape)].view(np.uint16)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_number_beside_a_vector(dtype):
    x = EVERY.view(DTYPES[dtype])[::37]
    rows = np.linspace(-2, 2, 40, dtype=np.float32)
    got = kd.kernel(lambda x, r: kd.astype(x, kd.f32)[:, None] + r)(x, rows)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(got, x.astype(np.float32)[:, None] + rows)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_rounded_is_stored_as_it_is(dtype):
    x = np.random.default_rng(0).standard_normal(4099).astype(np.float32) * np.float32(3.7)
    x[:4] = np.nan, np.inf, -np.inf, -0.0
    y, z = kd.kernel(lambda x: (kd.astype(x, dtype), kd.astype(kd.astype(x, dtype), kd.f32) + 1.0))(x)
    assert (y.view(np.uint16)[1:] == x.astype(DTYPES[dtype]).view(np.uint16)[1:]).all() and np.isnan(y[0].astype("f4"))
    np.testing.assert_array_equal(z, x.astype(DTYPES[dtype]).astype(np.float32) + 1)
