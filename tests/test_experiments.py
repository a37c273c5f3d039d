"""Rows are computed once, survive a killed run, and never outlive the code that made them."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from helpers.clusters import QUICK

import mmclust as mm
from mmclust.experiments import run_log
from mmclust.experiments.workbench import Workbench
from mmclust.methods import METHODS
from mmclust.storage import read_row


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
    }
    return mm.grid(**axes | changes)


def test_a_grid_is_all_combinations():
    experiments = mm.grid(
        dataset=["demo-fruit", "demo-card"],
        criterion={"demo-fruit": ["color", "species"], "demo-card": ["suits"]},
        method=["KMeans", "CLIP_GPT"],
        seed=range(3),
    )
    assert len(experiments) == (2 + 1) * 2 * 3
    assert {e.criterion for e in experiments if e.dataset == "demo-card"} == {"suits"}
    with pytest.raises(ValueError, match="colour"):
        mm.grid(dataset="x", criterion="y", method="KMeans", colour=1)
    with pytest.raises(ValueError, match="MultiSup"):
        mm.grid(dataset="x", criterion="y", method="MultiSup")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"dataset": []}, "at least one dataset"),
        ({"method": ()}, "at least one method"),
        ({"seed": range(0)}, "at least one seed"),
        ({"criterion": []}, "a grid's criterion must be a list"),
        ({"criterion": None}, "a grid's criterion must be .*not None"),
        ({"criterion": {"demo-card": "suits"}}, "no entry for data set 'demo-fruit'"),
        ({"criterion": {"demo-fruit": []}}, "demo-fruit must be a list"),
        ({"n": 0}, "n must be an integer of at least 1, not 0"),
        ({"seed": "one"}, "seed must be an integer .*not 'one'"),
        ({"kmeans_seeds": 0}, "kmeans_seeds must be .* not 0"),
        ({"words": []}, "words must be a list of at least one text"),
        ({"words": "sun, rain"}, 'words must be a list, "lexicon" or "openai:MODEL"'),
        ({"words": ["sun", None]}, "must be a text, not None"),
    ],
)
def test_a_grid_names_what_is_missing_or_wrong(changes, message):
    axes = {"dataset": "demo-fruit", "criterion": "color", "method": "KMeans"}
    with pytest.raises(ValueError, match=message):
        mm.grid(**axes | changes)
    for name in axes:
        with pytest.raises(ValueError, match=rf"a grid.*{name}.*"):
            mm.grid(**{other: value for other, value in axes.items() if other != name})


def test_values_of_a_grid_are_plain():
    seeds = mm.grid(dataset="x", criterion="y", method="KMeans", seed=np.arange(2), words=[1, True])
    assert [(e.seed, type(e.seed), e.words) for e in seeds] == [
        (seed, int, ("1", "yes")) for seed in (0, 1)
    ]


def test_parameters_of_a_grid_are_for_all_methods_or_by_method():
    axes = {"dataset": "x", "criterion": "y", "method": ["MultiSub", "MultiMaP"]}
    by_method = mm.grid(params={"MultiSub": {"lr": 1.0}}, **axes)
    assert [e.params for e in by_method] == [{"lr": 1.0}, {}]
    for_all = mm.grid(params={"lr": 1.0}, **axes)
    assert [e.params for e in for_all] == [{"lr": 1.0}] * 2
    with pytest.raises(ValueError, match=r"MultiSub.*lr"):
        mm.grid(params={"lr": 1.0, "MultiSub": {"lr": 1.0}}, **axes)


def test_rows_of_every_method(cache):
    rows = mm.run(small(method=list(METHODS)), progress=False)
    assert rows["method"].tolist() == list(METHODS)
    assert rows[["NMI", "RI"]].stack().between(0, 1).all() and rows["n"].eq(24).all()
    assert rows.set_index("method")["representation"].to_dict() == {
        "KMeans": "image",
        "CRL": "cosine",
        "CLIP_GPT": "assignment",
        "CLIP_label": "assignment",
        "MultiMaP": "prompt",
        "MultiSub": "prompt",
        "MultiDProxy": "fused",
    }
    assert rows.set_index("method").loc["CLIP_label", "words"] == 6


def test_nothing_is_computed_twice(cache, monkeypatch):
    first = mm.run(small(seed=range(2)), progress=False)
    monkeypatch.setattr(Workbench, "fit", lambda *args: pytest.fail("computed again"))
    pd.testing.assert_frame_equal(first, mm.run(small(seed=range(2)), progress=False))
    with pytest.raises(pytest.fail.Exception):
        mm.run(small(seed=2), progress=False)


def test_representations_share_one_fit(cache, monkeypatch):
    fit = Workbench.fit
    fits = []
    monkeypatch.setattr(Workbench, "fit", lambda bench, e: fits.append(e) or fit(bench, e))
    rows = mm.run(small(representation=["prompt", "word", "assignment"]), progress=False)
    assert len(rows) == 3 and len(fits) == 1 and rows["key"].nunique() == 3
    words = mm.reference_words("color", of="fruit")
    alone = mm.MultiSub(
        mm.load_encoder("mini"),
        words,
        n_clusters=6,
        representation="word",
        random_state=0,
        **QUICK["MultiSub"],
    )
    data = mm.load_dataset("demo-fruit", n=24)
    scores = alone.fit(data.images).evaluate(data.labels["color"], range(2))
    assert rows.set_index("representation").loc["word", "NMI"] == pytest.approx(scores["NMI"])


def test_another_setting_seed_or_code_is_another_row(cache, monkeypatch):
    bench = Workbench()
    experiments = [
        *small(),
        *small(seed=1),
        *small(n=25),
        *small(params={"lr": 0.3}),
        *small(criterion="species"),
    ]
    keys = {bench.key(e) for e in experiments}
    monkeypatch.setattr(Workbench, "code", lambda bench, e: "other code")
    assert len(keys | {bench.key(small()[0])}) == 6


def test_corrected_class_names_are_another_row(cache, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i, image in enumerate(mm.load_dataset("demo-fruit", n=12).images):
        image.save(folder / f"{i}.png")
    names = mm.load_dataset("demo-fruit", n=12).frame()["color"]

    def named(prefix):
        rows = [f"{i}.png,{prefix}{name}" for i, name in enumerate(names)]
        (folder / "labels.csv").write_text("\n".join(["file,color", *rows]))
        axes = {"dataset": str(folder), "method": "CLIP_GPT", "params": {}, "n": None}
        return mm.run(small(**axes), progress=False)["named"].item()

    assert named("misspelt ") == 0 and named("") > 0.5


def test_a_row_knows_how_many_pictures_its_seeds_draw_from(cache, tmp_path, monkeypatch):
    folder = tmp_path / "images"
    for i, image in enumerate(mm.load_dataset("demo-fruit", n=12).images):
        (folder / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        image.save(folder / "ab"[i % 2] / f"{i}.png")
    options = {"fixed": "", "sized": "n=12", "seeded": "n=12, seed=0"}
    plug_in = "import mmclust as mm\n"
    for name, parameters in options.items():
        size = 12 if name == "fixed" else "n"
        plug_in += f"def {name}({parameters}): return mm.load_dataset('demo-fruit', n={size})\n"
    (tmp_path / "pools.py").write_text(plug_in)
    monkeypatch.syspath_prepend(tmp_path)

    def pool(dataset, criterion="color"):
        axes = {"dataset": dataset, "criterion": criterion, "method": "KMeans", "params": {}}
        (row,) = mm.run(small(**axes, n=8), progress=False).to_dict("records")
        assert row["n"] == 8
        return row["pool"]

    assert pool(str(folder), "class") == 12
    assert pool("pools:fixed") == 12 and pool("pools:sized") == 8
    assert np.isnan(pool("pools:seeded")) and np.isnan(pool("demo-fruit"))


def test_methods_without_words_need_no_words_for_the_criterion(cache, tmp_path):
    """A keyword of one's own, which the lexicon does not have."""
    rows = [f"{i}.png,{'old' if i % 2 else 'new'}" for i in range(8)]
    folder = tmp_path / "images"
    folder.mkdir()
    for i, image in enumerate(mm.load_dataset("demo-fruit", n=8).images):
        image.save(folder / f"{i}.png")
    (folder / "labels.csv").write_text("\n".join(["file,vintage", *rows]))
    axes = {"dataset": str(folder), "criterion": "vintage", "n": None}
    assert mm.run(small(method="KMeans", **axes), progress=False)["n"].tolist() == [8]
    with pytest.raises(ValueError, match="'vintage'"):
        mm.run(small(method="MultiSub", **axes), progress=False)
    words = ["old", "new"]
    assert len(mm.run(small(method="MultiSub", words=words, **axes), progress=False)) == 1
    by_seed = small(method="KMeans", dataset="demo-face", criterion="identity", seed=range(2))
    assert len(mm.run(by_seed, progress=False)) == 2


def test_a_damaged_row_is_computed_again(cache):
    row = mm.run(small(), progress=False).iloc[0]
    path = cache / "rows" / f"{row['key']}.json"
    path.write_text(path.read_text()[:20])
    with pytest.warns(UserWarning, match=row["key"]):
        assert read_row(row["key"]) is None
        again = mm.run(small(), progress=False).iloc[0]
    assert again["NMI"] == row["NMI"]
    assert json.loads(path.read_text())["key"] == row["key"]


def test_times_are_in_the_log_and_not_in_a_row(cache):
    rows = mm.run(small(), progress=False)
    assert not {"seconds", "time"} & set(rows.columns)
    log = pd.read_csv(cache / "runs.csv")
    assert tuple(log.columns) == run_log.COLUMNS
    assert log["key"].tolist() == rows["key"].tolist() and log["fit_seconds"].gt(0).all()
    assert log["method"].tolist() == ["MultiSub"] and log["process"].tolist() == [os.getpid()]
    assert log["code"].tolist() == [Workbench().code(small()[0])[:12]]


def test_too_little_memory_on_a_gpu_halves_the_chunks(cache, monkeypatch):
    import torch

    (e,) = small(n=20)
    labels = mm.load_dataset("demo-fruit", n=20).labels["color"]
    fit = mm.MultiSub.fit
    chunks = []

    def limited_to_10(model, images, y=None):
        chunks.append(model.chunk_size)
        if model.chunk_size > 10:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return fit(model, images, y)

    def always_too_little(*args):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    row = mm.run([e], progress=False).iloc[0]
    monkeypatch.setattr(mm.MultiSub, "fit", limited_to_10)
    first_chunk = Workbench().estimator(e).chunk_size
    with pytest.warns(UserWarning, match="10 images at a time"):
        fitted, seconds = Workbench().fit(e)
    assert chunks == [first_chunk, 10] and seconds > 0
    assert fitted.evaluate(labels, range(2))["NMI"] == pytest.approx(row["NMI"])
    monkeypatch.setattr(mm.MultiSub, "fit", always_too_little)
    with pytest.raises(torch.cuda.OutOfMemoryError), pytest.warns(UserWarning, match="1 images"):
        Workbench().fit(e)


def test_a_killed_run_continues_where_it_was(cache, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        "import mmclust as mm\n"
        "mm.run(mm.grid(dataset='demo-fruit', criterion='color', method='MultiSub', n=24,\n"
        f"               params={QUICK!r}, kmeans_seeds=2, seed=range(40)))\n"
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

    def written():
        return {path.name: path.stat().st_mtime_ns for path in cache.glob("rows/*.json")}

    finished = written()
    assert 3 <= len(finished) < 40
    rows = mm.run(small(seed=range(len(finished) + 2)), progress=False)
    assert len(rows) == len(finished) + 2
    assert finished.items() <= written().items(), "a finished row was written again"
