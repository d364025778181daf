"""Text as numbers: a character vocabulary, a held-out part, and batches that depend on the step alone.

In:  text.  Out: (ids, targets) arrays.  A batch is a function of (seed, step), so a resumed run sees the same batches.
Read next: trainer.py.
"""

from __future__ import annotations

import math
import sysconfig
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np


def standard_library_text(limit: int = 2_000_000) -> str:
    """The Python standard library's own sources, one after the other in order of their names: real text on any machine."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    parts: list[str] = []
    total = 0
    for path in sorted(folder.glob("*.py")):
        text = path.read_text(encoding="utf-8", errors="replace")
        parts.append(text)
        total += len(text)
        if total > limit:
            break
    return "".join(parts)[:limit]


@dataclass
class CharacterText:
    """A text split into a training part and a held-out last part, each an array of character ids.

    Characters rarer than `least` share one id, which is written as U+FFFD.
    """

    vocabulary: list[str]
    train: np.ndarray
    held_out: np.ndarray

    @classmethod
    def from_text(cls, text: str, held_out: float = 0.1, least: int = 20) -> CharacterText:
        counts = Counter(text)
        vocabulary = sorted(c for c, n in counts.items() if n >= least or len(counts) < 64)
        if len(vocabulary) < len(counts):
            vocabulary.append("\ufffd")
        data = cls(vocabulary, np.zeros(0, np.int64), np.zeros(0, np.int64))
        ids = data.encode(text)
        cut = int(len(ids) * (1 - held_out))
        data.train, data.held_out = ids[:cut], ids[cut:]
        return data

    def encode(self, text: str) -> np.ndarray:
        number = {c: i for i, c in enumerate(self.vocabulary)}
        unknown = number.get("\ufffd", 0)
        return np.array([number.get(c, unknown) for c in text], np.int64)

    def decode(self, ids: np.ndarray) -> str:
        return "".join(self.vocabulary[int(i)] for i in ids)

    def batch(self, step: int, size: int, block: int, seed: int, part: str = "train") -> tuple[np.ndarray, np.ndarray]:
        """`size` random stretches of `block` ids and, as targets, the ids one further."""
        ids = self.train if part == "train" else self.held_out
        rng = np.random.default_rng([seed, step, part == "train"])
        starts = rng.integers(0, len(ids) - block - 1, size)
        rows = starts[:, None] + np.arange(block)[None, :]
        return ids[rows], ids[rows + 1]

    def bigram_loss(self) -> float:
        """The held-out cross-entropy, in nats a character, of a table of character pairs: the training part's counts plus one."""
        n = len(self.vocabulary)
        counts = np.ones((n, n))
        np.add.at(counts, (self.train[:-1], self.train[1:]), 1)
        pairs = Counter(zip(self.held_out[:-1].tolist(), self.held_out[1:].tolist()))
        totals = counts.sum(1)
        return sum(k * (math.log(totals[a]) - math.log(counts[a, b])) for (a, b), k in pairs.items()) / sum(
            pairs.values()
        )
