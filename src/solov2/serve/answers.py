"""Instances become what a client of the service's own protocol asked for: JSON, an id map, or an overlay."""

from __future__ import annotations

import io
import json
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from solov2.formats import encode_rle
from solov2.serve.polygons import outlines
from solov2.serve.service import Found
from solov2.structures import Instances
from solov2.visualize import draw_instances

PNG_TEXT_KEY = "solov2"
"""Of the JSON text in an id map: what each of its numbers stands for."""

PNG_COMPRESSION = 3
"""Of 0..9; more takes several times as long for a few per cent."""


def as_json(found: Found, shown: Instances, model: str, threshold: float, start: float, *, polygons: bool) -> bytes:
    """The JSON answer.

    Args:
        found: the picture and its timings.
        shown: the instances to answer, best first.
        model: its name.
        threshold: that was used.
        start: when the request came, on the clock of :func:`time.monotonic`.
        polygons: masks as outlines instead of RLE.
    """
    begin = monotonic()
    height, width = shown.original_hw
    segmentations = _polygons(shown) if polygons else encode_rle(shown)
    instances = [
        {**about, "segmentation": segmentation}
        for about, segmentation in zip(_table(shown), segmentations, strict=True)
    ]
    end = monotonic()
    answer = {
        "model": model,
        "image": {"width": width, "height": height},
        "threshold": threshold,
        "instances": instances,
        "timing": {
            "decode_ms": _ms(found.decode_s),
            "queue_ms": _ms(found.queue_s),
            "predict_ms": _ms(found.predict_s),
            "encode_ms": _ms(end - begin),
            "total_ms": _ms(end - start),
        },
    }
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()


def as_id_map(shown: Instances) -> bytes:
    """A PNG whose pixels are instance numbers: 1 is the best one, 0 is none.

    Where masks overlap the better one is on top. It has 8 bits, or 16 where there are more than 255 instances. Its
    text ``solov2`` is the JSON list of the instances, without their masks.
    """
    numbers = np.zeros(shown.original_hw, np.uint8 if len(shown) <= np.iinfo(np.uint8).max else np.uint16)
    boxes = shown.boxes.astype(int).tolist()
    for row in reversed(range(len(shown))):
        x0, y0, x1, y1 = boxes[row]
        numbers[y0:y1, x0:x1][shown.crops[row]] = row + 1
    texts = PngInfo()
    texts.add_itxt(PNG_TEXT_KEY, json.dumps(_table(shown), ensure_ascii=False), zip=True)
    return _png(numbers, texts)


def as_overlay(picture: npt.NDArray[np.uint8], shown: Instances) -> bytes:
    """A PNG of the picture with the instances drawn over it."""
    return _png(draw_instances(picture, shown))


def _png(pixels: npt.NDArray[Any], texts: PngInfo | None = None) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG", compress_level=PNG_COMPRESSION, pnginfo=texts)
    return encoded.getvalue()


def _table(shown: Instances) -> list[dict[str, Any]]:
    columns = zip(
        shown.class_names,
        shown.category_ids.tolist(),
        shown.scores.tolist(),
        shown.boxes.tolist(),
        shown.areas.tolist(),
        strict=True,
    )
    names = ("category", "category_id", "score", "box", "area")
    return [dict(zip(names, values, strict=True)) for values in columns]


def _polygons(shown: Instances) -> list[list[list[float]]]:
    corners = shown.boxes[:, :2].astype(int).tolist()
    return [outlines(crop, x0, y0) for crop, (x0, y0) in zip(shown.crops, corners, strict=True)]


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
