"""Samples become a batch: padded to a common size, masks rasterised; then normalised on the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from solov2.data.image import lay_out
from solov2.data.shapes import rasterize
from solov2.data.transforms import Sample
from solov2.structures import HW, Batch, Frame, Targets


def collate(samples: Sequence[Sample], *, with_targets: bool, pad_stride: int = 32) -> Batch:
    """Pads samples at the right and the bottom and stacks them.

    Args:
        samples: B pictures, after their transforms.
        with_targets: rasterise the instances.
        pad_stride: the padded sides are multiples of this many pixels.
    """
    padded_hw = (_up(max(s.hw[0] for s in samples), pad_stride), _up(max(s.hw[1] for s in samples), pad_stride))
    # Channels stay last in memory, as pictures have them and convolutions like them best: rows are copied whole.
    images = np.empty((len(samples), *padded_hw, 3), np.uint8)
    for image, sample in zip(images, samples, strict=True):
        height, width = sample.hw
        lay_out(sample.image, image[:height, :width])
        image[height:] = 0
        image[:height, width:] = 0
    return Batch(
        images=torch.from_numpy(images).permute(0, 3, 1, 2),
        frames=tuple(Frame(sample.original_hw, sample.hw, padded_hw) for sample in samples),
        image_ids=tuple(sample.image_id for sample in samples),
        names=tuple(sample.name for sample in samples),
        targets=tuple(make_targets(sample, padded_hw) for sample in samples) if with_targets else (),
    )


def make_targets(sample: Sample, padded_hw: HW) -> Targets:
    """Rasterises a sample's instances at stride 4 of the padded input."""
    masks, centers = rasterize(sample.shapes, sample.hw, padded_hw)
    return Targets(
        labels=torch.from_numpy(sample.labels),
        boxes=torch.from_numpy(sample.boxes),
        centers=torch.from_numpy(centers),
        masks=torch.from_numpy(masks),
        known=None if sample.known is None else torch.from_numpy(sample.known),
    )


def normalize(images: Tensor, frames: Sequence[Frame], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Turns uint8 pictures into the network's input; padding becomes exactly 0.

    Pictures are resized as uint8 and normalised afterwards, in training, evaluation and prediction
    alike. Configurations that list normalisation before resizing differ from this by the rounding of
    OpenCV's resize of bytes: less than a grey level, 0.018 in normalised units.

    Args:
        images: (B, 3, H, W) uint8 RGB on any device.
        frames: B frames.
        mean: per channel, of values in 0..1.
        std: per channel, of values in 0..1.

    Returns:
        (B, 3, H, W) float32.
    """
    scale = torch.tensor(std, device=images.device)[:, None, None] * 255
    shift = torch.tensor(mean, device=images.device)[:, None, None] * 255
    normalized = (images.float() - shift) / scale
    for image, frame in zip(normalized, frames, strict=True):
        height, width = frame.resized_hw
        image[:, height:] = 0
        image[:, :, width:] = 0
    return normalized


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
