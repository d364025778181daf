"""Calls on GPU arrays over a driver that is kdsl's emulator (tests/emulated_gpu.py): true numbers, long way and short."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kdsl as kd
from kdsl.runtime import cuda_checks
from kdsl.runtime.cuda_arena import arrange

pytestmark = pytest.mark.oracle


@pytest.fixture(scope="module", autouse=True)
def gpu(emulated_gpu):
    return emulated_gpu


def device(x):
    return kd.asarray(x, device="cuda")


def values(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("f4")


def short(kernel):
    """How many records the short way of a kernel has."""
    return len(kernel._short._gpu) if kernel._short._gpu is not None else 0


class Launches:
    """How often a driver's function is called while it is open."""

    def __init__(self, gpu, name):
        self.gpu, self.name = gpu, name

    def __enter__(self):
        self.before = self.gpu.counts[self.name]
        return self

    def __exit__(self, *error):
        self.count = self.gpu.counts[self.name] - self.before


def test_the_second_call_is_short_and_right():
    f = kd.kernel(lambda x, y: x * 2 + y)
    for seed in range(3):
        x, y = values(5, 7, seed=seed), values(5, 7, seed=seed + 10)
        np.testing.assert_allclose(f(device(x), device(y)).numpy(), x * 2 + y, rtol=1e-6)
        assert short(f) == 1


def test_a_result_is_the_next_argument():
    f = kd.kernel(lambda x: x + 1)
    x = device(np.zeros(9, "f4"))
    for _ in range(5):
        x = f(x)
    np.testing.assert_array_equal(x.numpy(), np.full(9, 5, "f4"))
    assert short(f) == 1


def test_memory_comes_back(gpu):
    f = kd.kernel(lambda x: kd.sum(kd.exp(x @ x)) + x)
    x = device(values(8, 8))
    f(x)
    before = len(gpu.memory.live)
    for _ in range(3):
        f(x)
    assert len(gpu.memory.live) == before


def test_numbers_are_written_by_the_gpu_and_nothing_waits(gpu):
    def scaled(rate: kd.f32, x, count: kd.i64):
        return x * rate + kd.astype(count, kd.f32)

    f = kd.kernel(scaled)
    x = device(np.ones(4, "f4"))
    with Launches(gpu, "to the GPU") as copies, Launches(gpu, "synchronisations") as waits:
        results = [f(rate, x, np.asarray(n)) for rate, n in ((0.5, 1), (-2.0, 1 << 20), (1e30, -3), (np.float32(3), 4))]
    assert copies.count == waits.count == 0
    for y, want in zip(results, (1.5, -2 + 2.0**20, 1e30, 7)):
        np.testing.assert_allclose(y.numpy(), np.full(4, want, "f4"), rtol=1e-6)


def test_static_values_tell_calls_apart():
    f = kd.kernel(lambda x, power, *, sign=1.0: sign * x**power)
    x = values(6)
    for _ in range(2):
        for power, sign in ((2, 1.0), (3, 1.0), (2, -1.0), (2, 0.0), (2, -0.0)):
            got = f(device(x), power, sign=sign).numpy()
            want = (sign * x**power).astype("f4")
            np.testing.assert_allclose(got, want, rtol=1e-6)
            np.testing.assert_array_equal(np.signbit(got), np.signbit(want))


def test_names_strides_and_containers():
    f = kd.kernel(lambda xs, more: {"sum": xs[0] + xs[1] * more["k"], "other": more["k"]})
    for _ in range(2):
        for n in (1, 5, 12):
            a, b, k = (values(n, seed=i) for i in range(3))
            out = f([device(a), device(b)], {"k": device(k)})
            np.testing.assert_allclose(out["sum"].numpy(), a + b * k, rtol=1e-5)
            np.testing.assert_array_equal(out["other"].numpy(), k)
    g = kd.kernel(lambda x: x + 1)
    whole = device(values(6, 8))
    for _ in range(2):
        part = Strided(whole, (3, 4), (64, 8), 4)  # every second row and column, from the second column on
        np.testing.assert_allclose(g(part).numpy(), whole.numpy()[::2, 1::2] + 1)
        np.testing.assert_allclose(g(whole).numpy(), whole.numpy() + 1)


class Strided:
    """An array of another library: a view of an Array."""

    def __init__(self, data, shape, strides, offset, stream=1):
        self.held = data
        address = data.__cuda_array_interface__["data"][0] + offset
        own = {"shape": shape, "strides": strides, "data": (address, False), "stream": stream}
        self.interface = {**data.__cuda_array_interface__, **own}

    @property
    def __cuda_array_interface__(self):
        return self.interface


def test_arrays_of_other_libraries_take_the_short_way(gpu):
    f = kd.kernel(lambda x: x * 3)
    x = values(10)
    for _ in range(3):
        other = Strided(device(x), (10,), None, 0)
        np.testing.assert_allclose(f(other).numpy(), x * 3)
    assert short(f) == 1
    with Launches(gpu, "waits between streams") as waits:
        f(Strided(device(x), (10,), None, 0, stream=7))
    assert waits.count == 1


def test_out():
    f = kd.kernel(lambda x: x * 2)
    x = values(4, 6)
    there, out = device(x), device(np.zeros((4, 6), "f4"))
    for _ in range(3):
        assert f(there, out=out) is out
        np.testing.assert_array_equal(out.numpy(), x * 2)
    for _ in range(3):
        f(out, out=out)
    np.testing.assert_array_equal(out.numpy(), x * 16)
    both = kd.kernel(lambda x: (x + 1, x - 1))
    places = device(np.zeros((4, 6), "f4")), device(np.zeros((4, 6), "f4"))
    for _ in range(3):
        assert both(there, out=places) is places
    np.testing.assert_array_equal(places[1].numpy(), x - 1)


def test_out_with_other_strides():
    f = kd.kernel(lambda x: x * 2)
    x = values(2, 3, 4)
    memory = np.arange(400, dtype="f4")
    for strides, offset in (((4, 8, 24), 0), ((192, 48, 4), 3), ((-96, 32, -8), 60), ((16, -32, 4), 40), ((400, 4, 100), 1)):
        whole = device(memory)
        out = Strided(whole, (2, 3, 4), strides, 4 * offset)
        f(device(x), out=out)
        want = memory.copy()
        np.lib.stride_tricks.as_strided(want[offset:], (2, 3, 4), strides)[...] = x * 2
        np.testing.assert_array_equal(whole.numpy(), want)
    with pytest.raises(kd.ResultError, match="several times"):
        f(device(x), out=Strided(device(memory), (2, 3, 4), (0, 16, 4), 0))
    with pytest.raises(kd.ShapeError):
        f(device(x), out=device(np.zeros((2, 3), "f4")))
    with pytest.raises(kd.DtypeError):
        f(device(x), out=device(np.zeros((2, 3, 4), "f8")))


def test_out_at_an_address_that_is_not_aligned():
    f = kd.kernel(lambda x: x + 1)
    x = values(1 << 12)
    whole = device(np.zeros(x.size + 1, "f4"))
    f(device(x), out=whole.view(x.shape, 1))
    np.testing.assert_array_equal(whole.numpy(), [0, *(x + 1)])


def test_derivatives_take_the_short_way(gpu):
    f = kd.kernel(lambda x, w: kd.sum(kd.tanh(x * w), axis=1), types=(kd.f32["N", "M"], kd.f32["M"]))
    for _ in range(2):
        for n in (3, 5):
            x, w, g = values(n, 4, seed=n), values(4, seed=9), values(n, seed=1)
            y, pull = f.pullback(device(x), device(w))
            want, pull_want = f.pullback(x, w)
            np.testing.assert_allclose(y.numpy(), want, rtol=1e-5, atol=1e-6)
            for gradients in (pull(device(g)), f.vjp(device(x), device(w), device(g))):
                for a, b in zip(gradients, pull_want(g)):
                    np.testing.assert_allclose(a.numpy(), b, rtol=1e-5, atol=1e-6)
    assert len(f.pullback._short._gpu) == len(f.vjp._short._gpu) == 2


def test_index_errors_come_with_the_next_wait():
    f = kd.kernel(lambda x, i: kd.take(x, i))
    x = device(np.arange(5, dtype="f4"))
    for _ in range(2):
        assert f(x, device(np.array([1, 4]))).numpy().tolist() == [1, 4]
        y = f(x, device(np.array([1, 5])))
        with pytest.raises(kd.OutOfRangeError, match="index 5"):
            y.numpy()
        assert not cuda_checks._waiting
    assert short(f) == 1


def test_mistakes_of_a_kernel_come_with_the_next_wait(gpu):
    f = kd.kernel(lambda x: x + 1)
    x = device(np.ones(4, "f4"))
    f(x)
    gpu.memory.state[gpu.memory.part(x.data.address, 16)] = 1  # as if nobody had written it
    y = f(x)
    try:
        with pytest.raises(kd.DeviceError, match="nobody has written"):
            y.numpy()
    finally:
        gpu.forget_mistake()


def test_mixed_devices_are_refused_by_both_ways():
    f = kd.kernel(lambda x, y: x + y)
    x = values(4)
    f(device(x), device(x))
    with pytest.raises(kd.DeviceError, match="cuda:0, another on cpu"):
        f(device(x), x)
    np.testing.assert_array_equal(f(x, x), x + x)


def test_threads_call_one_kernel():
    f = kd.kernel(lambda x: x * x)
    f(device(values(8)))
    found = {}

    def work(seed):
        x = values(8, seed=seed)
        found[seed] = x, [f(device(x)).numpy() for _ in range(3)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for x, got in found.values():
        for y in got:
            np.testing.assert_array_equal(y, x * x)


def test_temporaries_share_memory():
    offsets, total = arrange([(1000, 0, 1), (1000, 1, 2), (1000, 2, 3), (10, 0, 3)])
    assert total == 2 * 1024 + 256 and offsets[0] == offsets[2] != offsets[1]
    for spans in ([], [(5, 0, 0)], [(5, 0, 0), (7, 1, 1)]):
        offsets, total = arrange(spans)
        assert offsets == [0] * len(spans) and total == (256 if spans else 0)


def test_a_program_of_many_kernels():
    def chain(x, w):
        for _ in range(4):
            x = kd.tanh(x @ w)
        return x

    f = kd.kernel(chain)
    x, w = values(8, 8), values(8, 8, seed=1)
    there = device(x), device(w)
    f(*there)
    np.testing.assert_allclose(f(*there).numpy(), f(x, w), rtol=1e-4, atol=1e-5)
    (plan,) = f.specialise(f.read(there, {})).program.executable._plans.values()
    assert plan.scratch_bytes <= 2 * 256


@pytest.mark.filterwarnings("ignore::kdsl.SpecialisationWarning")
@given(st.data())
@settings(max_examples=25, deadline=None)
def test_both_ways_give_the_same(data):
    """Random calls of one kernel, seen before or not: the short way never answers for a call of another kind."""
    shape = data.draw(st.sampled_from([(4,), (2, 4), (1, 4), (4, 1)]))
    other = data.draw(st.sampled_from([(4,), (1,), (2, 4), ()]))
    dtypes = st.sampled_from(["f4", "f8", "i4"])
    x = (values(*shape) * 10).astype(data.draw(dtypes))
    y = (values(*other, seed=1) * 10).astype(data.draw(dtypes))
    rate = data.draw(st.sampled_from([2, 2.0, True, -0.0, 0.0]))
    there = [device(x), device(y) if other or data.draw(st.booleans()) else y]
    if x.ndim == 2 and data.draw(st.booleans()):
        x, there[0] = x.T, Strided(there[0], x.T.shape, x.T.strides, 0)
    try:
        want = MIXED(x, y, rate)
    except kd.ShapeError:
        with pytest.raises(kd.ShapeError):
            MIXED(*there, rate)
        return
    for _ in range(2):
        got = MIXED(*there, rate).numpy()
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)


MIXED = kd.kernel(lambda x, y, rate: x * rate + y)


def test_products_of_warpgroups_know_where_their_tensors_lie(gpu):
    """Arguments, results and a product between two others, each by its tensor map; long way and short."""
    f = kd.kernel(lambda x, y, w: (x @ y) @ (y.mT @ w), target="cuda:sm_90a")
    half = kd.bf16.numpy
    for seed in range(3):
        x, y, w = (values(*n, seed=seed + i).astype(half) for i, n in enumerate(((72, 64), (64, 320), (64, 48))))
        wide = [a.astype("f4") for a in (x, y, w)]
        with Launches(gpu, "launches") as launches:
            got = f(device(x), device(y), device(w)).numpy()
        first, second = ((a @ b).astype(half).astype("f4") for a, b in ((wide[0], wide[1]), (wide[1].T, wide[2])))
        np.testing.assert_allclose(got.astype("f4"), first @ second, rtol=0.02, atol=0.02 * np.abs(first @ second).max())
        assert launches.count == 2 and gpu.counts["tensor maps"] > 0
    before = gpu.counts["tensor maps"]
    x, y, w, out = (device(a) for a in (x, y, w, got))
    for _ in range(2):
        f(x, y, w, out=out)
    assert gpu.counts["tensor maps"] - before <= 2 + 3  # arguments stay where they are: their maps are remembered
    np.testing.assert_array_equal(out.numpy(), got)


def test_results_of_warpgroups_go_where_they_shall(gpu):
    f = kd.kernel(lambda x, y: x @ y, target="cuda:sm_90a")
    half = kd.bf16.numpy
    x, y = values(2, 40, 64).astype(half), values(2, 64, 72, seed=1).astype(half)
    want = x.astype("f4") @ y.astype("f4")
    on = device(x), device(y)
    out, made = device(np.zeros((2, 40, 72), half)), gpu.counts["tensor maps"]
    for got in (f(*on), f(*on), f(*on, out=out)):
        np.testing.assert_allclose(got.numpy().astype("f4"), want, rtol=0.01, atol=0.05)
    assert gpu.counts["tensor maps"] > made
    other = kd.kernel(lambda x, y: x @ y, target="cuda:sm_90a", types=(kd.bf16["N", 64], kd.bf16[64, 72]))
    for n in (40, 0, 3):
        got = other(device(x[0, :n]), device(y[0])).numpy()
        np.testing.assert_allclose(got.astype("f4"), want[0, :n], rtol=0.01, atol=0.05)
