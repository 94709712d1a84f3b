"""PaddleHub's configuration file of a service."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from solov2.errors import ConfigError

KINDS: dict[str, type] = {
    "modules_info": dict,
    "port": int,
    "use_gpu": bool,
    "gpu": str,
    "use_multiprocess": bool,
    "use_singleprocess": bool,
    "workers": int,
}
"""What may stand in the file."""

PREDICT_KINDS: dict[str, tuple[type, ...]] = {
    "threshold": (int, float),
    "visualization": (bool,),
    "save_dir": (str,),
    "use_gpu": (bool,),
}


@dataclass(frozen=True)
class HubConfig:
    """What such a file says.

    Attributes:
        models: names, in its order.
        defaults: by model, values for what requests leave out.
        port: None if it says none.
        use_gpu: None if it does not say.
        gpu: numbers of GPUs, separated by commas; None if it does not say.
    """

    models: tuple[str, ...] = ()
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    port: int | None = None
    use_gpu: bool | None = None
    gpu: str | None = None


def read_hub_config(path: Path) -> HubConfig:
    """Reads a file such as ``{"modules_info": {"solov2": {"predict_args": {"threshold": 0.4}}}, "port": 8866}``.

    How many processes and workers it wants is not followed: one process owns the models, and requests share batches.

    Raises:
        ConfigError: if there is no such file, or it says something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); expected a JSON file") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: no JSON ({error}); expected an object with {', '.join(KINDS)}") from None
    _check(path, "the file", values, {name: (kind,) for name, kind in KINDS.items()})
    defaults = {}
    for name, about in values.get("modules_info", {}).items():
        _check(path, name, about, {"init_args": (dict,), "predict_args": (dict,)})
        given = about.get("predict_args", {})
        _check(path, f"{name}: predict_args", given, PREDICT_KINDS)
        if not 0 <= given.get("threshold", 0) <= 1:
            raise ConfigError(f"{path}: {name}: threshold is {given['threshold']}; expected a score in 0..1")
        defaults[name] = {key: value for key, value in given.items() if key != "use_gpu"}
    return HubConfig(tuple(defaults), defaults, values.get("port"), values.get("use_gpu"), values.get("gpu"))


def _check(path: Path, what: str, values: object, kinds: Mapping[str, tuple[type, ...]]) -> None:
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: {what}: expected an object with {', '.join(kinds)}")
    for name, value in values.items():
        if name not in kinds:
            raise ConfigError(f"{path}: {what}: unknown key {name!r}; expected {', '.join(kinds)}")
        if not isinstance(value, kinds[name]) or (isinstance(value, bool) and bool not in kinds[name]):
            expected = " or ".join(kind.__name__ for kind in kinds[name])
            raise ConfigError(f"{path}: {what}: {name} is {value!r}; expected {expected}")
