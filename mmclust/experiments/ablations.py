"""Ablations (settings side by side), sweeps (parameters over ranges), and timed runs.

`ablation` and `sweep` build experiments for `mm.run`. `run_timed`, which measures times, computes
experiments itself, and neither reads nor writes the stored rows.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Mapping
from typing import Any

import pandas as pd

from mmclust.experiments.experiment import Experiment, as_list, grid
from mmclust.experiments.run import run
from mmclust.experiments.workbench import Workbench
from mmclust.methods import method_class
from mmclust.profiles import override_params, params_for_dataset

# Name -> (method, parameters) or (method, parameters, representation).
Settings = dict[str, tuple]

PAPER_SYMBOLS = {"R": "update_every", "L": "layers", "E": "epochs", "lambda": "lam",
                 "M": "n_clusters", "m": "margin"}  # fmt: skip
# Constructor arguments that an experiment sets itself; the others can be varied.
NOT_VARIED = ("encoder", "template", "words", "random_state", "verbose")


def resolve_parameter(method: str, name: str) -> str:
    """A method's parameter by its name or by the papers' letter (`PAPER_SYMBOLS`). If it has no
    such parameter, raises ValueError with those that it has."""
    names = [p for p in inspect.signature(method_class(method)).parameters if p not in NOT_VARIED]
    resolved = name if name in names else PAPER_SYMBOLS.get(name, name)
    if resolved not in names:
        raise ValueError(f"{method} has no parameter {name!r}: {', '.join(names)}")
    return resolved


def defaults(method: str, params: dict | None = None) -> dict:
    """The value of each parameter of a method: in `params`, else its variant, else by default."""
    model = method_class(method)(**params_for_dataset(params or {}, ""))
    return vars(model.settings()) if hasattr(model, "settings") else model.get_params(deep=False)


def ablation(settings: Mapping[Any, tuple], device: str = "cpu", **axes: Any) -> pd.DataFrame:
    """Settings side by side, each under a name: `{"w/o concept": ("MultiMaP", {"alpha": 0.0})}`.

    `settings`: name -> (method, parameters that differ from their defaults), or with a third entry,
    the representation. `axes`: dataset, criterion, seed, n, encoder, ..., as for `mm.grid`.
    Returns the rows of `mm.run` with a column `row`, the setting's name.
    """
    experiments: list[Experiment] = []
    names: list[Any] = []
    for name, (method, params, *representation) in settings.items():
        changed = {"representation": representation[0]} if representation else {}
        experiments += grid(method=method, params=params, **axes | changed)
        names += [name] * (len(experiments) - len(names))
    return run(experiments, device).assign(row=names)


def sweep(
    method: str, values: Mapping[str, Any], base: dict | None = None, together: bool = False,
    device: str = "cpu", **axes: Any,
) -> pd.DataFrame:  # fmt: skip
    """A method over ranges of its parameters.

    `mm.sweep("MultiDProxy", {"R": [50, 100]}, dataset="demo-fruit", criterion="color", n=150)`

    `values`: parameter, or the papers' letter for it ("R", "lambda") -> values to try. Each is
    varied alone while the others stay at `base`, the method's other parameters; with `together`,
    all combinations run. `axes`: as for `ablation`.

    Returns the rows of `mm.run` with columns `parameter` and `value`; with `together`, a column for
    each parameter instead. Raises ValueError for a parameter that the method does not have, or one
    without values.
    """
    ranges = {resolve_parameter(method, name): as_list(v) for name, v in values.items()}
    if empty := [name for name, tried in ranges.items() if not tried]:
        raise ValueError(f"no values to try for {empty[0]!r}")
    if together:
        points = [dict(zip(ranges, chosen)) for chosen in itertools.product(*ranges.values())]
    else:
        points = [{name: value} for name, tried in ranges.items() for value in tried]
    settings = {i: (method, override_params(base or {}, **point)) for i, point in enumerate(points)}
    rows = ablation(settings, device, **axes)
    point_of_row = [points[i] for i in rows.pop("row")]
    if together:
        varied = pd.DataFrame(point_of_row, dtype=object).infer_objects()
        return pd.concat([varied, rows], axis=1)
    rows.insert(0, "parameter", [next(iter(point)) for point in point_of_row])
    tried = [next(iter(point.values())) for point in point_of_row]
    rows.insert(1, "value", pd.Series(tried, dtype=object))
    return rows


def run_timed(experiments: list[Experiment], device: str = "cpu") -> pd.DataFrame:
    """Fit the experiments in this process, one after the other: scores and times.

    Not timed: image features, and a first fit of each method, as a warm-up.
    Returns dataset, criterion, method, seed, `seconds` of the fit, `epochs` (NaN for methods
    without any), and the scores.
    """
    bench = Workbench(device)
    rows = []
    warm: set[str] = set()
    for e in experiments:
        data = bench.dataset(e)
        bench.encoder(e.encoder).features(data.images)
        if e.method not in warm:
            bench.fit(e)
            warm.add(e.method)
        model, seconds = bench.fit(e)
        row: dict[str, Any] = {"dataset": e.dataset, "criterion": e.criterion, "method": e.method}
        row |= {"seed": e.seed, "seconds": seconds}
        row["epochs"] = len(model.seconds_) if hasattr(model, "seconds_") else float("nan")
        rows.append(row | model.evaluate(data.labels[e.criterion], range(e.kmeans_seeds)))
    return pd.DataFrame(rows)
