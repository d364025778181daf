"""The programs of the loop IR's grammar as GPU code in the emulator: constructs also in the forms that schedules for a CPU use.

Their tiles are made for a CPU; those whose extents are powers of two are GPU programs too, if slow ones.
"""

import importlib.util
import sys
from pathlib import Path

import pytest

from tests.schedule.gpu.emulated import emulated

sys.path.insert(0, str(Path(__file__).parents[2] / "ir"))
import program_texts as texts

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(importlib.util.find_spec("numba_cuda") is None, reason="needs numba-cuda: pip install 'kdsl[cuda]'"),
]
NAMES = [
    "gelu", "softmax", "softmax_streamed", "layer_norm_backward", "selective_scan", "selective_scan_backward",
    "embedding_gradient", "argmax",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_named_sizes(name):
    program = texts.read(name)
    for sizes in texts.SIZES[name][-3:]:
        arguments = texts.PROGRAMS[name][0](**sizes)
        results = emulated(program, arguments, sizes)
        texts.assert_close(results, texts.expected(name, arguments, sizes), f"{name} {sizes}")
