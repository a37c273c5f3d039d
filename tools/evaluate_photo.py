"""What an encoder recognizes in folders of pictures.

    python -m tools.evaluate_photo --encoder photo card=CARD:valid fruit=FRUITS/Training:held-out

Prints, for each criterion, the zero-shot accuracy over the true class names and the NMI of k-means
(mean of five seeds), CLIP_GPT and CLIP_label. A folder is written as DOMAIN=FOLDER or
DOMAIN=FOLDER:SPLIT. It has a `labels.csv` (file, criteria, perhaps split), or class folders of
Fruits-360, or the file names of CMU's faces. The split `held-out` of Fruits-360's training pictures
is what training left out. With `--cifar`, CIFAR-10's training pictures that training left out; with
`--worlds`, the tuning worlds.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

import mmclust as mm
from mmclust.data.images import Images
from mmclust.data.paper_layouts import FACE
from mmclust.encoders.base import Encoder
from mmclust.metrics import score
from tools.evaluate_mini import NEVER_TAUGHT
from tools.mini_pictures import photo_row, photographs, split_photographs
from tools.photo_pictures import produce

SEEDS = range(5)
NO_CRITERIA = {"file", "split", "class"}
SAMPLE = 2000  # of CIFAR-10's pictures that training left out


def read_folder(folder: Path, split: str) -> tuple[list, list[dict]]:
    """Pictures and what they show."""
    if (folder / "labels.csv").exists():
        with (folder / "labels.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get("split", split) == split]
        images = [folder / row["file"] for row in rows]
        images = [path if path.exists() else folder / "images" / path.name for path in images]
        shown = [{k: v for k, v in row.items() if k not in NO_CRITERIA} for row in rows]
        return [Image.open(path) for path in images], shown
    faces = [(p, match) for p in sorted(folder.rglob("*.pgm")) if (match := FACE.fullmatch(p.name))]
    if faces:
        kept = ("identity", "emotion", "glasses", "pose")
        return [Image.open(path) for path, _ in faces], [{k: m[k] for k in kept} for _, m in faces]
    pictures = list(produce(folder))
    if split:
        pictures = [(p, row) for p, row in pictures if row["held out"]]
    kept = ("species", "color")
    return [p for p, _ in pictures], [{k: r[k] for k in kept if k in r} for _, r in pictures]


def score_rows(encoder: Encoder, name: str, domain: str, images: list, shown: list[dict]) -> list:
    out = []
    for criterion in dict.fromkeys(key for row in shown for key in row):
        known = [i for i, row in enumerate(shown) if row.get(criterion)]
        values = [shown[i][criterion] for i in known]
        classes = sorted(set(values))
        labels = np.array([classes.index(value) for value in values])
        pictures = Images.of([images[i] for i in known])
        template = mm.prompt_template(criterion, domain)
        row: dict = {"data": name, "criterion": criterion}
        row |= {"classes": len(classes), "images": len(known)}
        label = mm.CLIP_label(encoder, classes, template=template).fit(pictures)
        row["accuracy"] = (label.similarity_.argmax(1) == labels).mean()
        kmeans = [
            mm.KMeans(encoder, n_clusters=len(classes), random_state=seed).fit(pictures).labels_
            for seed in SEEDS
        ]
        row["k-means"] = np.mean([score(labels, clusters)["NMI"] for clusters in kmeans])
        if criterion != "identity":
            words = mm.reference_words(criterion, of=domain)
            gpt = mm.CLIP_GPT(encoder, words, template=template).fit(pictures)
            row["CLIP_GPT"] = score(labels, gpt.labels_)["NMI"]
        row["CLIP_label"] = score(labels, label.labels_)["NMI"]
        out.append(row)
    return out


def kept_out(archive: Path) -> tuple[list, list[dict]]:
    pixels, classes = photographs(archive)
    _, indices = split_photographs(classes)
    chosen = indices[:: len(indices) // SAMPLE]
    rows = [photo_row(classes[i]) for i in chosen]
    return [Image.fromarray(pixels[i]) for i in chosen], rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", help="DOMAIN=FOLDER or DOMAIN=FOLDER:SPLIT")
    parser.add_argument("--encoder", default="photo")
    parser.add_argument("--cifar", type=Path, help="CIFAR-10's training pictures")
    parser.add_argument("--worlds", type=int, metavar="N", help="pictures of each tuning world")
    args = parser.parse_args()
    encoder = mm.load_encoder(args.encoder)
    rows = []
    for text in args.folders:
        domain, _, place = text.partition("=")
        folder, _, split = place.partition(":")
        rows += score_rows(encoder, text, domain, *read_folder(Path(folder), split))
    if args.cifar:
        rows += score_rows(encoder, "CIFAR-10, held out", "photo", *kept_out(args.cifar))
    for domain in ("fruit", "card", "face") if args.worlds else ():
        data = mm.load_dataset(f"tuning-{domain}", n=args.worlds, seed=1000)
        named = [c for c in data.criteria if c not in NEVER_TAUGHT]
        shown = [{c: row[c] for c in named} for row in data.rows]
        rows += score_rows(encoder, f"tuning-{domain}", domain, list(data.images), shown)
    table = pd.DataFrame(rows)
    print(table.to_markdown(index=False, floatfmt=".3f"))


if __name__ == "__main__":
    main()
