"""Where pictures are drawn to on request: only below the folder that the operator chose."""

from __future__ import annotations

import secrets
import time
from pathlib import Path, PurePosixPath

from solov2.data.image import RGB
from solov2.serve.refusals import RefusedError, unusable
from solov2.structures import Instances
from solov2.visualize import draw_instances, save_picture

LONGEST_PATH = 100
"""Characters of a folder's name in a request."""

DEEPEST = 4
"""Folders in each other."""


def folder_below(root: Path, wish: str) -> Path:
    """The folder of a request.

    Args:
        root: the operator's folder.
        wish: a folder in it, such as ``solov2_result``; empty: the operator's folder itself.

    Raises:
        RefusedError: 422, if it is not a plain name of a folder below.
    """
    parts = PurePosixPath(wish.replace("\\", "/")).parts
    plain = all(part.isprintable() and not part.startswith((".", "/", "~")) and ":" not in part for part in parts)
    if not plain or len(wish) > LONGEST_PATH or len(parts) > DEEPEST:
        raise _outside(wish)
    try:
        folder = root.joinpath(*parts).resolve()
        inside = folder.is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):
        raise _outside(wish) from None
    if not inside:  # a link in the operator's folder may lead elsewhere
        raise _outside(wish)
    return folder


def save_overlay(folder: Path, picture: RGB, shown: Instances) -> Path:
    """Draws a picture into a file whose name nobody else has.

    Raises:
        ImageError: if it cannot be written.
    """
    path = folder / f"{time.time_ns()}_{secrets.token_hex(4)}.png"
    save_picture(path, draw_instances(picture, shown))
    return path


def _outside(wish: str) -> RefusedError:
    shown = wish[:LONGEST_PATH]
    return unusable(f"save_dir is {shown!r}; expected the plain name of a folder below the one its operator chose")
