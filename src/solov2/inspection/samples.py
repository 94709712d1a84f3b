"""Training samples as pictures: what the network is given, with the instances it is to find."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from solov2.build import build_split_transforms, load_source, source_files, source_paths
from solov2.config import Config
from solov2.data.coco import CocoDataset
from solov2.data.sample import Sample
from solov2.errors import ConfigError
from solov2.structures import Category, Instances
from solov2.visualize import draw_instances, save_picture

Picture = npt.NDArray[np.uint8]

TILE = 420
"""Longer side of a picture on the contact sheet, pixels."""

CAPTION = 22
"""Height of a line below each picture, pixels."""

MARGIN = 6
"""Left and right of each picture, pixels."""

FONT_SIZE = 12
PAPER, INK = (250, 250, 250), (30, 30, 30)
SHEET = "sheet.png"


@dataclass(frozen=True, slots=True)
class Shown:
    """One sample that was drawn, and its file."""

    path: Path
    sample: Sample


def show_samples(
    config: Config, folder: Path, *, number: int = 8, seed: int | None = None, raw: bool = False
) -> list[Shown]:
    """Draws training samples into a folder: one PNG each, and a contact sheet.

    They are samples of the first epoch: with the recipe's seed exactly those that training would see.

    Args:
        config: the recipe, with its data.
        folder: for the pictures; it is made.
        number: how many; all, where there are fewer.
        seed: of the choice and of the augmentation; default: the recipe's.
        raw: as they are in the data set, without the recipe's transforms.

    Raises:
        ConfigError: if the recipe names no annotation file, or the folder holds the data set's own pictures.
        DatasetError: if the data cannot be used.
    """
    _, image_dir = source_paths(config.data.train)
    if folder.resolve() in {own.resolve() for _, own in source_files(config.data.train)}:
        raise ConfigError(f"{folder}: holds the data set's pictures; give another folder to draw into")
    dataset = CocoDataset(
        load_source(config.data.train),
        image_dir,
        transforms=() if raw else build_split_transforms(config.data.train),
        allow_empty=config.data.train.source.allow_empty,
        seed=config.train.seed if seed is None else seed,
        limit=config.data.train.source.sample_num,
    )
    chosen = np.random.default_rng(dataset.seed).permutation(len(dataset))[:number].tolist()
    shown, tiles = [], []
    for position, index in enumerate(chosen, 1):
        sample = dataset[0, index]
        drawn = draw_sample(sample, dataset.categories)
        target = folder / f"{position:02}_{Path(sample.name).stem}.png"
        save_picture(target, drawn)
        shown.append(Shown(target, sample))
        tiles.append((drawn, f"{position:02}  {caption(sample)}"))
    save_picture(folder / SHEET, contact_sheet(tiles))
    return shown


def draw_sample(sample: Sample, categories: Sequence[Category]) -> Picture:
    """A sample's picture with its masks and class names; boxes only as far as masks fill them.

    Args:
        sample: after its transforms.
        categories: by label.

    Returns:
        (H, W, 3) RGB of the sample's size.
    """
    bitmaps = [shape.bitmap(sample.hw) for shape in sample.shapes]
    boxes = [(b.left, b.top, b.left + b.pixels.shape[1], b.top + b.pixels.shape[0]) for b in bitmaps]
    instances = Instances(
        original_hw=sample.hw,
        labels=sample.labels,
        scores=np.ones(len(bitmaps), np.float32),
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        crops=tuple(bitmap.pixels.astype(bool) for bitmap in bitmaps),
        categories=tuple(categories),
    )
    drawn = draw_instances(sample.image, instances, scores=False)
    return _with_boxes(drawn, sample.boxes)


def _with_boxes(picture: Picture, boxes: npt.NDArray[np.float64]) -> Picture:
    """Thin white frames on dark ones: boxes decide an object's level, and may differ from its mask's extent."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for x0, y0, x1, y1 in np.rint(boxes).tolist():
        if x1 - x0 >= 1 and y1 - y0 >= 1:
            draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=PAPER)
    return np.asarray(image)


def caption(sample: Sample) -> str:
    """Name, sizes and number of instances."""
    (height, width), (old_height, old_width) = sample.hw, sample.original_hw
    sizes = f"{old_width}x{old_height}" + (f" to {width}x{height}" if sample.hw != sample.original_hw else "")
    count = len(sample.shapes)
    return f"{Path(sample.name).name}  {sizes}  {count} instance{'' if count == 1 else 's'}"


def contact_sheet(tiles: Sequence[tuple[Picture, str]]) -> Picture:
    """Pictures, scaled down where they are larger than a tile, in rows, with a line of text below each."""
    columns = math.ceil(math.sqrt(len(tiles)))
    images = [Image.fromarray(picture) for picture, _ in tiles]
    for image in images:
        image.thumbnail((TILE - 2 * MARGIN, TILE - 2 * MARGIN))
    rows = [range(start, min(start + columns, len(tiles))) for start in range(0, len(tiles), columns)]
    heights = [MARGIN + max(images[position].height for position in row) for row in rows]
    sheet = Image.new("RGB", (columns * TILE, sum(heights) + CAPTION * len(rows)), PAPER)
    draw, font, bottom = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE), 0
    for row, height in zip(rows, heights, strict=True):
        bottom += height
        for column, position in enumerate(row):
            left, text = column * TILE + MARGIN, tiles[position][1]
            sheet.paste(images[position], (left, bottom - images[position].height))
            while len(text) > 1 and draw.textlength(text, font) > TILE - 2 * MARGIN:
                text = f"{text[: len(text) // 2 - 1]}…{text[len(text) // 2 + 1 :]}"  # the middle goes: the name's
            draw.text((left, bottom + 2), text, fill=INK, font=font)
        bottom += CAPTION
    return np.asarray(sheet)
