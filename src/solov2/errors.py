"""Everything this package raises on purpose.

Solov2Error
├── ConfigError              a recipe, an override or a combination of settings
├── DatasetError             a COCO json or the pictures it names
├── ImageError               one picture that cannot be read or used
├── WeightsError             a weights or checkpoint file
├── TrainingError            a run that cannot go on
└── MissingDependencyError   an optional package that is not installed

Messages say what it is, what was expected and what to do, with the value.
"""


class Solov2Error(Exception):
    """Base of all errors a user can act on; the command line prints it and exits with code 2."""


class ConfigError(Solov2Error):
    """A recipe, an override or a combination of settings is wrong."""


class DatasetError(Solov2Error):
    """A COCO json, or the pictures it names, cannot be used."""


class ImageError(Solov2Error):
    """A picture cannot be read or used."""


class WeightsError(Solov2Error):
    """A weights or checkpoint file is missing, damaged or does not fit the model."""


class TrainingError(Solov2Error):
    """A training run cannot go on."""


class MissingDependencyError(Solov2Error):
    """An optional package is needed and not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        what = f"'solov2[{extra}]'" if extra else package
        super().__init__(f"{purpose} needs the package {package!r}: pip install {what}")
