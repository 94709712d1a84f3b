"""Compiling: PyTorch's compiler makes one program of a network, where it can."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from solov2.model.solov2 import SOLOv2
from solov2.structures import Predictions

logger = logging.getLogger(__name__)


class CompiledNetwork:
    """A network that is compiled when it first runs, and again for sizes that the program does not cover.

    It needs a C++ compiler, on GPUs Triton. Where the compiler fails the network runs as it is, after a warning.

    Args:
        network: in evaluation mode.
    """

    def __init__(self, network: SOLOv2) -> None:
        self._network = network
        self._run = torch.compile(network)

    def __call__(self, images: Tensor) -> Predictions:
        """As the network itself."""
        try:
            predictions: Predictions = self._run(images)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            logger.warning("torch.compile does not work here (%s); going on without it", reason)
            self._run = self._network
            predictions = self._network(images)
        return predictions
