"""What was computed where, how long it took and with which versions (`runs.csv` in the cache), and how far a running notebook is."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mmclust import storage

if TYPE_CHECKING:
    import pandas as pd

RUNS = ["time", "key", "dataset", "criterion", "encoder", "method", "representation", "seed", "n", "host", "process", "device", "fit_seconds", "score_seconds",
        "mmclust", "torch", "code"]  # fmt: skip
PROGRESS = "MMCLUST_PROGRESS"  # the file in which a notebook's runs note how far they are


def note_run(
    row: dict, device: str, fit_seconds: float, score_seconds: float, code: str = ""
) -> None:
    """Append a line to `runs.csv`: of a machine, not of a result, so no row holds it. Rows that share a fit each carry its seconds; a share of a
    large data set's image features is a line, too."""
    from importlib.metadata import version

    import torch

    here = {
        "time": round(time.time()),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "device": device,
        "fit_seconds": f"{fit_seconds:.3f}",
    }
    here |= {
        "score_seconds": f"{score_seconds:.3f}",
        "mmclust": version("mmclust"),
        "torch": torch.__version__,
        "code": code[:12],
    }
    line, path = io.StringIO(), storage.cache_dir() / "runs.csv"
    csv.DictWriter(line, RUNS, lineterminator="\n").writerow(
        {name: (row | here)[name] for name in RUNS}
    )
    with contextlib.suppress(OSError):  # a full disk costs the note, not the row
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            contextlib.suppress(FileExistsError),
            path.open("x", encoding="utf-8", newline="") as file,
        ):
            file.write(",".join(RUNS) + "\n")
        _append(path, line.getvalue())


def slowest(since: float = 0.0, count: int = 5) -> pd.DataFrame:
    """The slowest fits that `runs.csv` knows since a time (seconds since 1970), slowest first: a frame of its columns, `rows` that share each."""
    import pandas as pd

    try:
        runs = pd.read_csv(storage.cache_dir() / "runs.csv", on_bad_lines="skip")
        runs = runs[pd.to_numeric(runs["time"], errors="coerce") >= since]
    except (OSError, ValueError, KeyError):
        return pd.DataFrame(columns=[*RUNS, "rows"])
    of_a_fit = [
        "host",
        "process",
        "dataset",
        "criterion",
        "encoder",
        "method",
        "seed",
        "n",
        "fit_seconds",
    ]
    fits = runs.groupby(of_a_fit, as_index=False, dropna=False).agg(rows=("key", "size"))
    return fits.sort_values("fit_seconds", ascending=False).head(count).reset_index(drop=True)


def note_progress(asked: int = 0, stored: int = 0, done: int = 0) -> None:
    """Add to the file that `MMCLUST_PROGRESS` names, if any: rows asked for, those of them that were stored, rows computed since."""
    if path := os.environ.get(PROGRESS):
        with contextlib.suppress(OSError):
            _append(Path(path), f"{asked},{stored},{done}\n")


def read_progress(path: Path) -> tuple[int, int, int]:
    """Rows asked for, stored before, and computed since, as far as `path` says."""
    try:
        lines = [line.split(",") for line in path.read_text().splitlines()]
        asked, stored, done = (sum(map(int, column)) for column in zip(*lines))
    except (OSError, ValueError):
        return 0, 0, 0
    return asked, stored, done


def _append(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(line)  # one write of one line: several processes may append
