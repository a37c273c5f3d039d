"""The rendered worlds: reproducible, independent factors, and not solved by k-means on pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mmclust as mm
from mmclust.data.rendered import COLORS, DEMO, FRUITS, RENDERED_WORLDS, TUNING
from tools.mini_captions import VOCABULARY, held_out


@pytest.mark.parametrize("name", RENDERED_WORLDS)
def test_same_seed_same_pictures_and_a_prefix_of_more(name):
    few, many = mm.load_dataset(name, n=3, seed=5), mm.load_dataset(name, n=6, seed=5)
    assert few.rows == many.rows[:3]
    for a, b in zip(few.images, many.images[:3]):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    other = mm.load_dataset(name, n=3, seed=6)
    assert any((np.asarray(a) != np.asarray(b)).any() for a, b in zip(few.images, other.images))


@pytest.mark.parametrize("name", RENDERED_WORLDS)
@pytest.mark.parametrize("size", [96, 128, 200])
def test_every_size_is_rgb(name, size):
    image = mm.load_dataset(name, n=1, size=size).images[0]
    assert image.mode == "RGB" and image.size == (size, size)


def test_every_value_can_be_drawn():
    for world in RENDERED_WORLDS.values():
        for criterion, values in world.factors.items():
            base = world.sample_one(0)
            for value in values:
                assert np.asarray(world.render(base | {criterion: value}, 0, size=64)).std() > 5


def test_a_factor_changes_the_picture_and_nothing_else_does():
    world = DEMO["demo-fruit"]
    row = {"color": "red", "species": "lemon"}
    same = [np.asarray(world.render(row, 3, 1)) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert (same[0] != np.asarray(world.render(row | {"color": "blue"}, 3, 1))).any()


@pytest.mark.parametrize("name", DEMO)
def test_factors_are_independent(name):
    data = mm.load_dataset(name, n=3000)
    free = list(RENDERED_WORLDS[name].factors)
    for i, a in enumerate(free):
        assert len(np.unique(data.labels[a])) == len(RENDERED_WORLDS[name].factors[a])
        for b in free[i + 1 :]:
            assert abs(mm.score(data.labels[a], data.labels[b])["AMI"]) < 0.01


def test_shape_follows_from_species():
    data = mm.load_dataset("demo-fruit", n=200)
    assert {row["shape"] for row in data.rows if row["species"] == "banana"} == {"elongated"}
    assert data.n_clusters("shape") == 2


def test_tuning_worlds_share_no_value_with_the_demo_worlds():
    for demo, tuning in zip(DEMO.values(), TUNING.values()):
        assert demo.domain == tuning.domain
        for criterion in demo.factors:
            assert not set(demo.factors[criterion]) & set(tuning.factors[criterion])


@given(st.sampled_from(list(COLORS)))
def test_each_color_keeps_four_fifths_of_its_partners(color):
    unseen = sum(held_out({"color": color, "species": species}) for species in FRUITS)
    assert 0.1 * len(FRUITS) <= unseen <= 0.3 * len(FRUITS)


def test_no_caption_mentions_shape():
    words = {
        w
        for domain in VOCABULARY.values()
        for entries in domain.values()
        for synonyms, _ in entries
        for w in synonyms
    }
    assert "red" in words and not words & {"round", "elongated", "oval", "square", "shape"}


HARD = [
    ("demo-fruit", "color"), ("demo-fruit", "species"), ("demo-card", "suits"),
    ("demo-face", "emotion"),
]  # fmt: skip


@pytest.mark.parametrize("name, criterion", HARD)
def test_kmeans_on_pixels_does_not_solve_a_world(name, criterion):
    data = mm.load_dataset(name, n=250)
    pixels = np.stack([np.asarray(im.resize((24, 24)), np.float32).ravel() for im in data.images])
    k = data.n_clusters(criterion)
    assert mm.score_kmeans(pixels, data.labels[criterion], k, range(3))["NMI"] < 0.35
