"""Exported models on OpenVINO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from solov2.errors import ConfigError, MissingDependencyError, WeightsError
from solov2.runtime.interface import EXPORT_KEY, METADATA_KEY, by_name

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
        self._path = path
        core = openvino.Core()
        name = DEVICES.get(device, device)
        if name.split(".")[0] not in core.available_devices:
            raise ConfigError(f"device {device!r}: OpenVINO has {', '.join(core.available_devices)} here; expected cpu")
        try:
            model = core.read_model(path)
            # float32 as the file has it: some processors would take bfloat16 instead
            compiled = core.compile_model(model, name, {"INFERENCE_PRECISION_HINT": "f32"})
        except RuntimeError as error:
            raise WeightsError(
                f"{path}: OpenVINO cannot read it ({_last_line(error)}); export the model anew"
            ) from None
        self._request = compiled.create_infer_request()
        self.metadata: Mapping[str, str] = {
            key: text for key in (METADATA_KEY, EXPORT_KEY) if (text := _text(model, key))
        }

    def __call__(
        self,
        images: npt.NDArray[np.uint8],
        sizes: npt.NDArray[np.int64],
        originals: npt.NDArray[np.int64] | None = None,
    ) -> Sequence[npt.NDArray[Any]]:
        """Runs a batch.

        Raises:
            WeightsError: if OpenVINO cannot.
        """
        inputs, names = by_name(images, sizes, originals)
        try:
            # In two steps: the ordinary call hides what goes wrong in it, and gives what it gave the last time.
            self._request.start_async(inputs)
            self._request.wait()
        except RuntimeError as error:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in inputs.items())
            raise WeightsError(
                f"{self._path}: OpenVINO cannot run it on {shapes} ({_last_line(error)}); take another run time"
            ) from None
        return [self._request.get_tensor(name).data.copy() for name in names]


def _last_line(error: RuntimeError) -> str:
    return next((line for line in reversed(str(error).splitlines()) if line.strip()), "no reason given").strip()


def _text(model: Any, key: str) -> str:
    # OpenVINO's reader of ONNX files puts their texts below "framework".
    place = next((place for place in ([key], ["framework", key]) if model.has_rt_info(place)), None)
    return "" if place is None else str(model.get_rt_info(place).value)
