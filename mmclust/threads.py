"""The usable cores and devices, and the environment variables for threads of child processes.

These variables must be set before torch is imported: OpenMP reads them only once.
"""

from __future__ import annotations

import os

# A thread that waits for others spins briefly and then sleeps. Without any spinning, fits on a
# quiet machine take about twice as long; with the library's default, 300,000 turns, waiting threads
# keep cores from other processes (`python -m benchmarks.waiting_threads`).
WAITING = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "10000"}
THREAD_COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_device(device: str) -> None:
    """Raise ValueError unless torch can compute on this device of this machine."""
    if device == "cpu":  # most often, and torch is slow to import
        return
    import torch

    known = ["cpu"]
    for kind in ("cuda", "mps", "xpu"):
        if count := getattr(torch, kind).device_count():
            known += [kind, *(f"{kind}:{i}" for i in range(count))]
    if device not in known:
        raise ValueError(f"no device {device!r} on this machine: use {' or '.join(known)}")


def waiting_environment() -> dict[str, str]:
    """A copy of `WAITING`; {} if the user has set either of its variables, which then stay."""
    return {} if WAITING.keys() & os.environ.keys() else dict(WAITING)


def thread_environment(processes: int) -> dict[str, str]:
    """Environment variables for each of `processes` processes: a share of the cores, short spins.

    A user's own `OMP_NUM_THREADS` is an upper limit of the share.
    """
    share = max(1, cores() // processes)
    limit = os.environ.get("OMP_NUM_THREADS", "")
    if limit.isdigit() and int(limit) > 0:
        share = min(share, int(limit))
    return dict.fromkeys(THREAD_COUNTS, str(share)) | waiting_environment()
