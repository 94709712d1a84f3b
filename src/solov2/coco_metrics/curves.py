"""Precision over recall as a picture, one per class."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from solov2.atomic import write_atomically

WIDTH, HEIGHT = 480, 400
LEFT, TOP, RIGHT, BOTTOM = 56, 40, 24, 48
"""Margins around the axes, pixels."""

INK, GRID, LINE, FILL = (60, 60, 60), (225, 225, 225), (190, 110, 30), (245, 225, 200)  # BGR
FONT = cv2.FONT_HERSHEY_SIMPLEX


def save_curves(curves: dict[str, npt.NDArray[np.float64]], folder: Path) -> list[Path]:
    """Draws the curves of :class:`~solov2.coco_metrics.MaskAP`.

    Args:
        curves: precision at recall 0.00, 0.01 … 1.00, (101,) each, by class name.
        folder: of the pictures, ``<class>_precision_recall_curve.jpg``.

    Returns:
        The pictures.
    """
    paths = []
    for name, precision in curves.items():
        plain = "".join(letter if letter.isalnum() or letter in " -_()" else "_" for letter in name)
        path = folder / f"{plain}_precision_recall_curve.jpg"
        encoded = cv2.imencode(".jpg", draw_curve(name, precision))[1].tobytes()
        write_atomically(path, lambda temporary, encoded=encoded: temporary.write_bytes(encoded))  # type: ignore[misc]
        paths.append(path)
    return paths


def draw_curve(name: str, precision: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """One curve, (400, 480, 3) BGR.

    Args:
        name: of the class.
        precision: at recall 0 … 1 in equal steps, (101,), 0..1.
    """
    picture = axes()
    recall = np.linspace(0, 1, len(precision))
    points = [place(float(r), float(p)) for r, p in zip(recall, np.clip(precision, 0, 1), strict=True)]
    area = np.array([place(0, 0), *points, place(1, 0)], np.int32)
    cv2.fillPoly(picture, [area], FILL)
    cv2.polylines(picture, [np.array(points, np.int32)], False, LINE, 2, cv2.LINE_AA)
    title = f"{name}: precision over recall at IoU 0.50, AP50 {float(np.mean(precision)):.3f}"
    cv2.putText(picture, title.encode("ascii", "replace").decode(), (12, 24), FONT, 0.45, INK, 1, cv2.LINE_AA)
    return picture


def axes() -> npt.NDArray[np.uint8]:
    """Empty axes from 0 to 1, (400, 480, 3) BGR."""
    picture = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    for step in range(0, 11, 2):
        share = step / 10
        x, y = place(share, share)
        cv2.line(picture, (x, TOP), (x, HEIGHT - BOTTOM), GRID, 1)
        cv2.line(picture, (LEFT, y), (WIDTH - RIGHT, y), GRID, 1)
        cv2.putText(picture, f"{share:.1f}", (x - 12, HEIGHT - BOTTOM + 18), FONT, 0.4, INK, 1, cv2.LINE_AA)
        cv2.putText(picture, f"{share:.1f}", (LEFT - 32, y + 4), FONT, 0.4, INK, 1, cv2.LINE_AA)
    return picture


def place(x: float, y: float) -> tuple[int, int]:
    """The pixel (column, row) of a point of the axes, 0..1 each."""
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    return LEFT + round(x * width), HEIGHT - BOTTOM - round(y * height)
