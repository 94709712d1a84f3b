"""Losses: predictions and targets become two numbers to minimise (SOLOv2 paper, section 3.3).

Letters: B images, C categories, S cells per side, E mask-feature channels, P (cell, instance)
pairs, h, w mask grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from solov2.structures import BACKGROUND, MASK_STRIDE, LevelAssignment, Predictions, Targets

DICE_EPS = 0.001
"""Added to either sum of the denominator, so that two empty masks give loss 1 and no division by 0."""

CHUNK_ELEMENTS = 2**22
"""Mask pixels handled at a time; bounds the memory of the mask loss whatever the instance count."""


class SOLOv2Loss:
    """Focal loss over all cells plus dice loss over the cells that hold an instance.

    Args:
        assign: gives one assignment per level for one picture's targets.
        mask_weight: weight of the mask loss; the category loss has weight 1.
        focal_gamma: focusing exponent.
        focal_alpha: weight of positives, 1 - alpha of negatives.
        chunk_elements: mask pixels handled at a time.
        top_cells: cells per instance that train its mask besides the assigned ones: those of any level
            that score best for its category inside its box. They are the cells that prediction will ask.
    """

    def __init__(
        self,
        assign: Callable[[Targets], Sequence[LevelAssignment]],
        *,
        mask_weight: float = 3.0,
        focal_gamma: float = 2.0,
        focal_alpha: float = 0.25,
        chunk_elements: int = CHUNK_ELEMENTS,
        top_cells: int = 0,
    ) -> None:
        self.top_cells = top_cells
        self.assign = assign
        self.mask_weight = mask_weight
        self.focal_gamma = focal_gamma
        self.focal_alpha = focal_alpha
        self.chunk_elements = chunk_elements

    def __call__(self, predictions: Predictions, targets: Sequence[Targets]) -> dict[str, Tensor]:
        """The loss terms of a batch, both weighted, to be added up.

        Each is normalised by this batch's own counts, as the published recipes do; without any
        positive the mask loss is 0 and every parameter still gets a gradient.

        Args:
            predictions: of B pictures.
            targets: of the same B pictures.

        Returns:
            ``loss_category`` and ``loss_mask``, float32 scalars.
        """
        assignments = [self.assign(target) for target in targets]
        loss_category = self._category_loss(predictions, targets, assignments)

        dice, counts = [], []
        # Unbound once: the gradient of taking one image out of a batch is a batch of zeros for each image.
        every = torch.cat([level.flatten(2) for level in predictions.kernels], dim=2).mT.unbind(0)  # B of (cells, E)
        sizes = [math.prod(level.shape[-2:]) for level in predictions.kernels]
        per_image = zip(targets, assignments, every, predictions.mask_features.unbind(0), strict=True)
        for image, (target, levels, of_cells, features) in enumerate(per_image):
            masks = target.masks.to(features.device)
            kernels, instances = _pair_kernels(torch.split(of_cells, sizes), levels)
            if self.top_cells and len(target):
                cells, owners = _top_cells(predictions, image, target, self.top_cells)
                more = of_cells[cells]
                kernels, instances = torch.cat([kernels, more]), torch.cat([instances, owners])
            valid = (masks.flatten(1) != 0).any(dim=1)[instances]  # a mask that vanished at stride 4 trains nothing
            kernels, instances = kernels[valid], instances[valid]
            counts.append(len(instances))
            dice.append(dice_loss(kernels, features, masks, instances, self.chunk_elements))
        loss_mask = self.mask_weight * torch.stack(dice).sum() / max(sum(counts), 1)
        return {"loss_category": loss_category, "loss_mask": loss_mask}

    def _category_loss(
        self, predictions: Predictions, targets: Sequence[Targets], assignments: Sequence[Sequence[LevelAssignment]]
    ) -> Tensor:
        device = predictions.mask_features.device
        logits = torch.cat([level.flatten(2) for level in predictions.category_logits], dim=2).mT  # (B, cells, C)
        labels = torch.stack([torch.cat([level.labels for level in levels]) for levels in assignments])
        positives = int((labels >= 0).sum())
        known = _known_categories(targets, logits.shape[-1])
        if known is not None:
            known = known[:, None].to(device)  # (B, 1, C)
        total = focal_loss(logits, labels.to(device), self.focal_gamma, self.focal_alpha, known)
        return total / (positives + 1)


def _known_categories(targets: Sequence[Targets], count: int) -> Tensor | None:
    """The categories each picture was annotated for (B, C) bool; None where all were for all."""
    if all(target.known is None for target in targets):
        return None
    every = torch.ones(count, dtype=torch.bool)
    return torch.stack([every if target.known is None else target.known for target in targets])


def _pair_kernels(kernels: Sequence[Tensor], levels: Sequence[LevelAssignment]) -> tuple[Tensor, Tensor]:
    """Kernels (P, E) and instance rows (P,) of all pairs of one image, level after level, of its levels' (cells, E)."""
    device = kernels[0].device
    pairs = [level_kernels[level.cells.to(device)] for level_kernels, level in zip(kernels, levels, strict=True)]
    return torch.cat(pairs), torch.cat([level.instances for level in levels]).to(device)


@torch.no_grad()
def _top_cells(predictions: Predictions, image: int, target: Targets, count: int) -> tuple[Tensor, Tensor]:
    """Cells (P,), counted through all levels, that score best for each instance inside its box, and those rows (P,)."""
    device = predictions.mask_features.device
    frame = [side * MASK_STRIDE for side in target.masks.shape[-2:]]
    logits = torch.cat([level[image].flatten(1) for level in predictions.category_logits], dim=1)  # (C, cells)
    centers = torch.cat(
        [
            _cell_centers(tuple(level.shape[-2:]), stride if predictions.native else None, frame, device)
            for level, stride in zip(predictions.category_logits, predictions.strides, strict=True)
        ]
    )
    boxes = target.boxes.to(device, torch.float32)
    inside = ((centers >= boxes[:, None, :2]) & (centers < boxes[:, None, 2:])).all(dim=2)  # (N, cells)
    scores = logits[target.labels.to(device)].float().masked_fill(~inside, -torch.inf)
    best, cells = scores.topk(min(count, scores.shape[1]), dim=1)
    instances = torch.arange(len(target), device=device)[:, None].expand_as(cells)
    found = best.isfinite()
    return cells[found], instances[found]


def _cell_centers(grid: tuple[int, ...], stride: int | None, frame: Sequence[int], device: torch.device) -> Tensor:
    """(cells, 2) x, y in pixels."""
    axes = []
    for cells, extent in zip(grid, frame, strict=True):
        # A native grid's cells have its stride, those of a resampled one an equal share of the input.
        size = extent / cells if stride is None else stride
        axes.append((torch.arange(cells, device=device) + 0.5) * size)
    y, x = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def focal_loss(
    logits: Tensor, labels: Tensor, gamma: float = 2.0, alpha: float = 0.25, known: Tensor | None = None
) -> Tensor:
    """Sigmoid focal loss, summed (Lin et al., "Focal Loss for Dense Object Detection").

    Args:
        logits: (..., C).
        labels: (...,) int64, -1 being background, where every category is negative.
        gamma: focusing exponent.
        alpha: weight of positives, 1 - alpha of negatives.
        known: (..., C) bool, or what broadcasts to it: categories that are not known add nothing where there is
            background. Elsewhere all count, as an object is of one category. None: all are known.

    Returns:
        A float32 scalar.
    """
    logits = logits.float()
    positive = F.one_hot(labels + 1, logits.shape[-1] + 1)[..., 1:].bool()
    # With z the logit of the true answer: -log p = softplus(-z), 1 - p = sigmoid(-z).
    wrong = torch.where(positive, -logits, logits)
    weight = torch.where(positive, alpha, 1 - alpha)
    if known is not None:
        weight = weight * (known | (labels != BACKGROUND)[..., None])
    return (weight * torch.sigmoid(wrong) ** gamma * F.softplus(wrong)).sum()


def dice_loss(
    kernels: Tensor, mask_features: Tensor, masks: Tensor, instances: Tensor, chunk_elements: int = CHUNK_ELEMENTS
) -> Tensor:
    """Dice loss of the masks that kernels produce, summed over pairs (V-Net; SOLO paper, equation 4).

    Masks are made, compared and thrown away chunk by chunk, and made again in backward: the memory
    is that of one chunk, not of P masks. Sigmoid and sums are float32 under any autocast, as sums
    over masks overflow half precision.

    Args:
        kernels: (P, E).
        mask_features: (E, h, w) of the same image.
        masks: (N, h, w) of 0 and 1.
        instances: (P,) int64, the mask each kernel should produce.
        chunk_elements: mask pixels handled at a time.

    Returns:
        A float32 scalar, in 0..P; 0, with gradients of 0, when there is no pair.
    """
    features = mask_features.flatten(1)  # (E, h * w)
    flat_masks = masks.flatten(1)
    if len(kernels) == 0:
        return 0.0 * (features.float().sum() + kernels.float().sum())
    rows = max(chunk_elements // features.shape[1], 1)
    total = torch.zeros((), device=features.device)
    for start in range(0, len(kernels), rows):
        chunk = slice(start, start + rows)
        total = total + checkpoint(
            _dice_of_chunk,
            kernels[chunk],
            features,
            flat_masks,
            instances[chunk],
            use_reentrant=False,
            preserve_rng_state=False,  # nothing random inside
        )
    return total


def _dice_of_chunk(kernels: Tensor, features: Tensor, masks: Tensor, instances: Tensor) -> Tensor:
    # Features in float32 hold squares of positions: their product must not be rounded by autocast.
    with torch.autocast(features.device.type, enabled=False):
        logits = kernels.to(features.dtype) @ features  # (rows, h * w)
    return dice_terms(logits, masks[instances]).sum()


def dice_terms(mask_logits: Tensor, masks: Tensor) -> Tensor:
    """Dice loss of each mask.

    Args:
        mask_logits: (P, pixels).
        masks: (P, pixels) of 0 and 1.

    Returns:
        (P,) float32, in 0..1.
    """
    probs = mask_logits.float().sigmoid()
    targets = masks.float()
    overlap = (probs * targets).sum(dim=1)
    total = (probs * probs).sum(dim=1) + DICE_EPS + (targets * targets).sum(dim=1) + DICE_EPS
    return 1 - 2 * overlap / total
