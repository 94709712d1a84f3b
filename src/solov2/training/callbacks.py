"""What happens around the steps: the line a person reads, checkpoints, evaluation, Ctrl-C."""

from __future__ import annotations

import csv
import logging
import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning

from solov2.atomic import write_atomically
from solov2.evaluate import Evaluation
from solov2.structures import Batch
from solov2.training.module import SOLOv2Module

logger = logging.getLogger(__name__)

LAST_CHECKPOINT = "last.ckpt"
METRICS_FILE = "metrics.csv"
METRICS = (
    "epoch",
    "step",
    "learning_rate",
    "loss",
    "loss_category",
    "loss_mask",
    "images_per_second",
    "ap",
    "ap50",
    "ap75",
)


class Progress(lightning.Callback):
    """Writes a line every ``every`` steps to the log and a row to metrics.csv.

    Args:
        every: steps between two lines.
        path: of the csv file; rows are appended, so that a resumed run goes on in it.
    """

    def __init__(self, every: int, path: Path) -> None:
        self.every = every
        self.path = path
        self._sums: dict[str, float] = {}
        self._steps = self._pictures = 0
        self._since = self._started = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Starts the clocks."""
        self._since = self._started = time.perf_counter()
        self._first_step = trainer.global_step
        if trainer.is_global_zero:
            drop_metrics_after(self.path, trainer.global_step)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Leaves the evaluation between two epochs out of the images per second."""
        self._since = time.perf_counter()

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
        if trainer.global_step % self.every == 0 or last_of_epoch:
            self._tell(trainer, batch_idx + 1)

    def _tell(self, trainer: lightning.Trainer, batches: int) -> None:
        now = time.perf_counter()
        means = {name: value / self._steps for name, value in self._sums.items()}
        rate = self._pictures / max(now - self._since, 1e-9)
        learning_rate = trainer.optimizers[0].param_groups[0]["lr"]
        done, total = trainer.global_step - self._first_step, int(trainer.estimated_stepping_batches)
        left = (now - self._started) / max(done, 1) * (total - trainer.global_step)
        epochs = trainer.max_epochs or 1
        logger.info(
            "epoch %d/%d  step %d/%d  %s  lr %.2e  %.1f images/s  %s left",
            trainer.current_epoch + 1,
            epochs,
            batches,
            trainer.num_training_batches,
            "  ".join(f"{name} {value:.4f}" for name, value in means.items()),
            learning_rate,
            rate,
            timedelta(seconds=round(max(left, 0))),
        )
        if trainer.is_global_zero:
            row = {
                "epoch": trainer.current_epoch + 1,
                "step": trainer.global_step,
                "learning_rate": f"{learning_rate:.4g}",
                "images_per_second": f"{rate:.2f}",
                **{name: f"{value:.6g}" for name, value in means.items()},
            }
            append_metrics(self.path, row)
        self._sums, self._steps, self._pictures, self._since = {}, 0, 0, now


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


class Snapshots(lightning.Callback):
    """Every ``every`` epochs and at the end: a resumable checkpoint, then an evaluation.

    Args:
        folder: of the run.
        every: epochs between two snapshots.
        evaluate: evaluates the module's best model; None leaves evaluation out.
        save_best: called with the module where an evaluation is at least as good as all before.
    """

    def __init__(
        self,
        folder: Path,
        every: int,
        evaluate: Callable[[SOLOv2Module], Evaluation] | None,
        save_best: Callable[[SOLOv2Module], None],
    ) -> None:
        self.folder = folder
        self.every = every
        self.evaluate = evaluate
        self.save_best = save_best
        self.best_ap = -1.0
        self.last: Evaluation | None = None

    def state_dict(self) -> dict[str, Any]:
        """The best AP so far, kept over a resume."""
        return {"best_ap": self.best_ap}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues from a checkpoint."""
        self.best_ap = state_dict["best_ap"]

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Evaluates and saves, unless the run was stopped within the epoch."""
        assert isinstance(pl_module, SOLOv2Module)
        number = trainer.current_epoch + 1
        if trainer.should_stop or (number % self.every and number != trainer.max_epochs):
            return
        save_checkpoint(trainer, self.folder)  # first: an evaluation that fails must not cost the epoch
        if self.evaluate is None:
            return
        if trainer.is_global_zero:
            self._evaluate(trainer, pl_module, self.evaluate)
        save_checkpoint(trainer, self.folder)  # again: now it knows the best AP

    def _evaluate(
        self, trainer: lightning.Trainer, module: SOLOv2Module, evaluate: Callable[[SOLOv2Module], Evaluation]
    ) -> None:
        number = trainer.current_epoch + 1
        self.last = evaluate(module)
        ap = self.last.ap
        logger.info(
            "epoch %d/%d  mask AP %.4f  AP50 %.4f  AP75 %.4f  (maxDets %d, %d pictures, %.0f s)",
            number, trainer.max_epochs, ap.ap, ap.ap50, ap.ap75, ap.max_dets, self.last.images, self.last.seconds,
        )  # fmt: skip
        append_metrics(
            self.folder / METRICS_FILE,
            {
                "epoch": number,
                "step": trainer.global_step,
                "ap": f"{ap.ap:.6f}",
                "ap50": f"{ap.ap50:.6f}",
                "ap75": f"{ap.ap75:.6f}",
            },
        )
        if ap.ap >= self.best_ap:
            self.best_ap = ap.ap
            self.save_best(module)


def save_checkpoint(trainer: lightning.Trainer, folder: Path) -> None:
    """Writes last.ckpt; an interrupted write leaves the old one as it was. Every device must call it."""
    if trainer.is_global_zero:
        write_atomically(folder / LAST_CHECKPOINT, lambda temporary: trainer.save_checkpoint(temporary))
    else:  # writes nothing there, but the devices wait for each other in it
        trainer.save_checkpoint(folder / LAST_CHECKPOINT)


class GracefulStop(lightning.Callback):
    """Ctrl-C finishes the step, writes last.ckpt and ends the run; a second one ends it at once.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stopped = False
        self._before: Any = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Takes over Ctrl-C; elsewhere than in the main thread Python does not allow it."""
        if threading.current_thread() is not threading.main_thread():
            return

        def request(number: int, frame: Any) -> None:
            logger.info("stopping after this step; Ctrl-C again stops at once, without a checkpoint")
            self.stopped = True
            signal.signal(signal.SIGINT, self._before)

        self._before = signal.signal(signal.SIGINT, request)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves and stops, once any device has been asked to."""
        if trainer.world_size > 1:
            self.stopped = trainer.strategy.reduce_boolean_decision(self.stopped, all=False)
        if self.stopped:
            save_checkpoint(trainer, self.folder)
            trainer.should_stop = True

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Gives Ctrl-C back."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
