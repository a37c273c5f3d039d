"""A log of what was computed where, and how far the runs of a notebook are.

`runs.csv` in the cache has a line per computed row: host, device, seconds, versions. Timings depend
on the machine, so they are not part of a result row.
"""

from __future__ import annotations

import contextlib
import csv
import os
import socket
import time
from importlib.metadata import version
from pathlib import Path

from mmclust import storage

COLUMNS = (
    "time", "key", "dataset", "criterion", "encoder", "method", "representation", "seed", "n",
    "host", "process", "device", "fit_seconds", "score_seconds", "mmclust", "torch", "code",
)  # fmt: skip
PROGRESS = "MMCLUST_PROGRESS"  # the environment variable that names the file of a run's progress


def note_run(
    row: dict, device: str, fit_seconds: float, score_seconds: float = 0.0, code: str = ""
) -> None:
    """Append a line to `runs.csv`, if it can be written.

    Rows computed from one fit repeat its seconds. Encoding a share of a large data set adds a line.
    """
    import torch

    entry = {
        "time": round(time.time()),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "device": device,
        "fit_seconds": f"{fit_seconds:.3f}",
        "score_seconds": f"{score_seconds:.3f}",
        "mmclust": version("mmclust"),
        "torch": torch.__version__,
        "code": code[:12],
    }
    path = storage.cache_dir() / "runs.csv"
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError), path.open("x", encoding="utf-8") as file:
            file.write(",".join(COLUMNS) + "\n")
        with path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
            writer.writerow(row | entry)


def note_progress(asked: int = 0, stored: int = 0, done: int = 0) -> None:
    """Add rows that a run was asked for, those of them that were stored before, and rows computed
    since to the file that `MMCLUST_PROGRESS` names, if any."""
    if path := os.environ.get(PROGRESS):
        # one short write, here and above: several processes may append
        with contextlib.suppress(OSError), Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{asked},{stored},{done}\n")


def read_progress(path: Path) -> tuple[int, int, int]:
    """The sums of what `note_progress` added; zeros if there is no file."""
    try:
        lines = [line.split(",") for line in path.read_text().splitlines()]
        asked, stored, done = (sum(map(int, column)) for column in zip(*lines))
        return asked, stored, done
    except (OSError, ValueError):
        return 0, 0, 0
