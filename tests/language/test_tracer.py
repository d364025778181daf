"""What Python and NumPy may do with a tracer, and what they are told where they may not."""

import math
import re
import types

import numpy as np
import pytest

import kdsl.dtypes as dt
from kdsl.errors import ArgumentError, ControlFlowError
from kdsl.language import FUNCTIONS, PUBLIC, NamedSize
from tests.language.running import run, trace

X = np.linspace(-1, 1, 12, dtype="f4").reshape(3, 4)


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (lambda x: 1 if x[0, 0] > 0 else 2, "kd.where"),
        (lambda x: x[0, 0] and 1, "kd.where"),
        (lambda x: not x, "kd.where"),
        (lambda x: max(x[0, 0], x[0, 1]), "kd.where"),
        (lambda x: int(x[0, 0]), "astype"),
        (lambda x: float(x[0, 0]), "kd.sqrt"),
        (lambda x: math.exp(x[0, 0]), "kd.sqrt"),
        (lambda x: complex(x[0, 0]), "complex"),
        (lambda x: range(x[0, 0].astype(int)), "static argument"),
        (lambda x: [1, 2][x[0, 0].astype(int)], "static argument"),
        (lambda x: 3 in x, "kd.any"),
        (lambda x: x[0, 0].item(), "return the tensor"),
        (lambda x: x.tolist(), "return the tensor"),
        (lambda x: np.asarray(x), "kd's functions"),
        (lambda x: f"{x:.3f}", "outside the kernel"),
    ],
)
def test_asking_for_values_is_refused_with_a_way_out(body, hint):
    with pytest.raises(ControlFlowError) as caught:
        trace(body, X)
    assert hint in str(caught.value) and "test_tracer.py" in str(caught.value)


def test_what_is_known_may_be_asked():
    def body(x):
        assert x.shape == (3, 4) and x.ndim == 2 and x.size == 12 and x.dtype.name == "f32" and len(x) == 3
        assert x.T.shape == x.mT.shape == (4, 3) and np.shape(x) == (3, 4) and np.ndim(x) == 2 and np.size(x) == 12
        assert repr(x) == f"{x}" == "<f32[3, 4] in a kernel>" and x != "text" and not isinstance(x.shape[0], NamedSize)
        q, r = divmod(x, 0.3)
        return round(x * 3) + abs(-x) + (+x) + q + r

    third = np.float32(0.3)
    np.testing.assert_allclose(run(body, X), np.round(X * 3) + np.abs(X) + X + np.floor(X / third) + X % third, rtol=1e-5)


NUMPYS = [
    lambda x: np.exp(x) + np.power(x, 2) - np.arctan2(x, 2) + np.absolute(x) + np.rint(x),
    lambda x: x.take([0, 2], 1).repeat(2, 0),
    lambda x: np.float32(2) * x + x * np.float64(3) - np.int64(1),
    lambda x: np.array([1, 2, 3, 4], "f4") * x,
    lambda x: np.where(x > 0, x, -np.inf),
    lambda x: np.sum(x, 0) + np.mean(x, axis=0, keepdims=True) + np.max(x) + np.amin(x, 1).sum() + np.prod(x) + np.add.reduce(x),
    lambda x: np.var(x, ddof=1) + np.std(x),
    lambda x: np.any(x > 0, axis=1) & ~np.all(x > 0) | np.logical_and(x[:, 0], 1),
    lambda x: np.concatenate([x, x], axis=1).reshape(-1) @ np.ones(24, "f4"),
    lambda x: np.stack((x, x), 2).transpose(2, 0, 1),
    lambda x: np.transpose(x) @ x + np.matmul(x.T, x) + np.tensordot(x, x, ([0], [0])),
    lambda x: np.expand_dims(np.squeeze(x[:1]), 0) + np.broadcast_to(x[0], (2, 4)),
    lambda x: np.clip(x, -0.5, 0.5) + np.maximum(x, 0) + np.minimum(0, x),
    lambda x: np.argmax(x, axis=1) + np.argmin(x, 1) + np.count_nonzero(x > 0),
    lambda x: np.tril(np.pad(x, 1)) + np.roll(np.pad(x, 1), 1, axis=0),
    lambda x: np.repeat(np.tile(x, 2), 2, axis=0) + np.flip(np.repeat(np.tile(x, 2), 2, 0), 1),
    lambda x: np.split(x, 2, axis=1)[0] + np.take(x, [0, 1], axis=1) + np.swapaxes(x, 0, 1)[:1, :2].sum(),
    lambda x: np.take_along_axis(x, np.array([[0], [1], [2]]), 1) + np.moveaxis(x, 0, 1)[:3, :1],
    lambda x: np.einsum("ij,ij->i", x, x) + np.ones_like(x[:, 0]) + np.full_like(x[:, 0], 2),
    lambda x: np.ravel(x)[::2] + np.round(x).reshape(12)[:6] + np.isnan(np.ravel(x))[:6],
    lambda x: np.meshgrid(x[0], x[1])[0] + np.searchsorted(x[0], x[1, 0]),
]


@pytest.mark.parametrize("n", range(len(NUMPYS)))
def test_numpys_functions_mean_the_same(n):
    got, expected = run(NUMPYS[n], X), NUMPYS[n](X)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "body",
    [lambda x: np.linalg.inv(x), lambda x: np.minimum.accumulate(x), lambda x: np.exp(x, out=np.zeros((3, 4))),
     lambda x: np.spacing(x), lambda x: np.sum(x, out=np.zeros(())), lambda x: np.add(x, 1, where=x > 0)],
)  # fmt: skip
def test_what_numpy_has_and_kdsl_does_not_is_told(body):
    with pytest.raises(ArgumentError):
        trace(body, X)


@pytest.mark.parametrize(
    ("body", "text"),
    [(lambda x: PUBLIC["concat"](x, x), "kd.concat: too many positional"),
     (lambda x: x.mean(dim=-1), "unexpected keyword argument 'dim'"),
     (lambda x: PUBLIC["where"](x > 0, x), "missing a required argument: 'x2'")],
)  # fmt: skip
def test_calls_that_do_not_fit_are_told(body, text):
    with pytest.raises(ArgumentError, match=text) as caught:
        trace(body, X)
    assert "= it takes (" in str(caught.value)


def test_a_tracer_that_left_its_kernel_is_refused():
    kept = []
    trace(lambda x: kept.append(x) or x, X)
    with pytest.raises(ArgumentError, match="belongs to another kernel"):
        trace(lambda x: x + kept[0], X)
    with pytest.raises(ArgumentError, match="has ended"):
        PUBLIC["exp"](kept[0])


ARRAY_API = """
abs acos acosh add asin asinh atan atan2 atanh bitwise_and bitwise_invert bitwise_left_shift bitwise_or
bitwise_right_shift bitwise_xor ceil clip copysign cos cosh divide equal exp expm1 floor floor_divide greater
greater_equal hypot isfinite isinf isnan less less_equal log log10 log1p log2 logaddexp logical_and
logical_not logical_or logical_xor maximum minimum multiply negative nextafter not_equal positive pow
reciprocal remainder round sign signbit sin sinh sqrt square subtract tan tanh trunc max mean min prod std sum
var all any count_nonzero argmax argmin searchsorted sort argsort where matmul matrix_transpose tensordot vecdot
broadcast_arrays broadcast_to concat expand_dims flip moveaxis permute_dims repeat reshape roll squeeze stack
tile unstack arange empty empty_like eye full full_like linspace meshgrid ones ones_like tril triu zeros
zeros_like astype broadcast_shapes can_cast finfo iinfo isdtype result_type take take_along_axis e inf nan
newaxis pi
""".split()
BEYOND = "einsum erf sigmoid rsqrt logsumexp exp2 pad scatter_add sliding_window stop_gradient split".split()
RANDOM = "key split fold_in bits uniform normal bernoulli randint".split()


def test_the_promised_names_are_there():
    assert not [n for n in ARRAY_API + BEYOND if n not in PUBLIC]
    assert not [n for n in RANDOM if not hasattr(PUBLIC["random"], n)]


def test_every_function_says_what_it_does_and_shows_it():
    for name, function in PUBLIC.items():
        if callable(function):
            assert function.__doc__ and "xample: `" in function.__doc__, name


X4 = np.linspace(0.1, 0.9, 16, dtype="f4").reshape(4, 4)
GIVEN = {  # what the names in examples stand for
    **dict.fromkeys(("x", "y", "w", "logits"), X4), "mask": X4 > 0.5, "key": np.array([1, 2], "u4"), "edges": X4[0], "table": X4,
    "ids": np.array([1, 3]), "i": np.array([1, 3]), "u": X4[:2], "qkv": X4[:3], "step": np.array(7),
}  # fmt: skip
CUBE = np.ones((4, 4, 4), "f4")
OTHERS = {"meshgrid": X4[0], "squeeze": X4[:, :1], "permute_dims": CUBE, "broadcast_to": X4[0, :3], "einsum": CUBE}
OF_INTEGERS = ("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_left_shift", "bitwise_right_shift")


@pytest.mark.parametrize("name", [n for n, f in {**FUNCTIONS, **PUBLIC}.items() if callable(f)])
def test_examples_run(name):
    function = {**FUNCTIONS, **PUBLIC}[name]
    example = re.search(r"xample: `(.*?)`", function.__doc__).group(1)
    given = {**GIVEN, "x": (X4 * 10).astype("i4")} if name in OF_INTEGERS else GIVEN
    if name in OTHERS:
        given = {**GIVEN, "x": OTHERS[name], "y": OTHERS[name]}
    used = [n for n in given if re.search(rf"(?<!\.)\b{n}\b(?!=)", example)]

    def body(*tracers):
        scope = {"kd": types.SimpleNamespace(**PUBLIC, **dt.BY_NAME), "np": np, **dict(zip(used, tracers))}
        exec(example, scope) if " = " in example else eval(example, scope)
        return 0

    trace(body, *(given[n] for n in used))


def test_questions_about_dtypes():
    kd = PUBLIC
    assert kd["result_type"]("i32", 1.0).name == "f32" and kd["result_type"](np.int8, np.uint8).name == "i16"
    assert kd["can_cast"]("i32", "f32") and not kd["can_cast"]("f64", "f32")
    assert kd["isdtype"]("bf16", ("integral", "real floating")) and not kd["isdtype"]("bool", "numeric")
    assert kd["finfo"]("f32").eps == np.finfo("f4").eps and kd["finfo"]("bf16").bits == 16
    assert kd["iinfo"]("i32").max == 2**31 - 1
