"""Optimizer groups, the learning rate as a function of the step, and the moving average of weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from solov2.model.deform import DeformConv2d

EMA_RAMP = 2000
"""Steps in the "exponential" decay's ramp."""


@dataclass(frozen=True, slots=True)
class WarmUp:
    """The first steps of a run.

    Attributes:
        steps: how many.
        start_factor: share of the base rate at step 0 (linear only).
        kind: "linear", or "exp": (step / steps) ** power.
        power: exponent (exp only).
    """

    steps: int
    start_factor: float = 0.0
    kind: Literal["linear", "exp"] = "linear"
    power: float = 2.0

    def factor(self, step: int) -> float:
        """Share of the base rate at a step before ``steps``."""
        progress = step / self.steps
        if self.kind == "exp":
            return float(progress**self.power)
        return self.start_factor * (1 - progress) + progress


def piecewise_factor(step: int, milestones: Sequence[int], factors: Sequence[float]) -> float:
    """Share of the base rate: 1 before the first milestone, factors[i] from step milestones[i] on."""
    passed = sum(step >= milestone for milestone in milestones)
    return factors[passed - 1] if passed else 1.0


def cosine_factor(step: int, start: int, stop: int, min_ratio: float = 0.0) -> float:
    """Share of the base rate: half a cosine from 1 at ``start`` to ``min_ratio`` at ``stop`` and after."""
    progress = min(max((step - start) / max(stop - start, 1), 0.0), 1.0)
    return min_ratio + (1 - min_ratio) * 0.5 * (math.cos(progress * math.pi) + 1)


def with_warm_up(warm_up: WarmUp | None, decay: Callable[[int], float]) -> Callable[[int], float]:
    """The learning rate's factor at every optimizer step; the warm-up wins while it lasts."""
    if warm_up is None or warm_up.steps == 0:
        return decay
    return lambda step: warm_up.factor(step) if step < warm_up.steps else decay(step)


def parameter_groups(
    model: nn.Module,
    base_lr: float,
    weight_decay: float,
    stage_lr_multipliers: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    *,
    uniform: bool = False,
) -> list[dict[str, Any]]:
    """What is trained, how fast, and what decays: as PaddleDetection, or as the authors.

    PaddleDetection's rules: scales and shifts of norms do not decay. The biases of deformable convolutions
    in the heads, those that find offsets too, do not decay and learn twice as fast. The convolutions that
    find offsets in the backbone learn at the base rate whatever their stage's multiplier.

    Args:
        model: with a ``backbone`` that has ``stages``.
        base_lr: learning rate of everything outside the backbone.
        weight_decay: of what decays.
        stage_lr_multipliers: factor of the last stages' learning rate, c2..c5.
        uniform: everything decays, and only the stages have rates of their own.

    Returns:
        Groups for a torch optimizer; frozen parameters are in none.
    """
    rates = _stage_rates(model, stage_lr_multipliers)
    still: set[int] = set()
    if not uniform:
        still = {id(p) for m in model.modules() if isinstance(m, NORMS) for p in m.parameters(recurse=False)}
        _rates_of_deformable(model, rates, still)
    groups: dict[tuple[float, bool], list[Tensor]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            key = (rates.get(id(parameter), 1.0), id(parameter) not in still)
            groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "lr": base_lr * rate, "weight_decay": weight_decay if decays else 0.0}
        for (rate, decays), parameters in groups.items()
    ]


NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)
DCN_BIAS_RATE = 2.0


def _stage_rates(model: nn.Module, multipliers: Sequence[float]) -> dict[int, float]:
    stages = list(model.get_submodule("backbone.stages").children())
    rates = {}
    for stage, multiplier in zip(stages[::-1], multipliers[::-1], strict=False):
        rates.update({id(parameter): multiplier for parameter in stage.parameters()})
    return rates


def _rates_of_deformable(model: nn.Module, rates: dict[int, float], still: set[int]) -> None:
    """Enters what is special about deformable convolutions into the rates and the parameters that do not decay."""
    for name, module in model.named_modules():
        if not isinstance(module, DeformConv2d):
            continue
        if name.startswith("backbone."):
            rates.update({id(parameter): 1.0 for parameter in module.offset.parameters()})
        else:
            biases = [id(bias) for bias in (module.bias, module.offset.bias) if bias is not None]
            rates.update(dict.fromkeys(biases, DCN_BIAS_RATE))
            still.update(biases)


def ema_decay(step: int, decay: float, kind: Literal["threshold", "normal", "exponential"] = "threshold") -> float:
    """Share of the old average kept at update number ``step``, from 0."""
    if kind == "threshold":
        return min(decay, (1 + step) / (10 + step))
    if kind == "exponential":
        return decay * (1 - math.exp(-(step + 1) / EMA_RAMP))
    return decay


class Ema:
    """Exponential moving average of a model's weights and buffers.

    It starts from the weights, so it needs no correction; averages that start from zero and are
    divided by 1 - decay^steps over-scale the weights while the decay still changes.

    Args:
        model: whose average is kept.
        decay: the largest share of the old average.
        kind: see :func:`ema_decay`.
    """

    def __init__(
        self, model: nn.Module, decay: float, kind: Literal["threshold", "normal", "exponential"] = "threshold"
    ) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.kind: Literal["threshold", "normal", "exponential"] = kind
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Takes in the model's weights after an optimizer step."""
        keep = ema_decay(self.updates, self.decay, self.kind)
        self.updates += 1
        for average, value in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if average.dtype.is_floating_point:
                average.lerp_(value.to(average.dtype), 1 - keep)
            else:
                average.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """The average and the number of updates, for a checkpoint."""
        return {"weights": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a checkpoint."""
        self.model.load_state_dict(state["weights"])
        self.updates = state["updates"]
