"""The estimators: scikit-learn's manners, the method's invariants, and errors before any work."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone

import mmclust as mm
from mmclust.methods.multisub import mix

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
QUICK = {"alternations": 2, "phase1_epochs": 30, "phase2_epochs": 3}


@pytest.fixture(scope="module")
def fruit():
    return mm.load_dataset("demo-fruit", n=120, seed=900)


def multisub(mini, **changes):
    return mm.MultiSub(
        mini,
        **(
            {"template": TEMPLATE, "words": WORDS, "n_clusters": 6, "random_state": 0}
            | QUICK
            | changes
        ),
    )


def test_a_keyword_beats_kmeans(mini, fruit):
    words = mm.reference_words("species", of="fruit")
    plain = mm.KMeans(mini, n_clusters=8, random_state=0).fit(fruit.images)
    model = multisub(mini, template=words.template, words=words, n_clusters=8).fit(fruit.images)
    y = fruit.labels["species"]
    assert model.evaluate(y, range(5))["NMI"] > plain.evaluate(y, range(5))["NMI"] + 0.2
    assert set(multisub(mini).fit(fruit.images).name_clusters()) >= {"red", "green", "blue"}


def test_what_fit_learns(mini, fruit):
    model = multisub(mini).fit(fruit.images)
    n = len(fruit)
    assert (
        model.labels_.shape == (n,)
        and model.labels_.dtype == np.int64
        and set(model.labels_) <= set(range(6))
    )
    assert model.weights_.shape == (n, len(WORDS)) and (model.weights_ >= 0).all()
    np.testing.assert_allclose(model.weights_.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(
        model.proxies_, model.weights_ @ mini.word_embeddings(WORDS).numpy(), atol=1e-5
    )
    with torch.no_grad():
        np.testing.assert_allclose(
            model.prompt_embeddings_,
            mini.prompt(TEMPLATE)(torch.from_numpy(model.proxies_)),
            atol=1e-5,
        )
    losses = [h["loss"] for h in model.history_ if h["phase"] == 1]
    assert losses[-1] < losses[0] - 0.05


@pytest.mark.parametrize(
    "representation, width", [("prompt", 128), ("word", 128), ("image", 128), ("word+image", 256)]
)
def test_representations(mini, fruit, representation, width):
    model = multisub(mini, representation=representation).fit(fruit.images)
    assert model.representation_.shape == (len(fruit), width)
    np.testing.assert_array_equal(model.representation_, model.represent(representation))


def test_as_many_words_as_clusters_need_no_kmeans(mini, fruit):
    model = multisub(mini, words=WORDS[:6], representation="assignment").fit(fruit.images)
    np.testing.assert_array_equal(model.labels_, model.weights_.argmax(1))
    assert model.evaluate(fruit.labels["color"])["NMI_std"] == 0


def test_same_seed_same_result_and_chunks_only_round(mini, fruit):
    one, two, chunks = (multisub(mini, **c).fit(fruit.images) for c in ({}, {}, {"chunk_size": 17}))
    np.testing.assert_array_equal(one.labels_, two.labels_)
    np.testing.assert_array_equal(one.proxies_, two.proxies_)
    assert one.history_[29]["loss"] == pytest.approx(chunks.history_[29]["loss"], abs=1e-4)
    assert mm.score(one.labels_, chunks.labels_)["NMI"] > 0.9


def test_permuting_the_images_permutes_the_proxies(mini, fruit):
    order = np.random.default_rng(0).permutation(len(fruit))
    one, other = (
        multisub(mini, alternations=1, phase2_epochs=0).fit(fruit.images),
        multisub(mini, alternations=1, phase2_epochs=0).fit(fruit.images[order]),
    )
    np.testing.assert_allclose(one.prompt_embeddings_[order], other.prompt_embeddings_, atol=2e-3)


def test_one_step_is_the_equations(mini):
    """Phase I's first gradient of p, from its definition in float64."""
    generator = torch.Generator().manual_seed(0)
    phi = torch.randn(4, 6, dtype=torch.float64, generator=generator)
    p = torch.randn(5, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    weights, proxies = mix(p, phi)
    for i in range(5):
        scores = torch.stack([torch.exp((p[i] * phi[k]).sum()) for k in range(4)])
        a = scores / scores.sum()
        assert (weights[i] - a).abs().max() < 1e-12
        assert (proxies[i] - sum(a[k] * phi[k] for k in range(4))).abs().max() < 1e-12


def test_sklearn_manners(mini, fruit):
    model = multisub(mini, lr=0.2)
    twin = clone(model)
    assert twin.encoder is mini and twin.get_params() == model.get_params() and twin is not model
    assert twin.set_params(lr=0.3).lr == 0.3 and model.lr == 0.2
    for estimator in (mm.KMeans(mini, n_clusters=3), mm.CLIP_GPT(mini, WORDS), multisub(mini)):
        assert clone(estimator).fit(fruit.images[:20]) is not estimator
        assert not [a for a in vars(estimator) if a.endswith("_")]
    np.testing.assert_array_equal(
        multisub(mini).fit_predict(fruit.images), multisub(mini).fit(fruit.images).labels_
    )


def test_lists_of_pictures(mini):
    pictures = [Image.new("RGB", (40, 30), c) for c in ("red", "blue", "red", "blue")]
    labels = mm.KMeans(mini, n_clusters=2, random_state=0).fit_predict(pictures)
    assert labels[0] == labels[2] != labels[1] == labels[3]


def test_one_cluster(mini, fruit):
    for model in (mm.KMeans(mini, n_clusters=1), multisub(mini, n_clusters=1)):
        assert (
            set(model.fit_predict(fruit.images[:10])) == {0}
            and len(model.evaluate(np.zeros(10, int))) == 5
        )
    assert multisub(mini, n_clusters=1).fit(fruit.images[:10]).name_clusters()[0] in WORDS


def test_clip_gpt(mini, fruit):
    model = mm.CLIP_GPT(mini, WORDS, template=TEMPLATE).fit(fruit.images)
    texts = mini.encode_texts([TEMPLATE.replace("*", w) for w in WORDS])
    nearest = [WORDS[k] for k in (mini.encode_images(fruit.images) @ texts.T).argmax(1)]
    assert [model.name_clusters()[c] for c in model.labels_] == nearest
    oracle = mm.CLIP_label(mini, fruit.classes["color"], template=TEMPLATE).fit(fruit.images)
    assert oracle.evaluate(fruit.labels["color"])["NMI"] > 0.8


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"n_clusters": 0}, "n_clusters must be a whole number from 1"),
        ({"n_clusters": 500}, "from 1 to the 20 images, or auto, not 500"),
        ({"n_clusters": 2.5}, "not 2.5"),
        ({"words": []}, "at least one reference word"),
        ({"words": "red"}, "must be a list"),
        ({"words": ["red", "blue", "red"]}, "stands twice: 'red'"),
        ({"template": "fruit with a color"}, "exactly one"),
        ({"representation": "pixels"}, "representation 'pixels' is none of"),
        ({"lam": 1.5}, "between 0 and 1"),
        ({"intra": "cubed"}, "squared"),
        ({"alternations": 0}, "at least 1"),
    ],
)
def test_bad_parameters_are_named_before_any_work(mini, fruit, monkeypatch, changes, message):
    monkeypatch.setattr(mini, "_run", lambda *args: pytest.fail("worked first"))
    with pytest.raises(ValueError, match=message):
        multisub(mini, **changes).fit(mm.load_dataset("demo-fruit", n=20, seed=901).images)


def test_no_images(mini):
    with pytest.raises(ValueError, match="no images"):
        mm.KMeans(mini, n_clusters=1).fit([])


def test_histories_in_long_form(mini):
    fruit = mm.load_dataset("tuning-fruit", n=30, seed=906)
    words = ["red", "green", "blue", "yellow", "white", "black", "pink", "brown"]
    common = dict(
        encoder=mini, template="fruit with a color of *", words=words, n_clusters=4, random_state=0
    )
    sub = (
        mm.MultiSub(**common, alternations=2, phase1_epochs=3, phase2_epochs=2)
        .fit(fruit.images)
        .history_frame()
    )
    assert sub.dropna(subset="event")[["epoch", "event"]].values.tolist() == [
        [4, "Phase II"],
        [6, "Phase I"],
        [9, "Phase II"],
    ]
    assert (
        sub["term"].tolist()
        == ["loss"] * 3 + ["loss of Phase II"] * 2 + ["loss"] * 3 + ["loss of Phase II"] * 2
    )
    dproxy = mm.MultiDProxy(**common, epochs=6, update_every=4).fit(fruit.images).history_frame()
    assert dproxy.dropna(subset="event")[["epoch", "event"]].drop_duplicates().values.tolist() == [
        [5, "8 to 4 candidates"]
    ]
    assert set(dproxy["term"]) == {"loss", "L_a", "L_u", "L_c", "L_align"}
    multimap = mm.MultiMaP(**common, concepts=["color", "species"], epochs=3).fit(fruit.images)
    long = multimap.history_frame()
    assert long["event"].isna().all() and long[long["term"] == "align"]["value"].tolist() == [
        row["align"] for row in multimap.history_
    ]
