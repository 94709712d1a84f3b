"""Files from the network into the cache folder: whole or not at all (:mod:`solov2.weights.cache` keeps them)."""

from __future__ import annotations

import hashlib
import logging
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from solov2.atomic import write_atomically
from solov2.errors import WeightsError
from solov2.weights.cache import (
    HOME_VARIABLE,
    download_place,
    full_address,
    record_place,
    remembered,
    sha256_of,
    shown,
    verify,
)
from solov2.weights.trial import begin_trial
from solov2.weights.zoo import entry_of_url

if TYPE_CHECKING:
    from requests import Response

logger = logging.getLogger(__name__)

TIMEOUT = 30.0
"""Seconds until a silent server is given up."""

ATTEMPTS = 3
"""How often a file is begun whose connection is cut."""

PAUSE = 2.0
"""Seconds before the second attempt; each later pause is as much longer."""

CHUNK = 1 << 18
"""Bytes written at once."""

LEFTOVER_AGE = 24 * 3600.0
"""Seconds after which an unfinished file belongs to a process that was killed."""

_warned: set[str] = set()


def fetch(url: str, *, progress: bool = True) -> Path:
    """The file of an address, downloaded unless it is in the cache folder.

    It is on trial until it has served: read it within :func:`solov2.weights.trial.on_trial`.

    Args:
        url: ``http://``, ``https://``, or ``ppdet://X`` as PaddleDetection's recipes have it.
        progress: draw a bar while downloading, if standard error is a terminal.

    Returns:
        Where it lies: :func:`download_place`.

    Raises:
        WeightsError: if it cannot be had, in one line that says where to save it by hand; or if its
            bytes are not those of the first time.
    """
    address = full_address(url)
    place = download_place(address)
    tell_licence(address)
    if place.is_file():
        begin_trial(place, verify(place), address, fresh=False)
    else:
        _download(address, place, progress=progress)
    return place


def tell_licence(url: str) -> None:
    """Warns, once per file, of a licence that does not allow commercial use."""
    entry = entry_of_url(url)
    if entry is not None and not entry.commercial and url not in _warned:
        _warned.add(url)
        logger.warning("%s of %s: the licence of these weights is %s", entry.file_name, entry.source, entry.licence)


# ------------------------------------------------------------------------------------ whole or not at all


class _CutError(Exception):
    """The connection ended before the file did."""


def _download(address: str, place: Path, *, progress: bool) -> None:
    by_hand = _by_hand(place)
    logger.info("downloading %s", shown(address))
    try:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return _download_once(address, place, progress=progress)
            except _CutError as cut:
                if attempt == ATTEMPTS:
                    raise WeightsError(f"{shown(address)}: {cut}, {ATTEMPTS} times; try again, {by_hand}") from None
                logger.warning("%s: %s; beginning anew", shown(address), cut)
                time.sleep(PAUSE * attempt)
    except OSError as error:  # of the disk: those of requests, which are OSErrors too, became others below
        raise WeightsError(
            f"{shown(address)}: cannot be saved as {place} ({error.strerror or error}); make room or let it be "
            f"written, or set {HOME_VARIABLE} to another folder"
        ) from None


def _download_once(address: str, place: Path, *, progress: bool) -> None:
    remembered(place)  # a damaged record is told now, not after the transfer
    _remove_leftovers(place)
    received = _Received()

    def fill(temporary: Path) -> None:
        with temporary.open("wb") as stream, _Bar(place.name, shown=progress and sys.stderr.isatty()) as bar:
            received.stream = stream
            _transfer(address, received, bar, place)
        if received.size != bar.total and bar.total:
            raise _CutError(f"the connection was cut after {received.size} of {bar.total} bytes")
        if not received.size:
            raise WeightsError(f"{shown(address)}: the server sent an empty file; see whether the address is right")
        known, witness = remembered(place), record_place(place)
        if known is None and place.is_file():  # another process was faster
            known, witness = sha256_of(place), place
        if known not in (None, received.sha256):
            raise WeightsError(
                f"{shown(address)}: the server sends another file than at first: its SHA-256 is {received.sha256}, "
                f"and was {known}; it is not kept. To trust the new one, delete {witness}"
            )

    write_atomically(place, fill)
    begin_trial(place, received.sha256, address, fresh=True)


def _by_hand(place: Path) -> str:
    return f"or download it by hand and save it as {place}, or give the file's path with -m or -w"


def _transfer(address: str, received: _Received, bar: _Bar, place: Path) -> None:
    import pooch
    from requests import RequestException

    # Unpacked on the way, a file would not have the length that the server stated.
    downloader = pooch.HTTPDownloader(
        progressbar=bar,
        chunk_size=CHUNK,
        timeout=TIMEOUT,
        headers={"Accept-Encoding": "identity"},
        hooks={"response": received.look_at},
    )
    try:
        downloader(address, received, None)
    except (RequestException, ValueError) as error:  # ValueError: headers that make no sense
        if received.begun and isinstance(error, RequestException):
            raise _CutError("the connection was cut") from None
        raise WeightsError(
            f"{shown(address)}: {_reason(error)}; check address and network, {_by_hand(place)}"
        ) from None
    finally:
        received.close()


def _reason(error: Exception) -> str:
    """A few words instead of the chain of exceptions that requests shows."""
    from requests import exceptions

    response = getattr(error, "response", None)
    if isinstance(error, exceptions.HTTPError) and response is not None:
        return f"the server answered {response.status_code} {response.reason or ''}".rstrip()
    kinds = (
        (exceptions.Timeout, f"no answer within {TIMEOUT:g} s"),
        (exceptions.SSLError, "the server's certificate cannot be verified"),
        (exceptions.ProxyError, "the proxy cannot be reached"),
        (exceptions.ConnectionError, "no connection to the server"),
        (exceptions.TooManyRedirects, "the server sends from one address to the next"),
        ((exceptions.InvalidURL, exceptions.InvalidSchema), "not a valid address"),
        (ValueError, "the server's answer makes no sense"),
    )
    return next((words for kind, words in kinds if isinstance(error, kind)), type(error).__name__)


class _Received:
    """What pooch writes into: a file that is hashed and measured on the way.

    Attributes:
        stream: the file.
        size: bytes written so far.
        begun: the server has answered with a file.
    """

    def __init__(self) -> None:
        self.stream: IO[bytes] | None = None
        self.size = 0
        self.begun = False
        self._hash = hashlib.sha256()
        self._responses: list[Response] = []

    def look_at(self, response: Response, **_: Any) -> None:
        """Takes note of an answer, before its body.

        Raises:
            WeightsError: for what log-in pages of networks, and servers that show a file instead of
                sending it, answer.
        """
        self._responses.append(response)
        if not response.ok or response.is_redirect:
            return
        self.begun = True
        if response.headers.get("content-type", "").partition(";")[0].strip().lower() == "text/html":
            raise WeightsError(
                f"{shown(response.url)}: the server sent a web page, not weights; see in a browser what it wants"
            )

    def close(self) -> None:
        """Closes the connections, which an error would leave open."""
        for response in self._responses:
            response.close()

    @property
    def sha256(self) -> str:
        """Of everything written so far, in hexadecimal."""
        return self._hash.hexdigest()

    def write(self, chunk: bytes) -> None:
        """Takes the next bytes."""
        assert self.stream is not None
        self.stream.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    def flush(self) -> None:
        """Does nothing: the file is flushed when it is whole."""


class _Bar:
    """What pooch tells about a transfer, drawn where there is someone to look.

    Attributes:
        total: bytes the server stated; 0 if it did not.
    """

    def __init__(self, name: str, *, shown: bool) -> None:
        self.total = 0
        self._bar: Any = None
        if shown:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task(name, total=None)

    def __enter__(self) -> _Bar:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def update(self, amount: int) -> None:
        """Goes on by as many bytes."""
        if self._bar is not None:
            self._bar.update(self._task, advance=amount, total=self.total or None)

    def reset(self) -> None:
        """Goes back to the start, which pooch does before it fills the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=0)

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.stop()


def _remove_leftovers(place: Path) -> None:
    for path in place.parent.glob(f".{place.name}.*"):
        try:
            if time.time() - path.stat().st_mtime > LEFTOVER_AGE:
                path.unlink()
        except OSError:  # another process was faster
            continue
