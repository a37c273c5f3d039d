"""The explorer without a browser: its answers, its messages and its widgets."""

import base64
import io
import re
import socket
import subprocess
import sys
import urllib.request
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.manifold import TSNE, trustworthiness

import mmclust as mm
from mmclust.explorer import html as explorer_html
from mmclust.explorer import session as rooms
from mmclust.explorer.session import ExplorerSession, InputError
from mmclust.explorer.widgets import serve

ROOT = Path(__file__).parents[1]
N = 60


def picture(color, file="PNG"):
    data = io.BytesIO()
    Image.new("RGB", (40, 30), color).save(data, file)
    return data.getvalue()


def zip_of(files):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


COLORS = {
    f"{color}-{k}.png": picture(color) for color in ("red", "blue", "green") for k in range(2)
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos").mkdir()
    for name, content in COLORS.items():
        (tmp_path / "photos" / name).write_bytes(content)
    return tmp_path / "photos"


@pytest.fixture(scope="module")
def fruit(mini):
    session = ExplorerSession(n=N)
    session.load("demo-fruit")
    session._encoders["mini"] = mini
    return session


@pytest.fixture(scope="module")
def looks(fruit):
    return [
        fruit.cluster(k, ", ".join(fruit.words(k)), n_clusters=m)
        for k, m in (("color", "6"), ("species", "auto"))
    ]


def test_a_look_is_what_the_method_gives(fruit, looks):
    color, species = looks
    assert (
        mm.score(fruit.data.labels["color"], color.labels)["NMI"] > 0.8
        and color.model.n_clusters_ == 6
        and species.model.n_clusters_ > 2
    )
    assert color.names == color.model.name_clusters() and set(color.names) < set(
        fruit.words("color")
    )
    assert (
        color.model.template == "fruit with a color of *"
        and len(color.model.history_) == fruit.cfg.quick["MultiSub"]["phase1_epochs"]
    )
    assert color.model.lr == fruit.cfg.methods["MultiSub"]["lr"]
    assert fruit.cluster("color", "\n".join(fruit.words("color")), n_clusters="6") is color, (
        "what was asked for before is kept"
    )
    assert fruit.cluster("color", "red, blue", n_clusters="6") is not color
    for method in ("MultiMaP", "MultiDProxy", "CLIP_GPT"):
        look = fruit.cluster(
            "color",
            "red, green, blue, yellow, orange, purple",
            method,
            n_clusters="5",
            others=["species"],
        )
        assert look.labels.shape == (N,) and look.weights.shape[0] == len(look.space) == N
        assert method != "MultiMaP" or look.model.concepts == ["color", "species"]


def test_weights_of_all_pictures_are_those_of_each(fruit, looks):
    for method in ("MultiSub", "MultiMaP", "CLIP_GPT"):
        model = fruit.cluster("color", "red, green, blue", method, n_clusters="3").model
        every = model.explain()
        assert every.shape == (N, 3) and list(every) == ["red", "green", "blue"]
        for i in (0, 17):
            np.testing.assert_allclose(
                every.loc[i, model.explain(i).index], model.explain(i), rtol=1e-5
            )


def test_two_keywords_are_compared_and_exported(fruit, looks):
    difference, apart, counts = fruit.compare(*looks)
    pairs = [(i, j) for i in range(N) for j in range(i)]
    together = [np.array([look.labels[i] == look.labels[j] for i, j in pairs]) for look in looks]
    assert apart == pytest.approx((together[0] != together[1]).mean()) and difference > 0.8
    assert counts.to_numpy().sum() == N and counts.shape == tuple(len(look.names) for look in looks)
    assert fruit.compare(looks[0], looks[0])[:2] == (pytest.approx(0), 0)
    table = pd.read_csv(io.StringIO(fruit.export(*looks)))
    assert list(table) == [
        "picture",
        "file",
        "color: cluster",
        "color: name",
        "species: cluster",
        "species: name",
    ]
    np.testing.assert_array_equal(table["species: cluster"], looks[1].labels)
    assert table["color: name"].tolist() == [looks[0].names[c] for c in looks[0].labels]


@pytest.mark.parametrize(
    ("field", "given", "said"),
    [
        ("keyword", {"keyword": " "}, "no keyword is given"),
        ("keyword", {"keyword": "a * b"}, r"no '\*'"),
        ("keyword", {"keyword": "x" * 61}, "at most 60 letters"),
        ("words", {"words": "red"}, "at least two reference words"),
        ("words", {"words": " , ;\n"}, "not 0"),
        ("words", {"words": "red, blue, red"}, "stands twice: red"),
        ("words", {"words": "red, !!"}, "'!!' is no word"),
        ("words", {"words": "red, *"}, "is no word"),
        ("method", {"method": "KMeans"}, "'KMeans' is none of MultiSub"),
        ("clusters", {"n_clusters": "many"}, "'many' is neither a whole number nor auto"),
        ("clusters", {"n_clusters": "2.5"}, "neither"),
        ("clusters", {"n_clusters": "1"}, "1 cluster would not sort anything"),
        ("clusters", {"n_clusters": "61"}, "61 clusters for 60 pictures"),
        ("encoder", {"encoder": "nothing"}, "nothing can't be loaded: "),
        ("encoder", {"encoder": ""}, "no encoder can't be loaded|no encoder"),
    ],
)
def test_a_fault_is_told_of_its_field(fruit, field, given, said):
    with pytest.raises(InputError, match=said) as told:
        fruit.cluster(**({"keyword": "color", "words": "red, blue"} | given))
    assert told.value.field == field


def test_an_unknown_keyword_gets_the_ways_out(fruit):
    with pytest.raises(
        InputError,
        match=r"no words for 'hairstyle' of fruit: type them yourself, below, or pick color, species, shape, ",
    ) as told:
        fruit.words("hairstyle")
    assert told.value.field == "keyword"
    assert fruit.words("  time   of day ").source.startswith("the lexicon's common list")
    assert set(fruit.cluster("hairstyle", "long, short", n_clusters="2").names) == {
        "long",
        "short",
    }, "words of one's own will do"


def test_a_folder(folder, tmp_path):
    session = ExplorerSession(home=tmp_path, most=7)
    assert (
        len(session.load("folder", " photos ", domain="thing")) == 6
        and session.data.domain == "thing"
        and session.notes == []
    )
    (folder / "broken.jpg").write_bytes(b"no picture")
    session.load("folder", str(folder))
    assert (
        len(session.data) == 6
        and len(session.thumbs) == 6
        and "left out 1 of 7 pictures" in session.notes[0]
        and "broken.jpg" in session.notes[0]
    )
    kept = session.data
    (tmp_path / "empty").mkdir()
    (folder / "labels.csv").write_text("name\nx\n")
    for path, said in (
        ("nowhere", "no folder .*nowhere"), ("", "no folder is given"), ("empty", "empty holds no pictures"), ("photos/red-0.png", "is a file"),
        ("photos", "labels.csv has no column 'file'"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=said) as told:
            session.load("folder", path)
        assert told.value.field == "pictures" and session.data is kept
    (folder / "labels.csv").unlink()
    (folder / "eighth.png").write_bytes(picture("white"))
    with pytest.raises(InputError, match="holds more than 7 pictures, which is as many"):
        session.load("folder", "photos")


def test_the_search_for_pictures_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(rooms, "FILES", 20)
    for i in range(30):
        (tmp_path / f"{i}.txt").touch()
    with pytest.raises(InputError, match="holds more than 20 files: give a folder below it"):
        ExplorerSession().load("folder", str(tmp_path))


def test_a_picture_that_grows_without_bounds_is_left_out(folder):
    bomb = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(bomb, "PNG")
    assert len(bomb.getvalue()) < 50_000
    session = ExplorerSession()
    session.load("upload", [("photos.zip", zip_of(COLORS | {"bomb.png": bomb.getvalue()}))])
    assert (
        sorted(session.said()) == sorted(COLORS)
        and "left out 1 of 7" in session.notes[0]
        and "bomb.png" in session.notes[0]
    )


def test_thumbnails_show_the_pictures(folder):
    session = ExplorerSession(home=folder.parent)
    session.load("folder", "photos")
    for said, uri in zip(session.said(), session.thumbs):
        with urllib.request.urlopen(uri) as file, Image.open(io.BytesIO(file.read())) as small:
            assert small.size == (explorer_html.SIDE, explorer_html.SIDE)
            middle, want = (
                np.array(small.convert("RGB").getpixel((64, 64)), float),
                np.array(Image.new("RGB", (1, 1), said.split("-")[0]).getpixel((0, 0))),
            )
            assert np.abs(middle - want).max() < 12, said


@pytest.mark.parametrize("zipped", [False, True])
def test_an_upload(zipped):
    session = ExplorerSession()
    files = COLORS | {"notes.txt": b"x", "broken.png": b"x"}
    session.load("upload", [("photos.zip", zip_of(files))] if zipped else list(files.items()))
    assert sorted(session.said()) == sorted(COLORS)
    assert sum("broken.png" in note for note in session.notes) == 1 and not any(
        "mmclust-upload" in note for note in session.notes
    )
    assert zipped or "notes.txt" in session.notes[0]
    room = Path(session._room.name)
    assert room.is_dir()
    with pytest.raises(InputError):
        session.load("upload", [("x.png", b"x")])
    assert len(session.data) == 6 and np.asarray(session.data.images[0]).shape == (30, 40, 3), (
        "the pictures of before are still there"
    )
    session.load("upload", [("red.png", picture("red"))])
    assert session.said() == ["red.png"] and not room.exists()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "nothing is uploaded yet"),
        ([("a/x.png", picture("red")), ("b/x.png", picture("red"))], "x.png is uploaded twice"),
        ([("x.zip", zip_of({"a.png": b"x"})), ("y.png", b"x")], "x.zip comes with other files"),
        ([("x.zip", b"no zip")], "x.zip is no zip"),
        (
            [("x.zip", zip_of({"../evil.png": picture("red")}))],
            r"x.zip holds '\.\./evil.png', a path that leads out of its folder",
        ),
        ([("x.zip", zip_of(COLORS).replace(b"IDAT", b"IDAX"))], "x.zip can't be unpacked: .*CRC"),
        ([("x.zip", zip_of({"big.png": bytes(3000)}))], "x.zip .* grows beyond 2,500 bytes"),
        ([("x.png", bytes(5001))], "are more than the"),
        ([("x.txt", b"x")], "the upload holds no pictures"),
        ([("x.png", b"x")], "the upload holds no pictures"),
    ],
)
def test_an_upload_that_is_refused(files, said, monkeypatch, tmp_path):
    monkeypatch.setattr(rooms, "UPLOAD", 5000)
    monkeypatch.setattr(rooms, "UNPACKED", 2500)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    session = ExplorerSession()
    with pytest.raises(InputError, match=said) as told:
        session.load("upload", files)
    assert told.value.field == "pictures" and str(tmp_path) not in str(told.value)
    assert session.data is None and list(tmp_path.iterdir()) == [], "nothing is left of it"


class Tags(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_names_are_text_and_never_html():
    evil = "<img src=x onerror=alert(1)>\"'&"
    weights = pd.DataFrame(np.tile([0.75, 0.25], (6, 1)), columns=[evil, "b"])
    labels, names, said = np.array([0, 0, 0, 1, 1, 1]), [evil, "b"], [evil] * 6
    html = explorer_html.gallery(
        evil, labels, names, ["data:image/jpeg;base64,"] * 6, said, weights, [evil] * 6
    )
    points = np.random.default_rng(0).normal(size=(6, 2))
    table = pd.DataFrame([[1, 2]], index=[evil], columns=[evil, "b"])
    html += explorer_html.scatter(points, labels, names, said, evil) + explorer_html.crossing(
        table, evil, evil, {(0, 0): "data:,"}
    )
    found = Tags(html)
    assert {tag for tag, _ in found.tags}.isdisjoint({"script", "a"}) and not any(
        key.startswith("on") for _, attrs in found.tags for key in attrs
    )
    images = [attrs for tag, attrs in found.tags if tag == "img" and attrs["alt"]]
    assert len(images) == 6 and found.text.count(evil) > 6
    assert all(evil in attrs["alt"] for attrs in images)
    assert (
        "0.75" in found.text
        and {"aria-label": evil}.items()
        <= next(
            attrs for tag, attrs in found.tags if tag == "svg" and "aria-label" in attrs
        ).items()
    )


def test_a_large_cluster_shows_some_and_says_so():
    n = 200
    html = explorer_html.gallery(
        "k",
        np.zeros(n, int),
        ["a"],
        ["data:,"] * n,
        [f"p{i}" for i in range(n)],
        pd.DataFrame({"a": np.ones(n)}),
    )
    assert (
        html.count("<details") == explorer_html.SHOWN
        and f"200 pictures, {explorer_html.SHOWN} of them shown" in html
        and "p199" in html
    )


def test_a_map_of_half_the_steps_keeps_neighbours_as_well(looks):
    for look in looks:
        x = np.asarray(look.space, np.float32)
        whole = TSNE(
            perplexity=min(30, (len(x) - 1) // 3), init="pca", random_state=0
        ).fit_transform(x)
        assert trustworthiness(x, explorer_html.positions(x)) > trustworthiness(x, whole) - 0.005


def test_positions():
    x = np.random.default_rng(0).normal(size=(12, 4))
    assert (
        explorer_html.positions(x).shape == (12, 2)
        and explorer_html.positions(np.ones((12, 4))) is None
    )
    assert "Too few" in explorer_html.scatter(None, [], [], [], "")


def test_images_are_kept_once_they_were_made():
    made = []
    images = mm.Images(5, lambda i: made.append(i) or Image.new("RGB", (2, 2), (i, 0, 0)), "x")
    kept = images[1:].cached()
    assert [
        kept[0].getpixel((0, 0))[0],
        kept[0].getpixel((0, 0))[0],
        kept[3].getpixel((0, 0))[0],
    ] == [1, 1, 4]
    assert made == [1, 4] and kept.fingerprint == images[1:].fingerprint


def test_notebooks_for_teaching_run_when_they_are_asked_for():
    from mmclust.pipeline.notebooks import select

    assert "16_explorer" not in select(None, "demo") and "00_quickstart" in select(None, "demo")
    assert (
        select(["16"], "demo") == ["16_explorer"]
        and "16_explorer" in select(["teaching"], "demo")
        and "00_quickstart" not in select(["teaching"], "demo")
    )


@pytest.fixture
def explorer(mini, folder):
    pytest.importorskip("ipywidgets")
    made = mm.Explorer(home=folder.parent, n=N, worlds=["demo-fruit"])
    made.session._encoders["mini"] = mini
    made.start()
    assert made.ready.wait(60)
    return made


def beside(explorer):
    return {
        name: Tags(html.value).text
        for name, html in explorer.beside.items()
        if "mm-bad" in html.value
    }


def test_the_widgets(explorer):
    assert (
        beside(explorer) == {}
        and "sorted by color" in explorer.status.value
        and "<svg" in explorer.maps[0].value
    )
    assert (
        "by color" in explorer.heads[0].value
        and "<details" in explorer.galleries[0].value
        and explorer.panels[1].layout.display == "none"
    )
    explorer.keyword.value = "hairstyle"
    assert "no words for 'hairstyle'" in beside(explorer)["keyword"] and explorer.words.value == ""
    explorer.sort()
    assert "at least two reference words" in beside(explorer)["words"] and not explorer.go.disabled
    assert (
        "nothing was sorted: see Keyword and Reference words" in explorer.status.value
        and explorer.panels[0].layout.display == "none"
    ), "nothing old stands there"
    explorer._tell(ValueError("singular"))
    assert (
        "see Keyword and Reference words and the note at the button" in explorer.status.value
        and "ValueError: singular" in beside(explorer)["run"]
    )
    explorer.words.value = "long, short"
    explorer.sort()
    assert beside(explorer) == {} and "by hairstyle" in explorer.heads[0].value
    explorer.second.value = "hairstyle"
    explorer.sort()
    assert "the same keyword as the first" in beside(explorer)["second"]
    explorer.second.value, explorer.second_words.value = "species", "apple"
    explorer.sort()
    assert "at least two" in beside(explorer)["second_words"] and "words" not in beside(explorer)
    assert (
        "sorted by hairstyle alone: see Second reference words" in explorer.status.value
        and "<path" in explorer.maps[0].value
    )
    assert (
        explorer.panels[0].layout.display is None
        and explorer.panels[1].layout.display == "none"
        and "hairstyle" in explorer.csv.value
    )
    explorer.second_words.value, explorer.clusters.value = "apple, banana, grapes", "1"
    explorer.sort()
    assert "at least 2" in beside(explorer)["clusters"]
    explorer.clusters.value = "3"
    explorer.sort()
    assert (
        beside(explorer) == {}
        and "by species" in explorer.heads[1].value
        and "Where they disagree" in explorer.crossed.value
    )
    told = explorer.session.cluster(
        "species", "apple, banana, grapes", n_clusters="3", others=["hairstyle"]
    ).named[0]
    assert f"by species: {told} · labels: " in explorer.galleries[0].value, (
        "a picture says where it is in the other one"
    )


def test_pictures_that_are_not_there_are_not_sorted(explorer):
    explorer.kind.value = "folder"
    assert (
        beside(explorer) == {}
        and explorer.path.layout.display is None
        and explorer.panels[0].layout.display == "none"
    )
    explorer.sort()
    assert (
        "no folder is given" in beside(explorer)["pictures"]
        and "see Pictures" in explorer.status.value
        and explorer.heads[0].value == ""
    )
    explorer.path.value = "nowhere"
    assert "no folder" in beside(explorer)["pictures"]
    explorer.sort()
    assert "no folder" in beside(explorer)["pictures"] and explorer.heads[0].value == "", (
        "those of before are not what was asked for"
    )
    explorer.path.value = "photos"
    assert (
        beside(explorer) == {}
        and "6 pictures" in explorer.beside["pictures"].value
        and explorer.keyword.value == "color"
    )
    explorer.words.value, explorer.clusters.value = "red, green, blue", "3"
    explorer.sort()
    files = {f"{c}-{k}.png" for c in ("red", "green", "blue") for k in range(2)}
    assert {
        i["title"] for tag, i in Tags(explorer.galleries[0].value).tags if tag == "summary"
    } == files and "6 pictures sorted by color" in explorer.status.value
    table = pd.read_csv(
        io.BytesIO(base64.b64decode(re.search('base64,([^"]+)', explorer.csv.value)[1]))
    )
    assert set(table["file"]) == files and all(
        file.startswith(name) for file, name in zip(table["file"], table["color: name"])
    )
    explorer.kind.value = "upload"
    explorer.upload.value = (
        {
            "name": "x.zip",
            "type": "",
            "size": 1,
            "content": memoryview(b"x"),
            "last_modified": pd.Timestamp(0, tz="UTC"),
        },
    )
    assert "x.zip is no zip" in beside(explorer)["pictures"]


def test_keywords_to_pick_from(explorer):
    chips = {
        name: {chip.description: chip for chip in box.children}
        for name, box in explorer.chips.items()
    }
    assert (
        list(chips["keyword"])[:3] == ["color", "species", "shape"]
        and "identity" not in chips["keyword"]
    )
    chips["keyword"]["species"].click()
    assert explorer.keyword.value == "species" and explorer.words.value.startswith("apple, banana")
    assert [name for name, chip in chips["keyword"].items() if "mm-on" in chip._dom_classes] == [
        "species"
    ]
    for shown in ("color", ""):  # the second one may be none, too
        chips["second"]["color"].click()
        assert explorer.second.value == shown and (
            explorer.fields["second_words"].layout.display is None
        ) == bool(shown)


def test_what_the_notebook_shows_without_a_kernel(explorer):
    shown = explorer._repr_mimebundle_()
    assert (
        "application/vnd.jupyter.widget-view+json" in shown
        and "needs a running kernel" in shown["text/html"]
    )


def test_without_ipywidgets_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(ImportError, match=r"needs ipywidgets: pip install \"mmclust\[explorer\]\""):
        mm.Explorer()


def test_without_voila_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "voila.app", None)
    with pytest.raises(ImportError, match=r"needs voila: pip install \"mmclust\[explorer\]\""):
        serve(Path("nothing.ipynb"))


def test_a_port_that_is_taken_is_told(tmp_path):
    pytest.importorskip("voila")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [
            sys.executable,
            ROOT / "run_all.py",
            "explore",
            "--no-browser",
            "--port",
            str(port),
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stdout == ""
    assert (
        done.stderr
        == f"port {port} of 127.0.0.1 can't be used (Address already in use): give another with --port, or 0 for any that is free\n"
    )
