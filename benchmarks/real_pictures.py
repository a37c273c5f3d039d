"""Every method on real pictures, with `mini` and with `photo`, next to the published values.

`python -m benchmarks.real_pictures --data-dir DIR [--fruits FOLDER] [--csv FILE]`

DIR holds card/, cmuface/ and cifar10-mc/ (docs/folders.md); their data sets, the number of pictures
and the settings of the methods are those of the profile `photo`. FOLDER is the folder `Validation`
of Fruits-360, with a folder of pictures per kind of fruit. Prints a table of NMI, and the
differences between methods that are certain.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import pandas as pd

import mmclust as mm
from mmclust.results.tables import STANDS_FOR, printed, published

ENCODERS = ("mini", "photo")
COMPARED = [
    (method, other)
    for method in ("MultiMaP", "MultiSub", "MultiDProxy", "CRL, softmax")
    for other in ("KMeans", "CLIP_GPT", "CRL, softmax")
    if method != other
]


def compute(criteria: dict, words: list[str] | None = None) -> pd.DataFrame:
    """The rows of all methods and both encoders; `words` instead of the lexicon's."""
    cfg = mm.settings("17_when_asking_fails", "photo")
    frames = []
    for encoder in ENCODERS:
        experiments = mm.grid(
            dataset=list(criteria), criterion=criteria, encoder=encoder, n=cfg.n,
            seed=range(cfg.seeds), method=list(cfg.representations),
            representation=cfg.representations,
            params=cfg.methods, words=words,
        )  # fmt: skip
        frames.append(mm.run(experiments))
    rows = pd.concat(frames, ignore_index=True)
    rows["method"] += rows["representation"].map(lambda r: ", softmax" if r == "softmax" else "")
    return rows


def table_of(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per data set, criterion and encoder, and one with the published values."""
    methods = list(rows["method"].unique())
    theirs = published("NMI").set_index(["dataset", "criterion", "method"])["value"]
    out = []
    for (dataset, criterion), group in rows.groupby(["dataset", "criterion"], sort=False):
        pair = {"data": Path(dataset).name, "criterion": criterion}
        for encoder, scores in group.groupby("encoder", sort=False):
            nmi = scores.groupby("method")["NMI"].agg(["mean", "std"])
            cells = {m: f"{nmi['mean'][m]:.3f} ± {nmi['std'][m]:.3f}" for m in methods}
            out.append(pair | {"encoder": encoder} | cells)
        keys = {m: (STANDS_FOR.get(dataset, dataset), criterion, printed(m)) for m in methods}
        values = {m: theirs[key] for m, key in keys.items() if key in theirs}
        if values:
            label = "*published: CLIP ViT-B/32, all pictures*"
            out.append(pair | {"encoder": label} | {m: f"*{v}*" for m, v in values.items()})
    return pd.DataFrame(out, columns=["data", "criterion", "encoder", *methods]).fillna("")


def certain(rows: pd.DataFrame) -> pd.DataFrame:
    """The differences, paired over seeds, that are certain (Benjamini-Yekutieli, 5 %)."""
    place = rows["dataset"].map(lambda name: Path(name).name) + ": " + rows["criterion"]
    within = rows.assign(place=place + ", " + rows["encoder"])
    differences = mm.paired_within(within, COMPARED, within="place", by="method")
    return differences[differences["adjusted p"] < 0.05]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", required=True, help="folder with the data sets")
    parser.add_argument("--fruits", type=Path, help="folder with a folder per kind of fruit")
    parser.add_argument("--csv", type=Path, help="write the rows to this file")
    args = parser.parse_args()
    os.environ["MMCLUST_DATA"] = args.data_dir
    rows = compute(mm.settings("02_main_comparison", "photo").criteria)
    with tempfile.TemporaryDirectory() as folder:
        if args.fruits:
            # A tree of class folders named after the criterion is how a folder states it.
            place = Path(folder, "fruits-360")
            place.mkdir()
            Path(place, "species").symlink_to(args.fruits.resolve(), target_is_directory=True)
            words = mm.reference_words("species", of="fruit")
            fruits = compute({str(place): ["species"]}, words)
            rows = pd.concat([rows, fruits], ignore_index=True)
    if args.csv:
        rows.to_csv(args.csv, index=False)
    print(table_of(rows).to_markdown(index=False))
    print(f"\nCertain differences (paired over {rows['seed'].nunique()} seeds):\n")
    print(certain(rows).to_markdown(index=False, floatfmt=".3f"))


if __name__ == "__main__":
    main()
