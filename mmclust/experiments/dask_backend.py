"""Where experiments run: in this process, or on a Dask cluster that many processes share.

Every fit is one task and every row of it another, named by what they compute. A process that asks
for a row which is being computed waits for that task, so that each row is computed once.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mmclust.threads import cores, thread_environment

if TYPE_CHECKING:
    from distributed import Client

    from mmclust.experiments.dask_workers import LocalWorkers
    from mmclust.experiments.experiment import Experiment
    from mmclust.experiments.workbench import Workbench

FEW_CORES = 2  # with so few, run_all.py starts no cluster by itself: README, "Measured"
ADDRESS = "MMCLUST_SCHEDULER"  # the environment variable with the scheduler's address
CONNECTED = ("running", "connecting")  # a client's status
# Workers without profiler, and with event loops that seldom wake: both take time from the fits.
QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.tick.cycle": "5s",
}


def connect(address: str | None = None, timeout: float = 10.0) -> Client:
    """Let `mm.run` of this process compute on a running Dask scheduler.

    Its workers need this package, the data, and the folder that `MMCLUST_CACHE` names here.

    Args:
        address: such as "tcp://127.0.0.1:8786"; None takes that in `MMCLUST_SCHEDULER`.
        timeout: seconds to wait for an answer.

    Returns:
        The `distributed.Client`. After its `close()`, runs compute in this process again.

    Raises:
        ConnectionError: no scheduler answers. ValueError: there is no address.
    """
    from distributed import Client

    address = address or os.environ.get(ADDRESS)
    if not address:
        raise ValueError(
            "the scheduler's address is required, such as tcp://127.0.0.1:8786: "
            f"pass it, or set {ADDRESS}"
        )
    try:
        return Client(address, timeout=timeout, set_as_default=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConnectionError(
            f"no Dask scheduler answers at {address} ({type(error).__name__}): start one with "
            "`dask scheduler`, or run without"
        ) from error


def current() -> Client | None:
    """The client that runs go through; None where they compute in this process.

    The first call connects to `MMCLUST_SCHEDULER`, if set.
    """
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
    """A scheduler and workers on this machine, ended with the context.

    Args:
        device: "cuda" starts one worker per GPU, "cuda:1" one for that GPU; each sees its GPU
            alone.
        n_workers: without a GPU; by default one per core, each with its share of the torch
            threads. Where matrices are small, several workers of one thread get more done than
            one worker of several threads.
        start: False starts the scheduler alone; `start_workers` starts the workers.

    Raises:
        ValueError: there is no GPU.
    """
    import dask

    from mmclust.experiments.dask_workers import IgnoreInterrupts, LocalWorkers

    environments = _worker_environments(device, n_workers)
    # Set before a worker's Python starts: OpenMP reads them when torch is imported. They replace
    # Dask's own list, with which workers return memory to the system after every few kilobytes
    # (MALLOC_TRIM_THRESHOLD_), and fits wait for it.
    before_spawn = thread_environment(len(environments))
    with (
        dask.config.set(QUIET | {"distributed.nanny.pre-spawn-environ": before_spawn}),
        LocalWorkers(
            environments,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            silence_logs=50,  # logging.CRITICAL
            config=QUIET,
            plugins=[IgnoreInterrupts()],
        ) as cluster,
    ):
        if start:
            cluster.scale(cluster.most)
        yield cluster


def _worker_environments(device: str, n_workers: int | None) -> list[dict[str, str]]:
    shared = {"MMCLUST_CACHE": os.environ.get("MMCLUST_CACHE", "")}
    if not device.startswith("cuda"):
        return [shared] * (n_workers or cores())
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")  # the user's choice, in the user's order
    gpus = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    if not gpus:
        raise ValueError(f"device {device!r} needs a GPU and none is available: use 'cpu'")
    _, _, number = device.partition(":")
    chosen = [gpus[int(number)]] if number else gpus
    return [shared | {"CUDA_VISIBLE_DEVICES": gpu} for gpu in chosen]


def start_workers(cluster: LocalWorkers) -> None:
    """Start the workers of a `local_cluster` if there are tasks: none is needed for stored rows."""
    if not cluster.worker_spec and cluster.scheduler.tasks:
        cluster.scale(cluster.most)


def stop_workers(cluster: LocalWorkers) -> None:
    """End the workers of a `local_cluster`: even idle ones disturb measurements of time."""
    cluster.scale(0)
    while cluster.workers:
        time.sleep(0.05)


def compute(
    client: Client, bench: Workbench, experiments: Sequence[Experiment], keys: Sequence[str],
    fits: Sequence[Sequence[int]], device: str, done: Callable[[str, dict], None],
) -> None:  # fmt: skip
    """Compute fits on a cluster; `done(key, row)` is called for each row when it is finished.

    Args:
        fits: lists of positions in `experiments`, one list per fit.

    Raises:
        ConnectionError: the connection to the scheduler is lost.
        RuntimeError: workers died repeatedly while they computed an experiment.
        Exception: what an experiment raises. Rows that are finished are kept in all cases.
    """
    from distributed import CancelledError, as_completed
    from distributed.comm import CommClosedError

    from mmclust.experiments.dask_workers import WorkbenchPlugin

    tasks: dict[Any, int] = {}  # future -> position
    failed = None
    try:
        client.register_plugin(WorkbenchPlugin())
        _submit(client, bench, experiments, keys, fits, device, tasks)
        for future in as_completed(tasks):
            if future.status == "error":
                failed = future
                break
            done(keys[tasks[future]], future.result())
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
        with suppress(Exception):
            client.cancel([future for future in tasks if not future.done()])
    if failed:
        _raise_error_of(failed, experiments[tasks[failed]])


def _raise_error_of(failed: Any, e: Experiment) -> None:
    from distributed import KilledWorker

    try:
        failed.result()
    except KilledWorker as error:
        raise RuntimeError(f"a worker died each time it computed {e} (out of memory?)") from error


def _submit(
    client: Client, bench: Workbench, experiments: Sequence[Experiment], keys: Sequence[str],
    fits: Sequence[Sequence[int]], device: str, tasks: dict[Any, int],
) -> None:  # fmt: skip
    """Submit fits and rows; each row's future goes to `tasks` with its position."""
    from mmclust.experiments import dask_workers

    device, _, _ = device.partition(":")  # a worker sees one GPU, whatever its number here
    shares: dict[tuple, list] = {}
    for group in fits:
        e = replace(experiments[group[0]], representation=None)
        images = (e.dataset, e.n, e.seed, e.encoder)
        if images not in shares:
            shares[images] = _submit_shares(client, bench, e, device)
        fitted = client.submit(
            dask_workers.fit, e, device, shares[images], key=f"fit-{bench.key(e)}"
        )
        for i in group:
            row = client.submit(
                dask_workers.score, fitted, experiments[i], keys[i], device, key=f"row-{keys[i]}"
            )
            tasks[row] = i


def _submit_shares(client: Client, bench: Workbench, e: Experiment, device: str) -> list:
    """Tasks for the image features of a data set, so that no two workers compute the same ones."""
    from mmclust.experiments.dask_workers import encode_share

    encoder = bench.encoder(e.encoder)
    images = bench.dataset(e).images
    name = f"{images.fingerprint[:16]}-{encoder.fingerprint[:16]}"
    return [
        client.submit(encode_share, e, share, device, key=f"encode-{name}-{share.start}")
        for share in encoder.batch_ranges(images)
    ]
