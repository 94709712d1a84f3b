"""What a run leaves behind while it goes on: checkpoints, evaluations, the best weights; and Ctrl-C."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning

from solov2.atomic import write_atomically
from solov2.evaluate import Evaluation
from solov2.training.module import SOLOv2Module, any_device
from solov2.training.progress import METRICS_FILE, append_metrics, stepped, tell_loggers

logger = logging.getLogger(__name__)

LAST_CHECKPOINT = "last.ckpt"

CLOCK_STEPS = 5
"""Steps between two looks at the clock, which the devices have to agree on."""


class Snapshots(lightning.Callback):
    """Every ``every`` epochs and at the end: a resumable checkpoint, then an evaluation.

    Args:
        folder: of the run.
        every: epochs between two snapshots.
        evaluate: evaluates the module's best model, in all processes together, and gives the first one the
            result, none where it was stopped; None leaves evaluation out.
        save_best: called with the module where an evaluation is at least as good as all before.
    """

    def __init__(
        self,
        folder: Path,
        every: int,
        evaluate: Callable[[SOLOv2Module], Evaluation | None] | None,
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
        evaluation = self.evaluate(pl_module)
        if evaluation is not None:
            self._keep(trainer, pl_module, evaluation)
        elif trainer.should_stop:
            logger.info("the evaluation of epoch %d was stopped: there are no figures of it", number)
        save_checkpoint(trainer, self.folder)  # again: now it knows the best AP

    def _keep(self, trainer: lightning.Trainer, module: SOLOv2Module, evaluation: Evaluation) -> None:
        number = trainer.current_epoch + 1
        self.last, ap = evaluation, evaluation.ap
        logger.info(
            "epoch %d/%d  mask AP %.4f  AP50 %.4f  AP75 %.4f  (maxDets %d, %d pictures, %.0f s)",
            number, trainer.max_epochs, ap.ap, ap.ap50, ap.ap75, ap.max_dets, evaluation.images, evaluation.seconds,
        )  # fmt: skip
        numbers = {"ap": ap.ap, "ap50": ap.ap50, "ap75": ap.ap75}
        append_metrics(
            self.folder / METRICS_FILE,
            {"epoch": number, "step": trainer.global_step, **{name: f"{value:.6f}" for name, value in numbers.items()}},
        )
        tell_loggers(trainer, numbers)
        if ap.ap >= self.best_ap:
            self.best_ap = ap.ap
            self.save_best(module)


def save_checkpoint(trainer: lightning.Trainer, folder: Path) -> None:
    """Writes last.ckpt; an interrupted write leaves the old one as it was. Every device must call it."""
    if trainer.is_global_zero:
        write_atomically(folder / LAST_CHECKPOINT, lambda temporary: trainer.save_checkpoint(temporary))
    else:  # writes nothing there, but the devices wait for each other in it
        trainer.save_checkpoint(folder / LAST_CHECKPOINT)


class Saving(lightning.Callback):
    """Writes last.ckpt within an epoch, and when Ctrl-C ends the run: after the step; a second one ends it at once.

    An evaluation, which begins with a checkpoint, is to ask :meth:`is_asked_to_stop` after every batch.

    Args:
        folder: of the run.
        minutes: longest time without a checkpoint.
        steps: optimizer steps between two checkpoints; None goes by the clock alone.
    """

    def __init__(self, folder: Path, minutes: float, steps: int | None) -> None:
        self.folder = folder
        self.minutes = minutes
        self.steps = steps
        self.stopped = False
        self._before: Any = None
        self._saved = 0.0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Takes over Ctrl-C; elsewhere than in the main thread Python does not allow it."""
        self._saved = time.monotonic()
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
        """Saves when it is time, and stops once any device has been asked to."""
        if not stepped(trainer, batch_idx):
            return  # between two steps there are gradients, which no checkpoint holds
        if self.is_asked_to_stop(trainer) or self._is_due(trainer):
            save_checkpoint(trainer, self.folder)
            self._saved = time.monotonic()

    def is_asked_to_stop(self, trainer: lightning.Trainer) -> bool:
        """Whether any device has been asked to; if so the trainer ends the run. All devices must call it."""
        self.stopped = any_device(trainer, self.stopped)
        trainer.should_stop = trainer.should_stop or self.stopped
        return self.stopped

    def _is_due(self, trainer: lightning.Trainer) -> bool:
        if self.steps is not None and trainer.global_step % self.steps == 0:
            return True
        if trainer.global_step % CLOCK_STEPS:
            return False
        return any_device(trainer, time.monotonic() - self._saved > self.minutes * 60)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Gives Ctrl-C back."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
