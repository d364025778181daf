"""Where barriers and copy waits go, derived from what each statement does to near memory.

In:  a kernel as a list of statements: a statement is a list of accesses, or a Loop. An access is (kind, ring, tile number,
depth): kind "read", "write", "copy" or "own …" (a write that need not wait for itself: each element always comes from one
thread), the number a fixed one or a function of the loop's step.
Out: the places (paths of positions) before which a barrier stands, and for each how many copy groups may still be in flight.
A ring's slot is number % depth, so running a loop 2 depth + 1 times meets every conflict there is; as any loop may be empty whose
bounds are no numbers, the runs looked at are those in which up to two loops go. A barrier must lie between two accesses of one
slot unless both read or are one own write; a copy has ended only after a wait before that barrier. The place that parts most of
what is not parted yet is taken first; among equals the outermost and latest. What turns out superfluous goes.
Read next: lines.py.
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
    sure: bool = False  # it runs at least once


Item = Union["list[Access]", Loop]


@dataclass(frozen=True)
class Case:
    """How often a run's loops go: at most `most` times, those that are not in `running` (None: all are) not at all."""

    most: int
    taken: bool  # whether what stands under an `if` runs
    running: frozenset[Path] | None = None

    def times(self, loop: Loop, path: Path) -> int:
        if loop.once:
            return int(self.taken)
        goes = loop.sure or self.running is None or path in self.running
        return min(max(self.most if goes else 0, int(loop.sure)), 2 * loop.depth + 1)


def _cases(kernel: Sequence[Item]) -> list[Case]:
    """The runs that are looked at: all loops go on, go once, or not at all; and for any one or two, the others not at all."""
    loops = _loops(kernel, ())
    few = {frozenset(p for p in loops if p in (a[: len(p)], b[: len(p)])) for a in loops for b in loops} - {frozenset(loops)}
    sets = [None, *sorted(few, key=sorted)]
    return [Case(most, taken, running) for running in sets for most in (1 << 30, 1) for taken in (True, False)] + [
        Case(0, taken) for taken in (True, False)
    ]


def _loops(kernel: Sequence[Item], path: Path) -> list[Path]:
    out: list[Path] = []
    for i, item in enumerate(kernel):
        if isinstance(item, Loop):
            out += [] if item.once or item.sure else [(*path, i)]
            out += _loops(item.statements, (*path, i))
    return out


def _trace(kernel: Sequence[Item], case: Case, path: Path = (), step: int = 0) -> Iterator[Event]:
    """Every place (no accesses) and every statement, in the order of a run."""
    for i, item in enumerate(kernel):
        yield (*path, i), None, step
        if isinstance(item, Loop):
            for inner in range(case.times(item, (*path, i))):
                yield from _trace(item.statements, case, (*path, i), step if item.once else inner)
        else:
            yield (*path, i), item, step


def _alike(kind: str, was: str) -> bool:
    """Whether two accesses of one element need no barrier between them."""
    return kind == was and (kind == "read" or kind.startswith("own"))


def _conflicts(events: Sequence[Event]) -> list[tuple[int, int]]:
    """Pairs of moments that a barrier must part."""
    last: dict[tuple[str, int], list[tuple[int, str]]] = {}
    pairs = []
    for now, (_, accesses, step) in enumerate(events):
        for kind, ring, number, depth in accesses or ():
            slot = ring, (number(step) if callable(number) else number) % depth
            before = last.get(slot, [])
            pairs += [(then, now) for then, was in before if not _alike(kind, was) and then != now]
            last[slot] = [*([] if kind != "read" else [e for e in before if e[1] != "read"]), (now, kind)]
    return pairs


class _Run:
    """One run: its events, the pairs of moments to part, when each place comes by."""

    def __init__(self, kernel: Sequence[Item], case: Case) -> None:
        self.events = list(_trace(kernel, case))
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
    runs = [_Run(kernel, case) for case in _cases(kernel)]
    options = sorted({p for run in runs for p in run.moments}, key=lambda p: (len(p), [-i for i in p]))
    pairs = sorted({tuple(p for p in options if run.parts(p, pair)) for run in runs for pair in run.tight()})
    parted: dict[Path, set[int]] = {p: set() for p in options}
    for i, places in enumerate(pairs):
        for p in places:
            parted[p].add(i)
    chosen: list[Path] = []
    left = set(range(len(pairs)))
    while left:
        best = max(options, key=lambda p: len(parted[p] & left))
        if not parted[best] & left:
            raise ValueError("two accesses of one statement to the same near memory cannot be parted")
        chosen.append(best)
        left -= parted[best]
    for place in sorted(chosen, key=len, reverse=True):  # outside of a loop two cost less than one within
        others = [p for p in chosen if p != place]
        alone = set(range(len(pairs))).difference(*(parted[p] for p in others))
        around = [p for p in options if len(p) < len(place) and p == (*place[: len(p) - 1], p[-1])]
        instead: list[Path] = []
        while alone and (best := max(around, key=lambda p: len(parted[p] & alone), default=None)) and parted[best] & alone:
            instead.append(best)
            alone -= parted[best]
        if not alone:
            chosen = [*others, *instead]
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
