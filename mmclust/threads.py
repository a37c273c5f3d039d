"""Cores, and the environment in which child processes compute.

Set before torch is imported: OpenMP reads these variables once.
"""

from __future__ import annotations

import os

# A thread that waits for the others must not keep a core busy: with several processes on few
# cores, spinning slows each of them many times. `benchmarks/waiting_threads.py` measures it.
WAITING = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
THREAD_COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_environment(processes: int) -> dict[str, str]:
    """Environment variables for each of several processes: its share of the cores, no spinning.

    An `OMP_WAIT_POLICY` or `GOMP_SPINCOUNT` of the user is kept.
    """
    share = str(max(1, cores() // processes))
    waiting = {name: os.environ.get(name, value) for name, value in WAITING.items()}
    return dict.fromkeys(THREAD_COUNTS, share) | waiting
