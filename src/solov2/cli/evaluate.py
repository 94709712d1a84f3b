"""solov2 eval: COCO's twelve numbers, and on request how many objects were found."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solov2.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from solov2.config import Config
    from solov2.formats import CocoResult
    from solov2.predict import Predictor

logger = logging.getLogger(__name__)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    from solov2.build import build_dataset
    from solov2.evaluate import evaluate
    from solov2.formats import write_json

    if arguments.group_by and not arguments.matching:
        raise ConfigError("--group-by needs --matching")
    if arguments.threshold is not None and not 0 <= arguments.threshold <= 1:
        raise ConfigError(f"--threshold is {arguments.threshold}; expected a score in 0..1")
    predictor, config = load_with_recipe(arguments.config, arguments.opt, arguments.weights, arguments.device)
    config = _with_data(config, arguments)
    split = config.data.eval
    # Weights that do not name their classes have those of the annotation file, in its order.
    categories = predictor.categories or None
    dataset = build_dataset(config, split, categories=categories, training=False, strict=arguments.strict)
    if len(dataset.categories) != config.model.num_classes:
        raise ConfigError(
            f"the model has {config.model.num_classes} classes, the annotation file {len(dataset.categories)}: "
            "evaluate with the file the weights were trained for"
        )
    warn_of_training_pictures(predictor.trained_on, dataset.records)
    batch_size = split.reader.batch_size
    with joined_processes(predictor.device.type):
        evaluation = evaluate(predictor, dataset, batch_size=batch_size, workers=config.train.workers)
    if evaluation is None:
        return 0  # the first process tells
    ap = evaluation.ap
    speed = evaluation.images / max(evaluation.seconds, 1e-9)
    print(f"{evaluation.images} pictures, {speed:.1f} per second, reading and encoding included")
    print(f"mask AP with maxDets {ap.max_dets} (the recipe's cap), computed by {ap.backend}")
    print("\n".join(ap.table(per_class=arguments.classwise)))
    if arguments.matching:
        threshold = predictor.score_threshold if arguments.threshold is None else arguments.threshold
        _print_matching(evaluation.truth, evaluation.results, threshold, arguments.group_by)
    if arguments.json:  # last: a path that cannot be written must not cost the figures
        write_json(Path(arguments.json), evaluation.results)
    return 0


def warn_of_training_pictures(trained_on: str, records: Sequence[Mapping[str, Any]]) -> None:
    """Says so where figures would be no measure of what the model does with new pictures."""
    from solov2.data.fingerprints import count_known

    if known := count_known(trained_on, records):
        logger.warning(
            "the weights were trained on %d of these %d pictures: the figures say little about new ones",
            known,
            len(records),
        )


@contextmanager
def joined_processes(device_kind: str) -> Iterator[None]:
    """Where torchrun has started several processes they share the pictures."""
    import torch

    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several:
        torch.distributed.init_process_group("nccl" if device_kind == "cuda" else "gloo")
    try:
        yield
    finally:
        if several:
            torch.distributed.destroy_process_group()


def load_with_recipe(
    recipe: str | None, overrides: Sequence[str], weights: str | None, device: str
) -> tuple[Predictor, Config]:
    """A predictor with a recipe's settings, or, without a recipe, with those of the weights.

    Raises:
        ConfigError: if neither names weights, or there are overrides without a recipe.
    """
    from solov2.config import load_config
    from solov2.opening import open_weights
    from solov2.predict import Predictor, choose_device, load

    if recipe is None:
        if weights is None:
            raise ConfigError("give a recipe (-c), weights (-w), or both")
        if overrides:
            raise ConfigError(f"-o {' '.join(overrides)}: overrides change a recipe; give one with -c")
        predictor = load(weights, device)
        return predictor, predictor.config
    config = load_config(recipe, overrides)
    name = weights or config.train.weights
    if name is None:
        raise ConfigError(f"{recipe}: names no weights; give them with -w")
    # Weights of this package that were trained on own data keep their classes, unless the recipe is told others.
    adapt = not any("num_classes" in override for override in overrides)
    opened = open_weights(name, config, adapt_classes=adapt)
    file = opened.weights
    predictor = Predictor(
        opened.network, opened.config, file.categories, file.score_threshold, choose_device(device), file.trained_on
    )
    return predictor, opened.config


def _with_data(config: Config, arguments: argparse.Namespace) -> Config:
    if arguments.data is None:
        if arguments.images is not None:
            raise ConfigError("--images without --data: give the COCO json whose pictures these are")
        return config
    from solov2.config.own_data import with_own_data

    return with_own_data(config, val=arguments.data, images=arguments.images)


def _print_matching(truth: dict[str, Any], results: list[CocoResult], threshold: float, field: str | None) -> None:
    from solov2.coco_metrics import pooled_matching

    groups = None
    if field:
        if not all(field in image for image in truth["images"]):
            raise DatasetError(f"--group-by {field}: not every image of the json has this field")
        groups = {image["id"]: str(image[field]) for image in truth["images"]}
    print(f"matching at IoU 0.5 and score threshold {threshold:g}, pooled over pictures")
    print(f"{'':<18} TP/(TP+FP+FN)     TP     FP     FN  segmentation quality  panoptic quality")
    for name, m in pooled_matching(truth, results, threshold, groups=groups).items():
        print(
            f"{name:<18} {m.score:>13.3f} {m.tp:>6} {m.fp:>6} {m.fn:>6} "
            f"{m.segmentation_quality:>21.3f} {m.panoptic_quality:>17.3f}"
        )
