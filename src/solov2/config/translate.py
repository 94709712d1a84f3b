"""A tree of recipe keys plus a table of rules to a `Config`, or to one report of everything that is wrong.

The table itself, and with it every key's name, is in `paddle.py`; this module only walks, records which line each
setting came from, and turns the schema's complaints back into the recipe's keys.
"""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from solov2.config.schema import Config
from solov2.config.schema_types import ConflictError
from solov2.config.yaml_tree import Path, Problem, Tree, key_text
from solov2.errors import ConfigError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Take:
    """An understood key: its value, converted, becomes the setting `target`; a converter refuses by ValueError."""

    target: str
    convert: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class Only:
    """A known key of which this version supports some values; they need no setting."""

    values: tuple[Any, ...]
    remedy: str


@dataclass(frozen=True)
class Ignored:
    """A known key, or a whole block, that changes nothing here."""


@dataclass(frozen=True)
class Expand:
    """A key whose value needs code to understand."""

    handler: Callable[[Translation, Path, Any], None]


Rule = Take | Only | Ignored | Expand
Rules = Mapping[str, Rule]


@dataclass
class Translation:
    """What is known so far about one recipe.

    Attributes:
        source: the recipe's file.
        tree: its values.
        problems: everything wrong.
        settings: schema path to value.
        written: schema path to the value as the recipe spells it.
        places: schema path to the recipe path it came from.
        failed: schema paths whose value was refused.
        ignored: keys that change nothing.
    """

    source: str
    tree: Tree
    problems: list[Problem]
    settings: dict[str, Any] = field(default_factory=dict)
    written: dict[str, Any] = field(default_factory=dict)
    places: dict[str, Path] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    ignored: list[str] = field(default_factory=list)

    def complain(self, path: Path, message: str) -> None:
        """Records a problem at a key."""
        self.problems.append(Problem(self.tree.origin(path) or self.source, f"{key_text(path)}: {message}"))

    def give(self, target: str, value: Any, path: Path, written: Any = None) -> None:
        """Sets a setting, spelled as ``written``; where another key has set it already, the two must agree."""
        written = value if written is None else written
        if target not in self.settings:
            self.settings[target] = value
            self.written[target] = written
            self.places[target] = path
        elif self.settings[target] != value:
            other = self.places[target]
            self.complain(
                path,
                f"{shown(written)} here, but {key_text(other)} ({self.tree.origin(other)}) says "
                f"{shown(self.written.get(target, self.settings[target]))}: make them agree",
            )

    def apply(self, rule: Rule, path: Path, value: Any) -> None:
        """Handles one key."""
        match rule:
            case Take(target, convert):
                try:
                    self.give(target, convert(value) if convert else value, path, value)
                except ValueError as error:
                    self.failed.add(target)
                    self.complain(path, str(error))
            case Only(values, remedy):
                if not any(value == allowed and type(value) is type(allowed) for allowed in values):
                    self.complain(path, f"{shown(value)} is not supported: {remedy}")
            case Ignored():
                self.ignored.append(key_text(path))
            case Expand(handler):
                handler(self, path, value)

    def walk(self, values: Mapping[str, Any], rules: Rules, path: Path = (), prefix: str = "") -> None:
        """Handles every key of a mapping.

        Args:
            values: the mapping.
            rules: keys by dotted name.
            path: of the mapping in the recipe.
            prefix: of the mapping in the rules, empty or ending with a dot.
        """
        for key, value in values.items():
            here, name = (*path, key), f"{prefix}{key}"
            if name in rules:
                self.apply(rules[name], here, value)
            elif not any(known.startswith(f"{name}.") for known in rules):
                self.complain(here, unknown_key(key, prefix, rules))
            elif isinstance(value, dict):
                self.walk(value, rules, here, f"{name}.")
            elif value is not None:  # an empty block is null and sets nothing
                self.complain(here, f"expected a mapping, got {shown(value)}")


def unknown_key(key: str, prefix: str, rules: Rules) -> str:
    """The message for a key that no rule knows: names the nearest one, here first, then anywhere."""
    siblings = {name.removeprefix(prefix).partition(".")[0] for name in rules if name.startswith(prefix)}
    here = {sibling: f"{prefix}{sibling}" for sibling in sorted(siblings)}
    anywhere = {name.rpartition(".")[2]: name for name in reversed(list(rules))}
    for pool in (here, anywhere):
        folded = {name.lower(): full for name, full in pool.items()}
        if near := difflib.get_close_matches(key.lower(), folded, n=1, cutoff=0.6):
            return f"unknown key; did you mean {folded[near[0]]}?"
    return f"unknown key; known here are {', '.join(here)}" if prefix else "unknown key"


def shown(value: Any) -> str:
    """A value as a recipe would spell it."""
    return json.dumps(value, default=str, ensure_ascii=False)


def one_of(table: Mapping[str, Any]) -> Callable[[Any], Any]:
    """A converter from names to what they stand for; refuses others."""

    def convert(value: Any) -> Any:
        if not isinstance(value, str) or value not in table:
            raise ValueError(f"{shown(value)} is not supported: use {' or '.join(table)}")
        return table[value]

    return convert


def resolve(state: Translation, name: str) -> Config:
    """Builds the Config and reports every problem found on the way.

    Args:
        state: a walked recipe.
        name: of the recipe.

    Raises:
        ConfigError: with one line per problem.
    """
    config = None
    settings = {"name": name, **state.settings}
    while config is None and settings:
        try:
            config = Config.model_validate_json(json.dumps(_nested(settings), default=str), strict=True)
        except ValidationError as error:
            refused = _report(state, error)
            # Without the refused settings the rest is looked at once more: conflicts show only in a whole Config.
            kept = {path: value for path, value in settings.items() if path not in refused}
            settings = kept if len(kept) < len(settings) else {}
    if state.ignored:
        logger.info("these keys change nothing here: %s", ", ".join(state.ignored))
    if state.problems or config is None:
        raise ConfigError("\n".join(dict.fromkeys(map(str, state.problems))))
    return config


def _nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for path, value in settings.items():
        *groups, last = path.split(".")
        block = root
        for group in groups:
            block = block.setdefault(group, {})
        block[last] = value
    return root


def _report(state: Translation, error: ValidationError) -> set[str]:
    """Records the schema's complaints; returns the settings to leave out for a second look."""
    refused: set[str] = set()
    for detail in error.errors():
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, ConflictError):
            _report_conflicts(state, cause)
            continue
        target, place = _locate(state, detail["loc"])
        refused.add(target)
        state.complain(place, _expectation(dict(detail)))
    state.failed |= refused
    return refused


def _report_conflicts(state: Translation, error: ConflictError) -> None:
    for conflict in error.conflicts:
        if state.failed.intersection(conflict.paths):
            continue  # the default stands in for a refused value: nothing can be said
        places = [state.places[path] for path in conflict.paths if path in state.places]
        where = ", ".join(dict.fromkeys(state.tree.origin(place) for place in places)) or state.source
        keys = ", ".join(key_text(place) for place in places)
        state.problems.append(Problem(where, f"{keys}: {conflict.message}"))


def _locate(state: Translation, loc: tuple[str | int, ...]) -> tuple[str, Path]:
    """From the schema's location of an error to the setting that was given and the recipe's path."""
    # A union puts the name of the chosen model behind the setting's name; neither we nor the recipe have that level.
    parts = [part for index, part in enumerate(loc) if not index or loc[index - 1] not in _UNIONS]
    prefixes = [".".join(map(str, parts[:end])) for end in range(len(parts), 0, -1)]
    owner = next((prefix for prefix in prefixes if prefix in state.settings), "")
    for depth, prefix in enumerate(prefixes):
        if prefix in state.places:
            return owner, (*state.places[prefix], *parts[len(parts) - depth :])
    return owner, tuple(parts)


_UNIONS = ("backbone", "schedule")


_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "finite_number": "a finite number",
}


def _expectation(detail: dict[str, Any]) -> str:
    """One of pydantic's complaints in this package's words."""
    kind, value, limits = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "missing":
        return "is required"
    if kind == "value_error":
        return str(limits["error"])
    expected = _EXPECTED.get(kind)
    if kind == "literal_error":
        expected = f"one of {limits['expected']}"
    elif kind in ("too_short", "too_long"):
        return f"expected {_counted(kind, limits)} values, got {limits['actual_length']}: {shown(value)}"
    elif expected is None:
        limit = detail["msg"].removeprefix("Input should be ")
        expected = f"a number {limit}" if limit.startswith(("greater", "less")) else limit
    return f"expected {expected}, got {shown(value)}"


def _counted(kind: str, limits: dict[str, Any]) -> str:
    return f"at least {limits['min_length']}" if kind == "too_short" else f"at most {limits['max_length']}"
