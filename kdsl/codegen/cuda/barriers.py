"""Where barriers and copy waits go, derived from what each statement does to near memory.

In:  a kernel as a list of statements: a statement is a list of accesses, or a Loop. An access is (kind, ring, tile number,
depth): kind "read", "write" or "copy", the number a fixed one or a function of the loop's step.
Out: the places (paths of positions) before which a barrier stands, and for each how many copy groups may still be in flight.
A ring's slot is number % depth, so running a loop 2 depth + 1 times meets every conflict there is. A barrier must lie between
two accesses of one slot unless both read; a copy has ended only after a wait before that barrier. The place that parts most of
what is not parted yet is taken first; among equals the innermost and latest. What turns out superfluous goes. Read next: emit.py.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Union

Access = tuple[str, str, Union[int, Callable[[int], int]], int]
Path = tuple[int, ...]
Event = tuple[Path, "list[Access] | None", int]


@dataclass(frozen=True)
class Loop:
    statements: tuple[Item, ...]
    depth: int
    once: bool = False  # an `if`: its statements run once or not at all


Item = Union["list[Access]", Loop]


def _trace(kernel: Sequence[Item], most: int, taken: bool, path: Path = (), step: int = 0) -> Iterator[Event]:
    """Every place (no accesses) and every statement, in the order of a run whose loops go at most `most` times."""
    for i, item in enumerate(kernel):
        yield (*path, i), None, step
        if isinstance(item, Loop):
            for inner in range(int(taken) if item.once else min(most, 2 * item.depth + 1)):
                yield from _trace(item.statements, most, taken, (*path, i), step if item.once else inner)
        else:
            yield (*path, i), item, step


def _conflicts(events: Sequence[Event]) -> list[tuple[int, int]]:
    """Pairs of moments that a barrier must part."""
    last: dict[tuple[str, int], list[tuple[int, str]]] = {}
    pairs = []
    for now, (_, accesses, step) in enumerate(events):
        for kind, ring, number, depth in accesses or ():
            slot = ring, (number(step) if callable(number) else number) % depth
            before = last.get(slot, [])
            pairs += [(then, now) for then, was in before if not (kind == was == "read") and then != now]
            last[slot] = [*([] if kind != "read" else [e for e in before if e[1] != "read"]), (now, kind)]
    return pairs


class _Run:
    """One run: its events, the pairs of moments to part, when each place comes by."""

    def __init__(self, kernel: Sequence[Item], most: int, taken: bool) -> None:
        self.events = list(_trace(kernel, most, taken))
        self.pairs = _conflicts(self.events)
        self.moments: dict[Path, list[int]] = {}
        for now, (path, accesses, _) in enumerate(self.events):
            if accesses is None:
                self.moments.setdefault(path, []).append(now)

    def tight(self) -> list[tuple[int, int]]:
        """The pairs that enclose no other: parting these parts all."""
        out: list[tuple[int, int]] = []
        for a, b in sorted(self.pairs, key=lambda pair: (-pair[0], pair[1])):
            if not out or b < out[-1][1]:
                out.append((a, b))
        return out

    def at(self, chosen: Sequence[Path]) -> list[tuple[int, Path]]:
        return sorted((m, p) for p in chosen for m in self.moments.get(p, ()))

    def parts(self, place: Path, pair: tuple[int, int]) -> bool:
        """Whether the place comes by between two moments."""
        moments = self.moments.get(place, [])
        i = bisect_right(moments, pair[0])
        return i < len(moments) and moments[i] < pair[1]


def place_barriers(kernel: Sequence[Item]) -> dict[Path, int | None]:
    """Each place of a barrier, with the copy groups that may be in flight there (None: it waits for no copy)."""
    # a loop may also run once, or not at all; what is under an `if` may be left out
    runs = [_Run(kernel, most, taken) for most in (1 << 30, 1, 0) for taken in (True, False)]
    pairs = [(run, pair) for run in runs for pair in run.tight()]
    options = sorted({p for run in runs for p in run.moments}, key=lambda p: (-len(p), [-i for i in p]))
    parted = {p: {i for i, (run, pair) in enumerate(pairs) if run.parts(p, pair)} for p in options}
    chosen: list[Path] = []
    left = set(range(len(pairs)))
    while left:
        best = max(options, key=lambda p: len(parted[p] & left))
        if not parted[best] & left:
            raise ValueError("two accesses of one statement to the same near memory cannot be parted")
        chosen.append(best)
        left -= parted[best]
    for place in list(chosen):
        if set(range(len(pairs))) <= set().union(*(parted[p] for p in chosen if p != place)):
            chosen.remove(place)
    return _waits(runs, sorted(chosen))


def _waits(runs: Sequence[_Run], chosen: Sequence[Path]) -> dict[Path, int | None]:
    """How many copy groups may still be in flight at each place."""
    waits: dict[Path, int | None] = dict.fromkeys(chosen)
    for run in runs:
        issued = [
            i for i, (_, accesses, _) in enumerate(run.events) if any(a[0] == "copy" for a in accesses or ())
        ]
        for before, after in run.pairs:
            if before not in issued:
                continue
            between = [
                (sum(before < i < m for i in issued), p) for m, p in run.at(chosen) if before < m < after
            ]
            if not any(
                (left := waits[p]) is not None and left <= younger for younger, p in between
            ):  # else it has landed
                younger, place = between[-1]
                old = waits[place]
                waits[place] = younger if old is None else min(old, younger)
    return waits
