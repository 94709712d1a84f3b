"""A model in an exported file: batches in, instances out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from solov2.errors import ImageError, WeightsError
from solov2.paste import paste_instances
from solov2.runtime.choosing import FASTEST, choose, open_session
from solov2.runtime.interface import EXPORT_KEY, METADATA_KEY, PICTURE, SUFFIXES, Runtime, Session
from solov2.structures import HW, Batch, Frame, Instances


@dataclass(frozen=True)
class ExportedModel:
    """An exported file, ready to run.

    Attributes:
        path: of the file.
        runtime: what runs it.
        session: the same, as a function of arrays.
        metadata: what the file says of its model, as a weights file does.
        fixed_hw: the only input size it takes; None: any multiples of 32.
        at_picture_size: whether it gives masks at the pictures' sizes too, which are taken then.
    """

    path: Path
    runtime: Runtime
    session: Session
    metadata: Mapping[str, Any]
    fixed_hw: HW | None = None
    at_picture_size: bool = False

    def run(self, batch: Batch, mask_threshold: float, least_score: float = 0.0) -> list[Instances]:
        """Runs a batch.

        Args:
            batch: pictures, at most as large as the size that the file may be fixed to.
            mask_threshold: mask probabilities must exceed it, 0..1.
            least_score: raw; what scores less is left out before its mask is resized. 0: everything the file keeps.

        Raises:
            ImageError: if the pictures are larger than the file takes.
        """
        batch = self.padded(batch)
        counts, scores, labels, probs, *masks = self.session(*self.inputs(batch))
        counts = np.minimum(counts, (scores >= least_score).sum(axis=1))  # rows are sorted, best first
        if masks:
            rows = zip(counts.tolist(), labels, scores, masks[0], batch.frames, strict=True)
            return [
                _cut(found[:count], label[:count], score[:count], frame) for count, label, score, found, frame in rows
            ]
        return [
            paste_instances(
                torch.from_numpy(probs[image, :count]),
                labels[image, :count].astype(np.int64),
                scores[image, :count].astype(np.float32),
                frame,
                mask_threshold,
            )
            for image, (count, frame) in enumerate(zip(counts.tolist(), batch.frames, strict=True))
        ]

    def inputs(self, batch: Batch) -> tuple[npt.NDArray[Any], ...]:
        """A padded batch as the file takes it: arrays in the order of its inputs."""
        images = np.ascontiguousarray(batch.images.permute(0, 2, 3, 1).numpy())  # (B, 3, H, W) -> (B, H, W, 3)
        sizes = np.array([frame.resized_hw for frame in batch.frames], np.int64)
        if not self.at_picture_size:
            return images, sizes
        return images, sizes, np.array([frame.original_hw for frame in batch.frames], np.int64)

    def padded(self, batch: Batch) -> Batch:
        """The batch at the only size the file takes, if there is only one."""
        given = (batch.images.shape[2], batch.images.shape[3])
        if self.fixed_hw is None or given == self.fixed_hw:
            return batch
        if given[0] > self.fixed_hw[0] or given[1] > self.fixed_hw[1]:
            raise ImageError(
                f"the picture comes to {given[0]}x{given[1]} after resizing and padding, and {self.path} takes "
                f"{self.fixed_hw[0]}x{self.fixed_hw[1]}: export it with a larger --size, or with --size dynamic"
            )
        images = torch.zeros((len(batch), 3, *self.fixed_hw), dtype=torch.uint8)
        images[:, :, : given[0], : given[1]] = batch.images
        frames = tuple(replace(frame, padded_hw=self.fixed_hw) for frame in batch.frames)
        return replace(batch, images=images, frames=frames)


def _cut(
    masks: npt.NDArray[np.bool_], labels: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], frame: Frame
) -> Instances:
    """Instances of masks at the size of the batch's largest picture."""
    height, width = frame.original_hw
    found = Instances.from_masks(masks[:, :height, :width], labels, scores)
    return replace(found, crops=tuple(crop.copy() for crop in found.crops))  # lets go of whole pictures


def is_exported(path: str | Path) -> bool:
    """Whether a name is one of an exported file."""
    return str(path).endswith(SUFFIXES)


def open_exported(path: Path, device: str = "auto", runtime: str = "auto") -> ExportedModel:
    """Opens an exported file.

    Args:
        path: ending in ``.onnx`` or ``.xml``.
        device: "cpu", "cuda" (ONNX Runtime), or "auto".
        runtime: "onnxruntime", "openvino", or "auto": OpenVINO for ``.xml``; for ``.onnx`` ONNX Runtime where it
            is installed, else OpenVINO. "fastest": of those that are installed, whatever takes least time now.

    Raises:
        WeightsError: if there is no such file, it cannot be read, or was not exported by this package.
        ConfigError: if the run time cannot run this kind of file, or has no such device.
        MissingDependencyError: if the run time is not installed.
    """
    if runtime != FASTEST:
        choose(path, runtime)  # names what does not go together before the file is looked at
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; expected a model that solov2 export has written")
    chosen, session = open_session(path, device, runtime)
    try:
        metadata = json.loads(session.metadata[METADATA_KEY])
        about = json.loads(session.metadata[EXPORT_KEY])
        size = about["size"]
        fixed_hw = None if size is None else (int(size[0]), int(size[1]))
    except (KeyError, TypeError, ValueError, IndexError):
        raise WeightsError(
            f"{path}: was not exported by this package, or its texts were lost on the way; write it with solov2 export"
        ) from None
    return ExportedModel(path, chosen, session, metadata, fixed_hw, about.get("masks") == PICTURE)
