"""scikit-learn's manners. Inputs are images, so its checks on float matrices apply where an estimator takes features, and by name elsewhere."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import check_estimator

import mmclust as mm

TEMPLATE, WORDS = "fruit with a color of *", ["red", "orange", "yellow", "green", "blue", "purple"]
OF_IMAGES = ("MultiMaP", "MultiSub", "MultiDProxy", "CLIP_GPT", "CLIP_label")
WITHOUT_DATA = (
    "check_estimator_cloneable", "check_estimator_repr", "check_no_attributes_set_in_init", "check_parameters_default_constructible",
    "check_get_params_invariance", "check_set_params", "check_mixin_order", "check_valid_tag_types", "check_estimator_tags_renamed",
)  # fmt: skip
QUICK = {
    "MultiMaP": {"n_clusters": 3, "epochs": 3, "random_state": 0},
    "MultiSub": {
        "n_clusters": 3,
        "alternations": 1,
        "phase1_epochs": 3,
        "phase2_epochs": 1,
        "random_state": 0,
    },
    "MultiDProxy": {"n_clusters": 3, "epochs": 4, "update_every": 2, "random_state": 0},
    "CLIP_GPT": {},
    "CLIP_label": {},
}


@pytest.fixture(scope="module")
def images():
    return mm.load_dataset("demo-fruit", n=30, seed=906).images


def build(mini, method, **changes):
    return getattr(mm, method)(
        mini, **{"template": TEMPLATE, "words": WORDS} | QUICK[method] | changes
    )


@pytest.mark.filterwarnings("ignore")
def test_kmeans_on_features_passes_every_check():
    results = check_estimator(mm.KMeans(), on_skip=None)  # raises where one fails
    assert len(results) > 40 and {r["status"] for r in results} <= {"passed", "skipped"}


@pytest.mark.parametrize("check", WITHOUT_DATA)
@pytest.mark.parametrize("method", OF_IMAGES)
def test_checks_that_need_no_data(method, check):
    getattr(estimator_checks, check)(method, getattr(mm, method)())


@pytest.mark.parametrize("method", OF_IMAGES)
def test_what_the_checks_on_data_ask_for_with_images(mini, images, method):
    model = build(mini, method)
    before = model.get_params()
    assert (
        model.fit(images) is model and model.get_params() == before
    )  # check_dict_unchanged, check_estimators_fit_returns_self
    public = {a for a in vars(model) if not a.startswith("_") and not a.endswith("_")}
    assert public == set(before)  # check_dont_overwrite_attributes
    first = model.labels_.copy()
    np.testing.assert_array_equal(model.fit(images).labels_, first)  # check_fit_idempotent
    np.testing.assert_array_equal(clone(model).fit_predict(images), first)  # check_clustering
    assert model.labels_.shape == (30,) and model.labels_.dtype == np.int64
    assert model.predict(images[:7]).shape == (7,)
    assert model.fit(images[:12]).labels_.shape == (12,)  # a second fit forgets the first


@pytest.mark.parametrize("method", OF_IMAGES)
def test_clone_shares_the_encoder(mini, method):
    model = build(mini, method)
    twin = clone(model)
    assert twin is not model and twin.encoder is mini and twin.get_params() == model.get_params()
    assert not [a for a in vars(clone(model)) if a.endswith("_")]


def test_pipelines(mini, images):
    pipe = make_pipeline(
        FunctionTransformer(lambda pictures: pictures[:20]), build(mini, "MultiSub")
    )
    labels = pipe.fit_predict(images)
    np.testing.assert_array_equal(labels, build(mini, "MultiSub").fit_predict(images[:20]))
    assert pipe.predict(images).shape == (20,)
    assert pipe.set_params(multisub__lr=0.3).named_steps["multisub"].lr == 0.3


@pytest.mark.parametrize("method", OF_IMAGES)
def test_fitted_models_survive_pickling(mini, images, method):
    model = build(mini, method).fit(images)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(images), model.predict(images))


@pytest.mark.parametrize("method", OF_IMAGES)
def test_without_an_encoder(images, method):
    with pytest.raises(ValueError, match="needs an encoder"):
        getattr(mm, method)(template=TEMPLATE, words=WORDS).fit(images)


@pytest.mark.parametrize(
    "method, changes, message",
    [
        ("MultiMaP", {"variant": "code"}, "variant 'code' is none of"),
        ("MultiSub", {"variant": None}, "variant None is none of"),
        ("MultiMaP", {"choose_by": "sound"}, "choose_by 'sound' is none of"),
        ("MultiMaP", {"init": "zero"}, "init 'zero' is none of"),
        ("MultiMaP", {"targets": "image"}, "targets 'image' is none of"),
        ("MultiMaP", {"optimizer": "sgd"}, "optimizer 'sgd' is none of"),
        ("MultiMaP", {"concept_loss": "cosine"}, "concept_loss 'cosine' is none of"),
        ("MultiMaP", {"batch_size": 0}, "batch_size is"),
        ("MultiSub", {"batch_size": "all"}, "batch_size is"),
        ("MultiSub", {"init": "word"}, "init 'word' is none of"),
        ("MultiSub", {"phase2_epochs": -1}, "phase2_epochs"),
        ("MultiSub", {"phase1_epochs": 2.5}, "phase1_epochs is a whole number"),
        ("MultiSub", {"check_every": 0}, "check_every is a whole number"),
        ("MultiSub", {"template": None}, "a template is needed"),
        ("MultiSub", {"words": None}, "at least one reference word"),
        ("MultiDProxy", {"fusion": "sum"}, "fusion 'sum' is none of"),
        ("MultiDProxy", {"modality": "sound"}, "modality 'sound' is none of"),
        ("MultiDProxy", {"tokens": "some"}, "tokens 'some' is none of"),
        ("MultiDProxy", {"n_clusters": "many"}, "or auto, not 'many'"),
        ("MultiDProxy", {"epochs": True}, "epochs is a whole number"),
        ("MultiDProxy", {"user_weight": -1}, "at least 0"),
    ],
)
def test_bad_parameters_raise_before_any_work(mini, monkeypatch, method, changes, message):
    monkeypatch.setattr(mini, "_run", lambda *args: pytest.fail("worked first"))
    with pytest.raises(ValueError, match=message):
        build(mini, method, **changes).fit(mm.load_dataset("demo-fruit", n=12, seed=907).images)


def test_widths_that_do_not_fit_are_named(monkeypatch, mini, images):
    monkeypatch.setattr(type(mini), "embedding_dim", 64)
    for method in ("MultiMaP", "MultiSub"):
        with pytest.raises(ValueError, match="128 wide"):
            build(mini, method, variant="released").fit(images)
