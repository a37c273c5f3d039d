"""The embedded encoder: its size and layout, the original CLIP class, and what it recognizes."""

import copy
import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors import safe_open

import mmclust as mm
from mmclust import code_fingerprint
from mmclust.encoders import base
from mmclust.encoders import open_clip as open_clip_encoder
from mmclust.encoders.embedded import caption_words
from mmclust.encoders.mini import FOLDER
from mmclust.encoders.open_clip import OpenCLIPEncoder
from tools.evaluate_mini import original_layout_difference, zero_shot
from tools.mini_captions import training_vocabulary


def test_size_and_format():
    weights = FOLDER / "open_clip_model.safetensors"
    assert weights.stat().st_size <= 20_000_000
    with safe_open(weights, "pt") as file:
        assert {file.get_slice(k).get_dtype() for k in file.keys()} == {"F16"}  # noqa: SIM118


def test_the_layout_is_clips():
    config = json.loads((FOLDER / "open_clip_config.json").read_text())["model_cfg"]
    text = config["text_cfg"]
    assert text["heads"] == text["width"] // 64
    assert text["context_length"] == 77
    assert text["vocab_size"] == 49408
    assert config["quick_gelu"]


def test_open_clip_loads_it_as_any_other_model(mini):
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{FOLDER}")
    image = mm.load_dataset("demo-fruit", n=1).images[0]
    with torch.inference_mode():
        theirs = model.eval().encode_image(preprocess(image)[None], normalize=True)
    np.testing.assert_allclose(mini.encode_images([image]), theirs.numpy(), atol=1e-5)


def test_same_features_in_the_original_layout(mini):
    image, text = original_layout_difference(mini, mm.load_dataset("demo-face", n=8).images)
    assert image < 1e-5
    assert text < 1e-5


@pytest.mark.parametrize(
    "name, criterion, least",
    [
        ("demo-fruit", "color", 0.9),
        ("demo-fruit", "species", 0.8),
        ("demo-card", "suits", 0.7),
        ("demo-face", "glasses", 0.9),
    ],
)
def test_it_recognizes_what_it_was_taught(mini, name, criterion, least):
    assert accuracy(mini, mm.load_dataset(name, n=120, seed=77), criterion) >= least


def accuracy(encoder, data, criterion) -> float:
    template = mm.prompt_template(criterion, of=data.domain)
    classes = data.classes[criterion]
    return zero_shot(encoder, data.images, classes, data.labels[criterion], template).mean()


def test_the_note_on_the_training_vocabulary(mini):
    note = mini.training_vocabulary_note(["land", "water", "forest"])
    assert "mini saw 2 of these 3 words, but not forest. " in note
    assert "saw none of these words" in mini.training_vocabulary_note(["forest"])
    assert "saw all of these 2 words" in mini.training_vocabulary_note(["land", "water"])


def test_the_stored_vocabulary_is_that_of_the_captions():
    stored = json.loads((FOLDER / "vocabulary.json").read_text(encoding="utf-8"))
    assert stored == training_vocabulary()
    assert {"apple", "pepper", "upside down", "road"} <= caption_words(FOLDER)


def test_another_drawing_does_not_change_the_code_of_encoders():
    """Otherwise a change in a renderer would change the keys of all stored rows."""
    pending = [Path(open_clip_encoder.__file__)]
    reached = set()
    while pending:
        file = pending.pop()
        if file not in reached:
            reached.add(file)
            pending += code_fingerprint._parsed(file)[1]
    names = {file.name for file in reached}
    assert "prompt.py" in names
    assert "rendered.py" not in names


@pytest.mark.parametrize("name", ["image_projection", "logit_scale", "image_trunk"])
def test_an_encoder_without_a_required_property_cannot_be_constructed(mini, name):
    required = {
        "image_projection": property(lambda self: torch.eye(192)),
        "logit_scale": property(lambda self: 100.0),
        "image_trunk": property(lambda self: self.model.visual),
    }
    arguments = (mini.model, mini.preprocess, mini.tokenizer, "mine")
    complete = type("Mine", (mm.Encoder,), required)(*arguments)
    with pytest.raises(ValueError, match="mine gives no patch tokens"):
        complete.patch_tokens(mm.load_dataset("demo-fruit", n=1).images)
    del required[name]
    with pytest.raises(TypeError, match=f"abstract.*{name}"):
        type("Mine", (mm.Encoder,), required)(*arguments)


def test_features_are_computed_once(mini, monkeypatch):
    data = mm.load_dataset("demo-card", n=5, seed=123)
    first = mini.features(data.images)
    monkeypatch.setattr(mini, "_batches", lambda *args: pytest.fail("computed twice"))
    assert mini.features(data.images) is first
    mini._array_cache.clear()
    again = mini.features(data.images)  # from disk
    assert again is not first
    np.testing.assert_array_equal(again, first)


def test_words_are_encoded_once(monkeypatch):
    encoder = mm.load_encoder("mini")
    first = encoder.encode_words(["red", "blue"], "fruit with a color of *")
    expected = first.copy()
    first[:] = 0  # a caller's change is the caller's
    other = encoder.encode_words(["red", "blue"])
    assert not np.allclose(other, expected)
    monkeypatch.setattr(encoder, "encode_texts", lambda *args: pytest.fail("computed twice"))
    again = encoder.encode_words(["red", "blue"], "fruit with a color of *")
    np.testing.assert_array_equal(again, expected)


def test_only_the_most_recently_used_features_stay_in_memory(monkeypatch):
    monkeypatch.setattr(base, "ARRAYS_IN_MEMORY", 2)
    encoder = mm.load_encoder("mini")
    images = [mm.load_dataset("demo-card", n=n, seed=125).images for n in (3, 4, 5)]
    first, second = (encoder.features(some) for some in images[:2])
    assert encoder.features(images[0]) is first
    encoder.features(images[2])
    assert encoder.features(images[0]) is first
    again = encoder.features(images[1])
    assert again is not second
    np.testing.assert_array_equal(again, second)
    assert len(encoder._array_cache) == 2


def test_a_damaged_feature_file_is_computed_again(mini):
    data = mm.load_dataset("demo-card", n=4, seed=124)
    first = mini.features(data.images)
    file = mm.cache_dir() / "features" / f"{mini._features_key(data.images)}.npy"
    file.write_bytes(file.read_bytes()[:50])
    fresh = mm.load_encoder("mini")
    with pytest.warns(UserWarning, match=file.name):
        np.testing.assert_allclose(fresh.features(data.images), first, atol=1e-6)


@pytest.mark.parametrize("name", ["maxi", "ViT-B-32", "no/such"])
def test_unknown_encoders(name):
    with pytest.raises(ValueError, match=f"'{name}'.*expected mini"):
        mm.load_encoder(name)


def test_checkpoints_need_their_configuration(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path} has no open_clip_config.json"):
        mm.load_encoder(str(tmp_path))
    (tmp_path / "weights.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"weights.pt is a single .*open_clip_config.json"):
        mm.load_encoder(str(tmp_path / "weights.pt"))


def test_words_of_the_encoder(mini):
    phi = mini.word_embeddings(["red", "eyepatch"])
    table, ids = mini.model.token_embedding.weight, mini.tokenizer.encode("eyepatch")
    assert len(ids) > 1
    np.testing.assert_allclose(phi[1], table[ids].mean(0), atol=1e-7)
    with pytest.raises(ValueError, match="a reference word is empty"):
        mini.word_embeddings(["red", " "])


def test_the_checkpoints_of_the_training_get_better(mini):
    quarter = mm.load_encoder("mini-quarter")
    data = mm.load_dataset("demo-face", n=80, seed=78)
    assert accuracy(quarter, data, "emotion") < accuracy(mini, data, "emotion")
    encoders = (quarter, mm.load_encoder("mini-half"), mini)
    assert len({encoder.fingerprint for encoder in encoders}) == 3


def test_patch_tokens_begin_with_the_image_embedding(mini):
    images = mm.load_dataset("demo-fruit", n=6, seed=909).images
    tokens = mini.patch_tokens(images)
    assert tokens.shape == (6, 1 + 36, 128)
    np.testing.assert_allclose(tokens[:, 0], mini.encode_images(images), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(tokens, axis=-1), 1, atol=1e-5)
    assert not mini.model.visual.output_tokens  # not changed


def test_features_computed_elsewhere_are_used(mini):
    images = mm.Images(5, lambda i: pytest.fail("drawn"), fingerprint="elsewhere")
    features = np.random.default_rng(0).normal(size=(5, 192)).astype(np.float32)
    mini.set_features(images, features)
    np.testing.assert_array_equal(mini.features(images), features)
    with pytest.raises(ValueError, match="4 rows of features for 5 images"):
        mini.set_features(images, features[:4])


def test_other_precision_gives_other_features(mini):
    """The same weights in another precision share no stored features."""
    images = mm.load_dataset("demo-fruit", n=4, seed=910).images
    assert mini.features(images).dtype == np.float32
    double = OpenCLIPEncoder(
        copy.deepcopy(mini.model).double(), mini.preprocess, mini.tokenizer, "mini in float64"
    )
    assert double.fingerprint != mini.fingerprint
    assert double.encode_images(images).dtype == np.float64
