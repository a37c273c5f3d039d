"""The shared backend: real schedulers, real worker processes, really killed ones."""

import os
import signal
import subprocess
import sys
import threading
import time

import pandas as pd
import psutil
import pytest
from helpers.clusters import QUICK, SMALL, users_cluster
from helpers.notebooks import write_notebooks

import mmclust as mm
from mmclust.experiments import dask_backend

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMCLUST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def cluster(cache, nothing_is_left):
    with dask_backend.local_cluster(n_workers=2) as cluster:
        yield cluster






def test_the_same_rows_as_in_this_process(cluster, tmp_path, monkeypatch):
    experiments = mm.grid(
        method=["KMeans", "CLIP_GPT", "MultiMaP", "MultiSub", "MultiDProxy"], params=QUICK, **SMALL
    )
    experiments += mm.grid(
        method="MultiSub", representation=["prompt", "word", "word+image"], params=QUICK, **SMALL
    )
    with mm.connect(cluster.scheduler_address) as client:
        client.wait_for_workers(2, timeout=60)
        there = mm.run(experiments, progress=False)
        runs = pd.read_csv(backend_cache() / "runs.csv")
        assert sorted(runs["key"]) == sorted(set(there["key"])) and os.getpid() not in set(
            runs["process"]
        )
        pd.testing.assert_frame_equal(there, mm.run(experiments, progress=False))
        assert len(pd.read_csv(backend_cache() / "runs.csv")) == len(runs)
    monkeypatch.setenv("MMCLUST_CACHE", str(tmp_path / "other"))
    here = mm.run(experiments, progress=False)
    pd.testing.assert_frame_equal(there, here, atol=1e-6)
    assert set(pd.read_csv(tmp_path / "other" / "runs.csv")["process"]) == {os.getpid()}


def backend_cache():
    from mmclust.storage import cache_dir

    return cache_dir()


@pytest.mark.slow
def test_who_asks_for_the_same_at_the_same_time_waits_for_it(cluster, cache, tmp_path):
    """Three processes, one scheduler, overlapping experiments: every row once."""
    script = tmp_path / "ask.py"
    script.write_text(
        "import sys, mmclust as mm\n"
        f"rows = mm.run(mm.grid(method=['MultiMaP', 'MultiSub'], params={QUICK!r}, seed=range(int(sys.argv[1])), **{SMALL!r}))\n"
        "print(len(rows), rows['NMI'].mean())"
    )
    environment = os.environ | {dask_backend.ADDRESS: cluster.scheduler_address}
    asked = [
        subprocess.Popen(
            [sys.executable, script, n], env=environment, stdout=subprocess.PIPE, text=True
        )
        for n in ("3", "3", "2")
    ]
    said = [process.communicate(timeout=240)[0].split() for process in asked]
    assert [int(s[0]) for s in said] == [12, 12, 8] and said[0] == said[1]
    runs = pd.read_csv(cache / "runs.csv")
    assert len(runs) == runs["key"].nunique() == 12, "an experiment ran twice"


@pytest.mark.slow
def test_three_notebooks_at_once_on_two_workers(cluster, cache, tmp_path):
    from mmclust.pipeline.notebooks import reproduce

    def ask(methods, name):
        asked = f"import mmclust as mm\nrows = mm.run(mm.grid(method={methods}, params={QUICK!r}, seed=range(4), **{SMALL!r}))\n"
        return (
            asked + f"mm.NotebookOutput('{name}', out).table(rows, 'rows', 'what was asked for');"
        )

    wanted = {
        "a": ["MultiMaP", "MultiSub"],
        "b": ["MultiSub", "MultiMaP"],
        "c": ["MultiMaP", "KMeans"],
    }
    profile = write_notebooks(
        tmp_path / "nb", **{name: ask(methods, name) for name, methods in wanted.items()}
    )
    outcomes = reproduce(
        profile=profile,
        out=tmp_path / "out",
        notebooks=tmp_path / "nb",
        jobs=3,
        scheduler=cluster.scheduler_address,
    )
    assert [o.status for o in outcomes] == ["done"] * 3, [o.error for o in outcomes]
    tables = {name: pd.read_csv(tmp_path / "out" / f"{name}_rows.csv") for name in wanted}
    assert sorted(tables["a"]["key"]) == sorted(tables["b"]["key"])
    runs = pd.read_csv(cache / "runs.csv")
    assert len(runs) == runs["key"].nunique() == 3 * 4 * 2, "an experiment ran twice"
    assert runs["process"].nunique() == 2, "one of the workers was idle"


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced(cluster, cache):
    with mm.connect(cluster.scheduler_address) as client:
        client.wait_for_workers(2, timeout=60)
        victims = list(client.run(os.getpid).values())
        slow = {"MultiMaP": {"epochs": 200}}
        killer = threading.Timer(3, lambda: os.kill(victims[0], signal.SIGKILL))
        killer.start()
        rows = mm.run(
            mm.grid(method="MultiMaP", params=slow, seed=range(3), **SMALL), progress=False
        )
        killer.join()
    assert len(rows) == 6 and not psutil.pid_exists(victims[0])
    runs = pd.read_csv(cache / "runs.csv")
    assert runs["key"].nunique() == 6


@pytest.mark.slow
def test_an_experiment_that_fails_says_so_and_the_others_are_kept(cluster, cache):
    with mm.connect(cluster.scheduler_address):
        good, bad = (
            mm.grid(method="KMeans", **SMALL),
            mm.grid(method="MultiMaP", params={"epochs": -1}, **SMALL),
        )
        mm.run(good, progress=False)
        with pytest.raises(ValueError, match="epochs is a whole number of at least 1"):
            mm.run(good + bad, progress=False)
        assert len(mm.run(good, progress=False)) == 2


@pytest.mark.slow
def test_a_scheduler_that_goes_away(cache, tmp_path):
    """In a process of its own: a scheduler as users start them, killed while rows are computed."""
    scheduler, worker, address = users_cluster(tmp_path)
    script = tmp_path / "ask.py"
    script.write_text(
        "import mmclust as mm\n"
        f"mm.connect({address!r})\n"
        "try:\n"
        f"    mm.run(mm.grid(method='MultiMaP', params={{'epochs': 300}}, seed=range(40), **{SMALL!r}), progress=False)\n"
        "except ConnectionError as error:\n"
        "    print('said:', error)\n"
    )
    asking = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        for _ in range(600):
            if len(list(cache.glob("rows/*.json"))) >= 2:
                break
            time.sleep(0.1)
        scheduler.kill()
        out = asking.communicate(timeout=120)[0]
        assert "went away: rows that were finished are stored, run again to go on" in out
        assert len(list(cache.glob("rows/*.json"))) >= 2 and asking.returncode == 0
        worker.wait(timeout=60)
    finally:
        for process in (scheduler, worker, asking):
            for child in (
                psutil.Process(process.pid).children(recursive=True)
                if process.poll() is None
                else []
            ):
                child.kill()
            process.kill()


def test_nobody_at_the_address(cache, monkeypatch):
    with pytest.raises(ConnectionError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9"):
        mm.connect("tcp://127.0.0.1:9", timeout=1)
    with pytest.raises(ValueError, match="no scheduler: give its address"):
        mm.connect()
    assert dask_backend.current() is None


@pytest.mark.slow
def test_workers_share_the_encoding_of_a_large_folder(cluster, cache, tmp_path):
    """4,300 files: above what is encoded at once; three methods ask for them at the same time."""
    import numpy as np
    from PIL import Image

    folder, rng = tmp_path / "many", np.random.default_rng(0)
    for color, base in (("red", (220, 30, 30)), ("blue", (30, 30, 220))):
        (folder / color).mkdir(parents=True)
        for i in range(2150):
            Image.fromarray(
                (np.array(base) + rng.integers(-30, 30, (8, 8, 3))).clip(0, 255).astype(np.uint8)
            ).save(folder / color / f"{i}.png")
    words = {
        "words": ("red", "blue"),
        "criterion": "class",
        "dataset": str(folder),
        "kmeans_seeds": 1,
    }
    with mm.connect(cluster.scheduler_address) as client:
        client.wait_for_workers(2, timeout=60)
        rows = mm.run(
            mm.grid(method=["KMeans", "CLIP_GPT"], **words)
            + mm.grid(method="MultiMaP", params={"epochs": 1}, **words),
            progress=False,
        )
    assert len(rows) == 3 and rows["n"].eq(4300).all()
    ran = pd.read_csv(cache / "runs.csv")
    encoded = ran[ran["method"] == "image features"]
    assert encoded["key"].nunique() == len(encoded) == 2 and encoded["process"].nunique() == 2, (
        "one of the workers was idle"
    )
    (stored,) = (cache / "features").glob("*.npy")
    assert np.load(stored, mmap_mode="r").shape[0] == 4300
    some = mm.load_folder(folder).images
    np.testing.assert_allclose(
        np.load(stored, mmap_mode="r")[:70], mm.load_encoder("mini").features(some[:70]), atol=1e-5
    )


@pytest.mark.slow
def test_the_pictures_of_a_small_set_are_encoded_by_one_worker(cluster, cache):
    with mm.connect(cluster.scheduler_address) as client:
        client.wait_for_workers(2, timeout=60)
        mm.run(
            mm.grid(method=["KMeans", "CLIP_GPT", "MultiMaP"], params=QUICK, **SMALL),
            progress=False,
        )
        encoded = [
            key
            for key, _, state, *_ in cluster.scheduler.transition_log
            if str(key).startswith("encode-") and state == "memory"
        ]
        assert len(encoded) == 1
