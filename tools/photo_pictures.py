"""The pictures that the encoder `photo` is trained with: packed files, rendering, augmentation.

A packed file (`pack`) has the pictures of one pool as WebP and what each shows. Thus the pools can
travel to a machine that has no copy of the data sets.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from tools.mini_captions import held_out
from tools.mini_pictures import WORLDS, photo_row, photographs, split_photographs
from tools.photo_captions import is_rendered, species

SIZE = 160  # pixels
RENDERED_SIZE = 128
MEAN = STD = (0.5, 0.5, 0.5)
PREPROCESS = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
MIDDLE = 0.25  # of each side is cut off before the color is named
SHARE = 0.5  # of the middle that has the color that is named
KEPT_OUT_FRUIT = 10  # every tenth of a kind, in the order of the angle, with its neighbors


@dataclass
class Pool:
    """Pictures of one size, uint8 (n, 3, h, w), and what each shows; the held-out ones likewise."""

    pixels: torch.Tensor
    rows: list[dict]
    held_out_pixels: torch.Tensor
    held_out_rows: list[dict]


def color_name(pixels: np.ndarray) -> str | None:
    """The name of the color that most of the middle of a picture (h, w, 3) has; or None."""
    height, width = pixels.shape[:2]
    top, left = int(height * MIDDLE), int(width * MIDDLE)
    middle = pixels[top : height - top, left : width - left]
    h, s, v = (
        x.ravel() / 255
        for x in np.asarray(Image.fromarray(middle).convert("HSV")).transpose(2, 0, 1)
    )
    hue = h * 360
    names = np.select(
        [v < 0.2, (s < 0.15) & (v > 0.8), s < 0.15, (hue < 12) | (hue >= 345), hue < 43, hue < 70,
         hue < 165, hue < 195, hue < 255, hue < 290],
        ["black", "white", "gray", "red", "orange", "yellow", "green", "turquoise", "blue",
         "purple"],
        "pink",
    )  # fmt: skip
    names = np.where((names == "orange") & (v < 0.62), "brown", names)
    names = np.where((names == "red") & (s < 0.5) & (v > 0.75), "pink", names)
    names = np.where((names == "pink") & (v < 0.5), "purple", names)
    words, counts = np.unique(names, return_counts=True)
    return str(words[counts.argmax()]) if counts.max() >= SHARE * len(names) else None


def playing_cards(folder: Path) -> Iterable[tuple[Image.Image, dict]]:
    """Card's training pictures, and its validation pictures as held out; no test pictures."""
    with (folder / "labels.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] in ("train", "valid"):
                picture = Image.open(folder / row["file"]).convert("RGB").resize((SIZE, SIZE))
                shown = {"order": row["order"], "suits": row["suits"]}
                yield picture, shown | {"held out": row["split"] == "valid"}


def produce(folder: Path) -> Iterable[tuple[Image.Image, dict]]:
    """Fruits-360's folder `Training`. A color is named only where the pictures have colors."""
    for kind in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = sorted(kind.iterdir(), key=_angle)
        for i, file in enumerate(files):
            picture = Image.open(file)
            colored = picture.mode == "RGB"
            picture = picture.convert("RGB")
            row: dict[str, Any] = {"species": species(kind.name), "kind": kind.name}
            if colored and (name := color_name(np.asarray(picture))):
                row["color"] = name
            yield picture, row | {"held out": i >= len(files) * (1 - 1 / KEPT_OUT_FRUIT)}


def _angle(path: Path) -> tuple[bool, int]:
    """`r_12_100.jpg` -> (True, 12): the axis of the rotation and the number of the frame."""
    *axis, number, _ = ["0", *path.stem.split("_")]
    return "r" in (*axis, number), int(number) if number.isdigit() else 0


def pack(file: Path, pictures: Iterable[tuple[Image.Image, dict]], quality: int) -> None:
    encoded = []
    rows = []
    for picture, row in pictures:
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", quality=quality, method=4)
        encoded.append(buffer.getvalue())
        rows.append(row)
    file.parent.mkdir(parents=True, exist_ok=True)
    sizes = np.array([len(data) for data in encoded])
    data = np.frombuffer(b"".join(encoded), np.uint8)
    np.savez(file, data=data, sizes=sizes, rows=np.array(json.dumps(rows)))
    print(f"{file}: {len(rows)} pictures, {file.stat().st_size / 1e6:.1f} MB")


def unpack(file: Path, executor: Executor, limit: int | None) -> Pool:
    """The pool of a packed file; with a limit, evenly spaced pictures of it."""
    with np.load(file) as stored:
        data, sizes, rows = stored["data"], stored["sizes"], json.loads(str(stored["rows"]))
    ends = sizes.cumsum()
    pieces = [data[end - size : end].tobytes() for end, size in zip(ends, sizes)]
    training = _thin([i for i, row in enumerate(rows) if not row["held out"]], limit)
    kept = _thin([i for i, row in enumerate(rows) if row["held out"]], limit)
    pixels = np.stack(
        list(executor.map(_decode, [pieces[i] for i in training + kept], chunksize=64))
    )
    return _pool(pixels, [rows[i] for i in training], [rows[i] for i in kept])


def _decode(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def _thin(indices: list[int], limit: int | None) -> list[int]:
    step = max(1, math.ceil(len(indices) / limit)) if limit else 1
    return indices[::step]


def _pool(pixels: np.ndarray, rows: list[dict], kept: list[dict]) -> Pool:
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return Pool(tensor[: len(rows)], rows, tensor[len(rows) :], kept)


def cifar(archive: Path, executor: Executor, limit: int | None) -> Pool:
    """CIFAR-10's training pictures, without the last 500 of each class, which are held out."""
    pixels, classes = photographs(archive)
    training, kept = (_thin(indices, limit) for indices in split_photographs(classes))
    chosen = training + kept
    colors = list(executor.map(color_name, [pixels[i] for i in chosen], chunksize=256))
    rows = [photo_row(classes[i]) | {"color": color} for i, color in zip(chosen, colors)]
    return _pool(pixels[chosen], rows[: len(training)], rows[len(training) :])


def _render(domain: str, index: int) -> tuple[np.ndarray, dict]:
    """Training picture `index` of a world, as for `mini`, but in the size of the data sets."""
    world = WORLDS[domain]
    rows = (world.sample_one(index + attempt * 10_000_000) for attempt in range(1000))
    row = next(row for row in rows if not held_out(row))
    return np.asarray(world.render(row, index, size=RENDERED_SIZE)), row


def rendered(domain: str, count: int, executor: Executor) -> Callable[[], Pool]:
    """Starts to render; the result waits for the pictures. The last fiftieth is held out."""
    results = executor.map(partial(_render, domain), range(count), chunksize=32)

    def collect() -> Pool:
        pixels, rows = zip(*results)
        n = count - count // 50
        return _pool(np.stack(pixels), list(rows[:n]), list(rows[n:]))

    return collect


def load_pools(
    packed: list[Path], archive: Path, renders: int, workers: int, limit: int | None
) -> dict[str, Pool]:
    """All pools: `packed` files are named after theirs (playing.npz); `renders` for each world."""
    with ProcessPoolExecutor(workers) as executor:
        waiting = {d: rendered(d, renders, executor) for d in WORLDS} if renders else {}
        pools = {"photo": cifar(archive, executor, limit)}
        pools |= {file.stem: unpack(file, executor, limit) for file in packed}
        return pools | {domain: collect() for domain, collect in waiting.items()}


def normalize(x: torch.Tensor) -> torch.Tensor:
    return (x - 0.5) / 0.5


def plain(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 (b, 3, h, w) to normalized float (b, 3, SIZE, SIZE), as by the preprocessing."""
    x = F.interpolate(pixels.float() / 255, (SIZE, SIZE), mode="bicubic", antialias=True)
    return normalize(x.clamp(0, 1))


def augment(pixels: torch.Tensor, pool: str) -> torch.Tensor:
    """uint8 (b, 3, h, w) to normalized float (b, 3, SIZE, SIZE), moved, scaled, blurred, tinted.

    What a caption names stays: colors where they are named, left and right, up and down.
    """
    n = len(pixels)
    x = pixels.float() / 255

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.rand(n, device=x.device) * (high - low) + low

    card = pool in ("card", "playing")
    degrees = {"face": 4, "photo": 10, "produce": 180, "playing": 14}.get(pool, 6)
    angle = uniform(-degrees, degrees) * math.pi / 180
    if card:  # most cards are the same upside down
        angle = angle + math.pi * (uniform(0, 1) < (0.25 if pool == "playing" else 0.0))
    zoom = uniform(0.55, 1.05) if pool == "photo" else uniform(0.85, 1.15)
    stretch = uniform(0.9, 1.1)
    mirror = torch.ones_like(zoom)
    if pool in ("photo", "produce", "fruit"):
        mirror = torch.where(uniform(0, 1) < 0.5, -mirror, mirror)
    reach = (1 - zoom).clamp(min=0.06)
    cos, sin = angle.cos(), angle.sin()
    rows = [cos * zoom * stretch * mirror, -sin * zoom, uniform(-1, 1) * reach]
    rows += [sin * zoom * mirror, cos * zoom / stretch, uniform(-1, 1) * reach]
    theta = torch.stack(rows, 1).view(n, 2, 3)
    grid = F.affine_grid(theta, [n, 3, SIZE, SIZE], align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    if pool in ("photo", "playing"):
        x = x * ~_patches(x)
    if torch.rand(()) < 0.25:  # coarse pictures; the same for the batch
        coarse = int(torch.randint(40, SIZE, ()))
        x = F.interpolate(x, (coarse, coarse), mode="bilinear", antialias=True)
        x = F.interpolate(x, (SIZE, SIZE), mode="bicubic").clamp(0, 1)
    gray = {"face": 0.5, "playing": 0.1}.get(pool, 0.0)
    if gray:
        x = torch.where((uniform(0, 1) < gray).view(n, 1, 1, 1), x.mean(1, keepdim=True), x)
    gain, offset = uniform(0.75, 1.25), uniform(-0.12, 0.12)
    tint = 0.03 * torch.randn(n, 3, 1, 1, device=x.device) * (4 if pool == "playing" else 1)
    x = (x - 0.5) * gain.view(n, 1, 1, 1) + 0.5 + offset.view(n, 1, 1, 1) + tint
    if is_rendered(pool) or pool == "produce":
        x = x + 0.02 * torch.randn_like(x)
    return normalize(x.clamp(0, 1))


def _patches(x: torch.Tensor) -> torch.Tensor:
    """A rectangle of a third of the pictures, bool (b, 1, h, w)."""
    n, _, height, width = x.shape
    masks = []
    for length, shape in ((height, (1, 1, height, 1)), (width, (1, 1, 1, width))):
        position = torch.arange(length, device=x.device).view(shape) / length
        center, half = torch.rand(2, n, 1, 1, 1, device=x.device)
        masks.append((position - center).abs() < 0.05 + 0.15 * half)
    chosen = torch.rand(n, 1, 1, 1, device=x.device) < 1 / 3
    return masks[0] & masks[1] & chosen
