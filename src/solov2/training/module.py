"""One training step and what surrounds it, as Lightning wants it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor

from solov2.build import build_loss, build_optimizer
from solov2.config import Config
from solov2.data.collate import normalize
from solov2.errors import TrainingError
from solov2.model.solov2 import SOLOv2
from solov2.optim import Ema
from solov2.structures import Batch
from solov2.weights.files import METADATA_KEY

logger = logging.getLogger(__name__)


class SOLOv2Module(lightning.LightningModule):
    """The network in training.

    Args:
        model: the network.
        config: the recipe.
        schedule: the learning rate's factor at every optimizer step.
        lr_scale: factor of the recipe's learning rate, for the number of devices.
        metadata: of the weights, stored in every checkpoint.
        skip_bad_batches: leave out a batch whose loss is not finite, and count it, instead of stopping.
    """

    def __init__(
        self,
        model: SOLOv2,
        config: Config,
        schedule: Callable[[int], float],
        lr_scale: float,
        metadata: Mapping[str, Any],
        *,
        skip_bad_batches: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.schedule = schedule
        self.lr_scale = lr_scale
        self.metadata = metadata
        self.compute_losses = build_loss(config)
        # Outside the module tree: neither an optimizer nor Lightning's own state should see it.
        self._ema = [Ema(model, config.train.ema_decay, config.train.ema_decay_type)] if config.train.ema else []
        self.losses: dict[str, float] = {}
        self.batches_done = 0
        self.skip_bad_batches = skip_bad_batches
        self.skipped = 0

    @property
    def ema(self) -> Ema | None:
        """The moving average, where the recipe asks for one."""
        return self._ema[0] if self._ema else None

    @property
    def best_model(self) -> SOLOv2:
        """The network to evaluate and to save: the average where there is one."""
        model = self.ema.model if self.ema else self.model
        assert isinstance(model, SOLOv2)
        return model

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """The sum of the losses of one batch; None to leave it out.

        Raises:
            TrainingError: if it is not finite; names the pictures.
        """
        self.batches_done = batch_idx + 1
        # DropBlock's draws are a function of the batch alone: a resumed run needs no generator's state.
        torch.manual_seed(self._seed_of(batch_idx))
        before = self._norm_buffers() if self.skip_bad_batches else []
        data = self.config.data.normalize
        images = normalize(batch.images, batch.frames, data.mean, data.std)
        predictions = self.model(images.contiguous(memory_format=torch.channels_last))
        losses = self.compute_losses(predictions, batch.targets)
        total = torch.stack(list(losses.values())).sum()
        if any_device(self.trainer, not bool(torch.isfinite(total))):  # or the others would wait for ever
            self._leave_out(batch, losses, before)
            # Alone, a step without a loss changes nothing. Among several devices all must come to the same
            # gradients: zero, for every parameter.
            if self.trainer.world_size == 1:
                return None
            return torch.stack([p.sum() * 0 for p in self.model.parameters() if p.requires_grad]).sum()
        self.losses = {"loss": float(total.detach()), **{name: float(value.detach()) for name, value in losses.items()}}
        return total

    def _seed_of(self, batch_idx: int) -> int:
        words = (self.config.train.seed, self.current_epoch, batch_idx, self.global_rank)
        return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)

    def _norm_buffers(self) -> list[tuple[Tensor, Tensor]]:
        """Statistics that a forward pass changes, with copies of what they were."""
        return [(buffer, buffer.clone()) for buffer in self.model.buffers()]

    def _leave_out(self, batch: Batch, losses: Mapping[str, Tensor], buffers: list[tuple[Tensor, Tensor]]) -> None:
        values = ", ".join(f"{name} {value.item():g}" for name, value in losses.items())
        what = f"the loss is no longer a number at step {self.global_step} ({values})"
        names = ", ".join(batch.names)
        if not self.skip_bad_batches:
            raise TrainingError(
                f"{what}; the pictures of the batch: {names}. Lower base_lr or set clip_grad_by_norm, or leave such "
                "batches out with --skip-bad-batches; the last checkpoint is kept"
            )
        for buffer, before in buffers:  # a picture that is no number must not stay in the statistics
            buffer.copy_(before)
        self.skipped += 1
        logger.warning("%s; left out, the %d. such batch: %s", what, self.skipped, names)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Moves the pictures; targets stay on the CPU, where cells are assigned."""
        images = batch.images.to(device, non_blocking=True)
        return Batch(images, batch.frames, batch.image_ids, batch.names, batch.targets)

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        """Takes the step, and its weights into the average.

        Both belong together: callbacks that write a checkpoint run before this module's own
        end-of-batch hook would.
        """
        super().optimizer_step(*arguments, **named)
        if self.ema:
            self.ema.update(self.model)

    def on_train_epoch_start(self) -> None:
        """Moves the average to the model's device, once it is known."""
        if self.ema:
            self.ema.model.to(self.device)

    def configure_optimizers(self) -> Any:
        """The recipe's optimizer, its learning rate set at every step."""
        optimizer = build_optimizer(self.config, self.model, self.lr_scale)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what makes a checkpoint a weights file, and where in the epoch it was taken."""
        checkpoint[METADATA_KEY] = dict(self.metadata)
        checkpoint["progress"] = {"epoch": self.current_epoch, "batches": self.batches_done}
        checkpoint["skipped"] = self.skipped
        if self.ema:
            checkpoint["ema"] = self.ema.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continues the average, or begins it with the checkpoint's weights."""
        self.skipped = checkpoint.get("skipped", 0)
        if self.ema and "ema" in checkpoint:
            self.ema.load_state_dict(checkpoint["ema"])
        elif self.ema:
            state = {name.removeprefix("model."): value for name, value in checkpoint["state_dict"].items()}
            self.ema.model.load_state_dict(state)


def any_device(trainer: lightning.Trainer, wanted: bool) -> bool:
    """Whether one of the devices wants something: what they do together they have to decide together."""
    if trainer.world_size == 1:
        return wanted
    return bool(trainer.strategy.reduce_boolean_decision(wanted, all=False))
