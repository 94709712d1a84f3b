"""Recipe files to one tree: names of shipped recipes, `_BASE_`, and overrides from the command line."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from solov2.config.yaml_tree import Problem, Tree, merge, parse
from solov2.errors import ConfigError

logger = logging.getLogger(__name__)

OVERRIDE_ORIGIN = "-o"
_BASE_KEY = "_BASE_"
_SUFFIXES = (".yml", ".yaml")
_FOLDERS = (("configs", "solov2"), ("configs",), ())


def recipe_folder() -> Path:
    """Where the shipped recipes lie."""
    return Path(str(resources.files("solov2.config").joinpath("recipes")))


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package, sorted."""
    return sorted(path.stem for path in recipe_folder().glob("*.yml"))


def resolve_recipe(name_or_path: str | Path) -> Path:
    """Finds a recipe.

    Args:
        name_or_path: a file; or a shipped recipe as NAME, NAME.yml, configs/NAME.yml or configs/solov2/NAME.yml.

    Returns:
        The file itself where there is one, the shipped recipe otherwise.

    Raises:
        ConfigError: when there is neither; names the shipped recipes that come closest.
    """
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    if shipped := _shipped(path):
        if path.parent.parts or path.suffix:  # a bare name means nothing else
            logger.info("no file %s here: using the shipped recipe %s", name_or_path, shipped)
        return shipped
    known = shipped_recipes()
    close = difflib.get_close_matches(_name(path), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"give a file, or one of: {', '.join(known)}"
    raise ConfigError(f"no recipe {str(name_or_path)!r}: {hint}")


def _name(path: Path) -> str:
    return path.stem if path.suffix in _SUFFIXES else path.name


def _shipped(path: Path) -> Path | None:
    """The shipped recipe that a path without a file means, if any."""
    name = _name(path)
    return recipe_folder() / f"{name}.yml" if path.parent.parts in _FOLDERS and name in shipped_recipes() else None


def read_tree(path: Path, overrides: Sequence[str] = ()) -> tuple[Tree, list[Problem]]:
    """Reads a recipe with its bases and lays the overrides over it.

    Args:
        path: an existing file.
        overrides: KEY.SUBKEY=VALUE each, VALUE in YAML; later ones win, all of them are merged.

    Returns:
        The merged tree, and problems that leave it usable, such as a key written twice or a broken override.

    Raises:
        ConfigError: when a file cannot be read at all, naming every one.
    """
    reader = _Reader()
    tree = reader.read(path, chain=())
    for text in overrides:
        tree = merge(tree, reader.read_override(text))
    if reader.unreadable:
        raise ConfigError("\n".join(str(problem) for problem in [*reader.unreadable, *reader.problems]))
    return tree, reader.problems


class _Reader:
    """Collects what is wrong over all files; `unreadable` leaves holes in the tree, `problems` do not."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.unreadable: list[Problem] = []

    def read(self, path: Path, chain: tuple[Path, ...]) -> Tree:
        own = self.read_file(path)
        bases = own.values.pop(_BASE_KEY, [])
        where = own.origin((_BASE_KEY,))
        if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
            self.unreadable.append(Problem(where, f"{_BASE_KEY}: expected a list of files, got {bases!r}"))
            return own
        merged, chain = Tree(), (*chain, path.resolve())
        for base in bases:
            target = path.parent / Path(base).expanduser()  # an absolute base replaces the parent
            if not target.is_file():
                target = _shipped(Path(base)) or target  # a recipe of one's own over, say, nano.yml
            if target.resolve() in chain:
                circle = " -> ".join(file.name for file in (*chain, target))
                self.unreadable.append(Problem(where, f"{_BASE_KEY}: {base} leads back to itself: {circle}"))
            elif not target.is_file():
                self.unreadable.append(Problem(where, f"{_BASE_KEY}: no file {base} (looked for {target})"))
            else:
                merged = merge(merged, self.read(target, chain))
        return merge(merged, own)

    def read_file(self, path: Path) -> Tree:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            self.unreadable.append(Problem(str(path), f"cannot be read as UTF-8 text: {error}"))
            return Tree()
        document = parse(text, lambda line: f"{path}:{line}")
        if not document.readable:
            self.unreadable.extend(document.problems)
            return Tree()
        self.problems.extend(document.problems)
        if not isinstance(document.value, dict | None):
            self.unreadable.append(Problem(f"{path}:1", "a recipe is a mapping of KEY: VALUE lines"))
            return Tree()
        return Tree(document.value or {}, document.origins)

    def read_override(self, text: str) -> Tree:
        key, equals, value_text = text.partition("=")
        parts = tuple(part.strip() for part in key.split("."))
        if not equals or not all(parts):
            self.problems.append(
                Problem(OVERRIDE_ORIGIN, f"{text!r} is not KEY.SUBKEY=VALUE, e.g. TrainReader.batch_size=2")
            )
            return Tree()
        value, origins, problems, readable = parse(value_text, lambda _: OVERRIDE_ORIGIN, at=parts)
        self.problems.extend(Problem(f"{OVERRIDE_ORIGIN} {text}", problem.message) for problem in problems)
        if not readable:
            return Tree()
        for depth in range(1, len(parts) + 1):
            origins.setdefault(parts[:depth], OVERRIDE_ORIGIN)
        for part in reversed(parts):
            value = {part: value}
        return Tree(value, origins)
