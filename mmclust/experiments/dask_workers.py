"""Workers of the shared backend: how they are started on this machine, and what they compute.

`dask_backend` imports this module where it needs a cluster: it imports Dask, which is heavy.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from distributed import LocalCluster, get_worker
from distributed.diagnostics.plugin import WorkerPlugin

from mmclust.encoders.feature_stream import is_large
from mmclust.experiments import run_log
from mmclust.experiments.workbench import Workbench, read_row

if TYPE_CHECKING:
    from distributed import Worker

    from mmclust.experiments.experiment import Experiment
    from mmclust.methods.base import ImageClusterer


class LocalWorkers(LocalCluster):
    """A scheduler on this machine, and up to one worker per environment; none is started yet.

    All workers of a `LocalCluster` have the same environment variables; these have their own.
    """

    def __init__(self, environments: Sequence[dict[str, str]], **options: Any) -> None:
        self.environments = environments
        super().__init__(n_workers=0, threads_per_worker=1, **options)

    @property
    def most(self) -> int:
        """How many workers `scale` can start."""
        return len(self.environments)

    def new_worker_spec(self) -> dict:
        number = min(set(range(self.most)) - self.worker_spec.keys())
        options = self.new_spec["options"] | {"env": self.environments[number]}
        return {number: self.new_spec | {"options": options}}


class IgnoreInterrupts(WorkerPlugin):
    """A terminal sends Ctrl-C to all processes; the one that started the workers ends them."""

    name = "mmclust-ignore-interrupts"

    def setup(self, worker: Worker) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


class WorkbenchPlugin(WorkerPlugin):
    """Keeps a worker's encoders and data sets from one task to the next, by device."""

    name = "mmclust-workbench"
    idempotent = True  # every client registers it; the first one stays

    def setup(self, worker: Worker) -> None:
        self.workbenches: dict[str, Workbench] = {}


def _workbench(device: str) -> Workbench:
    """This worker's encoders and data sets."""
    worker: Any = get_worker()
    workbenches = worker.plugins[WorkbenchPlugin.name].workbenches
    if device not in workbenches:
        workbenches[device] = Workbench(device)
    return workbenches[device]


class Fitted:
    """A fitted estimator on its worker. It is sent to another worker without its encoder."""

    def __init__(self, model: ImageClusterer, seconds: float) -> None:
        self.model = model
        self.seconds = seconds

    def __sizeof__(self) -> int:
        # Dask moves what is small: rows must be computed where the fit is, not the other way.
        arrays = sum(getattr(value, "nbytes", 0) for value in vars(self.model).values())
        return 1000 + arrays

    def __getstate__(self) -> dict:
        attributes = {k: v for k, v in vars(self.model).items() if k != "encoder"}
        return {"class": type(self.model), "attributes": attributes, "seconds": self.seconds}

    def __setstate__(self, state: dict) -> None:
        self.model = state["class"].__new__(state["class"])
        self.model.__dict__.update(state["attributes"])
        self.seconds = state["seconds"]


def encode_share(e: Experiment, share: range, device: str) -> int:
    """Compute and store a range of batches of an experiment's image features."""
    bench = _workbench(device)
    start = time.perf_counter()
    images = bench.dataset(e).images
    bench.encoder(e.encoder).store_batch_range(images, share)
    if is_large(len(images)):  # smaller data sets take no time worth a line
        row = {
            "key": f"{images.fingerprint[:16]}-{share.start}",
            "dataset": e.dataset,
            "criterion": "",
            "encoder": e.encoder,
            "method": "image features",
            "representation": "",
            "seed": e.seed,
            "n": len(images),
        }
        run_log.note_run(row, device, time.perf_counter() - start, score_seconds=0.0)
    return len(share)


def fit(e: Experiment, device: str, shares: list) -> Fitted:
    """Fit an experiment's method. `shares` are the tasks that must be done before."""
    return Fitted(*_workbench(device).fit(e))


def score(fitted: Fitted, e: Experiment, key: str, device: str) -> dict:
    """The row of an experiment: from the store, or scored and stored."""
    bench = _workbench(device)
    if "encoder" not in vars(fitted.model):  # fitted on another worker
        fitted.model.encoder = bench.encoder(e.encoder)
    return read_row(key) or bench.row(fitted.model, e, key, fitted.seconds)
