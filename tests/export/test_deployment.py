"""One exported file of the shipped nuclei model, with masks at the picture's size: evaluated, and quantised."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import solov2
from solov2.cli import main
from solov2.errors import WeightsError
from solov2.export import exporting
from solov2.export.exporting import Export, export
from solov2.export.int8 import Calibration
from solov2.export.options import ExportOptions
from tests.export.test_exporting import EXAMPLES, PICTURES, assert_same, needs_onnx, needs_openvino
from tests.export.test_int8 import needs

FIXTURE = Path(__file__).parents[1] / "fixtures" / "nuclei_examples.json"
RUNTIMES = ["onnxruntime", pytest.param("openvino", marks=needs_openvino)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Export:
    path = tmp_path_factory.mktemp("deployment") / "nuclei.onnx"
    return export("nuclei", path, ExportOptions(masks="picture"), PICTURES)


def evaluated(words: list[str], capsys: pytest.CaptureFixture[str]) -> list[float]:
    """COCO's numbers as the command prints them."""
    data = ["--data", str(FIXTURE), "--images", str(EXAMPLES), "--device", "cpu"]
    assert main(["eval", *words, *data]) == 0
    numbers = re.findall(r"^A[PR]\S*(?: \w+)? +(-|\d\.\d{3})$", capsys.readouterr().out, re.MULTILINE)
    return [-1.0 if number == "-" else float(number) for number in numbers]


@needs_onnx
@needs_openvino
@pytest.mark.slow
def test_evaluation_of_a_file_gives_what_its_weights_give(exported: Export, capsys: pytest.CaptureFixture[str]) -> None:
    expected = evaluated(["-w", "nuclei"], capsys)
    assert len(expected) == 12
    assert expected[0] > 0.7
    for runtime in ("onnxruntime", "openvino"):
        found = evaluated(["-w", str(exported.path), "--runtime", runtime], capsys)
        assert found == pytest.approx(expected, abs=0.0011)  # of three decimals


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_masks_at_the_picture_s_size_are_those_of_the_weights(exported: Export, runtime: str) -> None:
    ours, theirs = solov2.load("nuclei", device="cpu"), solov2.load(exported.path, runtime=runtime)
    for one, other in zip(ours.predict_batch(PICTURES), theirs.predict_batch(PICTURES), strict=True):
        assert_same(one, other)
        assert all(crop.base is None for crop in other.crops)  # whole pictures are let go of


@needs_onnx
@pytest.mark.slow
def test_the_file_says_what_it_is(exported: Export) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(exported.path)
    assert [value.name for value in session.get_inputs()] == ["images", "sizes", "originals"]
    assert [value.name for value in session.get_outputs()] == ["count", "scores", "labels", "masks", "picture_masks"]
    texts = session.get_modelmeta().custom_metadata_map
    about = json.loads(texts["solov2_export"])
    assert about["classes"] == ["nucleus"]
    assert about["masks"] == "picture"
    assert about["half"] is about["int8"] is False
    assert about["calibration"][0] == [0, 0]
    assert 0 < about["score_threshold"] < 1
    assert texts["licence"]


@needs_onnx
@pytest.mark.slow
def test_the_example_without_this_package(exported: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = runpy.run_path(str(EXAMPLES / "onnx_only.py"))
    source, overlay = tmp_path / "crop.png", tmp_path / "overlay.png"
    Image.fromarray(PICTURES[0][:, :, ::-1]).save(source)
    example["main"](str(exported.path), str(source), str(overlay))
    lines = capsys.readouterr().out.splitlines()
    expected = solov2.load(exported.path).predict(source)
    assert all(line.startswith("nucleus  ") for line in lines)
    scores = [float(line.split()[1]) for line in lines]
    # Pillow and OpenCV round what they resize differently.
    assert scores == pytest.approx(expected.scores.tolist(), abs=0.05)
    assert [int(line.split()[2]) for line in lines] == pytest.approx(expected.areas.tolist(), rel=0.1, abs=3)
    with Image.open(overlay) as drawn, Image.open(source) as given:
        assert drawn.size == given.size


@needs_onnx
@needs["nncf"]
@pytest.mark.slow
def test_eight_bits_are_measured_and_refused_or_accepted(
    exported: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Traced and written once is enough.
    monkeypatch.setattr(exporting, "trace", lambda *given: None)
    monkeypatch.setitem(exporting.WRITERS, "onnx", lambda program, path, *given: shutil.copy(exported.path, path))
    options = ExportOptions(int8=True, masks="picture")
    monkeypatch.setattr("solov2.export.accuracy.LEAST_MEAN_IOU", 1.1)
    refused = tmp_path / "refused" / "nuclei.onnx"
    with monkeypatch.context() as patches:
        patches.setattr(exporting, "quantise", lambda *given: None)
        with pytest.raises(WeightsError, match=r"not written, as 8 bits cost too much: mean mask IoU .*--accept$"):
            export("nuclei", refused, options, PICTURES, calibration=Calibration(PICTURES))
    assert list(refused.parent.iterdir()) == []

    monkeypatch.setattr("solov2.cli.export.EXAMPLES", tmp_path / "none")
    (tmp_path / "pictures").mkdir()
    for number, picture in enumerate(PICTURES):
        Image.fromarray(picture[:, :, ::-1]).save(tmp_path / "pictures" / f"{number}.png")
    path, pictures = tmp_path / "nuclei.onnx", str(tmp_path / "pictures")
    words = ["-m", "nuclei", "-o", str(path), "--int8", "--masks", "picture", "--calibrate", pictures, "--accept"]
    assert main(["export", *words, "--pictures", pictures]) == 0
    assert "accepted: mean mask IoU" in capsys.readouterr().out
    report = json.loads((tmp_path / "nuclei.onnx.parity.json").read_text())
    assert report["passed"] is False
    assert report["int8"]["calibration_pictures"] == len(PICTURES)
    assert report["int8"]["accuracy"] is None
    assert "nncf" in report["versions"]
    assert path.stat().st_size < 0.7 * exported.path.stat().st_size
    ours, theirs = solov2.load("nuclei", device="cpu"), solov2.load(path)
    counts = [[len(found) for found in model.predict_batch(PICTURES)] for model in (ours, theirs)]
    assert np.abs(np.subtract(*counts)).sum() <= 0.2 * sum(counts[0])
