"""The graph that is exported: uint8 pictures in, rows of instances out, tensors only.

It holds what is around the network too: normalising, and decoding (:mod:`solov2.decoding`, whose parts it
calls). Where decoding in Python looks at one picture after the other and stops a search when nothing better
can come, a graph takes the whole batch, and every cell above the score threshold: the candidates are the same. Only
where so many masks would take too much memory it takes the cells of best category score.

Letters: B images, H, W input, h, w mask grid, C categories, E mask-feature channels, P cells looked at, K candidates,
N rows of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from solov2.build import DecodeOptions
from solov2.decoding import all_scores, decay_factors, iou_of_intersections, mask_maps, masks_and_maskness
from solov2.model.ellipse import add_ellipses
from solov2.model.solov2 import SOLOv2
from solov2.structures import Predictions

ROOM = 2**27
"""Mask pixels of a picture that are made at once while looking for candidates, where these need not be more."""


class Rows(NamedTuple):
    """What the graph returns: per picture so many instances, best first; rows beyond them are zeros.

    Attributes:
        counts: (B,) int64.
        scores: (B, N) float32, 0..1.
        labels: (B, N) int64.
        masks: (B, N, h, w) float32, mask probabilities on the mask grid, 0..1.
    """

    counts: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor


class ExportGraph(nn.Module):
    """Normalising, network and decoding.

    Args:
        network: in evaluation mode; float16 where ``half`` is set.
        mean: per channel, of values in 0..1.
        std: per channel, of values in 0..1.
        options: of decoding.
        half: the network computes in float16; everything around it in float32.
        static: look at as many cells as there may be candidates, however few are worth it: no shape then depends on
            the picture. Costs time, and where many masks turn out empty, the last candidates.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: SOLOv2,
        mean: Sequence[float],
        std: Sequence[float],
        options: DecodeOptions,
        *,
        half: bool = False,
        static: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean)[:, None, None] * 255)
        self.register_buffer("std", torch.tensor(std)[:, None, None] * 255)
        self.options = options
        self.half_precision = half
        self.static = static

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """From bytes to rows.

        Args:
            images: (B, H, W, 3) uint8 RGB, H and W multiples of 32; each picture at the top left.
            sizes: (B, 2) int64, height and width of each picture; what is right of it or below is padding.

        Returns:
            The members of :class:`Rows`.
        """
        x = self._normalized(images, sizes)
        predictions = self.network(x.half() if self.half_precision else x)
        return tuple(decode_rows(predictions, sizes, self.options, static=self.static))

    def _normalized(self, images: Tensor, sizes: Tensor) -> Tensor:
        x = (images.permute(0, 3, 1, 2).float() - self.mean) / self.std  # (B, H, W, 3) -> (B, 3, H, W)
        height, width = x.shape[-2:]
        rows = torch.arange(height, device=x.device)[:, None] < sizes[:, 0, None, None, None]
        columns = torch.arange(width, device=x.device) < sizes[:, 1, None, None, None]
        return x * (rows & columns)  # padding becomes exactly 0, as in training


def decode_rows(predictions: Predictions, sizes: Tensor, options: DecodeOptions, *, static: bool) -> Rows:
    """:func:`solov2.decode` for a batch, without pasting.

    Args:
        predictions: of B pictures.
        sizes: (B, 2) int64, height and width of each picture.
        options: of decoding.
        static: as in :class:`ExportGraph`.
    """
    features, kernel_maps = mask_maps(predictions)
    features = features.float()
    levels = all_scores(predictions, sizes)
    scores = torch.cat([level.flatten(2).mT for level in levels], dim=1)  # (B, cells, C)
    kernels = torch.cat([x.flatten(2).mT for x in kernel_maps], dim=1).float()  # (B, cells, E)
    strides = zip(predictions.kernels, predictions.strides, strict=True)
    min_areas = torch.cat([torch.full_like(x[0, 0], stride, dtype=torch.float32).flatten() for x, stride in strides])
    scores = torch.where(scores > options["score_threshold"], scores, 0)

    kernels, products, masks = _look(features, scores, kernels, min_areas, options, static=static)
    kernels, labels, scores, masks = _best_pairs(kernels, products, masks, options, static=static)
    scores = scores * _decay(masks, labels, options)
    return _rows(features, kernels, labels, scores, options)


def _look(
    features: Tensor, scores: Tensor, kernels: Tensor, min_areas: Tensor, options: DecodeOptions, *, static: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Masks of the cells with the best category scores.

    Returns:
        Kernels (B, P, E), category score × maskness (B, P, C), masks (B, P, h, w) bool.
    """
    best = scores.amax(dim=2)
    limit, pixels = options["pre_nms_top_n"], features.shape[2] * features.shape[3]
    most = torch.full((), ROOM, device=best.device) // pixels
    best, cells = best.topk(_how_many(best, limit, most.clamp(min=limit), static=static), dim=1)
    kernels, scores = _take(kernels, cells), _take(scores, cells)
    masks, maskness = masks_and_maskness(_mask_probs(kernels, features), min_areas[cells], options["mask_threshold"])
    return kernels, scores * maskness[:, :, None], masks


def _best_pairs(
    kernels: Tensor, products: Tensor, masks: Tensor, options: DecodeOptions, *, static: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The candidates: (cell, category) pairs, best first; a cell's categories share its kernel and mask.

    Returns:
        Kernels (B, K, E), labels (B, K), scores (B, K), masks (B, K, h, w).
    """
    categories = products.shape[2]
    flat = products.flatten(1)
    limit = options["pre_nms_top_n"]
    scores, pairs = flat.topk(_how_many(flat, limit, torch.full((), limit, device=flat.device), static=static), dim=1)
    cells = pairs // categories
    return _take(kernels, cells), pairs % categories, scores, _take(masks, cells)


def _decay(masks: Tensor, labels: Tensor, options: DecodeOptions) -> Tensor:
    flat = masks.flatten(2).float()
    iou = iou_of_intersections(torch.bmm(flat, flat.mT))
    same = labels[:, :, None] == labels[:, None, :]
    return decay_factors(iou * same, options["decay"], options["sigma"])


def _rows(features: Tensor, kernels: Tensor, labels: Tensor, scores: Tensor, options: DecodeOptions) -> Rows:
    """The best N, and zeros where there are fewer."""
    rows = min(options["post_nms_top_n"], options["pre_nms_top_n"])
    last = scores.shape[1] - 1
    scores, order = F.pad(scores, (0, rows)).topk(rows, dim=1)
    order = order.clamp(max=last)  # a row of padding has score 0, and anyone's kernel
    good = scores >= options["update_threshold"]
    good &= scores > 0
    masks = _mask_probs(_take(kernels, order), features) * good[:, :, None, None]
    return Rows(good.sum(dim=1), scores * good, torch.gather(labels, 1, order) * good, masks)


def _how_many(scores: Tensor, limit: int, most: Tensor, *, static: bool) -> int:
    """Columns worth looking at, in the picture with most of them: those that are not zero, ``most`` at most."""
    if static:
        return min(limit, scores.shape[1])
    count: int = (scores > 0).sum(dim=1).amax(dim=0).minimum(most).clamp(min=1).item()  # type: ignore[assignment]
    for certain in (count >= 1, count <= scores.shape[1]):
        torch._check(certain)  # type: ignore[no-untyped-call]  # for the exporter, to which the count is an unknown number
    return count


def _mask_probs(kernels: Tensor, features: Tensor) -> Tensor:
    """:func:`solov2.decoding.mask_probs` for a batch: kernels (B, P, E or E + 5), features (B, E, h, w)."""
    channels, height, width = features.shape[1:]
    logits = torch.bmm(kernels[:, :, :channels], features.flatten(2))  # (B, P, h * w)
    logits = logits.reshape(*logits.shape[:2], height, width)
    if kernels.shape[2] > channels:
        logits = add_ellipses(logits, kernels[:, :, channels:])
    probs: Tensor = logits.sigmoid()
    return probs


def _take(values: Tensor, index: Tensor) -> Tensor:
    """Rows of each picture: (B, n, ...) and (B, m) to (B, m, ...)."""
    return values[torch.arange(values.shape[0], device=values.device)[:, None], index]
