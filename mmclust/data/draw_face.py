"""Faces: a person with an emotion, glasses and a pose."""

from __future__ import annotations

import zlib

import numpy as np
from PIL import Image

from mmclust.data.drawing import RGB, SIDES, Pen, finish, mix, rgb, scale

# hair styles
LONG = (1, 4)
BUN = 2
BALD = 3
AFRO = 5
# emotion: how far the eyes are open, compared with neutral
EYELIDS = {"surprised": 1.35, "scared": 1.3, "sleepy": 0.3, "happy": 0.85, "angry": 0.75}
BROWS = {  # emotion: how much lower than usual their inner and outer ends are
    "angry": (0.13, -0.08), "sad": (-0.11, 0.08), "scared": (-0.13, -0.02),
    "surprised": (-0.12, -0.12), "happy": (-0.03, -0.02),
}  # fmt: skip
LIP = (150, 45, 50)
TEETH = (250, 250, 250)
RIMS = ((24, 24, 28), (70, 45, 30), (110, 25, 35))
LEATHER = (20, 20, 22)
RUBBER = (40, 40, 46)
GOLD = (196, 158, 40)
EYE_DISTANCE = 0.29  # of an eye from the middle of a face that looks straight ahead


class Person:
    """What all pictures of one identity share; the order of the random draws determines it."""

    def __init__(self, identity: str) -> None:
        rng = np.random.default_rng([7, zlib.crc32(identity.encode())])
        skin = rgb(rng.uniform(14, 34), rng.uniform(0.25, 0.62), rng.uniform(0.42, 0.98))
        self.skin = mix(skin, (255, 225, 200), 0.1)
        colored = rgb(rng.uniform(12, 48), rng.uniform(0.3, 0.85), rng.uniform(0.1, 0.8))
        gray = rgb(0, 0.02, rng.uniform(0.1, 0.85))
        self.hair = gray if rng.random() < 0.25 else colored
        self.width = rng.uniform(0.6, 0.72)
        self.height = rng.uniform(0.7, 0.82)
        self.style = rng.integers(6)
        self.brow = rng.uniform(0.045, 0.075)
        self.eye = rng.uniform(0.105, 0.135)
        self.beard = rng.random() < 0.3
        self.freckles = rng.random() < 0.25
        self.iris = rgb(rng.uniform(20, 240), 0.6, 0.45)


def draw_face(row: dict, rng: np.random.Generator, size: int) -> Image.Image:
    """The face of `row` (identity, emotion, glasses, pose), RGB, (size, size) pixels."""
    shirt = rgb(rng.uniform(0, 360), rng.uniform(0.2, 0.8), rng.uniform(0.3, 0.95))
    pen = FacePen(size, Person(row["identity"]), row["pose"], rng)
    pen.head(shirt, rng)
    for side in SIDES:
        pen.eye(side, row["emotion"])
    pen.nose()
    pen.mouth(row["emotion"])
    pen.glasses(row["glasses"], RIMS[int(rng.integers(3))])
    sideways = rng.choice([-1, 1]) * rng.uniform(28, 42)
    angles = {"tilted": sideways, "inverted": 180 + rng.uniform(-8, 8)}
    upright = rng.uniform(-7, 7)
    return finish(pen, rng, angles.get(row["pose"], upright), shift=0.03, gloss=(0.1, 0.3))


class FacePen(Pen):
    """Draws the parts of one face; its features are shifted by (dx, dy) when the head turns."""

    def __init__(self, size: int, person: Person, pose: str, rng: np.random.Generator) -> None:
        self.dx = {"left": -0.27, "right": 0.27}.get(pose, 0.0) * rng.uniform(0.85, 1.15)
        self.dy = {"up": -0.24, "down": 0.26}.get(pose, 0.0) * rng.uniform(0.85, 1.15)
        super().__init__(2 * size, 2 * size * rng.uniform(0.41, 0.48))
        self.person = person
        self.shade = scale(person.skin, 0.8)
        self.outline = scale(person.skin, 0.5)
        self.eye_y = -0.07 + self.dy
        self.squeeze = 1 - 0.5 * abs(self.dx)  # features of a turned head look narrower

    def head(self, shirt: RGB, rng: np.random.Generator) -> None:
        """From back to front: hair, neck, shirt, ears, face, beard, front hair, freckles."""
        person = self.person
        if person.style in LONG:
            self.oval((0, 0.15, person.width * 1.28, person.height * 1.25), person.hair)
        if person.style == AFRO:
            self.oval((0, -0.3, person.width * 1.4, person.height * 0.98), person.hair)
        self.poly([(-0.2, 0.5), (0.2, 0.5), (0.24, 1.05), (-0.24, 1.05)], self.shade)
        self.oval((0, 1.35, 0.85, 0.5), shirt)
        for side in SIDES:
            if self.dx * side <= 0.01:  # the ear on the side to which the head turns is hidden
                x = side * person.width * 0.98 + self.dx * 0.15
                self.oval((x, 0.02 + self.dy * 0.5, 0.12, 0.18), self.shade)
        self.oval((0, 0, person.width, person.height), person.skin)
        if person.beard:
            box = (self.dx * 0.4, 0.08 + self.dy * 0.4, person.width * 0.97, person.height * 0.9)
            self.pie(box, 25, 155, person.hair)
            self.oval((self.dx, 0.4 + self.dy, 0.38, 0.27), person.skin)
        if person.style != BALD:
            hairline = (-0.4 if person.style == BUN else -0.3) + 0.9 * self.dy
            self.pie((0, -0.12, person.width * 1.05, person.height * 0.93), 180, 360, person.hair)
            self.oval((self.dx * 0.4, hairline + 0.22, person.width * 0.9, 0.3), person.skin)
        if person.style == BUN:
            self.oval((-self.dx * 0.4, -person.height - 0.12, 0.22, 0.2), person.hair)
        for _ in range(10 if person.freckles else 0):
            x = self.dx + rng.uniform(-0.35, 0.35)
            y = 0.14 + self.dy + rng.uniform(-0.06, 0.08)
            self.oval((x, y, 0.015, 0.015), self.outline)

    def eye(self, side: int, emotion: str) -> None:
        eye = self.person.eye
        x = self.dx + side * EYE_DISTANCE * self.squeeze
        y = self.eye_y
        lids = EYELIDS.get(emotion, 1.0)
        self.oval((x, y, eye * 1.15, eye * 0.9 * lids), TEETH, self.outline, 0.012)
        look_x = x + self.dx * 0.15
        look_y = y + self.dy * 0.12
        iris = (look_x, look_y, eye * 0.5, min(eye * 0.55, eye * 0.8 * lids))
        pupil = (look_x, look_y, eye * 0.26, min(eye * 0.28, eye * 0.6 * lids))
        self.oval(iris, self.person.iris)
        self.oval(pupil, (15, 15, 18))
        if emotion == "sleepy":
            self.pie((x, y, eye * 1.15, eye * 1.0), 180, 360, self.shade)
        inner, outer = BROWS.get(emotion, (0, 0))
        brow = [(x - side * eye * 1.2, y - 0.19 + inner), (x + side * eye * 1.3, y - 0.19 + outer)]
        color = self.outline if self.person.style == BALD else self.person.hair
        self.line(brow, color, self.person.brow)

    def mouth(self, emotion: str) -> None:
        x = self.dx
        y = 0.42 + self.dy
        if emotion == "happy":
            self.pie((x, y - 0.1, 0.34, 0.32), 8, 172, LIP)
            self.pie((x, y - 0.07, 0.27, 0.16), 5, 175, TEETH)
        elif emotion == "sad":
            self.arc((x, y + 0.16, 0.3, 0.26), 190, 350, LIP, 0.08)
        elif emotion == "angry":
            box = self.corners((x, y, 0.27, 0.11))
            self.draw.rectangle(box, fill=TEETH, outline=LIP, width=max(1, self.image.width // 100))
            self.line([(x - 0.27, y), (x + 0.27, y)], LIP, 0.025)
        elif emotion == "surprised":
            self.oval((x, y + 0.05, 0.15, 0.22), (95, 25, 30), LIP, 0.04)
        elif emotion == "sleepy":
            self.oval((x + 0.04, y, 0.09, 0.07), LIP)
        elif emotion == "silly":
            self.pie((x, y - 0.08, 0.29, 0.2), 0, 180, LIP)
            self.oval((x + 0.05, y + 0.13, 0.13, 0.2), (232, 110, 125))
        elif emotion == "scared":
            zigzag = [(x - 0.3 + 0.12 * k, y + (0.08 if k % 2 else -0.08)) for k in range(6)]
            self.line(zigzag, LIP, 0.06)
        else:
            self.line([(x - 0.24, y), (x + 0.24, y)], LIP, 0.065)

    def glasses(self, glasses: str, rim: RGB) -> None:
        width = self.person.width
        y = self.eye_y
        left = self.dx - EYE_DISTANCE * self.squeeze
        right = self.dx + EYE_DISTANCE * self.squeeze
        if glasses in ("sunglasses", "spectacles"):
            dark = glasses == "sunglasses"
            for x in (left, right):
                lens = (x, y, 0.23 * self.squeeze, 0.18)
                self.oval(lens, (26, 28, 34) if dark else None, rim, 0.035)
                if dark:
                    self.line([(x - 0.1, y + 0.02), (x + 0.0, y - 0.09)], (110, 115, 125), 0.03)
            inset = 0.18 * self.squeeze
            self.line([(left + inset, y - 0.02), (right - inset, y - 0.02)], rim, 0.04)
        elif glasses == "eyepatch":
            strap = [(-width * 0.9, y - 0.32), (right, y), (width * 0.98, y - 0.05)]
            self.line(strap, LEATHER, 0.04)
            self.oval((right, y, 0.2, 0.19), LEATHER)
        elif glasses == "goggles":
            self.line([(-width, y), (width, y)], RUBBER, 0.12)
            box = self.corners((self.dx, y, 0.5 * self.squeeze, 0.2))
            border = round(0.05 * self.unit)
            self.draw.rounded_rectangle(box, 0.12 * self.unit, (235, 140, 40), RUBBER, border)
            self.line([(self.dx - 0.3, y + 0.08), (self.dx - 0.16, y - 0.1)], (255, 215, 150), 0.05)
        elif glasses == "monocle":
            self.oval((right, y, 0.23, 0.22), None, GOLD, 0.06)
            self.line([(right + 0.1, y + 0.17), (right + 0.16, 0.75)], GOLD, 0.025)

    def nose(self) -> None:
        x = self.dx
        y = self.eye_y
        ridge = [(x, y + 0.08), (x + 0.06 + 0.2 * x, y + 0.28), (x - 0.03, y + 0.3)]
        self.line(ridge, self.outline, 0.025)
