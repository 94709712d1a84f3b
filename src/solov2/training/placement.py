"""Where a run computes, and with which numbers."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from solov2.config import Config
from solov2.model.layers import SharedBatchNorm2d, share_batch_norm

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a run takes place.

    Attributes:
        device: kind of device, and which one if it names one.
        devices: how many, or which, in Lightning's words.
        num_nodes: machines.
        strategy: how they work together, in Lightning's words.
    """

    device: torch.device
    devices: str
    num_nodes: int
    strategy: str

    def arguments(self) -> dict[str, Any]:
        """Keywords of Lightning's trainer."""
        devices: Any = self.devices
        if self.device.index is not None and devices == "auto":
            devices = [self.device.index]
        return {
            "accelerator": self.device.type,
            "devices": devices,
            "num_nodes": self.num_nodes,
            "strategy": self.strategy,
        }


def share_statistics(model: nn.Module, device: torch.device, devices: int) -> None:
    """Lets the batch norms that are meant to share their statistics do so, or says that they cannot.

    Args:
        model: changed in place.
        device: kind of device.
        devices: processes that train together.
    """
    if devices == 1:
        return  # there is nobody to share with
    if device.type == "cuda":
        share_batch_norm(model)
    elif any(isinstance(module, SharedBatchNorm2d) for module in model.modules()):
        logger.warning(
            "norm_type: sync_bn needs CUDA devices; on %s every process keeps batch norm statistics of its own", device
        )


def precision(config: Config, device: torch.device) -> Any:
    """The number format, in Lightning's words."""
    if not config.train.amp:
        return "32-true"
    on_gpu = device.type == "cuda"
    has_bfloat16 = not on_gpu or torch.cuda.is_bf16_supported(including_emulation=False)
    wanted = config.train.amp_dtype
    # On a CPU float16 would silently run as bfloat16: say bfloat16 there.
    return "bf16-mixed" if wanted == "bfloat16" or (wanted == "auto" and has_bfloat16) or not on_gpu else "16-mixed"
