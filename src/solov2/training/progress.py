"""What a run tells while it goes on: a line for a person, rows for a table, numbers for a logger."""

from __future__ import annotations

import csv
import logging
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
import torch

from solov2.structures import Batch
from solov2.training.module import SOLOv2Module

logger = logging.getLogger(__name__)

METRICS_FILE = "metrics.csv"
METRICS = (
    "epoch",
    "step",
    "learning_rate",
    "loss",
    "loss_category",
    "loss_mask",
    "images_per_second",
    "data_wait",
    "memory_mb",
    "ap",
    "ap50",
    "ap75",
)


class Progress(lightning.Callback):
    """Writes a line every ``every`` steps to the log, a row to metrics.csv and numbers to the trainer's loggers.

    Args:
        every: steps between two lines.
        path: of the csv file; rows are appended, so that a resumed run goes on in it.
    """

    def __init__(self, every: int, path: Path) -> None:
        self.every = every
        self.path = path
        self._sums: dict[str, float] = {}
        self._steps = self._pictures = 0
        self._since = self._started = self._batch_asked = self._waited = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Starts the clocks."""
        self._since = self._started = time.perf_counter()
        self._first_step = trainer.global_step
        if trainer.is_global_zero:
            drop_metrics_after(self.path, trainer.global_step)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Leaves the evaluation between two epochs out of the images per second."""
        self._since = self._batch_asked = time.perf_counter()

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Measures how long the step had to wait for its pictures."""
        self._waited += time.perf_counter() - self._batch_asked

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the step; the line shows means over the steps since the last one."""
        assert isinstance(pl_module, SOLOv2Module)
        assert isinstance(batch, Batch)
        self._steps += 1
        self._pictures += len(batch) * trainer.world_size
        for name, value in pl_module.losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        last_of_epoch = batch_idx + 1 == trainer.num_training_batches
        if stepped(trainer, batch_idx) and (trainer.global_step % self.every == 0 or last_of_epoch):
            self._tell(trainer, pl_module, batch_idx + 1)
        self._batch_asked = time.perf_counter()

    def _tell(self, trainer: lightning.Trainer, pl_module: SOLOv2Module, batches: int) -> None:
        now, step = time.perf_counter(), trainer.global_step
        span = max(now - self._since, 1e-9)
        numbers = {
            # Groups have multipliers; what the schedule states is the rate of a group with none.
            "learning_rate": pl_module.config.optim.base_lr * pl_module.lr_scale * pl_module.schedule(step),
            **{name: value / self._steps for name, value in self._sums.items()},
            "images_per_second": self._pictures / span,
            "data_wait": min(self._waited / span, 1.0),
        }
        if (memory := memory_mb(trainer.strategy.root_device)) is not None:
            numbers["memory_mb"] = memory
        done, total = trainer.global_step - self._first_step, int(trainer.estimated_stepping_batches)
        left = (now - self._started) / max(done, 1) * (total - trainer.global_step)
        logger.info(
            "epoch %d/%d  step %d/%d  %s  lr %.2e  %.1f images/s  data wait %.0f%%  %s%s left",
            trainer.current_epoch + 1,
            trainer.max_epochs,
            batches,
            trainer.num_training_batches,
            "  ".join(f"{name} {numbers[name]:.4f}" for name in self._sums),
            numbers["learning_rate"],
            numbers["images_per_second"],
            100 * numbers["data_wait"],
            "" if memory is None else f"{memory:.0f} MB  ",
            timedelta(seconds=round(max(left, 0))),
        )
        tell_loggers(trainer, numbers)
        if trainer.is_global_zero:
            row = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step}
            append_metrics(self.path, row | {name: f"{value:.6g}" for name, value in numbers.items()})
        self._sums, self._steps, self._pictures, self._waited, self._since = {}, 0, 0, 0.0, now


def stepped(trainer: lightning.Trainer, batch_idx: int) -> bool:
    """Whether the optimizer has just taken a step: with accumulation it does not after every batch."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or batch_idx + 1 == trainer.num_training_batches


def memory_mb(device: torch.device) -> float | None:
    """Most memory used so far, MB: of the GPU by this process, or of this process without one; None on Windows."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ModuleNotFoundError:  # Unix alone has it
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, kilobytes on Linux


def tell_loggers(trainer: lightning.Trainer, numbers: dict[str, float]) -> None:
    """Hands numbers of the current step to TensorBoard and others."""
    for each in trainer.loggers:
        each.log_metrics(numbers, step=trainer.global_step)


def append_metrics(path: Path, row: dict[str, Any]) -> None:
    """Adds a row to metrics.csv, and the header to a new file."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, METRICS)
        if new:
            writer.writeheader()
        writer.writerow(row)


def drop_metrics_after(path: Path, step: int) -> None:
    """Removes rows that a run wrote after the checkpoint it is now resumed from."""
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if int(row["step"]) <= step]
    path.unlink()
    for row in rows:
        append_metrics(path, row)
