"""Class names from files beside the weights: a COCO json, or text with one name per line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from solov2.errors import DatasetError
from solov2.structures import Category

EXPECTED = "expected a COCO json, or text with one name per line"


def read_classes(path: Path) -> tuple[Category, ...]:
    """Classes by label: the categories of a COCO json, or the lines of a text file, numbered from 1.

    Raises:
        DatasetError: if it cannot be read or names none, or one twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file; {EXPECTED}") from None
    except UnicodeDecodeError:
        raise DatasetError(f"{path}: cannot be read as classes (it is no text); {EXPECTED}") from None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read as classes ({error.strerror or error}); {EXPECTED}") from None
    try:
        categories = _of_json(text) if path.suffix == ".json" else _of_lines(text)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DatasetError(
            f"{path}: cannot be read as classes (it is no json with 'categories' that have 'id' and 'name'); {EXPECTED}"
        ) from None
    if not categories or len({category.id for category in categories}) < len(categories):
        raise DatasetError(f"{path}: names {len(categories)} classes, or an id twice; expected one class per id")
    return categories


def find_classes(paths: Iterable[Path], count: int) -> tuple[tuple[Category, ...], Path | None]:
    """The classes of the first of some files that is there and names as many; none if there is no such file."""
    for path in paths:
        try:
            categories = read_classes(path)
        except DatasetError:
            continue
        if len(categories) == count:
            return categories, path
    return (), None


def _of_json(text: str) -> tuple[Category, ...]:
    return tuple(Category(int(record["id"]), str(record["name"])) for record in json.loads(text)["categories"])


def _of_lines(text: str) -> tuple[Category, ...]:
    names = [line.strip() for line in text.splitlines() if line.strip()]
    return tuple(Category(number, name) for number, name in enumerate(names, 1))
