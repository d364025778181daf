"""Random programs through the whole compiler equal their meaning: forward, gradients and the two halves of a pullback."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdsl.transforms.differentiate import vjp
from kdsl.transforms.simplify import simplify
from tests.programs import Maker, programs
from tests.whole import LAYOUTS, compare, cotangents, forward, gradients, halves, laid_out, poisoned  # noqa: F401

ODD = (1, 13, 16, 17, 33, 64, 67)
FORWARD = {
    "any dtype": {"dtypes": ("f64", "f32", "f16", "bf16"), "only": Maker.ALL},
    "special values": {"dtypes": ("f64", "f32"), "special": True},
    "empty": {"dtypes": ("f64", "f32"), "only": Maker.ALL, "extents": (0, 0, 1, 3, 17)},
    "several tiles": {"dtypes": ("f64", "f32"), "only": Maker.ALL, "extents": ODD, "most": 6000},
    "named sizes": {"dtypes": ("f64", "f32"), "only": Maker.ALL, "named": True, "extents": (0, 1, 2, 7, 16, 17, 33)},
}
BACKWARD = {
    "fixed sizes": {"dtypes": ("f64", "f32"), "smooth": True, "only": Maker.ALL},
    "several tiles": {"dtypes": ("f64",), "smooth": True, "only": Maker.ALL, "extents": ODD, "most": 6000},
    "named sizes": {"dtypes": ("f64",), "smooth": True, "only": Maker.ALL, "named": True, "extents": (1, 2, 7, 16, 17, 33)},
}


def some(count):
    """So many examples: always the same ones by default, others each time in the slow tests."""
    return settings(
        max_examples=count, deadline=None, database=None, derandomize=count < 100, suppress_health_check=list(HealthCheck)
    )


def check_forward(program, layout):
    arrays = [laid_out(x, layout) for x in program.arrays]
    compare(forward(program.function, arrays), program.function, arrays)


def check_backward(program, layout):
    arrays = [laid_out(x, layout) for x in program.arrays]
    found, derived, every = gradients(program.function, arrays, layout)
    compare(found, derived, every, "gradients")
    results, again = halves(program.function, arrays)
    compare(results, program.function, arrays, "forward half")
    compare(again, vjp(simplify(program.function)), [*arrays, *cotangents(program.function, arrays)], "backward half")


@pytest.mark.parametrize("kind", FORWARD)
def test_programs(kind, poisoned):  # noqa: F811
    some(25)(given(programs(**FORWARD[kind]), st.sampled_from(LAYOUTS))(check_forward))()


@pytest.mark.parametrize("kind", BACKWARD)
def test_gradients(kind, poisoned):  # noqa: F811
    some(8)(given(programs(**BACKWARD[kind]), st.sampled_from(LAYOUTS))(check_backward))()


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORWARD)
def test_many_programs(kind, poisoned):  # noqa: F811
    some(2000)(given(programs(**FORWARD[kind]), st.sampled_from(LAYOUTS))(check_forward))()


@pytest.mark.slow
@pytest.mark.parametrize("kind", BACKWARD)
def test_many_gradients(kind, poisoned):  # noqa: F811
    some(500)(given(programs(**BACKWARD[kind]), st.sampled_from(LAYOUTS))(check_backward))()


def test_memory_is_garbage_before_a_call(poisoned):  # noqa: F811
    from kdsl.runtime import call

    assert np.all(np.isnan(call.empty((3,), np.dtype("f4"))))
