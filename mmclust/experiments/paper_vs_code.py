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
from mmclust.experiments.statistics import adjusted_for_all, paired
from mmclust.methods import method_class
from mmclust.profiles import override_params

METHODS = ("MultiMaP", "MultiSub")  # Multi-DProxy has no released code
SCHEDULE = ("epochs", "alternations", "phase1_epochs")  # no flips: how long to train, not how
DESCRIPTIONS = {  # of a flip: parameter and value -> what it changes
    "choose_by = word": "reference word chosen by the word alone",
    "positions = False": "prompt without positional embeddings",
    "final_norm = False": "prompt without the final LayerNorm",
    "init = text": "proxies start at a text output",
    "targets = text": "constraints compare with text outputs",
    "concept_loss = mse": "distance to one concept, no contrast",
    "reduction = sum": "squared norm as in the paper",
    "reduction = mean": "squared norm, mean over dimensions",
    "optimizer = adagrad": "Adagrad",
    "intra = plain": "distances not squared",
    "phase2_epochs = 0": "no Phase II",
    "normalize_image = False": "images not normalized (word+image)",
    "variant = released": "everything as released",
}
CLUSTERED = {"normalize_image": "word+image"}  # a flip's representation, if not "prompt"


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
    params: dict[str, dict], methods: Sequence[str] = METHODS,
    released: dict[str, dict] | None = None, text_as_tokens: bool = True,
) -> tuple[Settings, list[Flip]]:  # fmt: skip
    """The settings for the paper's variant of each method and for all its flips, as `mm.ablation`
    takes them; and the flips among them.

    Where `params` (method -> parameters) differs from the paper, the paper's value of that
    parameter is a flip, too. `released`: method -> parameters of the complete released variant,
    which is then one more flip, of the parameter "variant".

    `text_as_tokens`: whether the encoder's outputs for texts can be token embeddings, whose width
    must be the same. If not, parameters that would use them so stay as in the paper.
    """
    settings: Settings = {}
    changes = []

    def add(flip: Flip, changed: dict, representation: str) -> None:
        settings[flip.base] = (flip.method, params[flip.method], representation)
        settings[flip.name] = (flip.method, changed, representation)
        changes.append(flip)

    for method in methods:
        variants = method_class(method).VARIANTS
        fixed = () if text_as_tokens else method_class(method).TEXT_AS_TOKENS
        for name in [name for name in variants["paper"] if name not in (*SCHEDULE, *fixed)]:
            representation = CLUSTERED.get(name, "prompt")
            base = f"{method} paper, {representation}"
            values = [variants[variant][name] for variant in ("paper", "released")]
            before = params[method].get(name, values[0])
            for value in dict.fromkeys(values):
                if value != before:
                    changed = override_params(params[method], **{name: value})
                    add(Flip(method, name, before, value, base), changed, representation)
        if released:
            flip = Flip(method, "variant", "paper", "released", f"{method} paper, prompt")
            unchanged = {name: variants["paper"][name] for name in fixed}
            add(flip, override_params(released[method], **unchanged), "prompt")
    return settings, changes


def effects(rows: pd.DataFrame, flips: Iterable[Flip], metric: str = "NMI") -> pd.DataFrame:
    """The change of the metric by each flip, paired by seed, as a mean over criteria.

    `rows`: as `mm.ablation` returns them for the settings of `flips`. Returns method, change (in
    words), parameter, `here` (its value in the setting that the flip is compared with), `flipped`
    (its value in the flip, as text), difference, ± (half its 95 % interval), p, `adjusted p` (for
    all flips, by Benjamini and Yekutieli), seeds.
    """
    table = []
    for flip in flips:
        change = paired(rows, flip.name, flip.base, metric)
        text = f"{flip.parameter} = {flip.value}"
        if flip.parameter == "batch_size":
            text = f"{flip.value} images per step"
        row = {"method": flip.method, "change": DESCRIPTIONS.get(text, text)}
        row |= {"parameter": flip.parameter, "here": flip.before, "flipped": str(flip.value)}
        table.append(row | {name: change[name] for name in ("difference", "±", "p", "seeds")})
    return adjusted_for_all(pd.DataFrame(table))
