"""How well is the number of clusters found? `python -m benchmarks.n_clusters [--tuning] [--method MultiSub]`.

For every criterion of the demo worlds and every seed: the true M, what `n_clusters="auto"` finds, what the silhouette of the image features
finds, and the constant that does best with the truth in hand. "within" allows 10 %, at least 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

import mmclust as mm
from mmclust.encoders.base import Encoder
from mmclust.profiles import load_profile

CRITERIA = {
    "fruit": ["color", "species"],
    "card": ["order", "suits"],
    "face": ["emotion", "glasses", "pose", "identity"],
}


def count(method: str, world: str, seeds: Iterable[int], n: int, encoder: Encoder) -> pd.DataFrame:
    """A row per criterion and seed: criterion, seed, M, auto, features."""
    params, rows = load_profile()["methods"].get(method, {}), []
    for domain, criteria in CRITERIA.items():
        for seed in seeds:
            data = mm.load_dataset(f"{world}-{domain}", n=n, seed=seed)
            features = (
                mm.KMeans(encoder, n_clusters="auto", random_state=seed)
                .fit(data.images)
                .n_clusters_
            )
            for criterion in criteria:
                words = mm.reference_words(criterion, of=domain, seed=seed)
                model = getattr(mm, method)(
                    encoder, words, n_clusters="auto", random_state=seed, **params
                ).fit(data.images)
                rows.append(
                    {
                        "criterion": criterion,
                        "seed": seed,
                        "M": data.n_clusters(criterion),
                        "auto": model.n_clusters_,
                        "features": features,
                    }
                )
    return pd.DataFrame(rows)


def within(found: ArrayLike, true: ArrayLike) -> np.ndarray:
    """Whether M was found within 10 %, at least 1."""
    return np.abs(np.asarray(found) - true) <= np.maximum(1, 0.1 * np.asarray(true))


def judge(rows: pd.DataFrame) -> pd.DataFrame:
    """How many criteria are exact and within, on the median over seeds, and over all criteria and seeds: a row per way to count."""
    middle = rows.groupby("criterion", sort=False)[["M", "auto", "features"]].median()
    constants = {
        f"always {c}": pd.Series(c, rows.index) for c in range(2, int(rows["M"].max()) + 1)
    }
    ways = {"auto": rows["auto"], "silhouette on image features": rows["features"], **constants}
    out = []
    for name, found in ways.items():
        per = found.groupby(rows["criterion"], sort=False).median()
        out.append(
            {
                "way": name,
                "criteria exact": int((per == middle["M"]).sum()),
                "criteria within": int(within(per, middle["M"]).sum()),
                "exact": float((found == rows["M"]).mean()),
                "within": float(within(found, rows["M"]).mean()),
                "mean error": float((found - rows["M"]).abs().mean()),
            }
        )
    return pd.DataFrame(out)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--method", default="MultiSub", choices=["MultiSub", "MultiMaP", "MultiDProxy"]
    )
    parser.add_argument(
        "--tuning",
        action="store_true",
        help="on the tuning worlds, seeds 100 and on, where the criterion was chosen",
    )
    parser.add_argument("-n", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    seeds = range(100, 100 + args.seeds) if args.tuning else range(args.seeds)
    rows = count(
        args.method, "tuning" if args.tuning else "demo", seeds, args.n, mm.load_encoder("mini")
    )
    wide = rows.pivot_table(
        index=["criterion", "M"], columns="seed", values=["auto", "features"], sort=False
    )
    wide.columns = [f"{way} {seed}" for way, seed in wide.columns]
    print(wide.astype(int).reset_index().to_markdown(index=False))
    print()
    print(judge(rows).to_markdown(index=False, floatfmt=".2f"))


if __name__ == "__main__":
    main()
