"""Keys that one block of a recipe says for another."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from solov2.config import Config, load_config
from solov2.config.schema import LossConfig

Write = Callable[..., Path]
Problems = Callable[..., list[str]]


def norms(config: Config) -> tuple[bool, str, str]:
    backbone = config.model.backbone
    assert backbone.kind == "resnet"
    return backbone.sync_norm, config.model.grid_head.norm, config.model.mask_branch.norm


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (False, "gn", "gn")),
        ("norm_type: sync_bn", (True, "sync_bn", "sync_bn")),
        ("norm_type: bn", (False, "bn", "bn")),
        ("ResNet: {norm_type: sync_bn}", (True, "gn", "gn")),
        ("norm_type: sync_bn\nResNet: {norm_type: bn}", (False, "sync_bn", "sync_bn")),
        ("norm_type: gn\nResNet: {norm_type: sync_bn}", (True, "gn", "gn")),
        ("SOLOv2Head: {norm_type: bn}\nnorm_type: sync_bn", (True, "bn", "sync_bn")),
        ("norm_type: bn\nSOLOv2MaskHead: {norm_type: gn}", (False, "bn", "gn")),
        ("norm_type: ~", (False, "gn", "gn")),
    ],
)
def test_the_norm_at_the_top_holds_where_a_block_has_none(
    write: Write, text: str, expected: tuple[bool, str, str]
) -> None:
    assert norms(load_config(write(text))) == expected


def test_the_norm_at_the_top_may_be_the_heads_alone(write: Write) -> None:
    config = load_config(write("norm_type: gn\nSOLOv2: {backbone: ShuffleNetV2}"))
    assert (config.model.grid_head.norm, config.model.backbone.kind) == ("gn", "shufflenetv2")


@pytest.mark.parametrize(
    ("text", "classes", "warning"),
    [
        ("num_classes: 3", 3, ""),
        ("SOLOv2Head: {num_classes: 3}", 3, ""),
        ("num_classes: 3\nSOLOv2Head: {num_classes: 3}\nTrainReader: {num_classes: 3}", 3, ""),
        (
            "num_classes: 80\nSOLOv2Head: {num_classes: 3}",
            3,
            "recipe.yml:3: SOLOv2Head.num_classes: 3 holds, and not num_classes: 80 (",
        ),
        (
            "num_classes: 3\nEvalReader: {num_classes: 80}",
            3,
            "recipe.yml:3: EvalReader.num_classes: 80 changes nothing, the model has 3 classes",
        ),
        ("TestReader: {num_classes: 5}", 80, "TestReader.num_classes: 5 changes nothing, the model has 80 classes"),
    ],
)
def test_the_head_knows_the_number_of_classes_best(
    write: Write, caplog: pytest.LogCaptureFixture, text: str, classes: int, warning: str
) -> None:
    assert load_config(write(text)).model.num_classes == classes
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [warning in line for line in warnings] == [True] * bool(warning)


def test_the_losing_number_of_classes_may_be_wrong_but_not_the_winning_one(problems: Problems) -> None:
    [line] = problems("num_classes: 3\nSOLOv2Head: {num_classes: many}")
    assert line == 'recipe.yml:3: SOLOv2Head.num_classes: expected a whole number, got "many"'


@pytest.mark.parametrize(
    "text",
    [
        "MaskMatrixNMS: {sigma: 1.5, kernel: linear}\nSOLOv2Head: {mask_nms: MaskMatrixNMS}",
        "SOLOv2Head: {mask_nms: {name: MaskMatrixNMS, sigma: 1.5, kernel: linear}}",
        "SOLOv2Head: {mask_nms: {sigma: 1.5, kernel: linear}}",
        "SOLOv2Head: {mask_nms: {name: MaskMatrixNMS, sigma: 1.5}}\nMaskMatrixNMS: {kernel: linear}",
        "MaskMatrixNMS: {kernel: linear, sigma: 9}\nSOLOv2Head: {mask_nms: {name: MaskMatrixNMS, sigma: 1.5}}",
    ],
)
def test_mask_nms_by_name_or_held(write: Write, text: str) -> None:
    decode = load_config(write(text)).decode
    assert (decode.sigma, decode.decay, decode.pre_nms_top_n) == (1.5, "linear", 500)


@pytest.mark.parametrize(
    "text",
    [
        "SOLOv2Loss: {ins_loss_weight: 2.0, focal_loss_alpha: 0.5}\nSOLOv2Head: {solov2_loss: SOLOv2Loss}",
        "SOLOv2Head: {solov2_loss: {name: SOLOv2Loss, ins_loss_weight: 2.0, focal_loss_alpha: 0.5}}",
        "SOLOv2Head: {solov2_loss: {name: SOLOv2Loss, ins_loss_weight: 2.0}}\n"
        "SOLOv2Loss: {focal_loss_alpha: 0.5, ins_loss_weight: 7}",
    ],
)
def test_the_loss_by_name_or_held(write: Write, text: str) -> None:
    assert load_config(write(text)).loss == LossConfig(mask_weight=2.0, focal_alpha=0.5)


def test_a_held_block_that_wins_says_so(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    load_config(write("SOLOv2Head: {mask_nms: {sigma: 1.5}}\nMaskMatrixNMS: {sigma: 9}"))
    assert "SOLOv2Head.mask_nms.sigma: 1.5 holds, and not MaskMatrixNMS.sigma: 9 (" in caplog.text


def test_a_held_block_is_spelled_right(problems: Problems) -> None:
    [line] = problems("SOLOv2Head: {mask_nms: {name: MaskMatrixNMS, sigmo: 1}}")
    assert line == "recipe.yml:2: SOLOv2Head.mask_nms.sigmo: unknown key; did you mean MaskMatrixNMS.sigma?"
