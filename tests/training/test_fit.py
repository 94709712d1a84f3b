"""Training from end to end, on a data set that is made here."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import solov2
from solov2.cli import main
from solov2.model.layers import SharedBatchNorm2d
from solov2.predict import Predictor
from solov2.training.placement import share_statistics
from solov2.weights.files import read_weights
from tests.shapes_data import make_shapes

TINY = str(Path(__file__).parents[1] / "fixtures" / "tiny.yml")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning", "ignore::FutureWarning:lightning")


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    return make_shapes(tmp_path / "data", 6)


def run(shapes: Path, folder: Path, *overrides: str, **arguments: Any) -> Any:
    options = [f"save_dir={folder}", *overrides]
    return solov2.train(TINY, data=shapes, overrides=options, device="cpu", loggers=(), **arguments)


def losses(folder: Path) -> list[tuple[int, float]]:
    with (folder / "tiny" / "metrics.csv").open() as stream:
        return [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(stream) if row["loss"]]


@pytest.mark.slow
def test_over_fits_two_pictures_and_predicts_the_same_after_loading(tmp_path: Path) -> None:
    shapes = make_shapes(tmp_path / "data", 2, seed=3)
    result = run(
        shapes,
        tmp_path,
        "epoch=60",
        "LearningRate.schedulers=[{name: CosineDecay, max_epochs: 60}, {name: LinearWarmup, steps: 10}]",
        "snapshot_epoch=60",
        val=shapes,
    )

    assert result.ap is not None
    assert result.ap.ap50 > 0.95
    assert result.ap.ap > 0.6
    weights = read_weights(result.weights)
    assert [(c.id, c.name) for c in weights.categories] == [(42, "box"), (7, "disc")]

    truth = json.loads(shapes.read_text())
    predictor = solov2.load(result.weights, device="cpu")
    again = solov2.load(tmp_path / "tiny" / "last.ckpt", device="cpu")
    for record in truth["images"]:
        path = shapes.parent / record["file_name"]
        found = predictor.predict(path, threshold=0.3)
        assert sorted(found.category_ids) == [7, 42]
        assert sorted(found.class_names) == ["box", "disc"]
        for annotation in (a for a in truth["annotations"] if a["image_id"] == record["id"]):
            x, y, width, height = annotation["bbox"]
            (box,) = found.boxes[found.category_ids == annotation["category_id"]]
            assert np.abs(box - [x, y, x + width, y + height]).max() <= 6
        same = again.predict(path, threshold=0.3)
        assert (same.masks == found.masks).all()
        assert (same.scores == found.scores).all()


def test_a_run_leaves_weights_checkpoint_and_metrics(shapes: Path, tmp_path: Path) -> None:
    result = run(shapes, tmp_path, "epoch=2", "use_ema=true", val=shapes)

    folder = tmp_path / "tiny"
    assert result.folder == folder
    assert result.weights == folder / "best_model.safetensors"
    assert {path.name for path in folder.iterdir()} == {
        "best_model.safetensors",
        "last.ckpt",
        "metrics.csv",
        "model_final.safetensors",
        "validation",
    }
    with (folder / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["step"] for row in rows if row["loss"]] == ["2", "3", "4", "6"]
    assert [row["epoch"] for row in rows if row["ap"]] == ["1", "2"]
    with safe_open(folder / "model_final.safetensors", "pt") as stream:
        assert json.loads(stream.metadata()["solov2"])["config"]["model"]["num_classes"] == 2


def test_average_weights_are_what_is_saved(shapes: Path, tmp_path: Path) -> None:
    run(shapes, tmp_path, "epoch=1", "use_ema=true")

    checkpoint = torch.load(tmp_path / "tiny" / "last.ckpt", weights_only=True)
    saved = read_weights(tmp_path / "tiny" / "model_final.safetensors").state
    name = "grid_head.kernel_output.weight"
    assert torch.equal(saved[name], checkpoint["ema"]["weights"][name])
    assert not torch.equal(saved[name], checkpoint["state_dict"][f"model.{name}"])


def test_resumed_losses_equal_the_uninterrupted_run(shapes: Path, tmp_path: Path) -> None:
    run(shapes, tmp_path / "whole", "use_ema=true", "log_iter=1")

    run_until(shapes, tmp_path / "parts", 5)
    checkpoint = tmp_path / "parts" / "tiny" / "last.ckpt"
    progress = torch.load(checkpoint, weights_only=True)["progress"]
    assert progress == {"epoch": 1, "batches": 2}
    run(shapes, tmp_path / "parts", "use_ema=true", "log_iter=1", resume=checkpoint)

    whole, parts = losses(tmp_path / "whole"), losses(tmp_path / "parts")
    assert parts == whole
    ends = [read_weights(tmp_path / part / "tiny" / "model_final.safetensors").state for part in ("whole", "parts")]
    for name, tensor in ends[0].items():
        assert torch.equal(tensor, ends[1][name]), name


def run_until(shapes: Path, folder: Path, steps: int) -> None:
    """Trains and sends this process what Ctrl-C sends, at a given step."""
    from solov2.training.module import SOLOv2Module

    original = SOLOv2Module.training_step

    def counting(self: Any, *arguments: Any) -> Any:
        if self.global_step == steps - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SOLOv2Module, "training_step", counting)
        result = run(shapes, folder, "use_ema=true", "log_iter=1")
    assert result.stopped
    assert result.weights is None


def interrupted(shapes: Path, folder: Path, at: int, *overrides: str) -> Any:
    """Trains with an evaluation after every epoch; Ctrl-C comes during its picture number ``at``, from 1 over all."""
    original, seen = Predictor.run, 0

    def counting(self: Predictor, *arguments: Any) -> Any:
        nonlocal seen
        seen += 1
        assert seen <= at  # the evaluation goes on no further
        if seen == at:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Predictor, "run", counting)
        return run(shapes, folder, "log_iter=1", *overrides, val=shapes)


@pytest.mark.slow
def test_control_c_during_an_evaluation(shapes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It ends there; the epoch before it is in the checkpoint, and nothing of it is lost."""
    run(shapes, tmp_path / "whole", "log_iter=1")
    with caplog.at_level("INFO"):
        result = interrupted(shapes, tmp_path / "parts", 8)  # six pictures: the second of the second evaluation
    assert result.stopped
    assert "the evaluation of epoch 2 was stopped" in caplog.text
    folder = tmp_path / "parts" / "tiny"
    assert not (folder / "model_final.safetensors").exists()
    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    assert checkpoint["progress"] == {"epoch": 1, "batches": 3}
    run(shapes, tmp_path / "parts", "log_iter=1", resume=folder / "last.ckpt")
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_control_c_during_the_last_evaluation_finishes_the_run(shapes: Path, tmp_path: Path) -> None:
    result = interrupted(shapes, tmp_path, 2, "epoch=1")
    assert not result.stopped
    assert result.ap is None
    assert result.weights == tmp_path / "tiny" / "model_final.safetensors"


@pytest.mark.slow
def test_control_c_leaves_a_checkpoint_to_go_on_from(shapes: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "solov2", "train", "-c", TINY, "--data", str(shapes), "--device", "cpu"]
    options = ["-o", f"save_dir={tmp_path}", "log_iter=1"]
    with subprocess.Popen([*command, *options, "epoch=500"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "epoch 2/500" in line:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()

    assert process.returncode == 130
    assert "Traceback" not in rest
    checkpoint = tmp_path / "tiny" / "last.ckpt"
    assert f"-r {checkpoint}" in rest
    done = torch.load(checkpoint, weights_only=True)["global_step"]
    result = subprocess.run(
        [*command, *options, "epoch=3", "-r", str(checkpoint)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "epoch 3/3" in result.stderr
    assert done < 9 <= torch.load(checkpoint, weights_only=True)["global_step"]


def test_two_classes_of_ones_own_in_one_line(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", "-c", TINY, "--data", str(shapes), "--val", str(shapes), "--images", str(shapes.parent)]
    assert main([*words, "--device", "cpu", "-o", "epoch=1"]) == 0

    with Image.open(tmp_path / "output" / "tiny" / "validation" / "epoch_001.jpg") as sheet:
        assert sheet.width > 3 * 400  # six pictures twice, in rows of four
    weights = tmp_path / "output" / "tiny" / "best_model.safetensors"
    words = ["eval", "-w", str(weights), "--data", str(shapes), "--json", "found.json", "--matching", "--classwise"]
    assert main([*words, "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "mask AP with maxDets 100 (the most instances per picture)" in printed
    assert "TP/(TP+FP+FN)" in printed
    assert "disc" in printed
    records = json.loads(Path("found.json").read_text())
    assert {record["category_id"] for record in records} <= {7, 42}


def test_weights_of_other_classes_give_all_but_the_category_layer(
    shapes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = run(shapes, tmp_path / "first", "epoch=1").weights
    data = json.loads(shapes.read_text())
    data["categories"].append({"id": 50, "name": "star"})
    more = shapes.with_name("more.json")
    more.write_text(json.dumps(data))

    with caplog.at_level("INFO"):
        second = run(more, tmp_path / "second", "epoch=1", "LearningRate.base_lr=1e-12", f"pretrain_weights={first}")
    assert "the category layer starts anew" in caplog.text
    before, after = read_weights(first).state, read_weights(second.weights).state
    assert after["grid_head.category_output.weight"].shape[0] == 3
    assert torch.allclose(before["grid_head.kernel_output.weight"], after["grid_head.kernel_output.weight"], atol=1e-6)


def test_trains_in_bfloat16_on_a_cpu(shapes: Path, tmp_path: Path) -> None:
    run(shapes, tmp_path, "epoch=2", "amp=true", "log_iter=1")
    values = [value for _, value in losses(tmp_path)]
    assert np.isfinite(values).all()
    assert values[-1] < values[0]


SMALL_NATIVE = (
    "SOLOv2.neck=GhostPAN",
    "SOLOv2.position=relative",
    "GhostPAN.out_channel=32",
    "SOLOv2Head.separable=true",
    "SOLOv2Head.seg_feat_channels=256",
    "SOLOv2Head.num_grids=native",
    "SOLOv2Head.segm_strides=[8, 64]",
    "SOLOv2Loss.top_cells=2",
    "TrainReader.batch_transforms=[{PadBatch: {pad_to_stride: 32}}, {Gt2Solov2Target: {num_grids: native, "
    "scale_ranges: [[1, 40], [20, 2048]]}}]",
)
"""The nano recipe's own network, as small as the tiny one; pictures of 96 pixels are no multiple of its stride 64."""


def test_trains_with_native_grids_and_frozen_parts(shapes: Path, tmp_path: Path) -> None:
    frozen = ("backbone", "fpn.reduce")
    result = run(shapes, tmp_path, *SMALL_NATIVE, "epoch=3", "amp=true", "log_iter=1", f"freeze=[{', '.join(frozen)}]")
    values = [value for _, value in losses(tmp_path)]
    assert np.isfinite(values).all()
    assert values[-1] < values[0]

    predictor = solov2.load(result.weights, device="cpu")
    assert predictor.config.model.position == "relative"
    assert predictor.config.train.freeze == frozen
    assert predictor.predict(np.zeros((50, 70, 3), np.uint8)).original_hw == (50, 70)
    state = torch.load(tmp_path / "tiny" / "last.ckpt", weights_only=True)["state_dict"]
    learned = {name for name, tensor in state.items() if name.endswith("norm.weight") and not tensor.eq(1).all()}
    followed = {name for name, tensor in state.items() if name.endswith("running_mean") and tensor.any()}
    norms = {name.removesuffix(".running_mean") for name in state if name.endswith(".running_mean")}
    for found in (learned, followed):
        parts = {name.rpartition(".")[0] for name in found} & norms
        assert parts == {name for name in norms if not name.startswith(tuple(f"model.{part}." for part in frozen))}


def test_a_loss_that_is_no_number_names_the_pictures(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(solov2.TrainingError, match=r"no longer a number at step \d+ .*picture_\d\.png"):
        run(shapes, tmp_path, "LearningRate.base_lr=1e30", "epoch=20")


def test_pictures_without_objects_are_trained_on(shapes: Path, tmp_path: Path) -> None:
    data = json.loads(shapes.read_text())
    data["annotations"] = [a for a in data["annotations"] if a["image_id"] == data["images"][0]["id"]]
    shapes.write_text(json.dumps(data))
    run(shapes, tmp_path, "epoch=1", "TrainDataset.allow_empty=true", "log_iter=1")
    assert len(losses(tmp_path)) == 3


@pytest.mark.parametrize(
    ("resume", "message"),
    [("missing.ckpt", "no such checkpoint"), ("text.ckpt", "not a checkpoint to resume from")],
)
def test_resume_needs_a_checkpoint(shapes: Path, tmp_path: Path, resume: str, message: str) -> None:
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    with pytest.raises(solov2.WeightsError, match=message):
        run(shapes, tmp_path, resume=tmp_path / resume)


def test_resume_refuses_other_classes(shapes: Path, tmp_path: Path) -> None:
    run(shapes, tmp_path, "epoch=1")
    data = json.loads(shapes.read_text())
    data["categories"][0]["name"] = "crate"
    shapes.write_text(json.dumps(data))
    with pytest.raises(solov2.WeightsError, match="other classes"):
        run(shapes, tmp_path, resume=tmp_path / "tiny" / "last.ckpt")


@pytest.mark.parametrize("several", [False, True])
def test_class_count_of_recipe_and_data_must_agree(shapes: Path, tmp_path: Path, several: bool) -> None:
    second = shapes.with_name("second.json")
    second.write_text(json.dumps({**json.loads(shapes.read_text()), "images": [], "annotations": []}))
    options = [
        f"TrainDataset.anno_path={f'[{shapes}, {second}]' if several else shapes}",
        f"TrainDataset.image_dir={shapes.parent}",
        "TrainDataset.dataset_dir=/",
    ]
    with pytest.raises(solov2.ConfigError) as error:
        solov2.train(TINY, overrides=[*options, f"save_dir={tmp_path}"], device="cpu")
    assert str(error.value).startswith(f"{shapes} has 2 categories and the recipe num_classes: 80; ")


def test_weights_carry_no_path_of_the_machine_they_were_trained_on(shapes: Path, tmp_path: Path) -> None:
    weights = run(shapes, tmp_path, "epoch=1").weights
    for file in (weights, tmp_path / "tiny" / "last.ckpt"):
        assert str(tmp_path) not in json.dumps(dict(read_weights(file).config))


def test_a_second_run_keeps_the_first_ones_files(shapes: Path, tmp_path: Path) -> None:
    run(shapes, tmp_path, "epoch=1", val=shapes)
    first = (tmp_path / "tiny" / "best_model.safetensors").read_bytes()
    result = run(shapes, tmp_path, "epoch=1", "seed=1")
    assert (tmp_path / "tiny" / "earlier_1" / "best_model.safetensors").read_bytes() == first
    assert result.weights == tmp_path / "tiny" / "model_final.safetensors"
    assert [step for step, _ in losses(tmp_path)] == [2, 3]


def test_evaluation_data_is_looked_at_before_training(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(solov2.DatasetError, match=r"nothing\.json: no such file"):
        run(shapes, tmp_path, val=tmp_path / "nothing.json")
    assert not (tmp_path / "tiny").exists()


def test_defects_of_the_evaluation_data_do_not_stop_training(shapes: Path, tmp_path: Path) -> None:
    data = json.loads(shapes.read_text())
    data["annotations"][0]["segmentation"] = [[10, 10]]
    del data["annotations"][1]["segmentation"]
    broken = shapes.with_name("broken.json")
    broken.write_text(json.dumps(data))
    assert run(shapes, tmp_path, "epoch=1", val=broken).ap is not None


def test_an_unreadable_picture_counts_as_one_without_finds(shapes: Path, tmp_path: Path) -> None:
    weights = run(shapes, tmp_path, "epoch=1").weights
    picture = shapes.with_name("picture_2.png")
    picture.write_bytes(picture.read_bytes()[:600])
    words = ["eval", "-w", str(weights), "--data", str(shapes), "--json", str(tmp_path / "found.json")]
    assert main([*words, "--device", "cpu"]) == 0
    records = json.loads((tmp_path / "found.json").read_text())
    of = {number: {r["segmentation"]["counts"] for r in records if r["image_id"] == number} for number in (25, 35)}
    assert of[35]
    assert not of[25] & of[35]  # picture 25 is not the next one under another id


def test_resume_refuses_another_network(shapes: Path, tmp_path: Path) -> None:
    run(shapes, tmp_path, "epoch=1")
    with pytest.raises(solov2.WeightsError, match="another network"):
        run(shapes, tmp_path, "FPN.out_channel=64", resume=tmp_path / "tiny" / "last.ckpt")


def test_the_best_ap_is_known_after_a_resume(shapes: Path, tmp_path: Path) -> None:
    result = run(shapes, tmp_path, "epoch=1", val=shapes)
    callbacks = torch.load(tmp_path / "tiny" / "last.ckpt", weights_only=True)["callbacks"]
    (state,) = [state for state in callbacks.values() if "best_ap" in state]
    assert state["best_ap"] == result.ap.ap


def test_a_recipe_takes_the_classes_of_the_weights(shapes: Path, tmp_path: Path) -> None:
    weights = run(shapes, tmp_path, "epoch=1").weights
    assert main(["eval", "-c", TINY, "-w", str(weights), "--data", str(shapes), "--device", "cpu"]) == 0


def test_an_unknown_device_is_refused_at_once(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(solov2.ConfigError, match="device 'abacus' cannot be used"):
        solov2.train(TINY, data=shapes, overrides=[f"save_dir={tmp_path}"], device="abacus")


@pytest.mark.parametrize(
    ("device", "devices", "shared", "warnings"),
    [("cuda", 1, False, 0), ("cuda", 2, True, 0), ("cpu", 1, False, 0), ("cpu", 2, False, 1)],
)
def test_statistics_are_shared_by_several_cuda_devices(
    device: str, devices: int, shared: bool, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    """One process has nobody to share with, so there is nothing to warn of."""
    model = torch.nn.Sequential(SharedBatchNorm2d(4), torch.nn.BatchNorm2d(4))
    share_statistics(model, torch.device(device), devices)
    assert [isinstance(norm, torch.nn.SyncBatchNorm) for norm in model] == [shared, False]
    assert ["needs CUDA" in record.message for record in caplog.records] == [True] * warnings


def test_the_enhance_recipes_parts_train_on_a_cpu(
    shapes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Deformable convolutions, DropBlock and SyncBN, small enough to train here."""
    recipe = str(Path(TINY).with_name("small_resnet.yml"))
    overrides = [
        f"save_dir={tmp_path / 'runs'}",
        "epoch=1",
        "SOLOv2Head.drop_block=true",
        "ResNet.lr_mult_list=[0.1, 0.1, 0.5, 1]",
    ]
    overrides += ["ResNet.norm_type=sync_bn", "ResNet.freeze_norm=false", "SOLOv2MaskHead.use_dcn_in_tower=true"]
    result = solov2.train(recipe, data=shapes, overrides=overrides, device="cpu")
    assert result.weights is not None
    assert "sync_bn" not in caplog.text
    state = read_weights(result.weights).state
    assert state["mask_branch.output.conv.offset.bias"].any()  # learned: it starts at zero
    assert state["backbone.stages.3.1.conv2.conv.offset.bias"].any()


def test_evaluating_on_the_training_pictures_is_warned_of(
    shapes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = run(shapes, tmp_path, "epoch=1").weights
    words = ["eval", "-w", str(weights), "--device", "cpu", "--data"]
    caplog.clear()
    assert main([*words, str(shapes)]) == 0
    assert "trained on 6 of these 6 pictures" in caplog.text
    others = make_shapes(tmp_path / "others", 2, seed=1)
    data = json.loads(others.read_text())
    for image in data["images"]:
        new = f"new_{image['file_name']}"
        (others.parent / image["file_name"]).rename(others.parent / new)
        image["file_name"] = new
    others.write_text(json.dumps(data))
    caplog.clear()
    assert main([*words, str(others)]) == 0
    assert "trained on" not in caplog.text
