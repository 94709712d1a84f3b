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

from solov2.cli import scores
from solov2.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from solov2.coco_metrics import MaskAP, Tally
    from solov2.config import Config
    from solov2.data.coco import CocoDataset
    from solov2.formats import ResultsSpool
    from solov2.opening import OpenedWeights
    from solov2.predict import Predictor

logger = logging.getLogger(__name__)

DEFAULT_THRESHOLD = 0.5
COCO_MAX_DETS = 100

RESULTS_FILE = "segm.json"
CURVES_FOLDER = "segm_pr_curve"


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    _check(arguments)
    if arguments.json_eval:
        return _evaluate_json(arguments)
    from solov2.build import build_dataset
    from solov2.formats import ResultsSpool
    from solov2.predict import DEFAULT_SCORE_THRESHOLD

    opened, predictor = _open(arguments)
    predictor.amp = arguments.amp
    if arguments.calibrate and predictor.calibration:  # raw scores are wanted; the threshold was not one of them
        predictor.calibration, predictor.score_threshold = (), DEFAULT_SCORE_THRESHOLD
    config = _with_data(predictor.config, arguments)
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
    with ResultsSpool() as spool:
        loading = split.reader.batch_size, config.train.workers
        return _evaluate(arguments, opened, predictor, dataset, loading, spool)


def _open(arguments: argparse.Namespace) -> tuple[OpenedWeights | None, Predictor]:
    """The weights, unless the file is an exported one, and what predicts with them."""
    from solov2.predict import check_runtime, load, predictor_of
    from solov2.runtime.exported import is_exported

    if not (arguments.weights and is_exported(arguments.weights)):
        opened = open_with_recipe(arguments.config, arguments.opt, arguments.weights, arguments.data)
        check_runtime(opened.path, arguments.runtime)
        return opened, predictor_of(opened, arguments.device)
    fixed = {"-c": arguments.config, "-o": arguments.opt, "--amp": arguments.amp, "--calibrate": arguments.calibrate}
    if given := [flag for flag, value in fixed.items() if value]:
        raise ConfigError(
            f"{' '.join(given)}: {arguments.weights} is an exported model, whose settings stay as they are; leave it "
            "out, or evaluate the weights it was made from"
        )
    return None, load(arguments.weights, arguments.device, arguments.runtime)


def _evaluate(
    arguments: argparse.Namespace,
    opened: OpenedWeights | None,
    predictor: Predictor,
    dataset: CocoDataset,
    loading: tuple[int, int],
    spool: ResultsSpool,
) -> int:
    from solov2.evaluate import Share, evaluate, predict_dataset

    batch_size, workers = loading
    write = spool.write if _result_files(arguments) else None
    with joined_processes(predictor.device.type):
        if arguments.save_prediction_only:
            for _ in predict_dataset(predictor, dataset, batch_size=batch_size, workers=workers, write=write):
                pass  # they are written while it goes on
            if Share.here().rank == 0:
                _write_results(arguments, spool)
            return 0
        evaluation = evaluate(
            predictor, dataset, batch_size=batch_size, workers=workers, boundary=arguments.boundary, write=write
        )
    if evaluation is None:
        return 0  # the first process tells
    speed = evaluation.images / max(evaluation.seconds, 1e-9)
    print(f"{evaluation.images} pictures, {speed:.1f} per second, reading and encoding included")
    threshold = predictor.score_threshold if arguments.threshold is None else arguments.threshold
    _tell(arguments, evaluation.ap, evaluation.truth, evaluation.tally, threshold)
    if opened is not None:
        scores.write_calibrated(arguments, opened, evaluation.tally)
    _write_results(arguments, spool)  # last: a place that cannot be written must not cost the figures
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.group_by and not arguments.matching:
        raise ConfigError("--group-by needs --matching")
    if arguments.threshold is not None and not 0 <= arguments.threshold <= 1:
        raise ConfigError(f"--threshold is {arguments.threshold}; expected a score in 0..1")
    scores.check(arguments)
    if arguments.save_prediction_only and not (arguments.json or arguments.output_eval):
        arguments.output_eval = "."  # as PaddleDetection has it


def _evaluate_json(arguments: argparse.Namespace) -> int:
    """Figures of results that were written before."""
    from solov2.coco_metrics import Tally, ap_of, boundary_overlaps, mask_overlaps, read_ground_truth
    from solov2.config import load_config

    path = Path(arguments.json) if arguments.json else Path(arguments.output_eval or ".") / RESULTS_FILE
    if arguments.data:
        truth = Path(arguments.data)
    elif arguments.config:
        from solov2.build import source_files

        (truth, _), *others = source_files(load_config(arguments.config, arguments.opt).data.eval)
        if others:
            raise ConfigError(
                f"--json_eval measures against one annotation file, and the recipe names {len(others) + 1}: "
                "give one with --data"
            )
    else:
        raise ConfigError("--json_eval needs the annotations: --data JSON, or a recipe with -c")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        annotations = json.loads(truth.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} and {truth}: expected COCO results and a COCO json ({error})") from None
    overlaps = boundary_overlaps() if arguments.boundary else mask_overlaps
    tally = Tally(read_ground_truth(annotations), overlaps=overlaps)
    tally.add(results)
    threshold = DEFAULT_THRESHOLD if arguments.threshold is None else arguments.threshold
    _tell(arguments, ap_of(tally, COCO_MAX_DETS), annotations, tally, threshold)
    return 0


def _tell(arguments: argparse.Namespace, ap: MaskAP, truth: dict[str, Any], tally: Tally, threshold: float) -> None:
    kind = "boundary" if arguments.boundary else "mask"
    print(f"{kind} AP with maxDets {ap.max_dets} (the most instances per picture)")
    print("\n".join(ap.table(per_class=arguments.classwise)))
    scores.tell_intervals(arguments, ap, tally)
    if arguments.matching:
        _print_matching(kind, truth, tally, threshold, arguments.group_by)
    if arguments.classwise and arguments.output_eval:
        from solov2.coco_metrics import save_curves

        folder = Path(arguments.output_eval) / CURVES_FOLDER
        print(f"{len(save_curves(ap.curves, folder))} curves of precision over recall in {folder}")
    scores.tell_reliability(arguments, tally)


def _result_files(arguments: argparse.Namespace) -> list[Path]:
    folder = arguments.output_eval
    return [Path(path) for path in (arguments.json, folder and Path(folder) / RESULTS_FILE) if path]


def _write_results(arguments: argparse.Namespace, spool: ResultsSpool) -> None:
    for path in _result_files(arguments):
        spool.save(path)
        print(f"{spool.count} results in {path}")


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


def open_with_recipe(
    recipe: str | None, overrides: Sequence[str], weights: str | None, annotations: str | None = None
) -> OpenedWeights:
    """Weights with a recipe's settings, or, without a recipe, with their own.

    Args:
        recipe: file or name.
        overrides: settings that win over it.
        weights: file or name; None takes the recipe's.
        annotations: a COCO json that names the classes of weights that do not, instead of the recipe's data.

    Raises:
        ConfigError: if neither names weights, those of the recipe are not there, or there are overrides without
            a recipe.
    """
    from solov2.config import load_config
    from solov2.opening import open_weights
    from solov2.weights.finding import is_known

    if recipe is None:
        if weights is None:
            raise ConfigError("give a recipe (-c), weights (-w), or both")
        if overrides:
            raise ConfigError(f"-o {' '.join(overrides)}: overrides change a recipe; give one with -c")
        return open_weights(weights)
    config = load_config(recipe, overrides)
    name = weights or config.train.weights
    if name is None:
        raise ConfigError(f"{recipe}: names no weights; give them with -w")
    if weights is None and not is_known(name):
        raise ConfigError(f"{recipe}: its key 'weights' names {name}, and there is no such file; give a file with -w")
    # Weights of this package that were trained on own data keep their classes, unless the recipe is told others.
    adapt = not any("num_classes" in override for override in overrides)
    return open_weights(name, _naming(config, annotations), adapt_classes=adapt)


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


def _print_matching(kind: str, truth: dict[str, Any], tally: Tally, threshold: float, field: str | None) -> None:
    from solov2.coco_metrics import matching_of

    groups = None
    if field:
        if not all(field in image for image in truth["images"]):
            raise DatasetError(f"--group-by {field}: not every image of the json has this field")
        groups = {image["id"]: str(image[field]) for image in truth["images"]}
    print(f"matching at {kind} IoU 0.5 and score threshold {threshold:g}, pooled over pictures")
    print(f"{'':<18} TP/(TP+FP+FN)     TP     FP     FN  segmentation quality  panoptic quality")
    for name, m in matching_of(tally, threshold, groups).items():
        print(
            f"{name:<18} {m.score:>13.3f} {m.tp:>6} {m.fp:>6} {m.fn:>6} "
            f"{m.segmentation_quality:>21.3f} {m.panoptic_quality:>17.3f}"
        )
