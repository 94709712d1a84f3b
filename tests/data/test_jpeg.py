import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from solov2.data.image import read_image
from solov2.data.jpeg import decode, is_plain

Picture = npt.NDArray[np.uint8]


def picture(height: int = 37, width: int = 51) -> Picture:
    """Soft colours with some noise, so that sampling and rounding show."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    levels = np.stack([3 * y, 2 * x, 4 * (x + y)], axis=2) + rng.integers(0, 60, (height, width, 3))
    return (levels % 256).astype(np.uint8)


def saved(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def by_pillow(data: bytes) -> Picture:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


PLAIN: dict[str, dict[str, Any]] = {
    "usual": {},
    "poor": {"quality": 10},
    "every colour": {"quality": 100, "subsampling": 0},
    "half the colours": {"subsampling": 1},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True},
    "restarts": {"restart_marker_rows": 1},
    "comment": {"comment": b"\xff\xc0 no frame"},
}


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (37, 51), (64, 80)])
@pytest.mark.parametrize("options", PLAIN.values(), ids=PLAIN)
def test_pixels_are_those_of_pillow(size: tuple[int, int], options: dict[str, Any]) -> None:
    data = saved(Image.fromarray(picture(*size)), **options)
    assert is_plain(data, None)
    found = decode(data)
    assert found is not None
    assert found.flags.writeable
    np.testing.assert_array_equal(found, by_pillow(data))


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("L", {}),
        ("CMYK", {}),
        ("RGB", {"keep_rgb": True}),  # with Adobe's or no marker of what its colours are
        ("RGB", {"exif": Image.Exif()}),
        ("RGB", {"xmp": b"<x/>"}),
        ("RGB", {"icc_profile": b"profile"}),
    ],
)
def test_what_is_not_plain_is_read_all_the_same(tmp_path: Path, mode: str, options: dict[str, Any]) -> None:
    if "exif" in options:
        options["exif"][0x0112] = 1
    data = saved(Image.fromarray(picture()).convert(mode), **options)
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    assert is_plain(data, None) == ("keep_rgb" in options and b"Adobe" not in data)
    np.testing.assert_array_equal(read_image(path), by_pillow(data))


def test_only_so_many_pixels_are_plain() -> None:
    data = saved(Image.fromarray(picture(20, 30)))
    assert is_plain(data, 600)
    assert not is_plain(data, 599)


def test_a_jpeg_cut_anywhere() -> None:
    data = saved(Image.fromarray(picture()), comment=b"c" * 20)
    for length in range(len(data)):
        is_plain(data[:length], None)  # says something, whatever is missing
        assert decode(data[:length]) is None
    assert not any(is_plain(data[:length], None) for length in range(100))


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8" + b"\xff" * 40, b"\xff\xd8" + bytes(40), b"\x89PNG" * 9]
)
def test_other_bytes_are_not_plain(data: bytes) -> None:
    assert not is_plain(data, None)
    assert decode(data) is None
    assert decode(data + b"\xff\xd9") is None
