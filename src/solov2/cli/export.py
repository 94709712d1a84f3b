"""solov2 export: a model becomes a file for other run times, proved against PyTorch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from solov2.cli.predict import find_pictures, tell
from solov2.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from solov2.export.exporting import Export
    from solov2.export.int8 import Calibration
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
        half=arguments.half,
        size=_size(arguments.size),
        static=arguments.static,
        int8=arguments.int8,
        masks=arguments.masks,
    )
    calibration = _calibration(arguments)
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
    _say(export(arguments.model, destination, options, pictures, overwrite=arguments.force, calibration=calibration))
    return 0


def _say(written: Export) -> None:
    parity, accuracy = written.parity, written.accuracy
    print(
        f"{written.path}: {parity.matched} instances in {parity.pictures} pictures as PyTorch finds them, least mask "
        f"IoU {parity.least_iou:.4f}, scores within {parity.score_difference:.1e} ({written.report.name})"
    )
    if accuracy is not None:
        print(
            f"mask AP on {accuracy.pictures} pictures of {accuracy.data}: {accuracy.pytorch:.4f} with PyTorch, "
            f"{accuracy.exported:.4f} from the file"
        )
    for loss in written.accepted:
        print(f"accepted: {loss}")


def _calibration(arguments: argparse.Namespace) -> Calibration | None:
    """What --int8 is done with; None without it.

    Raises:
        ConfigError: if flags do not go together.
        ImageError: if there are no pictures.
    """
    from solov2.export.int8 import Calibration

    belong = {
        "--calibrate": arguments.calibrate,
        "--data": arguments.data,
        "--images": arguments.images,
        "--accept": arguments.accept,
    }
    if not arguments.int8:
        if given := [flag for flag, value in belong.items() if value]:
            raise ConfigError(f"{' '.join(given)}: goes with --int8; give it too, or leave this out")
        return None
    if arguments.images and not arguments.data:
        raise ConfigError("--images without --data: give the COCO json whose pictures these are")
    if not arguments.calibrate:
        raise ConfigError(
            "--int8 needs pictures that show the ranges of values: give some with --calibrate, 20 to 300 like those "
            "the model will see"
        )
    pictures, problems = find_pictures(arguments.calibrate)
    if problems:
        raise ImageError("; ".join(problems))
    data, images = (Path(name) if name else None for name in (arguments.data, arguments.images))
    return Calibration(pictures, data, images, accept=arguments.accept)


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
