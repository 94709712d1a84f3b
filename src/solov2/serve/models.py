"""The models of the service: names become predictors, loaded once at the start."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from solov2.errors import ConfigError
from solov2.opening import open_weights
from solov2.predict import Predictor, check_runtime, load, model_named, predictor_of
from solov2.runtime.exported import ExportedModel, is_exported
from solov2.serve.options import DEFAULT_NAME
from solov2.weights.files import SUFFIXES

logger = logging.getLogger(__name__)

GPUS_VARIABLE = "CUDA_VISIBLE_DEVICES"

LICENCE_KEYS = ("licence", "license")
"""Of what files say about their weights."""

WARM_UP_SIDE = 64
"""Pixels; a first picture lets libraries set themselves up before anybody waits for them."""


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A model under the name that requests use.

    Attributes:
        name: in addresses and answers.
        predictor: only the batcher's thread may run it.
        licence: of the weights; empty if unknown.
        runtime: what runs it: "torch", "onnxruntime" or "openvino".
        device: where, in PyTorch's or the run time's word.
    """

    name: str
    predictor: Predictor
    licence: str
    runtime: str
    device: str


class Models(Mapping[str, ServedModel]):
    """The models by name, in the order they were given; the first is the default.

    ``solov2`` finds the default where no model has that name itself, as it is the name that PaddleHub's clients use.
    """

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self._by_name = {model.name: model for model in models}
        self.default = models[0]

    def __getitem__(self, name: str) -> ServedModel:
        return self._by_name.get(name) or {DEFAULT_NAME: self.default}[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)


def load_models(names: Sequence[str], device: str = "", runtime: str = "auto") -> Models:
    """Loads models and runs each once.

    Args:
        names: of the zoo, or of files; ``NAME==VERSION`` as PaddleHub has it is the same as ``NAME``.
        device: as in :class:`~solov2.serve.options.ServeOptions`.
        runtime: as for :func:`solov2.load`.

    Raises:
        WeightsError: if a model is not there or cannot be read.
        ConfigError: if the device or run time does not fit, or two models have one name.
        MissingDependencyError: if a run time is not installed.
    """
    device = device or default_device()
    models: dict[str, ServedModel] = {}
    for wanted in names:
        source, _, version = wanted.partition("==")
        if version:
            logger.info("%s: models here have no versions; %s is left out", source, version)
        model = _load(source, device, runtime)
        if model.name in models:
            raise ConfigError(f"two models are called {model.name!r}; give each file a name of its own")
        models[model.name] = model
    return Models(list(models.values()))


def default_device() -> str:
    """The device of a service that was told none: a GPU that the environment names and that is there, else the CPU."""
    import torch

    named = os.environ.get(GPUS_VARIABLE, "").strip() not in ("", "-1")
    return "cuda" if named and torch.cuda.is_available() else "cpu"


def _load(source: str, device: str, runtime: str) -> ServedModel:
    name, place = served_name(source), model_named(source)
    if is_exported(place):
        predictor = load(place, device, runtime)
        assert isinstance(predictor.model, ExportedModel)
        about = predictor.model.metadata.get("about") or {}
        ran_by = str(predictor.model.runtime)
    else:
        check_runtime(place, runtime)
        opened = open_weights(place)
        predictor = predictor_of(opened, device)
        about, ran_by = opened.weights.about, "torch"
    predictor.predict(np.zeros((WARM_UP_SIDE, WARM_UP_SIDE, 3), np.uint8))
    on = str(predictor.device) if ran_by == "torch" else device
    logger.info("%s: %s on %s (%s)", name, place, on, ran_by)
    return ServedModel(name, predictor, _licence(about), ran_by, on)


def _licence(about: Mapping[str, str]) -> str:
    return next((str(about[key]) for key in LICENCE_KEYS if about.get(key)), "")


def served_name(wanted: str) -> str:
    """The name in addresses of a model that :func:`load_models` takes: of a file, its name without the ending."""
    path = Path(wanted.partition("==")[0])
    known = (*SUFFIXES, ".onnx", ".xml")
    return path.stem if path.suffix in known else path.name
