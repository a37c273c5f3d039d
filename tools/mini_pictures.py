"""The training pictures of the embedded encoder: rendered ones, photographs, and augmentation."""

from __future__ import annotations

import io
import json
import tarfile
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, cast

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from tqdm import tqdm

from mmclust.data.cifar10_labels import PHOTO_CLASSES, PHOTO_ENVIRONMENT, PHOTO_TYPE
from mmclust.data.rendered import COLORS, EMOTIONS, FRUITS, GLASSES, POSES, RANKS, SUITS, World
from tools.mini_captions import held_out

SIZE = 96  # pixels
PREPROCESS = {
    "mean": open_clip.OPENAI_DATASET_MEAN,
    "std": open_clip.OPENAI_DATASET_STD,
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
FACES = {
    "identity": tuple(f"stranger {i}" for i in range(5000)),
    "emotion": EMOTIONS,
    "glasses": GLASSES,
    "pose": POSES,
}
WORLDS = {
    "fruit": World("train-fruit", "fruit", {"color": tuple(COLORS), "species": FRUITS}, {}),
    "card": World("train-card", "card", {"order": tuple(RANKS), "suits": tuple(SUITS)}, {}),
    "face": World("train-face", "face", FACES, {}),
}
KEPT_OUT = 500  # the last photographs of each class, for tuning

Pool = tuple[np.ndarray, list[dict]]  # pixels (n, h, w, 3) uint8, and what each picture shows


def _render(domain: str, index: int) -> tuple[np.ndarray, dict]:
    """Training picture `index` of a world, and what it shows.

    Drawn at 128 px like the data sets, and resized as by the encoder's preprocessing.
    """
    world = WORLDS[domain]
    rows = (world.sample_one(index + attempt * 10_000_000) for attempt in range(1000))
    row = next(row for row in rows if not held_out(row))
    picture = world.render(row, index, size=128)
    return np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC)), row


def render_pool(folder: Path, counts: dict[str, int], workers: int) -> dict[str, Pool]:
    """The pictures of each domain, (n, 96, 96, 3), memory-mapped; drawn once, in parallel."""
    pools = {}
    for domain, count in counts.items():
        pixels = folder / f"renders-{domain}-{count}.npy"
        rows = folder / f"renders-{domain}-{count}.json"
        if not rows.exists():
            out = np.lib.format.open_memmap(pixels, "w+", np.uint8, (count, SIZE, SIZE, 3))
            drawn = []
            with ProcessPoolExecutor(workers) as executor:
                results = executor.map(partial(_render, domain), range(count), chunksize=64)
                for i, (picture, row) in enumerate(tqdm(results, total=count, desc=domain)):
                    out[i] = picture
                    drawn.append(row)
            out.flush()
            rows.write_text(json.dumps(drawn))
        pools[domain] = np.load(pixels, mmap_mode="r"), json.loads(rows.read_text())
    return pools


def photographs(path: Path) -> tuple[np.ndarray, list[str]]:
    """All CIFAR-10 training pictures, (n, 32, 32, 3) uint8, and their classes, sorted by name.

    `path` is an archive or a folder of class folders (`train/<class>/<number>.jpg`), or a folder
    for torchvision's own copy, which is downloaded if necessary.
    """
    if path.is_dir() and not any(p.is_dir() and p.name in PHOTO_CLASSES for p in path.rglob("*")):
        from torchvision.datasets import CIFAR10

        data = CIFAR10(path, train=True, download=True)
        return data.data, [PHOTO_CLASSES[target] for target in data.targets]
    if path.is_dir():
        files = [p for p in sorted(path.rglob("*.*")) if p.parent.name in PHOTO_CLASSES]
        named = [(p.relative_to(path), p.read_bytes()) for p in files]
    else:
        with tarfile.open(path) as archive:
            named = sorted(
                (Path(member.name), cast(IO[bytes], archive.extractfile(member)).read())
                for member in archive
                if member.isfile() and Path(member.name).parent.name in PHOTO_CLASSES
            )
    pixels = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for _, data in named]
    return np.stack(pixels), [name.parent.name for name, _ in named]


def split_photographs(classes: list[str]) -> tuple[list[int], list[int]]:
    """Indices to train on, and the last `KEPT_OUT` of each class."""
    by_class = defaultdict(list)
    for i, name in enumerate(classes):
        by_class[name].append(i)
    training = [i for indices in by_class.values() for i in indices[:-KEPT_OUT]]
    kept_out = [i for indices in by_class.values() for i in indices[-KEPT_OUT:]]
    return training, kept_out


def photo_row(name: str) -> dict:
    """What a photograph of this class shows."""
    return {"class": name, "type": PHOTO_TYPE[name], "environment": PHOTO_ENVIRONMENT[name]}


def augment(pixels: torch.Tensor, photo: bool, generator: torch.Generator) -> torch.Tensor:
    """uint8 (b, 3, h, w) to normalized float (b, 3, 96, 96).

    Each picture gets a shift, a gain and an offset; photographs are also mirrored.
    """
    x = pixels.float() / 255
    if photo:
        x = F.interpolate(x, (SIZE, SIZE), mode="bicubic", align_corners=False).clamp(0, 1)
        mirrored = torch.rand(len(x), generator=generator) < 0.5
        x[mirrored] = x[mirrored].flip(-1)
    reach = 12 if photo else 2
    padded = F.pad(x, [reach] * 4, mode="replicate")
    shifts = torch.randint(0, 2 * reach + 1, (len(x), 2), generator=generator).tolist()
    x = torch.stack([p[:, i : i + SIZE, j : j + SIZE] for p, (i, j) in zip(padded, shifts)])
    gain = 0.85 + 0.3 * torch.rand(len(x), 1, 1, 1, generator=generator)
    offset = 0.1 * (torch.rand(len(x), 3, 1, 1, generator=generator) - 0.5)
    x = x * gain + offset * (2.0 if photo else 0.4)
    mean, std = (torch.tensor(PREPROCESS[k])[:, None, None] for k in ("mean", "std"))
    return (x - mean) / std
