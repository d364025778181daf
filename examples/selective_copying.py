"""A Mamba learns which tokens to remember: the selective copying task of the Mamba paper.

    python examples/selective_copying.py [--steps 1000]

Some tokens stand at random places among noise; then come markers, and at each the model says the next of the tokens, in order.
A state whose decay does not depend on the input cannot skip the noise. Source: Gu and Dao 2023, "Mamba", section 4.1.1.
"""

from __future__ import annotations

import argparse

import numpy as np

import nn

LENGTH, TOKENS, SYMBOLS = 48, 6, 8  # places, tokens among them, kinds of tokens
NOISE, MARKER = SYMBOLS, SYMBOLS + 1


def batch(step: int, size: int = 64, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Noise with tokens in it, then markers; the loss looks at the markers only."""
    rng = np.random.default_rng([seed, step])
    tokens = rng.integers(0, SYMBOLS, (size, TOKENS))
    places = np.sort(np.argsort(rng.random((size, LENGTH)), axis=1)[:, :TOKENS], axis=1)
    ids = np.full((size, LENGTH + TOKENS), NOISE)
    np.put_along_axis(ids, places, tokens, axis=1)
    ids[:, LENGTH:] = MARKER
    targets = np.full(ids.shape, -1)
    targets[:, LENGTH:] = tokens
    return ids, targets


def make_trainer(steps: int, kind: str = "mamba") -> nn.Trainer:
    nn.manual_seed(1)
    shape = {"vocab_size": SYMBOLS + 2, "d_model": 64, "n_layer": 2}
    if kind == "mamba2":
        model = nn.Mamba2(nn.Mamba2Config(**shape, head_dim=16, d_state=32))
    else:
        model = nn.Mamba(nn.MambaConfig(**shape))
    return nn.Trainer(model, batch, nn.TrainerConfig(steps=steps, lr=4e-3, warmup=20, weight_decay=0.01))


def accuracy(model: nn.Module, count: int = 256) -> float:
    """The share of tokens that are copied right, on problems that were not trained on."""
    ids, targets = batch(0, count, seed=2)
    with nn.no_grad():
        guesses = model(ids).numpy()[:, LENGTH:].argmax(-1)
    return float(np.mean(guesses == targets[:, LENGTH:]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--model", choices=["mamba", "mamba2"], default="mamba")
    options = parser.parse_args()
    trainer = make_trainer(options.steps, options.model)
    print(f"tokens copied before: {accuracy(trainer.model):.2%} (by chance {1 / SYMBOLS:.2%})")
    trainer.run()
    print(f"tokens copied after: {accuracy(trainer.model):.2%}")
