"""Experiments on a Dask cluster, which several processes can share.

Each fit is a task, and so is each row. The name of a task is a hash of what it computes, so that a
process that needs a row which another one is computing waits for that task: no row is computed
twice.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mmclust.scripts import require_main_guard
from mmclust.threads import cores, thread_environment

if TYPE_CHECKING:
    from distributed import Client

    from mmclust.experiments.dask_workers import LocalWorkers
    from mmclust.experiments.experiment import Experiment, Fit
    from mmclust.experiments.workbench import Workbench

FEW_CORES = 2  # with so few, run_all.py starts no cluster by itself: docs/experiments.md
ADDRESS = "MMCLUST_SCHEDULER"  # the environment variable with the scheduler's address
CONNECTED = ("running", "connecting")  # a client's status
# No profiler, and long intervals of the workers' event loops: both would slow down the fits.
QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.tick.cycle": "5s",
}


def connect(address: str | None = None, timeout: float = 10.0) -> Client:
    """Let `mm.run` of this process compute on a running Dask scheduler.

    Its workers need this package, the data, and access to this process's `MMCLUST_CACHE` folder.
    After `close()` of the returned `distributed.Client`, runs compute in this process again.
    `address` is by default that in `MMCLUST_SCHEDULER`; `timeout` is in seconds. Raises
    ConnectionError if no scheduler answers, ValueError without an address.
    """
    from distributed import Client

    address = address or os.environ.get(ADDRESS)
    if not address:
        example = "tcp://127.0.0.1:8786"
        raise ValueError(f"a scheduler's address is required: pass it ({example}) or set {ADDRESS}")
    try:
        return Client(address, timeout=timeout, set_as_default=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConnectionError(
            f"no Dask scheduler answers at {address} ({type(error).__name__}): start one with "
            "`dask scheduler`, or run without"
        ) from error


def current() -> Client | None:
    """The Dask client of this process, connected to `MMCLUST_SCHEDULER` if that is set; None if
    runs compute in this process. Raises as `connect`."""
    if "distributed" in sys.modules:
        from distributed import Client

        with suppress(ValueError):
            client = Client.current()
            return client if client.status in CONNECTED else None
    return connect() if os.environ.get(ADDRESS) else None


@contextmanager
def local_cluster(
    device: str = "cpu", n_workers: int | None = None, start: bool = True
) -> Iterator[LocalWorkers]:
    """A context manager: a scheduler and workers on this machine, which end with the context, as
    do clients of the scheduler (`connect`).

    Device "cuda" gives one worker per GPU, which sees only that GPU, "cuda:1" one for that GPU;
    "cpu" gives `n_workers`, by default one per core, which share the cores. (For small matrices,
    several workers with one thread each are faster than one with several threads.) Without `start`,
    only the scheduler is started; `start_workers` starts the workers.

    Raises ValueError if there is no such GPU, and RuntimeError if the script has no
    `if __name__ == "__main__":` around the call.
    """
    require_main_guard()
    import dask
    from distributed import Client

    from mmclust.experiments.dask_workers import IgnoreInterrupts, LocalWorkers

    environments = _worker_environments(device, n_workers)
    # These variables are set before a worker's Python starts, because OpenMP reads them when torch
    # is imported. They replace Dask's default list, whose MALLOC_TRIM_THRESHOLD_ slows down fits:
    # with it, workers return memory to the system after every few kilobytes.
    # Their progress bars would be between the lines of this process.
    environment = thread_environment(len(environments)) | {"TQDM_DISABLE": "1"}
    before_spawn = {"distributed.nanny.pre-spawn-environ": environment}
    options: dict[str, Any] = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    options |= {"config": QUIET, "silence_logs": logging.CRITICAL, "plugins": [IgnoreInterrupts()]}
    options["memory_limit"] = 1 / len(environments)  # else a GPU's worker has the share of one core
    with dask.config.set(QUIET | before_spawn), LocalWorkers(environments, **options) as cluster:
        if start:
            cluster.scale(cluster.most)
        try:
            yield cluster
        finally:  # clients that are left would report the end of their scheduler as an error
            with suppress(ValueError, AttributeError):  # there is none, or it is not connected
                while (client := Client.current()).scheduler.address == cluster.scheduler_address:
                    client.close()


def _worker_environments(device: str, n_workers: int | None) -> list[dict[str, str]]:
    shared = {"MMCLUST_CACHE": os.environ.get("MMCLUST_CACHE", "")}
    if not device.startswith("cuda"):
        return [shared] * (n_workers or cores())
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")  # the user's choice, in the user's order
    gpus = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    _, _, number = device.partition(":")
    chosen = gpus[int(number) : int(number) + 1] if number else gpus
    if not chosen:
        raise ValueError(f"device {device!r} needs a GPU that is not available: use 'cpu'")
    return [shared | {"CUDA_VISIBLE_DEVICES": gpu} for gpu in chosen]


def start_workers(cluster: LocalWorkers) -> None:
    """Start the workers of a `local_cluster` if there are tasks: stored rows need no workers."""
    if not cluster.worker_spec and cluster.scheduler.tasks:
        cluster.scale(cluster.most)


def stop_workers(cluster: LocalWorkers) -> None:
    """End the workers of a `local_cluster`: even idle ones disturb measurements of time."""
    cluster.scale(0)
    while cluster.workers:
        time.sleep(0.05)


def compute(
    client: Client, bench: Workbench, fits: list[Fit], done: Callable[[str, dict], None]
) -> None:
    """Compute fits on a cluster; `done(key, row)` is called for each row when it is finished.

    Raises ConnectionError if the connection is lost, RuntimeError if workers died repeatedly while
    they computed an experiment, and any error of an experiment. Finished rows stay stored.
    """
    from distributed import CancelledError, KilledWorker, as_completed
    from distributed.comm import CommClosedError

    tasks: dict[Any, tuple[str, Experiment]] = {}  # future -> key, experiment
    failed = None
    try:
        _submit(client, bench, fits, tasks)
        for future in as_completed(tasks):
            if future.status == "error":
                failed = future.exception().with_traceback(future.traceback()), tasks[future][1]
                break
            done(tasks[future][0], future.result())
    except Exception as error:
        lost = isinstance(error, (CommClosedError, CancelledError, OSError))
        if not lost and client.status in CONNECTED:
            raise
        address = client.scheduler.address if client.scheduler else os.environ.get(ADDRESS)
        raise ConnectionError(
            f"the connection to the scheduler at {address} is lost: finished rows are stored, run "
            "again to continue"
        ) from error
    finally:
        with suppress(Exception):  # failed ones as well, so that the next run tries them again
            client.cancel([future for future in tasks if future.status != "finished"])
    if failed:
        problem, e = failed
        if isinstance(problem, KilledWorker):
            died = f"a worker died each time it computed {e}, probably out of memory"
            raise RuntimeError(f"{died}: try fewer pictures or workers") from problem
        raise problem


def _submit(client: Client, bench: Workbench, fits: list[Fit], tasks: dict) -> None:
    """Submit fits and rows; each row's future is added to `tasks`, with its key and experiment."""
    from mmclust.experiments.dask_workers import encode_share, fit_on_worker, score

    device, _, _ = bench.device.partition(":")  # without number: a worker sees only its own GPU
    shares: dict[str, list] = {}  # tasks that encode images, so that each is encoded only once
    for fit in fits:
        e = replace(next(iter(fit.values())), representation=None)
        fit_key = bench.key(e)
        images = bench.dataset(e).images
        encoder = bench.encoder(e.encoder)
        name = f"encode-{images.fingerprint[:16]}-{encoder.fingerprint[:16]}"
        if name not in shares:
            shares[name] = [
                client.submit(encode_share, e, fit_key, share, device, key=f"{name}-{share.start}")
                for share in encoder.batch_ranges(images)
            ]
        fitted = client.submit(
            fit_on_worker, e, fit_key, device, shares[name], key=f"fit-{fit_key}"
        )
        for key, e in fit.items():
            row = client.submit(score, fitted, e, key, device, key=f"row-{key}")
            tasks[row] = (key, e)
