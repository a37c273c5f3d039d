"""Rate of encoding a folder, compared with decoding alone and with the model alone; photographs.

`python -m benchmarks.encoding [-n 50000] [--photographs 32] [--encoder mini] [--json FILE]`

First table: the pictures are n JPEG files of 128 x 128 pixels: 256 rendered fruits,
repeated with different shifts. Measured on the same machine, before and after the encoding:

- the model alone, on pixels in memory: one batch after the other on all cores, and two batches at a
  time in passes as in the encoding; the faster one counts. A slow model gets fewer pictures
  (each way takes about 20 seconds);
- decoding alone, with the threads of the encoding.

The encoding is `encoder.features` of the folder, in a process of its own, with an empty store. Its
memory, with that of its children, is read 20 times a second. It includes the hash of the files'
contents, whose share of the time is shown.

Second table: JPEG files of 12 megapixels, by turns decoded in full and at the size that the encoder
needs. They are real photographs (scikit-learn's two) and rendered pictures, enlarged, with the
noise of a camera; every second one is marked as rotated. `--encoder` is for this table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pandas as pd
import psutil
import torch
from PIL import ExifTags, Image
from sklearn.datasets import load_sample_images

from mmclust.data import load_dataset
from mmclust.data.contents import hash_files
from mmclust.data.folder import load_folder
from mmclust.data.images import Images
from mmclust.encoders import load_encoder
from mmclust.encoders.feature_stream import MIN_FORWARD

MODEL_SECONDS = 20.0  # about so long is the model measured in each way
SHIFTS = 256  # rendered pictures; the next as many files are shifted by one more pixel
BATCH = 256
GOALS = {
    "of the slower part": "at least 0.9",
    "of the model": "at least 0.65",
    "gigabytes": "at most 1.5",
    "contents, of the encoding": "at most 0.05",
}
PHOTOGRAPH = (4000, 3000)  # pixels
NOISE = 3.0  # standard deviation of a color value, of 255
QUARTER_TURN = 6  # EXIF orientation
ROUNDS = 3
PHOTOGRAPH_GOALS = {
    "times as fast": "at least 8",
    "cosine, mean": "at least 0.995",
    "contents, of the encoding": "at most 0.05",
}
ENCODE = """
import json, sys, time
import mmclust as mm
encoder, images = mm.load_encoder(sys.argv[2]), mm.load_folder(sys.argv[1]).images
start = time.perf_counter()
images.fingerprint
hashed = time.perf_counter()
features = encoder.features(images)
seconds = time.perf_counter() - start
report = {"seconds": seconds, "contents": hashed - start, "n": len(features)}
print(json.dumps(report | {"mapped": type(features).__name__ == "memmap"}))
"""


def write_pictures(folder: Path, n: int) -> None:
    """n files, all different for n up to 256 * 128 * 128."""
    bases = [np.asarray(picture) for picture in load_dataset("demo-fruit", n=min(n, SHIFTS)).images]
    for i in range(n):
        shift = i // SHIFTS
        shifted = np.roll(bases[i % SHIFTS], (shift % 128, shift // 128), (0, 1))
        Image.fromarray(shifted).save(folder / f"{i:06}.jpg", quality=90)


class Parts:
    """Times the model alone and decoding alone; each `measure` adds rows: part, n, seconds."""

    def __init__(self, folder: Path, n: int, name: str = "mini") -> None:
        self.encoder = load_encoder(name)
        self.images = load_folder(folder).images[:n]
        self.rows: list[dict[str, Any]] = []
        pixels = [self.encoder.preprocess(picture) for picture in self.images[: 4 * BATCH]]
        first = torch.stack(pixels[:MIN_FORWARD])
        self._model(first)  # warm up
        start = time.perf_counter()
        self._model(first)
        rate = len(first) / (time.perf_counter() - start)
        most = max(2 * MIN_FORWARD, int(rate * MODEL_SECONDS / 2))  # each picture twice
        size = min(BATCH, most // 2)
        self.pixels = torch.stack(pixels[:most]).split(size)

    def measure(self) -> None:
        batches = [*self.pixels] * 2
        n_pixels = sum(map(len, batches))
        self._model(self.pixels[0])  # warm up
        self._time("model", n_pixels, lambda: [self._model(pixels) for pixels in batches])
        self._time("model, two at a time in pieces", n_pixels, lambda: self._model_twice(batches))
        self._time("decoding", len(self.images), self._decode)

    def _time(self, part: str, n: int, run: Callable[[], Any]) -> None:
        start = time.perf_counter()
        run()
        self.rows.append({"part": part, "n": n, "seconds": time.perf_counter() - start})

    def _model(self, pixels: torch.Tensor, piece: int | None = None) -> list[torch.Tensor]:
        with torch.inference_mode():
            return [self.encoder.image_trunk(part) for part in pixels.split(piece or BATCH)]

    def _model_twice(self, batches: list[torch.Tensor]) -> None:
        threads = torch.get_num_threads()
        half = max(1, threads // 2)
        with ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(half,)) as pool:
            list(pool.map(self._model, batches, [MIN_FORWARD] * len(batches)))
        torch.set_num_threads(threads)

    def _decode(self) -> None:
        for _ in self.encoder._batches(lambda pixels: pixels[:, 0, 0, :1], self.images, BATCH):
            pass

    def rates(self) -> dict[str, float]:
        """Images per second of each part."""
        total = pd.DataFrame(self.rows).groupby("part", sort=False).sum()
        return (total["n"] / total["seconds"]).to_dict()


def encode(folder: Path, cache: Path, name: str = "mini") -> dict:
    """The report of a process that encodes the folder.

    `gigabytes` (10^9 bytes) is the peak of the resident memory of it and its children.
    """
    child = subprocess.Popen(
        [sys.executable, "-c", ENCODE, str(folder), name],
        env={**os.environ, "MMCLUST_CACHE": str(cache)},
        stdout=subprocess.PIPE,
    )
    peak = 0
    while child.poll() is None:
        try:
            process = psutil.Process(child.pid)
            family = (process, *process.children(recursive=True))
            peak = max(peak, sum(p.memory_info().rss for p in family))
        except psutil.NoSuchProcess:
            pass
        time.sleep(0.05)
    if child.returncode:
        raise RuntimeError("encoding failed, see the messages above")
    report = json.loads(cast(IO[bytes], child.stdout).read().splitlines()[-1])
    return report | {"gigabytes": peak / 1e9}


def compare(n: int, name: str = "mini") -> dict:
    """Rates in images per second, their ratios, and the peak memory."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "pictures"
        folder.mkdir()
        write_pictures(folder, n)
        parts = Parts(folder, 8 * BATCH, name)
        parts.measure()
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
        done = encode(folder, Path(temporary) / "cache", name)
        parts.measure()
    rates = parts.rates()
    rate = n / done["seconds"]
    decoding = rates["decoding"]
    model = max(v for k, v in rates.items() if k != "decoding")
    return rates | {
        "encoding": rate,
        "of the slower part": rate / min(model, decoding),
        "of the model": rate / model,
        "of both on the same cores": rate * (1 / model + 1 / decoding),
        "gigabytes": done["gigabytes"],
        "contents, of the encoding": done["contents"] / done["seconds"],
        "n": n,
        "seconds": done["seconds"],
        "mapped": done["mapped"],
        "threads": torch.get_num_threads(),
        "load before": load,
    }


def write_photographs(folder: Path, n: int) -> None:
    """n JPEG files of `PHOTOGRAPH` pixels."""
    rng = np.random.default_rng(0)
    worlds = [load_dataset(f"demo-{name}", n=n, size=512).images for name in ("fruit", "card")]
    photographs = load_sample_images().images
    for i in range(n):
        kind = i % 4
        picture = worlds[kind][i] if kind < 2 else Image.fromarray(photographs[kind - 2])
        width, height = picture.size
        side = min(width, height) * rng.uniform(0.5, 1)
        left, top = rng.uniform(0, width - side), rng.uniform(0, height - side * 0.75)
        box = (left, top, left + side, top + side * 0.75)
        large = picture.resize(PHOTOGRAPH, Image.Resampling.BICUBIC, box)
        pixels = np.asarray(large) + rng.normal(0, NOISE, (PHOTOGRAPH[1], PHOTOGRAPH[0], 1))
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = QUARTER_TURN if i // 4 % 2 else 1
        noisy = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        noisy.save(folder / f"{i:03}.jpg", quality=90, exif=exif)


def compare_photographs(n: int, name: str) -> dict:
    """Milliseconds per photograph with both ways to decode, their ratio, and cosines."""
    encoder = load_encoder(name)
    seconds: dict[str, list[float]] = {"in full": [], "at the size needed": [], "contents": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_photographs(folder, n)
        megabytes = sum(file.stat().st_size for file in folder.iterdir()) / n / 1e6
        embeddings: dict[str, np.ndarray] = {}
        for _ in range(ROUNDS):
            files = load_folder(folder).images
            for file in folder.iterdir():
                file.touch()  # the hash of a file that has just changed is not stored
            start = time.perf_counter()
            hash_files(folder, [file.name for file in folder.iterdir()])
            seconds["contents"].append(time.perf_counter() - start)
            full = Images(n, files.__getitem__, "in full")
            for way, images in (("in full", full), ("at the size needed", files)):
                start = time.perf_counter()
                features = list(encoder._batches(encoder.image_trunk, images, BATCH))
                seconds[way].append(time.perf_counter() - start)
                embeddings[way] = np.concatenate(features) @ encoder.image_projection.numpy()
    best = {way: min(values) for way, values in seconds.items()}
    unit = [e / np.linalg.norm(e, axis=1, keepdims=True) for e in embeddings.values()]
    cosines = (unit[0] * unit[1]).sum(1)
    reduced = best["at the size needed"]
    return {f"{way}, ms": value / n * 1000 for way, value in best.items()} | {
        "times as fast": best["in full"] / reduced,
        "contents, of the encoding": best["contents"] / (best["contents"] + reduced),
        "cosine, mean": float(cosines.mean()),
        "cosine, least": float(cosines.min()),
        "megabytes of a file": megabytes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-n", type=int, default=50_000, help="number of pictures")
    parser.add_argument("--photographs", type=int, default=32, help="number of photographs")
    parser.add_argument("--encoder", default="mini", help="mini or photo")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    args = parser.parse_args()
    numbers = compare(args.n, args.encoder)
    rows = [
        {"": name, "value": value, "goal": GOALS.get(name, "")}
        for name, value in numbers.items()
        if name not in ("n", "seconds", "mapped", "threads", "load before")
    ]
    print(
        f"{numbers['n']} pictures of 128 x 128 pixels, {args.encoder}, "
        f"{numbers['threads']} threads; "
        f"load of the machine at the start {numbers['load before']:.1f}"
    )
    print("images per second of each part alone and of the encoding; its ratios; its peak memory")
    print(pd.DataFrame(rows).to_markdown(index=False, floatfmt=("", ".2f", "")))
    numbers["photographs"] = compare_photographs(args.photographs, args.encoder)
    width, height = PHOTOGRAPH
    print(f"\n{args.photographs} photographs of {width} x {height} pixels, {args.encoder}")
    rows = [
        {"": name, "value": value, "goal": PHOTOGRAPH_GOALS.get(name, "")}
        for name, value in numbers["photographs"].items()
    ]
    print(pd.DataFrame(rows).to_markdown(index=False, floatfmt=("", ".4f", "")))
    if args.json:
        args.json.write_text(json.dumps(numbers, indent=1))


if __name__ == "__main__":
    main()
