"""LLVM text to machine code in this process: assemble, keep on disk, link.

In:  the text of one LLVM module, and the Target it was written for.  Out: a Library, which knows the address of each function.
No optimisation passes run: the text already has its vectors and its values in the right loops (codegen/llvm/). Assembling
takes 5 to 50 ms; an object found on disk is linked in half a millisecond. numba is never imported on this path.
Read before: runtime/cache.py. Read next: runtime/call.py.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from kdsl.errors import CompileError, TargetError
from kdsl.runtime import cache
from kdsl.target import Target, host_level

# What LLVM calls our levels where they are not the host's own. Tuning never changes what a program computes.
_CPU = {"x86-64-v4": "x86-64-v4", "x86-64-v3": "x86-64-v3", "arm64": "generic"}
_TRIPLE = {"x86-64-v4": "x86_64-unknown-linux-gnu", "x86-64-v3": "x86_64-unknown-linux-gnu", "arm64": "aarch64-unknown-linux-gnu"}
# Our texts step through memory with offsets of their own: LLVM's search for better ones takes half its time and finds none.
_OPTION = "-disable-lsr"
_counts = {"compiled": 0, "loaded": 0}
_lock = threading.RLock()
_names = itertools.count()
_libraries: dict[str, Library] = {}


class Library:
    """Machine code in memory. It is never unloaded: addresses handed out stay good until the process ends."""

    def __init__(self, name: str, key: str) -> None:
        self.name, self.key = name, key  # `key`: what its code is called on disk
        self._addresses: dict[str, int] = {}

    def address(self, function: str) -> int:
        """Where `function` starts; KeyError where the module does not define it."""
        if function not in self._addresses:
            with _lock:
                try:
                    tracker = _linker().lookup(self.name, function)
                except RuntimeError as error:
                    raise KeyError(f"no function is called {function!r}") from error
                _keep(tracker)
                self._addresses[function] = tracker[function]
        return self._addresses[function]


def load(text: str, target: Target) -> Library:
    """The module in memory: from this process, from the disk, or compiled now. CompileError where LLVM refuses the text."""
    if not runs_here(target):
        raise TargetError(f"this machine ({host_level()}) cannot run code for {target.name}", location=False)
    key = cache.key_of(generator(target), text)
    with _lock:
        library = load_kept(key)
        if library is None:
            code, function = _assemble(text, target)
            library = _link(code, key)
            try:
                assert library is not None
                library.address(function)  # links all of it: symbols that nobody defines are found before it is kept
            except (AssertionError, KeyError) as error:
                raise CompileError(f"the linker refused a kernel: {error.__cause__}", location=False) from error
            _counts["compiled"] += 1
            cache.write(key, code)
            _libraries[key] = library
    return library


def load_kept(key: str) -> Library | None:
    """The module whose `Library.key` this is, from this process or from the disk; None where there is none."""
    with _lock:
        library = _libraries.get(key)
        if library is None and (code := cache.read(key)) is not None and (library := _link(code, key)) is not None:
            _counts["loaded"] += 1
            _libraries[key] = library
    return library


def generator(target: Target) -> str:
    """Everything beside the text that decides the machine code: LLVM's version, the processor and its features."""
    import llvmlite

    return repr((llvmlite.__version__, _llvm().llvm_version_info, _OPTION, *_processor(target.level)))


def asm(text: str, target: Target) -> str:
    """The assembly of a module, for looking. Works for any CPU target, also one that this machine cannot run."""
    with _lock:
        return _generated(_machine(target.level).emit_assembly, _parse(text, target))


def compilations() -> dict[str, int]:
    """How many modules this process compiled, and how many it found on disk. Example: `kd.compilations()`."""
    return dict(_counts)


def runs_here(target: Target) -> bool:
    """Whether this machine can run code for `target`."""
    levels = {"x86-64-v4": ("x86-64-v3", "x86-64-v4"), "x86-64-v3": ("x86-64-v3",), "arm64": ("arm64",)}
    return target.kind == "cpu" and target.level in levels[host_level()]


# --- LLVM -------------------------------------------------------------------------------------------------------------------
@lru_cache
def _llvm() -> Any:
    """llvmlite's binding, imported with the first kernel: `import kdsl` does not pay for it."""
    import llvmlite.binding

    return llvmlite.binding


@lru_cache
def _processor(level: str) -> tuple[str, str, str]:
    """(triple, CPU, features): the host itself at its own level, the plain level otherwise."""
    llvm = _llvm()
    if level == host_level():
        wide = ",-prefer-256-bit" if level == "x86-64-v4" else ""
        return llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten() + wide
    if level[:3] == host_level()[:3]:
        return llvm.get_process_triple(), _CPU[level], ""
    return _TRIPLE[level], _CPU[level], ""


@lru_cache
def _machine(level: str) -> Any:
    """The code generator. Small code model: constants are operands relative to the instruction, not loads of an address."""
    triple, cpu, features = _processor(level)
    llvm = _llvm()
    if level[:3] == host_level()[:3]:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
    else:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
    return llvm.Target.from_triple(triple).create_target_machine(
        cpu=cpu, features=features, opt=2, reloc="pic", codemodel="small", jit=True
    )


@lru_cache
def _linker() -> Any:
    linker = _llvm().create_lljit_compiler(_machine(host_level()), use_jit_link=True, suppress_errors=True)
    _keep(linker)
    return linker


def _parse(text: str, target: Target) -> Any:
    machine = _machine(target.level)
    try:
        module = _llvm().parse_assembly(text)
        module.triple = machine.triple
        module.data_layout = str(machine.target_data)
        module.verify()
    except RuntimeError as error:
        raise CompileError(f"LLVM refused a kernel's text: {error}", location=False) from error
    return module


def _assemble(text: str, target: Target) -> tuple[bytes, str]:
    """The object, and the name of one of its functions."""
    module = _parse(text, target)
    public = (f.name for f in module.functions if not f.is_declaration and f.linkage.name == "external")
    function = next(public, None)
    if function is None:
        raise CompileError("a module without functions", location=False)
    try:
        return _generated(_machine(target.level).emit_object, module), function
    except RuntimeError as error:
        raise CompileError(f"LLVM could not generate code: {error}", location=False) from error


def _generated(emit: Callable[[Any], Any], module: Any) -> Any:
    """`emit(module)`. The option is LLVM's for the whole process: others who use it find it as it was."""
    _llvm().set_option("kdsl", f"{_OPTION}=true")
    try:
        return emit(module)
    finally:
        _llvm().set_option("kdsl", f"{_OPTION}=false")


def _link(code: bytes, key: str) -> Library | None:
    name = f"kdsl.{next(_names)}"
    try:
        tracker = _llvm().JITLibraryBuilder().add_object_img(code).add_current_process().link(_linker(), name)
    except RuntimeError:
        return None
    _keep(tracker)
    return Library(name, key)


def _keep(tracker: Any) -> None:
    """Never unload this code: threads of ours may still run in it while the interpreter takes itself apart."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(tracker))
