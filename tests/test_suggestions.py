"""Suggested keywords: the score, the order, and what is suggested for worlds and for noise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from sklearn.metrics import normalized_mutual_info_score

import mmclust as mm
from mmclust.methods import suggestions
from mmclust.words import lexicon_lists, reference_words
from tools import tune_suggestions

LOGITS = arrays(np.float32, (12, 5), elements=st.floats(-30, 30, width=32))
LABELS = st.lists(arrays(np.int64, 15, elements=st.integers(0, 4)), min_size=2, max_size=5)


@given(LOGITS, LOGITS, st.randoms(use_true_random=False))
def test_a_score_is_a_share_and_has_no_order(words, rivals, random):
    score = suggestions.separation(words, rivals)
    assert 0 <= score <= 1
    images, columns = random.sample(range(12), 12), random.sample(range(5), 5)
    again = suggestions.separation(words[images][:, columns], rivals[images][:, columns])
    assert again == pytest.approx(score, abs=1e-6)


@given(LOGITS)
def test_a_score_is_0_where_all_pictures_look_alike(words):
    same = np.repeat(words[:1], 12, axis=0)
    assert suggestions.separation(same, words) == pytest.approx(0, abs=1e-6)


def test_a_score_is_high_only_if_pictures_differ_and_the_words_fit():
    sure = 30 * np.eye(4)[np.arange(40) % 4]  # ten pictures for each of four words
    assert suggestions.separation(sure, sure - 60) == pytest.approx(1, abs=1e-3)
    assert suggestions.separation(sure, sure + 60) < 1e-3  # nouns fit better
    assert suggestions.separation(sure / 100, sure - 60) < 0.1  # no word is better than another


@settings(max_examples=20)
@given(LABELS)
def test_nmi_of_all_pairs_is_that_of_scikit_learn(labels):
    ours = suggestions.nmi_matrix(labels)
    for a, first in enumerate(labels):
        for b, second in enumerate(labels):
            assert ours[a, b] == pytest.approx(normalized_mutual_info_score(first, second))


@settings(max_examples=50)
@given(LABELS, st.data())
def test_a_keyword_like_one_before_it_comes_later(labels, data):
    scores = np.array([data.draw(st.floats(0.01, 1)) for _ in labels])
    order, similar = suggestions.rank(scores, labels, power=0)
    assert sorted(order) == list(range(len(labels))) and similar[0] == 0
    assert list(scores[order]) == sorted(scores, reverse=True)
    twins = [labels[0], labels[0], (labels[0] + 1) % 5]
    assert suggestions.rank(np.array([0.9, 0.8, 0.1]), [*twins[:2], np.arange(15)])[0] == [0, 2, 1]


def test_every_list_can_be_asked_for_again():
    pairs = lexicon_lists()
    assert len(pairs) > 50 and not any(keyword == "identity" for keyword, _ in pairs)
    lists = [tuple(reference_words(keyword, of=of)) for keyword, of in pairs]
    assert len(set(lists)) == len(lists)
    assert suggestions.word_lists() == [(*p, list(words)) for p, words in zip(pairs, lists)]


def test_the_criteria_of_pictures_are_suggested(mini):
    data = mm.load_dataset("tuning-face", n=60, seed=7)
    table = mm.suggest_keywords(data.images, mini)
    assert set(table["keyword"][:3]) == {"emotion", "glasses", "pose"}
    assert table["fits"][:3].all() and not table["fits"][3:].all()
    assert table["similar"][0] == 0 and table["keyword"].is_unique
    emotion = table.set_index("keyword").loc["emotion"]
    assert set(emotion["names"].split(", ")) >= {"surprised", "sleepy", "silly", "scared"}
    assert mm.reference_words("emotion", of=emotion["of"])[0] == "happy"


def test_noise_fits_nothing(mini):
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (30, 64, 64, 3), dtype=np.uint8)
    with pytest.warns(UserWarning, match="no keyword fits these pictures .* try your own"):
        table = mm.suggest_keywords([Image.fromarray(p) for p in pixels], mini)
    assert not table["fits"].any()


def test_the_users_keywords_and_lists(mini):
    fruit = mm.load_dataset("tuning-fruit", n=40, seed=1).images
    assert set(mm.suggest_keywords(fruit, mini, ["color", "weather"])["keyword"]) == {
        "color",
        "weather",
    }
    own = {"taste": ["sweet", "sour"], "hue": "white, gray, black, brown, pink, turquoise"}
    table = mm.suggest_keywords(fruit, mini, own)
    assert list(table["keyword"]) == ["hue", "taste"] and set(table["of"]) == {""}
    with pytest.raises(ValueError, match="'colr': did you mean 'color'"):
        mm.suggest_keywords(fruit, mini, ["colr"])
    with pytest.raises(ValueError, match=r"no keywords.*None takes those"):
        mm.suggest_keywords(fruit, mini, {})
    with pytest.raises(ValueError, match="no images"):
        mm.suggest_keywords([], mini)


def test_the_tool_finds_the_limit_between_true_and_wrong_keywords():
    limit, balanced = tune_suggestions.separating(np.array([0.6, 0.8]), np.array([0.1, 0.4]))
    assert limit == pytest.approx(0.5) and balanced == 1
    assert tune_suggestions.separating(np.array([0.2, 0.8]), np.array([0.1, 0.4]))[1] == 0.75


def test_the_report_counts_the_criteria_among_the_suggestions(capsys, mini):
    data = mm.load_dataset("tuning-face", n=40, seed=0)
    items = tune_suggestions.similarities(mini, data.images)
    tune_suggestions.report([("tuning-face", mini, items, dict(data.labels))])
    means = capsys.readouterr().out.splitlines()
    columns = [cell.strip() for cell in means[0].split("|")]
    values = dict(zip(columns, (cell.strip() for cell in means[2].split("|"))))
    assert (values["criteria"], values["with words"], values["ours"]) == ("4", "3", "3")
    assert 0 < float(values["chance"]) < 1
