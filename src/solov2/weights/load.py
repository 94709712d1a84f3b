"""Weights into a network: strictly, to use it; or what fits, to start training from."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from solov2.errors import WeightsError
from solov2.structures import Category
from solov2.weights.coco_classes import COCO_CATEGORIES
from solov2.weights.download import tell_licence
from solov2.weights.files import WeightsFile, counted
from solov2.weights.finding import find_weights
from solov2.weights.foreign import ForeignWeights, read_any
from solov2.weights.importing import (
    NOT_THERE,
    OTHER_CLASSES,
    Imported,
    Pretrained,
    as_numbers,
    difference,
    import_pretrained,
    import_state,
    shapes_of,
)
from solov2.weights.names import COUNTER, OWNERS
from solov2.weights.trial import is_published_model, on_trial, passed
from solov2.weights.zoo import published_with

logger = logging.getLogger(__name__)

_told: set[Path] = set()


def load_weights(model: nn.Module, path: str | Path) -> WeightsFile:
    """Loads weights that must fit the model exactly.

    Args:
        model: as :func:`solov2.build_model` makes it.
        path: a file of this package or of another framework, its address, or a name of the zoo.

    Returns:
        What the file says besides.

    Raises:
        WeightsError: if the file cannot be read, or a tensor is missing, left over, of another
            shape or not of finite numbers; all are counted, the first ones named. The model is then
            unchanged.
    """
    file = find_weights(path)
    with on_trial(file):
        weights = read_any(file)
    loaded = load_into(model, weights, file)
    passed(file)
    return loaded


def load_into(model: nn.Module, weights: WeightsFile | ForeignWeights, path: Path) -> WeightsFile:
    """Loads weights that have been read and must fit the model exactly; ``path`` is for messages.

    Returns:
        What the file says: for one of another framework its tensors as ours and, where it names
        them, its classes.

    Raises:
        WeightsError: as :func:`load_weights`.
    """
    if isinstance(weights, ForeignWeights):
        _tell_licence(weights)
        imported = import_state(model, weights)
        _tell(imported, weights)
        weights = WeightsFile(imported.state, categories=categories_of(weights.class_names))
    load_state(model, weights.state, str(path))
    return weights


def _tell_licence(foreign: ForeignWeights) -> None:
    """Warns, once per file, of published weights whose licence does not allow commercial use."""
    entries = published_with(foreign.framework, foreign.path.stem)
    if foreign.count_classes() is None or not entries or entries[0].commercial or foreign.framework == "mmdetection":
        return
    if Path(entries[0].file_name).stem == foreign.path.stem:
        tell_licence(entries[0].url)
    elif foreign.path not in _told:
        _told.add(foreign.path)
        logger.warning(
            "%s: has %s names; the licence of the weights published there is %s",
            foreign.path,
            OWNERS[foreign.framework],
            entries[0].licence,
        )


def _tell(imported: Imported, foreign: ForeignWeights) -> None:
    count = counted(len(imported.state), "tensor")
    logger.info("%s: %s with %s names", foreign.path, count, OWNERS[foreign.framework])
    for reason in dict.fromkeys(imported.filled.values()):
        names = [name for name, other in imported.filled.items() if other == reason]
        logger.info("%s, filled with %s", difference("not in it", names), reason)


def categories_of(class_names: tuple[str, ...]) -> tuple[Category, ...]:
    """Classes of which only the names are known: COCO's 80 with their ids, others numbered from 1."""
    names = [_plain(name) for name in class_names]
    if names == [category.name for category in COCO_CATEGORIES]:
        return COCO_CATEGORIES
    return tuple(Category(number, name) for number, name in enumerate(names, 1))


def _plain(name: str) -> str:
    return name.replace("_", " ")  # as the authors' files write names of several words


def load_state(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Loads tensors that must fit the model exactly; ``source`` is for the message.

    Raises:
        WeightsError: as :func:`load_weights`.
    """
    own = shapes_of(model)
    given = {name: tensor for name, tensor in state.items() if not name.endswith(COUNTER)}
    differences = [
        difference("missing from it", sorted(own.keys() - given.keys())),
        difference("unknown to the model", sorted(given.keys() - own.keys())),
        difference(
            "of another shape",
            [
                f"{name} {tuple(given[name].shape)} instead of {own[name]}"
                for name in sorted(own.keys() & given.keys())
                if own[name] != tuple(given[name].shape)
            ],
        ),
    ]
    if any(differences):
        text = "; ".join(filter(None, differences))
        raise WeightsError(f"{source}: does not fit the model: {text}; use the recipe the weights were trained with")
    for name, tensor in given.items():
        try:
            given[name] = as_numbers(name, tensor)
        except WeightsError as error:
            raise WeightsError(f"{source}: {error}") from None
    model.load_state_dict(given, strict=False)


def load_pretrained(model: nn.Module, path: str | Path, class_names: tuple[str, ...] = ()) -> Pretrained:
    """Loads what fits, to start training: a whole model with other classes, or a bare backbone.

    Args:
        model: to be trained.
        path: a file of this package or of another framework, its address, or a name of the zoo.
        class_names: the model's classes; the category layer is taken over only where they are the
            file's own. Of a file that does not name its classes it is taken if it has as many.

    Returns:
        What was taken and what not.

    Raises:
        WeightsError: if nothing fits, or one tensor of the file fits two of the model.
    """
    file = find_weights(path)
    with on_trial(file):
        weights = read_any(file)
    if not is_published_model(file):  # another model than the published one can start a training, too
        passed(file)
    if isinstance(weights, WeightsFile):
        theirs: tuple[str, ...] | None = tuple(category.name for category in weights.categories)
        weights = ForeignWeights("solov2", weights.state, file)
    else:
        _tell_licence(weights)
        theirs = tuple(map(_plain, weights.class_names)) or None
    same_classes = theirs is None or theirs == tuple(map(_plain, class_names)) or theirs == class_names
    found = import_pretrained(model, weights, same_classes=same_classes)
    if not found.state:
        raise WeightsError(
            f"{file}: of its {counted(len(weights.tensors), 'tensor')} none fits the model; "
            "expected weights of its kind"
        )
    model.load_state_dict(found.state, strict=False)
    _report(found, file)
    return found


def _report(found: Pretrained, path: Path) -> None:
    total = len(found.state) + len(found.missing)
    logger.info("%s: %d of the model's %d tensors start from it", path, len(found.state), total)
    if OTHER_CLASSES in found.unused.values():
        logger.info("its classes are others: the category layer starts anew, everything else is taken over")
    others = [f"{name} {shapes}" for name, shapes in sorted(found.other_shape.items())]
    left = sorted(name for name, reason in found.unused.items() if reason == NOT_THERE)
    for names, one, more in (
        (others, "is of another shape and left out", "are of another shape and left out"),
        (left, "is not used", "are not used"),
    ):
        if names:
            logger.info("%s: %s", path, difference(f"of its tensors {one if len(names) == 1 else more}", names))
    # Layers that find offsets start at zero wherever they come from.
    random = [name for name in found.missing if name.startswith("backbone.") and ".offset." not in name]
    if random:
        start = "starts" if len(random) == 1 else "start"
        logger.warning("%s: %s", path, difference(f"of the backbone's tensors {start} at random", random))
