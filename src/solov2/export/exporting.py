"""Exporting: a model becomes a file, which is kept only if it finds what PyTorch finds."""

from __future__ import annotations

import copy
import json
import logging
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from solov2.atomic import write_atomically
from solov2.build import decode_options
from solov2.config import Config
from solov2.data.image import ImageLike
from solov2.errors import ConfigError, WeightsError
from solov2.export.accuracy import Accuracy, losses, measure
from solov2.export.graph import ExportGraph
from solov2.export.int8 import MOST_PICTURES, Calibration, check_quantiser, quantise
from solov2.export.options import SUFFIXES, ExportOptions
from solov2.export.parity import FLOAT32, HALF, LEAST_INSTANCES, NUDGE, Bounds, Nudged, Parity, compare
from solov2.export.picture_masks import PictureGraph
from solov2.export.writing import NEEDED, WRITERS, check_packages, trace
from solov2.opening import OpenedWeights, open_weights
from solov2.predict import Predictor
from solov2.runtime.exported import ExportedModel, open_exported
from solov2.runtime.interface import EXPORT_KEY, METADATA_KEY, OPENVINO_SUFFIX, PICTURE
from solov2.version import __version__
from solov2.weights.finding import check_destination

logger = logging.getLogger(__name__)

REPORT_ENDING = ".parity.json"


@dataclass(frozen=True)
class Export:
    """What was exported.

    Attributes:
        path: of the file.
        report: of the comparison with PyTorch, beside it.
        parity: what the comparison showed.
        accuracy: what AP came to, where it was measured.
        accepted: what a file of 8 bits loses beyond what it may, in words, where that was accepted.
    """

    path: Path
    report: Path
    parity: Parity
    accuracy: Accuracy | None = None
    accepted: tuple[str, ...] = ()


def export(
    model: str | Path,
    destination: Path,
    options: ExportOptions,
    pictures: Sequence[ImageLike],
    *,
    overwrite: bool = False,
    calibration: Calibration | None = None,
) -> Export:
    """Writes a model as a file that other run times execute, and proves it.

    Args:
        model: as for :func:`solov2.load`; not an exported file.
        destination: ending as the format wants it.
        options: of the file.
        pictures: to run through both; together they must show 20 objects that the model finds.
        overwrite: replace an existing file.
        calibration: what a file of 8 bits is made and measured with; others have none.

    Raises:
        WeightsError: if there is no such model, the file cannot be written, or it does not find what PyTorch finds;
            it is not left behind then.
        ConfigError: if the data to measure on has other classes, or ``calibration`` is there without ``options.int8``.
        DatasetError: if that data cannot be used.
        MissingDependencyError: if a package is missing.
        ImageError: if a picture cannot be read.
    """
    _check_destination(destination, overwrite=overwrite)
    check_packages(options.format)
    if options.int8 != (calibration is not None and len(calibration.pictures) > 0):
        raise ConfigError("8 bits need pictures to calibrate with, and nothing else does: give both, or neither")
    if calibration is not None:
        check_quantiser()
    opened = open_weights(model)
    opened.network.eval()
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}.") as folder:
        path = Path(folder) / f"model{SUFFIXES[options.format]}"
        logger.info("tracing %s", model)
        program = trace(_graph(opened, options), options)
        logger.info("writing %s", destination)
        WRITERS[options.format](program, path, texts_of(opened, options), options)
        if calibration is not None:
            quantise(path, options.format, _predictor(path, opened, options), calibration.pictures)
        parity = _prove(opened, path, options, pictures)
        if calibration is None:
            accuracy, accepted = None, tuple[str, ...]()
            _check_parity(destination, parity, options)
        else:
            accuracy, accepted = _measure(destination, path, opened, options, parity, calibration)
        report = destination.with_name(destination.name + REPORT_ENDING)
        text = json.dumps(_report(parity, options, accuracy, accepted, calibration), indent=2)
        _move(path, destination)
    write_atomically(report, lambda temporary: temporary.write_text(text + "\n", encoding="utf-8"))
    return Export(destination, report, parity, accuracy, accepted)


def _check_parity(destination: Path, parity: Parity, options: ExportOptions) -> None:
    if problems := parity.problems(_bounds(options)):
        hint = "; give pictures with more objects of the model's classes (--pictures)"
        raise WeightsError(
            f"{destination}: not written, as nothing shows that it does what PyTorch does: {'; '.join(problems)}"
            f"{hint if parity.matched < LEAST_INSTANCES else ''}"
        )


def _measure(
    destination: Path,
    path: Path,
    opened: OpenedWeights,
    options: ExportOptions,
    parity: Parity,
    calibration: Calibration,
) -> tuple[Accuracy | None, tuple[str, ...]]:
    """What 8 bits cost, and what of that was accepted."""
    accuracy = None
    if calibration.data is not None:
        ours = Predictor(opened.network, opened.config, opened.weights.categories)
        theirs = _predictor(path, opened, options)
        accuracy = measure(ours, theirs, calibration.data, calibration.images)
    lost = tuple(losses(parity, accuracy))
    if lost and not calibration.accept:
        raise WeightsError(
            f"{destination}: not written, as 8 bits cost too much: {'; '.join(lost)}; calibrate with other pictures, "
            "export with --half, or keep it all the same with --accept"
        )
    return accuracy, lost


def _report(
    parity: Parity,
    options: ExportOptions,
    accuracy: Accuracy | None,
    accepted: Sequence[str],
    calibration: Calibration | None,
) -> dict[str, Any]:
    """Plain values for a JSON file."""
    if calibration is None:
        return {**parity.report(_bounds(options)), "versions": _versions(options)}
    found = parity.report(HALF)  # whose bounds are none of a file of 8 bits
    del found["bounds"]
    eight_bits = {
        "calibration_pictures": min(len(calibration.pictures), MOST_PICTURES),
        "accuracy": None if accuracy is None else accuracy.report(),
        "accepted": list(accepted),
    }
    return {**found, "passed": not accepted, "int8": eight_bits, "versions": _versions(options)}


def _bounds(options: ExportOptions) -> Bounds:
    return HALF if options.half or options.int8 else FLOAT32


def texts_of(opened: OpenedWeights, options: ExportOptions) -> dict[str, str]:
    """What the file says of itself: all that a weights file says, and some of it again for other readers."""
    weights, config = opened.weights, opened.config
    about = {
        "size": None if options.size is None else list(options.size),
        "half": options.half,
        "int8": options.int8,
        "static": options.static,
        "masks": options.masks,
        "transforms": [step.model_dump(mode="json") for step in config.data.test.reader.transforms],
        "pad_stride": config.data.pad_stride,
        "mask_threshold": config.decode.mask_threshold,
        "score_threshold": weights.score_threshold,
        "calibration": [list(knot) for knot in weights.calibration],
        "classes": [category.name for category in weights.categories],
    }
    # Converted files say "licence", those that this package's training has written may say "license".
    licence = weights.about.get("licence") or weights.about.get("license") or ""
    texts = {METADATA_KEY: json.dumps(weights.metadata()), EXPORT_KEY: json.dumps(about | {"licence": licence})}
    return texts | ({"licence": licence} if licence else {})


def _graph(opened: OpenedWeights, options: ExportOptions) -> ExportGraph | PictureGraph:
    network, data = opened.network, opened.config.data.normalize
    computes_half = options.half and options.format != "openvino"
    if computes_half:
        network = copy.deepcopy(network).half()
    graph = ExportGraph(
        network, data.mean, data.std, decode_options(opened.config), half=computes_half, static=options.static
    )
    whole = PictureGraph(graph) if options.masks == PICTURE else graph
    return whole.eval().requires_grad_(False)


def _prove(opened: OpenedWeights, path: Path, options: ExportOptions, pictures: Sequence[ImageLike]) -> Parity:
    ours = Predictor(opened.network, opened.config)
    theirs = _predictor(path, opened, options)
    moved = [Predictor(opened.network, _with_threshold(opened.config, step)) for step in (-NUDGE, NUDGE)]

    def nudged(picture: ImageLike) -> Nudged:
        lower, higher = (predictor.run(theirs.prepare(picture))[0] for predictor in moved)
        return lower, higher

    decode, bounds = opened.config.decode, _bounds(options)
    return compare(
        pictures,
        lambda picture: ours.run(theirs.prepare(picture))[0],
        lambda picture: theirs.run(theirs.prepare(picture))[0],
        least_score=decode.update_threshold,
        cap=min(decode.post_nms_top_n, decode.pre_nms_top_n),
        tolerance=bounds.score_difference,
        least_iou=bounds.least_iou,
        nudged=nudged if bounds is FLOAT32 else None,
    )


def _with_threshold(config: Config, step: float) -> Config:
    """The recipe with its mask threshold moved."""
    decode = config.decode.model_copy(update={"mask_threshold": config.decode.mask_threshold + step})
    return config.model_copy(update={"decode": decode})


def _predictor(path: Path, opened: OpenedWeights, options: ExportOptions) -> Predictor:
    return Predictor(_open(path, opened, options), opened.config)


def _open(path: Path, opened: OpenedWeights, options: ExportOptions) -> ExportedModel:
    if options.format != "torch":
        return open_exported(path, device="cpu")
    from solov2.export.on_torch import TorchSession

    return ExportedModel(
        path, "torch", TorchSession(path), opened.weights.metadata(), options.size, options.masks == PICTURE
    )


def _check_destination(destination: Path, *, overwrite: bool) -> None:
    parts = [destination, *([destination.with_suffix(".bin")] if destination.suffix == OPENVINO_SUFFIX else [])]
    for part in parts:
        check_destination(part, overwrite=overwrite, suffix=part.suffix)


def _move(path: Path, destination: Path) -> None:
    # The weights of an OpenVINO file first: the file without them would be damaged, they without it are nothing.
    for part in sorted(path.parent.iterdir(), key=lambda part: part.suffix == path.suffix):
        part.chmod(0o644)
        part.replace(destination.with_suffix(part.suffix))


def _versions(options: ExportOptions) -> Mapping[str, Any]:
    packages = [package for package, _ in NEEDED[options.format]] + ["nncf"] * options.int8
    return {
        "solov2": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{package: metadata.version(package) for package in packages},
    }
