"""Several COCO jsons as one data set."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from solov2.data.coco import CocoFile
from solov2.data.coco_checks import Problem
from solov2.errors import DatasetError

logger = logging.getLogger(__name__)

CATEGORIES_SHOWN = 10


def merge(files: Sequence[CocoFile], image_dirs: Sequence[Path]) -> CocoFile:
    """Puts checked files together; file names of pictures are as the first folder needs them.

    A file may have only some of the first one's categories. Nobody looked for the others in its pictures: they are
    not known there.

    Args:
        files: one or more, read one by one.
        image_dirs: folders of their pictures.

    Raises:
        DatasetError: if a category is not one of the first file's, or a picture is in two of them.
    """
    first = files[0]
    if len(files) == 1:
        return first
    for other in files[1:]:
        _check_categories(first, other)
    _check_pictures(files, image_dirs)
    annotations: dict[int, tuple[dict[str, Any], ...]] = {}
    known: dict[int, frozenset[int]] = {}
    images: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for file, folder, records in zip(files, image_dirs, _with_own_ids(files), strict=True):
        annotations |= records
        images += [_found_from(image_dirs[0], folder, image) for image in file.images]
        known |= _known(first, file)
        problems += [Problem(problem.kind, f"{file.path.name}: {problem.what}") for problem in file.problems]
    return CocoFile(
        path=first.path,
        categories=first.categories,
        images=tuple(sorted(images, key=lambda record: int(record["id"]))),
        annotations=annotations,
        problems=tuple(problems),
        known=known,
    )


def _check_categories(first: CocoFile, other: CocoFile) -> None:
    for category in other.categories:
        if category not in first.categories:
            shown = ", ".join(f"{c.id} {c.name!r}" for c in first.categories[:CATEGORIES_SHOWN])
            more = ", …" if len(first.categories) > CATEGORIES_SHOWN else ""
            raise DatasetError(
                f"{other.path}: category {category.id} ({category.name!r}) is none of the {len(first.categories)} of "
                f"{first.path} ({shown}{more}); expected the same ids and names, or some of them: name the file with "
                "all categories first"
            )


def _check_pictures(files: Sequence[CocoFile], image_dirs: Sequence[Path]) -> None:
    """Looks for pictures that occur twice; equal names in different folders are different pictures."""
    ids: dict[int, tuple[CocoFile, dict[str, Any]]] = {}
    paths: dict[Path, tuple[CocoFile, dict[str, Any]]] = {}
    for file, folder in zip(files, image_dirs, strict=True):
        own = [(folder.absolute() / record["file_name"], record) for record in file.images]
        same_id = [(ids[record["id"]], record) for _, record in own if record["id"] in ids]
        same_path = [(paths[path], record) for path, record in own if path in paths]
        if same_id or same_path:
            (other, there), here = (same_path or same_id)[0]
            raise DatasetError(
                f"{_place(file, here)} {'is the same picture as' if same_path else 'has the same id as'} "
                f"{_place(other, there)}; shared picture files: {len(same_path)}, shared ids: {len(same_id)}; "
                "leave a picture that is in both out of one file, and give different pictures different ids"
            )
        ids |= {record["id"]: (file, record) for _, record in own}
        paths |= {path: (file, record) for path, record in own}


def _place(file: CocoFile, record: dict[str, Any]) -> str:
    count = len(file.annotations[record["id"]])
    annotations = f"{count} annotation{'' if count == 1 else 's'}"
    return f"{file.path}: image {record['id']} ({record['file_name']}, {annotations})"


def _with_own_ids(files: Sequence[CocoFile]) -> Iterator[dict[int, tuple[dict[str, Any], ...]]]:
    """Each file's annotations; one whose id an earlier file has gets a new one, the same wherever it occurs."""
    every = [{a["id"] for records in file.annotations.values() for a in records if "id" in a} for file in files]
    fresh = itertools.count(1 + max((number for ids in every for number in ids if isinstance(number, int)), default=0))
    used: set[Any] = set()
    for file, ids in zip(files, every, strict=True):
        renamed = {number: next(fresh) for number in sorted(ids & used, key=str)}
        yield {
            image_id: tuple(a | {"id": renamed[a["id"]]} if a.get("id") in renamed else a for a in records)
            for image_id, records in file.annotations.items()
        }
        used |= ids


def _found_from(folder: Path, own: Path, image: dict[str, Any]) -> dict[str, Any]:
    """A picture's record with a file name that leads to it from another folder."""
    if own.absolute() == folder.absolute():
        return image
    return image | {"file_name": str(own.absolute() / image["file_name"])}


def _known(first: CocoFile, file: CocoFile) -> dict[int, frozenset[int]]:
    if len(file.categories) == len(first.categories):
        return file.known
    logger.info(
        "%s has %d of the %d categories of %s: its pictures count as labelled for these alone",
        file.path,
        len(file.categories),
        len(first.categories),
        first.path,
    )
    own = frozenset(category.id for category in file.categories)
    return {image["id"]: file.known.get(image["id"], own) for image in file.images}
