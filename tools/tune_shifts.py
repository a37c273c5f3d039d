"""How the strengths of notebook 17's shifts were chosen: `python -m tools.tune_shifts`.

On the tuning worlds (other values of every factor than the demo worlds have), CLIP_GPT's NMI under
each shift and strength. The chosen strength is the smallest at which one of the criteria has lost
`LOSS` of its NMI on unchanged pictures; that criterion is asked for under this shift. No method
that learns is looked at.
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
    return table


def chosen(table: pd.DataFrame) -> dict[str, str]:
    """Shift -> the smallest strength at which a criterion has lost `LOSS`, and that criterion."""
    answers = {}
    for name, rows in table.groupby("name", sort=False):
        scores = rows.droplevel("name")
        share = scores / scores.loc[0.0]  # of the NMI on unchanged pictures
        enough = share.index[share.min(axis=1) <= 1 - LOSS]
        answers[name] = "no strength has this effect"
        if len(enough):
            answers[name] = f"{enough.min()}, {share.loc[enough.min()].idxmin()}"
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", default="CLIP_GPT", help="another method, to look at alone")
    parser.add_argument("-n", type=int, default=100, help="images per world")
    args = parser.parse_args()
    table = scores(args.method, args.n)
    print(table.reset_index().to_markdown(index=False, floatfmt=".3f"))
    for name, answer in chosen(table).items():
        print(f"{name}: {answer}")


if __name__ == "__main__":
    main()
