"""Whole exports of a tiny model: written, proved, opened and run again."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import solov2
from solov2.cli import main
from solov2.errors import MissingDependencyError, WeightsError
from solov2.export.exporting import Export, export
from solov2.export.options import ExportOptions
from solov2.structures import Instances
from tests.conftest import TINY_CATEGORIES, TINY_THRESHOLD, noise_picture

PICTURES = [noise_picture(64, 96, seed) for seed in range(6)] + [noise_picture(70, 50, seed) for seed in range(3)]

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
def exported(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    path = tmp_path_factory.mktemp("export") / "deep" / "tiny.onnx"
    return export(tiny_weights, path, ExportOptions(), PICTURES)


@needs_onnx
@pytest.mark.slow
def test_the_report_says_what_was_compared(exported: Export) -> None:
    report = json.loads(exported.report.read_text(encoding="utf-8"))
    assert exported.report.name == "tiny.onnx.parity.json"
    assert report["passed"] is True
    assert report["pictures"] == len(PICTURES)
    assert report["matched_instances"] >= 20
    assert report["least_mask_iou"] >= 0.999
    assert set(report["versions"]) == {"solov2", "python", "torch", "onnx", "onnxscript", "onnxruntime"}
    assert {path.name for path in exported.path.parent.iterdir()} == {"tiny.onnx", "tiny.onnx.parity.json"}


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", pytest.param("openvino", marks=needs_openvino)])
def test_an_exported_file_predicts_as_its_weights(exported: Export, tiny_weights: Path, runtime: str) -> None:
    ours, theirs = solov2.load(tiny_weights, device="cpu"), solov2.load(exported.path, runtime=runtime)
    assert theirs.score_threshold == TINY_THRESHOLD
    assert theirs.config == ours.config
    assert [(category.id, category.name) for category in theirs.categories] == list(TINY_CATEGORIES)
    for one, other in zip(ours.predict_batch(PICTURES), theirs.predict_batch(PICTURES), strict=True):
        assert_same(one, other)


@needs_onnx
@pytest.mark.slow
def test_predict_takes_exported_files(
    exported: Export, save: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["-m", str(exported.path), "-o", str(tmp_path / "out"), "--runtime", "onnxruntime"]
    assert main(["predict", str(save(height=64, width=96, seed=1)), *words]) == 0
    assert "5 instances" in capsys.readouterr().out


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["tiny.onnx", "--size", "64", "96"],
        ["tiny.pt2"],
        pytest.param(["tiny.xml"], marks=needs_openvino),
    ],
)
def test_the_command_exports_and_proves(
    words: list[str], tiny_weights: Path, save: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(6):
        save(f"pictures/{seed}.png", 64, 96, seed)
    destination = tmp_path / words[0]
    given = ["-m", str(tiny_weights), "-o", str(destination), *words[1:], "--pictures", str(tmp_path / "pictures")]
    assert main(["export", *given]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{destination}: ")
    assert "(tiny" in out
    assert json.loads(destination.with_name(f"{destination.name}.parity.json").read_text())["passed"] is True
    assert destination.is_file()
    assert destination.with_suffix(".bin").is_file() == (destination.suffix == ".xml")


@needs_onnx
@pytest.mark.slow
def test_what_is_not_proved_is_not_left_behind(tiny_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"not written, .* instances matched in 1 pictures, 20 needed.*--pictures"):
        export(tiny_weights, tmp_path / "tiny.pt2", ExportOptions("torch"), PICTURES[:1])
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
