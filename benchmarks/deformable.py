"""What deformable convolutions cost: SOLOv2 "enhance" against the same network with plain convolutions in their places.

    python benchmarks/deformable.py [--rounds 7] [--json FILE]

Forward: one picture of 512x768. Training step: two pictures of 512x512, forward and backward. Networks have
random weights, offsets of about two pixels among them, and take turns in one process: only ratios mean anything.
Peak memory is measured apart, each case in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from memory import peak_mb
from torch import Tensor, nn

from solov2 import build_model, load_config
from solov2.model import deform
from solov2.model.deform import DeformConv2d, by_grid_sample
from solov2.model.row_sums import by_row_sums

RECIPE = "solov2_r50_enhance_coco"
WITHOUT = ["ResNet.dcn_v2_stages=[-1]", "SOLOv2Head.dcn_v2_stages=[]", "SOLOv2MaskHead.use_dcn_in_tower=false"]
OFFSET_PIXELS = 2.0
NETWORKS = ("plain", "rows", "grid_sample")
FORMS = {"plain": by_row_sums, "rows": by_row_sums, "grid_sample": by_grid_sample}
SIZES = {"forward": (1, 3, 512, 768), "step": (2, 3, 512, 512)}


def make_network(kind: str) -> nn.Module:
    """The network of a kind; its offsets are given a size of their own, since untrained ones are zero."""
    torch.manual_seed(0)
    network = build_model(load_config(RECIPE, WITHOUT if kind == "plain" else []))
    for module in network.modules():
        if isinstance(module, DeformConv2d):
            nn.init.normal_(module.offset.bias, std=OFFSET_PIXELS)
            nn.init.normal_(module.offset.weight, std=0.01)
    return network.to(memory_format=torch.channels_last)


def make_run(task: str, kind: str) -> Callable[[], None]:
    """One forward pass, or one training step without its optimizer."""
    network = make_network(kind).train(task == "step")
    images = torch.randn(SIZES[task]).to(memory_format=torch.channels_last)

    def run() -> None:
        with mock.patch.object(deform, "deform_conv2d", FORMS[kind]), torch.set_grad_enabled(task == "step"):
            predictions = network(images)
            if task == "step":
                parts: tuple[Tensor, ...] = (*predictions.category_logits, *predictions.kernels)
                torch.stack([part.square().mean() for part in (*parts, predictions.mask_features)]).sum().backward()
                network.zero_grad(set_to_none=True)

    return run


def take_turns(task: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of each network, round by round."""
    runs = {kind: make_run(task, kind) for kind in NETWORKS}
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {kind: [] for kind in NETWORKS}
    for _ in range(rounds):
        for kind, run in runs.items():
            started = time.perf_counter()
            run()
            seconds[kind].append(time.perf_counter() - started)
    return seconds


def report(task: str, rounds: int) -> dict[str, Any]:
    """Medians, ratios to the plain network with their spread, and memory."""
    seconds = take_turns(task, rounds)
    result: dict[str, Any] = {}
    for kind in NETWORKS:
        ratios = sorted(mine / plain for mine, plain in zip(seconds[kind], seconds["plain"], strict=True))
        result[kind] = {
            "seconds": round(statistics.median(seconds[kind]), 3),
            "ratio": round(statistics.median(ratios), 2),
            "ratio_min_max": [round(ratios[0], 2), round(ratios[-1], 2)],
            "peak_mb": round(peak_mb(make_run, task, kind)),
        }
    return result


def main() -> None:
    """Runs both tasks and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    environment = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
    }
    results: dict[str, Any] = {"environment": environment}
    print(environment)
    print(f"{'':<8} {'network':<12} {'seconds':>8} {'ratio':>6} {'min..max':>13} {'peak MB':>8}")
    for task in SIZES:
        results[task] = report(task, arguments.rounds)
        for kind, row in results[task].items():
            low, high = row["ratio_min_max"]
            print(f"{task:<8} {kind:<12} {row['seconds']:>8} {row['ratio']:>6} {low:>6}..{high:<5} {row['peak_mb']:>8}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
