"""solov2 export: a model becomes a file for other run times, proved against PyTorch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from solov2.cli.predict import find_pictures, tell
from solov2.errors import ConfigError

if TYPE_CHECKING:
    from solov2.structures import HW

EXAMPLES = Path(__file__).parents[3] / "examples"
"""Pictures of a source checkout; an installed package has none."""


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    from solov2.export.exporting import export
    from solov2.export.options import ExportOptions, format_of

    destination = Path(arguments.output)
    options = ExportOptions(
        format=format_of(destination, arguments.format),
        size=_size(arguments.size),
    )
    inputs = [*arguments.pictures, *([str(EXAMPLES)] if EXAMPLES.is_dir() else [])]
    if not inputs:
        raise ConfigError(
            "an export is compared with PyTorch on real pictures: give some with --pictures that show objects of the "
            "model's classes"
        )
    pictures, problems = find_pictures(inputs)
    if problems:
        tell(problems)
        return 2
    written = export(arguments.model, destination, options, pictures, overwrite=arguments.force)
    parity = written.parity
    print(
        f"{written.path}: {parity.matched} instances in {parity.pictures} pictures as PyTorch finds them, least mask "
        f"IoU {parity.least_iou:.4f}, scores within {parity.score_difference:.1e} ({written.report.name})"
    )
    return 0


def _size(words: Sequence[str]) -> HW | None:
    if list(words) == ["dynamic"]:
        return None
    try:
        height, width = (int(word) for word in words)
    except ValueError:
        raise ConfigError(
            f"--size {' '.join(words)}: expected height and width, such as --size 448 768, or dynamic"
        ) from None
    return height, width
