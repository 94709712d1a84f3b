from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import solov2
from solov2.errors import ConfigError, WeightsError
from solov2.runtime import choosing
from solov2.runtime.choosing import FITTING, choose, open_session
from solov2.runtime.exported import open_exported
from solov2.runtime.interface import EXPORT_KEY, by_name

CLOCK = {"onnxruntime": 0.5, "openvino": 0.25}
"""Seconds that a picture takes."""


class Clock:
    """Time passes only where a session runs."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def opened(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Both run times, installed and made up; what they were given is collected."""
    clock, calls = Clock(), []
    broken: list[str] = getattr(request, "param", [])

    class Session:
        metadata = {EXPORT_KEY: json.dumps({"size": [32, 64], "masks": "picture"})}  # noqa: RUF012  # never changed

        def __init__(self, name: str, path: Path, device: str) -> None:
            if device == "cuda" and name == "openvino":
                raise ConfigError("no such device")
            if device == "npu":
                raise ConfigError(f"{name} has no npu")
            self.name = name

        def __call__(self, *inputs: np.ndarray) -> Sequence[np.ndarray]:
            if self.name in broken:
                raise WeightsError(f"{self.name} cannot run it")
            calls.append((self.name, [array.shape for array in inputs]))
            clock.now += CLOCK[self.name]
            return ()

    monkeypatch.setattr(choosing, "time", clock)
    monkeypatch.setattr(choosing, "find_spec", lambda name: object())
    for name in CLOCK:
        monkeypatch.setitem(
            choosing.RUNTIMES,  # type: ignore[arg-type]
            name,
            lambda path, device, name=name: Session(name, path, device),
        )
    return calls


def test_the_faster_one_is_taken(opened: list[Any]) -> None:
    name, session = open_session(Path("a.onnx"), "auto", "fastest")
    assert name == "openvino"
    assert session.name == "openvino"  # type: ignore[attr-defined]
    shapes = [(1, 32, 64, 3), (1, 2), (1, 2)]
    assert opened == [("onnxruntime", shapes)] * 4 + [("openvino", shapes)] * 4


def test_nothing_is_timed_unasked(opened: list[Any]) -> None:
    assert open_session(Path("a.onnx"))[0] == "onnxruntime"
    assert open_session(Path("a.onnx"), "auto", "openvino")[0] == "openvino"
    assert open_session(Path("a.xml"), "auto", "fastest")[0] == "openvino"
    assert opened == []


def test_only_what_has_the_device_is_timed(opened: list[Any]) -> None:
    assert open_session(Path("a.onnx"), "cuda", "fastest")[0] == "onnxruntime"
    assert {name for name, _ in opened} == {"onnxruntime"}
    with pytest.raises(ConfigError, match="has no npu"):
        open_session(Path("a.onnx"), "npu", "fastest")


@pytest.mark.parametrize("opened", [["openvino"]], indirect=True)
def test_what_cannot_run_the_file_is_not_taken(opened: list[Any]) -> None:
    assert open_session(Path("a.onnx"), "auto", "fastest")[0] == "onnxruntime"
    assert {name for name, _ in opened} == {"onnxruntime"}


@pytest.mark.parametrize("opened", [["openvino", "onnxruntime"]], indirect=True)
def test_nothing_can_run_the_file(opened: list[Any]) -> None:
    with pytest.raises(WeightsError, match="cannot run it"):
        open_session(Path("a.onnx"), "auto", "fastest")


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        ({"onnxruntime", "openvino"}, "onnxruntime"),
        ({"openvino"}, "openvino"),
        (set(), "onnxruntime"),  # whose absence is then told
    ],
)
def test_auto_takes_what_is_installed(installed: set[str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "find_spec", lambda name: object() if name in installed else None)
    assert choose(Path("a.onnx")) == expected
    assert choose(Path("a.xml")) == "openvino"


@pytest.mark.parametrize("suffix", FITTING)
def test_pytorch_runs_no_exported_files(suffix: str) -> None:
    with pytest.raises(ConfigError, match=f"a{suffix}: torch cannot run it; expected auto or"):
        choose(Path(f"a{suffix}"), "torch")


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone.onnx: no such file"):
        open_exported(tmp_path / "gone.onnx", runtime="fastest")


def test_weights_are_fastest_on_pytorch(tiny_weights: Path) -> None:
    assert solov2.load(tiny_weights, device="cpu", runtime="fastest").categories


def test_inputs_by_name() -> None:
    images, sizes = np.zeros((1, 32, 32, 3), np.uint8), np.array([[30, 31]])
    assert by_name(images, sizes) == ({"images": images, "sizes": sizes}, ("count", "scores", "labels", "masks"))
    assert by_name(images, sizes, None) == by_name(images, sizes)
    inputs, outputs = by_name(images, sizes, sizes)
    assert set(inputs) == {"images", "sizes", "originals"}
    assert outputs == ("count", "scores", "labels", "masks", "picture_masks")


def test_what_is_not_installed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CLOCK:
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "a.onnx").write_bytes(b"")
    with pytest.raises(solov2.MissingDependencyError, match="'onnxruntime'"):
        open_exported(tmp_path / "a.onnx", runtime="fastest")
