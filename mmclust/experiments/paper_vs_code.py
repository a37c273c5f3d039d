"""The effect of each difference between a paper and its released code, one at a time.

A *flip* is the paper's variant of a method with one parameter set as in the released code;
`effects` measures the change. `python -m tools.compare_variants` compares complete variants.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mmclust.experiments.ablations import Settings
from mmclust.experiments.statistics import paired
from mmclust.methods import method_class
from mmclust.profiles import override_params

# Method -> representation -> parameters that can be flipped alone and change that representation.
# Left out: epochs and alternations, which say how long to train, not how.
FLIPS: dict[str, dict[str, tuple[str, ...]]] = {
    "MultiMaP": {"prompt": ("choose_by", "positions", "final_norm", "init", "targets",
                            "concept_loss", "reduction", "optimizer", "batch_size")},
    "MultiSub": {
        "prompt": ("positions", "final_norm", "init", "optimizer", "batch_size", "intra",
                   "phase2_epochs"),
        "word+image": ("normalize_image",),
    },
}  # fmt: skip


@dataclass(frozen=True)
class Flip:
    """A setting that differs from another, `base`, in one parameter."""

    method: str
    parameter: str
    before: Any  # the parameter's value in `base`
    value: Any  # the parameter's value here
    base: str  # the name of the setting that this one is compared with

    @property
    def name(self) -> str:
        """The setting's name, as in the column `row` of `mm.ablation`."""
        return f"{self.method}: {self.parameter} = {self.value}"


def flips(
    params: dict[str, dict], methods: Sequence[str] = tuple(FLIPS)
) -> tuple[Settings, list[Flip]]:
    """The settings for the paper's variant of each method and for all its flips.

    Where `params` differs from the paper, the paper's value of that parameter is a flip, too.

    Args:
        params: method -> parameters.

    Returns:
        The settings to run, as `mm.ablation` takes them, and the flips among them.
    """
    settings: Settings = {}
    changes = []
    for method in methods:
        method_params = params[method]
        paper = method_class(method).VARIANTS["paper"]
        code = method_class(method).VARIANTS["released"]
        for representation, names in FLIPS[method].items():
            base = f"{method} paper, {representation}"
            settings[base] = (method, method_params, representation)
            for name in names:
                before = method_params.get(name, paper[name])
                for value in dict.fromkeys([paper[name], code[name]]):
                    if value != before:
                        flip = Flip(method, name, before, value, base)
                        changed = override_params(method_params, **{name: value})
                        settings[flip.name] = (method, changed, representation)
                        changes.append(flip)
    return settings, changes


def released(
    params: dict[str, dict], released_params: dict[str, dict]
) -> tuple[Settings, list[Flip]]:
    """One flip per method with all differences at once: the released variant.

    Args:
        params, released_params: method -> parameters of the paper's and of the released variant.

    Returns:
        Settings and flips, as the function `flips` returns them.
    """
    settings: Settings = {}
    changes = []
    for method in FLIPS:
        base = f"{method} paper, prompt"
        flip = Flip(method, "variant", params[method].get("variant", "paper"), "released", base)
        settings[base] = (method, params[method], "prompt")
        settings[flip.name] = (method, released_params[method], "prompt")
        changes.append(flip)
    return settings, changes


def effects(rows: pd.DataFrame, flips: Iterable[Flip], metric: str = "NMI") -> pd.DataFrame:
    """The change of the metric by each flip, paired by seed, as a mean over criteria.

    Args:
        rows: as `mm.ablation` returns them for the settings of `flips`.

    Returns:
        method, parameter, `here` (its value in the setting that the flip is compared with),
        `flipped` (its value in the flip, as text), effect, ± (half its 95 % interval), p, seeds.
    """
    table = []
    for flip in flips:
        change = paired(rows, flip.name, flip.base, metric)
        row = {"method": flip.method, "parameter": flip.parameter, "here": flip.before}
        row |= {"flipped": str(flip.value), "effect": change["difference"]}
        table.append(row | {name: change[name] for name in ("±", "p", "seeds")})
    return pd.DataFrame(table)
