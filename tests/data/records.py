"""Records of a COCO json, to be changed by the tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as rle_codec

HW = (20, 30)
SQUARE = [4, 4, 12, 4, 12, 12, 4, 12]


def picture(number: int = 1, hw: tuple[int, int] = HW, **fields: Any) -> dict[str, Any]:
    return {"id": number, "file_name": f"{number}.png", "height": hw[0], "width": hw[1], **fields}


def annotation(number: int = 1, **fields: Any) -> dict[str, Any]:
    usual = {"id": number, "image_id": 1, "category_id": 7, "segmentation": [SQUARE], "bbox": [4, 4, 8, 8]}
    return {**usual, **fields}


def without(record: dict[str, Any], *fields: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in fields}


def compressed(mask: np.ndarray[Any, Any]) -> dict[str, Any]:
    rle = rle_codec.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


def square_mask(hw: tuple[int, int] = HW) -> np.ndarray[Any, Any]:
    mask = np.zeros(hw, np.uint8)
    mask[4:12, 4:12] = 1
    return mask


def uncompressed(mask: np.ndarray[Any, Any]) -> dict[str, Any]:
    flat = np.concatenate([[0], mask.T.ravel(), [1 - mask.T.ravel()[-1]]])
    turns = np.flatnonzero(np.diff(flat))
    return {"size": list(mask.shape), "counts": np.diff(np.concatenate([[0], turns])).tolist()}
