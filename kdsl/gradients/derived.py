"""What is called like the kernel that it is derived from: by the short way, else by the long one.

In:  a kernel.  Out: Derived, on which f.vjp and f.pullback stand.
Read before: specialisation/short_way.py. Read next: gradients/vjp.py, gradients/pullback.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdsl.errors import for_the_user
from kdsl.inspection.looking import Looking
from kdsl.language.dispatch import current
from kdsl.specialisation import ShortWay

Kernel = Any  # kernel.py stands on this file, not the other way round


class Derived(Looking):
    """A callable beside a kernel, with programs of its own."""

    def __init__(self, kernel: Kernel, name: str) -> None:
        self.kernel = kernel
        self.label = f"{kernel.label}.{name}"
        self._programs: dict[Any, Any] = {}
        self._short = ShortWay()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if current() is None:
            result = self._short.call(*args, **kwargs)
            if result is not NotImplemented or (result := self._short.on_gpu(args, kwargs)) is not NotImplemented:
                return result
        try:
            return self._long_way(args, kwargs)
        except Exception as error:
            for_the_user(error)
            raise

    def _long_way(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """A call that looks like none before: compiled where need be, run, remembered."""
        raise NotImplementedError

    def forget(self) -> None:
        """Compile again at the next call: tuning has found something."""
        self._programs.clear()
        self._short = ShortWay()

    def __repr__(self) -> str:
        return f"<{self.label}>"
