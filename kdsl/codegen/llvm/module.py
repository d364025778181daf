"""A program as one LLVM module: its distinct kernels, the driver that runs them, the intrinsics they call.

In:  a scheduled ir.loops.Program and the Target.  Out: text (docs/decisions/stages.md, "The compiled module").
Kernels that differ only in which buffers they get are written once.
Read before: ir/loops.py. Read next: kernel.py, driver.py, runtime/cpu.py.
"""

from __future__ import annotations

from kdsl.codegen.llvm.driver import emit_driver
from kdsl.codegen.llvm.kernel import Emitter
from kdsl.ir.loops import Kernel, Program
from kdsl.target import Target


def emit_kernels(program: Program, target: Target) -> tuple[str, dict[Kernel, str]]:
    """The text of all distinct kernels, and the name under which each kernel of the program stands there."""
    declarations: set[str] = set()
    bodies: dict[str, str] = {}
    names: dict[Kernel, str] = {}
    taken: set[str] = set()
    helpers: dict[str, str] = {}
    for kernel in program.kernels:
        emitter = Emitter(kernel, target, declarations)
        text = emitter.text("KERNEL")
        for helper, write in emitter.helpers.items():
            if helper not in helpers:
                helpers[helper] = write()
        if text not in bodies:
            name = "".join(c if c.isalnum() or c == "_" else "_" for c in kernel.name) or "kernel"
            while name in taken or name in ("program", "arena", "shapes"):
                name += "_"
            taken.add(name)
            bodies[text] = name
        names[kernel] = bodies[text]
    functions = [text.replace("@KERNEL", f"@{name}") for text, name in bodies.items()]
    return "\n".join([*sorted(declarations), *helpers.values(), "", *functions]), names


def emit_module(program: Program, target: Target) -> str:
    """The whole module."""
    kernels, names = emit_kernels(program, target)
    return f"; {program.name}, for {target.name}\n{kernels}\n{emit_driver(program, names, target)}"
