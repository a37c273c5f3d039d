"""What early stopping saves, and what it costs: `python -m benchmarks.early_stopping`.

On the tuning worlds with the profile's settings, but trained as long as in the papers: Multi-MaP
1,000 epochs, where losses are compared, and Multi-Sub 9 rounds of 110, where NMI is. Multi-DProxy
runs as long as in the profile: trained for longer, its F drifts to the image (`--epochs`).
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import pandas as pd

import mmclust as mm
from mmclust.data.images import ImageDataset
from mmclust.encoders.base import Encoder

FULL_TRAINING: dict[str, dict[str, int]] = {
    "MultiMaP": {"epochs": 1000},
    "MultiSub": {"alternations": 9, "phase1_epochs": 100, "phase2_epochs": 10},
    "MultiDProxy": {},
}
CRITERIA = {
    "tuning-fruit": ["color", "species"],
    "tuning-card": ["order", "suits"],
    "tuning-face": ["emotion", "glasses", "pose"],
}


def compare(
    method: str, seed: int, n: int, encoder: Encoder, full: dict | None = None, **stopping: Any
) -> pd.DataFrame:
    """Full and stopped training, a row per criterion.

    Args:
        full: parameters of both runs; None takes `FULL_TRAINING`.
        stopping: parameters of the stopped run alone.

    Returns:
        method, criterion; epochs, seconds, last loss and NMI of both runs; their differences.
    """
    params = mm.load_profile()["methods"][method] | (
        FULL_TRAINING[method] if full is None else full
    )
    rows = []
    for world, criteria in CRITERIA.items():
        data = mm.load_dataset(world, n=n, seed=seed)
        encoder.features(data.images)
        for criterion in criteria:
            row = {"method": method, "criterion": criterion}
            row |= _train("full", method, params, encoder, data, criterion, seed)
            stopped = params | {"early_stopping": True} | stopping
            row |= _train("stopped", method, stopped, encoder, data, criterion, seed)
            difference = abs(row["stopped loss"] - row["full loss"])
            row["loss, relative difference"] = difference / abs(row["full loss"])
            row["NMI difference"] = row["stopped NMI"] - row["full NMI"]
            rows.append(row)
    return pd.DataFrame(rows)


def _train(
    name: str, method: str, params: dict, encoder: Encoder, data: ImageDataset, criterion: str,
    seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Epochs, seconds, last loss and NMI of one run; the keys begin with its name."""
    words = mm.reference_words(criterion, of=data.domain, seed=seed)
    common = {"n_clusters": data.n_clusters(criterion), "random_state": seed}
    model = getattr(mm, method)(encoder, words, **common | params)
    if "concepts" in model.get_params():
        others = [c for c in data.independent_criteria if c != criterion]
        model.set_params(concepts=[criterion, *others])
    start = time.perf_counter()
    model.fit(data.images)
    return {
        f"{name} epochs": len(model.history_),
        f"{name} seconds": time.perf_counter() - start,
        f"{name} loss": model.history_[-1]["loss"],
        f"{name} NMI": model.evaluate(data.labels[criterion])["NMI"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", nargs="+", default=[*FULL_TRAINING], choices=[*FULL_TRAINING])
    parser.add_argument("-n", type=int, default=300, help="images per world")
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--epochs", type=int, help="of Multi-DProxy, instead of the profile's")
    args = parser.parse_args()
    encoder = mm.load_encoder("mini")
    for method in args.method:
        full = {"epochs": args.epochs} if args.epochs and method == "MultiDProxy" else None
        table = compare(method, args.seed, args.n, encoder, full)
        print(table.to_markdown(index=False, floatfmt=".3f"))
        mean = table.mean(numeric_only=True)
        epochs_saved = 1 - mean["stopped epochs"] / mean["full epochs"]
        seconds_saved = 1 - mean["stopped seconds"] / mean["full seconds"]
        print(
            f"{method}: {epochs_saved:.0%} of the epochs and {seconds_saved:.0%} of the seconds "
            f"saved; mean NMI {mean['full NMI']:.3f} to {mean['stopped NMI']:.3f}, largest "
            f"difference {table['NMI difference'].abs().max():.3f}; loss within "
            f"{table['loss, relative difference'].max():.2%}\n"
        )


if __name__ == "__main__":
    main()
