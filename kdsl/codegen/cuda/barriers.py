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


Item = Union["list[Access]", Loop]


def _trace(kernel: Sequence[Item], path: Path = (), step: int = 0) -> Iterator[Event]:
    """Every place (no accesses) and every statement, in the order of a run."""
    for i, item in enumerate(kernel):
        yield (*path, i), None, step
        if isinstance(item, Loop):
            for inner in range(2 * item.depth + 1):
                yield from _trace(item.statements, (*path, i), inner)
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


def place_barriers(kernel: Sequence[Item]) -> dict[Path, int | None]:
    """Each place of a barrier, with the copy groups that may be in flight there (None: it waits for no copy)."""
    events = list(_trace(kernel))
    pairs = _conflicts(events)
    moments: dict[Path, list[int]] = {}
    for now, (path, accesses, _) in enumerate(events):
        if accesses is None:
            moments.setdefault(path, []).append(now)
    options = sorted(moments, key=lambda p: (-len(p), [-i for i in p]))
    chosen = next(
        chosen
        for n in range(len(options) + 1)
        for chosen in combinations(options, n)
        if _parts(sorted(m for p in chosen for m in moments[p]), pairs)
    )
    waits: dict[Path, int | None] = dict.fromkeys(chosen)
    issued = [i for i, (_, accesses, _) in enumerate(events) if accesses and any(a[0] == "copy" for a in accesses)]
    for before, after in pairs:
        if before in issued:
            here = ((m, p) for p in chosen for m in moments[p] if before < m < after)
            moment, place = max(here)
            younger = sum(before < i < moment for i in issued)
            old = waits[place]
            waits[place] = younger if old is None else min(old, younger)
    return waits


def _parts(at: list[int], pairs: list[tuple[int, int]]) -> bool:
    return all(any(a < m < b for m in at) for a, b in pairs)
