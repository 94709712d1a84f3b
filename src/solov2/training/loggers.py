"""Loggers by name: what draws curves besides metrics.csv."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from solov2.errors import ConfigError, MissingDependencyError

logger = logging.getLogger(__name__)

KINDS = {
    "tensorboard": ("TensorBoardLogger", "tensorboard"),
    "csv": ("CSVLogger", ""),
    "wandb": ("WandbLogger", "wandb"),
    "mlflow": ("MLFlowLogger", "mlflow"),
    "comet": ("CometLogger", "comet_ml"),
    "neptune": ("NeptuneLogger", "neptune"),
}
"""Lightning's class, and the package it needs."""

IN_FOLDER = ("tensorboard", "csv")
"""These write files, into the run's folder."""


def make_loggers(names: Sequence[str], folder: Path) -> list[Any]:
    """Lightning's loggers.

    Args:
        names: keys of :data:`KINDS`.
        folder: of the run.

    Raises:
        ConfigError: for an unknown name.
        MissingDependencyError: if the package behind a name is not installed.
    """
    from lightning.pytorch import loggers

    made = []
    for name in names:
        if name not in KINDS:
            raise ConfigError(f"there is no logger {name!r}; expected one of {', '.join(KINDS)}")
        kind, package = KINDS[name]
        try:
            arguments = {"save_dir": folder, "name": name, "version": ""} if name in IN_FOLDER else {}
            made.append(getattr(loggers, kind)(**arguments))
        except (ModuleNotFoundError, ImportError):
            extra = "train" if name == "tensorboard" else ""
            raise MissingDependencyError(package, extra, f"--logger {name}") from None
    return made
