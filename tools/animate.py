"""Draw the README's pictures: `python -m tools.animate [--figures figures] [--explorer URL]`.

All are in true color. The animated one is drawn from a fit of Multi-Sub: clusters and names are its
result, not the labels; a cross marks a picture that is not of the class of most of its cluster. The
diagrams of the methods are those of the lessons. With `--figures`, the folder of a run of
`run_all.py`, its main comparison is copied as well, and its gallery drawn by the browser of
playwright; with `--explorer`, the page of `python run_all.py explore`.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw, ImageFont

import mmclust as mm
from mmclust.results.schematics import DIAGRAMS, schematic

IMAGES = Path(__file__).parents[1] / "docs" / "img"
IDEA = IMAGES / "idea.webp"
COMPARISON = "02_main_comparison_nmi.png"
COMPARISON_WIDTH = 760  # pixels
SCHEMATIC_DPI = 130
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
QUALITY = 90  # of WebP
BLACK, GRAY, WHITE, RED = (38, 38, 38), (110, 110, 110), (255, 255, 255), (192, 0, 0)


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
    """Tiles of some pictures, and the stages: title, names of the rows, corners of the tiles, and
    which of them are in the wrong row. The first stage fills the frame, as it is what a page shows
    before the animation starts."""
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
    stages = []
    for keyword in KEYWORDS:
        places = rows_of(both[keyword].labels_[:N_TILES])
        wrong = mm.figures.misplaced(both[keyword].labels_, data.labels[keyword])[:N_TILES]
        stages.append((f"keyword: {keyword}", both[keyword].name_clusters(), places, wrong))
    return tiles, [*stages, ("the same pictures", [], unsorted, np.zeros(N_TILES, bool))]


def draw(
    tiles: list, places: np.ndarray, size: tuple, title: str = "", names: tuple | list = (),
    wrong: tuple | np.ndarray = (),
) -> Image.Image:  # fmt: skip
    frame = Image.new("RGB", size, WHITE)
    pen = ImageDraw.Draw(frame)
    pen.text((LEFT, TOP / 2), title, BLACK, font(20), anchor="lm")
    for row, name in enumerate(names):
        _, y = corner(0, row)
        pen.text((LEFT - 12, y + TILE / 2), name, GRAY, font(15), anchor="rm")
    for tile, (x, y) in zip(tiles, places):
        frame.paste(tile, (round(x), round(y)))
    for x, y in places[np.flatnonzero(wrong)]:
        left, top, right, low = x + TILE - 14, y + 4, x + TILE - 4, y + 14
        for color, width in ((WHITE, 6), (RED, 3)):
            pen.line((left, top, right, low), color, width)
            pen.line((left, low, right, top), color, width)
    return frame


def animate(path: Path = IDEA, n: int = 300) -> None:
    tiles, stages = arrangements(n)
    far_corner = np.max([places.max(axis=0) for _, _, places, _ in stages], axis=0)
    size = tuple(int(x) + TILE + EDGE for x in far_corner)
    frames, times = [], []
    for (title, names, here, wrong), (_, _, there, _) in zip(stages, [*stages[1:], stages[0]]):
        frames.append(draw(tiles, here, size, title, names, wrong))
        times.append(REST_MS)
        for t in np.arange(1, MOVE_FRAMES) / MOVE_FRAMES:
            eased = t * t * (3 - 2 * t)
            frames.append(draw(tiles, here + eased * (there - here), size))
            times.append(MOVE_MS)
    options = {"append_images": frames[1:], "duration": times, "loop": 0}
    frames[0].save(path, save_all=True, quality=QUALITY, **options)
    kilobytes = path.stat().st_size / 1000
    print(f"{path}: {len(frames)} frames, {size[0]} x {size[1]} pixels, {kilobytes:.0f} kB")


def draw_schematics(folder: Path = IMAGES) -> None:
    mm.figures.use_theme()
    for method in DIAGRAMS:
        figure = schematic(method)
        figure.savefig(
            folder / f"{method.lower()}.png", dpi=SCHEMATIC_DPI, pil_kwargs={"optimize": True}
        )
        plt.close(figure)


def copy_comparison(figures: Path, path: Path = IMAGES / "comparison.png") -> None:
    with Image.open(figures / COMPARISON) as figure:
        height = round(figure.height * COMPARISON_WIDTH / figure.width)
        picture = figure.convert("RGB").resize((COMPARISON_WIDTH, height), Image.LANCZOS)
    picture.save(path, optimize=True)


def draw_gallery(figures: Path, path: Path = IMAGES / "gallery.png") -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto((figures / "index.html").resolve().as_uri(), timeout=300_000)
        page.screenshot(path=path, timeout=300_000)
        browser.close()


def draw_explorer(address: str, path: Path = IMAGES / "explorer.png") -> None:
    """The explorer's page after its first answer."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page(viewport={"width": 1440, "height": 2000})
        page.goto(address)
        page.locator(".mm-map path").first.wait_for(timeout=120_000)
        page.locator(".mm-done").wait_for(timeout=120_000)
        page.screenshot(path=path, timeout=300_000)
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figures", type=Path, help="the folder of a run of run_all.py")
    parser.add_argument("--explorer", help="the address of a running explorer")
    args = parser.parse_args()
    animate()
    draw_schematics()
    if args.figures:
        copy_comparison(args.figures)
        draw_gallery(args.figures)
    if args.explorer:
        draw_explorer(args.explorer)


if __name__ == "__main__":
    main()
