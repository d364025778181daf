"""The tape: which kernel calls led to a tensor, and how gradients go back along it.

In:  a tensor and its gradient.  Out: the leaves that it was computed from, with their gradients.
A call that a gradient may be wanted of is a Node: its *pullback* (the derived backward kernel with what the forward kept) and the
tensors on both sides. Only tensors point to nodes, so a tape lives as long as what was computed on it.
Read beside micrograd's engine.py. Read before: devices.py. Read next: tensor.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nn import devices
from nn import tensor_kernels as kernels

if TYPE_CHECKING:
    from nn.tensor import Tensor

_state = {"grad": True}


@contextmanager
def no_grad() -> Iterator[None]:
    """Run kernels without a tape.

    Example: `with nn.no_grad(): nn.Tensor([1.0], requires_grad=True) * 2`.
    """
    before, _state["grad"] = _state["grad"], False
    try:
        yield
    finally:
        _state["grad"] = before


def grad_enabled() -> bool:
    """Whether calls are put on the tape."""
    return _state["grad"]


class Node:
    """One kernel call on the tape: its pullback, and the tensors it came from."""

    __slots__ = ("outputs", "parents", "pullback")

    def __init__(
        self, pullback: Callable[..., tuple[Any, ...]], parents: tuple[Tensor, ...], outputs: list[Tensor]
    ) -> None:
        self.pullback, self.parents, self.outputs = pullback, parents, outputs


def gradients(tensor: Tensor, gradient: Any) -> Iterator[tuple[Tensor, Any]]:
    """The leaves below `tensor` with their gradients, from the last call to the first; a leaf comes once for each use."""
    met: dict[int, Any] = {id(tensor): gradient}
    if tensor.node is None:
        yield tensor, gradient
    for node in _from_last_to_first(tensor):
        if not any(id(t) in met for t in node.outputs):
            continue
        cotangents = [met.pop(id(t), None) for t in node.outputs]
        filled = [devices.like(t.data, 0) if c is None else c for c, t in zip(cotangents, node.outputs)]
        for parent, g in zip(node.parents, node.pullback(*filled), strict=True):
            if g is None or not parent.requires_grad:
                continue
            if type(g) is not type(parent.data):  # a number of the host's beside tensors of a GPU
                g = devices.moved(g, parent.device)
            if parent.node is None:
                yield parent, g
            else:
                met[id(parent)] = kernels.add(met[id(parent)], g) if id(parent) in met else g


def _from_last_to_first(tensor: Tensor) -> list[Node]:
    """The tape below `tensor`, every call before the calls that it used (no recursion: tapes are long)."""
    order: list[Node] = []
    seen: set[int] = set()
    stack: list[tuple[Node, bool]] = [(tensor.node, False)] if tensor.node else []
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((p.node, False) for p in node.parents if p.node is not None)
    return order[::-1]
