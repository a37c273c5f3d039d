"""The explorer: its answers and its messages without a browser, and the web page in Chromium at the width of a phone and of a laptop."""

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image

import mmclust as mm
from mmclust import explore, galleries
from mmclust.explore import Fault, Session

ROOT = Path(__file__).parents[1]
REQUIRED = os.environ.get("MMCLUST_BROWSER") == "required"
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


COLORS = {f"{color}-{k}.png": picture(color) for color in ("red", "blue", "green") for k in range(2)}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos").mkdir()
    for name, content in COLORS.items():
        (tmp_path / "photos" / name).write_bytes(content)
    return tmp_path / "photos"


@pytest.fixture(scope="module")
def fruit(mini):
    session = Session(n=N)
    session.load("demo-fruit")
    session._encoders["mini"] = mini
    return session


@pytest.fixture(scope="module")
def looks(fruit):
    return [fruit.look(k, ", ".join(fruit.words(k)), n_clusters=m) for k, m in (("color", "6"), ("species", "auto"))]


def test_a_look_is_what_the_method_gives(fruit, looks):
    color, species = looks
    assert mm.score(fruit.data.labels["color"], color.labels)["NMI"] > 0.8 and color.model.n_clusters_ == 6 and species.model.n_clusters_ > 2
    assert color.names == color.model.name_clusters() and set(color.names) < set(fruit.words("color"))
    assert color.model.template == "fruit with a color of *" and len(color.model.history_) == fruit.cfg.quick["MultiSub"]["phase1_epochs"]
    assert color.model.lr == fruit.cfg.methods["MultiSub"]["lr"]
    assert fruit.look("color", "\n".join(fruit.words("color")), n_clusters="6") is color, "what was asked for before is kept"
    assert fruit.look("color", "red, blue", n_clusters="6") is not color
    for method in ("MultiMaP", "MultiDProxy", "CLIP_GPT"):
        look = fruit.look("color", "red, green, blue, yellow, orange, purple", method, n_clusters="5", others=["species"])
        assert look.labels.shape == (N,) and look.weights.shape[0] == len(look.space) == N
        assert method != "MultiMaP" or look.model.concepts == ["color", "species"]


def test_weights_of_all_pictures_are_those_of_each(fruit, looks):
    for method in ("MultiSub", "MultiMaP", "CLIP_GPT"):
        model = fruit.look("color", "red, green, blue", method, n_clusters="3").model
        every = model.explain()
        assert every.shape == (N, 3) and list(every) == ["red", "green", "blue"]
        for i in (0, 17):
            np.testing.assert_allclose(every.loc[i, model.explain(i).index], model.explain(i), rtol=1e-5)


def test_two_keywords_are_compared_and_exported(fruit, looks):
    difference, apart, counts = fruit.compare(*looks)
    pairs = [(i, j) for i in range(N) for j in range(i)]
    together = [np.array([look.labels[i] == look.labels[j] for i, j in pairs]) for look in looks]
    assert apart == pytest.approx((together[0] != together[1]).mean()) and difference > 0.8
    assert counts.to_numpy().sum() == N and counts.shape == tuple(len(look.names) for look in looks)
    assert fruit.compare(looks[0], looks[0])[:2] == (pytest.approx(0), 0)
    table = pd.read_csv(io.StringIO(fruit.export(*looks)))
    assert list(table) == ["picture", "file", "color: cluster", "color: name", "species: cluster", "species: name"]
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
    with pytest.raises(Fault, match=said) as told:
        fruit.look(**({"keyword": "color", "words": "red, blue"} | given))
    assert told.value.field == field


def test_an_unknown_keyword_gets_the_ways_out(fruit):
    with pytest.raises(Fault, match=r"no words for 'hairstyle' of fruit: type them yourself, below, or pick color, species, shape, ") as told:
        fruit.words("hairstyle")
    assert told.value.field == "keyword"
    assert fruit.words("  time   of day ").source.startswith("the lexicon's common list")
    assert set(fruit.look("hairstyle", "long, short", n_clusters="2").names) == {"long", "short"}, "words of one's own will do"


def test_a_folder(folder, tmp_path):
    session = Session(home=tmp_path, most=7)
    assert len(session.load("folder", " photos ", domain="thing")) == 6 and session.data.domain == "thing" and session.notes == []
    (folder / "broken.jpg").write_bytes(b"no picture")
    session.load("folder", str(folder))
    assert len(session.data) == 6 and len(session.thumbs) == 6 and "left out 1 of 7 pictures" in session.notes[0] and "broken.jpg" in session.notes[0]
    kept = session.data
    (tmp_path / "empty").mkdir()
    (folder / "labels.csv").write_text("name\nx\n")
    for path, said in (
        ("nowhere", "no folder .*nowhere"), ("", "no folder is given"), ("empty", "empty holds no pictures"), ("photos/red-0.png", "is a file"),
        ("photos", "labels.csv has no column 'file'"),
    ):  # fmt: skip
        with pytest.raises(Fault, match=said) as told:
            session.load("folder", path)
        assert told.value.field == "pictures" and session.data is kept
    (folder / "labels.csv").unlink()
    (folder / "eighth.png").write_bytes(picture("white"))
    with pytest.raises(Fault, match="holds 8 pictures, the explorer takes up to 7"):
        session.load("folder", "photos")


def test_thumbnails_show_the_pictures(folder):
    session = Session(home=folder.parent)
    session.load("folder", "photos")
    for said, uri in zip(session.said(), session.thumbs):
        with urllib.request.urlopen(uri) as file, Image.open(io.BytesIO(file.read())) as small:
            assert small.size == (galleries.SIDE, galleries.SIDE)
            middle, want = np.array(small.convert("RGB").getpixel((64, 64)), float), np.array(Image.new("RGB", (1, 1), said.split("-")[0]).getpixel((0, 0)))
            assert np.abs(middle - want).max() < 12, said


@pytest.mark.parametrize("zipped", [False, True])
def test_an_upload(zipped):
    session = Session()
    files = COLORS | {"notes.txt": b"x", "broken.png": b"x"}
    session.load("upload", [("photos.zip", zip_of(files))] if zipped else list(files.items()))
    assert sorted(session.said()) == sorted(COLORS)
    assert sum("broken.png" in note for note in session.notes) == 1 and not any("mmclust-upload" in note for note in session.notes)
    assert zipped or "notes.txt" in session.notes[0]
    room = Path(session._room.name)
    assert room.is_dir()
    with pytest.raises(Fault):
        session.load("upload", [("x.png", b"x")])
    assert len(session.data) == 6 and np.asarray(session.data.images[0]).shape == (30, 40, 3), "the pictures of before are still there"
    session.load("upload", [("red.png", picture("red"))])
    assert session.said() == ["red.png"] and not room.exists()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "nothing is uploaded yet"),
        ([("a/x.png", picture("red")), ("b/x.png", picture("red"))], "x.png is uploaded twice"),
        ([("x.zip", zip_of({"a.png": b"x"})), ("y.png", b"x")], "x.zip comes with other files"),
        ([("x.zip", b"no zip")], "x.zip is no zip"),
        ([("x.zip", zip_of({"../evil.png": picture("red")}))], r"x.zip holds '\.\./evil.png', a path that leads out of its folder"),
        ([("x.zip", zip_of(COLORS).replace(b"IDAT", b"IDAX"))], "x.zip can't be unpacked: .*CRC"),
        ([("x.zip", zip_of({"big.png": bytes(3000)}))], "x.zip .* grows beyond 2,500 bytes"),
        ([("x.png", bytes(5001))], "are more than the"),
        ([("x.txt", b"x")], "the upload holds no pictures"),
        ([("x.png", b"x")], "the upload holds no pictures"),
    ],
)
def test_an_upload_that_is_refused(files, said, monkeypatch, tmp_path):
    monkeypatch.setattr(explore, "UPLOAD", 5000)
    monkeypatch.setattr(explore, "UNPACKED", 2500)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    session = Session()
    with pytest.raises(Fault, match=said) as told:
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
    html = galleries.gallery(evil, labels, names, ["data:image/jpeg;base64,"] * 6, said, weights, {evil: [evil] * 6})
    points = np.random.default_rng(0).normal(size=(6, 2))
    table = pd.DataFrame([[1, 2]], index=[evil], columns=[evil, "b"])
    html += galleries.scatter(points, labels, names, said, evil) + galleries.crossing(table, evil, evil)
    found = Tags(html)
    assert {tag for tag, _ in found.tags}.isdisjoint({"script", "a"}) and not any(key.startswith("on") for _, attrs in found.tags for key in attrs)
    assert sum(tag == "img" for tag, _ in found.tags) == 6 and found.text.count(evil) > 6
    images = [attrs for tag, attrs in found.tags if tag == "img"]
    assert all(evil in attrs["alt"] and attrs["loading"] == "lazy" for attrs in images)
    assert "0.75" in found.text and {"aria-label": evil}.items() <= next(attrs for tag, attrs in found.tags if tag == "svg" and "aria-label" in attrs).items()


def test_a_large_cluster_shows_some_and_says_so():
    n = 200
    html = galleries.gallery("k", np.zeros(n, int), ["a"], ["data:,"] * n, [f"p{i}" for i in range(n)], pd.DataFrame({"a": np.ones(n)}))
    assert html.count("<details") == galleries.SHOWN and f"200 pictures, {galleries.SHOWN} of them shown" in html and "p199" in html


def test_positions():
    x = np.random.default_rng(0).normal(size=(12, 4))
    assert galleries.positions(x).shape == (12, 2) and galleries.positions(np.ones((12, 4))) is None
    assert "Too few" in galleries.scatter(None, [], [], [], "")


def test_images_are_kept_once_they_were_made():
    made = []
    images = mm.Images(5, lambda i: made.append(i) or Image.new("RGB", (2, 2), (i, 0, 0)), "x")
    kept = images[1:].cached()
    assert [kept[0].getpixel((0, 0))[0], kept[0].getpixel((0, 0))[0], kept[3].getpixel((0, 0))[0]] == [1, 1, 4]
    assert made == [1, 4] and kept.fingerprint == images[1:].fingerprint


def test_notebooks_for_teaching_run_when_they_are_asked_for():
    from mmclust.reproduce import select

    assert "16_explorer" not in select(None, "demo") and "00_quickstart" in select(None, "demo")
    assert select(["16"], "demo") == ["16_explorer"] and "16_explorer" in select(["teaching"], "demo") and "00_quickstart" not in select(["teaching"], "demo")


@pytest.fixture
def explorer(mini, folder):
    pytest.importorskip("ipywidgets")
    made = mm.Explorer(home=folder.parent, n=N, worlds=["demo-fruit"])
    made.session._encoders["mini"] = mini
    made.start()
    assert made.ready.wait(60)
    return made


def beside(explorer):
    return {name: Tags(html.value).text for name, html in explorer.beside.items() if "mm-bad" in html.value}


def test_the_widgets(explorer):
    assert (
        beside(explorer) == {} and "by color" in explorer.galleries[0].value and "<svg" in explorer.maps[0].value and "sorted by color" in explorer.status.value
    )
    explorer.keyword.value = "hairstyle"
    assert "no words for 'hairstyle'" in beside(explorer)["keyword"] and explorer.words.value == ""
    explorer.sort()
    assert "at least two reference words" in beside(explorer)["words"] and not explorer.go.disabled
    explorer.words.value = "long, short"
    explorer.sort()
    assert beside(explorer) == {} and "by hairstyle" in explorer.galleries[0].value
    explorer.second.value = "hairstyle"
    explorer.sort()
    assert "the same keyword as the first" in beside(explorer)["second"]
    explorer.second.value, explorer.second_words.value = "species", "apple"
    explorer.sort()
    assert "at least two" in beside(explorer)["second_words"] and "words" not in beside(explorer)
    explorer.second_words.value, explorer.clusters.value = "apple, banana, grapes", "1"
    explorer.sort()
    assert "at least 2" in beside(explorer)["clusters"]
    explorer.clusters.value = "3"
    explorer.sort()
    assert beside(explorer) == {} and "by species" in explorer.galleries[1].value and "Where they disagree" in explorer.crossed.value
    explorer.kind.value = "folder"
    explorer.path.value = "nowhere"
    assert "no folder" in beside(explorer)["pictures"] and explorer.path.layout.display is None
    explorer.path.value = "photos"
    assert beside(explorer).keys() <= {"second"} and "6 pictures" in explorer.beside["pictures"].value


def test_without_ipywidgets_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(ImportError, match=r"pip install \"mmclust\[explorer\]\""):
        mm.Explorer()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def page_address(tmp_path_factory):
    """The address of `python run_all.py explore`, started in a folder with pictures."""
    pytest.importorskip("voila")
    room, port = tmp_path_factory.mktemp("explorer"), free_port()
    (room / "photos").mkdir()
    for name, content in COLORS.items():
        (room / "photos" / name).write_bytes(content)
    environment = os.environ | {"JUPYTER_CONFIG_DIR": str(room / "config"), "JUPYTER_RUNTIME_DIR": str(room / "runtime"), "JUPYTER_PREFER_ENV_PATH": "1"}
    with open(room / "log", "w") as log:
        command = [sys.executable, ROOT / "run_all.py", "explore", "--port", str(port), "--no-browser"]
        server = subprocess.Popen(command, cwd=room, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/static/nothing", timeout=5)
            except urllib.error.HTTPError:
                break
            except OSError:
                assert server.poll() is None, (room / "log").read_text()
                time.sleep(0.1)
        else:
            pytest.fail("the explorer did not answer in a minute: " + (room / "log").read_text())
        yield address
    finally:
        family = psutil.Process(server.pid).children(recursive=True) if server.poll() is None else []
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        left = psutil.wait_procs(family, timeout=20)[1]
        for process in left:
            process.kill()
    assert not left, "kernels outlived the server"


@pytest.fixture(scope="module")
def chromium():
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        program = None
    if program is None:
        (pytest.fail if REQUIRED else pytest.skip)("needs Chromium (apt-get install chromium) and playwright (the extra `test`)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"] if os.geteuid() == 0 else [])  # root has no sandbox
        yield browser
        browser.close()


CUT_OFF = """() => [...document.querySelectorAll(".mmx *")].filter(e => e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 1
  && !e.closest(".mm-scroll")).map(e => e.tagName + "." + e.className).slice(0, 5)"""


def settled(page, text):
    page.locator(".mm-status", has_text=re.compile(text)).wait_for(timeout=120_000)


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1440])
def test_the_web_page(chromium, page_address, width):
    page, faults = chromium.new_page(viewport={"width": width, "height": 900}), []
    page.on("pageerror", lambda error: faults.append(f"script: {error}"))
    page.on("response", lambda r: None if r.url.startswith((page_address, "data:", "blob:")) else faults.append(f"outside: {r.url}"))
    page.goto(page_address)
    settled(page, "sorted by color in")
    assert page.evaluate(CUT_OFF) == []

    # another keyword brings its words; they are changed, and the galleries follow
    words = page.locator(".mm-field-words textarea")
    page.get_by_label("Keyword", exact=True).fill("species")
    page.keyboard.press("Tab")
    page.wait_for_function("document.querySelector('.mm-field-words textarea').value.startsWith('apple')")
    words.fill("apple, banana, grapes, cherry, pear, strawberry, lemon, pineapple, corn")
    page.get_by_label("Clusters: a number, or auto").fill("8")
    page.locator(".mm-go").click()
    settled(page, "sorted by species in")
    names = [text.strip() for text in page.locator(".mm-cluster h4").evaluate_all("e => e.map(h => h.childNodes[1].data)")]
    assert len(names) == 8 and set(names) < set(["apple", "banana", "grapes", "cherry", "pear", "strawberry", "lemon", "pineapple", "corn"])
    assert page.locator(".mm-map path").count() == page.locator(".mm-grid details").count() == 200

    # the file that is downloaded says what the page shows
    with page.expect_download() as download:
        page.locator("a.mm-csv").click()
    table = pd.read_csv(download.value.path())
    assert download.value.suggested_filename == "mmclust-species.csv" and list(table) == ["picture", "file", "species: cluster", "species: name"]
    shown = page.locator(".mm-cluster").evaluate_all(
        "e => e.map(s => [s.querySelector('h4').childNodes[1].data.trim(), [...s.querySelectorAll('summary')].map(p => p.title)])"
    )
    assert {name: sorted(pictures) for name, pictures in shown} == {
        name: sorted(f"picture {i}" for i in part["picture"]) for name, part in table.groupby("species: name")
    }
    truth = mm.load_dataset("demo-fruit", n=200, seed=0).labels["species"]
    assert mm.score(truth, table["species: cluster"])["NMI"] > 0.75

    # a picture opens, by mouse and by keyboard, to its weights
    first = page.locator(".mm-grid details").first
    first.locator("summary").click()
    assert first.locator("li").count() == 6 and first.locator("li").first.inner_text().split()[0] in words.input_value() and page.evaluate(CUT_OFF) == []
    page.keyboard.press("Enter")
    assert first.get_attribute("open") is None

    # two keywords
    page.get_by_label("Second keyword, to compare").fill("color")
    page.keyboard.press("Tab")
    page.wait_for_function("document.querySelector('.mm-field-second_words textarea').value.startsWith('red')")
    page.locator(".mm-go").click()
    settled(page, "sorted by species and by color in")
    assert page.locator("h3").all_inner_texts()[0].startswith("Where they disagree") and page.locator(".mm-cross tbody tr").count() == 8
    left, right = (page.locator(".mm-look").nth(k).bounding_box() for k in range(2))
    assert (left["y"] == right["y"]) == (width == 1440) and page.evaluate(CUT_OFF) == []
    assert faults == []
    page.close()


@pytest.mark.slow
def test_the_web_page_says_what_is_wrong_beside_the_field(chromium, page_address):
    page = chromium.new_page(viewport={"width": 390, "height": 900})
    page.goto(page_address)
    settled(page, "sorted by color in")
    bad = lambda name: page.locator(f".mm-field-{name} .mm-bad")  # noqa: E731
    page.get_by_label("Keyword", exact=True).fill("<b>hairstyle</b>")
    page.keyboard.press("Tab")
    bad("keyword").wait_for()
    assert "no words for '<b>hairstyle</b>' of fruit: type them yourself" in bad("keyword").inner_text()
    page.get_by_label("Keyword", exact=True).fill("color")
    page.keyboard.press("Tab")
    page.wait_for_function("document.querySelector('.mm-field-words textarea').value.startsWith('red')")
    assert bad("keyword").count() == 0

    page.get_by_label("Pictures", exact=True).select_option("a folder on this machine")
    path = page.get_by_label("Path of the folder")
    path.fill("nowhere")
    page.keyboard.press("Tab")
    bad("pictures").wait_for()
    assert re.search(r"no folder .*nowhere", bad("pictures").inner_text()) and page.evaluate(CUT_OFF) == []
    path.fill("photos")
    page.keyboard.press("Tab")
    page.locator(".mm-field-pictures .mm-note", has_text="6 pictures").wait_for()

    page.get_by_label("Pictures", exact=True).select_option("an upload")
    upload = page.locator("input[type=file]")
    upload.set_input_files([{"name": "photos.zip", "mimeType": "application/zip", "buffer": b"no zip"}])
    bad("pictures").wait_for()
    assert "photos.zip is no zip" in bad("pictures").inner_text()
    many = {f"{i}.bmp": picture((i, 0, 0), "BMP") + os.urandom(2**22) for i in range(4)}  # more than a websocket takes unless it is told to
    upload.set_input_files([{"name": "photos.zip", "mimeType": "application/zip", "buffer": zip_of(COLORS | many)}])
    page.locator(".mm-field-pictures .mm-note", has_text="10 pictures").wait_for()
    page.locator(".mm-go").click()
    settled(page, "10 pictures sorted by color in")
    page.close()


@pytest.mark.slow
def test_the_web_page_is_this_machines_alone(page_address):
    port = int(page_address.rpartition(":")[2])
    assert {c.laddr.ip for c in psutil.net_connections() if c.laddr and c.laddr.port == port and c.status == "LISTEN"} == {"127.0.0.1"}
    with pytest.raises(urllib.error.HTTPError) as told:
        urllib.request.urlopen(urllib.request.Request(page_address, headers={"Host": "elsewhere.example"}), timeout=60)
    assert told.value.code == 403, "a name that somebody else points at this machine"


def test_a_port_that_is_taken_is_told(tmp_path):
    pytest.importorskip("voila")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = [sys.executable, ROOT / "run_all.py", "explore", "--no-browser", "--port", str(taken.getsockname()[1])]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0 and "port" in done.stderr
