"""solov2 data: looks at a data set before training, in numbers or in pictures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from solov2.errors import ConfigError

if TYPE_CHECKING:
    from solov2.config import Config

DEFECTS_FOUND = 1


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    return check(arguments) if arguments.action == "check" else show(arguments)


def check(arguments: argparse.Namespace) -> int:
    """Prints what there is to say about a data set; 1 if it has defects, else 0."""
    from solov2.formats import write_json
    from solov2.inspection.report import as_json, as_text, inspect_data

    found = inspect_data(_config(arguments), pictures=arguments.pictures)
    print(as_text(found))
    if arguments.json:
        write_json(Path(arguments.json), as_json(found))
    return DEFECTS_FOUND if found.defects else 0


def show(arguments: argparse.Namespace) -> int:
    """Draws samples and names their files."""
    from solov2.inspection.samples import SHEET, caption, show_samples

    if arguments.number < 1:
        raise ConfigError(f"-n is {arguments.number}; expected at least 1 picture")
    if arguments.seed is not None and arguments.seed < 0:
        raise ConfigError(f"--seed is {arguments.seed}; expected 0 or more")
    folder = Path(arguments.output)
    config = _config(arguments)
    for shown in show_samples(config, folder, number=arguments.number, seed=arguments.seed, raw=arguments.raw):
        print(f"{shown.path}  {caption(shown.sample)}")
    print(f"all together: {folder / SHEET}")
    return 0


def _config(arguments: argparse.Namespace) -> Config:
    from solov2.config import load_config
    from solov2.config.own_data import with_own_data

    config = load_config(arguments.config, arguments.opt)
    return with_own_data(config, data=arguments.data, images=arguments.images)
