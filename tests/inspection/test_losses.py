import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from solov2.assign import Assigner
from solov2.build import build_assigner, build_split_transforms, source_paths
from solov2.config import Config, load_config
from solov2.config.own_data import with_own_data
from solov2.data.coco import CocoDataset, load_coco
from solov2.data.collate import make_targets
from solov2.data.transforms import LargeScaleJitter, RandomPatch, RandomResize, Resize
from solov2.inspection import losses
from solov2.inspection.losses import Level, Losses, Views, count_losses, make_views
from solov2.structures import Targets

Write = Callable[..., Path]
Square = tuple[int, int, int]
"""x, y, side."""

ASSIGNER = Assigner((8, 4), ((8, 32), (40, 96)))
HW = (128, 128)


def views_of(*squares: Square, empty: Sequence[int] = ()) -> Views:
    boxes = torch.tensor([(x, y, x + side, y + side) for x, y, side in squares], dtype=torch.float64).reshape(-1, 4)
    centers = boxes[:, [1, 0]] / 2 + boxes[:, [3, 2]] / 2 - 0.5
    masks = torch.zeros(len(squares), HW[0] // 4, HW[1] // 4, dtype=torch.uint8)
    vanished = torch.zeros(len(squares), dtype=torch.bool)
    vanished[list(empty)] = True
    return Views((Targets(torch.arange(len(squares)), boxes, centers, masks),), (vanished,), 1)


def reasons(found: Losses) -> dict[str, int]:
    names = ("vanished", "too_small", "between", "too_large", "collided")
    return {name: getattr(found, name) for name in names if getattr(found, name)}


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        (7, {"too_small": 1}),
        (8, {}),
        (32, {}),
        (33, {"between": 1}),
        (39, {"between": 1}),
        (40, {}),
        (96, {}),
        (97, {"too_large": 1}),
    ],
)
def test_sizes_that_no_level_takes(side: int, expected: dict[str, int]) -> None:
    found = count_losses(views_of((10, 10, side)), ASSIGNER)
    assert reasons(found) == expected
    assert (found.instances, found.lost, found.share) == (1, len(expected), len(expected))


def test_the_later_instance_takes_the_cell() -> None:
    found = count_losses(views_of((4, 4, 8), (3, 3, 10), (36, 36, 8)), ASSIGNER)  # cells of 16 pixels
    assert reasons(found) == {"collided": 1}
    assert found.levels == (Level(3, 2), Level(0, 0))
    assert found.share == 1 / 3


def test_one_cell_of_its_own_is_enough() -> None:
    found = count_losses(views_of((0, 0, 30), (11, 11, 8)), ASSIGNER)  # centred near (15, 15): four cells, then one
    assert reasons(found) == {}
    assert found.levels[0] == Level(2, 4)


def test_another_level_is_enough() -> None:
    overlapping = Assigner((8, 4), ((8, 64), (16, 96)))
    squares = ((4, 4, 24), (11, 11, 10))
    assert reasons(count_losses(views_of(*squares), overlapping)) == {}
    assert reasons(count_losses(views_of(*squares), Assigner((2,), ((8, 96),)))) == {"collided": 1}


def test_each_instance_has_one_reason() -> None:
    found = count_losses(views_of((0, 0, 4), (0, 0, 4), (20, 20, 36), (2, 2, 8), (2, 2, 8), empty=[0]), ASSIGNER)
    assert reasons(found) == {"vanished": 1, "too_small": 1, "between": 1, "collided": 1}
    assert found.lost == 4


def test_views_without_instances() -> None:
    found = count_losses(views_of(), ASSIGNER)
    assert (found.instances, found.lost, found.share) == (0, 0, 0)
    assert count_losses(Views((), (), 0), ASSIGNER).levels == (Level(0, 0), Level(0, 0))
    assert len(Views((), (), 0).sizes()) == 0


def coco(write_coco: Write, *squares: Square, hw: tuple[int, int] = HW, count: int = 1) -> Path:
    images = [{"id": n, "file_name": f"{n}.png", "height": hw[0], "width": hw[1]} for n in range(count + 1)]
    records = [
        {
            "id": 100 * image + number,
            "image_id": image,
            "category_id": 7,
            "bbox": [x, y, side, side],
            "segmentation": [[x, y, x + side, y, x + side, y + side, x, y + side]],
        }
        for image in range(count)  # the last has none
        for number, (x, y, side) in enumerate(squares)
    ]
    return write_coco(images, records, pictures=False)


def made(path: Path, *transforms: Any, **options: Any) -> Views:
    return make_views(load_coco(path), transforms, 32, **options)


def test_views_are_the_recipes_targets(write_coco: Write) -> None:
    views = made(coco(write_coco, (10, 20, 16), (40, 37, 64), hw=(100, 120)), Resize((200, 240)), budget=2)
    [targets], [empty] = views.targets, views.empty
    assert targets.boxes.tolist() == [[20, 40, 52, 72], [80, 74, 208, 200]]  # cut by the picture
    assert targets.masks.shape == (2, 56, 64)  # 224 x 256 pixels
    assert targets.centers[0].tolist() == [55.5, 35.5]
    assert targets.labels.tolist() == [0, 1]
    assert empty.tolist() == [False, False]
    assert views.sizes().tolist() == [32, (128 * 126) ** 0.5]
    assert views.pictures == 1


def test_masks_that_vanish_at_a_quarter(write_coco: Write) -> None:
    path = coco(write_coco, (4, 4, 8), (40, 40, 64))
    assert [empty.tolist() for empty in made(path, Resize((128, 128)), budget=2).empty] == [[False, False]]
    assert [empty.tolist() for empty in made(path, Resize((16, 16)), budget=2).empty] == [[True, False]]


def test_small_data_sets_are_looked_at_several_times(write_coco: Write) -> None:
    path = coco(write_coco, (10, 20, 16))
    views = made(path, RandomResize(((64, 64), (128, 128), (256, 256))))
    assert len(views.targets) == losses.MOST_DRAWS
    assert views.pictures == 1
    assert 1 < len(set(views.sizes().tolist()) & {8, 16, 32}) == len(set(views.sizes().tolist()))


def test_of_large_data_sets_a_part_is_looked_at(write_coco: Write) -> None:
    path = coco(write_coco, (10, 20, 16), (60, 60, 16), count=40)
    part, more = (made(path, Resize((128, 128)), budget=budget) for budget in (10, 30))
    assert (len(part.targets), part.pictures) == (5, 5)
    assert (len(more.targets), more.pictures) == (15, 15)
    assert len(made(path, Resize((128, 128)), budget=160).targets) == 80  # each twice


def test_a_smaller_budget_gives_the_first_views_of_a_larger_one(write_coco: Write) -> None:
    path = coco(write_coco, (10, 20, 16), (60, 60, 16), count=40)
    step = RandomResize(((64, 64), (128, 128), (256, 256)))
    part, more = (made(path, step, budget=budget) for budget in (20, 60))
    assert part.sizes().tolist() == more.sizes().tolist()[:20]
    assert made(path, step, budget=20, seed=1).sizes().tolist() != part.sizes().tolist()


def test_transforms_may_leave_nothing(write_coco: Write) -> None:
    views = made(coco(write_coco, (0, 0, 8)), LargeScaleJitter((64, 64), (0.1, 0.1)))
    assert count_losses(views, ASSIGNER).instances == 0
    assert all(targets.masks.shape == (0, 16, 16) for targets in views.targets)


def test_run_lengths_and_crowds(write_coco: Write) -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[4:12, 4:12] = 1
    flat = mask.T.ravel()
    counts = np.diff(np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1, [flat.size]])).tolist()
    image = {"id": 1, "file_name": "1.png", "height": 20, "width": 30}
    record = {
        "image_id": 1,
        "category_id": 7,
        "bbox": [4, 4, 8, 8],
        "segmentation": {"size": [20, 30], "counts": counts},
    }
    path = write_coco([image], [{"id": 1, **record}, {"id": 2, "iscrowd": 1, **record}], pictures=False)
    [targets] = made(path, budget=1).targets
    assert targets.boxes.tolist() == [[4, 4, 12, 12]]
    assert targets.centers.tolist() == [[7.5, 7.5]]


@pytest.mark.parametrize("recipe", ["nano", Path(__file__).parents[1] / "fixtures" / "square_grids.yml"])
def test_a_whole_recipe_against_plain_loops(write_coco: Write, recipe: str | Path) -> None:
    """Boxes all over a picture, counted again from the data set's own samples, cell by cell."""
    config = with_own_data(load_config(recipe), data=crowded(write_coco))
    transforms = build_split_transforms(config.data.train)
    file, head = load_coco(source_paths(config.data.train)[0]), config.model.grid_head
    assigner = build_assigner(config)
    views = make_views(file, transforms, config.data.pad_stride, budget=len(file.annotations[0]))
    found = count_losses(views, assigner)

    sample, generator = opened(config)[0, 0], np.random.default_rng([0, 0, 0])
    for transform in transforms:
        sample = transform(sample, generator)
    targets = make_targets(sample, tuple(-(-side // 32) * 32 for side in sample.hw))
    hw = tuple(4 * side for side in targets.masks.shape[1:])
    cells = [tuple(side / size for side in hw) for size in head.grid_sizes] or [(s, s) for s in head.strides]
    owners: list[dict[tuple[int, int], int]] = [{} for _ in cells]
    for row, (y, x) in enumerate(targets.centers.tolist()):
        x0, y0, x1, y1 = targets.boxes[row].tolist()
        size, half = ((x1 - x0) * (y1 - y0)) ** 0.5, (0.1 * (y1 - y0), 0.1 * (x1 - x0))
        for owner, cell, (low, high) in zip(owners, cells, config.assign.size_ranges, strict=True):
            if not low <= size <= high:
                continue
            spans = []
            for place, reach, side, extent in zip((y, x), half, cell, hw, strict=True):
                at = [math.floor(value / side) for value in (place - reach, place, place + reach)]
                last = math.ceil(extent / side) - 1
                spans.append(range(max(at[0], at[1] - 1, 0), min(at[2], at[1] + 1, last) + 1))
            owner.update({(r, c): row for r in spans[0] for c in spans[1]})
    winners = {row for owner in owners for row in owner.values()}
    assert 0 < found.collided == len(targets) - len(winners)
    assert [level.cells for level in found.levels] == [len(owner) for owner in owners]


def crowded(write_coco: Write) -> Path:
    generator = np.random.default_rng(1)
    squares = [(*generator.integers(2, 90, 2).tolist(), int(generator.integers(4, 30))) for _ in range(150)]
    return coco(write_coco, *squares)


def opened(config: Config) -> CocoDataset:
    path, folder = source_paths(config.data.train)
    Image.fromarray(np.zeros((*HW, 3), np.uint8)).save(folder / "0.png")
    return CocoDataset(load_coco(path), folder, allow_empty=False)


def test_patches_and_native_grids(write_coco: Write) -> None:
    """A level's cells are as many as the patch has pixels for, also where the coarsest one is rounded up."""
    path, assigner = coco(write_coco, (30, 30, 32)), Assigner((), ((8, 96), (40, 200)), 0.2, (8, 64))
    views = make_views(load_coco(path), [RandomPatch((96, 160), (2.0, 2.0))], 32, budget=1)
    [targets] = views.targets
    assert targets.masks.shape[-2:] == (24, 40)
    assert [len(level.labels) for level in assigner(targets)] == [12 * 20, 2 * 3]
    found = count_losses(views, assigner)
    assert found.instances == len(targets)
    assert len(found.levels) == 2
