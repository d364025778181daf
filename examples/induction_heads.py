"""A Mamba learns to recall: the induction heads task of the Mamba paper.

    python examples/induction_heads.py [--steps 1000]

Random tokens; somewhere a marker is followed by a token, and at the end the marker comes again: what followed it before?
What is learned at one length holds at many times it. Source: Gu and Dao 2023, "Mamba", section 4.1.2.
"""

from __future__ import annotations

import argparse

import numpy as np

import nn

LENGTH, SYMBOLS = 32, 12
MARKER = SYMBOLS


def batch(step: int, size: int = 64, seed: int = 1, length: int = LENGTH) -> tuple[np.ndarray, np.ndarray]:
    """Random tokens with a marker among them and one at the end; the loss looks at the end only."""
    rng = np.random.default_rng([seed, step])
    ids = rng.integers(0, SYMBOLS, (size, length))
    at = rng.integers(0, length - 2, (size, 1))
    np.put_along_axis(ids, at, MARKER, axis=1)
    ids[:, -1] = MARKER
    targets = np.full(ids.shape, -1)
    targets[:, -1:] = np.take_along_axis(ids, at + 1, axis=1)
    return ids, targets


def make_trainer(steps: int) -> nn.Trainer:
    nn.manual_seed(1)
    model = nn.Mamba(nn.MambaConfig(vocab_size=SYMBOLS + 1, d_model=64, n_layer=2))
    return nn.Trainer(model, batch, nn.TrainerConfig(steps=steps, lr=4e-3, warmup=20, weight_decay=0.01))


def accuracy(model: nn.Module, length: int = LENGTH, count: int = 256) -> float:
    """The share of problems of this length that are answered right; none was trained on."""
    ids, targets = batch(0, count, seed=2, length=length)
    with nn.no_grad():
        guesses = model(ids).numpy()[:, -1].argmax(-1)
    return float(np.mean(guesses == targets[:, -1]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    options = parser.parse_args()
    trainer = make_trainer(options.steps)
    trainer.run()
    for times in (1, 2, 4, 16):
        print(f"length {LENGTH * times}: {accuracy(trainer.model, LENGTH * times):.2%} right (by chance {1 / SYMBOLS:.2%})")
