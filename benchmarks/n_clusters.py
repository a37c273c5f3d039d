"""How well is the number of clusters estimated? `python -m benchmarks.n_clusters [--tuning]`.

For every criterion of the demo worlds and every seed: the true number M, the number that
`n_clusters="auto"` chooses, and the one that the silhouette of the image features chooses. They are
compared with constants; which constant is best is known only from the true numbers. "within" allows
a deviation of 10 %, or of 1 if that is more.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

import mmclust as mm
from mmclust.encoders.base import Encoder

CRITERIA = {
    "fruit": ["color", "species"],
    "card": ["order", "suits"],
    "face": ["emotion", "glasses", "pose", "identity"],
}
METHODS = ("MultiSub", "MultiMaP", "MultiDProxy")
TUNING_SEED = 100  # the first of the seeds with which the criterion was chosen


def estimate(
    method: str, world: str, seeds: Iterable[int], n: int, encoder: Encoder
) -> pd.DataFrame:
    """A row per criterion and seed: criterion, seed, M, auto, features (numbers of clusters)."""
    params = mm.load_profile()["methods"].get(method, {})
    rows = []
    for domain, criteria in CRITERIA.items():
        for seed in seeds:
            data = mm.load_dataset(f"{world}-{domain}", n=n, seed=seed)
            kmeans = mm.KMeans(encoder, n_clusters="auto", random_state=seed).fit(data.images)
            for criterion in criteria:
                words = mm.reference_words(criterion, of=domain, seed=seed)
                model = getattr(mm, method)(
                    encoder, words, n_clusters="auto", random_state=seed, **params
                )
                model.fit(data.images)
                rows.append(
                    {
                        "criterion": criterion,
                        "seed": seed,
                        "M": data.n_clusters(criterion),
                        "auto": model.n_clusters_,
                        "features": kmeans.n_clusters_,
                    }
                )
    return pd.DataFrame(rows)


def within(estimates: ArrayLike, true: ArrayLike) -> np.ndarray:
    """Whether estimates differ from M by at most 10 %, or by at most 1 if that is more."""
    allowed = np.maximum(1, 0.1 * np.asarray(true))
    return np.abs(np.asarray(estimates) - true) <= allowed


def judge(rows: pd.DataFrame) -> pd.DataFrame:
    """How good each estimate is, a row per estimate.

    "criteria exact" and "criteria within" count criteria, by the median over seeds; "exact" and
    "within" are the shares of all criteria and seeds.
    """
    estimates = {"auto": rows["auto"], "silhouette on image features": rows["features"]}
    for constant in range(2, int(rows["M"].max()) + 1):
        estimates[f"always {constant}"] = pd.Series(constant, rows.index)
    true = rows.groupby("criterion", sort=False)["M"].median()
    table = []
    for name, values in estimates.items():
        median = values.groupby(rows["criterion"], sort=False).median()
        table.append(
            {
                "estimate": name,
                "criteria exact": int((median == true).sum()),
                "criteria within": int(within(median, true).sum()),
                "exact": float((values == rows["M"]).mean()),
                "within": float(within(values, rows["M"]).mean()),
                "mean error": float((values - rows["M"]).abs().mean()),
            }
        )
    return pd.DataFrame(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", default="MultiSub", choices=METHODS)
    parser.add_argument(
        "--tuning",
        action="store_true",
        help=f"the tuning worlds and seeds from {TUNING_SEED}, where the criterion was chosen",
    )
    parser.add_argument("-n", type=int, default=300, help="images per world")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    world = "tuning" if args.tuning else "demo"
    first = TUNING_SEED if args.tuning else 0
    seeds = range(first, first + args.seeds)
    rows = estimate(args.method, world, seeds, args.n, mm.load_encoder("mini"))
    wide = rows.pivot_table(
        index=["criterion", "M"], columns="seed", values=["auto", "features"], sort=False
    )
    wide.columns = [f"{name} {seed}" for name, seed in wide.columns]
    print(wide.astype(int).reset_index().to_markdown(index=False), end="\n\n")
    print(judge(rows).to_markdown(index=False, floatfmt=".2f"))


if __name__ == "__main__":
    main()
