from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from solov2.config import load_config
from solov2.config.schema import CosineSchedule, PiecewiseSchedule

Write = Callable[..., Path]
Problems = Callable[..., list[str]]
KNOWN = "PiecewiseDecay, CosineDecay, LinearWarmup, ExpWarmup"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gamma: 0.1, milestones: [8, 11]", ((8, 11), (0.1, 0.01))),
        ("gamma: 0.5, milestones: [4, 6, 8]", ((4, 6, 8), (0.5, 0.05, 0.005))),
        ("gamma: [0.5, 0.25], milestones: [4, 6]", ((4, 6), (0.5, 0.25))),
        ("gamma: 0.5", ((8, 11), (0.5, 0.05))),
        ("gamma: [1e-1, 1e-2], milestones: [4, 6]", ((4, 6), (0.1, 0.01))),
    ],
)
@pytest.mark.parametrize("form", ["- !PiecewiseDecay {%s}", "- {name: PiecewiseDecay, %s}"])
def test_gamma_is_divided_not_raised_to_a_power(write: Write, form: str, text: str, expected: Any) -> None:
    config = load_config(write(f"LearningRate:\n  schedulers:\n    {form % text}\n"))
    schedule = config.optim.schedule
    assert isinstance(schedule, PiecewiseSchedule)
    assert (schedule.milestones, schedule.factors) == (expected[0], pytest.approx(expected[1], rel=1e-15))
    assert config.optim.warmup is None


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("!LinearWarmup {}", ("linear", 500, None, 1 / 3)),
        ("!LinearWarmup {steps: 7, start_factor: 1e-3}", ("linear", 7, None, 0.001)),
        ("!LinearWarmup {epochs: 2, start_factor: 0}", ("linear", 500, 2, 0.0)),
        ("!ExpWarmup {steps: 9, power: 4}", ("exp", 9, None, 1 / 3)),
    ],
)
def test_warmups(write: Write, entry: str, expected: Any) -> None:
    for order in ("[!CosineDecay {max_epochs: 12}, %s]", "[%s, !CosineDecay {max_epochs: 12}]"):
        config = load_config(write(f"LearningRate: {{schedulers: {order % entry}}}"))
        warmup = config.optim.warmup
        assert isinstance(config.optim.schedule, CosineSchedule)
        assert warmup is not None
        assert (warmup.kind, warmup.steps, warmup.epochs, warmup.start_factor) == expected


def test_a_decay_can_switch_the_warmup_off(write: Write) -> None:
    text = "LearningRate: {schedulers: [!CosineDecay {max_epochs: 12, use_warmup: no}, !LinearWarmup {steps: 7}]}"
    assert load_config(write(text)).optim.warmup is None


def test_no_schedulers_means_the_defaults(write: Write) -> None:
    optim = load_config(write("LearningRate: {base_lr: 1e-3}")).optim
    assert optim.base_lr == 0.001
    assert optim.warmup is not None


def test_cosine_keys(write: Write) -> None:
    text = "LearningRate: {schedulers: [!CosineDecay {max_epochs: 12, min_lr_ratio: 0.05, last_plateau_epochs: 2}]}"
    schedule = load_config(write(text)).optim.schedule
    assert schedule == CosineSchedule(max_epochs=12, min_lr_ratio=0.05, plateau_epochs=2)


@pytest.mark.parametrize(
    ("text", "flat", "plateau"),
    [
        ("last_plateau_epochs: 13", 0, 13),
        ("flat_epochs: 13", 13, 0),
        ("flat_epochs: 6, last_plateau_epochs: 7", 6, 7),
    ],
)
def test_parts_of_a_cosine_fit_into_its_epochs(problems: Problems, text: str, flat: int, plateau: int) -> None:
    assert problems(f"LearningRate: {{schedulers: [!CosineDecay {{max_epochs: 12, {text}}}]}}") == [
        f"recipe.yml:2: LearningRate.schedulers[0]: {flat} first epochs at base_lr and {plateau} last ones at the "
        "lowest rate are more than max_epochs, 12, which counts them: lower flat_epochs or last_plateau_epochs"
    ]


def test_parts_of_a_cosine_may_fill_its_epochs(write: Write) -> None:
    text = "max_epochs: 12, flat_epochs: 6, last_plateau_epochs: 6"
    schedule = load_config(write(f"LearningRate: {{schedulers: [!CosineDecay {{{text}}}]}}")).optim.schedule
    assert schedule == CosineSchedule(max_epochs=12, flat_epochs=6, plateau_epochs=6)


@pytest.mark.parametrize(
    ("schedulers", "message"),
    [
        ("[!PiecewiseDecay {gamma: 0.1, milestones: [8, 20]}]", "milestones [20] lie beyond the last of 12 epochs"),
        ("[!CosineDecay {max_epochs: 40}]", "falls over 40 epochs, training has 12"),
    ],
)
def test_a_schedule_of_another_length_is_a_warning(
    write: Write, caplog: pytest.LogCaptureFixture, schedulers: str, message: str
) -> None:
    load_config(write(f"epoch: 12\nLearningRate: {{schedulers: {schedulers}}}"))
    assert message in caplog.text


@pytest.mark.parametrize(
    ("schedulers", "message"),
    [
        ("3", ": expected a list of a decay"),
        ("[]", ": expected exactly one of PiecewiseDecay and CosineDecay, got 0"),
        (
            "[!PiecewiseDecay {}, !CosineDecay {max_epochs: 3}]",
            ": expected exactly one of PiecewiseDecay and CosineDecay, got 2",
        ),
        ("[!LinearWarmup {}]", ": expected exactly one of"),
        ("[!CosineDecay {}]", "[0].max_epochs: is required"),
        ("[!CosineDecay {max_epoch: 3, max_epochs: 3}]", "[0].max_epoch: unknown key; did you mean max_epochs?"),
        ("[!CosineDecay {max_epochs: 3, use_warmup: 1}]", "[0].use_warmup: expected true or false, got 1"),
        (
            "[{name: OneCycleLR}]",
            '[0]: expected one of PiecewiseDecay, CosineDecay, LinearWarmup, ExpWarmup, got "OneCycleLR"',
        ),
        ("[5, !PiecewiseDecay {}]", f"[0]: expected one of {KNOWN}, got 5"),
        ("[!PiecewiseDecay {gamma: [0.1], milestones: [8, 11]}]", "[0]: 2 milestones need as many factors, got 1"),
        ("[!PiecewiseDecay {milestones: [11, 8]}]", "[0]: milestones must rise"),
        ("[!PiecewiseDecay {milestones: 8}]", "[0].milestones: expected a list, got 8"),
        ("[!PiecewiseDecay {gamma: [a, b]}]", '[0].gamma[0]: expected a number, got "a"'),
        ("[!PiecewiseDecay {values: [1, 2]}]", "[0].values: [1, 2] is not supported: state gamma"),
        ("[!PiecewiseDecay {}, !LinearWarmup {}, !LinearWarmup {}]", "[2]: a second warm-up: keep one"),
        ("[!PiecewiseDecay {}, !LinearWarmup {steps: x}]", '[1].steps: expected a whole number, got "x"'),
        ("[!PiecewiseDecay {}, !LinearWarmup {start_factor: 2}]", "[1].start_factor: expected a number less than"),
        ("[!PiecewiseDecay {}, !ExpWarmup {}]", "[1]: ExpWarmup needs steps or epochs"),
    ],
)
def test_wrong_schedulers(problems: Problems, schedulers: str, message: str) -> None:
    start = f"recipe.yml:2: LearningRate.schedulers{message}"
    lines = problems(f"LearningRate: {{schedulers: {schedulers}}}")
    assert lines[0][: len(start)] == start


def test_a_problem_inside_a_scheduler_names_its_own_line(problems: Problems) -> None:
    [line] = problems("LearningRate:\n  schedulers:\n    - !PiecewiseDecay\n      milestones: 8")
    assert line == "recipe.yml:5: LearningRate.schedulers[0].milestones: expected a list, got 8"
