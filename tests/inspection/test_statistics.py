from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from solov2.data.coco import load_coco
from solov2.inspection.statistics import ClassCount, count, quantiles

from ..data.records import annotation, picture, square_mask, uncompressed

Write = Callable[..., Path]


def test_everything_is_counted(write_coco: Write) -> None:
    path = write_coco(
        [picture(1), picture(2, (40, 10)), picture(3, (16, 16))],
        [
            annotation(1),
            annotation(2, bbox=[0, 0, 4, 16]),
            annotation(3, image_id=2, bbox=[0, 0, 1, 1]),
            annotation(4, image_id=2, category_id=42, bbox=[2, 2, 4, 4]),
            annotation(5, image_id=3, iscrowd=1, segmentation=uncompressed(square_mask((16, 16)))),
            annotation(6, image_id=3, segmentation=[]),
        ],
        pictures=False,
    )
    found = count(load_coco(path))
    assert (found.pictures, found.empty, found.instances, found.crowds) == (3, 1, 4, 1)
    assert (found.median_per_picture, found.most_per_picture) == (2, 2)
    assert found.short_sides == (10, 16, 20)
    assert found.long_sides == (16, 30, 40)
    assert found.sizes == tuple(np.quantile([1, 4, 8, 8], (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)).tolist())
    assert found.classes == (ClassCount(42, "bar", 1, 1), ClassCount(7, "disc", 3, 2))


@pytest.mark.parametrize("images", [[], [picture()]])
def test_without_instances(write_coco: Write, images: list[dict[str, object]]) -> None:
    found = count(load_coco(write_coco(images, pictures=False)))
    assert (found.pictures, found.empty, found.instances, found.most_per_picture) == (len(images), len(images), 0, 0)
    assert found.sizes == ()
    assert len(found.short_sides) == (3 if images else 0)
    assert [c.instances for c in found.classes] == [0, 0]


def test_quantiles_of_one_value() -> None:
    assert quantiles([3.0], (0, 0.5, 1)) == (3, 3, 3)
    assert quantiles([]) == ()
