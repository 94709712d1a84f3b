"""The model zoo's three commands, from a checkout, one after another with nothing between."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.shapes_data import make_shapes

ROOT = Path(__file__).parents[1]


def door(name: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "0"}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        [sys.executable, str(ROOT / name), *words],
        cwd=cwd, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_train_eval_and_infer_as_printed(tmp_path: Path) -> None:
    """The enhance recipe itself, at its own sizes, on two pictures for one step; without a network, so from scratch."""
    coco = tmp_path / "dataset" / "coco"
    shapes = make_shapes(tmp_path / "data", 2)
    data = json.loads(shapes.read_text())
    for split in ("train2017", "val2017"):
        (coco / split).mkdir(parents=True)
        for image in data["images"]:
            shutil.copy(shapes.parent / image["file_name"], coco / split)
        (coco / "annotations").mkdir(exist_ok=True)
        shutil.copy(shapes, coco / "annotations" / f"instances_{split}.json")
    Image.open(shapes.parent / data["images"][0]["file_name"]).convert("RGB").save(tmp_path / "test.jpeg")

    recipe = ["-c", "configs/solov2_r50_enhance_coco.yml"]
    short = ["-o", "epoch=1", "pretrain_weights=null", "num_classes=2", "worker_num=1"]
    done = door("train.py", *recipe, "--amp", *short, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "output" / "Solov2" / "model_final.safetensors").is_file()
    done = door("eval.py", *recipe, "-w", "output/Solov2/model_final", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "mask AP with maxDets 100" in done.stdout
    assert "trained on 2 of these 2 pictures" in done.stderr
    done = door("infer.py", *recipe, "-w", "output/Solov2/model_final", "--infer_img=test.jpeg", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "output" / "test.jpeg").is_file()


@pytest.mark.parametrize("name", ["train.py", "eval.py", "infer.py"])
def test_a_door_leads_to_its_command(name: str, tmp_path: Path) -> None:
    done = door(name, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"solov2 {name.removesuffix('.py')}" in done.stdout
