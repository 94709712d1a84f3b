"""What survives: a process killed at any moment, a batch that is no number, another number of processes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import solov2
from solov2.training.module import SOLOv2Module
from solov2.training.saving import LAST_CHECKPOINT
from solov2.weights.files import read_weights
from tests.shapes_data import make_shapes

FIXTURES = Path(__file__).parents[1] / "fixtures"
TINY, ENHANCE = FIXTURES / "tiny.yml", FIXTURES / "enhance_tiny.yml"
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning", "ignore::FutureWarning:lightning")


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    return make_shapes(tmp_path / "data", 8)


def command(recipe: Path, shapes: Path, folder: Path, *words: str) -> list[str]:
    options = ["--device", "cpu", "--logger", "none", "-o", f"save_dir={folder}", *words]
    return [sys.executable, "-m", "solov2", "train", "-c", str(recipe), "--data", str(shapes), *options]


def metrics(folder: Path) -> list[tuple[str, ...]]:
    """Everything in metrics.csv that is no matter of time or place."""
    with (folder / "metrics.csv").open() as stream:
        names = ("epoch", "step", "learning_rate", "loss", "loss_category", "loss_mask")
        return [tuple(row[name] for name in names) for row in csv.DictReader(stream)]


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_nothing_had_been(shapes: Path, tmp_path: Path) -> None:
    """SIGKILL within the second epoch, with two workers and everything random that the enhance recipe has."""
    options = ["epoch=3", "checkpoint_steps=1"]
    subprocess.run(command(ENHANCE, shapes, tmp_path / "whole", *options), check=True, capture_output=True)

    with subprocess.Popen(command(ENHANCE, shapes, tmp_path / "parts", *options), stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if b"epoch 2/3  step 2/4" in line:
                process.kill()
                break
        process.stderr.read()
    assert process.returncode == -9
    folder = tmp_path / "parts" / "enhance_tiny"
    checkpoint = folder / LAST_CHECKPOINT
    progress = torch.load(checkpoint, weights_only=True)["progress"]
    assert progress["epoch"] == 1
    assert progress["batches"] in (1, 2)  # the kill may have hit while the second one was written
    assert not (folder / "model_final.safetensors").exists()

    words = command(ENHANCE, shapes, tmp_path / "parts", *options)
    subprocess.run([*words, "-r", str(checkpoint)], check=True, capture_output=True)
    whole = tmp_path / "whole" / "enhance_tiny"
    assert len(metrics(whole)) == 12
    assert metrics(folder) == metrics(whole)
    ends = [read_weights(place / "model_final.safetensors").state for place in (whole, folder)]
    for name, tensor in ends[0].items():
        assert torch.equal(tensor, ends[1][name]), name


def test_drop_block_depends_on_the_batch_alone() -> None:
    seeds = set()
    for epoch in range(3):
        for batch in range(50):
            module = SOLOv2Module.__new__(SOLOv2Module)
            torch.nn.Module.__init__(module)
            module.config = solov2.load_config("nano")
            module._trainer = type("Trainer", (), {"current_epoch": epoch, "global_rank": 0})()
            module._fabric = None
            seeds.add(module._seed_of(batch))
    assert len(seeds) == 150
    assert all(0 <= seed < 2**63 for seed in seeds)


def run(recipe: Path, shapes: Path, folder: Path, *overrides: str, **arguments: Any) -> solov2.training.fit.TrainResult:
    options = [f"save_dir={folder}", *overrides]
    return solov2.train(recipe, data=shapes, overrides=options, device="cpu", loggers=(), **arguments)


def with_a_bad_step(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    original = SOLOv2Module.training_step

    def spoilt(self: SOLOv2Module, batch: Any, batch_idx: int) -> Any:
        if self.global_step == at:
            batch.images.fill_(0)
            weight = self.model.get_parameter("backbone.stem.conv.weight").data
            before = weight[0, 0, 0, 0].clone()
            weight[0, 0, 0, 0] = float("nan")
            try:
                return original(self, batch, batch_idx)
            finally:
                weight[0, 0, 0, 0] = before
        return original(self, batch, batch_idx)

    monkeypatch.setattr(SOLOv2Module, "training_step", spoilt)


def test_bad_batches_are_skipped_when_asked(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One batch's loss is no number: counted, named, and nothing of it stays in the statistics."""
    with_a_bad_step(monkeypatch, at=2)
    result = run(TINY, shapes, tmp_path, "epoch=1", "log_iter=1", skip_bad_batches=True)
    told = [record.message for record in caplog.records if "left out" in record.message]
    assert "picture_" in told[0]
    assert "1 batches were left out" in told[1]
    assert result.weights is not None
    assert all(tensor.isfinite().all() for tensor in read_weights(result.weights).state.values())
    assert len(metrics(tmp_path / "tiny")) == 4


def test_bad_batches_stop_the_run_otherwise(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_a_bad_step(monkeypatch, at=2)
    with pytest.raises(solov2.TrainingError, match=r"no longer a number at step 2 .*--skip-bad-batches"):
        run(TINY, shapes, tmp_path, "epoch=1", "checkpoint_steps=1")
    checkpoint = torch.load(tmp_path / "tiny" / LAST_CHECKPOINT, weights_only=True)
    assert checkpoint["global_step"] == 2
    assert all(tensor.isfinite().all() for tensor in checkpoint["state_dict"].values())


def test_resuming_from_weights_alone_starts_at_step_0(
    shapes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = run(TINY, shapes, tmp_path / "first", "epoch=1").weights
    assert first is not None
    caplog.set_level("INFO")
    for resume in (first, first.with_suffix("")):
        second = run(TINY, shapes, tmp_path / "second", "epoch=1", "LearningRate.base_lr=1e-12", resume=resume).weights
        assert second is not None
        assert "holds weights alone: training starts from them at step 0" in caplog.text
        assert metrics(tmp_path / "second" / "tiny")[-1][1] == "4"
        before, after = read_weights(first).state, read_weights(second).state
        name = "grid_head.category_output.weight"
        assert torch.allclose(before[name], after[name], atol=1e-8)


def test_accumulated_gradients_are_those_of_a_larger_step(shapes: Path, tmp_path: Path) -> None:
    """As many steps as there are pairs of batches; the log counts steps, not batches."""
    run(TINY, shapes, tmp_path, "epoch=2", "accumulate=2", "log_iter=1")
    assert [int(row[1]) for row in metrics(tmp_path / "tiny")] == [1, 2, 3, 4]
    assert torch.load(tmp_path / "tiny" / LAST_CHECKPOINT, weights_only=True)["global_step"] == 4


def first_gradients(folder: Path) -> list[Tensor]:
    """A tenth of every parameter's gradient: what AdamW remembers of it after one step."""
    (optimizer,) = torch.load(folder / "tiny" / LAST_CHECKPOINT, weights_only=True)["optimizer_states"]
    assert {int(state["step"]) for state in optimizer["state"].values()} == {1}
    return [state["exp_avg"] for state in optimizer["state"].values()]


@pytest.mark.slow
def test_two_processes_one_of_them_without_objects(tmp_path: Path) -> None:
    """Gloo: no hang, and the gradients of one process that takes the mean over both batches."""
    shapes = make_shapes(tmp_path / "data", 2)
    data = json.loads(shapes.read_text())
    empty = max(image["id"] for image in data["images"])  # unshuffled and one a batch, the second process gets it
    data["annotations"] = [record for record in data["annotations"] if record["image_id"] != empty]
    shapes.write_text(json.dumps(data))
    options = ["epoch=1", "log_iter=1", "TrainReader.batch_size=1", "TrainReader.shuffle=false"]
    options += ["TrainReader.drop_last=false", "TrainDataset.allow_empty=true"]
    words = command(TINY, shapes, tmp_path / "two", *options, "base_devices=2")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *words[1:]]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, "--devices", "2"], capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(metrics(tmp_path / "two" / "tiny")) == 1
    run(TINY, shapes, tmp_path / "one", *options, "base_devices=1", "accumulate=2")
    ours, theirs = first_gradients(tmp_path / "one"), first_gradients(tmp_path / "two")
    assert len(ours) == len(theirs) > 100
    largest = max(float(one.norm()) for one in ours)
    for one, two in zip(ours, theirs, strict=True):  # biases before a batch norm have none but what rounding makes
        assert float((one - two).norm()) < 5e-3 * float(one.norm()) + 1e-7 * largest
