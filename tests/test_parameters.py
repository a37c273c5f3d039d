"""Bad parameters of all estimators are reported with their value and what is allowed, before any
work."""

import numpy as np
import pytest

import mmclust as mm
from mmclust.words import _domains

WORDS = ["red", "orange", "yellow", "green", "blue", "purple"]
TEMPLATE = "fruit with a color of *"


@pytest.fixture(scope="module")
def images():
    return mm.load_dataset("demo-fruit", n=20, seed=901).images


@pytest.fixture(autouse=True)
def no_work(mini, monkeypatch):
    monkeypatch.setattr(mini, "_batches", lambda *args: pytest.fail("work before the check"))


def build(method, encoder, **changes):
    options = {} if method == "KMeans" else {"words": WORDS, "template": TEMPLATE}
    return getattr(mm, method)(encoder, **options | changes)


@pytest.mark.parametrize(
    "method, changes, message",
    [
        ("KMeans", {"n_clusters": 0}, "n_clusters must be an integer from 1 to 20.*not 0"),
        ("KMeans", {"n_clusters": None}, "n_clusters .*not None"),
        ("KMeans", {"n_init": 0}, "n_init must be an integer of at least 1, not 0"),
        ("CLIP_GPT", {"words": []}, "at least one reference word"),
        ("CLIP_GPT", {"words": "red"}, "list of at least one reference word, not 'red'"),
        ("CLIP_GPT", {"template": "fruit with a color"}, "exactly one"),
        ("CLIP_label", {"words": None}, "at least one reference word, not None"),
        ("CLIP_GPT", {"words": {"red", "blue"}}, r"list .*not \{'.*ReferenceWords"),
        ("CLIP_GPT", {"words": {"red": 1}}, "list .*not {'red': 1}"),
        ("CLIP_GPT", {"words": (word for word in WORDS)}, "list .*generator"),
        ("MultiSub", {"words": [1, 2, 3]}, "reference word must be a text, not 1"),
        ("MultiSub", {"words": ["red", None]}, "must be a text, not None"),
        ("MultiSub", {"words": ["red", " "]}, "must be a text, not ' '"),
        ("MultiMaP", {"variant": "code"}, "variant 'code' .*paper, released"),
        ("MultiMaP", {"representation": "words"}, "representation 'words' .*did you mean 'word'"),
        ("MultiMaP", {"choose_by": "sound"}, "choose_by 'sound' .*template, word"),
        ("MultiMaP", {"init": "zero"}, "init 'zero' .*word, text"),
        ("MultiMaP", {"targets": "image"}, "targets 'image' .*word, text"),
        ("MultiMaP", {"optimizer": "sgd"}, "optimizer 'sgd' .*adam, adagrad"),
        ("MultiMaP", {"concept_loss": "cosine"}, "concept_loss 'cosine' .*contrastive, mse"),
        ("MultiMaP", {"reduction": "max"}, "reduction 'max' .*sum, mean, relative"),
        ("MultiMaP", {"concepts": "color"}, "concepts must be a list .*'color'"),
        ("MultiMaP", {"concepts": 6}, "concepts must be a list .*6"),
        ("MultiMaP", {"beta": -1}, "beta must be a number of at least 0, not -1"),
        ("MultiMaP", {"lr": float("nan")}, "lr must be a number of at least 0, not nan"),
        ("MultiMaP", {"concept_temperature": 0}, "concept_temperature .*above 0, not 0"),
        ("MultiMaP", {"batch_size": 0}, "batch_size .*at least 1 or 'full', not 0"),
        ("MultiSub", {"n_clusters": 500}, "from 1 to 20 or 'auto', not 500"),
        ("MultiSub", {"n_clusters": 2.5}, "n_clusters .*not 2.5"),
        ("MultiSub", {"variant": None}, "variant None .*paper, released"),
        ("MultiSub", {"words": ["red", "blue", "red"]}, "duplicate reference word 'red'"),
        ("MultiSub", {"random_state": -1, "phase1_epochs": 10**9}, "Seed must be between 0 and"),
        ("MultiSub", {"template": None}, "own words need a template"),
        ("MultiSub", {"representation": "pixels"}, "representation 'pixels' .*prompt, word"),
        ("MultiSub", {"subspace": "words"}, "subspace 'words' .*token, prompt, text"),
        ("MultiSub", {"representation": "word-eot", "subspace": "text"}, "word-eot.*use 'word'"),
        ("MultiSub", {"init": "word"}, "init 'word' .*zero, text"),
        ("MultiSub", {"intra": "cubed"}, "intra 'cubed' .*squared"),
        ("MultiSub", {"lam": 1.5}, "lam must be a number from 0 to 1, not 1.5"),
        ("MultiSub", {"margin": "wide"}, "margin .*not 'wide'"),
        ("MultiSub", {"batch_size": "all"}, "batch_size .*'full', not 'all'"),
        ("MultiSub", {"alternations": 0}, "alternations must be an integer of at least 1, not 0"),
        ("MultiSub", {"phase1_epochs": 2.5}, "phase1_epochs must be an integer .*not 2.5"),
        ("MultiSub", {"phase2_epochs": -1}, "phase2_epochs .*at least 0, not -1"),
        ("MultiSub", {"check_every": 0}, "check_every .*not 0"),
        ("MultiDProxy", {"n_clusters": "many"}, "'auto', not 'many'"),
        ("MultiDProxy", {"representation": "image"}, "representation 'image' .*fused, text"),
        ("MultiDProxy", {"fusion": "sum"}, "fusion 'sum' .*gated, concatenation, none"),
        ("MultiDProxy", {"modality": "sound"}, "modality 'sound' .*both, text, visual"),
        ("MultiDProxy", {"epochs": True}, "epochs must be an integer .*not True"),
        ("MultiDProxy", {"user_weight": -1}, "user_weight .*at least 0, not -1"),
        ("MultiDProxy", {"fusion_lr": -1}, "fusion_lr .*at least 0 or None, not -1"),
        ("MultiDProxy", {"tau": 0}, "tau must be a number above 0, not 0"),
        ("MultiDProxy", {"heads": 3}, "heads must divide the embedding width 128"),
    ],
)
def test_bad_parameters(mini, images, method, changes, message):
    with pytest.raises(ValueError, match=message):
        build(method, mini, **changes).fit(images)


@pytest.mark.parametrize("method", ["KMeans", "CLIP_GPT", "MultiMaP", "MultiSub", "MultiDProxy"])
def test_no_images(mini, method):
    with pytest.raises(ValueError, match="no images"):
        build(method, mini).fit([])


@pytest.mark.parametrize(
    "method", ["CLIP_GPT", "CLIP_label", "MultiMaP", "MultiSub", "MultiDProxy"]
)
def test_an_encoder_is_required(images, method):
    with pytest.raises(ValueError, match=f"{method} needs an encoder, such as mm.load_encoder"):
        build(method, None).fit(images)


def test_auto_needs_three_images_and_two_words(mini, images):
    with pytest.raises(ValueError, match="at least 3 images, not 2"):
        build("MultiSub", mini, n_clusters="auto").fit(images[:2])
    with pytest.raises(ValueError, match="at least 2 reference words"):
        build("MultiSub", mini, n_clusters="auto", words=["red"]).fit(images)


@pytest.mark.parametrize(
    "method, parameter", [("MultiMaP", "init"), ("MultiMaP", "targets"), ("MultiSub", "init")]
)
def test_text_outputs_as_tokens_need_equal_widths(mini, images, monkeypatch, method, parameter):
    monkeypatch.setattr(type(mini), "embedding_dim", 64)
    with pytest.raises(ValueError, match=f'{parameter}="text".*64 wide.*128 wide'):
        build(method, mini, **{parameter: "text"}).fit(images)


@pytest.mark.parametrize(
    "keywords, options, message",
    [
        ([], {}, "at least one"),
        (["color", "color"], {}, "without duplicates.*'color', 'color'"),
        (["flavour"], {}, "no words for 'flavour'"),
        (["color", "species"], {"n_clusters": {"color": 3}}, "no entry for keyword 'species'"),
        (["color"], {"words": {"colour": ["red"]}}, r"'colour', not one of \['color'\]"),
        (["color"], {"words": {"color": "sun"}}, "list of at least one reference word, not 'sun'"),
        (["color"], {"method": mm.KMeans}, "method=KMeans.* takes no words"),
        (["color"], {"method": mm.CLIP_GPT, "n_clusters": 3}, "CLIP_GPT.* takes no n_clusters"),
        (["color"], {"method": mm.MultiMaP, "concepts": "hue"}, "must be a list .*'hue'"),
    ],
)
def test_bad_keywords_of_cluster_by(mini, images, keywords, options, message):
    with pytest.raises(ValueError, match=message):
        mm.cluster_by(images, keywords, mini, of="fruit", **options)


@pytest.mark.parametrize(
    "words, message",
    [
        (["red", "Red", "blue"], "mini reads 'Red' as 'red'"),
        (["red", "very " * 100], "mini does not read all of 'very very"),
    ],
)
def test_words_that_the_text_tower_does_not_see_are_a_warning(mini, words, message):
    with pytest.warns(UserWarning, match=message):
        build("CLIP_GPT", mini, words=words)._check(3)


def test_all_words_of_the_lexicon_differ_for_mini(mini, recwarn):
    for domain, entries in _domains().items():
        for keyword in entries:
            words = mm.reference_words(keyword, of=domain)
            mini.check_words(words, words.template)
    assert not recwarn.list


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "", None])
def test_a_device_that_is_not_there(device):
    with pytest.raises(ValueError, match=f"no device {device!r} on this machine: use cpu"):
        mm.load_encoder("mini", device)


def test_numpy_numbers_are_numbers(mini, images, monkeypatch):
    monkeypatch.undo()
    options = {"n_clusters": np.int64(2), "epochs": np.int32(1), "lr": np.float32(0.1)}
    assert build("MultiMaP", mini, **options).fit(images).n_clusters_ == 2
