"""What every weights file inside the package must be."""

from pathlib import Path

import pytest
from safetensors import safe_open

import solov2
from solov2.data.image import read_image
from solov2.weights.files import read_weights
from solov2.weights.finding import SHIPPED

FILES = sorted(SHIPPED.glob("*.safetensors"))
MODEL = SHIPPED / "solov2_nano_nuclei.safetensors"
EXAMPLES = Path(__file__).parents[1] / "examples"
MAX_BYTES = 10_000_000


def test_both_files_are_there() -> None:
    assert {path.stem for path in FILES} >= {"nanodet_plus_m", "solov2_nano_nuclei"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file(path: Path) -> None:
    assert path.stat().st_size <= MAX_BYTES
    weights = read_weights(path)
    about = " ".join([*weights.about, *weights.about.values()]).lower()
    assert "license" in about or "licence" in about
    assert "trained on" in about or "data" in about
    with safe_open(path, framework="pt") as stream:
        tensors = [stream.get_slice(name) for name in stream.keys()]  # noqa: SIM118  # no mapping
        kinds = {(tensor.get_dtype(), len(tensor.get_shape()) > 1) for tensor in tensors}
    assert kinds == {("F16", True), ("F32", False)}


def test_model_has_what_prediction_needs() -> None:
    weights = read_weights(MODEL)
    assert [category.name for category in weights.categories] == ["nucleus"]
    assert weights.score_threshold is not None
    assert 0.1 <= weights.score_threshold <= 0.9
    assert weights.config["model"]["num_classes"] == 1


@pytest.fixture(scope="module")
def predictor() -> solov2.Predictor:
    return solov2.load(device="cpu")


def test_the_default_model_is_the_shipped_one(predictor: solov2.Predictor) -> None:
    assert predictor.categories == read_weights(MODEL).categories
    assert predictor.score_threshold == read_weights(MODEL).score_threshold


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
