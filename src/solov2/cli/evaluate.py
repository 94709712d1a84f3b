"""solov2 eval: COCO's twelve numbers, and on request how many objects were found."""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solov2.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from solov2.coco_metrics import MaskAP
    from solov2.config import Config
    from solov2.formats import CocoResult
    from solov2.predict import Predictor

logger = logging.getLogger(__name__)

DEFAULT_THRESHOLD = 0.5


RESULTS_FILE = "segm.json"
CURVES_FOLDER = "segm_pr_curve"


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    _check(arguments)
    if arguments.json_eval:
        return _evaluate_json(arguments)
    from solov2.build import build_dataset
    from solov2.evaluate import evaluate, predict_dataset

    predictor, config = load_with_recipe(
        arguments.config, arguments.opt, arguments.weights, arguments.device, arguments.data
    )
    predictor.amp = arguments.amp
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
    predictor.categories = tuple(dataset.categories)
    warn_of_training_pictures(predictor.trained_on, dataset.records)
    batch_size, workers = split.reader.batch_size, config.train.workers
    with joined_processes(predictor.device.type):
        if arguments.save_prediction_only:
            results = predict_dataset(predictor, dataset, batch_size=batch_size, workers=workers)
            if results is not None:
                _write_results(arguments, results)
            return 0
        evaluation = evaluate(predictor, dataset, batch_size=batch_size, workers=workers, boundary=arguments.boundary)
    if evaluation is None:
        return 0  # the first process tells
    speed = evaluation.images / max(evaluation.seconds, 1e-9)
    print(f"{evaluation.images} pictures, {speed:.1f} per second, reading and encoding included")
    threshold = predictor.score_threshold if arguments.threshold is None else arguments.threshold
    _tell(arguments, evaluation.ap, evaluation.truth, evaluation.results, threshold)
    if arguments.json or arguments.output_eval:  # last: a place that cannot be written must not cost the figures
        _write_results(arguments, evaluation.results)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.group_by and not arguments.matching:
        raise ConfigError("--group-by needs --matching")
    if arguments.threshold is not None and not 0 <= arguments.threshold <= 1:
        raise ConfigError(f"--threshold is {arguments.threshold}; expected a score in 0..1")
    if arguments.save_prediction_only and not (arguments.json or arguments.output_eval):
        arguments.output_eval = "."  # as PaddleDetection has it


def _evaluate_json(arguments: argparse.Namespace) -> int:
    """Figures of results that were written before."""
    from solov2.coco_metrics import mask_ap
    from solov2.config import load_config

    path = Path(arguments.json) if arguments.json else Path(arguments.output_eval or ".") / RESULTS_FILE
    if arguments.data:
        truth = Path(arguments.data)
    elif arguments.config:
        from solov2.build import source_paths

        truth = source_paths(load_config(arguments.config, arguments.opt).data.eval)[0]
    else:
        raise ConfigError("--json_eval needs the annotations: --data JSON, or a recipe with -c")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        annotations = json.loads(truth.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} and {truth}: expected COCO results and a COCO json ({error})") from None
    ap = mask_ap(annotations, results, boundary=arguments.boundary)
    _tell(
        arguments, ap, annotations, results, DEFAULT_THRESHOLD if arguments.threshold is None else arguments.threshold
    )
    return 0


def _tell(
    arguments: argparse.Namespace, ap: MaskAP, truth: dict[str, Any], results: list[CocoResult], threshold: float
) -> None:
    kind = "boundary" if arguments.boundary else "mask"
    print(f"{kind} AP with maxDets {ap.max_dets} (the most instances per picture), computed by {ap.backend}")
    print("\n".join(ap.table(per_class=arguments.classwise)))
    if arguments.matching:
        _print_matching(truth, results, threshold, arguments.group_by)
    if arguments.classwise and arguments.output_eval:
        from solov2.coco_metrics import save_curves

        folder = Path(arguments.output_eval) / CURVES_FOLDER
        print(f"{len(save_curves(ap.curves, folder))} curves of precision over recall in {folder}")


def _write_results(arguments: argparse.Namespace, results: list[CocoResult]) -> None:
    from solov2.formats import write_json

    for path in filter(None, [arguments.json, arguments.output_eval and Path(arguments.output_eval) / RESULTS_FILE]):
        write_json(Path(path), results)
        print(f"{len(results)} results in {path}")


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
    recipe: str | None, overrides: Sequence[str], weights: str | None, device: str, annotations: str | None = None
) -> tuple[Predictor, Config]:
    """A predictor with a recipe's settings, or, without a recipe, with those of the weights.

    Args:
        recipe: file or name.
        overrides: settings that win over it.
        weights: file or name; None takes the recipe's.
        device: to run on.
        annotations: a COCO json that names the classes of weights that do not, instead of the recipe's data.

    Raises:
        ConfigError: if neither names weights, those of the recipe are not there, or there are overrides without
            a recipe.
    """
    from solov2.config import load_config
    from solov2.opening import open_weights
    from solov2.predict import Predictor, choose_device, load
    from solov2.weights.finding import is_known

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
    if weights is None and not is_known(name):
        raise ConfigError(f"{recipe}: its key 'weights' names {name}, and there is no such file; give a file with -w")
    # Weights of this package that were trained on own data keep their classes, unless the recipe is told others.
    adapt = not any("num_classes" in override for override in overrides)
    opened = open_weights(name, _naming(config, annotations), adapt_classes=adapt)
    file = opened.weights
    predictor = Predictor(
        opened.network, opened.config, file.categories, file.score_threshold, choose_device(device), file.trained_on
    )
    return predictor, opened.config


def _naming(config: Config, annotations: str | None) -> Config:
    """The recipe with these annotations in the place where class names are looked for first."""
    if annotations is None:
        return config
    source = config.data.test.source.model_copy(
        update={"dataset_dir": "", "anno_path": str(Path(annotations).absolute())}
    )
    test = config.data.test.model_copy(update={"source": source})
    return config.model_copy(update={"data": config.data.model_copy(update={"test": test})})


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
