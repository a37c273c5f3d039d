"""The explorer without a browser: its session, its HTML and its widgets."""

import asyncio
import base64
import io
import re
import socket
import subprocess
import sys
import urllib.request
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.pictures import COLORS, picture, zip_of
from PIL import Image
from sklearn.manifold import TSNE, trustworthiness

import mmclust as mm
import run_all
from benchmarks import explorer_answers
from mmclust.explorer import pictures, session, views
from mmclust.explorer.server import serve
from mmclust.explorer.session import Clustering, ExplorerSession, InputError
from mmclust.pipeline.notebooks import select
from mmclust.words import reviewed_answers

ROOT = Path(__file__).parents[1]
N = 60


@pytest.fixture
def folder(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, content in COLORS.items():
        (photos / name).write_bytes(content)
    return photos


def fruit_session(mini, **cfg):
    made = ExplorerSession(n=N, **cfg)
    made._encoders["mini"] = mini
    made.load("demo-fruit")
    return made


@pytest.fixture(scope="module")
def fruit(mini):
    return fruit_session(mini)


@pytest.fixture(scope="module")
def clusterings(fruit):
    return [
        fruit.cluster(keyword, ", ".join(fruit.words(keyword)), n_clusters=n_clusters)
        for keyword, n_clusters in (("color", "6"), ("species", "auto"))
    ]


def test_a_clustering_is_what_the_method_gives(fruit, clusterings):
    color, species = clusterings
    assert mm.score(fruit.data.labels["color"], color.labels)["NMI"] > 0.8
    assert color.model.n_clusters_ == 6
    assert species.model.n_clusters_ > 2
    assert color.names == color.model.name_clusters()
    assert set(color.names) < set(fruit.words("color"))
    assert color.model.template == "fruit with a color of *"
    assert len(color.model.history_) == fruit.cfg.quick["MultiSub"]["phase1_epochs"]
    assert color.model.lr == fruit.cfg.methods["MultiSub"]["lr"]


@pytest.mark.parametrize("method", ["MultiMaP", "MultiDProxy", "CLIP_GPT", "CRL"])
def test_the_other_methods_cluster_too(fruit, method):
    words = "red, green, blue, yellow, orange, purple"
    clustering = fruit.cluster("color", words, method, "mini", "5", ["species"])
    assert clustering.labels.shape == (N,)
    assert clustering.weights.shape[0] == len(clustering.representation) == N
    assert method != "MultiMaP" or clustering.model.concepts == ["color", "species"]


def test_k_means_needs_no_keyword(fruit):
    plain = fruit.cluster("", "", "KMeans", n_clusters="4")
    assert plain.keyword == "" and plain.names == [f"cluster {c}" for c in (1, 2, 3, 4)]
    assert plain.weights.shape == (N, 0)
    named = fruit.cluster("color", "red, green, blue, yellow", "KMeans", n_clusters="4")
    assert (named.labels == plain.labels).all()
    assert set(named.names) == {"red", "green", "blue", "yellow"}
    assert "No keyword" in views.heading(plain, fruit.data)
    expected = mm.KMeans(fruit.encoder("mini"), n_clusters=4, random_state=0).fit(fruit.data.images)
    assert (plain.labels == expected.labels_).all()


def test_wrong_pictures_are_marked(fruit, clusterings):
    color = clusterings[0]
    wrong = views.wrong_pictures(color, fruit.data)
    true = fruit.data.labels["color"]
    share = np.mean([np.bincount(true[color.labels == c]).max() for c in set(color.labels)])
    assert sum(map(bool, wrong)) == N - round(share * len(set(color.labels)))
    labels = np.where(np.arange(N) == 5, (color.labels + 1) % 6, color.labels)
    moved = Clustering("color", color.model, labels, color.names, color.weights, np.zeros((N, 1)))
    wrong = views.wrong_pictures(moved, fruit.data)
    classes = fruit.data.classes["color"]
    assert wrong[5].startswith(f"{classes[true[5]]}; most of this cluster: ")
    html = views.clusters(moved, ["data:,"] * N, [f"p{i}" for i in range(N)], wrong=wrong)
    assert html.count('class="mm-wrong"') == sum(map(bool, wrong)) and wrong[5] in html
    no_labels = Clustering("taste", None, labels, color.names, color.weights, np.zeros((N, 1)))
    assert not any(views.wrong_pictures(no_labels, fruit.data))


def test_other_light_and_lists_of_words(mini):
    fruit = fruit_session(mini)
    plain = fruit.data.images[0]
    fruit.load("demo-fruit", shift=mm.Shift("dark"))
    assert np.mean(fruit.data.images[0]) < np.mean(plain) / 2
    words = set(fruit.words("species"))
    true = words & set(fruit.data.classes["species"])
    half = fruit.words("species", mm.WordList(kept=0.5))
    assert words - set(half) < true and len(half) == len(words) - len(true) // 2
    assert "true names kept" in half.source
    assert set(fruit.words("weather", mm.WordList(kept=0.5))) == set(fruit.words("weather"))
    with pytest.raises(InputError, match="wrong words") as error:
        fruit.words("species", mm.WordList(length=999))
    assert error.value.field == "word_list"


def test_the_last_clusterings_are_remembered(mini, monkeypatch):
    monkeypatch.setattr(session, "REMEMBERED", 2)
    fruit = fruit_session(mini)

    def cluster(words):
        return fruit.cluster("color", words, "CLIP_GPT")

    first = cluster("red, blue")
    second = cluster("red, green")
    assert second is not first
    assert cluster("red\nblue") is first
    cluster("green, blue")
    assert cluster("red, blue") is first
    assert cluster("red, green") is not second
    assert len(fruit._clusterings) == 2


def test_keywords_side_by_side_give_what_each_gives_alone(mini, monkeypatch):
    monkeypatch.setattr(session, "REMEMBERED", 1)
    fruit = fruit_session(mini)
    sides = [
        (keyword, ", ".join(fruit.words(keyword)), "MultiDProxy", "mini", "5")
        for keyword in ("color", "species")
    ]
    alone = [fruit.cluster(*side) for side in sides]
    together = list(fruit.cluster_side_by_side(*sides, sides[0]))
    for one, other in zip([*alone, alone[0]], together):
        np.testing.assert_array_equal(one.representation, other.representation)
    results = fruit.cluster_side_by_side(sides[0], ("color", "red", "CLIP_GPT"))
    assert next(results).keyword == "color"
    with pytest.raises(InputError, match="at least two"):
        next(results)


def test_the_template_is_that_of_the_keywords_words_also_for_edited_words(
    mini, tmp_path, monkeypatch
):
    monkeypatch.setenv("MMCLUST_WORDS", str(tmp_path))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    names = {"model": "some-model", "domain": "fruit", "keyword": "color", "count": 20}
    answer = names | {"template": "a photo of a * fruit", "words": ["red", "green", "blue"]}
    reviewed_answers.write_once(reviewed_answers.path_of(*names.values()), answer)
    fruit = fruit_session(mini, source="openai:some-model")
    assert fruit.words("color") == ["red", "green", "blue"]
    for words in ("red, green, blue", "red, blue"):
        assert fruit.cluster("color", words, "CLIP_GPT").model.template == answer["template"]
    no_answer = fruit.cluster("species", "apple, pear", "CLIP_GPT")
    assert no_answer.model.template == mm.prompt_template("species", of="fruit")


def test_weights_of_all_pictures_are_those_of_each(fruit):
    for method in ("MultiSub", "MultiMaP", "CLIP_GPT"):
        model = fruit.cluster("color", "red, green, blue", method, n_clusters="3").model
        weights = model.explain()
        assert weights.shape == (N, 3)
        assert list(weights) == ["red", "green", "blue"]
        for i in (0, 17):
            one = model.explain(i)
            np.testing.assert_allclose(weights.loc[i, one.index], one, rtol=1e-5)


def test_two_keywords_are_compared_and_exported(fruit, clusterings):
    color, species = clusterings
    difference, apart, counts = fruit.compare(color, species)
    pairs = [(i, j) for i in range(N) for j in range(i)]
    together = [np.array([c.labels[i] == c.labels[j] for i, j in pairs]) for c in clusterings]
    assert apart == pytest.approx((together[0] != together[1]).mean())
    assert difference > 0.8
    assert counts.to_numpy().sum() == N
    assert counts.shape == (len(color.names), len(species.names))
    assert fruit.compare(color, color)[:2] == (pytest.approx(0), 0)
    table = pd.read_csv(io.StringIO(fruit.export(color, species)))
    columns = [
        f"{keyword}: {what}" for keyword in ("color", "species") for what in ("cluster", "name")
    ]
    assert list(table) == ["picture", "file", *columns]
    np.testing.assert_array_equal(table["species: cluster"], species.labels)
    assert table["color: name"].tolist() == color.label_names


@pytest.mark.parametrize(
    ("field", "changes", "message"),
    [
        ("keyword", {"keyword": " "}, "required.*color"),
        ("keyword", {"keyword": "a * b"}, r"without '\*'"),
        ("keyword", {"keyword": "x" * 61}, "at most 60"),
        ("words", {"words": "red"}, "1 .*at least two"),
        ("words", {"words": " , ;\n"}, "0 .*at least two"),
        ("words", {"words": "red, blue, red"}, "duplicate.*red"),
        ("words", {"words": "red, !!"}, "'!!'.*letters"),
        ("words", {"words": "red, *"}, r"'\*'"),
        ("clusters", {"n_clusters": "many"}, "'many'.*auto"),
        ("clusters", {"n_clusters": "2.5"}, "'2.5'.*auto"),
        ("clusters", {"n_clusters": "1"}, "1: from 2 to the 60"),
        ("clusters", {"n_clusters": "61"}, "61: from 2 to the 60"),
        ("encoder", {"encoder": "nothing"}, "'nothing' can't be loaded"),
        ("encoder", {"encoder": ""}, "required.*mini"),
    ],
)
def test_an_error_names_its_field(fruit, field, changes, message):
    arguments = {"keyword": "color", "words": "red, blue"} | changes
    with pytest.raises(InputError, match=message) as error:
        fruit.cluster(**arguments)
    assert error.value.field == field


def test_a_keyword_without_words(fruit):
    with pytest.raises(InputError, match=r"'hairstyle' of fruit.*color.*type") as error:
        fruit.words("hairstyle")
    assert error.value.field == "keyword"
    with pytest.raises(InputError, match=r"'colr'.*did you mean 'color'"):
        fruit.words("colr")
    assert fruit.words("Colours") == fruit.words("color")
    assert "common" in fruit.words("  time   of day ").source
    assert set(fruit.cluster("hairstyle", "long, short", n_clusters="2").names) == {"long", "short"}


def test_suggestions_bring_their_words(mini, tmp_path):
    """A folder of cards: "suits" has no words among those for photographs."""
    (tmp_path / "cards").mkdir()
    for i, image in enumerate(mm.load_dataset("demo-card", n=30, seed=3).images):
        image.save(tmp_path / "cards" / f"{i}.png")
    made = ExplorerSession(home=tmp_path)
    made._encoders["mini"] = mini
    made.load("folder", "cards")
    with pytest.raises(InputError, match="no words for 'suits'"):
        made.words("suits")
    assert "suits" in made.suggest("mini")
    assert "hearts" in made.words("suits") and made.words("suits").template.startswith("card")
    made.load("demo-fruit")
    assert made.words("color").template == "fruit with a color of *"


def test_noise_has_no_suggestions(mini, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "noise").mkdir()
    for i in range(12):
        pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "noise" / f"{i}.png")
    made = ExplorerSession(home=tmp_path)
    made._encoders["mini"] = mini
    made.load("folder", "noise")
    assert made.suggest("mini") == []


def test_a_folder(folder, tmp_path):
    explored = ExplorerSession(home=tmp_path, most=7)
    assert len(explored.load("folder", " photos ", domain="thing")) == 6
    assert explored.data.domain == "thing"
    assert explored.data.notes == ()
    (folder / "broken.jpg").write_bytes(b"no picture")
    explored.load("folder", str(folder))
    assert len(explored.data) == len(explored.thumbnails) == 6
    assert re.search("1 picture.*broken.jpg", explored.data.notes[0])


def test_an_invalid_folder_keeps_the_former_pictures(folder, tmp_path):
    explored = ExplorerSession(home=tmp_path, most=7)
    former = explored.load("folder", "photos")
    (tmp_path / "empty").mkdir()
    (folder / "labels.csv").write_text("name\nx\n")
    for path, message in (
        ("nowhere", "no folder .*nowhere"),
        ("", "required.*/photos"),
        ("empty", "empty.*no pictures"),
        ("photos/red-0.png", "red-0.png is a file"),
        ("photos", "labels.csv.*'file'"),
    ):
        with pytest.raises(InputError, match=message) as error:
            explored.load("folder", path)
        assert error.value.field == "pictures"
        assert explored.data is former
    (folder / "labels.csv").unlink()
    for name in ("seventh.png", "eighth.png"):
        (folder / name).write_bytes(picture("white"))
    with pytest.raises(InputError, match=r"photos holds more than 7 pictures.*folder below"):
        explored.load("folder", "photos")
    (folder.parent / "linked").mkdir()
    (folder.parent / "linked" / "all").symlink_to(folder)
    with pytest.raises(InputError, match=r"linked holds more than 7 pictures"):
        explored.load("folder", "linked")


def test_the_search_for_pictures_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_FILES", 20)
    for i in range(30):
        (tmp_path / f"{i}.txt").touch()
    with pytest.raises(InputError, match=r"more than 20 files.*folder below"):
        ExplorerSession().load("folder", str(tmp_path))


def test_a_picture_that_grows_without_bounds_is_left_out():
    bomb = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(bomb, "PNG")
    assert len(bomb.getvalue()) < 50_000
    explored = ExplorerSession()
    explored.load("upload", [("photos.zip", zip_of(COLORS | {"bomb.png": bomb.getvalue()}))])
    assert sorted(explored.picture_names()) == sorted(COLORS)
    assert re.search("1 picture.*bomb.png", explored.data.notes[0])


def test_thumbnails_show_the_pictures(folder):
    explored = ExplorerSession(home=folder.parent)
    explored.load("folder", "photos")
    for name, uri in zip(explored.picture_names(), explored.thumbnails):
        with urllib.request.urlopen(uri) as file, Image.open(file) as small:
            assert small.size == (pictures.SIDE, pictures.SIDE)
            middle = np.array(small.convert("RGB").getpixel((64, 64)), float)
        color = Image.new("RGB", (1, 1), name.split("-")[0]).getpixel((0, 0))
        assert np.abs(middle - color).max() < 12, name


@pytest.mark.parametrize("zipped", [False, True])
def test_an_upload(zipped):
    explored = ExplorerSession()
    files = COLORS | {"notes.txt": b"x", "broken.png": b"x"}
    explored.load("upload", [("photos.zip", zip_of(files))] if zipped else list(files.items()))
    assert sorted(explored.picture_names()) == sorted(COLORS)
    notes = " ".join(explored.data.notes)
    assert notes.count("broken.png") == 1
    assert "notes.txt" in notes
    assert "mmclust-upload" not in notes
    directory = Path(explored._upload.name)
    assert directory.is_dir()
    with pytest.raises(InputError):
        explored.load("upload", [("x.png", b"x")])
    assert np.asarray(explored.data.images[0]).shape == (30, 40, 3)  # those from before
    explored.load("upload", [("IMG_1", picture("red"))])
    assert explored.picture_names() == ["IMG_1"]
    assert not directory.exists()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "no upload.*choose"),
        ([("a/x.png", picture("red")), ("b/x.png", picture("red"))], "duplicate.*x.png.*zip"),
        ([("x.zip", zip_of({"a.png": b"x"})), ("y.png", b"x")], "x.zip .*other files.*one zip"),
        ([("x.zip", b"no zip")], "x.zip is not a zip"),
        ([("x.zip", zip_of({"../evil.png": picture("red")}))], r"x.zip .*'\.\./evil.png'"),
        ([("x.zip", zip_of(COLORS).replace(b"IDAT", b"IDAX"))], "x.zip can't be unpacked: .*CRC"),
        ([("x.zip", zip_of({"big.png": bytes(3000)}))], "x.zip .* 2,500 bytes"),
        ([("x.png", bytes(5001))], "the limit is .*folder"),
        ([("x.txt", b"x")], "the upload .*no pictures"),
        ([("x.png", b"x")], r"the upload: none of 1 picture \(x.png\) can be decoded"),
    ],
)
def test_an_upload_that_is_refused(files, message, monkeypatch, tmp_path):
    monkeypatch.setattr(pictures, "MAX_UPLOAD", 5000)
    monkeypatch.setattr(pictures, "MAX_UNPACKED", 2500)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    explored = ExplorerSession()
    with pytest.raises(InputError, match=message) as error:
        explored.load("upload", files)
    assert error.value.field == "pictures"
    assert str(tmp_path) not in str(error.value)
    assert explored.data is None
    assert list(tmp_path.iterdir()) == []


def test_an_upload_without_thumbnails_leaves_no_files(monkeypatch, tmp_path, tmp_path_factory):
    monkeypatch.setenv("MMCLUST_CACHE", str(tmp_path_factory.mktemp("cache")))  # none are stored
    monkeypatch.setattr(pictures, "SIDE", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(InputError) as error:
        ExplorerSession().load("upload", list(COLORS.items()))
    assert error.value.field == "pictures"
    assert list(tmp_path.iterdir()) == []


class Tags(HTMLParser):
    """The tags of a piece of HTML with their attributes, and its text."""

    def __init__(self, html):
        super().__init__()
        self.tags = []
        self.text = ""
        self.feed(str(html))  # a Markup escapes what is added to it

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def clustering_of(labels, names, weights):
    return Clustering(names[0], None, np.array(labels), names, weights, np.empty((len(labels), 0)))


def test_names_are_text_and_never_html():
    evil = "<img src=x onerror=alert(1)>\"'&"
    weights = pd.DataFrame(np.tile([0.75, 0.25], (6, 1)), columns=[evil, "b"])
    clustering = clustering_of([0, 0, 0, 1, 1, 1], [evil, "b"], weights)
    uris, names = ["data:image/jpeg;base64,"] * 6, [evil] * 6
    positions = np.random.default_rng(0).normal(size=(6, 2))
    counts = pd.DataFrame([[3, 0], [0, 3]], index=[evil, "b"], columns=[evil, "b"])
    html = views.clusters(clustering, uris, names, captions=names)
    html += views.scatter(clustering, positions, names)
    html += views.cross_table(counts, clustering, clustering, uris)
    html += views.markup.status(evil, "done") + views.markup.note(evil, error=True)
    html += views.markup.heading(evil, evil, evil)
    parsed = Tags(html)
    assert {tag for tag, _ in parsed.tags}.isdisjoint({"script", "a"})
    assert not any(key.startswith("on") for _, attrs in parsed.tags for key in attrs)
    images = [attrs for tag, attrs in parsed.tags if tag == "img"]
    assert all(attrs["src"].startswith("data:") for attrs in images)
    assert sum(evil in attrs["alt"] for attrs in images) == 6
    assert parsed.text.count(evil) > 6
    assert "0.75" in parsed.text
    labels = [
        attrs["aria-label"] for tag, attrs in parsed.tags if tag == "svg" and "aria-label" in attrs
    ]
    assert labels == [f"t-SNE of 6 pictures by {evil}"]


def test_a_large_cluster_shows_some_of_its_pictures():
    n = 200
    clustering = clustering_of([0] * n, ["a"], pd.DataFrame({"a": np.ones(n)}))
    html = views.clusters(clustering, ["data:,"] * n, [f"p{i}" for i in range(n)])
    assert html.count("<details") == views.PICTURES_PER_CLUSTER
    assert "200 pictures" in html
    assert f"{views.PICTURES_PER_CLUSTER} of them" in html
    assert "p199" in html


def test_a_map_of_half_the_steps_preserves_neighbors_as_well(clusterings):
    for clustering in clusterings:
        x = np.asarray(clustering.representation, np.float32)
        perplexity = min(30, (len(x) - 1) // 3)
        all_steps = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(x)
        assert trustworthiness(x, views.tsne(x)) > trustworthiness(x, all_steps) - 0.005


def test_positions_on_the_map():
    x = np.random.default_rng(0).normal(size=(12, 4))
    assert views.tsne(x).shape == (12, 2)
    assert views.tsne(np.ones((12, 4))) is None
    clustering = clustering_of([0], ["a"], pd.DataFrame({"a": [1.0]}))
    assert "Too few" in views.scatter(clustering, None, ["p"])


def test_images_are_kept_once_they_were_made():
    made = []
    images = mm.Images(5, lambda i: made.append(i) or Image.new("RGB", (2, 2), (i, 0, 0)), "x")
    cached = images[1:].cached()
    assert [cached[i].getpixel((0, 0))[0] for i in (0, 0, 3)] == [1, 1, 4]
    assert made == [1, 4]
    assert cached.fingerprint == images[1:].fingerprint


def test_the_explorer_runs_when_it_is_asked_for():
    assert "16_explorer" not in select(None, "demo")
    assert select(["16"], "demo") == ["16_explorer"]
    assert "16_explorer" in select(["teaching"], "demo")


@pytest.fixture
def explorer(mini, folder):
    pytest.importorskip("ipywidgets")
    made = mm.Explorer(home=folder.parent, n=N, worlds=["demo-fruit"])
    made.session._encoders["mini"] = mini
    made.start()
    assert made.ready.wait(60)
    return made


def errors(explorer):
    """Field -> the error at it."""
    notes = {name: note.value for name, note in explorer.notes.items()}
    return {name: Tags(html).text for name, html in notes.items() if "mm-error" in html}


def visible(widget):
    return widget.layout.display is None


def test_the_first_result_is_there_without_a_click(explorer):
    first, second = explorer.panels
    assert errors(explorer) == {}
    assert "sorted by color" in explorer.status.value
    assert "by color" in first.heading.value
    assert "<details" in first.clusters.value
    assert "<path" in first.map.value
    assert not visible(second.box)


def test_errors_are_shown_at_their_fields(explorer):
    first, second = explorer.panels
    keyword, second_keyword = explorer.keywords
    words, second_words = explorer.words
    keyword.value = "hairstyle"
    assert "'hairstyle'" in errors(explorer)["keyword"]
    assert words.value == ""
    explorer.sort()
    assert set(errors(explorer)) == {"keyword", "words"}
    assert not explorer.sort_button.disabled
    assert "see Keyword and Reference words" in explorer.status.value
    assert not visible(first.box)  # no former result
    explorer._show_error(ValueError("singular"))
    assert "ValueError: singular" in errors(explorer)["run"]

    words.value = "long, short"
    explorer.sort()
    assert errors(explorer) == {}
    assert "by hairstyle" in first.heading.value
    second_keyword.value = "hairstyle"
    explorer.sort()
    assert "the same keyword" in errors(explorer)["second"]
    second_keyword.value = "species"
    second_words.value = "apple"
    explorer.sort()
    assert set(errors(explorer)) == {"second_words"}
    assert "hairstyle only: see Second reference words" in explorer.status.value
    assert "<path" in first.map.value
    assert visible(first.box)
    assert not visible(second.box)
    assert "hairstyle" in explorer.download.value

    second_words.value = "apple, banana, grapes"
    explorer.clusters.value = "1"
    explorer.sort()
    assert set(errors(explorer)) == {"clusters"}
    explorer.clusters.value = "3"
    explorer.sort()
    assert errors(explorer) == {}


def test_a_warning_of_one_result_is_shown_in_its_heading(explorer):
    explorer.keywords[1].value = "species"
    explorer.words[1].value = "apple, banana"
    explorer.sort()
    first, second = explorer.panels
    warning = "gives 2, the largest it tried"
    assert warning in second.heading.value and warning not in first.heading.value
    explorer.sort()  # from memory
    assert second.heading.value.count(warning) == 1


def test_words_that_do_not_fit_are_said(explorer, folder):
    explorer.source.value = "folder"
    explorer.path.value = str(folder)
    explorer.keywords[0].value = "weather"
    explorer.sort()
    assert "do not fit these pictures" in explorer.panels[0].heading.value


def test_two_keywords(explorer):
    explorer.clusters.value = "3"
    explorer.keywords[1].value = "species"
    explorer.sort()
    first, second = explorer.panels
    assert "by species" in second.heading.value
    assert "Where they disagree" in explorer.comparison.value
    words = explorer.words[1].value
    species = explorer.session.cluster("species", words, n_clusters="3", other_keywords=["color"])
    assert f"by species: {species.label_names[0]} · labels: " in first.clusters.value


def test_two_methods_side_by_side(explorer):
    explorer.second_method.value = "KMeans"
    assert "only name the clusters" in explorer.notes["second_method"].value
    explorer.sort()
    assert errors(explorer) == {}
    first, second = explorer.panels
    assert "by color, Multi-Sub" in first.heading.value and visible(second.box)
    assert "by color, k-means" in second.heading.value
    assert "1 - AMI" in explorer.comparison.value
    content = re.search('base64,([^"]+)', explorer.download.value)[1]
    table = pd.read_csv(io.BytesIO(base64.b64decode(content)))
    assert {"color, Multi-Sub: name", "color, k-means: name"} < set(table)
    explorer.second_method.value = "MultiSub"
    explorer.sort()
    assert "second method" in errors(explorer)["second"]
    explorer.keywords[1].value = "species"
    explorer.second_method.value = "CRL"
    explorer.sort()
    assert "by species" in second.heading.value and "Multi-Sub" not in first.heading.value


def test_no_keyword_at_all(explorer):
    explorer.method.value = "KMeans"
    explorer.keywords[0].value = explorer.words[0].value = ""
    assert errors(explorer) == {}
    explorer.sort()
    assert errors(explorer) == {}
    assert "cluster 1" in explorer.panels[0].clusters.value
    assert "pictures sorted by k-means" in explorer.status.value


def test_light_and_word_lists_can_be_chosen(explorer):
    before = explorer.words[0].value
    explorer.word_list.value = "half of the true names missing"
    assert len(explorer.words[0].value) < len(before)
    assert "true names kept" in explorer.notes["words"].value
    explorer.shift.value = ("evening light", 1.0)
    explorer.sort()
    assert errors(explorer) == {} and "sorted by color" in explorer.status.value
    explorer.keywords[0].value = "weather"
    explorer.word_list.value = "all words"
    assert "true names" not in explorer.notes["words"].value


def test_former_pictures_are_not_sorted_when_the_folder_is_invalid(explorer):
    explorer.source.value = "folder"
    assert errors(explorer) == {}
    assert visible(explorer.path)
    assert not visible(explorer.panels[0].box)
    explorer.sort()
    assert "required" in errors(explorer)["pictures"]
    explorer.path.value = "nowhere"
    assert "nowhere" in errors(explorer)["pictures"]
    explorer.sort()
    assert "nowhere" in errors(explorer)["pictures"]
    assert explorer.panels[0].heading.value == ""


def test_the_users_pictures_are_sorted(explorer):
    explorer.source.value = "folder"
    explorer.path.value = "photos"
    assert errors(explorer) == {}
    assert "6 pictures" in explorer.notes["pictures"].value
    assert "they can be sorted by color" in explorer.notes["pictures"].value
    assert explorer.keywords[0].value == "color"
    explorer.words[0].value = "red, green, blue"
    explorer.clusters.value = "3"
    explorer.sort()
    assert "6 pictures sorted by color" in explorer.status.value
    assert explorer.encoder.value == "photo"
    assert "encoder photo: it is for" in explorer.notes["encoder"].value
    tags = Tags(explorer.panels[0].clusters.value).tags
    assert {attrs["title"] for tag, attrs in tags if tag == "summary"} == set(COLORS)
    content = re.search('base64,([^"]+)', explorer.download.value)[1]
    table = pd.read_csv(io.BytesIO(base64.b64decode(content)))
    assert set(table["file"]) == set(COLORS)
    assert all(file.startswith(name) for file, name in zip(table["file"], table["color: name"]))

    explorer.source.value = "upload"
    file = {"name": "x.zip", "type": "", "size": 1, "content": memoryview(b"x")}
    explorer.upload.value = (file | {"last_modified": pd.Timestamp(0, tz="UTC")},)
    assert "x.zip is not a zip" in errors(explorer)["pictures"]


def test_the_encoder_is_that_for_the_pictures_unless_the_user_types_one(explorer):
    assert explorer.encoder.value == "mini"
    assert "encoder mini: it is for rendered worlds" in explorer.notes["encoder"].value
    explorer.source.value = "folder"
    explorer.path.value = "photos"
    assert explorer.encoder.value == "photo"
    explorer.source.value = "demo-fruit"
    assert explorer.encoder.value == "mini"
    explorer.encoder.value = "mini-half"
    assert "mm-note" not in explorer.notes["encoder"].value
    explorer.source.value = "folder"
    assert explorer.encoder.value == "mini-half"


def test_keywords_to_pick_from(explorer):
    chips, second_chips = ({c.description: c for c in box.children} for box in explorer.chips)
    assert list(chips)[:2] == ["color", "species"]  # suggested by the pictures
    assert len(chips) == 6 and "identity" not in chips
    assert "they can be sorted by color, species" in explorer.notes["pictures"].value
    chips["species"].click()
    assert explorer.keywords[0].value == "species"
    assert explorer.words[0].value.startswith("apple, banana")
    assert [name for name, c in chips.items() if "mm-chosen" in c._dom_classes] == ["species"]
    for keyword in ("color", ""):  # a second click removes the second keyword
        second_chips["color"].click()
        assert explorer.keywords[1].value == keyword
        assert visible(explorer.fields["second_words"]) == bool(keyword)


def test_what_the_notebook_shows_without_a_kernel(explorer):
    bundle = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "kernel" in bundle["text/html"]


def test_the_style_sheet_has_the_shared_theme_and_leaves_jupyterlab_alone():
    css = views.style_sheet()
    used = set(re.findall(r"var\((--\w+)\)", css)) - {"--c", "--w"}
    assert used <= set(re.findall(r"^\s*(--\w+):", css, re.M))
    assert ":root" not in css


def test_without_ipywidgets_it_says_what_to_install():
    code = "import sys; sys.modules['ipywidgets'] = None; import mmclust; mmclust.Explorer()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    last_line = done.stderr.splitlines()[-1]
    assert re.search(r'ImportError: .*ipywidgets: pip install "mmclust\[explorer\]"', last_line)


def test_without_voila_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "voila", None)
    with pytest.raises(ImportError, match=r"voila: pip install \"mmclust\[explorer\]\""):
        serve(Path("nothing.ipynb"), "127.0.0.1", 0, "demo", "cpu", browser=False, base_url="/")


def test_the_address_is_printed_before_anything_slow_is_imported():
    pytest.importorskip("voila")
    code = """if True:
        import run_all, sys
        sys.modules["nbformat"] = None  # the first of the slow imports
        print(run_all.main(["explore", "--port", "0", "--no-browser", "--base-url", "a//b"]))
        print({"numpy", "pandas", "torch", "voila"} & set(sys.modules))"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    address = r"http://127.0.0.1:\d+/a/b/\?token=\S+"
    assert re.fullmatch(rf"Starting the explorer at {address} .*\n2\nset\(\)\n", done.stdout)


@pytest.mark.parametrize("path", ["http://x.org/demo", "/../x", "a b", "/x?y", "/%41"])
def test_an_invalid_path_behind_a_proxy(path, capsys):
    with pytest.raises(SystemExit):
        run_all.main(["explore", "--base-url", path])
    assert re.search(
        rf"--base-url: invalid path '{re.escape(path)}'.*/demo/", capsys.readouterr().err
    )


def test_a_kernel_ends_some_time_after_its_page_and_sooner_if_the_page_never_came():
    pytest.importorskip("voila")
    from mmclust.explorer.voila_server import AWAY, UNUSED, PageKernels

    async def run():
        kernels = PageKernels()
        left, never = [await kernels.start_kernel(kernel_name="python3") for _ in range(2)]

        async def check(kernel_id, times):
            for _ in range(times):
                await kernels.cull_kernel_if_idle(kernel_id)
            return kernel_id in kernels

        try:
            assert await check(never, UNUSED + 2)  # it is not ready yet
            for kernel_id in (left, never):
                client = kernels.get_kernel(kernel_id).client()
                client.start_channels()
                await client.wait_for_ready(timeout=60)
                for _ in range(100):
                    if kernels.get_kernel(kernel_id).execution_state == "idle":
                        break
                    client.kernel_info()  # the kernel says once more that it is idle
                    await asyncio.sleep(0.1)
                client.stop_channels()
                assert kernels.get_kernel(kernel_id).execution_state == "idle"
            assert await check(never, UNUSED)
            assert not await check(never, 1)
            kernels.notify_connect(left)
            assert await check(left, AWAY + 2)
            kernels.notify_disconnect(left)
            assert await check(left, AWAY - 1)
            kernels.notify_connect(left)  # the page came back
            kernels.notify_disconnect(left)
            assert await check(left, AWAY)
            assert not await check(left, 1)
        finally:
            await kernels.shutdown_all(now=True)

    asyncio.run(run())


def test_a_port_in_use(tmp_path):
    pytest.importorskip("voila")
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        used.listen()
        port = str(used.getsockname()[1])
        command = [sys.executable, ROOT / "run_all.py", "explore", "--no-browser", "--port", port]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(rf"port {port} of 127.0.0.1 .*in use.*--port.*\n", done.stderr)


def test_the_benchmark_of_answers_gives_seconds(fruit):
    row = explorer_answers.time_answer(fruit, "CLIP_GPT", ["color", "species"])
    assert row["keywords"] == "color, species"
    assert row["pictures"] == N
    assert 0 < row["clusters"] <= row["and maps"]
