"""Decoding: what the network says about a batch becomes instances, picture by picture.

SOLOv2 paper, sections 3.2 and 3.4: points-NMS, dynamic convolution, maskness, Matrix NMS, masks at
the picture's size. Nothing here needs the whole set of candidate masks in memory.

Letters: B images, C categories, E mask-feature channels, K candidates, h, w mask grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from solov2.model.ellipse import TERMS, add_ellipses
from solov2.model.layers import apply_kernels
from solov2.paste import paste_instances
from solov2.structures import Frame, Instances, Predictions

Decay = Literal["gaussian", "linear"]

CHUNK_ELEMENTS = 2**22
"""Mask pixels made at a time: few enough to stay near the processor until they have been looked at."""

ROUNDING = 1e-5
"""Share of a score, more than it can gain by rounding."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Scored (cell, category) pairs of one picture, best first.

    Attributes:
        scores: (K,) float32, category score × maskness.
        labels: (K,) int64.
        kernels: (K, E).
        masks: (K, h, w) bool, at the mask grid's resolution.
    """

    scores: Tensor
    labels: Tensor
    kernels: Tensor
    masks: Tensor


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is kept of one picture's candidates, best first; masks are still to be made.

    Attributes:
        scores: (N,) float32, after Matrix NMS.
        labels: (N,) int64.
        kernels: (N, E), or (N, E + 5) as :func:`mask_probs` takes them.
        mask_features: (E, h, w) float32.
        frame: of the picture.
    """

    scores: Tensor
    labels: Tensor
    kernels: Tensor
    mask_features: Tensor
    frame: Frame

    def instances(self, mask_threshold: float) -> Instances:
        """Makes the masks, some at a time, at the picture's size."""
        found = self.labels.cpu().numpy().astype(np.int64), self.scores.cpu().numpy().astype(np.float32)
        rows = max(CHUNK_ELEMENTS // self.mask_features[0].numel(), 1)
        probs = (
            mask
            for start in range(0, len(self.kernels), rows)
            for mask in mask_probs(self.kernels[start : start + rows], self.mask_features)
        )
        return paste_instances(probs, *found, self.frame, mask_threshold)


@torch.no_grad()
def decode(
    predictions: Predictions,
    frames: Sequence[Frame],
    *,
    score_threshold: float = 0.1,
    mask_threshold: float = 0.5,
    pre_nms_top_n: int = 500,
    post_nms_top_n: int = 100,
    update_threshold: float = 0.05,
    decay: Decay = "gaussian",
    sigma: float = 2.0,
) -> list[Instances]:
    """Turns predictions into instances at each picture's own size.

    Args:
        predictions: of B pictures.
        frames: where each picture lies in the network's input.
        score_threshold: category scores must exceed it, 0..1.
        mask_threshold: mask probabilities must exceed it, 0..1.
        pre_nms_top_n: candidates that enter Matrix NMS.
        post_nms_top_n: instances that leave it.
        update_threshold: least score after Matrix NMS, 0..1.
        decay: how Matrix NMS lowers scores.
        sigma: sharpness of the Gaussian decay.

    Returns:
        One value per picture, best score first; empty where nothing was found. A mask may be empty
        at the picture's size although it was not on the mask grid.
    """
    chosen = choose(
        predictions,
        frames,
        score_threshold=score_threshold,
        mask_threshold=mask_threshold,
        pre_nms_top_n=pre_nms_top_n,
        post_nms_top_n=post_nms_top_n,
        update_threshold=update_threshold,
        decay=decay,
        sigma=sigma,
    )
    return [one.instances(mask_threshold) for one in chosen]


@torch.no_grad()
def choose(
    predictions: Predictions,
    frames: Sequence[Frame],
    *,
    score_threshold: float,
    mask_threshold: float,
    pre_nms_top_n: int,
    post_nms_top_n: int,
    update_threshold: float,
    decay: Decay,
    sigma: float,
) -> list[Chosen]:
    """The first part of :func:`decode`, which has the same arguments: everything but masks at the picture's size."""
    # Neither maskness nor Matrix NMS raises a score, and what scores less lowers nothing that scores more: a category
    # score below what is kept in the end costs no mask.
    score_threshold = max(score_threshold, update_threshold * (1 - ROUNDING))
    results = []
    mask_features, kernel_maps = mask_maps(predictions)
    for image, frame in enumerate(frames):
        features = mask_features[image].float()
        # One picture at a time: vectorised over a batch, a sigmoid's last bit may differ.
        one = replace(predictions, category_logits=tuple(x[image : image + 1] for x in predictions.category_logits))
        scores = all_scores(one, torch.tensor([frame.resized_hw], device=features.device))
        kernels = [level[image].flatten(1).mT.float() for level in kernel_maps]  # (S * S, E or E + 5)
        candidates = find_candidates(
            torch.cat([level[0].flatten(1).mT for level in scores]),  # (cells, C), levels after each other
            torch.cat(kernels),
            features,
            torch.cat(
                [torch.full((len(k),), s, device=k.device) for k, s in zip(kernels, predictions.strides, strict=True)]
            ),
            score_threshold=score_threshold,
            mask_threshold=mask_threshold,
            top_n=pre_nms_top_n,
        )
        decayed = matrix_nms(candidates.masks, candidates.labels, candidates.scores, decay=decay, sigma=sigma)
        order = decayed.argsort(descending=True, stable=True)
        keep = order[decayed[order] >= update_threshold][:post_nms_top_n]
        results.append(Chosen(decayed[keep], candidates.labels[keep], candidates.kernels[keep], features, frame))
    return results


def all_scores(predictions: Predictions, sizes: Tensor) -> list[Tensor]:
    """The category scores of every level, (B, C, S, S), as :func:`category_scores`.

    A cell of a native grid that lies in the padding is asked nothing: nothing taught the network what to say
    there. Square grids are asked everywhere, as the published models are.

    Args:
        predictions: of B pictures.
        sizes: (B, 2), height and width of each picture in the network's input.
    """
    scores = [category_scores(level) for level in predictions.category_logits]
    if not predictions.native:
        return scores
    return [level * _in_picture(level, s, sizes) for level, s in zip(scores, predictions.strides, strict=True)]


def _in_picture(level: Tensor, stride: int, sizes: Tensor) -> Tensor:
    """Cells that begin in the picture: (B, 1, rows, columns) bool."""
    rows, columns = (torch.arange(side, device=sizes.device) * stride for side in level.shape[-2:])
    return (rows[:, None] < sizes[:, 0, None, None, None]) & (columns < sizes[:, 1, None, None, None])


def category_scores(category_logits: Tensor) -> Tensor:
    """Sigmoid, then points-NMS: (B, C, S, S) to the same shape, float32, 0..1."""
    return point_nms(category_logits.float().sigmoid())


def point_nms(scores: Tensor) -> Tensor:
    """Keeps a score where no neighbour above, left or above-left is higher; the others become 0.

    The window is asymmetric as in the published models; of equal neighbours all are kept.

    Args:
        scores: (B, C, S, S).

    Returns:
        The same shape.
    """
    peaks = F.max_pool2d(scores, 2, stride=1, padding=1)[:, :, :-1, :-1]
    return scores * (peaks == scores)


def find_candidates(
    scores: Tensor,
    kernels: Tensor,
    mask_features: Tensor,
    min_areas: Tensor,
    *,
    score_threshold: float,
    mask_threshold: float,
    top_n: int,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> Candidates:
    """The best (cell, category) pairs by category score × maskness, without making every mask.

    Cells are visited by descending category score. Maskness is at most 1, so no cell still to come
    can beat its category score: once the ``top_n``-th best product exceeds it, the search ends with
    exactly the pairs that a full search gives. All categories of a cell share one mask.

    Args:
        scores: (cells, C) after points-NMS, 0..1.
        kernels: (cells, E).
        mask_features: (E, h, w).
        min_areas: (cells,), a mask must have more pixels than this on the mask grid.
        score_threshold: category scores must exceed it.
        mask_threshold: mask probabilities must exceed it.
        top_n: pairs wanted.
        chunk_elements: mask pixels made at a time.

    Returns:
        At most ``top_n`` candidates; equal scores in row-major (cell, category) order.
    """
    device, (height, width) = scores.device, mask_features.shape[-2:]
    kept_scores = torch.where(scores > score_threshold, scores, 0)
    best, order = kept_scores.max(dim=1).values.sort(descending=True, stable=True)
    order = order[best > 0]
    maskness = torch.zeros(len(scores), device=device)
    wanted: list[tuple[Tensor, Tensor]] = []  # cells and their masks, pruned as better ones appear
    rows = max(chunk_elements // (height * width), 1)
    for start in range(0, len(order), rows):
        if start and _enough(kept_scores, maskness, top_n, best[start]):
            break
        cells = order[start : start + rows]
        probs = mask_probs(kernels[cells], mask_features)
        masks, maskness[cells] = masks_and_maskness(probs, min_areas[cells], mask_threshold)
        wanted.append((cells, masks))
        wanted = _prune(wanted, kept_scores, maskness, top_n)

    pairs = _best_pairs(kept_scores, maskness, top_n)
    cells, labels = pairs // scores.shape[1], pairs % scores.shape[1]
    position = torch.full((len(scores),), -1, device=device)
    seen = torch.cat([cells for cells, _ in wanted]) if wanted else order[:0]
    position[seen] = torch.arange(len(seen), device=device)
    all_masks = (
        torch.cat([masks for _, masks in wanted]) if wanted else torch.zeros((0, height, width), device=device).bool()
    )
    return Candidates(
        scores=(kept_scores * maskness[:, None]).flatten()[pairs],
        labels=labels,
        kernels=kernels[cells],
        masks=all_masks[position[cells]],
    )


def mask_maps(predictions: Predictions) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Features (B, E, h, w) and kernel maps for :func:`mask_probs`: with ellipses themselves where there are any."""
    if not predictions.ellipses:
        return predictions.mask_features, predictions.kernels
    pairs = zip(predictions.kernels, predictions.ellipses, strict=True)
    return predictions.mask_features[:, :-TERMS], tuple(torch.cat([k[:, :-TERMS], e], dim=1) for k, e in pairs)


def mask_probs(kernels: Tensor, mask_features: Tensor) -> Tensor:
    """The dynamic convolution, and ellipses where kernels are longer than features have channels.

    Args:
        kernels: (P, E), or (P, E + 5) with :func:`solov2.model.ellipse.ellipses_of` at the end.
        mask_features: (E, h, w) of one image.

    Returns:
        (P, h, w), 0..1.
    """
    channels = len(mask_features)
    logits = apply_kernels(kernels[:, :channels], mask_features)
    return (logits if kernels.shape[1] == channels else add_ellipses(logits, kernels[:, channels:])).sigmoid()


def masks_and_maskness(probs: Tensor, min_areas: Tensor, mask_threshold: float) -> tuple[Tensor, Tensor]:
    """The pixels that belong to each mask, and how sure the network is of them (SOLOv2 paper, section 3.4).

    Args:
        probs: (..., P, h, w) mask probabilities.
        min_areas: (..., P), a mask must have more pixels than this.
        mask_threshold: mask probabilities must exceed it.

    Returns:
        Masks (..., P, h, w) bool; maskness (..., P), the mean probability inside, 0 for a mask that is too small.
    """
    masks = probs > mask_threshold
    areas = masks.flatten(-2).sum(dim=-1)
    mean_probs = (probs * masks).flatten(-2).sum(dim=-1) / areas.clamp(min=1)
    return masks, torch.where(areas > min_areas, mean_probs, 0)


def _best_pairs(scores: Tensor, maskness: Tensor, top_n: int) -> Tensor:
    """Flat (cell, category) indices of the ``top_n`` best positive products, best first."""
    products = (scores * maskness[:, None]).flatten()
    found = torch.nonzero(products > 0).flatten()
    return found[products[found].argsort(descending=True, stable=True)[:top_n]]


def _enough(scores: Tensor, maskness: Tensor, top_n: int, next_best: Tensor) -> bool:
    return int(((scores * maskness[:, None]) > next_best).sum()) >= top_n


def _prune(
    wanted: list[tuple[Tensor, Tensor]], scores: Tensor, maskness: Tensor, top_n: int
) -> list[tuple[Tensor, Tensor]]:
    """Forgets masks of cells that can no longer be among the ``top_n`` best pairs."""
    if sum(len(cells) for cells, _ in wanted) <= top_n:
        return wanted
    alive = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    alive[_best_pairs(scores, maskness, top_n) // scores.shape[1]] = True
    return [(cells[alive[cells]], masks[alive[cells]]) for cells, masks in wanted]


def matrix_nms(
    masks: Tensor, labels: Tensor, scores: Tensor, *, decay: Decay = "gaussian", sigma: float = 2.0
) -> Tensor:
    """Lowers the score of masks that overlap better ones of their label (SOLOv2 paper, section 3.4).

    Args:
        masks: (K, h, w) bool.
        labels: (K,) int64.
        scores: (K,) float32, descending.
        decay: "gaussian", exp(-sigma·iou²), or "linear", 1 - iou.
        sigma: sharpness of the Gaussian decay.

    Returns:
        (K,) decayed scores in the order given.
    """
    decayed = scores.clone()
    for label in torch.unique(labels):
        rows = torch.nonzero(labels == label).flatten()
        if len(rows) == 1:  # nothing lowers the only one
            continue
        decayed[rows] = scores[rows] * decay_factors(mask_iou(masks[rows]), decay, sigma)
    return decayed


def decay_factors(iou: Tensor, decay: Decay = "gaussian", sigma: float = 2.0) -> Tensor:
    """What Matrix NMS multiplies scores with.

    Args:
        iou: (..., K, K), of every two masks, best first; 0 between masks that are to leave each other alone.
        decay: as in :func:`matrix_nms`.
        sigma: as in :func:`matrix_nms`.

    Returns:
        (..., K), 0..1.
    """
    # iou[i, j] for i better than j, 0 elsewhere; how far mask i has itself been covered compensates
    # for what it takes away from mask j.
    iou = iou.triu(diagonal=1)
    compensation = iou.max(dim=-2).values[..., None]
    if decay == "gaussian":
        factors = torch.exp(-sigma * (iou**2 - compensation**2))
    else:
        # A mask equal to a better one (compensation 1) decides nothing: its twin already does.
        factors = (1 - iou) / (1 - compensation)
        factors = torch.where(compensation < 1, factors, torch.inf)
    better = torch.ones_like(iou).triu(diagonal=1).bool()
    # Rows that are not better leave the score alone: the minimum never exceeds 1.
    return torch.where(better, factors, 1.0).min(dim=-2).values.clamp(max=1.0)


def mask_iou(masks: Tensor, chunk_elements: int = CHUNK_ELEMENTS) -> Tensor:
    """Intersection over union of every two masks: (K, h, w) bool to (K, K) float32.

    Pixels are taken in chunks, as float32 copies of all masks at once would be the largest tensor
    of all; counts stay exact below 2**24 pixels.
    """
    flat = masks.flatten(1)
    step = max(chunk_elements // max(len(flat), 1), 1)
    inter = torch.zeros((len(flat), len(flat)), device=masks.device)
    for start in range(0, flat.shape[1], step):
        part = flat[:, start : start + step].float()
        inter += part @ part.T
    return iou_of_intersections(inter)


def iou_of_intersections(inter: Tensor) -> Tensor:
    """Pixels that every two masks share, (..., K, K), to their intersection over union; 0 for empty masks."""
    areas = inter.diagonal(dim1=-2, dim2=-1)
    return inter / (areas[..., :, None] + areas[..., None, :] - inter).clamp(min=1)
