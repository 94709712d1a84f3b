"""Evaluation by several processes: the same results as by one."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import solov2
from solov2.build import build_dataset
from solov2.cli import main
from solov2.coco_metrics import mask_ap
from solov2.config.own_data import with_own_data
from solov2.data.coco import CocoDataset
from solov2.evaluate import Share, evaluate
from solov2.formats import CocoResult, ResultsSpool
from solov2.predict import Predictor


def test_one_process_keeps_its_results() -> None:
    found: dict[int, list[Any]] = {3: [], 1: []}
    assert Share.here() == Share(0, 1)
    assert Share().gather(found) is found


@pytest.fixture
def predictor(tiny_weights: Path) -> Predictor:
    return solov2.load(tiny_weights, device="cpu")


@pytest.fixture
def dataset(write_coco: Callable[..., Path], predictor: Predictor) -> CocoDataset:
    """Five pictures with a square each; their ids do not follow the file's order."""
    square = [4, 4, 20, 4, 20, 20, 4, 20]
    images = [{"id": n, "file_name": f"{n}.png", "height": 24 + n, "width": 32} for n in (5, 1, 4, 2, 3)]
    record = {"category_id": 42, "segmentation": [square], "bbox": [4, 4, 16, 16], "area": 256, "iscrowd": 0}
    path = write_coco(images, [{**record, "id": n, "image_id": n} for n in range(1, 6)])
    config = with_own_data(predictor.config, val=path)
    return build_dataset(config, config.data.eval, categories=predictor.categories, training=False, strict=True)


def records_alive() -> int:
    """Result records that Python holds anywhere."""
    gc.collect()
    dicts = [each for each in gc.get_objects() if type(each) is dict]
    return sum("score" in each and "segmentation" in each for each in dicts)


def test_no_mask_is_kept(predictor: Predictor, dataset: CocoDataset) -> None:
    """Numbers alone stay of the detections, but for the pictures whose records are asked for."""
    before = records_alive()
    evaluation = evaluate(predictor, dataset)
    assert evaluation is not None
    assert records_alive() == before
    found = len(evaluation.tally.table)
    assert found > 5
    assert sum(table.nbytes for table in evaluation.tally.by_picture.values()) == 38 * found
    assert evaluation.kept == []

    kept = evaluate(predictor, dataset, keep={4, 2})
    assert kept is not None
    assert {record["image_id"] for record in kept.kept} == {4, 2}
    assert records_alive() == before + len(kept.kept)
    assert kept.ap.stats == evaluation.ap.stats


def test_an_evaluation_is_that_of_its_results(predictor: Predictor, dataset: CocoDataset, tmp_path: Path) -> None:
    with ResultsSpool() as spool:
        evaluation = evaluate(predictor, dataset, batch_size=2, write=spool.write)
        spool.save(tmp_path / "new" / "found.json")
    assert evaluation is not None
    results = json.loads((tmp_path / "new" / "found.json").read_text())
    assert len(results) == spool.count == len(evaluation.tally.table)
    assert list(dict.fromkeys(record["image_id"] for record in results)) == [record["id"] for record in dataset.records]
    again = mask_ap(evaluation.truth, results, max_dets=5)
    assert evaluation.ap.stats == again.stats
    assert sorted(evaluation.tally.table["score"]) == sorted(record["score"] for record in results)


def test_results_of_nothing(tmp_path: Path) -> None:
    with ResultsSpool() as spool:
        spool.write([])
        spool.save(tmp_path / "found.json")
    assert json.loads((tmp_path / "found.json").read_text()) == []


def test_an_evaluation_can_be_stopped_between_batches(predictor: Predictor, dataset: CocoDataset) -> None:
    written: list[list[CocoResult]] = []
    assert evaluate(predictor, dataset, write=written.append, stop=lambda: len(written) == 2) is None
    assert len(written) == 2
    assert evaluate(predictor, dataset, stop=lambda: False) is not None


def test_pictures_of_several_shares_are_counted_once(
    predictor: Predictor, dataset: CocoDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate(predictor, dataset)
    assert whole is not None
    sent: list[Any] = []
    for rank in (1, 0):
        monkeypatch.setattr(Share, "here", classmethod(lambda cls, rank=rank: Share(rank, 2)))

        def gather(found: Any, parts: list[Any] | None) -> None:
            if parts is None:
                sent.append(found)
            else:
                parts[:] = [found, sent.pop(0)]

        monkeypatch.setattr(torch.distributed, "gather_object", gather)
        evaluation = evaluate(predictor, dataset, keep={1, 3})
        assert (evaluation is None) == (rank == 1)
    assert evaluation is not None
    assert evaluation.ap.stats == whole.ap.stats
    assert evaluation.tally.by_picture.keys() == whole.tally.by_picture.keys()
    assert {record["image_id"] for record in evaluation.kept} == {1, 3}


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
