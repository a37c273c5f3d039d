"""Draw the README's animated picture: `python -m tools.animate [FILE]`.

The clusters and their names are the result of Multi-Sub, not the labels.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

import mmclust as mm

IDEA = Path(__file__).parents[1] / "docs" / "img" / "idea.gif"
KEYWORDS = ("color", "species")
N_TILES = 44  # pictures in the animation
TILE = 44  # pixels of a tile's side
GAP = 5  # pixels between tiles
TOP = 52  # pixels above the tiles
LEFT = 104  # pixels to the left of the tiles, for the names of the rows
EDGE = 12  # pixels to the right of the tiles and below them
COLUMNS = 11  # of the unsorted tiles
MOVE_FRAMES = 12
MOVE_MS = 45  # milliseconds of a frame of a movement
REST_MS = 1800  # milliseconds of a rest
PALETTE_SIZE = 64
BLACK, GRAY, WHITE = (38, 38, 38), (110, 110, 110), (255, 255, 255)


def font(size: int) -> ImageFont.FreeTypeFont:
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / "DejaVuSans.ttf"), size)


def corner(column: int, row: int) -> tuple[int, int]:
    """The upper left corner of a tile, in pixels."""
    return LEFT + column * (TILE + GAP), TOP + row * (TILE + GAP)


def rows_of(labels: np.ndarray) -> np.ndarray:
    """The corner (x, y) of each tile, if every cluster is a row."""
    columns = [int((labels[:i] == label).sum()) for i, label in enumerate(labels)]
    return np.array([corner(column, label) for column, label in zip(columns, labels)])


def arrangements(n: int, seed: int = 0) -> tuple[list, list]:
    """Tiles of some pictures, and the stages: title, names of the rows, corners of the tiles."""
    data = mm.load_dataset("demo-fruit", n=n, seed=seed)
    both = mm.cluster_by(
        data.images,
        list(KEYWORDS),
        mm.load_encoder("mini"),
        of=data.domain,
        n_clusters={keyword: data.n_clusters(keyword) for keyword in KEYWORDS},
        **mm.load_profile()["methods"]["MultiSub"],
    )
    tiles = [data.images[i].resize((TILE, TILE), Image.LANCZOS) for i in range(N_TILES)]
    order = np.random.default_rng(seed).permutation(N_TILES)
    unsorted = np.array([corner(k % COLUMNS, k // COLUMNS) for k in order])
    stages = [("the same pictures", [], unsorted)]
    for keyword in KEYWORDS:
        places = rows_of(both[keyword].labels_[:N_TILES])
        stages.append((f"keyword: {keyword}", both[keyword].name_clusters(), places))
    return tiles, stages


def draw(tiles: list, places: np.ndarray, title: str, names: list, size: tuple) -> Image.Image:
    frame = Image.new("RGB", size, WHITE)
    pen = ImageDraw.Draw(frame)
    pen.text((LEFT, TOP / 2), title, BLACK, font(20), anchor="lm")
    for row, name in enumerate(names):
        _, y = corner(0, row)
        pen.text((LEFT - 12, y + TILE / 2), name, GRAY, font(15), anchor="rm")
    for tile, (x, y) in zip(tiles, places):
        frame.paste(tile, (round(x), round(y)))
    return frame


def main(path: Path, n: int = 300) -> None:
    tiles, stages = arrangements(n)
    far_corner = np.max([places.max(axis=0) for _, _, places in stages], axis=0)
    size = tuple(int(x) + TILE + EDGE for x in far_corner)
    frames, times = [], []
    for (title, names, here), (_, _, there) in zip(stages, [*stages[1:], stages[0]]):
        frames.append(draw(tiles, here, title, names, size))
        times.append(REST_MS)
        for t in np.arange(1, MOVE_FRAMES) / MOVE_FRAMES:
            eased = t * t * (3 - 2 * t)
            frames.append(draw(tiles, here + eased * (there - here), "", [], size))
            times.append(MOVE_MS)
    palette = frames[0].quantize(PALETTE_SIZE)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=times, loop=0, optimize=True
    )
    kilobytes = path.stat().st_size / 1000
    print(f"{path}: {len(frames)} frames, {size[0]} x {size[1]} pixels, {kilobytes:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else IDEA)
