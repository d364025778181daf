"""Lines of a kernel's source, those that loops and conditions hold, and what they do to memory that threads share.

In:  lines in order, each with its accesses.  Out: `with_barriers(body)`, the text with a barrier wherever one is needed.
Read before: barriers.py. Read next: views.py, emit.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kdsl.codegen.cuda.barriers import Access, Item, Loop, Path, place_barriers


@dataclass
class Line:
    """Lines of source that stand together, and what they do to memory that the block's threads share."""

    text: list[str]
    accesses: list[Access] = field(default_factory=list)


@dataclass
class Block:
    """What stands under a `while` or an `if`."""

    head: str
    body: list[Line | Block]
    depth: int = 1
    once: bool = False
    sure: bool = False

def with_barriers(body: Sequence[Line | Block]) -> list[str]:
    """The text of the lines, barriers and waits for copies between them."""
    return _text(body, _placed(body))


def needs_barriers(body: Sequence[Line | Block]) -> bool:
    """Whether threads have to wait for each other anywhere in these lines."""
    return bool(_placed(body))


def indented(lines: Sequence[str]) -> list[str]:
    """The lines one level further in."""
    return ["    " + line for line in lines]


def _placed(body: Sequence[Line | Block]) -> dict[Path, int | None]:
    return place_barriers([_accesses(x) for x in body])


def _accesses(x: Line | Block) -> Item:
    return Loop(tuple(map(_accesses, x.body)), x.depth, x.once, x.sure) if isinstance(x, Block) else x.accesses


def _text(body: Sequence[Line | Block], barriers: dict[Path, int | None], path: Path = ()) -> list[str]:
    out: list[str] = []
    for i, x in enumerate(body):
        if (*path, i) in barriers:
            left = barriers[(*path, i)]
            out += ([f"wait({left})"] if left is not None else []) + ["barrier()"]
        out += [x.head, *indented(_text(x.body, barriers, (*path, i)))] if isinstance(x, Block) else x.text
    return out
