"""Stages, sources, explanations and verify: what is shown is what was compiled."""

from __future__ import annotations

import numpy as np
import pytest

import kdsl as kd
from kdsl.inspection.tolerance import bound_of, worst

X = np.random.default_rng(0).standard_normal((33, 70)).astype(np.float32)


@kd.kernel
def softmax(x):
    e = kd.exp(x - kd.max(x, axis=-1, keepdims=True))
    return e / kd.sum(e, axis=-1, keepdims=True)


def test_stages_by_name_in_order():
    stages = softmax.stages(X)
    names = ["traced", "simplified", "expanded", "grouped", "lowered", "scheduled", "source", "assembly"]
    assert list(stages) == names
    assert all(isinstance(text, str) and text for text in stages.values())
    assert "exp" in stages["traced"]
    assert "derived" in softmax.vjp.stages(X, X)


def test_sources_are_text_and_need_no_arrays():
    assert "define" in softmax.source(kd.f32[64, 64], target="cpu")
    assert softmax.llvm(kd.f32[64, 64]) == softmax.source(kd.f32[64, 64])
    assert "<16 x float>" in softmax.source(kd.f32[64, 64], target="cpu:x86-64-v4")
    assert "ret" in softmax.asm(kd.f32[64, 64])


def test_types_come_from_annotations():
    @kd.kernel
    def f(x: kd.f32[8, 16], k: kd.f32):
        return x * k

    assert "f32[8, 16]" in f.stages()["traced"]




def test_explain_prints_and_has_data(capsys):
    found = softmax.explain(X)
    assert str(found) in capsys.readouterr().out
    (kernel,) = found.kernels
    assert kernel.kind == "kernel"
    assert kernel.reads == ("x: f32[33, 70]",)
    assert kernel.writes == ("out: f32[33, 70]",)
    assert kernel.bytes == 2 * X.nbytes
    assert kernel.operations > X.size
    assert found.stored_intermediates == ()
    (backward,) = softmax.vjp.explain(X, X).kernels
    assert len(backward.reads) == 2


def test_verify_has_a_row_for_each_target():
    report = softmax.verify(X)
    assert [row.name for row in report.rows] == ["numpy", "cpu", "emulator", "cuda", "gradient"]
    assert [report[n].passed for n in ("numpy", "cpu", "gradient")] == [True, True, True]
    assert report["cuda"].passed is None
    assert report["cuda"].note
    assert "agrees" in str(report)


def test_code_that_cannot_be_made_is_a_failed_row(monkeypatch):
    def broken(self, call, target=None):
        if target == "emulator":
            raise ValueError("no such instruction\nand more")
        return specialise(self, call, target)

    pytest.importorskip("numba_cuda")
    specialise = type(softmax).specialise
    monkeypatch.setattr(type(softmax), "specialise", broken)
    report = softmax.verify(X)
    assert report["emulator"].passed is False and "ValueError: no such instruction" in report["emulator"].note
    assert "FAILED" in str(report)


def test_verify_of_integers_is_exact():
    report = kd.kernel(lambda n: n // 3 * 7).verify(np.arange(-50, 50))
    assert report["cpu"].passed
    assert report["gradient"].passed is None


def test_a_disagreement_is_told(monkeypatch):
    f = kd.kernel(lambda x: x + 1)
    found = f.specialise(f.read((X,), {}), "cpu")
    run = type(found).run

    def wrong(self, *args):
        results = run(self, *args)
        results[0][2, 3] += 1
        return results

    monkeypatch.setattr(type(found), "run", wrong)
    with pytest.raises(kd.VerifyError, match=r"result\[2, 3\] is .*, the reference is .*, the bound is"):
        f.verify(X)


def test_nan_and_infinity_are_compared_too():
    function = softmax.traced(softmax.read((X,), {})).function
    want = np.array([1.0, np.nan, np.inf, 2.0], np.float32)
    bound = bound_of(function, want)
    assert worst(want.copy(), want, bound)[0] == 0
    for i, value in ((0, np.nan), (1, 0.0), (2, -np.inf), (3, 2.1)):
        have = want.copy()
        have[i] = value
        ratio, index = worst(have, want, bound)
        assert not ratio <= 1
        assert index == (i,)


def test_a_mistake_in_the_compiler_saves_its_stages(monkeypatch, tmp_path):
    monkeypatch.setenv("KDSL_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("kdsl.pipeline.schedule", lambda *args: 1 // 0)
    with pytest.raises(kd.InternalError, match="after the stage 'grouped' of lambda: ZeroDivisionError") as caught:
        kd.kernel(lambda x: x * 1.2345)(X)
    folder = str(caught.value).rsplit(" are in ", 1)[1].split("\n")[0]
    assert "traced" in "".join(p.name for p in (tmp_path / "failures").glob("*/*")) and str(tmp_path) in folder


def test_doctor_names_the_machine():
    assert any(line.startswith("CPU") for line in kd.doctor())


def test_verify_checks_the_rule_that_a_user_wrote():
    @kd.kernel
    def cube(x):
        return x * x * x

    x = np.linspace(-1, 1, 7, dtype=np.float32)
    cube.defvjp(lambda args, results, cotangents: (3 * args[0] * args[0] * cotangents[0],))
    assert cube.verify(x)["gradient"].passed
    cube.defvjp(lambda args, results, cotangents: (2 * args[0] * args[0] * cotangents[0],))
    with pytest.raises(kd.VerifyError, match="the rule that defvjp gave"):
        cube.verify(x)


def test_vjp_and_pullback_explain():
    f = kd.kernel(lambda x, w: kd.sum(kd.exp(x @ w), axis=-1))
    types = kd.f32[8, 16], kd.f32[16, 4]
    assert f.vjp.explain(*types, kd.f32[8]).kernels
    parts = {k.part for k in f.pullback.explain(*types).kernels}
    assert len(parts) == 2
    assert all(any(word in part for part in parts) for word in ("forward", "backward"))
