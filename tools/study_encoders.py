"""What in an encoder decides whether learning is better than asking, and which settings help.

    python -m tools.study_encoders --data-dir DIR --photos ARCHIVE --encoder mini photo WEAKER
    python -m tools.study_encoders ... --encoder photo --sweep MultiDProxy

DIR holds Card (its split `valid` is used), ARCHIVE is CIFAR-10's training pictures (those that no
encoder was trained on are used); the tuning worlds are added. Nothing that is reported is used.
The first command prints, per encoder and criterion, properties that need no labels (see
`properties`), the NMI of all methods with the settings of the profile demo, and how well each
property orders the differences between learning and asking. With `--sweep`, the NMI of one method
under other settings.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import softmax, xlogy
from scipy.stats import spearmanr

import mmclust as mm
from benchmarks.early_stopping import CRITERIA
from tools.tune_demo_profile import write_held_out_photographs

SEEDS = (100, 101)
WORLD = 100  # pictures of a tuning world
PHOTOS = 300  # of the photographs, for each seed
LEARNED = ["MultiMaP", "MultiSub", "MultiDProxy"]
CANDIDATES = {
    "MultiMaP": [{}, {"beta": 0.3}, {"beta": 0.1}, {"epochs": 20}, {"epochs": 180},
                 {"lr": 0.02}, {"lr": 0.0015}, {"alpha": 0.3}],
    "MultiSub": [{}, {"alternations": 1}, {"alternations": 1, "phase1_epochs": 20},
                 {"alternations": 1, "phase1_epochs": 100}, {"lr": 0.03}, {"lr": 0.3}],
    "MultiDProxy": [{}, {"tau": 0.02}, {"tau": 0.04}, {"align_weight": 1.0},
                    {"align_weight": 10.0}, {"lr": 0.03}, {"lr": 0.3}, {"dynamic": False},
                    {"epochs": 40}, {"tau_alpha": 0.3}, {"fusion_lr": 3e-5}, {"fusion_lr": 1e-5},
                    {"fusion_lr": 3e-6}, {"fusion_lr": 1e-5, "align_weight": 10.0}],
}  # fmt: skip


def properties(encoder: mm.Encoder, data: mm.ImageDataset, criterion: str) -> dict[str, float]:
    """What needs no labels: of the images, the reference words, and the cosines between them.

    margin: the largest cosine of an image minus the second, mean. sharpness: the same in units of
    the standard deviation of an image's cosines. information: the mutual information of images and
    words, of the softmax of the cosines times the encoder's `logit_scale`, in bits. gap: the
    distance of the mean image embedding and the mean text embedding, both of length 1 per row.
    """
    words = mm.reference_words(criterion, of=data.domain)
    template = mm.prompt_template(criterion, data.domain)
    image = np.asarray(encoder.encode_images(data.images))
    text = np.asarray(encoder.encode_texts([template.replace("*", word) for word in words]))
    image = image / np.linalg.norm(image, axis=1, keepdims=True)
    text = text / np.linalg.norm(text, axis=1, keepdims=True)
    cosine = image @ text.T
    second, first = np.sort(cosine, axis=1)[:, -2:].T
    p = softmax(encoder.logit_scale * cosine, axis=1)
    mean = p.mean(axis=0)
    information = (xlogy(p, p).sum(axis=1).mean() - xlogy(mean, mean).sum()) / np.log(2)
    return {
        "gap": float(np.linalg.norm(image.mean(axis=0) - text.mean(axis=0))),
        "margin": float((first - second).mean()),
        "sharpness": float(((first - second) / cosine.std(axis=1)).mean()),
        "information": float(information),
    }


def representations() -> dict:
    """Method -> what of it is scored, as in notebook 17."""
    return mm.settings("17_when_asking_fails").representations


def rows_of(
    encoder: str, sets: dict, methods: list[str], params: dict, seeds: tuple
) -> pd.DataFrame:
    frames = []
    for dataset, criteria in sets.items():
        n = WORLD if dataset in CRITERIA else PHOTOS
        axes = dict(dataset=dataset, criterion=criteria, encoder=encoder, n=n, seed=seeds)
        chosen = {m: r for m, r in representations().items() if m in methods}
        frames.append(mm.run(mm.grid(**axes, method=methods, representation=chosen, params=params)))
    rows = pd.concat(frames)
    rows["method"] += rows["representation"].map(lambda r: ", softmax" if r == "softmax" else "")
    return rows.assign(
        data=[Path(name).name + ": " for name in rows["dataset"]] + rows["criterion"]
    )


def compare_encoders(encoders: list[str], sets: dict, methods: dict) -> tuple[pd.DataFrame, ...]:
    """A row per encoder and criterion, and the rank correlations of properties and differences."""
    frames = []
    for name in encoders:
        encoder = mm.load_encoder(name)
        rows = rows_of(name, sets, list(representations()), methods, SEEDS)
        table = rows.pivot_table(index="data", columns="method", values="NMI", sort=False)
        measured = {}
        for dataset, criteria in sets.items():
            n = WORLD if dataset in CRITERIA else PHOTOS
            data = mm.load_dataset(dataset, n=n, seed=SEEDS[0])
            for criterion in criteria:
                measured[f"{Path(dataset).name}: {criterion}"] = properties(
                    encoder, data, criterion
                )
        label = Path(name).name
        frames.append(pd.DataFrame(measured).T.join(table).assign(encoder=label).reset_index())
    table = pd.concat(frames).rename(columns={"index": "data"})
    table = table[["encoder", *table.columns.drop("encoder")]]
    differences = {f"{m} - CLIP_GPT": table[m] - table["CLIP_GPT"] for m in LEARNED}
    differences |= {"CLIP_GPT": table["CLIP_GPT"]}
    known = {p: table[p] for p in ("gap", "margin", "sharpness", "information")}
    # Labels are needed for this one: how good the images are without any word.
    known["k-means (needs labels)"] = table["KMeans"]
    ranks = {
        d: {p: spearmanr(x, y).statistic for p, x in known.items()} for d, y in differences.items()
    }
    return table, pd.DataFrame(ranks).T


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", required=True, help="folder with card/")
    parser.add_argument("--photos", type=Path, required=True, help="CIFAR-10's training pictures")
    parser.add_argument("--encoder", nargs="+", default=["mini", "photo"])
    parser.add_argument("--sweep", choices=list(CANDIDATES))
    args = parser.parse_args()
    os.environ["MMCLUST_DATA"] = args.data_dir
    methods = mm.load_profile("demo")["methods"]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "photographs")
        place.mkdir()
        photos = write_held_out_photographs(args.photos, place)
        sets = {"card-valid": ["order", "suits"], photos: ["type", "environment"]} | CRITERIA
        if not args.sweep:
            table, ranks = compare_encoders(args.encoder, sets, methods)
            print(table.to_markdown(index=False, floatfmt=".3f"))
            print("\nRank correlation over encoders and criteria:\n")
            print(ranks.to_markdown(floatfmt=".2f"))
            return
        for encoder in args.encoder:
            out = {}
            for changes in CANDIDATES[args.sweep]:
                params = {args.sweep: methods[args.sweep] | changes}
                rows = rows_of(encoder, sets, [args.sweep], params, SEEDS[:1])
                out[json.dumps(changes)] = rows.groupby("data", sort=False)["NMI"].mean()
            table = pd.DataFrame(out).T
            print(f"\n{encoder}, {args.sweep}\n")
            print(table.assign(mean=table.mean(axis=1)).to_markdown(floatfmt=".3f"))


if __name__ == "__main__":
    main()
