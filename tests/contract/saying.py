"""What contract tests share: reading error messages by their four parts, counting compilations and traces.

said = mistake(kd.ShapeError, ValueError, lambda: f(x))     the class and its builtin base are checked
said.text, said.file, said.line, said.column                what is wrong, and where
said.underlined                                             the user's code above each run of carets
said.facts                                                  the lines behind '=': facts that clash and a way out
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kdsl as kd

ODD_SHAPES = [(0,), (1,), (2,), (7,), (17,), (64,), (65,), (1009,), (3, 0), (0, 5), (1, 1), (5, 1), (13, 31), (2, 3, 5)]


@dataclasses.dataclass(frozen=True)
class Said:
    """An error message, taken apart."""

    text: str
    file: str
    line: int
    column: int
    underlined: tuple[str, ...]
    label: str
    facts: tuple[str, ...]
    whole: str


def read(error: BaseException) -> Said:
    """The four parts of a message; an assertion fails where the place is missing."""
    whole = str(error)
    lines = whole.split("\n")
    place = re.search(r"--> (.+?):(\d+):(\d+)(?:, in \S+)?\s*$", whole, re.MULTILINE)
    assert place, f"no place in:\n{whole}"
    underlined, labels = [], []
    for above, below in itertools.pairwise(lines):
        source, carets = re.match(r"\s*\d+ \| ?(.*)$", above), re.match(r"\s*\| ?( *)(\^+)(.*)$", below)
        if source and carets:
            code_from = above.index("|") + 1
            start, stop = below.index("^"), below.rindex("^") + 1
            assert start >= code_from
            underlined.append(above[start:stop])
            labels.append(carets.group(3).strip())
    facts = [re.sub(r"^\s*= ", "", line) for line in lines if re.match(r"^\s*= ", line)]
    return Said(
        lines[0],
        place.group(1),
        int(place.group(2)),
        int(place.group(3)),
        tuple(underlined),
        labels[0] if labels else "",
        tuple(facts),
        whole,
    )


def mistake(kind: type, builtin: type, action: Callable[[], Any]) -> Said:
    """What the error says that `action` raises: of class `kind`, a KdslError and a `builtin`."""
    with pytest.raises(kd.KdslError) as caught:
        action()
    assert isinstance(caught.value, kind), f"{type(caught.value).__name__} instead of {kind.__name__}: {caught.value}"
    assert isinstance(caught.value, builtin), f"{type(caught.value).__name__} is no {builtin.__name__}"
    return read(caught.value)


class Counted:
    """`with Counted() as n:` then n.made: programs compiled or loaded from the disk cache meanwhile."""

    def __enter__(self) -> Counted:
        self._before = sum(kd.compilations().values())
        return self

    def __exit__(self, *_: object) -> None:
        self.made = sum(kd.compilations().values()) - self._before


def main_kernels(explained: Any) -> list[Any]:
    """Those of `.kernels` that are neither packing nor finishers."""
    return [k for k in explained.kernels if k.kind == "kernel"]


def equal(got: Any, expected: Any) -> None:
    """The same dtype, shape and bits, but for the payload of NaN; signed zeros count."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.dtype == expected.dtype, f"{got.dtype} instead of {expected.dtype}"
    assert got.shape == expected.shape, f"{got.shape} instead of {expected.shape}"
    np.testing.assert_array_equal(got, expected)
    if got.dtype.kind == "f":
        number = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(got)[number], np.signbit(expected)[number])


def layouts(x: np.ndarray) -> list[np.ndarray]:
    """The same numbers in several memory layouts: C, Fortran, every second, backwards, with a gap between rows."""
    spaced = np.zeros(tuple(2 * n for n in x.shape), x.dtype)[tuple(slice(None, None, 2) for _ in x.shape)]
    spaced[...] = x
    backwards = np.ascontiguousarray(x[tuple(slice(None, None, -1) for _ in x.shape)])
    return [
        np.ascontiguousarray(x),
        np.asfortranarray(x),
        spaced,
        backwards[tuple(slice(None, None, -1) for _ in x.shape)],
    ]
