"""What one worker spends on a training picture, transform by transform, against decoding and resizing alone.

    python benchmarks/input_pipeline.py --data instances.json --images DIR [--recipe NAME] [--pictures 60] [--rounds 5]

The comparison is `cv2.imdecode` plus `cv2.resize` to the same size: what no pipeline can do without. One
thread, as a worker has it; pictures are read from the disk before the clock starts. The clock is the processor's
time of this process, system calls included, so that other processes on the machine count for little.
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
from solov2.data.loader import keep_memory
from solov2.data.transforms import Sample, Transform

READING = "decoding and reading"
COLLATING = "masks at quarter scale, padding"
ALONE = "cv2.imdecode and cv2.resize alone"


class Clocked:
    """A transform that adds up the seconds it takes."""

    def __init__(self, transform: Transform, seconds: dict[str, list[float]]) -> None:
        self.transform = transform
        self.seconds = seconds

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Passes the sample on."""
        started = time.process_time()
        sample = self.transform(sample, rng)
        self.seconds[type(self.transform).__name__].append(time.process_time() - started)
        return sample


def plain_seconds(path: Path, hw: tuple[int, int]) -> float:
    """Decoding a picture and resizing it to the size that the pipeline chose."""
    data = np.fromfile(path, np.uint8)
    started = time.process_time()
    image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert image is not None
    cv2.resize(image, (hw[1], hw[0]), interpolation=cv2.INTER_LINEAR)
    return time.process_time() - started


def measure_round(
    dataset: CocoDataset, number: int, count: int, batch_size: int, pad_stride: int, seconds: dict[str, list[float]]
) -> tuple[float, float]:
    """Prepares batches as a worker does, one after the other; seconds of the pipeline and of the comparison."""
    whole = plain = 0.0
    for first in range(0, count, batch_size):
        indices = range(first, min(first + batch_size, count))
        started = time.process_time()
        samples = [dataset[number, index] for index in indices]
        prepared = time.process_time()
        collate(samples, with_targets=True, pad_stride=pad_stride)
        collated = time.process_time()
        paths = [dataset.image_dir / dataset.records[index]["file_name"] for index in indices]
        alone = sum(plain_seconds(path, sample.hw) for path, sample in zip(paths, samples, strict=True))
        seconds[COLLATING].append(collated - prepared)
        seconds[READING].append(prepared - started)
        seconds[ALONE].append(alone)
        whole += collated - started
        plain += alone
    return whole, plain


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
    keep_memory()
    config = with_own_data(
        load_config(arguments.recipe, ["TrainDataset.allow_empty=true"]), data=arguments.data, images=arguments.images
    )
    dataset = build_dataset(config, config.data.train, training=True, strict=False)
    count = min(arguments.pictures, len(dataset))
    seconds: dict[str, list[float]] = defaultdict(list)
    dataset.transforms = tuple(Clocked(transform, seconds) for transform in dataset.transforms)
    for record in dataset.records[:count]:  # the disk is not what is measured
        (Path(arguments.images) / record["file_name"]).read_bytes()
    rounds = []
    for number in range(arguments.rounds + 1):
        if number == 1:
            seconds.clear()  # the first round warms up
        rounds.append(
            measure_round(dataset, number, count, config.data.train.reader.batch_size, config.data.pad_stride, seconds)
        )
    ratios = [whole / plain for whole, plain in rounds[1:]]
    in_transforms = sum(sum(values) for name, values in seconds.items() if name[0].isupper())
    seconds[READING] = [sum(seconds[READING]) - in_transforms]
    print(f"{count} pictures, {arguments.rounds} rounds, {arguments.recipe}; milliseconds per picture")
    for name, values in sorted(seconds.items(), key=lambda item: -sum(item[1])):
        print(f"  {name:<36} {1000 * sum(values) / count / arguments.rounds:8.2f}")
    middle = statistics.median(whole for whole, _ in rounds[1:]) / count
    print(f"whole picture: {1000 * middle:.2f} ms, {1 / middle:.1f} images/s on a core")
    print(
        f"ratio to cv2.imdecode plus cv2.resize: {statistics.median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
