"""Weights of other frameworks by file and by name: which recipe, which classes, what is refused."""

from __future__ import annotations

import dataclasses
import json
import logging
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import solov2
from solov2.cli import main
from solov2.errors import WeightsError
from solov2.opening import convert, open_weights, open_zoo
from solov2.structures import Category
from solov2.weights import download, load, zoo
from solov2.weights.cache import download_place, model_place
from solov2.weights.exporting import foreign_state
from solov2.weights.files import WeightsFile, read_weights, write_weights
from solov2.weights.names import Framework
from tests.parity.paddle_weights import write_pdparams
from tests.weights.local_server import LocalServer, local_server, send, send_part, send_status

FIXTURES = Path(__file__).parent / "fixtures"
SMALL = FIXTURES / "small_resnet.yml"
R18 = "solov2_light_448_r18_fpn_8gpu_3x"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root_logger: None) -> None:
    """A cache and a working folder of its own, and nobody warned yet."""
    monkeypatch.setenv("SOLOV2_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setattr(download, "_warned", set())
    monkeypatch.setattr(load, "_told", set())


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with local_server() as running:
        yield running


def make_state(recipe: str | Path, classes: int, *overrides: str) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return solov2.build_model(solov2.load_config(recipe, [f"num_classes={classes}", *overrides])).state_dict()


def write_foreign(path: Path, state: dict[str, Tensor], framework: Framework, **beside: Any) -> Path:
    tensors = foreign_state(state, framework)
    if framework == "paddledetection":
        path.write_bytes(pickle.dumps({name: tensor.numpy() for name, tensor in tensors.items()}, protocol=2))
    else:
        torch.save({"state_dict": tensors, **beside}, path)
    return path


@pytest.fixture(scope="module")
def r18_state() -> dict[str, Tensor]:
    return make_state(R18, 80)


@pytest.fixture
def r18_file(r18_state: dict[str, Tensor], tmp_path: Path) -> Path:
    return write_foreign(tmp_path / "SOLOv2_LIGHT_448_R18_3x.pth", r18_state, "solo")


# ------------------------------------------------------------------------------------------- by file


def test_a_published_file_brings_recipe_classes_and_licence(
    r18_file: Path, r18_state: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    opened = open_weights(r18_file.with_suffix(""))  # also without its suffix
    assert opened.config.name == R18
    assert [category.id for category in opened.weights.categories][:13] == [*range(1, 12), 13, 14]
    assert opened.weights.about["licence"].startswith("non-commercial")
    for name, tensor in opened.network.state_dict().items():
        assert torch.equal(tensor, r18_state[name]), name
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len([text for text in warnings if "licence" in text]) == 1
    open_weights(r18_file)
    assert len([record for record in caplog.records if "licence of these" in record.message]) == 1


def test_the_licence_stays_with_a_published_file_whatever_its_recipe(r18_file: Path, tmp_path: Path) -> None:
    written = convert(r18_file, tmp_path / "own.safetensors", solov2.load_config(R18))
    assert written.weights.about["licence"].startswith("non-commercial")
    assert read_weights(written.path).about == written.weights.about


@pytest.mark.slow
def test_a_file_with_another_name_is_recognised_by_its_tensors(
    r18_state: dict[str, Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for framework in ("solo", "mmdetection"):
        opened = open_weights(write_foreign(tmp_path / f"{framework}.pth", r18_state, framework))  # type: ignore[arg-type]
        assert opened.config.name == R18
        assert opened.weights.about == {}
    # mmdetection's own weights are free, those under the authors' names may be theirs
    told = [record.message for record in caplog.records if "licence" in record.message]
    assert len(told) == 1
    assert "solo.pth" in told[0]


def test_class_names_of_the_file(tmp_path: Path) -> None:
    state = make_state(R18, 2)
    named = write_foreign(tmp_path / "named.pth", state, "solo", meta={"CLASSES": ("disc", "long_bar")})
    assert open_weights(named).weights.categories == (Category(1, "disc"), Category(2, "long bar"))
    unnamed = write_foreign(tmp_path / "unnamed.pth", state, "solo")
    opened = open_weights(unnamed)
    assert opened.weights.categories == ()
    assert opened.config.model.num_classes == 2


def test_of_a_network_that_nobody_published(tmp_path: Path) -> None:
    file = write_foreign(tmp_path / "own.pdparams", make_state(SMALL, 2), "paddledetection")
    with pytest.raises(WeightsError, match=r"of none of solov2_r50_fpn_1x_coco.*; convert it with its own recipe: "):
        open_weights(file)
    opened = open_weights(file, solov2.load_config(SMALL, ["num_classes=2"]))
    assert opened.network.grid_head.category_output.out_channels == 2
    with pytest.raises(WeightsError, match="is for 2 classes, the model for 80"):
        open_weights(file, solov2.load_config(SMALL))


def test_a_backbone_is_no_model(r18_state: dict[str, Tensor], tmp_path: Path) -> None:
    file = tmp_path / "backbone.pth"
    backbone = {name: tensor for name, tensor in r18_state.items() if name.startswith("backbone.")}
    torch.save(foreign_state(backbone, "torchvision"), file)
    with pytest.raises(WeightsError, match=r"holds a backbone .* use it as pretrain_weights"):
        open_weights(file)


def test_a_class_list_of_another_width_is_refused(tiny_weights: Path, tmp_path: Path) -> None:
    weights = read_weights(tiny_weights)
    file = tmp_path / "wrong.safetensors"
    write_weights(file, dataclasses.replace(weights, categories=(*weights.categories, Category(9, "third"))))
    with pytest.raises(WeightsError, match="names 3 classes, but its head has 2"):
        solov2.load(file, device="cpu")


def test_our_own_backbone_is_no_model(tmp_path: Path) -> None:
    file = tmp_path / "backbone.safetensors"
    write_weights(file, WeightsFile({"stem.conv.weight": torch.zeros(2, 2)}))
    with pytest.raises(WeightsError, match="holds a backbone"):
        open_weights(file)


# ------------------------------------------------------------------------------------------- convert


def test_convert(tmp_path: Path, capsys: Capture) -> None:
    """What is written needs nothing else: recipe, classes and the same numbers."""
    state = make_state(SMALL, 2)
    source = write_foreign(tmp_path / "own.pdparams", state, "paddledetection")
    (tmp_path / "names.txt").write_text("disc\n\nbar\n")
    words = ["convert", str(source), "own.safetensors", "-c", str(SMALL), "-o", "num_classes=2"]
    assert main([*words, "--classes", "names.txt"]) == 0
    assert "2 classes (disc, bar)" in capsys.readouterr().out
    predictor = solov2.load("own", device="cpu")
    assert predictor.categories == (Category(1, "disc"), Category(2, "bar"))
    assert all(torch.equal(tensor, state[name]) for name, tensor in predictor.model.state_dict().items())
    assert predictor.predict(np.zeros((40, 50, 3), np.uint8)).masks.shape[1:] == (40, 50)
    assert main([*words]) == 2  # is there already
    assert "--force" in capsys.readouterr().err
    assert main([*words, "--force", "--half"]) == 0
    assert "which have no names" in capsys.readouterr().out
    half = solov2.load("own.safetensors", device="cpu").model.state_dict()
    name = "grid_head.kernel_tower.0.conv.weight"
    assert torch.equal(half[name], state[name].half().float())
    assert predictor.config == solov2.load("own.safetensors", device="cpu").config


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["own.pdparams", "own.pth"], "expected a name that ends in .safetensors"),
        (["nothing", "own.safetensors"], "'nothing' is neither a file nor the name of a model"),
        (["own.pdparams", "own.safetensors"], "solov2 convert own.pdparams NEW.safetensors -c RECIPE"),
        (["own.pdparams", "own.safetensors", "-o", "num_classes=2"], "overrides change a recipe"),
        (["own.pdparams", "o.safetensors", "-c", str(SMALL), "--classes", "1.txt", "-o", "num_classes=2"], "1 is"),
        (["own.pdparams", "o.safetensors", "-c", str(SMALL), "--classes", "0.txt"], "names 0 classes"),
        (["own.pdparams", "o.safetensors", "-c", str(SMALL), "--classes", "none.json"], "none.json: no such file"),
        (["own.pdparams", "o.safetensors", "-c", str(SMALL), "--classes", "names.json"], "no json with 'categories'"),
        (["own.pdparams", "1.txt/o.safetensors", "-c", str(SMALL)], "1.txt is a file, not a folder); make room"),
        (["names.json", "o.safetensors"], "not a weights file"),
    ],
)  # fmt: skip
def test_wrong_input_of_convert(tmp_path: Path, capsys: Capture, words: list[str], message: str) -> None:
    write_foreign(tmp_path / "own.pdparams", make_state(SMALL, 2), "paddledetection")
    (tmp_path / "1.txt").write_text("disc")
    (tmp_path / "0.txt").write_text("\n")
    (tmp_path / "names.json").write_text("{}")
    before = sorted(tmp_path.iterdir())
    assert main(["convert", *words]) == 2
    err = capsys.readouterr().err
    errors = [line for line in err.splitlines() if line.startswith("solov2: error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert sorted(tmp_path.iterdir()) == before


def test_classes_of_a_coco_json(tmp_path: Path, write_coco: Callable[..., Path]) -> None:
    source = write_foreign(tmp_path / "own.pdparams", make_state(SMALL, 2), "paddledetection")
    json_file = write_coco([], pictures=False)
    words = ["convert", str(source), "own.safetensors", "-c", str(SMALL), "-o", "num_classes=2"]
    assert main([*words, "--classes", str(json_file)]) == 0
    assert solov2.load("own", device="cpu").categories == (Category(7, "disc"), Category(42, "bar"))


# ------------------------------------------------------------------- wherever weights are taken


@pytest.mark.slow
def test_foreign_weights_in_every_command(
    tmp_path: Path, write_coco: Callable[..., Path], save: Callable[..., Path], capsys: Capture
) -> None:
    """Evaluated, predicted with and trained from, by their own file and their own recipe."""
    file = write_foreign(tmp_path / "own.pdparams", make_state(SMALL, 2), "paddledetection")
    square = [4, 4, 20, 4, 20, 20, 4, 20]
    images = [{"id": n, "file_name": f"{n}.png", "height": 64, "width": 96} for n in (1, 2)]
    record = {"id": 1, "image_id": 1, "category_id": 42, "segmentation": [square], "bbox": [4, 4, 16, 16]}
    data = str(write_coco(images, [{**record, "area": 256, "iscrowd": 0}]))
    recipe = ["-c", str(SMALL), "--device", "cpu", "-o", "num_classes=2"]
    assert main(["eval", "-w", str(file.with_suffix("")), "--data", data, *recipe]) == 0
    assert "mask AP" in capsys.readouterr().out
    assert main(["infer", "-w", str(file), "--infer_img", str(save()), *recipe]) == 0
    words = ["train", "--data", data, *recipe, f"pretrain_weights={file}", "epoch=1", "LearningRate.base_lr=1e-12"]
    assert main(words) == 0
    trained = read_weights(tmp_path / "output" / "small_resnet" / "model_final.safetensors").state
    for name, tensor in make_state(SMALL, 2).items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(trained[name], tensor, rtol=0, atol=1e-8)


def test_eval_names_classes_after_the_data_it_is_given(
    tmp_path: Path, write_coco: Callable[..., Path], capsys: Capture
) -> None:
    """The recipe's own annotation file has other classes, as many, under other ids."""
    file = write_foreign(tmp_path / "own.pdparams", make_state(SMALL, 2), "paddledetection")
    other = write_coco([], categories=((1, "cat"), (2, "dog")), pictures=False, name="other.json")
    data = str(write_coco([{"id": 1, "file_name": "1.png", "height": 24, "width": 32}]))
    words = ["eval", "-w", str(file), "-c", str(SMALL), "--data", data, "--device", "cpu", "--json", "found.json"]
    assert main([*words, "-o", "num_classes=2", f"TestDataset.anno_path={other}"]) == 0
    assert {record["category_id"] for record in json.loads((tmp_path / "found.json").read_text())} <= {7, 42}


def test_eval_with_data_of_other_classes(tmp_path: Path, write_coco: Callable[..., Path], capsys: Capture) -> None:
    file = write_foreign(tmp_path / "own.pdparams", make_state(SMALL, 3), "paddledetection")
    data = str(write_coco([{"id": 1, "file_name": "1.png", "height": 24, "width": 32}]))
    words = ["eval", "-w", str(file), "-c", str(SMALL), "--data", data, "--device", "cpu", "-o", "num_classes=3"]
    assert main(words) == 2
    assert "the model has 3 classes, the annotation file 2" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------- by name


@pytest.fixture
def published(r18_state: dict[str, Tensor], server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> LocalServer:
    """The zoo's smallest model, at an address of this machine."""
    folder = Path("published")
    folder.mkdir()
    file = write_foreign(folder / "SOLOv2_LIGHT_448_R18_3x.pth", r18_state, "solo")
    serve(server, R18, file, monkeypatch)
    return server


def serve(server: LocalServer, name: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.set(f"/{file.name}", [send(file.read_bytes())])
    entries = tuple(dataclasses.replace(e, url=url) if e.name == name else e for e in zoo.ZOO)
    monkeypatch.setattr(zoo, "ZOO", entries)


def test_a_name_is_downloaded_and_converted_once(
    published: LocalServer, r18_state: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    place = open_zoo(R18)
    assert place == model_place(R18)
    assert len(published.asked) == 1
    predictor = solov2.load(R18, device="cpu")
    assert len(published.asked) == 1
    assert predictor.config.name == R18
    assert len(predictor.categories) == 80
    assert torch.equal(predictor.model.fpn.outputs[0].weight, r18_state["fpn.outputs.0.weight"])
    about = read_weights(place).about
    assert about["source"] == "SOLOv2_LIGHT_448_R18_3x.pth of authors (WXinlong/SOLO)"
    assert len([record for record in caplog.records if "licence" in record.message]) == 1
    # the published file's own name will do as well
    assert open_weights("SOLOv2_LIGHT_448_R18_3x").path == place


def test_two_processes_that_convert_the_same_model(published: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = download.fetch

    def slower_than_another(url: str) -> Path:
        source = fetch(url)
        with monkeypatch.context() as patch:
            patch.setattr("solov2.opening.fetch", fetch)
            open_zoo(R18)
        return source

    monkeypatch.setattr("solov2.opening.fetch", slower_than_another)
    assert open_zoo(R18) == model_place(R18)
    assert read_weights(model_place(R18)).about["source"].startswith("SOLOv2_LIGHT_448_R18_3x.pth")


@pytest.mark.slow
@pytest.mark.parametrize("published_file", ["here", "gone"])
@pytest.mark.parametrize("state", ["of another version", "damaged"])
def test_a_converted_model_that_does_not_serve(published: LocalServer, state: str, published_file: str) -> None:
    place = open_zoo(R18)
    if state == "damaged":
        place.write_bytes(place.read_bytes()[:-100])
    else:
        content = place.read_bytes()
        assert content.count(solov2.__version__.encode()) == 1
        place.write_bytes(content.replace(solov2.__version__.encode(), b"9" * len(solov2.__version__)))
    spoilt = place.read_bytes()
    if published_file == "gone":
        next(download_place(entry.url) for entry in zoo.ZOO if entry.name == R18).unlink()
    assert open_zoo(R18) == place
    kept = (state, published_file) == ("of another version", "gone")
    assert (place.read_bytes() == spoilt) == kept
    assert len(published.asked) == 1 + ((state, published_file) == ("damaged", "gone"))


def test_weights_by_name_into_a_model(published: LocalServer) -> None:
    model = solov2.build_model(solov2.load_config(R18))
    solov2.load_weights(model, R18)
    assert len(published.asked) == 1
    assert not model_place(R18).exists()  # a model brings its recipe: nothing to convert


def test_the_zoo_command(published: LocalServer, capsys: Capture) -> None:
    assert main(["zoo", "download", R18]) == 0
    assert str(model_place(R18)) in capsys.readouterr().out
    assert main(["zoo", "show", R18]) == 0
    assert str(model_place(R18).parent) in capsys.readouterr().out
    assert main(["zoo", "verify"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["cut", "missing", "gone", "another file", "other weights", "full disk"])
def test_trouble_leaves_one_line_and_nothing_else(
    published: LocalServer, capsys: Capture, monkeypatch: pytest.MonkeyPatch, save: Callable[..., Path], trouble: str
) -> None:
    url = next(entry.url for entry in zoo.ZOO if entry.name == R18)
    path, place = url.removeprefix(published.address), download_place(url)
    body = Path("published", place.name).read_bytes()
    if trouble == "cut":
        published.set(path, [send_part(body, 1000)])
    elif trouble == "missing":
        published.set(path, [send_status(404)])
    elif trouble == "gone":
        monkeypatch.setattr(download, "TIMEOUT", 1.0)
        entries = tuple(dataclasses.replace(e, url="http://127.0.0.1:9/x.pth") if e.name == R18 else e for e in zoo.ZOO)
        monkeypatch.setattr(zoo, "ZOO", entries)
    elif trouble == "another file":
        open_zoo(R18)
        model_place(R18).unlink()
        place.write_bytes(body[:-1] + b"x")
    elif trouble == "other weights":
        published.set(path, [send(Path(write_foreign(Path("b.pth"), make_state(R18, 2), "solo")).read_bytes())])
    else:

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("solov2.atomic.os.fsync", full)
    words = {
        "cut": "the connection was cut",
        "missing": "404",
        "gone": "save it as",
        "another file": "SHA-256",
        "other weights": f"is not the published {R18} (is for 2 classes, the model for 80; ",
        "full disk": "No space left on device",
    }
    assert main(["predict", "-m", R18, str(save()), "--device", "cpu"]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert len(errors) == 1
    assert words[trouble] in errors[0]
    assert not model_place(R18).exists()
    home = Path("home").resolve()
    names = {file.name for file in home.rglob("*") if file.is_file()}
    kept = {place.name, f"{place.name}.sha256.json"} if trouble == "another file" else set()
    assert names == kept


@pytest.mark.slow
def test_predict_with_the_zoos_r50(
    server: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Callable[..., Path], capsys: Capture
) -> None:
    """A rebuilt PaddleDetection file from a server to an overlay, in one command."""
    name = "solov2_r50_fpn_3x_coco"
    file = write_pdparams("solov2_r50_fpn", tmp_path / f"{name}.pdparams")
    serve(server, name, file, monkeypatch)
    file.unlink()
    assert main(["predict", "-m", name, str(save("photo.jpg", 60, 90)), "--device", "cpu", "--threshold", "0.05"]) == 0
    out = capsys.readouterr().out
    assert "photo.jpg  90x60" in out
    assert (tmp_path / "solov2_result" / "photo.jpg").is_file()
    assert len(server.asked) == 1


def test_a_half_finished_conversion_is_not_taken_for_a_model(
    published: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("solov2.weights.files.save_file", stop)
        with pytest.raises(KeyboardInterrupt):
            open_zoo(R18)
    assert not model_place(R18).exists()
    assert open_zoo(R18) == model_place(R18)
    assert len(published.asked) == 1


def test_convert_does_not_replace_a_file_unasked(tiny_weights: Path, tmp_path: Path) -> None:
    target = tmp_path / "there.safetensors"
    target.write_bytes(b"mine")
    with pytest.raises(WeightsError, match="is there already"):
        convert(tiny_weights, target)
    assert target.read_bytes() == b"mine"
    assert convert(tiny_weights, target, overwrite=True).path == target
