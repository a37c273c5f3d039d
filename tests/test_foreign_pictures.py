"""Pictures from packages: a folder of them, the tables, and nothing left behind."""

import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import mmclust as mm
from benchmarks import foreign_pictures


@pytest.fixture
def room(tmp_path):
    made = foreign_pictures.Room(tmp_path / "room")
    made.path.mkdir()
    yield made
    made.close()


def fetched(name, room, into, n=200):
    try:
        return mm.load_folder(
            foreign_pictures.fetch(name, room, into, n), domain=foreign_pictures.SETS[name].domain
        )
    except foreign_pictures.Unreachable as error:
        pytest.skip(f"not to be had here: {error}")


def test_the_figures_of_clustpy_come_through_a_folder(room, tmp_path):
    pytest.importorskip("clustpy")
    data = fetched("stick figures", room, tmp_path, 60)
    assert (
        len(data) == 60
        and data.criteria == ["upper body", "legs"]
        and data.images[0].size == (20, 20)
    )
    assert (
        len(data.classes["upper body"]) == len(data.classes["legs"]) == 3
        and "clustpy" in room.packages
    )
    pixels, labels = np.stack([np.asarray(im, float)[..., 0] for im in data.images]), data.frame()
    middle = (pixels[:, :6] * np.arange(20)).sum((1, 2)) / pixels[:, :6].sum(
        (1, 2)
    )  # the head and arms lean to one side
    assert (
        middle[labels["upper body"] == "left"].max()
        < middle[labels["upper body"] == "straight"].min()
    )
    assert (
        middle[labels["upper body"] == "right"].min()
        > middle[labels["upper body"] == "straight"].max()
    )


def test_the_letters_of_clustpy_are_named_as_they_look(room, tmp_path):
    pytest.importorskip("clustpy")
    data = fetched("letters", room, tmp_path, 300)
    assert data.criteria == ["letter", "color", "corner"] and data.images[0].size == (7, 9)
    pixels, labels = np.stack([np.asarray(im, float) for im in data.images]), data.frame()
    bright = pixels.max(-1)
    corners = {
        "top left": bright[:, 0, 0],
        "top right": bright[:, 0, -1],
        "bottom left": bright[:, -1, 0],
        "bottom right": bright[:, -1, -1],
    }
    assert pd.DataFrame(corners).idxmax(axis=1).tolist() == labels["corner"].tolist()
    lacks = (
        pixels[:, 2:7, 1:6].reshape(len(data), -1, 3).mean(1).argmin(1)
    )  # yellow lacks blue, pink green, turquoise red
    assert [("turquoise", "pink", "yellow")[k] for k in lacks] == labels["color"].tolist()
    shape = (
        (bright[:, 1:-1] > 128).reshape(len(data), -1).astype(float)
    )  # the same letter, the same pixels
    same = labels["letter"].to_numpy()[:, None] == labels["letter"].to_numpy()
    apart = np.abs(shape[:, None] - shape[None]).sum(-1)
    assert apart[same].max() < apart[~same].min()


@pytest.mark.slow  # 20 MB from the registry
def test_cards_and_emoji_come_through_a_folder(room, tmp_path):
    cards = fetched("cards", room, tmp_path)
    assert (
        len(cards) == 103 and len(cards.classes["order"]) == 13 and len(cards.classes["suits"]) == 4
    )
    red = np.array(
        [np.asarray(im)[..., 0].mean() - np.asarray(im)[..., 2].mean() for im in cards.images]
    )
    plain = ~cards.frame()["order"].isin(["jack", "queen", "king"]).to_numpy()
    is_red = cards.frame()["suits"].isin(["hearts", "diamonds"]).to_numpy()
    assert red[plain & is_red].min() > red[plain & ~is_red].max()
    fruit = fetched("emoji fruit", room, tmp_path)
    assert set(fruit.frame()["style"]) == set(foreign_pictures.ICONS) and len(fruit) == len(
        foreign_pictures.ICONS
    ) * len(foreign_pictures.FRUIT)
    assert any(
        picture.size == (128, 128) and picture.getpixel((0, 0)) == (255, 255, 255)
        for picture in fruit.images
    )


def test_a_command_prints_the_tables_and_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    pytest.importorskip("clustpy")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path)
    settings = mm.load_profile("demo")
    quick = {
        "MultiMaP": {"epochs": 2},
        "MultiSub": {"alternations": 1, "phase1_epochs": 2},
        "MultiDProxy": {"epochs": 4, "update_every": 2},
    }
    monkeypatch.setattr(
        mm, "load_profile", lambda name: settings | {"methods": quick}, raising=False
    )
    repository = os.path.dirname(os.path.dirname(mm.__file__))
    before = _files(repository)
    foreign_pictures.main(
        ["--sets", "stick figures", "-n", "36", "--seeds", "2", "--json", "rows.json"]
    )
    assert _files(repository) == before
    assert os.listdir(tmp_path / "temporary") == [] and sorted(os.listdir(tmp_path)) == [
        "rows.json",
        "temporary",
    ]
    said = capsys.readouterr().out
    assert (
        "Left out" not in said
        and "clustpy" in said
        and "mini learned from captions with the words left, right, straight" in said
    )
    found = json.loads((tmp_path / "rows.json").read_text())
    rows = pd.DataFrame(found["methods"])
    table = foreign_pictures.first_table(rows, "accuracy")
    assert list(table.columns) == [
        "set",
        "criterion",
        "n",
        "classes",
        "largest class",
        "zero-shot",
        *foreign_pictures.METHODS,
    ]
    assert (
        table["criterion"].tolist() == ["upper body", "legs"]
        and "±" in table["MultiSub"][0]
        and "±" not in table["CLIP_GPT"][0]
    )
    printed = [[cell.strip() for cell in line.strip("|").split("|")] for line in said.splitlines()]
    assert list(table.columns) in printed and all(
        row in printed for row in table.astype(str).to_numpy().tolist()
    )
    assert {r["prepared"] for r in found["prepared"]} == {
        *foreign_pictures.PREPARED,
        foreign_pictures.BARE,
    }


def _files(repository: str) -> list[str]:
    """What git would see as new or changed."""
    return subprocess.run(
        ["git", "-C", repository, "status", "--porcelain"], capture_output=True, text=True
    ).stdout.splitlines()


def test_what_can_not_be_had_is_told_and_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))  # no npm there
    foreign_pictures.main(["--sets", "emoji fruit"])
    assert (
        capsys.readouterr().out
        == "Left out: emoji fruit: @iconify-json/noto is an npm package, and there is no npm here\n"
    )


def test_a_client_that_fails_is_quoted(room):
    with pytest.raises(
        foreign_pictures.Unreachable, match=r"-c import sys.* error: no such package$"
    ):
        room._call(sys.executable, "-c", "import sys; sys.exit('notice\\nerror: no such package')")


def test_accuracy_is_that_of_the_best_matching():
    assert foreign_pictures.accuracy([0, 0, 1, 1, 2, 2], [2, 2, 0, 0, 1, 0]) == pytest.approx(5 / 6)
    assert (
        foreign_pictures.accuracy([0, 0, 1, 1], [0, 1, 2, 3]) == 0.5
    )  # more clusters than classes: two stand for nothing


def test_nearest_mean_is_that_of_the_directions():
    x, labels = np.array([[1.0, 0], [0.8, 0.6], [0, 1.0]]), np.array([4, 4, 7])
    assert foreign_pictures.nearest_mean(
        x, labels, np.array([[0.9, np.sqrt(0.19)], [0.1, np.sqrt(0.99)]])
    ).tolist() == [4, 7]


def test_a_folder_that_is_in_use_is_not_written_to(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(SystemExit):
        foreign_pictures.main(["--keep", str(tmp_path)])
    assert "is not empty: give a new folder" in capsys.readouterr().err and os.listdir(
        tmp_path
    ) == ["mine.txt"]


def test_a_whole_picture_keeps_its_ground():
    card = Image.new("RGB", (20, 40), "#123456")
    assert foreign_pictures.whole(card).size == (40, 40) and np.unique(
        np.asarray(foreign_pictures.whole(card))[..., :3].reshape(-1, 3), axis=0
    ).tolist() == [[18, 52, 86]]
    drawing = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    drawing.paste("red", (10, 10, 30, 30))
    square = foreign_pictures.whole(drawing, 0.25)
    assert (
        square.size == (60, 60)
        and square.getpixel((0, 0))[3] == 0
        and square.getbbox() == (20, 20, 40, 40)
    )
    ground = foreign_pictures.on_our_ground(drawing, 3)
    assert (
        ground.mode == "RGB"
        and ground.size == (128, 128)
        and ground.getpixel((64, 64))[0] > 2 * ground.getpixel((64, 64))[1]
    )
