"""Weights of other frameworks where something is amiss: wrong files in the cache, no class names, no recipe."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import solov2
from solov2.cli import main
from solov2.errors import WeightsError
from solov2.opening import convert, open_weights, open_zoo
from solov2.structures import Category
from solov2.weights import download, load
from solov2.weights.cache import download_place, model_place, record_place, remembered
from solov2.weights.coco_classes import COCO_CATEGORIES
from solov2.weights.exporting import foreign_state
from solov2.weights.files import read_weights, write_weights
from solov2.weights.zoo import zoo_entry
from tests.test_opening import R18, SMALL, Capture, make_state, serve, write_foreign
from tests.weights.local_server import local_server, send

pytestmark = pytest.mark.slow  # models of 18 million parameters, again and again

R34 = "solov2_light_448_r34_fpn_8gpu_3x"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root_logger: None) -> None:
    """A cache and a working folder of its own, and nobody warned yet."""
    monkeypatch.setenv("SOLOV2_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(download, "_warned", set())
    monkeypatch.setattr(load, "_told", set())


@pytest.fixture(scope="module")
def r18_state() -> dict[str, Tensor]:
    return make_state(R18, 80)


@pytest.fixture(scope="module")
def small_state() -> dict[str, Tensor]:
    return make_state(SMALL, 2)


def refused(name: str | Path, config: solov2.Config | None = None) -> str:
    with pytest.raises(WeightsError) as caught:
        open_weights(name, config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------- only what has served is trusted


def broken(kind: str, path: Path, state: dict[str, Tensor]) -> bytes:
    """A wrong file of some kind for the place of the published R18 model."""
    if kind == "cut":
        return write_foreign(path, state, "solo").read_bytes()[:-1000]
    if kind == "page":
        return b"<html>Log in</html>"
    return write_foreign(path, make_state(R34, 80), "solo").read_bytes()


@pytest.mark.parametrize("kind", ["cut", "page", "other model"])
def test_a_wrong_file_by_hand_is_not_trusted(tmp_path: Path, r18_state: dict[str, Tensor], kind: str) -> None:
    place = download_place(zoo_entry(R18).url)
    place.parent.mkdir(parents=True)
    place.write_bytes(broken(kind, tmp_path / "x.pth", r18_state))
    for _ in range(2):
        message = refused(R18)
        assert message.startswith(f"{place}: is not the published {R18} (")
        assert message.endswith("); save the right file here")
        assert not record_place(place).exists()
    if kind == "other model":
        assert f"they have the network of {R34}" in message
    write_foreign(place, r18_state, "solo")  # as the message says
    assert open_weights(R18).path == model_place(R18)
    assert remembered(place) is not None


@pytest.mark.parametrize("kind", ["cut", "page", "other model"])
def test_a_wrong_file_from_a_server_is_not_kept(
    tmp_path: Path, r18_state: dict[str, Tensor], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = write_foreign(tmp_path / "SOLOv2_LIGHT_448_R18_3x.pth", r18_state, "solo").read_bytes()
    (tmp_path / "published").mkdir()
    with local_server() as server:
        serve(server, R18, tmp_path / "SOLOv2_LIGHT_448_R18_3x.pth", monkeypatch)
        (tmp_path / "SOLOv2_LIGHT_448_R18_3x.pth").unlink()
        url = zoo_entry(R18).url
        server.set("/SOLOv2_LIGHT_448_R18_3x.pth", [send(broken(kind, tmp_path / "x.pth", r18_state)), send(right)])
        message = refused(R18)
        assert message.startswith(f"{url}: what the server sent is not the published {R18} (")
        assert "; it is not kept; " in message
        assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []
        assert open_weights(R18).path == model_place(R18)
        assert remembered(download_place(url)) is not None


def test_an_address_to_start_training_from(tmp_path: Path, r18_state: dict[str, Tensor]) -> None:
    """Trusted once it can be read: what does not fit in it is the training's business."""
    right = write_foreign(tmp_path / "a.pth", r18_state, "solo").read_bytes()
    with local_server() as server:
        url = server.set("/backbone.pth", [send(right[:-1000]), send(right)])
        model = solov2.build_model(solov2.load_config(R18, ["num_classes=3"]))
        with pytest.raises(WeightsError, match="what the server sent cannot be used: damaged"):
            load.load_pretrained(model, url)
        assert not download_place(url).exists()
        assert load.load_pretrained(model, url).state
        assert remembered(download_place(url)) is not None


def test_a_wrong_model_to_start_training_from_is_not_trusted_as_the_published_one(
    r18_state: dict[str, Tensor],
) -> None:
    place = download_place(zoo_entry(R34).url)
    place.parent.mkdir(parents=True)
    write_foreign(place, r18_state, "solo")
    model = solov2.build_model(solov2.load_config(R18))
    assert load.load_pretrained(model, R34).state
    assert not record_place(place).exists()


def test_a_model_that_has_no_room_in_the_cache(tmp_path: Path, r18_state: dict[str, Tensor]) -> None:
    place = download_place(zoo_entry(R18).url)
    place.parent.mkdir(parents=True)
    write_foreign(place, r18_state, "solo")
    (tmp_path / "home" / "models").write_text("in the way")
    with pytest.raises(
        WeightsError, match=r"cannot be written .*; SOLOV2_HOME names another folder to keep models in$"
    ):
        open_zoo(R18)
    assert place.is_file()  # nothing is wrong with it


# ------------------------------------------------------------------------------------------ class names


def recipe_with(tmp_path: Path, **annotation_files: str) -> solov2.Config:
    blocks = {name: {"dataset_dir": str(tmp_path), "anno_path": file} for name, file in annotation_files.items()}
    overrides = [f"{name}={json.dumps(block)}" for name, block in blocks.items()]
    return solov2.load_config(SMALL, ["num_classes=2", *overrides])


@pytest.fixture
def unnamed(tmp_path: Path, small_state: dict[str, Tensor]) -> Path:
    return write_foreign(tmp_path / "own.pdparams", small_state, "paddledetection")


def test_the_recipes_annotation_file_names_the_classes(
    tmp_path: Path, unnamed: Path, write_coco: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    own = (Category(7, "disc"), Category(42, "bar"))
    write_coco([], pictures=False)
    write_coco([], categories=((1, "x"),), pictures=False, name="other.json")
    (tmp_path / "names.txt").write_text("one\ntwo\n")
    (tmp_path / "broken.json").write_text("{")
    caplog.set_level(logging.INFO)
    rows: tuple[tuple[dict[str, str], tuple[Category, ...]], ...] = (
        ({"TestDataset": "annotations.json"}, own),
        ({"EvalDataset": "annotations.json"}, own),
        ({"TrainDataset": "annotations.json"}, own),
        ({"TestDataset": "names.txt", "EvalDataset": "annotations.json"}, (Category(1, "one"), Category(2, "two"))),
        ({"TestDataset": "none.json", "EvalDataset": "broken.json", "TrainDataset": "annotations.json"}, own),
        ({"TestDataset": "other.json", "EvalDataset": "annotations.json"}, own),  # as many as the head has
        ({"TestDataset": "other.json"}, ()),
        ({}, ()),
    )
    for files, expected in rows:
        caplog.clear()
        assert open_weights(unnamed, recipe_with(tmp_path, **files)).weights.categories == expected
        (told,) = [text for text in caplog.messages if "does not name its 2 classes" in text]
        assert ("they are called class 0 and so on" in told) == (not expected)


def test_what_a_file_or_a_user_says_wins(
    tmp_path: Path,
    unnamed: Path,
    small_state: dict[str, Tensor],
    write_coco: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_coco([], pictures=False)
    config = recipe_with(tmp_path, TestDataset="annotations.json")
    caplog.set_level(logging.INFO)
    state = {name: tensor for name, tensor in make_state(R18, 2).items()}
    named = write_foreign(tmp_path / "named.pth", state, "solo", meta={"CLASSES": ("a", "b")})
    assert [category.name for category in open_weights(named).weights.categories] == ["a", "b"]
    given = (Category(5, "five"), Category(6, "six"))
    assert convert(unnamed, tmp_path / "a.safetensors", config, categories=given).weights.categories == given
    assert not [text for text in caplog.messages if "does not name" in text]
    assert convert(unnamed, tmp_path / "b.safetensors", config).weights.categories[0] == Category(7, "disc")
    assert read_weights(tmp_path / "b.safetensors").categories[1] == Category(42, "bar")


def test_weights_of_this_package_without_names(tmp_path: Path, unnamed: Path, write_coco: Callable[..., Path]) -> None:
    convert(unnamed, tmp_path / "own.safetensors", recipe_with(tmp_path))
    write_coco([], pictures=False)
    assert open_weights("own.safetensors").weights.categories == ()
    config = recipe_with(tmp_path, EvalDataset="annotations.json")
    assert open_weights("own.safetensors", config).weights.categories[1] == Category(42, "bar")


def test_eighty_classes_are_cocos(
    tmp_path: Path, r18_state: dict[str, Tensor], write_coco: Callable[..., Path]
) -> None:
    file = write_foreign(tmp_path / "a.pth", r18_state, "solo")
    assert open_weights(file, solov2.load_config(R18)).weights.categories == COCO_CATEGORIES
    write_coco([], categories=[(number, f"kind {number}") for number in range(80)], pictures=False)
    block = json.dumps({"dataset_dir": str(tmp_path), "anno_path": "annotations.json"})
    named = open_weights(file, solov2.load_config(R18, [f"TestDataset={block}"])).weights.categories
    assert named[79] == Category(79, "kind 79")


# ----------------------------------------------------------------------------------------------- recipes


def test_the_nearest_recipe_is_named(tmp_path: Path, r18_state: dict[str, Tensor]) -> None:
    state = {name: tensor for name, tensor in r18_state.items() if name != "fpn.outputs.0.bias"}
    message = refused(write_foreign(tmp_path / "nearly.pth", state, "solo"))
    assert f"; nearest is {R18}: 1 missing from it (fpn.outputs.0.bias); convert it with its own recipe: " in message
    assert message.endswith(f"solov2 convert {tmp_path / 'nearly.pth'} NEW.safetensors -c RECIPE")
    assert "has the authors' names" in message


def test_no_recipe_is_near(unnamed: Path) -> None:
    message = refused(unnamed)
    assert "nearest" not in message
    assert "has PaddleDetection's names" in message


def test_another_recipe_than_the_one_given(tmp_path: Path, r18_state: dict[str, Tensor], unnamed: Path) -> None:
    file = write_foreign(tmp_path / "a.pth", r18_state, "solo")
    message = refused(file, solov2.load_config(R34))
    assert message.endswith(f"; use the recipe they were trained with; they have the network of {R18}")
    assert "network of" not in refused(file, solov2.load_config(R18, ["num_classes=3"]))
    assert "network of" not in refused(unnamed, solov2.load_config(R18))


@pytest.mark.parametrize("given", [True, False])
def test_a_detector_of_another_kind_is_no_backbone(tmp_path: Path, given: bool) -> None:
    state = {
        "backbone.bottom_up.stem.conv1.weight": torch.ones(64, 3, 7, 7),
        "proposal_generator.rpn_head.conv.weight": torch.ones(2),
        "roi_heads.mask_head.predictor.weight": torch.ones(2),
    }
    torch.save({"model": state}, tmp_path / "mask_rcnn.pth")
    message = refused(tmp_path / "mask_rcnn.pth", solov2.load_config(R18) if given else None)
    assert message.endswith("has AdelaiDet's names, but no SOLOv2 head; expected weights of a SOLOv2 model")


def test_a_backbone_with_a_recipe_is_no_model_either(tmp_path: Path, r18_state: dict[str, Tensor]) -> None:
    backbone = {name: tensor for name, tensor in r18_state.items() if name.startswith("backbone.")}
    torch.save(foreign_state(backbone, "torchvision"), tmp_path / "resnet18.pth")
    assert "holds a backbone to start training from" in refused(tmp_path / "resnet18.pth", solov2.load_config(R18))


# ---------------------------------------------------------------------------------------- the command line


def one_error(capsys: Capture, *words: str | Path) -> str:
    assert main([*map(str, words)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    return line


def test_the_weights_that_a_recipe_names_are_missing(
    tmp_path: Path, save: Callable[..., Path], capsys: Capture
) -> None:
    recipe = tmp_path / "own.yml"
    recipe.write_text(f"_BASE_: ['{SMALL}']\nweights: output/own/model_final\n")
    line = one_error(capsys, "infer", "-c", recipe, "--infer_img", save(), "--device", "cpu")
    assert line == (
        f"solov2: error: {recipe}: its key 'weights' names output/own/model_final, and there is no such file; "
        "give a file with -w"
    )


def test_a_threshold_that_is_none(
    tmp_path: Path, tiny_weights: Path, save: Callable[..., Path], capsys: Capture
) -> None:
    write_weights(tmp_path / "a.safetensors", dataclasses.replace(read_weights(tiny_weights), score_threshold=1.5))
    line = one_error(capsys, "predict", "-m", tmp_path / "a.safetensors", save(), "--device", "cpu")
    assert "a.safetensors: its score threshold is 1.5; expected a score in 0..1" in line
