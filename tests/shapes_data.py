"""A small made-up data set: discs and boxes on noise, as a COCO json with category ids 7 and 42."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

CATEGORIES = [{"id": 42, "name": "box"}, {"id": 7, "name": "disc"}]
SIDE = 96


def make_shapes(folder: Path, pictures: int, *, seed: int = 0) -> Path:
    """Writes pictures and ``shapes.json`` into a folder; every picture holds one disc and one box."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(pictures):
        pixels = rng.integers(60, 100, (SIDE, SIDE, 3), dtype=np.uint8)
        image_id = 10 * number + 5
        left = bool(rng.integers(2))
        centers = [(26, 30 + 6 * (number % 4)), (68, 60 - 6 * (number % 4))]
        for category_id, center in zip((7, 42) if left else (42, 7), centers, strict=True):
            polygon = _disc(center, 15) if category_id == 7 else _box(center, 14)
            color = (230, 60, 40) if category_id == 7 else (40, 90, 230)
            cv2.fillPoly(pixels, [np.round(polygon).astype(np.int32)], color)
            low, high = polygon.min(axis=0), polygon.max(axis=0)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category_id,
                    "bbox": [*low.tolist(), *(high - low).tolist()],
                    "area": float(cv2.contourArea(polygon.astype(np.float32))),
                    "iscrowd": 0,
                    "segmentation": [polygon.ravel().tolist()],
                }
            )
        name = f"picture_{number}.png"
        Image.fromarray(pixels).save(folder / name)
        images.append({"id": image_id, "file_name": name, "height": SIDE, "width": SIDE})
    path = folder / "shapes.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES}))
    return path


def _disc(center: tuple[int, int], radius: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return np.array(center) + radius * np.column_stack([np.cos(angles), np.sin(angles)])


def _box(center: tuple[int, int], half: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array(center) + half * np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
