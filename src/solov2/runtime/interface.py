"""What an exported file looks like from outside: the names of its inputs, outputs and texts.

Whoever runs such a file without this package reads docs/export.md; the two say the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

Runtime = Literal["torch", "onnxruntime", "openvino"]

INPUTS = ("images", "sizes")
"""(B, H, W, 3) uint8 RGB, H and W multiples of 32; (B, 2) int64, height and width of each picture in it."""

OUTPUTS = ("count", "scores", "labels", "masks")
"""(B,) int64; (B, N) float32; (B, N) int64; (B, N, H/4, W/4) float32, mask probabilities."""

ORIGINALS = "originals"
"""A third input of files with masks at the picture's size: (B, 2) int64, height and width of each picture itself."""

PICTURE_MASKS = "picture_masks"
"""Their fifth output: (B, F, height, width) bool of the largest picture, F the instances of that with most of them."""

PICTURE = "picture"
"""What such files say under the key "masks"."""

METADATA_KEY = "solov2"
"""Of the JSON text that says everything a weights file of this package says about its model."""

EXPORT_KEY = "solov2_export"
"""Of the JSON text about the file itself: precision, size."""

ONNX_SUFFIX = ".onnx"
OPENVINO_SUFFIX = ".xml"
SUFFIXES = (ONNX_SUFFIX, OPENVINO_SUFFIX)


class Session(Protocol):
    """A file made ready to run.

    Attributes:
        metadata: its texts by key.
    """

    metadata: Mapping[str, str]

    def __call__(
        self,
        images: npt.NDArray[np.uint8],
        sizes: npt.NDArray[np.int64],
        originals: npt.NDArray[np.int64] | None = None,
        /,
    ) -> Sequence[npt.NDArray[Any]]:
        """Runs a batch: arrays in the order of :data:`OUTPUTS`; given originals, also :data:`PICTURE_MASKS`."""
        ...


def by_name(*inputs: npt.NDArray[Any] | None) -> tuple[dict[str, npt.NDArray[Any]], tuple[str, ...]]:
    """Inputs by name, and the names of the outputs that they give.

    Args:
        inputs: those of :class:`Session`, in its order; None ones are left out.
    """
    given = {name: value for name, value in zip((*INPUTS, ORIGINALS), inputs, strict=False) if value is not None}
    return given, (*OUTPUTS, PICTURE_MASKS) if ORIGINALS in given else OUTPUTS
