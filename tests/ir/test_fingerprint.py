"""Fingerprints: equal for what computes the same, different for everything that decides what comes out."""

import itertools
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest

import kdsl as kd
from kdsl.ir.fingerprint import fingerprint, plain
from kdsl.ir.sizes import minimum, size

f32, N = kd.f32[4, 6], kd.f32["N", 6]


def of(function, *types):
    kernel = kd.kernel(function)
    return fingerprint(kernel.traced(kernel.read(types, {})).function)


def called(function):
    """A call that keeps its function, as a kernel with a rule makes it."""
    inner = kd.kernel(function)
    inner.defvjp(lambda args, results, cotangents: (cotangents[0],))
    return of(lambda x: inner(x), f32)


DIFFERENT = {
    "plain": lambda: of(lambda x: x + 1, f32),
    "dtype": lambda: of(lambda x: x + 1, kd.f64[4, 6]),
    "integers": lambda: of(lambda x: x + 1, kd.i32[4, 6]),
    "shape": lambda: of(lambda x: x + 1, kd.f32[6, 4]),
    "rank": lambda: of(lambda x: x + 1, kd.f32[24]),
    "named size": lambda: of(lambda x: x + 1, N),
    "another name": lambda: of(lambda x: x + 1, kd.f32["M", 6]),
    "literal": lambda: of(lambda x: x + 2, f32),
    "op": lambda: of(lambda x: x - 1, f32),
    "order": lambda: of(lambda x: 1 - x, f32),
    "zero": lambda: of(lambda x: x + 0.0, f32),
    "negative zero": lambda: of(lambda x: x + -0.0, f32),
    "nan": lambda: of(lambda x: kd.where(x > 0, x, math.nan), f32),
    "infinity": lambda: of(lambda x: kd.where(x > 0, x, math.inf), f32),
    "axis 0": lambda: of(lambda x: kd.sum(x, axis=0), f32),
    "axis 1": lambda: of(lambda x: kd.sum(x, axis=1), f32),
    "two results": lambda: of(lambda x: (x + 1, x + 2), f32),
    "results turned": lambda: of(lambda x: (x + 1, x + 2)[::-1], f32),
    "a result twice": lambda: of(lambda x: (x + 1,) * 2, f32),
    "arguments": lambda: of(lambda x, y: x - y, f32, f32),
    "arguments turned": lambda: of(lambda x, y: y - x, f32, f32),
    "an unused argument": lambda: of(lambda x, y: x + 1, f32, f32),
    "constant": lambda: of(lambda x: x + np.arange(6, dtype="f4"), f32),
    "another constant": lambda: of(lambda x: x + np.arange(1, 7, dtype="f4"), f32),
    "constant of -0.0": lambda: of(lambda x: x + np.full(6, -0.0, "f4"), f32),
    "constant of 0.0": lambda: of(lambda x: x + np.zeros(6, "f4"), f32),
    "call": lambda: called(lambda x: x + 1),
    "call of another function": lambda: called(lambda x: x + 2),
}


def test_every_difference_counts():
    digests = {name: make() for name, make in DIFFERENT.items()}
    for a, b in itertools.combinations(digests, 2):
        assert digests[a] != digests[b], f"{a} and {b}"


def test_names_places_and_rules_do_not_count():
    def one(x):
        return kd.exp(x) * 2

    def other(first):
        long_name = kd.exp(first)
        return long_name * 2

    assert of(one, f32) == of(other, f32)
    assert called(one) == called(other)


VALUES = [
    0, 1, -1, True, False, 0.0, -0.0, 1.0, math.nan, -math.nan, math.inf, None, "1", "", (), (1,), (1.0,), ((1,),), (1, 2),
    np.float32(1), np.float64(1), np.int64(1), np.bool_(True), np.zeros(2, "f4"), np.zeros(2, "i4"), np.zeros((1, 2), "f4"),
    np.zeros(1, "f4"), kd.f32, kd.f64, kd.bf16, "f32", size("N"), "N", size("N") + 1, size("N") * 2, size("N") // 2,
    size("N") % 2, minimum(size("N"), 2), size("N*2"), size("N + 1"), size("N") * size("M"), size("N * M"),
]  # fmt: skip


def test_values_are_kept_apart():
    texts = [repr(plain(v)) for v in VALUES]
    for (a, x), (b, y) in itertools.combinations(zip(VALUES, texts), 2):
        assert x != y, f"{a!r} and {b!r}"


def test_sizes_are_equal_however_they_were_made():
    a, b = size("N") * 4 + size("M"), size("M") + size("N") * 3 + size("N")
    assert repr(plain(a)) == repr(plain(b))


def test_what_is_unknown_is_refused():
    with pytest.raises(TypeError, match="object in a program"):
        plain(object())


def test_fingerprints_and_sizes_are_the_same_in_every_process():
    """Python's hash of a text is another one in each."""
    code = (
        "import pickle, sys, kdsl as kd; from kdsl.ir.fingerprint import fingerprint; from kdsl.ir.sizes import size\n"
        "k = kd.kernel(lambda x: kd.sum(x * 2, axis=-1)); t = k.traced(k.read((kd.f32['N', 'M'],), {}))\n"
        "x = size('N') * 4 + size('M') // 8\n"
        "sys.stdout.buffer.write(pickle.dumps((fingerprint(t.function), x)))"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, check=True) for _ in range(2)]
    first, other = (pickle.loads(run.stdout) for run in runs)
    assert first == other
    assert first[1] == size("N") * 4 + size("M") // 8 and hash(first[1]) == hash(other[1])
