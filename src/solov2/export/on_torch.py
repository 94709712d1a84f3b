"""Exported programs on PyTorch, for the comparison at export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch


class TorchSession:
    """A file that ``torch.export.save`` has written.

    Args:
        path: of the file.
    """

    metadata: Mapping[str, str]

    def __init__(self, path: Path) -> None:
        self.metadata = {}
        self._module = torch.export.load(path).module()

    def __call__(self, images: npt.NDArray[np.uint8], sizes: npt.NDArray[np.int64]) -> Sequence[npt.NDArray[Any]]:
        """Runs a batch."""
        with torch.inference_mode():
            found = self._module(torch.from_numpy(images), torch.from_numpy(sizes))
        return [tensor.numpy() for tensor in found]
