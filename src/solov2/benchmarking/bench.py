"""The measurement: forms of a model take turns, so that a machine that changes its speed changes it for all."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from solov2.benchmarking.forms import NETWORK, STAGES, Form, Setting, make_form
from solov2.benchmarking.machine import MatrixRate, describe, peak_bytes
from solov2.benchmarking.subject import Subject, find_subject
from solov2.benchmarking.timing import Clock, Spread
from solov2.errors import ConfigError
from solov2.predict import choose_device
from solov2.runtime.exported import is_exported
from solov2.structures import HW

logger = logging.getLogger(__name__)

MADE_HW = (480, 640)
"""Size of the made picture where nobody asks for another."""

WARM_UP = 2
"""Runs before the first that counts."""


@dataclass(frozen=True)
class Request:
    """What is to be measured.

    Attributes:
        model: a model, a recipe or an exported file.
        forms: of :mod:`solov2.benchmarking.forms`; the others are compared with the first.
        picture: a file; None: one is made.
        picture_hw: size of the picture that is made; None: ``size``, or 480x640.
        size: to resize pictures to, height and width; None: the recipe's.
        batch: pictures that go through the network together.
        instances: planted in each picture; 0: whatever the model finds.
        rounds: of which the median is told.
        device: as for :func:`solov2.load`.
    """

    model: str
    forms: Sequence[str] = ("torch",)
    picture: Path | None = None
    picture_hw: HW | None = None
    size: HW | None = None
    batch: int = 1
    instances: int = 100
    rounds: int = 10
    device: str = "auto"


@dataclass(frozen=True)
class Result:
    """What one form took.

    Attributes:
        name: of the form.
        stages: seconds by stage.
        whole: seconds from files to instances with masks.
        ratio: its seconds over those of the first form in the same round.
        found: instances, over all pictures of a batch.
        peak: bytes that one run adds at its peak; None where that is not known.
        flops: floating-point operations of the network; None if unknown.
        share: of the machine's matrix rate that the network reaches; None if unknown.
        input_hw: size of the network's input.
    """

    name: str
    stages: dict[str, Spread]
    whole: Spread
    ratio: Spread
    found: int
    peak: int | None
    flops: int | None
    share: Spread | None
    input_hw: HW


@dataclass(frozen=True)
class Report:
    """A finished measurement.

    Attributes:
        request: what was asked.
        random: the weights are random numbers.
        machine: what it was measured on.
        matrix_rate: floating-point operations a second of plain matrix products, in the same run.
        results: one for each form.
    """

    request: Request
    random: bool
    machine: dict[str, Any]
    matrix_rate: Spread
    results: tuple[Result, ...]


def bench(request: Request) -> Report:
    """Measures.

    Raises:
        ConfigError: if something asked for cannot be.
        WeightsError: if weights cannot be read.
        MissingDependencyError: if a run time is not installed.
        ImageError: if the picture cannot be read.
    """
    _check(request)
    subject = None if is_exported(request.model) else find_subject(request.model)
    with tempfile.TemporaryDirectory(prefix="solov2_bench_") as name:
        folder = Path(name)
        forms = _make_forms(request, subject, folder)
        device = choose_device(request.device)
        rate = MatrixRate(device)
        for form in forms:
            for _ in range(WARM_UP):
                form.run(Clock(form.device))
        seconds, rates, found = _take_turns(forms, rate, request.rounds)
        peaks = [peak_bytes(lambda form=form: form.run(Clock(form.device)), form.device) for form in forms]  # type: ignore[misc]
    results = [
        _result(form, mine, seconds[0], rates, count, peak)
        for form, mine, count, peak in zip(forms, seconds, found, peaks, strict=True)
    ]
    random = subject is not None and subject.random
    return Report(request, random, describe(device), Spread.of(rates), tuple(results))


def _check(request: Request) -> None:
    for name, value, least in (("batch", request.batch, 1), ("rounds", request.rounds, 1)):
        if value < least:
            raise ConfigError(f"--{name} is {value}; expected {least} or more")
    if request.instances < 0:
        raise ConfigError(f"--instances is {request.instances}; expected 0, for what the model finds, or more")
    for name, sides in (("size", request.size), ("picture-size", request.picture_hw)):
        if sides is not None and min(sides) < 1:
            raise ConfigError(f"--{name} is {sides[0]} {sides[1]}; expected height and width in pixels")
    if request.picture is not None and request.picture_hw is not None:
        raise ConfigError("--picture and --picture-size: give one of them")


def _make_forms(request: Request, subject: Subject | None, folder: Path) -> list[Form]:
    picture = request.picture
    if picture is None:
        picture = folder / "picture.jpg"
        made = make_picture(request.picture_hw or request.size or MADE_HW)
        made.save(picture, quality=90)
    # In a picture of the user's own the model finds what it finds.
    planted = request.instances if request.picture is None else 0
    setting = Setting([picture] * request.batch, planted, request.size, request.device)
    forms = []
    for name in (request.model if subject is None else request.forms[0], *request.forms[1:]):
        logger.info("preparing %s", name)
        forms.append(make_form(name, subject, setting, folder))
    return forms


def make_picture(hw: HW, seed: int = 0) -> Image.Image:
    """Smooth noise with discs in it: something to decode and to resize."""
    rng = np.random.default_rng(seed)
    height, width = hw
    coarse = rng.integers(0, 256, (max(height // 16, 1), max(width // 16, 1), 3), np.uint8)
    picture = np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))
    rows, columns = np.ogrid[:height, :width]
    for y, x, radius, colour in zip(
        rng.uniform(0, height, 12),
        rng.uniform(0, width, 12),
        rng.uniform(0.03, 0.2, 12) * min(hw),
        rng.integers(0, 256, (12, 3), np.uint8),
        strict=True,
    ):
        picture[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = colour
    return Image.fromarray(picture)


def _take_turns(
    forms: Sequence[Form], rate: MatrixRate, rounds: int
) -> tuple[list[list[dict[str, float]]], list[float], list[int]]:
    """Seconds by form, round and stage; the machine's rate in each round; instances by form."""
    seconds: list[list[dict[str, float]]] = [[] for _ in forms]
    rates, found = [], [0] * len(forms)
    for number in range(rounds):
        rates.append(rate.measure())
        order = range(len(forms)) if number % 2 == 0 else reversed(range(len(forms)))
        for index in order:
            clock = Clock(forms[index].device)
            found[index] = sum(len(instances) for instances in forms[index].run(clock))
            seconds[index].append(clock.seconds)
        logger.info("round %d of %d", number + 1, rounds)
    return seconds, rates, found


def _result(
    form: Form,
    mine: list[dict[str, float]],
    first: list[dict[str, float]],
    rates: list[float],
    found: int,
    peak: int | None,
) -> Result:
    whole = [sum(stages.values()) for stages in mine]
    stages = {name: Spread.of([stages[name] for stages in mine]) for name in STAGES if name in mine[0]}
    share = None
    if form.flops is not None:
        share = Spread.of([form.flops / stages[NETWORK] / rate for stages, rate in zip(mine, rates, strict=True)])
    return Result(
        name=form.name,
        stages=stages,
        whole=Spread.of(whole),
        ratio=Spread.of([own / sum(other.values()) for own, other in zip(whole, first, strict=True)]),
        found=found,
        peak=peak,
        flops=form.flops,
        share=share,
        input_hw=form.input_hw,
    )
