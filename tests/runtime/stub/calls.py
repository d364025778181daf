"""What runs over the do-nothing driver, in a process of its own: each function is one test (tests/runtime/test_cuda.py).

Nothing is computed; looked at are launches, words, memory, streams and errors.
"""

from __future__ import annotations

import ctypes
import json
import sys
import traceback

import numpy as np
import pytest

import kdsl as kd

stub = ctypes.CDLL("libcuda.so.1")
COUNTS = ("launches", "maps", "word", "blocks", "threads", "near", "stream", "live", "loads", "waits", "attributes", "fail_after")
for name in COUNTS:
    getattr(stub, f"stub_{name}").restype = ctypes.c_long


def device(x):
    return kd.asarray(x, device="cuda")


def double(x):
    return x * 2


def launched_by(run):
    before = stub.stub_launches()
    result = run()
    return result, range(before, stub.stub_launches())


def test_an_array_goes_there_and_back():
    x = np.arange(12, dtype="f4").reshape(3, 4)
    there = device(x)
    assert there.device == "cuda:0" and there.shape == (3, 4) and there.dtype is kd.f32
    np.testing.assert_array_equal(there.numpy(), x)
    np.testing.assert_array_equal(kd.asarray(there, device="cpu").numpy(), x)
    assert kd.asarray(there, device="cuda").data is there.data
    assert there.__cuda_array_interface__["data"][0] == there.data.address
    assert there.__dlpack_device__() == (2, 0)


def test_a_launch_has_the_addresses_of_its_arrays():
    f = kd.kernel(double)
    x = device(np.ones(1000, "f4"))
    y, launches = launched_by(lambda: f(x))
    (n,) = launches
    assert isinstance(y, kd.Array) and y.device == "cuda:0" and y.shape == (1000,)
    words = {stub.stub_word(n, i) & (2**64 - 1) for i in range(2)}
    assert words == {x.data.address, y.data.address}
    assert stub.stub_blocks(n) >= 1 and stub.stub_threads(n) % 32 == 0
    assert stub.stub_stream(n) == 0


def test_code_is_loaded_once():
    f = kd.kernel(double)
    x = device(np.ones(1000, "f4"))
    f(x)
    before = stub.stub_loads()
    for _ in range(3):
        f(x)
    assert stub.stub_loads() == before


def test_names_of_sizes_are_words():
    f = kd.kernel(double, types=(kd.f32["N"],))
    for n in (1, 1000, 5000):
        x = device(np.ones(n, "f4"))
        y, launches = launched_by(lambda x=x: f(x))
        assert y.shape == (n,)
        assert any(stub.stub_word(launches[0], i) == n for i in range(3))
    _, launches = launched_by(lambda: f(device(np.ones(0, "f4"))))
    assert len(launches) == 0


def test_memory_is_given_back():
    f = kd.kernel(lambda x: kd.sum(kd.exp(x @ x.T)))
    x = device(np.ones((64, 64), "f4"))
    f(x)
    before = stub.stub_live()
    for _ in range(5):
        f(x)
    assert stub.stub_live() == before


def test_out_of_memory_is_an_error_and_no_end():
    f = kd.kernel(double)
    x = device(np.ones(1000, "f4"))
    stub.stub_fail_after(0)
    with pytest.raises(kd.DeviceError, match="free memory") as caught:
        f(x)
    stub.stub_fail_after(-1)
    assert isinstance(caught.value, MemoryError)
    assert f(x).shape == (1000,)


def test_numpy_arrays_are_copied_there_and_back():
    f = kd.kernel(double, target="cuda")
    x = np.ones(100, "f4")
    y, launches = launched_by(lambda: f(x))
    assert type(y) is np.ndarray and y.shape == (100,) and len(launches) == 1
    strided, launches = launched_by(lambda: f(np.ones((9, 10), "f4")[::-2, 1::3]))
    assert strided.shape == (5, 3) and len(launches) == 1


def test_mixed_devices_are_refused():
    f = kd.kernel(lambda x, y: x + y)
    x = np.ones(4, "f4")
    for pair in ((device(x), x), (x, device(x))):
        with pytest.raises(kd.DeviceError):
            f(*pair)
    with pytest.raises(kd.DeviceError, match="cpu"):
        kd.kernel(double, target="cpu")(device(x))


def test_a_traced_number_may_stand_beside_device_arrays():
    def scale(rate: kd.f32, x):
        return x * rate

    y = kd.kernel(scale)(0.5, device(np.ones(10, "f4")))
    assert y.device == "cuda:0"


def test_out_on_a_device():
    f = kd.kernel(double)
    x, out = device(np.ones(1000, "f4")), device(np.zeros(1000, "f4"))
    given, launches = launched_by(lambda: f(x, out=out))
    assert given is out
    assert out.data.address in {stub.stub_word(launches[0], i) & (2**64 - 1) for i in range(2)}
    _, launches = launched_by(lambda: f(x, out=x))  # computed elsewhere, then copied
    words = [stub.stub_word(launches[0], i) & (2**64 - 1) for i in range(2)]
    assert words.count(x.data.address) == 1
    with pytest.raises(kd.DeviceError):
        f(x, out=np.zeros(1000, "f4"))


def test_a_derivative_runs_there_too():
    f = kd.kernel(lambda x: kd.sum(x * x))
    x, one = device(np.ones(50, "f4")), device(np.ones((), "f4"))
    (dx,) = f.vjp(x, one)
    assert dx.device == "cuda:0" and dx.shape == (50,)
    y, pull = f.pullback(x)
    assert y.device == "cuda:0" and pull(one)[0].shape == (50,)


def test_an_index_is_looked_at_when_the_host_waits():
    f = kd.kernel(lambda x, i: kd.take(x, i))
    x = device(np.ones(5, "f4"))
    y = f(x, device(np.array([1, 2])))
    for checked in f.specialise(f.read((x, device(np.array([1, 2]))), {})).program.executable.checks:
        assert checked.length({}) == 5
    from kdsl.runtime import cuda_checks

    assert len(cuda_checks._waiting) == 1
    try:
        y.numpy()  # the stub computes nothing: least and largest are whatever was there
    except kd.OutOfRangeError:
        pass
    assert len(cuda_checks._waiting) == 0


class OnAStream:
    """An array that another library computes on a stream of its own."""

    def __init__(self, data, stream):
        self.held = data
        self.__cuda_array_interface__ = {**data.__cuda_array_interface__, "stream": stream}


def test_what_another_stream_computes_is_waited_for_there():
    f = kd.kernel(double)
    x = device(np.ones(100, "f4"))
    before = stub.stub_waits()
    f(OnAStream(x, 1))
    assert stub.stub_waits() == before
    f(OnAStream(x, 77))
    assert stub.stub_waits() > before


def test_an_address_that_is_not_aligned_is_copied():
    f = kd.kernel(double)
    n = 1 << 20  # so many that a thread reads 16 bytes at once
    whole = device(np.ones(n + 1, "f4"))
    part = type("Part", (), {})()
    part.held = whole
    interface = dict(whole.__cuda_array_interface__, shape=(n,))
    interface["data"] = (interface["data"][0] + 4, False)
    part.__cuda_array_interface__ = interface
    y, launches = launched_by(lambda: f(part))
    words = {stub.stub_word(launches[0], i) & (2**64 - 1) for i in range(2)}
    assert y.data.address in words and all(w % 16 == 0 for w in words)


def test_a_product_of_warpgroups_has_tensor_maps():
    import ml_dtypes

    f = kd.kernel(lambda x, y: kd.matmul(x, y))
    x, y = (device(np.ones((2, *n), ml_dtypes.bfloat16)) for n in ((256, 128), (128, 192)))
    z, (n,) = launched_by(lambda: f(x, y))
    words = [stub.stub_word(n, i) & (2**64 - 1) for i in range(5)]
    assert words == [a.data.address for a in (x, y, z, x, y)] and stub.stub_word(n, 5) == z.data.address
    made = stub.stub_maps()
    f(x, y, out=z)
    assert stub.stub_maps() == made  # they are remembered
    from kdsl.runtime.cuda_maps import encoded

    sizes, strides, box = (2, 256, 128), (256 * 128, 128, 1), (1, 64, 64)
    x_map = encoded("bf16", x.data.address, sizes, strides, box)
    assert stub.stub_maps() == made
    assert x_map == (x.data.address, 3, 9, 3, 128, 256, 2, 0, 0, 256, 65536, 0, 64, 64, 1, 0)


def test_results_go_only_where_kernels_may_write():
    from kdsl.runtime.cuda_arrays import DeviceTensor

    f = kd.kernel(double)
    n = 1 << 20
    x, whole = device(np.ones(n, "f4")), device(np.zeros(n + 1, "f4")).data
    program = f.specialise(f.read((x,), {})).program.executable
    for step in (0, 4):
        out = DeviceTensor(whole.address + step, (n,), np.dtype("f4"), 0, whole)
        (given,), launches = launched_by(lambda out=out: program([x.data], [out]))
        assert given is out
        words = {stub.stub_word(launches[0], i) & (2**64 - 1) for i in range(2)}
        assert (out.address in words) == (step == 0) and all(w % 16 == 0 for w in words)


def main():
    found = {}
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            try:
                test()
                found[name] = ""
            except Exception:
                found[name] = traceback.format_exc()
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
