"""Chains that the strip cannot walk are refused, and computed by several kernels (found by random programs)."""

import numpy as np
import pytest

import kdsl as kd

rng = np.random.default_rng(3)


def products_of_itself(x, z):
    """Its gradient adds two products behind one strip."""
    y = kd.exp(x - kd.max(x, axis=0, keepdims=True)) / z
    return kd.einsum("lk,rk->lr", y, y)


def a_letter_of_one_operand(y, w):
    d = kd.einsum("a,bc->b", y, w)
    return d - kd.mean(d)


@pytest.mark.parametrize(
    ("f", "shapes"),
    [
        (products_of_itself, [(7, 1), (7, 1)]),
        (products_of_itself, [(5, 3), (5, 3)]),
        (a_letter_of_one_operand, [(16,), (13, 13)]),
    ],
)
def test_values_and_gradients_agree(f, shapes):
    kd.kernel(f).verify(*(1 + np.abs(rng.standard_normal(s)) for s in shapes))
