"""Contractions mean NumPy's."""

import numpy as np
import pytest

from kdsl.errors import ArgumentError, DtypeError, ShapeError
from kdsl.ir.ops import Op
from kdsl.language import PUBLIC
from tests.language.running import run, trace
from tests.tolerance import assert_close

RNG = np.random.default_rng(2)


def arrays(*shapes, dtype="f8"):
    return [(RNG.standard_normal(s) * 3).astype(dtype) for s in shapes]


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i8", "u1"])
@pytest.mark.parametrize(
    ("a", "b"),
    [((3, 4), (4, 5)), ((4,), (4, 5)), ((3, 4), (4,)), ((4,), (4,)), ((2, 3, 4), (4, 5)), ((3, 4), (2, 4, 5)),
     ((2, 1, 3, 4), (6, 4, 5)), ((1, 3, 4), (7, 4, 1)), ((3, 0), (0, 5)), ((0, 4), (4, 2)), ((1, 1), (1, 1)), ((4,), (2, 4, 5)),
     ((2, 3, 4), (4,)), ((1, 2, 3), (1, 3, 1))],
    ids=str,
)  # fmt: skip
def test_matmul(a, b, dtype):
    x, y = arrays(a, b, dtype=dtype)
    got, expected = run(lambda x, y: x @ y, x, y), x @ y
    assert got.dtype == expected.dtype
    assert_close(got, expected, operations=8, scale=30)


@pytest.mark.parametrize(
    ("text", "shapes"),
    [("ij,jk->ik", [(2, 3), (3, 4)]), ("ij,jk", [(2, 3), (3, 4)]), ("ij->ji", [(2, 3)]), ("ii->i", [(3, 3)]), ("ii", [(3, 3)]),
     ("iij->ij", [(3, 3, 2)]), ("ij->", [(2, 3)]), ("i,j->ij", [(2,), (3,)]), ("ij,ij->ij", [(2, 3), (2, 3)]),
     ("ij,ij->i", [(2, 3), (2, 3)]), ("ij,ij", [(2, 3), (2, 3)]), ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]),
     ("...ij,...jk->...ik", [(2, 3, 4), (4, 5)]), ("...ij,jk", [(2, 3, 4), (4, 5)]), ("i...->...", [(2, 3, 4)]),
     ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]), ("ij,jk,kl,lm->mi", [(2, 3), (3, 4), (4, 5), (5, 2)]),
     ("bhqd,bhkd->bhqk", [(2, 3, 4, 5), (2, 3, 6, 5)]), ("bhqk,bhkd->bqhd", [(2, 3, 4, 6), (2, 3, 6, 5)]),
     ("a,b,c->abc", [(2,), (3,), (4,)]), ("ij,k->i", [(2, 3), (4,)]), ("abc,cd,be->ade", [(2, 3, 4), (4, 5), (3, 6)]),
     ("ij,jk->k", [(2, 0), (0, 4)]), (",ij->ij", [(), (2, 3)]), ("ijk,ijk->", [(2, 3, 4), (2, 3, 4)])],
    ids=str,
)  # fmt: skip
def test_einsum(text, shapes):
    operands = arrays(*shapes)
    got = run(lambda *x: PUBLIC["einsum"](text, *x), *operands)
    assert_close(got, np.einsum(text, *operands), operations=64, scale=100)
    got = run(lambda *x: np.einsum(text, *x), *operands)
    assert got.shape == np.einsum(text, *operands).shape


def test_einsum_contracts_in_a_cheap_order():
    shapes = [(100, 2), (2, 100), (100, 2)]
    function, _ = trace(lambda *x: PUBLIC["einsum"]("ij,jk,kl->il", *x), *[np.zeros(s) for s in shapes])
    dots = [e for e in function.equations if e.op is Op.DOT]
    assert [d.result.shape for d in dots] == [(2, 2), (100, 2)]


def test_a_product_over_letters_of_one_operand_is_summed_first():
    function, _ = trace(lambda x, y: PUBLIC["einsum"]("ijk,jl->il", x, y), np.zeros((2, 3, 4)), np.zeros((3, 5)))
    assert [e.op for e in function.equations] == [Op.SUM, Op.DOT]


def test_tensordot_and_vecdot():
    a, b = arrays((2, 3, 4), (4, 3, 5))
    for axes in (([1, 2], [1, 0]), 1, 0):
        got = run(lambda a, b, axes=axes: PUBLIC["tensordot"](a, b, axes=axes), a, b)
        assert_close(got, np.tensordot(a, b, axes), operations=12, scale=30)
    x, y = arrays((3, 2, 4), (2, 4))
    assert_close(run(lambda x, y: PUBLIC["vecdot"](x, y), x, y), np.vecdot(x, y), scale=30)
    assert_close(run(lambda x, y: PUBLIC["vecdot"](x, x, axis=1), x, y), np.vecdot(x, x, axis=1), scale=30)
    assert_close(run(lambda x: x.mT, x), x.mT)


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        (lambda x, y: x @ y, ShapeError, r"cannot multiply f64\[2, 3\] @ f64\[4, 3\]: inner sizes are 3 and 4"),
        (lambda x, y: (x > 0) @ (y > 0), DtypeError, "bools"),
        (lambda x, y: PUBLIC["einsum"]("ij,jk->ik", x, y), ShapeError, "j is 3 in"),
        (lambda x, y: PUBLIC["einsum"]("ij->ik", x), ArgumentError, "stands nowhere"),
        (lambda x, y: PUBLIC["einsum"]("ijk->i", x), ShapeError, "names 3 axes"),
        (lambda x, y: PUBLIC["einsum"]("ij", x, y), ArgumentError, "names 1 tensors"),
        (lambda x, y: PUBLIC["tensordot"](x, y, axes=1), ShapeError, "sizes are 3 and 4"),
    ],
)
def test_mistakes(body, kind, text):
    with pytest.raises(kind, match=text):
        trace(body, *arrays((2, 3), (4, 3)))


def test_the_way_out_of_a_transposed_matrix():
    with pytest.raises(ShapeError, match=r"y\.mT has 4 columns|y\.mT"):
        trace(lambda x, y: x @ y, *arrays((2, 3), (4, 3)))
