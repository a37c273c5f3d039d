"""What a million images cost, extrapolated: `python -m benchmarks.scaling [--json FILE]`.

Each step runs in a process of its own at two sizes, with the embedded encoder. Time and peak memory
per image are the slopes between the two, so that the fixed costs of a process do not count.
Encoding is measured on JPEG files of 128 x 128 pixels (`benchmarks.encoding`), the rest on features
that are set. The totals are these slopes times the size: measured sizes end at 30,000, everything
beyond is extrapolated.
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

MEASURED_SIZES = (10_000, 30_000)
TARGET_SIZES = (10**6, 10**8)
FILES_PER_FOLDER = 1000
# Each script prints a JSON line: seconds of the step, seconds of its epochs, peak memory in bytes.
LIST_FOLDER = """
import json, resource, sys, time
import mmclust as mm

start = time.perf_counter()
mm.load_folder(sys.argv[1])
seconds = time.perf_counter() - start
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
memory *= 1 if sys.platform == "darwin" else 1024  # in KiB on Linux
print(json.dumps({"seconds": seconds, "epochs": 0, "bytes": memory}))
"""
FIT_OR_PREDICT = """
import json, resource, sys, time
import numpy as np
import mmclust as mm

method, n, params = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
predict = params.pop("predict", False)
encoder = mm.load_encoder("mini")
width = encoder.image_projection.shape[0]


def images_with_features(n):
    images = mm.Images(n, lambda i: None, fingerprint=f"scaling {n}")
    features = np.random.default_rng(0).normal(size=(n, width)).astype(np.float32)
    encoder.set_features(images, features)
    return images


offered = {
    "template": "fruit with a color of *",
    "words": ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "white",
              "black"],
    "n_clusters": 6,
    "random_state": 0,
    "concepts": ["color", "species"],
}
estimator = getattr(mm, method)
accepted = estimator().get_params()
taken = {name: value for name, value in offered.items() if name in accepted}
model = estimator(encoder, **taken | params)
start = time.perf_counter()
model.fit(images_with_features(1000 if predict else n))
if predict:
    start = time.perf_counter()
    model.predict(images_with_features(n))
seconds = time.perf_counter() - start
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
memory *= 1 if sys.platform == "darwin" else 1024  # in KiB on Linux
epochs = sum(getattr(model, "seconds_", []))
print(json.dumps({"seconds": seconds, "epochs": epochs, "bytes": memory}))
"""


def steps() -> dict[str, tuple[str, dict, int]]:
    """What is measured: step -> method, its parameters, epochs of such a step in the profile.

    0 epochs: the step does not consist of epochs.
    """
    profile = load_profile()["methods"]
    short = {"alternations": 1, "phase1_epochs": 2, "phase2_epochs": 0}
    phase1 = profile["MultiSub"]["alternations"] * profile["MultiSub"]["phase1_epochs"]
    dproxy = {"epochs": 2, "dynamic": False}
    return {
        "k-means on image embeddings": ("KMeans", {}, 0),
        "CLIP_GPT": ("CLIP_GPT", {}, 0),
        "Multi-MaP, an epoch": ("MultiMaP", {"epochs": 2}, profile["MultiMaP"]["epochs"]),
        "Multi-Sub, an epoch of Phase I": ("MultiSub", short, phase1),
        "Multi-DProxy, an epoch": ("MultiDProxy", dproxy, profile["MultiDProxy"]["epochs"]),
        "Multi-Sub, predict of one epoch": ("MultiSub", short | {"predict": True}, 0),
    }


def measure() -> pd.DataFrame:
    """A row per step: step, seconds and bytes per image, times (epochs in the profile, or 1).

    Seconds are those of one epoch where the step consists of epochs.
    """
    listing = _slope(_list_folder)
    rows = [{"step": "listing a folder", **listing, "times": 1}]
    for step, (method, params, epochs) in steps().items():
        arguments = (method, json.dumps(params))
        slope = _slope(lambda n, a=arguments: _run(FIT_OR_PREDICT, a[0], n, a[1]))
        seconds = slope["epochs"] / 2 if epochs else slope["seconds"]
        row = {"step": step, "seconds": seconds, "bytes": slope["bytes"], "times": max(1, epochs)}
        rows.append(row)
    return pd.DataFrame(rows).drop(columns="epochs")


def _slope(run: Callable[[int], dict[str, float]]) -> dict[str, float]:
    """What `run(n)` returns, per image: its growth between the `MEASURED_SIZES`."""
    small, large = (run(n) for n in MEASURED_SIZES)
    images = MEASURED_SIZES[1] - MEASURED_SIZES[0]
    return {name: (large[name] - small[name]) / images for name in small}


def _run(script: str, *arguments: object) -> dict[str, float]:
    process = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True
    )
    if process.returncode:
        raise RuntimeError(f"{arguments} failed: {process.stderr[-500:]}")
    return json.loads(process.stdout.splitlines()[-1])


def _list_folder(n: int) -> dict[str, float]:
    """`load_folder` of n files: it reads their names, sizes and times, not the images."""
    with tempfile.TemporaryDirectory() as root:
        for i in range(n):
            folder = Path(root) / f"{i // FILES_PER_FOLDER:05}"
            folder.mkdir(exist_ok=True)
            (folder / f"{i:08}.jpg").touch()
        return _run(LIST_FOLDER, root)


def totals(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with hours and gigabytes (10^9 bytes) at each of `TARGET_SIZES`."""
    for n in TARGET_SIZES:
        rows[f"hours, {n:,}"] = rows["seconds"] * rows["times"] * n / 3600
        rows[f"GB, {n:,}"] = rows["bytes"] * n / 1e9
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    args = parser.parse_args()
    streamed = encoding.compare(MEASURED_SIZES[0])
    width = load_encoder("mini").image_projection.shape[0]
    encoded = {
        "step": "encoding; GB: features on disk",
        "seconds": 1 / streamed["encoding"],
        "bytes": 4 * width,  # float32
        "times": 1,
    }
    table = totals(pd.concat([pd.DataFrame([encoded]), measure()], ignore_index=True))
    if args.json:
        args.json.write_text(json.dumps(table.to_dict("records"), indent=1), encoding="utf-8")
    print(f"peak memory of encoding, for any number of images: {streamed['gigabytes']:.2f} GB")
    formats = ("", ".3g", ".3g", ".0f", ".3g", ".3g", ".3g", ".3g")
    print(table.to_markdown(index=False, floatfmt=formats))


if __name__ == "__main__":
    main()
