"""Every mistake in mistakes.py is told as tests/golden/errors/ says: message, place, facts, way out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import kdsl as kd
from tests.errors.mistakes import MISTAKES

HERE = Path(__file__).parent


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda f: f.__name__)
def test_message(mistake, golden, monkeypatch):
    monkeypatch.chdir(HERE)
    with pytest.raises(kd.KdslError) as caught:
        mistake()
    bases = [b.__name__ for b in type(caught.value).__mro__[1:] if b.__module__ == "builtins"][:-3]
    golden(f"errors/{mistake.__name__}", f"{type(caught.value).__name__}({', '.join(bases)}): {caught.value}")


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda f: f.__name__)
def test_no_frame_of_kdsl_in_the_traceback(mistake):
    own = os.path.dirname(kd.__file__) + os.sep
    with pytest.raises(kd.KdslError) as caught:
        mistake()
    step, files = caught.value.__traceback__, []
    while step is not None:
        files.append(step.tb_frame.f_code.co_filename)
        step = step.tb_next
    assert not [f for f in files if f.startswith(own)]


def test_all_frames_on_request(monkeypatch):
    monkeypatch.setenv("KDSL_TRACEBACK", "full")
    with pytest.raises(kd.KdslError) as caught:
        MISTAKES[0]()
    step, files = caught.value.__traceback__, []
    while step is not None:
        files.append(step.tb_frame.f_code.co_filename)
        step = step.tb_next
    assert [f for f in files if f.startswith(os.path.dirname(kd.__file__))]
