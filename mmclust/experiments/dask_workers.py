"""Dask workers: how they are started on this machine, and the tasks that they compute.

This module imports Dask, which is heavy, so `dask_backend` imports it only when it needs a cluster.
"""

from __future__ import annotations

import copy
import platform
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distributed import LocalCluster
from distributed.diagnostics.plugin import WorkerPlugin

from mmclust.encoders.feature_stream import is_large
from mmclust.experiments import run_log
from mmclust.experiments.workbench import Workbench
from mmclust.storage import read_row

if TYPE_CHECKING:
    from distributed import Worker

    from mmclust.experiments.experiment import Experiment
    from mmclust.methods.base import ImageClusterer


class LocalWorkers(LocalCluster):
    """A `LocalCluster` without workers; `scale` starts up to one per entry of `environments`, each
    with the environment variables of its entry."""

    def __init__(self, environments: Sequence[dict[str, str]], **options: Any) -> None:
        self.environments = environments
        self.most = len(environments)  # how many workers `scale` can start
        super().__init__(n_workers=0, threads_per_worker=1, **options)

    def new_worker_spec(self) -> dict:
        number = min(set(range(self.most)) - self.worker_spec.keys())
        options = self.new_spec["options"] | {"env": self.environments[number]}
        return {number: self.new_spec | {"options": options}}


class IgnoreInterrupts(WorkerPlugin):
    """Workers ignore Ctrl-C, which a terminal sends to all processes: their parent ends them."""

    name = "mmclust-ignore-interrupts"

    def setup(self, worker: Worker) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


_benches: dict[str, Workbench] = {}  # device -> what this process keeps from task to task


def _workbench(e: Experiment, key: str, device: str) -> Workbench:
    """The encoders and data sets of this worker's process, loaded again if they are older than
    those with which a client computed the experiment's `key`. RuntimeError if they still differ."""
    if device not in _benches or _benches[device].key(e) != key:
        _benches[device] = Workbench(device)
    if _benches[device].key(e) != key:
        raise RuntimeError(
            f"a Dask worker on {platform.node()} has other data, words, weights or code for "
            f"{e.method} on {e.dataset} than the process that asks: let both read the same files "
            "with the same version of mmclust, restart the worker, and run again (an encoder whose "
            "preprocessing is a function differs in each process: use a class with `__repr__`)"
        )
    return _benches[device]


@dataclass
class Fitted:
    """A fitted estimator and the seconds of its fit. Pickling it leaves the encoder out."""

    model: ImageClusterer
    seconds: float

    def __sizeof__(self) -> int:
        # Dask uses the size to choose a worker: rows should be computed where the fit already is.
        return 1000 + sum(getattr(value, "nbytes", 0) for value in vars(self.model).values())

    def __getstate__(self) -> dict:
        model = copy.copy(self.model)
        model.__dict__.pop("encoder", None)
        return {"model": model, "seconds": self.seconds}


def encode_share(e: Experiment, key: str, share: range, device: str) -> int:
    """Compute and store an experiment's image features for a range of batches."""
    bench = _workbench(e, key, device)
    start = time.perf_counter()
    images = bench.dataset(e).images
    bench.encoder(e.encoder).store_batch_range(images, share)
    if is_large(len(images)):  # encoding a small data set is too short to be logged
        part = f"{images.fingerprint[:16]}-{share.start}"
        row: dict[str, Any] = {"key": part, "dataset": e.dataset, "encoder": e.encoder}
        row |= {"method": "image features", "seed": e.seed, "n": len(images)}
        run_log.note_run(row, device, time.perf_counter() - start)
    return len(share)


def fit_on_worker(e: Experiment, key: str, device: str, shares: list) -> Fitted:
    """Fit an experiment's method. `shares` is not used: it makes Dask encode the images first."""
    return Fitted(*_workbench(e, key, device).fit(e))


def score(fitted: Fitted, e: Experiment, key: str, device: str) -> dict:
    """The row of an experiment: from the store, or computed from the fit and stored."""
    if (row := read_row(key)) is not None:
        return row
    bench = _workbench(e, key, device)
    if "encoder" not in vars(fitted.model):  # fitted on another worker
        fitted.model.encoder = bench.encoder(e.encoder)
    return bench.row(fitted.model, e, key, fitted.seconds)
