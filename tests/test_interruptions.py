"""What ends a run before its time: each in words, nothing half-written, no process left behind, and a next run that goes on."""

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
from helpers.processes import started
from test_backend import QUICK, SMALL, users_cluster
from test_pipeline import GOOD, quick_profile, write_notebooks

from mmclust.experiments.workbench import read_row
from mmclust.pipeline.notebooks import reproduce

pytestmark = pytest.mark.usefixtures("nothing_is_left")
ROOT = Path(__file__).parents[1]


def ask(seeds: int, show: str = "") -> str:
    """A cell that asks for so many seeds' experiments on two criteria, and lays the rows out as this notebook's table."""
    source = f"import mmclust as mm\nrows = mm.run(mm.grid(method=['MultiMaP'], params={QUICK!r}, seed=range({seeds}), **{SMALL!r}))\n"
    return (
        source
        + f"mm.NotebookOutput('{show}', out).table(rows, 'rows', 'what was asked for');"
        * bool(show)
    )


@pytest.fixture
def cache(tmp_path, monkeypatch, nothing_is_left):
    monkeypatch.setenv("MMCLUST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def whole_rows(cache) -> int:
    """Stored rows; each can be read."""
    keys = [path.stem for path in cache.glob("rows/*.json")]
    assert all(read_row(key) for key in keys) and not [
        p for p in (cache / "rows").glob("*") if p.suffix != ".json"
    ]
    return len(keys)


def until(condition, seconds=60):
    for _ in range(seconds * 20):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("it did not come to that")


def run_all(*args, **more):
    command = [sys.executable, ROOT / "run_all.py", *map(str, args)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, **more
    )


@pytest.mark.slow
def test_workers_are_started_when_they_are_needed(cache, tmp_path):
    profile = write_notebooks(tmp_path / "nb", a=ask(1, "a") + "\nimport os; print(os.getpid())")
    most = []

    def on_event(event, what, left):
        if event == "tick":
            most.append(len(started("spawn_main")))

    go = lambda: reproduce(
        profile=profile,
        out=tmp_path / "out",
        notebooks=tmp_path / "nb",
        workers=2,
        jobs=1,
        force=True,
        on_event=on_event,
    )[0]  # noqa: E731
    outcome = go()
    assert (outcome.status, outcome.rows, outcome.stored) == ("done", 2, 0), outcome.error
    printed = json.loads((tmp_path / "out" / "notebooks" / "a.ipynb").read_text())["cells"][-1][
        "outputs"
    ]
    assert (
        pd.read_csv(cache / "runs.csv")["process"]
        .astype(str)
        .isin("".join(str(o) for o in printed).split("'"))
        .sum()
        == 0
    )
    assert max(most) == 3  # the two and the one that runs notebooks
    most.clear()
    outcome = go()
    assert (outcome.status, outcome.rows, outcome.stored, max(most)) == ("done", 2, 2, 1)


@pytest.mark.slow
def test_what_measures_times_runs_without_workers_beside_it(cache, tmp_path):
    profile = write_notebooks(tmp_path / "nb", a=ask(1, "a"), b=GOOD.format("b"))
    said = json.loads(Path(profile).read_text())
    said["notebooks"]["b"]["alone"] = True
    Path(profile).write_text(json.dumps(said))
    beside = {"a": [], "b": []}

    def on_event(event, what, left):
        if event == "tick":
            for name in what:
                beside[name].append(len(started("spawn_main")))

    outcomes = reproduce(
        profile=profile,
        out=tmp_path / "out",
        notebooks=tmp_path / "nb",
        workers=2,
        on_event=on_event,
    )
    assert [o.status for o in outcomes] == ["done", "done"], outcomes
    assert max(beside["a"]) == 3 and max(beside["b"]) == 1, beside


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c(cache, tmp_path, workers):
    command = (
        "--profile",
        quick_profile(tmp_path),
        "--only",
        "11",
        "--out",
        tmp_path / "out",
        "--workers",
        workers,
    )
    heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731  (whoever runs the tests in the background ignores it)
    run = run_all(*command, start_new_session=True, preexec_fn=heard)
    until(lambda: len(list(cache.glob("rows/*.json"))) >= 2)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does it: to all of the group
    said, noise = run.communicate(timeout=30)
    assert (
        run.returncode == 130
        and "stopped; what was finished is kept" in said
        and "Traceback" not in noise
    ), noise
    kept = whole_rows(cache)
    assert kept >= 2 and not (tmp_path / "out" / ".state" / "11_new_criterion.json").exists()
    again = run_all(*command)
    said = again.communicate(timeout=200)[0]
    assert again.returncode == 0 and "1 done" in said
    assert int(said.split(" of them stored before")[0].split()[-1]) >= kept


@pytest.mark.slow
def test_a_kernel_that_dies_while_others_wait_for_the_same(cache, tmp_path):
    kill = "import os, signal, threading, time\nfrom pathlib import Path\n"
    kill += f"def die():\n    while not list(Path({str(cache)!r}).glob('rows/*.json')): time.sleep(0.01)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    kill += "threading.Thread(target=die).start()\n" + ask(6)
    profile = write_notebooks(tmp_path / "nb", a=kill, b=ask(6, "b"))
    first, second = reproduce(
        profile=profile, out=tmp_path / "out", notebooks=tmp_path / "nb", workers=2
    )
    assert first.status == "failed" and "died" in first.error.lower()
    assert second.status == "done" and whole_rows(cache) == 12, second.error
    ran = pd.read_csv(cache / "runs.csv")
    assert ran["key"].nunique() == len(ran) == 12, "an experiment ran twice"


def test_a_process_that_runs_notebooks_is_killed(cache, tmp_path):
    kill = "import os, signal, time\nos.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(60)"
    profile = write_notebooks(tmp_path / "nb", a=kill, b=GOOD.format("b"), c=GOOD.format("c"))
    outcomes = reproduce(profile=profile, out=tmp_path / "out", notebooks=tmp_path / "nb", jobs=1)
    assert [o.status for o in outcomes] == [
        "failed",
        "done",
        "done",
    ] and "ended with code -9" in outcomes[0].error


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_the_whole_run_is_killed(cache, tmp_path, workers):
    """kill -9 asks nobody: workers and kernels notice that it is gone."""
    run = run_all(
        "--profile",
        quick_profile(tmp_path),
        "--only",
        "11",
        "--out",
        tmp_path / "out",
        "--workers",
        workers,
    )
    until(lambda: len(list(cache.glob("rows/*.json"))) >= 2)
    family = started("spawn_main", run.pid)
    run.kill()
    run.communicate()
    assert len(family) >= 1 + workers and not psutil.wait_procs(family, timeout=20)[1]
    assert whole_rows(cache) >= 2


@pytest.mark.slow
def test_a_scheduler_that_goes_away_under_notebooks(cache, tmp_path):
    scheduler, worker, address = users_cluster(tmp_path)
    profile = write_notebooks(tmp_path / "nb", a=ask(40, "a"))

    def on_event(event, what, left):
        if event == "tick" and len(list(cache.glob("rows/*.json"))) >= 2:
            scheduler.kill()

    try:
        (outcome,) = reproduce(
            profile=profile,
            out=tmp_path / "out",
            notebooks=tmp_path / "nb",
            scheduler=address,
            on_event=on_event,
        )
        assert (
            outcome.status == "failed"
            and address in outcome.error
        )
        worker.wait(timeout=60)
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.communicate()
    kept = whole_rows(cache)
    write_notebooks(tmp_path / "nb", a=ask(2, "a"))
    (outcome,) = reproduce(profile=profile, out=tmp_path / "out", notebooks=tmp_path / "nb")
    assert (outcome.status, outcome.rows) == ("done", 4) and outcome.stored >= min(kept, 2)


FULL = """
import subprocess, sys
from pathlib import Path
from mmclust.pipeline.notebooks import reproduce
if __name__ == "__main__":
    profile, notebooks, out, size = sys.argv[1:]
    Path(out).mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", out], check=True)
    try:
        print([(o.status, o.error) for o in reproduce(profile=profile, out=out, notebooks=Path(notebooks))])
    except OSError as error:
        print("said:", error)
"""


@pytest.mark.parametrize("size", ["4k", "80k"])
def test_a_full_disk_where_figures_go(cache, tmp_path, size):
    if subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True
    ).returncode:
        pytest.skip("no mounts of one's own here")
    picture = "import numpy as np, matplotlib.pyplot as plt, mmclust as mm\nplt.imshow(np.random.default_rng(0).random((300, 300)))\n"
    profile = write_notebooks(
        tmp_path / "nb",
        a=picture + "mm.NotebookOutput('a', out).figure(plt.gcf(), 'noise', caption='much of it');",
    )
    (tmp_path / "go.py").write_text(FULL)
    command = [
        "unshare",
        "-rm",
        sys.executable,
        tmp_path / "go.py",
        profile,
        tmp_path / "nb",
        tmp_path / "out",
        size,
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-2000:]
    assert "No space left on device" in run.stdout


@pytest.mark.slow
def test_two_runs_at_the_same_moment(cache, tmp_path):
    command = (
        "--only",
        "01",
        "03",
        "--profile",
        quick_profile(tmp_path),
        "--out",
        tmp_path / "out",
    )
    runs = [run_all(*command), run_all(*command)]
    said = [run.communicate(timeout=250) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    first, second = sorted((out for out, _ in said), key=lambda out: "another run writes to" in out)
    assert "2 done, 0 up to date" in first and "another run" not in first
    assert "0 done, 2 up to date" in second and "waiting for its end" in second
    ran = pd.read_csv(cache / "runs.csv")
    assert ran["key"].nunique() == len(ran)
