from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import solov2
from solov2.errors import ConfigError
from solov2.export.accuracy import Accuracy, losses, measure
from solov2.export.parity import Parity
from solov2.predict import Predictor
from tests.conftest import TINY_CATEGORIES, noise_picture


def parity(matched: int, unmatched: int = 0, iou: float = 1.0) -> Parity:
    return Parity(pictures=3, matched=matched, unmatched=unmatched, _ious=[iou] * matched)


@pytest.mark.parametrize(
    ("exported", "expected"),
    [
        (0.5, []),
        (0.6, []),  # more than PyTorch has
        (0.4901, []),
        (0.48, ["0.0200 AP lost on 61 pictures (0.5000 with PyTorch, 0.4800 from the file), at most 0.01 allowed"]),
    ],
)
def test_ap_decides_where_it_was_measured(exported: float, expected: list[str]) -> None:
    accuracy = Accuracy(0.5, exported, 61, "val.json")
    assert losses(parity(100, 50, 0.6), accuracy) == expected
    assert accuracy.report()["ap_loss"] == pytest.approx(0.5 - exported)
    assert accuracy.report()["data"] == "val.json"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (parity(90, 10, 0.91), []),
        (parity(89, 11, 0.96), ["11 instances found by one side alone and 89 by both"]),
        (parity(90, 10, 0.89), ["mean mask IoU 0.8900, at least 0.9 needed"]),
        (parity(19), ["only 19 instances matched in 3 pictures, 20 needed"]),
        (
            Parity(),
            [
                "only 0 instances matched in 0 pictures, 20 needed",
                "0 instances found by one side alone and 0 by both",
            ],
        ),
    ],
)
def test_agreement_decides_elsewhere(given: Parity, expected: list[str]) -> None:
    assert losses(given, None) == expected


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two pictures with what the model finds in the first, and nothing in the second."""
    for seed in range(2):
        Image.fromarray(noise_picture(64, 96, seed)).save(tmp_path / f"{seed}.png")
    images = [{"id": seed, "file_name": f"{seed}.png", "width": 96, "height": 64} for seed in range(2)]
    square = {"id": 1, "image_id": 0, "area": 100, "bbox": [5, 5, 10, 10], "iscrowd": 0}
    square["segmentation"] = [[5, 5, 15, 5, 15, 15, 5, 15]]
    categories = [{"id": number, "name": name} for number, name in TINY_CATEGORIES]
    annotations = [{**square, "category_id": categories[0]["id"]}]
    path = tmp_path / "val.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def test_a_model_loses_nothing_against_itself(tiny_weights: Path, data: Path) -> None:
    ours, theirs = (solov2.load(tiny_weights, device="cpu") for _ in range(2))
    found = measure(ours, theirs, data)
    assert found.pictures == 2
    assert found.pytorch == found.exported >= 0
    assert found.loss == 0


def test_data_of_other_classes(tiny_weights: Path, data: Path) -> None:
    document = json.loads(data.read_text())
    document["categories"].append({"id": 99, "name": "another"})
    data.write_text(json.dumps(document))
    predictor = solov2.load(tiny_weights, device="cpu")
    nameless = Predictor(predictor.model, predictor.config)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"the model has \d classes, .*val.json has \d: measure with data"):
        measure(nameless, nameless, data)


def test_the_loss_is_that_of_the_file(tiny_weights: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = (solov2.load(tiny_weights, device="cpu") for _ in range(2))
    truth = np.zeros((1, 64, 96), bool)
    truth[0, 5:15, 5:15] = True
    right = solov2.Instances.from_masks(truth, [0], [0.9], ours.categories)
    nothing = right[np.zeros(1, bool)]
    monkeypatch.setattr(
        ours, "run", lambda batch, *rest: [right if number == 0 else nothing for number in batch.image_ids]
    )
    monkeypatch.setattr(theirs, "run", lambda batch, *rest: [nothing] * len(batch))
    found = measure(ours, theirs, data)
    assert (found.pytorch, found.exported) == (pytest.approx(1), 0)
    assert found.loss == pytest.approx(1)
