"""Two moons, after micrograd's demo: an MLP with 337 parameters learns to tell two half circles apart, in f64.

    python examples/moons.py [--plot moons.png]

Prints the loss curve: 0.895844 at step 0, 0.010978370 at step 99, accuracy 100 %. Data, initial weights, loss and learning
rate are those of micrograd's notebook (commit c911406), so the numbers can be compared digit by digit.
"""

from __future__ import annotations

import argparse
import math
import random

import numpy as np

import nn


def make_moons(n: int = 100, noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Two interleaved half circles, drawn as scikit-learn's make_moons draws them from NumPy's global generator."""
    half = n // 2
    t = np.linspace(0, math.pi, half)
    X = np.vstack([np.append(np.cos(t), 1 - np.cos(t)), np.append(np.sin(t), 1 - np.sin(t) - 0.5)]).T
    y = np.hstack([np.zeros(half, dtype=np.intp), np.ones(half, dtype=np.intp)])
    order = np.arange(n)
    np.random.shuffle(order)
    X, y = X[order], y[order]
    X += np.random.normal(scale=noise, size=X.shape)
    return X, y * 2.0 - 1.0


def make_model() -> nn.MLP:
    """MLP(2, [16, 16, 1]) with micrograd's weights: uniform in (-1, 1) from Python's generator, neuron by neuron; biases 0."""
    model = nn.MLP(2, [16, 16, 1])
    for layer in model.layers:
        rows, columns = layer.weight.shape
        layer.weight.data = np.array([[random.uniform(-1, 1) for _ in range(columns)] for _ in range(rows)])
        layer.bias.data = np.zeros(rows)
    return model


def loss_of(model: nn.MLP, X: np.ndarray, y: np.ndarray) -> tuple[nn.Tensor, nn.Tensor]:
    """(max-margin loss with a little L2, scores)"""
    scores = model(X).reshape(-1)
    margin = (1.0 - scores * y).relu().mean()
    squares = sum(((p * p).sum() for p in model.parameters()), nn.Tensor(np.zeros(())))
    return margin + squares * 1e-4, scores


def train(steps: int = 100) -> tuple[nn.MLP, list[float], list[float], np.ndarray, np.ndarray]:
    np.random.seed(1337)
    random.seed(1337)
    X, y = make_moons()
    model = make_model()
    optimizer = nn.optim.SGD(model.parameters())
    losses, accuracies = [], []
    for k in range(steps):
        loss, scores = loss_of(model, X, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.set_lr(1.0 - 0.9 * k / 100)
        optimizer.step()
        losses.append(float(loss.item()))
        accuracies.append(float(np.mean((scores.numpy() > 0) == (y > 0))))
    return model, losses, accuracies, X, y


def plot(model: nn.MLP, X: np.ndarray, y: np.ndarray, path: str) -> None:
    """Draw the decision boundary."""
    from matplotlib.figure import Figure

    a, b = np.meshgrid(
        np.arange(X[:, 0].min() - 1, X[:, 0].max() + 1, 0.05), np.arange(X[:, 1].min() - 1, X[:, 1].max() + 1, 0.05)
    )
    with nn.no_grad():
        z = model(np.column_stack([a.ravel(), b.ravel()])).numpy().reshape(a.shape)
    figure = Figure(figsize=(5, 5))
    axes = figure.add_subplot()
    axes.contourf(a, b, z > 0, alpha=0.6)
    axes.scatter(X[:, 0], X[:, 1], c=y, s=30)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", help="draw the decision boundary to this PNG file")
    options = parser.parse_args()
    model, losses, accuracies, X, y = train()
    for k in (0, 1, 10, 50, 99):
        print(f"step {k:2d}  loss {losses[k]:.9f}  accuracy {accuracies[k]:.0%}")
    if options.plot:
        plot(model, X, y, options.plot)
