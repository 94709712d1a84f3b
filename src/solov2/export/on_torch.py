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

    def __call__(
        self,
        images: npt.NDArray[np.uint8],
        sizes: npt.NDArray[np.int64],
        originals: npt.NDArray[np.int64] | None = None,
    ) -> Sequence[npt.NDArray[Any]]:
        """Runs a batch."""
        arrays = (images, sizes) if originals is None else (images, sizes, originals)
        with torch.inference_mode():
            found = self._module(*(torch.from_numpy(array) for array in arrays))
        return [tensor.numpy() for tensor in found]
