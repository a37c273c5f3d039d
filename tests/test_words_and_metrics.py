"""Reference words from the lexicon, and the scores."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone

import mmclust as mm
from mmclust.data.cifar10_labels import PHOTO_CLASSES, PHOTO_ENVIRONMENT, PHOTO_TYPE
from mmclust.data.rendered import DEMO
from mmclust.storage import key_of
from mmclust.words import ReferenceWords, _lexicon, keywords
from mmclust.words.reviewed_answers import clean

JUDGED = [
    ("fruit", "color"),
    ("fruit", "species"),
    ("card", "order"),
    ("card", "suits"),
    ("face", "emotion"),
    ("face", "glasses"),
    ("face", "pose"),
]
PHOTO_CRITERIA = {
    "class": PHOTO_CLASSES,
    "type": PHOTO_TYPE.values(),
    "environment": PHOTO_ENVIRONMENT.values(),
}


@pytest.mark.parametrize("domain, criterion", JUDGED)
def test_at_least_twice_as_many_words_as_classes(domain, criterion):
    classes = DEMO[f"demo-{domain}"].factors[criterion]
    words = mm.reference_words(criterion, of=domain)
    assert len(words) >= 2 * len(classes) and set(classes) <= set(words)
    assert words.source == "the lexicon" and words.template.count("*") == 1


@pytest.mark.parametrize("criterion", PHOTO_CRITERIA)
def test_words_for_photographs(criterion):
    values = set(PHOTO_CRITERIA[criterion])
    words = mm.reference_words(criterion, of="photo")
    assert len(words) >= 2 * len(values) and values <= set(words)


def test_identity_draws_random_nouns():
    one, same, other = (mm.reference_words("identity", of="face", seed=seed) for seed in (0, 0, 1))
    assert one == same != other and len(set(one)) == 40 and "random" in one.source
    with pytest.raises(ValueError, match=r"10000.*random nouns"):
        mm.reference_words("identity", of="face", n=10_000)


def test_unknown_words_are_named():
    with pytest.raises(ValueError, match=r"'colr'.*did you mean 'color'.*species.*openai"):
        mm.reference_words("colr", of="fruit")
    for domain in ("shoes", "common", "nouns"):  # the last two are lists of the lexicon
        with pytest.raises(ValueError, match=rf"domain '{domain}': fruit.*'laces'"):
            mm.reference_words("laces", of=domain)
    assert mm.prompt_template("era", of="painting") == "painting with an era of *"
    assert mm.prompt_template("kind", of="photo") == "a photo of a *"
    assert mm.prompt_template("environment", of="photo") == "photo with an environment of *"
    assert mm.prompt_template("color", of="photo") == "photo with a color of *"


@pytest.mark.parametrize(
    "keyword, n, message",
    [
        (None, None, r"keyword must be a text without \*, not None"),
        ("", None, r"keyword must be a text without \*, not ''"),
        ("co*or", None, r"keyword must be a text without \*, not 'co\*or'"),
        ("color", 0, "n must be an integer of at least 1, not 0"),
        ("color", -1, "n must be .* not -1"),
        ("color", True, "n must be .* not True"),
        ("mood" * 75, None, "(mood){14}moo\\.\\.\\. of fruit"),
    ],
)
def test_bad_keywords_and_numbers_of_words(keyword, n, message):
    with pytest.raises(ValueError, match=message):
        mm.reference_words(keyword, of="fruit", n=n)


@pytest.mark.parametrize("keyword", ["Color", "colours", " COLOUR ", "colors"])
def test_a_keyword_in_another_spelling_is_that_of_the_lexicon(keyword):
    assert mm.reference_words(keyword, of="fruit") == mm.reference_words("color", of="fruit")
    assert mm.prompt_template(keyword, of="fruit") == "fruit with a color of *"


@pytest.mark.parametrize(
    "keyword, criteria, meaning",
    [
        ("Class", ["class"], "class"),
        ("classes", ["Class"], "Class"),
        ("colour", ["Color", "size"], "Color"),
        ("time of day", ["Time_of_Day"], "Time_of_Day"),
        ("identities", ["identity"], "identity"),
        ("color", ["Color", "color"], "color"),
        ("COLOR", ["Color", "color"], "COLOR"),  # either could be meant
        ("shade", ["shape"], "shade"),
        ("颜色", ["color"], "颜色"),
        (None, ["size", "color"], "size"),
        (None, ["class"], None),  # of class folders, which may mean anything
        ("class", ["class"], "class"),
        (None, [], None),
    ],
)
def test_the_criterion_that_a_keyword_means(keyword, criteria, meaning):
    images = mm.Images.of([np.zeros((2, 2, 3), np.uint8)])
    labels = {criterion: [0] for criterion in criteria}
    data = mm.ImageDataset("some", "photo", images, labels, {name: ["a"] for name in criteria})
    assert data.criterion(keyword) == meaning


@pytest.mark.parametrize(
    "words, texts",
    [
        ("sun", ["sun"]),
        ("sun, rain; fog", ["sun", "rain", "fog"]),
        ([True, False, "maybe"], ["yes", "no", "maybe"]),
        ([1, 2.5, np.int64(3)], ["1", "2.5", "3"]),
        ((" red", "dark  blue "), ["red", "dark  blue"]),
        (np.array(["red", "blue"]), ["red", "blue"]),
        ((word for word in ["red", "blue"]), ["red", "blue"]),
    ],
)
def test_words_as_people_write_them(words, texts):
    assert ReferenceWords(words) == texts


def test_a_word_is_listed_once():
    with pytest.raises(ValueError, match="duplicate reference word 'red'"):
        mm.ReferenceWords("red, blue, red")


def test_a_domain_may_be_spelled_otherwise():
    for of in ("Fruit", "fruits"):
        words = mm.reference_words("color", of=of)
        assert words == mm.reference_words("color", of="fruit")
        assert words.template == "fruit with a color of *" and words.source == "the lexicon"
    assert mm.reference_words("color", of="Shoes").template == "Shoes with a color of *"


@pytest.mark.parametrize(
    "words, message",
    [
        ([], r"list of at least one text, .*not \[\]"),
        (" , ", "list of at least one text"),
        (None, "list .*not None"),
        ({"red"}, "list .*not {'red'}"),
        ({"red": 1}, "list .*not {'red': 1}"),
        (["red", None], r"reference words\.1 must be a text, not None"),
        (["red", float("nan")], "must be a text, not nan"),
        (["red", ""], "must be a text, not ''"),
        (["red", ["blue"]], r"must be a text, not \['blue'\]"),
    ],
)
def test_what_is_no_list_of_words(words, message):
    with pytest.raises(ValueError, match=message):
        ReferenceWords(words)


def test_a_common_keyword_has_words_in_any_domain():
    words = mm.reference_words("weather", of="street", n=5)
    assert len(words) == 5 and words.template == "street with a weather of *"
    assert words.source == "the lexicon's common list for 'weather'"
    assert mm.reference_words("color", of="fruit").source == "the lexicon"  # its own comes first
    of_birds = mm.reference_words("identity", of="bird", n=7, seed=2)
    assert of_birds == mm.reference_words("identity", of="face", n=7, seed=2)
    with pytest.raises(ValueError, match=r"999 words.*'weather'"):
        mm.reference_words("weather", of="street", n=999)


def test_estimators_take_the_template_of_their_words_and_clones_keep_it(mini):
    words = ReferenceWords(["red", "green", "blue"], "a test", "painting with a hue of *")
    images = mm.load_dataset("demo-fruit", n=24).images
    params = {"n_clusters": 3, "alternations": 1, "phase1_epochs": 2, "random_state": 0}
    model = mm.MultiSub(mini, words, **params)
    copy = clone(model)
    assert isinstance(copy.words, ReferenceWords) and copy.words == words
    assert copy.words.template == words.template and copy.words.source == words.source
    labels = mm.MultiSub(mini, list(words), template=words.template, **params).fit_predict(images)
    other = mm.MultiSub(mini, list(words), template="fruit with a color of *", **params)
    other.fit(images)
    for fitted in (model.fit(images), copy.fit(images)):
        np.testing.assert_array_equal(fitted.labels_, labels)
        assert not np.allclose(fitted.representation_, other.representation_)


# Clusters of the papers' data sets, where REPRODUCTION's sources give them (a deck has 13 numbers
# and 4 suits); 0 where they do not.
PAPER_CLUSTERS = {
    ("fruit", "color"): 0, ("fruit", "species"): 0, ("fruit360", "color"): 0,
    ("fruit360", "species"): 0, ("card", "order"): 13, ("card", "number"): 13,
    ("card", "suits"): 4, ("face", "identity"): 20, ("face", "emotion"): 4, ("face", "glasses"): 2,
    ("face", "pose"): 4, ("car", "color"): 0, ("car", "type"): 0, ("flower", "color"): 0,
    ("flower", "species"): 0, ("photo", "type"): 2, ("photo", "environment"): 3,
    ("object", "color"): 2, ("object", "shape"): 2,
}  # fmt: skip


@pytest.mark.parametrize("domain, criterion", PAPER_CLUSTERS)
def test_more_words_than_classes_for_the_papers_data(domain, criterion):
    words = mm.reference_words(criterion, of=domain)
    assert len(words) >= (2 * PAPER_CLUSTERS[domain, criterion] or 10)
    assert words.template.count("*") == 1 and "common" not in words.source


def test_the_lexicon_keeps_the_rules_for_words():
    pytest.importorskip("inflect")
    lexicon = _lexicon()
    lists = {("picture", keyword): words for keyword, words in lexicon["common"].items()}
    lists["picture", "noun"] = lexicon["nouns"]
    for domain, entries in lexicon.items():
        if domain not in ("common", "nouns"):
            lists |= {(domain, keyword): entry["words"] for keyword, entry in entries.items()}
    for (domain, keyword), words in lists.items():
        if words != "random":
            assert clean(words, 1000, keyword, domain) == (words, []), (domain, keyword)


def test_the_words_of_reported_results_are_frozen():
    lexicon = _lexicon()
    frozen = {
        "fruit": ["color", "species", "shape"],
        "card": ["order", "suits"],
        "face": ["emotion", "glasses", "pose", "identity"],
        "photo": ["class", "type", "environment"],
    }
    entries = {domain: {k: lexicon[domain][k] for k in keys} for domain, keys in frozen.items()}
    assert key_of([entries, lexicon["nouns"]]) == "90a8b4052ab4c6e0f332023b41f60514", (
        "reported results were computed with these words and templates: add others, keep these"
    )


# Scores


LABELINGS = st.integers(2, 30).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 4), min_size=n, max_size=n)] * 2)
)


@given(LABELINGS)
def test_scores_are_symmetric_and_ignore_names(pair):
    a, b = map(np.array, pair)
    scores = mm.score(a, b)
    assert scores == pytest.approx(mm.score(b, a), abs=1e-9)
    assert scores == pytest.approx(mm.score(a, np.array([7, 3, 9, 1, 5])[b]), abs=1e-9)
    assert mm.score(a, a) == pytest.approx(dict.fromkeys(scores, 1), abs=1e-12)


@given(LABELINGS)
def test_the_rand_index_counts_pairs(pair):
    a, b = pair
    agree = [(a[i] == a[j]) == (b[i] == b[j]) for i, j in itertools.combinations(range(len(a)), 2)]
    assert mm.score(a, b)["RI"] == pytest.approx(np.mean(agree))


def test_nmi_is_mutual_information_over_the_mean_entropy():
    a, b = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 1, 1])

    def entropy(labels):
        p = np.unique(labels, return_counts=True)[1] / len(labels)
        return -(p * np.log(p)).sum()

    mutual = entropy(a) + entropy(b) - entropy(10 * a + b)
    assert mm.score(a, b)["NMI"] == pytest.approx(mutual / ((entropy(a) + entropy(b)) / 2))


@pytest.mark.parametrize("true, pred", [([0, 1], [0]), ([], []), ([[0, 1]], [[0, 1]])])
def test_labelings_that_do_not_match_are_an_error(true, pred):
    with pytest.raises(ValueError, match="shape"):
        mm.score(true, pred)


def test_a_missing_label_is_named():
    with pytest.raises(ValueError, match="a label is None: leave out"):
        mm.score(["a", None, "b"], [0, 1, 1])


def test_the_kmeans_protocol_averages_over_seeds():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 20)
    x = np.eye(3)[y] + 0.01 * rng.standard_normal((60, 3))
    scores = mm.score_kmeans(x, y, 3, seeds=range(10))
    single = [mm.score_kmeans(x, y, 3, seeds=[seed])["NMI"] for seed in range(10)]
    assert scores["NMI"] == pytest.approx(np.mean(single))
    assert scores["NMI_std"] == pytest.approx(np.std(single))
    assert mm.score_kmeans(x, y, 3, seeds=range(3), n_init=10)["NMI"] == pytest.approx(1)


def test_equal_clusterings_are_scored_once(monkeypatch):
    from mmclust import metrics

    score = metrics.score
    calls = []
    monkeypatch.setattr(metrics, "score", lambda *args: calls.append(1) or score(*args))
    y = np.repeat([0, 1, 2], 20)
    x = np.array([[0.0, 0], [9, 9], [0, 9]])[y]
    x = x + 0.01 * np.random.default_rng(0).normal(size=(60, 2))
    scores = metrics.score_kmeans(x, y, 3, seeds=range(10), n_init=5)
    assert len(calls) == 1 and scores["NMI"] == pytest.approx(1) and scores["NMI_std"] == 0


def test_the_documents_list_the_keywords_for_photographs():
    page = (Path(__file__).parents[1] / "docs" / "pictures.md").read_text(encoding="utf-8")
    listed = page.split("these keywords: ")[1].split(".")[0]
    assert " ".join(listed.split()).split(", ") == keywords("photo")
