"""Intervals of AP: the same numbers as of data sets in which pictures stand several times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from solov2.coco_metrics import Tally, ap_of, bootstrap_ap, mask_ap, read_ground_truth
from solov2.coco_metrics.bootstrap import LEAST_OBJECTS, Bootstrap, Interval

from .test_coco_metrics import random_scene, rectangle, result, scene


def counted(truth: dict[str, Any], results: Sequence[dict[str, Any]]) -> Tally:
    tally = Tally(read_ground_truth(truth))
    tally.add(results)
    return tally


def drawn(truth: dict[str, Any], results: Sequence[dict[str, Any]], positions: Sequence[int]) -> list[Any]:
    """A data set of the pictures at these positions among the sorted ids, each a picture of its own."""
    ids = sorted(image["id"] for image in truth["images"])
    images = {image["id"]: image for image in truth["images"]}
    made: dict[str, Any] = {"images": [], "annotations": [], "categories": truth["categories"]}
    found = []
    for new, position in enumerate(sorted(positions), start=1):
        old = ids[position]
        made["images"].append({**images[old], "id": new})
        made["annotations"] += [{**a, "image_id": new} for a in truth["annotations"] if a["image_id"] == old]
        found += [{**r, "image_id": new} for r in results if r["image_id"] == old]
    for number, annotation in enumerate(made["annotations"], start=1):
        annotation["id"] = number
    return [made, found]


@pytest.mark.parametrize("settings", [{}, {"crowds": 0.3}, {"detections": 60, "categories": (1, 3)}])
def test_a_resample_is_the_ap_of_pictures_drawn(settings: dict[str, Any]) -> None:
    truth, results = random_scene(1, **settings)
    found = bootstrap_ap(counted(truth, results), 20, 4, seed=5)
    rng = np.random.default_rng(5)
    drawings = [rng.integers(0, 6, 6).tolist() for _ in range(4)]
    assert any(len(set(each)) < 6 for each in drawings)
    expected = [mask_ap(*drawn(truth, results, each), max_dets=20) for each in drawings]
    for name, values in {"AP": [e.ap for e in expected], "AP50": [e.ap50 for e in expected]}.items():
        low, high = np.percentile(values, [2.5, 97.5])
        assert (found.overall[name].low, found.overall[name].high) == (pytest.approx(low), pytest.approx(high))
    for name, interval in found.per_class.items():
        spread = [e.per_class[name] for e in expected if e.per_class[name] >= 0]
        assert interval.high == pytest.approx(np.percentile(spread, 97.5))


def test_the_number_itself_is_the_ap() -> None:
    for seed in range(3):
        truth, results = random_scene(seed, crowds=0.2, ties=True)
        tally = counted(truth, results)
        found, ap = bootstrap_ap(tally, 100, 20), ap_of(tally, 100)
        assert (found.overall["AP"].value, found.overall["AP50"].value) == (
            pytest.approx(ap.ap, abs=1e-12), pytest.approx(ap.ap50, abs=1e-12),
        )  # fmt: skip
        many = {a["category_id"] for a in truth["annotations"] if not a["iscrowd"]}
        many = {c for c in many if sum(a["category_id"] == c and not a["iscrowd"] for a in truth["annotations"]) >= 10}
        assert set(found.per_class) == {f"c{category}" for category in many}
        for name, interval in found.per_class.items():
            assert interval.value == pytest.approx(ap.per_class[name], abs=1e-12)
            assert 0 <= interval.low <= interval.high <= 1


def test_the_seed_makes_it_repeatable() -> None:
    tally = counted(*random_scene(0))
    assert bootstrap_ap(tally, 100, 10) == bootstrap_ap(tally, 100, 10)
    assert bootstrap_ap(tally, 100, 10) != bootstrap_ap(tally, 100, 10, seed=1)


def test_two_pictures_by_hand() -> None:
    """All found in one, nothing in the other: a resample's AP is 1, 0, or that of half the objects."""
    square = rectangle(0, 0, 5, 5)
    truth = scene((square, {}), (square, {"image_id": 2}), images=2)
    found = bootstrap_ap(counted(truth, [result(square)]), 100, 100)
    assert found.overall["AP"].low == 0
    assert found.overall["AP"].high == pytest.approx(1)
    assert found.overall["AP"].value == pytest.approx(51 / 101)
    assert found.per_class == {}  # of two objects


def test_one_picture_has_no_spread() -> None:
    square = rectangle(0, 0, 5, 5)
    objects = [(rectangle(0, 2 * x, 10, 2 * x + 1), {}) for x in range(LEAST_OBJECTS)]
    found = bootstrap_ap(counted(scene(*objects), [result(objects[0][0])]), 100, 3)
    assert found.overall["AP"] == Interval(*[pytest.approx(11 / 101)] * 3)
    assert found.per_class == {"c1": found.overall["AP"]}
    assert bootstrap_ap(counted(scene((square, {})), []), 100, 3).overall["AP"] == Interval(0, 0, 0)


def test_nothing_to_measure() -> None:
    found = bootstrap_ap(counted(scene(), [result(rectangle(0, 0, 5, 5))]), 100, 3)
    assert (found.overall, found.per_class, found.table(per_class=True)) == ({}, {}, [])
    with pytest.raises(ValueError, match="resamples is 0, expected 1 or more"):
        bootstrap_ap(counted(scene(), []), 100, 0)


def test_resamples_without_the_only_objects() -> None:
    """Those of the second picture alone have no AP; they count for nothing."""
    square = rectangle(0, 0, 5, 5)
    found = bootstrap_ap(counted(scene((square, {}), images=2), [result(square)]), 100, 20)
    assert found.overall["AP"] == Interval(*[pytest.approx(1)] * 3)


def test_table_and_values() -> None:
    low, high = Interval(0.25, 0.125, 0.5), Interval(0.75, 0.5, 1.0)
    found = Bootstrap(200, 0, {"AP": low, "AP50": high}, {"disc": low, "bar": high})
    assert found.table() == ["AP    0.250  0.125 .. 0.500", "AP50  0.750  0.500 .. 1.000"]
    assert [line.split()[0] for line in found.table(per_class=True)] == ["AP", "AP50", "bar", "disc"]
    assert found.values() == {
        "resamples": 200,
        "seed": 0,
        "coverage": 0.95,
        "overall": {
            "AP": {"value": 0.25, "low": 0.125, "high": 0.5},
            "AP50": {"value": 0.75, "low": 0.5, "high": 1.0},
        },
        "classes": {
            "disc": {"value": 0.25, "low": 0.125, "high": 0.5},
            "bar": {"value": 0.75, "low": 0.5, "high": 1.0},
        },
    }
