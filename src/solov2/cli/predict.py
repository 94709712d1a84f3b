"""solov2 predict: pictures in, a table and an overlay each."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solov2.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from solov2.data.image import RGB
    from solov2.predict import Predictor
    from solov2.structures import Instances

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""What is taken from a folder."""

DRAWABLE = (".jpg", ".jpeg", ".png", ".webp")
"""Overlays of other kinds become PNG."""


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    if arguments.threshold is not None and not 0 <= arguments.threshold <= 1:
        raise ConfigError(f"--threshold is {arguments.threshold}; expected a score in 0..1")
    paths, problems = find_pictures(arguments.inputs)
    output, json_path = Path(arguments.output), Path(arguments.json) if arguments.json else None
    check_places(output, json_path)
    from solov2.predict import DEFAULT_MODEL, load

    predictor = load(arguments.model or DEFAULT_MODEL, arguments.device, arguments.runtime)
    failed = predict_all(predictor, paths, output, arguments.threshold, json_path)
    return tell(problems) or failed


def check_places(output: Path, json_path: Path | None) -> None:
    """Looks whether results can be written, before there are any.

    Raises:
        ConfigError: if the folder of the overlays or the file of the records cannot be written.
    """
    from solov2.weights.finding import why_no_folder, why_not_written

    if reason := why_no_folder(output):
        raise ConfigError(_not_written(output, reason))
    if json_path is not None and (reason := why_not_written(json_path)):
        raise ConfigError(_not_written(json_path, reason))


def _not_written(path: Path, reason: str) -> str:
    return f"{path}: cannot be written ({reason}); make room, or choose another place"


def tell(problems: list[str]) -> int:
    """Prints problems, a line each; 1 if there are any, else 0."""
    for problem in problems:
        print(f"solov2: error: {problem}", file=sys.stderr)
    return 1 if problems else 0


def predict_all(
    predictor: Predictor,
    paths: list[Path],
    output: Path,
    threshold: float | None,
    json_path: Path | None,
    *,
    first_id: int = 1,
    record_all: bool = False,
    draw: bool = True,
) -> int:
    """Predicts pictures one by one; a bad one is reported and the others go on.

    Args:
        predictor: the model.
        paths: the pictures.
        output: folder of the overlays; it is made.
        threshold: least score; None is the model's own.
        json_path: where to write COCO records, with ``file_name`` and ``image_id``.
        first_id: ``image_id`` of the first picture.
        record_all: the records hold every instance found, whatever its score.
        draw: save overlays.

    Returns:
        0, or 1 when a picture failed.
    """
    from solov2.data.image import read_image
    from solov2.formats import to_coco_results, write_json

    records: list[dict[str, Any]] = []
    # Beside its picture an overlay gets a name of its own, and two inputs never share one.
    ending = "_overlay" if output.resolve() in {path.resolve().parent for path in paths} else ""
    used: set[Path] = {path.resolve() for path in paths}
    failed = 0
    for number, path in enumerate(paths, start=first_id):
        try:
            image = read_image(path)
            found = predictor.predict(image[:, :, ::-1], 0.0 if record_all else threshold)
            shown = found if threshold is None else found[found.scores >= threshold]
            wish = output / f"{path.stem}{ending}" if draw else None
            _show(path, image, shown, wish, used)
        except BrokenPipeError:  # nobody reads the table any more: that ends the command, it is no bad picture
            raise
        except (ImageError, OSError) as error:
            print(f"solov2: error: {error}", file=sys.stderr)
            failed += 1
            continue
        records += [{"file_name": str(path), **record} for record in to_coco_results(found, number)]
    if json_path is not None:
        try:
            write_json(json_path, records)
        except OSError as error:  # which would name a temporary file
            raise ConfigError(_not_written(json_path, error.strerror or str(error))) from None
        print(f"{len(records)} instances written to {json_path}")
    return 1 if failed else 0


def _show(path: Path, image: RGB, found: Instances, wish: Path | None, used: set[Path]) -> None:
    from solov2.formats import rows
    from solov2.visualize import draw_instances, save_picture

    target = None if wish is None else _overlay_path(path, wish, used)
    if target is not None:
        save_picture(target, draw_instances(image, found))
    height, width = found.original_hw
    print(f"{path}  {width}x{height}  {len(found)} instance{'' if len(found) == 1 else 's'}")
    lines = rows(found)
    name_width = max([5, *(len(row.class_name) for row in lines)])
    if lines:
        print(f"  {'class':<{name_width}}  score  {'box x0 y0 x1 y1':<23}  area in pixels")
    for row in lines:
        box = " ".join(f"{int(value):>5}" for value in row.box)
        print(f"  {row.class_name:<{name_width}}  {row.score:.3f}  {box}  {row.area}")
    if target is not None:
        print(f"  overlay: {target}")


def _overlay_path(path: Path, wish: Path, used: set[Path]) -> Path:
    suffix = path.suffix if path.suffix.lower() in DRAWABLE else ".png"
    target, number = wish.with_name(f"{wish.name}{suffix}"), 1
    while target.resolve() in used:
        number += 1
        target = wish.with_name(f"{wish.name}_{number}{suffix}")
    used.add(target.resolve())
    return target


def find_pictures(inputs: Iterable[str]) -> tuple[list[Path], list[str]]:
    """Files of names, folders and patterns.

    Returns:
        The files in the order given, each once, and what was wrong with the inputs that gave none.

    Raises:
        ImageError: if no input gives a file.
    """
    found: dict[Path, None] = {}
    problems = []
    for name in inputs:
        try:
            found.update(dict.fromkeys(_matches(name)))
        except ImageError as error:
            problems.append(str(error))
    if not found:
        raise ImageError("; ".join(problems))
    return list(found), problems


def _matches(name: str) -> Iterator[Path]:
    path = Path(name)
    if path.is_dir():
        pictures = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES)
        if not pictures:
            raise ImageError(f"{path}: holds no picture; expected files ending in {', '.join(SUFFIXES)}")
        yield from pictures
    elif path.exists() or not any(letter in name for letter in "*?["):
        yield path  # a missing file is reported with the others, and does not stop them
    else:
        matches = sorted(glob(name, recursive=True))  # noqa: PTH207  # Path.glob refuses absolute patterns
        if not matches:
            raise ImageError(f"{name}: no file matches this pattern")
        yield from (Path(match) for match in matches if Path(match).is_file())
