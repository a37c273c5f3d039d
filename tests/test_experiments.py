"""Rows are computed once, survive a kill, and never outlive the code that made them."""

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

import mmclust as mm
from mmclust.experiments.run_log import RUNS, slowest
from mmclust.experiments.workbench import Workbench, read_row
from mmclust.methods import METHODS

QUICK = {
    "MultiSub": {"alternations": 1, "phase1_epochs": 5, "phase2_epochs": 1},
    "MultiMaP": {"epochs": 5},
    "MultiDProxy": {"epochs": 6, "update_every": 2},
}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMCLUST_CACHE", str(tmp_path))
    return tmp_path


def small(**changes):
    axes = {
        "dataset": "demo-fruit",
        "criterion": "color",
        "method": "MultiSub",
        "params": QUICK,
        "n": 24,
        "kmeans_seeds": 2,
    } | changes
    return mm.grid(**axes)


def test_a_grid_is_all_combinations():
    two = mm.grid(
        dataset=["demo-fruit", "demo-card"],
        criterion={"demo-fruit": ["color", "species"], "demo-card": ["suits"]},
        method=["KMeans", "CLIP_GPT"],
        seed=range(3),
    )
    assert len(two) == (2 + 1) * 2 * 3 and {
        e.criterion for e in two if e.dataset == "demo-card"
    } == {"suits"}
    assert (
        mm.grid(dataset="x", criterion="y", method="MultiSub", params=QUICK)[0].params
        == QUICK["MultiSub"]
    )
    with pytest.raises(ValueError, match="colour"):
        mm.grid(dataset="x", criterion="y", method="KMeans", colour=1)
    with pytest.raises(ValueError, match="MultiSup"):
        mm.grid(dataset="x", criterion="y", method="MultiSup")


def test_rows_of_every_method(cache):
    experiments = small(method=list(METHODS))
    rows = mm.run(experiments, progress=False)
    assert rows["method"].tolist() == list(METHODS)
    assert (
        rows[["NMI", "RI"]].apply(lambda c: c.between(0, 1)).all().all() and (rows["n"] == 24).all()
    )
    assert rows.set_index("method")["representation"].to_dict() == {
        "KMeans": "image", "CLIP_GPT": "assignment", "CLIP_label": "assignment", "MultiMaP": "prompt", "MultiSub": "prompt", "MultiDProxy": "fused",
    }  # fmt: skip
    assert rows.set_index("method").loc["CLIP_label", "words"] == 6


def test_nothing_is_computed_twice(cache, monkeypatch):
    first = mm.run(small(seed=range(2)), progress=False)
    monkeypatch.setattr(Workbench, "fit", lambda *args: pytest.fail("computed again"))
    pd.testing.assert_frame_equal(first, mm.run(small(seed=range(2)), progress=False))
    with pytest.raises(pytest.fail.Exception):
        mm.run(small(seed=2), progress=False)


def test_representations_share_one_fit(cache, monkeypatch):
    fits, real = [], Workbench.fit
    monkeypatch.setattr(Workbench, "fit", lambda bench, e: fits.append(e) or real(bench, e))
    rows = mm.run(small(representation=["prompt", "word", "assignment"]), progress=False)
    assert len(rows) == 3 and len(fits) == 1 and rows["key"].nunique() == 3
    alone = mm.MultiSub(
        mm.load_encoder("mini"),
        mm.reference_words("color", of="fruit"),
        n_clusters=6,
        representation="word",
        random_state=0,
        **QUICK["MultiSub"],
    )
    data = mm.load_dataset("demo-fruit", n=24)
    assert rows.set_index("representation").loc["word", "NMI"] == pytest.approx(
        alone.fit(data.images).evaluate(data.labels["color"], range(2))["NMI"]
    )


def test_another_setting_seed_or_code_is_another_row(cache, monkeypatch):
    bench = Workbench()
    keys = {
        bench.key(e)
        for e in [
            *small(),
            *small(seed=1),
            *small(n=25),
            *small(params={"lr": 0.3}),
            *small(criterion="species"),
        ]
    }
    monkeypatch.setattr(Workbench, "code", lambda bench, e: "other code")
    assert len(keys | {bench.key(small()[0])}) == 6


def test_a_damaged_row_is_computed_again(cache):
    row = mm.run(small(), progress=False).iloc[0]
    path = cache / "rows" / f"{row['key']}.json"
    path.write_text(path.read_text()[:20])
    assert read_row(row["key"]) is None
    assert (
        mm.run(small(), progress=False).iloc[0]["NMI"] == row["NMI"]
        and json.loads(path.read_text())["key"] == row["key"]
    )


def test_times_are_not_part_of_a_row(cache):
    rows = mm.run(small(), progress=False)
    assert not {"seconds", "time"} & set(rows.columns)
    assert len(slowest(time.time() + 60)) == 0 and slowest().loc[
        0, ["method", "rows"]
    ].tolist() == ["MultiSub", len(rows)]
    runs = pd.read_csv(cache / "runs.csv")
    assert (
        list(runs.columns) == RUNS
        and runs["key"].tolist() == rows["key"].tolist()
        and runs["method"].tolist() == ["MultiSub"]
    )
    assert (
        runs["fit_seconds"].gt(0).all()
        and runs["process"].tolist() == [os.getpid()]
        and runs["code"].tolist() == [Workbench().code(small()[0])[:12]]
    )


def test_too_little_memory_on_a_gpu_halves_the_chunks(cache, monkeypatch):
    import torch

    chunks, real = [], mm.MultiSub.fit

    def fit(model, images, y=None):
        chunks.append(model.chunk_size)
        if model.chunk_size > 10:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return real(model, images, y)

    whole = mm.run(small(n=20), progress=False)
    monkeypatch.setattr(mm.MultiSub, "fit", fit)
    model = Workbench().estimator(small(n=20)[0])
    with pytest.warns(UserWarning, match="10 images at a time"):
        fitted, seconds = Workbench().fit(small(n=20)[0])
    assert chunks == [model.chunk_size, 10] and seconds > 0
    assert fitted.evaluate(mm.load_dataset("demo-fruit", n=20).labels["color"], range(2))[
        "NMI"
    ] == pytest.approx(whole["NMI"][0])
    monkeypatch.setattr(
        mm.MultiSub,
        "fit",
        lambda *args: (_ for _ in ()).throw(torch.cuda.OutOfMemoryError("CUDA out of memory")),
    )
    with (
        pytest.raises(torch.cuda.OutOfMemoryError),
        pytest.warns(UserWarning, match="on with 1 images"),
    ):
        Workbench().fit(small(n=20)[0])


def test_a_killed_run_goes_on_where_it_was(cache, tmp_path):
    script = tmp_path / "go.py"
    script.write_text(
        "import mmclust as mm\n"
        f"mm.run(mm.grid(dataset='demo-fruit', criterion='color', method='MultiSub', params={QUICK!r}, n=24, kmeans_seeds=2, seed=range(40)))\n"
    )
    process = subprocess.Popen(
        [sys.executable, script],
        env=os.environ | {"MMCLUST_CACHE": str(cache)},
        stderr=subprocess.DEVNULL,
    )
    for _ in range(900):
        if len(list(cache.glob("rows/*.json"))) >= 3:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {p.name: p.stat().st_mtime_ns for p in cache.glob("rows/*.json")}
    assert 3 <= len(finished) < 40
    rows = mm.run(small(seed=range(len(finished) + 2)), progress=False)
    assert len(rows) == len(finished) + 2
    assert {
        p.name: p.stat().st_mtime_ns for p in cache.glob("rows/*.json") if p.name in finished
    } == finished
