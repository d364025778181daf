"""Machine code on disk: what was compiled once is loaded by every later process.

In:  a key (a hexadecimal digest of everything that decides the code).  Out: the bytes stored under it, or None.
A file is a magic word, the digest of its payload, and the payload; it is written under another name and then renamed, so
that two processes never see half a file. Whatever is wrong with a file (cut short, damaged, unreadable) only means that the
code is compiled again, and a folder that cannot be written only means that nothing is kept.
Read next: runtime/cpu.py.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path

IMPORTED = time.time()  # sources that change later are not what this process runs
_MAGIC = b"kdsl1\n"


def folder() -> Path:
    """KDSL_CACHE_DIR, or `kdsl` in the user's folder for caches."""
    chosen = os.environ.get("KDSL_CACHE_DIR")
    if chosen:
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "kdsl"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "kdsl"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kdsl"


def key_of(*parts: str) -> str:
    """One digest for several texts; the border between two texts counts."""
    data = [part.encode() for part in parts]
    return _digest(b"".join(len(d).to_bytes(8, "little") + d for d in data)).hex()


def _digest(data: bytes) -> bytes:
    import hashlib  # with the first kernel: it brings a library of its own

    return hashlib.sha256(data).digest()


def _path(key: str) -> Path:
    return folder() / key[:2] / key[2:]


def read(key: str) -> bytes | None:
    """What was stored under `key`, or None where there is nothing, or nothing sound."""
    try:
        data = _path(key).read_bytes()
    except OSError:
        return None
    head = len(_MAGIC) + 32
    payload = data[head:]
    if data[: len(_MAGIC)] != _MAGIC or data[len(_MAGIC) : head] != _digest(payload):
        return None
    return payload


def write(key: str, payload: bytes) -> None:
    """Store `payload` under `key`: all of it or nothing."""
    path = _path(key)
    name = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(_MAGIC + _digest(payload) + payload)
        os.replace(name, path)
        name = None
    except OSError:
        pass  # then nothing is kept
    finally:  # also where Ctrl-C came between
        if name is not None:
            with contextlib.suppress(OSError):
                os.unlink(name)
