"""Section 8 of the contract: what mistakes are called, and the four parts of what is said about them."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest

import kdsl as kd
import nn
from tests.contract.saying import mistake

HERE = Path(__file__)
ONE, TWO = np.ones(3, "f4"), np.ones((4, 5), "f4")


def affine(x, w, bias):
    y = x @ w + bias
    return y


def helper(x, y):
    return kd.concat([x, y], axis=0)


def through_helper(x, y):
    z = helper(x * 2, y)
    return z


def source_line(said):
    return HERE.read_text().splitlines()[said.line - 1]


# -- classes ----------------------------------------------------------------------------------------------------------

MISTAKES = {
    "add": (kd.ShapeError, ValueError, lambda: kd.kernel(lambda x, y: x + y)(ONE, np.ones(4, "f4"))),
    "matmul": (kd.ShapeError, ValueError, lambda: kd.kernel(lambda x, y: x @ y)(TWO, TWO)),
    "reshape": (kd.ShapeError, ValueError, lambda: kd.kernel(lambda x: kd.reshape(x, (2, 7)))(TWO)),
    "reshape twice -1": (kd.KdslError, ValueError, lambda: kd.kernel(lambda x: kd.reshape(x, (-1, -1)))(TWO)),
    "concat": (kd.ShapeError, ValueError, lambda: kd.kernel(lambda x, y: kd.concat([x, y], axis=0))(TWO, TWO[:, :2])),
    "stack": (kd.ShapeError, ValueError, lambda: kd.kernel(lambda x, y: kd.stack([x, y]))(TWO, TWO[:, :2])),
    "einsum": (kd.ShapeError, ValueError, lambda: kd.kernel(lambda x: kd.einsum("ij,ij,jk->ik", x, x, x))(TWO)),
    "einsum text": (kd.KdslError, ValueError, lambda: kd.kernel(lambda x: kd.einsum("ijk->i", x))(TWO)),
    "broadcast_to": (kd.ShapeError, ValueError, lambda: kd.kernel(lambda x: kd.broadcast_to(x, (4, 3)))(TWO)),
    "squeeze": (kd.ShapeError, ValueError, lambda: kd.kernel(lambda x: kd.squeeze(x, axis=0))(TWO)),
    "axis": (kd.AxisError, ValueError, lambda: kd.kernel(lambda x: kd.sum(x, axis=2))(TWO)),
    "axis is an IndexError too": (kd.AxisError, IndexError, lambda: kd.kernel(lambda x: kd.flip(x, axis=-3))(TWO)),
    "axis twice": (kd.KdslError, ValueError, lambda: kd.kernel(lambda x: kd.sum(x, axis=(0, 0)))(TWO)),
    "permute_dims": (kd.KdslError, ValueError, lambda: kd.kernel(lambda x: kd.permute_dims(x, (0, 0)))(TWO)),
    "index": (kd.KdslError, IndexError, lambda: kd.kernel(lambda x: x[4])(TWO)),
    "too many indices": (kd.KdslError, IndexError, lambda: kd.kernel(lambda x: x[0, 0, 0])(TWO)),
    "slice step 0": (kd.KdslError, ValueError, lambda: kd.kernel(lambda x: x[::0])(TWO)),
    "float index": (kd.KdslError, IndexError, lambda: kd.kernel(lambda x: x[1.5])(TWO)),
    "bits of floats": (kd.DtypeError, TypeError, lambda: kd.kernel(lambda x: x & x)(ONE)),
    "dtype": (kd.DtypeError, TypeError, lambda: kd.kernel(lambda x: kd.astype(x, "f3"))(ONE)),
    "u64 with signed": (
        kd.DtypeError,
        TypeError,
        lambda: kd.kernel(lambda x, y: x + y)(np.ones(2, "u8"), np.ones(2, "i8")),
    ),
    "truth": (kd.ControlFlowError, TypeError, lambda: kd.kernel(lambda x: x if x[0] > 0 else -x)(ONE)),
    "and": (kd.ControlFlowError, TypeError, lambda: kd.kernel(lambda x: x > 0 and x < 1)(ONE)),
    "float()": (kd.KdslError, TypeError, lambda: kd.kernel(lambda x: float(x[0]))(ONE)),
    "numpy()": (kd.KdslError, TypeError, lambda: kd.kernel(lambda x: np.asarray(x))(ONE)),
    "range": (kd.KdslError, TypeError, lambda: kd.kernel(lambda x, n: [x for _ in range(n)])(ONE, np.int64(3))),
    "assignment": (kd.KdslError, TypeError, lambda: kd.kernel(lambda x: x.__setitem__(0, 1))(ONE)),
    "missing argument": (kd.KdslError, TypeError, lambda: kd.kernel(lambda x, y: x)(ONE)),
    "too many arguments": (kd.KdslError, TypeError, lambda: kd.kernel(lambda x: x)(ONE, ONE)),
    "unknown keyword": (kd.KdslError, TypeError, lambda: kd.kernel(lambda x: x)(ONE, z=1)),
    "result": (kd.KdslError, TypeError, lambda: kd.kernel(lambda x: object())(ONE)),
    "text operand": (kd.KdslError, TypeError, lambda: kd.kernel(lambda x: x + "a")(ONE)),
    "max of nothing": (kd.ShapeError, ValueError, lambda: kd.kernel(lambda x: kd.max(x))(ONE[:0])),
    "window": (kd.ShapeError, ValueError, lambda: kd.kernel(lambda x: kd.sliding_window(x, 4, 0))(ONE)),
    "grad": (kd.KdslError, TypeError, lambda: kd.grad(lambda x: x)(ONE)),
    "cotangents": (kd.KdslError, TypeError, lambda: kd.kernel(lambda x: x).vjp(ONE)),
    "where": (kd.ShapeError, ValueError, lambda: kd.kernel(lambda x, y: kd.where(x > 0, x, y))(ONE, TWO)),
    "out": (kd.KdslError, ValueError, lambda: kd.kernel(lambda x: x)(ONE, out=np.ones(4, "f4"))),
    "target": (kd.TargetError, ValueError, lambda: kd.kernel(lambda x: x, target="tpu")(ONE)),
}
WITHOUT_A_PLACE_IN_THE_BODY = [
    "missing argument",
    "too many arguments",
    "unknown keyword",
    "grad",
    "cotangents",
    "out",
    "target",
]


@pytest.mark.parametrize("name", MISTAKES)
def test_one_class_per_kind_of_mistake(name):
    """One class per kind of mistake, all from `kd.KdslError`, each also derived from the builtin that NumPy raises"""
    kind, builtin, action = MISTAKES[name]
    with pytest.raises(kd.KdslError) as caught:
        action()
    assert isinstance(caught.value, kind), type(caught.value)
    assert isinstance(caught.value, builtin), type(caught.value).__mro__
    assert not isinstance(caught.value, kd.InternalError)


@pytest.mark.parametrize("name", MISTAKES)
def test_the_place_is_in_the_users_file_with_a_caret(name):
    """where, with the source line and a caret ... The caret is there whenever the source is"""
    kind, builtin, action = MISTAKES[name]
    said = mistake(kind, builtin, action)
    assert os.path.basename(said.file) == HERE.name
    assert said.underlined, said.whole
    assert said.underlined[0] in source_line(said)
    assert source_line(said)[said.column - 1 :].startswith(said.underlined[0])


@pytest.mark.parametrize("name", [n for n in MISTAKES if n not in WITHOUT_A_PLACE_IN_THE_BODY])
def test_what_is_wrong_is_said_in_one_line_without_internals(name):
    """what is wrong in the user's words"""
    kind, builtin, action = MISTAKES[name]
    said = mistake(kind, builtin, action)
    assert said.text.strip()
    for word in ("Op.", "Tracer", "Value(", "_given", "operand_dtype", "<lambda>", "0x"):
        assert word not in said.text


# -- the example of the text ------------------------------------------------------------------------------------------


def test_the_four_parts_of_the_example():
    """Four parts: what is wrong; where, with the source line and a caret; the facts that clash ...; a way out"""
    x, w, bias = np.ones((64, 8), "f4"), np.ones((8, 768), "f4"), np.ones(64, "f4")
    said = mistake(kd.ShapeError, ValueError, lambda: kd.kernel(affine)(x, w, bias))
    assert said.text == "cannot add f32[64, 768] and f32[64]: last axes are 768 and 64"
    assert source_line(said) == "    y = x @ w + bias"
    assert said.column == 9
    assert said.underlined[0] == "x @ w + bias"
    assert said.label == "f32[64, 768] + f32[64]"
    assert any("axes line up from the right" in fact and "bias[:, None]" in fact for fact in said.facts)


def test_the_class_is_named_before_the_text():
    """ShapeError: cannot add ..."""
    with pytest.raises(kd.ShapeError) as caught:
        kd.kernel(affine)(np.ones((64, 8), "f4"), np.ones((8, 768), "f4"), np.ones(64, "f4"))
    last = "".join(traceback.format_exception_only(caught.value))
    assert "ShapeError: cannot add f32[64, 768] and f32[64]" in last


# -- places -----------------------------------------------------------------------------------------------------------


def test_a_helper_is_the_place_with_the_callers_line_below():
    """The place is the innermost frame outside kdsl's and NumPy's files, with the callers' lines below it when it is a helper"""
    said = mistake(kd.ShapeError, ValueError, lambda: kd.kernel(through_helper)(TWO, ONE))
    assert source_line(said) == "    return kd.concat([x, y], axis=0)"
    assert said.underlined[0] == "kd.concat([x, y], axis=0)"
    assert said.underlined[1] == "helper(x * 2, y)"
    assert "z = helper(x * 2, y)" in said.whole


def test_numpy_frames_are_not_the_place():
    """outside kdsl's and NumPy's files"""
    said = mistake(kd.ShapeError, ValueError, lambda: kd.kernel(lambda x, y: np.add(x, y))(ONE, TWO[:2]))
    assert said.underlined[0] == "np.add(x, y)"
    said = mistake(kd.ShapeError, ValueError, lambda: kd.kernel(lambda x, y: np.concatenate([x, y]))(ONE, TWO))
    assert said.underlined[0] == "np.concatenate([x, y])"


def test_a_lambda_has_its_place():
    """The place is the innermost frame (a lambda's body)"""
    said = mistake(kd.ShapeError, ValueError, lambda: kd.kernel(lambda x, y: kd.exp(x) - y * 2)(ONE, np.ones(4, "f4")))
    assert said.underlined[0] == "kd.exp(x) - y * 2"


def test_one_of_several_operators_in_a_line_is_underlined():
    """a caret (under what is wrong, not under the line)"""

    def f(x, y):
        return (x * 2) + (x * y) * 3 - x

    said = mistake(kd.ShapeError, ValueError, lambda: kd.kernel(f)(ONE, np.ones(4, "f4")))
    assert said.underlined[0] in ("x * y", "(x * y)")


def test_columns_are_characters_not_bytes():
    """a caret (under the right columns after letters of several bytes)"""

    def f(x, y):
        return [("äöü€", x + y)[1]]

    said = mistake(kd.ShapeError, ValueError, lambda: kd.kernel(f)(ONE, np.ones(4, "f4")))
    assert said.underlined[0] == "x + y"
    assert source_line(said)[said.column - 1 :].startswith("x + y")


def test_an_expression_over_several_lines_is_underlined():
    """The caret is there whenever the source is"""

    def f(x, y):
        return kd.concat(
            [x, y],
            axis=0,
        )

    said = mistake(kd.ShapeError, ValueError, lambda: kd.kernel(f)(TWO, ONE))
    assert source_line(said).strip() == "return kd.concat("
    assert said.underlined and said.underlined[0].startswith("kd.concat(")


def test_an_nn_layer_shows_the_users_line():
    """with the callers' lines below it when it is a helper or an nn layer"""
    layer = nn.Linear(8, 4)
    said = mistake(kd.ShapeError, ValueError, lambda: layer(nn.Tensor(np.ones((3, 7), "f4"))))
    assert HERE.name in said.whole
    assert any("layer(nn.Tensor(np.ones((3, 7)" in text for text in said.underlined), said.whole


def bad_result(x):
    y = x + 1
    return {"a": y, "b": [object()]}


def test_a_mistake_about_the_result_points_at_the_return():
    """A mistake about the result points at the return expression (a lambda's body)"""
    said = mistake(kd.KdslError, TypeError, lambda: kd.kernel(bad_result)(ONE))
    assert said.underlined[0] == '{"a": y, "b": [object()]}'
    assert "b" in said.whole
    said = mistake(kd.KdslError, TypeError, lambda: kd.kernel(lambda x: "text" * 2)(ONE))
    assert said.underlined[0] == '"text" * 2'


def test_the_right_one_of_several_returns_is_pointed_at():
    """points at the return expression"""

    def f(x, which):
        if which:
            return x
        return {1, 2}

    said = mistake(kd.KdslError, TypeError, lambda: kd.kernel(f)(ONE, False))
    assert said.underlined[0] == "{1, 2}"


def annotated(x: kd.f32["N", 4], *, scale: kd.f32 = 1.0):
    return x * scale


def test_a_mistake_about_an_argument_points_at_the_parameter_and_the_call():
    """about an argument at the parameter and the call"""
    f = kd.kernel(annotated)
    said = mistake(kd.ShapeError, ValueError, lambda: f(np.ones((2, 5), "f4")))
    assert 'x: kd.f32["N", 4]' in said.underlined
    assert any(text.startswith("f(np.ones((2, 5)") for text in said.underlined), said.whole
    said = mistake(kd.DtypeError, TypeError, lambda: f(np.ones((2, 4), "f8")))
    assert 'x: kd.f32["N", 4]' in said.underlined


def test_a_clash_of_names_says_where_each_came_from():
    """the facts that clash and where each came from"""
    f = kd.kernel(lambda first, second: first + second, types=(kd.f32["N"], kd.f32["N"]))
    said = mistake(kd.ShapeError, ValueError, lambda: f(np.ones(3, "f4"), np.ones(4, "f4")))
    for word in ("N", "3", "4", "first", "second"):
        assert word in said.whole, word


def test_without_source_there_is_a_place_without_a_caret():
    """The caret is there whenever the source is (and no error in telling when it is not)"""
    space = {"kd": kd}
    exec(compile("def f(x, y):\n    return x + y\n", "<made>", "exec"), space)
    with pytest.raises(kd.ShapeError) as caught:
        kd.kernel(space["f"])(ONE, TWO[:2, :2])
    assert "<made>:2" in str(caught.value)


def test_no_frame_of_kdsl_is_in_the_traceback():
    """`KDSL_TRACEBACK=full` (keep kdsl's own frames): without it they are left out"""
    with pytest.raises(kd.KdslError) as caught:
        kd.kernel(through_helper)(TWO, ONE)
    own = os.path.dirname(kd.__file__) + os.sep
    assert not [f for f in traceback.extract_tb(caught.value.__traceback__) if f.filename.startswith(own)]


def test_a_users_own_exception_passes_through():
    """(an exception of the user's body is the user's)"""

    def f(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        kd.kernel(f)(ONE)


def test_ways_out_are_given_where_one_is_sure():
    """a way out where one is sure"""
    for action, words in [
        (lambda: kd.kernel(lambda x: x if x[0] > 0 else -x)(ONE), "kd.where"),
        (lambda: kd.kernel(lambda x: x[x > 0])(ONE), "kd.where"),
        (lambda: kd.kernel(lambda x, y: x + y)(np.ones((3, 4), "f4"), ONE), "[:, None]"),
    ]:
        with pytest.raises(kd.KdslError) as caught:
            action()
        assert words in str(caught.value)


# -- never a wrong number, never a crash ------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [7, -8, 2**31, 2**62, -(2**63)])
def test_index_errors_name_the_index(index):
    """Never a wrong number and never a crash: index errors name the index"""
    x = np.arange(7, dtype="f4")
    f = kd.kernel(lambda x, i: kd.take(x, i, axis=0) * 2)
    said = mistake(kd.KdslError, IndexError, lambda: f(x, np.array([0, index, 3])))
    assert str(index) in said.whole and "7" in said.whole


def test_index_errors_within_a_fused_kernel_and_a_backward_name_the_index():
    """index errors name the index"""
    f = kd.kernel(lambda x, i: kd.sum(kd.exp(x[i]), axis=1))
    x = np.ones((5, 3), "f4")
    for action in (lambda: f(x, np.array([0, 5])), lambda: f.vjp(x, np.array([0, -6]), np.ones(2, "f4"))):
        with pytest.raises(IndexError, match=r"5|-6"):
            action()


def test_after_an_index_error_everything_works():
    """never a crash"""
    f = kd.kernel(lambda x, i: x[i])
    x = np.arange(4, dtype="f4")
    for _ in range(3):
        with pytest.raises(IndexError):
            f(x, np.array([9]))
        assert float(f(x, np.array([3]))[0]) == 3


def test_a_failed_compilation_leaves_the_cache_as_it_was(tmp_path):
    """a failed compilation leaves the cache as it was"""
    program = (
        "import os, sys, numpy as np, kdsl as kd\n"
        "def files(): return sorted(p for p, _, f in os.walk(os.environ['KDSL_CACHE_DIR']) for p in f)\n"
        "f = kd.kernel(lambda x, y: x + y)\nf(np.ones(3), np.ones(3))\nbefore = files()\n"
        "try: f(np.ones(3), np.ones(4))\nexcept kd.ShapeError: pass\n"
        "print(before == files(), f(np.ones(3), np.ones(3)).tolist())"
    )
    environment = {**os.environ, "KDSL_CACHE_DIR": str(tmp_path)}
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600, env=environment)
    assert out.stdout.strip() == "True [2.0, 2.0, 2.0]", out.stderr


def test_a_mistake_inside_the_compiler_is_an_InternalError_that_saves_the_stages(monkeypatch, tmp_path):
    """a mistake inside the compiler is an `InternalError` that saves the stages it got to"""
    import kdsl.pipeline as pipeline

    monkeypatch.setenv("KDSL_CACHE_DIR", str(tmp_path))

    def broken(*_args, **_kwargs):
        raise AssertionError("broken on purpose")

    monkeypatch.setattr(pipeline, "schedule", broken)
    with pytest.raises(kd.InternalError) as caught:
        kd.kernel(lambda x: x * 1.0625 + kd.tanh(x))(np.ones(331, "f4"))
    folder = next(word for word in str(caught.value).split() if os.path.isabs(word) and os.path.isdir(word))
    saved = "".join(p.read_text() for p in Path(folder).rglob("*") if p.is_file())
    assert "tanh" in saved and "traced" in " ".join([saved, *os.listdir(folder)])


@pytest.mark.gpu
def test_gpu_index_errors_come_at_the_next_synchronisation():
    """(on the GPU at the next synchronisation)"""
    f = kd.kernel(lambda x, i: x[i], target="cuda")
    with pytest.raises(IndexError, match="9"):
        f(kd.asarray(ONE, device="cuda"), kd.asarray(np.array([9]), device="cuda")).numpy()
