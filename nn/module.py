"""Module, Parameter and Buffer: a tree of named tensors.

In:  attributes that are Parameters or Modules.  Out: parameters(), state_dict(), train/eval.  Names and order are torch's.
Read before: tensor.py. Read next: layers.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from nn import devices
from nn.tensor import Tensor


class Parameter(Tensor):
    """A Tensor that a Module owns and an optimizer changes."""

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True, device: str | None = None) -> None:
        super().__init__(data, requires_grad, device=device)


class Buffer(Tensor):
    """A Tensor that a Module owns and saves, and that no optimizer changes: running statistics."""

    __slots__ = ()


class Module:
    """Holds Parameters and other Modules as attributes; subclasses define `forward`."""

    training: bool

    def __init__(self) -> None:
        self.__dict__.setdefault("training", True)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"{type(self).__name__} defines no forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    # --- the tree ----------------------------------------------------------------------------------------------------------
    def named_children(self) -> Iterator[tuple[str, Module]]:
        for name, value in self.__dict__.items():
            if isinstance(value, Module):
                yield name, value

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """Every parameter with its dotted name; a shared one is named once."""
        return self._named(prefix, Parameter)

    def named_buffers(self, prefix: str = "") -> Iterator[tuple[str, Buffer]]:
        """Every buffer with its dotted name."""
        return self._named(prefix, Buffer)

    def _named(self, prefix: str, kind: Any) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for path, module in self.named_modules(prefix):
            for name, value in module.__dict__.items():
                if isinstance(value, kind) and id(value) not in seen:
                    seen.add(id(value))
                    yield (f"{path}.{name}" if path else name), value

    def parameters(self) -> Iterator[Parameter]:
        return (p for _, p in self.named_parameters())

    # --- modes and gradients -------------------------------------------------------------------------------------------------
    def train(self, mode: bool = True) -> Module:
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        return self.train(False)

    def zero_grad(self) -> None:
        for p in self.parameters():
            p.grad = None

    # --- devices -------------------------------------------------------------------------------------------------------------
    @property
    def device(self) -> str:
        """Where the parameters lie; "cpu" where there are none."""
        return next((p.device for p in self._tensors()), devices.HOST)

    def to(self, device: str) -> Module:
        """Move all parameters and buffers, and their gradients, to "cpu" or a GPU: `model.to("cuda")`."""
        for p in self._tensors():
            p.data = devices.moved(p.data, device)
            if p.grad is not None:
                p.grad = p.grad.to(device)
        return self

    def cpu(self) -> Module:
        return self.to(devices.HOST)

    def cuda(self) -> Module:
        return self.to("cuda")

    def _tensors(self) -> Iterator[Tensor]:
        return (p for _, p in self._named("", (Parameter, Buffer)))

    # --- saving ----------------------------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, np.ndarray]:
        """NumPy arrays by name, of parameters and buffers: on the CPU the model's own, from a GPU copies."""
        return {name: p.numpy() for name, p in self._named("", (Parameter, Buffer))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Copy arrays into the parameters and buffers, wherever these lie; names and shapes must agree."""
        own = dict(self._named("", (Parameter, Buffer)))
        missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        if missing or unknown:
            raise KeyError(f"the state lacks {missing or 'nothing'} and has the unknown {unknown or 'nothing'}")
        for name, p in own.items():
            array = np.asarray(state[name])
            if array.shape != p.shape:
                raise ValueError(f"{name} has shape {p.shape}, the state's has {array.shape}")
            devices.assign(p.data, array)

    def __repr__(self) -> str:
        lines = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.named_children()]
        extra = self.describe()
        return f"{type(self).__name__}({extra}" + ("\n  " + "\n  ".join(lines) + "\n" if lines else "") + ")"

    def describe(self) -> str:
        """What stands in the brackets of repr()."""
        return ""


class ModuleList(Module):
    """Modules in a list: `modules[0]`, iteration, length."""

    def __init__(self, modules: Any = ()) -> None:
        super().__init__()
        for i, module in enumerate(modules):
            setattr(self, str(i), module)

    def __iter__(self) -> Iterator[Module]:
        return (child for _, child in self.named_children())

    def __len__(self) -> int:
        return sum(1 for _ in self.named_children())

    def __getitem__(self, i: int) -> Module:
        return list(self)[i]


class Sequential(ModuleList):
    """One module after the other.

    Example: `nn.Sequential(nn.Linear(3, 2), nn.ReLU())(np.ones((4, 3), "f4")).shape`.
    """

    def __init__(self, *modules: Module) -> None:
        super().__init__(modules)

    def forward(self, x: Any) -> Any:
        for module in self:
            x = module(x)
        return x
