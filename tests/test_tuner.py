"""Tuning: candidates are checked, the winner is kept on disk and used, a wrong schedule is an error."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import kdsl as kd
from kdsl import choices, pipeline, tuned, tuner
from kdsl.ir.interpreter import interpret
from kdsl.schedule.register_tile import choose_tiling
from kdsl.specialisation import target_named
from kdsl.target import LEVELS, parse_target
from tests.gpu_target import checked

V3 = LEVELS["x86-64-v3"]


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A cache of its own; what earlier tests tuned is forgotten."""
    monkeypatch.setenv("KDSL_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tuned, "_known", {})
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
    assert choices.fits((("dot rows", 6), ("dot vectors", 2)), V3)
    assert not choices.fits((("dot rows", 8), ("dot vectors", 3)), V3)


def test_every_candidate_computes_the_same(fresh):
    f = kd.kernel(lambda x, w, b: kd.maximum(x @ w + b, 0) / (1 + kd.sum(x * x, axis=-1, keepdims=True)))
    arguments = normal(37, 70), normal(70, 131), normal(131)
    expected = f(*arguments)
    call = f.read(arguments, {})
    for step in choices.CPU:
        for chosen in step:
            if choices.fits(chosen, V3):
                target = replace(target_named("cpu"), choices=chosen)
                found = pipeline.compile_forward(f.traced(call).function, call.signature.strides, target)
                (got,) = found.run(call.tensors, None, {})
                np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-6)


def faked(monkeypatch, wins):
    """Tuning in which the candidate with the choice `wins` is the fastest."""

    def race(*runners):
        return [0.5 if wins in str(r.program.target.choices) else 1.0 for r in runners]

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
    monkeypatch.setattr(tuned, "_known", {})  # another process finds it on disk
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
        "from kdsl import tuned\n"
        "f = kd.kernel(lambda x: kd.exp(x) * 3)\n"
        "f(np.ones((3, 1000), 'f4'))\n"
        "print(len(tuned._known))\n"
    )
    environment = {**os.environ, "KDSL_TUNE": "1", "PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == "1", done.stderr


def layer(x, w):
    return kd.tanh(x @ w)


def test_gradients_are_tuned(fresh, monkeypatch):
    faked(monkeypatch, "('dot rows', 4)")
    f = kd.kernel(layer)
    x, w, dy = normal(40, 64), normal(64, 48), normal(40, 48)
    expected = f.vjp(x, w, dy)
    found = kd.tune(f.vjp, x, w, dy)
    assert ("dot rows", 4) in found.choices and found.tried
    for have, want in zip(f.vjp(x, w, dy), expected, strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)
    (program,) = f.vjp.looked_at((x, w, dy), {}, None)
    assert program.target.choices == found.choices
    assert f.specialise(f.read((x, w), {})).program.target.choices == ()


def test_both_halves_of_a_pullback_are_tuned(fresh, monkeypatch):
    faked(monkeypatch, "('dot rows', 4)")
    f = kd.kernel(layer)
    x, w, dy = normal(40, 64), normal(64, 48), normal(40, 48)
    expected = f.vjp(x, w, dy)
    found = kd.tune(f.pullback, x, w)
    assert found.backward is not None and ("dot rows", 4) in found.choices and ("dot rows", 4) in found.backward.choices
    for have, want in zip(f.pullback(x, w)[1](dy), expected, strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)
    programs = f.pullback.looked_at((x, w), {}, None)
    assert [p.target.choices for p in programs] == [found.choices, found.backward.choices]


def test_what_is_no_kernel_is_refused():
    with pytest.raises(kd.KdslError, match="no kernel, nor the vjp or the pullback"):
        kd.tune(np.exp, normal(3))


def test_near_memory_and_registers_of_a_gpu_are_known():
    target = parse_target("cuda:sm_86")
    assert choices.space(target) is choices.GPU
    assert choices.fits((("gpu dot columns", 128), ("gpu dot rows", 128)), target)
    assert not choices.fits((("gpu dot columns", 256), ("gpu dot depth", 5), ("gpu dot k", 64), ("gpu dot rows", 128)), target)


def test_every_candidate_of_a_gpu_computes_the_same(monkeypatch):
    def attention(q, k, v):
        s = q @ k.mT
        e = kd.exp(s - kd.max(s, axis=-1, keepdims=True))
        return e @ v / kd.sum(e, axis=-1, keepdims=True)

    programs = [
        (lambda x, y: kd.tanh(x @ y), normal(70, 40), normal(40, 130)),
        (attention, normal(70, 16), normal(130, 16), normal(130, 16)),
        (lambda x: (kd.sum(x, axis=0), kd.exp(x) / kd.sum(kd.exp(x), axis=1, keepdims=True)), normal(70, 1003)),
    ]
    for step in choices.GPU:
        for chosen in step:
            monkeypatch.setattr(checked, "TARGET", replace(parse_target("cuda:sm_80"), choices=chosen))
            number = 0 if "dot" in chosen[0][0] else 1 if "chain" in chosen[0][0] else 2
            f, *arrays = programs[number]
            checked.check(f, *arrays, on=(interpret,))


@pytest.mark.oracle
@pytest.mark.skipif(importlib.util.find_spec("numba_cuda") is None, reason="needs numba-cuda: pip install 'kdsl[cuda]'")
def test_a_gpu_is_tuned_for_each_class_of_sizes(fresh, monkeypatch):
    faked(monkeypatch, "('gpu thread bytes', 64)")
    f = kd.kernel(lambda x: x - kd.max(x, axis=-1, keepdims=True), target="emulator", types={"x": kd.f32["N", "D"]})
    x = normal(3, 600)
    expected = f(x)
    found = kd.tune(f, x)
    assert ("gpu thread bytes", 64) in found.choices
    np.testing.assert_array_equal(f(x), expected)

    def used(*shape):
        return f.specialise(f.read((normal(*shape),), {})).program.target.choices

    assert used(9, 608) == found.choices  # the same class
    assert used(3, 601) == () and used(3, 64) == ()
