"""Playing cards: a rank and a suit, in one of the suit's inks."""

from __future__ import annotations

import numpy as np
from PIL import Image

from mmclust.data.drawing import Pen, finish, mix, rgb

SUITS = {
    "hearts": "♥", "diamonds": "♦", "clubs": "♣", "spades": "♠",
    "stars": "★", "moons": "☾", "crosses": "✚", "anchors": "⚓",
}  # fmt: skip
INKS = {
    "hearts": ["#be1420"], "diamonds": ["#be1420", "#1d4fb8"], "clubs": ["#16161a", "#14733a"],
    "spades": ["#16161a"], "stars": ["#b07d0a", "#16161a"], "moons": ["#4a3fa3", "#16161a"],
    "crosses": ["#be1420", "#14733a"], "anchors": ["#1d4fb8", "#16161a"],
}  # fmt: skip
RANKS = {
    "ace": "A", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7",
    "eight": "8", "nine": "9", "ten": "10", "jack": "J", "queen": "Q", "king": "K", "zero": "0",
    "eleven": "11", "twelve": "12", "fifteen": "15", "twenty": "20", "joker": "☺", "knight": "N",
}  # fmt: skip
COURT = {"jack": "♝", "queen": "♛", "king": "♚", "joker": "☻", "knight": "♞"}
PIPS = {  # pips per column, left to right
    "zero": [], "ace": [1], "two": [2], "three": [3], "four": [2, 2], "five": [2, 1, 2],
    "six": [3, 3], "seven": [3, 1, 3], "eight": [3, 2, 3], "nine": [4, 1, 4], "ten": [4, 2, 4],
    "eleven": [4, 3, 4], "twelve": [4, 4, 4], "fifteen": [5, 5, 5], "twenty": [5, 5, 5, 5],
}  # fmt: skip
HALF_WIDTH = 0.72  # of a card, in units of its half height


def draw_card(row: dict, rng: np.random.Generator, size: int) -> Image.Image:
    """The card of `row` (order, suits) as an RGB picture of (size, size) pixels."""
    rank = row["order"]
    suit = row["suits"]
    ink = INKS[suit][0] if rng.random() < 0.7 else INKS[suit][-1]
    paper = mix((252, 252, 250), (240, 226, 196), rng.uniform(0, 0.9))
    height = 2 * size * rng.uniform(0.8, 0.92)
    pen = Pen(2 * size, height / 2)
    border = max(1, size // 90)
    card = pen.corners((0, 0, HALF_WIDTH, 1))
    pen.draw.rounded_rectangle(card, 0.07 * height, paper, (150, 145, 140), border)
    _indices(pen, RANKS[rank], SUITS[suit], height, ink)
    if rank in COURT:
        frame = mix(paper, rgb(rng.uniform(0, 360), 0.5, 0.95), 0.5)
        figure = rgb(rng.uniform(0, 360), 0.7, 0.4)
        box = pen.corners((0, 0, HALF_WIDTH - 0.32, 0.66))
        pen.draw.rectangle(box, fill=frame, outline=ink, width=border)
        pen.text(0, -0.05, COURT[rank], 0.4 * height, figure)
        pen.text(HALF_WIDTH - 0.47, 0.5, SUITS[suit], 0.11 * height, ink)
    columns = PIPS.get(rank, [])
    share = 0.09 if len(columns) > 3 or max(columns, default=0) > 4 else 0.155
    pixels = (0.38 if rank == "ace" else share) * height
    span = HALF_WIDTH - 0.44
    for i, count in enumerate(columns):
        x = 0 if len(columns) == 1 else span * (2 * i / (len(columns) - 1) - 1)
        for j in range(count):
            pen.text(x, 0.72 * (2 * (j + 0.5) / count - 1), SUITS[suit], pixels, ink)
    return finish(pen, rng, rng.uniform(-22, 22), shift=0.06, gloss=(0.05, 0.2))


def _indices(pen: Pen, index: str, suit: str, height: float, ink: str) -> None:
    """Rank and suit in the upper left corner and, upside down, in the lower right one."""
    tall = 0.185 * height * (0.82 if len(index) > 1 else 1)
    corner = Pen(pen.image.width, pen.unit)
    corner.text(-HALF_WIDTH + 0.17, -0.78, index, tall * 1.15, ink, bold=True)
    corner.text(-HALF_WIDTH + 0.17, -0.47, suit, tall, ink)
    pen.image.alpha_composite(corner.image)
    pen.image.alpha_composite(corner.image.rotate(180))
