"""COCO ground truth and results, cleaned once for all evaluations.

Ids become positions in sorted order, masks become compressed RLE, missing fields are filled in.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from solov2.coco_metrics.federated import Pair, known_categories, open_regions
from solov2.errors import DatasetError

logger = logging.getLogger(__name__)

GroundTruthSource = str | Path | Mapping[str, Any]
Results = Sequence[Mapping[str, Any]]
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """A COCO json with positions for ids and RLE for masks.

    Attributes:
        image_ids: the file's ids, sorted; records name a picture by its position here.
        sizes: height and width by picture, where the file says.
        categories: sorted by id; records name one by its position, counted from 1.
        annotations: with image_id, category_id, segmentation, area and iscrowd.
        pictures: position by the file's id of a picture.
        labels: position by the file's id of a category.
        known: categories by picture, where a picture is labelled for some only.
        open: pictures and categories whose annotations need not be all objects; a crowd region covers the picture.
        told: ids of categories that the file has none of, and of which the log says so already.
    """

    image_ids: list[Any]
    sizes: list[tuple[int, int] | None]
    categories: list[Mapping[str, Any]]
    annotations: list[Record]
    pictures: dict[Any, int]
    labels: dict[Any, int]
    known: dict[int, frozenset[int]] = field(default_factory=dict)
    open: set[Pair] = field(default_factory=set)
    told: set[Any] = field(default_factory=set)


def read_ground_truth(source: GroundTruthSource) -> GroundTruth:
    """Reads a COCO json, from a file or as a mapping, which stays as it is.

    An annotation without ``area`` gets the pixels of its mask, one without ``iscrowd`` is no crowd.

    Raises:
        DatasetError: it is no COCO json, an annotation has no usable mask, or what a picture was labelled for cannot
            be read.
    """
    data = source if isinstance(source, Mapping) else _read_json(Path(source))
    missing = [key for key in ("images", "annotations", "categories") if key not in data]
    if missing:
        raise DatasetError(f"the COCO json has no {missing}, found {sorted(data)}; is this the annotation file?")
    images = _sorted_by_id(data["images"], "images")
    categories = _sorted_by_id(data["categories"], "categories")
    truth = GroundTruth(
        image_ids=[image["id"] for image in images],
        sizes=[(int(i["height"]), int(i["width"])) if i.get("height") and i.get("width") else None for i in images],
        categories=categories,
        annotations=[],
        pictures={image["id"]: index for index, image in enumerate(images)},
        labels={category["id"]: index for index, category in enumerate(categories, start=1)},
    )
    for annotation in _positions(data["annotations"], truth, "annotation", ("iscrowd", "area")):
        annotation["iscrowd"] = int(bool(annotation.get("iscrowd")))
        if annotation.get("area") is None:
            annotation["area"] = float(coco_mask.area(annotation["segmentation"]))
        truth.annotations.append(annotation)
    truth.known.update(known_categories(images, categories, truth.annotations))
    for pair, region in open_regions(truth.known, truth.annotations).items():
        truth.open.add(pair)
        truth.annotations.append(region)
    return truth


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(f"there is no annotation file {path}; give the path of a COCO json") from error
    except ValueError as error:
        raise DatasetError(f"{path} is not a json file ({error}); give the path of a COCO json") from error
    if not isinstance(data, dict):
        raise DatasetError(
            f"{path} holds a {type(data).__name__}, expected a COCO json's object; is it a results file?"
        )
    return data


def _sorted_by_id(records: Iterable[Mapping[str, Any]], what: str) -> list[Mapping[str, Any]]:
    try:
        ordered = sorted(records, key=lambda record: record["id"])
    except (KeyError, TypeError) as error:
        raise DatasetError(
            f"the COCO json's {what} cannot be sorted by 'id' ({error!r}); give each its number"
        ) from error
    twice = {a["id"] for a, b in itertools.pairwise(ordered) if a["id"] == b["id"]}
    if twice:
        raise DatasetError(f"the COCO json has several {what} of id {sorted(twice)[:5]}; ids must differ")
    return ordered


def read_results(results: Results, truth: GroundTruth) -> list[Record]:
    """The result records with the ground truth's positions for ids; those of unknown classes are left out.

    So are those of classes that their picture was not labelled for, and shows no object of.
    Boxes are left out too: given one, pycocotools would sort detections into small, medium and large by its area.

    Raises:
        DatasetError: a picture the ground truth does not have, a mask of another size, or a score that is no number.
    """
    strange = next((record for record in results if record.get("image_id") not in truth.pictures), None)
    if strange is not None:
        raise DatasetError(
            f"a result is for picture id {strange.get('image_id')!r}, which is not among the {len(truth.pictures)} "
            "pictures of the annotation file; evaluate the results on the file they were made for"
        )
    detections = list(_positions(results, truth, "result", ("score",)))
    for record in detections:
        score = record.get("score")
        if not isinstance(score, (int, float, np.number)) or math.isnan(score):
            raise DatasetError(f"a result has the score {score!r}, expected a number; results are ranked by it")
        record["score"] = float(score)
    return [record for record in detections if _is_judged(record, truth)]


def _is_judged(record: Record, truth: GroundTruth) -> bool:
    image, category = record["image_id"], record["category_id"]
    return image not in truth.known or category in truth.known[image] or (image, category) in truth.open


def _positions(
    records: Iterable[Mapping[str, Any]], truth: GroundTruth, what: str, fields: Sequence[str]
) -> Iterable[Record]:
    """Positions for ids, RLE for masks, and ``fields``; a record of no known picture or class is left out."""
    unknown: set[Any] = set()
    for record in records:
        image, category = truth.pictures.get(record.get("image_id")), truth.labels.get(record.get("category_id"))
        if category is None:
            unknown.add(record.get("category_id"))
        if image is None or category is None:
            continue
        name = f"{what} of picture {record['image_id']!r}"
        rle = _to_rle(record.get("segmentation"), truth.sizes[image], name)
        kept = {key: record[key] for key in fields if key in record}
        yield kept | {"image_id": image, "category_id": category, "segmentation": rle}
    if unknown and not truth.told:  # once: a model may know more classes than the file has
        logger.warning("%ss of category ids %s count for nothing: the file has none of these", what, list(unknown)[:10])
    truth.told.update(unknown)


def _to_rle(segmentation: object, size: tuple[int, int] | None, name: str) -> Record:
    """Compressed RLE with text counts, the one form both libraries read alike."""
    if isinstance(segmentation, Mapping) and "size" in segmentation and "counts" in segmentation:
        height, width = (int(side) for side in segmentation["size"])
        counts = segmentation["counts"]
        if size is not None and (height, width) != size:
            raise DatasetError(
                f"the mask of a {name} is {height}x{width} (height x width), but the annotation file says the picture "
                f"is {size[0]}x{size[1]}; correct the file's sizes or use the pictures it describes"
            )
        rle = {"size": [height, width], "counts": counts}
        if isinstance(counts, list):
            rle = coco_mask.frPyObjects(rle, height, width)
    elif isinstance(segmentation, list):
        if size is None:
            raise DatasetError(
                f"a {name} is a polygon, but the picture's 'height' and 'width' are not in the file; add them"
            )
        no_mask = {"size": list(size), "counts": [size[0] * size[1]]}
        rle = coco_mask.frPyObjects(no_mask, *size)
        if segmentation:
            rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))
    else:
        raise DatasetError(f"a {name} has the segmentation {segmentation!r}, expected an RLE or a list of polygons")
    counts = rle["counts"]
    return {"size": list(rle["size"]), "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}
