"""Pictures from packages: a folder of them, the tables, and nothing is left behind."""

import json
import os
import sys
import tempfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import mmclust as mm
from benchmarks import foreign_pictures


@pytest.fixture
def fetcher(tmp_path):
    (tmp_path / "packages").mkdir()
    fetcher = foreign_pictures.PackageFetcher(tmp_path / "packages")
    yield fetcher
    fetcher.close()


def load(name, fetcher, parent, n=200):
    try:
        folder = foreign_pictures.fetch(name, fetcher, parent, n)
    except foreign_pictures.Unreachable as error:
        pytest.skip(str(error))
    return mm.load_folder(folder, domain=foreign_pictures.SETS[name].domain)


def test_the_figures_of_clustpy_come_through_a_folder(fetcher, tmp_path):
    pytest.importorskip("clustpy")
    data = load("stick figures", fetcher, tmp_path, 60)
    assert len(data) == 60 and data.criteria == ["upper body", "legs"]
    assert data.images[0].size == (20, 20)
    assert len(data.classes["upper body"]) == len(data.classes["legs"]) == 3
    assert "clustpy" in fetcher.packages
    pixels = np.stack([np.asarray(im, float)[..., 0] for im in data.images])
    top = pixels[:, :6]
    middle = (top * np.arange(20)).sum((1, 2)) / top.sum((1, 2))  # head and arms lean to one side
    lean = pd.Series(middle).groupby(data.frame()["upper body"])
    assert lean.max()["left"] < lean.min()["straight"]
    assert lean.max()["straight"] < lean.min()["right"]


def test_the_letters_of_clustpy_are_named_by_what_they_show(fetcher, tmp_path):
    pytest.importorskip("clustpy")
    data = load("letters", fetcher, tmp_path, 300)
    assert data.criteria == ["letter", "color", "corner"] and data.images[0].size == (7, 9)
    pixels = np.stack([np.asarray(im, float) for im in data.images])
    labels = data.frame()
    bright = pixels.max(-1)
    corners = {
        "top left": bright[:, 0, 0],
        "top right": bright[:, 0, -1],
        "bottom left": bright[:, -1, 0],
        "bottom right": bright[:, -1, -1],
    }
    assert pd.DataFrame(corners).idxmax(axis=1).tolist() == labels["corner"].tolist()
    # yellow has no blue, pink no green, turquoise no red
    missing = pixels[:, 2:7, 1:6].reshape(len(data), -1, 3).mean(1).argmin(1)
    colors = [("turquoise", "pink", "yellow")[k] for k in missing]
    assert colors == labels["color"].tolist()
    shape = (bright[:, 1:-1] > 128).reshape(len(data), -1).astype(float)
    same = labels["letter"].to_numpy()[:, None] == labels["letter"].to_numpy()
    distance = np.abs(shape[:, None] - shape[None]).sum(-1)
    assert distance[same].max() < distance[~same].min()


@pytest.mark.slow  # 20 MB from the registry
def test_cards_and_emoji_come_through_a_folder(fetcher, tmp_path):
    cards = load("cards", fetcher, tmp_path)
    assert len(cards) == 103
    assert len(cards.classes["order"]) == 13 and len(cards.classes["suits"]) == 4
    pixels = [np.asarray(im, float) for im in cards.images]
    red = np.array([p[..., 0].mean() - p[..., 2].mean() for p in pixels])
    labels = cards.frame()
    plain = ~labels["order"].isin(["jack", "queen", "king"]).to_numpy()
    is_red = labels["suits"].isin(["hearts", "diamonds"]).to_numpy()
    assert red[plain & is_red].min() > red[plain & ~is_red].max()
    fruit = load("emoji fruit", fetcher, tmp_path)
    assert set(fruit.frame()["style"]) == set(foreign_pictures.ICONS)
    assert len(fruit) == len(foreign_pictures.ICONS) * len(foreign_pictures.FRUIT)
    corners = {im.getpixel((0, 0)) for im in fruit.images if im.size == (128, 128)}
    assert (255, 255, 255) in corners


QUICK = {
    "MultiMaP": {"epochs": 2},
    "MultiSub": {"alternations": 1, "phase1_epochs": 2},
    "MultiDProxy": {"epochs": 4, "update_every": 2},
}


def test_the_command_prints_the_tables_and_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    pytest.importorskip("clustpy")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)
    settings = mm.load_profile("demo") | {"methods": QUICK}
    monkeypatch.setattr(mm, "load_profile", lambda name: settings, raising=False)
    options = ["--sets", "stick figures", "-n", "36", "--seeds", "2", "--json", "rows.json"]
    # the default encoders are mini and photo
    foreign_pictures.main(options)
    assert os.listdir(tmp_path / "temporary") == []
    assert sorted(os.listdir(tmp_path)) == ["rows.json", "temporary"]
    out = capsys.readouterr().out
    assert "Left out" not in out and "clustpy" in out
    rows = json.loads((tmp_path / "rows.json").read_text())
    scores = pd.DataFrame(rows["methods"])
    assert set(scores["encoder"]) == {"mini", "photo"}
    table = foreign_pictures.first_table(scores[scores["encoder"] == "photo"], "accuracy")
    methods = foreign_pictures.METHODS
    index = ["set", "criterion", "n", "classes", "largest class", "zero-shot"]
    assert list(table.columns) == [*index, *methods]
    assert table["criterion"].tolist() == ["upper body", "legs"]
    assert "±" in table["MultiSub"][0] and "±" not in table["CLIP_GPT"][0]
    printed = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines()]
    assert list(table.columns) in printed
    assert all(row in printed for row in table.astype(str).to_numpy().tolist())
    both = foreign_pictures.side_by_side(scores)
    assert all(row in printed for row in both.astype(str).to_numpy().tolist())
    gpt = scores[(scores["method"] == "CLIP_GPT") & (scores["criterion"] == "legs")]["NMI"]
    assert both["CLIP_GPT"][1] == " / ".join(gpt.map("{:.2f}".format))
    ways = {*foreign_pictures.PREPARED, foreign_pictures.WITHOUT_TEMPLATE}
    assert {row["prepared"] for row in rows["prepared"]} == ways


def test_a_set_that_cant_be_downloaded_is_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))  # no npm there
    foreign_pictures.main(["--sets", "emoji fruit"])
    out = capsys.readouterr().out
    assert out.startswith("Left out: emoji fruit: @iconify-json/noto is an npm package")
    assert out.count("\n") == 1


def test_a_client_that_fails_is_quoted(fetcher):
    script = "import sys; sys.exit('notice\\nerror: no such package')"
    with pytest.raises(foreign_pictures.Unreachable, match=r"-c import sys.* error: no such"):
        fetcher._call(sys.executable, "-c", script)


def test_accuracy_is_that_of_the_best_matching():
    accuracy = foreign_pictures.accuracy
    assert accuracy([0, 0, 1, 1, 2, 2], [2, 2, 0, 0, 1, 0]) == pytest.approx(5 / 6)
    assert accuracy([0, 0, 1, 1], [0, 1, 2, 3]) == 0.5  # two clusters match no class


def test_nearest_mean_compares_directions():
    x = np.array([[1.0, 0], [0.8, 0.6], [0, 1.0]])
    new = np.array([[0.9, np.sqrt(0.19)], [0.1, np.sqrt(0.99)]])
    assert foreign_pictures.nearest_mean(x, np.array([4, 4, 7]), new).tolist() == [4, 7]


def test_a_folder_in_use_is_not_written_to(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit):
        foreign_pictures.main(["--keep", str(tmp_path)])
    assert "is not empty: give a new folder" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["mine.txt"]


def test_a_square_has_the_background_of_the_picture():
    card = foreign_pictures.square(Image.new("RGB", (20, 40), "#123456"))
    assert card.size == (40, 40)
    assert card.getcolors() == [(1600, (0x12, 0x34, 0x56, 255))]
    drawing = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    drawing.paste("red", (10, 10, 30, 30))
    square = foreign_pictures.square(drawing, 0.25)
    assert square.size == (60, 60) and square.getpixel((0, 0))[3] == 0
    assert square.getbbox() == (20, 20, 40, 40)
    ground = foreign_pictures.on_rendered_ground(drawing, 3)
    assert ground.mode == "RGB" and ground.size == (128, 128)
    red, green, _ = ground.getpixel((64, 64))
    assert red > 2 * green
