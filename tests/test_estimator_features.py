"""What none of the papers has: auto M, names with scores, predict, explain, early stopping, several keywords at once."""

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

import mmclust as mm
from mmclust.methods.n_clusters import choose_n_clusters, silhouette_curve

TEMPLATE, WORDS = (
    "fruit with a color of *",
    [
        "red",
        "orange",
        "yellow",
        "green",
        "blue",
        "purple",
        "pink",
        "brown",
        "white",
        "black",
        "gray",
        "gold",
    ],
)
QUICK = {
    "MultiMaP": {"epochs": 20, "beta": 1.0, "reduction": "relative"},
    "MultiSub": {"lr": 0.1, "alternations": 2, "phase1_epochs": 30, "phase2_epochs": 3},
    "MultiDProxy": {
        "lr": 0.1,
        "fusion_lr": 1e-4,
        "epochs": 40,
        "update_every": 20,
        "align_weight": 3.0,
        "score": "max",
        "user_weight": 0.1,
        "concept_weight": 0.1,
    },
}


@pytest.fixture(scope="module")
def fruit():
    return mm.load_dataset("tuning-fruit", n=150, seed=903)


def build(mini, method, **changes):
    kind = getattr(mm, method)
    return kind(
        mini,
        **{"template": TEMPLATE, "words": WORDS, "n_clusters": 6, "random_state": 0}
        | QUICK[method]
        | changes,
    )


@pytest.fixture(scope="module")
def fitted(mini, fruit):
    return {method: build(mini, method).fit(fruit.images) for method in QUICK}


def blobs(rng, m, n=200, d=8, spread=0.05):
    return rng.normal(size=(m, d))[rng.integers(m, size=n)] + spread * rng.normal(size=(n, d))


@pytest.mark.parametrize("m", [2, 3, 5, 9])
def test_separate_clusters_are_counted(m):
    found, curve = choose_n_clusters(blobs(np.random.default_rng(m), m), most=14)
    assert found == m and curve["n_clusters"].tolist() == list(range(2, 15))
    assert curve["criterion"].max() == curve["criterion"][m - 2] > 0.7


def test_the_curve_is_scikit_learns_silhouette():
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    x = blobs(np.random.default_rng(0), 4)
    curve = silhouette_curve(x, 4)
    best = KMeans(4, n_init=20, random_state=0).fit_predict(x)
    assert curve["criterion"][2] == pytest.approx(silhouette_score(x, best))


@pytest.mark.parametrize("method", ["MultiSub", "MultiDProxy"])
def test_auto_counts_the_colors(mini, fruit, method):
    model = build(mini, method, n_clusters="auto").fit(fruit.images)
    assert abs(model.n_clusters_ - fruit.n_clusters("color")) <= 1
    assert set(model.labels_) <= set(range(model.n_clusters_)) and model.n_clusters == "auto"
    assert model.n_clusters_curve_["n_clusters"].min() == 2
    plain = mm.KMeans(mini, n_clusters="auto", random_state=0).fit(fruit.images)
    assert (
        plain.n_clusters_ == plain.n_clusters_curve_.set_index("n_clusters")["criterion"].idxmax()
    )
    assert (
        model.set_params(n_clusters=3).fit(fruit.images).n_clusters_ == 3
    )  # the count of an earlier fit does not stay


def test_auto_with_too_few_images_or_words_says_so(mini, fruit):
    with pytest.raises(ValueError, match="at least 3 images"):
        build(mini, "MultiSub", n_clusters="auto").fit(fruit.images[:2])
    with pytest.raises(ValueError, match="at least 2 reference words"):
        mm.MultiSub(mini, ["red"], template=TEMPLATE, n_clusters="auto").fit(fruit.images[:20])


def test_names_come_with_scores(mini, fruit, fitted):
    for model in fitted.values():
        table = model.name_clusters(scores=True)
        assert table["name"].tolist() == model.name_clusters() and table["size"].sum() == len(fruit)
        assert (table["next"] != table["name"]).all() and table["size"].tolist() == np.bincount(
            model.labels_
        ).tolist()
    table = fitted["MultiSub"].name_clusters(scores=True)
    texts = mini.encode_words(WORDS, TEMPLATE)
    similarity = mini.encode_images(fruit.images) @ texts.T
    for row in table.itertuples():
        k = WORDS.index(row.name)
        own = (
            similarity[fitted["MultiSub"].labels_ == row.cluster, k].mean()
            - similarity[:, k].mean()
        )
        assert row.score == pytest.approx(
            own, abs=0.02
        )  # v is the learned one: Phase I and II move P a little
    zero = mm.CLIP_GPT(mini, WORDS, template=TEMPLATE).fit(fruit.images)
    assert zero.name_clusters(scores=True)["name"].tolist() == zero.name_clusters()


@pytest.mark.parametrize("method", list(QUICK))
def test_predict_knows_the_training_images(fruit, fitted, method):
    model = fitted[method]
    again = model.predict(fruit.images)
    assert (
        again.dtype == np.int64
        and mm.score(model.labels_, again)["ARI"]
        > {"MultiMaP": 0.999, "MultiSub": 0.95, "MultiDProxy": 0.9}[method]
    )
    assert (
        again[:10] == model.predict(fruit.images[:10])
    ).mean() >= 0.9  # an image's cluster does not hang on its company


@pytest.mark.parametrize("method", list(QUICK))
def test_predict_on_images_not_seen(fruit, fitted, method):
    new = mm.load_dataset("tuning-fruit", n=60, seed=904)
    model = fitted[method]
    before = model.labels_.copy()
    assert mm.score(new.labels["color"], model.predict(new.images))["NMI"] > 0.75
    np.testing.assert_array_equal(model.labels_, before)


@pytest.mark.parametrize("method, representation", [("MultiSub", "word"), ("MultiSub", "image"), ("MultiSub", "word+image"), ("MultiSub", "word-eot"),
                                                    ("MultiMaP", "image"), ("MultiDProxy", "text"), ("MultiDProxy", "concatenation")])  # fmt: skip
def test_predict_in_the_chosen_representation(fruit, fitted, method, representation):
    model = fitted[method]
    first = model.chosen_
    try:
        assert mm.score(
            model.use_representation(representation).labels_, model.predict(fruit.images)
        )["ARI"] > (0.85 if method != "MultiDProxy" else 0.6)
    finally:
        model.use_representation(first)


def test_predict_of_the_others(mini, fruit):
    plain = mm.KMeans(mini, n_clusters=4, random_state=0).fit(fruit.images)
    np.testing.assert_array_equal(plain.predict(fruit.images), plain.labels_)
    zero = mm.CLIP_GPT(mini, WORDS, template=TEMPLATE).fit(fruit.images)
    np.testing.assert_array_equal(zero.predict(fruit.images), zero.labels_)
    six = build(
        mini,
        "MultiSub",
        words=["white", "pink", "brown", "gray", "black", "blue"],
        representation="assignment",
    ).fit(fruit.images)
    assert six.representation_ is None
    assert mm.score(six.labels_, six.predict(fruit.images))["ARI"] > 0.9


def test_predict_before_fit_and_of_nothing(mini, fruit, fitted):
    with pytest.raises(NotFittedError):
        build(mini, "MultiSub").predict(fruit.images)
    with pytest.raises(ValueError, match="no images"):
        fitted["MultiSub"].predict([])


def test_explain(mini, fruit, fitted):
    for method, model in fitted.items():
        weights = model.explain(3)
        assert (
            isinstance(weights, pd.Series)
            and weights.sum() == pytest.approx(1, abs=1e-4)
            and weights.is_monotonic_decreasing
        )
        assert set(weights.index) == set(getattr(model, "candidates_", WORDS)), method
        assert model.explain(3, top=2).index.tolist() == weights.index[:2].tolist()
    model = fitted["MultiSub"]
    np.testing.assert_allclose(model.explain(5)[WORDS], model.weights_[5])
    known = [i for i in range(60) if fruit.classes["color"][fruit.labels["color"][i]] in WORDS]
    assert (
        np.mean(
            [
                model.explain(i).index[0] == fruit.classes["color"][fruit.labels["color"][i]]
                for i in known
            ]
        )
        > 0.9
    )
    for i in (len(fruit), -len(fruit) - 1):
        with pytest.raises(IndexError, match="of 150"):
            model.explain(i)


@pytest.mark.parametrize("method", list(QUICK))
def test_early_stopping_stops_and_agrees(mini, fruit, method):
    long = {
        "MultiMaP": {"epochs": 250},
        "MultiSub": {"phase1_epochs": 100},
        "MultiDProxy": {"epochs": 80, "check_every": 5},
    }[method]
    full = build(mini, method, **long).fit(fruit.images)
    stopped = build(mini, method, early_stopping=True, **long).fit(fruit.images)
    assert len(stopped.history_) < len(full.history_) and len(stopped.seconds_) == len(
        stopped.history_
    )
    nmi = [m.evaluate(fruit.labels["color"], range(3))["NMI"] for m in (full, stopped)]
    assert abs(nmi[0] - nmi[1]) < 0.05
    if method == "MultiDProxy":
        assert (
            len(stopped.candidates_) == 6 and len(stopped.history_) > stopped.updates_[-1]["epoch"]
        )
    if method == "MultiMaP":
        assert stopped.history_[-1]["loss"] == pytest.approx(full.history_[-1]["loss"], rel=0.02)


def test_dproxy_never_stops_before_the_last_pruning(mini, fruit):
    model = build(
        mini,
        "MultiDProxy",
        early_stopping=True,
        epochs=60,
        update_every=25,
        check_every=2,
        n_checks=1,
        agreement=-1.0,
    ).fit(fruit.images)
    assert len(model.history_) > 25 and len(model.candidates_) == 6


def test_several_keywords_share_features(mini, fruit, monkeypatch):
    runs, trunk = [], mini._run
    monkeypatch.setattr(mini, "_run", lambda *a: runs.append(1) or trunk(*a))
    pictures = mm.load_dataset("tuning-fruit", n=90, seed=905)
    found = mm.cluster_by(
        pictures.images,
        ["color", "species"],
        mini,
        of="fruit",
        alternations=1,
        phase1_epochs=40,
        lr=0.1,
    )
    assert len(runs) == 1 and list(found) == ["color", "species"] and found.labels.shape == (90, 2)
    for keyword in found:
        assert mm.score(pictures.labels[keyword], found.labels[keyword])["NMI"] > 0.7
    table = found.difference
    assert (
        table.loc["color", "color"] == pytest.approx(0, abs=1e-9)
        and table.loc["color", "species"] > 0.6
    )
    assert (table.to_numpy() == table.to_numpy().T).all()
    assert set(found.names["color"]) <= set(found["color"].words)
    maps = mm.cluster_by(
        pictures.images,
        ["color", "species"],
        mini,
        of="fruit",
        n_clusters={"color": 6, "species": 8},
        method=mm.MultiMaP,
        epochs=2,
    )
    assert maps["species"].concepts == ["species", "color"] and maps["species"].n_clusters_ == 8
    own = mm.cluster_by(
        pictures.images,
        "size",
        mini,
        of="fruit",
        words={"size": ["big", "small"]},
        n_clusters=2,
        alternations=1,
        phase1_epochs=2,
    )
    assert own["size"].template == "fruit with a size of *"


@pytest.mark.parametrize(
    "keywords, options, message",
    [
        ([], {}, "at least one keyword"),
        (["color", "color"], {}, "none twice"),
        (["flavour"], {}, "no words for 'flavour'"),
        (["color", "species"], {"n_clusters": {"color": 3}}, "nothing about 'species'"),
    ],
)
def test_bad_keywords(mini, fruit, monkeypatch, keywords, options, message):
    monkeypatch.setattr(mini, "_run", lambda *args: pytest.fail("worked first"))
    with pytest.raises(ValueError, match=message):
        mm.cluster_by(fruit.images, keywords, mini, of="fruit", **options)
