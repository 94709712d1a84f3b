"""The forms in which a model can be run, ready to be measured against each other.

============ ======================================================================================
plain        PyTorch as it comes: channels first, batch norms apart
torch        what ``solov2 predict`` runs: channels last, batch norms folded
compile      the same through PyTorch's compiler
onnxruntime  an ONNX file of this very size, written for the measurement
openvino     an OpenVINO file of this very size, written for the measurement
a file       a model that solov2 export has written, as it is
a model      another model, as ``torch``
============ ======================================================================================
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from solov2.benchmarking.machine import count_flops
from solov2.benchmarking.scene import THRESHOLD, PlantedNetwork, plant
from solov2.benchmarking.subject import Subject, find_subject
from solov2.benchmarking.timing import Clock
from solov2.build import decode_options
from solov2.data.image import read_image
from solov2.errors import ConfigError
from solov2.export.exporting import texts_of
from solov2.export.graph import ExportGraph
from solov2.export.options import SUFFIXES, ExportOptions, Format
from solov2.export.writing import WRITERS, check_packages, trace
from solov2.predict import Predictor, choose_device, load
from solov2.runtime.exported import ExportedModel, is_exported, open_exported
from solov2.runtime.interface import Session
from solov2.structures import HW, Batch, Instances, Predictions

TORCH_FORMS = ("plain", "torch", "compile")
EXPORTS: dict[str, Format] = {"onnxruntime": "onnx", "openvino": "openvino"}
"""Run times, and the format of the file each is given."""

READ, PREPARE, UPLOAD, NETWORK, DECODE, MASKS = STAGES = (
    "read",
    "prepare",
    "to the device",
    "network",
    "candidates, NMS",
    "masks",
)
"""Reading the files; resizing and padding; transfer and normalising; what is found on the mask grid, which exported
models do in one with the network; masks at the pictures' size, in the computer's memory."""


@dataclass(frozen=True)
class Setting:
    """What all forms have in common.

    Attributes:
        pictures: files, all of one size.
        instances: to plant in each picture; 0: whatever the model finds.
        size: to resize pictures to; None: the recipe's.
        device: as for :func:`solov2.load`.
    """

    pictures: Sequence[Path]
    instances: int
    size: HW | None
    device: str


class Form:
    """A model in one form, ready to predict.

    Args:
        name: of the form.
        predictor: that runs it.
        pictures: files to predict.
        threshold: least score; None: the model's own.
        flops: floating-point operations of the network for one run, if known.
    """

    def __init__(
        self,
        name: str,
        predictor: Predictor,
        pictures: Sequence[Path],
        threshold: float | None,
        flops: int | None = None,
    ) -> None:
        self.name = name
        self.pictures = pictures
        self.threshold = predictor.score_threshold if threshold is None else threshold
        self.flops = flops
        self.device = predictor.device
        self.input_hw = self._batch(predictor).frames[0].padded_hw
        self._session: _TimedSession | None = None
        if isinstance(predictor.model, ExportedModel):
            self._session = _TimedSession(predictor.model.session)
            predictor.model = replace(predictor.model, session=self._session)
        self._predictor = predictor

    def run(self, clock: Clock) -> list[Instances]:
        """One prediction from files to instances with masks, its stages measured."""
        predictor = self._predictor
        with clock.stage(READ):
            read = [read_image(path) for path in self.pictures]
        with clock.stage(PREPARE):
            batch = predictor.batch_of(read)
        if self._session is not None:
            return self._run_exported(batch, clock, self._session)
        with clock.stage(UPLOAD):
            images = predictor.normalized(batch)
        with clock.stage(NETWORK):
            predictions = predictor.forward(images)
        with clock.stage(DECODE):
            chosen = predictor.choose(predictions, batch, self.threshold)
        with clock.stage(MASKS):
            return [predictor.finished(found, self.threshold) for found in predictor.masks(chosen)]

    def _run_exported(self, batch: Batch, clock: Clock, session: _TimedSession) -> list[Instances]:
        session.clock = inner = Clock(self.device)
        with inner.stage(MASKS):
            found = self._predictor.run(batch, self.threshold)
        inner.seconds[MASKS] -= inner.seconds[NETWORK]
        clock.seconds.update(inner.seconds)
        return found

    def _batch(self, predictor: Predictor) -> Batch:
        return predictor.batch_of([read_image(path) for path in self.pictures])


class _TimedSession:
    """A session whose runs are measured."""

    def __init__(self, session: Session) -> None:
        self.metadata = session.metadata
        self.clock: Clock | None = None
        self._session = session

    def __call__(self, *inputs: Any) -> Sequence[npt.NDArray[Any]]:
        if self.clock is None:
            return self._session(*inputs)
        with self.clock.stage(NETWORK):
            return self._session(*inputs)


class _ChannelsFirst(nn.Module):
    """A network that is given its input with channels first, as PyTorch lays it out by itself."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Predictions:
        predictions: Predictions = self.network(images.contiguous())
        return predictions


def make_form(name: str, subject: Subject | None, setting: Setting, folder: Path) -> Form:
    """A form, by its name.

    Args:
        name: as in the table above.
        subject: what is measured, unless the name is that of another model; None: an exported file, which has no
            other forms.
        setting: what all forms have in common.
        folder: for files that have to be written.

    Raises:
        Solov2Error: if the name is of no form and no model, or a file or package that it needs is missing.
    """
    if is_exported(name):
        return Form(name, load(name, setting.device), setting.pictures, None)
    if name not in EXPORTS and name not in TORCH_FORMS:
        return _torch_form(name, "torch", find_subject(name).at_size(setting.size), setting)
    if subject is None:
        raise ConfigError(f"an exported file has no form {name}: it is run as it is; give the model itself with -m")
    if name in EXPORTS:
        return _exported_form(name, subject.at_size(setting.size), setting, folder)
    return _torch_form(name, name, subject.at_size(setting.size), setting)


def _torch_form(name: str, kind: str, subject: Subject, setting: Setting) -> Form:
    network, flops = _network(subject, setting)
    plain = kind == "plain"
    predictor = _predictor(
        subject, _ChannelsFirst(network) if plain else network, setting, fold=not plain, compiled=kind == "compile"
    )
    if plain:
        assert isinstance(predictor.model, nn.Module)
        predictor.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return Form(name, predictor, setting.pictures, THRESHOLD if setting.instances else None, flops)


def _exported_form(name: str, subject: Subject, setting: Setting, folder: Path) -> Form:
    network, flops = _network(subject, setting)
    options = ExportOptions(format=EXPORTS[name], size=_input_hw(subject, setting))
    check_packages(options.format)
    data = subject.config.data.normalize
    graph = ExportGraph(network, data.mean, data.std, decode_options(subject.config)).eval().requires_grad_(False)  # type: ignore[arg-type]
    path = folder / f"{name}{SUFFIXES[options.format]}"
    WRITERS[options.format](trace(graph, options), path, texts_of(subject.opened, options), options)
    predictor = _predictor(subject, open_exported(path, setting.device, name), setting)
    return Form(name, predictor, setting.pictures, THRESHOLD if setting.instances else None, flops)


def _predictor(
    subject: Subject,
    model: nn.Module | ExportedModel,
    setting: Setting,
    *,
    fold: bool = False,
    compiled: bool = False,
) -> Predictor:
    weights = subject.opened.weights
    device = None if isinstance(model, ExportedModel) else choose_device(setting.device)
    # Planted scores are not the model's: nothing is known about what they are worth.
    calibration = () if setting.instances else weights.calibration
    return Predictor(
        model,  # type: ignore[arg-type]  # wrapped networks are networks to it
        subject.config,
        weights.categories,
        weights.score_threshold,
        device,
        calibration=calibration,
        fold=fold,
        compiled=compiled,
    )


def _network(subject: Subject, setting: Setting) -> tuple[nn.Module, int]:
    """The network, with instances planted where they are asked for, and its operations for one run."""
    network, hw = subject.network(), _input_hw(subject, setting)
    flops = count_flops(network, len(setting.pictures), hw)
    if not setting.instances:
        return network, flops
    with torch.no_grad():
        shapes = copy.deepcopy(network).to("meta")(torch.empty((1, 3, *hw), device="meta"))
    return PlantedNetwork(network, plant(shapes, setting.instances)), flops


def _input_hw(subject: Subject, setting: Setting) -> HW:
    preparing = Predictor(nn.Identity(), subject.config)  # type: ignore[arg-type]  # which runs nothing
    return preparing.batch_of([read_image(setting.pictures[0])]).frames[0].padded_hw
