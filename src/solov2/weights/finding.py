"""Which file a path, a name or an address means; where there is none, what was probably meant."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from solov2.errors import WeightsError
from solov2.weights.download import fetch
from solov2.weights.files import SUFFIXES, WEIGHTS_SUFFIX
from solov2.weights.zoo import ZOO, find_entry

SHIPPED = Path(__file__).parent / "shipped"
ALIASES = {"nuclei": "solov2_nano_nuclei"}

BEST_FIRST = ("best_model", "model_final")
"""What training writes, in the order in which it is offered."""

SHOWN = 5
"""Files named of a folder."""


def shipped_names() -> Sequence[str]:
    """Names of the weights inside the package."""
    return sorted([*ALIASES, *(path.stem for path in SHIPPED.glob(f"*{WEIGHTS_SUFFIX}"))])


def model_names() -> Sequence[str]:
    """Names of whole models: of this package and of the zoo, without bare backbones."""
    names = {entry.name for entry in ZOO}
    shipped = [name for name in shipped_names() if ALIASES.get(name, name) in names]
    return [*shipped, *(entry.name for entry in ZOO if not entry.shipped)]


def find_file(name_or_path: str | Path) -> Path | None:
    """The file of a path that may come without its suffix: of several the first in the order of :data:`SUFFIXES`."""
    return next(_files(str(name_or_path)), None)


def find_weights(name_or_path: str | Path, *, models_only: bool = False) -> Path:
    """The file of a path, a name, or an address, which is downloaded the first time; a file wins over a name.

    A path may come without its suffix. Names are those of the weights in this package and of the zoo, also
    with a published file's suffix.

    Args:
        name_or_path: what to look for.
        models_only: offer no bare backbone where nothing is found.

    Raises:
        WeightsError: if there is none of these; says what there is instead, or names the nearest.
    """
    name = str(name_or_path)
    if (file := find_file(name)) is not None:
        return file
    if "://" in name:
        return fetch(name)
    if (shipped := _shipped(name)) is not None:
        return shipped
    if (entry := find_entry(name)) is not None:
        return fetch(entry.url)
    raise WeightsError(_nothing_there(name, models_only=models_only))


def is_known(name_or_path: str | Path) -> bool:
    """Whether :func:`find_weights` would find something, or at least try to download it."""
    name = str(name_or_path)
    return bool(find_file(name) or "://" in name or _shipped(name) or find_entry(name))


def check_destination(destination: Path, *, overwrite: bool = False, suffix: str = WEIGHTS_SUFFIX) -> None:
    """Looks whether weights, or another file with ``suffix``, may be written at a place.

    Raises:
        WeightsError: if it is another kind of file, cannot be written, or is there already and not to be replaced.
    """
    if reason := why_not_written(destination):
        raise WeightsError(f"{destination}: cannot be written ({reason}); make room, or choose another place")
    if destination.suffix != suffix:
        raise WeightsError(f"{destination}: expected a name that ends in {suffix}")
    if destination.exists() and not overwrite:
        raise WeightsError(f"{destination}: is there already; give another name, or --force to replace it")


def why_not_written(path: Path) -> str:
    """Why no file can be written at a path, in a few words; empty if nothing is known to be in the way."""
    try:
        if path.is_dir():
            return "it is a folder"
        return why_no_folder(path.absolute().parent)
    except OSError as error:
        return error.strerror or str(error)


def why_no_folder(folder: Path) -> str:
    """Why no file can be written into a folder, which need not be there; empty if nothing is known to be in the way."""
    try:
        nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not nearest.is_dir():
            return f"{nearest} is a file, not a folder"
        return "" if os.access(nearest, os.W_OK | os.X_OK) else f"{nearest} may not be written"
    except OSError as error:
        return error.strerror or str(error)


def _files(name: str) -> Iterator[Path]:
    return (file for suffix in ("", *SUFFIXES) if (file := _file(f"{name}{suffix}")) is not None)


def _file(name: str) -> Path | None:
    try:
        path = Path(name).expanduser()
        return path if path.is_file() else None
    except (OSError, RuntimeError, ValueError):  # a name that is too long, the home of nobody
        return None


def _shipped(name: str) -> Path | None:
    return _file(f"{SHIPPED / ALIASES.get(name, name)}{WEIGHTS_SUFFIX}")


# ------------------------------------------------------------------------------------- nothing is there


def _nothing_there(name: str, *, models_only: bool) -> str:
    if (folder := _folder(name)) is not None:
        return _in_folder(name, folder)
    if "/" in name or os.sep in name or name.endswith(SUFFIXES):
        stem = next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)
        others = [f"{file}" for file in _files(stem)]
        hint = f"did you mean {' or '.join(others)}?" if others else f"expected a weights file ({', '.join(SUFFIXES)})"
        return f"{name}: no such file; {hint}"
    backbones = [] if models_only else [other for other in shipped_names() if other not in model_names()]
    known = [*backbones, *model_names()]
    near = difflib.get_close_matches(name, known, n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"the names are {', '.join(known)}"
    return f"{name!r} is neither a file nor the name of a model; {hint}"


def _folder(name: str) -> Path | None:
    try:
        folder = Path(name).expanduser()
        return folder if name and folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):
        return None


def _in_folder(name: str, folder: Path) -> str:
    try:
        found = [path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file()]
    except OSError as error:
        return f"{name}: is a folder, and cannot be read ({error.strerror}); expected a weights file"
    if not found:
        return f"{name}: is a folder without weights in it; expected a weights file ({', '.join(SUFFIXES)})"
    found.sort(key=lambda path: (path.stem not in BEST_FIRST, path.suffix != WEIGHTS_SUFFIX, path.name))
    shown = ", ".join(path.name for path in found[:SHOWN]) + (", …" if len(found) > SHOWN else "")
    return f"{name}: is a folder; give one of the weights files in it: {shown}"
