"""The shared backend: real schedulers, real worker processes, really killed ones."""

import os
import signal
import sys
import threading
from pathlib import Path

import pandas as pd
import psutil
import pytest
from helpers.clusters import QUICK, SMALL
from helpers.notebooks import write_notebooks

import mmclust as mm
from mmclust.experiments import dask_backend
from mmclust.pipeline import execution
from mmclust.pipeline.execution import Job

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMCLUST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def cluster(cache, nothing_is_left):
    with dask_backend.local_cluster(n_workers=2) as cluster:
        yield cluster


def run_log_of(folder):
    return pd.read_csv(folder / "runs.csv")


def test_the_same_rows_as_in_this_process(cluster, cache, tmp_path, monkeypatch):
    methods = ["KMeans", "CLIP_GPT", "MultiMaP", "MultiSub", "MultiDProxy"]
    experiments = mm.grid(method=methods, params=QUICK, **SMALL)
    representations = ["prompt", "word", "word+image"]
    experiments += mm.grid(method="MultiSub", representation=representations, params=QUICK, **SMALL)
    with mm.connect(cluster.scheduler_address) as client:
        client.wait_for_workers(2, timeout=60)
        rows = mm.run(experiments, progress=False)
        log = run_log_of(cache)
        assert sorted(log["key"]) == sorted(set(rows["key"]))
        assert os.getpid() not in set(log["process"])
        pd.testing.assert_frame_equal(rows, mm.run(experiments, progress=False))
        assert len(run_log_of(cache)) == len(log)
    monkeypatch.setenv("MMCLUST_CACHE", str(tmp_path / "other"))
    rows_here = mm.run(experiments, progress=False)
    pd.testing.assert_frame_equal(rows, rows_here, atol=1e-6)
    assert set(run_log_of(tmp_path / "other")["process"]) == {os.getpid()}


def worker_state():
    """What a worker's process looks like, from a task in it."""
    names = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "MALLOC_TRIM_THRESHOLD_")
    with open("/proc/self/environ") as file:  # as the process was started, before any import
        started_with = dict(
            entry.split("=", 1) for entry in file.read().split("\0") if "=" in entry
        )
    return {
        "started with": {name: started_with.get(name) for name in names},
        "cache": os.environ["MMCLUST_CACHE"],
        "ignores Ctrl-C": signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
    }


@pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="needs Linux")
def test_what_workers_are_started_with(cluster, cache, monkeypatch):
    with mm.connect(cluster.scheduler_address) as client:
        client.wait_for_workers(2, timeout=60)
        states = list(client.run(worker_state).values())
    share = str(max(1, len(os.sched_getaffinity(0)) // 2))
    for state in states:
        started_with = state["started with"]
        assert started_with["OMP_NUM_THREADS"] == share
        assert started_with["OMP_WAIT_POLICY"] and started_with["GOMP_SPINCOUNT"]
        assert started_with["MALLOC_TRIM_THRESHOLD_"] is None
        assert state["cache"] == str(cache) and state["ignores Ctrl-C"]


def test_one_worker_per_visible_gpu(cache, monkeypatch):
    def gpus(device):
        environments = dask_backend._worker_environments(device, None)
        return [environment["CUDA_VISIBLE_DEVICES"] for environment in environments]

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert gpus("cuda") == ["2", "5"] and gpus("cuda:1") == ["5"]


def test_each_worker_has_its_own_environment_and_a_replaced_one_the_same(cache):
    gpus = [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in "01"]
    with dask_backend.local_cluster(n_workers=2, start=False) as cluster:
        cluster.environments = gpus
        specs = {}
        for _ in gpus:
            specs |= cluster.new_worker_spec()
            cluster.worker_spec = specs
        assert [specs[i]["options"]["env"] for i in range(2)] == gpus
        del specs[0]
        assert cluster.new_worker_spec()[0]["options"]["env"] == gpus[0]
        cluster.worker_spec = {}  # none of them was started


@pytest.mark.parametrize("n_workers", [1, 4])
def test_workers_share_the_memory(cache, n_workers):
    """Dask's default is the share of one core: too little for the only worker of a GPU."""
    with dask_backend.local_cluster(n_workers=n_workers, start=False) as cluster:
        assert cluster.new_worker_spec()[0]["options"]["memory_limit"] == 1 / n_workers


@pytest.mark.parametrize(
    ("seconds", "alone", "workers"),
    [([121], False, 2), ([119], False, 0), ([121], True, 0), ([121, 121], False, 0)],
)
def test_a_single_long_notebook_uses_both_cores(cache, monkeypatch, seconds, alone, workers):
    monkeypatch.setattr(execution, "cores", lambda: 2)
    monkeypatch.setattr(dask_backend, "cores", lambda: 2)
    jobs = {str(i): Job(Path(), {}, Path(), s, alone, "") for i, s in enumerate(seconds)}
    with execution.open_backend(None, "cpu", None, jobs, lambda *_: None) as backend:
        assert (backend.cluster.most if backend.cluster else 0) == workers


def test_clients_are_closed_with_the_cluster(cache):
    with dask_backend.local_cluster(n_workers=1, start=False) as cluster:
        clients = [mm.connect(cluster.scheduler_address) for _ in range(2)]
    assert [client.status for client in clients] == ["closed", "closed"]
    assert dask_backend.current() is None


@pytest.mark.slow
def test_three_notebooks_at_once_on_two_workers(cluster, cache, tmp_path):
    """Their kernels are processes that ask for overlapping experiments: every row once."""
    from mmclust.pipeline.notebooks import reproduce

    def cell(name, methods):
        return (
            "import mmclust as mm\n"
            f"grid = mm.grid(method={methods}, params={QUICK!r}, seed=range(4), **{SMALL!r})\n"
            f"mm.NotebookOutput('{name}', out).table(mm.run(grid), 'rows', 'the rows');"
        )

    methods = {
        "a": ["MultiMaP", "MultiSub"],
        "b": ["MultiSub", "MultiMaP"],
        "c": ["MultiMaP", "KMeans"],
    }
    cells = {name: cell(name, asked) for name, asked in methods.items()}
    profile = write_notebooks(tmp_path / "nb", **cells)
    outcomes = reproduce(
        profile=profile,
        out=tmp_path / "out",
        notebooks=tmp_path / "nb",
        jobs=3,
        scheduler=cluster.scheduler_address,
    )
    assert [o.status for o in outcomes] == ["done"] * 3, [o.error for o in outcomes]
    tables = {name: pd.read_csv(tmp_path / "out" / f"{name}_rows.csv") for name in methods}
    a, b = (tables[name].set_index("key").sort_index() for name in "ab")
    pd.testing.assert_frame_equal(a, b)
    log = run_log_of(cache)
    assert len(log) == log["key"].nunique() == 3 * 4 * 2, "an experiment ran twice"
    assert log["process"].nunique() == 2, "one of the workers was idle"


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced(cluster, cache):
    with mm.connect(cluster.scheduler_address) as client:
        client.wait_for_workers(2, timeout=60)
        victim = next(iter(client.run(os.getpid).values()))
        killer = threading.Timer(3, lambda: os.kill(victim, signal.SIGKILL))
        killer.start()
        long = mm.grid(method="MultiMaP", params={"epochs": 60}, seed=range(3), **SMALL)
        rows = mm.run(long, progress=False)
        killer.join()
    assert len(rows) == 6 and not psutil.pid_exists(victim)
    assert run_log_of(cache)["key"].nunique() == 6


@pytest.mark.slow
def test_the_error_of_an_experiment_is_raised_and_other_rows_are_kept(cluster, cache, tmp_path):
    """Also an OSError, which must not be taken for a lost connection."""
    (tmp_path / "fails.py").write_text(
        "import mmclust as mm\n"
        "class Fails(mm.KMeans):\n"
        "    def _fit(self, images, y=None):\n"
        "        raise FileNotFoundError('no such weights')\n"
    )
    sys.path.append(str(tmp_path))
    with mm.connect(cluster.scheduler_address) as client:
        client.wait_for_workers(2, timeout=60)
        client.run(sys.path.append, str(tmp_path))
        valid = mm.grid(method="KMeans", **SMALL)
        mm.run(valid, progress=False)
        invalid = mm.grid(method="MultiMaP", params={"epochs": -1}, **SMALL)
        try:
            with pytest.raises(ValueError, match="epochs"):
                mm.run(valid + invalid, progress=False)
            with pytest.raises(FileNotFoundError, match="no such weights"):
                mm.run(mm.grid(method="fails:Fails", **SMALL), progress=False)
        finally:
            sys.path.remove(str(tmp_path))
        assert len(mm.run(valid, progress=False)) == 2


def write_pictures(folder, n):
    """A folder of 2 n small pictures in two classes."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for color, base in (("red", (220, 30, 30)), ("blue", (30, 30, 220))):
        (folder / color).mkdir(parents=True)
        for i in range(n):
            pixels = np.array(base) + rng.integers(-30, 30, (8, 8, 3))
            picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            picture.save(folder / color / f"{i}.png")


def write_labels(folder, images, names):
    """A folder of pictures with labels.csv."""
    folder.mkdir(exist_ok=True)
    for i, _ in enumerate(names):
        images[i].save(folder / f"{i}.png")
    lines = ["file,color", *(f"{i}.png,{name}" for i, name in enumerate(names))]
    (folder / "labels.csv").write_text("\n".join(lines))


PLUG_IN = """
import mmclust as mm
def data(n=12, seed=0):
    d = mm.load_dataset("demo-fruit", n=n, seed=seed)
    labels, classes = {"color": d.labels["CRITERION"]}, {"color": d.classes["CRITERION"]}
    return mm.ImageDataset("mine", "fruit", d.images, labels, classes)
def encoder(device="cpu"):
    mini = mm.load_encoder("mini", device)
    mini.encode_words = lambda *args: SIGN * type(mini).encode_words(mini, *args)
    return mini
"""


def test_workers_see_changed_data_and_plug_ins(cache, tmp_path, monkeypatch):
    """Labels are corrected, pictures added, a plug-in's file changes: on the same worker."""
    fruit = mm.load_dataset("demo-fruit", n=20)
    names = {c: fruit.frame()[c].tolist() for c in ("color", "species")}
    folder, file = tmp_path / "photos", tmp_path / "mine_on_workers.py"
    monkeypatch.syspath_prepend(tmp_path)

    def write(criterion, n, sign):
        write_labels(folder, fruit.images, names[criterion][:n])
        file.write_text(PLUG_IN.replace("CRITERION", criterion).replace("SIGN", sign))

    def scores():
        axes = {"criterion": "color", "method": "CLIP_GPT", "kmeans_seeds": 1}
        experiments = mm.grid(dataset=[str(folder), "mine_on_workers:data"], **axes)
        experiments += mm.grid(
            dataset="demo-fruit", n=12, encoder="mine_on_workers:encoder", **axes
        )
        rows = mm.run(experiments, progress=False)
        return rows[["n", "NMI", "named", "key"]]

    stages = [("species", 12, "1"), ("color", 12, "1"), ("color", 20, "-1")]
    cluster = dask_backend.local_cluster(n_workers=1)
    with cluster as workers, mm.connect(workers.scheduler_address) as client:
        client.wait_for_workers(1, timeout=60)
        client.run(sys.path.append, str(tmp_path))
        on_worker = [write(*stage) or scores() for stage in stages]
    monkeypatch.setenv("MMCLUST_CACHE", str(tmp_path / "other"))
    for stage, rows in zip(stages, on_worker):
        write(*stage)
        pd.testing.assert_frame_equal(rows, scores(), atol=1e-6)
    sys.modules.pop("mine_on_workers")


def test_a_worker_with_other_files_is_an_error_and_stores_nothing(cache, tmp_path, monkeypatch):
    fruit = mm.load_dataset("demo-fruit", n=12)
    for place, criterion in (("here", "color"), ("there", "species")):
        (tmp_path / place).mkdir()
        write_labels(tmp_path / place / "photos", fruit.images, fruit.frame()[criterion].tolist())
    monkeypatch.chdir(tmp_path / "here")
    experiments = mm.grid(dataset="photos", criterion="color", method="KMeans")
    cluster = dask_backend.local_cluster(n_workers=1)
    with cluster as workers, mm.connect(workers.scheduler_address) as client:
        client.wait_for_workers(1, timeout=60)
        client.run(os.chdir, tmp_path / "there")
        with pytest.raises(RuntimeError, match=r"KMeans on photos.*same files.*restart"):
            mm.run(experiments, progress=False)
        assert not list(cache.glob("rows/*"))
        client.run(os.chdir, tmp_path / "here")
        assert len(mm.run(experiments, progress=False)) == 1


def test_no_scheduler_at_the_address(cache):
    with pytest.raises(ConnectionError, match=r"tcp://127\.0\.0\.1:9 .*dask scheduler"):
        mm.connect("tcp://127.0.0.1:9", timeout=1)
    with pytest.raises(ValueError, match=r"address.*MMCLUST_SCHEDULER"):
        mm.connect()
    assert dask_backend.current() is None


@pytest.mark.slow
def test_workers_share_the_encoding_of_a_large_folder(cluster, cache, tmp_path):
    """4,300 files: above what is encoded at once; three methods ask for them at the same time."""
    import numpy as np

    folder = tmp_path / "many"
    write_pictures(folder, n=2150)
    axes = {
        "words": ("red", "blue"),
        "criterion": "class",
        "dataset": str(folder),
        "kmeans_seeds": 1,
    }
    experiments = mm.grid(method=["KMeans", "CLIP_GPT"], **axes)
    experiments += mm.grid(method="MultiMaP", params={"epochs": 1}, **axes)
    with mm.connect(cluster.scheduler_address) as client:
        client.wait_for_workers(2, timeout=60)
        rows = mm.run(experiments, progress=False)
    assert len(rows) == 3 and rows["n"].eq(4300).all()
    log = run_log_of(cache)
    encoded = log[log["method"] == "image features"]
    assert encoded["key"].nunique() == len(encoded) == 2
    assert encoded["process"].nunique() == 2, "one of the workers was idle"
    (stored,) = (cache / "features").glob("*.npy")
    features = np.load(stored, mmap_mode="r")
    assert features.shape[0] == 4300
    images = mm.load_folder(folder).images[:70]
    np.testing.assert_allclose(features[:70], mm.load_encoder("mini").features(images), atol=1e-5)


@pytest.mark.slow
def test_the_images_of_a_small_data_set_are_encoded_by_one_worker(cluster, cache):
    with mm.connect(cluster.scheduler_address) as client:
        client.wait_for_workers(2, timeout=60)
        mm.run(
            mm.grid(method=["KMeans", "CLIP_GPT", "MultiMaP"], params=QUICK, **SMALL),
            progress=False,
        )
        encoded = [  # a copy, as another thread writes the log
            key
            for key, _, state, *_ in cluster.scheduler.transition_log.copy()
            if str(key).startswith("encode-") and state == "memory"
        ]
        assert len(encoded) == 1
