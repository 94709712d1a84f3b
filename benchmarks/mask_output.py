"""Masks at the picture's size and as RLE: this package against full-size masks and pycocotools.

    python benchmarks/mask_output.py [--hw 1080 1920] [--instances 100] [--rounds 9] [--threads 2]

Ellipses of 2 to 30 % of the shorter side. All cases take turns in one process: only ratios mean anything. "resized
whole" makes every mask at the picture's size with two interpolations, as the published models do. Peak memory is
what one run adds to the process (Linux).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch.nn import functional as F

from solov2.benchmarking.machine import peak_bytes
from solov2.benchmarking.scene import plant
from solov2.data.transforms import Resize, Sample
from solov2.formats import encode_rle
from solov2.paste import paste_instances
from solov2.structures import MASK_STRIDE, Frame, Instances, Predictions

GRIDS = (40, 36, 24, 16, 12)
CHANNELS = 8


def make_frame(hw: tuple[int, int]) -> Frame:
    """Resized as R50-FPN's recipe does it: the shorter side to 800, the longer to 1333 at most."""
    blank = Sample.of_image(np.zeros((*hw, 3), np.uint8))
    height, width = Resize((800, 1333))(blank, np.random.default_rng(0)).hw
    return Frame(hw, (height, width), (-(-height // 32) * 32, -(-width // 32) * 32))


def make_probs(frame: Frame, count: int) -> torch.Tensor:
    """Mask probabilities on the mask grid, (N, h, w)."""
    hw = [side // MASK_STRIDE for side in frame.padded_hw]
    like = Predictions(
        tuple(torch.empty((1, 1, side, side), device="meta") for side in GRIDS),
        tuple(torch.empty((1, CHANNELS, side, side), device="meta") for side in GRIDS),
        torch.empty((1, CHANNELS, *hw), device="meta"),
        (8, 8, 16, 32, 32),
    )
    planted = plant(like, count)
    logits, kernels = (
        torch.cat([level[0].flatten(1) for level in levels], 1) for levels in (planted.category_logits, planted.kernels)
    )
    firsts = logits[0] > 0
    return (kernels[:, firsts].T @ planted.mask_features[0].flatten(1)).unflatten(1, hw).sigmoid()


def resize_whole(probs: torch.Tensor, frame: Frame) -> list[Any]:
    """Every mask at the picture's size, uint8."""
    height, width = frame.resized_hw
    masks = []
    for one in probs:
        padded = F.interpolate(one[None, None], frame.padded_hw, mode="bilinear", align_corners=False)
        whole = F.interpolate(padded[:, :, :height, :width], frame.original_hw, mode="bilinear", align_corners=False)
        masks.append((whole[0, 0] > 0.5).numpy().view(np.uint8))
    return masks


def make_cases(probs: torch.Tensor, frame: Frame) -> dict[str, Callable[[], object]]:
    """What is measured, by name."""
    count = len(probs)
    labels, scores = np.zeros(count, np.int64), np.ones(count, np.float32)

    def paste() -> Instances:
        return paste_instances(probs, labels, scores, frame)

    found = paste()
    whole = [mask.view(np.uint8) for mask in found.masks]
    return {
        "pasted": paste,
        "resized whole": lambda: resize_whole(probs, frame),
        "RLE of crops": lambda: encode_rle(found),
        "RLE by pycocotools": lambda: [coco_mask.encode(np.asfortranarray(mask)) for mask in whole],
    }


PAIRS = (("pasted", "resized whole"), ("RLE of crops", "RLE by pycocotools"))


def main() -> None:
    """Measures all cases and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hw", type=int, nargs=2, default=(1080, 1920))
    parser.add_argument("--instances", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    frame = make_frame((arguments.hw[0], arguments.hw[1]))
    probs = make_probs(frame, arguments.instances)
    cases = make_cases(probs, frame)
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for case in cases.values():
        case()
    for _ in range(arguments.rounds):
        for name, case in cases.items():
            started = time.perf_counter()
            case()
            seconds[name].append(time.perf_counter() - started)
    print(f"{len(probs)} masks at {frame.original_hw[0]}x{frame.original_hw[1]}, torch {torch.__version__}")
    print(f"{'':<20} {'ms':>8}  {'ratio':>18}  {'peak MB':>8}")
    for name, case in cases.items():
        peak = peak_bytes(case, torch.device("cpu"))
        other = next((theirs for ours, theirs in PAIRS if ours == name), name)
        ratios = [mine / theirs for mine, theirs in zip(seconds[name], seconds[other], strict=True)]
        low, middle, high = np.percentile(ratios, (25, 50, 75))
        told = "-" if peak is None else f"{peak / 2**20:.0f}"
        print(
            f"{name:<20} {1e3 * statistics.median(seconds[name]):>8.1f}  {middle:.3f} ({low:.3f}-{high:.3f})  {told:>8}"
        )


if __name__ == "__main__":
    main()
