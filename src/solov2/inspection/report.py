"""Everything there is to say about a data set and a recipe, as data and as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from solov2.build import load_source, source_files
from solov2.config import Config
from solov2.data.coco_checks import Problem, report
from solov2.inspection.defects import find_suspicious
from solov2.inspection.losses import Losses
from solov2.inspection.statistics import QUANTILES, ClassCount, Statistics, count, quantiles
from solov2.inspection.suggest import GOOD_ENOUGH, Suggestion, Trial, suggest

KNOWN_SHOWN = 6
"""Classes named of those that pictures labelled in part are labelled for."""

CLASSES_SHOWN = 30
"""Rows of the table of classes; of more classes the rarest and the most frequent are shown."""

WIDTH = 100
"""Columns of running text."""

REASONS = {
    "vanished": "mask without a pixel at a quarter of the size",
    "too_small": "smaller than every size range",
    "between": "between two size ranges",
    "too_large": "larger than every size range",
    "collided": "all cells taken by later instances",
}


@dataclass(frozen=True)
class Report:
    """A data set as a recipe sees it.

    Attributes:
        path: of the json; of the first of several.
        problems: defects that training leaves out.
        suspicious: what training goes on with, although it is probably wrong.
        statistics: of what can be used.
        recipe: its name.
        config: it.
        resized: quantiles, as in ``statistics.sizes``, after the recipe's training transforms.
        looked_at: pictures that the transforms were tried on.
        losses: with the recipe; None without an instance.
        suggestion: settings that lose fewer.
        remarks: what else to know before training.
    """

    path: Path
    problems: tuple[Problem, ...]
    suspicious: tuple[Problem, ...]
    statistics: Statistics
    recipe: str
    config: Config
    resized: tuple[float, ...]
    looked_at: int
    losses: Losses | None
    suggestion: Suggestion | None
    remarks: tuple[str, ...]

    @property
    def defects(self) -> int:
        """How many there are of both kinds."""
        return len(self.problems) + len(self.suspicious)


def inspect_data(config: Config, *, pictures: bool = False) -> Report:
    """Looks at a recipe's training data.

    Args:
        config: the recipe, with its data.
        pictures: look at the picture files too: that they are there, readable and of the stated size.

    Raises:
        ConfigError: if the recipe names no annotation file.
        DatasetError: if the file is missing, no json or has no COCO structure.
    """
    file = load_source(config.data.train, pictures=pictures)
    statistics = count(file)
    trial = Trial(file, config)
    losses = trial.losses(trial.now) if statistics.instances else None
    return Report(
        path=file.path,
        problems=file.problems,
        suspicious=tuple(find_suspicious(file)),
        statistics=statistics,
        recipe=config.name,
        config=config,
        resized=quantiles(trial.views_at(1.0).sizes().numpy()) if losses else (),
        looked_at=trial.views_at(1.0).pictures if losses else 0,
        losses=losses,
        suggestion=suggest(trial, losses) if losses else None,
        remarks=tuple(_remarks(config, statistics)),
    )


def _remarks(config: Config, statistics: Statistics) -> Iterator[str]:
    if others := [str(path) for path, _ in source_files(config.data.train)[1:]]:
        yield f"put together with {', '.join(others)}"
    if statistics.empty and not config.data.train.source.allow_empty:
        yield f"{statistics.empty} pictures without instances are not trained on; TrainDataset.allow_empty: true does"
    if len(statistics.classes) != config.model.num_classes:
        classes = len(statistics.classes)
        yield f"the recipe has {config.model.num_classes} classes, the data set {classes}: state num_classes: {classes}"
    cap = config.decode.post_nms_top_n
    if statistics.most_per_picture > cap:
        yield (
            f"a picture holds {statistics.most_per_picture} instances, but at most {cap} are predicted: "
            f"raise MaskMatrixNMS.post_nms_top_n, and pre_nms_top_n above it"
        )
    if rare := [c.name for c in statistics.classes if c.instances == 0]:
        shown = ", ".join(rare[:10])
        yield f"{len(rare)} classes have no instance: {shown}{', …' if len(rare) > 10 else ''}"


# ------------------------------------------------------------------------------------------------ data


def as_json(found: Report) -> dict[str, Any]:
    """The report as plain values; shares are of the views' instances."""
    return {
        "annotations": str(found.path),
        "recipe": found.recipe,
        "problems": [asdict(problem) for problem in found.problems],
        "suspicious": [asdict(problem) for problem in found.suspicious],
        "statistics": asdict(found.statistics),
        "size_quantiles": list(QUANTILES),
        "resized_sizes": list(found.resized),
        "pictures_looked_at": found.looked_at,
        "losses": found.losses and _losses_json(found.losses),
        "suggestion": found.suggestion
        and {
            "changed": list(found.suggestion.changed),
            "losses": _losses_json(found.suggestion.losses),
            "recipe": found.suggestion.recipe,
        },
        "remarks": list(found.remarks),
    }


def _losses_json(losses: Losses) -> dict[str, Any]:
    return {**asdict(losses), "lost": losses.lost, "lost_share": losses.share}


# ------------------------------------------------------------------------------------------------ text


def as_text(found: Report) -> str:
    """The report to be read, at most some hundred columns wide."""
    blocks = [_defects(found), _counts(found), _classes(found.statistics.classes)]
    if found.losses is not None:
        blocks.append(_assignment(found, found.losses))
        blocks.append(_suggested(found, found.losses))
    if found.remarks:
        wrapped = [textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="    ") for text in found.remarks]
        blocks.append("\n".join(["remarks", *wrapped]))
    return "\n\n".join(block for block in blocks if block)


def _defects(found: Report) -> str:
    parts = []
    if found.problems:
        parts.append(f"{report(found.path, found.problems)}\nthese are left out of training")
    if found.suspicious:
        parts.append(f"{report(found.path, found.suspicious)}\nthese are trained on as they are")
    return "\n\n".join(parts) or f"{found.path}: no defect found"


def _counts(found: Report) -> str:
    numbers = found.statistics
    rows = [
        f"pictures   {numbers.pictures:,}, of which {numbers.empty:,} without instances",
        f"instances  {numbers.instances:,}, and {numbers.crowds:,} crowd regions; per picture "
        f"{numbers.median_per_picture:g} (median), {numbers.most_per_picture:,} (most)",
    ]
    if numbers.partial:
        rows.append(f"labelled   {_partial(numbers)}")
    if numbers.short_sides:
        rows.append(
            f"sides      short {_range(numbers.short_sides)}, long {_range(numbers.long_sides)} "
            "(least, median, greatest; pixels)"
        )
    if numbers.sizes:
        heads = "".join(f"{name:>8}" for name in ("least", "5 %", "25 %", "median", "75 %", "95 %", "most"))
        rows += [
            "",
            f"{'sizes, √(box area) in pixels':<34}{heads}",
            f"{'  in the pictures':<34}{_cells(numbers.sizes)}",
            f"{'  after the training transforms':<34}{_cells(found.resized)}",
        ]
    return "\n".join(rows)


def _partial(numbers: Statistics) -> str:
    known = ", ".join(f"{name} ({pictures:,})" for name, pictures in numbers.known[:KNOWN_SHOWN])
    more = len(numbers.known) - KNOWN_SHOWN
    return f"{numbers.partial:,} pictures for some classes only: {known or 'none'}" + (
        f" and {more:,} more" if more > 0 else ""
    )


def _range(values: Sequence[float]) -> str:
    return " / ".join(f"{value:g}" for value in values)


def _cells(values: Sequence[float]) -> str:
    return "".join(f"{value:>8.0f}" if value >= 10 else f"{value:>8.1f}" for value in values)


def _classes(classes: Sequence[ClassCount]) -> str:
    width = max((len(c.name) for c in classes), default=0)
    lines = [f"{'classes, rarest first':<{max(width + 8, 24)}}{'instances':>10}{'pictures':>10}"]
    half = CLASSES_SHOWN // 2
    shown = classes if len(classes) <= CLASSES_SHOWN else [*classes[:half], None, *classes[-half:]]
    for c in shown:
        if c is None:
            lines.append(f"  … {len(classes) - 2 * half} more")
        else:
            lines.append(f"{f'{c.id:>5}  {c.name}':<{max(width + 8, 24)}}{c.instances:>10,}{c.pictures:>10,}")
    return "\n".join(lines)


def _assignment(found: Report, losses: Losses) -> str:
    total = max(losses.instances, 1)
    some = found.looked_at < found.statistics.pictures - found.statistics.empty
    lines = [
        f"with recipe {found.recipe}"
        + (f", on {found.looked_at:,} pictures drawn at random" if some else "")
        + f": {_percent(losses.share)} of the instances train nothing",
        *(
            f"  {_percent(getattr(losses, key) / total):>7}  {text}"
            for key, text in REASONS.items()
            if getattr(losses, key)
        ),
        "",
        f"  {'grid':>7}  {'size range':>12}  {'instances':>9}  {'cells per instance':>18}",
    ]
    head, ranges = found.config.model.grid_head, found.config.assign.size_ranges
    # Grids that are the network's maps have as many cells as the picture is large: what is known is a cell's size.
    grids = [f"{size}x{size}" for size in head.grid_sizes] or [f"{stride} px" for stride in head.strides]
    for grid, (low, high), level in zip(grids, ranges, losses.levels, strict=True):
        per_instance = f"{level.cells / level.instances:.1f}" if level.instances else "-"
        share, span = _percent(level.instances / total), f"{low:g}-{high:g}"
        lines.append(f"  {grid:>7}  {span:>12}  {share:>9}  {per_instance:>18}")
    return "\n".join(lines)


def _suggested(found: Report, before: Losses) -> str:
    if found.suggestion is None:
        if before.share <= GOOD_ENOUGH:
            return "that is next to nothing: grids, size ranges and picture sizes suit the data"
        return "no other grids, size ranges or picture sizes that were tried are worth a change"
    after = found.suggestion.losses
    changed = " and ".join(", ".join(found.suggestion.changed).rsplit(", ", 1))
    text = "\n".join(f"  {line}" for line in found.suggestion.recipe.splitlines())
    return (
        f"with other {changed} {_percent(after.share)} instead of {_percent(before.share)} would train nothing;\n"
        f"{_price(found.config, found.suggestion.config)}in a recipe of your own:\n\n{text}"
    )


def _price(old: Config, new: Config) -> str:
    """What a suggestion costs."""
    cells = [sum(size * size for size in config.model.grid_head.grid_sizes) for config in (old, new)]
    sizes = [
        [step.args["target_size"] for step in config.data.train.reader.transforms if "target_size" in step.args]
        for config in (old, new)
    ]
    text = f"the grid head then computes {cells[1]:,} cells instead of {cells[0]:,}; " if cells[0] != cells[1] else ""
    if sizes[0] != sizes[1]:
        text += "larger pictures take time and memory in proportion to their area; "
    return text


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share == 0 or share >= 0.00995 else f"{100 * share:.2f} %"
