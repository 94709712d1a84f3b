"""Flags of solov2 export that do not go together; nothing is opened or written."""

from pathlib import Path

import pytest

from solov2.cli import main


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "a.onnx", "--half", "--int8"], "a file has one precision: leave out --half or --int8"),
        (["-o", "a.pt2", "--int8"], "--int8 writes ONNX and OpenVINO files"),
        (["-o", "a.onnx", "--int8"], "--int8 needs pictures that show the ranges of values"),
        (["-o", "a.onnx", "--int8", "--calibrate", "gone/*.png"], "gone/*.png: no file matches this pattern"),
        (["-o", "a.onnx", "--int8", "--calibrate", "."], "holds no picture"),
        (["-o", "a.onnx", "--int8", "--calibrate", "x.png", "--images", "d"], "--images without --data"),
        (["-o", "a.onnx", "--data", "a.json", "--accept"], "--data --accept: goes with --int8"),
        (["-o", "a.onnx", "--calibrate", "x.png"], "--calibrate: goes with --int8"),
        (["-o", "a.onnx", "--static"], "static shapes need a size"),
        (
            ["-o", "a.onnx", "--static", "--size", "64", "96", "--masks", "picture"],
            "masks at the picture's size have shapes that depend on the picture",
        ),
    ],
)
def test_flags_that_do_not_go_together(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", "-m", "nuclei", *words]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
