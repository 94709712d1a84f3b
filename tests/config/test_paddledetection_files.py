"""PaddleDetection's tree of recipes, as it is, gives the shipped recipes of the same names."""

import logging
import os
import re
import shutil
from pathlib import Path

import pytest

from solov2.config import Config, load_config
from solov2.config.load import recipe_folder

TREE = Path(__file__).parent / "paddledetection" / "configs"
NAMES = sorted(path.stem for path in (TREE / "solov2").glob("*.yml"))


def without_weights(config: Config) -> Config:
    return config.model_copy(update={"train": config.train.model_copy(update={"weights": None, "run_name": None})})


def test_all_four_are_there() -> None:
    assert NAMES == [
        "solov2_r101_vd_fpn_3x_coco",
        "solov2_r50_enhance_coco",
        "solov2_r50_fpn_1x_coco",
        "solov2_r50_fpn_3x_coco",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_each_file_is_the_shipped_recipe(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "solov2")
    theirs = load_config(TREE / "solov2" / f"{name}.yml")
    lines = [record.getMessage() for record in caplog.records]
    assert theirs.train.weights is not None
    assert without_weights(theirs) == without_weights(load_config(recipe_folder() / f"{name}.yml"))
    [harmless] = lines  # one line, for all that means nothing here
    for key in ("use_gpu", "use_npu", "print_params", "export.fuse_conv_bn", "TrainDataset.data_fields"):
        assert key in harmless


def test_the_enhanced_recipe_names_its_own_weights_here() -> None:
    # PaddleDetection's file names those of another recipe.
    theirs = load_config(TREE / "solov2" / "solov2_r50_enhance_coco.yml")
    assert theirs.train.weights == "output/solov2_r50_fpn_3x_coco/model_final"
    assert load_config("solov2_r50_enhance_coco").train.weights == "output/Solov2/model_final"


@pytest.mark.parametrize("name", NAMES)
def test_tags_and_names_are_the_same(name: str, tmp_path: Path) -> None:
    tree = tmp_path / "configs"
    shutil.copytree(TREE, tree)
    changed = 0
    for path in tree.rglob("*.yml"):
        text = path.read_text()
        named = re.sub(r"^(\s+)!(COCODataSet|ImageFolder)\n\s+", r"\1name: \2\n\1", text, flags=re.MULTILINE)
        named = re.sub(r"^    (?=(dataset_dir|anno_path|image_dir|data_fields):)", "  ", named, flags=re.MULTILINE)
        named = re.sub(r"- !(\w+)\n", r"- name: \1\n", named)
        changed += named != text
        assert not re.search(r"^[^#]*!\w", named, flags=re.MULTILINE)
        path.write_text(named)
    assert changed == 5  # the data, the optimizer, and three recipes with a schedule of their own
    original, renamed = (load_config(folder / "solov2" / f"{name}.yml") for folder in (TREE, tree))
    assert original == renamed


def test_bases_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    shutil.copytree(TREE, home / "PaddleDetection" / "configs")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "mine" / "deep" / "own.yml"
    mine.parent.mkdir(parents=True)
    own = "ResNet:\n  depth: 101\n"
    mine.write_text(f"_BASE_: ['~/PaddleDetection/configs/solov2/solov2_r50_fpn_3x_coco.yml']\n{own}")
    from_home = load_config(mine)
    up = Path(os.path.relpath(home / "PaddleDetection", mine.parent))
    assert str(up).startswith("..")
    mine.write_text(f"_BASE_:\n  - {up}/configs/runtime.yml\n  - {up}/configs/solov2/solov2_r50_fpn_3x_coco.yml\n{own}")
    assert load_config("mine/deep/own.yml") == from_home
    backbone = from_home.model.backbone
    assert backbone.kind == "resnet"
    assert (backbone.depth, from_home.train.epochs, from_home.data.eval.source.image_dir) == (101, 36, "val2017")


def test_overrides_keep_each_other_at_every_depth() -> None:
    # PaddleDetection's own merge of options loses OptimizerBuilder.optimizer.type here.
    overrides = [
        "OptimizerBuilder.optimizer.type=AdamW",
        "OptimizerBuilder.optimizer.weight_decay=0.05",
        "TestReader.inputs_def.image_shape=[3, 640, 640]",
        "TestReader.batch_size=4",
        "SOLOv2Head.mask_nms.name=MaskMatrixNMS",
        "SOLOv2Head.mask_nms.sigma=1.5",
        "SOLOv2Head.mask_nms.kernel=linear",
        "TrainReader.batch_size=1",
        "LearningRate.base_lr=0.005",
    ]
    plain = load_config(TREE / "solov2" / "solov2_r50_fpn_1x_coco.yml")
    config = load_config(TREE / "solov2" / "solov2_r50_fpn_1x_coco.yml", overrides)
    assert (config.optim.kind, config.optim.weight_decay, config.optim.base_lr) == ("adamw", 0.05, 0.005)
    assert (config.decode.sigma, config.decode.decay) == (1.5, "linear")
    assert (config.data.test.reader.batch_size, config.data.train.reader.batch_size) == (4, 1)
    assert config.data.train.reader.transforms == plain.data.train.reader.transforms
    assert config.optim.schedule == plain.optim.schedule
