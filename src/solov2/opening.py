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

from solov2.build import build_model, source_paths
from solov2.config import Config
from solov2.config.own_data import with_class_count, without_paths
from solov2.errors import WeightsError
from solov2.model.solov2 import SOLOv2
from solov2.recognition import find_recipe, other_recipe, shipped_recipe
from solov2.structures import Category
from solov2.version import __version__
from solov2.weights.cache import HOME_VARIABLE, download_place, model_place
from solov2.weights.class_names import find_classes
from solov2.weights.coco_classes import COCO_CATEGORIES
from solov2.weights.download import fetch, tell_licence
from solov2.weights.files import WeightsFile, counted, version_of, write_weights
from solov2.weights.finding import check_destination, find_file, find_weights
from solov2.weights.foreign import ForeignWeights, read_any
from solov2.weights.importing import CATEGORY_LAYER
from solov2.weights.load import load_into, load_state
from solov2.weights.names import OWNERS
from solov2.weights.trial import on_trial, passed
from solov2.weights.zoo import ZooEntry, find_entry, published_with, zoo_entry

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenedWeights:
    """A network with its weights and all that is known about it.

    Attributes:
        network: on the CPU, in training mode, holding the weights.
        config: its recipe, of as many classes as the weights have.
        weights: tensors, classes, threshold and texts; the tensors hold the network's numbers.
        path: of the file.
    """

    network: SOLOv2
    config: Config
    weights: WeightsFile
    path: Path


def open_weights(
    name_or_path: str | Path,
    config: Config | None = None,
    *,
    adapt_classes: bool = True,
    categories: Sequence[Category] = (),
) -> OpenedWeights:
    """Opens a model: a file of any kind, or a name of the zoo, which is downloaded the first time.

    Args:
        name_or_path: a file, also without its suffix; or a name. A file wins over a name.
        config: the recipe to use instead of the file's own or the zoo's.
        adapt_classes: give the recipe as many classes as the file names.
        categories: the classes by label, instead of those that the file names. Without either they are those of
            an annotation file that the given recipe names, or COCO's, if there are as many.

    Raises:
        WeightsError: if it cannot be had or read, does not fit its recipe, or fits no recipe of the zoo.
    """
    path = _locate(name_or_path)
    with on_trial(path):
        weights = read_any(path)
    if isinstance(weights, ForeignWeights):
        opened = _open_foreign(weights, path, config)
    else:
        opened = _open_own(weights, path, config, adapt_classes=adapt_classes)
    passed(path)
    named = tuple(categories) or opened.weights.categories or _unnamed_classes(opened, config)
    return replace(opened, weights=replace(opened.weights, categories=named))


def _open_own(weights: WeightsFile, path: Path, config: Config | None, *, adapt_classes: bool) -> OpenedWeights:
    if weights.about.get("url"):
        tell_licence(weights.about["url"])
    own = config_of(weights, path) if config is None else config
    named = len(weights.categories)
    if named and (width := _count_classes(weights.state, path)) != named:
        raise WeightsError(
            f"{path}: names {counted(named, 'class')}, but its head has {width}; the file is damaged or was put "
            "together by hand"
        )
    if named and config is not None and adapt_classes:
        own = with_class_count(config, named)
    network = build_model(own)
    load_state(network, weights.state, str(path))
    return OpenedWeights(network, own, weights, path)


def _unnamed_classes(opened: OpenedWeights, config: Config | None) -> tuple[Category, ...]:
    path, count = opened.path, opened.config.model.num_classes
    data = None if config is None else config.data
    splits = () if data is None else (data.test, data.eval, data.train)
    named = [source_paths(split)[0] for split in splits if split.source.anno_path is not None]
    categories, source = find_classes(named, count)
    if source is not None:
        logger.info("%s: does not name its %s: taken from %s", path, counted(count, "class"), source)
        return categories
    if count == len(COCO_CATEGORIES):
        logger.info("%s: does not name its %d classes: taken for COCO's", path, count)
        return COCO_CATEGORIES
    logger.info(
        "%s: does not name its %s, and no annotation file of a recipe does: they are called class 0 and so on; "
        "solov2 convert --classes gives them names",
        path,
        counted(count, "class"),
    )
    return ()


def _locate(name_or_path: str | Path) -> Path:
    """The file; of a model of the zoo the converted one."""
    file = find_file(name_or_path)
    if file is not None:
        return file
    entry = find_entry(str(name_or_path))
    return find_weights(name_or_path, models_only=True) if entry is None else open_zoo(entry.name)


def open_zoo(name: str) -> Path:
    """The file of a model of the zoo, downloaded and converted the first time.

    Args:
        name: of an entry, an alias, or the published file's name, also without its suffix.

    Raises:
        WeightsError: if there is no such model, or it cannot be had or does not fit its recipe.
    """
    entry = zoo_entry(name)
    if entry.shipped:
        return find_weights(entry.name)
    place = model_place(entry.name)
    version = version_of(place) if place.is_file() else None
    # Another version may have had another recipe; without the published file that has to do.
    if version == __version__ or (version is not None and not download_place(entry.url).is_file()):
        tell_licence(entry.url)
    else:
        source = fetch(entry.url)
        with on_trial(source):
            opened = open_weights(source, shipped_recipe(entry.recipe))
        try:
            _write(opened, place, about=_about(entry))  # over that of another process, which may have been faster
        except WeightsError as error:
            raise WeightsError(f"{error}; {HOME_VARIABLE} names another folder to keep models in") from None
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
    check_destination(destination, overwrite=overwrite)
    opened = open_weights(source, config, categories=categories)
    count, given = opened.config.model.num_classes, len(categories)
    if given not in (0, count):
        raise WeightsError(
            f"{opened.path}: its head has {counted(count, 'class')}, {given} {'is' if given == 1 else 'are'} given: "
            "make them agree"
        )
    return _write(opened, destination, about=opened.weights.about if about is None else about, half=half)


def write_calibrated(
    opened: OpenedWeights,
    destination: Path,
    calibration: Sequence[tuple[float, float]],
    score_threshold: float | None,
    *,
    overwrite: bool = False,
) -> OpenedWeights:
    """Writes a copy of opened weights whose scores are calibrated.

    Args:
        opened: any weights; its recipe is written, too.
        destination: ending in ``.safetensors``.
        calibration: raw and calibrated scores, as :attr:`~solov2.weights.files.WeightsFile.calibration`.
        score_threshold: a calibrated score, 0..1.
        overwrite: replace an existing file.

    Returns:
        What was written.

    Raises:
        WeightsError: as :func:`check_destination`.
    """
    check_destination(destination, overwrite=overwrite)
    weights = replace(opened.weights, calibration=tuple(calibration), score_threshold=score_threshold)
    return _write(replace(opened, weights=weights), destination, about=weights.about)


def _write(opened: OpenedWeights, destination: Path, *, about: Mapping[str, str], half: bool = False) -> OpenedWeights:
    config = without_paths(opened.config).model_dump(mode="json")
    weights = replace(opened.weights, config=config, about=about)
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
    count = _count_foreign(foreign, path)
    if config is None:
        found, config = find_recipe(foreign, path, count)
        logger.info("%s: has the network of %s", path, found.recipe)
    network = build_model(config)
    try:
        weights = load_into(network, foreign, path)
    except WeightsError as error:
        raise WeightsError(f"{error}{other_recipe(foreign, path, config, count)}") from None
    entry = next(
        (entry for entry in published_with(foreign.framework) if Path(entry.file_name).stem == path.stem), None
    )
    about = {} if entry is None else _about(entry)
    return OpenedWeights(network, config, replace(weights, about=about), path)


def _count_foreign(foreign: ForeignWeights, path: Path) -> int:
    count = foreign.count_classes()
    if count is None and foreign.whole:
        raise WeightsError(
            f"{path}: has {OWNERS[foreign.framework]} names, but no SOLOv2 head; expected weights of a SOLOv2 model"
        )
    if count is None:
        raise WeightsError(
            f"{path}: holds a backbone to start training from, not a whole model; "
            f"use it as pretrain_weights: -o pretrain_weights={path}"
        )
    return count


def _count_classes(state: Mapping[str, torch.Tensor], path: Path) -> int:
    try:
        return len(next(state[name] for name in state if name.startswith(CATEGORY_LAYER) and name.endswith("bias")))
    except (StopIteration, TypeError):
        raise WeightsError(
            f"{path}: holds a backbone to start training from, not a whole model; "
            "give weights that solov2 train has written"
        ) from None


def _about(entry: ZooEntry) -> dict[str, str]:
    return {"source": f"{entry.file_name} of {entry.source}", "licence": entry.licence, "url": entry.url}
