"""The embedded encoder for photographs: its files, open_clip's model of it, and what it knows."""

import json

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors import safe_open

import mmclust as mm
from mmclust.encoders.embedded import caption_words
from mmclust.encoders.photo import FOLDER
from tools.evaluate_mini import zero_shot
from tools.photo_captions import head_noun, imagenet_texts, species, training_vocabulary
from tools.photo_pictures import color_name


@pytest.fixture(scope="module")
def photo():
    return mm.load_encoder("photo")


def test_size_and_format():
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) <= 30_000_000
    with safe_open(FOLDER / "open_clip_model.safetensors", "pt") as file:
        assert {file.get_slice(k).get_dtype() for k in file.keys()} == {"F16"}  # noqa: SIM118


def test_open_clip_loads_it_as_any_other_model(photo):
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{FOLDER}")
    images = mm.load_dataset("tuning-fruit", n=3).images
    pixels = torch.stack([preprocess(image) for image in images])
    with torch.inference_mode():
        theirs = model.eval().encode_image(pixels, normalize=True)
    np.testing.assert_allclose(photo.encode_images(images), theirs.numpy(), atol=1e-5)


def test_the_projection_is_the_last_layer(photo):
    images = mm.load_dataset("tuning-card", n=3).images
    features = photo.features(images)
    assert features.shape == (3, 1280)
    assert photo.image_projection.shape == (1280, photo.embedding_dim)
    projected = features @ photo.image_projection.numpy()
    norms = np.linalg.norm(projected, axis=1, keepdims=True)
    np.testing.assert_allclose(photo.encode_images(images), projected / norms, atol=1e-5)


def test_a_prompt_with_a_cached_prefix_equals_the_full_computation(photo):
    words = ["hearts", "prickly pear"]
    expected = photo.encode_texts([f"card with suits of {word}" for word in words])
    np.testing.assert_allclose(
        photo.encode_words(words, "card with suits of *"), expected, atol=1e-5
    )
    prompt = photo.prompt("card with suits of *")
    assert prompt.path == "cached"
    with torch.inference_mode():
        hearts = prompt(photo.word_embeddings(["hearts"]))  # one token
    np.testing.assert_allclose(hearts.numpy(), expected[:1], atol=1e-5)


@pytest.mark.parametrize(
    "name, criterion, least",
    [
        ("tuning-fruit", "color", 0.8),
        ("tuning-fruit", "species", 0.7),
        ("tuning-card", "suits", 0.7),
        ("tuning-face", "glasses", 0.8),
    ],
)
def test_it_recognizes_rendered_pictures(photo, name, criterion, least):
    data = mm.load_dataset(name, n=60, seed=77)
    template = mm.prompt_template(criterion, of=data.domain)
    labels = data.labels[criterion]
    assert zero_shot(photo, data.images, data.classes[criterion], labels, template).mean() >= least


def test_it_recognizes_colors_of_drawn_objects(photo):
    colors = {"red": (205, 30, 35), "blue": (40, 70, 200), "green": (40, 150, 50)}
    pictures = []
    for color in colors.values():
        picture = Image.new("RGB", (200, 150), (235, 235, 230))
        ImageDraw.Draw(picture).ellipse((40, 15, 160, 135), fill=color)
        pictures.append(picture)
    template = mm.prompt_template("color", of="fruit")
    assert zero_shot(photo, pictures, list(colors), [0, 1, 2], template).all()


def test_the_note_on_the_training_vocabulary(photo):
    note = photo.training_vocabulary_note(["goldfish", "spades", "qwerty"])
    assert "photo saw 2 of these 3 words, but not qwerty. " in note
    stored = json.loads((FOLDER / "vocabulary.json").read_text(encoding="utf-8"))
    assert stored == training_vocabulary(imagenet_texts())
    assert {"hearts", "goldfish", "sunglasses", "turquoise"} <= caption_words(FOLDER)


def test_the_encoder_for_a_data_set(tmp_path):
    world = mm.load_dataset("demo-fruit", n=2)
    folder = tmp_path / "demo-fruit"  # the name of a world
    folder.mkdir()
    for i, image in enumerate(world.images):
        image.save(folder / f"{i}.png")
    pictures = mm.load_folder(folder)
    assert mm.encoder_for(world)[0] == "mini"
    name, reason = mm.encoder_for(pictures)
    assert name == "photo" and reason.startswith("encoder photo: ")
    assert mm.encoder_for(pictures, "mini") == ("mini", "encoder mini: you named it")
    clip = "ViT-B-32-quickgelu/openai"
    assert mm.encoder_for(pictures, default=clip) == (clip, f"encoder {clip}: the profile names it")


def test_what_the_captions_are_built_from():
    assert head_noun("small golden or orange-red freshwater fishes of Europe") is None
    assert head_noun("breed of large dogs") == "dog"
    assert head_noun("any of various burrowing animals of the family Leporidae") == "animal"
    assert head_noun("a clock that displays the time of day digitally") == "clock"
    assert species("Apple Golden 1") == "apple"
    assert species("Passion Fruit") == "passion fruit"
    assert color_name(np.full((20, 20, 3), (200, 30, 30), np.uint8)) == "red"
    stripes = np.zeros((20, 12, 3), np.uint8)
    stripes[:, :5] = (200, 30, 30)
    stripes[:, 5:7] = (30, 60, 200)
    stripes[:, 7:] = (250, 250, 40)
    assert color_name(stripes) is None
