"""Pictures that were annotated for some categories only, from the json to the batch."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from solov2.data.coco import CocoDataset, load_coco
from solov2.data.collate import collate
from solov2.data.copy_paste import CopyPaste, paste
from solov2.data.crop import RandomCrop
from solov2.data.sample import Sample
from solov2.data.transforms import (
    LargeScaleJitter,
    RandomDistort,
    RandomFlip,
    RandomResize,
    RandomRotate90,
    Resize,
    Transform,
)
from solov2.errors import DatasetError
from solov2.structures import Category

from .marked import rng
from .records import annotation, picture, square_mask, uncompressed

Write = Callable[..., Path]
THREE = ((42, "bar"), (7, "disc"), (9, "ring"))


def opened(path: Path, **options: Any) -> CocoDataset:
    return CocoDataset(load_coco(path, path.parent), path.parent, **options)


def known_of(sample: Sample) -> list[bool] | None:
    return None if sample.known is None else sample.known.tolist()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"labelled_categories": "all"}, None),
        ({"labelled_categories": "disc,ring"}, [False, True, True]),
        ({"labelled_categories": [42]}, [True, False, False]),  # its disc is an instance all the same
        ({"labelled_categories": []}, [False, False, False]),
        ({"neg_category_ids": [9], "not_exhaustive_category_ids": []}, [False, True, True]),
        ({"neg_category_ids": [9], "not_exhaustive_category_ids": [7]}, [False, False, True]),
    ],
)
def test_samples_carry_what_is_known(write_coco: Write, fields: dict[str, Any], expected: list[bool] | None) -> None:
    path = write_coco([picture(1, **fields), picture(2)], [annotation()], THREE)
    dataset = opened(path, strict=True)
    assert known_of(dataset[0, 0]) == expected
    assert dataset[0, 0].labels.tolist() == [1]
    assert dataset[0, 1].known is None
    targets = collate([dataset[0, 0], dataset[0, 1]], with_targets=True).targets
    assert (None if targets[0].known is None else targets[0].known.tolist()) == expected
    assert targets[1].known is None
    assert opened(path, with_annotations=False)[0, 0].known is None


def test_a_category_of_unusable_annotations_does_not_occur(write_coco: Write) -> None:
    crowd = annotation(2, category_id=42, iscrowd=1, segmentation=uncompressed(square_mask()))
    broken = annotation(3, category_id=9, segmentation=[])
    path = write_coco([picture(1, neg_category_ids=[])], [annotation(), crowd, broken], THREE)
    assert load_coco(path).known == {1: frozenset({7, 42})}


def test_labels_follow_the_models_classes(write_coco: Write) -> None:
    path = write_coco([picture(1, labelled_categories="disc")], [annotation()], THREE[:2])
    model = (Category(7, "disc"), Category(42, "bar"), Category(50, "rod"))
    assert known_of(opened(path, categories=model)[0, 0]) == [True, False, False]


def test_the_ground_truth_says_what_is_known(write_coco: Write) -> None:
    broken = annotation(3, category_id=9, segmentation=[])
    images = [picture(1, neg_category_ids=[]), picture(2), picture(3, labelled_categories="all")]
    truth = opened(write_coco(images, [annotation(), broken], THREE)).ground_truth()
    assert truth["images"] == [images[0] | {"labelled_categories": [7]}, *images[1:]]


def test_unknown_labels_are_a_problem_like_others(write_coco: Write, caplog: pytest.LogCaptureFixture) -> None:
    bad = picture(2, labelled_categories="disk", neg_category_ids=[1])
    path = write_coco([picture(1), bad, picture(3, neg_category_ids=[8])], [annotation(), annotation(2, image_id=2)])
    source = load_coco(path, path.parent)
    expected = (
        "image 2 (2.png): labelled_categories has 'disk', no category of this file (did you mean 'disc'?); "
        "expected 'all', or names or ids of the file's categories"
    )
    assert [problem.what for problem in source.problems] == [
        expected,
        "image 3 (3.png): neg_category_ids has 8, no category of this file; expected ids of its categories",
    ]
    assert {problem.kind for problem in source.problems} == {"unreadable labelled categories"}
    assert [image["id"] for image in source.images] == [1]
    assert set(source.annotations) == {1}
    with pytest.raises(DatasetError, match="unreadable labelled categories: 2"):
        opened(path, strict=True)
    assert len(opened(path)) == 1
    assert expected in caplog.text


TRANSFORMS: list[Transform] = [
    Resize((40, 60)),
    RandomResize(((20, 90), (24, 90))),
    RandomFlip(1.0, 1.0),
    RandomRotate90(1.0),
    RandomDistort(),
    RandomCrop(),
    LargeScaleJitter((32, 32)),
    CopyPaste(1.0),
]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda transform: type(transform).__name__)
def test_transforms_carry_what_is_known(write_coco: Write, transform: Transform) -> None:
    path = write_coco([picture(1, labelled_categories="disc")], [annotation()])
    sample = opened(path)[0, 0]
    assert known_of(transform(sample, rng())) == [True, False]


def test_what_is_known_travels_to_worker_processes(write_coco: Write) -> None:
    path = write_coco([picture(1, labelled_categories="disc")], [annotation()])
    batch = pickle.loads(pickle.dumps(collate([opened(path)[0, 0]], with_targets=True)))
    assert batch.targets[0].known.tolist() == [True, False]


A, B, BOTH = [True, True, False], [False, True, True], [False, True, False]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(None, None, None), (A, None, A), (None, B, B), (A, B, BOTH), ([False] * 3, A, [False] * 3)],
)
def test_pasting_leaves_known_what_both_pictures_know(
    write_coco: Write, first: list[bool] | None, second: list[bool] | None, expected: list[bool] | None
) -> None:
    path = write_coco([picture(1), picture(2)], [annotation(1), annotation(2, image_id=2, category_id=42)])
    dataset = opened(path)
    here, there = (
        replace(dataset[0, index], known=None if known is None else np.array(known))
        for index, known in enumerate((first, second))
    )
    mixed = paste(here, there, [0])
    assert mixed.labels.tolist() == [1]  # it hides the one below and keeps its label
    assert known_of(mixed) == expected
    assert known_of(here) == first
    assert known_of(paste(here, there, [])) == first  # nothing came over


def test_a_large_data_set_of_either_form_reads_alike(write_coco: Write) -> None:
    path = write_coco(
        [picture(number, labelled_categories="disc" if number % 2 else "all") for number in range(1, 7)], [annotation()]
    )
    listed = json.loads(path.read_text())
    for image in listed["images"]:
        image["labelled_categories"] = [7] if image["id"] % 2 else [7, 42]
    known = load_coco(path).known
    assert known == {1: {7}, 3: {7}, 5: {7}}
    path.write_text(json.dumps(listed))
    assert load_coco(path).known == known
