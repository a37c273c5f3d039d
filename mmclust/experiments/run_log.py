"""The log of computed rows, `runs.csv` in the cache folder, and the progress file of a notebook.

The log has a line per computed row: host, device, seconds, versions. Timings depend on the machine,
so they are not part of a result row.
"""

from __future__ import annotations

import contextlib
import csv
import os
import socket
import sys
import time
from pathlib import Path

from mmclust import storage

COLUMNS = (
    "time", "key", "dataset", "criterion", "encoder", "method", "representation", "seed", "n",
    "host", "process", "device", "fit_seconds", "score_seconds", "mmclust", "torch", "code",
)  # fmt: skip
PROGRESS = "MMCLUST_PROGRESS"  # the environment variable with the path of the progress file


def note_run(
    row: dict, device: str, fit_seconds: float, score_seconds: float = 0.0, code: str = ""
) -> None:
    """Append a line to `runs.csv`; do nothing if the file cannot be written.

    Rows from the same fit repeat its seconds. `row` need not be a result: encoding a share of the
    images of a large data set is logged as well. `code`: the hash of the code.
    """
    import torch

    entry = {
        "time": round(time.time()),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "device": device,
        "fit_seconds": f"{fit_seconds:.3f}",
        "score_seconds": f"{score_seconds:.3f}",
        "mmclust": sys.modules["mmclust"].__version__,  # also where it is not installed
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
    """Append numbers of rows to the progress file, if `MMCLUST_PROGRESS` is set: `asked` by a run,
    `stored` when it started, and `done` (computed) since the last call."""
    if path := os.environ.get(PROGRESS):
        # One short write per line, also in `note_run`, because several processes may append.
        with contextlib.suppress(OSError), Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{asked},{stored},{done}\n")


def read_progress(path: Path) -> tuple[int, int, int]:
    """The sums of the numbers that `note_progress` appended; zeros if there is no valid file."""
    try:
        lines = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()]
        asked, stored, done = (sum(map(int, column)) for column in zip(*lines))
        return asked, stored, done
    except (OSError, ValueError):
        return 0, 0, 0
