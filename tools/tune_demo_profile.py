"""How the demo profile's settings were chosen: `python -m tools.tune_demo_profile [--method MultiSub] [--photos CIFAR]`.

Every candidate setting of a method runs on the tuning worlds (other colors, species, ranks, suits, expressions, eyewear and poses than the
demo worlds have) and, with `--photos`, on photographs that the encoder's training kept out. Nothing that is reported is touched.
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
CANDIDATES = {  # what is tried: every combination of a dictionary's lists
    "MultiSub": [
        {"lr": [0.05, 0.1, 0.2], "alternations": [1], "phase1_epochs": [40]},
        {"lr": [0.1], "alternations": [1], "phase1_epochs": [100]},
        {"lr": [0.1], "alternations": [2], "phase1_epochs": [40]},
    ],
    "MultiMaP": [
        {
            "lr": [0.005, 0.02],
            "reduction": ["relative"],
            "alpha": [0.1],
            "beta": [0.3, 1.0],
            "epochs": [60],
        },
        {"lr": [0.005], "reduction": ["sum"], "alpha": [0.3], "beta": [0.4], "epochs": [60]},
        {
            "lr": [0.005],
            "reduction": ["relative"],
            "alpha": [0.0, 0.3],
            "beta": [1.0],
            "epochs": [60],
        },
    ],
    "MultiDProxy": [
        {
            "lr": [0.1],
            "fusion_lr": [1e-4],
            "epochs": [60],
            "update_every": [20],
            "score": ["mean", "max"],
        },
        {"lr": [0.1], "fusion_lr": [1e-4], "epochs": [60], "dynamic": [False]},
        {
            "lr": [0.1],
            "fusion_lr": [1e-4, 1e-3],
            "epochs": [80],
            "update_every": [40],
            "score": ["max"],
            "user_weight": [0.1],
        },
        {
            "lr": [0.1],
            "fusion_lr": [1e-4, 1e-5],
            "epochs": [80],
            "update_every": [40],
            "score": ["max"],
            "user_weight": [0.1],
            "concept_weight": [0.1],
            "align_weight": [1.0, 3.0],
        },
    ],
}


def settings(method: str, spec: list[dict] | None = None) -> list[dict]:
    """The candidate settings of a method, one dictionary each."""
    return [
        dict(zip(c, values))
        for c in spec or CANDIDATES[method]
        for values in itertools.product(*c.values())
    ]


def kept_out_photographs(photos: Path, folder: Path, per_class: int = 60) -> str:
    """Write photographs that training kept out into a folder with labels.csv; returns its path."""
    from PIL import Image

    from tools.train_mini import photo_row, photographs, split_photographs

    pixels, classes = photographs(photos)
    _, kept_out = split_photographs(classes)
    chosen = [i for k, i in enumerate(kept_out) if k % 500 < per_class]
    for i in chosen:
        Image.fromarray(pixels[i]).save(folder / f"{i:05d}.png")
    table = pd.DataFrame([{"file": f"{i:05d}.png", **photo_row(classes[i])} for i in chosen])
    table.drop(columns="class").to_csv(folder / "labels.csv", index=False)
    return str(folder)


def compare(
    method: str,
    representations: Sequence[str | None],
    candidates: list[dict],
    criteria: dict,
    seeds: Sequence[int] = SEEDS,
    n: int = 200,
) -> pd.DataFrame:
    """Mean NMI per candidate, representation and criterion, the best mean on top."""
    frames = []
    for params in candidates:
        rows = run(
            grid(
                dataset=list(criteria),
                criterion=criteria,
                method=method,
                representation=representations,
                params=params,
                seed=seeds,
                n=n,
            ),
            progress=False,
        )
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
    parser.add_argument(
        "--method", default="MultiSub", choices=[*CANDIDATES, "KMeans", "CLIP_GPT", "CLIP_label"]
    )
    parser.add_argument("--representation", nargs="+", default=[None])
    parser.add_argument(
        "--candidates",
        type=json.loads,
        help="a list of dictionaries of lists, instead of the built-in ones",
    )
    parser.add_argument(
        "--photos", type=Path, help="CIFAR-10 training pictures, as for the encoder's training"
    )
    parser.add_argument("-n", type=int, default=200, help="pictures per world")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        criteria = CRITERIA
        if args.photos:
            criteria = {kept_out_photographs(args.photos, Path(folder)): ["type", "environment"]}
        candidates = (
            settings(args.method, args.candidates)
            if args.method in CANDIDATES or args.candidates
            else [{}]
        )
        table = compare(args.method, args.representation, candidates, criteria, n=args.n)
    print(table.reset_index().to_markdown(index=False, floatfmt=".3f"))


if __name__ == "__main__":
    main()
