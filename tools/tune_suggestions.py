"""How `mm.suggest_keywords` was chosen, and what it suggests.

    python -m tools.tune_suggestions --tune --folder CARD:valid --cifar ARCHIVE
    python -m tools.tune_suggestions --report --folder CARD:test --folder CIFAR10

`--tune` compares scores of a list of words on the tuning worlds, on folders and CIFAR-10's training
pictures that training left out, and on noise. A folder is FOLDER or FOLDER:SPLIT, with a
`labels.csv`. Pictures in files are encoded by `photo` alone, worlds by both embedded encoders. For
each score it prints two means over the data sets: the share of the criteria that are among the
first three of all keywords of the lexicon, and the largest AMI of each criterion with one of these
three (of the nearest word of each picture). `limit` is the score that separates best the true
criteria from the best of noise and of keywords that say nothing (AMI below `UNFIT` with every
criterion); `balanced` is the mean of the shares that are on the right side of it.

`--report` runs what was chosen, once, on the demo worlds (five seeds), on folders, and on other
noise; beside it chance (three keywords drawn at random), and the silhouette of k-means on the
cosines with the words of each keyword.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.special import entr, softmax
from sklearn.metrics import adjusted_mutual_info_score, silhouette_score
from sklearn.preprocessing import normalize

import mmclust as mm
from mmclust.data.images import Images
from mmclust.encoders.base import Encoder
from mmclust.methods import suggestions
from mmclust.metrics import kmeans
from tools.evaluate_photo import kept_out, read_folder

SEEDS = {"tuning": (100, 101, 102), "demo": range(5)}
N = 200  # pictures of a world
SAMPLE = 400  # pictures of a folder, for each seed
FIRST = 3  # suggestions that are looked at
DRAWS = 200  # of three keywords at random
UNFIT = 0.25  # AMI
SAME = {"number": "order"}  # of playing cards: the lexicon has the same words for both
POWERS = (0.0, 0.1, 0.25, 0.5, 1.0)
NOISE = {"white": 128, "coarse": 8, "gray": 128}  # random pixels, enlarged to 128
Scored = tuple[str, float, np.ndarray]  # keyword, score, nearest words (n,)
Labels = dict[str, np.ndarray]


def entropies(cosines: np.ndarray, scale: float) -> tuple[float, float]:
    """Of the mean of the pictures' probabilities over the words, and their mean entropy."""
    p = softmax(scale * cosines, axis=1)
    return entr(p.mean(0)).sum(), entr(p).sum(1).mean()


def information(cosines: np.ndarray, rivals: np.ndarray, scale: float) -> float:
    total, rest = entropies(cosines, scale)
    return total - rest


def share(cosines: np.ndarray, rivals: np.ndarray, scale: float) -> float:
    """The information divided by the entropy of the mean."""
    return information(cosines, rivals, scale) / max(entropies(cosines, scale)[0], 0.1)


def certainty(cosines: np.ndarray, rivals: np.ndarray, scale: float) -> float:
    """How far the mean entropy is below its maximum."""
    return np.log(cosines.shape[1]) - entropies(cosines, scale)[1]


def margin(cosines: np.ndarray, rivals: np.ndarray, scale: float) -> float:
    """Best minus second cosine, in units of the spread of all."""
    first = np.sort(cosines, axis=1)[:, ::-1]
    return float((first[:, 0] - first[:, 1]).mean() / cosines.std())


def fit(cosines: np.ndarray, rivals: np.ndarray, scale: float) -> float:
    """The mean probability of the words among words and nouns."""
    p = softmax(scale * np.hstack([cosines, rivals]), axis=1)
    return float(p[:, : cosines.shape[1]].sum(1).mean())


def silhouette(cosines: np.ndarray, rivals: np.ndarray, scale: float) -> float:
    """Of the nearest words, in the space of the cosines."""
    taken = cosines.argmax(1)
    enough = 1 < len(set(taken)) < len(taken)
    return silhouette_score(cosines, taken) if enough else -1.0


def kmeans_silhouette(cosines: np.ndarray, rivals: np.ndarray, scale: float) -> float:
    """Of k-means with as many clusters as words are nearest to a picture."""
    x = normalize(cosines)
    labels, _ = kmeans(x, max(2, len(set(cosines.argmax(1)))), 0)
    return silhouette_score(x, labels) if 1 < len(set(labels)) < len(x) else -1.0


def chosen(cosines: np.ndarray, rivals: np.ndarray, scale: float) -> float:
    return suggestions.separation(scale * cosines, scale * rivals)


def above_nouns(score: Callable) -> Callable:
    """A score minus that of as many random nouns."""

    def difference(cosines: np.ndarray, rivals: np.ndarray, scale: float) -> float:
        split = min(cosines.shape[1], rivals.shape[1] // 2)
        nouns = score(rivals[:, :split], rivals[:, split:], scale)
        return score(cosines, rivals, scale) - nouns

    return difference


SCORES = {
    "share x fit": chosen,
    "share of the entropy": share,
    "information": information,
    "certainty": certainty,
    "margin": margin,
    "fit": fit,
    "silhouette of the nearest words": silhouette,
    "k-means' silhouette": kmeans_silhouette,
}
SCORES |= {
    f"{name}, minus that of nouns": above_nouns(SCORES[name])
    for name in ("share x fit", "share of the entropy", "information", "fit")
}


def noise(kind: str, seed: int) -> Images:
    """Pictures that no keyword fits: random pixels."""
    rng = np.random.default_rng([seed, NOISE[kind]])
    pixels = rng.integers(0, 256, (N, NOISE[kind], NOISE[kind], 3), dtype=np.uint8)
    if kind == "gray":
        pixels[:] = pixels[..., :1]
    return Images.of([Image.fromarray(p).resize((128, 128), Image.BICUBIC) for p in pixels])


def worlds(prefix: str) -> Iterator[tuple[str, Images, Labels]]:
    for domain in ("fruit", "card", "face"):
        for seed in SEEDS[prefix]:
            data = mm.load_dataset(f"{prefix}-{domain}", n=N, seed=seed)
            yield data.name, data.images, dict(data.labels)
    for kind in NOISE:
        yield f"noise, {kind}", noise(kind, SEEDS[prefix][0]), {}


def samples(name: str, images: list, rows: list[dict]) -> Iterator[tuple[str, Images, Labels]]:
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(images))[:SAMPLE]
        labels = {c: np.array([rows[i][c] for i in order]) for c in rows[0] if c != "file"}
        yield name, Images.of([images[i] for i in order]), labels
        if len(images) <= SAMPLE:
            return


def labeled_folder(text: str) -> Iterator[tuple[str, Images, Labels]]:
    """The pictures of FOLDER or FOLDER:SPLIT with the criteria of its `labels.csv`."""
    folder, _, split = text.partition(":")
    images, rows = read_folder(Path(folder), split)
    if (
        "class" in pd.read_csv(Path(folder) / "labels.csv").columns
    ):  # which `read_folder` leaves out
        classes = pd.read_csv(Path(folder) / "labels.csv", dtype=str)["class"]
        rows = [{"class": name} | row for name, row in zip(classes, rows)]
    return samples(Path(text).name, images, rows)


def similarities(encoder: Encoder, images: Images) -> list[tuple]:
    return list(suggestions.similarities(images, encoder, suggestions.word_lists()))


def by_keyword(items: list[tuple], score: Callable, scale: float) -> list[Scored]:
    """The best list of each keyword."""
    best: dict[str, Scored] = {}
    for (keyword, *_), cosines, rivals in items:
        name = SAME.get(keyword, keyword)
        value = score(cosines, rivals, scale)
        if name not in best or value > best[name][1]:
            best[name] = (name, value, cosines.argmax(1))
    return list(best.values())


def first_three(scored: list[Scored], power: float) -> list[int]:
    scores = np.array([value for _, value, _ in scored])
    # A power of 1 - NMI reduces only what is above 0, which not all scores are.
    order, _ = suggestions.rank(scores - min(scores.min(), 0), [t for *_, t in scored], power)
    return order[:FIRST]


def agreement(scored: list[Scored], labels: Labels) -> np.ndarray:
    """AMI of each keyword (rows) with each criterion."""
    ami = adjusted_mutual_info_score
    return np.array([[ami(true, taken) for true in labels.values()] for *_, taken in scored])


def tune(sets: list[tuple[str, Encoder, list, Labels]]) -> None:
    rows = []
    for name, score in SCORES.items():
        results = {power: {} for power in POWERS}  # power -> data set -> (share, AMI)
        true, wrong = [], []
        for dataset, encoder, items, labels in sets:
            scored = by_keyword(items, score, encoder.logit_scale)
            scores = np.array([value for _, value, _ in scored])
            names = [keyword for keyword, *_ in scored]
            if not labels:
                wrong.append(scores.max())
                continue
            ami = agreement(scored, labels)
            possible = [c for c in labels if c in names]
            true += [scores[names.index(c)] for c in possible]
            wrong.append(scores[ami.max(1) < UNFIT].max())
            columns = [list(labels).index(c) for c in possible]
            for power in POWERS:
                first = first_three(scored, power)
                hits = np.mean([c in [names[k] for k in first] for c in possible])
                covered = ami[first][:, columns].max(0).mean()
                key = f"{dataset} {encoder.name}"
                results[power].setdefault(key, []).append((hits, covered))
        limit, balanced = separating(np.array(true), np.array(wrong))
        for power, result in results.items():
            hits, covered = np.mean([np.mean(values, axis=0) for values in result.values()], axis=0)
            row = {"score": name, "power": power, f"first {FIRST}": hits, "AMI": covered}
            rows.append(row | {"limit": limit, "balanced": balanced})
    table = pd.DataFrame(rows)
    order = (table[f"first {FIRST}"] + table["AMI"]).sort_values(ascending=False, kind="stable")
    print(table.loc[order.index].to_markdown(index=False, floatfmt=".3f"))


def separating(true: np.ndarray, wrong: np.ndarray) -> tuple[float, float]:
    """The middle of the interval of limits with the best balanced accuracy, and that accuracy."""
    values = np.unique(np.concatenate([true, wrong]))
    middles = (values[1:] + values[:-1]) / 2
    accuracy = [((true >= m).mean() + (wrong < m).mean()) / 2 for m in middles]
    return middles[int(np.argmax(accuracy))], max(accuracy)


def report(sets: list[tuple[str, Encoder, list, Labels]]) -> None:
    rng = np.random.default_rng(0)
    rows, noises = [], []
    for dataset, encoder, items, labels in sets:
        ours = by_keyword(items, chosen, encoder.logit_scale)
        base = by_keyword(items, kmeans_silhouette, encoder.logit_scale)
        names = [keyword for keyword, *_ in ours]
        first = first_three(ours, suggestions.SIMILAR)
        row = {"data": dataset, "encoder": encoder.name}
        if not labels:
            best = max(score for _, score, _ in ours)
            noises.append(row | {"best score": best, "fits": best >= suggestions.FITS})
            continue
        possible = [c for c in labels if c in names]
        row |= {"criteria": len(labels), "with words": len(possible), "keywords": len(names)}
        row["chance"] = FIRST * len(possible) / len(names)
        for column, scored, power in (("k-means", base, 0.0), ("ours", ours, suggestions.SIMILAR)):
            top = first_three(scored, power)
            row[column] = sum(scored[k][0] in possible for k in top)
            ami = agreement(scored, labels)
            row[f"AMI, {column}"] = ami[top].max(0).mean()
        drawn = [rng.permutation(len(ami))[:FIRST] for _ in range(DRAWS)]
        row["AMI, chance"] = np.mean([ami[three].max(0).mean() for three in drawn])
        listed = [names[k] for k in first]
        row["first"] = ", ".join(listed)
        right = [score >= suggestions.FITS for keyword, score, _ in ours if keyword in possible]
        row["true ones that fit"] = sum(right)
        rows.append(row)
    table = pd.DataFrame(rows)
    keys = ["data", "encoder"]
    suggested = table.groupby(keys, sort=False)["first"].agg(lambda x: "; ".join(dict.fromkeys(x)))
    means = table.groupby(keys, sort=False).mean(numeric_only=True).round(3)
    print(means.reset_index().to_markdown(index=False))
    print(f"\nThe first {FIRST} suggestions, different ones over the seeds:\n")
    print(suggested.reset_index().to_markdown(index=False))
    print(f"\nNoise; fits: a score of at least {suggestions.FITS}:\n")
    print(pd.DataFrame(noises).to_markdown(index=False, floatfmt=".3f"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--tune", action="store_true")
    what.add_argument("--report", action="store_true")
    parser.add_argument("--folder", action="append", default=[], help="FOLDER or FOLDER:SPLIT")
    parser.add_argument("--cifar", type=Path, help="CIFAR-10's training pictures")
    args = parser.parse_args()
    photographs = [item for text in args.folder for item in labeled_folder(text)]
    if args.cifar:
        photographs += samples("CIFAR-10, held out", *kept_out(args.cifar))
    sets = []
    for name in ("mini", "photo"):
        encoder = mm.load_encoder(name)
        rendered = list(worlds("tuning" if args.tune else "demo"))
        for dataset, images, labels in rendered + (photographs if name == "photo" else []):
            sets.append((dataset, encoder, similarities(encoder, images), labels))
    (tune if args.tune else report)(sets)


if __name__ == "__main__":
    main()
