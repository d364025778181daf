"""Tuning: candidates are checked, the winner is kept on disk and used, a wrong schedule is an error."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import kdsl as kd
from kdsl import choices, pipeline, tuner
from kdsl.schedule.register_tile import choose_tiling
from kdsl.specialisation import target_named
from kdsl.target import LEVELS

V3 = LEVELS["x86-64-v3"]


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A cache of its own; what earlier tests tuned is forgotten."""
    monkeypatch.setenv("KDSL_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(choices, "_known", {})
    return tmp_path


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype("f4")


def test_a_target_gives_what_was_chosen():
    chosen = replace(V3, choices=(("dot rows", 4), ("dot vectors", 3)))
    assert V3.choice("dot rows", 6) == 6 and chosen.choice("dot rows", 6) == 4
    tiling = choose_tiling(chosen, kd.f32, 512, 512)
    assert (tiling.rows, tiling.columns) == (4, 24)
    assert choose_tiling(chosen, kd.f32, 1, 512) == choose_tiling(V3, kd.f32, 1, 512)  # a single row has a tile of its own


def test_what_registers_cannot_hold_is_not_tried():
    assert tuner._fits((("dot rows", 6), ("dot vectors", 2)), V3)
    assert not tuner._fits((("dot rows", 8), ("dot vectors", 3)), V3)


def test_every_candidate_computes_the_same(fresh):
    f = kd.kernel(lambda x, w, b: kd.maximum(x @ w + b, 0) / (1 + kd.sum(x * x, axis=-1, keepdims=True)))
    arguments = normal(37, 70), normal(70, 131), normal(131)
    expected = f(*arguments)
    call = f.read(arguments, {})
    for step in tuner.SPACE:
        for chosen in step:
            if tuner._fits(chosen, V3):
                target = replace(target_named("cpu"), choices=chosen)
                found = pipeline.compile_forward(f.traced(call).function, call.signature.strides, target)
                (got,) = found.run(call.tensors, None, {})
                np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-6)


def faked(monkeypatch, wins):
    """Tuning in which the candidate with the choice `wins` is the fastest."""

    def race(*runners):
        return [0.5 if wins in str(r.__closure__[0].cell_contents.program.target.choices) else 1.0 for r in runners]

    monkeypatch.setattr(tuner, "race", race)


def test_the_winner_is_used_and_kept(fresh, monkeypatch):
    faked(monkeypatch, "('row vectors', 2)")
    f = kd.kernel(lambda x: kd.exp(x) - 1)
    x = normal(3, 1000)
    expected = f(x)
    found = kd.tune(f, x)
    assert found.choices == (("row vectors", 2),) and found.after < found.before and found.tried
    np.testing.assert_array_equal(f(x), expected)
    used = f.specialise(f.read((x,), {})).program.target.choices
    assert used == (("row vectors", 2),)
    monkeypatch.setattr(choices, "_known", {})  # another process finds it on disk
    again = kd.kernel(lambda x: kd.exp(x) - 1)
    assert again.specialise(again.read((x,), {})).program.target.choices == used
    other = kd.kernel(lambda x: kd.exp(x) - 2)
    assert other.specialise(other.read((x,), {})).program.target.choices == ()


def test_a_schedule_that_computes_something_else_is_an_error(fresh):
    with pytest.raises(kd.VerifyError, match="something else"):
        tuner._check([np.ones(3, "f4")], [np.array([1, 1, 1.1], "f4")], (("row vectors", 2),))
    with pytest.raises(kd.VerifyError):
        tuner._check([np.array([np.nan], "f4")], [np.ones(1, "f4")], ())
    tuner._check([np.array([np.inf, 1], "f4")], [np.array([np.inf, 1 + 1e-6], "f4")], ())


def test_the_environment_asks_for_it(fresh):
    program = (
        "import numpy as np, kdsl as kd\n"
        "from kdsl import choices\n"
        "f = kd.kernel(lambda x: kd.exp(x) * 3)\n"
        "f(np.ones((3, 1000), 'f4'))\n"
        "print(len(choices._known))\n"
    )
    environment = {**os.environ, "KDSL_TUNE": "1", "PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "1", done.stderr
