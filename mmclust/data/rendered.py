"""Rendered worlds with known, independent factors: fruit, card and face.

Picture `i` of a world depends only on (name, seed, size, i): a longer sample begins with a shorter
one. `DEMO` and `TUNING` use disjoint values of each factor, so that settings are never tuned on the
values of reported results. The pictures are drawn by `draw_fruit`, `draw_card` and `draw_face`.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mmclust.code_fingerprint import code_fingerprint
from mmclust.data.draw_card import RANKS, SUITS, draw_card
from mmclust.data.draw_face import draw_face
from mmclust.data.draw_fruit import COLORS, FRUITS, draw_fruit
from mmclust.data.images import ImageDataset, Images, encode_labels

ROUND = ("apple", "cherry", "strawberry", "lemon", "mushroom", "pumpkin", "kiwi", "watermelon")
SHAPES = {species: "round" if species in ROUND else "elongated" for species in FRUITS}
EMOTIONS = ("happy", "sad", "angry", "neutral", "surprised", "sleepy", "silly", "scared")
GLASSES = ("sunglasses", "open", "spectacles", "eyepatch", "goggles", "monocle")
POSES = ("left", "right", "straight", "up", "down", "tilted", "inverted")
PEOPLE = tuple(f"person {i:02d}" for i in range(40))
DRAW = {"fruit": draw_fruit, "card": draw_card, "face": draw_face}
FACTORS: dict[str, dict[str, tuple[tuple[str, ...], int]]] = {  # (values, number in DEMO)
    "fruit": {"color": (tuple(COLORS), 6), "species": (FRUITS, 8)},
    "card": {"order": (tuple(RANKS), 13), "suits": (tuple(SUITS), 4)},
    "face": {"identity": (PEOPLE, 20), "emotion": (EMOTIONS, 4), "glasses": (GLASSES, 2),
             "pose": (POSES, 4)},
}  # fmt: skip
FACTORS_STREAM = 0  # the random numbers of a row's values are independent of those of its drawing
PICTURE_STREAM = 1


@dataclass(frozen=True)
class World:
    """A renderer with the values that its factors may take."""

    name: str  # such as "demo-fruit"; part of every random seed
    domain: str  # "fruit", "card" or "face": the renderer, and the first word of a prompt
    factors: dict[str, tuple]  # criterion -> its values
    derived: dict[str, tuple[str, dict]]  # criterion -> (its factor, value -> class)

    def classes(self) -> dict[str, tuple]:
        """criterion -> its class names, in the order of the integer labels."""
        derived = {c: tuple(dict.fromkeys(k.values())) for c, (_, k) in self.derived.items()}
        return self.factors | derived

    def sample_one(self, index: int, seed: int = 0) -> dict:
        """criterion -> value for picture `index`; every factor uniform and independent."""
        rng = self._rng(index, seed, FACTORS_STREAM)
        row = {name: values[rng.integers(len(values))] for name, values in self.factors.items()}
        derived = {name: classes[row[factor]] for name, (factor, classes) in self.derived.items()}
        return row | derived

    def render(self, row: dict, index: int, seed: int = 0, size: int = 128) -> Image.Image:
        """The picture of `row`, RGB, (size, size) pixels.

        `index` and `seed` determine everything that the factors leave open.
        """
        return DRAW[self.domain](row, self._rng(index, seed, PICTURE_STREAM), size)

    def _rng(self, index: int, seed: int, stream: int) -> np.random.Generator:
        return np.random.default_rng([zlib.crc32(self.name.encode()), seed, index, stream])


def _worlds(prefix: str, first: bool) -> dict[str, World]:
    """Three worlds with the first or with the remaining values of every factor."""
    worlds = {}
    for domain, all_values in FACTORS.items():
        factors = {c: values[:k] if first else values[k:] for c, (values, k) in all_values.items()}
        derived = {"shape": ("species", SHAPES)} if domain == "fruit" else {}
        worlds[f"{prefix}-{domain}"] = World(f"{prefix}-{domain}", domain, factors, derived)
    return worlds


DEMO = _worlds("demo", first=True)
TUNING = _worlds("tuning", first=False)
RENDERED_WORLDS = DEMO | TUNING


def load_rendered(name: str, n: int = 300, seed: int = 0, size: int = 128) -> ImageDataset:
    """`n` pictures of a world, (size, size) pixels, with all its criteria as labels.

    Equal arguments give equal pictures; a larger `n` only adds some. ValueError if n < 1.
    """
    if n < 1:
        raise ValueError(f"{name}: n must be at least 1, not {n}")
    world = RENDERED_WORLDS[name]
    rows = [world.sample_one(i, seed) for i in range(n)]
    code = code_fingerprint([DRAW[world.domain]], alone=[World])
    fingerprint = f"{name} {n} {seed} {size} {code}"
    describe = f"picture {{}} of {name} (seed {seed})".format
    images = Images(n, lambda i: world.render(rows[i], i, seed, size), fingerprint, describe)
    orders = world.classes()
    labels, classes = encode_labels({c: [row[c] for row in rows] for c in orders}, orders)
    provenance = f"rendered by mmclust.data.rendered, seed {seed}"
    derived = tuple(world.derived)
    return ImageDataset(name, world.domain, images, labels, classes, provenance, rows, derived)
