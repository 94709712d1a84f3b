"""Eight bits: the convolutions of an exported file compute with whole numbers, its decoding stays in float32.

Post-training quantisation with NNCF: a few pictures show the range of every map, and weights and maps become
256 steps over these ranges. The last convolutions and what comes after them, the ellipses, points-NMS, masks, areas and
Matrix NMS, are a small part of the work and would lose much of their meaning: they are left alone. So are depthwise
convolutions, each of whose few weights counts, and positions in the picture, whose steps would be whole cells.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from solov2.data.image import ImageLike
from solov2.errors import MissingDependencyError
from solov2.export.options import Format
from solov2.predict import Predictor
from solov2.runtime.exported import ExportedModel
from solov2.runtime.interface import INPUTS, by_name

logger = logging.getLogger(__name__)

MOST_PICTURES = 300
"""Ranges hardly change with more of them."""

CONVOLUTIONS = frozenset(
    {"Conv", "ConvTranspose", "DeformConv", "Convolution", "GroupConvolution", "DeformableConvolution"}
)
"""Of ONNX and of OpenVINO."""

SAMPLERS = frozenset({"GridSample", "DeformConv", "DeformableConvolution"})
"""Take values as their first input, and positions or weights as the others."""

DEPTHWISE = "Depthwise"
"""What a convolution is called here that has a filter for every channel."""

SHAPES = frozenset({"Shape", "ShapeOf"})
CONCATENATION = "Concat"

EXTRA = "int8"

NNCF_SILENT = "NNCF_CI"
"""An environment variable of NNCF's."""


@dataclass(frozen=True)
class Calibration:
    """What quantising is done and measured with.

    Attributes:
        pictures: that show the ranges of maps; like those the model will see, the first 300 count.
        data: COCO json to measure AP on, before and after.
        images: folder of its pictures; default: the json's folder.
        accept: keep the file although it lost more than it may.
    """

    pictures: Sequence[ImageLike]
    data: Path | None = None
    images: Path | None = None
    accept: bool = False


class Step(NamedTuple):
    """A node of a graph, in ONNX's terms or OpenVINO's.

    Attributes:
        name: unlike any other's.
        kind: what it computes.
        inputs: names of the nodes whose values it takes; "" where there is none, such as a constant.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]


def check_quantiser() -> None:
    """Looks whether NNCF is installed.

    Raises:
        MissingDependencyError: if it is not.
    """
    if find_spec("nncf") is None:
        raise MissingDependencyError("nncf", EXTRA, "exporting with --int8")


def quantise(path: Path, format: Format, predictor: Predictor, pictures: Sequence[ImageLike]) -> None:
    """Quantises an exported file where it lies.

    Args:
        path: of the file, float32.
        format: "onnx" or "openvino".
        predictor: prepares pictures as the file takes them.
        pictures: to calibrate with, at least one.

    Raises:
        MissingDependencyError: if NNCF is not installed.
        ImageError: if a picture cannot be read.
    """
    check_quantiser()
    model = predictor.model
    assert isinstance(model, ExportedModel)
    arrays = (model.inputs(predictor.prepare(picture)) for picture in pictures[:MOST_PICTURES])
    batches = [by_name(*inputs)[0] for inputs in arrays]
    logger.info("quantising with %d pictures", len(batches))
    WAYS[format](path, batches)


def kept_in_float(steps: Iterable[Step]) -> list[str]:
    """Names of the nodes that must not be quantised.

    Those are all from which no convolution is reached by way of values, depthwise convolutions, and the convolutions
    that are given positions beside values.

    Args:
        steps: of a graph, each after those it takes values from.
    """
    by_name = {step.name: step for step in steps}
    values = _reached_from_pictures(by_name.values())
    leading: set[str] = set()
    waiting = [step for step in by_name.values() if step.kind in CONVOLUTIONS or step.kind == DEPTHWISE]
    while waiting:
        step = waiting.pop()
        wanted = step.inputs[:1] if step.kind in SAMPLERS else step.inputs
        found = [name for name in wanted if name in by_name and name not in leading]
        leading.update(found)
        waiting.extend(by_name[name] for name in found)
    return [
        step.name
        for step in by_name.values()
        if step.name not in leading or step.kind == DEPTHWISE or _takes_positions(step, by_name, values)
    ]


def _reached_from_pictures(steps: Iterable[Step]) -> set[str]:
    """Nodes that compute with what is in the pictures, and not with their sizes alone."""
    found: set[str] = set()
    for step in steps:
        from_values = any(name in found for name in step.inputs) and step.kind not in SHAPES
        if from_values or step.name == INPUTS[0]:
            found.add(step.name)
    return found


def _takes_positions(step: Step, by_name: Mapping[str, Step], values: set[str]) -> bool:
    if step.kind not in CONVOLUTIONS:
        return False
    source = by_name.get(step.inputs[0])
    if source is None or source.kind != CONCATENATION:
        return False
    return any(name in by_name and name not in values for name in source.inputs)


def _quantise_onnx(path: Path, batches: Sequence[Mapping[str, Any]]) -> None:
    import onnx

    model = onnx.load(path)
    onnx.save(_quantised(model, kept_in_float(onnx_steps(model)), batches), path)


def onnx_steps(model: Any) -> Iterator[Step]:
    """The nodes of an ONNX model, its inputs first."""
    made = {value: node.name for node in model.graph.node for value in node.output}
    for given in model.graph.input:
        made[given.name] = given.name
        yield Step(given.name, "Input", ())
    channels = {value.name: value.dims[1] for value in model.graph.initializer if len(value.dims) > 1}
    for node in model.graph.node:
        groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        depthwise = groups > 1 and channels.get(node.input[1]) == 1
        inputs = tuple(made.get(value, "") for value in node.input)
        yield Step(node.name, DEPTHWISE if depthwise else node.op_type, inputs)


def _quantise_openvino(path: Path, batches: Sequence[Mapping[str, Any]]) -> None:
    import openvino

    model = openvino.Core().read_model(path)
    quantised = _quantised(model, kept_in_float(openvino_steps(model)), batches)
    beside = path.with_name(f"quantised_{path.name}")
    openvino.save_model(quantised, beside, compress_to_fp16=False)
    del model, quantised  # which may have the files open
    for suffix in (path.suffix, ".bin"):
        beside.with_suffix(suffix).replace(path.with_suffix(suffix))


def openvino_steps(model: Any) -> Iterator[Step]:
    """The nodes of an OpenVINO model but for its constants."""
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind in ("Constant", "Result"):
            continue
        sources = [node.input_value(i).get_node() for i in range(node.get_input_size())]
        if kind == "GroupConvolution" and node.input(1).get_partial_shape()[2].get_length() == 1:
            kind = DEPTHWISE
        yield Step(node.get_friendly_name(), kind, tuple(source.get_friendly_name() for source in sources))


def _quantised(model: Any, float_names: list[str], batches: Sequence[Mapping[str, Any]]) -> Any:
    with _quietly():
        nncf = importlib.import_module("nncf")  # which has no annotations
        nncf.set_log_level(logging.ERROR)
        return nncf.quantize(
            model,
            nncf.Dataset(batches),
            preset=nncf.QuantizationPreset.MIXED,  # maps are not symmetric around 0
            subset_size=len(batches),
            # NNCF sees a graph that it has simplified: not all names are still there.
            ignored_scope=nncf.IgnoredScope(names=float_names, validate=False),
        )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keeps NNCF from telling its makers over the network that it is used, and its progress from standard output.

    What it does to the process's logging is undone: its level becomes that of every handler of the root logger, which
    silences everybody else, and its kind of logger everybody's.
    """
    before = os.environ.get(NNCF_SILENT)
    handlers, kind = [(handler, handler.level) for handler in logging.root.handlers], logging.getLoggerClass()
    os.environ[NNCF_SILENT] = "1"
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    finally:
        for handler, level in handlers:
            handler.setLevel(level)
        logging.setLoggerClass(kind)
        if before is None:
            del os.environ[NNCF_SILENT]
        else:
            os.environ[NNCF_SILENT] = before


WAYS: dict[Format, Callable[[Path, Sequence[Mapping[str, Any]]], None]] = {
    "onnx": _quantise_onnx,
    "openvino": _quantise_openvino,
}
