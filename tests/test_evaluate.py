"""Evaluation by several processes: the same results as by one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from solov2.cli import main
from solov2.evaluate import Share


def test_one_process_keeps_its_results() -> None:
    found: dict[int, list[Any]] = {3: [], 1: []}
    assert Share.here() == Share(0, 1)
    assert Share().gather(found) is found


@pytest.mark.slow
def test_two_processes_share_the_pictures(
    tiny_weights: Path, write_coco: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five pictures, so that one of them is in both shares and must count once."""
    square = [4, 4, 20, 4, 20, 20, 4, 20]
    images = [{"id": n, "file_name": f"{n}.png", "height": 24 + n, "width": 32} for n in range(1, 6)]
    record = {"category_id": 42, "segmentation": [square], "bbox": [4, 4, 16, 16], "area": 256, "iscrowd": 0}
    data = write_coco(images, [{**record, "id": n, "image_id": n} for n in range(1, 6)])
    words = ["eval", "-w", str(tiny_weights), "--data", str(data), "--device", "cpu", "--json"]
    assert main([*words, str(tmp_path / "one.json")]) == 0
    table = capsys.readouterr().out.splitlines()[1:]

    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "solov2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, *words, str(tmp_path / "two.json")],
        capture_output=True, text=True, timeout=300, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("5 pictures")
    assert done.stdout.splitlines()[1:-1] == table[:-1]  # the last line names the file
    one, two = (json.loads((tmp_path / name).read_text()) for name in ("one.json", "two.json"))
    assert [r["image_id"] for r in one] == [r["image_id"] for r in two]
    assert {r["image_id"] for r in one} <= {1, 2, 3, 4, 5}
    assert [r["score"] for r in two] == pytest.approx([r["score"] for r in one], abs=1e-4)
