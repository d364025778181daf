"""Index errors of a GPU: found out when the host waits for the GPU anyway.

In:  after a launch, what to look at once its results are there.  Out: the error, at the next synchronisation by kdsl.
Read next: runtime/cuda_arrays.py, runtime/cuda_call.py.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

MOST = 64  # calls whose indices nobody has looked at

_waiting: deque[Callable[[], None]] = deque()
_lock = threading.Lock()


def later(look: Callable[[], None]) -> None:
    """Look at the next synchronisation; when very many wait, at once."""
    _waiting.append(look)
    if len(_waiting) > MOST:
        settle()


def settle() -> None:
    """Look at all that waits. The first mistake is raised; what waits behind it is looked at next time."""
    with _lock:
        while _waiting:
            _waiting.popleft()()
