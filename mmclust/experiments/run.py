"""Run experiments: stored rows are read, missing ones are computed and stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pandas as pd
from tqdm import tqdm

from mmclust.experiments import dask_backend, run_log
from mmclust.experiments.experiment import Experiment, Fit
from mmclust.experiments.workbench import Workbench
from mmclust.storage import read_row

COLUMNS = [
    "dataset", "criterion", "encoder", "method", "representation", "seed",
    "NMI", "RI", "ARI", "AMI", "NMI_std", "named", "shift", "kept", "clusters", "words",
    "n", "pool", "key",
]  # fmt: skip


def run(experiments: list[Experiment], device: str = "cpu", progress: bool = True) -> pd.DataFrame:
    """The rows of the experiments, in their order: from the store, or computed and stored.

    Experiments that differ only in the representation share one fit. A run that is killed loses
    only the fits that were not finished. If this process is connected to a scheduler (by
    `mm.connect` or by run_all.py), the scheduler's workers compute; otherwise this process does.

    `device` is the torch device of the encoders. Returns one row per experiment, with `COLUMNS`;
    scores are means over the k-means seeds; `pool` is the number of pictures that all seeds draw
    their `n` from, NaN if each seed makes new ones. Raises ConnectionError if the scheduler does
    not answer, or the connection is lost.
    """
    bench = Workbench(device)
    keys = [bench.key(e) for e in experiments]
    rows = {key: row for key in keys if (row := read_row(key)) is not None}
    by_fit: dict[str, Fit] = {}
    for key, e in zip(keys, experiments):
        if key not in rows:
            fit = json.dumps(asdict(e) | {"representation": None}, sort_keys=True, default=str)
            by_fit.setdefault(fit, {})[key] = e
    fits = list(by_fit.values())
    run_log.note_progress(asked=len(set(keys)), stored=len(rows))
    # Not `disable=False`, which would override the user's TQDM_DISABLE.
    hidden: dict[str, Any] = {} if progress and fits else {"disable": True}
    title = f"experiments ({len(rows)} of {len(set(keys))} stored)"
    with tqdm(total=len(set(keys)) - len(rows), desc=title, **hidden) as bar:

        def done(key: str, row: dict) -> None:
            rows[key] = row
            bar.update()
            run_log.note_progress(done=1)

        client = dask_backend.current() if fits else None
        if client is not None:
            dask_backend.compute(client, bench, fits, done)
        else:
            _compute_here(bench, fits, done)
    return pd.DataFrame([rows[key] for key in keys], columns=COLUMNS).astype({"pool": float})


def _compute_here(bench: Workbench, fits: list[Fit], done: Callable[[str, dict], None]) -> None:
    for fit in fits:
        # another process may have stored rows in the meantime
        stored = {key: row for key in fit if (row := read_row(key)) is not None}
        for key, row in stored.items():
            done(key, row)
        if missing := {key: e for key, e in fit.items() if key not in stored}:
            model, seconds = bench.fit(next(iter(missing.values())))
            for key, e in missing.items():
                done(key, bench.row(model, e, key, seconds))
