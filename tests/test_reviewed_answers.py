"""Stored answers of language models: which words are valid, and files that people edit."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmclust.words import reviewed_answers

pytest.importorskip("inflect")

SAME = (
    "cherry cherries, box boxes, leaf leaves, knife knives, mouse mice, fireman firemen, "
    "tomato tomatoes, glass glasses, rose roses, bus buses, movie movies"
)
DIFFERENT = "glass grass, princess prince, red green, car cart, cactus cact, order border"


def test_singular_and_plural_are_the_same_word():
    same = [pair.split() for pair in SAME.split(", ")] + [["water lily", "water lilies"]]
    different = [pair.split() for pair in DIFFERENT.split(", ")]
    for one, other in same:
        assert reviewed_answers.same(one, other) and reviewed_answers.same(other, one)
    assert not any(reviewed_answers.same(*pair) for pair in different)


VALUES = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["red", "reds", "Box", "boxes", "color", "a b c d"]),
    st.none(),
    st.integers(),
)


@given(st.lists(VALUES, max_size=40), st.integers(1, 10))
def test_valid_words_keep_the_rules(values, n):
    words, dropped = reviewed_answers.clean(values, n, "color", "fruit", ["plum"])
    assert len(words) <= n - 1 and len(dropped) <= reviewed_answers.MAX_DROPPED
    for k, word in enumerate(words):
        assert re.fullmatch("[a-z0-9][a-z0-9' -]{,29}", word) and word == word.strip()
        assert len(word.split()) <= 3
        others = ["plum", "colors", *words[:k]]
        assert not any(reviewed_answers.same(word, other) for other in others)
    assert reviewed_answers.clean(words, n, "color", "fruit", ["plum"]) == (words, [])


TEXT = st.text(min_size=1, max_size=9)


@given(st.dictionaries(st.text(max_size=9), st.text(max_size=9)), st.text(max_size=30), TEXT, TEXT)
def test_any_answer_survives_its_file(tmp_path_factory, dropped, text, model, keyword):
    folder = tmp_path_factory.mktemp("words")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMCLUST_WORDS", str(folder))
        path = reviewed_answers.path_of(model, "a/b", keyword, 3)
        record = {"words": ["no", "1", "on"], "dropped": dropped, "model": model, "domain": "a/b"}
        record |= {"keyword": keyword, "count": 3, "template": "*", "answers": [text]}
        assert reviewed_answers.write_once(path, record) == record
        assert reviewed_answers.read(path) == record


def test_invalid_files_are_named_and_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("MMCLUST_WORDS", str(tmp_path))
    path = reviewed_answers.path_of("fake", "fruit", "color", 4)
    words = ["red", "green", "blue", "yellow"]
    record = {"words": words, "model": "fake", "domain": "fruit", "keyword": "color", "count": 4}
    reviewed_answers.write_once(path, record | {"template": "fruit with a color of *"})
    valid = path.read_text()
    faults = {
        valid[: valid.index("\nmodel")] + "\nmodel: [": "while parsing",
        "": "no answer",
        valid.replace("words:", "word:"): "'words' is missing",
        valid.replace("- green", "- {}"): "words.*must be a text, not {}",
        valid.replace("keyword: color", "keyword: size"): "fake,fruit,size,4.yaml",
        valid.replace("color of *", "color"): "template",
        valid.replace("words:\n- red\n- green\n- blue\n- yellow", "words: []"): "at least one text",
        "\0" + valid: "",
    }
    for text, fault in faults.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=f"{path.name}.*{fault}.*delete it to ask again"):
            reviewed_answers.read(path)
        assert path.read_text() == text
