"""Fruit and vegetables: a species in a body color."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from mmclust.data.drawing import RGB, SIDES, WHITE, Pen, finish, mix, rgb, scale

# name: hue in degrees, saturation, value (each picture varies around them)
COLORS = {
    "red": (358, 0.88, 0.84), "orange": (27, 0.93, 0.97), "yellow": (52, 0.88, 0.97),
    "green": (118, 0.70, 0.66), "blue": (222, 0.78, 0.84), "purple": (278, 0.60, 0.68),
    "pink": (336, 0.42, 0.98), "brown": (24, 0.66, 0.46), "white": (50, 0.04, 0.98),
    "black": (240, 0.12, 0.14), "turquoise": (176, 0.72, 0.80), "gray": (220, 0.04, 0.55),
}  # fmt: skip
STEM = (96, 66, 38)
LEAF = (70, 132, 58)
SEED = (42, 34, 30)
STALK = (236, 226, 206)  # of a mushroom
FRUITS = (
    "apple", "banana", "grapes", "cherry", "pear", "strawberry", "lemon", "pineapple",
    "watermelon", "carrot", "mushroom", "pumpkin", "corn", "chili", "kiwi", "avocado",
)  # fmt: skip
STRAWBERRY = [
    (-0.78, -0.4), (-0.45, -0.66), (0.45, -0.66), (0.78, -0.4), (0.58, 0.25),
    (0.25, 0.75), (0, 0.95), (-0.25, 0.75), (-0.58, 0.25),
]  # fmt: skip
MELON_SEEDS = [
    (-0.5, -0.15), (-0.2, -0.1), (0.15, -0.12), (0.5, -0.15),
    (-0.3, 0.15), (0.02, 0.2), (0.33, 0.13),
]  # fmt: skip
CARROT = [
    (-0.34, -0.5), (-0.2, -0.62), (0.2, -0.62), (0.34, -0.5),
    (0.2, 0.25), (0.05, 1.0), (-0.05, 1.0), (-0.2, 0.25),
]  # fmt: skip


def draw_fruit(row: dict, rng: np.random.Generator, size: int) -> Image.Image:
    """The fruit of `row` (color, species) as an RGB picture of (size, size) pixels."""
    h, s, v = COLORS[row["color"]]
    body = rgb(h + rng.uniform(-8, 8), s * rng.uniform(0.85, 1.1), v * rng.uniform(0.86, 1.05))
    pen = FruitPen(size, body, rng)
    getattr(pen, row["species"])()
    return finish(pen, rng, rng.uniform(-40, 40), shift=0.1, gloss=(0.15, 0.4))


def _crescent(bend: float, thick: float) -> list[tuple[float, float]]:
    """Outline of a curved body that becomes thinner toward both tips."""
    t = np.linspace(0, 1, 24)
    x = 1.9 * t - 0.95
    y = bend * (1 - (2 * t - 1) ** 2) - bend / 2
    half = thick * np.sin(np.pi * np.clip(t * 0.96 + 0.02, 0, 1)) ** 0.6
    return [*zip(x, y + half), *zip(x[::-1], (y - half)[::-1])]


def _bulb(top: float, bottom: float) -> list[tuple[float, float]]:
    """Outline of a pear-shaped body with the half widths `top` and `bottom`."""
    a = np.linspace(0, 2 * np.pi, 48)
    y = -np.cos(a)
    width = top + (bottom - top) / (1 + np.exp(-6 * (y - 0.05)))
    return [*zip(np.sin(a) * width, y * 0.95)]


class FruitPen(Pen):
    """Draws one fruit, a method per species; `lit` is lighter than the body, `dark` darker."""

    def __init__(self, size: int, body: RGB, rng: np.random.Generator) -> None:
        super().__init__(2 * size, 2 * size * rng.uniform(0.27, 0.39))
        self.body = body
        self.lit = mix(body, WHITE, 0.35)
        self.dark = mix(scale(body, 0.62), (110, 110, 110), 0.22)
        self.rng = rng

    def apple(self) -> None:
        for x in (-0.3, 0.3):
            self.oval((x, 0.08, 0.62, 0.8), self.body)
        self.oval((-0.42, -0.25, 0.16, 0.26), self.lit)
        self.line([(0, -0.55), (0.12, -1.0)], STEM, 0.1)
        self.oval((0.4, -0.86, 0.28, 0.12), LEAF)

    def banana(self) -> None:
        self.poly(_crescent(0.75, 0.27), self.body)
        self.line([(-0.75, -0.1), (-0.3, 0.26), (0.3, 0.3), (0.75, -0.02)], self.dark, 0.05)
        for x in (-0.93, 0.93):
            self.oval((x, -0.36, 0.1, 0.1), STEM)

    def grapes(self) -> None:
        self.line([(0, -0.7), (0.08, -1.1)], STEM, 0.1)
        self.oval((0.38, -0.88, 0.3, 0.16), LEAF)
        for level, count in enumerate([4, 5, 4, 3, 2, 1]):
            y = -0.62 + 0.31 * level
            for k in range(count):
                x = (k - (count - 1) / 2) * 0.4 + self.rng.uniform(-0.03, 0.03)
                self.oval((x, y, 0.25, 0.25), self.body, self.dark, 0.035)
                self.oval((x - 0.08, y - 0.09, 0.07, 0.07), self.lit)

    def cherry(self) -> None:
        for x, y in ((-0.48, 0.48), (0.46, 0.58)):
            self.line([(x, y - 0.3), (x * 0.5, -0.4), (0.1, -0.98)], LEAF, 0.06)
            self.oval((x, y, 0.42, 0.42), self.body)
            self.oval((x - 0.14, y - 0.14, 0.1, 0.12), self.lit)
        self.oval((0.42, -0.86, 0.34, 0.15), LEAF)

    def pear(self) -> None:
        self.line([(0, -0.85), (0.1, -1.18)], STEM, 0.1)
        self.poly(_bulb(0.36, 0.72), self.body)
        self.oval((-0.32, 0.3, 0.12, 0.24), self.lit)

    def strawberry(self) -> None:
        self.poly(STRAWBERRY, self.body)
        seed = mix(self.lit, (250, 230, 140), 0.7)
        for k in range(17):
            y = -0.35 + 0.22 * (k // 4)
            x = (k % 4 - 1.5) * 0.34 * (1 - 0.5 * (y + 0.35)) + 0.08 * (k // 4 % 2)
            self.oval((x, y, 0.04, 0.06), seed)
        for k in range(5):
            leaf = [(-0.6 + 0.24 * k, -0.72), (-0.36 + 0.24 * k, -0.72), (-0.6 + 0.3 * k, -0.3)]
            self.poly(leaf, LEAF)
        self.line([(0, -0.7), (0.05, -1.0)], LEAF, 0.1)

    def lemon(self) -> None:
        self.oval((0, 0, 0.82, 0.66), self.body)
        for x in (-0.84, 0.84):
            self.oval((x, 0, 0.17, 0.15), self.body)
        self.oval((-0.25, -0.28, 0.26, 0.12), self.lit)
        for _ in range(14):
            pore = (self.rng.uniform(-0.55, 0.55), self.rng.uniform(-0.35, 0.45), 0.025, 0.025)
            self.oval(pore, self.dark)

    def pineapple(self) -> None:
        for k in range(-3, 4):
            tip = (0.22 * k, -1.1 + 0.05 * k * k)
            leaf = scale(LEAF, 0.8 + 0.12 * (k % 2))
            self.poly([(0.1 * k - 0.12, -0.3), (0.1 * k + 0.12, -0.3), tip], leaf)
        self.oval((0, 0.3, 0.5, 0.72), self.body)
        for k in range(-2, 4):
            y = 0.2 + 0.22 * k
            x = 0.5 * math.sqrt(max(0, 1 - ((y + 0.05 - 0.3) / 0.72) ** 2))
            for sign in SIDES:
                self.line([(-x * sign, y - 0.12), (x * sign, y + 0.22)], self.dark, 0.045)

    def watermelon(self) -> None:
        for radius, color in ((1.0, self.dark), (0.88, self.lit), (0.78, self.body)):
            self.pie((0, -0.35, radius, radius), 0, 180, color)
        for x, y in MELON_SEEDS:
            self.oval((x, y, 0.05, 0.08), SEED)

    def carrot(self) -> None:
        for k in (-2, -1, 0, 1, 2):
            self.line([(0, -0.5), (0.16 * k, -1.1 + 0.04 * k * k)], LEAF, 0.1)
        self.poly(CARROT, self.body)
        for y in (-0.35, -0.1, 0.15, 0.4):
            self.line([(-0.05, y), (0.2 - 0.1 * y, y + 0.03)], self.dark, 0.045)

    def mushroom(self) -> None:
        self.poly([(-0.26, -0.05), (0.26, -0.05), (0.34, 0.85), (-0.34, 0.85)], STALK)
        self.oval((0, 0.85, 0.34, 0.12), STALK)
        self.pie((0, 0.05, 0.95, 0.95), 180, 360, self.body)
        self.oval((0, 0.05, 0.95, 0.14), self.dark)
        spots = [(-0.5, -0.3, 0.13), (0.05, -0.55, 0.16), (0.52, -0.25, 0.12), (-0.1, -0.2, 0.09)]
        for x, y, r in spots:
            self.oval((x, y, r, r * 0.85), self.lit)

    def pumpkin(self) -> None:
        self.line([(0, -0.5), (0.14, -0.98)], STEM, 0.16)
        for x, r in ((-0.55, 0.42), (0.55, 0.42), (-0.28, 0.42), (0.28, 0.42), (0, 0.34)):
            self.oval((x, 0.12, r, 0.7), self.body, self.dark, 0.045)

    def corn(self) -> None:
        self.oval((0, -0.1, 0.36, 0.95), self.body)
        for j in range(-7, 7):
            y = -0.1 + 0.125 * j
            reach = 0.36 * math.sqrt(max(0, 1 - ((y + 0.1) / 0.95) ** 2))
            for k in (-2, -1, 0, 1, 2):
                if abs(0.15 * k) < reach:
                    self.oval((0.15 * k, y, 0.065, 0.055), self.lit, self.dark, 0.02)
        for sign in SIDES:
            husk = [(0, 1.05), (0.62 * sign, 0.0), (0.34 * sign, -0.35), (0.2 * sign, 0.5)]
            self.poly(husk, scale(LEAF, 1.0 + 0.15 * sign))

    def chili(self) -> None:
        self.poly([(x, y * 1.1) for x, y in _crescent(0.55, 0.2)], self.body)
        self.line([(-0.5, -0.02), (0.0, 0.2), (0.45, 0.05)], self.lit, 0.05)
        self.oval((-0.88, -0.26, 0.2, 0.18), LEAF)
        self.line([(-0.95, -0.3), (-1.1, -0.62)], LEAF, 0.1)

    def kiwi(self) -> None:
        self.oval((0, 0, 0.86, 0.82), self.dark)
        self.oval((0, 0, 0.76, 0.72), self.body)
        self.oval((0, 0, 0.26, 0.22), mix(self.lit, (255, 255, 240), 0.7))
        for k in range(14):
            a = 2 * math.pi * k / 14
            self.oval((0.42 * math.cos(a), 0.4 * math.sin(a), 0.05, 0.05), SEED)

    def avocado(self) -> None:
        self.poly(_bulb(0.42, 0.74), self.dark)
        flesh = mix(self.body, self.lit, 0.35)
        self.poly([(0.84 * x, 0.86 * y) for x, y in _bulb(0.42, 0.74)], flesh)
        self.oval((0, 0.32, 0.33, 0.33), (122, 78, 42))
        self.oval((-0.1, 0.22, 0.1, 0.1), (160, 112, 68))
