"""Weights of any kind become a network with its recipe, its classes and its licence.

A file of this package says all that itself. Files of other frameworks hold tensors alone: their recipe is
the one of the zoo whose network has exactly these tensors, unless one is given. Prediction, evaluation and
conversion begin here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import ValidationError

from solov2.build import build_model
from solov2.config import Config, load_config
from solov2.config.load import recipe_folder
from solov2.config.own_data import with_class_count, without_paths
from solov2.errors import WeightsError
from solov2.model.solov2 import SOLOv2
from solov2.structures import Category
from solov2.weights.cache import model_place
from solov2.weights.coco_classes import COCO_CATEGORIES
from solov2.weights.download import fetch, tell_licence
from solov2.weights.files import WEIGHTS_SUFFIX, WeightsFile, find_file, find_weights, write_weights
from solov2.weights.foreign import ForeignWeights, read_any
from solov2.weights.importing import CATEGORY_LAYER, fits, shapes_of
from solov2.weights.load import load_into, load_state
from solov2.weights.zoo import ZooEntry, find_entry, published_with, zoo_entry

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenedWeights:
    """A network with its weights and all that is known about it.

    Attributes:
        network: on the CPU, in training mode, holding the weights.
        config: its recipe, of as many classes as the weights have.
        weights: tensors, classes, threshold and texts; the tensors are the network's.
        path: of the file.
    """

    network: SOLOv2
    config: Config
    weights: WeightsFile
    path: Path


def open_weights(
    name_or_path: str | Path, config: Config | None = None, *, adapt_classes: bool = True
) -> OpenedWeights:
    """Opens a model: a file of any kind, or a name of the zoo, which is downloaded the first time.

    Args:
        name_or_path: a file, also without its suffix; or a name. A file wins over a name.
        config: the recipe to use instead of the file's own or the zoo's.
        adapt_classes: give the recipe as many classes as the file names.

    Raises:
        WeightsError: if it cannot be had or read, does not fit its recipe, or fits no recipe of the zoo.
    """
    path = _locate(name_or_path)
    weights = read_any(path)
    if isinstance(weights, ForeignWeights):
        return _open_foreign(weights, path, config)
    if weights.about.get("url"):
        tell_licence(weights.about["url"])
    own = config_of(weights, path) if config is None else config
    named = len(weights.categories)
    if named and (width := _count_classes(weights.state, path)) != named:
        raise WeightsError(
            f"{path}: names {named} classes, but its head has {width}; the file is damaged or was put together by hand"
        )
    if named and config is not None and adapt_classes:
        own = with_class_count(config, named)
    network = build_model(own)
    load_state(network, weights.state, str(path))
    return OpenedWeights(network, own, weights, path)


def _locate(name_or_path: str | Path) -> Path:
    """The file; of a model of the zoo the converted one."""
    file = find_file(name_or_path)
    if file is not None:
        return file
    entry = find_entry(str(name_or_path))
    return find_weights(name_or_path) if entry is None else open_zoo(entry.name)


def open_zoo(name: str) -> Path:
    """The file of a model of the zoo, downloaded and converted the first time.

    Args:
        name: of an entry, an alias, or the published file's name without its suffix.

    Raises:
        WeightsError: if there is no such model, or it cannot be had or does not fit its recipe.
    """
    entry = zoo_entry(name)
    if entry.shipped:
        return find_weights(entry.name)
    place = model_place(entry.name)
    if place.is_file():
        tell_licence(entry.url)
    else:
        source = fetch(entry.url)
        convert(source, place, _shipped_recipe(entry.recipe), about=_about(entry))
    return place


def convert(
    source: str | Path,
    destination: Path,
    config: Config | None = None,
    *,
    categories: Sequence[Category] = (),
    about: Mapping[str, str] | None = None,
    half: bool = False,
    overwrite: bool = False,
) -> OpenedWeights:
    """Writes any weights as a file of this package, with recipe and classes.

    Args:
        source: as for :func:`open_weights`.
        destination: ending in ``.safetensors``.
        config: the recipe to use instead of the file's own or the zoo's.
        categories: the classes by label, instead of the file's own or COCO's.
        about: texts for the file, such as source and licence; default: what is known.
        half: store weights of convolutions as float16.
        overwrite: replace an existing file.

    Returns:
        What was written.

    Raises:
        WeightsError: as :func:`open_weights`; or if the destination is another kind of file, is there
            already, or the classes are not as many as the head's.
    """
    if destination.suffix != WEIGHTS_SUFFIX:
        raise WeightsError(f"{destination}: expected a name that ends in {WEIGHTS_SUFFIX}")
    if destination.exists() and not overwrite:
        raise WeightsError(f"{destination}: is there already; give another name, or --force to replace it")
    opened = open_weights(source, config)
    count = opened.config.model.num_classes
    if categories and len(categories) != count:
        raise WeightsError(f"{opened.path}: its head has {count} classes, {len(categories)} are given: make them agree")
    weights = replace(
        opened.weights,
        config=without_paths(opened.config).model_dump(mode="json"),
        categories=tuple(categories) or opened.weights.categories,
        about=opened.weights.about if about is None else about,
    )
    write_weights(destination, weights, half=half)
    return replace(opened, weights=weights, path=destination)


def config_of(weights: WeightsFile, path: Path) -> Config:
    """The configuration that travels in a weights file.

    Raises:
        WeightsError: if it has none, or one that this version does not understand.
    """
    if not weights.config:
        raise WeightsError(
            f"{path}: holds a backbone to start training from, not a whole model; "
            "give weights that solov2 train has written"
        )
    try:
        return Config.model_validate(weights.config)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise WeightsError(
            f"{path}: its configuration is not understood by this version ({where}: {first['msg']})"
        ) from None


# ------------------------------------------------------------------------------- other frameworks' files


def _open_foreign(foreign: ForeignWeights, path: Path, config: Config | None) -> OpenedWeights:
    entry = None
    if config is None:
        entry, config = _find_recipe(foreign, path)
        logger.info("%s: has the network of %s", path, entry.recipe)
    network = build_model(config)
    weights = load_into(network, foreign, path)
    categories = weights.categories
    if not categories and config.model.num_classes == len(COCO_CATEGORIES):
        logger.info("%s: does not name its %d classes: taken for COCO's", path, len(COCO_CATEGORIES))
        categories = COCO_CATEGORIES
    is_published = entry is not None and path.stem == Path(entry.file_name).stem
    about = _about(entry) if entry is not None and is_published else {}
    return OpenedWeights(network, config, replace(weights, categories=categories, about=about), path)


def _find_recipe(foreign: ForeignWeights, path: Path) -> tuple[ZooEntry, Config]:
    """The recipe of the zoo whose network has exactly these tensors; of several that of the file's name."""
    entries, count = published_with(foreign.framework, path.stem), foreign.count_classes()
    if count is None:
        raise WeightsError(
            f"{path}: holds a backbone to start training from, not a whole model; "
            f"use it as pretrain_weights: -o pretrain_weights={path}"
        )
    for entry in entries:
        config = with_class_count(_shipped_recipe(entry.recipe), count)
        with torch.device("meta"):
            shapes = shapes_of(build_model(config))
        if fits(shapes, foreign):
            return entry, config
    raise WeightsError(
        f"{path}: has the names of {foreign.framework}, but is the network of none of "
        f"{', '.join(entry.recipe for entry in entries)}; give its recipe with -c"
    )


def _shipped_recipe(name: str) -> Config:
    return load_config(recipe_folder() / f"{name}.yml")  # whatever lies in the working folder


def _count_classes(state: Mapping[str, torch.Tensor], path: Path) -> int:
    try:
        return len(state[f"{CATEGORY_LAYER}bias"])
    except (KeyError, TypeError):
        raise WeightsError(
            f"{path}: holds a backbone to start training from, not a whole model; "
            "give weights that solov2 train has written"
        ) from None


def _about(entry: ZooEntry) -> dict[str, str]:
    return {"source": f"{entry.file_name} of {entry.source}", "licence": entry.licence, "url": entry.url}
