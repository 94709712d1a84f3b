"""Weights into a network: strictly, to use it; or what fits, to start training from."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from solov2.errors import WeightsError
from solov2.weights.files import WeightsFile, find_weights, read_weights

logger = logging.getLogger(__name__)

CATEGORY_LAYER = "grid_head.category_output."
"""The only layer whose shape depends on the classes."""

SHOWN = 5
"""Names listed per kind of difference."""


def load_weights(model: nn.Module, path: str | Path) -> WeightsFile:
    """Loads weights that must fit the model exactly.

    Args:
        model: as :func:`solov2.build_model` makes it.
        path: a file, or the name of weights in this package.

    Returns:
        What the file says besides.

    Raises:
        WeightsError: if the file cannot be read, or a tensor is missing, left over or of another
            shape; all are counted, the first ones named. The model is then unchanged.
    """
    file = find_weights(path)
    weights = read_weights(file)
    load_state(model, weights.state, str(file))
    return weights


def load_state(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Loads tensors that must fit the model exactly; ``source`` is for the message.

    Raises:
        WeightsError: as :func:`load_weights`.
    """
    own = _needed(model)
    given = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    differences = [
        _difference("missing from it", sorted(own.keys() - given.keys())),
        _difference("unknown to the model", sorted(given.keys() - own.keys())),
        _difference(
            "of another shape",
            [
                f"{name} {tuple(given[name].shape)} instead of {tuple(own[name].shape)}"
                for name in sorted(own.keys() & given.keys())
                if own[name].shape != given[name].shape
            ],
        ),
    ]
    if any(differences):
        text = "; ".join(difference for difference in differences if difference)
        raise WeightsError(f"{source}: does not fit the model: {text}; use the recipe the weights were trained with")
    model.load_state_dict(dict(given), strict=False)


def load_pretrained(model: nn.Module, path: str | Path, class_names: tuple[str, ...] = ()) -> None:
    """Loads what fits, to start training: a whole model with other classes, or a bare backbone.

    Args:
        model: to be trained.
        path: a file, or the name of weights in this package.
        class_names: the model's classes; the category layer is taken over only where they are the
            file's own.

    Raises:
        WeightsError: if nothing fits.
    """
    file = find_weights(path)
    weights = read_weights(file)
    prefix = "" if any(name.startswith("backbone.") for name in weights.state) else "backbone."
    given = {prefix + name: tensor for name, tensor in weights.state.items()}
    own = _needed(model)
    same_classes = tuple(category.name for category in weights.categories) == class_names
    usable = {
        name: tensor
        for name, tensor in given.items()
        if name in own and own[name].shape == tensor.shape and (same_classes or not name.startswith(CATEGORY_LAYER))
    }
    if not usable:
        raise WeightsError(f"{file}: none of its {len(given)} tensors fits the model; expected weights of its kind")
    model.load_state_dict(usable, strict=False)
    logger.info("%s: %d of the model's %d tensors start from it", file, len(usable), len(own))
    if not same_classes and any(name.startswith(CATEGORY_LAYER) for name in given):
        logger.info("its classes are others: the category layer starts anew, everything else is taken over")
    left = sorted(own.keys() - usable.keys())
    unexpected = [name for name in left if not name.startswith(CATEGORY_LAYER) and name.startswith("backbone.")]
    if unexpected:
        logger.warning("%s: %s", file, _difference("of the backbone start at random", unexpected))


def _needed(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("num_batches_tracked")}


def _difference(kind: str, names: list[str]) -> str:
    if not names:
        return ""
    shown = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
    return f"{len(names)} {kind} ({shown})"
