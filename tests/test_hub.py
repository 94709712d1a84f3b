"""PaddleHub's Python interface: names, types and meanings as its page has them, without its errors."""

from __future__ import annotations

import inspect
import logging
import multiprocessing
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import solov2
from solov2 import hub
from solov2.errors import ConfigError, ImageError, WeightsError
from solov2.predict import MODEL_VARIABLE
from tests.conftest import noise_picture
from tests.test_imports import heavy_modules_after

Save = Callable[..., Path]
Log = pytest.LogCaptureFixture

EXAMPLES = Path(__file__).parents[1] / "examples"
PAGE = (Path(__file__).parents[1] / "docs" / "migrating_from_paddlehub.md").read_text(encoding="utf-8")
LOW = 0.1


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative outputs go to the test's folder, and nobody's environment counts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(MODEL_VARIABLE, raising=False)


@pytest.fixture
def module(tiny_weights: Path) -> hub.Module:
    return hub.Module(name=str(tiny_weights))


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What was loaded, and on which device; nothing is."""
    calls: list[tuple[str, str]] = []
    monkeypatch.setattr("solov2.predict.load", lambda model, device: calls.append((str(model), device)))
    return calls


def check_types(output: hub.Result, count: int, height: int, width: int) -> None:
    assert list(output) == ["segm", "label", "score"]
    found = {key: (value.dtype, value.shape) for key, value in output.items()}  # type: ignore[attr-defined]
    assert found == {
        "segm": (np.int32, (count, height, width)),
        "label": (np.int64, (count,)),
        "score": (np.float32, (count,)),
    }


# ------------------------------------------------------------------------------------------- signatures


def test_arguments_are_those_of_the_page() -> None:
    parameters = inspect.signature(hub.Module.predict).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        "self": inspect.Parameter.empty,
        "image": inspect.Parameter.empty,
        "threshold": 0.5,
        "visualization": False,
        "save_dir": "solov2_result",
    }
    of_module = {name: parameter.default for name, parameter in inspect.signature(hub.Module).parameters.items()}
    assert of_module == {
        "name": None, "use_gpu": False, "version": None, "directory": None,
        "source": None, "update": False, "branch": None,
    }  # fmt: skip


@pytest.mark.parametrize("code", ["from solov2 import hub", "import solov2.hub as hub; hub.Module"])
def test_importing_it_loads_no_torch(code: str) -> None:
    assert heavy_modules_after(code) == []


# ---------------------------------------------------------------------------------------------- results


def test_results_are_those_of_the_predictor(module: hub.Module, tiny_weights: Path, save: Save) -> None:
    path = save()
    output = module.predict(str(path), threshold=LOW)
    found = solov2.load(tiny_weights, device="cpu").predict(path, LOW)
    assert len(found) > 1
    check_types(output, len(found), 40, 56)
    np.testing.assert_array_equal(output["segm"], found.masks)
    np.testing.assert_array_equal(output["label"], found.labels)
    np.testing.assert_array_equal(output["score"], found.scores)
    assert set(np.unique(output["segm"]).tolist()) == {0, 1}
    assert (np.diff(output["score"]) <= 0).all()


def test_labels_are_indices_and_no_ids(module: hub.Module, save: Save) -> None:
    """The tiny model's ids are 7 and 42."""
    labels = [module.predict(save(f"{seed}.png", seed=seed), threshold=LOW)["label"] for seed in range(3)]
    assert set(np.concatenate(labels).tolist()) <= {0, 1}


def test_the_threshold_filters(module: hub.Module, save: Save) -> None:
    path = save()
    scores = module.predict(path, threshold=LOW)["score"]
    assert len(scores) > 2
    least = float(scores[1])  # what scores exactly the threshold stays
    output = module.predict(path, threshold=least)
    check_types(output, int((scores >= least).sum()), 40, 56)
    assert output["score"].min() == least
    assert len(output["score"]) < len(scores)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_thresholds_outside_0_and_1(module: hub.Module, threshold: float) -> None:
    with pytest.raises(ValueError, match=r"threshold is .*; expected a score in 0\.\.1"):
        module.predict(noise_picture(8, 8), threshold=threshold)


def test_nothing_found(module: hub.Module) -> None:
    output = module.predict(np.zeros((7, 5, 3), np.uint8), threshold=1.0)
    check_types(output, 0, 7, 5)
    assert output["segm"].reshape((-1, 7, 5)).shape == (0, 7, 5)


def test_an_array_is_bgr(module: hub.Module, save: Save) -> None:
    path = save()
    from_path, from_array = module.predict(path, LOW), module.predict(image=cv2.imread(str(path)), threshold=LOW)
    for key in ("segm", "label", "score"):
        np.testing.assert_array_equal(from_path[key], from_array[key])  # type: ignore[literal-required]
    exchanged = module.predict(cv2.imread(str(path))[:, :, ::-1], LOW)
    assert exchanged["score"].tolist() != from_path["score"].tolist()


def test_objects_of_a_photograph() -> None:
    """The default model under PaddleHub's name: a dog is COCO's class 16 counted from 0 (its own id is 18)."""
    output = hub.Module(name="solov2", use_gpu=False).predict(image=cv2.imread(str(EXAMPLES / "dog.jpg")))
    assert len(output["label"]) > 0
    assert output["label"][0] == 16
    assert output["segm"][0].sum() > 1000


# ---------------------------------------------------------------------------------------- wrong pictures


@pytest.mark.parametrize("name", ["no.jpg", "no_folder/no.jpg", Path("no.jpg")])
def test_a_missing_file_is_pythons_own_error(module: hub.Module, name: str | Path) -> None:
    with pytest.raises(FileNotFoundError, match=rf"^{name}: no such file; give the path of a picture$"):
        module.predict(image=name)  # type: ignore[arg-type]


def test_files_that_are_no_pictures(module: hub.Module, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("no picture")
    (tmp_path / "empty.jpg").touch()
    for name, message in {"a.jpg": "not a picture", "empty.jpg": "is empty", ".": "a folder"}.items():
        with pytest.raises(ImageError, match=message):
            module.predict(image=name)


@pytest.mark.parametrize("array", [np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)])
def test_arrays_of_another_form(module: hub.Module, array: Any) -> None:
    with pytest.raises(ImageError, match=r"expected \(H, W, 3\) in BGR order"):
        module.predict(image=array)


# --------------------------------------------------------------------------------------------- overlays


def test_nothing_is_written_unless_asked_for(module: hub.Module, tmp_path: Path) -> None:
    module.predict(noise_picture(40, 56), LOW)
    assert list(tmp_path.iterdir()) == []


def test_overlays(module: hub.Module, caplog: Log) -> None:
    picture = noise_picture(40, 56)
    with caplog.at_level(logging.INFO, "solov2.hub"):
        module.predict(picture, LOW, visualization=True)
    (path,) = Path("solov2_result").iterdir()
    assert path.suffix == ".png"
    assert caplog.messages == [f"overlay: {path}"]
    drawn = cv2.imread(str(path))
    assert drawn.shape == picture.shape
    assert (drawn != picture).any()  # BGR, as the picture was given


def test_an_overlay_of_nothing_is_the_picture(module: hub.Module) -> None:
    picture = noise_picture(40, 56)
    module.predict(picture, 1.0, visualization=True, save_dir="a/b")
    (path,) = Path("a/b").iterdir()
    np.testing.assert_array_equal(cv2.imread(str(path)), picture)


def test_no_overlay_takes_anothers_name(module: hub.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("solov2.hub.time.time", lambda: 1.5)  # clocks are coarse, and several processes share one
    for _ in range(20):
        module.predict(noise_picture(8, 8), 1.0, visualization=True, save_dir=tmp_path / "out")
    names = [path.name for path in (tmp_path / "out").iterdir()]
    assert len(names) == 20
    assert all(name.startswith("1.500_") for name in names)


def _save_some(folder: Path) -> None:
    found = solov2.Instances.empty((4, 4))
    for _ in range(10):
        hub.save_overlay(np.zeros((4, 4, 3), np.uint8), found, folder)


def test_nor_does_that_of_another_process(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_save_some, args=(tmp_path / "out",)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list((tmp_path / "out").iterdir())) == 20


def test_a_folder_that_cannot_be_written(module: hub.Module, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match=r"file/.*\.png: cannot be written"):
        module.predict(noise_picture(8, 8), 1.0, visualization=True, save_dir="file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# ------------------------------------------------------------------------------------------ which model


@pytest.mark.parametrize(
    ("name", "variable", "model"),
    [
        ("solov2", None, "solov2_nano_coco"),
        ("solov2", "", "solov2_nano_coco"),
        ("solov2", "solov2", "solov2_nano_coco"),
        ("solov2", "nuclei", "nuclei"),
        ("solov2", "mine/best_model.safetensors", "mine/best_model.safetensors"),
        ("nuclei", "solov2_r50_fpn_1x_coco", "nuclei"),
        ("solov2_r50_fpn_1x_coco", None, "solov2_r50_fpn_1x_coco"),
    ],
)
def test_names(
    loaded: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, name: str, variable: str | None, model: str
) -> None:
    if variable is not None:
        monkeypatch.setenv(MODEL_VARIABLE, variable)
    assert hub.Module(name=name).name == name
    assert loaded == [(model, "cpu")]


def test_a_version_is_understood(loaded: list[tuple[str, str]], caplog: Log) -> None:
    with caplog.at_level(logging.INFO, "solov2.hub"):
        hub.Module(name="solov2", version="1.2.0")
    assert loaded == [("solov2_nano_coco", "cpu")]
    assert "version 1.2.0 is one of PaddleHub's module; models of this package have only one" in caplog.messages


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["best_model.safetensors", "model_final.safetensors", "last.ckpt"], "best_model.safetensors"),
        (["model_final.pdparams", "other.pth"], "model_final.pdparams"),
        (["mine.pth", "notes.txt"], "mine.pth"),
        (["model.onnx", "model.parity.json"], "model.onnx"),
    ],
)
def test_folders(loaded: list[tuple[str, str]], tmp_path: Path, files: list[str], chosen: str) -> None:
    for name in files:
        (tmp_path / name).touch()
    assert hub.Module(directory=tmp_path).name == str(tmp_path)
    assert loaded == [(str(tmp_path / chosen), "cpu")]


def test_a_name_wins_over_a_folder(loaded: list[tuple[str, str]], tmp_path: Path) -> None:
    hub.Module(name="nuclei", directory=str(tmp_path / "not_there"))
    assert loaded == [("nuclei", "cpu")]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "is a folder without weights in it"),
        (["a.pth", "b.pth"], r"give one of the weights files in it: a\.pth, b\.pth"),
        (["module.py", "label_list.txt"], "is a module of PaddleHub.*solov2_r50_fpn_1x_coco: give that as name"),
    ],
)
def test_folders_without_a_choice(tmp_path: Path, files: list[str], message: str) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(WeightsError, match=message):
        hub.Module(directory=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ConfigError, r"neither name nor directory is given; expected hub\.Module\(name='solov2'\)"),
        ({"directory": "not_there"}, WeightsError, "not_there: no such folder"),
        ({"name": "solov2_nano_cocoo"}, WeightsError, "did you mean solov2_nano_coco"),
        ({"name": "solov2", "source": "https://example.org/x.git"}, ConfigError, "a repository whose code would run"),
        ({"name": "no/such.pdparams"}, WeightsError, "no such file"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        hub.Module(**arguments)


@pytest.mark.parametrize(
    ("device", "warnings"),
    [("cpu", ["use_gpu is true, and PyTorch finds no GPU here: predicting on the CPU"]), ("cuda", [])],
)
def test_use_gpu(
    loaded: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: Log,
    device: str,
    warnings: list[str],
) -> None:
    import torch

    monkeypatch.setattr("solov2.predict.choose_device", lambda name: torch.device(device))
    hub.Module(name="solov2", use_gpu=True)
    assert loaded == [("solov2_nano_coco", "auto")]
    assert caplog.messages == warnings


# --------------------------------------------------------------------------------------------- the page


def test_the_pages_first_program(tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODEL_VARIABLE, str(tiny_weights))
    shutil.copy(EXAMPLES / "dog.jpg", tmp_path)
    program = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
    assert "from solov2 import hub" in program
    values: dict[str, Any] = {}
    exec(program.replace("/PATH/TO/IMAGE", str(tmp_path / "dog.jpg")), values)
    height, width = cv2.imread(str(tmp_path / "dog.jpg")).shape[:2]
    check_types(values["output"], len(values["output"]["label"]), height, width)


def test_the_pages_client_decodes_an_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Against an answer as the service gives it, without one."""
    import base64

    sent: dict[str, Any] = {}
    expected = {
        "segm": np.arange(2 * 6 * 4, dtype=np.int32).reshape(2, 6, 4),
        "label": np.array([3, 16]),
        "score": np.array([0.75, 0.5], np.float32),
    }

    class Answer:
        def json(self) -> dict[str, Any]:
            results = {key: base64.b64encode(value.tobytes()).decode() for key, value in expected.items()}
            return {"msg": "", "results": results, "status": "000"}

    def post(url: str, **kwargs: Any) -> Answer:
        sent.update(kwargs, url=url)
        return Answer()

    monkeypatch.setattr("requests.post", post)
    picture = tmp_path / "a.png"
    cv2.imwrite(str(picture), noise_picture(6, 4))
    (program,) = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "requests" in block]
    values: dict[str, Any] = {}
    exec(program.replace("/PATH/TO/IMAGE", str(picture)), values)
    assert sent["url"] == "http://127.0.0.1:8866/predict/solov2"
    (image,) = sent["json"]["images"]
    assert cv2.imdecode(np.frombuffer(base64.b64decode(image), np.uint8), cv2.IMREAD_COLOR).shape == (6, 4, 3)
    for name, value in expected.items():
        np.testing.assert_array_equal(values[name], value)
        assert values[name].dtype == value.dtype


def test_the_page_names_every_argument() -> None:
    for function in (hub.Module, hub.Module.predict):
        for name in inspect.signature(function).parameters:
            assert name == "self" or f"`{name}" in PAGE, name
