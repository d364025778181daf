"""Optimizers: one call of one kernel updates all parameters that have the same settings.

In:  parameters with `grad`.  Out: the parameters changed in place.
The parameters of a group lie end to end in one flat array (Row); `p.data` are views of it. Named sizes: one compilation for all.
Read before: module.py. Read next: trainer.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

import kdsl as kd
from nn import devices
from nn.module import Module, Parameter


@kd.kernel
def _square_sum(g: kd.floating["N"]):
    return kd.sum(kd.astype(g, kd.f32) * kd.astype(g, kd.f32))


@kd.kernel
def _clip_factor(squares, *, max_norm):
    """The norm, and what gradients are multiplied by so that their norm is at most max_norm."""
    norm = kd.sqrt(sum(squares[1:], squares[0]))
    return norm, kd.minimum(max_norm / (norm + 1e-6), 1.0)


@kd.kernel
def _scale(g: kd.floating["N"], factor: kd.f32):
    return g * kd.astype(factor, g.dtype)


@kd.kernel
def _sgd(p: kd.floating["N"], g: kd.floating["N"], v: kd.floating["N"], lr: kd.f32, *, momentum, weight_decay):
    g = g + weight_decay * p if weight_decay else g
    v = momentum * v + g
    return p - kd.astype(lr, p.dtype) * v, v


@kd.kernel
def _adamw(
    p: kd.floating["N"], g: kd.floating["N"], m: kd.floating["N"], v: kd.floating["N"],
    lr: kd.f32, step: kd.f32, scale: kd.f32, *, beta1, beta2, eps, weight_decay,
):  # fmt: skip
    """m' = b1 m + (1-b1) g;  v' = b2 v + (1-b2) g^2;  p' = p (1 - lr wd) - lr m'/(1-b1^t) / (sqrt(v'/(1-b2^t)) + eps)

    Source    Loshchilov and Hutter 2019, "Decoupled weight decay regularization"
    """
    lr, step, scale = (kd.astype(x, p.dtype) for x in (lr, step, scale))
    g = g * scale
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    rate = lr / (1 - kd.exp(step * math.log(beta1)))
    spread = kd.sqrt(v / (1 - kd.exp(step * math.log(beta2)))) + eps
    return p * (1 - lr * weight_decay) - rate * m / spread, m, v


def _flat(x: Any) -> Any:
    return devices.flat(x.data)


def clip_grad_norm_(parameters: Iterable[Parameter], max_norm: float) -> float:
    """Scale all gradients in place so that their common norm is at most max_norm; returns the norm before."""
    parameters = [p for p in parameters if p.grad is not None]
    if not parameters:
        return 0.0
    norm, factor = _clip_factor([_square_sum(_flat(p.grad)) for p in parameters], max_norm=float(max_norm))
    for p in parameters:
        _scale(_flat(p.grad), factor, out=_flat(p.grad))
    return float(devices.numpy(norm))


class Row:
    """Parameters of one dtype and device laid end to end, and what an optimizer remembers of them, each as one flat array.

    `p.data` become views of `values`, so that one update is an update of all. A second array for each lets a kernel write new
    values while it reads old ones, without a copy.
    """

    def __init__(self, parameters: list[Parameter], remembered: dict[str, list[Any]]) -> None:
        self.parameters, self.device = parameters, parameters[0].device
        ends = np.cumsum([p.numel() for p in parameters]).tolist()
        self.places = [slice(end - p.numel(), end) for p, end in zip(parameters, ends)]
        self.values = self._joined([p.numpy() for p in parameters])
        self.kept = {name: self._joined(list(map(devices.numpy, arrays))) for name, arrays in remembered.items()}
        self.spare = {name: devices.like(self.values, 0) for name in ("values", *self.kept)}
        self.gradients = devices.like(self.values, 0)
        self.views = [devices.view(self.values, p.shape, place.start) for p, place in zip(parameters, self.places)]
        self.places_of_gradients = [devices.view(self.gradients, (p.numel(),), place.start) for p, place in self._each()]
        for p, view in zip(parameters, self.views):
            p.data = view

    def _each(self) -> Iterable[tuple[Parameter, slice]]:
        return zip(self.parameters, self.places)

    def _joined(self, arrays: list[np.ndarray]) -> Any:
        """Arrays of the host end to end, on the device."""
        return devices.moved(np.concatenate([a.reshape(-1) for a in arrays]), self.device)

    def gather(self) -> None:
        """Lay all gradients end to end; values that somebody put in a parameter's place are taken in."""
        for p, view in zip(self.parameters, self.views):
            if p.data is not view:
                devices.assign(view, p.data)
                p.data = view
        if self.device == devices.HOST:
            np.concatenate([_flat(p.grad) for p in self.parameters], out=self.gradients)
            return
        for p, place in zip(self.parameters, self.places_of_gradients):
            devices.assign(place, _flat(p.grad))

    def update(self, kernel: Any, *settings: Any, **static: Any) -> None:
        """kernel(values, gradients, *kept, *settings) gives new values and what is kept from now on."""
        out = tuple(self.spare.values())
        kernel(self.values, self.gradients, *self.kept.values(), *settings, **static, out=out)
        devices.assign(self.values, out[0])
        for name in self.kept:
            self.kept[name], self.spare[name] = self.spare[name], self.kept[name]

    def remembered(self, i: int) -> dict[str, Any]:
        """What is kept of parameter i."""
        return {n: devices.view(a, self.parameters[i].shape, self.places[i].start) for n, a in self.kept.items()}


class Optimizer:
    """Holds groups of parameters, each with its own settings, and what it remembers of each parameter (`names`)."""

    names: tuple[str, ...] = ()

    def __init__(self, parameters: Any, **defaults: Any) -> None:
        groups = list(parameters)
        if groups and not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        self.groups = [{**defaults, **group, "params": list(group["params"])} for group in groups]
        self.steps = 0
        self._rows: list[tuple[dict[str, Any], Row]] = []
        self._loaded: dict[int, dict[str, Any]] = {}

    @property
    def parameters(self) -> list[Parameter]:
        return [p for group in self.groups for p in group["params"]]

    def zero_grad(self) -> None:
        for p in self.parameters:
            p.grad = None

    def set_lr(self, lr: float) -> None:
        """The learning rate of every group from now on."""
        for group in self.groups:
            group["lr"] = lr

    def rows(self) -> list[tuple[dict[str, Any], Row]]:
        """The parameters that have gradients, by group, dtype and device, with their gradients gathered."""
        have = [(id(p), p.device) for p in self.parameters if p.grad is not None]
        if have != [(id(p), row.device) for _, row in self._rows for p in row.parameters]:
            known = self._remembered()
            self._rows = []
            for group in self.groups:
                for kind in dict.fromkeys((p.dtype, p.device) for p in group["params"]):
                    own = [p for p in group["params"] if p.grad is not None and (p.dtype, p.device) == kind]
                    zeros = {
                        id(p): dict.fromkeys(self.names, np.zeros(p.shape, p.dtype)) for p in own if id(p) not in known
                    }
                    arrays = {name: [{**known, **zeros}[id(p)][name] for p in own] for name in self.names}
                    if own:
                        self._rows.append((group, Row(own, arrays)))
            placed = {id(p) for _, row in self._rows for p in row.parameters}
            self._loaded = {i: arrays for i, arrays in known.items() if i not in placed}
        for _, row in self._rows:
            row.gather()
        return self._rows

    def _remembered(self) -> dict[int, dict[str, Any]]:
        """What is remembered of each parameter, by its id."""
        placed = {id(p): row.remembered(i) for _, row in self._rows for i, p in enumerate(row.parameters)}
        return {**self._loaded, **placed}

    def state_dict(self) -> dict[str, np.ndarray]:
        """NumPy copies of what is remembered, by "number of the parameter.name", and the count of steps."""
        known = self._remembered()
        out = {"steps": np.asarray(self.steps)}
        for i, p in enumerate(self.parameters):
            out.update({f"{i}.{name}": np.array(devices.numpy(a)) for name, a in known.get(id(p), {}).items()})
        return out

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        """Go on from what `state_dict` gave."""
        self.steps, self._rows, self._loaded = int(state["steps"]), [], {}
        for i, p in enumerate(self.parameters):
            own = {name: np.array(state[f"{i}.{name}"], p.dtype) for name in self.names if f"{i}.{name}" in state}
            if any(a.shape != p.shape for a in own.values()):
                raise ValueError(f"the state of parameter {i} does not have its shape {p.shape}")
            if own:
                self._loaded[id(p)] = own


class SGD(Optimizer):
    """p -= lr v, v = momentum v + g."""

    names = ("v",)

    def __init__(self, parameters: Any, lr: float = 1e-3, momentum: float = 0.0, weight_decay: float = 0.0) -> None:
        super().__init__(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay)

    def step(self) -> None:
        """One update."""
        self.steps += 1
        for group, row in self.rows():
            row.update(_sgd, np.float32(group["lr"]), momentum=group["momentum"], weight_decay=group["weight_decay"])


class AdamW(Optimizer):
    """Adam with decoupled weight decay. With `max_norm` all gradients together are clipped to that norm within the update."""

    names = ("m", "v")

    def __init__(
        self, parameters: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.01, max_norm: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        self.max_norm = max_norm
        self._norm: Any = np.asarray(math.nan, np.float32)

    @property
    def norm(self) -> float:
        """The norm of all gradients before clipping, in the last step; nan where nothing is clipped."""
        return float(devices.numpy(self._norm))

    def step(self) -> None:
        """One update. Parameters on a GPU are updated there, and nothing waits."""
        self.steps += 1
        rows = self.rows()
        scale: Any = np.float32(1.0)
        if self.max_norm is not None and rows:
            squares = [_square_sum(row.gradients) for _, row in rows]
            self._norm, scale = _clip_factor(squares, max_norm=float(self.max_norm))
        for group, row in rows:
            beta1, beta2 = group["betas"]
            settings = {"beta1": beta1, "beta2": beta2, "eps": group["eps"], "weight_decay": group["weight_decay"]}
            row.update(_adamw, np.float32(group["lr"]), np.float32(self.steps), scale, **settings)


def decay_groups(model: Module, weight_decay: float) -> list[dict[str, Any]]:
    """minGPT's groups: weights of linear layers decay; biases, norms and embeddings do not."""
    from nn.layers import Linear

    decayed = {id(m.weight) for m in model.modules() if isinstance(m, Linear)}
    decay = [p for p in model.parameters() if id(p) in decayed]
    rest = [p for p in model.parameters() if id(p) not in decayed]
    return [{"params": decay, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def cosine_schedule(step: int, steps: int, lr: float, warmup: int = 0, floor: float = 0.1) -> float:
    """The learning rate at `step`: linear up to lr over `warmup` steps, then half a cosine down to floor * lr at `steps`."""
    if step < warmup:
        return lr * (step + 1) / warmup
    part = min(1.0, (step - warmup) / max(1, steps - warmup))
    return lr * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * part)))
