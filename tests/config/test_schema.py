import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from solov2.config import schema, schema_data
from solov2.config.schema import (
    Config,
    CosineSchedule,
    GridHeadConfig,
    ModelConfig,
    OptimConfig,
    PiecewiseSchedule,
    ShuffleNetConfig,
    TransformConfig,
)
from solov2.config.schema_types import Settings


def test_config_survives_json() -> None:
    config = Config(
        name="x",
        model=ModelConfig(num_classes=3, backbone=ShuffleNetConfig()),
        optim=OptimConfig(schedule=CosineSchedule(max_epochs=7), warmup=None),
    )
    text = config.model_dump_json()
    again = Config.model_validate_json(text)
    assert again == config
    assert isinstance(again.model.backbone, ShuffleNetConfig)
    assert again.data.train.reader.transforms[0].args["target_size"] == (800, 1333)
    assert json.loads(text)["optim"]["warmup"] is None


def test_default_warmup_fraction_survives_json_exactly() -> None:
    warmup = Config.model_validate_json(Config().model_dump_json()).optim.warmup
    assert warmup is not None
    assert warmup.start_factor == 1 / 3


def test_a_config_stored_before_a_field_existed_is_read_with_its_default() -> None:
    values = Config().model_dump(mode="json")
    for block, names in {
        "backbone": "norm_eval groups base_width project_first dcn_stages dcn_version",
        "mask_branch": "dcn norm refinements",
        "grid_head": "dcn_stages dcn_version norm separable",
        "fpn": "kind",
    }.items():
        for name in names.split():
            del values["model"][block][name]
    del values["model"]["position"], values["optim"]["uniform"], values["loss"]["top_cells"], values["train"]["freeze"]
    del values["decode"]["least_part"]
    for split in ("train", "eval", "test"):
        del values["data"][split]["reader"]["repeat_area"]
    old = Config.model_validate_json(json.dumps(values))
    assert old == Config()
    backbone, grid_head, mask_branch = old.model.backbone, old.model.grid_head, old.model.mask_branch
    assert backbone.kind == "resnet"
    assert (backbone.norm_eval, backbone.groups, backbone.base_width, backbone.project_first) == (False, 1, 64, True)
    assert (backbone.dcn_stages, grid_head.dcn_stages, mask_branch.dcn) == ((), (), False)
    assert (grid_head.norm, mask_branch.norm, old.optim.uniform) == ("gn", "gn", False)


def test_config_is_frozen_and_refuses_unknown_names() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().name = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        Config.model_validate({"modle": {}})


@pytest.mark.parametrize("module", [schema, schema_data])
def test_every_field_is_described(module: Any) -> None:
    models = [item for item in vars(module).values() if isinstance(item, type) and issubclass(item, BaseModel)]
    assert len(models) > 5
    bare = [
        f"{model.__name__}.{name}"
        for model in models
        if model is not Settings
        for name, info in model.model_fields.items()
        if not info.description
    ]
    assert bare == []


NATIVE = {"grid_sizes": [], "strides": [8, 16, 32, 64, 64]}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model": {"grid_head": {"grid_sizes": [40, 36, 24, 16]}}}, "4 grids, 5 strides and 5 size ranges"),
        ({"model": {"fpn": {"extra_levels": 0}}}, "5 grids need as many pyramid levels, but there are 4"),
        ({"model": {"backbone": {"kind": "resnet", "depth": 34, "base_width": 4}}}, "groups 1 of 4 channels need"),
        ({"model": {"grid_head": {"depth": 2, "dcn_stages": [0, 2, 5]}}}, "convolutions 0 to 1, but 2, 5 is to be"),
        ({"model": {"mask_branch": {"out_channels": 128}}}, "kernels have 256 channels and mask features 128"),
        (
            {"model": {"grid_head": NATIVE, "fpn": {"extra_levels": 0}}},
            "pyramid's own maps, but none has stride 64: the coarsest has 32",
        ),
        (
            {"model": {"grid_head": {**NATIVE, "strides": [8, 16, 32, 64, 128]}, "fpn": {"kind": "ghost_pan"}}},
            "none has stride 128: the coarsest has 64",
        ),
        ({"model": {"grid_head": {"grid_sizes": [], "strides": [8, 16]}}}, "2 grids, 2 strides and 5 size ranges"),
        ({"model": {"grid_head": {"separable": True}}}, "separable towers read .* set num_grids to native"),
        ({"model": {"grid_head": {**NATIVE, "separable": True, "drop_block": True}}}, "neither DropBlock nor"),
        ({"model": {"grid_head": {**NATIVE, "separable": True, "dcn_stages": [0]}}}, "neither DropBlock nor"),
        ({"model": {"grid_head": {**NATIVE, "separable": True, "channels": 512}}}, "as wide as the neck"),
        ({"model": {"grid_head": {**NATIVE, "separable": True, "norm": "bn"}}}, "have batch norm: leave these out"),
        ({"model": {"fpn": {"kind": "ghost_pan", "channels": 97}}}, "97 is odd, use an even number"),
    ],
)
def test_conflicts_are_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Config.model_validate(overrides)


@pytest.mark.parametrize(
    "model",
    [
        {"grid_head": NATIVE},
        {"grid_head": {**NATIVE, "separable": True}, "fpn": {"extra_levels": 1}},
        {"grid_head": NATIVE, "fpn": {"kind": "ghost_pan", "extra_levels": 0, "channels": 96}},
        {"grid_head": {**NATIVE, "strides": [8, 8, 8, 16, 32]}, "fpn": {"extra_levels": 0}},
    ],
)
def test_native_grids_of_strides_that_are_there(model: dict[str, Any]) -> None:
    assert Config.model_validate({"model": model}).model.grid_head.grid_sizes == ()


def test_conflicts_are_reported_together() -> None:
    with pytest.raises(ValidationError, match=r"pyramid levels.*mask features 128"):
        Config.model_validate({"model": {"fpn": {"extra_levels": 0}, "mask_branch": {"out_channels": 128}}})


@pytest.mark.parametrize("strides", [(8, 8, 16, 32, 33), (2,), ()])
def test_strides_come_from_the_pyramid(strides: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError, match="strides"):
        GridHeadConfig(strides=strides)


@pytest.mark.parametrize(
    ("milestones", "factors", "message"),
    [
        ((8, 11), (0.1,), "2 milestones need as many factors, got 1"),
        ((11, 8), (0.1, 0.01), "must rise"),
        ((8, 8), (1, 1), "must rise"),
    ],
)
def test_piecewise_schedule_is_checked(milestones: Any, factors: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PiecewiseSchedule(milestones=milestones, factors=factors)


def test_transform_arguments_are_completed() -> None:
    assert TransformConfig(name="RandomFlip", args={"vertical_prob": 0.25}).args == {"prob": 0.5, "vertical_prob": 0.25}


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("Resize", {"size": (1, 2)}, "Extra inputs"),
        ("Resize", {"target_size": (800, 0)}, "greater than or equal to 1"),
        ("RandomResize", {}, "Field required"),
        ("RandomResize", {"target_size": ()}, "at least 1"),
        ("RandomFlip", {"prob": "0.5"}, "valid number"),
        ("RandomRotate90", {"prob": 1.5}, "less than or equal to 1"),
        ("Mosaic", {}, "RandomRotate90"),
    ],
)
def test_transform_arguments_are_checked(name: Any, args: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TransformConfig(name=name, args=args)
