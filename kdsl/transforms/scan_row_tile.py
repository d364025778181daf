"""How many rows of its tile a step takes at a time, with its carries in near memory.

    4    of the 16 states of a selective scan: four vectors side by side keep a processor busy, sixteen are spilled
    0    all at once, with the carries in registers: few rows, or a step where a row waits for a fold over all rows (a softmax
         over states)
In:  a ScanPlan with its letters, for a CPU.  Out: a divisor of the number of rows, or 0.
Read before: plan_scan.py. Read next: schedule/scan_rows.py.
"""

from __future__ import annotations

from kdsl.ir.frame import ScanPlan, flat
from kdsl.ir.ops import REDUCTIONS
from kdsl.ir.tensor import Value

IN_REGISTERS = 7  # rows that a tile may have whole
TILES = (4, 5, 6, 3, 7)  # in the order of preference


def row_tile(plan: ScanPlan) -> int:
    """Rows at a time, or 0."""
    rows = None if plan.rows is None else plan.letters.size[plan.rows]
    if not isinstance(rows, int) or rows <= IN_REGISTERS or _waits_for_rows(plan):
        return 0
    return next((n for n in TILES if rows % n == 0), 0)


def _waits_for_rows(plan: ScanPlan) -> bool:
    """Whether a value of each row needs a fold over all rows of the same step."""
    after: set[Value] = set()
    starts = {c.before for c in (*plan.carries, *plan.replayed)}
    for e in plan.inner:
        has_rows = plan.rows in flat(plan.letters.values[e.result])
        if e.op in REDUCTIONS and plan.rows in flat(plan.letters.of(e, 0)) and not has_rows:
            after.add(e.result)
        elif e.result not in starts and any(v in after for v in e.values):
            if has_rows:
                return True
            after.add(e.result)
    return False
