"""The papers' data sets in their released layouts: downloaded from a server, or placed by hand."""

import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.local_servers import serve
from helpers.notebooks import parameters_cell, write_notebook, write_notebooks
from PIL import Image

import mmclust as mm
from mmclust.data import download, paper_datasets, paper_layouts
from mmclust.experiments.workbench import Workbench
from mmclust.pipeline.notebooks import reproduce


def picture(seed, file_format="jpeg", size=(12, 10)):
    """The bytes of a picture of noise."""
    out = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).convert("L" if file_format == "ppm" else "RGB").save(out, file_format)
    return out.getvalue()


def pixels_of(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


PICTURES = [picture(i) for i in range(12)]
COLORS = ("red", "green", "yellow")
SPECIES = ("apple", "grapes")
CLASSES = [(COLORS[i % 3], SPECIES[i // 3 % 2]) for i in range(12)]
CARDS = [(rank, suit) for rank in ("ace", "two") for suit in ("clubs", "hearts", "spades")]


def trees(first, second, classes=CLASSES, name="{:03d}.jpg".format, renamed="{:03d}.jpg".format):
    """Path -> bytes of two trees with the same pictures, under other names in the second."""
    out = {}
    for i, (a, b) in enumerate(classes):
        out[f"{first}/{a}/{name(i)}"] = PICTURES[i]
        out[f"{second}/{b}/{renamed(i)}"] = PICTURES[i]
    return out


def shifted(i):
    return f"{(i + 1) % 12:03d}.jpg"


def zipped(members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, data in members.items():
            archive.writestr(path, data)
    return out.getvalue()


def tarred(members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for path, data in members.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def place(folder, members):
    for path, data in members.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def load_with_warnings(name, **options):
    """The data set, and the warnings of its loading."""
    with warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always")
        return mm.load_dataset(name, **options), [str(w.message) for w in messages]


def load(name, **options):
    """The data set; the only warnings are that it is smaller than the papers'."""
    data, messages = load_with_warnings(name, **options)
    assert all(m.startswith(f"{name} in ") and m.endswith(" expected") for m in messages), messages
    return data


def names(data, criterion):
    return [data.classes[criterion][k] for k in data.labels[criterion]]


def classes_of(data):
    return list(zip(*(names(data, c) for c in data.criteria)))


def true_classes(data, classes):
    """Those of each of the `PICTURES`, as the pixels of the data set say."""
    known = {pixels_of(p).tobytes(): true for p, true in zip(PICTURES, classes)}
    return [known[np.asarray(image).tobytes()] for image in data.images]


@pytest.fixture(autouse=True)
def no_retries(monkeypatch):
    monkeypatch.setattr(download, "RETRIES", 0)
    monkeypatch.setenv("TQDM_DISABLE", "1")


@pytest.fixture
def web(monkeypatch, tmp_path):
    """A server that is the mirror; the data folder is empty."""
    with serve() as web:
        monkeypatch.setenv("MMCLUST_MIRROR", web.url)
        monkeypatch.setenv("MMCLUST_DATA", str(tmp_path / "data"))
        yield web


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The data folder; no server answers."""
    monkeypatch.setenv("MMCLUST_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MMCLUST_MIRROR", "http://127.0.0.1:9")
    return tmp_path / "data"


def bundle(top=""):
    members = trees(f"{top}fruit/color", f"{top}fruit/species")
    members |= {f"{top}fruit/instance/{i}/{i:03d}.jpg": PICTURES[i] for i in range(12)}
    # names repeat in every class: only the content matches the trees
    members |= trees(
        f"{top}fruit360/color",
        f"{top}fruit360/species",
        CLASSES[:6],
        lambda i: f"{i // 3}_100.jpg",
        lambda i: f"{i % 3}_100.jpg",
    )
    members |= trees(f"{top}cards/number", f"{top}cards/suits", CARDS)
    members |= {f"__MACOSX/{top}fruit/._color": b"?", f"{top}fruit/.DS_Store": b"?"}
    return zipped(members)


@pytest.mark.parametrize("top", ["", "AugDMC_datasets/", "AugDMC_datasets/dataset/"])
def test_fruit_fruit360_and_card_come_from_one_archive(web, top):
    web.files["AugDMC_datasets.zip"] = bundle(top)
    fruit = load("fruit")
    fruit360 = load("fruit360")
    card = load("card")
    assert web.requests == ["/AugDMC_datasets.zip"]
    assert (fruit.name, fruit.domain, len(fruit)) == ("fruit", "fruit", 12)
    assert fruit.criteria == ["color", "species"]  # no instance, and no shape yet
    assert (fruit360.domain, len(fruit360)) == ("fruit", 6)
    assert (card.domain, card.criteria, len(card)) == ("card", ["order", "suits"], 6)
    for data, classes in ((fruit, CLASSES), (fruit360, CLASSES), (card, CARDS)):
        assert classes_of(data) == true_classes(data, classes)


def test_differences_from_the_papers_table_are_warnings(web):
    web.files["AugDMC_datasets.zip"] = bundle()
    with pytest.warns(UserWarning, match=r"fruit in .*/fruit: 12 pictures, where 105 are"):
        mm.load_dataset("fruit", n=3)
    fruit = paper_datasets.data_folder() / "AugDMC_datasets" / "fruit"
    more = {f"{i}.jpg": picture(i) for i in range(100, 193)}
    for criterion in ("color", "species"):
        place(fruit / criterion / "new", more)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(mm.load_dataset("fruit")) == 105
    place(fruit / "shape", {f"{i % 3}/{i:03d}.jpg": PICTURES[i] for i in range(12)})
    place(fruit / "shape" / "1", more)
    with pytest.warns(UserWarning, match="3 classes of shape, where 2 are"):
        data = mm.load_dataset("fruit")
    assert data.criteria == ["color", "species", "shape"]
    assert data.independent_criteria == ["color", "species"]


FACES = [
    f"{user}_{pose}_{emotion}_{eyes}"
    for user in ("an2i", "at33")
    for pose in ("straight", "left", "right", "up")
    for emotion in ("neutral", "happy", "sad", "angry")
    for eyes in ("open", "sunglasses")
]
FACE_SIZES = {"": (16, 15), "_2": (8, 8), "_4": (4, 4)}


def faces(scales=("", "_2", "_4"), top="faces"):
    """The last face is damaged, as some of the real ones are, and ends in .bad."""
    out = {}
    for i, face in enumerate(FACES):
        suffix = "bad" if face == FACES[-1] else "pgm"
        for scale in scales:
            path = f"{top}/{face.split('_')[0]}/{face}{scale}.{suffix}"
            out[path] = picture(i, "ppm", FACE_SIZES[scale])
    return out


def test_cmuface_is_labeled_by_its_file_names(web):
    members = {"faces.tar.gz": tarred(faces()), "faces.html": b"..."}
    web.files["cmu+face+images.zip"] = zipped(members)
    data = load("cmuface")
    assert web.requests == ["/cmu+face+images.zip"]
    assert (data.domain, len(data)) == ("face", len(FACES) - 1)
    assert data.criteria == ["identity", "emotion", "glasses", "pose"]
    assert [data.n_clusters(c) for c in data.criteria] == [2, 4, 2, 4]
    for row, image in zip(data.rows, data.images):
        face = row["file"].split("/")[-1].removesuffix(".pgm")
        assert face == "_".join(row[c] for c in ("identity", "pose", "emotion", "glasses"))
        finest = pixels_of(picture(FACES.index(face), "ppm", FACE_SIZES[""]))
        np.testing.assert_array_equal(np.asarray(image), finest)


def test_cmuface_in_another_size_and_in_trees(root):
    place(root, faces(("_4",), "faces_4"))
    data, messages = load_with_warnings("cmuface")
    assert data.images[0].size == (4, 4)
    where = f"cmuface in {root / 'faces_4'}"
    assert messages == [
        f"{where}: 63 pictures, where 640 or 624 are expected",
        f"{where}: 2 classes of identity, where 20 are expected",
    ]
    shutil.rmtree(root)
    for i, face in enumerate(FACES):
        user, _, _, eyes = face.split("_")
        for folder in (f"identity/{user}", f"glass/{eyes}"):
            place(root, {f"CMUface/{folder}/{face}.pgm": picture(i, "ppm")})
    assert len(load("cmuface")) == len(FACES)  # each picture once


def test_faces_of_another_name_are_named(root):
    members = faces(("_2",), "cmuface")
    members = {path.replace("_straight_", "_forward_"): data for path, data in members.items()}
    place(root, members)
    data, messages = load_with_warnings("cmuface")
    assert len(data) == 47 and data.n_clusters("pose") == 3
    (named,) = [m for m in messages if "forward" in m]
    assert f"{root / 'cmuface'}: left out 16 pictures (an2i_forward_angry_open_2.pgm" in named
    assert "pose straight, left, right or up" in named
    assert data.notes and data.notes[0] in named
    for path in members:
        if "_forward_" not in path:
            (root / path).unlink()
    with pytest.raises(FileNotFoundError, match=r"cmuface/<user>/.*pose straight, left"):
        mm.load_dataset("cmuface")


def clevr4(top=""):
    """Clevr-4's archive: pictures, and a JSON file of their classes; some counts are numbers."""
    classes = {
        f"CLEVR_new_{i:06d}": {
            "split": "train" if i % 2 else "test",
            "color": COLORS[i % 3],
            "texture": "metal" if i % 2 else "checkered",
            "count": i % 4 + 1 if i < 6 else str(i % 4 + 1),
            "shape": "torus" if i < 5 else "cube",
        }
        for i in range(12)
    }
    members = {f"{top}images/{name}.png": picture(i, "png") for i, name in enumerate(classes)}
    return zipped(members | {f"{top}clevr_4_annots.json": json.dumps(classes).encode()})


def sums(archive):
    digest = hashlib.sha512(archive).hexdigest()
    return f"{'0' * 128}  other.zip\n{digest}  clevr_4_10k_v1.zip\n".encode()


@pytest.mark.parametrize("top", ["", "clevr_4_10k_v1/", "clevr4/"])
def test_clevr4_is_labeled_by_its_annotations(web, top):
    archive = clevr4(top)
    web.files |= {"clevr_4_10k_v1.zip": archive, "SHA512SUMS": sums(archive)}
    data = load("clevr4")
    assert (data.domain, data.criteria) == ("object", ["texture", "shape", "color", "count"])
    assert names(data, "count") == [str(i % 4 + 1) for i in range(12)]
    assert data.classes["count"] == ["1", "2", "3", "4"], "numbers and texts are one class"
    assert names(data, "shape") == ["torus"] * 5 + ["cube"] * 7
    for i, image in enumerate(data.images):
        np.testing.assert_array_equal(np.asarray(image), pixels_of(picture(i, "png")))
    assert load("clevr4").images.fingerprint == data.images.fingerprint
    assert sorted(web.requests) == ["/SHA512SUMS", "/clevr_4_10k_v1.zip"]
    for criterion in data.criteria:
        assert len(mm.reference_words(criterion, of=data.domain)) >= 10


def test_clevr4_that_is_not_what_its_server_lists(web):
    archive = clevr4()
    web.files |= {"clevr_4_10k_v1.zip": archive, "SHA512SUMS": sums(archive + b"x")}
    with pytest.raises(ValueError, match=r"clevr_4_10k_v1\.zip does not have the hash sha512:"):
        load("clevr4")
    web.files["SHA512SUMS"] = b"0  other.zip\n"
    with pytest.raises(ValueError, match=r"SHA512SUMS has no line for clevr_4_10k_v1\.zip"):
        load("clevr4")
    web.files["SHA512SUMS"] = sums(archive)
    data = load("clevr4")
    (paper_datasets.data_folder() / "clevr_4_10k_v1" / data.rows[3]["file"]).unlink()
    with pytest.raises(ValueError, match=r"CLEVR_new_000003\.png is missing.*remove .*again"):
        load("clevr4")


PHOTOS = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def cifar(monkeypatch):
    """A small CIFAR-10 in its true format: its archive, its pixels and class names."""
    from torchvision.datasets import CIFAR10

    rng = np.random.default_rng(0)
    members, pixels, labels = {}, [], []
    for k, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        pixels.append(rng.integers(0, 256, (4, 3072), dtype=np.uint8))
        labels += [k, 7, 8, 9]
        members[name] = pickle.dumps({"data": pixels[-1], "labels": labels[-4:]})
    members["batches.meta"] = pickle.dumps({"label_names": PHOTOS})
    md5 = {name: hashlib.md5(data).hexdigest() for name, data in members.items()}
    archive = tarred({f"cifar-10-batches-py/{name}": data for name, data in members.items()})
    train = [[f"data_batch_{i}", md5[f"data_batch_{i}"]] for i in range(1, 6)]
    monkeypatch.setattr(CIFAR10, "train_list", train)
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5["batches.meta"]})
    spec = paper_datasets.PAPER_DATASETS["cifar10"]
    spec = replace(spec, md5=hashlib.md5(archive).hexdigest())
    monkeypatch.setitem(paper_datasets.PAPER_DATASETS, "cifar10", spec)
    pictures = np.concatenate(pixels).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return archive, pictures, [PHOTOS[k] for k in labels]


def test_torchvision_has_the_same_cifar10():
    from torchvision.datasets import CIFAR10

    spec = paper_datasets.PAPER_DATASETS["cifar10"]
    assert (CIFAR10.url, CIFAR10.tgz_md5) == (spec.url, spec.md5)
    assert CIFAR10.base_folder == paper_layouts.BATCHES


def test_cifar10_by_torchvision_with_both_criteria(web, cifar):
    web.files["cifar-10-python.tar.gz"], pixels, photos = cifar
    data = load("cifar10")
    assert (data.domain, data.criteria, len(data)) == ("photo", ["type", "environment"], 24)
    np.testing.assert_array_equal(np.stack([np.asarray(im) for im in data.images]), pixels)
    vehicles = ("airplane", "automobile", "ship", "truck")
    assert names(data, "type") == ["transportation" if p in vehicles else "animals" for p in photos]
    elsewhere = {"airplane": "air", "bird": "air", "ship": "water", "frog": "water"}
    assert names(data, "environment") == [elsewhere.get(p, "land") for p in photos]
    assert load("cifar10").images.fingerprint == data.images.fingerprint
    assert len(web.requests) == 1
    batch = next(paper_datasets.data_folder().rglob("data_batch_3"))
    batch.write_bytes(batch.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"cifar-10-batches-py is incomplete.*remove it"):
        mm.load_dataset("cifar10")


def test_cifar10_with_a_wrong_hash_is_never_opened(web, cifar, tmp_path):
    web.files["cifar-10-python.tar.gz"] = cifar[0] + b"x"
    with pytest.raises(ValueError, match=r"cifar-10-python\.tar\.gz does not have the hash md5:"):
        mm.load_dataset("cifar10")
    assert not list((tmp_path / "data").glob("cifar*"))


def test_cifar10_that_a_user_has(root, cifar):
    with tarfile.open(fileobj=io.BytesIO(cifar[0])) as archive:
        for name in archive.getnames():
            place(root, {f"cifar10/{name}": archive.extractfile(name).read()})
    assert len(load("cifar10")) == 24
    classes = [("animals", "land"), ("animals", "air"), ("transportation", "water")]
    place(root, trees("cifar10/type", "cifar10/environment", classes))
    assert len(load("cifar10")) == 3  # the authors' trees come first


PLACED = [
    ("cars", ("color", "type"), "car"), ("flowers", ("color", "species"), "flower"),
    ("aloi", ("color", "shape"), "object"),
]  # fmt: skip


@pytest.mark.parametrize("name, criteria, domain", PLACED)
def test_data_sets_that_must_be_placed_by_hand(root, name, criteria, domain):
    first, second = criteria
    remedy = f"place in {root} {name}/{first}/<class>/<picture> and {name}/{second}/"
    with pytest.raises(FileNotFoundError, match=rf"{remedy}.*labels.csv.*file.*{first}, {second}"):
        mm.load_dataset(name)
    members = trees(f"{name}/{first}", f"{name}/{second}")
    place(root, {path: data for path, data in members.items() if f"/{first}/" in path})
    with pytest.raises(ValueError, match=f"{root / name} has no folder '{second}': place in"):
        mm.load_dataset(name)
    place(root, members)
    data, messages = load_with_warnings(name)
    assert messages[0].startswith(f"{name} in {root / name}: 12 pictures, where ")
    assert (data.domain, data.criteria) == (domain, list(criteria))
    assert set(classes_of(data)) == set(CLASSES)


def test_labels_csv(root):
    place(root, {f"cars/pictures/{i}.jpg": PICTURES[i] for i in range(2)})
    table = "file,color,type,more\npictures/1.jpg,a,b,c\npictures/0.jpg,d,b,c\n"
    place(root, {"cars/labels.csv": table.encode()})
    data = load("cars")
    assert data.criteria == ["color", "type"] and names(data, "color") == ["a", "d"]
    place(root, {"cars/labels.csv": b"file,color\npictures/1.jpg,a\n"})
    with pytest.raises(ValueError, match=r"labels\.csv has no column 'type', only: color"):
        mm.load_dataset("cars")


def place_parts(root):
    """Pictures in the layouts of `card.tar` and of 2,000 test pictures of CIFAR-10, unpacked."""
    place(root, {f"card/images/{i}.jpg": PICTURES[i] for i in range(6)})
    splits = ["train", "train", "train", "valid", "test", "Test"]
    rows = [f"images/{i}.jpg,{CARDS[i][0]},{CARDS[i][1]},{splits[i]}" for i in range(6)]
    place(root, {"card/labels.csv": "\n".join(["file,order,suits,split", *rows]).encode()})
    place(root, {f"cifar10-mc/images/{name}_0.jpg": PICTURES[i] for i, name in enumerate("ab")})
    table = "file,class,type,environment\nimages/a_0.jpg,a,c,d\nimages/b_0.jpg,b,e,f\n"
    place(root, {"cifar10-mc/labels.csv": table.encode(), "cifar10-mc/README.md": b"..."})


def test_parts_of_a_data_set(root):
    for name, columns in {
        "card-test": r"order, suits, split \(test\)",
        "cifar10-mc": "type, environment",
    }.items():
        remedy = f"place in {root} {name.removesuffix('-test')}/labels.csv with columns file"
        with pytest.raises(FileNotFoundError, match=rf"{remedy} .*{columns}"):
            mm.load_dataset(name)
    place_parts(root)
    sizes = {"card": 6, "card-train": 3, "card-valid": 1, "card-test": 2, "cifar10-mc": 2}
    for name, size in sizes.items():
        data = load(name)
        assert len(data) == size
        assert len(load(name, n=1)) == 1
        assert data.domain == ("photo" if name == "cifar10-mc" else "card")
    assert data.criteria == ["type", "environment"]
    test = load("card-test")
    assert test.criteria == ["order", "suits"]
    assert classes_of(test) == true_classes(test, CARDS * 2)
    complete = mm.load_folder(root / "card", domain="card", verbose=False)
    assert complete.criteria == ["order", "suits"]
    by_hand = complete.subset([row["split"].lower() == "test" for row in complete.rows])
    assert by_hand.images.fingerprint == test.images.fingerprint
    place(root, {"card/labels.csv": b"file,order,suits\nimages/0.jpg,ace,clubs\n"})
    assert len(load("card")) == 1
    with pytest.raises(ValueError, match=r"card/labels\.csv: no 'test' in a column 'split'"):
        mm.load_dataset("card-test")


def test_a_part_is_not_taken_from_trees(root):
    place(root, trees("card/number", "card/suits", CARDS))
    assert len(load("card")) == 6
    with pytest.raises(FileNotFoundError, match=r"card-test is not in .*labels\.csv"):
        mm.load_dataset("card-test")


def test_a_copy_of_the_user_needs_no_download(root):
    place(root, trees("Fruit/Color", "Fruit/species"))
    assert len(load("fruit")) == 12
    other = root.parent / "elsewhere"
    place(other, {"AugDMC_datasets.zip": bundle()})
    assert len(load("card", data_dir=other)) == 6
    with pytest.raises(ConnectionError, match=r"AugDMC_datasets\.zip.*place it in"):
        mm.load_dataset("fruit360")


def test_the_content_decides_which_pictures_are_the_same(root):
    place(root, trees("cars/color", "cars/type", renamed=shifted))  # names mean other pictures
    data = load("cars")
    assert classes_of(data) == true_classes(data, CLASSES)


def test_names_decide_where_pictures_were_saved_again(root):
    for i, (color, kind) in enumerate(CLASSES):
        place(root, {f"cars/color/{color}/{i}.jpg": PICTURES[i]})
        place(root, {f"cars/type/{kind}/{i}.jpg": picture(i, "png")})
    data = load("cars")
    assert len(data) == 12
    for row in data.rows:
        i = int(row["file"].split("/")[-1].removesuffix(".jpg"))
        assert (row["color"], row["type"]) == CLASSES[i]


def test_copies_in_a_tree_are_matched_by_name(root):
    for path in ("color/a/one", "color/b/two", "type/y/one", "type/x/two"):
        place(root, {f"cars/{path}.jpg": PICTURES[0]})
    assert set(classes_of(load("cars"))) == {("a", "y"), ("b", "x")}


SEPARATE = {
    "more in one": trees("cars/color", "cars/type") | {"cars/type/apple/more.jpg": picture(99)},
    "one differs, and so do names": trees("cars/color", "cars/type", renamed=shifted)
    | {"cars/type/apple/001.jpg": picture(99)},
    "names repeat": {
        f"cars/{path}/{i}.jpg": picture([*f"{path}{i}".encode()])
        for path in ("color/a", "color/b", "type/a", "type/b")
        for i in range(2)
    },
}


@pytest.mark.parametrize("case", SEPARATE)
def test_trees_that_do_not_match_are_separate_data_sets(root, case):
    place(root, SEPARATE[case])
    with pytest.raises(paper_layouts.SeparateCriteria, match=r"criterion= one of color, type"):
        mm.load_dataset("cars")
    bench = Workbench()
    for criterion in ("color", "type"):
        paths = [path for path in SEPARATE[case] if path.startswith(f"cars/{criterion}/")]
        data = load("cars", criterion=criterion)
        assert data.criteria == [criterion]
        assert sorted(f"cars/{row['file']}" for row in data.rows) == sorted(paths)
        warnings.simplefilter("ignore")
        for seed in (0, 1):
            experiment = mm.Experiment("cars", criterion, "KMeans", seed=seed)
            assert len(bench.dataset(experiment)) == len(paths)


def test_wrong_layouts_are_named(root):
    place(root, {"cars/color/red.jpg": PICTURES[0], "cars/type/a/b.jpg": PICTURES[0]})
    with pytest.raises(ValueError, match=r"cars/color/red\.jpg.*<criterion>/<class>"):
        mm.load_dataset("cars")
    (root / "cars/color/red.jpg").unlink()
    (root / "cars/type/a/b.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="cars holds no pictures of cars: place in"):
        mm.load_dataset("cars")


def test_wrong_archives_are_named(web, tmp_path):
    archive = tmp_path / "data" / "AugDMC_datasets.zip"
    web.files["AugDMC_datasets.zip"] = b"<html>moved</html>"
    with pytest.raises(ValueError, match=r"AugDMC_datasets\.zip is damaged.*remove it"):
        mm.load_dataset("fruit")
    archive.unlink()
    web.files["AugDMC_datasets.zip"] = zipped({"vegetables/x.jpg": PICTURES[0]})
    with pytest.raises(ValueError, match=r"no folder fruit or fruit_type.*another version"):
        mm.load_dataset("fruit")
    with pytest.raises(ValueError, match=r"no folder card or cards: remove it"):
        mm.load_dataset("card")


def test_n_pictures_are_drawn_by_seed(root):
    place(root, trees("cars/color", "cars/type"))
    few = load("cars", n=4, seed=3)
    more = load("cars", n=7, seed=3)
    other = load("cars", n=7, seed=4)
    assert few.rows == more.rows[:4] and more.rows != other.rows
    assert len({row["file"] for row in more.rows}) == 7
    assert load("cars", n=50, seed=3).rows == load("cars").rows
    assert few.images.fingerprint == load("cars", n=4, seed=3).images.fingerprint
    assert [row["color"] for row in more.rows] == names(more, "color")
    warnings.simplefilter("ignore")
    for n in (0, -1):
        with pytest.raises(ValueError, match=f"n must be at least 1, not {n}"):
            mm.load_dataset("cars", n=n)
    with pytest.raises(ValueError, match=r"'colour' is not in cars \(color, type\): .*'color'\?"):
        mm.load_dataset("cars", criterion="colour")


def test_the_fingerprint_depends_on_the_pictures_alone(root):
    place(root, trees("cars/color", "cars/type"))
    fingerprint = load("cars").images.fingerprint
    moved = root / "moved"
    place(moved, trees("cars/color", "cars/type"))
    os.utime(moved / "cars/color/red/000.jpg", (0, 0))
    assert load("cars", data_dir=moved).images.fingerprint == fingerprint
    for path in ("color/red", "type/apple"):
        place(moved, {f"cars/{path}/000.jpg": picture(99)})
    assert load("cars", data_dir=moved).images.fingerprint != fingerprint


def test_experiments_run_on_them(root):
    place(root, trees("fruit/color", "fruit/species"))
    criteria = ["color", "species"]
    experiments = mm.grid(
        dataset="fruit", criterion=criteria, method="KMeans", n=8, seed=[0, 1], kmeans_seeds=1
    )
    with pytest.warns(UserWarning, match="12 pictures"):
        rows = mm.run(experiments, progress=False)
    assert rows["n"].tolist() == [8] * 4
    assert sorted(rows["criterion"]) == sorted(2 * criteria)


def test_two_processes_download_once(web):
    web.files["AugDMC_datasets.zip"] = bundle()
    web.delay = 0.3
    script = "import mmclust as mm; print(len(mm.load_dataset('fruit')))"
    run = [sys.executable, "-W", "ignore", "-c", script]
    processes = [subprocess.Popen(run, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in processes] == ["12", "12"]
    assert len(web.requests) == 1


def test_unknown_names_list_the_known_ones(root):
    with pytest.raises(ValueError, match=r"'fruits' is neither .*demo-fruit, .*fruit360, .*aloi"):
        mm.load_dataset("fruits")


def test_the_data_folder(root, monkeypatch):
    assert paper_datasets.data_folder() == root
    assert paper_datasets.data_folder("x").name == "x"
    monkeypatch.delenv("MMCLUST_DATA")
    assert paper_datasets.data_folder() == mm.cache_dir() / "datasets"


def test_only_available_data_sets_are_taken(root, capsys):
    wanted = {"demo-fruit": ["color"], "cars": ["type"], "cifar10": ["type"], "a folder": []}
    available = {name: criteria for name, criteria in wanted.items() if name != "cars"}
    assert mm.available_datasets(wanted) == available
    assert mm.available_datasets(list(wanted)) == list(available)
    assert f"without cars: place in {root}" in capsys.readouterr().out
    place(root, trees("cars/color", "cars/type"))
    assert mm.available_datasets(wanted) == wanted


def run_on(name, tmp_path):
    """Run a notebook that loads a data set, unless it is up to date; gives how it ended."""
    sources = tmp_path / "notebooks"
    profile = write_notebooks(sources, a="")
    source = f"import mmclust as mm\nmm.load_dataset('{name}');"
    write_notebook(sources / "a.ipynb", parameters_cell("out = profile = None"), source)
    settings = json.loads(Path(profile).read_text())
    settings["notebooks"]["a"]["criteria"] = {name: ["color"]}
    Path(profile).write_text(json.dumps(settings))
    options = {"profile": profile, "out": tmp_path / "out", "notebooks": sources}
    (outcome,) = reproduce(**options, workers=0)
    return outcome.status + outcome.error


def test_a_notebook_is_out_of_date_when_placed_pictures_or_labels_have_changed(root, tmp_path):
    place(root, trees("cars/color", "cars/type"))
    assert [run_on("cars", tmp_path) for _ in range(2)] == ["done", "up to date"]
    rows = [f"color/{a}/{i:03d}.jpg,{a},{b}" for i, (a, b) in enumerate(CLASSES)]
    place(root, {"cars/labels.csv": "\n".join(["file,color,type", *rows]).encode()})
    assert run_on("cars", tmp_path) == "done"
    place(root, {"cars/labels.csv": "\n".join(["file,color,type", *rows[:6]]).encode()})
    assert [run_on("cars", tmp_path) for _ in range(2)] == ["done", "up to date"]


def test_a_notebook_that_has_downloaded_its_data_is_up_to_date(web, tmp_path):
    web.files["AugDMC_datasets.zip"] = bundle()
    assert [run_on("fruit", tmp_path) for _ in range(2)] == ["done", "up to date"]
    assert web.requests == ["/AugDMC_datasets.zip"]
    (picture,) = (tmp_path / "data").glob("**/fruit/color/*/000.jpg")
    picture.unlink()
    assert run_on("fruit", tmp_path) != "up to date"
