"""What tuning found: for a program and a target its choices, kept on disk.

In:  a traced Function, strides, a Target.  Out: the choices found; () where nothing was tuned.
Read before: choices.py, kept.py. Read next: pipeline.py, tuner.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kdsl import kept
from kdsl.choices import Choices
from kdsl.ir.fingerprint import fingerprint, plain
from kdsl.ir.tensor import Function
from kdsl.target import Target, machine

Strides = Sequence[Any]


def keep_choices(function: Function, strides: Strides, what: Any, target: Target, choices: Choices) -> None:
    """From now on, compile this program for this target so."""
    key = _key(function, strides, what, target)
    _known[key] = choices
    kept.write(key, choices)
    kept.write(_ANY, True)


def is_tuned(function: Function, strides: Strides, what: Any, target: Target) -> bool:
    """Whether this program has been tuned for this target, here or in an earlier process."""
    return _read(_key(function, strides, what, target)) is not None


def choices_of(function: Function, strides: Strides, what: Any, target: Target) -> Choices:
    """What was found for it; `what` is made of the function: "forward", a vjp, a half of a pullback."""
    if not _known and not kept.read_record(_ANY):
        return ()  # nothing was ever tuned: no key is made
    return _read(_key(function, strides, what, target)) or ()


def _read(key: str) -> Any:
    if key not in _known:
        _known[key] = kept.read_record(key)
    return _known[key]


def _key(function: Function, strides: Strides, what: Any, target: Target) -> str:
    """Named sizes are one class on a CPU, and those of their target on a GPU; every machine has its own winner."""
    own = replace(target, choices=())
    return repr(("tuned", fingerprint(function), plain((tuple(strides), what)), own, machine(own)))


_ANY = "tuned: anything"
_known: dict[str, Any] = {}
