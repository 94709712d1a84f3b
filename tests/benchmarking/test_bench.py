import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from solov2 import ConfigError, Solov2Error
from solov2.benchmarking.bench import Request, bench, make_picture
from solov2.benchmarking.forms import STAGES
from solov2.benchmarking.report import as_table, as_values
from solov2.benchmarking.subject import find_subject
from solov2.cli import main

from ..conftest import noise_picture

QUICK = {"size": (64, 96), "rounds": 2, "device": "cpu", "instances": 4}


def test_forms_take_turns(tmp_path: Path) -> None:
    report = bench(Request("nano", ("torch", "plain"), batch=2, **QUICK))  # type: ignore[arg-type]
    assert report.random
    assert [result.name for result in report.results] == ["torch", "plain"]
    for result in report.results:
        assert list(result.stages) == list(STAGES)
        assert all(spread.median >= 0 for spread in result.stages.values())
        assert result.whole.median >= result.stages["network"].median > 0
        assert result.found == 8
        assert result.input_hw == (64, 96)
        assert result.share is not None
        assert 0 < result.share.median < 2
    first, second = report.results
    assert tuple(first.ratio) == (1.0, 1.0, 1.0)
    assert second.ratio.median > 0
    assert first.flops == second.flops
    values = as_values(report)
    assert json.loads(json.dumps(values)) == values
    assert values["forms"][0]["pictures_per_second"] == pytest.approx(2 / first.whole.median)
    table = as_table(report)
    assert "nano, random weights: 2 of 64x96 (height x width) together, 4 instances planted in each" in table
    assert [line.split(",")[0] for line in table.splitlines() if ", ms" in line] == [
        "read",
        "prepare",
        "to the device",
        "network",
        "candidates",
        "masks",
        "whole",
    ]


def test_a_model_and_a_picture(tiny_weights: Path, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    Image.fromarray(noise_picture(40, 56)).save(picture)
    report = bench(Request(str(tiny_weights), picture=picture, rounds=1, device="cpu"))
    assert not report.random
    (result,) = report.results
    assert 0 < result.found <= 5
    assert as_values(report)["planted_instances"] == 0
    assert "planted" not in as_table(report)


def test_another_model_to_compare_with(tiny_weights: Path) -> None:
    report = bench(Request(str(tiny_weights), ("torch", "nano"), **QUICK))  # type: ignore[arg-type]
    assert [result.name for result in report.results] == ["torch", "nano"]


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_exported_forms(runtime: str) -> None:
    pytest.importorskip(runtime)
    pytest.importorskip("onnxscript")
    report = bench(Request("nano", ("torch", runtime), **QUICK))  # type: ignore[arg-type]
    ours, theirs = report.results
    assert ours.found == theirs.found == 4
    assert set(theirs.stages) == {"read", "prepare", "network", "masks"}
    assert theirs.flops == ours.flops


def test_weights_that_are_here_are_used(tiny_weights: Path) -> None:
    assert not find_subject(str(tiny_weights)).random
    assert not find_subject("nuclei").random
    subject = find_subject("solov2_light_448_r18_fpn_8gpu_3x")
    assert subject.random
    assert len(subject.opened.weights.categories) == 80
    again = find_subject("solov2_light_448_r18_fpn_8gpu_3x")
    assert torch.equal(subject.network().fpn.laterals[0].weight, again.network().fpn.laterals[0].weight)


def test_pictures_that_are_made() -> None:
    first, again = (np.asarray(make_picture((50, 70))) for _ in range(2))
    assert first.shape == (50, 70, 3)
    np.testing.assert_array_equal(first, again)
    assert np.asarray(make_picture((1, 1))).shape == (1, 1, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 0}, "--batch is 0; expected 1 or more"),
        ({"rounds": 0}, "--rounds is 0; expected 1 or more"),
        ({"instances": -1}, "--instances is -1; expected 0, for what the model finds, or more"),
        ({"size": (0, 64)}, "--size is 0 64; expected height and width in pixels"),
        ({"picture": Path("a.png"), "picture_hw": (4, 4)}, "--picture and --picture-size: give one of them"),
        ({"forms": ("torch", "nonsense")}, "no recipe 'nonsense'"),
        ({"model": "nan"}, "no recipe 'nan': did you mean nano"),
        ({"model": "a.onnx"}, "a.onnx: no such file"),
        ({"picture": Path("nothing.png")}, "nothing.png: no such file"),
    ],
)
def test_what_cannot_be(changes: dict[str, object], message: str) -> None:
    values = {"model": "nano", **QUICK, **changes}
    with pytest.raises(Solov2Error, match=message):
        bench(Request(**values))  # type: ignore[arg-type]


def test_an_exported_file_has_no_other_forms() -> None:
    from solov2.benchmarking.forms import Setting, make_form

    with pytest.raises(ConfigError, match="an exported file has no form plain: it is run as it is"):
        make_form("plain", None, Setting([], 0, None, "cpu"), Path())


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], root_logger: None) -> None:
    out = tmp_path / "folder" / "bench.json"
    words = ["bench", "-m", "nano", "--size", "64", "96", "--rounds", "1", "--instances", "3", "--device", "cpu"]
    assert main([*words, "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "whole, ms" in printed
    assert f"written to {out}" in printed
    values = json.loads(out.read_text(encoding="utf-8"))
    assert values["forms"][0]["found"] == 3
    assert values["random_weights"] is True


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--threads", "0"], "--threads is 0; expected 1 or more"),
        (["-o", "."], "cannot be written (it is a folder)"),
        (["--batch", "-2"], "--batch is -2"),
    ],
)
def test_command_refuses(words: list[str], message: str, capsys: pytest.CaptureFixture[str], root_logger: None) -> None:
    assert main(["bench", "-m", "nano", *words]) == 2
    assert message in capsys.readouterr().err
