"""Draw the README's animated picture: `python docs/animate.py [FILE]`. The clusters and their names are what Multi-Sub finds, not the labels."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import mmclust as mm

KEYWORDS, SHOWN, TILE, GAP, HEAD, LEFT, EDGE, ACROSS = (
    ["color", "species"],
    44,
    44,
    5,
    52,
    104,
    12,
    11,
)
MOVE, HOLD = 12, 1800  # frames of a movement; milliseconds of a rest
INK, FAINT, PAPER = (38, 38, 38), (110, 110, 110), (255, 255, 255)


def font(size: int):
    import matplotlib

    return ImageFont.truetype(
        str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size
    )


def rows(labels: np.ndarray) -> np.ndarray:
    """A place (x, y) for each picture: its cluster's row, from the left."""
    before = [int((labels[:i] == label).sum()) for i, label in enumerate(labels)]
    return np.array(
        [(LEFT + k * (TILE + GAP), HEAD + label * (TILE + GAP)) for label, k in zip(labels, before)]
    )


def arrangements(n: int = 300, seed: int = 0):
    """Tiles of some pictures; their places in a heap and under each keyword, and the names of the rows."""
    data = mm.load_dataset("demo-fruit", n=n, seed=seed)
    sizes = {keyword: data.n_clusters(keyword) for keyword in KEYWORDS}
    settings = mm.load_profile()["methods"]["MultiSub"]
    both = mm.cluster_by(
        data.images, KEYWORDS, mm.load_encoder("mini"), of=data.domain, n_clusters=sizes, **settings
    )
    tiles = [data.images[i].resize((TILE, TILE), Image.LANCZOS) for i in range(SHOWN)]
    order = np.random.default_rng(seed).permutation(SHOWN)
    heap = np.array(
        [(LEFT + k % ACROSS * (TILE + GAP), HEAD + k // ACROSS * (TILE + GAP)) for k in order]
    )
    stages = [("the same pictures", [], heap)]
    for keyword in KEYWORDS:
        stages.append(
            (
                f"keyword: {keyword}",
                both[keyword].name_clusters(),
                rows(both[keyword].labels_[:SHOWN]),
            )
        )
    return tiles, stages


def draw(tiles, places, title: str, names: list[str], size: tuple[int, int]) -> Image.Image:
    frame = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(frame)
    pen.text((LEFT, 26), title, INK, font(20), anchor="lm")
    for k, name in enumerate(names):
        pen.text(
            (LEFT - 12, HEAD + k * (TILE + GAP) + TILE / 2), name, FAINT, font(15), anchor="rm"
        )
    for tile, (x, y) in zip(tiles, places):
        frame.paste(tile, (round(x), round(y)))
    return frame


def main(path: Path, n: int = 300) -> None:
    tiles, stages = arrangements(n)
    size = tuple(
        int(max(places[:, axis].max() for _, _, places in stages)) + TILE + EDGE for axis in (0, 1)
    )
    frames, times = [], []
    for (title, names, here), (_, _, there) in zip(stages, [*stages[1:], stages[0]]):
        frames.append(draw(tiles, here, title, names, size))
        times.append(HOLD)
        for t in np.arange(1, MOVE) / MOVE:
            eased = t * t * (3 - 2 * t)
            frames.append(draw(tiles, here + eased * (there - here), "", [], size))
            times.append(45)
    palette = frames[0].quantize(64)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=times, loop=0, optimize=True
    )
    print(
        f"{path}: {len(frames)} frames, {size[0]} x {size[1]} pixels, {path.stat().st_size / 1000:.0f} kB"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "img" / "idea.gif")
