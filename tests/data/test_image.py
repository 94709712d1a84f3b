import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from solov2.data.image import image_size, laid_out, lay_out, read_image
from solov2.errors import ImageError

HEIGHT, WIDTH = 24, 40
ORIENTATION_TAG = 0x0112


def blocks() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Flat 8×8 blocks, which JPEG keeps; no symmetry."""
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)


STORED = {
    1: lambda shown: shown,
    2: lambda shown: shown[:, ::-1],
    3: lambda shown: shown[::-1, ::-1],
    4: lambda shown: shown[::-1],
    5: lambda shown: shown.transpose(1, 0, 2),
    6: lambda shown: np.rot90(shown, 1),  # to be turned clockwise by the viewer
    7: lambda shown: shown[::-1, ::-1].transpose(1, 0, 2),
    8: lambda shown: np.rot90(shown, -1),
}
"""How a picture lies in the file, by its EXIF orientation, for a viewer to see it upright."""


@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](blocks())))
    path = tmp_path / "a.jpg"
    stored.save(path, exif=exif, quality=100, subsampling=0)
    np.testing.assert_allclose(read_image(path).astype(int), blocks(), atol=4)
    assert image_size(path) == (HEIGHT, WIDTH)


@pytest.mark.parametrize("orientation", [0, 9, 4711])
def test_meaningless_orientation_is_ignored(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(blocks()).save(path, exif=exif)
    np.testing.assert_array_equal(read_image(path), blocks())
    assert image_size(path) == (HEIGHT, WIDTH)


def grey_bands(low: int, high: int, dtype: Any) -> np.ndarray[Any, Any]:
    return np.linspace(low, high, WIDTH).astype(dtype)[None].repeat(HEIGHT, axis=0)


def half_transparent(mode: str) -> Image.Image:
    image = Image.new(mode, (WIDTH, HEIGHT), {"RGBA": (200, 100, 0, 255), "LA": (50, 255)}[mode])
    image.paste({"RGBA": (200, 100, 0, 0), "LA": (50, 0)}[mode], (0, 0, WIDTH // 2, HEIGHT))
    return image


def palette(transparent: bool) -> Image.Image:
    image = Image.new("P", (WIDTH, HEIGHT), 1)
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.paste(0, (0, 0, WIDTH // 2, HEIGHT))
    if transparent:
        image.info["transparency"] = 0
    return image


@pytest.mark.parametrize(
    ("name", "image", "left", "right"),
    [
        ("a.png", half_transparent("RGBA"), (255, 255, 255), (200, 100, 0)),
        ("a.png", half_transparent("LA"), (255, 255, 255), (50, 50, 50)),
        ("a.png", palette(transparent=False), (10, 20, 30), (200, 100, 0)),
        ("a.png", palette(transparent=True), (255, 255, 255), (200, 100, 0)),
        ("a.gif", palette(transparent=True), (255, 255, 255), (200, 100, 0)),
        ("a.gif", palette(transparent=False), (10, 20, 30), (200, 100, 0)),
        ("a.png", Image.fromarray(grey_bands(0, 255, np.uint8)), (0, 0, 0), (255, 255, 255)),
        ("a.png", Image.fromarray(grey_bands(0, 65535, np.uint16)), (0, 0, 0), (255, 255, 255)),
        ("a.tif", Image.fromarray(grey_bands(0, 65535, np.uint16)), (0, 0, 0), (255, 255, 255)),
        ("a.tif", Image.fromarray(grey_bands(0, 257 * 100, np.uint16)), (0, 0, 0), (100, 100, 100)),
        ("a.tif", Image.fromarray(grey_bands(0, 200, np.int32)), (0, 0, 0), (200, 200, 200)),
        ("a.tif", Image.fromarray(grey_bands(-3, 200, np.float32)), (0, 0, 0), (200, 200, 200)),
        ("a.png", Image.fromarray(grey_bands(0, 1, np.uint8) > 0), (0, 0, 0), (255, 255, 255)),
        ("a.bmp", Image.new("RGB", (WIDTH, HEIGHT), (1, 2, 3)), (1, 2, 3), (1, 2, 3)),
        ("a.webp", Image.new("RGB", (WIDTH, HEIGHT), (40, 40, 40)), (40, 40, 40), (40, 40, 40)),
        ("a.jpg", Image.new("CMYK", (WIDTH, HEIGHT), (0, 255, 255, 0)), (255, 0, 0), (255, 0, 0)),
        ("a.jpg", Image.new("L", (WIDTH, HEIGHT), 77), (77, 77, 77), (77, 77, 77)),
    ],
)
def test_every_mode_becomes_rgb(
    tmp_path: Path, name: str, image: Image.Image, left: tuple[int, ...], right: tuple[int, ...]
) -> None:
    path = tmp_path / name
    options = {"transparency": image.info["transparency"]} if "transparency" in image.info else {}
    image.save(path, **options)
    found = read_image(path)
    assert (found.shape, found.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
    tolerance = 2 if name.endswith(("jpg", "webp")) else 0
    np.testing.assert_allclose(found[0, 0].astype(int), left, atol=tolerance)
    np.testing.assert_allclose(found[-1, -1].astype(int), right, atol=tolerance)
    assert image_size(path) == (HEIGHT, WIDTH)


def test_one_pixel(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (9, 8, 7)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(str(tmp_path / "a.png")), [[[9, 8, 7]]])


def test_large_pictures_need_no_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    Image.new("L", (30, 20)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)  # Pillow warns from here and refuses from twice as many
    assert read_image(path).shape == (20, 30, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    with pytest.raises(ImageError, match=r"a\.png: .*exceeds limit.*; scale it down first"):
        read_image(path)


def make_text(path: Path) -> None:
    path.write_text("this is no picture")


def make_truncated(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:1500])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Path.touch, "the file is empty; expected a picture"),
        (make_text, "not a picture of a known format; expected JPEG, PNG, BMP, TIFF or WebP"),
        (Path.mkdir, "a folder; expected the path of a picture"),
        (lambda path: None, "no such file; give the path of a picture"),
    ],
)
@pytest.mark.parametrize("read", [read_image, image_size])
def test_what_is_no_picture(
    tmp_path: Path, make: Callable[[Path], None], message: str, read: Callable[[Path], object]
) -> None:
    path = tmp_path / "a.jpg"
    make(path)
    with pytest.raises(ImageError) as error:
        read(path)
    assert str(error.value) == f"{path}: {message}"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP"])
def test_truncated_picture(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)).save(path, kind)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if kind != "TIFF" else whole[:-4000])
    assert image_size(path) == (60, 60)  # the header is there
    with pytest.raises(ImageError) as error:
        read_image(path)
    assert str(error.value).startswith(f"{path}: damaged or unreadable picture (")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_picture_cut_anywhere_is_read_or_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "picture"
    Image.fromarray(blocks()).save(path, kind)
    whole = path.read_bytes()
    refused = 0
    for length in [*range(1, 60), *range(60, len(whole), max(len(whole) // 40, 1))]:
        path.write_bytes(whole[:length])
        try:
            assert read_image(path).shape == (HEIGHT, WIDTH, 3)
        except ImageError:  # anything else is a bug
            refused += 1
    assert refused > 40


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_picture_with_wrong_bytes_is_read_or_refused(tmp_path: Path, kind: str) -> None:
    path, rng = tmp_path / "picture", np.random.default_rng(0)
    Image.fromarray(blocks()).save(path, kind)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(80):
        damaged = whole.copy()
        damaged[rng.integers(2, len(whole), 3)] = rng.integers(0, 256, 3)
        path.write_bytes(damaged.tobytes())
        with contextlib.suppress(ImageError):  # anything else is a bug
            assert read_image(path).dtype == np.uint8


def test_arrays_are_bgr_or_grey() -> None:
    bgr = np.zeros((2, 3, 3), np.uint8)
    bgr[:, :, 0] = 250
    assert read_image(bgr)[0, 0].tolist() == [0, 0, 250]
    assert read_image(np.full((2, 3), 7, np.uint8)).tolist() == np.full((2, 3, 3), 7).tolist()


def test_an_array_is_not_shared() -> None:
    bgr = np.zeros((2, 3, 3), np.uint8)
    read_image(bgr)[:] = 1
    assert not bgr.any()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 3, 3), np.float32),
        np.zeros((2, 3, 4), np.uint8),
        np.zeros((3, 2, 3, 3), np.uint8),
        np.zeros((2, 3, 1), np.uint8),
        np.zeros(5, np.uint8),
        np.zeros((0, 3, 3), np.uint8),
        np.zeros((4, 0), np.uint8),
        np.zeros((4, 4), np.int64),
    ],
)
def test_other_arrays_are_refused(array: Any) -> None:
    with pytest.raises(ImageError) as error:
        read_image(array)
    assert str(error.value) == (
        f"the array has shape {array.shape} and type {array.dtype}; "
        "expected (H, W, 3) in BGR order or (H, W) grey, uint8, not empty"
    )


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "I;16"])
def test_pil_images_of_any_mode(mode: str) -> None:
    found = read_image(Image.new(mode, (5, 4)))
    assert (found.shape, found.dtype) == ((4, 5, 3), np.uint8)


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_pil_image_without_a_pixel(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match="has no pixel"):
        read_image(Image.new("RGB", size))


def test_damaged_pil_image(tmp_path: Path) -> None:
    make_truncated(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image, pytest.raises(ImageError, match=r"the picture: damaged.*truncated"):
        read_image(image)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_numbers(tmp_path: Path, value: float) -> None:
    values = np.zeros((4, 4), np.float32)
    values[1, 1] = value
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=r"a\.tif: has pixels that are no numbers"):
        read_image(tmp_path / "a.tif")


def test_mirrored_views_are_put_in_order() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    assert laid_out(picture) is picture
    found = laid_out(picture[:, ::-1])
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, picture[:, ::-1])
    canvas = np.full((9, 9, 3), 3, np.uint8)
    lay_out(picture[:, ::-1], canvas[2:7, 1:8])
    np.testing.assert_array_equal(canvas[2:7, 1:8], picture[:, ::-1])
    canvas[2:7, 1:8] = 3
    assert (canvas == 3).all()
