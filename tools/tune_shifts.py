"""How the strengths of notebook 17's shifts were chosen: `python -m tools.tune_shifts`.

On the tuning worlds (other values of every factor than the demo worlds have), CLIP_GPT's NMI under
each shift and strength. The chosen strength is the smallest at which its mean over the notebook's
criteria has lost `LOSS` of what it has on unchanged pictures. No method that learns is looked at.
"""

from __future__ import annotations

import argparse

import pandas as pd

from mmclust.data.shifts import SHIFTS, Shift
from mmclust.experiments.experiment import grid
from mmclust.experiments.run import run

CRITERIA = {"tuning-fruit": ["color", "species"]}
SEEDS = (100, 101)
STRENGTHS = (0.25, 0.5, 0.75, 1.0)
LOSS = 0.2  # a fifth


def scores(method: str, n: int) -> pd.DataFrame:
    """NMI by shift and strength (rows) and criterion."""
    frames = []
    for name in SHIFTS:
        for strength in (0.0, *STRENGTHS):
            axes = {"dataset": list(CRITERIA), "criterion": CRITERIA, "method": method}
            experiments = grid(**axes, shift=Shift(name, strength), seed=SEEDS, n=n)
            rows = run(experiments, progress=False)
            frames.append(rows.assign(name=name, strength=strength))
    table = pd.concat(frames).pivot_table("NMI", ["name", "strength"], "criterion", sort=False)
    return table.assign(mean=table.mean(axis=1))


def chosen(table: pd.DataFrame) -> dict[str, float | None]:
    """Shift -> the smallest strength at which the mean has lost `LOSS`; None if none has."""
    strengths: dict[str, float | None] = {}
    for name, rows in table["mean"].groupby("name", sort=False):
        by_strength = rows.droplevel("name")
        enough = by_strength.index[by_strength <= (1 - LOSS) * by_strength[0.0]]
        strengths[name] = float(enough.min()) if len(enough) else None
    return strengths


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", default="CLIP_GPT", help="another method, to look at alone")
    parser.add_argument("-n", type=int, default=200, help="images per world")
    args = parser.parse_args()
    table = scores(args.method, args.n)
    print(table.reset_index().to_markdown(index=False, floatfmt=".3f"))
    for name, strength in chosen(table).items():
        print(f"{name}: {strength or 'no strength has this effect'}")


if __name__ == "__main__":
    main()
