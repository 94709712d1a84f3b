from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from solov2.config import Config, load_config
from solov2.config.own_data import with_own_data
from solov2.data.sample import Sample
from solov2.errors import ConfigError
from solov2.inspection.samples import CAPTION, MARGIN, TILE, caption, contact_sheet, draw_sample, show_samples
from solov2.structures import Category

from ..data.marked import marked
from ..data.records import annotation, picture

Write = Callable[..., Path]


@pytest.fixture
def config(write_coco: Write) -> Config:
    records = [annotation(number, image_id=number) for number in (1, 2, 3)]
    path = write_coco([picture(1), picture(2), picture(3), picture(4)], records)
    return with_own_data(load_config("nano"), data=path)


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_files(config: Config, tmp_path: Path) -> None:
    shown = show_samples(config, tmp_path / "out", number=2)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        ["sheet.png", *(s.path.name for s in shown)]
    )
    for number, each in enumerate(shown, 1):
        assert each.path.name.startswith(f"{number:02}_")
        assert read(each.path).shape[:2] == each.sample.hw
        assert min(each.sample.hw) >= 352  # the recipe's transforms were applied


def test_no_more_than_there_are(config: Config, tmp_path: Path) -> None:
    shown = show_samples(config, tmp_path / "out", number=50)
    assert sorted(s.sample.name for s in shown) == ["1.png", "2.png", "3.png"]  # 4 has no instance


def test_raw(config: Config, tmp_path: Path) -> None:
    for each in show_samples(config, tmp_path / "out", raw=True):
        assert each.sample.hw == each.sample.original_hw == (20, 30)


def test_they_are_what_training_sees(config: Config, tmp_path: Path) -> None:
    from solov2.build import build_dataset

    dataset = build_dataset(config, config.data.train, training=True, strict=False)
    trained = {sample.name: sample for sample in (dataset[0, index] for index in range(3))}
    for each in show_samples(config, tmp_path / "out"):
        np.testing.assert_array_equal(each.sample.image, trained[each.sample.name].image)


def test_seeds(config: Config, tmp_path: Path) -> None:
    def look(seed: int) -> list[tuple[str, bytes]]:
        shown = show_samples(config, tmp_path / "out", number=2, seed=seed)
        return [(s.sample.name, s.sample.image.tobytes()) for s in shown]

    assert look(5) == look(5)
    assert len({str(look(seed)) for seed in range(4)}) > 1


def test_the_data_sets_own_folder_is_not_drawn_into(config: Config, tmp_path: Path) -> None:
    before = (tmp_path / "1.png").read_bytes()
    with pytest.raises(ConfigError, match="holds the data set's pictures; give another folder"):
        show_samples(config, tmp_path)
    assert (tmp_path / "1.png").read_bytes() == before
    assert not (tmp_path / "sheet.png").exists()


def test_masks_and_boxes_are_drawn_where_they_are() -> None:
    sample = replace(marked(), image=np.full((64, 96, 3), 128, np.uint8))
    drawn = draw_sample(sample, [Category(1, "a"), Category(2, "b")])
    changed = (drawn != sample.image).any(axis=2)
    assert changed[30:50, 21:27].all()  # the upright of the L is filled
    assert not changed[:, 60:].any()
    assert (drawn[55, 30:44] == (250, 250, 250)).all()  # the lower edge of the box, outside the mask
    np.testing.assert_array_equal(sample.image, 128)


def test_labels_show_names_without_scores() -> None:
    box = np.array([[20.0, 20.0, 180.0, 180.0]])
    square = marked((200, 200)).shapes[1].__class__((np.array([(20, 20), (180, 20), (180, 180), (20, 180)], float),))
    sample = replace(marked((200, 200)), boxes=box, shapes=(square,), labels=np.array([0]))
    short, long = (draw_sample(sample, [Category(1, name)]) for name in ("a", "a much longer name"))
    assert (short != long).any()


def test_a_sample_without_instances() -> None:
    sample = Sample.of_image(np.full((20, 30, 3), 7, np.uint8))
    np.testing.assert_array_equal(draw_sample(sample, ()), sample.image)


def test_captions() -> None:
    assert caption(marked()) == "marked  96x64  2 instances"
    resized = replace(marked(), original_hw=(10, 20), labels=np.zeros(1, np.int64), shapes=marked().shapes[:1])
    assert caption(resized) == "marked  20x10 to 96x64  1 instance"


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (4, 2, 2), (8, 3, 3)])
def test_contact_sheets(count: int, columns: int, rows: int) -> None:
    red = np.full((2000, 10, 3), (200, 0, 0), np.uint8)  # far higher than a tile
    sheet = contact_sheet([(red, "a name far too long to stand below so small a picture, " * 3)] * count)
    assert sheet.shape == (rows * (TILE - MARGIN + CAPTION), columns * TILE, 3)
    assert (sheet == (200, 0, 0)).all(axis=2).any()


def test_rows_of_the_contact_sheet_are_as_high_as_their_pictures() -> None:
    flat, square = np.full((100, 200, 3), (200, 0, 0), np.uint8), np.full((150, 150, 3), (0, 200, 0), np.uint8)
    sheet = contact_sheet([(flat, "a"), (square, "b"), (flat, "c")])
    assert sheet.shape == (150 + 100 + 2 * (MARGIN + CAPTION), 2 * TILE, 3)
    assert (sheet == (200, 0, 0)).all(axis=2).sum() == 2 * flat.size // 3  # small pictures keep their size
    assert (sheet == (0, 200, 0)).all(axis=2).sum() == square.size // 3
