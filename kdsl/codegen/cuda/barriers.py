"""Where barriers and copy waits go, derived from what each statement does to near memory.

In:  a kernel as a list of statements: a statement is a list of accesses, or a Loop. An access is (kind, ring, tile number,
depth): kind "read", "write" or "copy", the number a fixed one or a function of the loop's step.
Out: the places (paths of positions) before which a barrier stands, and for each how many copy groups may still be in flight.
A ring's slot is number % depth, so running a loop 2 depth + 1 times meets every conflict there is. A barrier must lie between
two accesses of one slot unless both read; a copy has ended only after a wait before that barrier. The smallest set of places
is tried first; among equals the latest places, innermost first. Read next: emit.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
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


def _trace(kernel: Sequence[Item], most: int, path: Path = (), step: int = 0) -> Iterator[Event]:
    """Every place (no accesses) and every statement, in the order of a run whose loops go at most `most` times."""
    for i, item in enumerate(kernel):
        yield (*path, i), None, step
        if isinstance(item, Loop):
            for inner in range(min(most, 1 if item.once else 2 * item.depth + 1)):
                yield from _trace(item.statements, most, (*path, i), inner)
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

    def __init__(self, kernel: Sequence[Item], most: int) -> None:
        self.events = list(_trace(kernel, most))
        self.pairs = _conflicts(self.events)
        self.moments: dict[Path, list[int]] = {}
        for now, (path, accesses, _) in enumerate(self.events):
            if accesses is None:
                self.moments.setdefault(path, []).append(now)

    def at(self, chosen: Sequence[Path]) -> list[tuple[int, Path]]:
        return sorted((m, p) for p in chosen for m in self.moments.get(p, ()))

    def parted(self, chosen: Sequence[Path]) -> bool:
        at = self.at(chosen)
        return all(any(a < m < b for m, _ in at) for a, b in self.pairs)


def place_barriers(kernel: Sequence[Item]) -> dict[Path, int | None]:
    """Each place of a barrier, with the copy groups that may be in flight there (None: it waits for no copy)."""
    runs = [_Run(kernel, most) for most in (1 << 30, 1, 0)]  # a loop may also run once, or not at all
    options = sorted(runs[0].moments, key=lambda p: (-len(p), [-i for i in p]))
    sets = (chosen for n in range(len(options) + 1) for chosen in combinations(options, n))
    chosen = next(c for c in sets if all(run.parted(c) for run in runs))
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
