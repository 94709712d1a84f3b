"""How often detections of a score are right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from solov2.coco_metrics import Tally, read_ground_truth, reliability_by_class, save_reliability
from solov2.coco_metrics.curves import FILL, place
from solov2.coco_metrics.reliability import draw_reliability, judged, reliability_of
from solov2.errors import DatasetError

from .test_coco_metrics import rectangle, result, scene


def counted(truth: dict[str, Any], results: list[dict[str, Any]]) -> Tally:
    tally = Tally(read_ground_truth(truth))
    tally.add(results)
    return tally


@pytest.fixture
def tally() -> Tally:
    """Class 1 with 0.9 right and 0.85 wrong, class 3 with 0.15 right; a crowd of class 1 takes one at 0.95."""
    first, other, crowd = rectangle(0, 0, 5, 5), rectangle(5, 5, 10, 10), rectangle(0, 10, 10, 20)
    truth = scene((first, {}), (other, {"category_id": 3}), (crowd, {"iscrowd": 1}), categories=(1, 2, 3))
    results = [
        result(first, 0.9),
        result(rectangle(9, 0, 10, 5), 0.85),
        result(rectangle(2, 12, 5, 15), 0.95),
        result(other, 0.15, category_id=3),
    ]
    return counted(truth, results)


def test_bins_by_hand() -> None:
    found = reliability_of(np.array([0.1, 0.12, 0.2, 0.5, 0.74, 1.0]), np.array([0, 1, 1, 0, 1, 1], bool), bins=4)
    assert [(each.low, each.high, each.count) for each in found.bins] == [
        (0, 0.25, 3), (0.25, 0.5, 0), (0.5, 0.75, 2), (0.75, 1, 1),
    ]  # fmt: skip
    assert [each.precision for each in found.bins] == [pytest.approx(2 / 3), None, 0.5, 1]
    assert [each.mean_score for each in found.bins] == [pytest.approx(0.14), None, pytest.approx(0.62), 1]
    error = (3 * (2 / 3 - 0.14) + 2 * (0.62 - 0.5) + 0) / 6
    assert found.expected_calibration_error == pytest.approx(error)
    assert found.count == 6


def test_no_detections() -> None:
    found = reliability_of(np.zeros(0), np.zeros(0, bool))
    assert (found.count, found.expected_calibration_error) == (0, None)
    assert [each.count for each in found.bins] == [0] * 10
    assert draw_reliability(found).shape == (400, 480, 3)


def test_crowds_are_left_out(tally: Tally) -> None:
    found = judged(tally)
    assert sorted(zip(found.scores.tolist(), found.right.tolist(), found.categories.tolist(), strict=True)) == [
        (0.15, True, 3), (0.85, False, 1), (0.9, True, 1),
    ]  # fmt: skip


def test_classes_and_all_together(tally: Tally) -> None:
    pooled, by_class = reliability_by_class(tally)
    assert list(by_class) == ["c1", "c3"]  # nothing was found of c2
    assert [each.count for each in pooled.bins] == [0, 1, 0, 0, 0, 0, 0, 0, 1, 1]
    assert pooled.expected_calibration_error == pytest.approx((0.85 + 0.85 + 0.1) / 3)
    assert by_class["c1"].expected_calibration_error == pytest.approx((0.85 + 0.1) / 2)
    assert by_class["c3"].bins[1].precision == 1


def test_scores_that_are_no_probabilities() -> None:
    place = rectangle(0, 0, 5, 5)
    with pytest.raises(DatasetError, match=r"there are scores of 0\.5 to 7; expected 0\.\.1"):
        reliability_by_class(counted(scene((place, {})), [result(place, 0.5), result(place, 7)]))


def test_files(tally: Tally, tmp_path: Path) -> None:
    numbers, plot = save_reliability(tally, tmp_path / "new" / "r.json", kind="boundary")
    assert (numbers, plot) == (tmp_path / "new" / "r.json", tmp_path / "new" / "r.png")
    values = json.loads(numbers.read_text())
    assert (values["overlap"], values["iou"], list(values["classes"])) == ("boundary", 0.5, ["c1", "c3"])
    assert values["all"]["count"] == 3
    assert values["all"]["bins"][1] == {
        "low": 0.1, "high": 0.2, "count": 1, "mean_score": pytest.approx(0.15), "precision": 1.0,
    }  # fmt: skip
    assert values["all"]["bins"][0]["mean_score"] is None
    with Image.open(plot) as picture:
        assert picture.size == (480, 400)


def test_bars_are_as_high_as_the_share() -> None:
    found = reliability_of(np.array([0.55] * 4), np.array([1, 0, 0, 1], bool))
    picture = draw_reliability(found)
    filled = (picture == FILL).all(axis=2)
    columns = [place(0.53, 0)[0], place(0.45, 0)[0]]
    (_, top), (_, bottom) = place(0, 0.5), place(0, 0)
    assert filled[top + 1 : bottom - 20, columns[0]].all()
    assert not filled[: top - 1, columns[0]].any()
    assert not filled[:, columns[1]].any()
