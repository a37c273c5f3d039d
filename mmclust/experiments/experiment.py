"""The description of an experiment, and grids of experiments. Nothing is computed here."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mmclust import plugins
from mmclust.data.shifts import Shift
from mmclust.methods import METHODS, method_class
from mmclust.profiles import params_for_dataset
from mmclust.profiles.values import brief, check_names, check_settings
from mmclust.words import SOURCES
from mmclust.words.word_lists import WordList


@dataclass(frozen=True)
class Experiment:
    """One fit of one method, and the representation that is scored: one row.

    Attributes:
        dataset, n, seed: the data set, its number of images (None: its default), and the seed of
            their choice and of the method.
        criterion: the keyword, and the labels that the clustering is scored against.
        method: a name in `mmclust.methods.METHODS`, or "module:Class" of a plug-in.
        representation: one that the method offers; None takes the method's default.
        params: the method's parameters, except encoder, template, words, n_clusters,
            representation and random_state.
        encoder: its name, as for `mm.load_encoder`.
        words: reference words. None takes the lexicon's; "openai:MODEL" takes the stored answers
            of that language model.
        shift: how the pictures are changed, see `mm.Shift`; None leaves them as they are.
        word_list: how the list of words is changed, see `mm.WordList`; None leaves it as it is.
        kmeans_seeds: number of k-means seeds whose scores are averaged (10 in the papers).
    """

    dataset: str
    criterion: str
    method: str
    representation: str | None = None
    seed: int = 0
    n: int | None = None
    encoder: str = "mini"
    params: dict = field(default_factory=dict, hash=False)
    words: tuple[str, ...] | str | None = None
    shift: Shift | None = None
    word_list: WordList | None = None
    kmeans_seeds: int = 10


CHECKED = ("dataset", "method", "seed", "n", "encoder", "kmeans_seeds")  # axes, by their type
Fit = dict[str, Experiment]  # experiments that share a fit, by the key of their row


def grid(**axes: Any) -> list[Experiment]:
    """All combinations of the axes; each axis is a value or a list of values.

    `mm.grid(dataset="demo-fruit", criterion="color", method=["KMeans", "MultiSub"], seed=range(5))`

    The axes are the attributes of `Experiment`. `params` is one dictionary for all methods, or
    method -> dictionary; in a dictionary, the key `datasets` (data set -> dictionary) overrides
    parameters for one data set. `criterion` may be data set -> criteria, and `representation`
    method -> one representation or a list. `words` is one value, not an axis: a list of words for
    all experiments, "lexicon", or "openai:MODEL".

    Raises ValueError for an unknown method or axis, a value that is not allowed, no data set,
    criterion or method, or `params` that mix methods and parameters.
    """
    check_names(axes, Experiment.__dataclass_fields__, "unknown axis")
    axes = {"dataset": [], "method": []} | axes
    for name in axes.keys() & CHECKED:
        axes[name] = [check_settings({name: value})[name] for value in as_list(axes[name])]
        if not axes[name]:
            raise ValueError(f"a grid needs at least one {name}")
    for name in ("shift", "word_list"):
        axes[name] = as_list(axes.get(name))
    params = axes.pop("params", {})
    criteria = axes.pop("criterion", [])
    kind = "a grid's criteria" if isinstance(criteria, dict) else "a grid's criterion"
    criteria = check_settings({kind: criteria})[kind]
    representations = axes.pop("representation", None)
    words = axes.pop("words", "lexicon")
    if isinstance(words, str) and words.partition(":")[0] not in SOURCES:
        raise ValueError(f'words must be a list, "lexicon" or "openai:MODEL", not {brief(words)}')
    if words is not None and not isinstance(words, str):
        words = tuple(check_settings({"words": words})["words"])
    words = None if words == "lexicon" else words
    by_method = _is_by_method(params)
    experiments = []
    for values in itertools.product(*axes.values()):
        setting: dict[str, Any] = dict(zip(axes, values))
        method = setting["method"]
        dataset = setting["dataset"]
        method_class(method)  # raises for an unknown name
        method_params = params.get(method, {}) if by_method else params
        setting["params"] = params_for_dataset(method_params, dataset)
        if isinstance(criteria, dict) and dataset not in criteria:
            raise ValueError(f"criterion has no entry for data set {dataset!r}: {criteria}")
        for criterion in _entry(criteria, dataset):
            for scored in as_list(_entry(representations, method)):
                setting |= {"criterion": criterion, "representation": scored, "words": words}
                experiments.append(Experiment(**setting))
    return experiments


def _is_by_method(params: dict) -> bool:
    """Whether `params` is method -> parameters, not the parameters of all methods."""
    methods = [name for name in params if name in METHODS or plugins.is_plugin_name(name)]
    if methods and len(methods) < len(params):
        other = next(name for name in params if name not in methods)
        raise ValueError(
            f"params mixes methods ({methods[0]}) and parameters ({other}): use one dictionary for "
            "all methods, or method -> dictionary"
        )
    return bool(methods)


def _entry(axis: Any, key: str) -> Any:
    """The entry of an axis that may be a dictionary; None if the dictionary has no such key."""
    return axis.get(key) if isinstance(axis, dict) else axis


def as_list(value: Any) -> list:
    """The values of an iterable; a single value, or a string, as a list of one."""
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        return list(value)
    return [value]
