"""What every weights file inside the package must be."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import solov2
from solov2.config.own_data import without_paths
from solov2.data.image import read_image
from solov2.weights.coco_classes import COCO_CATEGORIES
from solov2.weights.files import read_weights
from solov2.weights.finding import SHIPPED

FILES = sorted(SHIPPED.glob("*.safetensors"))
COCO, NUCLEI = (SHIPPED / f"solov2_nano_{name}.safetensors" for name in ("coco", "nuclei"))
EXAMPLES = Path(__file__).parents[1] / "examples"
MAX_BYTES = 12_000_000
"""Of all together."""


def test_the_files_are_there_and_small() -> None:
    assert {path.stem for path in FILES} == {"nanodet_plus_m", "solov2_nano_coco", "solov2_nano_nuclei"}
    assert sum(path.stat().st_size for path in FILES) <= MAX_BYTES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file(path: Path) -> None:
    weights = read_weights(path)
    about = " ".join([*weights.about, *weights.about.values()]).lower()
    assert "license" in about or "licence" in about
    assert "trained on" in about or "data" in about
    with safe_open(path, framework="pt") as stream:
        tensors = [stream.get_slice(name) for name in stream.keys()]  # noqa: SIM118  # no mapping
        kinds = {(tensor.get_dtype(), len(tensor.get_shape()) > 1) for tensor in tensors}
    assert kinds == {("F16", True), ("F32", False)}


@pytest.mark.parametrize(
    ("path", "classes"), [(COCO, list(COCO_CATEGORIES)), (NUCLEI, [solov2.Category(1, "nucleus")])]
)
def test_model_has_what_prediction_needs(path: Path, classes: list[solov2.Category]) -> None:
    weights = read_weights(path)
    assert list(weights.categories) == classes
    assert weights.score_threshold is not None
    assert 0.1 <= weights.score_threshold <= 0.9
    assert weights.calibration
    assert weights.trained_on


@pytest.mark.parametrize("path", [COCO, NUCLEI], ids=lambda path: path.stem)
def test_weights_and_shipped_recipe_agree(path: Path) -> None:
    config = without_paths(solov2.load_config(path.stem)).model_dump(mode="json")
    assert read_weights(path).config == config


def test_the_detectors_parts_are_unchanged_in_the_default_model() -> None:
    detector, model = read_weights(SHIPPED / "nanodet_plus_m.safetensors").state, read_weights(COCO).state
    frozen = tuple(f"{part}." for part in solov2.load_config("solov2_nano_coco").train.freeze)
    names = {name for name in model if name.startswith(frozen)}
    assert {name for name in names if not torch.equal(model[name], detector[name])} == set()
    assert len(names) > 400


def test_the_default_model_is_the_one_for_everyday_objects() -> None:
    predictor = solov2.load(device="cpu")
    assert predictor.categories == COCO_CATEGORIES
    assert predictor.score_threshold == read_weights(COCO).score_threshold


@pytest.fixture(scope="module")
def predictor() -> solov2.Predictor:
    return solov2.load("nuclei", device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "annotated", "covered"),
    [("nuclei_crowded.jpg", 133, 0.219), ("nuclei_fluorescence.jpg", 36, 0.153), ("nuclei_stained.jpg", 46, 0.195)],
)
def test_example(predictor: solov2.Predictor, name: str, annotated: int, covered: float) -> None:
    """``covered`` is the share of the picture under the annotated masks."""
    found = predictor.predict(EXAMPLES / name)
    assert 0.75 * annotated <= len(found) <= 1.1 * annotated
    assert found.masks.any(axis=0).mean() == pytest.approx(covered, rel=0.25)
    assert found.original_hw == read_image(EXAMPLES / name).shape[:2]
    assert set(found.class_names) == {"nucleus"}
    assert found.areas.min() > 0
