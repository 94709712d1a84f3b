"""Before the first step: room, writing, checkpoints, batch sizes; and what is said when memory ends."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from solov2 import ConfigError, MissingDependencyError, TrainingError, WeightsError, load_config
from solov2.structures import Category
from solov2.training.checks import (
    check_room,
    check_trainable,
    read_checkpoint,
    tell_learning_rate,
    telling_out_of_memory,
    warn_of_batch_size,
)
from solov2.training.loggers import make_loggers


@pytest.mark.parametrize(
    ("overrides", "advice"),
    [
        ([], None),
        (["TrainReader.batch_size=1"], "LearningRate.base_lr=0.005 instead of 0.01"),
        (["TrainReader.batch_size=4"], "LearningRate.base_lr=0.02 instead of 0.01"),
        (["accumulate=2"], "LearningRate.base_lr=0.02 instead of 0.01"),
        (["TrainReader.batch_size=1", "accumulate=2"], None),
        (["TrainReader.batch_size=1", "LearningRate.base_lr=0.005"], None),
        (["LearningRate.base_lr=0.02"], None),
    ],
)
def test_another_batch_size(overrides: list[str], advice: str | None, caplog: pytest.LogCaptureFixture) -> None:
    recipe = "solov2_r50_fpn_1x_coco"
    stated, config = load_config(recipe), load_config(recipe, overrides)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        warn_of_batch_size(stated, config)
    assert len(caplog.records) == (advice is not None)
    if advice is not None:
        assert advice in caplog.text


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written to .* set save_dir to a folder that can"):
        check_room(tmp_path / "file" / "run", nn.Linear(2, 2), averaged=False)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10 * 2**20))
    check_room(tmp_path / "small", nn.Linear(100, 100), averaged=True)
    with pytest.raises(ConfigError, match="has 10 MB of free disk space, a run needs some"):
        check_room(tmp_path / "large", nn.Linear(1000, 1000), averaged=True)


def checkpoint(path: Path) -> Path:
    config = load_config("nano").model_dump(mode="json")
    metadata = {"config": config, "categories": [{"id": 1, "name": "disc"}]}
    torch.save({"solov2": metadata, "state_dict": {"weight": torch.arange(5000.0)}}, path)
    return path


def test_read_checkpoint(tmp_path: Path) -> None:
    config, classes = load_config("nano"), [Category(1, "disc")]
    path = checkpoint(tmp_path / "last.ckpt")
    found = read_checkpoint(path, config, classes)
    assert found is not None
    assert found["state_dict"]["weight"][-1] == 4999
    with pytest.raises(WeightsError, match="trained on other classes"):
        read_checkpoint(path, config, [Category(2, "disc")])
    with pytest.raises(WeightsError, match="of another network"):
        read_checkpoint(path, load_config("solov2_r50_fpn_1x_coco"), classes)
    assert read_checkpoint(path.with_suffix(""), config, classes) is None  # found.ckpt is for -m and -w: say it whole
    with pytest.raises(WeightsError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "nothing.ckpt", config, classes)


@pytest.mark.parametrize("damage", ["a flipped bit", "cut short", "empty"])
def test_a_damaged_checkpoint_is_found_out(tmp_path: Path, damage: str) -> None:
    path = checkpoint(tmp_path / "last.ckpt")
    data = bytearray(path.read_bytes())
    if damage == "a flipped bit":
        data[len(data) // 2] ^= 1  # in the middle of the numbers, where nothing but a checksum can tell
    path.write_bytes(data[: {"a flipped bit": len(data), "cut short": len(data) // 2, "empty": 0}[damage]])
    with pytest.raises(WeightsError, match="not a checkpoint to resume from") as caught:
        read_checkpoint(path, load_config("nano"), [Category(1, "disc")])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "advice"),
    [
        ([], ["train with --amp", "TrainReader.batch_size=1 LearningRate.base_lr=0.005"]),
        (["amp=true", "TrainReader.batch_size=1"], ["lower the sizes in TrainReader"]),
    ],
)
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: not enough memory: you tried\nmore"),
    ],
)
def test_out_of_memory(error: Exception, overrides: list[str], advice: list[str]) -> None:
    config = load_config("solov2_r50_fpn_1x_coco", overrides)
    with pytest.raises(TrainingError, match=r"^out of memory") as caught, telling_out_of_memory(config):
        raise error
    assert all(text in str(caught.value) for text in advice)
    assert "\n" not in str(caught.value)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shape"), telling_out_of_memory(load_config("nano")):
        raise RuntimeError("shape mismatch")


def test_loggers(tmp_path: Path) -> None:
    assert make_loggers([], tmp_path) == []
    (csv,) = make_loggers(["csv"], tmp_path)
    assert Path(csv.save_dir) == tmp_path
    with pytest.raises(ConfigError, match="there is no logger 'paper'; expected one of tensorboard, csv"):
        make_loggers(["paper"], tmp_path)
    with pytest.raises(MissingDependencyError, match="pip install wandb"):
        make_loggers(["wandb"], tmp_path)


@pytest.mark.parametrize(
    ("devices", "overrides", "told"),
    [
        (1, [], "base_lr 0.01 is for 8 devices: 0.00125 on 1; -o base_devices=1 would keep it"),
        (16, ["LearningRate.base_lr=0.02"], "base_lr 0.02 is for 8 devices: 0.04 on 16"),
        (8, [], None),
        (1, ["base_devices=1"], None),
    ],
)
def test_the_learning_rate_of_the_run(
    devices: int, overrides: list[str], told: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    config = load_config("solov2_r50_fpn_1x_coco", overrides)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        tell_learning_rate(config, devices)
    assert len(caplog.records) == (told is not None)
    assert told is None or told in caplog.text


def test_nothing_left_to_train() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[0].requires_grad_(False)
    check_trainable(network)
    network.requires_grad_(False)
    with pytest.raises(ConfigError, match="freeze: every part of the network is frozen"):
        check_trainable(network)
