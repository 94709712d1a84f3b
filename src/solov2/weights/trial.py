"""Files of the network on trial: only those that have served are remembered.

A file is no proof of itself: it may be cut short, a log-in page, or another model. What is remembered would
be trusted ever after, and the right file refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from solov2.errors import WeightsError
from solov2.weights.cache import remember, remembered, shown
from solov2.weights.zoo import entry_of_url


@dataclass(frozen=True, slots=True)
class _Untried:
    """What is known of a file that has not served yet; ``fresh``: downloaded by this process."""

    sha256: str
    address: str
    fresh: bool


_untried: dict[Path, _Untried] = {}


def begin_trial(place: Path, sha256: str, address: str, *, fresh: bool) -> None:
    """Takes note of a file in the cache folder, unless it has served before.

    Args:
        place: of the file.
        sha256: of it, in hexadecimal.
        address: where it is published.
        fresh: it has just been downloaded; else somebody has put it there.
    """
    if remembered(place) is not None:
        _untried.pop(place, None)
    elif place not in _untried or _untried[place].sha256 != sha256:
        _untried[place] = _Untried(sha256, address, fresh)


@contextmanager
def on_trial(place: Path) -> Iterator[None]:
    """Runs what shows whether a file is what it should be.

    Raises:
        WeightsError: as the block; of a file on trial it says which one is wrong and what to do. One
            that has just been downloaded is then gone, one that somebody has put there stays.
    """
    try:
        yield
    except WeightsError as error:
        file = _untried.pop(place, None)
        if file is None:
            raise
        raise WeightsError(_wrong(error, place, file)) from None


def passed(place: Path) -> None:
    """Remembers a file on trial, which has served; of another file there is nothing to remember."""
    file = _untried.pop(place, None)
    if file is not None and remembered(place) is None:
        remember(place, file.sha256, file.address if file.fresh else "")


def is_published_model(place: Path) -> bool:
    """Whether a file on trial should be one of the zoo, for which it takes more to have served than to be readable."""
    file = _untried.get(place)
    return file is not None and entry_of_url(file.address) is not None


def _wrong(error: WeightsError, place: Path, file: _Untried) -> str:
    entry = entry_of_url(file.address)
    reason = str(error).removeprefix(f"{place}: ")
    what = f"is not the published {entry.name} ({reason})" if entry else reason
    if not file.fresh:
        where = "" if entry else f" of {shown(file.address)}"
        return f"{place}: {what}; save the right file{where} here"
    with contextlib.suppress(OSError):
        place.unlink(missing_ok=True)
    return (
        f"{shown(file.address)}: what the server sent {'' if entry else 'cannot be used: '}{what}; it is not kept; "
        f"see whether the address is right, or download it by hand and save it as {place}"
    )
