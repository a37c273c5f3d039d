"""What Multi-DProxy's schedule, score and alignment buy: `python -m tools.study_dproxy_schedule`.

NMI of the fused F on the tuning worlds (nothing that is reported is used): the lexicon's lists and
lists of 64 words, most of which fit nothing, on plain pictures and in evening light. A row per
setting; all other settings are those of the demo profile. With `--collapse`, settings that show why
the paper's three terms alone fail, with the mean lam, the weight of the text in F.
"""

from __future__ import annotations

import argparse
import itertools

import pandas as pd

from mmclust.data.shifts import Shift
from mmclust.experiments.experiment import grid
from mmclust.experiments.run import run
from mmclust.experiments.workbench import Workbench
from mmclust.profiles import load_profile
from mmclust.words.word_lists import WordList

SEEDS = (100, 101)
N_WORDS = 64
EVENING = Shift("evening light")
CONDITIONS = {
    "color": ("tuning-fruit", "color", None, None),
    "color, 64 words": ("tuning-fruit", "color", None, WordList(length=N_WORDS)),
    "color, evening": ("tuning-fruit", "color", EVENING, None),
    "color, evening, 64 words": ("tuning-fruit", "color", EVENING, WordList(length=N_WORDS)),
    "species": ("tuning-fruit", "species", None, None),
    "species, 64 words": ("tuning-fruit", "species", None, WordList(length=N_WORDS)),
    "suits": ("tuning-card", "suits", None, None),
    "emotion": ("tuning-face", "emotion", None, None),
}
SCHEDULES = {
    "update_every": [40, "auto"],
    "align_weight": [0.0, 3.0],
    "score": ["max", "mean"],
}
COLLAPSE = [
    {"align_weight": 0.0},
    {"align_weight": 0.0, "fusion_lr": 1e-6},
    {"align_weight": 0.0, "fusion": "none"},
    {"align_weight": 0.0, "fusion": "none", "tau": 1.0},
    {"align_weight": 0.0, "user_weight": 0.0},
    {"align_weight": 0.0, "concept_weight": 0.0},
    {"align_weight": 0.0, "user_weight": 1.0, "concept_weight": 1.0},
]


def nmi(setting: dict, n: int, condition: tuple) -> float:
    dataset, criterion, shift, word_list = condition
    experiments = grid(
        dataset=dataset, criterion=criterion, method="MultiDProxy", representation="fused",
        params=setting, shift=shift, word_list=word_list, n=n, seed=SEEDS,
    )  # fmt: skip
    return float(run(experiments, progress=False)["NMI"].mean())


def text_weight(setting: dict, n: int) -> float:
    """The mean lam after a fit on the first condition."""
    dataset, criterion, _, _ = CONDITIONS["color"]
    (experiment,) = grid(
        dataset=dataset, criterion=criterion, method="MultiDProxy", params=setting, n=n,
        seed=SEEDS[0],
    )  # fmt: skip
    model, _ = Workbench().fit(experiment)
    return float(model.mixing_.mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-n", type=int, default=100, help="images per world")
    parser.add_argument("--collapse", action="store_true", help="why three terms alone fail")
    args = parser.parse_args()
    base = load_profile()["methods"]["MultiDProxy"]
    changes = [dict(zip(SCHEDULES, values)) for values in itertools.product(*SCHEDULES.values())]
    if args.collapse:
        changes = [{"update_every": 40} | change for change in COLLAPSE]
    rows = []
    for change in changes:
        row = {name: nmi(base | change, args.n, c) for name, c in CONDITIONS.items()}
        row = change | row | {"mean": sum(row.values()) / len(row)}
        if args.collapse:
            row["lam"] = text_weight(base | change, args.n)
        rows.append(row)
        print(f"{row['mean']:.3f}  {change}", flush=True)
    print(pd.DataFrame(rows).fillna("").to_markdown(index=False, floatfmt=".3f"))


if __name__ == "__main__":
    main()
