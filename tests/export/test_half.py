"""Weights of 16 bits in OpenVINO models."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from solov2.export.half import halve_weights

openvino = pytest.importorskip("openvino")

PRECISE = {"INFERENCE_PRECISION_HINT": "f32"}


def model(weights: np.ndarray) -> Any:
    """One convolution with a bias, whose weights decide on the shape of the result, as in exported graphs."""
    ops = openvino.opset13
    given = ops.parameter([1, 4, 6, 6], np.float32, name="images")
    strides, none = [1, 1], [0, 0]
    found = ops.convolution(given, ops.constant(weights), strides, none, none, strides)
    biased = ops.add(found, ops.constant(np.full((1, len(weights), 1, 1), 0.1, np.float32)))
    return openvino.Model([biased], [given], "small")


def run(small: Any) -> np.ndarray:
    images = np.random.default_rng(1).uniform(-1, 1, (1, 4, 6, 6)).astype(np.float32)
    found: np.ndarray = openvino.Core().compile_model(small, "CPU", PRECISE)([images])[0]
    return found


def test_files_are_half_as_large_and_compute_nearly_the_same(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(0, 0.1, (256, 4, 3, 3)).astype(np.float32)
    whole, halved = model(weights), model(weights)
    assert halve_weights(halved) == 2  # the bias has four dimensions here
    sizes = []
    for name, small in (("whole", whole), ("halved", halved)):
        openvino.save_model(small, tmp_path / f"{name}.xml", compress_to_fp16=False)
        sizes.append((tmp_path / f"{name}.bin").stat().st_size)
    assert 0.45 < sizes[1] / sizes[0] < 0.55
    expected, found = (run(openvino.Core().read_model(tmp_path / f"{name}.xml")) for name in ("whole", "halved"))
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 1e-3
    rounded = run(model(weights.astype(np.float16).astype(np.float32)))
    assert np.abs(found - rounded).max() < 1e-4


def test_what_has_no_room_stays() -> None:
    weights = np.full((1, 4, 3, 3), 1e5, np.float32)
    large = model(weights)
    assert halve_weights(large) == 1  # the bias
    assert np.isfinite(run(large)).all()
    assert halve_weights(large) == 0  # what was done is not done again
