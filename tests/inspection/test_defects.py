from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from solov2.data.coco import load_coco
from solov2.inspection.defects import find_suspicious

from ..data.records import SQUARE, annotation, compressed, picture, square_mask, uncompressed

Write = Callable[..., Path]


def found(write_coco: Write, *annotations: dict[str, Any]) -> list[tuple[str, str]]:
    file = load_coco(write_coco([picture(1), picture(2)], annotations, pictures=False))
    assert file.problems == ()
    return [(problem.kind, problem.what) for problem in find_suspicious(file)]


@pytest.mark.parametrize("segmentation", [[SQUARE], compressed(square_mask()), uncompressed(square_mask())])
@pytest.mark.parametrize(
    ("box", "wrong"),
    [
        ([4, 4, 8, 8], False),
        ([3, 3, 10, 10], False),  # 64 of 100 pixels in common
        ([4, 4, 8, 16], False),  # exactly half
        ([4, 4, 12, 12], True),  # corners taken for width and height
        ([20, 4, 8, 8], True),  # beside it
    ],
)
def test_boxes_that_are_not_around_their_object(
    write_coco: Write, segmentation: Any, box: list[int], wrong: bool
) -> None:
    problems = found(write_coco, annotation(5, segmentation=segmentation, bbox=box))
    expected = f"annotation 5 (1.png): box {box}; its segmentation spans [4, 4, 8, 8] (x, y, width, height)"
    assert problems == ([("box that is not around its segmentation", expected)] if wrong else [])


def test_objects_annotated_twice(write_coco: Write) -> None:
    problems = found(
        write_coco,
        annotation(1),
        annotation(2, category_id=42),  # another class
        annotation(3, image_id=2),  # another picture
        annotation(4),
        annotation(5),
    )
    assert problems == [
        ("object annotated twice", "annotation 4 (1.png): same class and segmentation as annotation 1"),
        ("object annotated twice", "annotation 5 (1.png): same class and segmentation as annotation 1"),
    ]


def test_ids_that_occur_twice(write_coco: Write) -> None:
    other = annotation(1, image_id=2)
    problems = found(write_coco, annotation(1), other, annotation(2, image_id=2, category_id=42))
    kind = "id that occurs twice"
    assert problems == [(kind, "annotation 1 (1.png): 2 times"), (kind, "annotation 1 (2.png): 2 times")]


def test_annotations_without_an_id(write_coco: Write) -> None:
    records = [annotation(1, category_id=category) for category in (7, 42)]
    for record in records:
        del record["id"]
    assert found(write_coco, *records) == []


def test_crowds_are_left_alone(write_coco: Write) -> None:
    crowd = annotation(1, iscrowd=1, segmentation=uncompressed(square_mask()), bbox=[0, 0, 1, 1])
    assert found(write_coco, crowd) == []
