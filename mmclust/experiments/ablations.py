"""Ablations: a method's settings side by side, any of its parameters over a range, and what that will cost before it starts."""

from __future__ import annotations

import inspect
import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from mmclust.experiments.experiment import Experiment, grid, method_class
from mmclust.experiments.run import missing_fits, run
from mmclust.experiments.workbench import Workbench, read_row
from mmclust.profiles import override_params, params_for_dataset

SYMBOLS = {
    "R": "update_every",
    "L": "layers",
    "E": "epochs",
    "lambda": "lam",
    "M": "n_clusters",
    "m": "margin",
}  # the papers' letters


@dataclass(frozen=True)
class Cost:
    """What experiments will take here: `fits` to be made, `stored` rows that exist, and about how many `seconds` on this machine."""

    fits: int
    stored: int
    seconds: float

    def __str__(self) -> str:
        took = (
            f"about {self.seconds // 60:.0f}:{self.seconds % 60:02.0f} min"
            if self.fits
            else "nothing to wait for"
        )
        return f"{self.fits} fits to make ({self.stored} rows are stored): {took}"


def estimate_cost(
    experiments: list[Experiment], device: str = "cpu", probe_epochs: int = 4
) -> Cost:
    """The cost of experiments before they start: a few epochs of each setting that differs in more than criterion and seed, times its epochs.

    Pictures are drawn and encoded where they are not yet; this is kept, so that the experiments need not do it again.
    """
    bench = Workbench(device)
    keys = [bench.key(e) for e in experiments]
    stored = {key for key in keys if read_row(key) is not None}
    fits = missing_fits(experiments, keys, stored)
    per_setting: dict[str, tuple[float, float]] = {}
    total = 0.0
    for group in fits:
        e = experiments[group[0]]
        setting = repr((e.n or e.dataset, e.encoder, e.method, sorted(e.params.items(), key=str)))
        if setting not in per_setting:
            per_setting[setting] = _seconds(bench, e, probe_epochs)
        fit, scores = per_setting[setting]
        total += fit + len(group) * scores
    return Cost(len(fits), len(stored), total)


def _seconds(bench: Workbench, e: Experiment, probe_epochs: int) -> tuple[float, float]:
    """The seconds of one fit, from a few epochs of it, and of the scores of one representation."""
    model, data = bench.estimator(e), bench.dataset(e)
    bench.encoder(e.encoder).features(data.images)
    planned: Any = model.settings() if hasattr(model, "settings") else None
    short, epochs = {}, 0
    if hasattr(planned, "alternations"):
        short = {
            "alternations": 1,
            "phase1_epochs": min(planned.phase1_epochs, probe_epochs),
            "phase2_epochs": min(planned.phase2_epochs, 1),
        }
        epochs = planned.alternations * (planned.phase1_epochs + planned.phase2_epochs)
    elif hasattr(planned, "epochs"):
        short, epochs = {"epochs": min(planned.epochs, probe_epochs)}, planned.epochs
    start = time.perf_counter()
    model.set_params(**short).fit(data.images)
    fitted = time.perf_counter()
    model.evaluate(data.labels[e.criterion], range(1))
    scores = (time.perf_counter() - fitted) * e.kmeans_seeds
    each = getattr(model, "seconds_", [])
    return fitted - start - sum(each) + (median(each) * epochs if each else 0.0), scores


def parameter(method: str, name: str) -> str:
    """A method's parameter by its name or by the papers' letter (`SYMBOLS`).

    Raises:
        ValueError: for one that the method does not have; the message lists those it has.
    """
    known = [
        p
        for p in inspect.signature(method_class(method)).parameters
        if p not in ("encoder", "template", "words", "random_state", "verbose")
    ]
    found = name if name in known else SYMBOLS.get(name, name)
    if found not in known:
        raise ValueError(f"{method} has no parameter {name!r}: {', '.join(known)}")
    return found


def defaults(method: str, params: dict | None = None) -> dict:
    """Every parameter of a method as it will run: what is given, else the variant's value, else the default."""
    model = method_class(method)(**params_for_dataset(params or {}, ""))
    return vars(model.settings()) if hasattr(model, "settings") else model.get_params(deep=False)


def ablation(
    settings: Mapping[str, tuple],
    on_cost: Callable[[Cost], object] | None = print,
    device: str = "cpu",
    **axes: Any,
) -> pd.DataFrame:
    """Settings side by side, each by its name: `{"w/o concept": ("MultiMaP", {"alpha": 0.0})}`.

    Args:
        settings: name -> (method, all parameters that are not at their default), and a representation as the third where they differ in it.
        on_cost: called with the cost (`Cost`) before anything starts; None asks for none.
        axes: dataset, criterion, representation, seed, n, encoder, ...: as for `mm.grid`.

    Returns:
        The rows of `mm.run` with a column `row`, the setting's name.
    """
    parts = {}
    for name, (method, params, *representation) in settings.items():
        parts[name] = grid(
            method=method,
            params=params,
            **axes | ({"representation": representation[0]} if representation else {}),
        )
    experiments = [e for part in parts.values() for e in part]
    if on_cost:
        on_cost(estimate_cost(experiments, device))
    names = [name for name, part in parts.items() for _ in part]
    return run(experiments, device).assign(row=names)


def sweep(
    method: str, values: Mapping[str, Any], base: dict | None = None, together: bool = False, on_cost: Callable[[Cost], object] | None = print,
    device: str = "cpu", **axes: Any,
) -> pd.DataFrame:  # fmt: skip
    """A method over ranges of its parameters: `mm.sweep("MultiDProxy", {"R": [50, 100, 200]}, dataset="demo-fruit", criterion="color", n=150)`.

    Args:
        method: such as "MultiDProxy".
        values: parameter -> the values to try; the papers' letters will do ("R", "lambda"). Each parameter is override_params alone, the others stay
            at `base`; with `together` all combinations run.
        base: the method's other parameters.
        on_cost, axes: as for `ablation`.

    Returns:
        The rows of `mm.run` with columns `parameter` and `value`; with `together`, a column for each parameter instead.

    Raises:
        ValueError: for a parameter that the method does not have, or one without values.
    """
    named = {
        parameter(method, name): list(v)
        if isinstance(v, Iterable) and not isinstance(v, str)
        else [v]
        for name, v in values.items()
    }
    if empty := [name for name, v in named.items() if not v]:
        raise ValueError(f"no values to try for {empty[0]!r}")
    if together:
        points = [
            dict(zip(named, combination)) for combination in itertools.product(*named.values())
        ]
    else:
        points = [{name: value} for name, tried in named.items() for value in tried]
    rows = ablation(
        {str(k): (method, override_params(base or {}, **point)) for k, point in enumerate(points)},
        on_cost,
        device,
        **axes,
    )
    of = [points[int(k)] for k in rows.pop("row")]
    if together:
        return pd.concat([pd.DataFrame(of, dtype=object).infer_objects(), rows], axis=1)
    rows.insert(0, "parameter", [next(iter(point)) for point in of])
    rows.insert(1, "value", pd.Series([next(iter(point.values())) for point in of], dtype=object))
    return rows


def run_timed(experiments: list[Experiment], device: str = "cpu") -> pd.DataFrame:
    """Every experiment fitted here and now, one after the other: scores, with `seconds` of the fit and its `epochs` (NaN where there are none).

    Times are not results, so that nothing is taken from the store and nothing goes there. Features are computed, and a few epochs of each
    method run, before any is timed.
    """
    bench, rows, warm = Workbench(device), [], set()
    for e in experiments:
        data = bench.dataset(e)
        if e.method not in warm:
            _seconds(bench, e, 2)
            warm.add(e.method)
        bench.encoder(e.encoder).features(data.images)
        model, start = bench.estimator(e), time.perf_counter()
        model.fit(data.images)
        seconds = time.perf_counter() - start
        about = {
            "dataset": e.dataset,
            "criterion": e.criterion,
            "method": e.method,
            "seed": e.seed,
            "seconds": seconds,
        }
        epochs = len(model.seconds_) if hasattr(model, "seconds_") else float("nan")
        rows.append(
            about
            | {"epochs": epochs}
            | model.evaluate(data.labels[e.criterion], range(e.kmeans_seeds))
        )
    return pd.DataFrame(rows)


def interval(values: ArrayLike) -> float:
    """Half the width of the 95 % t-interval of a mean; NaN for fewer than two values."""
    values = np.asarray(values, dtype=float)
    return (
        float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
        if len(values) > 1
        else float("nan")
    )


def paired(rows: pd.DataFrame, one: str, other: str, metric: str = "NMI", by: str = "row") -> dict:
    """The difference of two rows, paired by seed (means over criteria): mean, half its 95 % interval, and p of the paired t-test."""
    per_seed = rows.groupby([by, "seed"])[metric].mean().unstack("seed")
    difference = (per_seed.loc[one] - per_seed.loc[other]).dropna()
    p = float(stats.ttest_1samp(difference, 0).pvalue) if difference.abs().max() > 0 else 1.0
    return {
        "one": one,
        "other": other,
        "difference": float(difference.mean()),
        "±": interval(difference),
        "p": p,
        "seeds": len(difference),
    }
