"""Sixteen bits in OpenVINO files: weights are stored so, and become float32 when the file is read."""

from __future__ import annotations

from typing import Any

import numpy as np

LARGEST = float(np.finfo(np.float16).max)

WEIGHT_DIMENSIONS = 4
"""Weights of convolutions have at least as many; biases, slopes and positions have fewer and are small."""


def halve_weights(model: Any) -> int:
    """Turns the weights of convolutions into float16, where they lie.

    OpenVINO's own compression on saving leaves them alone: how many cells are looked at is a size, it comes from the
    scores and so from every weight, and what sizes are computed from OpenVINO keeps in float32.

    Args:
        model: of OpenVINO.

    Returns:
        How many were changed; one with a value that float16 has no room for is not.
    """
    from openvino import Type, opset13

    changed = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Constant" or node.get_element_type() != Type.f32:
            continue
        values = node.data
        if values.ndim < WEIGHT_DIMENSIONS or np.abs(values).max(initial=0) > LARGEST:
            continue
        read = opset13.convert(opset13.constant(values.astype(np.float16)), "f32")
        read.set_friendly_name(f"{node.get_friendly_name()}/read")
        for taker in node.output(0).get_target_inputs():
            taker.replace_source_output(read.output(0))
        changed += 1
    return changed
