"""Meaning: the ten programs of the grammar, as machine code of every level's lanes, give their NumPy meaning."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "ir"))
import program_texts as texts

from .harness import run

CASES = [(name, sizes) for name in texts.PROGRAMS for sizes in texts.SIZES[name]]


@pytest.mark.parametrize("level", ["x86-64-v3", "x86-64-v4", "arm64"])
@pytest.mark.parametrize(("name", "sizes"), CASES, ids=str)
def test_meaning(name, sizes, level):
    for named in (True, False) if level == "x86-64-v3" else (False,):
        program = texts.read(name, **{s: n for s, n in sizes.items() if not named or s == texts.FIXED.get(name)})
        arguments = texts.PROGRAMS[name][0](**sizes)
        results = run(program, *arguments, sizes=sizes, level=level)
        texts.assert_close(results, texts.expected(name, arguments, sizes), name)
