"""Which samples make which batch, in which epoch, on which device: a function of the seed alone."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader, Dataset, Sampler

from solov2.data.transforms import Sample
from solov2.structures import HW, Batch

GROUPED_BATCHES = 16
"""Batches that are grouped by size together: enough to find pictures alike, few enough to stay random."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""As glibc's malloc.h numbers them."""

KEPT_BYTES = {M_MMAP_THRESHOLD: 32 << 20, M_TRIM_THRESHOLD: 256 << 20}
"""Blocks up to the first are taken from what is kept (glibc takes no higher number); the second is the most that is."""

Key = tuple[int, int]
"""(epoch, index): a sample's random numbers depend on both, not on the worker that makes it."""


class EpochBatchSampler(Sampler[list[Key]]):
    """Batches of one device's share of an epoch.

    Indices are padded by wrapping around until every device has equally many; consecutive blocks of
    ``batch_size`` go to the devices in turn.

    Args:
        size: samples in the data set, at least 1.
        batch_size: samples per batch.
        shuffle: a new order every epoch, from ``seed`` and the epoch.
        drop_last: leave out a last batch that is not full, unless it is the only one.
        seed: of the order.
        rank: this device.
        world_size: devices.
        epoch: number of the epoch whose batches are given.
        skip: leave out that many batches at the beginning: a resumed run has seen them.
        sizes: of every picture, height and width; where given, a shuffled epoch puts pictures of like
            size into one batch. Padding costs time, and it moves what a grid cell stands for.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        *,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        epoch: int = 0,
        skip: int = 0,
        sizes: Sequence[HW] | None = None,
    ) -> None:
        self.size = size
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = epoch
        self.skip = skip
        self.sizes = sizes

    def __len__(self) -> int:
        share = -(-self.size // self.world_size)
        full, rest = divmod(share, self.batch_size)
        return max(full if self.drop_last else full + (rest > 0), 1)

    def __iter__(self) -> Iterator[list[Key]]:
        indices = np.arange(self.size)
        rng = np.random.default_rng([self.seed, self.epoch])
        if self.shuffle:
            rng.shuffle(indices)
        share = -(-self.size // self.world_size)
        indices = np.resize(indices, share * self.world_size)  # wraps around
        mine = self._share_of(indices)
        if self.shuffle and self.sizes is not None:
            mine = self._grouped(mine, rng)
        for number in range(self.skip, len(self)):
            batch = mine[number * self.batch_size : (number + 1) * self.batch_size]
            yield [(self.epoch, int(index)) for index in batch]

    def _share_of(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Blocks of ``batch_size`` in turn; what is left over is cut into equal parts."""
        left_over = len(indices) % (self.batch_size * self.world_size)
        full, rest = indices[: len(indices) - left_over], indices[len(indices) - left_over :]
        blocks = full.reshape(-1, self.world_size, self.batch_size)[:, self.rank].ravel()
        return np.concatenate([blocks, rest.reshape(self.world_size, -1)[self.rank]])

    def _grouped(self, indices: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Sorts stretches of the shuffled order by size and shuffles the batches that this gives."""
        assert self.sizes is not None
        longest_and_ratio = [(max(h, w), h / w) for h, w in self.sizes]
        # The rest is taken off before sorting: after it, it would be the same large pictures every time.
        count = len(indices) // self.batch_size * self.batch_size
        full, rest = indices[:count], indices[count:]
        stretch = GROUPED_BATCHES * self.batch_size
        grouped = [
            index
            for start in range(0, count, stretch)
            for index in sorted(full[start : start + stretch], key=longest_and_ratio.__getitem__)
        ]
        batches = np.array(grouped, np.int64).reshape(-1, self.batch_size)
        return np.concatenate([rng.permutation(batches).ravel(), rest])


def make_loader(
    dataset: Dataset[Any],
    sampler: EpochBatchSampler,
    collate: Callable[[Sequence[Sample]], Batch],
    *,
    workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader[Batch]:
    """A loader over a map-style data set that understands (epoch, index) keys.

    Args:
        dataset: gives a sample for a key.
        sampler: gives lists of keys.
        collate: makes a batch of samples.
        workers: processes; 0 loads in this one.
        pin_memory: page-locked memory, for faster copies to a GPU.
    """
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
    )


def _start_worker(_: int) -> None:
    # Ctrl-C reaches every process of a terminal; the main one decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Workers share the cores already; OpenCV's own threads would only fight over them.
    cv2.setNumThreads(0)
    keep_memory()


def keep_memory() -> None:
    """Lets this process keep the memory that it frees, where it runs on glibc; elsewhere nothing happens.

    A worker needs the same few megabytes for every picture. Given back to the system in between, they come back page
    by page, each cleared anew, and that takes as long as resizing the picture.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            mallopt(parameter, KEPT_BYTES[parameter])
