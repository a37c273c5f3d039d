"""What early stopping saves, and what it costs: `python -m benchmarks.early_stopping`.

On the tuning worlds with the profile's settings, but as long as the papers train: Multi-MaP 1,000 epochs, where the loss is compared, and
Multi-Sub 9 rounds of 110, where NMI is. Multi-DProxy runs to the profile's end: trained for longer its F drifts to the image (`--epochs`).
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import pandas as pd

import mmclust as mm
from mmclust.encoders.base import Encoder
from mmclust.profiles import load_profile

FULL = {
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
    method: str, seed: int, n: int, encoder: Encoder, full: dict | None = None, **more: Any
) -> pd.DataFrame:
    """A row per criterion: epochs and seconds of the full and of the stopped run, their last losses and NMI. `full` changes both runs'
    parameters, `more` those of the stopped one."""
    params, rows = load_profile()["methods"][method] | (FULL[method] if full is None else full), []
    for world, criteria in CRITERIA.items():
        data = mm.load_dataset(world, n=n, seed=seed)
        encoder.features(data.images)
        for criterion in criteria:
            words = mm.reference_words(criterion, of=data.domain, seed=seed)
            row: dict[str, Any] = {"method": method, "criterion": criterion}
            for name, options in (("full", {}), ("stopped", {"early_stopping": True} | more)):
                given = {"n_clusters": data.n_clusters(criterion), "random_state": seed}
                model = getattr(mm, method)(encoder, words, **given | params | options)
                if "concepts" in model.get_params():
                    model.set_params(
                        concepts=[
                            criterion,
                            *(c for c in data.criteria if c not in (criterion, "shape")),
                        ]
                    )
                start = time.perf_counter()
                model.fit(data.images)
                row |= {
                    f"{name} epochs": len(model.history_),
                    f"{name} seconds": time.perf_counter() - start,
                    f"{name} loss": model.history_[-1]["loss"],
                }
                row[f"{name} NMI"] = model.evaluate(data.labels[criterion])["NMI"]
            row["loss, relative difference"] = abs(row["stopped loss"] - row["full loss"]) / abs(
                row["full loss"]
            )
            rows.append(row | {"NMI difference": row["stopped NMI"] - row["full NMI"]})
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", nargs="+", default=["MultiMaP", "MultiSub", "MultiDProxy"])
    parser.add_argument("-n", type=int, default=300)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--epochs", type=int, help="of Multi-DProxy, instead of the profile's")
    args = parser.parse_args()
    encoder = mm.load_encoder("mini")
    for method in args.method:
        full = {"epochs": args.epochs} if args.epochs and method == "MultiDProxy" else None
        table = compare(method, args.seed, args.n, encoder, full)
        print(table.to_markdown(index=False, floatfmt=".3f"))
        total = table.mean(numeric_only=True)
        saved = {
            what: 1 - total[f"stopped {what}"] / total[f"full {what}"]
            for what in ("epochs", "seconds")
        }
        print(
            f"{method}: {saved['epochs']:.0%} of the epochs and {saved['seconds']:.0%} of the seconds saved;",
            end=" ",
        )
        print(
            f"mean NMI {total['full NMI']:.3f} to {total['stopped NMI']:.3f}, largest difference {table['NMI difference'].abs().max():.3f};",
            end=" ",
        )
        print(f"loss within {table['loss, relative difference'].max():.2%}\n")


if __name__ == "__main__":
    main()
