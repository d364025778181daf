"""What is said of a mistake: the thread, its block, the instruction, the user's line.

In:  a wave that stands at it, the threads that made it.  Out: an error. Also: who waits where, if everybody waits.
Read before: registers.py. Read next: wave.py.
"""

from __future__ import annotations

import linecache
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from kdsl.errors import BarrierError, DivergenceError, EmulatorError

if TYPE_CHECKING:
    from kdsl.emulator.wave import Wave

RUNNING, AT_WARP, AT_BARRIER, AT_EVENT, ENDED = range(5)  # what becomes of a thread


@dataclass(frozen=True)
class Place:
    """A source line, in the form in which kdsl's errors draw it."""

    file: str
    line: int
    function: str = ""
    start: int | None = None
    stop: int | None = None
    end_line: int | None = None
    callers: tuple[Any, ...] = ()


def fail(w: Wave, error: type[EmulatorError], what: str, bad: Any, facts: tuple[str, ...] = (), hint: str = "") -> NoReturn:
    """Raise for the first running thread of the mask `bad` (None: the first of all)."""
    lanes = w.lanes[w.at]
    lane = int(lanes[0] if bad is None else lanes[np.flatnonzero(bad)[0]])
    count = len(lanes) if bad is None else int(np.count_nonzero(bad))
    x, y, _ = w.launch.block
    t, b = int(w.thread[lane]), int(w.first + w.block[lane])
    gx, gy, _ = w.launch.grid
    thread = f"thread {t}" if y == 1 and w.launch.block[2] == 1 else f"thread ({t % x}, {t // x % y}, {t // (x * y)})"
    one = gy == 1 and w.launch.grid[2] == 1
    block = f"block {b}" if one else f"block ({b % gx}, {b // gx % gy}, {b // (gx * gy)})"
    code = w.kernel.flat.code[w.here]
    others = f" (and {count - 1} more)" if count > 1 else ""
    raise error(
        f"{thread} of {block}{others} {what}",
        facts=(*facts, f"kernel {w.kernel.flat.name}, PTX line {code.line}: {code.text}"),
        hint=hint,
        location=Place(*code.place, w.kernel.flat.name) if code.place and linecache.getline(*code.place) else False,
    )


def stuck(w: Wave) -> NoReturn:
    """Everybody waits."""
    waiting = np.flatnonzero((w.status != ENDED) & (w.status != RUNNING))
    lane = waiting[0]
    w.here = p = int(w.pc[lane])
    code = w.kernel.flat.code[p]
    w.at, w.n = waiting, len(waiting)
    same = (w.pc == p) & (w.block == w.block[lane]) & (w.status != ENDED)
    ended = (w.block == w.block[lane]) & (w.status == ENDED) & (w.thread < w.threads)
    elsewhere = (w.block == w.block[lane]) & (w.status != ENDED) & (w.pc != p)
    facts = [f"{int(same.sum())} of {w.threads} threads of the block wait here"]
    if ended.any():
        facts.append(f"{int(ended.sum())} have ended, thread {int(w.thread[ended.argmax()])} among them")
    if elsewhere.any():
        other = w.kernel.flat.code[int(w.pc[elsewhere.argmax()])]
        facts.append(f"{int(elsewhere.sum())} wait at PTX line {other.line}: {other.text}")
    barrier = code.op[0] in ("bar", "barrier")
    if w.status[lane] == AT_EVENT:
        w.fail(BarrierError, "waits for an mbarrier that nobody will complete", None, *facts)
    if barrier:
        w.fail(BarrierError, "waits at a barrier that only a part of its block reaches", None, *facts)
    w.fail(DivergenceError, "waits at an instruction that its whole warp must execute together", None, *facts)
