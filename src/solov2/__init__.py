"""SOLOv2 instance segmentation: every object of a picture as a mask with a class and a score.

Example:
    >>> import solov2
    >>> predictor = solov2.load("nuclei", device="cpu")
    >>> found = predictor.predict("examples/nuclei_fluorescence.jpg")  # doctest: +SKIP
    >>> found.masks, found.labels, found.scores, found.boxes  # doctest: +SKIP

Names are resolved on first use, so that importing the package costs nothing. No module of the package
has the name of a function here: importing it would put the module in the function's place.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from solov2.version import __version__

if TYPE_CHECKING:
    from solov2.build import build_model
    from solov2.config import Config, load_config
    from solov2.decoding import decode
    from solov2.errors import (
        ConfigError,
        DatasetError,
        ImageError,
        MissingDependencyError,
        Solov2Error,
        TrainingError,
        WeightsError,
    )
    from solov2.predict import Predictor, load
    from solov2.structures import Category, Frame, Instances, Predictions
    from solov2.training.fit import train
    from solov2.weights.load import load_weights

_HOMES = {
    "Category": "structures",
    "Config": "config",
    "ConfigError": "errors",
    "DatasetError": "errors",
    "Frame": "structures",
    "ImageError": "errors",
    "Instances": "structures",
    "MissingDependencyError": "errors",
    "Predictions": "structures",
    "Predictor": "predict",
    "Solov2Error": "errors",
    "TrainingError": "errors",
    "WeightsError": "errors",
    "build_model": "build",
    "decode": "decoding",
    "load": "predict",
    "load_config": "config",
    "load_weights": "weights.load",
    "train": "training.fit",
}

__all__ = [
    "Category",
    "Config",
    "ConfigError",
    "DatasetError",
    "Frame",
    "ImageError",
    "Instances",
    "MissingDependencyError",
    "Predictions",
    "Predictor",
    "Solov2Error",
    "TrainingError",
    "WeightsError",
    "__version__",
    "build_model",
    "decode",
    "load",
    "load_config",
    "load_weights",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'solov2' has no attribute {name!r}")
    value = getattr(import_module(f"solov2.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
