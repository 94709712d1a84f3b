"""solov2 eval --bootstrap, --reliability and --calibrate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import solov2
from solov2.build import build_dataset
from solov2.cli import main
from solov2.coco_metrics import calibrated
from solov2.config.own_data import with_own_data
from solov2.evaluate import evaluate
from solov2.formats import to_coco_results
from solov2.weights.files import read_weights

from ..conftest import noise_picture

Capture = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("root_logger")


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data(write_coco: Callable[..., Path], tiny_weights: Path) -> Path:
    """Four pictures whose objects are every other thing that the tiny model finds in them, and one more."""
    predictor = solov2.load(tiny_weights, device="cpu")
    images, annotations = [], []
    for number in range(1, 5):
        images.append({"id": number, "file_name": f"{number}.png", "height": 24 + number, "width": 32})
        found = predictor.predict(noise_picture(24 + number, 32, number)[:, :, ::-1], 0.0)
        records = [dict(record) for record in to_coco_results(found, number)]
        other = {**records[0], "category_id": 49 - int(str(records[0]["category_id"]))}
        annotations += [*records[number % 2 :: 2], other]
    for position, record in enumerate(annotations, start=1):
        del record["score"]
        record |= {"id": position, "iscrowd": 0, "area": 100.0}
    return write_coco(images, annotations)


@pytest.fixture
def words(tiny_weights: Path, data: Path) -> list[str]:
    return ["eval", "-w", str(tiny_weights), "--data", str(data), "--device", "cpu"]


def check_refused(capsys: Capture, message: str) -> None:
    out, err = capsys.readouterr()
    assert message in err
    assert err.startswith("solov2: error: ")
    assert "Traceback" not in out + err


def figures(capsys: Capture) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith(("AP", "AR"))]


def test_bootstrap(words: list[str], data: Path, capsys: Capture) -> None:
    assert main([*words, "--bootstrap", "25", "--output_eval", "out"]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("with 95 % intervals, from 25 resamples of the pictures")
    assert [line.split()[0] for line in lines[at + 1 : at + 3]] == ["AP", "AP50"]
    assert lines[at + 1].split()[1] == next(line for line in lines if line.startswith("AP ")).split()[1]
    values = json.loads(Path("out/bootstrap.json").read_text())
    assert values["resamples"] == 25
    assert f"{values['overall']['AP']['low']:.3f}" == lines[at + 1].split()[2]
    assert main(["eval", "--json_eval", "--output_eval", "out", "--data", str(data), "--bootstrap", "25"]) == 0
    assert json.loads(Path("out/bootstrap.json").read_text()) == values


def test_reliability(words: list[str], capsys: Capture) -> None:
    assert main([*words, "--reliability", "new/r.json"]) == 0
    assert "reliability of scores in new/r.json and new/r.png" in capsys.readouterr().out
    values = json.loads(Path("new/r.json").read_text())
    assert values["all"]["count"] == sum(each["count"] for each in values["classes"].values()) > 10
    assert Path("new/r.png").read_bytes()[1:4] == b"PNG"


def test_calibrate(words: list[str], tiny_weights: Path, data: Path, capsys: Capture) -> None:
    raw = read_weights(tiny_weights)
    assert main([*words, "--calibrate", "deep/out.safetensors", "--json", "raw.json"]) == 0
    out = capsys.readouterr().out
    assert "out.safetensors: scores calibrated with " in out
    assert "on these same pictures" in out
    written = read_weights(Path("deep/out.safetensors"))
    assert written.calibration[0] == (0, 0)
    assert written.calibration[-1][0] == 1
    assert f"score threshold {written.score_threshold:g}" in out
    assert (written.categories, written.about, written.trained_on) == (raw.categories, raw.about, raw.trained_on)
    assert all((written.state[name] == tensor).all() for name, tensor in raw.state.items())

    # Weights with a calibration are evaluated with calibrated scores, and the same AP.
    first = [line for line in out.splitlines() if line.startswith(("AP", "AR"))]
    words[2] = "deep/out.safetensors"
    assert main([*words, "--json", "new.json"]) == 0
    assert figures(capsys) == first
    before, after = ([r["score"] for r in json.loads(Path(name).read_text())] for name in ("raw.json", "new.json"))
    assert after == calibrated(before, written.calibration).tolist() != before

    # Calibrated again they begin with raw scores: the same curve.
    assert main([*words, "--calibrate", "again.safetensors"]) == 0
    assert read_weights(Path("again.safetensors")).calibration == written.calibration
    assert main(["convert", "deep/out.safetensors", "converted.safetensors"]) == 0
    converted = read_weights(Path("converted.safetensors"))
    assert (converted.calibration, converted.score_threshold) == (written.calibration, written.score_threshold)


def test_ap_of_a_predictor_stays(words: list[str], tiny_weights: Path, data: Path) -> None:
    assert main([*words, "--calibrate", "out.safetensors"]) == 0
    measured = []
    for weights in (tiny_weights, Path("out.safetensors")):
        predictor = solov2.load(weights, device="cpu")
        config = with_own_data(predictor.config, val=data)
        dataset = build_dataset(config, config.data.eval, categories=predictor.categories, training=False, strict=True)
        evaluation = evaluate(predictor, dataset)
        assert evaluation is not None
        measured.append(evaluation)
    assert measured[0].ap.ap > 0.1
    assert measured[1].ap.stats == pytest.approx(measured[0].ap.stats, abs=1e-9)
    assert measured[1].best_threshold == read_weights(Path("out.safetensors")).score_threshold


def test_calibrated_weights_replace_nothing(words: list[str], capsys: Capture) -> None:
    Path("out.safetensors").write_bytes(b"precious")
    assert main([*words, "--calibrate", "out.safetensors"]) == 2
    check_refused(capsys, "out.safetensors: is there already; give another name, or --force to replace it")
    assert Path("out.safetensors").read_bytes() == b"precious"
    assert main([*words, "--calibrate", "out.safetensors", "--force"]) == 0
    assert read_weights(Path("out.safetensors")).calibration


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--bootstrap", "0"], "--bootstrap is 0; expected how many resamples, 1 or more"),
        (["--force"], "--force is for the file of --calibrate"),
        (["--bootstrap", "5", "--save_prediction_only"], "--bootstrap needs the annotations"),
        (["--reliability", "r.json", "--save_prediction_only"], "--reliability needs the annotations"),
        (["--calibrate", "o.safetensors", "--save_prediction_only"], "--calibrate needs the annotations"),
        (
            ["--calibrate", "o.safetensors", "--boundary"],
            "--calibrate is for a model's own masks: leave out --boundary",
        ),
        (["--calibrate", "o.safetensors", "--json_eval"], "leave out --json_eval"),
        (["--calibrate", "o.ckpt"], "o.ckpt: expected a name that ends in .safetensors"),
        (["--calibrate", "file/o.safetensors"], "/file is a file, not a folder); make room"),
        (["--reliability", "r.txt"], "--reliability is r.txt; expected a name that ends in .json"),
        (["--reliability", "file/r.json"], "file/r.json cannot be written ("),
    ],
)
def test_wrong_words(capsys: Capture, more: list[str], message: str) -> None:
    Path("file").write_text("")
    assert main(["eval", "-w", "nowhere", *more]) == 2
    check_refused(capsys, message)
