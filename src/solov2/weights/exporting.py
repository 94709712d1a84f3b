"""Our tensors under another framework's names, for its own tools."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from solov2.errors import WeightsError
from solov2.weights.names import COUNTER, OWNERS, Framework, Layout, foreign_names
from solov2.weights.stem import STEM, to_bgr

COPIED = ("solov2_head.bbox_head.solo_", "mask_head.mask_feat_head.conv_pred.0.")
"""Starts of the names that PaddleDetection's files have a second time."""


def foreign_state(state: Mapping[str, Tensor], framework: Framework) -> dict[str, Tensor]:
    """A network's tensors under the names of a framework.

    Args:
        state: by our names.
        framework: whose names.

    Returns:
        What a file of theirs holds: for "detectron2" with a stem for BGR - mean, for
        "paddledetection" with the copies that belong there. Batch norms' counters are left out.

    Raises:
        WeightsError: if the framework has no place for a tensor, except for biases that are zero.
    """
    layout = Layout.of({name: tuple(tensor.shape) for name, tensor in state.items()})
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith(COUNTER):
            continue
        names = foreign_names(name, framework, layout)
        if not names:
            if name.endswith(".conv.bias") and not tensor.any():
                continue
            raise WeightsError(f"{name} has no counterpart among {OWNERS[framework]} names")
        found[names[0]] = to_bgr(tensor) if name == STEM and framework == "detectron2" else tensor
        if framework == "paddledetection" and names[0].startswith(COPIED):
            found |= dict.fromkeys(names[1:], tensor)
    return found
