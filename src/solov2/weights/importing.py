"""Another framework's tensors become ours: strictly, to use them; or what fits, to start training from.

Every tensor of the file and every tensor of the network is accounted for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from solov2.errors import WeightsError
from solov2.weights.files import counted
from solov2.weights.foreign import ForeignWeights
from solov2.weights.names import COUNTER, OWNERS, Layout, foreign_names
from solov2.weights.stem import STEM, from_bgr

CATEGORY_LAYER = "grid_head.category_output."
"""The only layer whose shape depends on the classes."""

SHOWN = 5
"""Names listed per kind of difference."""

NORM_EPS = 1e-5
"""Of every batch norm, here and there."""

IS_COUNTER = "counts training steps"
OTHER_CLASSES = "the classes are others"
NOT_THERE = "the network has no such tensor"
NO_BIAS = frozenset({"solo", "mmdetection"})
"""Their deformable convolutions before a group norm have none."""


@dataclass(frozen=True)
class Imported:
    """A whole network's tensors.

    Attributes:
        state: float32, by our names; all that the network needs.
        dropped: why a tensor of the file is not in it, by its name there.
        filled: what a tensor that the file lacks was filled with, by our name.
    """

    state: dict[str, Tensor]
    dropped: dict[str, str]
    filled: dict[str, str]


@dataclass(frozen=True)
class Pretrained:
    """What of a file fits a network.

    Attributes:
        state: float32, by our names.
        unused: why a tensor of the file is not in it, by its name there.
        other_shape: tensors of the file with a place in the network but another shape there, with both.
        missing: what of the network the file has nothing for, by our names.
    """

    state: dict[str, Tensor]
    unused: dict[str, str]
    other_shape: dict[str, str]
    missing: tuple[str, ...]


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors that weights must have, by name."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if not name.endswith(COUNTER)}


def difference(kind: str, names: Sequence[str]) -> str:
    """How many there are of a kind, and the first of them; empty for none."""
    if not names:
        return ""
    shown = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
    return f"{len(names)} {kind} ({shown})"


def as_numbers(name: str, tensor: Tensor) -> Tensor:
    """A tensor as float32.

    Raises:
        WeightsError: if it holds integers, or a number that is not finite.
    """
    if not tensor.dtype.is_floating_point:
        raise WeightsError(f"{name} holds {str(tensor.dtype).removeprefix('torch.')} numbers; expected real ones")
    tensor = tensor.float()
    # A sum is finite only if all is; that it overflows without cause is worth the second look.
    if not torch.isfinite(tensor.sum()) and not torch.isfinite(tensor).all():
        raise WeightsError(f"{name} holds numbers that are not finite; the training that wrote it has failed")
    return tensor


@dataclass(frozen=True)
class Comparison:
    """What differs between a file and a network.

    Attributes:
        missing: tensors of the network that the file lacks, by our names.
        unknown: tensors of the file that the network lacks, by their names there.
        other_shape: tensors of both, by our names, with both shapes.
    """

    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    other_shape: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many tensors differ."""
        return len(self.missing) + len(self.unknown) + len(self.other_shape)

    def __str__(self) -> str:
        """How many there are of each kind, and the first of them."""
        kinds = {"missing from it": self.missing, "unknown to the model": self.unknown}
        kinds["of another shape"] = self.other_shape
        return "; ".join(filter(None, (difference(kind, names) for kind, names in kinds.items())))


def compare(shapes: Mapping[str, Sequence[int]], foreign: ForeignWeights) -> Comparison:
    """Compares a file's names and shapes with a network's; it may lack biases it never has."""
    layout = Layout.of(shapes)
    places = {name: _present(name, foreign, layout) for name in shapes}
    used = {there for found in places.values() for there in found}
    others = {
        name: there
        for name, found in sorted(places.items())
        for there in reversed(found)
        if _shape(there, foreign) != tuple(shapes[name])
    }
    return Comparison(
        missing=tuple(sorted(n for n, found in places.items() if not found and not _never_there(n, foreign, layout))),
        unknown=tuple(sorted(n for n in foreign.tensors.keys() - used if not n.endswith(COUNTER))),
        other_shape=tuple(
            f"{name} {_shape(there, foreign)} instead of {tuple(shapes[name])}" for name, there in others.items()
        ),
    )


def _never_there(name: str, foreign: ForeignWeights, layout: Layout) -> bool:
    return foreign.framework in NO_BIAS and name.removesuffix(".conv.bias") in layout.deformable


def import_state(model: nn.Module | Mapping[str, Sequence[int]], foreign: ForeignWeights) -> Imported:
    """Our tensors from a file that must be of the same network.

    Args:
        model: the network, or its tensors' shapes by our names.
        foreign: the file.

    Raises:
        WeightsError: if a tensor is missing, left over, of another shape, not of finite real
            numbers, or if two that must be one differ; all are counted, the first ones named.
    """
    shapes = shapes_of(model) if isinstance(model, nn.Module) else model
    layout = Layout.of(shapes)
    places = {name: _present(name, foreign, layout) for name in shapes}
    dropped = {name: IS_COUNTER for name in foreign.tensors if name.endswith(COUNTER)}
    filled = [name for name, found in places.items() if not found and _never_there(name, foreign, layout)]
    _check_classes(places.get(f"{CATEGORY_LAYER}bias", []), shapes, foreign)
    compared = compare(shapes, foreign)
    if compared.count:
        raise WeightsError(
            f"{foreign.path}: weights with {OWNERS[foreign.framework]} names that do not fit the model: {compared}; "
            "use the recipe they were trained with"
        )
    for found in places.values():
        dropped |= _copies(found, foreign)
    state = {name: _tensor(name, found[0], foreign) for name, found in places.items() if found}
    state |= {name: torch.zeros(tuple(shapes[name])) for name in filled}
    return Imported(state, dropped, dict.fromkeys(filled, "0: the convolution has no bias there"))


def _present(name: str, foreign: ForeignWeights, layout: Layout) -> list[str]:
    return [there for there in foreign_names(name, foreign.framework, layout) if there in foreign.tensors]


def _shape(there: str, foreign: ForeignWeights) -> tuple[int, ...]:
    return tuple(foreign.tensors[there].shape)


def _tensor(name: str, there: str, foreign: ForeignWeights) -> Tensor:
    try:
        tensor = as_numbers(there, foreign.tensors[there])
    except WeightsError as error:
        raise WeightsError(f"{foreign.path}: {error}") from None
    return from_bgr(tensor) if name == STEM and foreign.bgr else tensor


def _copies(there: Sequence[str], foreign: ForeignWeights) -> dict[str, str]:
    for other in there[1:]:
        if not torch.equal(foreign.tensors[there[0]], foreign.tensors[other]):
            raise WeightsError(
                f"{foreign.path}: {other} differs from {there[0]}; expected the same tensor twice, "
                "as every file of its kind has it"
            )
    return {other: f"the same as {there[0]}" for other in there[1:]}


def _check_classes(there: Sequence[str], shapes: Mapping[str, Sequence[int]], foreign: ForeignWeights) -> None:
    name = f"{CATEGORY_LAYER}bias"
    if there and _shape(there[0], foreign) != tuple(shapes[name]):
        theirs, ours = foreign.tensors[there[0]].numel(), shapes[name][0]
        raise WeightsError(
            f"{foreign.path}: is for {counted(theirs, 'class')}, the model for {ours}; set num_classes to {theirs}, "
            f"or train from it: -o pretrain_weights={foreign.path}"
        )


def import_pretrained(
    model: nn.Module | Mapping[str, Sequence[int]], foreign: ForeignWeights, *, same_classes: bool = True
) -> Pretrained:
    """What of a file fits a network: of a whole network, or of a backbone without a prefix.

    A tensor of the file belongs to the one of ours whose name there it is or, after a dot, ends; of
    several the longest counts (PaddleDetection and detectron2 load their backbones so).

    Args:
        model: the network, or its tensors' shapes by our names.
        foreign: the file.
        same_classes: take the category layer as well.

    Raises:
        WeightsError: if one tensor of the file fits two of ours, or one that fits is not of finite
            real numbers.
    """
    shapes = shapes_of(model) if isinstance(model, nn.Module) else model
    layout = Layout.of(shapes)
    unused: dict[str, str] = {}
    other_shape: dict[str, str] = {}
    owners: dict[str, str] = {}
    for name, shape in shapes.items():
        found = _longest_first(foreign_names(name, foreign.framework, layout), foreign.tensors)
        if not found:
            continue
        there, *copies = found
        unused |= {copy: f"the same as {there}" for copy in copies if _equal(copy, there, foreign)}
        if name.startswith(CATEGORY_LAYER) and (not same_classes or _shape(there, foreign) != tuple(shape)):
            unused[there] = OTHER_CLASSES
        elif _shape(there, foreign) != tuple(shape):
            other_shape.setdefault(there, f"{_shape(there, foreign)} instead of {tuple(shape)}")
        elif there in owners:
            raise WeightsError(f"{foreign.path}: {there} fits both {owners[there]} and {name} of the model")
        else:
            owners[there] = name
    # What one of our names has already taken may end another's too.
    other_shape = {there: shapes for there, shapes in other_shape.items() if there not in owners}
    unused = {there: reason for there, reason in unused.items() if there not in owners}
    state = {name: _tensor(name, there, foreign) for there, name in owners.items()}
    state |= _identity_statistics(shapes, state, foreign)
    for name in foreign.tensors.keys() - owners.keys() - unused.keys() - other_shape.keys():
        unused[name] = IS_COUNTER if name.endswith(COUNTER) else NOT_THERE
    return Pretrained(state, unused, other_shape, tuple(sorted(shapes.keys() - state.keys())))


def _longest_first(names: Iterable[str], tensors: Mapping[str, Tensor]) -> list[str]:
    ends = dict.fromkeys(end for name in names for end in _ends(name) if end in tensors)
    return sorted(ends, key=len, reverse=True)


def _equal(one: str, other: str, foreign: ForeignWeights) -> bool:
    return torch.equal(foreign.tensors[one], foreign.tensors[other])


def _ends(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.partition(".")[2]


def _identity_statistics(
    shapes: Mapping[str, Sequence[int]], state: Mapping[str, Tensor], foreign: ForeignWeights
) -> dict[str, Tensor]:
    # MSRA's backbones have their statistics in scale and shift; detectron2 takes mean 0 and variance 1 - eps.
    if foreign.framework != "detectron2" or any(name.endswith(".running_var") for name in foreign.tensors):
        return {}
    values = {"running_mean": 0.0, "running_var": 1 - NORM_EPS}
    return {
        f"{layer}.norm.{tensor}": torch.full(tuple(shapes[f"{layer}.norm.{tensor}"]), value)
        for layer in (name.removesuffix(".norm.weight") for name in state if name.endswith(".norm.weight"))
        for tensor, value in values.items()
        if f"{layer}.norm.{tensor}" in shapes
    }
