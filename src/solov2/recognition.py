"""Weights that come without a recipe get one: that of the zoo whose network has exactly their tensors."""

from __future__ import annotations

from pathlib import Path

import torch

from solov2.build import build_model
from solov2.config import Config, load_config
from solov2.config.load import recipe_folder
from solov2.config.own_data import with_class_count
from solov2.errors import WeightsError
from solov2.weights.files import WEIGHTS_SUFFIX
from solov2.weights.foreign import ForeignWeights
from solov2.weights.importing import Comparison, compare, shapes_of
from solov2.weights.names import OWNERS
from solov2.weights.zoo import ZooEntry, published_with

NEARLY = 0.1
"""Share of a network's tensors in which a file may differ and still be worth comparing with it."""


def find_recipe(foreign: ForeignWeights, path: Path, count: int) -> tuple[ZooEntry, Config]:
    """The recipe of the zoo whose network has exactly these tensors; of several that of the file's name.

    Args:
        foreign: what the file holds.
        path: of the file.
        count: classes of its head.

    Raises:
        WeightsError: if there is none; names the one that comes nearest.
    """
    entries = published_with(foreign.framework, path.stem)
    nearest: tuple[ZooEntry, Comparison] | None = None
    for entry in entries:
        config = with_class_count(shipped_recipe(entry.recipe), count)
        found = _compare(config, foreign)
        if not found.count:
            return entry, config
        if nearest is None or found.count < nearest[1].count:
            nearest = entry, found
    hint = ""
    if nearest is not None and nearest[1].count <= NEARLY * len(foreign.tensors):
        hint = f"; nearest is {nearest[0].recipe}: {nearest[1]}"
    raise WeightsError(
        f"{path}: has {OWNERS[foreign.framework]} names, but is the network of none of "
        f"{', '.join(entry.recipe for entry in entries)}{hint}; "
        f"convert it with its own recipe: solov2 convert {path} NEW{WEIGHTS_SUFFIX} -c RECIPE"
    )


def other_recipe(foreign: ForeignWeights, path: Path, config: Config, count: int) -> str:
    """What to say where weights do not fit the recipe given but are the network of another."""
    if not _compare(with_class_count(config, count), foreign).count:
        return ""
    try:
        entry, _ = find_recipe(foreign, path, count)
    except WeightsError:
        return ""
    return f"; they have the network of {entry.recipe}"


def _compare(config: Config, foreign: ForeignWeights) -> Comparison:
    with torch.device("meta"):
        return compare(shapes_of(build_model(config)), foreign)


def shipped_recipe(name: str) -> Config:
    """A recipe of this package, by its name."""
    return load_config(recipe_folder() / f"{name}.yml")  # whatever lies in the working folder
