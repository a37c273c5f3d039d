"""Rendered worlds with known, independent factors: fruit, card and face.

Pillow draws every picture at twice its size, NumPy lights it, and one `numpy.random.Generator` per picture makes it reproducible:
picture `i` of a world depends on (name, seed, i) alone, so a longer sample starts with the shorter one.
The values of a world are all that its renderer can draw; `DEMO` and `TUNING` name disjoint subsets, except where a factor is open-ended
(identity), where disjoint ranges are used.
"""

from __future__ import annotations

import colorsys
import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

# name: hue in degrees, saturation, value (the middles of the ranges that are drawn)
COLORS = {
    "red": (358, 0.88, 0.84), "orange": (27, 0.93, 0.97), "yellow": (52, 0.88, 0.97), "green": (118, 0.70, 0.66),
    "blue": (222, 0.78, 0.84), "purple": (278, 0.60, 0.68), "pink": (336, 0.42, 0.98), "brown": (24, 0.66, 0.46),
    "white": (50, 0.04, 0.98), "black": (240, 0.12, 0.14), "turquoise": (176, 0.72, 0.80), "gray": (220, 0.04, 0.55),
}  # fmt: skip
ROUND = ("apple", "cherry", "strawberry", "lemon", "mushroom", "pumpkin", "kiwi", "watermelon")
ELONGATED = ("banana", "pear", "pineapple", "grapes", "carrot", "corn", "chili", "avocado")
SUITS = {
    "hearts": "♥",
    "diamonds": "♦",
    "clubs": "♣",
    "spades": "♠",
    "stars": "★",
    "moons": "☾",
    "crosses": "✚",
    "anchors": "⚓",
}
INKS = {
    "hearts": ["#be1420"], "diamonds": ["#be1420", "#1d4fb8"], "clubs": ["#16161a", "#14733a"], "spades": ["#16161a"],
    "stars": ["#b07d0a", "#16161a"], "moons": ["#4a3fa3", "#16161a"], "crosses": ["#be1420", "#14733a"], "anchors": ["#1d4fb8", "#16161a"],
}  # fmt: skip
RANKS = {
    "ace": "A", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10",
    "jack": "J", "queen": "Q", "king": "K", "zero": "0", "eleven": "11", "twelve": "12", "fifteen": "15", "twenty": "20",
    "joker": "☺", "knight": "N",
}  # fmt: skip
COURT = {"jack": "♝", "queen": "♛", "king": "♚", "joker": "☻", "knight": "♞"}
PIPS = {  # pips per column, left to right
    "zero": [], "ace": [1], "two": [2], "three": [3], "four": [2, 2], "five": [2, 1, 2], "six": [3, 3], "seven": [3, 1, 3],
    "eight": [3, 2, 3], "nine": [4, 1, 4], "ten": [4, 2, 4], "eleven": [4, 3, 4], "twelve": [4, 4, 4], "fifteen": [5, 5, 5],
    "twenty": [5, 5, 5, 5],
}  # fmt: skip
EMOTIONS = ("happy", "sad", "angry", "neutral", "surprised", "sleepy", "silly", "scared")
GLASSES = ("sunglasses", "open", "spectacles", "eyepatch", "goggles", "monocle")
POSES = ("left", "right", "straight", "up", "down", "tilted", "inverted")


@dataclass(frozen=True)
class World:
    """A renderer with the values that its factors may take.

    `factors` maps a criterion to its values, `derived` maps a criterion to (the factor it follows from, value of the factor -> class).
    """

    name: str
    domain: str
    factors: dict[str, tuple]
    derived: dict[str, tuple[str, dict]]

    @property
    def criteria(self) -> tuple[str, ...]:
        return (*self.factors, *self.derived)

    def classes(self, criterion: str) -> tuple:
        """The values of a criterion, in the order of its labels."""
        return (
            self.factors[criterion]
            if criterion in self.factors
            else tuple(dict.fromkeys(self.derived[criterion][1].values()))
        )

    def sample(self, n: int, seed: int = 0) -> list[dict]:
        """n dictionaries criterion -> value; every factor uniform and independent of the others."""
        return [self.sample_one(i, seed) for i in range(n)]

    def sample_one(self, index: int, seed: int = 0) -> dict:
        """Row `index` of `sample`."""
        rng = self._rng(index, seed, stream=0)
        row = {name: values[rng.integers(len(values))] for name, values in self.factors.items()}
        return row | {
            name: mapping[row[factor]] for name, (factor, mapping) in self.derived.items()
        }

    def render(self, row: dict, index: int, seed: int = 0, size: int = 128) -> Image.Image:
        """The picture of `row`, RGB, (size, size) pixels; `index` and `seed` fix everything that the factors leave open."""
        return _DRAW[self.domain](row, self._rng(index, seed, stream=1), size)

    def _rng(self, index: int, seed: int, stream: int) -> np.random.Generator:
        return np.random.default_rng([zlib.crc32(self.name.encode()), seed, index, stream])


_SHAPES = {
    "shape": ("species", dict.fromkeys(ROUND, "round") | dict.fromkeys(ELONGATED, "elongated"))
}
_COLOR, _RANK, _SUIT = tuple(COLORS), tuple(RANKS), tuple(SUITS)
_PEOPLE = tuple(f"person {i:02d}" for i in range(40))
FRUITS = (
    "apple", "banana", "grapes", "cherry", "pear", "strawberry", "lemon", "pineapple",
    "watermelon", "carrot", "mushroom", "pumpkin", "corn", "chili", "kiwi", "avocado",
)  # fmt: skip
DEMO = {
    w.name: w
    for w in (
        World("demo-fruit", "fruit", {"color": _COLOR[:6], "species": FRUITS[:8]}, _SHAPES),
        World("demo-card", "card", {"order": _RANK[:13], "suits": _SUIT[:4]}, {}),
        World(
            "demo-face",
            "face",
            {
                "identity": _PEOPLE[:20],
                "emotion": EMOTIONS[:4],
                "glasses": GLASSES[:2],
                "pose": POSES[:4],
            },
            {},
        ),
    )
}
TUNING = {
    w.name: w
    for w in (
        World("tuning-fruit", "fruit", {"color": _COLOR[6:], "species": FRUITS[8:]}, _SHAPES),
        World("tuning-card", "card", {"order": _RANK[13:], "suits": _SUIT[4:]}, {}),
        World(
            "tuning-face",
            "face",
            {
                "identity": _PEOPLE[20:],
                "emotion": EMOTIONS[4:],
                "glasses": GLASSES[2:],
                "pose": POSES[4:],
            },
            {},
        ),
    )
}
RENDERED_WORLDS = DEMO | TUNING
RGB = tuple[int, int, int]
Points = Iterable[tuple[float, float]]


# --- light, ground and paper ---------------------------------------------------------------------------------------------------------


def _rgb(h: float, s: float, v: float) -> RGB:
    r, g, b = colorsys.hsv_to_rgb(h % 360 / 360, min(max(s, 0), 1), min(max(v, 0), 1))
    return round(255 * r), round(255 * g), round(255 * b)


def _scale(color: RGB, factor: float) -> RGB:
    r, g, b = (int(min(255, c * factor)) for c in color)
    return r, g, b


def _mix(one: RGB, two: RGB, t: float) -> RGB:
    r, g, b = (int((1 - t) * x + t * y) for x, y in zip(one, two))
    return r, g, b


@lru_cache(maxsize=64)
def _font(pixels: int, bold: bool) -> ImageFont.FreeTypeFont:
    from matplotlib import (
        get_data_path,  # matplotlib ships the fonts: the same glyphs on every machine
    )

    return ImageFont.truetype(
        f"{get_data_path()}/fonts/ttf/DejaVuSans{'-Bold' if bold else ''}.ttf", max(pixels, 4)
    )


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    return axis[None, :], axis[:, None]


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """(size, size, 3) in 0..1: two colors across a gradient, sometimes a weave, stripes or dots."""
    x, y = _grid(size)
    one = (
        np.array(_rgb(rng.uniform(0, 360), rng.uniform(0, 0.42), rng.uniform(0.5, 1)), np.float32)
        / 255
    )
    two = np.clip(one + rng.uniform(-0.22, 0.22, 3), 0, 1)
    angle = rng.uniform(0, 2 * math.pi)
    across = math.cos(angle) * x + math.sin(angle) * y
    t = 0.5 + 0.35 * across
    kind = rng.integers(5)
    if kind == 1:  # stripes
        t = t + 0.25 * np.sign(
            np.sin(rng.uniform(8, 22) * (math.cos(angle) * y - math.sin(angle) * x))
        )
    elif kind == 2:  # dots
        f = rng.uniform(8, 18)
        t = t + 0.4 * ((np.sin(f * x) * np.sin(f * y)) > 0.55)
    elif kind >= 3:  # cloth or stone: smooth noise
        cells = int(rng.integers(3, 14))
        noise = Image.fromarray(rng.uniform(0, 255, (cells, cells)).astype(np.uint8)).resize(
            (size, size), Image.Resampling.BICUBIC
        )
        t = t + 0.9 * (np.asarray(noise, np.float32) / 255 - 0.5)
    t = np.clip(t, 0, 1)[..., None]
    return one * (1 - t) + two * t


def _compose(
    layer: Image.Image, rng: np.random.Generator, size: int, gloss: float = 0.25
) -> Image.Image:
    """Lay an RGBA drawing (2 size, 2 size) on a lit ground, with a soft shadow, a gain, a little blur and noise."""
    layer = layer.reduce(2)
    alpha = np.asarray(layer.getchannel("A"), np.float32)[..., None] / 255
    x, y = _grid(size)
    ground = _background(rng, size)
    offset = max(1, round(0.03 * size))
    shadow = Image.fromarray((alpha[..., 0] * 255).astype(np.uint8)).filter(
        ImageFilter.BoxBlur(size * 0.03)
    )
    shadow = shadow.transform(
        shadow.size,
        Image.Transform.AFFINE,
        (1, 0, int(rng.integers(-offset, offset + 1)), 0, 1, -offset),
    )
    shade = np.asarray(shadow, np.float32)[..., None] / 255
    ground = ground * (1 - rng.uniform(0.25, 0.5) * shade)
    angle = rng.uniform(-math.pi, 0)  # light comes from above
    light = (1 - gloss * 0.4 + gloss * (math.cos(angle) * x + math.sin(angle) * y))[..., None]
    picture = ground * (1 - alpha) + alpha * np.clip(
        np.asarray(layer.convert("RGB"), np.float32) / 255 * light, 0, 1
    )
    picture = (picture - 0.5) * rng.uniform(0.85, 1.1) + 0.5 + rng.uniform(-0.06, 0.06)
    picture = picture + rng.standard_normal((size, size, 1), np.float32) * rng.uniform(0.005, 0.03)
    finished = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8))
    return finished.filter(ImageFilter.BoxBlur(size / 220)) if rng.random() < 0.25 else finished


class _Pen:
    """Draws in units: (0, 0) is the middle of the object, 1 its half size, y points down."""

    def __init__(self, size: int, cx: float, cy: float, unit: float) -> None:
        self.image = Image.new("RGBA", (size, size), (0, 0, 0, 0))
        self.draw, self.cx, self.cy, self.unit = ImageDraw.Draw(self.image), cx, cy, unit

    def at(self, x: float, y: float) -> tuple[float, float]:
        return self.cx + x * self.unit, self.cy + y * self.unit

    def box(self, x: float, y: float, rx: float, ry: float) -> list[float]:
        return [*self.at(x - rx, y - ry), *self.at(x + rx, y + ry)]

    def oval(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        fill: RGB | None,
        outline: RGB | None = None,
        width: float = 0.0,
    ) -> None:
        self.draw.ellipse(
            self.box(x, y, rx, ry), fill=fill, outline=outline, width=round(width * self.unit)
        )

    def poly(self, points: Points, fill: RGB) -> None:
        self.draw.polygon([self.at(*p) for p in points], fill=fill)

    def line(self, points: Points, fill: RGB, width: float) -> None:
        self.draw.line(
            [self.at(*p) for p in points],
            fill=fill,
            width=max(1, round(width * self.unit)),
            joint="curve",
        )

    def arc(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        start: float,
        end: float,
        fill: RGB,
        width: float,
    ) -> None:
        self.draw.arc(
            self.box(x, y, rx, ry), start, end, fill=fill, width=max(1, round(width * self.unit))
        )

    def pie(
        self, x: float, y: float, rx: float, ry: float, start: float, end: float, fill: RGB
    ) -> None:
        self.draw.pieslice(self.box(x, y, rx, ry), start, end, fill=fill)

    def text(
        self, x: float, y: float, text: str, pixels: float, fill: RGB | str, bold: bool = False
    ) -> None:
        self.draw.text(self.at(x, y), text, font=_font(round(pixels), bold), fill=fill, anchor="mm")


# --- fruit ---------------------------------------------------------------------------------------------------------------------------

STEM, LEAF, SEED = (96, 66, 38), (70, 132, 58), (42, 34, 30)


def _crescent(bend: float, thick: float, n: int = 24) -> list[tuple[float, float]]:
    """Outline of a curved body that thins towards both tips."""
    t = np.linspace(0, 1, n)
    x, y = 1.9 * t - 0.95, bend * (1 - (2 * t - 1) ** 2) - bend / 2
    half = thick * np.sin(np.pi * np.clip(t * 0.96 + 0.02, 0, 1)) ** 0.6
    return [*zip(x, y + half), *zip(x[::-1], (y - half)[::-1])]


def _bulb(top: float, bottom: float, n: int = 48) -> list[tuple[float, float]]:
    """Outline of a pear-like body: half widths `top` and `bottom`, one inside the other's reach."""
    a = np.linspace(0, 2 * np.pi, n)
    y = -np.cos(a)
    width = top + (bottom - top) / (1 + np.exp(-6 * (y - 0.05)))
    return [*zip(np.sin(a) * width, y * 0.95)]


def _draw_fruit(row: dict, rng: np.random.Generator, size: int) -> Image.Image:
    h, s, v = COLORS[row["color"]]
    body = _rgb(h + rng.uniform(-8, 8), s * rng.uniform(0.85, 1.1), v * rng.uniform(0.86, 1.05))
    lit, dark = _mix(body, (255, 255, 255), 0.35), _mix(_scale(body, 0.62), (110, 110, 110), 0.22)
    full = 2 * size
    p = _Pen(full, full / 2, full / 2, full * rng.uniform(0.27, 0.39))
    species = row["species"]
    if species == "apple":
        for x in (-0.3, 0.3):
            p.oval(x, 0.08, 0.62, 0.8, body)
        p.oval(-0.42, -0.25, 0.16, 0.26, lit)
        p.line([(0, -0.55), (0.12, -1.0)], STEM, 0.1)
        p.oval(0.4, -0.86, 0.28, 0.12, LEAF)
    elif species == "banana":
        p.poly(_crescent(0.75, 0.27), body)
        p.line([(-0.75, -0.1), (-0.3, 0.26), (0.3, 0.3), (0.75, -0.02)], dark, 0.05)
        for x in (-0.93, 0.93):
            p.oval(x, -0.36, 0.1, 0.1, STEM)
    elif species == "grapes":
        p.line([(0, -0.7), (0.08, -1.1)], STEM, 0.1)
        p.oval(0.38, -0.88, 0.3, 0.16, LEAF)
        for level, count in enumerate([4, 5, 4, 3, 2, 1]):
            for k in range(count):
                x, y = (k - (count - 1) / 2) * 0.4 + rng.uniform(-0.03, 0.03), -0.62 + 0.31 * level
                p.oval(x, y, 0.25, 0.25, body, dark, 0.035)
                p.oval(x - 0.08, y - 0.09, 0.07, 0.07, lit)
    elif species == "cherry":
        for x, y in ((-0.48, 0.48), (0.46, 0.58)):
            p.line([(x, y - 0.3), (x * 0.5, -0.4), (0.1, -0.98)], LEAF, 0.06)
            p.oval(x, y, 0.42, 0.42, body)
            p.oval(x - 0.14, y - 0.14, 0.1, 0.12, lit)
        p.oval(0.42, -0.86, 0.34, 0.15, LEAF)
    elif species == "pear":
        p.line([(0, -0.85), (0.1, -1.18)], STEM, 0.1)
        p.poly(_bulb(0.36, 0.72), body)
        p.oval(-0.32, 0.3, 0.12, 0.24, lit)
    elif species == "strawberry":
        p.poly(
            [
                (-0.78, -0.4),
                (-0.45, -0.66),
                (0.45, -0.66),
                (0.78, -0.4),
                (0.58, 0.25),
                (0.25, 0.75),
                (0, 0.95),
                (-0.25, 0.75),
                (-0.58, 0.25),
            ],
            body,
        )
        for k in range(17):
            y = -0.35 + 0.22 * (k // 4)
            p.oval(
                (k % 4 - 1.5) * 0.34 * (1 - 0.5 * (y + 0.35)) + 0.08 * (k // 4 % 2),
                y,
                0.04,
                0.06,
                _mix(lit, (250, 230, 140), 0.7),
            )
        for k in range(5):
            p.poly(
                [(-0.6 + 0.24 * k, -0.72), (-0.36 + 0.24 * k, -0.72), (-0.6 + 0.3 * k, -0.3)], LEAF
            )
        p.line([(0, -0.7), (0.05, -1.0)], LEAF, 0.1)
    elif species == "lemon":
        p.oval(0, 0, 0.82, 0.66, body)
        for x in (-0.84, 0.84):
            p.oval(x, 0, 0.17, 0.15, body)
        p.oval(-0.25, -0.28, 0.26, 0.12, lit)
        for _ in range(14):
            p.oval(rng.uniform(-0.55, 0.55), rng.uniform(-0.35, 0.45), 0.025, 0.025, dark)
    elif species == "pineapple":
        for k in range(-3, 4):
            p.poly(
                [(0.1 * k - 0.12, -0.3), (0.1 * k + 0.12, -0.3), (0.22 * k, -1.1 + 0.05 * k * k)],
                _scale(LEAF, 0.8 + 0.12 * (k % 2)),
            )
        p.oval(0, 0.3, 0.5, 0.72, body)
        for k in range(-2, 4):
            for sign in (-1, 1):
                y = 0.2 + 0.22 * k
                x = 0.5 * math.sqrt(max(0, 1 - ((y + 0.05 - 0.3) / 0.72) ** 2))
                p.line([(-x * sign, y - 0.12), (x * sign, y + 0.22)], dark, 0.045)
    elif species == "watermelon":
        p.pie(0, -0.35, 1.0, 1.0, 0, 180, dark)
        p.pie(0, -0.35, 0.88, 0.88, 0, 180, lit)
        p.pie(0, -0.35, 0.78, 0.78, 0, 180, body)
        for x, y in (
            (-0.5, -0.15),
            (-0.2, -0.1),
            (0.15, -0.12),
            (0.5, -0.15),
            (-0.3, 0.15),
            (0.02, 0.2),
            (0.33, 0.13),
        ):
            p.oval(x, y, 0.05, 0.08, SEED)
    elif species == "carrot":
        for k in (-2, -1, 0, 1, 2):
            p.line([(0, -0.5), (0.16 * k, -1.1 + 0.04 * k * k)], LEAF, 0.1)
        p.poly(
            [
                (-0.34, -0.5),
                (-0.2, -0.62),
                (0.2, -0.62),
                (0.34, -0.5),
                (0.2, 0.25),
                (0.05, 1.0),
                (-0.05, 1.0),
                (-0.2, 0.25),
            ],
            body,
        )
        for y in (-0.35, -0.1, 0.15, 0.4):
            p.line([(-0.05, y), (0.2 - 0.1 * y, y + 0.03)], dark, 0.045)
    elif species == "mushroom":
        p.poly([(-0.26, -0.05), (0.26, -0.05), (0.34, 0.85), (-0.34, 0.85)], (236, 226, 206))
        p.oval(0, 0.85, 0.34, 0.12, (236, 226, 206))
        p.pie(0, 0.05, 0.95, 0.95, 180, 360, body)
        p.oval(0, 0.05, 0.95, 0.14, dark)
        for x, y, r in (
            (-0.5, -0.3, 0.13),
            (0.05, -0.55, 0.16),
            (0.52, -0.25, 0.12),
            (-0.1, -0.2, 0.09),
        ):
            p.oval(x, y, r, r * 0.85, lit)
    elif species == "pumpkin":
        p.line([(0, -0.5), (0.14, -0.98)], STEM, 0.16)
        for x, r in ((-0.55, 0.42), (0.55, 0.42), (-0.28, 0.42), (0.28, 0.42), (0, 0.34)):
            p.oval(x, 0.12, r, 0.7, body, dark, 0.045)
    elif species == "corn":
        p.oval(0, -0.1, 0.36, 0.95, body)
        for j in range(-7, 7):
            y = -0.1 + 0.125 * j
            reach = 0.36 * math.sqrt(max(0, 1 - ((y + 0.1) / 0.95) ** 2))
            for k in (-2, -1, 0, 1, 2):
                if abs(0.15 * k) < reach:
                    p.oval(0.15 * k, y, 0.065, 0.055, lit, dark, 0.02)
        for sign in (-1, 1):
            p.poly(
                [(0, 1.05), (0.62 * sign, 0.0), (0.34 * sign, -0.35), (0.2 * sign, 0.5)],
                _scale(LEAF, 1.0 + 0.15 * sign),
            )
    elif species == "chili":
        p.poly([(x, y * 1.1) for x, y in _crescent(0.55, 0.2)], body)
        p.line([(-0.5, -0.02), (0.0, 0.2), (0.45, 0.05)], lit, 0.05)
        p.oval(-0.88, -0.26, 0.2, 0.18, LEAF)
        p.line([(-0.95, -0.3), (-1.1, -0.62)], LEAF, 0.1)
    elif species == "kiwi":
        p.oval(0, 0, 0.86, 0.82, dark)
        p.oval(0, 0, 0.76, 0.72, body)
        p.oval(0, 0, 0.26, 0.22, _mix(lit, (255, 255, 240), 0.7))
        for k in range(14):
            a = 2 * math.pi * k / 14
            p.oval(0.42 * math.cos(a), 0.4 * math.sin(a), 0.05, 0.05, SEED)
    elif species == "avocado":
        p.poly(_bulb(0.42, 0.74), dark)
        p.poly([(0.84 * x, 0.86 * y) for x, y in _bulb(0.42, 0.74)], _mix(body, lit, 0.35))
        p.oval(0, 0.32, 0.33, 0.33, (122, 78, 42))
        p.oval(-0.1, 0.22, 0.1, 0.1, (160, 112, 68))
    layer = p.image.rotate(rng.uniform(-40, 40), resample=Image.Resampling.BICUBIC)
    reach = 0.1 * full
    layer = layer.transform(
        layer.size,
        Image.Transform.AFFINE,
        (1, 0, rng.uniform(-reach, reach), 0, 1, rng.uniform(-reach, reach)),
    )
    return _compose(layer, rng, size, gloss=rng.uniform(0.15, 0.4))


# --- card ----------------------------------------------------------------------------------------------------------------------------


def _draw_card(row: dict, rng: np.random.Generator, size: int) -> Image.Image:
    rank, suit = row["order"], row["suits"]
    inks = INKS[suit]
    ink = inks[0] if rng.random() < 0.7 else inks[-1]
    paper = _mix((252, 252, 250), (240, 226, 196), rng.uniform(0, 0.9))
    full = 2 * size
    height = full * rng.uniform(0.8, 0.92)
    width = height * 0.72
    p = _Pen(full, full / 2, full / 2, height / 2)
    half = width / height
    p.draw.rounded_rectangle(
        p.box(0, 0, half, 1),
        radius=0.07 * height,
        fill=paper,
        outline=(150, 145, 140),
        width=max(1, size // 90),
    )
    index, glyph = RANKS[rank], SUITS[suit]
    tall = 0.185 * height * (0.82 if len(index) > 1 else 1)
    corner = Image.new("RGBA", (full, full), (0, 0, 0, 0))
    q = _Pen(full, full / 2, full / 2, height / 2)
    q.image, q.draw = corner, ImageDraw.Draw(corner)
    q.text(-half + 0.17, -0.78, index, tall * 1.15, ink, bold=True)
    q.text(-half + 0.17, -0.47, glyph, tall, ink)
    p.image.alpha_composite(corner)
    p.image.alpha_composite(corner.rotate(180))
    if rank in COURT:
        frame = _mix(paper, _rgb(rng.uniform(0, 360), 0.5, 0.95), 0.5)
        p.draw.rectangle(
            p.box(0, 0, half - 0.32, 0.66), fill=frame, outline=ink, width=max(1, size // 90)
        )
        p.text(0, -0.05, COURT[rank], 0.4 * height, _rgb(rng.uniform(0, 360), 0.7, 0.4))
        p.text(half - 0.47, 0.5, glyph, 0.11 * height, ink)
    else:
        columns = PIPS[rank]
        pixels = (
            0.38 * height
            if rank == "ace"
            else (0.155 if len(columns) < 4 and max(columns, default=0) < 5 else 0.09) * height
        )
        span = half - 0.44
        for i, count in enumerate(columns):
            x = 0 if len(columns) == 1 else span * (2 * i / (len(columns) - 1) - 1)
            for j in range(count):
                p.text(x, 0.72 * (2 * (j + 0.5) / count - 1), glyph, pixels, ink)
    layer = p.image.rotate(rng.uniform(-22, 22), resample=Image.Resampling.BICUBIC)
    reach = 0.06 * full
    layer = layer.transform(
        layer.size,
        Image.Transform.AFFINE,
        (1, 0, rng.uniform(-reach, reach), 0, 1, rng.uniform(-reach, reach)),
    )
    return _compose(layer, rng, size, gloss=rng.uniform(0.05, 0.2))


# --- face ----------------------------------------------------------------------------------------------------------------------------


def _draw_face(row: dict, rng: np.random.Generator, size: int) -> Image.Image:
    who = np.random.default_rng(
        [7, zlib.crc32(str(row["identity"]).encode())]
    )  # what belongs to the person, not to the picture
    skin = _mix(
        _rgb(who.uniform(14, 34), who.uniform(0.25, 0.62), who.uniform(0.42, 0.98)),
        (255, 225, 200),
        0.1,
    )
    hair = _rgb(
        *[
            (who.uniform(12, 48), who.uniform(0.3, 0.85), who.uniform(0.1, 0.8)),
            (0, 0.02, who.uniform(0.1, 0.85)),
        ][int(who.random() < 0.25)]
    )
    wide, tall, style = who.uniform(0.6, 0.72), who.uniform(0.7, 0.82), who.integers(6)
    brow, eye, beard, freckles = (
        who.uniform(0.045, 0.075),
        who.uniform(0.105, 0.135),
        who.random() < 0.3,
        who.random() < 0.25,
    )
    iris, shirt = (
        _rgb(who.uniform(20, 240), 0.6, 0.45),
        _rgb(rng.uniform(0, 360), rng.uniform(0.2, 0.8), rng.uniform(0.3, 0.95)),
    )
    emotion, glasses, pose = row["emotion"], row["glasses"], row["pose"]
    dx = {"left": -0.27, "right": 0.27}.get(pose, 0.0) * rng.uniform(0.85, 1.15)
    dy = {"up": -0.24, "down": 0.26}.get(pose, 0.0) * rng.uniform(0.85, 1.15)
    full = 2 * size
    p = _Pen(full, full / 2, full * 0.5, full * rng.uniform(0.41, 0.48))
    shade, line = _scale(skin, 0.8), _scale(skin, 0.5)
    if style in (1, 4):  # long hair behind the head
        p.oval(0, 0.15, wide * 1.28, tall * 1.25, hair)
    if style == 5:  # afro
        p.oval(0, -0.3, wide * 1.4, tall * 0.98, hair)
    p.poly([(-0.2, 0.5), (0.2, 0.5), (0.24, 1.05), (-0.24, 1.05)], shade)
    p.oval(0, 1.35, 0.85, 0.5, shirt)
    for side in (-1, 1):
        if dx * side <= 0.01:
            p.oval(side * wide * 0.98 + dx * 0.15, 0.02 + dy * 0.5, 0.12, 0.18, shade)
    p.oval(0, 0, wide, tall, skin)
    fx, fy = dx, dy
    if beard:
        p.pie(fx * 0.4, 0.08 + fy * 0.4, wide * 0.97, tall * 0.9, 25, 155, hair)
        p.oval(fx, 0.4 + fy, 0.38, 0.27, skin)
    if style != 3:  # hair in front; style 3 is bald
        reach = -0.3 + 0.9 * fy if style != 2 else -0.4 + 0.9 * fy
        p.pie(0, -0.12, wide * 1.05, tall * 0.93, 180, 360, hair)
        p.oval(fx * 0.4, reach + 0.22, wide * 0.9, 0.3, skin)
    if style == 2:  # a bun
        p.oval(-fx * 0.4, -tall - 0.12, 0.22, 0.2, hair)
    if freckles:
        for _ in range(10):
            p.oval(
                fx + rng.uniform(-0.35, 0.35),
                0.14 + fy + rng.uniform(-0.06, 0.08),
                0.015,
                0.015,
                line,
            )
    ex, ey = 0.29, -0.07 + fy
    squeeze = 1 - 0.5 * abs(dx)
    lids = {"surprised": 1.35, "scared": 1.3, "sleepy": 0.3, "happy": 0.85, "angry": 0.75}.get(
        emotion, 1.0
    )
    for side in (-1, 1):
        x = fx + side * ex * squeeze
        p.oval(x, ey, eye * 1.15, eye * 0.9 * lids, (250, 250, 250), line, 0.012)
        p.oval(x + dx * 0.15, ey + dy * 0.12, eye * 0.5, min(eye * 0.55, eye * 0.8 * lids), iris)
        p.oval(
            x + dx * 0.15,
            ey + dy * 0.12,
            eye * 0.26,
            min(eye * 0.28, eye * 0.6 * lids),
            (15, 15, 18),
        )
        if emotion == "sleepy":
            p.pie(x, ey, eye * 1.15, eye * 1.0, 180, 360, shade)
        inner, outer = {
            "angry": (0.13, -0.08),
            "sad": (-0.11, 0.08),
            "scared": (-0.13, -0.02),
            "surprised": (-0.12, -0.12),
            "happy": (-0.03, -0.02),
        }.get(emotion, (0, 0))
        p.line(
            [(x - side * eye * 1.2, ey - 0.19 + inner), (x + side * eye * 1.3, ey - 0.19 + outer)],
            hair if style != 3 else line,
            brow,
        )
    p.line([(fx, ey + 0.08), (fx + 0.06 + 0.2 * dx, ey + 0.28), (fx - 0.03, ey + 0.3)], line, 0.025)
    mx, my, lip = fx, 0.42 + fy, (150, 45, 50)
    if emotion == "happy":
        p.pie(mx, my - 0.1, 0.34, 0.32, 8, 172, lip)
        p.pie(mx, my - 0.07, 0.27, 0.16, 5, 175, (250, 250, 250))
    elif emotion == "sad":
        p.arc(mx, my + 0.16, 0.3, 0.26, 190, 350, lip, 0.08)
    elif emotion == "angry":
        p.draw.rectangle(
            p.box(mx, my, 0.27, 0.11), fill=(250, 250, 250), outline=lip, width=max(1, size // 50)
        )
        p.line([(mx - 0.27, my), (mx + 0.27, my)], lip, 0.025)
    elif emotion == "surprised":
        p.oval(mx, my + 0.05, 0.15, 0.22, (95, 25, 30), lip, 0.04)
    elif emotion == "sleepy":
        p.oval(mx + 0.04, my, 0.09, 0.07, lip)
    elif emotion == "silly":
        p.pie(mx, my - 0.08, 0.29, 0.2, 0, 180, lip)
        p.oval(mx + 0.05, my + 0.13, 0.13, 0.2, (232, 110, 125))
    elif emotion == "scared":
        p.line(
            [(mx - 0.3 + 0.12 * k, my + (0.08 if k % 2 else -0.08)) for k in range(6)], lip, 0.06
        )
    else:
        p.line([(mx - 0.24, my), (mx + 0.24, my)], lip, 0.065)
    left, right, rim = (
        fx - ex * squeeze,
        fx + ex * squeeze,
        [(24, 24, 28), (70, 45, 30), (110, 25, 35)][int(rng.integers(3))],
    )
    if glasses in ("sunglasses", "spectacles"):
        for x in (left, right):
            p.oval(
                x,
                ey,
                0.23 * squeeze,
                0.18,
                (26, 28, 34) if glasses == "sunglasses" else None,
                rim,
                0.035,
            )
            if glasses == "sunglasses":
                p.line([(x - 0.1, ey + 0.02), (x + 0.0, ey - 0.09)], (110, 115, 125), 0.03)
        p.line([(left + 0.18 * squeeze, ey - 0.02), (right - 0.18 * squeeze, ey - 0.02)], rim, 0.04)
    elif glasses == "eyepatch":
        p.line(
            [(-wide * 0.9, ey - 0.32), (right, ey), (wide * 0.98, ey - 0.05)], (20, 20, 22), 0.04
        )
        p.oval(right, ey, 0.2, 0.19, (20, 20, 22))
    elif glasses == "goggles":
        p.line([(-wide, ey), (wide, ey)], (40, 40, 46), 0.12)
        p.draw.rounded_rectangle(
            p.box(fx, ey, 0.5 * squeeze, 0.2),
            radius=0.12 * p.unit,
            fill=(235, 140, 40),
            outline=(40, 40, 46),
            width=round(0.05 * p.unit),
        )
        p.line([(fx - 0.3, ey + 0.08), (fx - 0.16, ey - 0.1)], (255, 215, 150), 0.05)
    elif glasses == "monocle":
        p.oval(right, ey, 0.23, 0.22, None, (196, 158, 40), 0.06)
        p.line([(right + 0.1, ey + 0.17), (right + 0.16, 0.75)], (196, 158, 40), 0.025)
    angle = {
        "tilted": rng.choice([-1, 1]) * rng.uniform(28, 42),
        "inverted": 180 + rng.uniform(-8, 8),
    }.get(pose, rng.uniform(-7, 7))
    layer = p.image.rotate(angle, resample=Image.Resampling.BICUBIC)
    reach = 0.03 * full
    layer = layer.transform(
        layer.size,
        Image.Transform.AFFINE,
        (1, 0, rng.uniform(-reach, reach), 0, 1, rng.uniform(-reach, reach)),
    )
    return _compose(layer, rng, size, gloss=rng.uniform(0.1, 0.3))


_DRAW = {"fruit": _draw_fruit, "card": _draw_card, "face": _draw_face}
