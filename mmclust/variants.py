"""Paper and released code, measured: `python -m mmclust.variants [--flip]`.

The papers' variants and those of the released code on the demo worlds, the zero-shot rows beside them, with 95 % intervals over seeds. With
`--flip`, each difference alone: the paper's variant with one parameter set as in the code.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from scipy import stats

from mmclust.experiments import grid, run
from mmclust.methods.multimap import MultiMaP
from mmclust.methods.multisub import MultiSub
from mmclust.profiles import load_profile

KINDS = {"MultiMaP": MultiMaP, "MultiSub": MultiSub}
FLIPS = {  # what can be flipped alone; schedules (epochs, alternations) are settings, not rules
    "MultiMaP": ("choose_by", "positions", "final_norm", "init", "targets", "concept_loss", "reduction", "optimizer", "batch_size"),
    "MultiSub": ("positions", "final_norm", "init", "optimizer", "batch_size", "intra", "phase2_epochs"),
}


def interval(values) -> float:
    """Half the width of the 95 % t-interval of a mean."""
    values = np.asarray(values, dtype=float)
    return float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def rows_of(named: dict[str, tuple[str, str | None, dict]], criteria: dict, seeds, n: int) -> pd.DataFrame:
    """Tidy rows of settings by name: (method, representation, parameters), with a column `row` that names them."""
    experiments, names = [], []
    for name, (method, representation, params) in named.items():
        part = grid(dataset=list(criteria), criterion=criteria, method=method, representation=representation, params=params, seed=seeds, n=n)
        experiments += part
        names += [name] * len(part)
    return run(experiments).assign(row=names)


def table(rows: pd.DataFrame, column: str = "NMI") -> pd.DataFrame:
    """A row per name: mean and interval for every criterion and for the mean over criteria (per seed), as text."""
    per_seed = rows.pivot_table(index=["row", "seed"], columns="criterion", values=column, sort=False)
    per_seed["mean"] = per_seed.mean(axis=1)
    groups = per_seed.groupby("row", sort=False)
    return groups.agg(lambda values: f"{values.mean():.3f} ± {interval(values):.3f}")


def paired(rows: pd.DataFrame, one: str, other: str) -> dict:
    """The difference of two rows, paired by seed (means over criteria): mean, half interval, and p of the paired t-test."""
    per_seed = rows.groupby(["row", "seed"])["NMI"].mean().unstack("seed")
    difference = per_seed.loc[one] - per_seed.loc[other]
    p = float(stats.ttest_1samp(difference, 0).pvalue) if difference.abs().max() > 0 else 1.0
    return {"one": one, "other": other, "difference": float(difference.mean()), "±": interval(difference), "p": p}


def variants(profile: dict) -> dict[str, tuple[str, str | None, dict]]:
    """The rows of the table: zero-shot, the papers' variants with the profile's settings, the released ones with theirs."""
    named = {"k-means": ("KMeans", None, {}), "CLIP_GPT": ("CLIP_GPT", None, {}), "CLIP_label": ("CLIP_label", None, {})}
    for method, shown in (("MultiMaP", ("prompt",)), ("MultiSub", ("prompt", "assignment"))):
        for representation in shown:
            named[f"{method} paper, {representation}"] = (method, representation, profile["methods"][method])
        named[f"{method} released, prompt"] = (method, "prompt", profile["released"][method])
    for representation in ("word", "word-eot", "image", "word+image"):
        named[f"MultiSub released, {representation}"] = ("MultiSub", representation, profile["released"]["MultiSub"])
    return named | {"MultiDProxy, fused": ("MultiDProxy", "fused", profile["methods"]["MultiDProxy"])}


def flips(profile: dict) -> dict[str, tuple[str, str | None, dict]]:
    """The paper's variant of each method, and it again with one parameter as released."""
    named = {}
    for method, names in FLIPS.items():
        own = profile["methods"][method]
        named[f"{method} paper"] = (method, "prompt", own)
        for name in names:
            named[f"{method} paper, {name} as released"] = (method, "prompt", own | {name: KINDS[method].VARIANTS["released"][name]})
    return named


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flip", action="store_true", help="each difference alone")
    parser.add_argument("--method", nargs="+", choices=[*FLIPS], default=[*FLIPS], help="whose differences to flip")
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("-n", type=int, default=300)
    args = parser.parse_args()
    profile = load_profile(args.profile)
    named = {name: row for name, row in flips(profile).items() if row[0] in args.method} if args.flip else variants(profile)
    rows = rows_of(named, profile["notebooks"]["03_zero_shot"]["criteria"], range(args.seeds), args.n)
    print(table(rows).to_markdown())
    base = {m: f"{m} paper" for m in FLIPS} if args.flip else {}
    pairs = [(name, base[name.split()[0]]) for name in named if args.flip and name not in base.values()]
    pairs += [] if args.flip else [(name, other) for name in named for other in ("CLIP_GPT", "CLIP_label") if "prompt" in name or "fused" in name]
    pairs += [] if args.flip else [(f"{m} paper, prompt", f"{m} released, prompt") for m in FLIPS] + [("MultiMaP paper, prompt", "MultiSub paper, prompt")]
    print()
    print(pd.DataFrame([paired(rows, *pair) for pair in pairs]).to_markdown(index=False, floatfmt=("", "", "+.4f", ".4f", ".3f")))


if __name__ == "__main__":
    main()
