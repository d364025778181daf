"""A GPT learns to sort, after minGPT's demo: six digits of 0, 1, 2 in, the same digits sorted out.

    python examples/sort.py [--steps 2000]

gpt-nano (3 layers, 3 heads, 48 wide), batch 64, AdamW at 5e-4, 2000 steps; greedy decoding then sorts every test problem.
"""

from __future__ import annotations

import argparse

import numpy as np

import nn

LENGTH, DIGITS = 6, 3
BLOCK = 2 * LENGTH - 1


def problems(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random digit rows; half of those without many repeats are drawn again, as in minGPT's demo."""
    rows = rng.integers(0, DIGITS, (count, LENGTH))
    boring = np.array([len(set(r)) > LENGTH // 2 for r in rows]) & (rng.random(count) < 0.5)
    rows[boring] = rng.integers(0, DIGITS, (int(boring.sum()), LENGTH))
    return rows


def is_test(row: np.ndarray) -> bool:
    """A fixed quarter of all problems is never trained on."""
    return int(row @ (DIGITS ** np.arange(LENGTH))) * 2654435761 % 4 == 0


def draw(rng: np.random.Generator, count: int, test: bool) -> np.ndarray:
    """`count` problems of the training or the test part."""
    out: list[np.ndarray] = []
    while len(out) < count:
        out += [r for r in problems(rng, 2 * count) if is_test(r) == test]
    return np.array(out[:count])


def batch(step: int, size: int = 64, seed: int = 3407) -> tuple[np.ndarray, np.ndarray]:
    """Rows followed by their sorted digits, shifted by one; the loss looks at the sorted part only."""
    rows = draw(np.random.default_rng([seed, step]), size, test=False)
    both = np.concatenate([rows, np.sort(rows, axis=1)], axis=1)
    ids, targets = both[:, :-1], both[:, 1:].copy()
    targets[:, : LENGTH - 1] = -1
    return ids, targets


def make_trainer(steps: int) -> nn.Trainer:
    nn.manual_seed(3407)
    model = nn.GPT(nn.GPTConfig(vocab_size=DIGITS, block_size=BLOCK, model_type="gpt-nano"))
    return nn.Trainer(model, batch, nn.TrainerConfig(steps=steps, lr=5e-4, floor=1.0))


def accuracy(model: nn.GPT, rows: np.ndarray) -> float:
    """The share of rows that greedy decoding sorts."""
    out = model.generate(rows, LENGTH)[:, LENGTH:]
    return float(np.mean(np.all(out == np.sort(rows, axis=1), axis=1)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    options = parser.parse_args()
    trainer = make_trainer(options.steps)
    trainer.run()
    rng = np.random.default_rng(0)
    for name, test in (("training", False), ("test", True)):
        print(f"{name} problems sorted: {accuracy(trainer.model, draw(rng, 500, test)):.2%}")
