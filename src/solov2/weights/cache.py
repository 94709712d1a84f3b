"""The cache folder: where files of the network lie, and that they stay the same.

The folder is ``$SOLOV2_HOME`` or, without it, ``solov2`` in the user's cache folder. A file of
``https://HOST/FOLDER/NAME`` lies in its ``downloads/HOST/FOLDER/NAME``, wherever it came from: saved there by
hand it is as good as downloaded.

Nobody publishes hashes of these files. So the first use is trusted: once a file has served
(:mod:`solov2.weights.trial`), its SHA-256 is remembered in a small file beside it, and other bytes under the same
address are refused from then on.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from solov2.atomic import write_atomically
from solov2.errors import WeightsError
from solov2.weights.zoo import PADDLE_HOST

logger = logging.getLogger(__name__)

HOME_VARIABLE = "SOLOV2_HOME"

RECORD_SUFFIX = ".sha256.json"
"""Ending of the file that remembers another one's hash."""

LONGEST_NAME = 128
"""Characters of an address's part that are kept; file systems allow 255, and endings are added."""


def cache_folder() -> Path:
    """The folder of everything downloaded: ``$SOLOV2_HOME``, or ``solov2`` in the user's cache folder.

    Raises:
        WeightsError: if ``$SOLOV2_HOME`` begins with the home of a user who does not exist.
    """
    home = os.environ.get(HOME_VARIABLE)
    if home:
        try:
            return Path(home).expanduser().absolute()
        except RuntimeError:
            raise WeightsError(f"{HOME_VARIABLE} is {home!r}; there is no such home folder") from None
    import pooch

    return Path(pooch.os_cache("solov2"))


def downloads_folder() -> Path:
    """Where files lie as they were published."""
    return cache_folder() / "downloads"


def model_place(name: str) -> Path:
    """Where the weights of a zoo model lie once they are converted."""
    return cache_folder() / "models" / f"{name}.safetensors"


def full_address(url: str) -> str:
    """The address to open: ``ppdet://X`` stands for a file of PaddleDetection's server.

    Raises:
        WeightsError: if it is not an address of the web.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme.lower() == "ppdet":
        return PADDLE_HOST + rest.lstrip("/")
    if _split(url).hostname is None or scheme.lower() not in ("http", "https"):
        raise WeightsError(f"{shown(url)}: not an address to download from; expected http://, https:// or ppdet://")
    return url


def download_place(url: str) -> Path:
    """Where the file of an address lies, or would lie, in the cache folder.

    Raises:
        WeightsError: if it is not an address of the web.
    """
    address = full_address(url)
    parts = _split(address)
    host = f"{parts.hostname}" + (f"_{parts.port}" if parts.port else "")
    wanted = [part for part in parts.path.split("/") if part]
    names = [_file_name(part) for part in wanted] or ["index"]
    if names != wanted or parts.query:
        # Two addresses must never share a place: what the name cannot show is in a digest.
        digest = hashlib.sha256(address.encode()).hexdigest()[:8]
        last = Path(names[-1])
        names[-1] = f"{last.stem}-{digest}{last.suffix}"
    return downloads_folder().joinpath(_file_name(host), *names)


# ----------------------------------------------------------------------------------------- the same bytes


def downloads() -> Sequence[Path]:
    """The files in the cache folder as they were published, by path."""
    folder = downloads_folder()
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".") and not path.name.endswith(RECORD_SUFFIX)
    )


def sha256_of(place: Path) -> str:
    """The SHA-256 of a file in hexadecimal.

    Raises:
        WeightsError: if it cannot be read.
    """
    try:
        with place.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{place}: cannot be read ({error.strerror})") from None


def verify(place: Path) -> str:
    """Compares a file with what is remembered of it, if anything is.

    Returns:
        Its SHA-256 in hexadecimal.

    Raises:
        WeightsError: if the bytes changed, or the file or its record cannot be read.
    """
    found = sha256_of(place)
    known = remembered(place)
    if known not in (None, found):
        raise WeightsError(
            f"{place}: the file was changed: its SHA-256 is {found}, and was {known} at first use; delete the file to "
            f"download it anew, or {record_place(place)} to trust it as it is now"
        )
    return found


def remembered(place: Path) -> str | None:
    """SHA-256 of the first use of a file in the cache folder; None before that.

    Raises:
        WeightsError: if the record is damaged.
    """
    record = record_place(place)
    try:
        known = json.loads(record.read_text(encoding="utf-8"))["sha256"]
        if not re.fullmatch("[0-9a-f]{64}", known):
            raise ValueError(known)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{record}: damaged ({type(error).__name__}); expected the SHA-256 of {place.name}; delete it to trust "
            "that file as it is now"
        ) from None
    return str(known)


def is_cut_short(place: Path) -> bool:
    """Whether a file has another size than when it was remembered; tells without reading it."""
    try:
        stated = json.loads(record_place(place).read_text(encoding="utf-8"))["bytes"]
        return bool(stated != place.stat().st_size)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def remember(place: Path, sha256: str, address: str = "") -> None:
    """Writes down a file's hash, and where it came from; a folder that may not be written costs a warning.

    Args:
        place: the file.
        sha256: of it, in hexadecimal.
        address: for the reader's information.
    """
    values = {"url": shown(address)} if address else {}
    try:
        text = json.dumps({**values, "sha256": sha256, "bytes": place.stat().st_size}, indent=1)
        write_atomically(record_place(place), lambda temporary: temporary.write_text(text + "\n", encoding="utf-8"))
    except OSError as error:  # such as a cache folder that many share and few may write
        logger.warning("%s: its SHA-256 cannot be remembered (%s)", place, error.strerror or error)


def record_place(place: Path) -> Path:
    """The file that remembers the hash of another one."""
    return place.with_name(place.name + RECORD_SUFFIX)


# --------------------------------------------------------------------------------------------- addresses


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # is checked only when it is read
        return parts
    except ValueError as error:
        raise WeightsError(f"{url!r}: not a valid address ({error})") from None


def shown(url: str) -> str:
    """An address without what may be secret in it: user, password and query."""
    parts = _split(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _file_name(part: str) -> str:
    name = re.sub(r"[^\w.-]", "_", part, flags=re.ASCII)[:LONGEST_NAME]
    return f"_{name}" if name.startswith(".") else name  # neither .. nor what downloads() leaves out
