"""What follows a finished tile of a product: maps, and the stores of the outputs.

In:  the values that stand ready, and where the tile stands.  Out: statements.
Read before: schedule/dot_values.py. Read next: dots.py, thin.py, chain.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kdsl.ir import loops as ir
from kdsl.ir.frame import DotPlan
from kdsl.ir.tensor import Value
from kdsl.schedule.dot_values import Known, Memory, Place, Values
from kdsl.schedule.register_tile import whole


def finished(
    values: Values,
    plan: DotPlan,
    memory: Callable[[Value], Memory],
    place: Place,
    known: Known,
    outputs: Sequence[Value],
) -> list[ir.Statement]:
    """Maps on a finished tile, and the stores of the outputs."""
    body: list[ir.Statement] = []
    values.name_in(body, place, known)
    tiles = [whole(values.value(v, place, known), place.shape) for v in outputs]
    for v, tile in zip(outputs, tiles, strict=True):
        body.append(ir.Store(values.view(memory(v), plan.letters.values[v], v.shape, place), tile))
    return body
