"""What there is to look at in a kernel, a vjp or a pullback: stages, sources, assembly, explanations.

In:  types, arrays or static values, as in a call.  Out: texts, and Explanation (inspection/explain.py).
Nothing runs. The types may be left out where annotations fix all sizes.
Read before: pipeline.py. Read next: inspection/explain.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kdsl.errors import entry_point

if TYPE_CHECKING:
    from kdsl.inspection.explain import Explanation


class Looking:
    """Mixed into everything that can be compiled. `looked_at` compiles for the given types and hands back the programs."""

    label: str

    def looked_at(self, types: Sequence[Any], statics: Mapping[str, Any], target: str | None) -> list[Any]:
        raise NotImplementedError

    @entry_point
    def stages(self, *types: Any, **statics: Any) -> dict[str, str]:
        """Every stage of the compiler by name, in order, as text."""
        programs = self.looked_at(types, statics, None)
        out: dict[str, str] = {}
        for program in programs:
            assembly = program.assembly()
            for stage, text in {**program.record.texts(), "assembly": assembly}.items():
                out[f"{stage} ({program.record.name})" if stage in out and out[stage] != text else stage] = (
                    text
                )
        return out

    @entry_point
    def source(self, *types: Any, target: str = "cpu", **statics: Any) -> str:
        """The program as the code generator wrote it: LLVM text (cpu) or numba.cuda source (cuda)."""
        return "\n".join(program.record["source"] for program in self.looked_at(types, statics, target))

    @entry_point
    def llvm(self, *types: Any, **statics: Any) -> str:
        """The LLVM text for this machine's CPU, or the one that KDSL_TARGET names."""
        return "\n".join(program.record["source"] for program in self.looked_at(types, statics, None))

    @entry_point
    def asm(self, *types: Any, **statics: Any) -> str:
        """The assembly for this machine's CPU, or the one that KDSL_TARGET names."""
        return "\n".join(program.assembly() for program in self.looked_at(types, statics, None))

    @entry_point
    def ptx(self, *types: Any, arch: str = "sm_80", **statics: Any) -> str:
        """The PTX of every kernel, one module after another; needs numba-cuda, but no GPU."""
        programs = self.looked_at(types, statics, f"cuda:{arch}")
        return "\n".join(program.ptx(arch) for program in programs)

    @entry_point
    def sass(self, *types: Any, arch: str = "sm_80", **statics: Any) -> str:
        """A GPU's own instructions, of all kernels; needs numba-cuda and nvdisasm, but no GPU."""
        programs = self.looked_at(types, statics, f"cuda:{arch}")
        return "\n".join(program.sass(arch) for program in programs)

    @entry_point
    def explain(self, *types: Any, **statics: Any) -> Explanation:
        """Print which kernels were formed, why not fewer, what each moves and computes; `.kernels` has it as data."""
        from kdsl.inspection.explain import explain

        programs = self.looked_at(types, statics, None)
        out = explain(
            self.label,
            [(p.record.name, p.record["grouped"], p.record["scheduled"], p.target) for p in programs],
        )
        print(out)
        return out
