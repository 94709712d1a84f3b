"""Exported models on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from solov2.errors import ConfigError, MissingDependencyError, WeightsError
from solov2.runtime.interface import by_name

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxRuntimeSession:
    """An ONNX file on ONNX Runtime.

    Args:
        path: of the file.
        device: "cpu", "cuda", or "auto": a GPU where this build of ONNX Runtime can use one.

    Raises:
        MissingDependencyError: if ONNX Runtime is not installed.
        WeightsError: if it cannot read the file.
        ConfigError: if it has no such device.
    """

    def __init__(self, path: Path, device: str = "auto") -> None:
        try:
            import onnxruntime
        except ImportError:
            raise MissingDependencyError("onnxruntime", "export", f"running {path}") from None
        available = onnxruntime.get_available_providers()
        wanted = [*(("cuda",) if device == "auto" else ()), device.split(":")[0] if device != "auto" else "cpu"]
        providers = [PROVIDERS[name] for name in wanted if PROVIDERS.get(name) in available]
        if not providers:
            raise ConfigError(
                f"device {device!r}: this build of ONNX Runtime has {', '.join(available)}; expected auto, cpu or cuda"
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only: its warnings are about its own optimisations
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # a class of its own for every status, none of them public
            reason = str(error).strip().splitlines()[0]
            raise WeightsError(f"{path}: ONNX Runtime cannot read it ({reason}); export the model anew") from None
        self.metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map

    def __call__(
        self,
        images: npt.NDArray[np.uint8],
        sizes: npt.NDArray[np.int64],
        originals: npt.NDArray[np.int64] | None = None,
    ) -> Sequence[npt.NDArray[Any]]:
        """Runs a batch."""
        inputs, names = by_name(images, sizes, originals)
        found: Sequence[npt.NDArray[Any]] = self._session.run(names, inputs)
        return found
