"""A recipe fitted to what the user brought: own data, own size of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from solov2.config.schema import Config, TrainConfig
from solov2.errors import ConfigError, DatasetError

logger = logging.getLogger(__name__)

Paths = str | Path | Sequence[str | Path]
"""One or several."""

LONGEST_WARM_UP = 0.1
"""Share of a run; a longer warm-up would still be at it when a small data set is done."""


def with_own_data(
    config: Config,
    *,
    data: Paths | None = None,
    val: str | Path | None = None,
    images: Paths | None = None,
    val_images: str | Path | None = None,
) -> Config:
    """Puts the user's files in the place of the recipe's.

    Args:
        config: the recipe.
        data: COCO json to train on, or several; the number of classes comes from the first, and without ``val``
            the recipe's evaluation data is dropped, as it has other classes.
        val: COCO json to evaluate on.
        images: folder of the pictures, or one for each of ``data``; default: the folder of the json.
        val_images: folder of the pictures of ``val``; default: ``images``.

    Raises:
        ConfigError: if folders are given without a json, or not as many as there are.
        DatasetError: if the json cannot be read.
    """
    if data is None and val is None:
        if images is not None or val_images is not None:
            raise ConfigError("a picture folder is given without a COCO json; give --data, --val or both with it")
        return config
    changes: dict[str, Any] = {}
    values = config.model_dump(mode="json")
    if data is not None:
        files = _listed(data)
        values["model"]["num_classes"] = count_classes(files[0])
        changes["train"] = _source(files, None if images is None else _listed(images))
        changes["eval"] = {"anno_path": None}
    if val is not None:
        folders = _listed(val_images if val_images is not None else images if images is not None else Path(val).parent)
        if len(folders) > 1:
            raise ConfigError(
                f"--images names {len(folders)} folders: say with --val-images which has the pictures of --val"
            )
        changes["eval"] = _source([Path(val)], folders)
    for split, source in changes.items():
        values["data"][split]["source"] |= source
    return Config.model_validate(values)


def _listed(paths: Paths) -> list[Path]:
    return [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]


def _source(files: Sequence[Path], folders: Sequence[Path] | None) -> dict[str, Any]:
    if folders is None:
        folders = [file.parent for file in files]
    if len(folders) not in (1, len(files)):
        raise ConfigError(
            f"{len(files)} annotation files and {len(folders)} picture folders: "
            "give one folder for all, or one for each"
        )
    json_paths, image_dirs = ([str(path.absolute()) for path in paths] for paths in (files, folders))
    return {
        "dataset_dir": "",
        "anno_path": json_paths if len(json_paths) > 1 else json_paths[0],
        "image_dir": image_dirs if len(set(image_dirs)) > 1 else image_dirs[0],
    }


def count_classes(json_path: Path) -> int:
    """Number of categories in a COCO json.

    Raises:
        DatasetError: if it cannot be read or has none.
    """
    try:
        categories = json.loads(json_path.read_text(encoding="utf-8"))["categories"]
        count = len(categories)
    except FileNotFoundError:
        raise DatasetError(f"{json_path}: no such file; expected a COCO json") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{json_path}: not a COCO json with categories ({error!r})") from None
    if count == 0:
        raise DatasetError(f"{json_path}: 'categories' is empty; expected at least one class")
    return count


def with_class_count(config: Config, count: int) -> Config:
    """The recipe for another number of classes."""
    return config.model_copy(update={"model": config.model.model_copy(update={"num_classes": count})})


def without_paths(config: Config) -> Config:
    """Leaves out where things lie on this machine: weights travel, and folder names are nobody else's business."""
    splits = {
        name: split.model_copy(update={"source": type(split)().source})
        for name, split in (("train", config.data.train), ("eval", config.data.eval), ("test", config.data.test))
    }
    paths = {name: TrainConfig.model_fields[name].default for name in ("init_weights", "weights", "save_dir")}
    return config.model_copy(
        update={"data": config.data.model_copy(update=splits), "train": config.train.model_copy(update=paths)}
    )


def with_short_warm_up(config: Config, steps_per_epoch: int) -> Config:
    """Shortens a warm-up that would take more than a tenth of the run, and says so."""
    warm_up, total = config.optim.warmup, steps_per_epoch * config.train.epochs
    if warm_up is None:
        return config
    steps = warm_up.length(steps_per_epoch)
    limit = max(int(total * LONGEST_WARM_UP), 1)
    if steps <= limit:
        return config
    logger.warning(
        "the warm-up of %d steps is longer than a tenth of the run's %d: shortened to %d", steps, total, limit
    )
    short = warm_up.model_copy(update={"steps": limit, "epochs": None})
    return config.model_copy(update={"optim": config.optim.model_copy(update={"warmup": short})})
