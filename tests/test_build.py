from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from solov2 import Category, Config, ConfigError, DatasetError, build_model, load_config
from solov2.build import build_dataset, build_loss, build_optimizer, build_split_transforms, decode_options, source_paths
from solov2.data.transforms import RandomFlip, RandomResize, RandomRotate90, Resize
from solov2.model.resnet import ResNet
from solov2.model.shufflenet import ShuffleNetV2

Write = Callable[..., Path]


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


@pytest.mark.parametrize("classes", [1, 80])
def test_model_of_the_small_recipe(classes: int) -> None:
    config = changed(model={"num_classes": classes})
    model = build_model(config)
    assert isinstance(model.backbone, ShuffleNetV2)
    assert model.training
    with torch.no_grad():
        found = model.eval()(torch.zeros(1, 3, 64, 96))
    head = config.model.grid_head
    assert [tuple(logits.shape) for logits in found.category_logits] == [(1, classes, s, s) for s in head.grid_sizes]
    assert [kernels.shape[1] for kernels in found.kernels] == [head.kernel_channels] * len(head.grid_sizes)
    assert found.mask_features.shape == (1, head.kernel_channels, 16, 24)
    assert found.strides == head.strides


def test_backbone_of_the_large_recipe() -> None:
    with torch.device("meta"):  # shapes without numbers
        model = build_model(load_config("solov2_r50_fpn_1x_coco"))
    assert isinstance(model.backbone, ResNet)
    assert sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) > 4e7


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


def test_transforms_of_the_shipped_recipe() -> None:
    data = load_config("solov2_nano_nuclei").data
    assert build_split_transforms(data.train) == (
        RandomResize(((320, 640), (384, 640), (448, 640), (512, 640))),
        RandomFlip(0.5, 0.5),
        RandomRotate90(0.5),
    )
    assert build_split_transforms(data.eval) == (Resize((512, 1024), min_scale=1.0),)
    assert build_split_transforms(data.test) == build_split_transforms(data.eval)  # predicts as it was measured


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
def test_source_paths(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], json_path: str, folder: str
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    config = changed(data={"train": {"source": settings}})
    assert source_paths(config.data.train) == (Path(json_path), Path(folder))


@pytest.mark.parametrize(
    ("kind", "expected"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD), ("momentum", torch.optim.SGD)]
)
def test_optimizer(kind: str, expected: type) -> None:
    recipes = {"adamw": "nano", "momentum": "solov2_r50_fpn_1x_coco"}
    if kind not in recipes:
        with pytest.raises(ValueError, match="kind"):
            changed(optim={"kind": kind})
        return
    config = load_config(recipes[kind])
    layer = torch.nn.Conv2d(1, 1, 1)
    optimizer = build_optimizer(config, layer, lr_scale=0.5)
    assert isinstance(optimizer, expected)
    assert {group["lr"] for group in optimizer.param_groups} == {config.optim.base_lr * 0.5}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2


def test_loss_has_the_recipes_weights() -> None:
    config = changed(loss={"mask_weight": 5.0})
    assert build_loss(config).mask_weight == 5.0
