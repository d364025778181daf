"""Section 6 of the contract: arrays of all kinds, devices, out=, threads, environment variables."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import kdsl as kd
from tests.contract.saying import equal, layouts

ROOT = Path(__file__).parents[2]
double = kd.kernel(lambda x: x * 2)


def python(program, **environment):
    """What a Python process of its own prints."""
    out = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, **environment},
        cwd=ROOT,
    )
    assert out.returncode == 0, out.stderr
    return out.stdout.strip()


class Exchanged:
    """An array that is nothing but its __dlpack__."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


# -- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f4", "f8", "i8", "?", "u1", "f2"])
def test_arguments_may_be_anything_with_dlpack(dtype):
    """Arguments: NumPy arrays, anything with `__dlpack__`"""
    x = np.array([[1, 0, 3], [4, 5, 6]], dtype)
    got = kd.kernel(lambda x: kd.where(x == x, x, x))(Exchanged(x))
    equal(np.from_dlpack(got) if not isinstance(got, np.ndarray) else got, x)


@pytest.mark.oracle
def test_arguments_may_be_torch_tensors():
    """anything with `__dlpack__` (torch, CuPy, JAX) ... The results' kind is that of the first array argument"""
    torch = pytest.importorskip("torch")
    x = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    for t in (x, x.T, x[:, ::2], x[:0]):
        got = double(t)
        assert isinstance(got, torch.Tensor)
        assert torch.equal(got, t * 2)
    assert isinstance(double(x.bfloat16()), torch.Tensor)
    results = kd.kernel(lambda a, b: [a + b, {"k": a}])(x, np.ones(3, "f4"))
    assert isinstance(results[0], torch.Tensor) and isinstance(results[1]["k"], torch.Tensor)
    assert isinstance(kd.kernel(lambda a, b: a + b)(np.ones(3, "f4"), x), np.ndarray)


@pytest.mark.oracle
def test_torch_tensors_are_not_copied():
    """Zero copy for any strides (out= writes into the tensor itself)"""
    torch = pytest.importorskip("torch")
    x, out = torch.arange(3.0), torch.zeros(3)
    double(x, out=out)
    assert torch.equal(out, x * 2)


@pytest.mark.oracle
def test_a_torch_tensor_that_requires_grad_names_the_bridge():
    """A torch tensor that requires grad is an error that names the torch bridge"""
    torch = pytest.importorskip("torch")
    with pytest.raises(kd.KdslError, match="torch") as caught:
        double(torch.ones(3, requires_grad=True))
    assert "interop" in str(caught.value) or "bridge" in str(caught.value)


def test_kdsls_own_array():
    """`kd.Array` (our own: `kd.asarray(x, device=)`, `numpy()`, the two protocols, no arithmetic)"""
    x = np.arange(6, dtype="f4").reshape(2, 3)
    a = kd.asarray(x)
    assert isinstance(a, kd.Array) and isinstance(kd.asarray(x, device="cpu"), kd.Array)
    equal(a.numpy(), x)
    equal(np.from_dlpack(a), x)
    assert hasattr(a, "__dlpack__") and hasattr(a, "__dlpack_device__")
    with pytest.raises(TypeError):
        a + a
    with pytest.raises(TypeError):
        a * 2


def test_results_kind_is_that_of_the_first_array_argument():
    """The results' kind is that of the first array argument"""
    x = np.ones(3, "f4")
    f = kd.kernel(lambda n, a, b: (a + b, {"s": kd.sum(a)}))
    got = f(2, kd.asarray(x), x)
    assert isinstance(got[0], kd.Array) and isinstance(got[1]["s"], kd.Array)
    assert isinstance(f(2, x, kd.asarray(x))[0], np.ndarray)
    assert isinstance(kd.kernel(lambda t: t["b"][0] + 1)({"b": [kd.asarray(x)]}), kd.Array)


@pytest.mark.parametrize("layout", range(4))
def test_any_strides_are_taken_without_a_copy(layout):
    """Zero copy for any strides: what is written to the array between two calls is seen"""
    x = layouts(np.arange(35, dtype="f4").reshape(5, 7))[layout]
    equal(double(x), np.ascontiguousarray(x) * 2)
    x[2, 3] = 100
    equal(double(x), np.ascontiguousarray(x) * 2)


def test_broadcast_views_are_arguments():
    """Zero copy for any strides (0 too)"""
    x = np.broadcast_to(np.arange(3, dtype="f4"), (4, 3))
    equal(double(x), np.ascontiguousarray(x) * 2)
    equal(kd.kernel(lambda x: kd.sum(x, axis=0))(x), np.arange(3, dtype="f4") * 4)


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2", "i8"])
def test_unaligned_or_byte_swapped_data_are_copied(dtype):
    """unaligned or byte-swapped data are copied"""
    x = np.arange(1, 6).astype(dtype)
    swapped = x.astype(x.dtype.newbyteorder())
    unaligned = np.zeros(5 * x.itemsize + 1, "u1")[1:].view(dtype)
    unaligned[:] = x
    for odd in (swapped, unaligned, np.rec.fromarrays([np.zeros(5, "i1"), x])["f1"]):
        equal(double(odd), x * np.array(2, dtype))
        equal(double(odd), x * np.array(2, dtype))


def test_read_only_arrays_are_arguments():
    """Apart from that no argument is written (so what is read-only may be passed)"""
    x = np.arange(3, dtype="f4")
    x.flags.writeable = False
    equal(double(x), x * 2)


@pytest.mark.parametrize(
    "wrong", [np.ones(3, "c8"), np.array(["a"]), np.array([object()]), np.ones(2, "M8[s]")], ids=str
)
def test_other_arrays_are_DtypeErrors(wrong):
    """(dtypes that kdsl does not have)"""
    with pytest.raises(kd.KdslError) as caught:
        double(wrong)
    assert isinstance(caught.value, TypeError)


# -- targets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["cpu", "cpu:x86-64-v3"])
def test_target_says_where(target):
    """NumPy runs on the CPU unless `target=` ... (cpu, cpu:LEVEL such as cpu:x86-64-v3 ...) says otherwise"""
    equal(kd.kernel(lambda x: x + 5, target=target)(np.ones(9, "f4")), np.full(9, 6, "f4"))


@pytest.mark.parametrize("target", ["cpu", "cpu:x86-64-v3"])
def test_environment_says_where(target):
    """or `KDSL_TARGET` (cpu, cpu:LEVEL such as cpu:x86-64-v3 ...) says otherwise"""
    program = "import kdsl as kd, numpy as np; f = kd.kernel(lambda x: kd.exp(x) @ x); x = np.ones(4, 'f4'); f(x)"
    program += "; print('zmm' in f.asm(x))"
    assert python(program, KDSL_TARGET=target) in (("False",) if "v3" in target else ("False", "True"))


def test_an_unknown_target_is_an_error():
    """`target=` or `KDSL_TARGET` (cpu, cpu:LEVEL ..., cuda, emulator)"""
    for wrong in ("tpu", "cpu:x86-64-v99", ""):
        with pytest.raises(kd.KdslError) as caught:
            kd.kernel(lambda x: x, target=wrong)(np.ones(2))
        assert isinstance(caught.value, ValueError)


@pytest.mark.gpu
def test_mixed_devices_are_a_DeviceError():
    """Device follows data; ... Mixed devices are a DeviceError"""
    with pytest.raises(kd.DeviceError):
        kd.kernel(lambda a, b: a + b)(kd.asarray(np.ones(2), device="cuda"), np.ones(2))


@pytest.mark.oracle
def test_emulator_is_a_target():
    """`target=` or `KDSL_TARGET` (..., emulator)"""
    pytest.importorskip("numba_cuda", reason="needs numba-cuda: pip install 'kdsl[cuda]'")
    equal(kd.kernel(lambda x: x + 1, target="emulator")(np.ones(5, "f4")), np.full(5, 2, "f4"))


@pytest.mark.gpu
def test_gpu_calls_are_asynchronous_on_the_callers_stream():
    """GPU calls are asynchronous on the caller's current stream, inputs kept alive"""
    torch = pytest.importorskip("torch")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        x = torch.ones(1 << 24, device="cuda")
        y = double(x)
        del x
        torch.empty(1 << 24, device="cuda").fill_(7)
    stream.synchronize()
    assert bool((y == 2).all())


# -- out= -------------------------------------------------------------------------------------------------------------


def test_out_takes_arrays_of_the_results_structure():
    """`out=` takes writable arrays of the results' structure, shapes and dtypes"""
    f = kd.kernel(lambda x: {"a": x * 2, "b": [kd.sum(x), x.T]})
    x = np.arange(6, dtype="f4").reshape(2, 3)
    out = {"a": np.zeros((2, 3), "f4"), "b": [np.zeros((), "f4"), np.zeros((3, 2), "f4")]}
    got = f(x, out=out)
    equal(out["a"], x * 2)
    equal(out["b"][0], np.array(15, "f4"))
    equal(out["b"][1], np.ascontiguousarray(x.T))
    assert got is None or got["a"] is out["a"] or np.shares_memory(got["a"], out["a"])


@pytest.mark.parametrize("layout", range(4))
def test_out_takes_any_layout(layout):
    """`out=` takes writable arrays"""
    x = np.arange(35, dtype="f4").reshape(5, 7)
    out = layouts(np.zeros((5, 7), "f4"))[layout]
    double(x, out=out)
    equal(np.ascontiguousarray(out), x * 2)


@pytest.mark.parametrize(
    "wrong",
    [np.zeros(4, "f4"), np.zeros(3, "f8"), np.zeros((3, 1), "f4"), [np.zeros(3, "f4")], 3, "text", np.zeros((), "f4")],
    ids=str,
)
def test_out_of_another_structure_shape_or_dtype_is_an_error(wrong):
    """of the results' structure, shapes and dtypes"""
    x = np.ones(3, "f4")
    with pytest.raises(kd.KdslError):
        double(x, out=wrong)
    equal(double(x), x * 2)


def test_out_must_be_writable():
    """`out=` takes *writable* arrays"""
    out = np.zeros(3, "f4")
    out.flags.writeable = False
    with pytest.raises(kd.KdslError):
        double(np.ones(3, "f4"), out=out)
    equal(out, np.zeros(3, "f4"))


IN_PLACE = {
    "map": lambda x: x * 2 + 1,
    "flip": lambda x: x[::-1] * 1.0,
    "transpose": lambda x: x.T,
    "shift": lambda x: kd.concat([x[1:], x[:1]]),
    "row sums": lambda x: x - kd.sum(x, axis=0, keepdims=True),
    "total": lambda x: x / kd.sum(x),
    "product": lambda x: x @ x,
    "both": lambda x: x[::-1] + x.T,
    "itself": lambda x: x,
}


@pytest.mark.parametrize("n", [1, 2, 7, 65])
@pytest.mark.parametrize("name", IN_PLACE)
def test_out_may_be_an_argument_itself(name, n):
    """it may be an argument itself (then the call behaves as if all was read first: in-place updates)"""
    f = kd.kernel(IN_PLACE[name])
    x = np.random.default_rng(n).uniform(0.5, 2, (n, n)).astype("f4")
    expected = f(x.copy())
    f(x, out=x)
    equal(x, expected)


def test_out_may_overlap_an_argument():
    """then the call behaves as if all was read first"""
    memory = np.arange(20, dtype="f4")
    expected = memory[:16] * 2 + memory[15::-1]
    kd.kernel(lambda x: x * 2 + x[::-1])(memory[:16], out=memory[4:])
    equal(memory[4:], expected)


def test_two_outs_may_be_two_arguments_crossed():
    """it may be an argument itself (then the call behaves as if all was read first)"""
    a, b = np.arange(5, dtype="f4"), np.arange(5, 10, dtype="f4")
    expected = (b * 2, a + b)
    kd.kernel(lambda a, b: (b * 2, a + b))(a, b, out=(a, b))
    equal(a, expected[0])
    equal(b, expected[1])


def test_no_argument_is_written():
    """Apart from that no argument is written"""
    x, i = np.arange(5, dtype="f4"), np.array([1, 1, -1])
    before, before_i = x.copy(), i.copy()
    f = kd.kernel(lambda x, i: (kd.scatter_add(x, i, x[:3]), x * 0, x[i]))
    f(x, i)
    f.vjp(x, i, x, x, x[:3])
    equal(x, before)
    equal(i, before_i)


def test_calls_return_when_done():
    """CPU calls return when done"""
    x = np.ones(1 << 20, "f4")
    f = kd.kernel(lambda x: kd.exp(x) - kd.exp(x))
    for _ in range(5):
        assert not f(x).any()


# -- threads, forks, size ---------------------------------------------------------------------------------------------


def test_calls_from_several_threads_are_fine():
    """Calls from several threads are fine"""
    f = kd.kernel(lambda x, k: kd.sum(x * k, axis=1))
    wrong = []

    def work(k):
        x = np.full((37, 41 + k % 3), k, "f4")
        for _ in range(20):
            got = f(x, np.float32(k))
            if not (got == k * k * x.shape[1]).all():
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert wrong == []


def test_calls_release_the_gil_while_running():
    """and release the GIL while running"""
    f = kd.kernel(lambda x: x @ x @ x @ x)
    x = np.ones((1200, 1200), "f4") * 1e-3
    f(x)
    started, done = threading.Event(), []

    def call():
        started.set()
        f(x)
        done.append(True)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(
        100
    )  # nobody is asked to give the GIL up: only a call that releases it lets this thread go on
    try:
        caller = threading.Thread(target=call)
        caller.start()
        started.wait()
        meanwhile = not done
        caller.join()
    finally:
        sys.setswitchinterval(interval)
    assert meanwhile


def test_after_fork_the_pool_starts_anew():
    """after fork the pool starts anew"""
    program = (
        "import os, sys, numpy as np, kdsl as kd\n"
        "f = kd.kernel(lambda x: kd.sum(kd.exp(x), axis=1))\nx = np.zeros((1000, 1000), 'f4')\nf(x)\n"
        "pid = os.fork()\nok = bool((f(x) == 1000).all())\n"
        "if pid == 0: os._exit(0 if ok else 1)\n"
        "print(ok, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    assert python(program, KDSL_THREADS="2") == "True 0"


@pytest.mark.slow
def test_indices_beyond_2_to_the_31_work():
    """indices beyond 2^31 work"""
    x = np.zeros(2**31 + 5, "i1")
    x[-3:] = (1, 2, 3)
    equal(kd.kernel(lambda x: (x[-3:], kd.argmax(x), kd.sum(x)))(x)[1], np.array(2**31 + 4))


# -- environment ------------------------------------------------------------------------------------------------------


def test_cache_folder_is_taken_from_the_environment(tmp_path):
    """The environment variables are `KDSL_CACHE_DIR`"""
    program = "import kdsl as kd, numpy as np; kd.kernel(lambda x: x * 3.25 + 1)(np.ones(5)); print(kd.compilations())"
    first = python(program, KDSL_CACHE_DIR=str(tmp_path))
    assert any(p.is_file() for p in tmp_path.rglob("*"))
    second = python(program, KDSL_CACHE_DIR=str(tmp_path))
    assert eval(first)["compiled"] >= 1
    assert eval(second)["compiled"] == 0 and eval(second)["loaded"] >= 1


def test_compilations_counts_what_was_compiled_and_loaded(tmp_path):
    """`kd.compilations()` counts what was compiled and what was loaded from the cache"""
    program = (
        "import kdsl as kd, numpy as np\nbefore = kd.compilations()\nf = kd.kernel(lambda x: x * 3.5 - 1)\n"
        "f(np.ones(5)); one = kd.compilations(); f(np.ones(5)); two = kd.compilations()\n"
        "f(np.ones(6)); three = kd.compilations()\n"
        "print([x['compiled'] + x['loaded'] for x in (before, one, two, three)])"
    )
    before, one, two, three = eval(python(program, KDSL_CACHE_DIR=str(tmp_path)))
    assert one == two == before + 1 or one == two > before
    assert three == two + 1 or three > two


def test_a_damaged_cache_is_compiled_anew(tmp_path):
    """a failed compilation leaves the cache as it was (and a damaged entry is no crash)"""
    program = "import kdsl as kd, numpy as np; print(kd.kernel(lambda x: x * 3.25 + 1)(np.ones(5)).tolist())"
    good = python(program, KDSL_CACHE_DIR=str(tmp_path))
    for path in tmp_path.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert python(program, KDSL_CACHE_DIR=str(tmp_path)) == good


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path):
    """`KDSL_CACHE_DIR` (a file where the folder should be)"""
    (tmp_path / "file").write_text("")
    program = "import kdsl as kd, numpy as np; print(kd.kernel(lambda x: x * 3.25)(np.ones(2)).tolist())"
    assert python(program, KDSL_CACHE_DIR=str(tmp_path / "file" / "cache")) == "[3.25, 3.25]"


def test_threads_is_the_size_of_the_pool():
    """`KDSL_THREADS` (size of the CPU pool)"""
    program = (
        "import os, numpy as np, kdsl as kd\nf = kd.kernel(lambda x: kd.exp(x))\nx = np.zeros((4000, 1000), 'f4')\n"
        "before = len(os.listdir('/proc/self/task'))\nf(x)\nprint(len(os.listdir('/proc/self/task')) - before)\n"
    )
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("needs /proc")
    one, four = (int(python(program, KDSL_THREADS=n)) for n in ("1", "4"))
    assert one == 0 and four <= 4 and four >= 3


def test_traceback_full_keeps_kdsls_own_frames():
    """`KDSL_TRACEBACK=full` (keep kdsl's own frames)"""
    program = (
        "import kdsl as kd, numpy as np, traceback\n"
        "try: kd.kernel(lambda x, y: x + y)(np.ones(2), np.ones(3))\n"
        "except kd.KdslError as e: print(sum('/kdsl/' in f.filename for f in traceback.extract_tb(e.__traceback__)))"
    )
    assert int(python(program, KDSL_TRACEBACK="full")) > 0
    assert int(python(program)) == 0


def test_tune_tunes_one_call():
    """`KDSL_TUNE=1` (tune what has not been tuned; `kd.tune(f, *args)` does it for one call)"""
    f = kd.kernel(lambda x: x @ x)
    kd.tune(f, np.ones((64, 64), "f4"))
    equal(f(np.ones((64, 64), "f4")), np.full((64, 64), 64, "f4"))


def test_mixed_kinds_of_arrays_on_one_device_are_fine():
    """Mixed devices are a DeviceError (mixed kinds on one device are not)"""
    x = np.ones(3, "f4")
    equal(kd.kernel(lambda a, b: a + b)(x, kd.asarray(x)), x * 2)
