"""The ten programs of the grammar: each text reads back, passes the verifier, and gives its NumPy meaning when interpreted."""

import program_texts as texts
import pytest

from kdsl.ir.interpreter import interpret
from kdsl.ir.loop_parser import parse_loops
from kdsl.ir.loop_printer import show_loops
from kdsl.ir.loop_verify import verify_loops

CASES = [(name, sizes) for name in texts.PROGRAMS for sizes in texts.SIZES[name]]


@pytest.mark.parametrize("name", texts.PROGRAMS)
def test_reads_back(name):
    program = texts.read(name, **({texts.FIXED[name]: 53} if name in texts.FIXED else {}))
    verify_loops(program)
    once = show_loops(program)
    assert show_loops(parse_loops(once)) == once


@pytest.mark.parametrize("named", [True, False], ids=["named", "fixed"])
@pytest.mark.parametrize(("name", "sizes"), CASES, ids=str)
def test_meaning(name, sizes, named):
    program = texts.read(name, **{s: n for s, n in sizes.items() if not named or s == texts.FIXED.get(name)})
    verify_loops(program)
    arguments = texts.PROGRAMS[name][0](**sizes)
    texts.assert_close(
        interpret(program, *arguments, sizes=sizes), texts.expected(name, arguments, sizes), name
    )
