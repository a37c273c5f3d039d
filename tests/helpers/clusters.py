"""Experiments that are quick to compute, and a Dask cluster as a user starts it."""

import subprocess
import sys
import time

import pytest

QUICK = {
    "MultiSub": {"alternations": 1, "phase1_epochs": 5, "phase2_epochs": 1},
    "MultiMaP": {"epochs": 5},
    "MultiDProxy": {"epochs": 6, "update_every": 2},
}
SMALL = {"dataset": "demo-fruit", "criterion": ["color", "species"], "n": 24, "kmeans_seeds": 2}


def wait_for_line(process, text, seconds=60):
    """The first line of a process's output that contains a text."""
    deadline = time.time() + seconds
    for line in process.stdout:
        if text in line:
            return line
        assert time.time() < deadline
    pytest.fail(f"the process ended without printing {text!r}")


def users_cluster(folder):
    """A scheduler and a worker, each a process of its own, and the scheduler's address."""
    python = [sys.executable, "-m"]
    scheduler = subprocess.Popen(
        [*python, "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0",
         "--no-dashboard"],
        stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True, cwd=folder,
    )  # fmt: skip
    address = "tcp://" + wait_for_line(scheduler, "Scheduler at:").split("tcp://")[1].strip()
    worker = subprocess.Popen(
        [*python, "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard",
         "--death-timeout", "5"],
        stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=folder,
    )  # fmt: skip
    return scheduler, worker, address
