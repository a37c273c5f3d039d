"""A log of what was computed where, and how far the runs of a notebook are.

`runs.csv` in the cache has a line per computed row: host, device, seconds, versions. Timings depend
on the machine, so they are not part of a result row.
"""

from __future__ import annotations

import contextlib
import csv
import io
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
    row: dict, device: str, fit_seconds: float, score_seconds: float, code: str = ""
) -> None:
    """Append a line to `runs.csv`.

    Rows computed from one fit repeat its seconds. Encoding a part of a large data set adds a line
    as well. If the file cannot be written, the line is lost, not the row.
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
    line = io.StringIO()
    writer = csv.DictWriter(line, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writerow(row | entry)
    path = storage.cache_dir() / "runs.csv"
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError), path.open("x", encoding="utf-8") as file:
            file.write(",".join(COLUMNS) + "\n")
        _append(path, line.getvalue())


def note_progress(asked: int = 0, stored: int = 0, done: int = 0) -> None:
    """Add to the file that `MMCLUST_PROGRESS` names, if any.

    Args:
        asked: rows that a run was asked for.
        stored: those of them that were stored before.
        done: rows computed since.
    """
    if path := os.environ.get(PROGRESS):
        with contextlib.suppress(OSError):
            _append(Path(path), f"{asked},{stored},{done}\n")


def read_progress(path: Path) -> tuple[int, int, int]:
    """The sums of what `note_progress` added; zeros if there is no file."""
    try:
        lines = [line.split(",") for line in path.read_text().splitlines()]
        asked, stored, done = (sum(map(int, column)) for column in zip(*lines))
    except (OSError, ValueError):
        return 0, 0, 0
    return asked, stored, done


def _append(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(line)  # one write per line: several processes may append
