"""What a million pictures cost, from measured figures per picture: `python -m benchmarks.scaling [--json FILE]`.

Each step runs in a process of its own at two sizes, with the embedded encoder; time and peak memory per picture are the slopes between them, so
that what a process costs in any case does not count. Encoding is measured on JPEG files of 128 x 128 pixels (`benchmarks.encoding`), the
rest on stored features. The totals are these slopes times the size: the measured sizes end at 30,000, what lies beyond is extrapolated.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from benchmarks import encoding
from mmclust.encoders import load_encoder
from mmclust.profiles import load_profile

SIZES, TARGETS = (10_000, 30_000), (10**6, 10**8)
LIST = """
import json, resource, sys, time
import mmclust as mm
start = time.perf_counter()
data = mm.load_folder(sys.argv[1])
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "epochs": 0, "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""
STEP = """
import json, resource, sys, time
import numpy as np
import mmclust as mm
method, n, options = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
encoder, fewer = mm.load_encoder("mini"), options.pop("predict", False)
def given(n):
    images = mm.Images(n, lambda i: None, fingerprint=f"scaling {n}")
    encoder.set_features(images, np.random.default_rng(0).normal(size=(n, encoder.image_projection.shape[0])).astype(np.float32))
    return images
words = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "white", "black"]
offered = {"template": "fruit with a color of *", "words": words, "n_clusters": 6, "random_state": 0, "concepts": ["color", "species"]}
kind = getattr(mm, method)
model = kind(encoder, **{k: v for k, v in offered.items() if k in kind().get_params()} | options)
start = time.perf_counter()
model.fit(given(1000 if fewer else n))
if fewer:
    start = time.perf_counter()
    model.predict(given(n))
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "epochs": sum(getattr(model, "seconds_", [])), "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""


def steps() -> dict[str, tuple[str, dict, int]]:
    """What is measured: name -> method, its parameters, and how many epochs of the measured kind the profile has (0: not made of epochs)."""
    of = load_profile()["methods"]
    short = {"alternations": 1, "phase1_epochs": 2, "phase2_epochs": 0}
    phase1 = of["MultiSub"]["alternations"] * of["MultiSub"]["phase1_epochs"]
    return {
        "k-means on image embeddings": ("KMeans", {}, 0),
        "CLIP_GPT": ("CLIP_GPT", {}, 0),
        "Multi-MaP, an epoch": ("MultiMaP", {"epochs": 2}, of["MultiMaP"]["epochs"]),
        "Multi-Sub, an epoch of Phase I": ("MultiSub", short, phase1),
        "Multi-DProxy, an epoch": (
            "MultiDProxy",
            {"epochs": 2, "dynamic": False},
            of["MultiDProxy"]["epochs"],
        ),
        "Multi-Sub, predict of one epoch": ("MultiSub", short | {"predict": True}, 0),
    }


def measure() -> pd.DataFrame:
    """step, seconds and bytes per picture (slopes between `SIZES`; seconds of an epoch where it is made of epochs), epochs of the profile."""
    rows = [{"step": "listing a folder", **_slope(_listed), "times": 1}]
    for name, (method, options, epochs) in steps().items():
        slope = _slope(lambda n, of=(method, options): _run(STEP, of[0], n, json.dumps(of[1])))
        seconds = slope["epochs"] / 2 if epochs else slope["seconds"]
        rows.append(
            {"step": name, "seconds": seconds, "bytes": slope["bytes"], "times": max(1, epochs)}
        )
    return pd.DataFrame(rows).drop(columns="epochs")


def _slope(run: Callable) -> dict[str, float]:
    """What `run(n)` says, per picture: how much more it is at the larger of `SIZES`."""
    small, large = (run(n) for n in SIZES)
    return {k: (large[k] - small[k]) / (SIZES[1] - SIZES[0]) for k in small}


def _run(code: str, *args: object) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{args} failed: {done.stderr[-500:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _listed(n: int) -> dict:
    """`load_folder` of n files: it reads their names, sizes and times, not the pictures."""
    with tempfile.TemporaryDirectory() as room:
        for i in range(n):
            folder = Path(room) / f"{i // 1000:05}"
            folder.mkdir(exist_ok=True)
            (folder / f"{i:08}.jpg").touch()
        return _run(LIST, room)


def totals(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with hours and gigabytes (10^9 bytes) of each of `TARGETS`."""
    for n in TARGETS:
        rows[f"hours, {n:,}"] = rows["seconds"] * rows["times"] * n / 3600
        rows[f"GB, {n:,}"] = rows["bytes"] * n / 1e9
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    args = parser.parse_args()
    streamed = encoding.compare(SIZES[0])
    width = load_encoder("mini").image_projection.shape[0]
    encoded = {
        "step": "encoding; GB: features on disk",
        "seconds": 1 / streamed["encoding"],
        "bytes": 4 * width,
        "times": 1,
    }
    table = totals(pd.concat([pd.DataFrame([encoded]), measure()], ignore_index=True))
    if args.json:
        args.json.write_text(json.dumps(table.to_dict("records"), indent=1), encoding="utf-8")
    print(
        f"peak memory of encoding, whatever the number of pictures: {streamed['gigabytes']:.2f} GB"
    )
    print(
        table.to_markdown(
            index=False, floatfmt=("", ".3g", ".3g", ".0f", ".3g", ".3g", ".3g", ".3g")
        )
    )


if __name__ == "__main__":
    main()
