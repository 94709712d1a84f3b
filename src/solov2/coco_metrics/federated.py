"""Ground truth that is labelled in part: what is found of other categories is neither right nor wrong, as in LVIS.

Categories are told apart picture by picture. Detections of one that is not known and does not occur in the annotations
are left out. Where such a one does occur, a detection can still be right; one that matches no object is ignored,
by the means COCO has for this: a crowd region, here of the whole picture.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pycocotools import mask as coco_mask

from solov2.errors import DatasetError
from solov2.labelled import Labels

Record = dict[str, Any]
Pair = tuple[int, int]
"""A picture and a category, by their positions."""


def known_categories(
    images: Sequence[Mapping[str, Any]], categories: Sequence[Mapping[str, Any]], annotations: Iterable[Record]
) -> dict[int, frozenset[int]]:
    """The categories that pictures are labelled for, of those that are labelled in part.

    Args:
        images: the json's records, by position.
        categories: the json's records; positions count from 1.
        annotations: with positions for ids.

    Returns:
        Category positions by picture position.

    Raises:
        DatasetError: if a picture's record says something about it that cannot be read.
    """
    position = {category["id"]: index for index, category in enumerate(categories, start=1)}
    occurring: defaultdict[int, set[int]] = defaultdict(set)
    for record in annotations:
        occurring[record["image_id"]].add(categories[record["category_id"] - 1]["id"])
    labels = Labels({category["id"]: str(category.get("name", category["id"])) for category in categories})
    known = {}
    for index, image in enumerate(images):
        try:
            ids = labels.known(image, occurring[index])
        except ValueError as error:
            raise DatasetError(f"image {image['id']!r} of the COCO json: {error}") from None
        if ids is not None:
            known[index] = frozenset(position[number] for number in ids)
    return known


def open_regions(known: Mapping[int, frozenset[int]], annotations: Iterable[Record]) -> dict[Pair, Record]:
    """Crowd regions of whole pictures, one where a category has objects that need not be all there are."""
    regions: dict[Pair, Record] = {}
    for record in annotations:
        image, category = pair = record["image_id"], record["category_id"]
        if image in known and category not in known[image] and pair not in regions:
            height, width = record["segmentation"]["size"]
            rle = coco_mask.frPyObjects({"size": [height, width], "counts": [0, height * width]}, height, width)
            regions[pair] = {
                "image_id": image,
                "category_id": category,
                "segmentation": {"size": [height, width], "counts": rle["counts"].decode("ascii")},
                "iscrowd": 1,
                "area": float(height * width),
            }
    return regions
