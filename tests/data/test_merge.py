"""Several annotation files as one data set."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from solov2.data.coco import CocoDataset, CocoFile, load_coco
from solov2.data.merge import merge
from solov2.errors import DatasetError
from solov2.structures import Category

from .records import annotation, picture, without

Write = Callable[..., Path]


def merged(*paths: Path) -> CocoFile:
    return merge([load_coco(path, path.parent) for path in paths], [path.parent for path in paths])


@pytest.fixture
def first(write_coco: Write) -> Path:
    return write_coco(
        [picture(1), picture(5)], [annotation(1), annotation(2, image_id=5, category_id=42)], name="a.json"
    )


def test_one_file_stays_as_it_is(first: Path) -> None:
    file = load_coco(first)
    assert merge([file], [first.parent]) is file


def test_two_files_in_one_folder(first: Path, write_coco: Write) -> None:
    second = write_coco([picture(3), picture(4)], [annotation(7, image_id=3)], name="b.json")
    file = merged(first, second)
    assert [image["id"] for image in file.images] == [1, 3, 4, 5]
    assert [image["file_name"] for image in file.images] == ["1.png", "3.png", "4.png", "5.png"]
    assert {image: [a["id"] for a in records] for image, records in file.annotations.items()} == {
        1: [1], 3: [7], 4: [], 5: [2]
    }  # fmt: skip
    assert file.categories == (Category(7, "disc"), Category(42, "bar"))
    assert (file.known, file.problems, file.path) == ({}, (), first)
    dataset = CocoDataset(file, first.parent, strict=True)
    assert [dataset[0, index].image_id for index in range(4)] == [1, 3, 4, 5]
    assert dataset[0, 3].labels.tolist() == [1]


def test_categories_in_another_order(first: Path, write_coco: Write) -> None:
    second = write_coco([picture(3)], [annotation(9, image_id=3)], ((42, "bar"), (7, "disc")), name="b.json")
    file = merged(first, second)
    assert file.known == {}
    assert CocoDataset(file, first.parent)[0, 1].labels.tolist() == [0]


def test_a_folder_each(first: Path, write_coco: Write) -> None:
    (first.parent / "more").mkdir()
    second = write_coco([picture(3, file_name="more/1.png")], [annotation(9, image_id=3)], name="b.json")
    data = json.loads(second.read_text())
    data["images"][0]["file_name"] = "1.png"  # as in the first folder, and another picture
    second = first.parent / "more" / "b.json"
    second.write_text(json.dumps(data))
    file = merged(first, second)
    dataset = CocoDataset(file, first.parent, strict=True)
    assert len(dataset) == 3
    expected = CocoDataset(load_coco(second, second.parent), second.parent)[0, 0]
    assert dataset[0, 1].image.tobytes() == expected.image.tobytes() != dataset[0, 0].image.tobytes()
    assert Path(dataset[0, 1].name).name == "1.png"


def test_annotation_ids_that_collide_are_renumbered(first: Path, write_coco: Write) -> None:
    records = [annotation(n, image_id=3, note=n) for n in (2, 30, 1, 2)] + [
        without(annotation(image_id=4), "id"),
        annotation(5, image_id=4) | {"id": "x"},
    ]
    second = write_coco([picture(3), picture(4)], records, name="b.json")
    third = write_coco([picture(6)], [annotation(30, image_id=6), annotation(31, image_id=6)], name="c.json")
    file = merged(first, second, third)
    found = {image: [a.get("id") for a in records] for image, records in file.annotations.items()}
    # those of id 2 are one another's repetition before and after: data check tells
    assert found == {1: [1], 5: [2], 3: [33, 30, 32, 33], 4: [None, "x"], 6: [34, 31]}
    assert [a["note"] for a in file.annotations[3]] == [2, 30, 1, 2]
    assert load_coco(second).annotations[3][0]["id"] == 2


def test_a_file_of_fewer_categories_knows_only_these(
    first: Path, write_coco: Write, caplog: pytest.LogCaptureFixture
) -> None:
    images = [
        picture(3),
        picture(4, labelled_categories="all"),  # that its file has
        picture(6, labelled_categories=[]),
    ]
    second = write_coco(images, [annotation(9, image_id=3)], ((7, "disc"),), name="b.json")
    with caplog.at_level(logging.INFO):
        file = merged(first, second)
    assert file.known == {3: {7}, 4: {7}, 6: set()}
    assert f"{second} has 1 of the 2 categories of {first}: its pictures count as labelled for these" in caplog.text
    dataset = CocoDataset(file, first.parent)
    stated = [image.get("labelled_categories") for image in dataset.ground_truth()["images"]]
    assert stated == [None, [7], [7], None, []]  # so that evaluation knows it as well
    known = [dataset[0, index].known for index in range(5)]
    assert [None if row is None else row.tolist() for row in known] == [
        None,
        [True, False],
        [True, False],
        None,
        [False, False],
    ]


def test_what_is_known_is_kept(write_coco: Write) -> None:
    paths = [
        write_coco([picture(number, labelled_categories=name)], name=f"{number}.json")
        for number, name in ((1, "disc"), (2, "bar"), (3, "all"))
    ]
    assert merged(*paths).known == {1: {7}, 2: {42}}


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        (((7, "disc"), (8, "cone")), "category 8 ('cone') is none of the 2 of"),
        (((7, "Disc"),), "category 7 ('Disc') is none of the 2 of"),
        (((8, "disc"),), "category 8 ('disc') is none of the 2 of"),
    ],
)
def test_other_categories_are_refused(
    first: Path, write_coco: Write, categories: tuple[tuple[int, str], ...], message: str
) -> None:
    second = write_coco([picture(3)], categories=categories, name="b.json")
    with pytest.raises(DatasetError) as error:
        merged(first, second)
    assert str(error.value) == (
        f"{second}: {message} {first} (7 'disc', 42 'bar'); expected the same ids and names, or some of them: "
        "name the file with all categories first"
    )


@pytest.mark.parametrize(
    ("images", "here", "there", "counts"),
    [
        (
            [picture(3), picture(5), picture(9, file_name="1.png")],
            "image 5 (5.png, 1 annotation)",
            "image 5 (5.png, 1 annotation)",
            "shared picture files: 2, shared ids: 1",
        ),
        (
            [picture(9, file_name="1.png")],
            "image 9 (1.png, 0 annotations)",
            "image 1 (1.png, 1 annotation)",
            "shared picture files: 1, shared ids: 0",
        ),
        (
            [picture(5, file_name="x.png")],
            "image 5 (x.png, 1 annotation)",
            "image 5 (5.png, 1 annotation)",
            "shared picture files: 0, shared ids: 1",
        ),
    ],
)
def test_a_picture_in_two_files_is_named(
    first: Path, write_coco: Write, images: list[dict[str, Any]], here: str, there: str, counts: str
) -> None:
    second = write_coco(images, [annotation(1, image_id=5)], name="b.json")
    with pytest.raises(DatasetError) as error:
        merged(first, second)
    relation = "has the same id as" if "files: 0" in counts else "is the same picture as"
    assert str(error.value) == (
        f"{second}: {here} {relation} {first}: {there}; {counts}; "
        "leave a picture that is in both out of one file, and give different pictures different ids"
    )


def test_the_third_file_is_compared_with_both(first: Path, write_coco: Write) -> None:
    second = write_coco([picture(3)], name="b.json")
    third = write_coco([picture(4), picture(8, file_name="3.png")], name="c.json")
    with pytest.raises(DatasetError, match=r"c\.json: image 8 \(3\.png, 0 annotations\) is the .*b\.json: image 3"):
        merged(first, second, third)


def test_problems_name_their_file(first: Path, write_coco: Write) -> None:
    second = write_coco([picture(3)], [annotation(9, image_id=3, segmentation=[])], name="b.json")
    (problem,) = merged(first, second).problems
    assert problem.what.startswith("b.json: annotation 9 (3.png): empty polygon")
