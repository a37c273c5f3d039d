"""Shifts of the pictures: what light, cameras and drawing do, with a strength.

An encoder meets pictures that differ from those of its training. Each shift changes all pictures
of a data set in the same way and keeps its labels.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from mmclust.code_fingerprint import code_fingerprint
from mmclust.data.images import ImageDataset, Images

EVENING_LIGHT = (1.0, 0.72, 0.45)  # red, green and blue of white paper at strength 1
LOWEST_RESOLUTION = 8  # pixels of the shorter side at strength 1
LARGEST_BLUR = 0.05  # radius at strength 1, as a share of the shorter side
LARGEST_NOISE = 80.0  # standard deviation at strength 1, of 255
DARKEST = 0.1  # brightness at strength 1


def evening_light(picture: Image.Image, strength: float) -> Image.Image:
    """Warm light: green and blue are reduced."""
    gains = [1 - strength * (1 - gain) for gain in EVENING_LIGHT]
    bands = [band.point(lambda x, g=g: round(x * g)) for band, g in zip(picture.split(), gains)]
    return Image.merge("RGB", bands)


def faded(picture: Image.Image, strength: float) -> Image.Image:
    """Less saturated colors, as on an old print; none at strength 1."""
    return ImageEnhance.Color(picture).enhance(1 - strength)


def dark(picture: Image.Image, strength: float) -> Image.Image:
    """Underexposed."""
    return ImageEnhance.Brightness(picture).enhance(1 - strength * (1 - DARKEST))


def low_resolution(picture: Image.Image, strength: float) -> Image.Image:
    """Reduced to few pixels, between its own number and `LOWEST_RESOLUTION` (on a log scale)."""
    shorter = min(picture.size)
    scale = (min(LOWEST_RESOLUTION, shorter) / shorter) ** strength
    small = picture.resize(
        [max(1, round(side * scale)) for side in picture.size], Image.Resampling.BOX
    )
    return small.resize(picture.size, Image.Resampling.BICUBIC)


def blurred(picture: Image.Image, strength: float) -> Image.Image:
    """Out of focus."""
    radius = strength * LARGEST_BLUR * min(picture.size)
    return picture.filter(ImageFilter.GaussianBlur(radius))


def noisy(picture: Image.Image, strength: float) -> Image.Image:
    """The noise of a sensor in little light, the same whenever this picture is made."""
    pixels = np.asarray(picture, np.float32)
    rng = np.random.default_rng(zlib.crc32(picture.tobytes()))
    noise = rng.standard_normal(pixels.shape, np.float32) * LARGEST_NOISE * strength
    return Image.fromarray((pixels + noise).clip(0, 255).round().astype(np.uint8))


def line_drawing(picture: Image.Image, strength: float) -> Image.Image:
    """Dark edges on white paper, blended with the picture below strength 1."""
    edges = picture.convert("L").filter(ImageFilter.FIND_EDGES)
    drawing = ImageOps.invert(ImageOps.autocontrast(edges)).convert("RGB")
    return Image.blend(picture, drawing, strength)


SHIFTS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "evening light": evening_light,
    "faded": faded,
    "dark": dark,
    "low resolution": low_resolution,
    "blurred": blurred,
    "noisy": noisy,
    "line drawing": line_drawing,
}


@dataclass(frozen=True)
class Shift:
    """A named shift of `SHIFTS` with its strength: 0 leaves a picture unchanged, 1 is the maximum.

    Raises:
        ValueError: an unknown name, or a strength that is not from 0 to 1.
    """

    name: str
    strength: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in SHIFTS:
            raise ValueError(f"unknown shift {self.name!r}: use {', '.join(SHIFTS)}")
        if not 0 <= self.strength <= 1:
            raise ValueError(f"the strength of a shift is from 0 to 1, not {self.strength!r}")

    def __str__(self) -> str:
        return self.name if self.strength == 1 else f"{self.name} {self.strength:g}"

    def apply(self, picture: Image.Image) -> Image.Image:
        """The shifted picture, RGB, of the same size."""
        return SHIFTS[self.name](picture, self.strength) if self.strength else picture


def shifted(dataset: ImageDataset, shift: Shift | None) -> ImageDataset:
    """The data set with all its pictures shifted; None leaves it as it is."""
    if shift is None:
        return dataset
    images = dataset.images
    code = code_fingerprint([], alone=[SHIFTS[shift.name]])
    fingerprint = f"{images.fingerprint} {shift.name} {shift.strength} {code}"
    changed = Images(len(images), lambda i: shift.apply(images[i]), fingerprint, images.describe)
    return replace(dataset, images=changed)
