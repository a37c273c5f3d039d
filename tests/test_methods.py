"""What the estimators learn, cluster and report, with the embedded encoder."""

import dataclasses

import numpy as np
import pytest
import sklearn.cluster
import torch
import torch.nn.functional as F
from PIL import Image

import mmclust as mm
from mmclust.experiments.workbench import Workbench

TEMPLATE = "fruit with a color of *"
WORDS = [
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "white", "black", "gray",
    "gold",
]  # fmt: skip
QUICK = {"alternations": 2, "phase1_epochs": 30, "phase2_epochs": 3}
SHORT = {"alternations": 1, "phase1_epochs": 2, "phase2_epochs": 0}


@pytest.fixture(scope="module")
def fruit():
    return mm.load_dataset("demo-fruit", n=120, seed=900)


@pytest.fixture
def kmeans_runs(monkeypatch):
    """The number of rows of every k-means that is run."""
    runs = []
    fit = sklearn.cluster.KMeans.fit

    def counted(self, x, *args, **options):
        runs.append(len(x))
        return fit(self, x, *args, **options)

    monkeypatch.setattr(sklearn.cluster.KMeans, "fit", counted)
    return runs


def multisub(mini, **changes):
    options = {"template": TEMPLATE, "words": WORDS, "n_clusters": 6, "random_state": 0}
    return mm.MultiSub(mini, **options | QUICK | changes)


def multimap(mini, **changes):
    options = {"template": TEMPLATE, "n_clusters": 6, "random_state": 0, "epochs": 15}
    return mm.MultiMaP(mini, WORDS, **options | {"concepts": ["color", "species"]} | changes)


def test_a_keyword_beats_kmeans(mini, fruit):
    words = mm.reference_words("species", of="fruit")
    kmeans = mm.KMeans(mini, n_clusters=8, random_state=0).fit(fruit.images)
    model = multisub(mini, template=None, words=words, n_clusters=8).fit(fruit.images)
    y = fruit.labels["species"]
    assert model.evaluate(y, range(5))["NMI"] > kmeans.evaluate(y, range(5))["NMI"] + 0.2
    assert set(multisub(mini).fit(fruit.images).name_clusters()) >= {"red", "green", "blue"}


@pytest.mark.parametrize("method", ["CLIP_GPT", "MultiMaP"])
def test_without_a_template_that_of_the_words_is_taken(mini, fruit, method):
    words = mm.reference_words("color", of="fruit")
    options = {} if method == "CLIP_GPT" else {"n_clusters": 6, "epochs": 1, "random_state": 0}
    build = getattr(mm, method)
    model = build(mini, words, **options).fit(fruit.images[:20])
    same = build(mini, list(words), template=words.template, **options).fit(fruit.images[:20])
    np.testing.assert_array_equal(model.labels_, same.labels_)
    np.testing.assert_array_equal(model.explain(), same.explain())
    assert model.template is None
    other = build(mini, words, template="*", **options).fit(fruit.images[:20])
    assert not np.array_equal(model.explain(), other.explain())


def test_what_fit_learns(mini, fruit):
    model = multisub(mini).fit(fruit.images)
    n = len(fruit)
    assert model.labels_.shape == (n,)
    assert model.labels_.dtype == np.int64
    assert set(model.labels_) <= set(range(6))
    phi = mini.word_embeddings(WORDS).numpy()
    np.testing.assert_allclose(model.proxies_, model.weights_ @ phi, atol=1e-5)
    with torch.no_grad():
        prompts = mini.prompt(TEMPLATE)(torch.from_numpy(model.proxies_))
    np.testing.assert_allclose(model.prompt_embeddings_, prompts, atol=1e-5)
    losses = [row["loss"] for row in model.history_ if row["phase"] == 1]
    assert losses[-1] < losses[0] - 0.05


@pytest.mark.parametrize(
    "representation, width", [("prompt", 128), ("word", 128), ("image", 128), ("word+image", 256)]
)
def test_representations(mini, fruit, representation, width):
    model = multisub(mini, representation=representation, **SHORT).fit(fruit.images)
    assert model.representation_.shape == (len(fruit), width)
    assert model.current_representation_ == representation
    np.testing.assert_array_equal(model.representation_, model.represent(representation))


def test_kmeans_runs_only_for_another_representation(mini, fruit, kmeans_runs):
    model = multisub(mini, **SHORT).fit(fruit.images)
    assert kmeans_runs == [len(fruit)]
    labels = model.labels_
    assert model.use_representation("prompt").labels_ is labels
    assert len(kmeans_runs) == 1
    assert model.use_representation("word").current_representation_ == "word"
    assert len(kmeans_runs) == 2
    with pytest.raises(ValueError, match=r"representation 'words'.*did you mean 'word'"):
        model.use_representation("words")
    model.fit(fruit.images)  # a new fit clusters its own representation
    assert model.current_representation_ == "prompt"
    assert len(kmeans_runs) == 3


@pytest.mark.parametrize("representation, n_kmeans", [(None, 11), ("word", 12)])
def test_a_row_runs_kmeans_once_per_seed_and_clustering(
    kmeans_runs, representation, n_kmeans, tmp_path, monkeypatch
):
    monkeypatch.setenv("MMCLUST_CACHE", str(tmp_path))
    (experiment,) = mm.grid(
        dataset="demo-fruit", criterion="color", n=30, method="MultiSub", params=SHORT
    )
    bench = Workbench()
    model, seconds = bench.fit(experiment)
    assert len(kmeans_runs) == 1
    scored = dataclasses.replace(experiment, representation=representation)
    bench.row(model, scored, bench.key(scored), seconds)
    assert len(kmeans_runs) == n_kmeans


def test_as_many_words_as_clusters_need_no_kmeans(mini, fruit, kmeans_runs):
    model = multisub(mini, words=WORDS[:6], representation="assignment", **SHORT).fit(fruit.images)
    np.testing.assert_array_equal(model.labels_, model.weights_.argmax(1))
    assert model.evaluate(fruit.labels["color"])["NMI_std"] == 0
    assert not kmeans_runs


def test_lists_of_pictures(mini):
    pictures = [Image.new("RGB", (40, 30), c) for c in ("red", "blue", "red", "blue")]
    labels = mm.KMeans(mini, n_clusters=2, random_state=0).fit_predict(pictures)
    assert labels[0] == labels[2] != labels[1] == labels[3]


def test_one_cluster(mini, fruit):
    for model in (mm.KMeans(mini, n_clusters=1), multisub(mini, n_clusters=1, **SHORT)):
        assert set(model.fit_predict(fruit.images[:10])) == {0}
        assert len(model.evaluate(np.zeros(10, int))) == 5


def test_clip_gpt(mini, fruit):
    model = mm.CLIP_GPT(mini, WORDS, template=TEMPLATE).fit(fruit.images)
    texts = mini.encode_texts([TEMPLATE.replace("*", w) for w in WORDS])
    nearest = [WORDS[k] for k in (mini.encode_images(fruit.images) @ texts.T).argmax(1)]
    assert [model.name_clusters()[c] for c in model.labels_] == nearest
    oracle = mm.CLIP_label(mini, fruit.classes["color"], template=TEMPLATE).fit(fruit.images)
    assert oracle.evaluate(fruit.labels["color"])["NMI"] > 0.8


def test_multimap_starts_at_the_reference_word_and_beta_holds_it(mini, fruit):
    phi = mini.word_embeddings(WORDS).numpy()
    nearest = mm.CLIP_GPT(mini, WORDS, template=TEMPLATE).fit(fruit.images).similarity_.argmax(1)
    drift = []
    for beta in (0.0, 1.0, 100.0):
        model = multimap(mini, beta=beta, alpha=0.0).fit(fruit.images)
        np.testing.assert_array_equal(model.reference_, nearest)
        assert model.history_[0]["reference"] == 0
        drift.append(np.linalg.norm(model.proxies_ - phi[model.reference_], axis=1).mean())
    assert drift[0] > drift[1] > drift[2]


def test_multimap_pulls_the_proxies_to_the_users_concept(mini, fruit):
    concepts = mini.word_embeddings(["color", "species"])
    closeness = []
    for alpha in (0.0, 1.0):
        w = torch.from_numpy(multimap(mini, alpha=alpha, beta=0.0).fit(fruit.images).proxies_)
        cosines = F.normalize(w, dim=-1) @ F.normalize(concepts, dim=-1).T
        closeness.append((cosines[:, 0] - cosines[:, 1]).mean().item())
    assert closeness[1] > closeness[0]


def test_histories_in_long_form(mini):
    images = mm.load_dataset("tuning-fruit", n=30, seed=906).images
    words = ["red", "green", "blue", "yellow", "white", "black", "pink", "brown"]
    common = {"template": TEMPLATE, "n_clusters": 4, "random_state": 0}

    sub = mm.MultiSub(mini, words, **common, alternations=2, phase1_epochs=3, phase2_epochs=2)
    frame = sub.fit(images).history_frame()
    events = frame.dropna(subset="event")[["epoch", "event"]].values.tolist()
    assert events == [[4, "Phase II"], [6, "Phase I"], [9, "Phase II"]]
    assert frame["term"].tolist() == 2 * (3 * ["loss"] + 2 * ["loss of Phase II"])

    dproxy = mm.MultiDProxy(mini, words, **common, epochs=6, update_every=4)
    frame = dproxy.fit(images).history_frame()
    events = frame.dropna(subset="event")[["epoch", "event"]].drop_duplicates().values.tolist()
    assert events == [[5, "8 to 4 candidates"]]
    assert set(frame["term"]) == {"loss", "L_a", "L_u", "L_c", "L_align"}

    model = mm.MultiMaP(mini, words, **common, concepts=["color", "species"], epochs=3).fit(images)
    frame = model.history_frame()
    assert frame["event"].isna().all()
    align = frame[frame["term"] == "align"]["value"].tolist()
    assert align == [row["align"] for row in model.history_]
