"""How the demo profile's settings were chosen: `python -m tools.tune_demo_profile`.

Every candidate setting of a method (`--method`) runs on the tuning worlds (other colors, species,
ranks, suits, expressions, eyewear and poses than the demo worlds have) or, with `--photos`, on
photographs that were held out from the encoder's training. Nothing that is reported is used.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.early_stopping import CRITERIA
from mmclust.experiments.experiment import grid
from mmclust.experiments.run import run

SEEDS = (100, 101)
PHOTO_CRITERIA = ["type", "environment"]
# Held-out photographs come in blocks of 500, one per class; the first PER_CLASS of each are taken.
HELD_OUT_BLOCK = 500
PER_CLASS = 60
# Candidates: all combinations of a dictionary's lists.
CANDIDATES = {
    "MultiSub": [
        {"lr": [0.05, 0.1, 0.2], "alternations": [1], "phase1_epochs": [40]},
        {"lr": [0.1], "alternations": [1], "phase1_epochs": [100]},
        {"lr": [0.1], "alternations": [2], "phase1_epochs": [40]},
    ],
    "MultiMaP": [
        {"lr": [0.005, 0.02], "reduction": ["relative"], "alpha": [0.1], "beta": [0.3, 1.0],
         "epochs": [60]},
        {"lr": [0.005], "reduction": ["sum"], "alpha": [0.3], "beta": [0.4], "epochs": [60]},
        {"lr": [0.005], "reduction": ["relative"], "alpha": [0.0, 0.3], "beta": [1.0],
         "epochs": [60]},
    ],
    "MultiDProxy": [
        {"lr": [0.1], "fusion_lr": [1e-4], "epochs": [60], "update_every": [20],
         "score": ["mean", "max"]},
        {"lr": [0.1], "fusion_lr": [1e-4], "epochs": [60], "dynamic": [False]},
        {"lr": [0.1], "fusion_lr": [1e-4, 1e-3], "epochs": [80], "update_every": [40],
         "score": ["max"], "user_weight": [0.1]},
        {"lr": [0.1], "fusion_lr": [1e-4, 1e-5], "epochs": [80], "update_every": [40],
         "score": ["max"], "user_weight": [0.1], "concept_weight": [0.1],
         "align_weight": [1.0, 3.0]},
    ],
}  # fmt: skip


def combinations(candidates: list[dict[str, list]]) -> list[dict]:
    """The settings of candidates, one dictionary each."""
    return [
        dict(zip(lists, values))
        for lists in candidates
        for values in itertools.product(*lists.values())
    ]


def write_held_out_photographs(photos: Path, folder: Path) -> str:
    """Write photographs held out from training into a folder with labels.csv; its path."""
    from PIL import Image

    from tools.mini_pictures import photo_row, photographs, split_photographs

    pixels, classes = photographs(photos)
    _, held_out = split_photographs(classes)
    chosen = [i for k, i in enumerate(held_out) if k % HELD_OUT_BLOCK < PER_CLASS]
    for i in chosen:
        Image.fromarray(pixels[i]).save(folder / f"{i:05d}.png")
    labels = pd.DataFrame([{"file": f"{i:05d}.png", **photo_row(classes[i])} for i in chosen])
    labels.drop(columns="class").to_csv(folder / "labels.csv", index=False)
    return str(folder)


def compare(
    method: str, representations: Sequence[str | None], settings: list[dict], criteria: dict,
    seeds: Sequence[int] = SEEDS, n: int = 200,
) -> pd.DataFrame:  # fmt: skip
    """Mean NMI per setting, representation and criterion, sorted by the mean over criteria."""
    frames = []
    for params in settings:
        experiments = grid(
            dataset=list(criteria),
            criterion=criteria,
            method=method,
            representation=representations,
            params=params,
            seed=seeds,
            n=n,
        )
        rows = run(experiments, progress=False)
        frames.append(rows.assign(setting=json.dumps(params)))
        print(f"{rows['NMI'].mean():.3f}  {method}  {params}", flush=True)
    table = pd.concat(frames).pivot_table(
        index=["setting", "representation"], columns="criterion", values="NMI", sort=False
    )
    return table.assign(mean=table.mean(axis=1)).sort_values("mean", ascending=False)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    methods = [*CANDIDATES, "KMeans", "CLIP_GPT", "CLIP_label"]
    parser.add_argument("--method", default="MultiSub", choices=methods)
    parser.add_argument("--representation", nargs="+", default=[None])
    parser.add_argument(
        "--candidates",
        type=json.loads,
        help="a JSON list of dictionaries of lists, instead of the built-in candidates",
    )
    parser.add_argument(
        "--photos", type=Path, help="CIFAR-10 training images, as for the encoder's training"
    )
    parser.add_argument("-n", type=int, default=200, help="images per world")
    args = parser.parse_args()
    candidates = args.candidates or CANDIDATES.get(args.method, [])
    settings = combinations(candidates) or [{}]
    with tempfile.TemporaryDirectory() as folder:
        criteria = CRITERIA
        if args.photos:
            held_out = write_held_out_photographs(args.photos, Path(folder))
            criteria = {held_out: PHOTO_CRITERIA}
        table = compare(args.method, args.representation, settings, criteria, n=args.n)
    print(table.reset_index().to_markdown(index=False, floatfmt=".3f"))


if __name__ == "__main__":
    main()
