from dataclasses import replace

import numpy as np
import pytest

from solov2.data.copy_paste import CopyPaste, paste
from solov2.data.sample import PairTransform, Sample
from solov2.data.shapes import Bitmap, Polygons, Shape
from solov2.data.transforms import RandomFlip

from .marked import check_alignment, marked, rng

RED, BLUE, GREEN = (255, 0, 0), (0, 0, 255), (0, 255, 0)
Box = tuple[int, int, int, int]


def rectangle(box: Box, *, polygon: bool = True) -> Shape:
    x0, y0, x1, y1 = box
    if polygon:
        return Polygons((np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], float),))
    return Bitmap(np.ones((y1 - y0, x1 - x0), np.uint8), y0, x0)


def boxed(
    boxes: list[Box],
    color: tuple[int, int, int],
    hw: tuple[int, int] = (40, 60),
    label: int = 0,
    *,
    polygon: bool = True,
) -> Sample:
    """A black picture with filled rectangles, each an instance."""
    image = np.zeros((*hw, 3), np.uint8)
    for x0, y0, x1, y1 in boxes:
        image[max(y0, 0) : y1, max(x0, 0) : x1] = color
    return Sample(
        image=image,
        original_hw=hw,
        image_id=1,
        name="boxed",
        labels=np.full(len(boxes), label, np.int64),
        boxes=np.array(boxes, np.float64).reshape(-1, 4),
        shapes=tuple(rectangle(box, polygon=polygon) for box in boxes),
    )


def pixels(sample: Sample, row: int) -> np.ndarray:
    mask = np.zeros(sample.hw, bool)
    bitmap = sample.shapes[row].bitmap(sample.hw)
    height, width = bitmap.pixels.shape
    mask[bitmap.top : bitmap.top + height, bitmap.left : bitmap.left + width] = bitmap.pixels
    return mask


@pytest.mark.parametrize("below", [True, False])
@pytest.mark.parametrize("above", [True, False])
def test_covered_pixels_change_hands(below: bool, above: bool) -> None:
    first = boxed([(4, 4, 24, 24)], RED, label=0, polygon=below)
    second = boxed([(14, 10, 34, 30)], BLUE, label=1, polygon=above)
    mixed = paste(first, second, [0])
    assert mixed.labels.tolist() == [0, 1]
    np.testing.assert_array_equal(pixels(mixed, 0), (mixed.image == RED).all(axis=2))
    np.testing.assert_array_equal(pixels(mixed, 1), (mixed.image == BLUE).all(axis=2))
    assert mixed.boxes.tolist() == [[4, 4, 24, 24], [14, 10, 34, 30]]
    assert pixels(mixed, 0).sum() == 400 - 140
    assert isinstance(mixed.shapes[0], Bitmap)


def test_a_box_shrinks_to_what_is_left() -> None:
    mixed = paste(boxed([(4, 4, 24, 24)], RED), boxed([(14, 0, 34, 30)], BLUE), [0])
    assert mixed.boxes.tolist() == [[4, 4, 14, 24], [14, 0, 34, 30]]


def test_what_is_not_covered_stays_what_it_is() -> None:
    first = boxed([(4, 4, 14, 14), (30, 30, 38, 38)], RED)
    mixed = paste(first, boxed([(40, 4, 50, 14)], BLUE), [0])
    assert mixed.shapes[0] is first.shapes[0]
    assert mixed.shapes[1] is first.shapes[1]
    assert mixed.boxes[:2].tolist() == first.boxes.tolist()
    np.testing.assert_array_equal((mixed.image == RED).all(axis=2), (first.image == RED).all(axis=2))


@pytest.mark.parametrize(("edge", "left"), [(24, 0), (23, 0), (22, 1), (21, 1)])
def test_hidden_instances_are_dropped(edge: int, left: int) -> None:
    """Of 20 columns, 0 and 1 are less than a tenth and 2 are one."""
    mixed = paste(boxed([(4, 4, 24, 24)], RED), boxed([(0, 0, edge, 30)], BLUE, label=1), [0])
    assert mixed.labels.tolist() == [0] * left + [1]
    assert len(mixed.shapes) == len(mixed.boxes) == left + 1


def test_bounding_boxes_that_meet_are_no_cover() -> None:
    triangle = Polygons((np.array([(4, 4), (24, 4), (4, 24)], float),))
    first = replace(boxed([(4, 4, 24, 24)], RED), shapes=(triangle,))
    mixed = paste(first, boxed([(20, 20, 28, 28)], BLUE), [0])
    assert mixed.shapes[0] is triangle


@pytest.mark.parametrize(
    ("box", "source_hw", "expected"),
    [
        ((70, 50, 90, 60), (80, 100), (40, 30, 60, 40)),  # moved as little as it takes
        ((70, 5, 90, 15), (80, 100), (40, 5, 60, 15)),
        ((10, 5, 90, 15), (80, 100), (0, 5, 60, 15)),  # wider than the picture: cut
        ((0, 0, 100, 80), (80, 100), (0, 0, 60, 40)),
    ],
)
def test_a_picture_of_another_size(box: Box, source_hw: tuple[int, int], expected: Box) -> None:
    mixed = paste(boxed([], RED), boxed([box], BLUE, source_hw), [0])
    assert mixed.boxes.tolist() == [list(expected)]
    np.testing.assert_array_equal(pixels(mixed, 0), (mixed.image == BLUE).all(axis=2))
    assert mixed.hw == (40, 60)


def test_pasted_together_they_keep_their_places() -> None:
    source = boxed([(60, 10, 80, 30), (70, 20, 90, 40)], BLUE, (50, 100))
    source.image[20:40, 70:90] = GREEN
    mixed = paste(boxed([], RED), source, [0, 1])
    assert mixed.boxes.tolist() == [[30, 10, 50, 30], [40, 20, 60, 40]]
    np.testing.assert_array_equal(pixels(mixed, 1), (mixed.image == GREEN).all(axis=2))
    assert pixels(mixed, 0).sum() == 400  # annotated masks overlap; pasting does not judge them


def test_a_speck_of_what_is_pasted_is_left_out() -> None:
    source = boxed([(0, 0, 50, 20), (45, 0, 95, 20)], BLUE, (40, 100))
    mixed = paste(boxed([], RED), source, [0, 1])
    assert mixed.boxes.tolist() == [[0, 0, 50, 20], [45, 0, 60, 20]]
    far = boxed([(0, 0, 55, 20), (56, 0, 156, 20)], BLUE, (40, 200))
    assert paste(boxed([], RED), far, [0, 1]).boxes.tolist() == [[0, 0, 55, 20]]  # 4 of the other's 100 columns


def test_what_lies_outside_its_picture_is_not_pasted() -> None:
    source = boxed([(50, 10, 75, 20)], BLUE, (40, 60))  # as a crop leaves polygons behind
    mixed = paste(boxed([], RED, (40, 90)), source, [0])
    assert mixed.boxes.tolist() == [[50, 10, 60, 20]]
    np.testing.assert_array_equal(pixels(mixed, 0), (mixed.image == BLUE).all(axis=2))


def test_an_instance_without_pixels_is_not_pasted() -> None:
    source = replace(boxed([(1, 1, 2, 2)], BLUE), shapes=(Bitmap(np.zeros((0, 0), np.uint8), 0, 0),))
    first = boxed([(4, 4, 24, 24)], RED)
    assert paste(first, source, [0]) is first


def test_inputs_are_not_changed() -> None:
    first, second = boxed([(4, 4, 24, 24)], RED), boxed([(14, 10, 34, 30)], BLUE)
    paste(first, second, [0])
    np.testing.assert_array_equal(first.image, boxed([(4, 4, 24, 24)], RED).image)
    np.testing.assert_array_equal(second.image, boxed([(14, 10, 34, 30)], BLUE).image)


def test_marked_objects_stay_marked() -> None:
    """The pasted object is exactly its red pixels, from a bitmap and from a polygon."""
    source = marked()
    for row in (0, 1):
        check_alignment(paste(Sample.of_image(np.zeros((64, 96, 3), np.uint8)), source, [row]))


@pytest.mark.parametrize("count", [1, 3, 100])
def test_as_many_as_allowed(count: int) -> None:
    source = boxed([(10 * number, 0, 10 * number + 8, 8) for number in range(6)], BLUE)
    step = CopyPaste(1.0, count)
    found = {len(step.pair(boxed([], RED), rng(seed), lambda: source).shapes) for seed in range(60)}
    assert found == set(range(1, min(count, 6) + 1))


def test_a_second_picture_is_read_only_where_it_is_needed() -> None:
    def other() -> Sample:
        raise AssertionError

    sample = marked()
    assert CopyPaste(0.0).pair(sample, rng(), other) is sample
    assert CopyPaste(1.0)(sample, rng()) is sample


def test_from_a_picture_without_objects_nothing_is_pasted() -> None:
    sample = marked()
    assert CopyPaste(1.0).pair(sample, rng(), lambda: boxed([], BLUE)) is sample


def test_only_it_asks_for_a_second_picture() -> None:
    assert isinstance(CopyPaste(), PairTransform)
    assert not isinstance(RandomFlip(), PairTransform)
