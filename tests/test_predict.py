import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from solov2 import (
    Category,
    ConfigError,
    ImageError,
    Instances,
    Predictor,
    WeightsError,
    build_model,
    decoding,
    load,
    load_config,
)
from solov2.data.collate import collate
from solov2.data.image import read_image
from solov2.data.transforms import Resize, Sample
from solov2.opening import config_of, open_weights
from solov2.predict import DEFAULT_SCORE_THRESHOLD, MAX_BATCH, choose_device, predictor_of
from solov2.weights.files import WeightsFile, write_weights

from .conftest import TINY_CATEGORIES, TINY_THRESHOLD, noise_picture

Save = Callable[..., Path]


@pytest.fixture(scope="module")
def predictor(tiny_weights: Path) -> Predictor:
    return load(tiny_weights, device="cpu")


def bgr(height: int, width: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return noise_picture(height, width, seed)[:, :, ::-1]


def check_same(found: Instances, expected: Instances, tolerance: float = 0.0) -> None:
    assert found.original_hw == expected.original_hw
    assert found.labels.tolist() == expected.labels.tolist()
    np.testing.assert_allclose(found.scores, expected.scores, atol=tolerance)
    assert (found.masks != expected.masks).mean() <= tolerance if len(found) else True


def test_what_is_found(predictor: Predictor) -> None:
    found = predictor.predict(bgr(40, 56))
    assert 0 < len(found) <= 5
    assert found.masks.shape == (len(found), 40, 56)
    assert found.original_hw == (40, 56)
    assert found.scores.min() >= TINY_THRESHOLD
    assert (np.diff(found.scores) <= 0).all()
    assert found.categories == tuple(Category(number, name) for number, name in TINY_CATEGORIES)
    assert set(found.category_ids.tolist()) <= {7, 42}
    assert set(found.class_names) <= {"disc", "bar"}


def test_every_form_of_a_picture_gives_the_same(predictor: Predictor, save: Save) -> None:
    path = save(height=40, width=56)
    expected = predictor.predict(bgr(40, 56))
    for form in (path, str(path), Image.open(path), Image.fromarray(noise_picture(40, 56))):
        check_same(predictor.predict(form), expected)


def test_arrays_are_bgr(predictor: Predictor) -> None:
    right, wrong = predictor.predict(bgr(40, 56), 0.0), predictor.predict(noise_picture(40, 56), 0.0)
    assert right.scores.tolist() != wrong.scores.tolist()


def test_grey_pictures(predictor: Predictor) -> None:
    grey = noise_picture(40, 56)[:, :, 0]
    expected = predictor.predict(np.repeat(grey[:, :, None], 3, axis=2), 0.0)
    check_same(predictor.predict(grey, 0.0), expected)
    check_same(predictor.predict(Image.fromarray(grey), 0.0), expected)


def test_a_batch_equals_one_by_one(predictor: Predictor) -> None:
    # Batched convolutions may sum in another order: scores agree to 1e-4, masks but for 1e-4 of their pixels.
    sizes = [(40, 56), (56, 40), (1, 1), (40, 57), (40, 56), (30, 200)]
    pictures = [bgr(*size, seed) for seed, size in enumerate(sizes)]
    together = predictor.predict_batch(pictures, 0.15)
    assert [found.original_hw for found in together] == sizes
    for found, picture in zip(together, pictures, strict=True):
        check_same(found, predictor.predict(picture, 0.15), tolerance=1e-4)


def test_more_pictures_than_go_together(predictor: Predictor) -> None:
    count = MAX_BATCH + 2
    pictures = [bgr(32, 48, seed) for seed in range(count)]
    together = predictor.predict_batch(pictures, 0.0)
    assert len(together) == count
    for index in (0, MAX_BATCH - 1, MAX_BATCH, count - 1):
        np.testing.assert_allclose(
            together[index].scores, predictor.predict(pictures[index], 0.0).scores, atol=1e-4, rtol=0
        )
    assert len({found.scores.tobytes() for found in together}) == count


def test_no_picture(predictor: Predictor) -> None:
    assert predictor.predict_batch([]) == []


def test_the_threshold_filters(predictor: Predictor) -> None:
    picture = bgr(40, 56)
    everything = predictor.predict(picture, 0.0)
    between = float(everything.scores[:2].mean())
    assert everything.scores[0] > everything.scores[1]
    assert len(predictor.predict(picture, between)) == 1
    assert len(predictor.predict(picture, float(everything.scores[1]))) >= 2  # the bound itself is kept
    assert len(predictor.predict(picture)) == (everything.scores >= TINY_THRESHOLD).sum()


def test_nothing_found(predictor: Predictor) -> None:
    found = predictor.predict(bgr(40, 56), 1.0)
    assert len(found) == 0
    assert found.masks.shape == (0, 40, 56)
    assert (found.labels.dtype, found.scores.dtype, found.boxes.dtype) == (np.int64, np.float32, np.float32)


@pytest.mark.parametrize("threshold", [-0.01, 1.01, float("nan"), 50])
def test_thresholds_that_are_no_scores(predictor: Predictor, threshold: float) -> None:
    with pytest.raises(ValueError, match=rf"^threshold is {threshold}; expected a score in 0\.\.1$"):
        predictor.predict(bgr(40, 56), threshold)


@pytest.mark.parametrize("hw", [(1, 1), (1, 300), (20000, 300)])
def test_extreme_pictures(predictor: Predictor, hw: tuple[int, int]) -> None:
    found = predictor.predict(np.full((*hw, 3), 90, np.uint8), 0.0)
    assert found.original_hw == hw
    for (x0, y0, x1, y1), crop in zip(found.boxes.astype(int), found.crops, strict=True):
        assert (y1 - y0, x1 - x0) == crop.shape
        assert 0 <= x0 <= x1 <= hw[1]
        assert 0 <= y0 <= y1 <= hw[0]


def test_a_bad_picture(predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"a\.png: no such file"):
        predictor.predict(tmp_path / "a.png")
    with pytest.raises(ImageError, match="the array has shape"):
        predictor.predict(np.zeros((4, 4, 4), np.uint8))


def test_prediction_changes_neither_picture_nor_model(predictor: Predictor) -> None:
    picture = np.ascontiguousarray(bgr(40, 56))
    first = predictor.predict(picture, 0.0)
    np.testing.assert_array_equal(picture, bgr(40, 56))
    check_same(predictor.predict(picture, 0.0), first)
    assert not predictor.model.training


def test_run_is_what_evaluation_sees(predictor: Predictor) -> None:
    sample = Resize((64, 96))(Sample.of_image(read_image(bgr(40, 56))), np.random.default_rng(0))
    (found,) = predictor.run(collate([sample], with_targets=False))
    check_same(found, predictor.predict(bgr(40, 56), 0.0))


def test_threshold_of_a_model_without_one() -> None:
    config = load_config("nano")
    assert Predictor(build_model(config), config).score_threshold == DEFAULT_SCORE_THRESHOLD
    assert Predictor(build_model(config), config, score_threshold=0.0).score_threshold == 0.0


@pytest.mark.parametrize("name", ["auto", "cpu", "cpu:0"])
def test_devices(name: str) -> None:
    expected = {"cpu"} if name != "auto" else {"cpu", "cuda", "mps"}
    assert choose_device(name).type in expected


@pytest.mark.parametrize("name", ["", "gpu", "cuda:x", "cuda:99", "Cpu"])
def test_devices_that_are_not_there(name: str) -> None:
    with pytest.raises(ConfigError) as error:
        choose_device(name)
    assert str(error.value).startswith(f"device {name!r} cannot be used (")
    assert str(error.value).endswith("; expected auto, cpu, cuda, cuda:N or mps")
    assert "\n" not in str(error.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu() -> None:
    with pytest.raises(ConfigError, match="device 'cuda' cannot be used"):
        choose_device("cuda")


def test_a_bare_backbone_is_no_model() -> None:
    with pytest.raises(WeightsError, match=r"nanodet_plus_m\.safetensors: holds a backbone to start training from"):
        load("nanodet_plus_m", device="cpu")


@pytest.mark.parametrize(
    "config", [{"nonsense": 1}, {"model": {"num_classes": 0}}, {"model": {"num_classes": "many"}}, {"model": None}]
)
def test_a_configuration_that_is_not_understood(config: dict[str, Any]) -> None:
    with pytest.raises(
        WeightsError, match=r"^a\.safetensors: its configuration is not understood by this version \([a-z_.]+: .+\)$"
    ):
        config_of(WeightsFile({}, config=config), Path("a.safetensors"))


def test_weights_of_another_model(tmp_path: Path) -> None:
    config = load_config("nano").model_dump(mode="json")
    write_weights(tmp_path / "a.safetensors", WeightsFile({"a": torch.ones(1)}, config=config))
    with pytest.raises(WeightsError, match=r"does not fit the model: \d+ missing from it .*; 1 unknown to the model"):
        load(tmp_path / "a.safetensors", device="cpu")


def test_loading_is_silent(tiny_weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "solov2"):
        load(tiny_weights, device="cpu")
    assert caplog.messages == []


CURVE = ((0.0, 0.0), (0.15, 0.3), (0.5, 0.8), (1.0, 0.95))


@pytest.fixture(scope="module")
def calibrated_predictor(tiny_weights: Path) -> Predictor:
    opened = open_weights(tiny_weights)
    return predictor_of(replace(opened, weights=replace(opened.weights, calibration=CURVE)), "cpu")


@pytest.mark.parametrize("name", ["predictor", "calibrated_predictor"])
def test_what_scores_too_little_costs_no_mask(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same instances as if all masks were made first, the threshold being of the scores that are told."""
    which: Predictor = request.getfixturevalue(name)
    pasted: list[int] = []
    paste = decoding.paste_instances

    def counting(probs: Any, labels: Any, *rest: Any) -> Instances:
        pasted.append(len(labels))
        return paste(probs, labels, *rest)

    monkeypatch.setattr(decoding, "paste_instances", counting)
    everything = which.predict(bgr(40, 56), 0.0)
    assert pasted == [len(everything)]
    assert len(everything) >= 2
    scores = everything.scores.tolist()
    for threshold in (0.2, scores[0], scores[1], scores[-1], (scores[0] + scores[1]) / 2, 1.0):
        found = which.predict(bgr(40, 56), threshold)
        check_same(found, everything[everything.scores >= threshold])
        assert pasted[-1] <= len(found) + sum(abs(score - threshold) < 1e-4 for score in scores)


def test_calibration_raises_these_scores(predictor: Predictor, calibrated_predictor: Predictor) -> None:
    raw, told = (which.predict(bgr(40, 56), 0.0).scores for which in (predictor, calibrated_predictor))
    assert len(raw) == len(told)
    assert (told > raw).all()


def test_batch_norms_are_folded_where_a_model_is_loaded(tiny_weights: Path, predictor: Predictor) -> None:
    opened = open_weights(tiny_weights)
    plain = Predictor(opened.network, opened.config, score_threshold=TINY_THRESHOLD)
    batch = plain.prepare(bgr(40, 56))
    exact, folded = (which.forward(which.normalized(batch)) for which in (plain, predictor))
    assert not torch.equal(exact.mask_features, folded.mask_features)
    torch.testing.assert_close(folded.mask_features, exact.mask_features, atol=1e-4, rtol=1e-4)
    # A pixel more or less of these small masks is much in a score.
    check_same(predictor.run(batch)[0], plain.run(batch)[0], tolerance=0.02)
    names = set(dict(plain.model.named_parameters()))  # type: ignore[union-attr]
    assert set(dict(predictor.model.named_parameters())) == names  # type: ignore[union-attr]


def test_compiling(tiny_weights: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch, "compile", lambda network: compiled.append(network) or network)
    check_same(load(tiny_weights, "cpu", compiled=True).predict(bgr(40, 56)), predictor.predict(bgr(40, 56)))
    assert len(compiled) == 1


def test_where_nothing_can_be_compiled(
    tiny_weights: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refusing(network: torch.nn.Module) -> Callable[..., Any]:
        def run(images: torch.Tensor) -> Any:
            raise RuntimeError("no compiler here\nand much more")

        return run

    monkeypatch.setattr(torch, "compile", refusing)
    compiled = load(tiny_weights, "cpu", compiled=True)
    for _ in range(2):
        check_same(compiled.predict(bgr(40, 56)), predictor.predict(bgr(40, 56)))
    assert caplog.messages == ["torch.compile does not work here (no compiler here); going on without it"]


def test_predicting_loads_nothing_that_it_does_not_need() -> None:
    others = ("solov2.coco_metrics", "solov2.export", "lightning", "torchvision", "onnxruntime", "openvino", "scipy")
    code = f"import sys, solov2.predict; print([name for name in {others!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "[]", done.stderr
