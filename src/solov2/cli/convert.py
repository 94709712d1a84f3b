"""solov2 convert: weights of any framework become a file of this package."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from solov2.errors import ConfigError, DatasetError
from solov2.structures import Category


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    from solov2.config import load_config
    from solov2.opening import convert

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
    print(f"{destination}: {written.config.name}, {parameters / 1e6:.1f} M parameters, {count} classes", end="")
    print(f" ({', '.join(names[:3])}{', …' if count > 3 else ''})" if names else ", which have no names: see --classes")
    return 0


def read_classes(path: Path) -> tuple[Category, ...]:
    """Classes by label: the categories of a COCO json, or the lines of a text file, numbered from 1.

    Raises:
        DatasetError: if it cannot be read or names none, or one twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".json":
            categories = tuple(Category(int(r["id"]), str(r["name"])) for r in json.loads(text)["categories"])
        else:
            names = [line.strip() for line in text.splitlines() if line.strip()]
            categories = tuple(Category(number, name) for number, name in enumerate(names, 1))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{path}: cannot be read as classes ({error!r}); expected a COCO json, or text with one name per line"
        ) from None
    if not categories or len({category.id for category in categories}) < len(categories):
        raise DatasetError(f"{path}: names {len(categories)} classes, or an id twice; expected one class per id")
    return categories
