"""What can be wrong with a COCO json: found once, named with file and annotation id."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as rle_codec

from solov2.data.image import image_size
from solov2.errors import DatasetError, ImageError
from solov2.labelled import Labels
from solov2.rle import decompress

SHOWN = 20
"""Problems named one by one in a report; the others are counted."""

OUTSIDE_TOLERANCE = 1.0
"""Pixels a box may stick out of its picture: annotation tools round."""

MIN_POLYGON_NUMBERS = 6
"""Three points."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One defect.

    Attributes:
        kind: a few words that defects of this kind share.
        what: the picture or annotation, and what is wrong with it.
    """

    kind: str
    what: str


def check_structure(path: Path, data: Any) -> None:
    """Checks that a json is of COCO's form.

    Raises:
        DatasetError: naming the first thing that is missing.
    """
    if not isinstance(data, dict):
        raise DatasetError(f"{path}: a json {type(data).__name__}; expected an object with images and categories")
    data.setdefault("annotations", [])  # test sets have none
    for key, fields in (
        ("images", ("id", "file_name", "height", "width")),
        ("categories", ("id", "name")),
        ("annotations", ("image_id", "category_id")),
    ):
        records = data.get(key)
        if not isinstance(records, list):
            raise DatasetError(f"{path}: has no list {key!r}; expected a COCO json for instance segmentation")
        for number, record in enumerate(records):
            missing = [field for field in fields if not isinstance(record, dict) or field not in record]
            if missing:
                raise DatasetError(f"{path}: {key}[{number}] has no {missing[0]!r}; expected {', '.join(fields)}")
    if not data["categories"]:
        raise DatasetError(f"{path}: 'categories' is empty; expected at least one class")
    for key in ("images", "categories"):
        ids = [record["id"] for record in data[key]]
        if not all(isinstance(number, int) for number in ids):
            raise DatasetError(f"{path}: {key} have ids that are no whole numbers; expected integers")
        if len(set(ids)) < len(ids):
            twice = next(number for number in ids if ids.count(number) > 1)
            raise DatasetError(f"{path}: two {key} have the id {twice}; expected ids that occur once")


def check_images(records: Sequence[dict[str, Any]], image_dir: Path, problems: list[Problem]) -> list[dict[str, Any]]:
    """Leaves out pictures that are missing, unreadable or of another size than stated.

    Args:
        records: the json's images.
        image_dir: their folder.
        problems: defects are appended here.
    """
    usable = []
    for record in records:
        name = record["file_name"]
        try:
            actual = image_size(image_dir / name)
        except ImageError as error:
            problems.append(Problem("missing or unreadable picture", f"image {record['id']}: {error}"))
            continue
        stated = (record["height"], record["width"])
        if actual != stated:
            problems.append(
                Problem(
                    "size mismatch",
                    f"image {record['id']} ({name}): {stated[0]}x{stated[1]} in the json, "
                    f"{actual[0]}x{actual[1]} in the file",
                )
            )
            continue
        usable.append(record)
    return usable


def check_annotation(
    record: dict[str, Any], images: Mapping[int, dict[str, Any]], all_image_ids: Set[int], category_ids: Set[int]
) -> Problem | None:
    """Finds what is wrong with one annotation; None when it can be used or its picture is left out.

    A missing box is filled in from the segmentation.
    """
    label = f"annotation {record.get('id', '?')}"
    if not isinstance(record["image_id"], int) or record["image_id"] not in all_image_ids:
        return Problem("id that does not resolve", f"{label}: image_id {record['image_id']} is no image of this file")
    if not isinstance(record["category_id"], int) or record["category_id"] not in category_ids:
        return Problem(
            "id that does not resolve", f"{label}: category_id {record['category_id']} is no category of this file"
        )
    image = images.get(record["image_id"])
    if image is None:
        return None
    label += f" ({image['file_name']})"
    if record.get("iscrowd", 0) and isinstance(record.get("segmentation"), dict):
        return None  # never made into a mask here; COCO's own evaluation reads it
    wrong = _wrong_segmentation(record.get("segmentation"), (image["height"], image["width"]))
    if wrong:
        return Problem("unusable segmentation", f"{label}: {wrong}")
    wrong = _wrong_box(record, image)
    return Problem("unusable box", f"{label}: {wrong}") if wrong else None


def check_labels(
    records: Sequence[dict[str, Any]],
    annotations: Mapping[int, Sequence[Mapping[str, Any]]],
    names: Mapping[int, str],
    problems: list[Problem],
) -> tuple[list[dict[str, Any]], dict[int, frozenset[int]]]:
    """Reads which categories pictures were annotated for, and leaves out those for which that cannot be read.

    Args:
        records: the json's images.
        annotations: those that can be used, by image id.
        names: of the categories, by id.
        problems: defects are appended here.

    Returns:
        The images that can be used, and the ids of the known categories of each that is labelled in part.
    """
    labels, usable, known = Labels(names), [], {}
    for record in records:
        occurring = {annotation["category_id"] for annotation in annotations[record["id"]]}
        try:
            found = labels.known(record, occurring)
        except ValueError as error:
            what = f"image {record['id']} ({record['file_name']}): {error}"
            problems.append(Problem("unreadable labelled categories", what))
            continue
        usable.append(record)
        if found is not None:
            known[record["id"]] = found
    return usable, known


def _wrong_segmentation(segmentation: Any, hw: tuple[int, int]) -> str | None:
    if isinstance(segmentation, dict):
        return _wrong_run_lengths(segmentation, hw)
    if not isinstance(segmentation, list):
        return f"segmentation is {type(segmentation).__name__}; expected polygons or run lengths"
    try:
        parts = usable_parts(segmentation)
    except (TypeError, ValueError):
        return "polygon with values that are no numbers"
    if not parts:
        return "empty polygon; expected at least three points x y"
    return None if all(np.isfinite(part).all() for part in parts) else "polygon with NaN"


def usable_parts(segmentation: Sequence[Any]) -> list[npt.NDArray[np.float64]]:
    """The parts of a COCO polygon list that enclose something: lists of three points or more.

    Returns:
        Each (V, 2) x, y.
    """
    return [
        np.asarray(part, np.float64).reshape(-1, 2)
        for part in segmentation
        if isinstance(part, list) and len(part) >= MIN_POLYGON_NUMBERS and len(part) % 2 == 0
    ]


def _wrong_run_lengths(segmentation: Mapping[str, Any], hw: tuple[int, int]) -> str | None:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != list(hw):
        return f"run lengths of size {size}; expected the picture's {list(hw)}"
    if not isinstance(counts, list | str) or not counts:
        return "run lengths are missing"
    runs = decompress(counts) if isinstance(counts, str) else counts
    if runs is None or not all(isinstance(run, int) and run >= 0 for run in runs):
        return "run lengths are damaged"
    if sum(runs) != hw[0] * hw[1]:
        return f"run lengths add up to {sum(runs)}; expected {hw[0]}·{hw[1]} = {hw[0] * hw[1]}"
    return None


def _wrong_box(record: dict[str, Any], image: dict[str, Any]) -> str | None:
    if "bbox" not in record:
        record["bbox"] = _extent(record["segmentation"])
    box = record["bbox"]
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
        return f"box {box}; expected [x, y, width, height]"
    x, y, width, height = box
    if width <= 0 or height <= 0:
        return f"box {box} is empty; expected a width and a height above 0"
    right, bottom = image["width"] + OUTSIDE_TOLERANCE, image["height"] + OUTSIDE_TOLERANCE
    if min(x, y) < -OUTSIDE_TOLERANCE or x + width > right or y + height > bottom:
        return f"box {box} lies outside the picture of {image['width']}x{image['height']} (width x height)"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _extent(segmentation: Any) -> list[float]:
    if isinstance(segmentation, list):
        points = np.concatenate(usable_parts(segmentation))
        low, high = points.min(axis=0), points.max(axis=0)
        return [*low.tolist(), *(high - low).tolist()]
    box: list[float] = rle_codec.toBbox(compressed(segmentation)).tolist()
    return box


def compressed(segmentation: dict[str, Any]) -> dict[str, Any]:
    """A COCO RLE as pycocotools computes with it, whichever way its run lengths are stored."""
    if isinstance(segmentation["counts"], list):
        segmentation = rle_codec.frPyObjects(segmentation, *segmentation["size"])
    return segmentation


def report(path: Path, problems: Sequence[Problem]) -> str:
    """All problems in one text, kind by kind, the first of each kind in full."""
    kinds: dict[str, list[str]] = {}
    for problem in problems:
        kinds.setdefault(problem.kind, []).append(problem.what)
    lines = [f"{path}: {len(problems)} problem{'s' if len(problems) > 1 else ''}"]
    for kind, items in kinds.items():
        lines.append(f"  {kind}: {len(items)}")
        lines += [f"    {item}" for item in items[:SHOWN]]
        if len(items) > SHOWN:
            lines.append(f"    … and {len(items) - SHOWN} more")
    return "\n".join(lines)
