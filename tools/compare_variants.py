"""The papers' variants and those of the released code: `python -m tools.compare_variants [--flip]`.

They run on the demo worlds, beside the zero-shot rows, with 95 % intervals over seeds. With
`--flip`, each difference alone: the paper's variant with one parameter set as in the code.
"""

from __future__ import annotations

import argparse

import pandas as pd

from mmclust.experiments.ablations import Settings, ablation
from mmclust.experiments.paper_vs_code import METHODS, effects, flips
from mmclust.experiments.statistics import interval, paired
from mmclust.profiles import load_profile

ZERO_SHOT = ("CLIP_GPT", "CLIP_label")
PAPER_REPRESENTATIONS = {"MultiMaP": ("prompt",), "MultiSub": ("prompt", "assignment")}
RELEASED_REPRESENTATIONS = {
    "MultiMaP": ("prompt",),
    "MultiSub": ("prompt", "word", "word-eot", "image", "word+image"),
}


def table(rows: pd.DataFrame, metric: str = "NMI") -> pd.DataFrame:
    """A row per setting: mean and interval, as text, for every criterion and for their mean."""
    per_seed = rows.pivot_table(
        index=["row", "seed"], columns="criterion", values=metric, sort=False
    )
    per_seed["mean"] = per_seed.mean(axis=1)
    groups = per_seed.groupby("row", sort=False)
    return groups.agg(lambda values: f"{values.mean():.3f} ± {interval(values):.3f}")


def variants(profile: dict) -> Settings:
    """The rows of the table: zero-shot, the papers' variants and the released ones.

    Each with its settings in the profile, as `mm.ablation` takes them.
    """
    params = profile["methods"]
    settings: dict[str, tuple] = {"k-means": ("KMeans", {}, None)}
    settings |= {name: (name, {}, None) for name in ZERO_SHOT}
    for method in METHODS:
        for representation in PAPER_REPRESENTATIONS[method]:
            name = f"{method} paper, {representation}"
            settings[name] = (method, params[method], representation)
        for representation in RELEASED_REPRESENTATIONS[method]:
            name = f"{method} released, {representation}"
            settings[name] = (method, profile["released"][method], representation)
    return settings | {"MultiDProxy, fused": ("MultiDProxy", params["MultiDProxy"], "fused")}


def comparisons(settings: Settings) -> list[tuple[str, str]]:
    """Which rows of `variants` are compared, paired by seed."""
    trained = [name for name in settings if name.endswith(("prompt", "fused"))]
    pairs = [(name, zero_shot) for name in trained for zero_shot in ZERO_SHOT]
    pairs += [(f"{method} paper, prompt", f"{method} released, prompt") for method in METHODS]
    return [*pairs, ("MultiMaP paper, prompt", "MultiSub paper, prompt")]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--flip", action="store_true", help="each difference alone")
    parser.add_argument(
        "--method", nargs="+", choices=METHODS, default=METHODS, help="whose differences to flip"
    )
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("-n", type=int, default=300, help="images per world")
    args = parser.parse_args()
    profile = load_profile(args.profile)
    criteria = profile["notebooks"]["03_zero_shot"]["criteria"]
    axes = {
        "dataset": list(criteria),
        "criterion": criteria,
        "seed": range(args.seeds),
        "n": args.n,
    }
    if args.flip:
        settings, changes = flips(profile["methods"], args.method)
        rows = ablation(settings, **axes)
        compared = effects(rows, changes)
        formats = ("", "", "", "", "", "+.4f", ".4f", ".3f", "", ".3f")
    else:
        settings = variants(profile)
        rows = ablation(settings, **axes)
        compared = pd.DataFrame([paired(rows, *pair) for pair in comparisons(settings)])
        formats = ("", "", "+.4f", ".4f", ".3f", "")
    print(table(rows).to_markdown(), end="\n\n")
    print(compared.to_markdown(index=False, floatfmt=formats))


if __name__ == "__main__":
    main()
