"""A picture whose red pixels are exactly its object, and a check that mask and box have stayed on them."""

import numpy as np

from solov2.data.sample import Sample
from solov2.data.shapes import Bitmap, Polygons

L_SHAPE = ((20, 12), (44, 12), (44, 20), (28, 20), (28, 56), (20, 56))
"""x, y corners on whole pixels; no symmetry, so that a wrong turn shows."""


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def marked(hw: tuple[int, int] = (64, 96)) -> Sample:
    """A picture whose red pixels are exactly its object, once as a bitmap and once as a polygon."""
    corners = np.array(L_SHAPE, float)
    mask = np.zeros(hw, np.uint8)
    mask[12:20, 20:44] = 1
    mask[20:56, 20:28] = 1
    image = np.zeros((*hw, 3), np.uint8)
    image[mask == 1] = (255, 0, 0)
    box = [20.0, 12.0, 44.0, 56.0]
    return Sample(
        image=image,
        original_hw=hw,
        image_id=1,
        name="marked",
        labels=np.array([0, 1]),
        boxes=np.array([box, box]),
        shapes=(Bitmap.of(mask), Polygons((corners,))),
    )


def check_alignment(sample: Sample, scale: float | None = None) -> None:
    """Masks lie on the red pixels, boxes around them; after a resize by ``scale`` nearly.

    Bilinear pixels sit at their centres, nearest-neighbour ones at their corners: a bitmap is off by up to half an old
    pixel against its picture, which is what the published models were trained with.
    """
    red = (sample.image[:, :, 0] > 127).astype(np.uint8)
    padded_hw = (-(-sample.hw[0] // 32) * 32, -(-sample.hw[1] // 32) * 32)
    expected = Bitmap.of(red).rasterize(sample.hw, padded_hw)
    rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
    extent = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    for shape, box in zip(sample.shapes, sample.boxes, strict=True):
        target = shape.rasterize(sample.hw, padded_hw)
        if scale is None:
            np.testing.assert_array_equal(target.mask, expected.mask)
        common, either = (target.mask & expected.mask).sum(), (target.mask | expected.mask).sum()
        assert common > 0.5 * either
        away = 0.0 if scale is None else 0.5 + 0.5 * scale
        np.testing.assert_allclose(target.center, expected.center, atol=away + 1e-9)
        np.testing.assert_allclose(box, extent, atol=away + 1e-9)
