"""What things are called in generated source: the user's names, unless Python or a macro has them already.

In:  the names of buffers, sizes, loops and Lets.  Out: one Python name for each.
Read next: views.py.
"""

from __future__ import annotations

import keyword

from kdsl.dtypes import BY_NAME
from kdsl.ir.ops import Op

RESERVED = frozenset({
    *(op.value for op in Op), *BY_NAME, *(f"bits_{d}" for d in BY_NAME), "boolean", "round_f16", "round_bf16", "philox",
    "fma", *(f"{f}_{m}" for f in ("fold", "running") for m in ("sum", "prod", "max", "min", "any", "all")),
    *(f"axis{k}" for k in range(8)), *(f"by{n}" for n in (2, 4, 8, 16)), *(f"upto{n}" for n in (2, 4, 8)),
    *keyword.kwlist, *keyword.softkwlist,
    "full", "expand", "index", "convert", "turn", "piece", "uniform", "holds", "block", "blocks", "size",
    "smaller", "larger", "array",
    "near", "transposed", "at", "edge", "edges", "load", "store", "copy", "commit", "wait", "barrier", "put", "take", "dot",
    "gates", "brings", "room", "bring", "landed", "leave", "send", "sent",
    "Tile", "Array", "Near", "Gates", "blocked", "accumulator", "operand_a", "operand_b", "patches", "strips", "inf", "nan",
})  # fmt: skip


class Names:
    """One name for each thing; things are told apart by their kind."""

    def __init__(self) -> None:
        self.given: dict[tuple[str, str], str] = {}
        self.taken: set[str] = set(RESERVED)

    def of(self, kind: str, name: str) -> str:
        """What `name` is called: itself where that is free, else with a number."""
        key = kind, name
        if key not in self.given:
            plain = "".join(c if c.isalnum() else "_" for c in name)
            plain = plain if plain[:1].isalpha() or plain[:1] == "_" else f"v{plain}"
            free, n = plain, 2
            while free in self.taken:
                free, n = f"{plain}_{n}", n + 1
            self.taken.add(free)
            self.given[key] = free
        return self.given[key]
