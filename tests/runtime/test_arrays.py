"""kd.Array and the arrays of other libraries."""

import gc

import numpy as np
import pytest

from kdsl.dtypes import BY_NUMPY, bf16
from kdsl.errors import ArgumentError, DeviceError, DtypeError
from kdsl.interop.arguments import as_view, is_array, wrapper_of
from kdsl.runtime import arrays
from kdsl.runtime.arrays import Array, asarray, view

DTYPES = pytest.mark.parametrize("dtype", list(BY_NUMPY), ids=str)


def values(dtype):
    return np.arange(12).reshape(3, 4).astype(dtype)


@DTYPES
def test_dlpack_both_ways(dtype):
    x = values(dtype)
    for part in (x, x[::-1, ::2], x.T, x[0, 0:1], x[:0], x[1, 2, ...]):
        y = view(asarray(part))
        assert y.dtype == x.dtype and np.array_equal(y, part)
        assert part.size == 0 or np.shares_memory(x, y)


@DTYPES
def test_numpy_reads_our_capsules(dtype):
    if dtype == bf16.numpy:
        pytest.skip("NumPy has no bf16 of its own")
    assert np.array_equal(np.from_dlpack(asarray(values(dtype))), values(dtype))


def test_capsules_let_go():
    gc.collect()
    before = len(arrays._exported)
    capsule = asarray(values("f4")).__dlpack__()
    assert len(arrays._exported) == before + 1
    del capsule
    y = view(asarray(values("f4")))
    part = y[1:]
    del y
    assert len(arrays._exported) == before + 1 and part.sum() == sum(range(4, 12))
    del part
    gc.collect()
    assert len(arrays._exported) == before


def test_asarray():
    x = values("f4")
    assert asarray(x).numpy() is x and asarray(asarray(x)).numpy() is x
    assert asarray(x, dtype="i64").numpy().dtype == np.int64
    assert asarray([1.0, 2.0]).shape == (2,)
    with pytest.raises(DeviceError, match="moon"):
        asarray(x, device="moon")
    with pytest.raises(DtypeError, match="complex"):
        asarray(np.zeros(3, complex))
    with pytest.raises(TypeError):
        asarray(x) + 1


def test_what_is_an_array():
    assert is_array(np.zeros(3)) and is_array(np.float32(1)) and is_array(asarray(1.0))
    assert not any(map(is_array, (1.0, 1, True, None, "x", [1], (1,))))
    assert as_view([1]) is None and as_view(1.0) is None
    assert as_view(np.float32(2)).shape == ()
    with pytest.raises(ArgumentError, match="masked"):
        as_view(np.ma.array([1, 2], mask=[0, 1]))


def test_what_lies_elsewhere():
    class OnGpu:
        __cuda_array_interface__ = {"shape": (3,), "typestr": "<f4", "data": (0, False), "version": 3}

    class OnGpuDlpack:
        def __dlpack__(self):
            raise AssertionError

        def __dlpack_device__(self):
            return 2, 0

    for x in (OnGpu(), OnGpuDlpack()):
        with pytest.raises(DeviceError):
            as_view(x)


def test_kinds():
    assert wrapper_of(np.zeros(3)) is None
    assert isinstance(wrapper_of(asarray(np.zeros(3)))(np.ones(3)), Array)


# --- torch --------------------------------------------------------------------------------------------------------------------
@pytest.mark.oracle
@DTYPES
def test_torch_both_ways(dtype):
    torch = pytest.importorskip("torch")
    t = torch.from_dlpack(asarray(values(dtype)))
    for part in (t, t.T, t[:, 1::2], t[1, 1]):
        x = as_view(part)
        assert x.dtype == dtype and x.shape == tuple(part.shape)
        assert np.array_equal(x.astype("f8"), part.to(torch.float64).numpy())
        back = wrapper_of(part)(x.copy())
        assert back.dtype == part.dtype and torch.equal(back, part)
    as_view(t)[0, 0] = 1
    assert t[0, 0] == 1


@pytest.mark.oracle
def test_torch_mistakes():
    torch = pytest.importorskip("torch")
    with pytest.raises(ArgumentError, match=r"kdsl\.interop\.torch"):
        as_view(torch.zeros(3, requires_grad=True))
    with pytest.raises(ArgumentError, match="dense"):
        as_view(torch.zeros(3).to_sparse())
    with pytest.raises(DtypeError, match="float8"):
        as_view(torch.zeros(3, dtype=torch.float8_e4m3fn))
    with pytest.raises(DeviceError, match="meta"):
        as_view(torch.zeros(3, device="meta"))
    assert np.array_equal(as_view(torch.complex(torch.zeros(2), torch.ones(2)).conj().imag), [-1, -1])
