"""Recipes in PaddleDetection's keys to one resolved, frozen `Config`; never imports torch.

Example:
    >>> load_config("configs/solov2/solov2_r50_fpn_1x_coco.yml", ["TrainReader.batch_size=1"]).train.epochs
    12
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solov2.config.load import read_tree, resolve_recipe, shipped_recipes
from solov2.config.paddle import recipe_key, recipe_value, translate
from solov2.config.schema import Config
from solov2.config.translate import Translation
from solov2.config.yaml_tree import key_text

__all__ = ["Config", "LoadedConfig", "describe", "load", "load_config", "resolve_recipe", "shipped_recipes"]


@dataclass(frozen=True)
class LoadedConfig:
    """A Config that remembers its file and where each value was written."""

    config: Config
    path: Path
    translation: Translation


def load_config(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a recipe.

    Args:
        name_or_path: a YAML file, or the name of a shipped recipe (also as configs/NAME.yml, configs/solov2/NAME.yml).
        overrides: KEY.SUBKEY=VALUE each, in the recipe's keys; VALUE is YAML.

    Raises:
        ConfigError: one line, with file and line number, for every problem.
    """
    return load(name_or_path, overrides).config


def load(name_or_path: str | Path, overrides: Sequence[str] = ()) -> LoadedConfig:
    """Reads a recipe as `load_config` does and keeps the origin of each value for `describe`."""
    path = resolve_recipe(name_or_path)
    tree, problems = read_tree(path, overrides)
    config, translation = translate(tree, problems, path)
    return LoadedConfig(config, path, translation)


def describe(loaded: LoadedConfig) -> list[tuple[str, Any, str]]:
    """Lists every resolved setting.

    Returns:
        (key, value, origin) in the schema's order: the key in the recipe's spelling, or the schema's where a recipe
        has no key for it; the value likewise, in JSON's types; the origin as file:line, "-o" or "default".
    """
    config, state = loaded.config, loaded.translation
    shared = [place for place, uses in Counter(state.places.values()).items() if uses > 1]  # one key, several settings
    rows = []
    for target, value in _settings(config.model_dump(mode="json", exclude={"name"}), ""):
        place = next((state.places[name] for name in (target, *_groups(target)) if name in state.places), None)
        own = place is not None and target in state.places and place not in shared
        key = key_text(place) if own and place else recipe_key(target, config)
        rows.append((key, recipe_value(target, value), (place and state.tree.origin(place)) or "default"))
    return rows


def _settings(values: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        target = f"{prefix}{name}"
        if isinstance(value, dict) and target not in ("optim.schedule", "optim.warmup"):
            yield from _settings(value, f"{target}.")
        else:
            yield target, value


def _groups(target: str) -> list[str]:
    parts = target.split(".")
    return [".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]
