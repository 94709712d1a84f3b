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
from solov2.data.image import ImageLike
from solov2.errors import WeightsError
from solov2.export.graph import ExportGraph
from solov2.export.options import SUFFIXES, ExportOptions
from solov2.export.parity import FLOAT32, HALF, LEAST_INSTANCES, Parity, compare
from solov2.export.writing import NEEDED, WRITERS, check_packages, trace
from solov2.opening import OpenedWeights, open_weights
from solov2.predict import Predictor
from solov2.runtime.exported import ExportedModel, open_exported
from solov2.runtime.interface import EXPORT_KEY, METADATA_KEY, OPENVINO_SUFFIX
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
    """

    path: Path
    report: Path
    parity: Parity


def export(
    model: str | Path,
    destination: Path,
    options: ExportOptions,
    pictures: Sequence[ImageLike],
    *,
    overwrite: bool = False,
) -> Export:
    """Writes a model as a file that other run times execute, and proves it.

    Args:
        model: as for :func:`solov2.load`; not an exported file.
        destination: ending as the format wants it.
        options: of the file.
        pictures: to run through both; together they must show 20 objects that the model finds.
        overwrite: replace an existing file.

    Raises:
        WeightsError: if there is no such model, the file cannot be written, or it does not find what PyTorch finds;
            it is not left behind then.
        MissingDependencyError: if a package is missing.
        ImageError: if a picture cannot be read.
    """
    _check_destination(destination, overwrite=overwrite)
    check_packages(options.format)
    opened = open_weights(model)
    opened.network.eval()
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}.") as folder:
        path = Path(folder) / f"model{SUFFIXES[options.format]}"
        logger.info("tracing %s", model)
        program = trace(_graph(opened, options), options)
        logger.info("writing %s", destination)
        WRITERS[options.format](program, path, texts_of(opened, options), options)
        parity = _prove(opened, path, options, pictures)
        bounds = HALF if options.half else FLOAT32
        if problems := parity.problems(bounds):
            hint = "; give pictures with more objects of the model's classes (--pictures)"
            raise WeightsError(
                f"{destination}: not written, as nothing shows that it does what PyTorch does: {'; '.join(problems)}"
                f"{hint if parity.matched < LEAST_INSTANCES else ''}"
            )
        report = destination.with_name(destination.name + REPORT_ENDING)
        text = json.dumps({**parity.report(bounds), "versions": _versions(options)}, indent=2)
        _move(path, destination)
    write_atomically(report, lambda temporary: temporary.write_text(text + "\n", encoding="utf-8"))
    return Export(destination, report, parity)


def texts_of(opened: OpenedWeights, options: ExportOptions) -> dict[str, str]:
    """What the file says of itself: all that a weights file says, and some of it again for other readers."""
    weights, config = opened.weights, opened.config
    about = {
        "size": None if options.size is None else list(options.size),
        "half": options.half,
        "static": options.static,
        "transforms": [step.model_dump(mode="json") for step in config.data.test.reader.transforms],
        "pad_stride": config.data.pad_stride,
        "mask_threshold": config.decode.mask_threshold,
        "score_threshold": weights.score_threshold,
        "classes": [category.name for category in weights.categories],
    }
    texts = {METADATA_KEY: json.dumps(weights.metadata()), EXPORT_KEY: json.dumps(about)}
    if licence := weights.about.get("licence"):
        texts["licence"] = licence
    return texts


def _graph(opened: OpenedWeights, options: ExportOptions) -> ExportGraph:
    network, data = opened.network, opened.config.data.normalize
    computes_half = options.half and options.format != "openvino"
    if computes_half:
        network = copy.deepcopy(network).half()
    graph = ExportGraph(
        network, data.mean, data.std, decode_options(opened.config), half=computes_half, static=options.static
    )
    return graph.eval().requires_grad_(False)


def _prove(opened: OpenedWeights, path: Path, options: ExportOptions, pictures: Sequence[ImageLike]) -> Parity:
    ours = Predictor(opened.network, opened.config)
    theirs = Predictor(_open(path, opened, options), opened.config)
    decode = opened.config.decode
    return compare(
        pictures,
        lambda picture: ours.run(theirs.prepare(picture))[0],
        lambda picture: theirs.run(theirs.prepare(picture))[0],
        least_score=decode.update_threshold,
        cap=min(decode.post_nms_top_n, decode.pre_nms_top_n),
        tolerance=(HALF if options.half else FLOAT32).score_difference,
    )


def _open(path: Path, opened: OpenedWeights, options: ExportOptions) -> ExportedModel:
    if options.format != "torch":
        return open_exported(path, device="cpu")
    from solov2.export.on_torch import TorchSession

    return ExportedModel(path, "torch", TorchSession(path), opened.weights.metadata(), options.size)


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
    packages = [package for package, _ in NEEDED[options.format]]
    return {
        "solov2": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{package: metadata.version(package) for package in packages},
    }
