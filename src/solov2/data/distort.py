"""Changes of colour: hue, saturation, contrast and brightness of a uint8 picture, drawn at random.

The operations are those of PaddleDetection's ``RandomDistort``, which has Pillow do them. Saturation, contrast and
brightness blend a picture with its grey version, its mean grey or black, within one level of Pillow's
``ImageEnhance``. Hue passes through 8-bit HSV as it does there; either way this alone moves a level by 1 on the
average and by 13 at the most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from solov2.data.image import RGB
from solov2.data.sample import Sample

Range = tuple[float, float, float]
"""Lowest value, highest value, and the probability that the step is left out."""

Step = tuple[Callable[[RGB, float], RGB], Range]

CUT = -0.499
"""Added to what OpenCV rounds, it drops fractions instead; not -0.5, which is undecided about whole numbers."""

HUES = 256
"""Steps of a full turn of the hue in 8 bits."""


@dataclass(frozen=True, slots=True)
class RandomDistort:
    """Changes a picture's colours; boxes and shapes stay.

    Each range is (low, high, skip): with probability ``skip`` the step is left out, else its value is drawn evenly
    from low..high.

    Attributes:
        hue: shift in 256ths of a turn, -255..255.
        saturation: factor from 0 up: 0 is grey, 1 changes nothing.
        contrast: factor from 0 up: 0 is the mean grey, 1 changes nothing.
        brightness: factor from 0 up: 0 is black, 1 changes nothing.
        random_apply: take the steps in a random order; else in that of the SSD detector: brightness, contrast,
            saturation, hue, where in half of the cases the contrast comes last.
        count: of a random order, only that many steps are taken, 0..4.
        prob: probability that anything is done.
        random_channel: exchange the colour channels in half of the pictures; only without ``random_apply``.
    """

    hue: Range = (-18.0, 18.0, 0.5)
    saturation: Range = (0.5, 1.5, 0.5)
    contrast: Range = (0.5, 1.5, 0.5)
    brightness: Range = (0.5, 1.5, 0.5)
    random_apply: bool = True
    count: int = 4
    prob: float = 1.0
    random_channel: bool = False

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Distorts with the given probabilities; the picture stays uint8, cut to 0..255 after every step."""
        if rng.random() >= self.prob:
            return sample
        image = sample.image
        for adjust, (low, high, skip) in self._steps(rng):
            if rng.random() >= skip:
                image = adjust(image, float(rng.uniform(low, high)))
        if self.random_channel and not self.random_apply and rng.random() < 0.5:
            image = np.ascontiguousarray(image[:, :, rng.permutation(3)])
        return sample if image is sample.image else replace(sample, image=image)

    def _steps(self, rng: np.random.Generator) -> list[Step]:
        brightness, contrast = (scale_brightness, self.brightness), (scale_contrast, self.contrast)
        saturation, hue = (scale_saturation, self.saturation), (shift_hue, self.hue)
        if self.random_apply:
            steps = [brightness, contrast, saturation, hue]
            return [steps[index] for index in rng.permutation(len(steps))[: self.count]]
        if rng.random() < 0.5:
            return [brightness, contrast, saturation, hue]
        return [brightness, saturation, hue, contrast]


def scale_brightness(image: RGB, factor: float) -> RGB:
    """Blends with black: each level times ``factor``, fractions dropped."""
    return _away_from(0, image, factor)


def scale_contrast(image: RGB, factor: float) -> RGB:
    """Blends with the picture's mean grey, itself a whole level; fractions dropped."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return _away_from(int(cv2.mean(grey)[0] + 0.5), image, factor)


def scale_saturation(image: RGB, factor: float) -> RGB:
    """Blends every pixel with its own grey, itself a whole level; fractions dropped."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.addWeighted(image, factor, grey, 1 - factor, CUT), np.uint8)


def shift_hue(image: RGB, shift: float) -> RGB:
    """Turns the hue by ``shift`` 256ths of a turn, to the nearest whole one."""
    steps = round(shift) % HUES
    if steps == 0:
        return image  # the way through HSV would not give the same bytes
    hsv = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL), np.uint8)
    hsv[:, :, 0] += np.uint8(steps)  # wraps around, as a hue does
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL), np.uint8)


def _away_from(level: int, image: RGB, factor: float) -> RGB:
    """Moves every level away from one level by a factor."""
    table = level + np.float32(factor) * (np.arange(256, dtype=np.float32) - level)
    return np.asarray(cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8)), np.uint8)
