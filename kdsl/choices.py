"""What tuning found: for a program and a target, the choices that its schedules make, kept on disk.

In:  a traced Function, strides, a Target.  Out: its choices; () where nothing was tuned.
Read before: kept.py. Read next: pipeline.py, tuner.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kdsl import kept
from kdsl.ir.fingerprint import fingerprint, plain
from kdsl.ir.tensor import Function
from kdsl.target import Target

Strides = Sequence[Any]
Choices = tuple[tuple[str, int], ...]


def keep_choices(function: Function, strides: Strides, target: Target, choices: Choices) -> None:
    """From now on, compile this program for this target so."""
    key = _key(function, strides, target)
    _known[key] = choices
    kept.write(key, choices)
    kept.write(_ANY, True)


def is_tuned(function: Function, strides: Strides, target: Target) -> bool:
    """Whether this program has been tuned for this target, here or in an earlier process."""
    return _read(_key(function, strides, target)) is not None


def choices_of(function: Function, strides: Strides, target: Target) -> Choices:
    """What was found for it."""
    if not _known and not kept.read_record(_ANY):
        return ()  # nothing was ever tuned: no key is made
    return _read(_key(function, strides, target)) or ()


def _read(key: str) -> Any:
    if key not in _known:
        _known[key] = kept.read_record(key)
    return _known[key]


def _key(function: Function, strides: Strides, target: Target) -> str:
    """Named sizes are one class: their program is one, whatever their values."""
    return repr(("tuned", fingerprint(function), plain(tuple(strides)), replace(target, choices=())))


_ANY = "tuned: anything"
_known: dict[str, Any] = {}
