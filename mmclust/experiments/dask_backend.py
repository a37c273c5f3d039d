"""Where experiments run: in this process, or on a Dask cluster that any number of notebooks and processes share.

Every fit is one task and every row of it another, named by what they compute. Whoever asks for a row that is being computed waits for that
one, and workers keep encoders and data sets from one task to the next.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mmclust.experiments import run_log
from mmclust.experiments.workbench import Workbench, read_row
from mmclust.threads import cores, thread_environment

if TYPE_CHECKING:
    from distributed import Client, SpecCluster, Worker

    from mmclust.experiments.experiment import Experiment
    from mmclust.methods.base import ImageClusterer

FEW_CORES = 2  # on so many a run starts no cluster unless told to: README, "Measured"
ADDRESS = "MMCLUST_SCHEDULER"  # where kernels find the scheduler


def connect(address: str | None = None, timeout: float = 10.0) -> Client:
    """Let `mm.run` of this process compute on a running Dask scheduler; None takes the address in `MMCLUST_SCHEDULER`.

    Its workers need this package, the data, and the folder that `MMCLUST_CACHE` names here.

    Returns:
        The `distributed.Client`. After its `close()`, runs compute in this process again.

    Raises:
        ConnectionError: nobody answers there. ValueError: there is no address.
    """
    from distributed import Client

    address = address or os.environ.get(ADDRESS)
    if not address:
        raise ValueError(
            f"no scheduler: give its address, such as tcp://127.0.0.1:8786, or set {ADDRESS}"
        )
    try:
        return Client(address, timeout=timeout, set_as_default=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConnectionError(
            f"no Dask scheduler answers at {address} ({type(error).__name__}): start one with `dask scheduler`, or go without"
        ) from error


def current() -> Client | None:
    """The client that runs go through, or None where they compute in this process. `MMCLUST_SCHEDULER` is connected to when first needed."""
    if "distributed" in sys.modules:
        from distributed import Client

        with suppress(ValueError):
            client = Client.current()
            return client if client.status in ("running", "connecting") else None
    return connect() if os.environ.get(ADDRESS) else None


@contextmanager
def local_cluster(
    device: str = "cpu", n_workers: int | None = None, start: bool = True
) -> Iterator[SpecCluster]:
    """A scheduler and workers on this machine, as a context that gives the `distributed.SpecCluster`.

    One worker per GPU, which sees that GPU alone. Without a GPU `n_workers`, by default one per core, each with its share of the torch threads:
    where matrices are small, several workers of one thread get more done than one of several. With `start=False` there is only the scheduler,
    until `start_workers`.
    """
    import dask
    from distributed import Nanny, Scheduler, SpecCluster

    if device.startswith("cuda"):
        import torch

        own = [
            {"CUDA_VISIBLE_DEVICES": str(i)}
            for i in (
                [int(device.split(":")[1])] if ":" in device else range(torch.cuda.device_count())
            )
        ]
    else:
        own = [{} for _ in range(n_workers or cores())]
    threads = thread_environment(len(own))
    shared = threads | {"MMCLUST_CACHE": os.environ.get("MMCLUST_CACHE", "")}

    # no profiler and no page of its own in each worker, and event loops that seldom wake: they take time from the fits
    quiet = {
        "distributed.worker.profile.enabled": False,
        "distributed.admin.tick.interval": "500ms",
        "distributed.admin.tick.cycle": "5s",
    }
    # Dask lets workers give memory back to the system after every few kilobytes, and fits wait for it
    as_others_do = {"distributed.nanny.pre-spawn-environ": threads}
    about = {
        "nthreads": 1,
        "silence_logs": 50,
        "preload": [__name__],
        "dashboard": False,
        "config": quiet,
    }

    class Workers(SpecCluster):
        most = len(own)

        def new_worker_spec(self) -> dict:
            i = next(i for i in range(self.most) if i not in self.worker_spec)
            return {i: {"cls": Nanny, "options": about | {"env": shared | own[i]}}}

    with (
        dask.config.set(quiet | as_others_do),
        Workers(
            {},
            {
                "cls": Scheduler,
                "options": {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"},
            },
            silence_logs=50,
        ) as cluster,
    ):
        if start:
            cluster.scale(cluster.most)
        yield cluster


def start_workers(cluster: Any) -> None:
    """Start the workers of a `local_cluster` as soon as there is something for them to do: none is started when every row exists."""
    if not cluster.worker_spec and cluster.scheduler.tasks:
        cluster.scale(cluster.most)


def stop_workers(cluster: SpecCluster) -> None:
    """End the workers of a `local_cluster`; even idle ones disturb whoever measures times on all cores."""
    cluster.scale(0)
    while cluster.workers:
        time.sleep(0.05)


def compute(
    client: Client, bench: Workbench, experiments: Sequence[Experiment], keys: Sequence[str], fits: Sequence[Sequence[int]], device: str,
    done: Callable[[str, dict], None],
) -> None:  # fmt: skip
    """Compute fits (lists of positions in `experiments`) on a cluster; `done(key, row)` is called for every row as it comes.

    Raises:
        ConnectionError: the scheduler went away. RuntimeError: workers died of an experiment, again and again. Otherwise what the experiment
            itself raised. Rows that came before are kept.
    """
    from distributed import KilledWorker, as_completed
    from distributed.comm import CommClosedError

    wanted: dict[Any, int] = {}
    device = device.partition(":")[
        0
    ]  # a worker sees the GPU that it may use, whatever its number here
    try:
        shares: dict[tuple, list] = {}
        for group in fits:
            alone = replace(experiments[group[0]], representation=None)
            if (data := (alone.dataset, alone.n, alone.seed, alone.encoder)) not in shares:
                shares[data] = _submit_shares(client, bench, alone, device)
            fitted = client.submit(_fit, alone, device, shares[data], key=f"fit-{bench.key(alone)}")
            for i in group:
                wanted[
                    client.submit(
                        _row, fitted, experiments[i], keys[i], device, key=f"row-{keys[i]}"
                    )
                ] = i
        for future in as_completed(wanted):
            done(keys[wanted[future]], future.result())
    except KilledWorker as error:
        raise RuntimeError(
            f"a worker died each time it computed {experiments[wanted[future]]} (out of memory?): {error}"
        ) from error
    except (CommClosedError, OSError) as error:
        raise ConnectionError(_gone(client)) from error
    except Exception as error:
        if type(error).__name__ in (
            "CancelledError",
            "FutureCancelledError",
        ) or client.status not in ("running", "connecting"):
            raise ConnectionError(_gone(client)) from error
        raise
    finally:
        with suppress(Exception):
            client.cancel([future for future in wanted if not future.done()])


def _submit_shares(client: Client, bench: Workbench, e: Experiment, device: str) -> list:
    """Tasks that compute the image features of a data set, each a share of them: what the fits on it wait for, so that no two workers do it."""
    encoder, images = bench.encoder(e.encoder), bench.dataset(e).images
    name = f"{images.fingerprint[:16]}-{encoder.fingerprint[:16]}"
    return [
        client.submit(_encode, e, share, device, key=f"encode-{name}-{share.start}")
        for share in encoder.batch_ranges(images)
    ]


def _gone(client: Client) -> str:
    address = client.scheduler.address if client.scheduler else os.environ.get(ADDRESS)
    return f"the scheduler at {address} went away: rows that were finished are stored, run again to go on"


def dask_setup(worker: Worker) -> None:
    """Dask calls this in each worker of a `local_cluster`: a terminal sends Ctrl-C to all processes, and it is for the one that started them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _bench(device: str) -> Workbench:
    """This worker's encoders and data sets."""
    from distributed import get_worker

    worker: Any = get_worker()
    if not hasattr(worker, "mmclust_bench"):
        worker.mmclust_bench = Workbench(device)
    return worker.mmclust_bench


class Fitted:
    """A fitted estimator on its worker. Sent to another, it goes without its encoder, which that worker has."""

    def __init__(self, model: ImageClusterer, seconds: float) -> None:
        self.model, self.seconds = model, seconds

    def __sizeof__(self) -> int:
        return 1000 + sum(
            getattr(value, "nbytes", 0) for value in vars(self.model).values()
        )  # so that rows go to it, not it to them

    def __getstate__(self) -> dict:
        return {
            "kind": type(self.model),
            "learned": {k: v for k, v in vars(self.model).items() if k != "encoder"},
            "seconds": self.seconds,
        }

    def __setstate__(self, state: dict) -> None:
        self.model, self.seconds = state["kind"].__new__(state["kind"]), state["seconds"]
        self.model.__dict__.update(state["learned"])


def _encode(e: Experiment, share: range, device: str) -> int:
    from mmclust.encoders.feature_stream import is_large

    bench, start = _bench(device), time.perf_counter()
    images, encoder = bench.dataset(e).images, bench.encoder(e.encoder)
    encoder.store_batch_range(images, share)
    if is_large(len(images)):  # of few it is not worth a line
        row = {
            "key": f"{images.fingerprint[:16]}-{share.start}",
            "dataset": e.dataset,
            "criterion": "",
            "encoder": e.encoder,
            "method": "image features",
        }
        run_log.note_run(
            row | {"representation": "", "seed": e.seed, "n": len(images)},
            device,
            time.perf_counter() - start,
            0.0,
        )
    return share.stop - share.start


def _fit(e: Experiment, device: str, shares: list) -> Fitted:
    return Fitted(*_bench(device).fit(e))


def _row(fitted: Fitted, e: Experiment, key: str, device: str) -> dict:
    bench = _bench(device)
    if "encoder" not in vars(fitted.model):  # it came from another worker
        fitted.model.encoder = bench.encoder(e.encoder)
    return read_row(key) or bench.row(fitted.model, e, key, fitted.seconds)
