import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from solov2.build import build_schedule
from solov2.config import load_config
from solov2.config.schema import Config, CosineSchedule, OptimConfig, PiecewiseSchedule, Warmup
from solov2.model.fpn import FPN
from solov2.model.grid_head import GridHead
from solov2.model.mask_branch import MaskBranch
from solov2.model.resnet import ResNet
from solov2.model.shufflenet import ShuffleNetV2
from solov2.model.solov2 import SOLOv2
from solov2.optim import (
    Ema,
    WarmUp,
    cosine_factor,
    ema_decay,
    parameter_groups,
    piecewise_factor,
    with_warm_up,
)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.0),
        (1, 1e-5),
        (500, 0.005),
        (999, 0.00999),
        (1000, 0.01),
        (58639, 0.01),
        (58640, 0.001),  # 8 epochs of 7,330 steps
        (80629, 0.001),
        (80630, 1e-4),
    ],
)
def test_published_rates(step: int, expected: float) -> None:
    config = load_config("solov2_r50_fpn_1x_coco")
    assert config.optim.base_lr * build_schedule(config, 7330)(step) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("warm_up", "step", "expected"),
    [
        (WarmUp(1000), 0, 0.0),
        (WarmUp(1000), 250, 0.25),
        (WarmUp(1000, start_factor=0.2), 0, 0.2),
        (WarmUp(1000, start_factor=0.2), 500, 0.6),
        (WarmUp(10, kind="exp"), 0, 0.0),
        (WarmUp(10, kind="exp"), 5, 0.25),
        (WarmUp(10, kind="exp", power=3.0), 5, 0.125),
    ],
)
def test_warm_up(warm_up: WarmUp, step: int, expected: float) -> None:
    assert warm_up.factor(step) == pytest.approx(expected)


def test_warm_up_wins_while_it_lasts() -> None:
    factor = with_warm_up(WarmUp(100), lambda step: piecewise_factor(step, [50], [0.1]))
    assert [factor(step) for step in (0, 50, 99, 100)] == pytest.approx([0, 0.5, 0.99, 0.1])


@pytest.mark.parametrize("warm_up", [None, WarmUp(0)])
def test_no_warm_up(warm_up: WarmUp | None) -> None:
    assert with_warm_up(warm_up, lambda step: 0.5 + step)(0) == 0.5


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 1.0), (9, 1.0), (10, 0.3), (19, 0.3), (20, 0.7), (21, 0.7), (10**6, 0.7)]
)
def test_piecewise(step: int, expected: float) -> None:
    assert piecewise_factor(step, [10, 20], [0.3, 0.7]) == expected


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 1.0), (10, 1.0), (20, 0.55 + 0.45 * math.cos(math.pi / 4)), (30, 0.55), (50, 0.1), (80, 0.1)],
)
def test_cosine(step: int, expected: float) -> None:
    assert cosine_factor(step, 10, 50, min_ratio=0.1) == pytest.approx(expected)


def test_cosine_without_steps() -> None:
    assert cosine_factor(5, 5, 5) == 1.0
    assert cosine_factor(6, 5, 5) == pytest.approx(0.0)


def config_with(**optim: Any) -> Config:
    return Config(optim=OptimConfig(**optim))


def test_schedule_counts_epochs_in_steps() -> None:
    piecewise = PiecewiseSchedule(milestones=(2, 3), factors=(0.1, 0.01))
    factor = build_schedule(config_with(schedule=piecewise, warmup=None), 10)
    assert [factor(step) for step in (0, 19, 20, 29, 30)] == [1, 1, 0.1, 0.1, 0.01]


def test_warm_up_in_epochs_wins_over_steps() -> None:
    piecewise = PiecewiseSchedule(milestones=(5,), factors=(0.1,))
    config = config_with(schedule=piecewise, warmup=Warmup(steps=3, epochs=2, start_factor=0.0))
    factor = build_schedule(config, 10)
    assert [factor(step) for step in (3, 10, 19, 20)] == pytest.approx([0.15, 0.5, 0.95, 1.0])


def test_cosine_starts_after_the_warm_up_and_ends_on_the_plateau() -> None:
    schedule = CosineSchedule(max_epochs=10, min_lr_ratio=0.05, plateau_epochs=2)
    factor = build_schedule(config_with(schedule=schedule, warmup=Warmup(steps=20, start_factor=0.0)), 10)
    assert [factor(step) for step in (0, 10, 20, 50, 80, 99)] == pytest.approx([0, 0.5, 1, 0.525, 0.05, 0.05])


def test_cosine_without_warm_up() -> None:
    factor = build_schedule(config_with(schedule=CosineSchedule(max_epochs=10), warmup=None), 10)
    assert [factor(step) for step in (0, 50, 100)] == pytest.approx([1, 0.5, 0])


def test_published_momentum() -> None:
    parameter = nn.Parameter(torch.tensor([1.0]))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9, weight_decay=0.01)
    values = []
    for _ in range(3):
        parameter.grad = torch.tensor([2.0])
        optimizer.step()
        values.append(parameter.item())
    assert values == pytest.approx([0.799, 0.417301, -0.1266454], abs=1e-6)


def small_network(backbone: ResNet | ShuffleNetV2) -> SOLOv2:
    head = GridHead(2, grid_sizes=(4, 3), strides=(8, 16), in_channels=16, channels=32, depth=1, kernel_channels=32)
    return SOLOv2(backbone, FPN(backbone.channels, 16), MaskBranch(16, 32, 32), head)


def settings_by_name(network: nn.Module, groups: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Learning rate and decay of each parameter; fails where one is in two groups."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = [(names[id(p)], (group["lr"], group["weight_decay"])) for group in groups for p in group["params"]]
    assert len(found) == len(dict(found))
    return dict(found)


def test_everything_trained_is_in_one_group_and_norms_do_not_decay() -> None:
    with torch.device("meta"):
        network = small_network(ShuffleNetV2(freeze_at=0))
    settings = settings_by_name(network, parameter_groups(network, 0.01, 1e-4))
    assert set(settings) == {name for name, p in network.named_parameters() if p.requires_grad}
    assert not any(name.startswith("backbone.stem") for name in settings)
    for name, (rate, decay) in settings.items():
        assert rate == 0.01
        assert decay == (0.0 if ".norm." in name else 1e-4), name
    assert settings["fpn.outputs.0.bias"] == (0.01, 1e-4)  # biases of convolutions do decay
    assert settings["grid_head.category_output.bias"] == (0.01, 1e-4)
    assert settings["mask_branch.levels.0.0.norm.bias"] == (0.01, 0.0)


def deformable_network() -> SOLOv2:
    backbone = ResNet(18, freeze_at=-1, norm=nn.BatchNorm2d, dcn_stages=(2,))
    head = GridHead(2, channels=32, depth=2, kernel_channels=32, in_channels=32, dcn_stages=(1,))
    return SOLOv2(backbone, FPN(backbone.channels, 32), MaskBranch(32, 32, 32, dcn=True), head)


def test_deformable_convolutions_have_rules_of_their_own() -> None:
    """In the heads their biases learn twice as fast and do not decay; in the backbone offsets know no multiplier."""
    with torch.device("meta"):
        network = deformable_network()
    found = settings_by_name(network, parameter_groups(network, 0.01, 1e-4, (0.1, 0.2, 0.3, 0.4)))
    place = "backbone.stages.2.0.conv2.conv"
    assert found[f"{place}.weight"] == pytest.approx((0.003, 1e-4))
    assert found[f"{place}.offset.weight"] == pytest.approx((0.01, 1e-4))
    assert found[f"{place}.offset.bias"] == pytest.approx((0.01, 1e-4))
    for place in ("grid_head.kernel_tower.1.conv", "mask_branch.output.conv"):
        assert found[f"{place}.weight"] == pytest.approx((0.01, 1e-4))
        assert found[f"{place}.offset.weight"] == pytest.approx((0.01, 1e-4))
        assert found[f"{place}.bias"] == pytest.approx((0.02, 0.0))
        assert found[f"{place}.offset.bias"] == pytest.approx((0.02, 0.0))


def test_uniform_groups() -> None:
    """Everything decays alike; the stages keep their multipliers."""
    with torch.device("meta"):
        network = deformable_network()
    found = settings_by_name(network, parameter_groups(network, 0.01, 1e-4, (0.1, 0.2, 0.3, 0.4), uniform=True))
    stages = {f"backbone.stages.{stage}.": rate for stage, rate in enumerate((0.001, 0.002, 0.003, 0.004))}
    for name, settings in found.items():
        rate = next((rate for start, rate in stages.items() if name.startswith(start)), 0.01)
        assert settings == pytest.approx((rate, 1e-4)), name


def test_frozen_norms_are_in_no_group() -> None:
    with torch.device("meta"):
        network = small_network(ResNet(18))
    settings = settings_by_name(network, parameter_groups(network, 0.01, 1e-4))
    assert not any(name.startswith("backbone") and ".norm." in name for name in settings)
    assert not any(name.startswith(("backbone.stem", "backbone.stages.0")) for name in settings)


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        (lambda: ResNet(18, freeze_at=-1, norm=nn.BatchNorm2d), [0.1, 0.2, 0.3, 0.4]),
        (ShuffleNetV2, [0.2, 0.3, 0.4]),  # three stages, c3..c5
    ],
)
def test_stage_multipliers(backbone: Any, expected: list[float]) -> None:
    with torch.device("meta"):
        network = small_network(backbone())
    settings = settings_by_name(network, parameter_groups(network, 2.0, 0.5, (0.1, 0.2, 0.3, 0.4)))
    for name, (rate, decay) in settings.items():
        factor = expected[int(name.split(".")[2])] if name.startswith("backbone.stages") else 1.0
        assert rate == pytest.approx(2.0 * factor), name
        assert decay == (0.0 if ".norm." in name else 0.5), name


@pytest.mark.parametrize(
    ("step", "decay", "kind", "expected"),
    [
        (0, 0.9998, "threshold", 0.1),
        (8, 0.9998, "threshold", 0.5),
        (44_989, 0.9998, "threshold", 0.9998),
        (10**6, 0.9998, "threshold", 0.9998),
        (0, 0.9998, "normal", 0.9998),
        (0, 0.9998, "exponential", 0.9998 * (1 - math.exp(-1 / 2000))),
        (1999, 0.9998, "exponential", 0.9998 * (1 - math.exp(-1))),
    ],
)
def test_ema_decay(step: int, decay: float, kind: Any, expected: float) -> None:
    assert ema_decay(step, decay, kind) == pytest.approx(expected)


def with_weight(value: float) -> nn.Module:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    for parameter in model.parameters():
        nn.init.constant_(parameter, value)
    return model


@pytest.mark.parametrize("kind", ["threshold", "normal", "exponential"])
def test_ema_follows_the_closed_form(kind: Any) -> None:
    model = with_weight(3.0)
    ema = Ema(model, 0.9, kind)
    average = 3.0
    for step in range(30):
        value = math.sin(step)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(value)
        ema.update(model)
        keep = ema_decay(step, 0.9, kind)
        average = keep * average + (1 - keep) * value
        assert [p.item() for p in ema.model.parameters()] == pytest.approx([average] * 3, abs=1e-6)


@pytest.mark.parametrize("kind", ["threshold", "normal", "exponential"])
def test_ema_of_weights_that_rest_is_the_weights(kind: Any) -> None:
    """Nothing is over-scaled: averages from zero, divided by 1 - decay^steps, are 1.5 % off at step 2."""
    model = with_weight(3.0)
    ema = Ema(model, 0.9998, kind)
    for _ in range(5):
        ema.update(model)
    assert [p.item() for p in ema.model.parameters()] == pytest.approx([3.0] * 3)


def test_ema_takes_buffers_in_and_counters_over() -> None:
    model = with_weight(1.0).train()
    ema = Ema(model, 0.5, "normal")
    model(torch.tensor([[10.0], [20.0]]))  # running mean 1.5, one batch tracked
    ema.update(model)
    buffers: dict[str, Tensor] = dict(ema.model.named_buffers())
    assert buffers["1.running_mean"].item() == pytest.approx(0.75)
    assert buffers["1.num_batches_tracked"].item() == 1


def test_ema_is_apart_from_the_model() -> None:
    model = with_weight(1.0)
    ema = Ema(model, 0.5, "normal")
    with torch.no_grad():
        next(model.parameters()).fill_(9.0)
    assert next(ema.model.parameters()).item() == 1.0
    assert not ema.model.training
    assert not any(p.requires_grad for p in ema.model.parameters())


def test_ema_continues_from_a_checkpoint() -> None:
    model = with_weight(1.0)
    straight, before = Ema(model, 0.9998), Ema(model, 0.9998)
    resumed: Ema | None = None
    for step in range(6):
        with torch.no_grad():
            next(model.parameters()).fill_(float(step))
        if step == 3:
            resumed = Ema(with_weight(7.0), 0.9998)
            resumed.load_state_dict(before.state_dict())
        straight.update(model)
        (resumed or before).update(model)
    assert resumed is not None
    assert resumed.updates == 6
    for a, b in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
