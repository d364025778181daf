"""The small programs in examples/ run and agree with their NumPy references."""

import importlib
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
LONG = {"__init__", "induction_heads", "moons", "selective_copying", "sort"}  # tests/test_examples.py
GALLERY = sorted(p.stem for p in EXAMPLES.glob("*.py") if p.stem not in LONG)


@pytest.mark.parametrize("name", GALLERY)
def test_gallery(name, capsys):
    importlib.import_module(f"examples.{name}").main()
    assert capsys.readouterr().out


def test_answers_to_mistakes_have_four_parts(capsys):
    importlib.import_module("examples.errors").main()
    told = capsys.readouterr().out
    assert (
        "ShapeError: cannot add f32[64, 768] and f32[64]" in told
        and "-->" in told
        and "^^^" in told
        and "\n   = " in told
    )
