"""What ends a run early: it is reported, no file or process is left, and the next run continues."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
from helpers.clusters import QUICK, SMALL, users_cluster
from helpers.notebooks import TABLE, quick_profile, start_run_all, write_notebooks
from helpers.processes import mount_namespace, started

from mmclust.pipeline.notebooks import reproduce
from mmclust.storage import read_row

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def experiments(seeds: int, name: str = "") -> str:
    """A cell that asks for the experiments of so many seeds on two criteria: 2 rows per seed.

    With the name of its notebook it also writes their table.
    """
    source = (
        "import mmclust as mm\n"
        f"grid = mm.grid(method=['MultiMaP'], params={QUICK!r}, seed=range({seeds}), **{SMALL!r})\n"
        "rows = mm.run(grid)\n"
    )
    if name:
        source += f"mm.NotebookOutput('{name}', out).table(rows, 'rows', 'a caption');"
    return source


@pytest.fixture
def cache(tmp_path, monkeypatch, nothing_is_left):
    monkeypatch.setenv("MMCLUST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def stored_rows(cache) -> int:
    return len(list(cache.glob("rows/*.json")))


def complete_rows(cache) -> int:
    """The number of stored rows; each can be read, and there is nothing else."""
    files = list((cache / "rows").glob("*"))
    assert all(path.suffix == ".json" and read_row(path.stem) for path in files)
    return len(files)


def wait_until(condition, seconds=180):
    for _ in range(seconds * 20):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail(f"not within {seconds} seconds")


@pytest.mark.slow
def test_workers_are_started_when_they_are_needed(cache, tmp_path):
    source = experiments(1, "a") + "\nimport os; print(os.getpid())"
    profile = write_notebooks(tmp_path / "nb", a=source)
    processes = []

    def on_event(event, subject, seconds_left):
        if event == "tick":
            processes.append(len(started("spawn_main")))

    def run():
        processes.clear()
        (outcome,) = reproduce(
            profile=profile,
            out=tmp_path / "out",
            notebooks=tmp_path / "nb",
            workers=2,
            jobs=1,
            force=True,
            on_event=on_event,
        )
        return outcome

    outcome = run()
    assert (outcome.status, outcome.rows, outcome.stored) == ("done", 2, 0), outcome.error
    assert max(processes) == 3  # the two and the one that runs notebooks
    executed = json.loads((tmp_path / "out" / "notebooks" / "a.ipynb").read_text())
    printed = "".join("".join(o.get("text", "")) for o in executed["cells"][-1]["outputs"])
    computed_by = pd.read_csv(cache / "runs.csv")["process"]
    assert not set(map(str, computed_by)) & set(printed.split()), "the kernel computed"
    outcome = run()
    assert (outcome.status, outcome.rows, outcome.stored) == ("done", 2, 2)
    assert max(processes) == 1


@pytest.mark.slow
def test_what_measures_times_runs_without_workers_beside_it(cache, tmp_path):
    profile = Path(write_notebooks(tmp_path / "nb", a=experiments(1, "a"), b=TABLE.format("b")))
    settings = json.loads(profile.read_text())
    settings["notebooks"]["b"]["alone"] = True
    profile.write_text(json.dumps(settings))
    beside = {"a": [], "b": []}

    def on_event(event, subject, seconds_left):
        if event == "tick":
            for name in subject:
                beside[name].append(len(started("spawn_main")))

    outcomes = reproduce(
        profile=str(profile),
        out=tmp_path / "out",
        notebooks=tmp_path / "nb",
        workers=2,
        on_event=on_event,
    )
    assert [outcome.status for outcome in outcomes] == ["done", "done"], outcomes
    assert max(beside["a"]) == 3 and max(beside["b"]) == 1, beside


@pytest.mark.slow
def test_ctrl_c(cache, tmp_path):
    profile, out = quick_profile(tmp_path), tmp_path / "out"
    command = ("--profile", profile, "--only", "11", "--out", out, "--workers")

    def listen():  # where tests run in the background, SIGINT is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    run = start_run_all(*command, 2, start_new_session=True, preexec_fn=listen)
    wait_until(lambda: stored_rows(cache) >= 2)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal sends it: to all processes of the group
    printed, errors = run.communicate(timeout=120)
    assert run.returncode == 130 and "Traceback" not in errors, errors
    assert "stopped" in printed and "the next run continues" in printed
    stored = complete_rows(cache)
    assert stored >= 2 and not (out / ".state" / "11_new_criterion.json").exists()
    again = start_run_all(*command, 0)  # without workers: quicker, and the same rows
    printed = again.communicate(timeout=600)[0]
    assert again.returncode == 0 and "1 done" in printed
    assert int(printed.split(" of them stored before")[0].split()[-1]) >= stored


@pytest.mark.slow
def test_a_kernel_that_dies_while_others_wait_for_the_same(cache, tmp_path):
    die = (
        "import os, signal, threading, time\nfrom pathlib import Path\n"
        "def die():\n"
        f"    while not list(Path({str(cache)!r}).glob('rows/*.json')): time.sleep(0.01)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "threading.Thread(target=die).start()\n"
    )
    profile = write_notebooks(tmp_path / "nb", a=die + experiments(6), b=experiments(6, "b"))
    first, second = reproduce(
        profile=profile, out=tmp_path / "out", notebooks=tmp_path / "nb", workers=2
    )
    assert first.status == "failed" and "died" in first.error.lower()
    assert second.status == "done" and complete_rows(cache) == 12, second.error
    keys = pd.read_csv(cache / "runs.csv")["key"]
    assert keys.nunique() == len(keys) == 12, "an experiment ran twice"


def test_a_kernel_that_dies_at_its_start_is_started_again(cache, tmp_path, monkeypatch):
    """As where two kernels that start at the same moment take the same port."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, pathlib, sys\n"
        "mark = pathlib.Path(__file__).with_name('died')\n"
        "if 'ipykernel_launcher' in sys.orig_argv and not mark.exists():\n"
        "    mark.touch()\n"
        "    os._exit(1)\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path[1:]])
    monkeypatch.setenv("PYTHONPATH", path)
    profile = write_notebooks(tmp_path / "nb", a=TABLE.format("a"))
    (outcome,) = reproduce(profile=profile, out=tmp_path / "out", notebooks=tmp_path / "nb")
    assert (tmp_path / "died").exists() and outcome.status == "done", outcome.error


def test_a_process_that_runs_notebooks_is_killed(cache, tmp_path):
    kill = "import os, signal, time\nos.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(60)"
    sources = {"a": kill, "b": TABLE.format("b"), "c": TABLE.format("c")}
    profile = write_notebooks(tmp_path / "nb", **sources)
    outcomes = reproduce(profile=profile, out=tmp_path / "out", notebooks=tmp_path / "nb", jobs=1)
    assert [outcome.status for outcome in outcomes] == ["failed", "done", "done"]
    assert "code -9" in outcomes[0].error and "--jobs 1" in outcomes[0].error


@pytest.mark.slow
def test_the_run_is_killed(cache, tmp_path):
    """kill -9 cannot be handled: workers and kernels notice that the run is gone."""
    profile, out = quick_profile(tmp_path), tmp_path / "out"
    run = start_run_all("--profile", profile, "--only", "11", "--out", out, "--workers", 2)
    wait_until(lambda: stored_rows(cache) >= 2)
    family = started("spawn_main", run.pid) + started("ipykernel", run.pid)
    run.kill()
    run.communicate()
    assert len(family) >= 4  # two workers, the process that runs notebooks, and its kernel
    assert not psutil.wait_procs(family, timeout=20)[1]
    assert complete_rows(cache) >= 2


@pytest.mark.slow
def test_a_scheduler_that_goes_away_under_notebooks(cache, tmp_path):
    scheduler, worker, address = users_cluster(tmp_path)
    profile = write_notebooks(tmp_path / "nb", a=experiments(40, "a"))
    places = {"profile": profile, "out": tmp_path / "out", "notebooks": tmp_path / "nb"}

    def on_event(event, subject, seconds_left):
        if event == "tick" and stored_rows(cache) >= 2:
            scheduler.kill()

    try:
        (outcome,) = reproduce(**places, scheduler=address, on_event=on_event)
        assert outcome.status == "failed"
        assert outcome.error.startswith("ConnectionError") and address in outcome.error
        assert "run again" in outcome.error
        worker.wait(timeout=60)
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.communicate()
    stored = complete_rows(cache)
    write_notebooks(tmp_path / "nb", a=experiments(2, "a"))
    (outcome,) = reproduce(**places)
    assert (outcome.status, outcome.rows) == ("done", 4) and outcome.stored >= min(stored, 2)


SMALL_DISK = """
import subprocess, sys
from pathlib import Path
from mmclust.pipeline.notebooks import reproduce
if __name__ == "__main__":
    profile, notebooks, out, size = sys.argv[1:]
    Path(out).mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", out], check=True)
    try:
        outcomes = reproduce(profile=profile, out=out, notebooks=Path(notebooks))
        print([(outcome.status, outcome.error) for outcome in outcomes])
    except OSError as error:
        print("raised:", error)
"""


@pytest.mark.parametrize("size", ["4k", "80k"])
def test_a_full_disk_where_figures_go(cache, tmp_path, size):
    figure = (
        "import numpy as np, matplotlib.pyplot as plt, mmclust as mm\n"
        "plt.imshow(np.random.default_rng(0).random((300, 300)))\n"
        "mm.NotebookOutput('a', out).figure(plt.gcf(), 'noise', caption='a large file');"
    )
    profile = write_notebooks(tmp_path / "nb", a=figure)
    (tmp_path / "go.py").write_text(SMALL_DISK)
    command = [
        *(*mount_namespace(), sys.executable, tmp_path / "go.py"),
        *(profile, tmp_path / "nb", tmp_path / "out", size),
    ]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    assert "No space left on device" in run.stdout


@pytest.mark.slow
def test_two_runs_at_the_same_moment(cache, tmp_path):
    profile, out = quick_profile(tmp_path), tmp_path / "out"
    command = ("--only", "01", "03", "--profile", profile, "--out", out)
    runs = [start_run_all(*command), start_run_all(*command)]
    printed = [run.communicate(timeout=600)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], printed
    first, second = sorted(printed, key=lambda text: "another run writes to" in text)
    assert "2 done, 0 up to date" in first and "another run" not in first
    assert "0 done, 2 up to date" in second and "another run" in second
    keys = pd.read_csv(cache / "runs.csv")["key"]
    assert keys.nunique() == len(keys)
