"""Instances to and from COCO's forms: run-length encoded masks (RLE) and result records.

An RLE lists run lengths of 0 and 1 in turn, starting with 0, down the columns from left to right; its compressed
form is the string the COCO tools read and write. Masks are (H, W); boxes here are COCO's x y w h unless said otherwise.
No step holds more than one full-size mask.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from solov2.atomic import write_atomically
from solov2.errors import DatasetError
from solov2.rle import compress, decompress, runs_of_crop
from solov2.structures import HW, Category, Instances, crop_to_extent


class Rle(TypedDict):
    """One mask as COCO stores it: the picture's height and width, and the compressed run lengths."""

    size: list[int]
    counts: str


class CocoResult(TypedDict):
    """One line of a COCO results file; ``bbox`` is x y w h in pixels, ``score`` 0..1."""

    image_id: int
    category_id: int
    segmentation: Rle
    score: float
    bbox: list[float]


class Row(NamedTuple):
    """What a table says about one object: ``box`` is x0 y0 x1 y1 and ``area`` a count, both in pixels."""

    class_name: str
    score: float
    box: tuple[int, int, int, int]
    area: int


def encode_rle(instances: Instances) -> list[Rle]:
    """The masks as compressed RLE, one per instance; the strings equal those of ``pycocotools.mask.encode``.

    Each mask costs time and memory in proportion to its box.
    """
    size, boxes = list(instances.original_hw), instances.boxes.astype(int).tolist()
    runs = [
        runs_of_crop(crop, (x0, y0), instances.original_hw)
        for crop, (x0, y0, _, _) in zip(instances.crops, boxes, strict=True)
    ]
    return [Rle(size=[*size], counts=counts) for counts in compress(runs)]


def decode_rle(rle: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    """The full-size mask of an RLE.

    Args:
        rle: ``size`` as height and width, ``counts`` as the compressed text or bytes, or as a list of run lengths.

    Returns:
        (H, W), H and W being the RLE's own ``size``.

    Raises:
        DatasetError: the value is no RLE, or its runs do not fill ``size``.
    """
    try:
        height, width = (int(side) for side in rle["size"])
        counts = rle["counts"]
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"not a COCO RLE: {_short(rle)}; expected a mapping with 'size' [height, width] and 'counts'"
        ) from error
    try:
        whole = {"size": [height, width], "counts": counts}
        text = counts.decode("ascii") if isinstance(counts, bytes) else counts
        runs = decompress(text) if isinstance(text, str) and text else text
        if not isinstance(runs, list) or min(runs) < 0:
            raise ValueError("the run lengths are damaged")
        if sum(runs) != height * width:
            raise ValueError(f"the run lengths add up to {sum(runs)}")
        if isinstance(counts, list):
            whole = coco_mask.frPyObjects(whole, height, width)
        return np.asarray(coco_mask.decode(whole), dtype=bool)
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise DatasetError(
            f"damaged COCO RLE of size {[height, width]} ({error}): {_short(counts)}; expected run lengths that "
            f"fill {height * width} pixels; write the mask again"
        ) from error


def to_coco_results(instances: Instances, image_id: int) -> list[CocoResult]:
    """The lines of a COCO results file for one picture, best first.

    Scores keep their float32 value, so that no two of them become equal. The box is the mask's extent, all zeros for
    an empty mask.

    Args:
        instances: ``category_id`` comes from their categories, or is the label where they carry none.
        image_id: the picture's id in the annotation file.
    """
    corners = instances.boxes.astype(float)
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).tolist()
    columns = zip(instances.category_ids.tolist(), encode_rle(instances), instances.scores.tolist(), boxes, strict=True)
    return [
        CocoResult(image_id=image_id, category_id=category_id, segmentation=rle, score=score, bbox=box)
        for category_id, rle, score, box in columns
    ]


def from_coco_results(records: Sequence[Mapping[str, Any]], hw: HW, categories: Sequence[Category] = ()) -> Instances:
    """The objects of one picture from its COCO result records.

    Annotations of a COCO json may be given as well: polygons are rasterised, and a record without score counts as 1.

    Args:
        records: of one picture; their ``bbox`` is ignored, boxes come from the masks.
        hw: the picture's height and width, which every mask must have.
        categories: in label order; without them the category ids become the labels.

    Returns:
        Best first; equal scores keep the order of the records.

    Raises:
        DatasetError: records of several pictures, an unknown category, or a mask that is damaged or of another size.
    """
    image_ids = {record["image_id"] for record in records if "image_id" in record}
    if len(image_ids) > 1:
        raise DatasetError(
            f"records of {len(image_ids)} pictures ({_short(sorted(image_ids))}), expected those of one; "
            "group them by 'image_id' first"
        )
    scores = np.array([record.get("score", 1.0) for record in records], np.float32)
    order = np.argsort(-scores, kind="stable").tolist()
    boxed = [crop_to_extent(_record_mask(records[row], hw)) for row in order]
    labels = _labels([records[row] for row in order], categories)
    return Instances(
        original_hw=hw,
        labels=np.array(labels, np.int64),
        scores=scores[order],
        boxes=np.array([box for box, _ in boxed], np.float32).reshape(-1, 4),
        crops=tuple(crop for _, crop in boxed),
        categories=tuple(categories),
    )


def _labels(records: Sequence[Mapping[str, Any]], categories: Sequence[Category]) -> list[int]:
    ids = [int(record["category_id"]) for record in records]
    if not categories:
        return ids
    label_of = {category.id: label for label, category in enumerate(categories)}
    unknown = sorted(set(ids) - set(label_of))
    if unknown:
        raise DatasetError(
            f"category ids {_short(unknown)} are not among the {len(categories)} categories "
            f"({_short(sorted(label_of))}); give the categories of the file the records were made for"
        )
    return [label_of[category_id] for category_id in ids]


def _record_mask(record: Mapping[str, Any], hw: HW) -> npt.NDArray[np.bool_]:
    segmentation = record.get("segmentation")
    if isinstance(segmentation, list) and segmentation:
        parts = coco_mask.frPyObjects(segmentation, *hw)
        return np.asarray(coco_mask.decode(coco_mask.merge(parts)), dtype=bool)
    if not isinstance(segmentation, Mapping):
        raise DatasetError(f"'segmentation' is {_short(segmentation)}, expected a COCO RLE or a list of polygons")
    mask = decode_rle(segmentation)
    if mask.shape != tuple(hw):
        raise DatasetError(
            f"a mask is {mask.shape[0]}x{mask.shape[1]} (height x width), expected the picture's {hw[0]}x{hw[1]}; "
            "do the records belong to this picture?"
        )
    return mask


def rows(instances: Instances) -> list[Row]:
    """What a table of the objects shows, best first."""
    boxes = [(x0, y0, x1, y1) for x0, y0, x1, y1 in instances.boxes.astype(int).tolist()]
    columns = zip(instances.class_names, instances.scores.tolist(), boxes, instances.areas.tolist(), strict=True)
    return [Row(*values) for values in columns]


class ResultsSpool:
    """COCO result records on their way into a file, kept on the disk and not in memory; a context manager.

    Attributes:
        count: records so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._stream = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  # __exit__ closes it

    def __enter__(self) -> ResultsSpool:
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()

    def write(self, records: Iterable[CocoResult]) -> None:
        """Adds records."""
        for record in records:
            self._stream.write(", " if self.count else "[")
            self._stream.write(json.dumps(record, ensure_ascii=False))
            self.count += 1

    def save(self, path: Path) -> None:
        """Writes a json file of all records, whole or not at all; its folder is made."""

        def copy(temporary: Path) -> None:
            self._stream.seek(0)
            with temporary.open("w", encoding="utf-8") as stream:
                shutil.copyfileobj(self._stream, stream)
                stream.write("]" if self.count else "[]")

        write_atomically(path, copy)


def write_json(path: Path, value: object) -> None:
    """Writes a json file whole or not at all; its folder is made."""
    text = json.dumps(value, ensure_ascii=False)
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _short(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."
