import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import solov2
from solov2.cli import main
from solov2.config import load_config
from solov2.errors import ConfigError, ImageError, MissingDependencyError, WeightsError
from solov2.predict import Predictor
from solov2.runtime.exported import ExportedModel, is_exported, open_exported
from solov2.runtime.on_openvino import OpenVinoSession
from solov2.structures import HW, Batch, Frame


class TwoSquares:
    """A session that finds two squares in the first picture and nothing in the others."""

    metadata: dict[str, str] = {}  # noqa: RUF012  # the protocol has an attribute, not a class variable

    def __call__(self, images: np.ndarray, sizes: np.ndarray) -> Sequence[np.ndarray[Any, Any]]:
        self.images, self.sizes = images, sizes
        batch, height, width, _ = images.shape
        count = np.zeros(batch, np.int64)
        count[0] = 2
        masks = np.zeros((batch, 3, height // 4, width // 4), np.float32)
        masks[0, 0, :4, :4], masks[0, 1, 4:8, 4:8] = 0.9, 0.7
        scores = np.zeros((batch, 3), np.float32)
        scores[0, :2] = 0.8, 0.6
        labels = np.zeros((batch, 3), np.int64)
        labels[0, 1] = 1
        return count, scores, labels, masks


def model(fixed_hw: HW | None = None) -> ExportedModel:
    return ExportedModel(Path("model.onnx"), "onnxruntime", TwoSquares(), {}, fixed_hw)


def batch(count: int = 1, hw: HW = (32, 64)) -> Batch:
    frame = Frame((16, 24), (32, 48), hw)
    images = torch.arange(count * 3 * hw[0] * hw[1]).reshape(count, 3, *hw).to(torch.uint8)
    return Batch(images, (frame,) * count, tuple(range(count)), ("",) * count)


def test_rows_become_instances_at_the_picture_s_size() -> None:
    running = model()
    first, second = running.run(batch(2), 0.5)
    assert first.labels.tolist() == [0, 1]
    assert first.scores.tolist() == pytest.approx([0.8, 0.6])
    assert first.boxes.tolist() == [[0, 0, 8, 8], [8, 8, 16, 16]]
    assert first.areas.tolist()[0] == 64
    assert len(second) == 0
    assert second.original_hw == (16, 24)


def test_the_session_is_given_pictures_with_channels_last() -> None:
    running, given = model(), batch(2)
    running.run(given, 0.5)
    assert isinstance(running.session, TwoSquares)
    assert running.session.images.flags.c_contiguous
    assert (running.session.images == given.images.permute(0, 2, 3, 1).numpy()).all()
    assert running.session.sizes.tolist() == [[32, 48], [32, 48]]


def test_masks_have_to_exceed_the_threshold() -> None:
    (found,) = model().run(batch(), 0.8)
    assert found.areas.tolist()[1] == 0


@pytest.mark.parametrize(("least", "expected"), [(0.0, 2), (0.55, 2), (0.7, 1), (0.9, 0)])
def test_what_scores_too_little_is_left_out(least: float, expected: int) -> None:
    found, other = model().run(batch(2), 0.5, least)
    assert found.scores.tolist() == pytest.approx([0.8, 0.6][:expected])
    assert len(found.crops) == expected
    assert len(other) == 0


def test_a_file_of_one_size_is_given_that_size() -> None:
    running, given = model((64, 64)), batch()
    padded = running.padded(given)
    assert padded.images.shape == (1, 3, 64, 64)
    assert padded.frames[0].padded_hw == (64, 64)
    assert torch.equal(padded.images[:, :, :32], given.images)
    assert not padded.images[:, :, 32:].any()
    assert running.run(given, 0.5)[0].boxes.tolist()[0] == [0, 0, 8, 8]
    same = batch(hw=(64, 64))
    assert running.padded(same) is same


def test_pictures_too_large_for_the_only_size() -> None:
    with pytest.raises(ImageError, match=r"comes to 32x64 .*takes 32x32: export it with a larger --size"):
        model((32, 32)).run(batch(), 0.5)


@pytest.mark.parametrize(("name", "expected"), [("a.onnx", True), ("a.xml", True), ("a.safetensors", False)])
def test_is_exported(name: str, expected: bool) -> None:
    assert is_exported(name) is is_exported(Path(name)) is expected


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone.onnx: no such file; expected a model that solov2 export has"):
        solov2.load(tmp_path / "gone.onnx")


@pytest.mark.parametrize(
    ("name", "runtime", "expected"),
    [("a.xml", "onnxruntime", "openvino"), ("a.onnx", "torch", "onnxruntime or openvino")],
)
def test_run_times_go_with_files(name: str, runtime: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: {runtime} cannot run it; expected auto or {expected}"):
        open_exported(Path(name), runtime=runtime)


@pytest.mark.parametrize(("name", "package"), [("a.onnx", "onnxruntime"), ("a.xml", "openvino")])
def test_run_times_that_are_not_installed(
    name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(MissingDependencyError, match=f"running .*{name} needs the package '{package}'"):
        open_exported(tmp_path / name, runtime=package)


@pytest.mark.parametrize(("name", "package"), [("a.onnx", "onnxruntime"), ("a.xml", "openvino")])
def test_files_that_are_none(name: str, package: str, tmp_path: Path) -> None:
    pytest.importorskip(package)
    (tmp_path / name).write_bytes(b"no model")
    with pytest.raises(WeightsError, match=f"{name}: .* cannot read it .*; export the model anew"):
        open_exported(tmp_path / name)


def test_an_onnx_file_of_somebody_else(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    number = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [number], [result])
    version = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=version, ir_version=10), tmp_path / "other.onnx")
    with pytest.raises(WeightsError, match="was not exported by this package"):
        open_exported(tmp_path / "other.onnx")


def test_weights_run_on_pytorch_alone(tiny_weights: Path) -> None:
    with pytest.raises(
        ConfigError, match="openvino runs exported files, and this is none; write one first: solov2 exp"
    ):
        solov2.load(tiny_weights, runtime="openvino")


def test_settings_of_an_exported_file_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "-w", str(tmp_path / "a.onnx"), "-c", "nano", "--amp"]) == 2
    assert "-c --amp: " in capsys.readouterr().err


def test_openvino_says_what_it_cannot_run(tmp_path: Path) -> None:
    """Called in the ordinary way it gives what it gave the last time, where shapes are only known at run time."""
    pytest.importorskip("openvino")
    onnx = pytest.importorskip("onnx")
    make, types = onnx.helper, onnx.TensorProto
    inputs = [
        make.make_tensor_value_info("images", types.UINT8, ["b", "h", "w", 3]),
        make.make_tensor_value_info("sizes", types.INT64, ["b", 2]),
    ]
    nodes = [  # the sum of rows and columns of a picture, which is none where it is not square
        make.make_node("Cast", ["images"], ["x"], to=types.FLOAT),
        make.make_node("Transpose", ["x"], ["y"], perm=[0, 2, 1, 3]),
        make.make_node("Add", ["x", "y"], ["z"]),
        make.make_node("ReduceSum", ["z", "axes"], ["s"], keepdims=0),
        make.make_node("Cast", ["s"], ["count"], to=types.INT64),
        make.make_node("Identity", ["s"], ["scores"]),
        make.make_node("Identity", ["sizes"], ["labels"]),
        make.make_node("Identity", ["z"], ["masks"]),
    ]
    kinds = {"count": types.INT64, "scores": types.FLOAT, "labels": types.INT64, "masks": types.FLOAT}
    outputs = [make.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()]
    axes = [make.make_tensor("axes", types.INT64, [3], [1, 2, 3])]
    graph = make.make_graph(nodes, "g", inputs, outputs, axes)
    path = tmp_path / "square.onnx"
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 18)], ir_version=10), path)
    session = OpenVinoSession(path, "cpu")
    sizes = np.array([[4, 4]])
    assert session(np.ones((1, 4, 4, 3), np.uint8), sizes)[0].tolist() == [96]
    with pytest.raises(
        WeightsError, match=r"square.onnx: OpenVINO cannot run it on images \(1, 4, 6, 3\), sizes .*\(.+\)"
    ):
        session(np.ones((1, 4, 6, 3), np.uint8), sizes)
    assert session(np.ones((2, 2, 2, 3), np.uint8), np.array([[2, 2]] * 2))[0].tolist() == [24, 24]


@pytest.mark.parametrize(
    ("hw", "expected"), [((100, 50), (64, 32)), ((50, 100), (48, 96)), ((31, 33), (48, 51)), ((2, 400), (1, 96))]
)
def test_prediction_scales_pictures_down_to_the_only_size(hw: HW, expected: HW) -> None:
    """The recipe alone would make them 96x48, 48x96, 48x51 and 1x128."""
    normalize = "NormalizeImage: {mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225], is_scale: true}"
    steps = f"[{{Decode: {{}}}}, {{Resize: {{target_size: [48, 128]}}}}, {{{normalize}}}, {{Permute: {{}}}}]"
    config = load_config("nano", ["num_classes=2", f"TestReader.sample_transforms={steps}"])
    running = model((64, 96))
    predictor = Predictor(running, config)
    (found,) = predictor.predict_batch([np.zeros((*hw, 3), np.uint8)], 0.1)
    assert found.original_hw == hw
    assert isinstance(running.session, TwoSquares)
    assert running.session.images.shape == (1, 64, 96, 3)
    assert running.session.sizes.tolist() == [list(expected)]
