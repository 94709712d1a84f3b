"""Small things that several test modules need: pictures, COCO files and a tiny model with random weights."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

TINY_CATEGORIES = ((7, "disc"), (42, "bar"))
"""Ids with gaps, so that a label taken for an id shows."""

TINY_THRESHOLD = 0.2


def noise_picture(height: int, width: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Smooth noise (height, width, 3): a random-weight network finds something else in each."""
    coarse = np.random.default_rng(seed).integers(0, 256, (max(height // 8, 1), max(width // 8, 1), 3), np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))


@pytest.fixture
def root_logger() -> Iterator[None]:
    """Leaves the root logger as it was: the command line sets it up."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Writes a noise picture below the test's folder."""

    def _save(name: str = "picture.png", height: int = 40, width: int = 56, seed: int = 0) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise_picture(height, width, seed)).save(path)
        return path

    return _save


@pytest.fixture
def write_coco(tmp_path: Path) -> Callable[..., Path]:
    """Writes a COCO json, and the pictures it names where ``pictures`` is not false."""

    def _write_coco(
        images: Sequence[dict[str, Any]],
        annotations: Sequence[dict[str, Any]] = (),
        categories: Sequence[tuple[int, str]] = TINY_CATEGORIES,
        *,
        pictures: bool = True,
        name: str = "annotations.json",
    ) -> Path:
        data = {
            "images": list(images),
            "annotations": list(annotations),
            "categories": [{"id": number, "name": text} for number, text in categories],
        }
        path = tmp_path / name
        path.write_text(json.dumps(data), encoding="utf-8")
        for image in images if pictures else ():
            Image.fromarray(noise_picture(image["height"], image["width"], image["id"])).save(
                tmp_path / image["file_name"]
            )
        return path

    return _write_coco


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of the nano model with random weights that finds up to five things in a picture."""
    import torch

    from solov2 import Category, Config, build_model, load_config
    from solov2.weights.files import WeightsFile, write_weights

    values = load_config("nano").model_dump(mode="json")
    values["model"]["num_classes"] = len(TINY_CATEGORIES)
    values["decode"] |= {"pre_nms_top_n": 40, "post_nms_top_n": 5}
    values["data"]["test"]["reader"]["transforms"] = [{"name": "Resize", "args": {"target_size": [64, 96]}}]
    values["data"]["eval"]["reader"]["transforms"] = [{"name": "Resize", "args": {"target_size": [64, 96]}}]
    config = Config.model_validate(values)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(config)
        pictures = np.stack([noise_picture(64, 96, seed) for seed in range(4)])
        with torch.no_grad():
            # Trained models are sure of themselves; here it takes larger weights and no bias.
            for output in model.grid_head.category_output:
                output.weight.mul_(10)
                torch.nn.init.zeros_(output.bias)
            for output in model.grid_head.kernel_output:
                output.weight.mul_(10)
            for module in model.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.momentum = 1.0  # the statistics of one batch: without any, nothing of a picture gets through
            model(torch.from_numpy(pictures).permute(0, 3, 1, 2) / 64 - 2)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    weights = WeightsFile(
        state=model.state_dict(),
        config=config.model_dump(mode="json"),
        categories=tuple(Category(number, name) for number, name in TINY_CATEGORIES),
        score_threshold=TINY_THRESHOLD,
        about={"data": "none: random weights"},
    )
    write_weights(path, weights)
    return path
