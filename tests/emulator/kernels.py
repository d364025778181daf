"""Kernels for the emulator's tests: numba.cuda functions compiled without a GPU, tests/codegen/cuda's programs, PTX text."""

import importlib.util
import re
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

import pytest

HAS_NUMBA = importlib.util.find_spec("numba_cuda") is not None
needs_numba = pytest.mark.skipif(not HAS_NUMBA, reason="needs numba-cuda")
PROGRAMS = Path(__file__).parent.parent / "codegen/cuda/programs"


def compiled(function, signature, arch=(8, 0), lineinfo=False, fastmath=False):
    """The PTX of a Python function as a kernel that is called by its own name."""
    from numba import cuda
    from numba.cuda import dispatcher

    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=arch[:2])
    ptx, _ = cuda.compile(
        function, signature, device=False, abi="numba", cc=arch, lineinfo=lineinfo, fastmath=fastmath
    )
    entry = re.search(r"\.entry\s+(\w+)", ptx).group(1)
    return ptx.replace(entry, function.__name__)


@lru_cache
def program(name, arch="sm_80"):
    """The PTX of one of the programs of tests/codegen/cuda."""
    from kdsl.codegen.cuda.kernels import emit_cuda, ptx
    from kdsl.ir.loop_parser import parse_loops

    (kernel,) = emit_cuda(parse_loops((PROGRAMS / f"{name}.loops").read_text())).kernels
    return ptx(kernel, arch)


def array(buffer, array_):
    """The parameters that numba passes for a C-contiguous array."""
    n = array_.size
    strides = array_.strides
    return [0, 0, n, array_.itemsize, buffer, *array_.shape, *strides]


def text(body, parameters="", declarations="", name="k", arch="sm_90a", before=""):
    """A module of one kernel from its body."""
    return f"""
.version 9.0
.target {arch}
.address_size 64
{before}
.visible .entry {name}({parameters})
{{
    .reg .pred %p<20>;
    .reg .b16 %h<40>;
    .reg .b32 %r<100>;
    .reg .f32 %f<100>;
    .reg .b64 %d<60>;
    .reg .f64 %g<20>;
    {declarations}
    {body}
    ret;
}}
"""
