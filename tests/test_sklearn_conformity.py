"""The conventions of scikit-learn.

Its checks on matrices are run for the estimator that takes features. What they check is repeated
here with images for the others.
"""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import check_estimator

import mmclust as mm

TEMPLATE = "fruit with a color of *"
WORDS = ["red", "orange", "yellow", "green", "blue", "purple"]
QUICK = {
    "MultiMaP": {"n_clusters": 3, "epochs": 3, "random_state": 0},
    "MultiSub": {
        "n_clusters": 3, "alternations": 1, "phase1_epochs": 3, "phase2_epochs": 1,
        "random_state": 0,
    },
    "MultiDProxy": {"n_clusters": 3, "epochs": 4, "update_every": 2, "random_state": 0},
    "CLIP_GPT": {},
    "CLIP_label": {},
}  # fmt: skip
CHECKS_WITHOUT_DATA = (
    "check_estimator_cloneable", "check_estimator_repr", "check_no_attributes_set_in_init",
    "check_parameters_default_constructible", "check_get_params_invariance", "check_set_params",
    "check_mixin_order", "check_valid_tag_types", "check_estimator_tags_renamed",
)  # fmt: skip


@pytest.fixture(scope="module")
def images():
    return mm.load_dataset("demo-fruit", n=30, seed=906).images


def build(mini, method):
    return getattr(mm, method)(mini, template=TEMPLATE, words=WORDS, **QUICK[method])


@pytest.mark.filterwarnings("ignore")
def test_kmeans_on_features_passes_every_check():
    results = check_estimator(mm.KMeans(), on_skip=None)  # raises where one fails
    assert len(results) > 40
    assert {result["status"] for result in results} <= {"passed", "skipped"}


@pytest.mark.parametrize("check", CHECKS_WITHOUT_DATA)
@pytest.mark.parametrize("method", list(QUICK))
def test_checks_that_need_no_data(method, check):
    getattr(estimator_checks, check)(method, getattr(mm, method)())


@pytest.mark.parametrize("method", list(QUICK))
def test_what_the_checks_on_data_check(mini, images, method):
    model = build(mini, method)
    before = model.get_params()
    assert model.fit(images) is model  # check_estimators_fit_returns_self
    assert model.get_params() == before  # check_dict_unchanged
    public = {a for a in vars(model) if not a.startswith("_") and not a.endswith("_")}
    assert public == set(before)  # check_dont_overwrite_attributes
    first = model.labels_.copy()
    np.testing.assert_array_equal(model.fit(images).labels_, first)  # check_fit_idempotent
    np.testing.assert_array_equal(clone(model).fit_predict(images), first)  # check_clustering
    assert model.labels_.shape == (30,)
    assert model.labels_.dtype == np.int64
    assert model.predict(images[:7]).shape == (7,)
    assert model.fit(images[:12]).labels_.shape == (12,)  # a second fit forgets the first


@pytest.mark.parametrize("method", list(QUICK))
def test_clone_shares_the_encoder_and_is_not_fitted(mini, images, method):
    model = build(mini, method)
    twin = clone(model)
    assert twin is not model
    assert twin.encoder is mini
    assert twin.get_params() == model.get_params()
    assert not [a for a in vars(clone(model.fit(images))) if a.endswith("_")]


def test_pipelines(mini, images):
    first_20 = FunctionTransformer(lambda pictures: pictures[:20])
    pipe = make_pipeline(first_20, build(mini, "MultiSub"))
    labels = pipe.fit_predict(images)
    np.testing.assert_array_equal(labels, build(mini, "MultiSub").fit_predict(images[:20]))
    assert pipe.predict(images).shape == (20,)
    assert pipe.set_params(multisub__lr=0.3).named_steps["multisub"].lr == 0.3


@pytest.mark.parametrize("method", list(QUICK))
def test_fitted_models_survive_pickling(mini, images, method):
    model = build(mini, method).fit(images)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(images), model.predict(images))
