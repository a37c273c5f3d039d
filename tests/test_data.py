"""Folders as people have them: labelled in three ways, unlabelled, and broken."""

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


def test_transparent_parts_are_shown_on_white_or_another_background(tmp_path):
    drawing = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    drawing.paste((200, 0, 0, 255), (5, 5, 15, 15)), drawing.paste((0, 0, 0, 128), (0, 15, 20, 20))
    drawing.save(tmp_path / "alpha.png")
    drawing.convert("LA").save(tmp_path / "gray.png")
    Image.fromarray(np.uint8([[0, 1]])).save(tmp_path / "key.png", transparency=0)
    Image.fromarray(np.uint16([[0, 9000]])).save(tmp_path / "sixteen.png")
    drawing.convert("P").save(
        tmp_path / "palette.gif", transparency=drawing.convert("P").getpixel((0, 0))
    )
    put(tmp_path / "opaque.png", 7)
    names = sorted(p.name for p in tmp_path.iterdir())
    corners = {
        color: dict(
            zip(
                names,
                (im.getpixel((0, 0)) for im in mm.load_folder(tmp_path, background=color).images),
            )
        )
        for color in ("white", "#0000ff")
    }
    see_through = {"alpha.png", "gray.png", "key.png", "palette.gif"}
    for name in names:
        assert (corners["white"][name] == (255, 255, 255)) == (name in see_through) and (
            corners["#0000ff"][name] == (0, 0, 255)
        ) == (name in see_through), name
    picture = mm.load_folder(tmp_path).images[names.index("alpha.png")]
    assert (
        picture.mode == "RGB"
        and picture.getpixel((10, 10)) == (200, 0, 0)
        and picture.getpixel((1, 18)) == (127, 127, 127)
    )
    assert mm.Images.of([drawing])[0].getpixel((0, 0)) == (255, 255, 255)
    white, blue = (mm.load_folder(tmp_path, background=c).images for c in ("white", "blue"))
    assert (
        white.fingerprint != blue.fingerprint
        and mm.load_dataset(str(tmp_path), background="blue").images.fingerprint == blue.fingerprint
    )
    with pytest.raises(ValueError, match="background 'whitish' is no color"):
        mm.load_folder(tmp_path, background="whitish")


def test_class_folders_and_no_labels(tmp_path):
    for name in ("cat", "dog"):
        put(tmp_path / "two" / name / "1.jpg")
        put(tmp_path / "none" / f"{name}.jpg")
    labelled = mm.load_folder(tmp_path / "two")
    assert labelled.criteria == ["class"] and labelled.classes["class"] == ["cat", "dog"]
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
        ("file,color\na.png,red\na.png,red\n", "a.png more than once"),
        ("file,color\na.png,red\ngone.png,red\n", r"gone\.png, which is not there"),
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
    whole = (tmp_path / "bad.jpg").read_bytes()
    (tmp_path / "bad.jpg").write_bytes(
        {"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"hello"}[damage]
    )
    with pytest.raises(ValueError, match=r"bad\.jpg can't be decoded"):
        mini.encode_images(mm.load_folder(tmp_path).images)
    with pytest.warns(
        UserWarning, match=r"left out 1 of 2 pictures that can't be decoded: bad\.jpg"
    ):
        assert len(mm.load_folder(tmp_path, on_corrupt="skip")) == 1


def test_unknown_criterion_lists_the_known_ones():
    with pytest.raises(
        ValueError, match="criterion 'colour' not in demo-fruit: color, species, shape"
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


def test_a_data_set_describes_itself():
    cards = mm.load_dataset("demo-card", n=40, seed=2)
    table, rows = cards.frame(), cards.describe(shown=3)
    assert table.shape == (40, 2) and table["suits"].tolist() == [
        cards.classes["suits"][k] for k in cards.labels["suits"]
    ]
    assert (
        [r["criterion"] for r in rows] == ["order", "suits"]
        and rows[0]["classes"].endswith(", ...")
        and rows[1]["clusters"] == cards.n_clusters("suits")
    )
