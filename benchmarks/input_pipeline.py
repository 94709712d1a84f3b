"""What one worker spends on a training picture, transform by transform, against decoding and resizing alone.

    python benchmarks/input_pipeline.py --data instances.json --images DIR [--recipe NAME] [--pictures 60] [--rounds 5]

The comparison is `cv2.imdecode` plus `cv2.resize` to the same size: what no pipeline can do without. One
thread, as a worker has it; pictures are read from the disk before the clock starts.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np

from solov2 import load_config
from solov2.build import build_dataset
from solov2.config.own_data import with_own_data
from solov2.data.coco import CocoDataset
from solov2.data.collate import collate
from solov2.data.transforms import Sample, Transform


class Clocked:
    """A transform that adds up the seconds it takes."""

    def __init__(self, transform: Transform, seconds: dict[str, list[float]]) -> None:
        self.transform = transform
        self.seconds = seconds

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Passes the sample on."""
        started = time.perf_counter()
        sample = self.transform(sample, rng)
        self.seconds[type(self.transform).__name__].append(time.perf_counter() - started)
        return sample


def plain_seconds(dataset: CocoDataset, image_dir: Path, sizes: list[tuple[int, int]]) -> float:
    """Decoding and resizing to the sizes that the pipeline chose."""
    total = 0.0
    for record, (height, width) in zip(dataset.records, sizes, strict=False):
        data = np.fromfile(image_dir / record["file_name"], np.uint8)
        started = time.perf_counter()
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert image is not None
        cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        total += time.perf_counter() - started
    return total


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--recipe", default="solov2_r50_fpn_3x_coco")
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    cv2.setNumThreads(0)
    config = with_own_data(
        load_config(arguments.recipe, ["TrainDataset.allow_empty=true"]), data=arguments.data, images=arguments.images
    )
    dataset = build_dataset(config, config.data.train, training=True, strict=False)
    count = min(arguments.pictures, len(dataset))
    seconds: dict[str, list[float]] = defaultdict(list)
    dataset.transforms = tuple(Clocked(transform, seconds) for transform in dataset.transforms)
    for record in dataset.records[:count]:  # the disk is not what is measured
        (Path(arguments.images) / record["file_name"]).read_bytes()
    ratios, whole = [], []
    for number in range(arguments.rounds + 1):
        if number == 1:
            seconds.clear()  # the first round warms up
        started = time.perf_counter()
        samples = [dataset[number, index] for index in range(count)]
        prepared = time.perf_counter()
        for sample in samples:
            collate([sample], with_targets=True, pad_stride=config.data.pad_stride)
        collated = time.perf_counter()
        plain = plain_seconds(dataset, Path(arguments.images), [sample.hw for sample in samples])
        if number:
            whole.append((collated - started) / count)
            ratios.append((collated - started) / plain)
            seconds["masks at quarter scale, padding"].append(collated - prepared)
            seconds["decoding and reading"].append(prepared - started)
            seconds["cv2.imdecode and cv2.resize alone"].append(plain)
    in_transforms = sum(sum(values) for name, values in seconds.items() if name[0].isupper())
    seconds["decoding and reading"] = [sum(seconds["decoding and reading"]) - in_transforms]
    print(f"{count} pictures, {arguments.rounds} rounds, {arguments.recipe}; milliseconds per picture")
    for name, values in sorted(seconds.items(), key=lambda item: -sum(item[1])):
        print(f"  {name:<36} {1000 * sum(values) / count / arguments.rounds:8.2f}")
    middle = statistics.median(whole)
    print(f"whole picture: {1000 * middle:.2f} ms, {1 / middle:.1f} images/s on a core")
    print(
        f"ratio to cv2.imdecode plus cv2.resize: {statistics.median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
