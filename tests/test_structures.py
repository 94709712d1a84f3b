import dataclasses
from typing import Any

import numpy as np
import pytest

from solov2.structures import Category, Frame, Instances, crop_to_extent

CATEGORIES = (Category(42, "bar"), Category(7, "disc"))


def masks() -> np.ndarray[Any, np.dtype[np.bool_]]:
    """A square, one pixel in the last corner, nothing, everything."""
    found = np.zeros((4, 5, 6), bool)
    found[0, 1:3, 2:5] = True
    found[1, 4, 5] = True
    found[3] = True
    return found


def example(categories: tuple[Category, ...] = CATEGORIES) -> Instances:
    return Instances.from_masks(masks(), [0, 1, 1, 0], [0.9, 0.8, 0.7, 0.6], categories)


@pytest.mark.parametrize(
    ("rows", "origin", "box", "shape"),
    [
        (["..", ".."], (0, 0), (0, 0, 0, 0), (0, 0)),
        (["..", ".."], (7, 9), (0, 0, 0, 0), (0, 0)),
        (["#"], (0, 0), (0, 0, 1, 1), (1, 1)),
        (["...", "..#"], (0, 0), (2, 1, 3, 2), (1, 1)),
        (["...", "..#"], (10, 20), (12, 21, 13, 22), (1, 1)),
        (["#..", "..#"], (0, 0), (0, 0, 3, 2), (2, 3)),
        (["....", ".##.", "...."], (1, 0), (2, 1, 4, 2), (1, 2)),
        ([], (0, 0), (0, 0, 0, 0), (0, 0)),
    ],
)
def test_extent(rows: list[str], origin: tuple[int, int], box: tuple[int, ...], shape: tuple[int, int]) -> None:
    mask = np.array([[letter == "#" for letter in row] for row in rows], bool).reshape(len(rows), -1 if rows else 0)
    found, crop = crop_to_extent(mask, origin)
    assert found == box
    assert crop.shape == shape
    assert crop.sum() == mask.sum()


def test_a_crop_is_a_copy() -> None:
    mask = np.ones((2, 2), bool)
    _, crop = crop_to_extent(mask)
    crop[:] = False
    assert mask.all()


def test_from_masks_and_back() -> None:
    found = example()
    np.testing.assert_array_equal(found.masks, masks())
    assert found.boxes.tolist() == [[2, 1, 5, 3], [5, 4, 6, 5], [0, 0, 0, 0], [0, 0, 6, 5]]
    assert found.areas.tolist() == [6, 1, 0, 30]
    assert found.original_hw == (5, 6)
    assert len(found) == 4
    assert (found.labels.dtype, found.scores.dtype, found.boxes.dtype) == (np.int64, np.float32, np.float32)


@pytest.mark.parametrize(
    ("categories", "names", "ids"),
    [
        (CATEGORIES, ("bar", "disc", "disc", "bar"), [42, 7, 7, 42]),
        ((), ("class 0", "class 1", "class 1", "class 0"), [0, 1, 1, 0]),
    ],
)
def test_names_and_ids(categories: tuple[Category, ...], names: tuple[str, ...], ids: list[int]) -> None:
    assert example(categories).class_names == names
    assert example(categories).category_ids.tolist() == ids


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (slice(None), [0, 1, 2, 3]),
        (slice(2), [0, 1]),
        (slice(None, None, -1), [3, 2, 1, 0]),
        ([2, 0], [2, 0]),
        (np.zeros(0, int), []),
        (np.array([True, False, False, True]), [0, 3]),
        (np.zeros(4, bool), []),
        (1, [1]),
        (-1, [3]),
        (np.array([3, 3]), [3, 3]),
    ],
)
def test_selection(index: Any, rows: list[int]) -> None:
    found = example()[index]
    assert len(found) == len(rows)
    np.testing.assert_array_equal(found.masks, masks()[rows].reshape(-1, 5, 6))
    assert found.labels.tolist() == [example().labels[row] for row in rows]
    assert found.scores.tolist() == [example().scores[row] for row in rows]
    assert found.boxes.shape == (len(rows), 4)
    assert (found.categories, found.original_hw) == (CATEGORIES, (5, 6))


@pytest.mark.parametrize("index", [4, [0, 9], np.ones(3, bool)])
def test_selection_outside(index: Any) -> None:
    with pytest.raises(IndexError):
        example()[index]


@pytest.mark.parametrize("found", [Instances.empty((5, 6)), example()[:0]])
def test_nothing(found: Instances) -> None:
    assert len(found) == 0
    assert found.masks.shape == (0, 5, 6)
    assert found.boxes.shape == (0, 4)
    assert found.areas.tolist() == []
    assert found.class_names == ()
    assert found.category_ids.tolist() == []
    assert (found.labels.dtype, found.scores.dtype, found.boxes.dtype) == (np.int64, np.float32, np.float32)


def test_empty_keeps_the_classes() -> None:
    assert Instances.empty((1, 1), CATEGORIES).categories == CATEGORIES


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(3, np.int64)}, "Instances.labels has shape (3,), expected (4,) for 4 crops"),
        ({"scores": np.zeros((4, 1), np.float32)}, "Instances.scores has shape (4, 1), expected (4,) for 4 crops"),
        ({"boxes": np.zeros(4, np.float32)}, "Instances.boxes has shape (4,), expected (4, 4) for 4 crops"),
        ({"crops": ()}, "Instances.labels has shape (4,), expected (0,) for 0 crops"),
    ],
)
def test_parts_of_other_lengths_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="Instances") as error:
        dataclasses.replace(example(), **change)
    assert str(error.value) == message


@pytest.mark.parametrize("value", [example(), Category(1, "a"), Frame((1, 1), (1, 1), (32, 32))])
def test_values_are_frozen(value: Any) -> None:
    field = dataclasses.fields(value)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, field, None)
