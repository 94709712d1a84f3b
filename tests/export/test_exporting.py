"""Whole exports of a shipped model: written, proved, opened and run again."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import solov2
from solov2.cli import main
from solov2.errors import MissingDependencyError, WeightsError
from solov2.export.exporting import Export, export
from solov2.export.options import ExportOptions
from solov2.structures import Instances

EXAMPLES = Path(__file__).parents[2] / "examples"


def crop(name: str, height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The top left of an example picture, (height, width, 3) BGR."""
    return np.ascontiguousarray(np.asarray(Image.open(EXAMPLES / f"nuclei_{name}.jpg"))[:height, :width, ::-1])


PICTURES = [crop("crowded", 128, 160), crop("stained", 110, 150), crop("fluorescence", 90, 130)]
"""In which the model finds more than 20 nuclei."""

needs_onnx = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")), reason="solov2[export]"
)
needs_openvino = pytest.mark.skipif(not importlib.util.find_spec("openvino"), reason="solov2[openvino]")


def assert_same(ours: Instances, theirs: Instances) -> None:
    assert len(ours) > 0
    assert ours.class_names == theirs.class_names
    assert np.abs(ours.scores - theirs.scores).max() < 1e-3
    assert (ours.masks != theirs.masks).mean() < 1e-3


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Export:
    path = tmp_path_factory.mktemp("export") / "deep" / "nuclei.onnx"
    return export("nuclei", path, ExportOptions(), PICTURES)


@needs_onnx
@pytest.mark.slow
def test_the_report_says_what_was_compared(exported: Export) -> None:
    report = json.loads(exported.report.read_text(encoding="utf-8"))
    assert exported.report.name == "nuclei.onnx.parity.json"
    assert report["passed"] is True
    assert report["pictures"] == len(PICTURES)
    assert report["matched_instances"] >= 20
    assert report["least_mask_iou"] >= 0.999
    assert set(report["versions"]) == {"solov2", "python", "torch", "onnx", "onnxscript", "onnxruntime"}
    assert {path.name for path in exported.path.parent.iterdir()} == {"nuclei.onnx", "nuclei.onnx.parity.json"}


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", pytest.param("openvino", marks=needs_openvino)])
def test_an_exported_file_predicts_as_its_weights(exported: Export, runtime: str) -> None:
    ours, theirs = solov2.load("nuclei", device="cpu"), solov2.load(exported.path, runtime=runtime)
    assert theirs.score_threshold == ours.score_threshold
    assert theirs.config == ours.config
    assert theirs.categories == ours.categories
    for one, other in zip(ours.predict_batch(PICTURES), theirs.predict_batch(PICTURES), strict=True):
        assert_same(one, other)


@needs_onnx
@pytest.mark.slow
def test_predict_takes_exported_files(exported: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(PICTURES[0][:, :, ::-1]).save(tmp_path / "crop.png")
    words = ["-m", str(exported.path), "-o", str(tmp_path / "out"), "--runtime", "onnxruntime"]
    assert main(["predict", str(tmp_path / "crop.png"), *words]) == 0
    count = len(solov2.load("nuclei", device="cpu").predict(PICTURES[0]))
    assert count >= 5
    assert f"{count} instances" in capsys.readouterr().out


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["nuclei.onnx", "--size", "256", "320"],
        ["nuclei.pt2"],
        pytest.param(["nuclei.xml"], marks=needs_openvino),
    ],
)
def test_the_command_exports_and_proves(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("solov2.cli.export.EXAMPLES", tmp_path / "none")  # whole ones would take long
    (tmp_path / "pictures").mkdir()
    for number, picture in enumerate(PICTURES):
        Image.fromarray(picture[:, :, ::-1]).save(tmp_path / "pictures" / f"{number}.png")
    destination = tmp_path / words[0]
    given = ["-m", "nuclei", "-o", str(destination), *words[1:], "--pictures", str(tmp_path / "pictures")]
    assert main(["export", *given]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{destination}: ")
    assert "(nuclei" in out
    assert json.loads(destination.with_name(f"{destination.name}.parity.json").read_text())["passed"] is True
    assert destination.is_file()
    assert destination.with_suffix(".bin").is_file() == (destination.suffix == ".xml")


@needs_onnx
@pytest.mark.slow
def test_what_is_not_proved_is_not_left_behind(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"not written, .* instances matched in 1 pictures, 20 needed.*--pictures"):
        export("nuclei", tmp_path / "nuclei.pt2", ExportOptions("torch"), PICTURES[2:])
    assert list(tmp_path.iterdir()) == []


def test_files_are_not_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "there.onnx").write_text("precious")
    with pytest.raises(WeightsError, match=r"there.onnx: is there already; .* or --force to replace it"):
        export("nuclei", tmp_path / "there.onnx", ExportOptions(), PICTURES)
    assert (tmp_path / "there.onnx").read_text() == "precious"


def test_packages_are_looked_for_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match="exporting to onnx needs the package 'onnx': pip install 'solov2"):
        export("nuclei", tmp_path / "a.onnx", ExportOptions(), PICTURES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "a.bin"], "a.bin: expected a name that ends in .onnx (onnx)"),
        (["-o", "a.onnx", "--format", "torch"], "a.onnx: expected a name that ends in .pt2 (torch)"),
        (["-o", "a.onnx", "--size", "448"], "--size 448: expected height and width"),
        (["-o", "a.onnx", "--size", "450", "768"], "the size is 450x768; expected height and width, multiples of 32"),
        (["-o", "a.onnx", "--pictures", "gone/*.png"], "gone/*.png: no file matches this pattern"),
    ],
)
def test_what_is_wrong_is_said(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "-m", "nuclei", *words]) == 2
    assert message in capsys.readouterr().err
