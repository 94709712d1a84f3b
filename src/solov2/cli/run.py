"""solov2 run: one picture, under the flags of PaddleHub's ``hub run``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from solov2.cli.predict import check_places
from solov2.errors import ConfigError
from solov2.hub import NAME, Module, as_result, read_picture, save_overlay

if TYPE_CHECKING:
    from solov2.structures import Instances


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    if not 0 <= arguments.threshold <= 1:
        raise ConfigError(f"--threshold is {arguments.threshold}; expected a score in 0..1")
    if arguments.visualization:
        check_places(Path(arguments.save_dir), None)
    picture = read_picture(arguments.input_path)
    use_gpu = arguments.use_gpu if arguments.use_device is None else arguments.use_device == "gpu"
    # A checkout of this package is a folder called solov2; the name means the model all the same.
    is_folder = arguments.name != NAME and Path(arguments.name).is_dir()
    module = Module(**{"directory" if is_folder else "name": arguments.name}, use_gpu=use_gpu)
    found = module.predictor.predict(picture[:, :, ::-1], arguments.threshold)
    print(f"{arguments.input_path}  {_summary(found)}")
    if arguments.visualization:
        print(f"overlay: {save_overlay(picture, found, arguments.save_dir)}")
    print(as_result(found))  # as PaddleHub does
    return 0


def _summary(found: Instances) -> str:
    height, width = found.original_hw
    names = [f"{name} {score:.3f}" for name, score in zip(found.class_names, found.scores, strict=True)]
    counted = f"{width}x{height}  {len(names)} instance{'' if len(names) == 1 else 's'}"
    return f"{counted}: {', '.join(names)}" if names else counted
