"""The graph becomes a file: one function per format."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from solov2.errors import MissingDependencyError
from solov2.export.graph import ExportGraph
from solov2.export.half import halve_weights
from solov2.export.options import ExportOptions, Format
from solov2.export.picture_masks import PictureGraph
from solov2.model.solov2 import SIZE_DIVISOR
from solov2.runtime.interface import INPUTS, ORIGINALS, OUTPUTS, PICTURE, PICTURE_MASKS

EXAMPLE_HW = (5 * SIZE_DIVISOR, 7 * SIZE_DIVISOR)
"""A size to trace with: sides that differ from each other and from grids."""

LARGEST_SIDE = 2**16

FIXED_SIZE = re.compile(r"expression Eq\((?!Mod\()(.*, \d+|\d+, .*)\) on")

NEEDED: dict[Format, tuple[tuple[str, str], ...]] = {
    "onnx": (("onnx", "export"), ("onnxscript", "export"), ("onnxruntime", "export")),
    "openvino": (("onnx", "export"), ("onnxscript", "export"), ("openvino", "openvino")),
    "torch": (),
}
"""Packages, and the extras they come with."""


def check_packages(format: Format) -> None:
    """Looks whether what a format needs is installed.

    Raises:
        MissingDependencyError: if a package is missing.
    """
    for package, extra in NEEDED[format]:
        if find_spec(package) is None:
            raise MissingDependencyError(package, extra, f"exporting to {format}")


def trace(graph: ExportGraph | PictureGraph, options: ExportOptions) -> ExportedProgram:
    """The graph as a list of tensor operations; batch, height and width stay free where no size is given."""
    height, width = options.size or EXAMPLE_HW
    images = torch.zeros((2, height, width, 3), dtype=torch.uint8)
    inputs = [images, torch.tensor([[height, width]] * 2)]
    batch = Dim("batch", min=1)
    free: dict[int, Any] = {0: batch}
    if options.size is None:
        limit = LARGEST_SIDE // SIZE_DIVISOR
        free |= {1: SIZE_DIVISOR * Dim("rows", min=1, max=limit), 2: SIZE_DIVISOR * Dim("columns", min=1, max=limit)}
    if options.masks == PICTURE:
        inputs.append(inputs[1] + 1)  # of no size that something else has
    with _quiet():
        program = torch.export.export(
            graph,
            tuple(inputs),
            dynamic_shapes=(free, *({0: batch} for _ in inputs[1:])),
            # Branches on sizes, such as leaving out a resize to the same size, must not fix them.
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    _drop_asserts(program)
    return program


def _drop_asserts(program: ExportedProgram) -> None:
    """Takes out what would refuse sizes for which the graph is as good: those that other branches are for."""
    nodes = [node for node in program.graph.nodes if node.target is torch.ops.aten._assert_scalar.default]
    for node in nodes:
        text = str(node.args[1])
        # A size that is to equal a number has become a constant: the graph would be wrong for any other.
        assert not FIXED_SIZE.search(text), text
        if "expression Ne(" in text:
            program.graph.erase_node(node)
    program.graph_module.recompile()


def write_torch(program: ExportedProgram, path: Path, texts: Mapping[str, str], options: ExportOptions) -> None:
    """A file for ``torch.export.load``, which needs nothing but PyTorch."""
    with _quiet():
        torch.export.save(program, path, extra_files=dict(texts))


def write_onnx(program: ExportedProgram, path: Path, texts: Mapping[str, str], options: ExportOptions) -> None:
    """An ONNX file with the texts as its metadata."""
    more = options.masks == PICTURE
    with _quiet():
        written = torch.onnx.export(
            program,
            dynamo=True,
            input_names=(*INPUTS, *([ORIGINALS] if more else [])),
            output_names=(*OUTPUTS, *([PICTURE_MASKS] if more else [])),
            verbose=False,
            external_data=False,
        )
    assert written is not None
    written.model.metadata_props.update(texts)
    written.model.producer_name = "solov2"
    written.save(path)


def write_openvino(program: ExportedProgram, path: Path, texts: Mapping[str, str], options: ExportOptions) -> None:
    """An OpenVINO file, and its weights in a file of the same stem; made from an ONNX file."""
    import openvino

    onnx_path = path.with_suffix(".onnx")
    write_onnx(program, onnx_path, {}, options)
    model = openvino.Core().read_model(onnx_path)  # its converter would tell its makers that it was used
    for key, text in texts.items():
        model.set_rt_info(text, [key])
    if options.half:
        halve_weights(model)
    openvino.save_model(model, path, compress_to_fp16=False)
    del model  # which may have the file open
    onnx_path.unlink()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps exporters from telling users what only their authors can act on."""
    names = ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


WRITERS: dict[Format, Callable[[ExportedProgram, Path, Mapping[str, str], ExportOptions], None]] = {
    "onnx": write_onnx,
    "openvino": write_openvino,
    "torch": write_torch,
}
