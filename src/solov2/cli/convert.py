"""solov2 convert: weights of any framework become a file of this package."""

from __future__ import annotations

import argparse
from pathlib import Path

from solov2.errors import ConfigError


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    from solov2.config import load_config
    from solov2.opening import convert
    from solov2.weights.class_names import read_classes
    from solov2.weights.files import counted

    if arguments.opt and arguments.config is None:
        raise ConfigError(f"-o {' '.join(arguments.opt)}: overrides change a recipe; give one with -c")
    config = load_config(arguments.config, arguments.opt) if arguments.config else None
    categories = read_classes(Path(arguments.classes)) if arguments.classes else ()
    destination = Path(arguments.destination)
    written = convert(
        arguments.source,
        destination,
        config,
        categories=categories,
        half=arguments.half,
        overwrite=arguments.force,
    )
    count = written.config.model.num_classes
    names = [category.name for category in written.weights.categories]
    parameters = sum(parameter.numel() for parameter in written.network.parameters())
    size = f"{parameters / 1e6:.1f} M parameters, {counted(count, 'class')}"
    print(f"{destination}: {written.config.name}, {size}", end="")
    print(f" ({', '.join(names[:3])}{', …' if count > 3 else ''})" if names else ", which have no names: see --classes")
    return 0
