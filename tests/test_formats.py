import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from solov2.errors import DatasetError
from solov2.formats import Row, decode_rle, encode_rle, from_coco_results, rows, to_coco_results
from solov2.structures import Category, Instances

# pycocotools 2.0.11 hands numpy 2 an array without the copy keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CATEGORIES = (Category(3, "cat"), Category(17, "dog"))


def grid(*lines):
    return np.array([[character == "#" for character in line] for line in lines])


MASKS = {
    "empty": grid("....", "....", "...."),
    "full": grid("####", "####", "####"),
    "first pixel": grid("#...", "....", "...."),
    "last pixel": grid("....", "....", "...#"),
    "runs across columns": grid(".##.", ".##.", "..#."),
    "full columns inside": grid(".##.", ".##.", ".##."),
    "hole": grid("####", "#..#", "####"),
    "two parts": grid("#..#", "....", "#..#"),
    "one row": grid("#.##"),
    "one column": grid("#", ".", "#"),
    "one pixel picture": grid("#"),
}


def instances_of(*masks, labels=None, scores=None, categories=CATEGORIES):
    count = len(masks)
    stack = np.array(masks) if count else np.zeros((0, 3, 4), bool)
    labels = [0] * count if labels is None else labels
    scores = np.linspace(0.9, 0.1, count) if scores is None else scores
    return Instances.from_masks(stack, labels, scores, categories)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_rle_equals_pycocotools_and_returns(mask):
    (rle,) = encode_rle(instances_of(mask))
    reference = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert rle == {"size": list(mask.shape), "counts": reference["counts"].decode()}
    np.testing.assert_array_equal(decode_rle(rle), mask)


def test_rle_of_random_masks_equals_pycocotools():
    generator = np.random.default_rng(5)
    for _ in range(100):
        height, width = generator.integers(1, 60, 2)
        masks = generator.random((3, height, width)) < generator.choice([0.02, 0.5, 0.98])
        for mask, rle in zip(masks, encode_rle(instances_of(*masks)), strict=True):
            assert rle["counts"].encode() == coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]


def test_rle_of_hand_written_runs():
    # down the columns: 2 zeros, 3 ones, 1 zero, ...
    assert decode_rle({"size": [2, 3], "counts": [2, 3, 1]}).tolist() == [[False, True, True], [False, True, False]]
    assert decode_rle({"size": [2, 2], "counts": [0, 4]}).all()


@pytest.mark.parametrize("as_bytes", [False, True])
def test_counts_may_be_text_or_bytes(as_bytes):
    (rle,) = encode_rle(instances_of(MASKS["hole"]))
    counts = rle["counts"].encode() if as_bytes else rle["counts"]
    np.testing.assert_array_equal(decode_rle({"size": rle["size"], "counts": counts}), MASKS["hole"])


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        ({"counts": "04"}, "not a COCO RLE"),
        ({"size": [2, 2]}, "not a COCO RLE"),
        ({"size": 4, "counts": [4]}, "not a COCO RLE"),
        ({"size": [2, 2], "counts": [1, 1]}, "add up to 2"),
        ({"size": [2, 2], "counts": [5, -1]}, "damaged COCO RLE"),
        ({"size": [2, 2], "counts": "0ooooo"}, "damaged COCO RLE"),
        ({"size": [2, 2], "counts": None}, "damaged COCO RLE"),
    ],
)
def test_what_is_no_rle_is_refused(rle, message):
    with pytest.raises(DatasetError, match=message):
        decode_rle(rle)


def test_result_records():
    found = instances_of(MASKS["two parts"], MASKS["empty"], labels=[1, 0], scores=[0.75, 0.5])
    first, second = to_coco_results(found, image_id=42)
    assert (first["image_id"], first["category_id"], first["score"]) == (42, 17, 0.75)
    assert first["bbox"] == [0.0, 0.0, 4.0, 3.0]
    assert (second["category_id"], second["bbox"]) == (3, [0.0, 0.0, 0.0, 0.0])
    assert [type(first[key]) for key in ("category_id", "score")] == [int, float]
    assert json.loads(json.dumps([first, second])) == [first, second]


def test_records_without_categories_carry_labels():
    (record,) = to_coco_results(instances_of(MASKS["hole"], labels=[7], categories=()), image_id=0)
    assert record["category_id"] == 7


def test_records_return_to_the_same_instances():
    found = instances_of(MASKS["hole"], MASKS["empty"], MASKS["last pixel"], labels=[1, 0, 1], scores=[0.9, 0.5, 0.4])
    back = from_coco_results(to_coco_results(found, 1)[::-1], found.original_hw, CATEGORIES)
    np.testing.assert_array_equal(back.masks, found.masks)
    np.testing.assert_array_equal(back.boxes, found.boxes)
    assert back.labels.tolist() == [1, 0, 1]
    assert back.scores.tolist() == found.scores.tolist()
    assert (back.labels.dtype, back.scores.dtype, back.boxes.dtype) == (np.int64, np.float32, np.float32)
    assert back.categories == CATEGORIES


def test_equal_scores_keep_their_order():
    found = instances_of(*[MASKS["hole"]] * 3, labels=[1, 0, 1], scores=[0.5, 0.5, 0.5])
    assert from_coco_results(to_coco_results(found, 1), (3, 4), CATEGORIES).labels.tolist() == [1, 0, 1]


def test_no_objects():
    none = instances_of()
    assert (encode_rle(none), to_coco_results(none, 1), rows(none)) == ([], [], [])
    back = from_coco_results([], (3, 4), CATEGORIES)
    assert (len(back), back.masks.shape, back.boxes.shape) == (0, (0, 3, 4), (0, 4))


def test_polygons_without_score_are_annotations():
    record = {"image_id": 1, "category_id": 17, "segmentation": [[1, 0, 3, 0, 3, 2, 1, 2]]}
    found = from_coco_results([record], (3, 4), CATEGORIES)
    assert (found.scores.tolist(), found.labels.tolist()) == ([1.0], [1])
    np.testing.assert_array_equal(found.masks[0], grid(".##.", ".##.", "...."))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 2}, "records of 2 pictures"),
        ({"category_id": 5}, r"category ids \[5\]"),
        ({"segmentation": {"size": [4, 3], "counts": [12]}}, "4x3 .* expected the picture's 3x4"),
        ({"segmentation": None}, "'segmentation' is None"),
        ({"segmentation": []}, r"'segmentation' is \[\]"),
    ],
)
def test_records_that_do_not_fit_are_refused(change, message):
    records = to_coco_results(instances_of(MASKS["hole"], MASKS["full"]), 1)
    with pytest.raises(DatasetError, match=message):
        from_coco_results([records[0], {**records[1], **change}], (3, 4), CATEGORIES)


def test_rows():
    found = instances_of(MASKS["hole"], MASKS["last pixel"], labels=[0, 5], scores=[0.75, 0.5])
    assert rows(found) == [Row("cat", 0.75, (0, 0, 4, 3), 10), Row("class 5", 0.5, (3, 2, 4, 3), 1)]
