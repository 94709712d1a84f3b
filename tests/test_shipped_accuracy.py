"""What the shipped models find in the example pictures, measured against their annotations.

A few pictures say little about a model, and much about whether weights, recipe and code still belong together:
expected are the numbers measured when the weights were made.
"""

from pathlib import Path

import pytest

import solov2
from solov2.build import build_split_transforms
from solov2.data.coco import CocoDataset, load_coco
from solov2.evaluate import Evaluation, evaluate

EXAMPLES = Path(__file__).parents[1] / "examples"
FIXTURES = Path(__file__).parent / "fixtures"

MAIN_OBJECTS = {
    "street.jpg": {"bus": 1, "car": 2},
    "horses.jpg": {"horse": 2, "person": 2},
    "dog.jpg": {"dog": 1},
    "table.jpg": {"bowl": 1},
    "baseball.jpg": {"person": 2},
    "group.jpg": {"person": 7},
}
"""What a person would point at, and at least how many of them."""


def measured(model: str, annotations: str) -> Evaluation:
    predictor = solov2.load(model, device="cpu")
    source = load_coco(FIXTURES / annotations, EXAMPLES)
    dataset = CocoDataset(
        source,
        EXAMPLES,
        transforms=build_split_transforms(predictor.config.data.eval),
        categories=predictor.categories,
        with_annotations=False,
    )
    found = evaluate(predictor, dataset)
    assert found is not None
    return found


@pytest.mark.slow
def test_everyday_objects() -> None:
    found = measured("solov2_nano_coco", "coco_examples.json")
    assert found.images == 6
    assert found.ap.ap50 == pytest.approx(0.523, abs=0.02)
    assert found.ap.ap == pytest.approx(0.255, abs=0.02)


@pytest.mark.slow
def test_nuclei() -> None:
    found = measured("solov2_nano_nuclei", "nuclei_examples.json")
    assert found.images == 3
    assert found.ap.ap50 == pytest.approx(0.965, abs=0.02)
    assert found.ap.ap == pytest.approx(0.798, abs=0.02)


@pytest.mark.parametrize("name", MAIN_OBJECTS)
def test_main_objects_score_half_or_more(name: str) -> None:
    """At the fixed threshold of 0.5 that other interfaces default to."""
    found = solov2.load("solov2_nano_coco", device="cpu").predict(EXAMPLES / name, threshold=0.5)
    names = list(found.class_names)
    for wanted, least in MAIN_OBJECTS[name].items():
        assert names.count(wanted) >= least, (wanted, names)
