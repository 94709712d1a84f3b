"""Every defect of a COCO json is found, named and told together with the others."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from solov2.data.coco import CocoDataset, load_coco
from solov2.data.coco_checks import OUTSIDE_TOLERANCE, SHOWN, Problem, report
from solov2.errors import DatasetError
from solov2.rle import decompress

from .records import HW, SQUARE, annotation, compressed, picture, square_mask, uncompressed, without

Write = Callable[..., Path]


def opened(path: Path, **options: Any) -> CocoDataset:
    return CocoDataset(load_coco(path, path.parent), path.parent, **options)


DEFECTS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown picture": (
        annotation(10, image_id=99),
        "annotation 10: image_id 99 is no image of this file",
    ),
    "picture id that is a list": (
        annotation(10, image_id=[1]),
        "annotation 10: image_id [1] is no image of this file",
    ),
    "unknown class": (
        annotation(11, category_id=8),
        "annotation 11: category_id 8 is no category of this file",
    ),
    "no polygon": (
        annotation(12, segmentation=[]),
        "annotation 12 (1.png): empty polygon; expected at least three points x y",
    ),
    "empty polygon": (
        annotation(12, segmentation=[[]]),
        "annotation 12 (1.png): empty polygon; expected at least three points x y",
    ),
    "two points": (
        annotation(12, segmentation=[[1, 1, 2, 2]]),
        "annotation 12 (1.png): empty polygon; expected at least three points x y",
    ),
    "odd number of values": (
        annotation(12, segmentation=[[1, 1, 5, 5, 1, 5, 2]]),
        "annotation 12 (1.png): empty polygon; expected at least three points x y",
    ),
    "polygon without its list": (
        annotation(12, segmentation=SQUARE),
        "annotation 12 (1.png): empty polygon; expected at least three points x y",
    ),
    "words for numbers": (
        annotation(13, segmentation=[["a"] * 6]),
        "annotation 13 (1.png): polygon with values that are no numbers",
    ),
    "points as pairs": (
        annotation(13, segmentation=[[[4, 4], [12, 4], [12, 12], [4, 12], [4, 5], {}]]),
        "annotation 13 (1.png): polygon with values that are no numbers",
    ),
    "NaN in a polygon": (
        annotation(14, segmentation=[[1, 1, float("nan"), 5, 1, 5]]),
        "annotation 14 (1.png): polygon with NaN",
    ),
    "infinite polygon": (
        annotation(14, segmentation=[[1, 1, float("inf"), 5, 1, 5]]),
        "annotation 14 (1.png): polygon with NaN",
    ),
    "no segmentation": (
        without(annotation(15), "segmentation"),
        "annotation 15 (1.png): segmentation is NoneType; expected polygons or run lengths",
    ),
    "run lengths of another size": (
        annotation(16, segmentation={"size": [30, 20], "counts": [600]}),
        "annotation 16 (1.png): run lengths of size [30, 20]; expected the picture's [20, 30]",
    ),
    "run lengths without a size": (
        annotation(16, segmentation={"counts": [600]}),
        "annotation 16 (1.png): run lengths of size None; expected the picture's [20, 30]",
    ),
    "run lengths too short": (
        annotation(17, segmentation={"size": [20, 30], "counts": [100, 20]}),
        "annotation 17 (1.png): run lengths add up to 120; expected 20·30 = 600",
    ),
    "negative run": (
        annotation(17, segmentation={"size": [20, 30], "counts": [700, -100]}),
        "annotation 17 (1.png): run lengths are damaged",
    ),
    "no runs": (
        annotation(18, segmentation={"size": [20, 30], "counts": []}),
        "annotation 18 (1.png): run lengths are missing",
    ),
    "runs that are null": (
        annotation(18, segmentation={"size": [20, 30], "counts": None}),
        "annotation 18 (1.png): run lengths are missing",
    ),
    "damaged compressed runs": (
        annotation(19, segmentation={"size": [20, 30], "counts": "\x01\x02"}),
        "annotation 19 (1.png): run lengths are damaged",
    ),
    "truncated compressed runs": (
        annotation(19, segmentation={"size": [20, 30], "counts": compressed(square_mask())["counts"][:-2]}),
        "annotation 19 (1.png): run lengths add up to",
    ),
    "empty box": (
        annotation(20, bbox=[4, 4, 0, 8]),
        "annotation 20 (1.png): box [4, 4, 0, 8] is empty; expected a width and a height above 0",
    ),
    "negative box": (
        annotation(20, bbox=[4, 4, 8, -8]),
        "annotation 20 (1.png): box [4, 4, 8, -8] is empty; expected a width and a height above 0",
    ),
    "polygon on a line without a box": (
        without(annotation(20, segmentation=[[1, 1, 5, 1, 9, 1]]), "bbox"),
        "annotation 20 (1.png): box [1.0, 1.0, 8.0, 0.0] is empty; expected a width and a height above 0",
    ),
    "box outside": (
        annotation(21, bbox=[25, 4, 8, 8]),
        "annotation 21 (1.png): box [25, 4, 8, 8] lies outside the picture of 30x20 (width x height)",
    ),
    "NaN in a box": (
        annotation(22, bbox=[4, float("nan"), 8, 8]),
        "annotation 22 (1.png): box [4, nan, 8, 8]; expected [x, y, width, height]",
    ),
    "words in a box": (
        annotation(22, bbox=["4", "4", "8", "8"]),
        "annotation 22 (1.png): box ['4', '4', '8', '8']; expected [x, y, width, height]",
    ),
    "box of three": (
        annotation(22, bbox=[4, 4, 8]),
        "annotation 22 (1.png): box [4, 4, 8]; expected [x, y, width, height]",
    ),
    "box that is null": (
        annotation(22, bbox=None),
        "annotation 22 (1.png): box None; expected [x, y, width, height]",
    ),
}


@pytest.mark.parametrize(("record", "message"), DEFECTS.values(), ids=DEFECTS)
def test_an_annotation_with_a_defect(
    write_coco: Write, caplog: pytest.LogCaptureFixture, record: dict[str, Any], message: str
) -> None:
    path = write_coco([picture()], [record, annotation(77)])
    (problem,) = load_coco(path, path.parent).problems
    assert problem.what.startswith(message)
    with pytest.raises(DatasetError) as error:
        opened(path, strict=True)
    assert str(error.value).startswith(f"{path}: 1 problem\n  {problem.kind}: 1\n    {message}")
    with caplog.at_level(logging.WARNING):
        assert len(opened(path)[0, 0].labels) == 1  # the good one
    (warning,) = caplog.messages
    assert warning.endswith("these are left out")
    assert message in warning


def test_boxes_may_stick_out_a_little(write_coco: Write) -> None:
    box = [-OUTSIDE_TOLERANCE, -OUTSIDE_TOLERANCE, HW[1] + 2 * OUTSIDE_TOLERANCE, HW[0] + 2 * OUTSIDE_TOLERANCE]
    assert load_coco(write_coco([picture()], [annotation(bbox=box)])).problems == ()


def test_all_defects_are_told_at_once(write_coco: Write, tmp_path: Path) -> None:
    pictures = [picture(number) for number in (1, 2, 3, 4)]
    path = write_coco(pictures, [record for record, _ in DEFECTS.values()])
    (tmp_path / "2.png").unlink()
    (tmp_path / "3.png").write_text("no picture")
    Image.new("RGB", (31, 20)).save(tmp_path / "4.png")
    with pytest.raises(DatasetError) as error:
        opened(path, strict=True)
    lines = str(error.value).splitlines()
    assert lines[0] == f"{path}: {len(DEFECTS) + 3} problems"
    kinds = [line.strip() for line in lines if line.startswith("  ") and not line.startswith("    ")]
    assert kinds == [
        "missing or unreadable picture: 2",
        "size mismatch: 1",
        "id that does not resolve: 3",
        "unusable segmentation: 18",
        "unusable box: 8",
    ]
    assert sum(line.startswith("    ") for line in lines) == len(DEFECTS) + 3
    assert f"    image 2: {tmp_path / '2.png'}: no such file; give the path of a picture" in lines
    assert any(line.startswith(f"    image 3: {tmp_path / '3.png'}: not a picture of a known format") for line in lines)
    assert "    image 4 (4.png): 20x30 in the json, 20x31 in the file" in lines


def test_annotations_of_a_picture_that_is_left_out_are_no_further_problem(write_coco: Write, tmp_path: Path) -> None:
    path = write_coco([picture(1), picture(2)], [annotation(1, image_id=1), annotation(2, image_id=2)])
    (tmp_path / "1.png").unlink()
    source = load_coco(path, tmp_path)
    assert [problem.kind for problem in source.problems] == ["missing or unreadable picture"]
    assert set(source.annotations) == {2}


def test_a_long_report_counts_the_rest() -> None:
    text = report(Path("a.json"), [Problem("odd", f"thing {number}") for number in range(SHOWN + 5)])
    assert text.splitlines()[:3] == [f"a.json: {SHOWN + 5} problems", f"  odd: {SHOWN + 5}", "    thing 0"]
    assert text.splitlines()[-1] == "    … and 5 more"
    assert len(text.splitlines()) == 2 + SHOWN + 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read as json (Expecting value"),
        ("{", "cannot be read as json (Expecting property name"),
        ("[]", "a json list; expected an object with images and categories"),
        ("3", "a json int; expected an object"),
        ("{}", "has no list 'images'; expected a COCO json for instance segmentation"),
        ('{"images": {}}', "has no list 'images'"),
        ('{"images": [], "annotations": []}', "has no list 'categories'"),
        ('{"images": [], "categories": []}', "'categories' is empty; expected at least one class"),
        ('{"images": [{"id": 1}], "categories": []}', "images[0] has no 'file_name'; expected id, file_name, height"),
        ('{"images": [7], "categories": []}', "images[0] has no 'id'"),
        ('{"images": [], "categories": [{"id": 1}]}', "categories[0] has no 'name'; expected id, name"),
        (
            '{"images": [], "categories": [{"id": 1, "name": "a"}], "annotations": [{"image_id": 1}]}',
            "annotations[0] has no 'category_id'; expected image_id, category_id",
        ),
        (
            '{"images": [], "categories": [{"id": 5, "name": "a"}, {"id": 5, "name": "b"}]}',
            "two categories have the id 5; expected ids that occur once",
        ),
        (
            '{"images": [], "categories": [{"id": "5", "name": "a"}]}',
            "categories have ids that are no whole numbers; expected integers",
        ),
        (
            '{"categories": [{"id": 1, "name": "a"}], "images": ['
            '{"id": 3, "file_name": "a", "height": 1, "width": 1}, '
            '{"id": 3, "file_name": "b", "height": 1, "width": 1}]}',
            "two images have the id 3",
        ),
    ],
)
def test_what_is_no_coco_json(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DatasetError) as error:
        load_coco(path)
    assert str(error.value).startswith(f"{path}: {message}")
    assert "\n" not in str(error.value)


def test_no_json_at_all(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"a\.json: no such file; expected a COCO json"):
        load_coco(tmp_path / "a.json")
    with pytest.raises(DatasetError, match=r"cannot be read as json .*directory"):
        load_coco(tmp_path)
    (tmp_path / "b.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(DatasetError, match=r"b\.json: cannot be read as json .*utf-8"):
        load_coco(tmp_path / "b.json")


@pytest.mark.parametrize("seed", range(20))
def test_compressed_run_lengths(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hw = (int(rng.integers(1, 300)), int(rng.integers(1, 300)))
    mask = (rng.random(hw) < rng.choice([0.0, 0.001, 0.5, 1.0])).astype(np.uint8)
    assert decompress(compressed(mask)["counts"]) == uncompressed(mask)["counts"]


@pytest.mark.parametrize("text", ["\x01\x02", "ééé", "P", "0P", "P" * 40 + "0", "\x7f0"])
def test_damaged_compressed_run_lengths(text: str) -> None:
    assert decompress(text) is None
