"""The calibration inside a weights file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from solov2.errors import WeightsError
from solov2.weights.files import METADATA_KEY, WeightsFile, read_weights, write_weights

KNOTS = ((0.0, 0.0), (0.30000000000000004, 0.1), (1.0, 0.95))


def test_round_trip(tmp_path: Path) -> None:
    write_weights(tmp_path / "a.safetensors", WeightsFile({"a": torch.ones(1)}, calibration=KNOTS))
    assert read_weights(tmp_path / "a.safetensors").calibration == KNOTS


def written(path: Path, **changes: Any) -> Path:
    metadata = WeightsFile({}).metadata() | changes
    metadata = {key: value for key, value in metadata.items() if value != "none at all"}
    save_file({"a": torch.ones(1)}, path, {METADATA_KEY: json.dumps(metadata)})
    return path


@pytest.mark.parametrize("value", ["none at all", []])
def test_files_without_one(tmp_path: Path, value: Any) -> None:
    assert read_weights(written(tmp_path / "a.safetensors", calibration=value)).calibration == ()


@pytest.mark.parametrize(
    "value",
    [
        None,
        0.5,
        "ab",
        {"0": 0},
        [[0, 0]],
        [[0, 0], [1]],
        [[0, 0], [1, 1, 1]],
        [[0, 0], [1, "1"]],
        [[False, 0], [True, 1]],
        [[0, 0], [0.5, math.nan], [1, 1]],
        [[0, 0], [0.5, math.inf], [1, 1]],
        [[0, -0.1], [1, 1]],
        [[0, 0], [1, 1.1]],
        [[0, 0], [0.5, 0.6], [1, 0.6]],
        [[0, 0], [0.5, 0.6], [1, 0.5]],
        [[0, 0], [0.5, 0.6], [0.5, 0.7], [1, 1]],
        [[1, 1], [0, 0]],
        [[0.1, 0], [1, 1]],
        [[0, 0], [0.9, 1]],
    ],
    ids=str,
)
def test_what_is_no_calibration(tmp_path: Path, value: Any) -> None:
    path = written(tmp_path / "a.safetensors", calibration=value)
    with pytest.raises(WeightsError) as error:
        read_weights(path)
    message = str(error.value)
    assert message.startswith(f"{path}: its calibration is ")
    assert "expected pairs of raw and calibrated score in 0..1, both rising, from raw score 0 to 1" in message
    assert "\n" not in message


def test_a_long_one_is_shown_in_short(tmp_path: Path) -> None:
    path = written(tmp_path / "a.safetensors", calibration=[[0, 0]] * 5000)
    with pytest.raises(WeightsError) as error:
        read_weights(path)
    assert len(str(error.value)) < 500
