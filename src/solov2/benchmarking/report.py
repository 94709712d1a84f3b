"""A measurement as a table to read and as plain values to keep."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from solov2.benchmarking.bench import Report, Result
from solov2.benchmarking.forms import STAGES
from solov2.benchmarking.timing import Spread

NONE = "-"
ROW_WIDTH = 22
LEAST_COLUMN = 24


def as_values(report: Report) -> dict[str, Any]:
    """Plain values for a JSON file: seconds, bytes, operations; a spread is median, low and high quartile."""
    request = report.request
    return {
        "model": request.model,
        "random_weights": report.random,
        "batch": request.batch,
        "rounds": request.rounds,
        "planted_instances": 0 if request.picture else request.instances,
        "picture": None if request.picture is None else str(request.picture),
        "machine": report.machine,
        "matrix_flops_per_second": report.matrix_rate._asdict(),
        "forms": [_values(result, request.batch) for result in report.results],
    }


def _values(result: Result, batch: int) -> dict[str, Any]:
    values = asdict(result) | {
        "stages": {name: spread._asdict() for name, spread in result.stages.items()},
        "whole": result.whole._asdict(),
        "ratio": result.ratio._asdict(),
        "share": None if result.share is None else result.share._asdict(),
        "input_hw": list(result.input_hw),
    }
    return {**values, "pictures_per_second": batch / result.whole.median}


def as_table(report: Report) -> str:
    """Lines for a terminal: milliseconds, medians and quartiles."""
    rows = [("", [result.name for result in report.results])]
    for stage in STAGES:
        rows.append((f"{stage}, ms", [_milliseconds(result.stages.get(stage)) for result in report.results]))
    rows += [
        ("whole, ms", [_milliseconds(result.whole) for result in report.results]),
        ("pictures a second", [f"{report.request.batch / r.whole.median:.2f}" for r in report.results]),
        ("times the first", [_spread(result.ratio, "{:.2f}") for result in report.results]),
        ("network, GFLOP", [NONE if r.flops is None else f"{r.flops / 1e9:.2f}" for r in report.results]),
        ("of the matrix rate", [_spread(r.share, "{:.0%}") for r in report.results]),
        ("peak memory, MB", [NONE if r.peak is None else f"{r.peak / 2**20:.0f}" for r in report.results]),
        ("instances", [str(result.found) for result in report.results]),
    ]
    width = max(LEAST_COLUMN, *(len(cell) for _, cells in rows for cell in cells)) + 2
    lines = [f"{title:<{ROW_WIDTH}}" + "".join(f"{cell:>{width}}" for cell in cells) for title, cells in rows]
    return "\n".join([*_heading(report), *(line.rstrip() for line in lines)])


def _heading(report: Report) -> list[str]:
    request, machine = report.request, report.machine
    sizes = " and ".join(dict.fromkeys(f"{r.input_hw[0]}x{r.input_hw[1]}" for r in report.results))
    weights = ", random weights" if report.random else ""
    planted = "" if request.picture or not request.instances else f", {request.instances} instances planted in each"
    rate = report.matrix_rate.scaled(1e-9)
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return [
        f"{request.model}{weights}: {request.batch} of {sizes} (height x width) together{planted}",
        f"{machine['gpu'] or machine['processor']}, {machine['threads']} of {machine['cores']} cores; {packages}",
        f"matrix products in this run: {_spread(rate, '{:.1f}')} GFLOP/s; medians (and quartiles) of "
        f"{request.rounds} rounds, all forms taking turns",
        "",
    ]


def _milliseconds(spread: Spread | None) -> str:
    return NONE if spread is None else _spread(spread.scaled(1e3), "{:.1f}")


def _spread(spread: Spread | None, form: str) -> str:
    if spread is None:
        return NONE
    median, low, high = (form.format(value) for value in spread)
    return f"{median} ({low}-{high})"
