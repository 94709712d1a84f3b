from pathlib import Path
from typing import Any

import pytest

from solov2.errors import ConfigError
from solov2.export.options import ExportOptions, format_of


@pytest.mark.parametrize(
    ("name", "wanted", "expected"),
    [("a.onnx", None, "onnx"), ("a.xml", None, "openvino"), ("a.pt2", "torch", "torch"), ("a.b.onnx", "onnx", "onnx")],
)
def test_format_of(name: str, wanted: str | None, expected: str) -> None:
    assert format_of(Path(name), wanted) == expected


@pytest.mark.parametrize(
    ("name", "wanted", "message"),
    [
        ("a", None, r"a: expected a name that ends in .onnx \(onnx\) or .xml \(openvino\) or .pt2 \(torch\)"),
        ("a.onnx", "openvino", r"a.onnx: expected a name that ends in .xml \(openvino\)$"),
        ("a.bin", "onnx", r"a.bin: expected a name that ends in .onnx \(onnx\)$"),
    ],
)
def test_names_that_do_not_go_with_a_format(name: str, wanted: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        format_of(Path(name), wanted)


@pytest.mark.parametrize("size", [(448, 760), (0, 32), (-32, 32)])
def test_sizes_are_multiples_of_32(size: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=f"the size is {size[0]}x{size[1]}; expected height and width, multiples"):
        ExportOptions(size=size)


def test_static_needs_a_size() -> None:
    assert ExportOptions(size=(64, 96), static=True).size == (64, 96)
    with pytest.raises(ConfigError, match="static shapes need a size"):
        ExportOptions(static=True)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"int8": True, "half": True}, "one precision: leave out --half or --int8"),
        ({"int8": True, "format": "torch"}, "--int8 writes ONNX and OpenVINO files"),
        ({"size": (64, 96), "static": True, "masks": "picture"}, "--static wants none: leave out --masks picture"),
    ],
)
def test_what_does_not_go_together(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ExportOptions(**choices)


def test_what_goes_together() -> None:
    ExportOptions("torch", half=True, masks="picture")
    ExportOptions("openvino", int8=True, size=(64, 96), static=True)
    ExportOptions(int8=True, masks="picture")
