"""Random indices, shapes and contractions mean NumPy's; with named sizes they give the same, or a check that fails."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdsl.errors import KdslError
from kdsl.ir.sizes import evaluate
from kdsl.language import PUBLIC
from tests.language.running import run, trace

shapes = st.lists(st.integers(0, 4), min_size=0, max_size=3).map(tuple)
bounds = st.none() | st.integers(-6, 6)
slices = st.builds(slice, bounds, bounds, st.sampled_from([None, 1, 2, 3, -1, -2]))


def filled(shape):
    return np.arange(int(np.prod(shape)), dtype="i4").reshape(shape)


@st.composite
def indexed(draw):
    shape = draw(shapes)
    items = []
    tensor = False
    for n in shape[: draw(st.integers(0, len(shape)))]:
        kinds = ["slice"] + (["integer"] if n else []) + (["tensor"] if n and not tensor else [])
        kind = draw(st.sampled_from(kinds))
        tensor |= kind == "tensor"
        if kind == "slice":
            items.append(draw(slices))
        elif kind == "integer":
            items.append(draw(st.integers(-n, n - 1)))
        else:
            ids = draw(st.lists(st.integers(-n, n - 1), min_size=0, max_size=3))
            items.append(np.array(ids, "i8").reshape(draw(st.sampled_from([(-1,), (1, -1)])) if ids else (0,)))
        if draw(st.integers(0, 5)) == 0:
            items.append(None)
    if draw(st.booleans()):
        items.insert(len(items) if len([i for i in items if i is not None]) < len(shape) else 0, Ellipsis)
    return shape, tuple(items)


@settings(max_examples=150, deadline=None)
@given(indexed())
def test_indexing(case):
    shape, key = case
    x = filled(shape)
    try:
        expected = x[key]
    except IndexError:
        with pytest.raises(IndexError):
            trace(lambda x: x[key], x)
        return
    np.testing.assert_array_equal(run(lambda x: x[key], x), expected)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 7), slices)
def test_slices_of_a_named_axis(n, key):
    x = filled((n, 2))
    try:
        function, checks = trace(lambda x: x[key], x, shapes=[("N", 2)])
    except KdslError:
        return  # a slice that can never lie within
    values = {"N": n}
    for c in checks:
        left, right = evaluate(c.left, values), evaluate(c.right, values)
        if not (left == right if c.relation == "==" else left >= right):
            return
    expected = x[key]
    assert tuple(evaluate(s, values) for s in function.results[0].shape) == expected.shape
    np.testing.assert_array_equal(run(lambda x: x[key], x, shapes=[("N", 2)]), expected)


@settings(max_examples=100, deadline=None)
@given(shapes, shapes)
def test_broadcasting(a, b):
    x, y = filled(a), filled(b)
    try:
        expected = x + y
    except ValueError:
        with pytest.raises(ValueError, match="cannot add"):
            trace(lambda x, y: x + y, x, y)
        return
    np.testing.assert_array_equal(run(lambda x, y: x + y, x, y), expected)


@st.composite
def contracted(draw):
    sizes = {c: draw(st.integers(0, 3)) for c in "abcd"}
    terms = draw(st.lists(st.text("abcd", min_size=0, max_size=3), min_size=1, max_size=3))
    used = sorted(set("".join(terms)))
    out = draw(st.permutations(used))[: draw(st.integers(0, len(used)))]
    return f"{','.join(terms)}->{''.join(out)}", [tuple(sizes[c] for c in t) for t in terms]


@settings(max_examples=150, deadline=None)
@given(contracted())
def test_einsum(case):
    text, operand_shapes = case
    operands = [filled(s) % 5 for s in operand_shapes]
    got = run(functools.partial(PUBLIC["einsum"], text), *operands)
    np.testing.assert_array_equal(got, np.einsum(text, *operands))
