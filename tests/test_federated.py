"""Ground truth that is labelled in part: the figures are those of what can be judged."""

import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from solov2.coco_metrics import Matching, mask_ap, pooled_matching
from solov2.errors import DatasetError

BOUNDARY = [False, *([True] if importlib.util.find_spec("faster_coco_eval") else [])]
Box = tuple[int, int, int, int]
PERSON, CAR, DOG = 1, 3, 7


def mask(y0: int, x0: int, y1: int, x1: int) -> dict[str, Any]:
    pixels = np.zeros((20, 40), np.uint8, order="F")
    pixels[y0:y1, x0:x1] = 1
    return {"size": [20, 40], "counts": coco_mask.encode(pixels)["counts"].decode()}


LEFT, RIGHT, MIDDLE = mask(2, 2, 12, 12), mask(2, 28, 12, 38), mask(4, 14, 16, 26)


def truth(images: Sequence[dict[str, Any]], *objects: tuple[int, int, dict[str, Any]]) -> dict[str, Any]:
    """Objects are picture, category and mask; pictures count from 1."""
    return {
        "images": [{"id": number, "height": 20, "width": 40, **fields} for number, fields in enumerate(images, 1)],
        "categories": [{"id": i, "name": name} for i, name in ((DOG, "dog"), (PERSON, "person"), (CAR, "car"))],
        "annotations": [
            {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation}
            for number, (image, category, segmentation) in enumerate(objects, 1)
        ],
    }


def found(*records: tuple[int, int, dict[str, Any], float]) -> list[dict[str, Any]]:
    names = ("image_id", "category_id", "segmentation", "score")
    return [dict(zip(names, record, strict=True)) for record in records]


PERSONS_ONLY = {"labelled_categories": "person"}
OBJECTS = ((1, PERSON, LEFT), (1, CAR, RIGHT), (2, PERSON, LEFT))
RIGHT_ONES = found((1, PERSON, LEFT, 0.9), (1, CAR, RIGHT, 0.7), (2, PERSON, LEFT, 0.8))
WRONG_CAR = found((2, CAR, RIGHT, 0.95))  # before the right one, so that it costs precision
WRONG_PERSON = found((2, PERSON, RIGHT, 0.95))


@pytest.mark.parametrize("boundary", BOUNDARY)
def test_what_is_found_of_an_unknown_category_does_not_count(boundary: bool) -> None:
    full, partial = truth([{}, {}], *OBJECTS), truth([{}, PERSONS_ONLY], *OBJECTS)
    best = mask_ap(full, RIGHT_ONES, boundary=boundary)
    assert best.stats[0] == pytest.approx(1)
    assert mask_ap(full, RIGHT_ONES + WRONG_CAR, boundary=boundary).per_class["car"] == pytest.approx(0.5)
    assert mask_ap(partial, RIGHT_ONES + WRONG_CAR, boundary=boundary).stats == best.stats
    for json in (full, partial):  # persons are known in both
        assert mask_ap(json, RIGHT_ONES + WRONG_PERSON, boundary=boundary).per_class["person"] == pytest.approx(2 / 3)


def test_counts_leave_it_out_too() -> None:
    results = RIGHT_ONES + WRONG_CAR + WRONG_PERSON
    counts = pooled_matching(truth([{}, {}], *OBJECTS), results, 0.5)["all"]
    assert (counts.tp, counts.fp, counts.fn) == (3, 2, 0)
    counts = pooled_matching(truth([{}, PERSONS_ONLY], *OBJECTS), results, 0.5)["all"]
    assert (counts.tp, counts.fp, counts.fn) == (3, 1, 0)
    nothing = truth([{"labelled_categories": []}], (1, CAR, RIGHT))
    assert pooled_matching(nothing, found((1, PERSON, LEFT, 0.9)), 0.5)["all"] == Matching(fn=1)


OPEN_CAR = [
    {"labelled_categories": "person"},
    {"neg_category_ids": [DOG], "not_exhaustive_category_ids": [CAR]},
]


@pytest.mark.parametrize("boundary", BOUNDARY)
@pytest.mark.parametrize("fields", OPEN_CAR)
def test_objects_of_a_category_that_is_labelled_in_part(fields: dict[str, Any], boundary: bool) -> None:
    """As in LVIS: one that is found is right, one that is not is missed, and what else is found is ignored."""
    json = truth([fields], (1, PERSON, LEFT), (1, CAR, RIGHT))
    person, car = found((1, PERSON, LEFT, 0.9)), found((1, CAR, RIGHT, 0.6))
    other_cars = found((1, CAR, LEFT, 0.95), (1, CAR, MIDDLE, 0.9))
    assert mask_ap(json, person + car + other_cars, boundary=boundary).per_class["car"] == pytest.approx(1)
    assert mask_ap(json, person + other_cars, boundary=boundary).per_class["car"] == 0
    counts = pooled_matching(json, person + car + other_cars, 0.5)["all"]
    assert (counts.tp, counts.fp, counts.fn) == (2, 0, 0)
    counts = pooled_matching(json, person + other_cars, 0.5)["all"]
    assert (counts.tp, counts.fp, counts.fn) == (1, 0, 1)


def test_lvis_keys() -> None:
    """Negative ones are wrong where found, those that occur are judged, the rest says nothing."""
    json = truth([{"neg_category_ids": [DOG], "not_exhaustive_category_ids": []}], (1, PERSON, LEFT))
    results = found((1, PERSON, LEFT, 0.9), (1, PERSON, RIGHT, 0.9), (1, DOG, LEFT, 0.9), (1, CAR, LEFT, 0.9))
    counts = pooled_matching(json, results, 0.5)["all"]
    assert (counts.tp, counts.fp, counts.fn) == (1, 2, 0)


def test_full_labels_change_nothing() -> None:
    every = {"labelled_categories": "all"}, {"neg_category_ids": [PERSON, CAR, DOG]}
    results = RIGHT_ONES + WRONG_CAR + WRONG_PERSON
    assert mask_ap(truth(every, *OBJECTS), results).stats == mask_ap(truth([{}, {}], *OBJECTS), results).stats


def test_the_json_stays_as_it_is() -> None:
    json, before = truth([OPEN_CAR[0]], (1, CAR, RIGHT)), truth([OPEN_CAR[0]], (1, CAR, RIGHT))
    mask_ap(json, found((1, CAR, LEFT, 0.9)))
    assert json == before


def test_labels_that_cannot_be_read() -> None:
    json = truth([{"labelled_categories": "cat"}])
    with pytest.raises(DatasetError) as error:
        mask_ap(json, [])
    assert str(error.value) == (
        "image 1 of the COCO json: labelled_categories has 'cat', no category of this file (did you mean 'car'?); "
        "expected 'all', or names or ids of the file's categories"
    )
