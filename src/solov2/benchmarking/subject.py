"""What is measured: a model that is here, or a recipe with random weights, which take the same time."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from solov2.build import build_model
from solov2.config import Config, load_config, shipped_recipes
from solov2.config.own_data import without_paths
from solov2.model.solov2 import SOLOv2
from solov2.opening import OpenedWeights, open_weights
from solov2.structures import HW
from solov2.weights.cache import model_place
from solov2.weights.coco_classes import COCO_CATEGORIES
from solov2.weights.files import WeightsFile
from solov2.weights.finding import find_file, shipped_names
from solov2.weights.zoo import find_entry


@dataclass(frozen=True)
class Subject:
    """A network and its recipe.

    Attributes:
        name: as it was asked for.
        opened: the network with all that is known about it.
        random: its weights are random numbers.
    """

    name: str
    opened: OpenedWeights
    random: bool

    @property
    def config(self) -> Config:
        """Its recipe."""
        return self.opened.config

    def network(self) -> SOLOv2:
        """A copy of the network, in evaluation mode: measured forms must not share tensors they lay out differently."""
        return copy.deepcopy(self.opened.network).eval()

    def at_size(self, hw: HW | None) -> Subject:
        """With a recipe that resizes pictures to this size, their aspect kept; None: as it is."""
        if hw is None:
            return self
        reader = self.config.data.test.reader
        steps = tuple(
            step.model_copy(update={"args": {**step.args, "target_size": [min(hw), max(hw)]}})
            if step.name == "Resize"
            else step
            for step in reader.transforms
        )
        test = self.config.data.test.model_copy(update={"reader": reader.model_copy(update={"transforms": steps})})
        config = self.config.model_copy(update={"data": self.config.data.model_copy(update={"test": test})})
        return replace(self, opened=replace(self.opened, config=config))


def find_subject(name: str) -> Subject:
    """The model of a name, if it is here; otherwise the recipe of that name, with random weights.

    Args:
        name: a weights file, a name of the zoo, or a recipe, its file or name. Nothing is downloaded.

    Raises:
        WeightsError: if the weights cannot be read.
        ConfigError: if there is neither, or the recipe cannot be read.
    """
    weights = _weights_here(name)
    if weights is not None:
        return Subject(name, open_weights(weights), random=False)
    entry = None if name in shipped_recipes() else find_entry(name)
    config = load_config(name if entry is None else entry.recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_model(config)
    categories = COCO_CATEGORIES[: config.model.num_classes]
    file = WeightsFile(
        network.state_dict(),
        without_paths(config).model_dump(mode="json"),
        categories if len(categories) == config.model.num_classes else (),
    )
    return Subject(name, OpenedWeights(network, config, file, Path(name)), random=True)


def _weights_here(name: str) -> str | Path | None:
    if name.endswith((".yml", ".yaml")):
        return None
    if find_file(name) is not None or name in shipped_names():
        return name
    entry = find_entry(name)
    place = None if entry is None else model_place(entry.name)
    return place if place is not None and place.is_file() else None
