"""A training step by the number of instances in its pictures: forward, assignment and losses, backward, optimizer.

    python benchmarks/training_step.py [--recipe solov2_r50_enhance_coco] [--hw 512 512] [--batch 2] [--rounds 5]

Made-up pictures and discs, random weights. The cases take turns in one process: only ratios mean anything. Peak
memory is what one step adds to the process, measured apart, each case in a process of its own (Linux).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from memory import peak_mb

from solov2 import build_model, load_config
from solov2.build import build_loss, build_optimizer
from solov2.data.collate import make_targets
from solov2.data.sample import Sample
from solov2.data.shapes import Polygons
from solov2.structures import Targets

COUNTS = (1, 10, 50, 200)
PARTS = ("forward", "assignment and losses", "backward", "optimizer")


def make_discs(count: int, hw: tuple[int, int], classes: int) -> Targets:
    """Discs of 4 to 30 % of the picture's side, anywhere in it."""
    rng = np.random.default_rng(count)
    radii = rng.uniform(0.02, 0.15, count) * min(hw)
    centers = rng.uniform(radii[:, None], np.array(hw[::-1]) - radii[:, None])
    turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    circle = np.stack([np.cos(turns), np.sin(turns)], 1)
    sample = Sample(
        image=np.zeros((*hw, 3), np.uint8),
        original_hw=hw,
        image_id=0,
        name="",
        labels=rng.integers(0, classes, count),
        boxes=np.concatenate([centers - radii[:, None], centers + radii[:, None]], 1),
        shapes=tuple(Polygons((center + radius * circle,)) for center, radius in zip(centers, radii, strict=True)),
    )
    return make_targets(sample, hw)


def make_step(recipe: str, hw: tuple[int, int], batch: int, count: int) -> Callable[[], list[float]]:
    """One step of a case; it gives the seconds of its parts."""
    torch.manual_seed(0)
    config = load_config(recipe)
    network = build_model(config).train().to(memory_format=torch.channels_last)
    compute_losses, optimizer = build_loss(config), build_optimizer(config, network, 1e-6)
    images = torch.randn(batch, 3, *hw).to(memory_format=torch.channels_last)
    targets = [make_discs(count, hw, config.model.num_classes)] * batch

    def step() -> list[float]:
        clock = [time.perf_counter()]
        predictions = network(images)
        clock.append(time.perf_counter())
        total = torch.stack(list(compute_losses(predictions, targets).values())).sum()
        clock.append(time.perf_counter())
        total.backward()
        clock.append(time.perf_counter())
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock.append(time.perf_counter())
        return np.diff(clock).tolist()

    return step


def main() -> None:
    """Measures all cases and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="solov2_r50_enhance_coco")
    parser.add_argument("--hw", type=int, nargs=2, default=(512, 512))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    hw = (arguments.hw[0], arguments.hw[1])
    steps = {count: make_step(arguments.recipe, hw, arguments.batch, count) for count in COUNTS}
    for step in steps.values():
        step()
    seconds: dict[int, list[list[float]]] = {count: [] for count in COUNTS}
    for _ in range(arguments.rounds):
        for count, step in steps.items():
            seconds[count].append(step())
    print(f"{arguments.recipe}, {arguments.batch} pictures of {hw[0]}x{hw[1]}, torch {torch.__version__}")
    print(f"{'instances':>9} {'ratio':>6} {'seconds':>8}  " + "  ".join(PARTS) + "  peak MB")
    for count in COUNTS:
        ratios = [sum(mine) / sum(ten) for mine, ten in zip(seconds[count], seconds[10], strict=True)]
        parts = [statistics.median(part) for part in zip(*seconds[count], strict=True)]
        widths = "  ".join(f"{part:>{len(name)}.3f}" for part, name in zip(parts, PARTS, strict=True))
        peak = peak_mb(make_step, arguments.recipe, hw, arguments.batch, count)
        print(f"{count:>9} {statistics.median(ratios):>6.2f} {sum(parts):>8.3f}  {widths}  {peak:>7.0f}")


if __name__ == "__main__":
    main()
