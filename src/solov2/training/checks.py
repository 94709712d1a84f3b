"""What is looked at before the first step, not after hours of training; and advice when memory ends."""

from __future__ import annotations

import logging
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from solov2.config import Config
from solov2.errors import ConfigError, TrainingError, WeightsError
from solov2.structures import Category
from solov2.weights.files import METADATA_KEY
from solov2.weights.finding import find_file

logger = logging.getLogger(__name__)

COPIES = 2
"""Of a checkpoint on the disk while one replaces the other."""


def warn_of_batch_size(stated: Config, config: Config) -> None:
    """Says which learning rate goes with another batch size, where that alone was changed.

    Args:
        stated: the recipe as it stands in its file.
        config: the recipe as it is to run.
    """
    before, after = _pictures_per_step(stated), _pictures_per_step(config)
    if before != after and stated.optim.base_lr == config.optim.base_lr:
        logger.warning(
            "%d pictures a step and device instead of the recipe's %d, with the same base_lr: the linear rule gives "
            "LearningRate.base_lr=%g instead of %g",
            after,
            before,
            config.optim.base_lr * after / before,
            config.optim.base_lr,
        )


def tell_learning_rate(config: Config, devices: int) -> None:
    """Says which learning rate the run has, where the recipe states it for another number of devices."""
    stated, base_lr = config.train.base_devices, config.optim.base_lr
    if devices != stated:
        logger.info(
            "base_lr %g is for %d devices: %g on %d; -o base_devices=%d would keep it",
            base_lr,
            stated,
            base_lr * devices / stated,
            devices,
            devices,
        )


def _pictures_per_step(config: Config) -> int:
    return config.data.train.reader.batch_size * config.train.accumulate


def check_trainable(model: nn.Module) -> None:
    """Looks whether anything is left to be trained.

    Raises:
        ConfigError: if every part is frozen.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError("freeze: every part of the network is frozen, nothing is left to train; name fewer parts")


def check_room(folder: Path, model: nn.Module, *, averaged: bool) -> None:
    """Makes a run's folder and looks whether checkpoints can be written there.

    Args:
        folder: of the run.
        model: to be trained.
        averaged: a moving average of its weights is kept as well.

    Raises:
        ConfigError: if the folder cannot be made or written to, or the disk is too full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be written to ({error.strerror or error}); set save_dir to a folder that can"
        ) from None
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    trained = sum(parameter.numel() * 4 for parameter in model.parameters() if parameter.requires_grad)
    needed = COPIES * (weights * (2 if averaged else 1) + 2 * trained) + 2 * weights  # and two weights files
    if free < needed:
        raise ConfigError(
            f"{folder}: has {free / 2**20:.0f} MB of free disk space, a run needs some {needed / 2**20:.0f} MB for its "
            "checkpoints; make room or set save_dir to another disk"
        )


def read_checkpoint(path: Path, config: Config, categories: Sequence[Category]) -> dict[str, Any] | None:
    """Reads what a run goes on from.

    Args:
        path: of a checkpoint, or of weights alone.
        config: the recipe.
        categories: classes of the data.

    Returns:
        The checkpoint; None for a file with weights alone.

    Raises:
        WeightsError: if there is no such file, it is damaged, or of other classes or another network.
    """
    if not path.is_file():
        if find_file(path) is not None:
            return None
        raise WeightsError(f"{path}: no such checkpoint to resume from; expected the last.ckpt of a run")
    if path.suffix != ".ckpt":
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # PyTorch itself reads on over flipped bits
        if damaged is not None:
            raise WeightsError(f"its part {damaged} is damaged")
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        metadata: Mapping[str, Any] = checkpoint[METADATA_KEY]
    except Exception as error:  # torch.load raises a dozen kinds for damaged files
        reason = str(error).partition("\n")[0]  # it goes on about how to load it regardless
        raise WeightsError(f"{path}: not a checkpoint to resume from ({reason})") from None
    before = [(record["id"], record["name"]) for record in metadata["categories"]]
    if before != [(category.id, category.name) for category in categories]:
        raise WeightsError(f"{path}: was trained on other classes than the data's; resume with the data it began with")
    if Config.model_validate(metadata["config"]).model != config.model:
        raise WeightsError(f"{path}: is of another network than the recipe's; resume with the recipe it began with")
    return checkpoint


@contextmanager
def telling_out_of_memory(config: Config) -> Iterator[None]:
    """Turns the end of memory into advice: which settings to lower, and by how much.

    Raises:
        TrainingError: in its place.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # PyTorch's on a CPU is a RuntimeError like any other
        ended = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not ended and not any(words in str(error) for words in ("not enough memory", "out of memory")):
            raise
        raise TrainingError(f"out of memory ({_first_line(error)}); {_advice(config)}") from None


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0][:160]


def _advice(config: Config) -> str:
    batch_size, rate = config.data.train.reader.batch_size, config.optim.base_lr
    advice = [] if config.train.amp else ["train with --amp"]
    if batch_size > 1:
        half = batch_size // 2
        advice.append(f"-o TrainReader.batch_size={half} LearningRate.base_lr={rate * half / batch_size:g}")
    else:
        advice.append("lower the sizes in TrainReader (Resize, RandomResize: target_size) by a quarter")
    return "lower what it takes: " + ", or ".join(advice) + "; go on with -r from the last checkpoint"
