from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from solov2 import Category, Config, ConfigError, DatasetError, build_model, load_config
from solov2.build import (
    build_dataset,
    build_loss,
    build_optimizer,
    build_split_transforms,
    decode_options,
    load_source,
    source_files,
    source_paths,
)
from solov2.config import shipped_recipes
from solov2.data.transforms import RandomFlip, RandomResize, RandomRotate90, Resize
from solov2.model.deform import DeformConv2d
from solov2.model.layers import EvalBatchNorm2d, FrozenBatchNorm2d, SharedBatchNorm2d
from solov2.model.resnet import ResNet
from solov2.model.shufflenet import ShuffleNetV2
from solov2.structures import Targets

Write = Callable[..., Path]

SQUARE_GRIDS = Path(__file__).parent / "fixtures" / "square_grids.yml"
NATIVE_TARGETS = (
    "TrainReader.batch_transforms=[{PadBatch: {pad_to_stride: 32}}, {Gt2Solov2Target: {num_grids: native}}]"
)


def changed(recipe: str = "nano", **sections: dict[str, Any]) -> Config:
    """A shipped recipe with some settings changed, section by section."""

    def merge(into: dict[str, Any], changes: dict[str, Any]) -> None:
        for key, value in changes.items():
            if isinstance(value, dict) and isinstance(into.get(key), dict):
                merge(into[key], value)
            else:
                into[key] = value

    values = load_config(recipe).model_dump(mode="json")
    merge(values, sections)
    return Config.model_validate(values)


def test_model_of_the_small_recipe() -> None:
    config = changed(model={"num_classes": 3})
    model = build_model(config)
    assert isinstance(model.backbone, ShuffleNetV2)
    assert model.training
    with torch.no_grad():
        found = model.eval()(torch.zeros(1, 3, 32, 64))
    assert [tuple(logits.shape[1:]) for logits in found.category_logits] == [(3, 4, 8), (3, 2, 4), (3, 1, 2), (3, 1, 1)]
    assert [tuple(kernels.shape[1:]) for kernels in found.kernels] == [(69, 4, 8), (69, 2, 4), (69, 1, 2), (69, 1, 1)]
    assert found.mask_features.shape == (1, 69, 8, 16)  # 64 and those of the ellipse
    assert found.strides == config.model.grid_head.strides == (8, 16, 32, 64)


def test_model_with_square_grids() -> None:
    config = load_config(SQUARE_GRIDS)
    model, head = build_model(config), config.model.grid_head
    with torch.no_grad():
        found = model.eval()(torch.zeros(1, 3, 32, 64))
    assert [tuple(logits.shape) for logits in found.category_logits] == [(1, 80, s, s) for s in head.grid_sizes]
    assert [kernels.shape[1] for kernels in found.kernels] == [head.kernel_channels] * len(head.grid_sizes)
    assert found.mask_features.shape == (1, head.kernel_channels, 8, 16)
    assert found.strides == head.strides


def test_native_grids_of_a_published_network() -> None:
    """Neck, grids, towers and position are chosen apart from each other."""
    native = ["SOLOv2Head.num_grids=native", "SOLOv2Head.segm_strides=[8, 16, 32, 64, 64]", "ResNet.depth=18"]
    config = load_config("solov2_r50_fpn_1x_coco", [*native, NATIVE_TARGETS, "SOLOv2.position=relative"])
    with torch.device("meta"):
        found = build_model(config).eval()(torch.zeros(1, 3, 64, 96))
    assert [tuple(kernels.shape) for kernels in found.kernels[:3]] == [(1, 261, 8, 12), (1, 261, 4, 6), (1, 261, 2, 3)]


def two_pictures() -> tuple[torch.Tensor, list[Targets]]:
    """Two noise pictures 64 by 96 with one square each, of the first and of the second class."""
    masks, boxes = torch.zeros((1, 16, 24), dtype=torch.uint8), torch.tensor([[8, 8, 40, 40]], dtype=torch.float64)
    masks[:, 2:10, 2:10] = 1
    center = torch.tensor([[23.5, 23.5]], dtype=torch.float64)
    images = torch.randn((2, 3, 64, 96), generator=torch.Generator().manual_seed(0))
    return images, [Targets(torch.tensor([label]), boxes, center, masks) for label in (0, 1)]


@pytest.mark.parametrize("recipe", ["nano", "solov2_nano_coco", "solov2_nano_nuclei"])
def test_a_training_step_reaches_all_but_the_frozen_parts(recipe: str) -> None:
    torch.manual_seed(0)
    config = changed(recipe, model={"num_classes": 2})
    model, frozen = build_model(config), tuple(f"{name}." for name in config.train.freeze)
    assert bool(frozen) == (recipe != "nano")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images, targets = two_pictures()
    optimizer = build_optimizer(config, model, lr_scale=1.0)
    sum(build_loss(config)(model.train()(images), targets).values()).backward()  # type: ignore[union-attr]
    optimizer.step()
    names = dict(model.named_parameters())
    assert {name for name, p in names.items() if not p.requires_grad} == {n for n in names if _among(n, frozen)}
    assert {name for name, p in names.items() if p.grad is None} == {n for n in names if _among(n, frozen)}
    after = model.state_dict()
    assert list(after) == list(before)
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    for name, tensor in after.items():
        if _among(name, frozen):
            assert torch.equal(tensor, before[name]), name
        elif name.endswith(statistics):
            assert not torch.equal(tensor, before[name]), name


def _among(name: str, parts: tuple[str, ...]) -> bool:
    return bool(parts) and name.startswith(parts)


def test_a_frozen_part_that_is_not_there() -> None:
    with pytest.raises(ConfigError) as error:
        build_model(load_config("nano", ["freeze=[backbone, fpn.laterals]"]))
    message = str(error.value)
    assert message.startswith("freeze: the network has no such part (")
    assert "laterals" in message
    for part in ("backbone", "fpn.top_down", "mask_branch", "grid_head.kernel_output"):
        assert f"{part}, " in f"{message}, "
    assert "\n" not in message


def built(*overrides: str) -> Any:
    """The enhance recipe's network with some settings changed; shapes only."""
    with torch.device("meta"):
        return build_model(load_config("solov2_r50_enhance_coco", overrides))


@pytest.mark.parametrize(
    ("overrides", "kind"),
    [
        (["ResNet.freeze_norm=true"], FrozenBatchNorm2d),
        (["ResNet.norm_eval=true", "ResNet.norm_type=bn"], EvalBatchNorm2d),
        (["ResNet.norm_type=bn"], nn.BatchNorm2d),
        ([], SharedBatchNorm2d),
    ],
)
def test_norms_of_the_backbone(overrides: list[str], kind: type[nn.Module]) -> None:
    norms = [module for module in built(*overrides).backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {type(norm) for norm in norms} == {kind}
    assert {norm.training for norm in norms} == {kind in (nn.BatchNorm2d, SharedBatchNorm2d)}


@pytest.mark.parametrize(
    ("name", "kind"), [("gn", nn.GroupNorm), ("bn", nn.BatchNorm2d), ("sync_bn", SharedBatchNorm2d)]
)
@pytest.mark.parametrize(("block", "part"), [("SOLOv2Head", "grid_head"), ("SOLOv2MaskHead", "mask_branch")])
def test_norms_of_the_heads(block: str, part: str, name: str, kind: type[nn.Module]) -> None:
    model = built(f"{block}.norm_type={name}")
    for head in ("grid_head", "mask_branch"):
        norms = {type(m) for m in model.get_submodule(head).modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)}
        assert norms == {kind if head == part else nn.GroupNorm}


def test_deformable_convolutions_of_a_recipe() -> None:
    model = built("ResNet.dcn_v2_stages=[3]", "ResNet.dcn_version=1", "SOLOv2Head.dcn_v2_stages=[1]")
    found = {name: module.modulated for name, module in model.named_modules() if isinstance(module, DeformConv2d)}
    backbone = {f"backbone.stages.3.{block}.conv2.conv" for block in range(3)}
    towers = {f"grid_head.{tower}_tower.1.conv" for tower in ("kernel", "category")}
    mask_branch = {name for name in found if name.startswith("mask_branch.")}
    assert found.keys() == backbone | towers | mask_branch
    assert len(mask_branch) == 1 + 1 + 2 + 3 + 1
    assert {name for name, modulated in found.items() if not modulated} == backbone
    without = built("SOLOv2MaskHead.use_dcn_in_tower=false", "SOLOv2Head.dcn_version=1")
    found = {name: module.modulated for name, module in without.named_modules() if isinstance(module, DeformConv2d)}
    assert {name for name, modulated in found.items() if not modulated} == {
        f"grid_head.{tower}_tower.2.conv" for tower in ("kernel", "category")
    }
    assert not any(name.startswith("mask_branch.") for name in found)


def test_backbones_of_a_recipe() -> None:
    backbone = built("ResNet.groups=32", "ResNet.base_width=8", "ResNet.variant=a", "ResNet.freeze_at=1").backbone
    assert isinstance(backbone, ResNet)
    first = backbone.get_submodule("stages.1.0")
    assert tuple(first.get_parameter("conv2.conv.weight").shape) == (512, 512 // 32, 3, 3)
    assert first.get_submodule("conv1.conv").stride == (2, 2)
    frozen = {name.split(".")[1] for name, p in backbone.stages.named_parameters(prefix="s") if not p.requires_grad}
    assert frozen == {"0", "1"}
    for name, projects in (("true", True), ("false", False)):
        small = built("ResNet.depth=18", f"ResNet.project_first={name}").backbone
        assert isinstance(small.get_submodule("stages.0.0.shortcut"), nn.Identity) != projects


def test_decode_options_are_those_of_the_recipe() -> None:
    options = decode_options(changed(decode={"score_threshold": 0.3, "post_nms_top_n": 7}))
    assert set(options) == {
        "score_threshold",
        "mask_threshold",
        "pre_nms_top_n",
        "post_nms_top_n",
        "update_threshold",
        "decay",
        "sigma",
    }
    assert (options["score_threshold"], options["post_nms_top_n"]) == (0.3, 7)


def test_transforms_of_a_reader() -> None:
    steps = [
        {"name": "RandomResize", "args": {"target_size": [[320, 640], [384, 640]]}},
        {"name": "RandomFlip", "args": {"vertical_prob": 0.25}},
        {"name": "RandomRotate90"},
        {"name": "Resize", "args": {"target_size": [512, 1024], "min_scale": 1.0}},
    ]
    data = changed(data={"train": {"reader": {"transforms": steps}}}).data
    assert build_split_transforms(data.train) == (
        RandomResize(((320, 640), (384, 640))),
        RandomFlip(0.5, 0.25),
        RandomRotate90(0.5),
        Resize((512, 1024), min_scale=1.0),
    )


@pytest.mark.parametrize("recipe", shipped_recipes())
def test_shipped_recipes_predict_as_they_are_measured(recipe: str) -> None:
    data = load_config(recipe).data
    assert build_split_transforms(data.test) == build_split_transforms(data.eval)


def source(json_path: Path, **more: Any) -> dict[str, Any]:
    return {"dataset_dir": "", "anno_path": str(json_path), "image_dir": str(json_path.parent), **more}


def coco(write_coco: Write) -> Path:
    square = [4, 4, 20, 4, 20, 20, 4, 20]
    images = [{"id": n, "file_name": f"{n}.png", "height": 24, "width": 32} for n in (1, 2, 3)]
    records = [{"id": 1, "image_id": 2, "category_id": 42, "segmentation": [square], "bbox": [4, 4, 16, 16]}]
    return write_coco(images, records)


@pytest.mark.parametrize(
    ("training", "allow_empty", "limit", "expected"),
    [(True, False, -1, 1), (True, True, -1, 3), (False, False, -1, 3), (False, False, 2, 2)],
)
def test_data_set(write_coco: Write, training: bool, allow_empty: bool, limit: int, expected: int) -> None:
    settings = {"source": source(coco(write_coco), allow_empty=allow_empty, sample_num=limit)}
    config = changed(data={"train": settings, "eval": settings})
    split = config.data.train if training else config.data.eval
    dataset = build_dataset(config, split, training=training, strict=True)
    assert len(dataset) == expected
    assert dataset.categories == (Category(7, "disc"), Category(42, "bar"))
    if training:
        sample = dataset[0, 0 if expected == 1 else 1]
        assert sample.labels.tolist() == [1]
        assert min(sample.hw) >= 352  # the recipe's transforms are applied


def test_pictures_are_repeated_in_training_alone(write_coco: Write) -> None:
    settings = {"source": source(coco(write_coco)), "reader": {"repeat_area": 192}}  # of 24 by 32 pixels
    config = changed(data={"train": settings, "eval": settings})
    assert len(build_dataset(config, config.data.train, training=True, strict=True)) == 4
    assert len(build_dataset(config, config.data.eval, training=False, strict=True)) == 3


def test_data_set_with_other_classes(write_coco: Write) -> None:
    config = changed(data={"eval": {"source": source(coco(write_coco))}})
    with pytest.raises(DatasetError, match=r"category 7 \('disc'\) is none of the model's 1 classes"):
        build_dataset(config, config.data.eval, categories=[Category(1, "x")], training=False, strict=False)


def test_a_recipe_without_data() -> None:
    config = changed(data={"train": {"source": {"anno_path": None}}})
    with pytest.raises(ConfigError, match=r"names no annotation file \(anno_path\).*use --data"):
        source_paths(config.data.train)


@pytest.mark.parametrize(
    ("settings", "json_path", "folder"),
    [
        ({"dataset_dir": "d", "anno_path": "a/b.json", "image_dir": "i"}, "d/a/b.json", "d/i"),
        ({"dataset_dir": "d", "anno_path": "/x/b.json", "image_dir": "/y"}, "/x/b.json", "/y"),
        ({"dataset_dir": "~/d", "anno_path": "b.json", "image_dir": ""}, "/home/me/d/b.json", "/home/me/d"),
    ],
)
def test_source_paths(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], json_path: str, folder: str) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    config = changed(data={"train": {"source": settings}})
    assert source_paths(config.data.train) == (Path(json_path), Path(folder))


@pytest.mark.parametrize(
    ("image_dir", "folders"), [("i", ["d/i", "d/i"]), (["i", "/y"], ["d/i", "/y"]), ("", ["d", "d"])]
)
def test_source_files(image_dir: Any, folders: list[str]) -> None:
    settings = {"dataset_dir": "d", "anno_path": ["a.json", "/x/b.json"], "image_dir": image_dir}
    split = changed(data={"train": {"source": settings}}).data.train
    expected = list(zip([Path("d/a.json"), Path("/x/b.json")], map(Path, folders), strict=True))
    assert source_files(split) == expected
    assert source_paths(split) == expected[0]


def test_a_data_set_of_two_files(write_coco: Write) -> None:
    first = coco(write_coco)
    square = [4, 4, 20, 4, 20, 20, 4, 20]
    record = {"id": 1, "image_id": 9, "category_id": 7, "segmentation": [square], "bbox": [4, 4, 16, 16]}
    image = {"id": 9, "file_name": "9.png", "height": 24, "width": 32, "labelled_categories": "disc"}
    second = write_coco([image], [record], name="second.json")
    settings = {"source": source(first, anno_path=[str(first), str(second)])}
    config = changed(data={"train": settings, "eval": settings})
    dataset = build_dataset(config, config.data.train, training=True, strict=True)
    assert [dataset[0, index].labels.tolist() for index in range(2)] == [[1], [0]]
    known = dataset[0, 1].known
    assert known is not None
    assert known.tolist() == [True, False]
    truth = build_dataset(config, config.data.eval, training=False, strict=True).ground_truth()
    assert [image["id"] for image in truth["images"]] == [1, 2, 3, 9]
    assert sorted(annotation["id"] for annotation in truth["annotations"]) == [1, 2]
    assert load_source(config.data.train, pictures=False).known == {9: {7}}


class _Parts(torch.nn.Module):
    """As much of a model as the optimizer asks about."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = torch.nn.Module()
        self.backbone.stages = torch.nn.ModuleList([torch.nn.Conv2d(1, 1, 1)])
        self.head = torch.nn.Conv2d(1, 1, 1)


@pytest.mark.parametrize(
    ("recipe", "expected"), [("nano", torch.optim.AdamW), ("solov2_r50_fpn_1x_coco", torch.optim.SGD)]
)
def test_optimizer(recipe: str, expected: type) -> None:
    config = load_config(recipe)
    optimizer = build_optimizer(config, _Parts(), lr_scale=0.5)
    assert type(optimizer) is expected
    assert {group["lr"] for group in optimizer.param_groups} == {config.optim.base_lr * 0.5}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4


@pytest.mark.parametrize(
    ("uniform", "settings"), [("false", {(0.01, 1e-4), (0.01, 0.0), (0.02, 0.0)}), ("true", {(0.01, 1e-4)})]
)
def test_uniform_optimizers(uniform: str, settings: set[tuple[float, float]]) -> None:
    overrides = ["ResNet.lr_mult_list=[1, 1, 1, 1]", f"OptimizerBuilder.uniform={uniform}"]
    optimizer = build_optimizer(load_config("solov2_r50_enhance_coco", overrides), built(*overrides), lr_scale=1.0)
    assert {(group["lr"], group["weight_decay"]) for group in optimizer.param_groups} == settings


def test_loss_has_the_recipes_weights() -> None:
    config = changed(loss={"mask_weight": 5.0, "top_cells": 4})
    assert build_loss(config).mask_weight == 5.0
    assert build_loss(config).top_cells == 4
