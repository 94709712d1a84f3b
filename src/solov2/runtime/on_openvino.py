"""Exported models on OpenVINO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from solov2.errors import ConfigError, MissingDependencyError, WeightsError
from solov2.runtime.interface import EXPORT_KEY, INPUTS, METADATA_KEY, OUTPUTS

DEVICES = {"auto": "CPU", "cpu": "CPU"}
"""Others are given as OpenVINO names them, such as GPU or NPU."""


class OpenVinoSession:
    """An OpenVINO file, or an ONNX file, on OpenVINO.

    Args:
        path: of the file; the weights of ``model.xml`` are in ``model.bin`` beside it.
        device: "cpu" or "auto", which is the same, or one of OpenVINO's own names.

    Raises:
        MissingDependencyError: if OpenVINO is not installed.
        WeightsError: if it cannot read the file.
        ConfigError: if it has no such device.
    """

    def __init__(self, path: Path, device: str = "auto") -> None:
        try:
            import openvino
        except ImportError:
            raise MissingDependencyError("openvino", "openvino", f"running {path}") from None
        core = openvino.Core()
        name = DEVICES.get(device, device)
        if name.split(".")[0] not in core.available_devices:
            raise ConfigError(f"device {device!r}: OpenVINO has {', '.join(core.available_devices)} here; expected cpu")
        try:
            model = core.read_model(path)
            # float32 as the file has it: some processors would take bfloat16 instead
            self._compiled = core.compile_model(model, name, {"INFERENCE_PRECISION_HINT": "f32"})
        except RuntimeError as error:
            reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), "no reason given")
            raise WeightsError(f"{path}: OpenVINO cannot read it ({reason}); export the model anew") from None
        self.metadata: Mapping[str, str] = {
            key: text for key in (METADATA_KEY, EXPORT_KEY) if (text := _text(model, key))
        }

    def __call__(self, images: npt.NDArray[np.uint8], sizes: npt.NDArray[np.int64]) -> Sequence[npt.NDArray[Any]]:
        """Runs a batch."""
        found = self._compiled(dict(zip(INPUTS, (images, sizes), strict=True)))
        return [found[name] for name in OUTPUTS]


def _text(model: Any, key: str) -> str:
    # OpenVINO's reader of ONNX files puts their texts below "framework".
    place = next((place for place in ([key], ["framework", key]) if model.has_rt_info(place)), None)
    return "" if place is None else str(model.get_rt_info(place).value)
