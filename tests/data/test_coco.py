import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle_codec

from solov2.data.coco import CocoDataset, CocoFile, load_coco, match_categories, shape_of
from solov2.data.coco_checks import OUTSIDE_TOLERANCE, SHOWN, Problem, decompress, report
from solov2.data.shapes import Bitmap, Polygons
from solov2.data.transforms import RandomFlip, RandomResize
from solov2.errors import DatasetError, ImageError
from solov2.structures import Category

Write = Callable[..., Path]

HW = (20, 30)
SQUARE = [4, 4, 12, 4, 12, 12, 4, 12]
UNSORTED = ((42, "bar"), (7, "disc"))


def picture(number: int = 1, hw: tuple[int, int] = HW, **fields: Any) -> dict[str, Any]:
    return {"id": number, "file_name": f"{number}.png", "height": hw[0], "width": hw[1], **fields}


def annotation(number: int = 1, **fields: Any) -> dict[str, Any]:
    usual = {"id": number, "image_id": 1, "category_id": 7, "segmentation": [SQUARE], "bbox": [4, 4, 8, 8]}
    return {**usual, **fields}


def without(record: dict[str, Any], *fields: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in fields}


def compressed(mask: np.ndarray[Any, Any]) -> dict[str, Any]:
    rle = rle_codec.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


def square_mask(hw: tuple[int, int] = HW) -> np.ndarray[Any, Any]:
    mask = np.zeros(hw, np.uint8)
    mask[4:12, 4:12] = 1
    return mask


def uncompressed(mask: np.ndarray[Any, Any]) -> dict[str, Any]:
    flat = np.concatenate([[0], mask.T.ravel(), [1 - mask.T.ravel()[-1]]])
    turns = np.flatnonzero(np.diff(flat))
    return {"size": list(mask.shape), "counts": np.diff(np.concatenate([[0], turns])).tolist()}


def opened(path: Path, **options: Any) -> CocoDataset:
    return CocoDataset(load_coco(path, path.parent), path.parent, **options)


@pytest.mark.parametrize(
    ("segmentation", "kind"),
    [
        ([SQUARE], Polygons),
        ([SQUARE, [1, 1, 2, 2]], Polygons),  # two points enclose nothing: the part is left out
        (compressed(square_mask()), Bitmap),
        (uncompressed(square_mask()), Bitmap),
    ],
)
def test_every_kind_of_segmentation(write_coco: Write, segmentation: Any, kind: type) -> None:
    sample = opened(write_coco([picture()], [annotation(segmentation=segmentation)]), strict=True)[0, 0]
    (shape,) = sample.shapes
    assert isinstance(shape, kind)
    target = shape.rasterize(HW, (32, 32))
    assert target.mask.sum() == 4
    assert target.mask[1:3, 1:3].all()
    assert target.center == (7.5, 7.5)
    assert sample.boxes.tolist() == [[4, 4, 12, 12]]
    assert (sample.image_id, sample.name, sample.original_hw) == (1, "1.png", HW)


@pytest.mark.parametrize(
    ("segmentation", "expected"),
    [
        ([SQUARE], [4, 4, 12, 12]),
        ([SQUARE, [20.5, 1, 22, 1, 22, 3]], [4, 1, 22, 12]),
        ([SQUARE, [0, 0]], [4, 4, 12, 12]),
        (compressed(square_mask()), [4, 4, 12, 12]),
        (uncompressed(square_mask()), [4, 4, 12, 12]),
    ],
)
def test_a_missing_box_is_filled_in(write_coco: Write, segmentation: Any, expected: list[float]) -> None:
    record = without(annotation(segmentation=segmentation), "bbox")
    assert opened(write_coco([picture()], [record]), strict=True)[0, 0].boxes.tolist() == [expected]


def test_labels_are_positions_in_the_file(write_coco: Write) -> None:
    path = write_coco([picture()], [annotation(1, category_id=7), annotation(2, category_id=42)], UNSORTED)
    dataset = opened(path)
    assert dataset.categories == (Category(42, "bar"), Category(7, "disc"))
    assert dataset[0, 0].labels.tolist() == [1, 0]


def test_crowds_are_no_instances(write_coco: Write) -> None:
    crowd = annotation(2, iscrowd=1, segmentation=uncompressed(square_mask()))
    alone = annotation(3, image_id=2, iscrowd=1, segmentation=uncompressed(square_mask()))
    polygon_crowd = annotation(4, iscrowd=1)
    path = write_coco([picture(1), picture(2)], [annotation(1), crowd, alone, polygon_crowd])
    dataset = opened(path, strict=True)
    assert [len(dataset[0, index].labels) for index in range(2)] == [1, 0]
    assert len(opened(path, allow_empty=False)) == 1


def test_pictures_without_objects(write_coco: Write) -> None:
    path = write_coco([picture(3), picture(1), picture(2)], [annotation(image_id=2)])
    assert [opened(path)[0, index].image_id for index in range(3)] == [1, 2, 3]  # by id, as COCO's evaluation
    only = opened(path, allow_empty=False)
    assert (len(only), only[0, 0].image_id) == (1, 2)
    # Prediction reads no instance and so drops no picture.
    everything = opened(path, allow_empty=False, with_annotations=False)
    assert len(everything) == 3
    assert len(everything[0, 1].labels) == 0


@pytest.mark.parametrize(("limit", "expected"), [(-1, 3), (2, 2), (9, 3)])
def test_limit(write_coco: Write, limit: int, expected: int) -> None:
    assert len(opened(write_coco([picture(n) for n in (1, 2, 3)]), limit=limit)) == expected


def test_no_picture_is_left(write_coco: Write) -> None:
    path = write_coco([picture()])
    for options in ({"allow_empty": False}, {"limit": 0}):
        with pytest.raises(DatasetError, match=r"no picture is left to use in .*; check the image folder"):
            opened(path, **options)


def test_a_file_without_annotations(tmp_path: Path, write_coco: Write) -> None:
    path = write_coco([picture()])
    data = json.loads(path.read_text())
    del data["annotations"]
    path.write_text(json.dumps(data))
    assert len(opened(path)[0, 0].labels) == 0


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


def test_truncated_picture_is_replaced_by_the_next(
    write_coco: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_coco([picture(1, (60, 60)), picture(2, (60, 60))], [annotation(image_id=2)])
    for name in ("1.png", "2.png"):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)).save(tmp_path / name)
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(whole[: len(whole) // 2])  # the header is there, half of the pixels is not
    dataset = opened(path)
    sample = dataset[0, 0]
    assert (sample.image_id, len(sample.labels)) == (2, 1)
    (warning,) = caplog.messages
    assert warning.startswith(f"{tmp_path / '1.png'}: damaged or unreadable picture")
    assert warning.endswith("; the next picture is used instead")
    with pytest.raises(ImageError, match=r"1\.png"):
        opened(path, strict=True)[0, 0]
    (tmp_path / "2.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match="not one of its 2 pictures can be read"):
        dataset[0, 1]


def test_size_of_a_turned_picture(write_coco: Write, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = write_coco([picture(1, file_name="1.jpg")], [annotation()], pictures=False)
    Image.new("RGB", (HW[0], HW[1])).save(tmp_path / "1.jpg", exif=exif)  # lies on its side in the file
    assert opened(path, strict=True)[0, 0].hw == HW


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


MODEL = (Category(7, "disc"), Category(42, "bar"), Category(50, "ring"))


def test_the_models_classes_give_the_labels(write_coco: Write) -> None:
    path = write_coco([picture()], [annotation(category_id=42)], UNSORTED)
    dataset = opened(path, categories=MODEL)
    assert dataset.categories == MODEL
    assert dataset[0, 0].labels.tolist() == [1]


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        (
            [(7, "disc"), (8, "cone")],
            "category 8 ('cone') is none of the model's 3 classes (7 'disc', 42 'bar', 50 'ring'); "
            "use the json the model was trained for",
        ),
        ([(7, "Disc")], "category 7 is 'Disc' here and 'disc' in the model; use the json the model was trained for"),
    ],
)
def test_other_classes_are_refused(write_coco: Write, categories: list[tuple[int, str]], message: str) -> None:
    path = write_coco([picture()], categories=categories)
    with pytest.raises(DatasetError) as error:
        opened(path, categories=MODEL)
    assert str(error.value) == f"{path}: {message}"


def test_many_classes_are_not_all_listed() -> None:
    source = CocoFile(Path("a.json"), (Category(99, "x"),), (), {}, ())
    with pytest.raises(DatasetError, match=r"80 classes \(0 '0', .* 9 '9', …\)"):
        match_categories(source, [Category(number, str(number)) for number in range(80)])


def test_samples_depend_on_seed_epoch_and_index_alone(write_coco: Write) -> None:
    path = write_coco([picture(1), picture(2)], [annotation(1), annotation(2, image_id=2)])
    steps = (RandomResize(((20, 90), (24, 90), (28, 90), (32, 90))), RandomFlip(0.5, 0.5))

    def look(seed: int, epoch: int, index: int) -> bytes:
        sample = opened(path, transforms=steps, seed=seed)[epoch, index]
        return sample.image.tobytes() + sample.boxes.tobytes()

    dataset = opened(path, transforms=steps, seed=3)
    forwards = [dataset[epoch, 0].image.tobytes() for epoch in range(6)]
    backwards = [dataset[epoch, 0].image.tobytes() for epoch in reversed(range(6))]
    assert forwards == backwards[::-1]
    assert look(3, 1, 0) == look(3, 1, 0)
    assert len({look(3, epoch, 0) for epoch in range(8)}) > 3
    assert len({look(seed, 0, 0) for seed in range(8)}) > 3


@pytest.mark.parametrize("seed", range(20))
def test_compressed_run_lengths(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hw = (int(rng.integers(1, 300)), int(rng.integers(1, 300)))
    mask = (rng.random(hw) < rng.choice([0.0, 0.001, 0.5, 1.0])).astype(np.uint8)
    assert decompress(compressed(mask)["counts"]) == uncompressed(mask)["counts"]


@pytest.mark.parametrize("text", ["\x01\x02", "ééé", "P", "0P", "P" * 40 + "0", "\x7f0"])
def test_damaged_compressed_run_lengths(text: str) -> None:
    assert decompress(text) is None


def test_shape_of_an_empty_mask() -> None:
    shape = shape_of(uncompressed(np.zeros(HW, np.uint8)), HW)
    assert not shape.rasterize(HW, (32, 32)).mask.any()
