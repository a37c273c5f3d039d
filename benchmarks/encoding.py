"""Encoding a folder of pictures beside its parts: `python -m benchmarks.encoding [-n 50000] [--json FILE]`.

The pictures are n JPEG files of 128 x 128 pixels: 256 rendered fruits, each shifted round by another number of pixels in every further file. On
the same machine, before and after the encoding: the model alone on pixels in memory, run as one batch after the other on all cores and as the
encoding does, two at a time in pieces, of which the faster counts; and decoding alone, by the threads that the encoding uses. The encoding is
`encoder.features` of the folder, by a process of its own, nothing stored before; its memory is read 20 times a second, with all its children.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pandas as pd
import psutil
import torch
from PIL import Image

from mmclust.data import load_dataset
from mmclust.data.folder import load_folder
from mmclust.encoders import load_encoder
from mmclust.encoders.feature_stream import MIN_FORWARD

SHIFTS, BATCH = 256, 256
ENCODE = """
import json, sys, time
import mmclust as mm
encoder, images = mm.load_encoder("mini"), mm.load_folder(sys.argv[1]).images
start = time.perf_counter()
features = encoder.features(images)
print(json.dumps({"seconds": time.perf_counter() - start, "n": len(features), "mapped": type(features).__name__ == "memmap"}))
"""


def write_pictures(folder: Path, n: int) -> None:
    """n files, no two alike up to 256 * 128 * 128."""
    bases = [np.asarray(picture) for picture in load_dataset("demo-fruit", n=min(n, SHIFTS)).images]
    for i in range(n):
        shift = i // SHIFTS
        Image.fromarray(np.roll(bases[i % SHIFTS], (shift % 128, shift // 128), (0, 1))).save(
            folder / f"{i:06}.jpg", quality=90
        )


class Parts:
    """Images and seconds of each part alone; `measure` adds to them."""

    def __init__(self, folder: Path, n: int) -> None:
        self.encoder, self.images = load_encoder("mini"), load_folder(folder).images[:n]
        self.rows: list[dict[str, Any]] = []
        some = self.images[: 4 * BATCH]
        self.pixels = torch.stack([self.encoder.preprocess(picture) for picture in some]).split(
            BATCH
        )

    def measure(self) -> None:
        encoder, threads, batches = self.encoder, torch.get_num_threads(), [*self.pixels] * 2

        def model(pixels: torch.Tensor, piece: int = BATCH) -> list[torch.Tensor]:
            with torch.inference_mode():
                return [encoder._trunk(part) for part in pixels.split(piece)]

        def halves() -> None:
            with ThreadPoolExecutor(
                2, initializer=torch.set_num_threads, initargs=(max(1, threads // 2),)
            ) as pool:
                list(pool.map(partial(model, piece=MIN_FORWARD), batches))
            torch.set_num_threads(threads)

        model(self.pixels[0])
        todo = {
            "model": lambda: [model(p) for p in batches],
            "model, two at a time in pieces": halves,
            "decoding": lambda: encoder._run(
                lambda pixels: pixels[:, 0, 0, :1], self.images, BATCH
            ),
        }
        for part, run in todo.items():
            start = time.perf_counter()
            run()
            n = len(self.images) if part == "decoding" else sum(map(len, batches))
            self.rows.append({"part": part, "n": n, "seconds": time.perf_counter() - start})

    def rates(self) -> dict[str, float]:
        """Images per second of each part."""
        total = pd.DataFrame(self.rows).groupby("part", sort=False).sum()
        return (total["n"] / total["seconds"]).to_dict()


def encode(folder: Path, cache: Path) -> dict:
    """What the process that encodes the folder says of itself, and `gigabytes` (10^9 bytes), the most that was resident in it and its children."""
    child, peak = (
        subprocess.Popen(
            [sys.executable, "-c", ENCODE, str(folder)],
            env={**os.environ, "MMCLUST_CACHE": str(cache)},
            stdout=subprocess.PIPE,
        ),
        0,
    )
    while child.poll() is None:
        try:
            process = psutil.Process(child.pid)
            peak = max(
                peak, sum(p.memory_info().rss for p in (process, *process.children(recursive=True)))
            )
        except psutil.NoSuchProcess:
            pass
        time.sleep(0.05)
    if child.returncode:
        raise RuntimeError("encoding failed, see above")
    return json.loads(cast(IO[bytes], child.stdout).read().splitlines()[-1]) | {
        "gigabytes": peak / 1e9
    }


def compare(n: int) -> dict:
    """Rates in images per second, their ratios, and the peak memory."""
    with tempfile.TemporaryDirectory() as room:
        folder = Path(room) / "pictures"
        folder.mkdir()
        write_pictures(folder, n)
        parts = Parts(folder, 8 * BATCH)
        parts.measure()
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
        done = encode(folder, Path(room) / "cache")
        parts.measure()
    rates, stream = parts.rates(), n / done["seconds"]
    model, decoding = max(v for k, v in rates.items() if k != "decoding"), rates["decoding"]
    return rates | {
        "encoding": stream, "of the slower part": stream / min(model, decoding), "of the model": stream / model,
        "of both on the same cores": stream * (1 / model + 1 / decoding), "gigabytes": done["gigabytes"],
        "n": n, "seconds": done["seconds"], "mapped": done["mapped"], "threads": torch.get_num_threads(), "load before": load,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-n", type=int, default=50_000, help="pictures")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    args = parser.parse_args()
    found = compare(args.n)
    goals = {
        "of the slower part": "at least 0.9",
        "of the model": "at least 0.65",
        "gigabytes": "at most 1.5",
    }
    rows = [
        {"": k, "value": v, "goal": goals.get(k, "")}
        for k, v in found.items()
        if k not in ("n", "seconds", "mapped", "threads", "load before")
    ]
    print(
        f"{found['n']} pictures of 128 x 128 pixels, mini, {found['threads']} threads; load of the machine at the start {found['load before']:.1f}"
    )
    print(
        "images per second of each part alone and of the encoding; its ratios to the parts; its peak memory"
    )
    print(pd.DataFrame(rows).to_markdown(index=False, floatfmt=("", ".2f", "")))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
