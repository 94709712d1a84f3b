"""Instances drawn on their picture: translucent masks, outlines and labels; and a picture written to a file.

Pictures are (H, W, 3) uint8 RGB. Everything is drawn inside the boxes of the masks, and all sizes follow the picture's.
"""

from __future__ import annotations

import io
import math
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from solov2.atomic import write_atomically
from solov2.errors import ImageError
from solov2.structures import Instances

Picture = npt.NDArray[np.uint8]
Rectangle = tuple[int, int, int, int]
"""x0 y0 x1 y1 in pixels, right and bottom exclusive."""

GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))  # steps of it never come back to a hue
LIGHTNESS_STEPS = (0.71, 0.60, 0.80)  # OKLCH; neighbours in the list differ in lightness as well
CHROMA = 0.19  # OKLCH; reduced for hues that sRGB cannot show so vivid
FILL_SHARE = 0.4  # of the colour in a filled pixel
CASING_SHARE = 0.4  # of the colour in the dark line under an outline
LINE_SHARE_ON_BRIGHT = 0.65  # of the colour in an outline without such a line, where most of the picture is ...
BRIGHT = 150  # ... this bright, 0..255
LIGHT, DARK = (255, 255, 255), (17, 17, 17)

MANY_INSTANCES = 30  # more of them get thinner outlines and, unless asked for, no labels
LABEL_TO_BOX = 1.3  # a label wider than this many boxes hides more than it says;
LABEL_TO_PICTURE = 0.05  # so does one of more than this share of the picture's area
PIXELS_PER_LINE = 450  # √(picture area) per pixel of outline
PIXELS_PER_FONT = 48  # √(picture area) per pixel of font size
SIDE_PER_LINE = 16  # shorter box side per pixel of outline: small objects keep their inside
CASED_SIDE = 20  # pixels; around smaller objects the dark edge would hide more than it shows
MIN_FONT = 10  # pixels; below, digits run together

SUFFIXES = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
QUALITY = 95


def draw_instances(
    image: Picture,
    instances: Instances,
    *,
    min_score: float = 0.0,
    labels: bool | None = None,
    scores: bool = True,
) -> Picture:
    """Draws masks, outlines and labels on a copy of the picture.

    An instance's colour follows from its position in ``instances`` alone. Small objects are drawn over large ones.

    Args:
        image: (H, W, 3) RGB, of the size the instances were found in; stays as it is.
        instances: best first; empty masks are skipped.
        min_score: 0..1; instances below it are left out.
        labels: class name and score on each instance; by default where there are few and the label is not much wider
            than the object. A label that does not fit into the picture is shortened or left out.
        scores: labels give the score; false for annotations, which have none.

    Returns:
        (H, W, 3) RGB.

    Raises:
        ImageError: the picture is not (H, W, 3) uint8, or of another size than the instances'.
    """
    _check(image, instances)
    drawn = np.ascontiguousarray(image).copy()
    shown = [row for row in range(len(instances)) if instances.scores[row] >= min_score and instances.crops[row].any()]
    if not shown:
        return drawn
    colors = instance_colors(len(instances))
    boxes = instances.boxes.astype(int)
    areas = instances.areas
    large_first = sorted(shown, key=lambda row: -int(areas[row]))
    for row in large_first:
        _fill(drawn, instances.crops[row], boxes[row], colors[row])
    cased = float(np.median([min(instances.crops[row].shape) for row in shown])) >= CASED_SIDE  # one look a picture
    lines = colors if cased or image[::8, ::8].mean() < BRIGHT else np.rint(colors * LINE_SHARE_ON_BRIGHT)
    for row in large_first:  # after all fills, so that no fill covers an outline
        thickness = _thickness(drawn, instances.crops[row], len(shown))
        _outline(drawn, instances.crops[row], boxes[row], lines[row], thickness, cased=cased)
    if labels or (labels is None and len(shown) <= MANY_INSTANCES):
        _draw_labels(drawn, instances, shown, colors, everywhere=labels is True, scores=scores)
    return drawn


def save_picture(path: str | Path, rgb: Picture) -> None:
    """Writes a picture so that no reader ever sees half of it; the folder is made where it is missing.

    Args:
        path: its suffix chooses the format.
        rgb: (H, W, 3).

    Raises:
        ImageError: the suffix stands for no known format, the picture is not (H, W, 3) uint8, or it cannot be written.
    """
    path = Path(path)
    file_format = SUFFIXES.get(path.suffix.lower())
    if file_format is None:
        raise ImageError(f"cannot write {path}: the suffix is {path.suffix!r}, expected one of {', '.join(SUFFIXES)}")
    _check(rgb)
    # Colour at half resolution, JPEG's default, would smear thin outlines.
    options = {"JPEG": {"quality": QUALITY, "subsampling": 0}, "WEBP": {"quality": QUALITY}}.get(file_format, {})
    encoded = io.BytesIO()
    Image.fromarray(rgb).save(encoded, file_format, **options)
    try:
        write_atomically(path, lambda temporary: temporary.write_bytes(encoded.getbuffer()))
    except OSError as error:  # which would name a temporary file
        reason = error.strerror or str(error)
        raise ImageError(f"{path}: cannot be written ({reason}); make room, or choose another place") from None


def instance_colors(count: int) -> npt.NDArray[np.uint8]:
    """Colours that differ as far as they can from those shortly before, the first ones always the same.

    Hues advance by the golden angle at steps of lightness, in OKLCH (Ottosson, "A perceptual color space for image
    processing", 2020), where equal steps look about equal.

    Returns:
        (count, 3) RGB.
    """
    index = np.arange(count)
    hue = (0.5 + GOLDEN_ANGLE * index).astype(np.float64)
    lightness = np.array(LIGHTNESS_STEPS, np.float64)[index % len(LIGHTNESS_STEPS)]
    linear = np.zeros((count, 3))
    missing = np.ones(count, bool)
    for chroma in np.linspace(CHROMA, 0, 20).tolist():  # the first that sRGB can show
        candidate = _oklch_to_linear_rgb(lightness, chroma, hue)
        fits = missing & ((candidate >= 0) & (candidate <= 1)).all(axis=1)
        linear[fits] = candidate[fits]
        missing &= ~fits
    encoded: npt.NDArray[np.float64] = np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055
    )
    return np.rint(encoded * 255).astype(np.uint8)


def _oklch_to_linear_rgb(
    lightness: npt.NDArray[np.float64], chroma: float, hue: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """(N,) each to (N, 3), unclipped; the two matrices are OKLab's definition."""
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=1)
    to_cones = np.array(
        [
            [1.0, 0.3963377774, 0.2158037573],
            [1.0, -0.1055613458, -0.0638541728],
            [1.0, -0.0894841775, -1.2914855480],
        ]
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    return np.asarray((lab @ to_cones.T) ** 3 @ to_rgb.T)


def _check(image: Picture, instances: Instances | None = None) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ImageError(f"the picture is {image.dtype} of shape {image.shape}, expected uint8 RGB (height, width, 3)")
    if instances is not None and image.shape[:2] != tuple(instances.original_hw):
        raise ImageError(
            f"the picture is {image.shape[0]}x{image.shape[1]} (height x width), but the instances were found in one "
            f"of {instances.original_hw[0]}x{instances.original_hw[1]}; give that picture"
        )


def _picture_scale(image: Picture) -> float:
    return math.sqrt(image.shape[0] * image.shape[1])


def _thickness(image: Picture, crop: npt.NDArray[np.bool_], count: int) -> int:
    by_picture = _picture_scale(image) / PIXELS_PER_LINE / (2 if count > MANY_INSTANCES else 1)
    by_object: float = min(crop.shape) / SIDE_PER_LINE
    return max(1, round(min(by_picture, by_object)))


def _fill(image: Picture, crop: npt.NDArray[np.bool_], box: npt.NDArray[np.int_], color: npt.NDArray[np.uint8]) -> None:
    x0, y0, x1, y1 = box.tolist()
    region = image[y0:y1, x0:x1]
    levels = np.arange(256)[:, None] * (1 - FILL_SHARE) + color * FILL_SHARE  # a table: 256 levels, 3 channels
    blended = cv2.LUT(region, np.rint(levels).astype(np.uint8)[None])
    np.copyto(region, blended.reshape(region.shape), where=crop[:, :, None])


def _outline(
    image: Picture,
    crop: npt.NDArray[np.bool_],
    box: npt.NDArray[np.int_],
    color: npt.NDArray[np.uint8],
    thickness: int,
    *,
    cased: bool,
) -> None:
    padded = np.pad(crop.astype(np.uint8), 1)  # a contour needs a background pixel around it
    contours, _ = cv2.findContours(padded, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    offset = (int(box[0]) - 1, int(box[1]) - 1)
    if cased:  # a dark edge keeps the line visible on a ground of its own colour
        casing = (color * CASING_SHARE).tolist()
        cv2.drawContours(image, contours, -1, casing, thickness + 2, cv2.LINE_AA, offset=offset)
    line = cv2.LINE_AA if thickness > 1 else cv2.LINE_8  # one pixel is crisp only without smoothing
    cv2.drawContours(image, contours, -1, color.tolist(), thickness, line, offset=offset)


def _draw_labels(
    image: Picture,
    instances: Instances,
    shown: list[int],
    colors: npt.NDArray[np.uint8],
    *,
    everywhere: bool,
    scores: bool,
) -> None:
    font_size = max(MIN_FONT, round(_picture_scale(image) / PIXELS_PER_FONT))
    placed = np.zeros((0, 4), int)
    names = instances.class_names
    for row in shown:  # best first: they get the best places
        score = f"{instances.scores[row]:.2f}" if scores else ""
        stamp = _stamp(names[row], score, font_size, image.shape[1], image.shape[0])
        if stamp is None or not (everywhere or _worth_it(stamp, instances.crops[row], image)):
            continue
        place = _place(stamp, instances.crops[row], instances.boxes[row].astype(int), image, placed)
        placed = np.vstack([placed, place])
        left, top, right, bottom = place
        background = colors[row].astype(float)
        share = stamp[:, :, None] / 255
        text_color = np.array(_readable_on(background), float)
        image[top:bottom, left:right] = np.rint(background * (1 - share) + text_color * share).astype(np.uint8)


def _worth_it(stamp: Picture, crop: npt.NDArray[np.bool_], image: Picture) -> bool:
    covered: float = stamp.size / (image.shape[0] * image.shape[1])
    return covered <= LABEL_TO_PICTURE and bool(stamp.shape[1] <= LABEL_TO_BOX * crop.shape[1])


def _stamp(name: str, score: str, font_size: int, max_width: int, max_height: int) -> Picture | None:
    """The longest text that fits, as (h, w) shares of the text colour, 0..255; None where not even the score fits."""
    font = ImageFont.load_default(font_size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # as in all of Pillow's wheels
    ascent, descent = font.getmetrics()
    margin = max(2, round(font_size / 5))
    height = ascent + descent + 2
    name = " ".join(name.split())
    for text in (f"{name}  {score}", score) if score else (name,):
        width = math.ceil(font.getlength(text)) + 2 * margin
        if width <= max_width and height <= max_height:
            stamp = Image.new("L", (width, height))
            ImageDraw.Draw(stamp).text((margin, 1 + ascent), text, fill=255, font=font, anchor="ls")
            return np.asarray(stamp)
    return None


def _place(
    stamp: Picture, crop: npt.NDArray[np.bool_], box: npt.NDArray[np.int_], image: Picture, placed: npt.NDArray[np.int_]
) -> Rectangle:
    """Where it covers the least of the labels placed before: above the object, at its top, below, in its middle."""
    x0, y0, x1, y1 = box.tolist()
    height, width = stamp.shape
    peak = x0 + int(np.flatnonzero(crop[0]).mean())  # the object's highest point
    above = peak - width // 2 if width > x1 - x0 else min(max(peak - width // 2, x0), x1 - width)
    middle = (x0 + x1 - width) // 2
    wishes = [(above, y0 - height), (above, y0), (middle, y1), (middle, (y0 + y1 - height) // 2)]
    corners = [
        (min(max(left, 0), image.shape[1] - width), min(max(top, 0), image.shape[0] - height)) for left, top in wishes
    ]
    places = [(left, top, left + width, top + height) for left, top in corners]
    return min(places, key=lambda place: _overlap(place, placed))


def _overlap(place: Rectangle, placed: npt.NDArray[np.int_]) -> int:
    sides = np.minimum(placed[:, 2:], place[2:]) - np.maximum(placed[:, :2], place[:2])
    return int(np.prod(np.maximum(sides, 0), axis=1).sum())


def _readable_on(background: npt.NDArray[np.float64]) -> tuple[int, int, int]:
    """White or black, whichever has the larger contrast ratio (WCAG 2, "contrast ratio")."""
    luminance = _luminance(background)
    light, dark = (_luminance(np.array(color, float)) for color in (LIGHT, DARK))
    return LIGHT if (light + 0.05) / (luminance + 0.05) > (luminance + 0.05) / (dark + 0.05) else DARK


def _luminance(rgb: npt.NDArray[np.float64]) -> float:
    share = rgb / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))
