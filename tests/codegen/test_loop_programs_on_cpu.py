"""The ten programs of the loop IR's grammar as machine code of this machine."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "ir"))
import program_texts as texts

CASES = [(name, sizes) for name in texts.PROGRAMS for sizes in texts.SIZES[name]]


@pytest.mark.parametrize("name", texts.PROGRAMS)
def test_named_sizes(name):
    run = texts.compile_for_cpu(texts.read(name)) if name not in texts.FIXED else None
    for sizes in texts.SIZES[name]:
        if name in texts.FIXED:
            run = texts.compile_for_cpu(texts.read(name, **{texts.FIXED[name]: sizes[texts.FIXED[name]]}))
        arguments = texts.PROGRAMS[name][0](**sizes)
        texts.assert_close(
            run(arguments, sizes=sizes), texts.expected(name, arguments, sizes), f"{name} {sizes}"
        )


@pytest.mark.parametrize(
    ("name", "sizes"), [(name, texts.SIZES[name][-1]) for name in texts.PROGRAMS], ids=str
)
def test_fixed_sizes(name, sizes):
    arguments = texts.PROGRAMS[name][0](**sizes)
    run = texts.compile_for_cpu(texts.read(name, **sizes))
    texts.assert_close(run(arguments), texts.expected(name, arguments, sizes), f"{name} {sizes}")
