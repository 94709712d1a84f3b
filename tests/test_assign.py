from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch

from solov2.assign import Assigner, assign, center_cells
from solov2.structures import BACKGROUND, LevelAssignment, Targets

GRID_SIZES = (40, 36, 24, 16, 12)
SIZE_RANGES = ((1.0, 96.0), (48.0, 192.0), (96.0, 384.0), (192.0, 768.0), (384.0, 2048.0))

Box = tuple[float, float, float, float]


def quarter(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """The plain rule: a mask cell is set when 2 of the central 2×2 of its 4×4 pixels are."""
    height, width = mask.shape
    blocks = mask.reshape(height // 4, 4, width // 4, 4)[:, 1:3, :, 1:3]
    return (blocks.sum(axis=(1, 3)) >= 2).astype(np.uint8)


def solid(boxes: Sequence[Box], labels: Sequence[int], hw: tuple[int, int]) -> Targets:
    """Instances that fill their boxes; a box outside the frame has an empty mask."""
    masks = np.zeros((len(boxes), *hw), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[int(y0) : int(y1), int(x0) : int(x1)] = True
    centers = [np.argwhere(mask).mean(axis=0) if mask.any() else (np.nan, np.nan) for mask in masks]
    return Targets(
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4),
        torch.from_numpy(np.array(centers, np.float64).reshape(-1, 2)),
        torch.from_numpy(np.array([quarter(mask) for mask in masks], np.uint8).reshape(-1, hw[0] // 4, hw[1] // 4)),
    )


def square(side: float, labels: Sequence[int] = (0,)) -> Targets:
    return solid([(0, 0, side, side)] * len(labels), labels, (2112, 2112))


def foreground(levels: Sequence[LevelAssignment]) -> int:
    return sum(int((level.labels >= 0).sum()) for level in levels)


def test_published_targets_of_two_instances() -> None:
    """What PaddleDetection gives for a picture of 200x300 padded to 224x320."""
    targets = solid([(10, 10, 110, 90), (120, 40, 290, 190)], [0, 17], (224, 320))
    levels = assign(targets, GRID_SIZES, SIZE_RANGES)
    around = [286, 287, 288, 326, 327, 328, 366, 367, 368]
    second = [634, 635, 636, 670, 671, 672, 706, 707, 708]
    first = [221, 222, 223, 257, 258, 259, 293, 294, 295]
    assert levels[0].cells.tolist() == around
    assert levels[0].instances.tolist() == [0] * 9
    assert levels[0].labels[around].tolist() == [0] * 9
    assert levels[1].cells.tolist() == first + second
    assert levels[1].instances.tolist() == [0] * 9 + [1] * 9
    assert levels[1].labels[second].tolist() == [17] * 9
    assert levels[2].cells.tolist() == [278, 279, 280, 302, 303, 304, 326, 327, 328]
    assert levels[2].instances.tolist() == [1] * 9
    assert [len(level.cells) for level in levels[3:]] == [0, 0]
    assert foreground(levels) == 36
    assert targets.masks.flatten(1).sum(dim=1).tolist() == [542, 1633]


def test_published_targets_of_a_small_instance() -> None:
    targets = solid([(5, 5, 25, 25)], [2], (224, 320))
    levels = assign(targets, GRID_SIZES, SIZE_RANGES)
    assert levels[0].cells.tolist() == [81, 82]
    assert levels[0].labels[[81, 82]].tolist() == [2, 2]
    assert int(targets.masks.sum()) == 25
    assert foreground(levels) == 2


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        (0.5, []),
        (1, [0]),  # an end of a range belongs to it
        (47.9, [0]),
        (48, [0, 1]),
        (96, [0, 1, 2]),  # the end of one, the middle of one, the start of one
        (96.1, [1, 2]),
        (192, [1, 2, 3]),
        (384, [2, 3, 4]),
        (768, [3, 4]),
        (768.5, [4]),
        (2048, [4]),
        (2049, []),  # larger than all
    ],
)
def test_levels_by_size(side: float, expected: list[int]) -> None:
    targets = square(max(side, 1))
    targets.boxes[0] = torch.tensor([0, 0, side, side])
    levels = assign(targets, GRID_SIZES, SIZE_RANGES)
    assert [i for i, level in enumerate(levels) if len(level.cells)] == expected


def test_size_is_that_of_the_box_and_not_of_the_mask() -> None:
    targets = square(10)
    targets.boxes[0] = torch.tensor([0.0, 0.0, 50.0, 200.0])  # square root of the area: 100
    levels = assign(targets, GRID_SIZES, SIZE_RANGES)
    assert [len(level.cells) > 0 for level in levels] == [False, True, True, False, False]


def test_no_instance() -> None:
    levels = assign(solid([], [], (64, 96)), (5, 3), ((1, 10), (5, 100)))
    assert [level.labels.tolist() for level in levels] == [[BACKGROUND] * 25, [BACKGROUND] * 9]
    for level in levels:
        assert level.labels.dtype == level.cells.dtype == level.instances.dtype == torch.int64
        assert level.cells.shape == level.instances.shape == (0,)


def test_empty_mask_trains_nothing_and_keeps_the_numbering() -> None:
    targets = solid([(500, 500, 520, 520), (8, 8, 24, 24)], [1, 2], (64, 96))
    assert targets.centers[0].isnan().all()
    (level,) = assign(targets, (4,), ((1, 100),))
    assert set(level.instances.tolist()) == {1}
    assert set(level.labels.tolist()) == {BACKGROUND, 2}


def test_empty_or_turned_box_trains_nothing() -> None:
    targets = solid([(8, 8, 24, 24), (8, 8, 24, 24)], [1, 2], (64, 96))
    targets.boxes[0] = torch.tensor([8.0, 8.0, 8.0, 24.0])
    targets.boxes[1] = torch.tensor([24.0, 24.0, 8.0, 8.0])
    (level,) = assign(targets, (4,), ((1, 100),))
    assert len(level.cells) == 0


@pytest.mark.parametrize(("labels", "winner"), [([3, 5], 5), ([5, 3], 3), ([3, 5, 4], 4)])
def test_instances_in_one_cell(labels: list[int], winner: int) -> None:
    """The later one gives the label, every pair stays."""
    targets = solid([(8, 8, 12, 12)] * len(labels), labels, (64, 64))
    (level,) = assign(targets, (4,), ((1, 100),))
    assert level.cells.tolist() == [0] * len(labels)
    assert level.instances.tolist() == list(range(len(labels)))
    assert int(level.labels[0]) == winner
    assert foreground([level]) == 1


@pytest.mark.parametrize(
    ("box", "cell"),
    [((0, 0, 2, 2), 0), ((94, 0, 96, 2), 3), ((0, 62, 2, 64), 12), ((94, 62, 96, 64), 15), ((0, 0, 1, 1), 0)],
)
def test_corners_of_a_frame_that_is_not_square(box: Box, cell: int) -> None:
    (level,) = assign(solid([box], [0], (64, 96)), (4,), ((1, 100),))
    assert level.cells.tolist() == [cell]


@pytest.mark.parametrize(
    ("hw", "box", "scale", "expected"),
    [
        ((64, 128), (56, 28, 72, 36), 0.2, [5, 6, 9, 10]),  # y 30.7..32.3 of 16 a cell, x 61.9..65.1 of 32 a cell
        ((64, 128), (56, 28, 72, 36), 0.1, [5, 6]),  # y 31.1..31.9
        ((128, 64), (28, 56, 36, 72), 0.1, [5, 9]),
        ((64, 64), (0, 0, 64, 64), 1.0, [0, 1, 2, 4, 5, 6, 8, 9, 10]),  # never further than one cell
        ((64, 64), (0, 0, 64, 1), 1.0, [0, 1, 2]),
    ],
)
def test_center_region(hw: tuple[int, int], box: Box, scale: float, expected: list[int]) -> None:
    (level,) = assign(solid([box], [0], hw), (4,), ((1, 100),), scale)
    assert level.cells.tolist() == expected


def test_cells_use_floor_division_of_the_share() -> None:
    # 0.3 // 0.1 is 2 in floating point: the published targets carry that rounding.
    first, last = center_cells(
        torch.tensor([[30.0, 30.0]], dtype=torch.float64),
        torch.zeros(1, 2, dtype=torch.float64),
        (100, 100),
        (10, 10),
        0.2,
    )
    assert first.tolist() == last.tolist() == [[2, 2]]


def test_random_instances_agree_with_the_plain_loop() -> None:
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 150, (40, 2))
    boxes: list[Box] = [tuple(row) for row in np.hstack([corners, corners + rng.integers(1, 90, (40, 2))]).tolist()]
    targets = solid(boxes, rng.integers(0, 80, 40).tolist(), (192, 256))
    for grid_size, (low, high) in ((12, (1, 30)), (7, (20, 80)), (5, (60, 1000))):
        labels, pairs = [BACKGROUND] * grid_size**2, []
        for row, (x0, y0, x1, y1) in enumerate(boxes):
            if targets.centers[row].isnan().any() or not low <= ((x1 - x0) * (y1 - y0)) ** 0.5 <= high:
                continue
            spans = []
            for center, extent, size in zip(targets.centers[row].tolist(), (y1 - y0, x1 - x0), (192, 256), strict=True):
                own = int(center / size // (1 / grid_size))
                start = max(int((center - 0.1 * extent) / size // (1 / grid_size)), 0, own - 1)
                stop = min(int((center + 0.1 * extent) / size // (1 / grid_size)), grid_size - 1, own + 1)
                spans.append(range(start, stop + 1))
            for cell in (y * grid_size + x for y in spans[0] for x in spans[1]):
                labels[cell] = int(targets.labels[row])
                pairs.append((cell, row))
        (level,) = assign(targets, (grid_size,), ((low, high),))
        assert list(zip(level.cells.tolist(), level.instances.tolist(), strict=True)) == pairs
        assert level.labels.tolist() == labels
        assert pairs


def test_assigner_is_assign_with_its_settings() -> None:
    targets = solid([(10, 10, 60, 60)], [1], (64, 96))
    assigner = Assigner((4, 3), ((1, 100), (1, 20)), center_scale=0.9)
    ours, expected = assigner(targets), assign(targets, (4, 3), ((1, 100), (1, 20)), 0.9)
    for a, b in zip(ours, expected, strict=True):
        assert torch.equal(a.labels, b.labels)
        assert torch.equal(a.cells, b.cells)
    assert len(ours[0].cells) > len(assign(targets, (4,), ((1, 100),), 0.2)[0].cells)


def test_grids_that_are_the_networks_maps() -> None:
    """One cell per stride, also where the coarsest map is rounded up; the same as that grid stated."""
    targets = solid([(10, 10, 60, 60), (100, 20, 150, 90)], [1, 2], (96, 160))
    assigner = Assigner((), ((1, 100), (20, 200)), 0.9, strides=(8, 64))
    fine, coarse = assigner(targets)
    assert len(fine.labels) == 12 * 20
    assert len(coarse.labels) == 2 * 3  # 96 and 160 pixels in cells of 64
    (expected,) = assign(targets, ((12, 20),), ((1, 100),), 0.9)
    assert torch.equal(fine.cells, expected.cells)
    rows, columns = (fine.cells // 20 * 8 + 4).tolist(), (fine.cells % 20 * 8 + 4).tolist()
    for y, x, instance in zip(rows, columns, fine.instances.tolist(), strict=True):
        cy, cx = targets.centers[instance].tolist()
        assert abs(y - cy) <= 12
        assert abs(x - cx) <= 12  # at most one cell from the centre's own
    # The second one's centre is at (54.5, 124.5): row 0 and column 1 of cells of 64 pixels, not of 48 by 53.
    assert 1 in coarse.cells[coarse.instances == 1].tolist()


def test_as_many_ranges_as_grids() -> None:
    with pytest.raises(ValueError, match="shorter"):
        assign(solid([], [], (64, 64)), (4, 3), ((1, 10),))
