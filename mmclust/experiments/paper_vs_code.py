"""Paper and released code, measured: `python -m mmclust.experiments.paper_vs_code [--flip]`.

The papers' variants and those of the released code on the demo worlds, the zero-shot rows beside them, with 95 % intervals over seeds. With
`--flip`, each difference alone: the paper's variant with one parameter set as in the code.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import pandas as pd

from mmclust.experiments.ablations import ablation, interval, paired
from mmclust.methods.base import ProxyClusterer
from mmclust.methods.multimap import MultiMaP
from mmclust.methods.multisub import MultiSub
from mmclust.profiles import load_profile, override_params

KINDS: dict[str, type[ProxyClusterer]] = {"MultiMaP": MultiMaP, "MultiSub": MultiSub}
FLIPS: dict[
    str, dict[str, tuple[str, ...]]
] = {  # method -> representation -> what can be flipped alone and shows there; schedules (epochs, alternations) are settings, not rules
    "MultiMaP": {
        "prompt": (
            "choose_by",
            "positions",
            "final_norm",
            "init",
            "targets",
            "concept_loss",
            "reduction",
            "optimizer",
            "batch_size",
        )
    },
    "MultiSub": {
        "prompt": (
            "positions",
            "final_norm",
            "init",
            "optimizer",
            "batch_size",
            "intra",
            "phase2_epochs",
        ),
        "word+image": ("normalize_image",),
    },
}
Named = dict[
    str, tuple[str, dict, str | None]
]  # name -> (method, parameters, representation), as `ablation` takes it


def table(rows: pd.DataFrame, column: str = "NMI") -> pd.DataFrame:
    """A row per name: mean and interval for every criterion and for the mean over criteria (per seed), as text."""
    per_seed = rows.pivot_table(
        index=["row", "seed"], columns="criterion", values=column, sort=False
    )
    per_seed["mean"] = per_seed.mean(axis=1)
    groups = per_seed.groupby("row", sort=False)
    return groups.agg(lambda values: f"{values.mean():.3f} ± {interval(values):.3f}")


def variants(profile: dict) -> Named:
    """The rows of the table: zero-shot, the papers' variants with the profile's settings, the released ones with theirs."""
    own, released = profile["methods"], profile["released"]
    named: Named = {
        "k-means": ("KMeans", {}, None),
        "CLIP_GPT": ("CLIP_GPT", {}, None),
        "CLIP_label": ("CLIP_label", {}, None),
    }
    for method, shown in (("MultiMaP", ("prompt",)), ("MultiSub", ("prompt", "assignment"))):
        named |= {
            f"{method} paper, {representation}": (method, own[method], representation)
            for representation in shown
        }
        named[f"{method} released, prompt"] = (method, released[method], "prompt")
    for representation in ("word", "word-eot", "image", "word+image"):
        named[f"MultiSub released, {representation}"] = (
            "MultiSub",
            released["MultiSub"],
            representation,
        )
    return named | {"MultiDProxy, fused": ("MultiDProxy", own["MultiDProxy"], "fused")}


def flips(
    settings: dict[str, dict], methods: Sequence[str] = tuple(FLIPS)
) -> tuple[Named, dict[str, str]]:
    """The paper's variant of each method with its own settings, and it again with one parameter as released, and as the paper has it where
    the settings depart from that; and for each flip the name of what it is compared with."""
    named: Named = {}
    bases: dict[str, str] = {}
    for method in methods:
        own = settings[method]
        for representation, names in FLIPS[method].items():
            base = f"{method} paper, {representation}"
            named[base] = (method, own, representation)
            paper, released = (KINDS[method].VARIANTS[variant] for variant in ("paper", "released"))
            for name in names:
                for value in dict.fromkeys([paper[name], released[name]]):
                    if value != own.get(name, paper[name]):
                        named[f"{method}: {name} = {value}"] = (
                            method,
                            override_params(own, **{name: value}),
                            representation,
                        )
                        bases[f"{method}: {name} = {value}"] = base
    return named, bases


def released(settings: dict[str, dict], scripts: dict[str, dict]) -> tuple[Named, dict[str, str]]:
    """Everything as released at once, with the settings of the scripts, and what it is compared with, in the form of `flips`."""
    named: Named = {}
    bases: dict[str, str] = {}
    for method in FLIPS:
        name, base = f"{method}: variant = released", f"{method} paper, prompt"
        named |= {
            base: (method, settings[method], "prompt"),
            name: (method, scripts[method], "prompt"),
        }
        bases[name] = base
    return named, bases


def effects(
    rows: pd.DataFrame, named: Named, bases: dict[str, str], metric: str = "NMI"
) -> pd.DataFrame:
    """What each flip changes, paired by seed: method, parameter, here (in what it is compared with), flipped (to what), effect, ±, p, seeds.

    `rows` as `ablation` returns them, `named` and `bases` as `flips` does. Effect and its 95 % interval are of the per-seed mean over criteria.
    """
    found = []
    for name, base in bases.items():
        method, flip = name.split(": ")
        parameter, value = flip.split(" = ")
        difference = paired(rows, name, base, metric)
        here = named[base][1].get(
            parameter, KINDS[method].VARIANTS["paper"].get(parameter, "paper")
        )
        row = {"method": method, "parameter": parameter, "here": here, "flipped": value}
        found.append(
            row
            | {
                "effect": difference["difference"],
                "±": difference["±"],
                "p": difference["p"],
                "seeds": difference["seeds"],
            }
        )
    return pd.DataFrame(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--flip", action="store_true", help="each difference alone")
    parser.add_argument(
        "--method", nargs="+", choices=[*FLIPS], default=[*FLIPS], help="whose differences to flip"
    )
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("-n", type=int, default=300)
    args = parser.parse_args()
    profile = load_profile(args.profile)
    named, bases = flips(profile["methods"], args.method) if args.flip else (variants(profile), {})
    criteria = profile["notebooks"]["03_zero_shot"]["criteria"]
    rows = ablation(
        named, dataset=list(criteria), criterion=criteria, seed=range(args.seeds), n=args.n
    )
    print(table(rows).to_markdown(), end="\n\n")
    if args.flip:
        print(
            effects(rows, named, bases).to_markdown(
                index=False, floatfmt=("", "", "", "", "+.4f", ".4f", ".3f", "")
            )
        )
        return
    pairs = [
        (name, other)
        for name in named
        for other in ("CLIP_GPT", "CLIP_label")
        if "prompt" in name or "fused" in name
    ]
    pairs += [(f"{m} paper, prompt", f"{m} released, prompt") for m in FLIPS] + [
        ("MultiMaP paper, prompt", "MultiSub paper, prompt")
    ]
    print(
        pd.DataFrame([paired(rows, *pair) for pair in pairs]).to_markdown(
            index=False, floatfmt=("", "", "+.4f", ".4f", ".3f", "")
        )
    )


if __name__ == "__main__":
    main()
