"""Nested arguments and results: tuples, lists and dicts, taken apart into leaves and put together again.

In:  any Python value.  Out: its tensor leaves in order, and a Tree: everything else, hashable, so that it can be part of a key.
A leaf is what `is_tensor` says is one; all other values are static and stand in the Tree itself.
Read next: frontend/signature.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kdsl.errors import ArgumentError


@dataclass(frozen=True)
class Tree:
    """The structure of a nested value. `kind`: "leaf", "static" or the type of the container; `keys` of a dict."""

    kind: Any
    children: tuple[Tree, ...] = ()
    keys: tuple[Any, ...] = ()
    value: Static | None = None

    @property
    def count(self) -> int:
        """How many tensor leaves it has."""
        return 1 if self.kind == "leaf" else sum(child.count for child in self.children)

    def __str__(self) -> str:
        if self.kind in ("leaf", "static"):
            return "tensor" if self.kind == "leaf" else repr(self.value)
        if issubclass(self.kind, dict):
            return "{" + ", ".join(f"{k!r}: {child}" for k, child in zip(self.keys, self.children)) + "}"
        inside = ", ".join(map(str, self.children)) + (
            "," if issubclass(self.kind, tuple) and len(self.children) == 1 else ""
        )
        return f"({inside})" if issubclass(self.kind, tuple) else f"[{inside}]"


class Static:
    """A static value as part of a key: 1, True and 1.0 differ, so do 0.0 and -0.0, and NaN equals itself."""

    __slots__ = ("_key", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self._key = (type(value), repr(value) if isinstance(value, (float, complex)) else value)
        hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return repr(self.value)


LEAF = Tree("leaf")


def flatten(
    value: Any, is_tensor: Callable[[Any], bool], path: str = "", leaves: list[tuple[str, Any]] | None = None
) -> Tree:
    """The Tree of a value; its tensor leaves are appended to `leaves` with their paths: "params['w'][1]"."""
    if leaves is None:
        leaves = []
    if is_tensor(value):
        leaves.append((path, value))
        return LEAF
    if isinstance(value, (tuple, list)):
        return Tree(
            type(value), tuple(flatten(v, is_tensor, f"{path}[{i}]", leaves) for i, v in enumerate(value))
        )
    if isinstance(value, dict):
        children = tuple(flatten(v, is_tensor, f"{path}[{k!r}]", leaves) for k, v in value.items())
        return Tree(type(value), children, tuple(value))
    try:
        return Tree("static", value=Static(value))
    except TypeError:
        raise ArgumentError(
            f"{path or 'a static value'} is a {type(value).__name__}, which is neither a tensor nor hashable",
            facts="arguments are arrays, tuples, lists and dicts of them; all others are static and must be hashable",
        ) from None


def unflatten(tree: Tree, leaves: Iterator[Any]) -> Any:
    """The value again, with other leaves."""
    if tree.kind == "leaf":
        return next(leaves)
    if tree.kind == "static":
        return tree.value.value  # type: ignore[union-attr]
    children = [unflatten(child, leaves) for child in tree.children]
    if tree.keys or issubclass(tree.kind, dict):
        return dict(zip(tree.keys, children))
    if hasattr(tree.kind, "_fields"):  # a named tuple
        return tree.kind(*children)
    return tree.kind(children)


def builder(tree: Tree) -> Callable[[Sequence[Any]], Any]:
    """`unflatten` for one Tree and a flat sequence, written out as one expression: five times as fast."""
    names: dict[str, Any] = {}

    def named(x: Any) -> str:
        names[f"n{len(names)}"] = x
        return f"n{len(names) - 1}"

    def text(tree: Tree) -> str:
        if tree.kind == "leaf":
            return f"flat[{next(numbers)}]"
        if tree.kind == "static":
            return named(tree.value.value)  # type: ignore[union-attr]
        children = [text(child) for child in tree.children]
        if tree.keys or issubclass(tree.kind, dict):
            return "{" + ", ".join(f"{named(k)}: {child}" for k, child in zip(tree.keys, children)) + "}"
        inside = "".join(f"{child}, " for child in children)
        if tree.kind is list:
            return f"[{inside}]"
        if tree.kind is tuple:
            return f"({inside})"
        return f"{named(tree.kind)}({inside if hasattr(tree.kind, '_fields') else f'({inside})'})"

    numbers = itertools.count()
    return eval(f"lambda flat: {text(tree)}", names)
