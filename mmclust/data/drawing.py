"""Drawing tools for all rendered pictures: colors, a pen, background, shadow, light and noise.

A drawing is made on a transparent layer of twice the picture's size; `finish` makes the picture.
All random numbers of a picture come from one generator: another order of calls changes the picture.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

RGB = tuple[int, int, int]
Color = RGB | str | None
Points = Iterable[tuple[float, float]]
Box = tuple[float, float, float, float]  # center x, center y, half width, half height
WHITE = (255, 255, 255)
SIDES = (-1, 1)  # left and right


def rgb(hue: float, saturation: float, value: float) -> RGB:
    """A color from its hue in degrees, and saturation and value in 0..1 (clipped)."""
    s, v = min(max(saturation, 0), 1), min(max(value, 0), 1)
    r, g, b = colorsys.hsv_to_rgb(hue % 360 / 360, s, v)
    return round(255 * r), round(255 * g), round(255 * b)


def scale(color: RGB, factor: float) -> RGB:
    r, g, b = (int(min(255, c * factor)) for c in color)
    return r, g, b


def mix(one: RGB, two: RGB, t: float) -> RGB:
    r, g, b = (int((1 - t) * x + t * y) for x, y in zip(one, two))
    return r, g, b


@lru_cache(maxsize=64)
def _font(pixels: int, bold: bool) -> ImageFont.FreeTypeFont:
    """DejaVu Sans as matplotlib ships it: the same glyphs on every machine."""
    from matplotlib import get_data_path

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/{name}", max(pixels, 4))


class Pen:
    """Draws in units: (0, 0) is the center of the object, 1 its half size, y points down.

    `size` is the side of the square layer in pixels, `unit` the pixels of one unit.
    """

    def __init__(self, size: int, unit: float) -> None:
        self.image = Image.new("RGBA", (size, size), (0, 0, 0, 0))
        self.draw = ImageDraw.Draw(self.image)
        self.center = size / 2
        self.unit = unit

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        return self.center + x * self.unit, self.center + y * self.unit

    def corners(self, box: Box) -> list[float]:
        """Left, top, right and bottom of a box in pixels."""
        x, y, rx, ry = box
        return [*self.pixel(x - rx, y - ry), *self.pixel(x + rx, y + ry)]

    def oval(self, box: Box, fill: Color, outline: Color = None, width: float = 0.0) -> None:
        pixels = round(width * self.unit)
        self.draw.ellipse(self.corners(box), fill=fill, outline=outline, width=pixels)

    def poly(self, points: Points, fill: RGB) -> None:
        self.draw.polygon([self.pixel(*p) for p in points], fill=fill)

    def line(self, points: Points, fill: RGB, width: float) -> None:
        pixels = max(1, round(width * self.unit))
        self.draw.line([self.pixel(*p) for p in points], fill=fill, width=pixels, joint="curve")

    def arc(self, box: Box, start: float, end: float, fill: RGB, width: float) -> None:
        """The line of an oval from angle `start` to `end`, in degrees, clockwise from the right."""
        pixels = max(1, round(width * self.unit))
        self.draw.arc(self.corners(box), start, end, fill=fill, width=pixels)

    def pie(self, box: Box, start: float, end: float, fill: RGB) -> None:
        self.draw.pieslice(self.corners(box), start, end, fill=fill)

    def text(
        self, x: float, y: float, text: str, pixels: float, fill: Color, bold: bool = False
    ) -> None:
        font = _font(round(pixels), bold)
        self.draw.text(self.pixel(x, y), text, font=font, fill=fill, anchor="mm")


def finish(
    pen: Pen, rng: np.random.Generator, angle: float, shift: float, gloss: tuple[float, float]
) -> Image.Image:
    """A drawing turned by `angle` degrees and shifted at random, as a picture (`compose`).

    `shift` is the largest shift as a share of the side, `gloss` the range (low, high) of the gloss.
    """
    layer = pen.image.rotate(angle, resample=Image.Resampling.BICUBIC)
    reach = shift * layer.width
    matrix = (1, 0, rng.uniform(-reach, reach), 0, 1, rng.uniform(-reach, reach))
    layer = layer.transform(layer.size, Image.Transform.AFFINE, matrix)
    return compose(layer, rng, rng.uniform(*gloss))


def compose(layer: Image.Image, rng: np.random.Generator, gloss: float = 0.25) -> Image.Image:
    """An RGBA drawing as an RGB picture of half its size: background, soft shadow, light, noise.

    `gloss` is how much brighter the drawing is on the side of the light (0: evenly lit).
    """
    layer = layer.reduce(2)
    alpha = np.asarray(layer.getchannel("A"), np.float32)[..., None] / 255
    size = layer.width
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    x = axis[None, :]
    y = axis[:, None]
    ground = _background(rng, x, y)
    offset = max(1, round(0.03 * size))
    mask = Image.fromarray((alpha[..., 0] * 255).astype(np.uint8))
    shadow = mask.filter(ImageFilter.BoxBlur(size * 0.03))
    matrix = (1, 0, int(rng.integers(-offset, offset + 1)), 0, 1, -offset)
    shadow = shadow.transform(shadow.size, Image.Transform.AFFINE, matrix)
    shade = np.asarray(shadow, np.float32)[..., None] / 255
    ground = ground * (1 - rng.uniform(0.25, 0.5) * shade)
    angle = rng.uniform(-math.pi, 0)  # light comes from above
    light = (1 - gloss * 0.4 + gloss * (math.cos(angle) * x + math.sin(angle) * y))[..., None]
    drawn = np.clip(np.asarray(layer.convert("RGB"), np.float32) / 255 * light, 0, 1)
    picture = ground * (1 - alpha) + alpha * drawn
    picture = (picture - 0.5) * rng.uniform(0.85, 1.1) + 0.5 + rng.uniform(-0.06, 0.06)
    picture = picture + rng.standard_normal((size, size, 1), np.float32) * rng.uniform(0.005, 0.03)
    finished = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    return finished.filter(ImageFilter.BoxBlur(size / 220)) if rng.random() < 0.25 else finished


def _background(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(size, size, 3) in 0..1: a gradient of two colors, often with stripes, dots or cloth."""
    color = rgb(rng.uniform(0, 360), rng.uniform(0, 0.42), rng.uniform(0.5, 1))
    one = np.array(color, np.float32) / 255
    two = np.clip(one + rng.uniform(-0.22, 0.22, 3), 0, 1)
    angle = rng.uniform(0, 2 * math.pi)
    across = math.cos(angle) * x + math.sin(angle) * y
    t = 0.5 + 0.35 * across
    pattern = rng.integers(5)
    if pattern == 1:  # stripes
        along = math.cos(angle) * y - math.sin(angle) * x
        t = t + 0.25 * np.sign(np.sin(rng.uniform(8, 22) * along))
    elif pattern == 2:  # dots
        f = rng.uniform(8, 18)
        t = t + 0.4 * ((np.sin(f * x) * np.sin(f * y)) > 0.55)
    elif pattern >= 3:  # cloth or stone: smooth noise
        cells = int(rng.integers(3, 14))
        noise = Image.fromarray(rng.uniform(0, 255, (cells, cells)).astype(np.uint8))
        noise = noise.resize((x.size, y.size), Image.Resampling.BICUBIC)
        t = t + 0.9 * (np.asarray(noise, np.float32) / 255 - 0.5)
    t = np.clip(t, 0, 1)[..., None]
    return one * (1 - t) + two * t
