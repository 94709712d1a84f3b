"""What a picture's record says about the categories it was annotated for."""

from typing import Any

import pytest

from solov2.labelled import Labels

NAMES = {1: "person", 3: "car", 7: "dog", 9: "salt, pepper", 11: "dog"}
EVERY = None


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({}, EVERY),
        ({"labelled_categories": "all"}, EVERY),
        ({"labelled_categories": " all "}, EVERY),
        ({"labelled_categories": "person"}, {1}),
        ({"labelled_categories": "person, car"}, {1, 3}),
        ({"labelled_categories": "dog"}, {7, 11}),  # two categories of one name
        ({"labelled_categories": "salt, pepper"}, {9}),
        ({"labelled_categories": "person,dog,car"}, {1, 3, 7, 11}),
        ({"labelled_categories": []}, set()),
        ({"labelled_categories": ["salt, pepper", 3, "car"]}, {9, 3}),
        ({"labelled_categories": [1, 3, 7, 9, 11]}, EVERY),
        ({"neg_category_ids": [3], "not_exhaustive_category_ids": []}, {1, 3, 7}),
        ({"neg_category_ids": [3], "not_exhaustive_category_ids": [7]}, {1, 3}),
        ({"neg_category_ids": []}, {1, 7}),
        ({"neg_category_ids": [3, 9, 11]}, EVERY),
        ({"not_exhaustive_category_ids": [7]}, {1, 3, 9, 11}),
        ({"not_exhaustive_category_ids": []}, EVERY),
        ({"labelled_categories": "all", "neg_category_ids": [3]}, EVERY),
        ({"labelled_categories": "car", "neg_category_ids": [7]}, {3}),
    ],
)
def test_known_categories(record: dict[str, Any], expected: set[int] | None) -> None:
    assert Labels(NAMES).known(record, {1, 7}) == expected


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {"labelled_categories": "persn,car"},
            "labelled_categories has 'persn', no category of this file (did you mean 'person'?); "
            "expected 'all', or names or ids of the file's categories",
        ),
        (
            {"labelled_categories": ""},
            "labelled_categories has '', no category of this file; "
            "expected 'all', or names or ids of the file's categories",
        ),
        (
            {"labelled_categories": [1, 2]},
            "labelled_categories has 2, no category of this file; "
            "expected 'all', or names or ids of the file's categories",
        ),
        (
            {"labelled_categories": [True]},
            "labelled_categories has True, no category of this file; "
            "expected 'all', or names or ids of the file's categories",
        ),
        (
            {"labelled_categories": [[1]]},
            "labelled_categories has [1], no category of this file; "
            "expected 'all', or names or ids of the file's categories",
        ),
        (
            {"labelled_categories": None},
            "labelled_categories is None; expected 'all', or names or ids of the file's categories",
        ),
        (
            {"labelled_categories": 1},
            "labelled_categories is 1; expected 'all', or names or ids of the file's categories",
        ),
        ({"neg_category_ids": "car"}, "neg_category_ids is 'car'; expected a list of category ids"),
        (
            {"neg_category_ids": [1, 2]},
            "neg_category_ids has 2, no category of this file; expected ids of its categories",
        ),
        (
            {"not_exhaustive_category_ids": ["car"]},
            "not_exhaustive_category_ids has 'car', no category of this file; expected ids of its categories",
        ),
        (
            {"not_exhaustive_category_ids": [{}]},
            "not_exhaustive_category_ids has {}, no category of this file; expected ids of its categories",
        ),
    ],
)
def test_what_cannot_be_read(record: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011  # the whole text is compared
        Labels(NAMES).known(record, set())
    assert str(error.value) == message
