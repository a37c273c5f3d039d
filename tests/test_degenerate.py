"""Clusters that do not exist, and numbers that are none: said in one sentence, never a riddle."""

import warnings

import numpy as np
import pytest
from PIL import Image, ImageDraw
from sklearn import metrics
from sklearn.exceptions import ConvergenceWarning

import mmclust as mm
from mmclust.encoders.open_clip import OpenCLIPEncoder

WORDS = ["purple", "green", "red", "blue"]
OPTIONS = {
    "KMeans": {"random_state": 0},
    "MultiMaP": {"epochs": 4, "concepts": ["color", "species"], "random_state": 0},
    "MultiSub": {"alternations": 1, "phase1_epochs": 20, "phase2_epochs": 2, "random_state": 0},
    "MultiDProxy": {"epochs": 6, "update_every": 3, "lr": 0.1, "random_state": 0},
}
METHODS = list(OPTIONS)[1:]


def disc(color, shift=0):
    picture = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(picture).ellipse([4 + shift, 6, 44 + shift, 46], fill=color)
    return picture


REDS = [disc((200, 30, 40), shift) for shift in range(12)]


def build(method, encoder, n_clusters, **changes):
    options = OPTIONS[method] | {"n_clusters": n_clusters}
    if method != "KMeans":
        options |= {"words": WORDS, "template": "fruit with a color of *"}
    return getattr(mm, method)(encoder, **options | changes)


@pytest.fixture(autouse=True)
def no_riddle_of_scikit_learn():
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        yield


# --- fewer clusters than were asked for ----------------------------------------------------------


@pytest.mark.parametrize("words", [WORDS, ["blue", "yellow", "green", "red"], ["green", "red"]])
@pytest.mark.parametrize("method", METHODS)
def test_the_name_of_a_single_cluster_is_the_word_that_fits(mini, method, words):
    model = build(method, mini, 1, words=words).fit(REDS)
    assert model.name_clusters() == ["red"]
    assert model.name_clusters(scores=True)["score"][0] > 0


@pytest.mark.parametrize("n", [12, 130])
@pytest.mark.parametrize("n_clusters", [3, "auto"])
@pytest.mark.parametrize("method", list(OPTIONS))
def test_identical_pictures_are_one_cluster(mini, method, n_clusters, n):
    model = build(method, mini, n_clusters)
    with pytest.warns(UserWarning, match=rf"1 instead of \d clusters: to mini, all {n} .* same"):
        model.fit(REDS[:1] * n)
    assert model.n_clusters_ == 1
    assert set(model.labels_) == {0}
    assert len(model.cluster_centers_) == 1
    assert set(model.predict(REDS)) == {0}
    if method != "KMeans":
        assert model.name_clusters() == ["red"]


@pytest.mark.parametrize("method", list(OPTIONS))
def test_fewer_different_pictures_than_clusters(mini, method):
    colors = ["red", "blue", "green"]
    pictures = [disc(color) for color in colors for _ in range(4)]
    model = build(method, mini, 6)
    with pytest.warns(UserWarning, match="3 instead of 6 clusters: .*12 .* like 3 different ones"):
        model.fit(pictures)
    assert model.n_clusters_ == len(model.cluster_centers_) == 3
    assert set(model.labels_) == {0, 1, 2}
    np.testing.assert_array_equal(model.predict(pictures), model.labels_)
    with pytest.warns(UserWarning, match="scored with 3 clusters instead of 6"):
        assert model.evaluate(np.repeat([0, 1, 2], 4))["NMI"] == pytest.approx(1)
    if method != "KMeans":
        assert [model.name_clusters()[c] for c in model.labels_[::4]] == colors


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_makes_no_clusters(dtype):
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(2, 16)), 20, 0).astype(dtype)
    x = x * (1 + np.finfo(dtype).eps * rng.integers(-1, 2, x.shape).astype(dtype))
    with pytest.warns(UserWarning, match="2 instead of 6 clusters"):
        model = mm.KMeans(n_clusters=6, random_state=0).fit(x)
    assert model.n_clusters_ == 2
    far = np.array([0, 1, 2, 3], dtype)[:, None] * 1000 * np.finfo(dtype).eps + 1
    assert mm.KMeans(n_clusters=4, random_state=0).fit(far).n_clusters_ == 4


def test_another_representation_may_tell_more_apart(mini):
    model = build("MultiSub", mini, 3, words=["red"])
    with pytest.warns(UserWarning, match="1 instead of 3 clusters: .*'prompt'.*more words"):
        model.fit(REDS)
    assert model.n_clusters_ == 1
    assert model.name_clusters() == ["red"]
    assert model.use_representation("image").n_clusters_ == 3
    with pytest.warns(UserWarning, match="3 clusters, but only 1 reference word"):
        assert model.name_clusters() == ["red", "red 2", "red 3"]


def test_words_that_no_image_takes_are_no_clusters(mini):
    pictures = [disc(color, i) for i in range(4) for color in ("green", "blue")]
    model = build("MultiSub", mini, 4, representation="assignment")
    with pytest.warns(UserWarning, match="2 instead of 4 clusters"):
        model.fit(pictures)
    assert model.n_clusters_ == 2
    np.testing.assert_array_equal(model.predict(pictures), model.labels_)
    assert [model.name_clusters()[c] for c in model.labels_[:2]] == ["green", "blue"]


def test_auto_says_that_there_may_be_more(mini):
    centers = 5 * np.eye(25)
    x = np.repeat(centers, 8, 0) + 0.01 * np.random.default_rng(0).normal(size=(200, 25))
    with pytest.warns(UserWarning, match=r"gives 6, the largest it tried.*set n_clusters"):
        assert mm.choose_n_clusters(x, most=6)[0] == 6
    with pytest.raises(ValueError, match="from 2 to 0"):
        mm.choose_n_clusters(x, most=0)


@pytest.mark.parametrize("labels", [[], [0, 1, -1]])
def test_labels_without_a_name(labels):
    with pytest.raises(ValueError, match=r"clusters from 0 of at least one image, not \["):
        mm.name_clusters(labels, np.eye(3)[: len(labels)], np.eye(3), WORDS[:3])
    assert mm.name_clusters([1, 0, 1], np.eye(3)[[0, 1, 0]], np.eye(3), WORDS[:3]) == WORDS[1::-1]


def test_a_cluster_is_not_named_by_a_word_that_only_the_others_left():
    words = ["car", "animal", "plant"]
    images = np.array([[1, 0, 0], [0, 1, 0], [0.995, 0, 0.1]])  # two kinds of cars, and animals
    table = mm.name_clusters([0, 1, 2], images, np.eye(3), words, scores=True)
    assert table["name"].tolist() == ["car", "animal", "car 2"]
    assert table["next"].tolist()[2] == "plant"
    between = np.array([[1, 0, 0], [0, 1, 0], [0.8, 0, 0.6]])  # fits "plant" well enough
    assert mm.name_clusters([0, 1, 2], between, np.eye(3), words) == words


def test_a_method_without_words_says_so(mini):
    model = build("KMeans", mini, 2).fit(REDS)
    for ask in (model.name_clusters, model.explain):
        with pytest.raises(AttributeError, match=r"KMeans has no reference words.*CLIP_GPT"):
            ask()


# --- not a number --------------------------------------------------------------------------------


def test_nan_of_an_encoder_names_the_picture(mini):
    def preprocess(picture):
        return mini.preprocess(picture) * (np.nan if picture.width == 50 else 1)

    encoder = OpenCLIPEncoder(mini.model, preprocess, mini.tokenizer, "broken")
    pictures = [*REDS, *[Image.new("RGB", (50, 50), color) for color in ("red", "blue")]]
    with pytest.raises(ValueError, match="encoder broken gives NaN for picture 12, 2 in all"):
        build("MultiSub", encoder, 2).fit(pictures)


def test_nan_in_features(mini):
    x = np.random.default_rng(0).normal(size=(9, 4))
    x[5, 2] = np.nan
    for run in (mm.KMeans(n_clusters=2).fit, lambda x: mm.score_kmeans(x, np.zeros(9, int), 2)):
        with pytest.raises(ValueError, match="row 5 has NaN or infinity"):
            run(x)


# --- scores --------------------------------------------------------------------------------------


def test_scores_of_an_id_column_end():
    ids = np.arange(200_000)
    with pytest.warns(UserWarning, match=r"200,000 classes.*AMI is left out.*id column"):
        scores = mm.score(ids, np.roll(ids, 1) // 2)
    assert np.isnan(scores.pop("AMI"))
    assert scores["NMI"] > 0.9
    few = mm.score(ids, ids % 20)  # ids and few clusters take seconds
    assert few["AMI"] == pytest.approx(0, abs=1e-6)


def test_scores_of_ordinary_sizes_are_scikit_learns():
    true, pred = np.random.default_rng(0).integers(0, [[50], [40]], (2, 5_000))
    assert mm.score(true, pred)["AMI"] == metrics.adjusted_mutual_info_score(true, pred)


@pytest.mark.parametrize("seeds", [[], range(0)])
def test_the_kmeans_protocol_needs_a_seed(seeds):
    with pytest.raises(ValueError, match=r"seeds must be at least one.*range\(10\)"):
        mm.score_kmeans(np.eye(3), [0, 1, 2], 2, seeds)


def test_the_kmeans_protocol_warns_once(recwarn):
    scores = mm.score_kmeans(np.repeat(np.eye(3), 4, 0), np.repeat([0, 1, 2], 4), 5)
    assert scores["NMI"] == pytest.approx(1)
    assert [str(w.message)[:38] for w in recwarn] == ["scored with 3 clusters instead of 5: t"]


# --- several keywords ----------------------------------------------------------------------------


def test_zero_shot_by_several_keywords_and_concepts_of_ones_own(mini):
    models = mm.cluster_by(REDS, ["color", "species"], mini, of="fruit", method=mm.CLIP_GPT)
    assert set(models.names["color"]) == {"red"}
    options = {"of": "fruit", "method": mm.MultiMaP, "n_clusters": 2, "epochs": 1}
    concepts = ["shape", "color"]
    models = mm.cluster_by(REDS, ["color", "species"], mini, concepts=concepts, **options)
    assert models["color"].concepts == ["color", "shape"]
    assert models["species"].concepts == ["species", "shape", "color"]
