"""Reference words from the lexicon, and the scores."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mmclust as mm
from mmclust.data.cifar10_labels import PHOTO_CLASSES, PHOTO_ENVIRONMENT, PHOTO_TYPE
from mmclust.data.rendered import DEMO
from mmclust.storage import key_of
from mmclust.words import _lexicon
from mmclust.words.reviewed_answers import clean

JUDGED = (
    [("fruit", c) for c in ("color", "species")]
    + [("card", c) for c in ("order", "suits")]
    + [("face", c) for c in ("emotion", "glasses", "pose")]
)


@pytest.mark.parametrize("domain, criterion", JUDGED)
def test_at_least_twice_as_many_words_as_classes(domain, criterion):
    classes, words = (
        DEMO[f"demo-{domain}"].factors[criterion],
        mm.reference_words(criterion, of=domain),
    )
    assert len(words) >= 2 * len(classes) and set(classes) <= set(words)
    assert words.source == "the lexicon" and words.template.count("*") == 1


@pytest.mark.parametrize(
    "criterion, values",
    [
        ("class", PHOTO_CLASSES),
        ("type", PHOTO_TYPE.values()),
        ("environment", PHOTO_ENVIRONMENT.values()),
    ],
)
def test_words_for_photographs(criterion, values):
    words = mm.reference_words(criterion, of="photo")
    assert len(words) >= 2 * len(set(values)) and set(values) <= set(words)


def test_identity_draws_random_nouns():
    one, same, other = (mm.reference_words("identity", of="face", seed=s) for s in (0, 0, 1))
    assert one == same != other and len(set(one)) == 40 and "random" in one.source
    with pytest.raises(ValueError, match="random nouns are asked for"):
        mm.reference_words("identity", of="face", n=10_000)


def test_unknown_words_are_named():
    with pytest.raises(
        ValueError,
        match=r"no words for 'colour' of fruit .did you mean 'color'..: color.*Common keywords: .*weather.*source=.openai.",
    ):
        mm.reference_words("colour", of="fruit")
    with pytest.raises(ValueError, match=r"no domain 'shoes': fruit.*and 'laces' is not common"):
        mm.reference_words("laces", of="shoes")
    for domain in ("common", "nouns"):  # rooms of the lexicon, and no domains
        with pytest.raises(ValueError, match="no domain"):
            mm.reference_words("laces", of=domain)
    assert mm.prompt_template("era", of="painting") == "painting with an era of *"


def test_a_common_keyword_has_words_in_any_domain():
    words = mm.reference_words("weather", of="street", n=5)
    assert (
        len(words) == 5
        and words.source == "the lexicon's common list for 'weather'"
        and words.template == "street with a weather of *"
    )
    assert mm.reference_words("color", of="fruit").source == "the lexicon"  # its own comes first
    assert mm.reference_words("identity", of="bird", n=7, seed=2) == mm.reference_words(
        "identity", of="face", n=7, seed=2
    )
    with pytest.raises(ValueError, match="999 words are asked for"):
        mm.reference_words("weather", of="street", n=999)


# Clusters of the papers' data sets, where REPRODUCTION's sources give them (a deck has 13 numbers and 4 suits); 0 where they do not
PAPER_DATASETS = {
    ("fruit", "color"): 0, ("fruit", "species"): 0, ("fruit360", "color"): 0, ("fruit360", "species"): 0, ("card", "order"): 13, ("card", "number"): 13,
    ("card", "suits"): 4, ("face", "identity"): 20, ("face", "emotion"): 4, ("face", "glasses"): 2, ("face", "pose"): 4, ("car", "color"): 0,
    ("car", "type"): 0, ("flower", "color"): 0, ("flower", "species"): 0, ("photo", "type"): 2, ("photo", "environment"): 3, ("object", "color"): 2,
    ("object", "shape"): 2,
}  # fmt: skip


@pytest.mark.parametrize("domain, criterion", PAPER_DATASETS)
def test_more_words_than_classes_for_the_papers_data(domain, criterion):
    words = mm.reference_words(criterion, of=domain)
    assert (
        len(words)
        >= max(
            2 * PAPER_DATASETS[domain, criterion],
            10 if not PAPER_DATASETS[domain, criterion] else 0,
        )
        and words.template.count("*") == 1
    )
    assert "common" not in words.source


def test_the_lexicon_keeps_its_own_rules():
    lexicon = _lexicon()
    lists = {
        (d, k): e["words"]
        for d, entries in lexicon.items()
        if d not in ("common", "nouns")
        for k, e in entries.items()
    }
    lists |= {("picture", k): words for k, words in lexicon["common"].items()} | {
        ("picture", "noun"): lexicon["nouns"]
    }
    for (domain, keyword), words in lists.items():
        if words != "random":
            assert clean(words, 1000, keyword, domain) == (words, {}), (domain, keyword)


def test_what_results_were_reported_with_is_frozen():
    lexicon = _lexicon()
    frozen = {
        "fruit": ["color", "species", "shape"], "card": ["order", "suits"], "face": ["emotion", "glasses", "pose", "identity"],
        "photo": ["class", "type", "environment"],
    }  # fmt: skip
    held = [
        {domain: {k: lexicon[domain][k] for k in keywords} for domain, keywords in frozen.items()},
        lexicon["nouns"],
    ]
    assert key_of(held) == "90a8b4052ab4c6e0f332023b41f60514", (
        "reported results were computed with these words and templates: add others, leave these"
    )


labellings = st.integers(2, 30).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 4), min_size=n, max_size=n)] * 2)
)


@given(labellings)
def test_scores_are_symmetric_and_ignore_names(pair):
    a, b = map(np.array, pair)
    one, two = mm.score(a, b), mm.score(b, a)
    renamed = mm.score(a, np.array([7, 3, 9, 1, 5])[b])
    for key in ("NMI", "RI", "ARI", "AMI"):
        assert (
            one[key] == pytest.approx(two[key], abs=1e-9) == pytest.approx(renamed[key], abs=1e-9)
        )
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
    assert many["NMI"] == pytest.approx(
        np.mean([mm.score_kmeans(x, y, 3, seeds=[s])["NMI"] for s in range(10)])
    )
    assert mm.score_kmeans(x, y, 3, seeds=range(3), n_init=10)["NMI"] == pytest.approx(1)


LABELLINGS = st.integers(1, 40).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 6), min_size=n, max_size=n).map(np.array)] * 2)
)


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
    x, y = (
        np.repeat([[0.0, 0], [9, 9], [0, 9]], 20, axis=0) + 0.01 * rng.normal(size=(60, 2)),
        np.repeat([0, 1, 2], 20),
    )
    monkeypatch.setattr(metrics, "score", lambda *args: calls.append(1) or real(*args))
    many = metrics.score_kmeans(x, y, 3, seeds=range(10), n_init=5)
    assert len(calls) == 1 and many["NMI"] == pytest.approx(1) and many["NMI_std"] == 0
