"""What a run tells while it goes on."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
import torch

import solov2
from solov2.training.progress import METRICS_FILE, memory_mb
from tests.shapes_data import make_shapes

TINY = Path(__file__).parents[1] / "fixtures" / "tiny.yml"


def test_memory_of_this_process() -> None:
    used = memory_mb(torch.device("cpu"))
    assert used is not None
    assert 50 < used < 100_000  # PyTorch alone takes more than 50 MB


@pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning", "ignore::FutureWarning:lightning")
def test_a_system_that_does_not_tell_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Windows has no module ``resource``: the figure is left out of the line and of the table."""
    monkeypatch.setitem(sys.modules, "resource", None)
    assert memory_mb(torch.device("cpu")) is None
    options = [f"save_dir={tmp_path}", "epoch=1", "log_iter=1"]
    with caplog.at_level("INFO"):
        solov2.train(TINY, data=make_shapes(tmp_path / "data", 2), overrides=options, device="cpu", loggers=())
    assert "images/s" in caplog.text
    assert " MB" not in caplog.text
    with (tmp_path / "tiny" / METRICS_FILE).open() as stream:
        rows = list(csv.DictReader(stream))
    assert rows
    assert {row["memory_mb"] for row in rows} == {""}
