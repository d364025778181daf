"""The public names: listed once, in order, documented, typed, with an example; kd.__all__ and docs/api.md are one list."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import kdsl as kd

ROOT = Path(__file__).parent.parent
FUNCTIONS = {n: f for n in kd.__all__ if inspect.isfunction(f := getattr(kd, n))}
RANDOM = {
    n: f
    for n, f in vars(kd.random).items()
    if inspect.isfunction(f) and f.__module__ == kd.random.__name__ and n[0] != "_"
}


def order(name: str) -> tuple[object, ...]:
    """Classes first, then names by letters and numbers: i8 stands before i16."""
    return not name[0].isupper(), [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", name)]


def test_names_are_there_once_and_in_order():
    assert len(set(kd.__all__)) == len(kd.__all__)
    assert not [n for n in kd.__all__ if not hasattr(kd, n)]
    assert list(kd.__all__) == sorted(kd.__all__, key=order)


def test_the_page_of_names_has_them_all():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    listed = {name.split("(")[0] for name in re.findall(r"`([^`]+)`", page)}
    assert not [n for n in kd.__all__ if n not in listed]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_documented_and_typed(name):
    function = FUNCTIONS[name]
    text = inspect.getdoc(function)
    assert text and text[0] != " " and text.split("\n\n")[0].rstrip().endswith((".", ":", "`")), text
    signature = inspect.signature(function)
    untyped = [p.name for p in signature.parameters.values() if p.annotation is inspect.Parameter.empty]
    assert not untyped and signature.return_annotation is not inspect.Signature.empty


def test_every_function_shows_an_example():
    assert not [n for n, f in {**FUNCTIONS, **RANDOM}.items() if "xample: `" not in (f.__doc__ or "")]


X = np.linspace(0.1, 0.9, 16, dtype="f4").reshape(4, 4)
GIVEN = {"x": X, "w": X, "function": lambda x: kd.sum(x * x)}


@pytest.mark.parametrize(
    "name", ["kernel", "grad", "value_and_grad", "asarray", "compilations", "doctor", "as_dtype"]
)
def test_examples_outside_kernels_run(name):
    """Those of the language run in tests/language/test_tracer.py."""
    for example in re.findall(r"xample: `(.*?)`", getattr(kd, name).__doc__):
        scope = {"kd": kd, "np": np, **GIVEN}
        exec(example, scope)


def test_classes_say_what_they_are():
    for name in kd.__all__:
        if inspect.isclass(found := getattr(kd, name)):
            assert inspect.getdoc(found), name


def test_mistakes_are_also_the_builtins_that_numpy_raises():
    for name in kd.__all__:
        found = getattr(kd, name)
        if inspect.isclass(found) and issubclass(found, Exception) and not issubclass(found, Warning):
            assert issubclass(found, kd.KdslError), name
    for mistake, builtin in (
        (kd.ShapeError, ValueError),
        (kd.DtypeError, TypeError),
        (kd.OutOfRangeError, IndexError),
    ):
        assert issubclass(mistake, builtin)


def test_largest_files():
    """Informs (pytest -rA shows it), does not fail: a file of more than 300 lines may have two ideas in it."""
    files = [p for folder in ("kdsl", "nn") for p in (ROOT / folder).rglob("*.py")]
    sizes = sorted(
        ((len(p.read_text(encoding="utf-8").splitlines()), str(p.relative_to(ROOT))) for p in files), reverse=True
    )
    for lines, name in sizes[:10]:
        print(f"{lines:5d} {name}")
