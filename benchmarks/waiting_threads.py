"""What waiting threads cost: `python -m benchmarks.waiting_threads [--notebook]`.

OpenMP's threads wait for each other after every operation. By default they spin: on an idle
machine this saves a little time; beside other work it takes cores from processes that need them.
This measures fits of each method on the embedded encoder under several settings in turn, on an
idle machine and beside two busy processes; with `--notebook` also `run_all.py --only 10`. Times are
given as ratios to the default of the OpenMP library, in the same minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import pandas as pd

from mmclust.threads import WAITING

ROOT = Path(__file__).parents[1]
LIBRARY_DEFAULT = {"GOMP_SPINCOUNT": "300000"}  # what libgomp takes if no variable is set
SETTINGS = {
    "default": LIBRARY_DEFAULT,
    "short spin": dict(WAITING),
    "no spin": {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"},
    "one thread": {"OMP_NUM_THREADS": "1", **WAITING},
}
NOTEBOOK_SETTINGS = ("default", "short spin")
BUSY_PROCESSES = 2
NOTEBOOK_LIMIT = 300.0  # seconds; a run that takes longer is stopped and counts as this
FIT = """
import json, time
import mmclust as mm
fruit = mm.load_dataset("demo-fruit", n=100, seed=0)
encoder = mm.load_encoder("mini")
words = mm.reference_words("color", of="fruit")
encoder.encode_images(fruit.images)
settings = mm.load_profile("demo")["methods"]
seconds = {}
for method in ("MultiMaP", "MultiSub", "MultiDProxy"):
    model = getattr(mm, method)(encoder, words, n_clusters=6, random_state=0, **settings[method])
    model.fit(fruit.images)
    start = time.perf_counter()
    model.fit(fruit.images)
    seconds[method] = time.perf_counter() - start
print(json.dumps(seconds))
"""


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """A context in which `processes` child processes each keep one core busy."""
    loop = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(loop) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def environment(setting: str) -> dict[str, str]:
    """This process's environment with the variables of a setting, and no other thread variable."""
    removed = {*WAITING, "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"}
    kept = {name: value for name, value in os.environ.items() if name not in removed}
    return kept | SETTINGS[setting]


def fit_seconds(setting: str) -> dict[str, float]:
    """Seconds of one warm fit of each method, in a process of its own."""
    command = [sys.executable, "-c", FIT]
    run = subprocess.run(
        command, cwd=ROOT, env=environment(setting), capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout.strip().splitlines()[-1])


def notebook_seconds(setting: str) -> dict[str, float]:
    """Seconds of `run_all.py --only 10` with an empty cache; at most `NOTEBOOK_LIMIT`."""
    with tempfile.TemporaryDirectory() as folder:
        around = environment(setting) | {"MMCLUST_CACHE": f"{folder}/cache"}
        command = [sys.executable, "run_all.py", "--only", "10", "--out", f"{folder}/figures"]
        start = time.perf_counter()
        run = subprocess.Popen(command, cwd=ROOT, env=around, stdout=subprocess.DEVNULL)
        try:
            if run.wait(NOTEBOOK_LIMIT):
                raise RuntimeError("run_all.py --only 10 failed")
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGINT)
            run.wait()
        return {"run_all.py --only 10": min(time.perf_counter() - start, NOTEBOOK_LIMIT)}


def measure(rounds: int, notebook: bool) -> pd.DataFrame:
    """A row per condition, work and setting: seconds (median) and their ratio to the default."""
    records = []
    for processes in (0, BUSY_PROCESSES):
        condition = f"beside {processes} busy processes" if processes else "quiet"
        with busy(processes):
            for _ in range(rounds):
                for setting in SETTINGS:
                    for work, seconds in fit_seconds(setting).items():
                        records.append((condition, f"fit of {work}", setting, seconds))
            for setting in NOTEBOOK_SETTINGS if notebook else ():
                for work, seconds in notebook_seconds(setting).items():
                    records.append((condition, work, setting, seconds))
    rows = pd.DataFrame(records, columns=["condition", "work", "setting", "seconds"])
    rows = rows.groupby(["condition", "work", "setting"], sort=False)["seconds"].agg(median)
    default = rows.xs("default", level="setting")
    ratio = (rows / default).rename("ratio to default")
    return pd.concat([rows, ratio], axis=1).reset_index()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--notebook", action="store_true", help="also run notebook 10")
    parser.add_argument("--rounds", type=int, default=3, help="fits per setting (default: 3)")
    args = parser.parse_args()
    table = measure(args.rounds, args.notebook)
    print(table.to_markdown(index=False, floatfmt=("", "", "", ".2f", ".2f")))


if __name__ == "__main__":
    main()
