"""On a real GPU: numbers, gradients, streams, memory, errors. `python bench/gpu.py` runs these and the measurements."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import kdsl as kd
from tests.gpu.programs import PROGRAMS, attention, linear, normal, softmax

pytestmark = pytest.mark.gpu
HALVES = {"f16": np.dtype("f2"), "bf16": np.dtype(ml_dtypes.bfloat16)}


def device(x):
    return kd.asarray(x, device="cuda")


def close(got, want, tolerance=2e-5):
    got, want = np.asarray(got, "f8"), np.asarray(want, "f8")
    error = np.abs(got - want)
    assert not (error > tolerance * np.maximum(1, np.abs(want))).any(), error.max()


@pytest.mark.parametrize("name", PROGRAMS)
def test_numbers(name):
    function, arguments = PROGRAMS[name]
    f = kd.kernel(function)
    got = f(*map(device, arguments))
    assert got.device == "cuda:0"
    close(got.numpy(), f.reference(*arguments), 1e-4)
    np.testing.assert_array_equal(got.numpy(), f(*map(device, arguments)).numpy())  # the same bits every time


@pytest.mark.parametrize("name", ["map", "row folds", "norm", "product with epilogue", "attention", "scatter", "sort"])
def test_gradients(name):
    function, arguments = PROGRAMS[name]
    f = kd.kernel(function)
    dy = normal(*np.shape(f(*arguments)))
    for got, want in zip(f.vjp(*map(device, arguments), device(dy)), f.vjp(*arguments, dy)):
        assert (got is None) == (want is None)
        if want is not None:
            close(got.numpy(), want, 2e-4)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("function", [softmax, linear, attention], ids=lambda f: f.__name__)
def test_halves(function, dtype):
    arguments = next(a for f, a in PROGRAMS.values() if f is function)
    arguments = [x.astype(HALVES[dtype]) for x in arguments]
    f = kd.kernel(function)
    got = f(*map(device, arguments)).numpy()
    close(got.astype("f4"), f.reference(*arguments).astype("f4"), 3e-2 if dtype == "bf16" else 4e-3)


def test_torch_goes_in_and_comes_out():
    torch = pytest.importorskip("torch")
    f = kd.kernel(softmax)
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(64, 1000, device="cuda", dtype=dtype)
        y = f(x)
        assert isinstance(y, torch.Tensor) and y.is_cuda and y.dtype == dtype
        close(y.float().cpu(), torch.softmax(x.float(), -1).cpu(), 1e-5 if dtype is torch.float32 else 1e-2)
        close(f(x.T.contiguous().T).float().cpu(), y.float().cpu(), 1e-6)


def test_streams_of_torch():
    torch = pytest.importorskip("torch")
    f, stream = kd.kernel(lambda x: x * 2), torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for i in range(20):
            x = torch.full((1 << 22,), float(i), device="cuda")
            y = f(f(x))
            del x
            torch.empty(1 << 22, device="cuda").fill_(-1)
            assert bool((y == 4 * i).all())


def test_out_of_memory_is_an_error_and_no_end():
    f = kd.kernel(lambda x: kd.broadcast_to(x, (1 << 20, 1 << 20)) + 1)
    with pytest.raises(kd.DeviceError, match="free memory"):
        f(device(np.ones(1 << 20, "f4")))
    close(kd.kernel(lambda x: x + 1)(device(np.ones(3, "f4"))).numpy(), [2, 2, 2])


def test_indices_beyond_2_31():
    x = device(np.zeros(1, "i1"))
    y = kd.kernel(lambda x: kd.broadcast_to(x, ((1 << 31) + 5,)) + 1)(x)
    assert kd.kernel(lambda y: kd.sum(y[-7:]))(y).numpy() == 7


def test_index_errors_come_at_the_next_synchronisation():
    f = kd.kernel(lambda x, i: x[i])
    y = f(device(np.ones(5, "f4")), device(np.array([0, 9])))
    with pytest.raises(IndexError, match="9"):
        y.numpy()


def test_verify_has_a_row_for_the_gpu():
    x = normal(33, 100)
    kd.kernel(softmax).verify(x)
