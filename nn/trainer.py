"""Trainer: the loop from batches to a trained model, with progress, checkpoints and exact resumption.

In:  a model that gives (logits, loss), a function step -> batch, settings.  Out: the model changed, a folder with
checkpoint.safetensors (parameters, optimizer, random state, losses) and losses.png. Nothing about models in it.
Read before: optim.py, data.py.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from tqdm import tqdm

from nn import functional as F
from nn import serialization
from nn.devices import moved
from nn.module import Module
from nn.optim import AdamW, cosine_schedule, decay_groups
from nn.tape import no_grad

Batch = Callable[[int], tuple[np.ndarray, np.ndarray]]


@dataclass
class TrainerConfig:
    """`steps` updates at learning rate `lr` (cosine, after `warmup` steps), gradients clipped to `max_norm`."""

    steps: int = 1000
    lr: float = 1e-3
    warmup: int = 0
    floor: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    max_norm: float = 1.0
    save_every: int = 500
    evaluate_every: int = 0
    evaluate_batches: int = 16


class Trainer:
    """Runs `config.steps` steps of training; `folder` is where the run is kept (nothing is kept if None)."""

    def __init__(
        self,
        model: Module,
        batch: Batch,
        config: TrainerConfig,
        folder: Path | None = None,
        held_out: Batch | None = None,
    ) -> None:
        self.model, self.batch, self.config, self.folder, self.held_out = model, batch, config, folder, held_out
        self.optimizer = AdamW(
            decay_groups(model, config.weight_decay), lr=config.lr, betas=config.betas, max_norm=config.max_norm
        )
        self.step = 0
        self.losses: list[float] = []
        self.held_out_losses: list[tuple[int, float]] = []
        self.callbacks: list[Callable[[Trainer], None]] = []
        self._stop = False

    # --- the loop ------------------------------------------------------------------------------------------------------------
    def run(self, progress: bool = True) -> bool:
        """Train until config.steps; True if it got there, False if it was interrupted (and saved)."""
        config = self.config
        before = signal.getsignal(signal.SIGINT)
        in_main = _in_main_thread()
        if in_main:
            signal.signal(signal.SIGINT, self._interrupt)
        self.model.train()
        bar = tqdm(total=config.steps, initial=self.step, disable=not progress, unit="step", dynamic_ncols=True)
        try:
            while self.step < config.steps and not self._stop:
                tokens = self.train_step()
                rate = bar.format_dict["rate"] or 0.0
                bar.set_postfix_str(f"loss {self.losses[-1]:.3f}, {tokens * rate:,.0f} tokens/s", refresh=False)
                bar.update(1)
                if config.evaluate_every and self.step % config.evaluate_every == 0:
                    self.held_out_losses.append((self.step, self.evaluate()))
                if self.folder and self.step % config.save_every == 0:
                    self.save()
                for callback in self.callbacks:
                    callback(self)
        finally:
            bar.close()
            if in_main:
                signal.signal(signal.SIGINT, before)
        if self.folder:
            self.save()
        return self.step >= config.steps

    def train_step(self) -> int:
        """One update; returns how many ids it saw."""
        ids, targets = self._on_device(self.batch(self.step))
        _, loss = self.model(ids, targets)
        self.model.zero_grad()
        loss.backward()
        config = self.config
        self.optimizer.set_lr(cosine_schedule(self.step, config.steps, config.lr, config.warmup, config.floor))
        self.optimizer.step()
        self.losses.append(float(loss.item()))
        self.step += 1
        return ids.size

    def evaluate(self, batches: int | None = None) -> float:
        """The mean loss over the first `batches` held-out batches."""
        if self.held_out is None:
            raise ValueError("this Trainer was given no held-out data")
        batches = self.config.evaluate_batches if batches is None else batches
        self.model.eval()
        with no_grad():
            losses = [float(self.model(*self._on_device(self.held_out(i)))[1].item()) for i in range(batches)]
        self.model.train()
        return sum(losses) / len(losses)

    def _on_device(self, batch: tuple[Any, Any]) -> list[Any]:
        """A batch where the model is: the only thing that a step moves there; its loss is what comes back."""
        return [moved(F.detached(x), self.model.device) for x in batch]

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._stop = True

    # --- keeping a run ---------------------------------------------------------------------------------------------------------
    def save(self) -> None:
        """Write checkpoint.safetensors (in one step: a crash leaves the old one) and losses.png."""
        if self.folder is None:
            raise ValueError("this Trainer was given no folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, np.ndarray] = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        arrays |= {f"optimizer.{k}": v for k, v in self.optimizer.state_dict().items()}
        arrays["losses"] = np.asarray(self.losses)
        arrays["held_out"] = np.asarray(self.held_out_losses, np.float64).reshape(-1, 2)
        arrays["random"] = np.asarray([*F.generator.key.tolist(), F.generator.count], np.int64)
        serialization.save(arrays, self.folder / "checkpoint.safetensors")
        plot_losses(self.losses, self.held_out_losses, self.folder / "losses.png")

    def resume(self) -> bool:
        """Continue from the folder's checkpoint if there is one: the losses are those of an uninterrupted run, bit for bit."""
        path = self.folder / "checkpoint.safetensors" if self.folder else None
        if path is None or not path.exists():
            return False
        arrays = serialization.load(path)
        self.model.load_state_dict({k[6:]: v for k, v in arrays.items() if k.startswith("model.")})
        self.optimizer.load_state_dict({k[10:]: v for k, v in arrays.items() if k.startswith("optimizer.")})
        self.losses = arrays["losses"].tolist()
        self.held_out_losses = [(int(s), float(x)) for s, x in arrays["held_out"]]
        *key, count = (int(x) for x in arrays["random"])
        F.generator.restore(np.asarray(key, np.uint32), count)
        self.step = len(self.losses)
        return True


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def plot_losses(
    losses: list[float], held_out: list[tuple[int, float]], path: Path, baseline: tuple[str, float] | None = None
) -> None:
    """Draw the loss curve to a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    axes.plot(range(1, len(losses) + 1), losses, linewidth=0.7, alpha=0.6, label="training")
    if held_out:
        axes.plot(*zip(*held_out), marker="o", markersize=3, label="held out")
    if baseline:
        axes.axhline(baseline[1], linestyle="--", color="gray", label=baseline[0])
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats)")
    axes.legend()
    figure.savefig(path, dpi=120)
