"""The embedded encoder: its layout, its size, its features in the original CLIP class, and that it can see."""

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

import mmclust as mm
from mmclust.encoders import mini as package
from tools.evaluate_mini import original_layout_difference, zero_shot

HERE = Path(package.__file__).parent


def test_size_and_format():
    weights = HERE / "open_clip_model.safetensors"
    assert weights.stat().st_size <= 20_000_000
    from safetensors import safe_open

    with safe_open(weights, "pt") as file:
        assert {file.get_slice(k).get_dtype() for k in file.keys()} == {"F16"}  # noqa: SIM118


def test_the_layout_is_clips():
    config = json.loads((HERE / "open_clip_config.json").read_text())["model_cfg"]
    text = config["text_cfg"]
    assert (
        text["heads"] == text["width"] // 64
        and text["context_length"] == 77
        and text["vocab_size"] == 49408
        and config["quick_gelu"]
    )


def test_open_clip_loads_it_as_any_other_model(mini):
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{HERE}")
    image = mm.load_dataset("demo-fruit", n=1).images[0]
    with torch.inference_mode():
        theirs = model.eval().encode_image(preprocess(image)[None], normalize=True)
    np.testing.assert_allclose(mini.encode_images([image]), theirs.numpy(), atol=1e-5)


def test_same_features_in_the_original_layout(mini):
    image, text = original_layout_difference(mini, mm.load_dataset("demo-face", n=8).images)
    assert image < 1e-5 and text < 1e-5


@pytest.mark.parametrize(
    "name, criterion, least",
    [
        ("demo-fruit", "color", 0.9),
        ("demo-fruit", "species", 0.8),
        ("demo-card", "suits", 0.7),
        ("demo-face", "glasses", 0.9),
    ],
)
def test_it_sees_what_it_was_taught(mini, name, criterion, least):
    data = mm.load_dataset(name, n=120, seed=77)
    right = zero_shot(
        mini,
        data.images,
        data.classes[criterion],
        data.labels[criterion],
        mm.prompt_template(criterion, of=data.domain),
    )
    assert right.mean() >= least


def test_the_card_says_what_it_must():
    card = (HERE / "README.md").read_text()
    for word in (
        "CIFAR-10",
        "seed",
        "python -m tools.train_mini",
        "never seen",
        "float16",
        "minutes",
    ):
        assert word in card, word


def test_what_it_saw(mini):
    sentence = mini.training_vocabulary_note(["land", "water", "forest"])
    assert "with the words land, water" in sentence and "never saw forest" in sentence


def test_features_are_computed_once(mini, monkeypatch):
    data = mm.load_dataset("demo-card", n=5, seed=123)
    first = mini.features(data.images)
    monkeypatch.setattr(mini, "_run", lambda *args: pytest.fail("computed twice"))
    assert mini.features(data.images) is first
    mini._kept = {k: v for k, v in mini._kept.items() if v is not first}
    np.testing.assert_array_equal(mini.features(data.images), first)  # now from disk


def test_a_damaged_feature_file_is_computed_again(mini):
    data = mm.load_dataset("demo-card", n=4, seed=124)
    first = mini.features(data.images)
    file = next(
        f
        for f in (mm.cache_dir() / "features").iterdir()
        if np.load(f).shape == first.shape and (np.load(f) == first).all()
    )
    file.write_bytes(file.read_bytes()[:50])
    fresh = mm.load_encoder("mini")
    np.testing.assert_allclose(fresh.features(data.images), first, atol=1e-6)


@pytest.mark.parametrize(
    "name, message",
    [("maxi", "none of: mini"), ("ViT-B-32", "none of: mini"), ("no/such", "none of: mini")],
)
def test_unknown_encoders(name, message):
    with pytest.raises(ValueError, match=message):
        mm.load_encoder(name)


def test_checkpoints_bring_their_configuration(tmp_path):
    with pytest.raises(ValueError, match="must bring its architecture and its preprocessing"):
        mm.load_encoder(str(tmp_path))
    (tmp_path / "weights.pt").write_bytes(b"")
    with pytest.raises(ValueError, match="bare checkpoint"):
        mm.load_encoder(str(tmp_path / "weights.pt"))


def test_a_wrong_activation_is_an_error():
    with pytest.raises(ValueError, match="QuickGELU mismatch"):  # before anything is fetched
        mm.load_encoder("ViT-B-32/openai")


def test_words_of_the_encoder(mini):
    phi = mini.word_embeddings(["red", "eyepatch"])
    table, ids = mini.model.token_embedding.weight, mini.tokenizer.encode("eyepatch")
    assert len(ids) > 1
    np.testing.assert_allclose(phi[1], table[ids].mean(0), atol=1e-7)
    with pytest.raises(ValueError, match="a reference word is empty"):
        mini.word_embeddings(["red", " "])


def test_the_checkpoints_of_the_training_get_better(mini):
    data, scores = mm.load_dataset("demo-face", n=80, seed=78), []
    for name in ("mini-quarter", "mini"):
        encoder = mini if name == "mini" else mm.load_encoder(name)
        right = zero_shot(
            encoder,
            data.images,
            data.classes["emotion"],
            data.labels["emotion"],
            mm.prompt_template("emotion", of="face"),
        )
        scores.append(right.mean())
    assert scores[0] < scores[1]
    assert mm.load_encoder("mini-half").fingerprint not in (
        mini.fingerprint,
        mm.load_encoder("mini-quarter").fingerprint,
    )


def test_patch_tokens_begin_with_the_image_embedding(mini):
    images = mm.load_dataset("demo-fruit", n=6, seed=909).images
    tokens = mini.patch_tokens(images)
    assert tokens.shape == (6, 1 + 36, 128)
    np.testing.assert_allclose(tokens[:, 0], mini.encode_images(images), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(tokens, axis=-1), 1, atol=1e-5)
    assert not mini.model.visual.output_tokens  # left as it was


def test_features_computed_elsewhere_are_taken(mini):
    images = mm.Images(5, lambda i: pytest.fail("drawn"), fingerprint="elsewhere")
    given = np.random.default_rng(0).normal(size=(5, 192)).astype(np.float32)
    mini.set_features(images, given)
    np.testing.assert_array_equal(mini.features(images), given)
    with pytest.raises(ValueError, match="4 rows of features for 5 images"):
        mini.set_features(images, given[:4])


def test_other_precision_other_features(mini):
    """The same weights at another precision share no stored features."""
    import copy

    from mmclust.encoders.open_clip import OpenCLIPEncoder

    images = mm.load_dataset("demo-fruit", n=4, seed=910).images
    assert mini.features(images).dtype == np.float32
    double = OpenCLIPEncoder(
        copy.deepcopy(mini.model).double(), mini.preprocess, mini.tokenizer, "mini in float64"
    )
    assert double.fingerprint != mini.fingerprint
    assert double.encode_images(images).dtype == np.float64
