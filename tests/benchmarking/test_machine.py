import json
import sys

import numpy as np
import pytest
import torch
from torch import nn

from solov2 import build_model, load_config
from solov2.benchmarking.machine import MatrixRate, count_flops, describe, peak_bytes

CPU = torch.device("cpu")


def test_flops_by_hand() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1, groups=2))
    first = 2 * 16 * 16 * 8 * 3 * 9
    second = 2 * 16 * 16 * 4 * 4
    assert count_flops(network, 2, (32, 32)) == 2 * (first + second)


@pytest.mark.parametrize("recipe", ["nano", "solov2_r50_enhance_coco"])
def test_networks_are_counted_and_left_alone(recipe: str) -> None:
    network = build_model(load_config(recipe))
    flops = count_flops(network, 1, (64, 96))
    assert count_flops(network, 2, (64, 96)) == 2 * flops > 0
    assert next(network.parameters()).device.type == "cpu"
    assert network.training


def test_the_published_size_of_resnet() -> None:
    """He et al., table 1: 3.8 billion multiplications and additions at 224x224 in stem and stages of variant a."""
    config = load_config("adelaidet_R50_3x")
    backbone = build_model(config).backbone
    assert count_flops(backbone, 1, (224, 224)) / 2 == pytest.approx(3.8e9, rel=0.02)


def test_matrix_rate() -> None:
    rate = MatrixRate(CPU)
    assert rate.measure(0.001) > 1e6


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's peak")
def test_peak_memory() -> None:
    size = 64 << 20

    def work() -> None:
        np.ones(size, np.uint8)

    peak = peak_bytes(work, CPU)
    assert peak is not None
    assert 0.9 * size < peak < 3 * size


def test_what_is_said_of_the_machine() -> None:
    about = describe(CPU)
    assert json.loads(json.dumps(about)) == about
    assert about["packages"]["torch"] == torch.__version__
    assert about["threads"] == torch.get_num_threads()
    assert about["gpu"] is None
    assert about["processor"]
