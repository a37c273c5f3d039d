"""Reference words from the lexicon, and the scores."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mmclust as mm
from mmclust.encoders.mini.captions import PHOTO_CLASSES, PHOTO_ENVIRONMENT, PHOTO_TYPE
from mmclust.worlds import DEMO

JUDGED = [("fruit", c) for c in ("color", "species")] + [("card", c) for c in ("order", "suits")] + [("face", c) for c in ("emotion", "glasses", "pose")]


@pytest.mark.parametrize("domain, criterion", JUDGED)
def test_at_least_twice_as_many_words_as_classes(domain, criterion):
    classes, words = DEMO[f"demo-{domain}"].factors[criterion], mm.reference_words(criterion, of=domain)
    assert len(words) >= 2 * len(classes) and set(classes) <= set(words)
    assert words.source == "lexicon" and words.template.count("*") == 1


@pytest.mark.parametrize("criterion, values", [("class", PHOTO_CLASSES), ("type", PHOTO_TYPE.values()), ("environment", PHOTO_ENVIRONMENT.values())])
def test_words_for_photographs(criterion, values):
    words = mm.reference_words(criterion, of="photo")
    assert len(words) >= 2 * len(set(values)) and set(values) <= set(words)


def test_identity_draws_random_nouns():
    one, same, other = (mm.reference_words("identity", of="face", seed=s) for s in (0, 0, 1))
    assert one == same != other and len(set(one)) == 40 and "random" in one.source
    with pytest.raises(ValueError, match="random nouns are asked for"):
        mm.reference_words("identity", of="face", n=10_000)


def test_unknown_words_are_named():
    with pytest.raises(ValueError, match="no words for 'colour' of fruit: color"):
        mm.reference_words("colour", of="fruit")
    with pytest.raises(ValueError, match="no domain 'shoes': fruit"):
        mm.reference_words("color", of="shoes")
    assert mm.prompt_template("era", of="painting") == "painting with an era of *"


labellings = st.integers(2, 30).flatmap(lambda n: st.tuples(*[st.lists(st.integers(0, 4), min_size=n, max_size=n)] * 2))


@given(labellings)
def test_scores_are_symmetric_and_ignore_names(pair):
    a, b = map(np.array, pair)
    one, two = mm.score(a, b), mm.score(b, a)
    renamed = mm.score(a, np.array([7, 3, 9, 1, 5])[b])
    for key in ("NMI", "RI", "ARI", "AMI"):
        assert one[key] == pytest.approx(two[key], abs=1e-9) == pytest.approx(renamed[key], abs=1e-9)
    assert all(value == pytest.approx(1, abs=1e-12) for value in mm.score(a, a).values())


@given(labellings)
def test_rand_index_counts_pairs(pair):
    a, b = pair
    agree = [(a[i] == a[j]) == (b[i] == b[j]) for i, j in itertools.combinations(range(len(a)), 2)]
    assert mm.score(a, b)["RI"] == pytest.approx(np.mean(agree))


def test_scores_refuse_what_does_not_match():
    with pytest.raises(ValueError, match="same, at least one image"):
        mm.score([0, 1], [0])
    with pytest.raises(ValueError, match="same, at least one image"):
        mm.score([], [])


def test_kmeans_protocol_averages_seeds():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 20)
    x = np.eye(3)[y] + 0.01 * rng.standard_normal((60, 3))
    many = mm.score_kmeans(x, y, 3, seeds=range(10))
    assert many["NMI"] == pytest.approx(np.mean([mm.score_kmeans(x, y, 3, seeds=[s])["NMI"] for s in range(10)]))
    assert mm.score_kmeans(x, y, 3, seeds=range(3), n_init=10)["NMI"] == pytest.approx(1)


LABELLINGS = st.integers(1, 40).flatmap(lambda n: st.tuples(*[st.lists(st.integers(0, 6), min_size=n, max_size=n).map(np.array)] * 2))


@given(LABELLINGS)
def test_one_contingency_table_gives_scikit_learns_scores(pair):
    from sklearn import metrics

    true, pred = pair
    theirs = {
        "NMI": metrics.normalized_mutual_info_score(true, pred),
        "RI": metrics.rand_score(true, pred),
        "ARI": metrics.adjusted_rand_score(true, pred),
        "AMI": metrics.adjusted_mutual_info_score(true, pred),
    }
    assert mm.score(true, pred) == pytest.approx(theirs, abs=1e-9)


def test_clusterings_that_return_are_scored_once(monkeypatch):
    from mmclust import metrics

    rng, calls, real = np.random.default_rng(0), [], metrics.score
    x, y = np.repeat([[0.0, 0], [9, 9], [0, 9]], 20, axis=0) + 0.01 * rng.normal(size=(60, 2)), np.repeat([0, 1, 2], 20)
    monkeypatch.setattr(metrics, "score", lambda *args: calls.append(1) or real(*args))
    many = metrics.score_kmeans(x, y, 3, seeds=range(10), n_init=5)
    assert len(calls) == 1 and many["NMI"] == pytest.approx(1) and many["NMI_std"] == 0
