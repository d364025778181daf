"""Here programs are scheduled for a GPU; the interpreter runs what comes out."""

import pytest

from kdsl.schedule.gpu.program import schedule_gpu
from kdsl.target import parse_target
from tests.schedule import grouped, test_any_program


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    for module in (grouped, test_any_program):
        monkeypatch.setattr(module, "TARGET", parse_target("cuda:sm_80"))
        monkeypatch.setattr(module, "schedule", schedule_gpu)
