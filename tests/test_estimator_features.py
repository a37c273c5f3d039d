"""What the papers do not have: a chosen number of clusters, names with scores, predict, explain,
early stopping, several keywords at once, a progress bar."""

import os
import re
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pandas as pd
import papermill
import pytest
import sklearn.cluster
from helpers.notebooks import write_notebook
from sklearn.exceptions import NotFittedError
from sklearn.metrics import silhouette_score

import mmclust as mm
from mmclust.methods.n_clusters import choose_n_clusters

TEMPLATE = "fruit with a color of *"
WORDS = [
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "white", "black", "gray",
    "gold",
]  # fmt: skip
QUICK = {
    "MultiMaP": {"epochs": 20, "beta": 1.0, "reduction": "relative"},
    "MultiSub": {"lr": 0.1, "alternations": 2, "phase1_epochs": 30, "phase2_epochs": 3},
    "MultiDProxy": {
        "lr": 0.1, "fusion_lr": 1e-4, "epochs": 40, "update_every": 20, "align_weight": 3.0,
        "score": "max", "user_weight": 0.1, "concept_weight": 0.1,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def fruit():
    return mm.load_dataset("tuning-fruit", n=150, seed=903)


def build(mini, method, **changes):
    common = {"template": TEMPLATE, "words": WORDS, "n_clusters": 6, "random_state": 0}
    return getattr(mm, method)(mini, **common | QUICK[method] | changes)


@pytest.fixture(scope="module")
def fitted(mini, fruit):
    return {method: build(mini, method).fit(fruit.images) for method in QUICK}


# --- the number of clusters ----------------------------------------------------------------------


def blobs(rng, m, n=200, d=8, spread=0.05):
    return rng.normal(size=(m, d))[rng.integers(m, size=n)] + spread * rng.normal(size=(n, d))


@pytest.mark.parametrize("m", [2, 3, 5, 9])
def test_separate_clusters_are_counted(m):
    n_clusters, curve = choose_n_clusters(blobs(np.random.default_rng(m), m), most=14)
    assert n_clusters == m
    assert curve["n_clusters"].tolist() == list(range(2, 15))
    assert curve["criterion"].max() == curve["criterion"][m - 2] > 0.7


def test_the_curve_is_scikit_learns_silhouette():
    x = blobs(np.random.default_rng(0), 4)
    best = sklearn.cluster.KMeans(4, n_init=20, random_state=0).fit_predict(x)
    curve = choose_n_clusters(x, 5)[1]
    assert curve["criterion"][2] == pytest.approx(silhouette_score(x, best))


@pytest.mark.parametrize("method", ["MultiSub", "MultiDProxy"])
def test_auto_counts_the_colors(mini, fruit, method):
    model = build(mini, method, n_clusters="auto").fit(fruit.images)
    assert abs(model.n_clusters_ - fruit.n_clusters("color")) <= 1
    assert set(model.labels_) <= set(range(model.n_clusters_))
    assert model.n_clusters == "auto"
    assert model.n_clusters_curve_["n_clusters"].min() == 2
    model.set_params(n_clusters=3).fit(fruit.images)  # nothing is left of the earlier fit
    assert model.n_clusters_ == 3
    assert model.n_clusters_curve_ is None


def test_auto_of_kmeans_is_the_maximum_of_the_curve(mini, fruit):
    model = mm.KMeans(mini, n_clusters="auto", random_state=0).fit(fruit.images)
    curve = model.n_clusters_curve_.set_index("n_clusters")["criterion"]
    assert model.n_clusters_ == curve.idxmax()


# --- names, predict, explain ---------------------------------------------------------------------


def test_names_come_with_scores(mini, fruit, fitted):
    for model in fitted.values():
        table = model.name_clusters(scores=True)
        assert table["name"].tolist() == model.name_clusters()
        assert (table["next"] != table["name"]).all()
        assert table["size"].tolist() == np.bincount(model.labels_).tolist()
    model = fitted["MultiSub"]
    similarity = mini.encode_images(fruit.images) @ mini.encode_words(WORDS, TEMPLATE).T
    for row in model.name_clusters(scores=True).itertuples():
        cosines = similarity[:, WORDS.index(row.name)]
        score = cosines[model.labels_ == row.cluster].mean() - cosines.mean()
        assert row.score == pytest.approx(score, abs=0.02)  # training moves v a little
    zero_shot = mm.CLIP_GPT(mini, WORDS, template=TEMPLATE).fit(fruit.images)
    assert zero_shot.name_clusters(scores=True)["name"].tolist() == zero_shot.name_clusters()


@pytest.mark.parametrize(
    "method, least", [("MultiMaP", 0.999), ("MultiSub", 0.95), ("MultiDProxy", 0.9)]
)
def test_predict_on_the_training_images(fruit, fitted, method, least):
    model = fitted[method]
    labels = model.predict(fruit.images)
    assert labels.dtype == np.int64
    assert mm.score(model.labels_, labels)["ARI"] > least
    # An image's cluster does not depend on the images it is predicted with.
    assert (labels[:10] == model.predict(fruit.images[:10])).mean() >= 0.9


@pytest.mark.parametrize("method", list(QUICK))
def test_predict_on_new_images(fitted, method):
    new = mm.load_dataset("tuning-fruit", n=60, seed=904)
    model = fitted[method]
    before = model.labels_.copy()
    assert mm.score(new.labels["color"], model.predict(new.images))["NMI"] > 0.75
    np.testing.assert_array_equal(model.labels_, before)


@pytest.mark.parametrize(
    "method, representation, least",
    [
        ("MultiSub", "word", 0.85),
        ("MultiSub", "image", 0.85),
        ("MultiSub", "word+image", 0.85),
        ("MultiSub", "word-eot", 0.85),
        ("MultiMaP", "image", 0.85),
        ("MultiDProxy", "text", 0.6),
        ("MultiDProxy", "concatenation", 0.6),
    ],
)
def test_predict_in_the_current_representation(fruit, fitted, method, representation, least):
    model = fitted[method]
    first = model.current_representation_
    try:
        labels = model.use_representation(representation).labels_
        assert mm.score(labels, model.predict(fruit.images))["ARI"] > least
    finally:
        model.use_representation(first)


def test_predict_of_the_other_estimators(mini, fruit):
    for model in (
        mm.KMeans(mini, n_clusters=4, random_state=0),
        mm.CLIP_GPT(mini, WORDS, template=TEMPLATE),
    ):
        labels = model.fit_predict(fruit.images)
        np.testing.assert_array_equal(model.predict(fruit.images), labels)


@pytest.mark.parametrize("words", [["white", "pink", "brown", "gray", "black", "blue"], WORDS])
def test_predict_of_the_assignment(mini, fruit, words):
    model = build(mini, "MultiSub", words=words, representation="assignment").fit(fruit.images)
    assert (model.representation_ is None) == (len(words) == 6)  # else k-means on [w, v]
    assert model.current_representation_ == "assignment"
    assert mm.score(model.labels_, model.predict(fruit.images))["ARI"] > 0.8


def test_predict_before_fit_and_without_images(mini, fruit, fitted):
    with pytest.raises(NotFittedError):
        build(mini, "MultiSub").predict(fruit.images)
    with pytest.raises(ValueError, match="no images"):
        fitted["MultiSub"].predict([])


@pytest.mark.parametrize("method", list(QUICK))
def test_explain(fitted, method):
    model = fitted[method]
    weights = model.explain(3)
    assert isinstance(weights, pd.Series)
    assert weights.sum() == pytest.approx(1, abs=1e-4)
    assert weights.is_monotonic_decreasing
    assert set(weights.index) == set(getattr(model, "candidates_", WORDS))
    assert model.explain(3, top=2).index.tolist() == weights.index[:2].tolist()
    pd.testing.assert_series_equal(
        model.explain().loc[3][weights.index], weights, check_names=False
    )


def test_explain_gives_the_color(fruit, fitted):
    model = fitted["MultiSub"]
    np.testing.assert_allclose(model.explain(5)[WORDS], model.weights_[5])
    colors = [fruit.classes["color"][label] for label in fruit.labels["color"][:60]]
    right = [model.explain(i).index[0] == c for i, c in enumerate(colors) if c in WORDS]
    assert np.mean(right) > 0.9
    for i in (len(fruit), -len(fruit) - 1):
        with pytest.raises(IndexError, match=f"image {i} of 150"):
            model.explain(i)


# --- early stopping ------------------------------------------------------------------------------


def test_checks_of_early_stopping_do_not_choose_the_number_of_clusters(mini):
    """The first check sees prompts that are hardly trained."""
    images = mm.load_dataset("demo-fruit", n=150, seed=3).images
    options = {"epochs": 60, "lr": 0.05, "dynamic": False, "n_checks": 1000, "random_state": 0}
    words = mm.reference_words("species", of="fruit")
    complete, checked = (
        mm.MultiDProxy(mini, words, n_clusters="auto", early_stopping=early, **options).fit(images)
        for early in (False, True)
    )
    assert len(checked.history_) == 60 and checked.n_clusters_ == complete.n_clusters_
    np.testing.assert_array_equal(checked.labels_, complete.labels_)


@pytest.mark.parametrize(
    "method, long",
    [
        ("MultiMaP", {"epochs": 250}),
        ("MultiSub", {"phase1_epochs": 100}),
        ("MultiDProxy", {"epochs": 80, "check_every": 5}),
    ],
)
def test_early_stopping_ends_near_the_full_run(mini, fruit, method, long):
    full = build(mini, method, **long).fit(fruit.images)
    stopped = build(mini, method, early_stopping=True, **long).fit(fruit.images)
    assert len(stopped.history_) < len(full.history_)
    assert len(stopped.seconds_) == len(stopped.history_)
    nmi = [m.evaluate(fruit.labels["color"], range(3))["NMI"] for m in (full, stopped)]
    assert abs(nmi[0] - nmi[1]) < 0.05
    if method == "MultiDProxy":
        assert len(stopped.candidates_) == 6
        assert len(stopped.history_) > stopped.updates_[-1]["epoch"]
    if method == "MultiMaP":
        assert stopped.history_[-1]["loss"] == pytest.approx(full.history_[-1]["loss"], rel=0.02)


def test_dproxy_never_stops_before_the_last_pruning(mini, fruit):
    options = {"epochs": 60, "update_every": 25, "check_every": 2, "n_checks": 1, "agreement": -1.0}
    model = build(mini, "MultiDProxy", early_stopping=True, **options).fit(fruit.images)
    assert len(model.history_) > 25
    assert len(model.candidates_) == 6


# --- several keywords ----------------------------------------------------------------------------


def test_several_keywords_share_features(mini, monkeypatch):
    runs = []
    batches = mini._batches
    monkeypatch.setattr(mini, "_batches", lambda *args: runs.append(1) or batches(*args))
    pictures = mm.load_dataset("tuning-fruit", n=90, seed=905)
    options = {"alternations": 1, "phase1_epochs": 40, "lr": 0.1}
    models = mm.cluster_by(pictures.images, ["color", "species"], mini, of="fruit", **options)
    assert len(runs) == 1
    assert list(models) == ["color", "species"]
    assert models.labels.shape == (90, 2)
    for keyword in models:
        assert mm.score(pictures.labels[keyword], models.labels[keyword])["NMI"] > 0.7
    table = models.difference
    assert table.loc["color", "color"] == 0
    assert table.loc["color", "species"] > 0.6
    assert (table == table.T).all(axis=None)
    assert set(models.names["color"]) <= set(models["color"].words)


def test_options_of_several_keywords(mini):
    images = mm.load_dataset("tuning-fruit", n=20, seed=905).images
    counts = {"color": 6, "species": 8}
    models = mm.cluster_by(
        images, list(counts), mini, of="fruit", n_clusters=counts, method=mm.MultiMaP, epochs=2
    )
    assert models["species"].concepts == ["species", "color"]
    assert models["species"].n_clusters_ == 8
    words = {"size": ["big", "small"]}
    options = {"n_clusters": 2, "alternations": 1, "phase1_epochs": 2}
    models = mm.cluster_by(images, "size", mini, of="fruit", words=words, **options)
    assert models["size"].words == ["big", "small"]
    assert models["size"].words.template == "fruit with a size of *"


@pytest.mark.parametrize("method", list(QUICK))
def test_fits_in_threads_are_those_of_one_after_the_other(mini, fruit, method):
    images = fruit.images[:40]

    def fit(seed):
        options = QUICK[method] | {"n_clusters": 3, "random_state": seed}
        model = getattr(mm, method)(mini, WORDS, template=TEMPLATE, **options)
        return model.fit(images).representation_

    alone = [fit(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as threads:
        for one, other in zip(alone, threads.map(fit, range(4))):
            np.testing.assert_array_equal(one, other)


# --- progress -----------------------------------------------------------------------------

SETUP = """
import threading
import mmclust as mm
from mmclust.methods import training
assert training.QUIET_SECONDS == 2
training.QUIET_SECONDS = 0.2
data = mm.load_dataset("demo-fruit", n=20, seed=0)
encoder = mm.load_encoder("mini")
words = mm.reference_words("color", of="fruit")
slow, short = {"epochs": 200}, {"epochs": 1}
def fit(method=mm.MultiMaP, **params):
    method(encoder, words, n_clusters=3, random_state=0, **params).fit(data.images)
"""
FITS = {  # a cell -> the title of the progress bar that it shows, "" for none
    "fit(**slow)": "Multi-MaP",
    "fit(mm.MultiSub, phase1_epochs=200, alternations=1)": "Multi-Sub",
    "fit(mm.MultiDProxy, **slow)": "Multi-DProxy",
    "fit(verbose=True, **short)": "Multi-MaP",
    "fit(**short)": "",
    "fit(verbose=False, **slow)": "",
    "thread = threading.Thread(target=fit, kwargs=slow); thread.start(); thread.join()": "",
    'mm.run(mm.grid(dataset="demo-fruit", criterion="color", method="MultiMaP", n=20, '
    "params=slow), progress=False);": "",
}


def bars(cell) -> list[str]:
    texts = [output["text"] for output in cell["outputs"] if output.get("name") == "stderr"]
    return re.findall(r"(Multi-\w+): +\d+%", "".join(texts))


@pytest.mark.parametrize("disabled", ["", pytest.param("1", marks=pytest.mark.slow)])
def test_a_notebook_shows_the_progress_of_a_long_fit(tmp_path, monkeypatch, disabled):
    """`run_all.py` starts its kernels with TQDM_DISABLE=1."""
    monkeypatch.setenv("MMCLUST_CACHE", str(tmp_path))
    monkeypatch.setenv("TQDM_DISABLE", disabled)
    path = tmp_path / "fits.ipynb"
    write_notebook(path, SETUP, *FITS)
    options = {"kernel_name": "python3", "progress_bar": False}
    book = papermill.execute_notebook(path, path, **options)
    for cell, title in zip(book.cells[1:], FITS.values()):
        expected = {title} - {""} if not disabled else set()
        assert set(bars(cell)) == expected, cell["source"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals")
@pytest.mark.slow
@pytest.mark.parametrize("terminal", [True, False])
def test_a_script_shows_progress_in_a_terminal_alone(monkeypatch, terminal):
    import fcntl
    import termios

    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    reading, writing = os.openpty() if terminal else os.pipe()
    if terminal:
        fcntl.ioctl(writing, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [sys.executable, "-c", f"{SETUP}\nfit(**slow)"]
    with subprocess.Popen(command, stderr=writing) as process:
        os.close(writing)
        text = b""
        with suppress(OSError):  # how Linux ends a pseudo-terminal
            while chunk := os.read(reading, 4096):
                text += chunk
    os.close(reading)
    assert process.returncode == 0, text
    assert (b"Multi-MaP" in text) == terminal
