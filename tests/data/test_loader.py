import ctypes
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from solov2.data.collate import collate
from solov2.data.loader import EpochBatchSampler, Key, keep_memory, make_loader
from solov2.data.transforms import Sample


def batches(size: int, batch_size: int, **options: Any) -> list[list[int]]:
    return [[index for _, index in batch] for batch in EpochBatchSampler(size, batch_size, **options)]


@pytest.mark.parametrize(
    ("size", "batch_size", "options", "expected"),
    [
        # Blocks go to the devices in turn and the indices wrap around: recorded from DistributedBatchSampler.
        (11, 2, {"world_size": 2, "rank": 0}, [[0, 1], [4, 5], [8, 9]]),
        (11, 2, {"world_size": 2, "rank": 1}, [[2, 3], [6, 7], [10, 0]]),
        (5, 2, {}, [[0, 1], [2, 3], [4]]),
        (5, 2, {"drop_last": True}, [[0, 1], [2, 3]]),
        (4, 2, {"drop_last": True}, [[0, 1], [2, 3]]),
        (1, 4, {}, [[0]]),
        (3, 4, {"drop_last": True}, [[0, 1, 2]]),  # the only batch is kept
        (1, 1, {"world_size": 3, "rank": 2}, [[0]]),  # fewer samples than devices
        (2, 3, {"world_size": 4, "rank": 3}, [[1]]),
        (6, 2, {"skip": 2}, [[4, 5]]),
        (6, 2, {"skip": 3}, []),
        (6, 2, {"skip": 9}, []),
        (7, 2, {"world_size": 2, "rank": 0}, [[0, 1], [4, 5]]),
        (7, 2, {"world_size": 2, "rank": 1}, [[2, 3], [6, 0]]),
        (6, 2, {"world_size": 2, "rank": 0}, [[0, 1], [4]]),
        (6, 2, {"world_size": 2, "rank": 1}, [[2, 3], [5]]),
    ],
)
def test_batches(size: int, batch_size: int, options: dict[str, Any], expected: list[list[int]]) -> None:
    assert batches(size, batch_size, **options) == expected


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_length_and_coverage(drop_last: bool, shuffle: bool) -> None:
    for size in range(1, 14):
        for batch_size in (1, 2, 5):
            for world_size in (1, 2, 3):
                options = {"drop_last": drop_last, "shuffle": shuffle, "world_size": world_size}
                ranks = [batches(size, batch_size, rank=rank, **options) for rank in range(world_size)]
                sampler = EpochBatchSampler(size, batch_size, drop_last=drop_last, world_size=world_size)
                # All devices take equally many steps, with equally many samples each: none waits for another.
                assert len({tuple(map(len, rank)) for rank in ranks}) == 1
                assert len(ranks[0]) == len(sampler) >= 1
                seen = [index for rank in ranks for batch in rank for index in batch]
                assert set(seen) <= set(range(size))
                if not drop_last:
                    assert set(seen) == set(range(size))
                    assert len(seen) - size < world_size


def test_order_is_a_function_of_seed_and_epoch() -> None:
    def first(**options: int) -> list[list[int]]:
        return batches(50, 5, shuffle=True, **options)

    assert first(seed=1, epoch=2) == first(seed=1, epoch=2)
    assert first(seed=1, epoch=2) != first(seed=1, epoch=3)
    assert first(seed=1, epoch=2) != first(seed=2, epoch=2)
    assert sorted(index for batch in first(seed=1) for index in batch) == list(range(50))


def test_a_resumed_epoch_gives_the_rest_of_it() -> None:
    whole = batches(50, 5, shuffle=True, seed=3, epoch=4)
    assert batches(50, 5, shuffle=True, seed=3, epoch=4, skip=7) == whole[7:]


TWO_SIZES = [(100, 100) if number % 3 else (200, 100) for number in range(48)]


@pytest.mark.parametrize("world_size", [1, 2])
def test_grouped_batches_hold_pictures_of_like_size(world_size: int) -> None:
    for rank in range(world_size):
        options = {"shuffle": True, "world_size": world_size, "rank": rank, "epoch": 5}
        grouped = batches(48, 4, sizes=TWO_SIZES, **options)
        mixed = [batch for batch in grouped if len({TWO_SIZES[index] for index in batch}) > 1]
        assert len(mixed) <= 1  # where the sizes meet
        # The same pictures as without grouping: it is a device's share that is put in order.
        assert sorted(i for b in grouped for i in b) == sorted(i for b in batches(48, 4, **options) for i in b)


def test_grouped_batches_come_in_no_order_of_size() -> None:
    first = {TWO_SIZES[batches(48, 4, shuffle=True, sizes=TWO_SIZES, epoch=epoch)[0][0]] for epoch in range(20)}
    assert len(first) == 2


def test_grouping_leaves_no_picture_out_for_ever() -> None:
    sizes = [(10 + number, 10) for number in range(6)]
    epochs = [batches(6, 4, shuffle=True, drop_last=True, sizes=sizes, epoch=epoch) for epoch in range(30)]
    assert {index for epoch in epochs for batch in epoch for index in batch} == set(range(6))


@pytest.mark.parametrize(("size", "drop_last"), [(1, False), (3, True), (5, False), (5, True)])
def test_grouping_with_few_pictures(size: int, drop_last: bool) -> None:
    options = {"shuffle": True, "drop_last": drop_last}
    found = batches(size, 4, sizes=TWO_SIZES[:size], **options)
    assert [len(batch) for batch in found] == [len(batch) for batch in batches(size, 4, **options)]


def test_sizes_change_nothing_without_shuffling() -> None:
    assert batches(48, 4, sizes=TWO_SIZES) == batches(48, 4)


def test_an_epoch_can_be_given_again() -> None:
    sampler = EpochBatchSampler(9, 2, shuffle=True)
    assert list(sampler) == list(sampler)


class _Keys(Dataset[Sample]):
    """Samples that show which key they were asked for."""

    def __getitem__(self, key: Key) -> Sample:
        epoch, index = key
        return Sample.of_image(np.full((32, 32, 3), 10 * epoch + index, np.uint8), image_id=index)

    def __len__(self) -> int:
        return 5


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_loader_hands_the_keys_through(workers: int) -> None:
    sampler = EpochBatchSampler(5, 2, epoch=3)
    loader = make_loader(_Keys(), sampler, _without_targets, workers=workers)
    found = list(loader)
    assert [batch.image_ids for batch in found] == [(0, 1), (2, 3), (4,)]
    assert torch.cat([batch.images[:, 0, 0, 0] for batch in found]).tolist() == [30, 31, 32, 33, 34]


def _without_targets(samples: Any) -> Any:
    return collate(samples, with_targets=False)


def test_memory_is_kept_where_the_c_library_can(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    library = SimpleNamespace(mallopt=lambda parameter, value: asked.append((parameter, value)))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    keep_memory()
    assert asked == [(-3, 32 * 1024**2), (-1, 256 * 1024**2)]
    del library.mallopt
    keep_memory()
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(ctypes, "CDLL", None)  # is not asked
    keep_memory()
    assert len(asked) == 2
