"""YAML text to plain values, with the line every value came from.

A recipe can hold mappings, lists, texts, numbers, true/false and null; of YAML's tags only those of `TAGS` are
known, and nothing in a file can run code. Problems are collected, not raised: a report shows all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

Path = tuple[str | int, ...]
"""Keys and list positions from the root to a value."""

TAGS = ("!COCODataSet", "!ImageFolder", "!PiecewiseDecay", "!CosineDecay", "!LinearWarmup", "!ExpWarmup")
"""A tag puts its name into the mapping it stands before: `!ImageFolder {a: 1}` is `{name: ImageFolder, a: 1}`."""


MOST_VALUES = 100_000
"""In one document, repeats by alias included; a few lines of aliases of aliases could make billions."""


class _RecipeLoader(yaml.SafeLoader):
    """The safe loader that also reads 1e-4 as a number, as YAML 1.2 does and YAML 1.1 does not."""


_RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


@dataclass(frozen=True)
class Problem:
    """Something wrong at one place: `where` is file:line, or -o for an override on the command line."""

    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


@dataclass
class Tree:
    """Nested values and the place each of them was written at."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[Path, str] = field(default_factory=dict)

    def origin(self, path: Path) -> str:
        """Where the value, or the closest thing around it, was written; empty where nothing was."""
        while path and path not in self.origins:
            path = path[:-1]
        return self.origins.get(path, "")


def key_text(path: Path) -> str:
    """Formats a path as it is spelled in messages.

    Example:
        >>> key_text(("LearningRate", "schedulers", 0, "gamma"))
        'LearningRate.schedulers[0].gamma'
    """
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def merge(base: Tree, override: Tree) -> Tree:
    """Lays one tree over another: mappings merge at every depth, everything else replaces."""
    origins = dict(base.origins)

    def lay(below: dict[str, Any], above: dict[str, Any], path: Path) -> dict[str, Any]:
        merged = dict(below)
        for key, value in above.items():
            here = (*path, key)
            if isinstance(value, dict) and isinstance(merged.get(key), dict):
                merged[key] = lay(merged[key], value, here)
            else:
                for old in [old for old in origins if old[: len(here)] == here]:
                    del origins[old]
                merged[key] = value
        return merged

    values = lay(base.values, override.values, ())
    return Tree(values, origins | override.origins)


class Parsed(NamedTuple):
    """One YAML document: its value, the origin of each path in it, what is wrong, and whether it could be read."""

    value: Any
    origins: dict[Path, str]
    problems: list[Problem]
    readable: bool = True


def parse(text: str, locate: Callable[[int], str], at: Path = ()) -> Parsed:
    """Reads one YAML document.

    Args:
        text: the document.
        locate: from a line number, counted from 1, to the place a message names.
        at: path below which the document stands.

    Returns:
        The document, its value None where it is empty; after a syntax error, the one problem is that error.
    """
    builder = _Builder(locate)
    try:
        loader = _RecipeLoader(text)
        node = loader.get_single_node()
        value = None if node is None else builder.build(loader, node, at)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = locate(mark.line + 1 if mark else 1)
        return Parsed(None, {}, [Problem(where, f"not valid YAML: {error.problem or error.context}")], readable=False)
    except yaml.YAMLError as error:
        return Parsed(None, {}, [Problem(locate(1), f"not valid YAML: {error}")], readable=False)
    except RecursionError:
        return Parsed(None, {}, [Problem(locate(1), "lists or mappings are nested too deeply")], readable=False)
    except _TooLargeError as error:
        message = f"holds more than {MOST_VALUES} values, repeats by alias (*) included: that is no recipe"
        return Parsed(None, {}, [Problem(str(error), message)], readable=False)
    return Parsed(value, builder.origins, builder.problems)


class _TooLargeError(Exception):
    """Carries the place at which the number of values was exceeded."""


class _Builder:
    """Turns YAML's nodes into values while noting lines and problems."""

    def __init__(self, locate: Callable[[int], str]) -> None:
        self.locate = locate
        self.origins: dict[Path, str] = {}
        self.problems: list[Problem] = []
        self.open_nodes: list[yaml.Node] = []
        self.checked: set[int] = set()
        self.built = 0

    def build(self, loader: _RecipeLoader, node: yaml.Node, path: Path) -> Any:
        self.built += 1
        if self.built > MOST_VALUES:
            raise _TooLargeError(self.where(node))
        if any(node is opened for opened in self.open_nodes):
            self.complain(node, "an alias (*) stands inside the value it repeats: write the value out")
            return None
        if path:
            self.origins.setdefault(path, self.where(node))
        self.open_nodes.append(node)
        value = self.build_plain(loader, node, path)
        self.open_nodes.pop()
        return self.apply_tag(node, value)

    def build_plain(self, loader: _RecipeLoader, node: yaml.Node, path: Path) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self.build_mapping(loader, node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(loader, item, (*path, index)) for index, item in enumerate(node.value)]
        if node.tag.startswith("!"):
            return None if node.value == "" else node.value
        try:
            return loader.construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            self.complain(node, f"cannot be read as a value: {getattr(error, 'problem', None) or error}")
            return None

    def build_mapping(self, loader: _RecipeLoader, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        if id(node) not in self.checked:  # an alias leads here again, after << keys were replaced by their pairs
            self.checked.add(id(node))
            self.check_keys(node, path)
        loader.flatten_mapping(node)  # puts the pairs of a << key first, so that the mapping's own pairs win
        values = {}
        for key, item in node.value:
            if key.tag == _TEXT:
                here = (*path, key.value)
                self.origins[here] = self.where(key)
                values[key.value] = self.build(loader, item, here)
        return values

    def check_keys(self, node: yaml.MappingNode, path: Path) -> None:
        own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        first_line: dict[str, str] = {}
        for key in own:
            if not isinstance(key, yaml.ScalarNode) or key.tag != _TEXT:
                self.complain(key, f"a key must be plain text, got {_shown(key)}: quote it if it is meant as a name")
            elif key.value in first_line:
                earlier = first_line[key.value]
                self.complain(key, f"{key_text((*path, key.value))} is written twice, first at {earlier}: keep one")
            else:
                first_line[key.value] = self.where(key)

    def apply_tag(self, node: yaml.Node, value: Any) -> Any:
        if node.tag in _PLAIN_TAGS:
            return value
        if node.tag not in TAGS:
            self.complain(node, f"unknown tag {node.tag}; known are {', '.join(TAGS)}")
            return None
        if not isinstance(value, dict | None):
            self.complain(node, f"{node.tag} needs a mapping after it, got {_shown(node)}")
            return None
        return {"name": node.tag.removeprefix("!"), **(value or {})}

    def complain(self, node: yaml.Node, message: str) -> None:
        self.problems.append(Problem(self.where(node), message))

    def where(self, node: yaml.Node) -> str:
        return self.locate(node.start_mark.line + 1)


_TEXT = "tag:yaml.org,2002:str"
_PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null")}


def _shown(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return repr(node.value)
    return "a mapping" if isinstance(node, yaml.MappingNode) else "a list"
