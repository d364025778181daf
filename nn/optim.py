"""Optimizers: every update is a kernel over one parameter seen as a flat array, in place.

In:  parameters with `grad`.  Out: the parameters changed.  Named sizes: one compilation serves all parameters.
Read before: module.py. Read next: trainer.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

import kdsl as kd
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
def _adamw(p: kd.floating["N"], g: kd.floating["N"], m: kd.floating["N"], v: kd.floating["N"], lr: kd.f32, step: kd.f32, scale: kd.f32,
           *, beta1, beta2, eps, weight_decay):  # fmt: skip
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


def _flat(x: Any) -> np.ndarray:
    return x.data.reshape(-1)


def grad_norm(parameters: Iterable[Parameter], max_norm: float) -> tuple[np.ndarray, np.ndarray]:
    """The norm of all gradients together, and the factor that would bring it down to max_norm (at most 1), as 0-d arrays."""
    squares = [_square_sum(_flat(p.grad)) for p in parameters if p.grad is not None]
    return _clip_factor(squares, max_norm=float(max_norm))


def clip_grad_norm_(parameters: Iterable[Parameter], max_norm: float) -> float:
    """Scale all gradients in place so that their common norm is at most max_norm; returns the norm before."""
    parameters = [p for p in parameters if p.grad is not None]
    norm, factor = grad_norm(parameters, max_norm)
    for p in parameters:
        _scale(_flat(p.grad), factor, out=_flat(p.grad))
    return float(norm)


class Optimizer:
    """Holds groups of parameters, each with its own settings, and what it remembers of each parameter."""

    def __init__(self, parameters: Any, **defaults: Any) -> None:
        groups = list(parameters)
        if groups and not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        self.groups = [{**defaults, **group, "params": list(group["params"])} for group in groups]
        self.state: dict[int, dict[str, np.ndarray]] = {}
        self.steps = 0

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

    def remembered(self, p: Parameter, *names: str) -> list[np.ndarray]:
        """The arrays kept for p, zeros at first."""
        kept = self.state.setdefault(id(p), {})
        return [_flat_array(kept.setdefault(name, np.zeros_like(p.data))) for name in names]

    def state_dict(self) -> dict[str, np.ndarray]:
        """What is remembered, by "number of the parameter.name", and the count of steps."""
        out = {"steps": np.asarray(self.steps)}
        for i, p in enumerate(self.parameters):
            out.update({f"{i}.{name}": a for name, a in self.state.get(id(p), {}).items()})
        return out

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        self.steps = int(state["steps"])
        for i, p in enumerate(self.parameters):
            self.state[id(p)] = {key.split(".", 1)[1]: np.array(a) for key, a in state.items() if key.startswith(f"{i}.")}


def _flat_array(a: np.ndarray) -> np.ndarray:
    return a.reshape(-1)


class SGD(Optimizer):
    """p -= lr v, v = momentum v + g."""

    def __init__(self, parameters: Any, lr: float = 1e-3, momentum: float = 0.0, weight_decay: float = 0.0) -> None:
        super().__init__(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay)

    def step(self) -> None:
        self.steps += 1
        for group in self.groups:
            lr = np.asarray(group["lr"], np.float32)
            for p in group["params"]:
                if p.grad is None:
                    continue
                (v,) = self.remembered(p, "v")
                _sgd(_flat(p), _flat(p.grad), v, lr, momentum=group["momentum"], weight_decay=group["weight_decay"], out=(_flat(p), v))


class AdamW(Optimizer):
    """Adam with decoupled weight decay. With `max_norm` all gradients together are clipped to that norm within the update."""

    def __init__(
        self, parameters: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.01, max_norm: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        self.max_norm = max_norm
        self.norm = math.nan

    def step(self) -> None:
        self.steps += 1
        scale = np.ones((), np.float32)
        if self.max_norm is not None:
            norm, scale = grad_norm(self.parameters, self.max_norm)
            self.norm = float(norm)
        step = np.asarray(self.steps, np.float32)
        for group in self.groups:
            lr = np.asarray(group["lr"], np.float32)
            settings = {"beta1": group["betas"][0], "beta2": group["betas"][1], "eps": group["eps"], "weight_decay": group["weight_decay"]}
            for p in group["params"]:
                if p.grad is None:
                    continue
                m, v = self.remembered(p, "m", "v")
                _adamw(_flat(p), _flat(p.grad), m, v, lr, step, scale, **settings, out=(_flat(p), m, v))


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
