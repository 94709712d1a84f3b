"""solov2 zoo: the published models, and which of them are here; only ``download`` needs PyTorch."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Any

from solov2.cli import WRONG_INPUT
from solov2.cli.predict import tell
from solov2.errors import ConfigError, WeightsError
from solov2.weights.cache import (
    cache_folder,
    download_place,
    downloads,
    is_cut_short,
    model_place,
    remembered,
    verify,
)
from solov2.weights.zoo import ZOO, ZooEntry, zoo_entry

HEADER = ("name", "source", "published AP", "split", "M params", "GMACs", "licence", "here")
NUMBERS = {"published AP", "M params", "GMACs"}
GAP = "  "
NARROWEST = 40
"""Columns that text is wrapped to at least."""


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    action, names = arguments.action, list(dict.fromkeys(arguments.names))
    if action in ("show", "download") and not names:
        raise ConfigError(f"solov2 zoo {action} needs the name of a model; solov2 zoo lists them")
    if action in ("list", "verify") and names:
        raise ConfigError(f"solov2 zoo {action} takes no name, got {' '.join(names)}")
    if action == "verify":
        return _verify(as_json=arguments.json)
    entries = [zoo_entry(name) for name in names] if names else list(ZOO)
    if action == "download":
        return _download(entries, as_json=arguments.json)
    if arguments.json:
        print(json.dumps([_fields(entry) for entry in entries], indent=2))
    elif action == "show":
        print("\n\n".join(_all_about(entry) for entry in entries))
    else:
        print(_table(entries))
    return 0


# --------------------------------------------------------------------------------------------- entries


def _state(entry: ZooEntry) -> str:
    if entry.shipped:
        return "shipped"
    if model_place(entry.name).is_file():
        return "ready"
    place = download_place(entry.url)
    if not place.is_file():
        return "no"
    return "damaged" if is_cut_short(place) else "downloaded"


def _fields(entry: ZooEntry) -> dict[str, Any]:
    """Everything about an entry as plain values; places are those the files have or would have."""
    height, width = entry.test_hw
    return {
        **{key: value for key, value in asdict(entry).items() if key != "test_hw"},
        "aliases": list(entry.aliases),
        "recipe": entry.recipe,
        "test_size": f"{width}x{height}",
        "here": _state(entry),
        "file": None if entry.shipped else str(download_place(entry.url)),
        "model": None if entry.shipped else str(model_place(entry.name)),
    }


def _all_about(entry: ZooEntry) -> str:
    fields = _fields(entry)
    rows = {
        "name": fields["name"],
        "aliases": ", ".join(fields["aliases"]),
        "recipe": fields["recipe"],
        "source": fields["source"],
        "licence": fields["licence"],
        "mask AP": f"{entry.ap:.1f}, published, not measured here",
        "split": entry.split,
        "parameters": f"{entry.parameters:,}",
        "GMACs": f"{entry.gmacs:.1f} for a picture of {fields['test_size']}",
        "here": fields["here"],
        "url": entry.url,
        "file": fields["file"],
        "model": fields["model"],
    }
    if entry.shipped:
        rows["mask AP"] = f"{entry.ap:.1f}, see docs/models"
    width = max(map(len, rows))
    return "\n".join(f"{key:<{width}}{GAP}{value}" for key, value in rows.items() if value)


# ----------------------------------------------------------------------------------------------- list


def _table(entries: list[ZooEntry]) -> str:
    """A line each where that fits the terminal, else a paragraph each; a pipe always gets lines."""
    rows = [_row(entry) for entry in entries]
    widths = [max(len(row[column]) for row in [HEADER, *rows]) for column in range(len(HEADER))]
    available = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    if sum(widths) + len(GAP) * (len(widths) - 1) > available:
        return "\n".join(_paragraph(row, max(available, NARROWEST)) for row in rows)
    return "\n".join(_line(row, widths) for row in [HEADER, *rows])


def _row(entry: ZooEntry) -> tuple[str, ...]:
    return (
        entry.name,
        entry.source,
        f"{entry.ap:.1f}",
        entry.split,
        f"{entry.parameters / 1e6:.1f}",
        f"{entry.gmacs:.1f}",
        entry.licence.partition(" (")[0],
        _state(entry),
    )


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    cells = [
        f"{cell:>{width}}" if title in NUMBERS else f"{cell:<{width}}"
        for title, cell, width in zip(HEADER, row, widths, strict=True)
    ]
    return GAP.join(cells).rstrip()


def _paragraph(row: tuple[str, ...], columns: int) -> str:
    name, source, ap, split, parameters, gmacs, licence, state = row
    text = f"{source}; published AP {ap}, split {split}; {parameters} M parameters, {gmacs} GMACs; {licence}; " + {
        "no": "not here"
    }.get(state, state)
    return "\n".join([name, *textwrap.wrap(text, columns, initial_indent=GAP, subsequent_indent=GAP)])


# --------------------------------------------------------------------------------- download and verify


def _download(entries: list[ZooEntry], *, as_json: bool) -> int:
    done: list[dict[str, str]] = []
    failed = 0
    for entry in entries:
        try:
            place = _opened(entry)
        except WeightsError as error:
            failed = tell([str(error)])  # at once: the next one may take minutes
            continue
        done.append({"name": entry.name, "model": str(place)})
        if not as_json:
            print(f"{entry.name}: {place}", flush=True)
    if as_json:
        print(json.dumps(done, indent=2))
    return WRONG_INPUT if failed and not done else failed


def _opened(entry: ZooEntry) -> Path:
    if entry.shipped:
        from solov2.weights.finding import find_weights

        return find_weights(entry.name)
    from solov2.opening import open_zoo

    return open_zoo(entry.name)


def _verify(*, as_json: bool) -> int:
    results = [(place, *_verified(place)) for place in downloads()]
    if as_json:
        print(json.dumps([{"file": str(p), "state": state, "detail": text} for p, state, text in results], indent=2))
    elif not results:
        print(f"nothing downloaded in {cache_folder()}")
    else:
        for place, state, text in results:
            if state != "refused":
                print(f"{place}: {state}, SHA-256 {text}")
    return tell([text for _, state, text in results if state == "refused"])


def _verified(place: Path) -> tuple[str, str]:
    try:
        state = "unchanged" if remembered(place) else "not used yet"
        return state, verify(place)
    except WeightsError as error:
        return "refused", str(error)
