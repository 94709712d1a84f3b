"""SOLOv2, the network: a batch of pictures becomes category logits, kernels and mask features.

Wang et al., "SOLOv2: Dynamic and Fast Instance Segmentation" (NeurIPS 2020), figure 2. The file to
read first: targets, losses and decoding live beside the network, not in it.
"""

from __future__ import annotations

from torch import Tensor, nn

from solov2.errors import ImageError
from solov2.model.ellipse import ellipses_of, position_terms, with_coefficients
from solov2.model.fpn import FPN
from solov2.model.ghost_pan import GhostPAN
from solov2.model.grid_head import GridHead
from solov2.model.mask_branch import MaskBranch
from solov2.model.separable_head import SeparableHead
from solov2.structures import Predictions

SIZE_DIVISOR = 32
"""Sides of the input must be multiples of this, the stride of c5."""


class SOLOv2(nn.Module):
    """The whole network, put together from its parts.

    Args:
        backbone: maps (B, 3, H, W) to c2..c5.
        fpn: maps c2..c5 to p2 and up.
        mask_branch: maps the first pyramid levels to mask features.
        grid_head: maps the pyramid levels to category logits and kernels.
        relative: kernels end with an ellipse relative to their cells (:mod:`solov2.model.ellipse`).
    """

    def __init__(
        self,
        backbone: nn.Module,
        fpn: FPN | GhostPAN,
        mask_branch: MaskBranch,
        grid_head: GridHead | SeparableHead,
        *,
        relative: bool = False,
    ) -> None:
        super().__init__()
        self.relative = relative
        self.backbone = backbone
        self.fpn = fpn
        self.mask_branch = mask_branch
        self.grid_head = grid_head

    def forward(self, images: Tensor) -> Predictions:
        """The same in training and evaluation.

        Args:
            images: (B, 3, H, W), RGB, normalised, H and W multiples of 32.

        Returns:
            ``category_logits`` (per level (B, C, S, S)), ``kernels`` (per level (B, E, S, S)) and
            ``mask_features`` (B, E, H/4, W/4).

        Raises:
            ImageError: if a side is not a multiple of 32.
        """
        _check_size(images)
        features = self.backbone(images)  # c2..c5
        pyramid = self.fpn(*features)  # p2..p6
        mask_features = self.mask_branch(*pyramid[: len(self.mask_branch.levels)])
        category_logits, kernels = self.grid_head(*pyramid)
        ellipses: tuple[Tensor, ...] = ()
        if self.relative:
            mask_features = position_terms(mask_features)
            ellipses = tuple(ellipses_of(x, s) for x, s in zip(kernels, self.grid_head.strides, strict=True))
            kernels = tuple(with_coefficients(x, e) for x, e in zip(kernels, ellipses, strict=True))
        return Predictions(
            category_logits, kernels, mask_features, self.grid_head.strides, self.grid_head.native, ellipses
        )


def _check_size(images: Tensor) -> None:
    height, width = images.shape[-2:]
    if height % SIZE_DIVISOR or width % SIZE_DIVISOR:
        padded = tuple(-(-side // SIZE_DIVISOR) * SIZE_DIVISOR for side in (height, width))
        raise ImageError(
            f"the input is {height}x{width}; sides must be multiples of {SIZE_DIVISOR}: "
            f"pad it with zeros at the right and the bottom to {padded[0]}x{padded[1]}"
        )
