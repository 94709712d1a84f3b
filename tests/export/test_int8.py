"""What is quantised and what is not, by hand-made graphs; and a real file through NNCF."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from solov2.errors import ConfigError, MissingDependencyError
from solov2.export.exporting import export
from solov2.export.int8 import (
    DEPTHWISE,
    NNCF_SILENT,
    WAYS,
    Calibration,
    Step,
    check_quantiser,
    kept_in_float,
    onnx_steps,
    openvino_steps,
)
from solov2.export.options import ExportOptions

needs = {
    name: pytest.mark.skipif(not importlib.util.find_spec(name), reason=f"{name} is not installed")
    for name in ("onnx", "onnxruntime", "openvino", "nncf")
}

PLAIN = [
    Step("images", "Input", ()),
    Step("scale", "Mul", ("images", "")),
    Step("first", "Conv", ("scale", "", "")),
    Step("relu", "Relu", ("first",)),
    Step("depthwise", DEPTHWISE, ("relu", "")),
    Step("second", "Conv", ("depthwise", "")),
    Step("last", "Conv", ("second", "")),
    Step("scores", "Sigmoid", ("last",)),
    Step("sum", "ReduceSum", ("scores",)),
]


def test_what_no_convolution_follows_stays_float() -> None:
    assert kept_in_float(PLAIN) == ["depthwise", "last", "scores", "sum"]
    assert kept_in_float([]) == []


def test_convolutions_that_are_given_positions_stay_float() -> None:
    steps = [
        Step("images", "Input", ()),
        Step("features", "Conv", ("images", "")),
        Step("size", "ShapeOf", ("features",)),
        Step("positions", "Range", ("", "size", "")),
        Step("both", "Concat", ("features", "positions")),
        Step("placed", "Convolution", ("both", "")),
        Step("alike", "Concat", ("features", "placed", "")),  # a constant is no position
        Step("middle", "Convolution", ("alike", "")),
        Step("last", "Convolution", ("middle", "")),
    ]
    assert kept_in_float(steps) == ["placed", "last"]


def test_where_to_sample_stays_float() -> None:
    steps = [
        Step("images", "Input", ()),
        Step("features", "Conv", ("images", "")),
        Step("offsets", "Conv", ("features", "")),
        Step("places", "Add", ("offsets", "")),
        Step("samples", "GridSample", ("features", "places")),
        Step("middle", "Conv", ("samples", "")),
        Step("last", "Conv", ("middle", "")),
    ]
    assert kept_in_float(steps) == ["offsets", "places", "last"]


@needs["onnx"]
def test_steps_of_an_onnx_model() -> None:
    model = onnx_model()
    assert list(onnx_steps(model)) == [
        Step("images", "Input", ()),
        Step("a", "Conv", ("images", "")),
        Step("b", DEPTHWISE, ("a", "")),
        Step("c", "Conv", ("b", "")),
        Step("d", "Relu", ("c",)),
    ]
    assert kept_in_float(onnx_steps(model)) == ["b", "c", "d"]


@needs["onnx"]
@needs["openvino"]
def test_steps_of_an_openvino_model(tmp_path: Path) -> None:
    import onnx
    import openvino

    onnx.save(onnx_model(), tmp_path / "small.onnx")
    steps = list(openvino_steps(openvino.Core().read_model(tmp_path / "small.onnx")))
    assert [step.kind for step in steps if "onvolution" in step.kind or step.kind == DEPTHWISE] == [
        "Convolution",
        DEPTHWISE,
        "Convolution",
    ]
    assert steps[0].name == "images"
    assert not any("Constant" in step.kind for step in steps)


@needs["nncf"]
@needs["onnxruntime"]
@needs["openvino"]
@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_files_are_quantised_where_they_lie(
    format: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import onnx
    import openvino

    monkeypatch.delenv(NNCF_SILENT, raising=False)
    path = tmp_path / {"onnx": "model.onnx", "openvino": "model.xml"}[format]
    onnx.save(onnx_model(), tmp_path / "model.onnx")
    if format == "openvino":
        model = openvino.Core().read_model(tmp_path / "model.onnx")
        model.set_rt_info("text", ["key"])
        openvino.save_model(model, path, compress_to_fp16=False)
        (tmp_path / "model.onnx").unlink()
    before = path.read_bytes(), sorted(tmp_path.iterdir())
    picture = np.random.default_rng(0).uniform(-1, 1, (1, 4, 8, 8)).astype(np.float32)
    expected = openvino.Core().compile_model(path, "CPU", PRECISE)([picture])[0]
    WAYS[format](path, [{"images": picture}] * 3)
    found = openvino.Core().compile_model(path, "CPU", PRECISE)([picture])[0]
    assert path.read_bytes() != before[0]
    assert sorted(tmp_path.iterdir()) == before[1]
    assert 0 < np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
    quantised = openvino.Core().read_model(path)
    assert any(node.get_type_name() == "FakeQuantize" for node in quantised.get_ordered_ops())
    if format == "openvino":
        assert quantised.get_rt_info("key").value == "text"
    else:
        assert [prop.value for prop in onnx.load(path).metadata_props] == ["text"]
    assert NNCF_SILENT not in os.environ
    logging.getLogger("solov2.after").warning("heard")
    assert caplog.messages == ["heard"]
    assert logging.getLoggerClass() is logging.Logger


PRECISE = {"INFERENCE_PRECISION_HINT": "f32"}


def onnx_model() -> Any:
    """Three convolutions of 4 channels, the second depthwise, and a ReLU."""
    import onnx

    rng = np.random.default_rng(0)

    def weights(name: str, shape: tuple[int, ...]) -> Any:
        return onnx.numpy_helper.from_array(rng.normal(0, 0.3, shape).astype(np.float32), name)

    nodes = [
        onnx.helper.make_node("Conv", ["images", "wa"], ["x"], "a"),
        onnx.helper.make_node("Conv", ["x", "wb"], ["y"], "b", group=4),
        onnx.helper.make_node("Conv", ["y", "wc"], ["z"], "c"),
        onnx.helper.make_node("Relu", ["z"], ["out"], "d"),
    ]
    shape = [1, 4, 8, 8]
    graph = onnx.helper.make_graph(
        nodes,
        "small",
        [onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, shape)],
        [weights("wa", (4, 4, 1, 1)), weights("wb", (4, 1, 1, 1)), weights("wc", (4, 4, 1, 1))],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.helper.set_model_props(model, {"key": "text"})
    return model


def test_the_quantiser_is_looked_for_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingDependencyError, match=r"--int8 needs the package 'nncf': pip install 'solov2\[int8\]'"):
        check_quantiser()
    monkeypatch.setattr("solov2.export.exporting.check_packages", lambda format: None)
    with pytest.raises(MissingDependencyError, match="nncf"):
        export("nuclei", tmp_path / "a.onnx", ExportOptions(int8=True), [], calibration=Calibration(["a.png"]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("int8", "calibration"), [(True, None), (True, Calibration([])), (False, Calibration(["a.png"]))]
)
def test_eight_bits_and_calibration_go_together(
    int8: bool, calibration: Calibration | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("solov2.export.exporting.check_packages", lambda format: None)
    with pytest.raises(ConfigError, match="8 bits need pictures to calibrate with"):
        export("nuclei", tmp_path / "a.onnx", ExportOptions(int8=int8), [], calibration=calibration)
