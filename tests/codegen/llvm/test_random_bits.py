"""Random bits of neighbours are worked out together: the same bits as one by one, whatever the alignment and the order."""

from __future__ import annotations

import numpy as np
import pytest

import kdsl as kd

KEY = np.array([0x243F6A88, 0xDEADBEEF], np.uint32)


def bits(key, shape):
    return kd.random.uniform(key, shape)


ORDERS = {
    "as they lie": lambda u: u,
    "turned": lambda u: u.T,
    "backwards": lambda u: u[:, ::-1],
    "every other": lambda u: u[:, 1::2],
    "shifted": lambda u: kd.pad(u[:, 1:], ((0, 0), (3, 0))),
    "in f64": lambda u: kd.astype(u, kd.f64) * 2.0,
    "folded": lambda u: kd.sum(u, axis=0),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shape", [(3, 64), (5, 37), (7, 1), (2, 2), (1, 1000), (4, 5), (33, 18)])
def test_bits_do_not_depend_on_the_order(shape, order):
    f = kd.kernel(lambda key, x: ORDERS[order](bits(key, shape) + x))
    x = np.zeros(shape, "f4")
    bound = 1e-5 if order == "folded" else 0
    np.testing.assert_allclose(f(KEY, x), f.reference(KEY, x), rtol=bound, atol=0)


@pytest.mark.parametrize("rows", [1, 2, 5, 64])
def test_named_sizes(rows):
    f = kd.kernel(lambda key, x: kd.where(kd.random.bernoulli(key, 0.5, x.shape), x, 0.0), types={"x": kd.f32["N", "M"]})
    for columns in (1, 3, 16, 50):
        x = np.ones((rows, columns), "f4")
        np.testing.assert_array_equal(f(KEY, x), f.reference(KEY, x))


@pytest.mark.parametrize("level", ["x86-64-v3", "x86-64-v4", "arm64"])
def test_other_processors(level):
    """Half as many counters as lanes; the products are of words, not of 64 bits."""
    f = kd.kernel(lambda key, x: x * bits(key, (40, 64)), target=f"cpu:{level}")
    text = f.llvm(kd.u32[2], kd.f32[40, 64])
    counters = {"x86-64-v3": 4, "x86-64-v4": 8, "arm64": 2}[level]
    assert f"mul <{counters} x i64>" in text
    assert ("vpmuludq" in (code := f.asm(kd.u32[2], kd.f32[40, 64])) and "vpmullq" not in code) or level == "arm64"


def test_a_key_is_worked_out_once():
    """A key that is made of another one by itself is no part of any loop."""
    f = kd.kernel(lambda key, q, k, v: kd.where(kd.random.bernoulli(kd.random.fold_in(key, 7), 0.9, (64, 64)), q @ k.T, 0.0) @ v)
    arrays = [KEY, *(np.random.default_rng(0).standard_normal((64, 16)).astype("f4") for _ in range(3))]
    np.testing.assert_allclose(f(*arrays), f.reference(*arrays), rtol=1e-4, atol=1e-4)
    text = f.llvm(*arrays)
    loops = [function.split("\nloop", 1)[1] for function in text.split("\ndefine ") if "\nloop" in function]
    assert "load i32" in text and not any("load i32" in body for body in loops)
