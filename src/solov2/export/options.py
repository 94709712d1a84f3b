"""What can be chosen when a model is exported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from solov2.errors import ConfigError
from solov2.model.solov2 import SIZE_DIVISOR
from solov2.structures import HW

Format = Literal["onnx", "openvino", "torch"]
Masks = Literal["network", "picture"]

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How a model is exported.

    Attributes:
        format: of the file.
        half: numbers of 16 bits: in ONNX and PyTorch files the network computes with them, OpenVINO files store its
            weights so. Decoding, and squares of positions, stay float32.
        size: the only input size, multiples of 32; None: any. The number of pictures is always free.
        static: no shape depends on what is in a picture, as some run times want it; needs ``size``, and takes longer.
        int8: convolutions compute with whole numbers of 8 bits (:mod:`solov2.export.int8`).
        masks: "network": on the mask grid; "picture": there, and at each picture's own size
            (:mod:`solov2.export.picture_masks`).
    """

    format: Format = "onnx"
    half: bool = False
    size: HW | None = None
    static: bool = False
    int8: bool = False
    masks: Masks = "network"

    def __post_init__(self) -> None:
        if self.static and self.size is None:
            raise ConfigError("static shapes need a size: give it too, such as --size 448 768")
        if self.size is not None and any(side <= 0 or side % SIZE_DIVISOR for side in self.size):
            raise ConfigError(
                f"the size is {self.size[0]}x{self.size[1]}; expected height and width, multiples of {SIZE_DIVISOR}"
            )
        if self.int8 and self.half:
            raise ConfigError("a file has one precision: leave out --half or --int8")
        if self.int8 and self.format == "torch":
            raise ConfigError("--int8 writes ONNX and OpenVINO files, not PyTorch's: give a name in .onnx or .xml")
        if self.static and self.masks == "picture":
            raise ConfigError(
                "masks at the picture's size have shapes that depend on the picture, and --static wants none: leave "
                "out --masks picture, and resize as docs/export.md says"
            )


def format_of(path: Path, wanted: str | None = None) -> Format:
    """The format of a file by its name, which has to go with the one asked for.

    Raises:
        ConfigError: if the name ends in something else.
    """
    named: Format | None = next((name for name, suffix in SUFFIXES.items() if path.suffix == suffix), None)
    if named is None or wanted not in (None, named):
        fitting = [f"{suffix} ({name})" for name, suffix in SUFFIXES.items() if wanted in (None, name)]
        raise ConfigError(f"{path}: expected a name that ends in {' or '.join(fitting)}")
    return named
