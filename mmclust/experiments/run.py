"""Run experiments: rows from the store where they exist, computed where they do not."""

from __future__ import annotations

import json
from collections.abc import Container
from dataclasses import asdict
from typing import Any

import pandas as pd
from tqdm import tqdm

from mmclust.experiments import dask_backend, run_log
from mmclust.experiments.experiment import Experiment
from mmclust.experiments.workbench import Workbench, read_row

COLUMNS = [
    "dataset", "criterion", "encoder", "method", "representation", "seed",
    "NMI", "RI", "ARI", "AMI", "NMI_std", "clusters", "words", "n", "key",
]  # fmt: skip


def run(experiments: list[Experiment], device: str = "cpu", progress: bool = True) -> pd.DataFrame:
    """The rows of the experiments, in their order: from the store, or computed and stored.

    Experiments that differ only in the representation share one fit. A run that is killed loses
    only the fit it was computing. If this process is connected to a scheduler (by `mm.connect` or
    by run_all.py), the scheduler's workers compute; otherwise this process does.

    Args:
        device: torch device of the encoders.
        progress: show a progress bar.

    Returns:
        A frame with `COLUMNS`, one row per experiment; `NMI` and the other scores are means over
        the k-means seeds.

    Raises:
        ConnectionError: the scheduler does not answer, or the connection is lost.
    """
    bench = Workbench(device)
    keys = [bench.key(e) for e in experiments]
    rows = {key: row for key in keys if (row := read_row(key)) is not None}
    fits = missing_fits(experiments, keys, rows)
    run_log.note_progress(asked=len(set(keys)), stored=len(rows))
    # Not `disable=False`: that would overrule the user's TQDM_DISABLE.
    hidden: dict[str, Any] = {} if progress and fits else {"disable": True}
    title = f"experiments ({len(rows)} of {len(set(keys))} stored)"
    with tqdm(total=sum(map(len, fits)), desc=title, **hidden) as bar:

        def done(key: str, row: dict) -> None:
            rows[key] = row
            bar.update()
            run_log.note_progress(done=1)

        client = dask_backend.current() if fits else None
        if client is not None:
            dask_backend.compute(client, bench, experiments, keys, fits, device, done)
        else:
            _compute_here(bench, experiments, keys, fits, done)
    return pd.DataFrame([rows[key] for key in keys], columns=COLUMNS)


def _compute_here(
    bench: Workbench,
    experiments: list[Experiment],
    keys: list[str],
    fits: list[list[int]],
    done: Any,
) -> None:
    for group in fits:
        missing = []
        for i in group:
            row = read_row(keys[i])  # another process may have stored it in the meantime
            if row is None:
                missing.append(i)
            else:
                done(keys[i], row)
        if missing:
            model, seconds = bench.fit(experiments[missing[0]])
            for i in missing:
                done(keys[i], bench.row(model, experiments[i], keys[i], seconds))


def missing_fits(
    experiments: list[Experiment], keys: list[str], stored: Container[str]
) -> list[list[int]]:
    """Positions of the experiments that have no stored row; those that share a fit in one list."""
    fits: dict[str, list[int]] = {}
    for i, (e, key) in enumerate(zip(experiments, keys)):
        if key not in stored:
            fit = json.dumps(asdict(e) | {"representation": None}, sort_keys=True, default=str)
            fits.setdefault(fit, []).append(i)
    return list(fits.values())
