"""The runtime under compiled kernels: threads, the GIL, kinds of arrays, torch's autograd."""

import ctypes
import threading

import numpy as np
import pytest

import kdsl as kd
from kdsl.dtypes import i64
from kdsl.runtime.call import ArgumentSpec, Executable, ResultSpec
from kdsl.runtime.fast import FastCall, Tensor

from .machine import index_program, library_of

# Waits (for some seconds at most) until the word that %index holds the address of is not 0; says whether it came.
WAIT = """
define void @wait(ptr %args, i64 %lo, i64 %hi) {
entry:
  %x = load ptr, ptr %args
  %least.at = getelementptr i64, ptr %args, i64 1
  %least = load ptr, ptr %least.at
  %largest.at = getelementptr i64, ptr %args, i64 2
  %largest = load ptr, ptr %largest.at
  %address = load i64, ptr %x
  %word = inttoptr i64 %address to ptr
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i1, %again ]
  %v = load atomic i64, ptr %word acquire, align 8
  %come = icmp ne i64 %v, 0
  br i1 %come, label %done, label %again
again:
  %i1 = add i64 %i, 1
  %more = icmp ult i64 %i1, 4000000000
  br i1 %more, label %loop, label %done
done:
  %last = load atomic i64, ptr %word acquire, align 8
  store i64 %last, ptr %least
  store i64 %last, ptr %largest
  ret void
}
"""


@pytest.mark.parametrize("way", ["short", "long"])
def test_the_gil_is_free_while_a_kernel_runs(way):
    """The kernel ends only when another Python thread has run."""
    library = library_of(index_program(), WAIT, "wait")
    run = Executable(library, [ArgumentSpec(i64, ("N",))], [ResultSpec(i64, 0)] * 2, ["N"])
    fast = FastCall()
    fast.add(run, [Tensor(0)])
    flag = ctypes.c_int64(0)
    x = np.array([ctypes.addressof(flag)], np.int64)

    def ring():
        flag.value = 1

    bell = threading.Timer(0.05, ring)
    bell.start()
    least, _ = fast.call(x) if way == "short" else run([x[::-1].astype(">i8")])
    bell.join()
    assert least == 1


@kd.kernel
def softmax(x):
    e = kd.exp(x - kd.max(x, axis=-1, keepdims=True))
    return e / kd.sum(e, axis=-1, keepdims=True)


def test_one_kernel_from_many_threads():
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((n, 257)).astype("f4") for n in (1, 3, 64, 700)]
    expected = [softmax(x) for x in arrays]
    wrong = []

    def work(i):
        for _ in range(30):
            if not np.array_equal(softmax(arrays[i]), expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i % 4,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


@pytest.mark.oracle
def test_torch_in_torch_out():
    torch = pytest.importorskip("torch")
    x = torch.randn(5, 7)
    for part in (x, x.T, x[:, ::2], x.to(torch.bfloat16)):
        y = softmax(part)
        assert isinstance(y, torch.Tensor) and y.dtype == part.dtype
        assert torch.allclose(y.float(), torch.softmax(part.float(), -1), atol=4e-3 if part.dtype == torch.bfloat16 else 1e-6)


@pytest.mark.oracle
def test_torch_differentiates_a_kernel():
    torch = pytest.importorskip("torch")
    from kdsl.interop.torch import function

    x = torch.randn(5, 7, requires_grad=True)
    weight = torch.randn(5, 7)
    (function(softmax)(x) * weight).sum().backward()
    ours, x.grad = x.grad, None
    (torch.softmax(x, -1) * weight).sum().backward()
    assert torch.allclose(ours, x.grad, atol=1e-6)
