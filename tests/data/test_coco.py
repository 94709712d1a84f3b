import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from solov2.data.coco import CocoDataset, CocoFile, load_coco, match_categories, shape_of
from solov2.data.collate import collate
from solov2.data.copy_paste import CopyPaste
from solov2.data.fingerprints import pack
from solov2.data.loader import EpochBatchSampler, make_loader
from solov2.data.shapes import Bitmap, Polygons
from solov2.data.transforms import RandomFlip, RandomPatch, RandomResize, Resize, Sample, Transform
from solov2.errors import DatasetError, ImageError
from solov2.structures import Category

from .records import HW, SQUARE, annotation, compressed, picture, square_mask, uncompressed, without

Write = Callable[..., Path]

UNSORTED = ((42, "bar"), (7, "disc"))


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


def test_sizes_are_those_of_the_pictures_in_use(write_coco: Write) -> None:
    path = write_coco([picture(2, (30, 20)), picture(1), picture(3, (8, 9))], [annotation(image_id=2)])
    assert opened(path).sizes == [HW, (30, 20), (8, 9)]
    assert opened(path, allow_empty=False, limit=1).sizes == [(30, 20)]


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


def test_transforms_get_pixels_in_order(write_coco: Write) -> None:
    """Also after a flip, which leaves a view."""
    path = write_coco([picture(1)], [annotation(1)])
    seen: list[np.ndarray[Any, Any]] = []

    def look(sample: Sample, _: np.random.Generator) -> Sample:
        seen.append(sample.image)
        return sample

    [before], [flipped] = (opened(path, transforms=steps)[0, 0].image[None] for steps in ((), (RandomFlip(1.0), look)))
    assert seen[0].flags.c_contiguous
    np.testing.assert_array_equal(seen[0], before[:, ::-1])
    np.testing.assert_array_equal(flipped, before[:, ::-1])


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


def paste_on(path: Path, *before: Transform, **options: Any) -> CocoDataset:
    return opened(path, transforms=(*before, CopyPaste(1.0)), **options)


def test_objects_come_from_other_pictures(write_coco: Write) -> None:
    path = write_coco(
        [picture(1), picture(2), picture(3)],
        [annotation(1), annotation(2, image_id=2, category_id=42, bbox=[4, 4, 8, 8])],
    )
    dataset = paste_on(path)
    raw = opened(path)
    seen = set()
    for epoch in range(12):
        sample = dataset[epoch, 0]
        seen.add(tuple(sample.labels.tolist()))
        if len(sample.labels):  # the same place: the one pasted hides the one below
            source = raw[0, 0 if sample.labels[0] == 0 else 1]
            np.testing.assert_array_equal(sample.image[4:12, 4:12], source.image[4:12, 4:12])
    assert seen == {(0,), (1,)}  # from picture 2; from picture 3, which has none, nothing


def test_crowds_are_not_pasted(write_coco: Write) -> None:
    crowd = annotation(2, image_id=2, iscrowd=1, segmentation=uncompressed(square_mask()))
    dataset = paste_on(write_coco([picture(1), picture(2)], [annotation(1), crowd]))
    assert all(dataset[epoch, 0].labels.tolist() == [0] for epoch in range(4))
    np.testing.assert_array_equal(dataset[0, 0].image, opened(dataset_path(dataset))[0, 0].image)


def dataset_path(dataset: CocoDataset) -> Path:
    return dataset.image_dir / "annotations.json"


def test_a_single_picture_is_its_own_other(write_coco: Write) -> None:
    sample = paste_on(write_coco([picture()], [annotation()]))[0, 0]
    assert sample.labels.tolist() == [0]
    assert sample.boxes.tolist() == [[4, 4, 12, 12]]


def test_the_other_picture_has_gone_through_the_same_transforms(write_coco: Write) -> None:
    path = write_coco([picture(1), picture(2)], [annotation(2, image_id=2)])
    sample = paste_on(path, Resize((40, 60)))[0, 0]
    assert sample.hw == (40, 60)
    assert sample.boxes.tolist() == [[8, 8, 24, 24]]
    expected = opened(path, transforms=(Resize((40, 60)),))[0, 1].image[8:24, 8:24]
    np.testing.assert_array_equal(sample.image[8:24, 8:24], expected)


def test_pasting_depends_on_seed_epoch_and_index_alone(write_coco: Write) -> None:
    pictures = [picture(number) for number in range(1, 7)]
    records = [annotation(n, image_id=n, bbox=[n, n, 8, 8], segmentation=[moved(n)]) for n in range(1, 7)]
    path = write_coco(pictures, records)

    def look(dataset: CocoDataset, epoch: int, index: int) -> bytes:
        sample = dataset[epoch, index]
        return sample.image.tobytes() + sample.boxes.tobytes() + sample.labels.tobytes()

    first, second = (paste_on(path, RandomFlip(0.5, 0.5), seed=3) for _ in range(2))
    keys = [(epoch, index) for epoch in range(3) for index in range(6)]
    forwards = [look(first, *key) for key in keys]
    assert forwards == [look(second, *key) for key in reversed(keys)][::-1]
    assert len(set(forwards)) > 12


def moved(by: int) -> list[int]:
    return [value + by - 4 for value in SQUARE]


def test_worker_processes_paste_alike(write_coco: Write) -> None:
    path = write_coco([picture(1), picture(2)], [annotation(1), annotation(2, image_id=2)])
    batches = []
    for workers in (0, 1):
        sampler = EpochBatchSampler(2, 1, epoch=1)
        loader = make_loader(paste_on(path), sampler, partial(collate, with_targets=True), workers=workers)
        batches.append([(b.images.numpy().tobytes(), b.targets[0].masks.numpy().tobytes()) for b in loader])
    assert batches[0] == batches[1]


def test_an_unreadable_other_picture_is_replaced(write_coco: Write, caplog: pytest.LogCaptureFixture) -> None:
    path = write_coco([picture(1), picture(2)], [annotation(1), annotation(2, image_id=2)])
    dataset = paste_on(path)
    content = (path.parent / "2.png").read_bytes()
    (path.parent / "2.png").write_bytes(content[: len(content) // 2])
    assert dataset[0, 0].labels.tolist() == [0]
    assert "2.png: damaged" in caplog.text


def test_shape_of_an_empty_mask() -> None:
    shape = shape_of(uncompressed(np.zeros(HW, np.uint8)), HW)
    assert not shape.rasterize(HW, (32, 32)).mask.any()


def repeated(write_coco: Write, area: int | None, **options: Any) -> CocoDataset:
    """Pictures of 600, 1200 and 6 pixels, of which the last is without objects."""
    pictures = [picture(1), picture(2, (40, 30)), picture(3, (2, 3))]
    path = write_coco(pictures, [annotation(1), annotation(2, image_id=2)])
    return opened(path, repeat_area=area, allow_empty=True, **options)


@pytest.mark.parametrize(
    ("area", "counts"),
    [(None, (1, 1, 1)), (600, (1, 2, 1)), (300, (2, 4, 1)), (500, (1, 2, 1)), (350, (2, 3, 1)), (10**9, (1, 1, 1))],
)
def test_large_pictures_occur_more_often(write_coco: Write, area: int | None, counts: tuple[int, ...]) -> None:
    dataset = repeated(write_coco, area)
    assert len(dataset) == sum(counts)
    expected = [number for number, count in enumerate(counts, 1) for _ in range(count)]
    assert [record["id"] for record in dataset.records] == expected
    hws = {1: HW, 2: (40, 30), 3: (2, 3)}
    assert dataset.sizes == [hws[number] for number in expected]
    assert [dataset[0, index].image_id for index in range(len(dataset))] == expected


def test_each_occurrence_draws_its_own_numbers(write_coco: Write) -> None:
    one, again = (repeated(write_coco, 100, transforms=(RandomPatch((8, 8)),)) for _ in range(2))
    seen = [one[0, index].image.tobytes() for index in range(6)]  # all of the first picture
    assert len(set(seen)) > 3
    assert seen == [again[0, index].image.tobytes() for index in range(6)]


def test_occurrences_are_known_by_one_fingerprint(write_coco: Write) -> None:
    assert pack(repeated(write_coco, 100).records) == pack(repeated(write_coco, None).records)


def test_the_limit_is_one_of_pictures(write_coco: Write) -> None:
    assert [record["id"] for record in repeated(write_coco, 300, limit=1).records] == [1, 1]
