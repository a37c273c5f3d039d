"""Folders as people have them: labeled in three ways, unlabeled, and damaged."""

import numpy as np
import pytest
from PIL import Image

import mmclust as mm


def put(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 30, 3), value, np.uint8)).save(path)


def test_labels_csv(tmp_path):
    for i in range(3):
        put(tmp_path / "images" / f"{i}.png", i)
    (tmp_path / "labels.csv").write_text(
        "file,color,kind\nimages/2.png,red,a\nimages/0.png,blue,b\nimages/1.png,red,b\n"
    )
    data = mm.load_folder(tmp_path)
    assert data.criteria == ["color", "kind"] and data.classes["color"] == ["blue", "red"]
    assert data.labels["color"].tolist() == [1, 0, 1]
    assert np.asarray(data.images[0])[0, 0, 0] == 2


def test_transparent_parts_are_shown_on_white(tmp_path):
    drawing = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    drawing.paste((200, 0, 0, 255), (5, 5, 15, 15))
    drawing.paste((0, 0, 0, 128), (0, 15, 20, 20))
    palette = drawing.convert("P")
    drawing.save(tmp_path / "alpha.png")
    drawing.convert("LA").save(tmp_path / "gray.png")
    palette.save(tmp_path / "palette.gif", transparency=palette.getpixel((0, 0)))
    Image.fromarray(np.uint8([[0, 1]])).save(tmp_path / "key.png", transparency=0)
    Image.fromarray(np.uint16([[0, 9000]])).save(tmp_path / "sixteen.png")
    put(tmp_path / "opaque.png", 7)
    names = sorted(p.name for p in tmp_path.iterdir())
    images = mm.load_folder(tmp_path).images
    filled = {n for n, image in zip(names, images) if image.getpixel((0, 0)) == (255, 255, 255)}
    assert filled == {"alpha.png", "gray.png", "key.png", "palette.gif"}
    picture = images[names.index("alpha.png")]
    assert picture.mode == "RGB"
    assert picture.getpixel((10, 10)) == (200, 0, 0)
    assert picture.getpixel((1, 18)) == (127, 127, 127)
    assert mm.Images.of([drawing])[0].getpixel((0, 0)) == (255, 255, 255)


def test_class_folders_and_no_labels(tmp_path):
    for name in ("cat", "dog"):
        put(tmp_path / "two" / name / "1.jpg")
        put(tmp_path / "none" / f"{name}.jpg")
    labeled = mm.load_folder(tmp_path / "two")
    assert labeled.criteria == ["class"] and labeled.classes["class"] == ["cat", "dog"]
    assert mm.load_folder(tmp_path / "none").criteria == []
    with pytest.raises(ValueError, match="it has no labels"):
        mm.load_folder(tmp_path / "none").labels["class"]


def test_a_tree_per_criterion_is_matched_by_name(tmp_path):
    for name, color, kind in (
        ("x.jpg", "red", "apple"),
        ("y.jpg", "green", "apple"),
        ("z.jpg", "red", "pear"),
    ):
        put(tmp_path / "color" / color / name)
        put(tmp_path / "species" / kind / name)
    data = mm.load_folder(tmp_path)
    assert len(data) == 3 and data.criteria == ["color", "species"]
    assert [data.classes["species"][k] for k in data.labels["species"]] == [
        "apple",
        "apple",
        "pear",
    ]
    put(tmp_path / "color" / "blue" / "w.jpg")
    with pytest.raises(ValueError, match=r"w\.jpg is not in both"):
        mm.load_folder(tmp_path)


@pytest.mark.parametrize(
    "text, message",
    [
        ("name,color\na.png,red\n", "no column 'file'"),
        ("file,color\na.png,red\nb.png,\n", "b.png has no label for 'color'"),
        ("file,color\na.png,red\na.png,red\n", r"duplicate file a\.png"),
        ("file,color\na.png,red\ngone.png,red\n", r"gone\.png', which is missing"),
    ],
)
def test_bad_labels_are_named(tmp_path, text, message):
    put(tmp_path / "a.png"), put(tmp_path / "b.png")
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        mm.load_folder(tmp_path)


def test_empty_and_absent_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no pictures"):
        mm.load_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder"):
        mm.load_folder(tmp_path / "gone")
    with pytest.raises(ValueError, match="neither a folder nor one of: demo-fruit"):
        mm.load_dataset("demo-fruits")


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_a_corrupt_file_is_named_or_left_out(tmp_path, mini, damage):
    put(tmp_path / "good.png")
    Image.effect_noise((64, 64), 50).save(tmp_path / "bad.jpg")
    complete = (tmp_path / "bad.jpg").read_bytes()
    (tmp_path / "bad.jpg").write_bytes(
        {"truncated": complete[: len(complete) // 2], "empty": b"", "text": b"hello"}[damage]
    )
    with pytest.raises(ValueError, match=r"bad\.jpg can't be decoded"):
        mini.encode_images(mm.load_folder(tmp_path).images)
    data = mm.load_folder(tmp_path, on_corrupt="skip")
    assert len(data) == 1 and "left out, can't be decoded: 1 picture (bad.jpg)" in data.notes
    (tmp_path / "good.png").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"none of 2 pictures \(bad\.jpg, good\.png\) can be decoded"
    ):
        mm.load_folder(tmp_path, on_corrupt="skip")


def test_unknown_criterion_lists_the_known_ones():
    with pytest.raises(
        ValueError, match=r"'colour' is not in demo-fruit \(color, species, shape\): .*'color'\?"
    ):
        mm.load_dataset("demo-fruit", n=2).labels["colour"]


def test_images_are_decoded_when_needed(tmp_path):
    put(tmp_path / "a.png", 1), put(tmp_path / "b.png", 2)
    data = mm.load_folder(tmp_path)
    (tmp_path / "b.png").unlink()
    assert np.asarray(data.images[0])[0, 0, 0] == 1
    with pytest.raises(ValueError, match=r"b\.png"):
        data.images[1]


def test_subsets_and_fingerprints():
    data = mm.load_dataset("demo-card", n=10)
    part = data.subset([7, 2])
    np.testing.assert_array_equal(np.asarray(part.images[1]), np.asarray(data.images[2]))
    assert part.labels["suits"].tolist() == data.labels["suits"][[7, 2]].tolist()
    prints = {
        data.images.fingerprint,
        part.images.fingerprint,
        data.subset([2, 7]).images.fingerprint,
        mm.load_dataset("demo-card", n=10, seed=1).images.fingerprint,
    }
    assert len(prints) == 4
    assert mm.load_dataset("demo-card", n=10).images.fingerprint == data.images.fingerprint


def test_lists_of_pictures_and_paths():
    array = np.zeros((8, 8, 3), np.uint8)
    assert mm.Images.of([array]).fingerprint == mm.Images.of([Image.fromarray(array)]).fingerprint
    with pytest.raises(TypeError, match="load_folder"):
        mm.Images.of("photos/")


def test_cached_pictures_are_made_once():
    made = []
    images = mm.Images(3, lambda i: made.append(i) or Image.new("RGB", (2, 2)), "x")
    cached = images.cached()
    assert cached.fingerprint == images.fingerprint
    for _ in range(2):
        cached[1], cached[2]
    assert made == [1, 2]
    images[1]
    assert made == [1, 2, 1]


def test_a_data_set_describes_itself():
    cards = mm.load_dataset("demo-card", n=40, seed=2)
    table = cards.frame()
    assert table.shape == (40, 2)
    assert table["suits"].tolist() == [cards.classes["suits"][k] for k in cards.labels["suits"]]
    order, suits = cards.describe()
    assert (order["criterion"], suits["criterion"]) == ("order", "suits")
    assert order["classes"] == "ace, two, three, four, five, six, seven, eight, ..."
    assert suits["clusters"] == cards.n_clusters("suits")


def test_derived_criteria_are_not_independent():
    fruit = mm.load_dataset("demo-fruit", n=5)
    for data in (fruit, fruit.subset([3, 1])):
        assert data.criteria == ["color", "species", "shape"]
        assert data.derived_criteria == ("shape",)
        assert data.independent_criteria == ["color", "species"]
    cards = mm.load_dataset("demo-card", n=5)
    assert cards.independent_criteria == cards.criteria
    with pytest.raises(ValueError, match=r"2 labels of 'color' for 5 images"):
        mm.ImageDataset("x", "fruit", fruit.images, {"color": [0, 1]}, {"color": ["a", "b"]})


@pytest.mark.parametrize("wrong", [-1, 2, 0.5, float("nan")])
def test_a_label_must_be_that_of_a_class(wrong):
    images = mm.load_dataset("demo-fruit", n=3).images
    for labels, classes in ([0, 1, wrong], {"a": ["x", "y"]}), ([0, 1, 1], {}):
        with pytest.raises(ValueError, match=r"x: .* is a label of 'a': .* class names"):
            mm.ImageDataset("x", "fruit", images, {"a": labels}, classes)
    assert len(mm.ImageDataset("x", "fruit", images, {"a": [0, 1, 1]}, {"a": ["x", "y"]})) == 3
