"""The weights behind the frozen whole-model numbers, as the file PaddleDetection would have saved.

Every array is a function of its name there, its shape and a seed, but for the batch norm statistics and the two
prediction biases, which are stored beside the numbers.
"""

from __future__ import annotations

import json
import pickle
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.weights.foreign_files import listed

FOLDER = Path(__file__).parent
ALIASES = (  # one tensor under two names
    ("solov2_head.solo_", "solov2_head.bbox_head.solo_"),
    ("mask_head.conv_pred.", "mask_head.mask_feat_head.conv_pred.0."),
)


@dataclass(frozen=True)
class Case:
    """One frozen model.

    Attributes:
        recipe: that builds it.
        names: list of its tensors, in ``tests/weights/names``.
        rows: instances it finds.
        trained: parameters it trains.
        loss_tolerance: of losses.
        logits_tolerance: of the coarsest level's logits in training.
        gradient_tolerance: of gradients' norms.
        bias_tolerance: of the whole gradients of biases.
        step_tolerance: of parameters' norms after one step with a rate of 0.01.
        three_steps_tolerance: of the losses of the second and third step.
    """

    recipe: str
    names: str
    rows: int
    trained: int
    loss_tolerance: float
    logits_tolerance: float
    gradient_tolerance: float
    bias_tolerance: float
    step_tolerance: float
    three_steps_tolerance: float


# The enhance network's are wide: its sampling has corners, and sums are rounded in other places by one thread than
# by two. From one thread to four its losses are 1e-5 to 3.4e-5 off, its worst bias gradient 6 % to 21 %.
CASES = {
    "solov2_r50_fpn": Case(
        "solov2_r50_fpn_1x_coco", "paddledetection_r50", 37, 110, 2e-5, 2e-4, 5e-3, 0.02, 1e-5, 1e-3
    ),
    "solov2_r50_enhance": Case(
        "solov2_r50_enhance_coco", "paddledetection_r50_enhance", 35, 244, 1e-4, 6e-4, 0.1, 0.4, 1e-2, 5e-3
    ),
}


def load_settings(data: Any) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(bytes(data["settings_json"]))
    return settings


def rebuild(case: str) -> dict[str, np.ndarray[Any, Any]]:
    """All entries of the file, aliases included."""
    data = np.load(FOLDER / f"{case}.npz")
    settings = load_settings(data)
    arrays = {}
    for alias, shape in listed(CASES[case].names).items():
        name = alias
        for other, target in ALIASES:
            name = name.replace(other, target) if name.startswith(other) else name
        array = data[f"weight/{name}"] if f"weight/{name}" in data else seeded(name, shape, settings["seed"])
        if name.endswith("solo_kernel.weight"):
            array = array * np.float32(settings["kernel_weight_scale"])
        arrays[alias] = array
    return arrays


def write_pdparams(case: str, path: Path) -> Path:
    """The file, with the entry that PaddleDetection adds about itself."""
    arrays: dict[str, Any] = rebuild(case)
    arrays["StructuredToParameterName@@"] = {name: f"param_{number}" for number, name in enumerate(arrays)}
    with path.open("wb") as stream:
        pickle.dump(arrays, stream, protocol=2)
    return path


def seeded(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    normal = rng.standard_normal
    if "conv_offset" in name:
        small = 0.001 if name.startswith("backbone") else 0.003
        array = normal(shape) * (0.4 if name.endswith("bias") else small)
    elif len(shape) == 4:
        scale = 0.02 if "solo_cate" in name else float(np.sqrt(2.0 / np.prod(shape[1:])))
        array = normal(shape) * (scale / np.sqrt(2.0) if name.startswith("neck") else scale)
    elif name.endswith("norm.weight"):
        array = rng.uniform(0.5, 1.5, shape)
    elif name.endswith("norm.bias"):
        array = normal(shape) * 0.1
    else:
        array = -4.595 + normal(shape) * 0.1 if "solo_cate" in name else normal(shape) * 0.05
    return array.astype(np.float32)
