"""What solov2 eval tells of scores: how sure AP is, how far scores can be believed, and weights whose scores can."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from solov2.errors import ConfigError

if TYPE_CHECKING:
    from solov2.coco_metrics import MaskAP, Tally
    from solov2.opening import OpenedWeights

INTERVALS_FILE = "bootstrap.json"


def check(arguments: argparse.Namespace) -> None:
    """Refuses what cannot be done, before any picture is predicted."""
    if arguments.bootstrap is not None and arguments.bootstrap < 1:
        raise ConfigError(f"--bootstrap is {arguments.bootstrap}; expected how many resamples, 1 or more")
    if arguments.force and not arguments.calibrate:
        raise ConfigError("--force is for the file of --calibrate")
    asked = [name for name in ("bootstrap", "reliability", "calibrate") if getattr(arguments, name)]
    if arguments.save_prediction_only and asked:
        raise ConfigError(f"--{asked[0]} needs the annotations: leave out --save_prediction_only")
    if arguments.reliability:
        _check_reliability(Path(arguments.reliability))
    if arguments.calibrate:
        from solov2.weights.finding import check_destination

        for name in ("json_eval", "boundary"):
            if getattr(arguments, name):
                raise ConfigError(f"--calibrate is for a model's own masks: leave out --{name}")
        check_destination(Path(arguments.calibrate), overwrite=arguments.force)


def _check_reliability(path: Path) -> None:
    from solov2.weights.finding import why_not_written

    if path.suffix != ".json":
        raise ConfigError(f"--reliability is {path}; expected a name that ends in .json (the plot gets .png)")
    for each in (path, path.with_suffix(".png")):
        if reason := why_not_written(each):
            raise ConfigError(f"--reliability: {each} cannot be written ({reason}); choose another place")


def tell_intervals(arguments: argparse.Namespace, ap: MaskAP, tally: Tally) -> None:
    """Prints how AP is spread over resamples of the pictures, and writes it where results go."""
    if arguments.bootstrap is None:
        return
    from solov2.coco_metrics import bootstrap_ap
    from solov2.formats import write_json

    intervals = bootstrap_ap(tally, ap.max_dets, arguments.bootstrap)
    print(f"with 95 % intervals, from {intervals.resamples} resamples of the pictures")
    print("\n".join(intervals.table(per_class=arguments.classwise) or ["there are no objects to find"]))
    if arguments.output_eval:
        path = Path(arguments.output_eval) / INTERVALS_FILE
        write_json(path, intervals.values())
        print(f"intervals in {path}")


def tell_reliability(arguments: argparse.Namespace, tally: Tally) -> None:
    """Writes how far scores can be believed."""
    if arguments.reliability:
        from solov2.coco_metrics import save_reliability

        kind = "boundary" if arguments.boundary else "mask"
        numbers, plot = save_reliability(tally, Path(arguments.reliability), kind=kind)
        print(f"reliability of scores in {numbers} and {plot}")


def write_calibrated(arguments: argparse.Namespace, opened: OpenedWeights, tally: Tally) -> None:
    """Writes a copy of weights that were evaluated with raw scores."""
    if arguments.calibrate:
        from solov2.coco_metrics import calibrate
        from solov2.opening import write_calibrated as write

        found, path = calibrate(tally), Path(arguments.calibrate)
        write(opened, path, found.knots, found.score_threshold, overwrite=arguments.force)
        threshold = "none" if found.score_threshold is None else f"{found.score_threshold:g}"
        print(
            f"{path}: scores calibrated with {found.detections} detections, {found.right} of them right; "
            f"score threshold {threshold}"
        )
        print(
            f"expected calibration error {found.error_before:.3f} before, {found.error_after:.3f} after, "
            "on these same pictures"
        )
