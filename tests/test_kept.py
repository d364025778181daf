"""Programs on disk: found by later processes, never by the wrong ones; damage only means compiling again."""

import os
import pickle
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import kdsl as kd
from kdsl import kept, pipeline
from kdsl.runtime import cpu
from kdsl.runtime.native import native

X = np.arange(24, dtype="f4").reshape(4, 6)
ONES = np.ones_like(X)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    native()  # the runtime's own code is no program of these tests, whichever runs first
    monkeypatch.setenv("KDSL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "_compiler", lambda: "this kdsl")  # also where its sources changed a moment ago
    forget()
    return tmp_path / "cache"


def forget():
    """As a new process."""
    pipeline._programs.clear()
    cpu._libraries.clear()


@pytest.fixture
def compiled(monkeypatch):
    """Counts what is grouped: with everything found on disk nothing is."""
    seen = []
    real = pipeline.group
    monkeypatch.setattr(pipeline, "group", lambda *args: seen.append(args[0].name) or real(*args))
    return seen


def softmax(x):
    e = kd.exp(x - kd.max(x, axis=-1, keepdims=True))
    return e / kd.sum(e, axis=-1, keepdims=True)


def named(x: kd.f32["N", "M"], i: kd.i64["K"]):
    return kd.take(x, i, axis=0) * 2, kd.sum(x, axis=-1)


WAYS = {
    "forward": lambda: kd.kernel(softmax)(X),
    "vjp": lambda: kd.kernel(softmax).vjp(X, ONES),
    "pullback": lambda: kd.kernel(softmax).pullback(X)[1](ONES),
    "strides": lambda: kd.kernel(softmax)(X.T),
    "constants": lambda: kd.kernel(lambda x: x + np.arange(6, dtype="f4"))(X),
    "bf16": lambda: kd.kernel(lambda x: x.astype(kd.bf16) * 2)(X),
    "named sizes": lambda: kd.kernel(named)(X, np.array([3, -1])),
    "no results": lambda: kd.kernel(lambda x: ())(X),
}


@pytest.mark.parametrize("way", WAYS)
def test_found_by_a_later_process(way, compiled):
    first = WAYS[way]()
    count = len(compiled)
    assert count or way == "no results"
    forget()
    again = WAYS[way]()
    assert len(compiled) == count
    for a, b in zip(*(x if isinstance(x, tuple) else (x,) for x in (first, again)), strict=True):
        assert a.dtype == b.dtype and np.array_equal(a, b)


def test_found_by_another_process(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import sys
        import numpy as np, kdsl as kd
        from kdsl import kept, pipeline
        kept._compiler = lambda: "this kdsl"
        if "found" in sys.argv:
            pipeline.group = None
        f = kd.kernel(lambda x, i: kd.sum(kd.take(x, i, axis=0) * 2, axis=-1))
        x = np.ones((4, 6), "f4")
        y, pullback = f.pullback(x, np.array([1, 1]))
        print(y, pullback(y)[0].tolist(), f(x, np.array([1, 1])))
        print(kd.compilations()["compiled"] == 0 or "found" not in sys.argv)
        """)
    )
    first, again = (
        subprocess.run([sys.executable, str(script), *more], capture_output=True, text=True, check=True).stdout
        for more in ((), ("found",))
    )
    assert first == again and first.endswith("True\n")


def test_stages_are_made_when_they_are_looked_at(compiled):
    first = kd.kernel(softmax).stages(X)
    halves = kd.kernel(softmax).pullback.stages(X)
    forget()
    kernel, count = kd.kernel(softmax), len(compiled)
    kernel(X)
    kernel.pullback(X)
    assert len(compiled) == count
    assert shown(kernel.stages(X)) == shown(first)
    assert shown(kernel.pullback.stages(X)) == shown(halves)
    assert len(compiled) == 2 * count
    assert kernel.explain(X).kernels


def shown(stages):
    """Without what frames call their values: they are numbered in the order they were made in."""
    return {name: text for name, text in stages.items() if not name.startswith("lowered")}


DIFFERENT = {
    "literal": (lambda x: x * 2, lambda x: x * 3),
    "negative zero": (lambda x: x * 0 + 0.0, lambda x: x * 0 + -0.0),
    "attribute": (lambda x: kd.sum(x, axis=0, keepdims=True), lambda x: kd.sum(x, axis=1, keepdims=True)),
    "constant": (lambda x: x + np.zeros(6, "f4"), lambda x: x + np.ones(6, "f4")),
    "dtype of the result": (lambda x: x.astype(kd.f64), lambda x: x.astype(kd.f16)),
    "kind of number": (lambda x: x > 1, lambda x: x > 1.5),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_another_program_is_not_found(what, compiled):
    one, other = DIFFERENT[what]
    kd.kernel(one)(X)
    forget()
    found = kd.kernel(other)(X)
    assert len(compiled) == 2
    want = kd.kernel(other).reference(X)
    assert found.dtype == want.dtype and np.array_equal(found, want) and np.array_equal(np.signbit(found), np.signbit(want))


def test_another_call_is_not_found(compiled):
    """Strides, dtypes, which gradients, targets, checked facts."""
    f = lambda x, y: kd.sum(x * y, axis=-1)  # noqa: E731
    Y = np.asfortranarray(X)
    for x, y in ((X, X), (X, Y), (Y, X), (X[::-1], X), (X[:, ::-1], X), (X.astype("f8"), X.astype("f8"))):
        forget()
        before = len(compiled)
        assert np.allclose(kd.kernel(f)(x, y), (x * y).sum(-1))
        assert len(compiled) == before + 1
    halves = {str(pipeline.plain(("forward", s))) for s in (None, (6, 1), (1, 6))}
    assert len(halves) == 3


def test_another_target_is_not_found(monkeypatch):
    """A program for a lower level has other machine code, whatever the text says."""
    seen = []
    monkeypatch.setattr(kept, "write", lambda key, record: seen.append(key))
    monkeypatch.setattr(pipeline, "generator", lambda target: "one")
    kd.kernel(softmax)(X)
    forget()
    monkeypatch.setattr(pipeline, "generator", lambda target: "other")
    kd.kernel(softmax)(X)
    assert len(set(seen)) == 2


def test_another_kdsl_is_not_found(compiled, monkeypatch):
    kd.kernel(softmax)(X)
    forget()
    monkeypatch.setattr(kept, "_compiler", lambda: "a later kdsl")
    kd.kernel(softmax)(X)
    assert len(compiled) == 2
    forget()
    monkeypatch.setattr(kept, "_compiler", lambda: None)  # one whose sources cannot be told
    kd.kernel(softmax)(X)
    assert len(compiled) == 3


def test_a_changed_source_is_another_kdsl(tmp_path):
    def compiler():
        return kept.compiler_in(str(tmp_path / "kdsl"), after=float("inf"))

    folder = tmp_path / "kdsl" / "ir"
    folder.mkdir(parents=True)
    source = folder / "rules.py"
    source.write_text("x = 1\n")
    first = compiler()
    assert first == compiler() and "rules.py" in first
    source.write_text("x = 2\n")
    second = compiler()
    assert second != first
    os.utime(source, (0, 0))
    assert compiler() not in (first, second)
    (folder / "more.py").write_text("")
    assert compiler() != second
    assert kept.compiler_in(str(tmp_path / "kdsl"), after=0.0) is None  # changed after it was imported
    assert kept.compiler_in(str(tmp_path / "nowhere"), after=float("inf")) is None


def test_users_rules_are_part_of_a_derivative(compiled):
    def scaled(k):
        f = kd.kernel(lambda x: x * 2)
        f.defvjp(lambda args, results, cotangents: (cotangents[0] * k,))
        return f

    def around(inner):
        return kd.kernel(lambda x: inner(x) + 1)

    for k in (3, 5, 3):
        forget()
        assert np.array_equal(scaled(k).vjp(X, ONES)[0], ONES * k)
        assert np.array_equal(around(scaled(k)).vjp(X, ONES)[0], ONES * k)
        assert np.array_equal(scaled(k).pullback(X)[1](ONES)[0], ONES * k)


def damaged(path, how):
    data = path.read_bytes()
    path.write_bytes(how(data))


@pytest.mark.parametrize("how", [lambda b: b"", lambda b: b[:50], lambda b: b[:-1] + b"?"], ids=["empty", "cut", "changed"])
def test_damaged_files_are_made_again(how, own_cache, compiled):
    want = kd.kernel(softmax)(X)
    files = [p for p in own_cache.rglob("*") if p.is_file()]
    assert len(files) >= 2
    whole = {p: p.read_bytes() for p in files}
    for path in files:
        damaged(path, how)
        forget()
        assert np.array_equal(kd.kernel(softmax)(X), want)
        assert path.read_bytes() == whole[path]


def test_a_record_of_something_else_is_made_again(monkeypatch, compiled):
    kd.kernel(softmax)(X)
    for wrong in ("text", None, pickle):
        forget()
        monkeypatch.setattr(kept.pickle, "loads", lambda data, wrong=wrong: wrong)
        assert np.allclose(kd.kernel(softmax)(X).sum(-1), 1)
    assert len(compiled) == 4


def test_messages_point_at_the_line_that_it_has_now():
    """The same program, compiled from one place, runs for another: an index error names the second."""
    places = []
    for blank in (1, 7):
        scope = {"kd": kd}
        exec(compile("\n" * blank + "def f(x, i):\n    return kd.take(x * 2, i, axis=0)\n", f"file{blank}.py", "exec"), scope)
        forget()
        with pytest.raises(IndexError) as caught:
            kd.kernel(scope["f"])(X, np.array([9]))
        places.append((caught.value.location.file, caught.value.location.line))
    assert places == [("file1.py", 3), ("file7.py", 9)]


def test_nothing_is_kept_of_what_fails(own_cache, monkeypatch):
    monkeypatch.setattr(pipeline, "schedule", lambda *args: 1 // 0)
    with pytest.raises(kd.InternalError):
        kd.kernel(softmax)(X)
    assert not [p for p in own_cache.rglob("*") if p.is_file() and "failures" not in p.parts]
    monkeypatch.undo()


def test_a_mistake_of_kdsls_where_nothing_can_be_saved(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KDSL_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr(pipeline, "schedule", lambda *args: 1 // 0)
    with pytest.raises(kd.InternalError, match="could not be saved"):
        kd.kernel(softmax)(X)


RACE = """
import hashlib
import numpy as np, kdsl as kd
from kdsl import kept
kept._compiler = lambda: "this kdsl"
rng = np.random.default_rng(0)
x, w = rng.standard_normal((5, 7)), rng.standard_normal((7, 7)) / 3
out = []
for n in range(2):
    def f(x, w):
        last, ys = kd.scan(lambda c, v: (kd.tanh(c @ w + v * (n + 1)), c), x[0], x)
        return kd.sum(kd.exp(ys), axis=-1) + last[0]
    k = kd.kernel(f)
    result, pullback = k.pullback(x, w)
    out += [result, *pullback(result)]
print(hashlib.sha256(b"".join(a.tobytes() for a in out)).hexdigest())
"""


def test_processes_that_race_for_one_folder(own_cache):
    """They compile, find, write and lose the same programs at once, while somebody deletes files: all get the same numbers."""
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", RACE]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    while any(p.poll() is None for p in running):
        for number, path in enumerate([p for p in own_cache.rglob("*") if p.is_file()]):
            if number % 3 == 0:
                path.unlink(missing_ok=True)
        time.sleep(0.02)
    said = [p.communicate()[0] for p in running]
    assert all(p.returncode == 0 for p in running)
    said.append(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(set(said)) == 1
    assert not [p for p in own_cache.rglob(".*") if p.is_file()]
