"""The papers' data sets in their released layouts: downloaded from a server, or placed by hand."""

import hashlib
import io
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import warnings
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from helpers.local_servers import serve
from PIL import Image

import mmclust as mm
from mmclust.data import __main__ as command
from mmclust.data import download, paper_datasets, paper_layouts
from mmclust.experiments.workbench import Workbench


def picture(seed, kind="jpeg", size=(12, 10)):
    out = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).convert("L" if kind == "ppm" else "RGB").save(out, kind)
    return out.getvalue()


def pixel(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


PICTURES = [picture(i) for i in range(12)]
COLORS, SPECIES = ("red", "green", "yellow"), ("apple", "grapes")
TRAITS = [(COLORS[i % 3], SPECIES[i // 3 % 2]) for i in range(12)]


def trees(first, second, traits=TRAITS, name="{i:03d}.jpg".format, renamed="{i:03d}.jpg".format):
    """Path -> bytes of two trees over the same pictures."""
    out = {}
    for i, (a, b) in enumerate(traits):
        out[f"{first}/{a}/{name(i=i)}"] = out[f"{second}/{b}/{renamed(i=i)}"] = PICTURES[i % 12]
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


def quiet(name, **options):
    """The data set, without the warnings that it is smaller than the papers'."""
    data, messages = load_with_warnings(name, **options)
    assert all(
        message.startswith(f"{name} in ") and message.endswith(" expected") for message in messages
    ), messages
    return data


def names(data, criterion):
    return [data.classes[criterion][k] for k in data.labels[criterion]]


@pytest.fixture(autouse=True)
def no_retries(monkeypatch):
    monkeypatch.setattr(download, "RETRIES", 0)
    monkeypatch.setenv("TQDM_DISABLE", "1")


@pytest.fixture
def web(monkeypatch, tmp_path):
    with serve() as web:
        monkeypatch.setenv("MMCLUST_MIRROR", web.url)
        monkeypatch.setenv("MMCLUST_DATA", str(tmp_path / "data"))
        yield web


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("MMCLUST_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MMCLUST_MIRROR", "http://127.0.0.1:9")  # nobody
    return tmp_path / "data"


def bundle(top=""):
    fruit = trees(f"{top}fruit/color", f"{top}fruit/species") | {
        f"{top}fruit/instance/{i}/{i:03d}.jpg": PICTURES[i] for i in range(12)
    }
    # names repeat in every class, so that content alone matches the trees
    fruit360 = trees(
        f"{top}fruit360/color",
        f"{top}fruit360/species",
        TRAITS[:6],
        lambda i: f"{i // 3}_100.jpg",
        lambda i: f"{i % 3}_100.jpg",
    )
    cards = trees(
        f"{top}cards/number",
        f"{top}cards/suits",
        [(r, s) for r in ("ace", "two") for s in ("clubs", "hearts", "spades")],
    )
    return zipped(
        fruit
        | fruit360
        | cards
        | {f"__MACOSX/{top}fruit/._color": b"?", f"{top}fruit/.DS_Store": b"?"}
    )


@pytest.mark.parametrize("top", ["", "AugDMC_datasets/", "AugDMC_datasets/dataset/"])
def test_fruit_fruit360_and_card_come_from_one_archive(web, top):
    web.files["AugDMC_datasets.zip"] = bundle(top)
    fruit, fruit360, card = (quiet(name) for name in ("fruit", "fruit360", "card"))
    assert web.requests == ["/AugDMC_datasets.zip"]  # once for all three
    assert (fruit.name, fruit.domain, fruit.criteria) == (
        "fruit",
        "fruit",
        ["color", "species"],
    )  # no instance, and no shape yet
    assert len(fruit) == 12 and set(zip(names(fruit, "color"), names(fruit, "species"))) == set(
        TRAITS
    )
    assert (fruit360.domain, card.domain, card.criteria) == ("fruit", "card", ["order", "suits"])
    assert len(fruit360) == 6 and len(card) == 6 and card.classes["order"] == ["ace", "two"]
    for loaded, traits in (
        (fruit, TRAITS),
        (fruit360, TRAITS),
        (card, [(r, s) for r in ("ace", "two") for s in ("clubs", "hearts", "spades")]),
    ):
        known = {pixel(PICTURES[i]).tobytes(): traits[i] for i in range(len(loaded))}
        assert [known[np.asarray(im).tobytes()] for im in loaded.images] == list(
            zip(*(names(loaded, c) for c in loaded.criteria))
        )


def test_the_table_is_checked_and_differences_are_a_warning(web):
    web.files["AugDMC_datasets.zip"] = bundle()
    with pytest.warns(UserWarning, match=r"fruit in .*/fruit: 12 pictures, where 105 are expected"):
        mm.load_dataset("fruit", n=3)
    place(
        paper_datasets.data_folder(),
        {
            f"AugDMC_datasets/fruit/{c}/new/{i}.jpg": picture(i)
            for c in ("color", "species")
            for i in range(100, 193)
        },
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(mm.load_dataset("fruit")) == 105
    place(
        paper_datasets.data_folder(),
        {
            f"AugDMC_datasets/fruit/shape/{k % 3}/{i:03d}.jpg": PICTURES[i]
            for k, i in enumerate(range(12))
        },
    )
    place(
        paper_datasets.data_folder(),
        {f"AugDMC_datasets/fruit/shape/1/{i}.jpg": picture(i) for i in range(100, 193)},
    )
    with pytest.warns(UserWarning, match="3 classes of shape, where 2 are expected"):
        assert mm.load_dataset("fruit").criteria == ["color", "species", "shape"]


USERS, POSES, EMOTIONS, EYES = (
    ("an2i", "at33"),
    ("straight", "left", "right", "up"),
    ("neutral", "happy", "sad", "angry"),
    ("open", "sunglasses"),
)
FACES = [f"{u}_{p}_{e}_{g}" for u in USERS for p in POSES for e in EMOTIONS for g in EYES]


def faces(scales=("", "_2", "_4"), top="faces"):
    sizes = {"": (16, 15), "_2": (8, 8), "_4": (4, 4)}
    out = {
        f"{top}/{f.split('_')[0]}/{f}{s}.pgm": picture(i, "ppm", sizes[s])
        for i, f in enumerate(FACES)
        for s in scales
    }
    bad = f"{top}/at33/{FACES[-1]}"
    return {
        path.replace(".pgm", ".bad") if path.startswith(bad) else path: data
        for path, data in out.items()
    }


@pytest.mark.parametrize("served", ["zip", "old"])
def test_cmuface_is_labelled_by_its_names(web, served):
    if served == "zip":
        web.files["cmu+face+images.zip"] = zipped(
            {"faces.tar.gz": tarred(faces()), "faces.html": b"..."}
        )
    else:
        web.files["faces.tar.gz"] = tarred(faces())
    data = quiet("cmuface")
    assert web.requests == ["/cmu+face+images.zip", "/faces.tar.gz"][: 1 + (served == "old")]
    assert (
        data.domain == "face"
        and data.criteria == ["identity", "emotion", "glasses", "pose"]
        and len(data) == len(FACES) - 1
    )
    assert [data.n_clusters(c) for c in data.criteria] == [2, 4, 2, 4] and data.images[0].size == (
        16,
        15,
    )  # the finest size
    for row, image in zip(data.rows, data.images):
        own = row["file"].split("/")[-1].removesuffix(".pgm")
        assert own == "_".join(row[c] for c in ("identity", "pose", "emotion", "glasses"))
        np.testing.assert_array_equal(
            np.asarray(image), pixel(picture(FACES.index(own), "ppm", (16, 15)))
        )


def test_cmuface_in_other_sizes_and_trees(data):
    place(data, faces(("_4",), "faces_4"))
    small, messages = load_with_warnings("cmuface")
    said = [
        "63 pictures, where 640 or 624 are expected",
        "2 classes of identity, where 20 are expected",
    ]
    assert small.images[0].size == (4, 4) and messages == [
        f"cmuface in {data / 'faces_4'}: {difference}" for difference in said
    ]
    shutil.rmtree(data)
    place(
        data,
        {
            f"CMUface/{c}/{f.split('_')[k]}/{f}.pgm": picture(i, "ppm")
            for i, f in enumerate(FACES)
            for k, c in ((0, "identity"), (3, "glass"))
        },
    )
    assert len(quiet("cmuface")) == len(FACES) == 64  # each picture once


CIFAR = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def cifar(monkeypatch):
    """A small CIFAR-10 in its true format; its archive, its pixels and labels."""
    from torchvision.datasets import CIFAR10

    rng, members, pixels, labels, md5 = np.random.default_rng(0), {}, [], [], {}
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        pixels.append(rng.integers(0, 256, (4, 3072), dtype=np.uint8))
        labels.append([len(labels), 7, 8, 9])
        members[name] = pickle.dumps({"data": pixels[-1], "labels": labels[-1]})
    members["batches.meta"] = pickle.dumps({"label_names": CIFAR})
    md5 = {name: hashlib.md5(data).hexdigest() for name, data in members.items()}
    archive = tarred({f"cifar-10-batches-py/{name}": data for name, data in members.items()})
    monkeypatch.setattr(
        CIFAR10, "train_list", [[f"data_batch_{i}", md5[f"data_batch_{i}"]] for i in range(1, 6)]
    )
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5["batches.meta"]})
    monkeypatch.setitem(
        paper_datasets.PAPER_DATASETS,
        "cifar10",
        replace(paper_datasets.PAPER_DATASETS["cifar10"], md5=hashlib.md5(archive).hexdigest()),
    )
    return (
        archive,
        np.concatenate(pixels).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1),
        [CIFAR[k] for own in labels for k in own],
    )


def test_torchvision_knows_the_same_cifar10():
    from torchvision.datasets import CIFAR10

    spec = paper_datasets.PAPER_DATASETS["cifar10"]
    assert (CIFAR10.url, CIFAR10.tgz_md5, CIFAR10.base_folder) == (
        spec.urls[0],
        spec.md5,
        paper_layouts.BATCHES,
    )


def test_cifar10_by_torchvision_with_both_labellings(web, cifar):
    web.files["cifar-10-python.tar.gz"], pixels, kinds = cifar
    data = quiet("cifar10")
    assert data.domain == "photo" and data.criteria == ["type", "environment"] and len(data) == 24
    np.testing.assert_array_equal(np.stack([np.asarray(im) for im in data.images]), pixels)
    assert data.classes == {
        "type": ["animals", "transportation"],
        "environment": ["air", "land", "water"],
    }
    vehicle, air, water = (
        {"airplane", "automobile", "ship", "truck"},
        {"airplane", "bird"},
        {"ship", "frog"},
    )
    assert names(data, "type") == ["transportation" if k in vehicle else "animals" for k in kinds]
    assert names(data, "environment") == [
        "air" if k in air else "water" if k in water else "land" for k in kinds
    ]
    assert quiet("cifar10").images.fingerprint == data.images.fingerprint and len(web.requests) == 1
    batch = next(paper_datasets.data_folder().rglob("data_batch_3"))
    batch.write_bytes(batch.read_bytes()[:-1])
    with pytest.raises(
        ValueError,
        match=r"cifar-10-batches-py is incomplete.*remove it",
    ):
        mm.load_dataset("cifar10")


def test_cifar10_with_a_wrong_hash_is_never_opened(web, cifar, tmp_path):
    web.files["cifar-10-python.tar.gz"] = cifar[0] + b"x"
    with pytest.raises(ValueError, match=r"cifar-10-python\.tar\.gz does not have the hash md5:"):
        mm.load_dataset("cifar10")
    assert not list((tmp_path / "data").glob("cifar*"))


def test_cifar10_as_a_user_has_it(data, cifar):
    with tarfile.open(fileobj=io.BytesIO(cifar[0])) as archive:
        for name in archive.getnames():
            place(data, {f"cifar10/{name}": archive.extractfile(name).read()})
    assert len(quiet("cifar10")) == 24
    place(
        data,
        trees(
            "cifar10/type",
            "cifar10/environment",
            [("animals", "land"), ("animals", "air"), ("transportation", "water")],
        ),
    )
    assert len(quiet("cifar10")) == 3  # the authors' trees come first


@pytest.mark.parametrize(
    "name, criteria, domain",
    [
        ("cars", ("color", "type"), "car"),
        ("flowers", ("color", "species"), "flower"),
        ("aloi", ("color", "shape"), "object"),
    ],
)
def test_what_must_be_placed(data, name, criteria, domain):
    first, second = criteria
    said = f"{name} is not in {data} and has no public download with its labels \\(.*\\): place in {data} {name}/{first}/<class>/<picture> and {name}/{second}/"
    with pytest.raises(
        FileNotFoundError,
        match=f"{said}.*or {name}/labels.csv with columns file .*, {first}, {second}",
    ):
        mm.load_dataset(name)
    place(
        data,
        {
            path: b
            for path, b in trees(f"{name}/{first}", f"{name}/{second}").items()
            if path.startswith(f"{name}/{first}")
        },
    )
    with pytest.raises(ValueError, match=f"{data / name} has no folder '{second}': place in"):
        mm.load_dataset(name)
    place(data, trees(f"{name}/{first}", f"{name}/{second}"))
    loaded, messages = load_with_warnings(name)
    assert (
        messages[0].startswith(f"{name} in {data / name}: 12 pictures, where ")
        and loaded.domain == domain
        and loaded.criteria == list(criteria)
    )
    assert set(zip(names(loaded, first), names(loaded, second))) == set(TRAITS)
    shutil.rmtree(data / name)
    place(data, {f"{name}/pictures/{i}.jpg": PICTURES[i] for i in range(2)})
    place(
        data,
        {
            f"{name}/labels.csv": f"file,{first},{second},more\npictures/1.jpg,a,b,c\npictures/0.jpg,d,b,c\n".encode()
        },
    )
    assert quiet(name).criteria == list(criteria) and names(quiet(name), first) == ["a", "d"]
    place(data, {f"{name}/labels.csv": f"file,{first}\npictures/1.jpg,a\n".encode()})
    with pytest.raises(ValueError, match=f"labels.csv has no column '{second}', only: {first}"):
        mm.load_dataset(name)


def test_a_users_own_copy_needs_no_download(data):
    place(data, trees("Fruit/Color", "Fruit/species"))
    assert len(quiet("fruit")) == 12
    other = data.parent / "elsewhere"
    place(other, {"AugDMC_datasets.zip": bundle()})
    assert (
        len(quiet("card", data_dir=other)) == 6 and (other / "AugDMC_datasets.zip.sha256").exists()
    )
    with pytest.raises(
        ConnectionError, match=r"AugDMC_datasets\.zip can't be downloaded .* place it in"
    ):
        mm.load_dataset("fruit360")


def test_content_decides_which_pictures_are_the_same(data):
    place(
        data, trees("cars/color", "cars/type", renamed=shifted)
    )  # the same names in both trees, but for other pictures
    loaded = quiet("cars")
    known = {pixel(PICTURES[i]).tobytes(): TRAITS[i] for i in range(12)}
    assert [known[np.asarray(im).tobytes()] for im in loaded.images] == list(
        zip(names(loaded, "color"), names(loaded, "type"))
    )


def test_names_decide_where_pictures_were_written_anew(data):
    place(data, {f"cars/color/{a}/{i}.jpg": PICTURES[i] for i, (a, _) in enumerate(TRAITS)})
    place(data, {f"cars/type/{b}/{i}.jpg": picture(i, "png") for i, (_, b) in enumerate(TRAITS)})
    loaded = quiet("cars")
    assert len(loaded) == 12 and all(
        (row["color"], row["type"]) == TRAITS[int(row["file"].split("/")[-1][:-4])]
        for row in loaded.rows
    )


def test_copies_within_a_tree_are_told_apart_by_name(data):
    twice = {
        f"cars/{c}/{k}/{name}.jpg": PICTURES[0]
        for c, own in (("color", "ab"), ("type", "yx"))
        for k, name in zip(own, ("one", "two"))
    }
    place(data, twice)
    assert set(zip(names(quiet("cars"), "color"), names(quiet("cars"), "type"))) == {
        ("a", "y"),
        ("b", "x"),
    }


APART = {
    "more in one": trees("cars/color", "cars/type") | {"cars/type/apple/more.jpg": picture(99)},
    "one differs, and names are others": trees("cars/color", "cars/type", renamed=shifted)
    | {"cars/type/apple/001.jpg": picture(99)},
    "names repeat": {
        f"cars/{c}/{k}/{i}.jpg": picture(1000 * o + 10 * ord(k) + i)
        for o, c in enumerate(("color", "type"))
        for k in "ab"
        for i in range(2)
    },
}


@pytest.mark.parametrize("case", APART)
def test_trees_that_dont_match_are_data_sets_of_their_own(data, case):
    place(data, APART[case])
    with pytest.raises(
        paper_layouts.SeparateCriteria,
        match=r"the trees in .* hold different pictures .*: give criterion= one of color, type",
    ):
        mm.load_dataset("cars")
    for criterion in ("color", "type"):
        own = [path for path in APART[case] if path.startswith(f"cars/{criterion}/")]
        alone = quiet("cars", criterion=criterion)
        assert alone.criteria == [criterion] and len(alone) == len(own)
        assert sorted(f"cars/{row['file']}" for row in alone.rows) == sorted(own)
    bench = Workbench()
    warnings.simplefilter("ignore")
    sizes = {
        c: len(bench.dataset(mm.Experiment("cars", c, "KMeans", seed=s)))
        for c in ("color", "type")
        for s in (0, 1)
    }
    assert sizes == {
        c: sum(path.startswith(f"cars/{c}/") for path in APART[case]) for c in ("color", "type")
    }


def test_bad_layouts_are_named(data):
    (data / "cars").mkdir(parents=True)
    place(data, {"cars/color/red.jpg": PICTURES[0], "cars/type/a/b.jpg": PICTURES[0]})
    with pytest.raises(
        ValueError, match=r"cars/color/red\.jpg is not in a folder <criterion>/<class>"
    ):
        mm.load_dataset("cars")
    (data / "cars/color/red.jpg").unlink(), (data / "cars/type/a/b.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="cars holds no pictures of cars"):
        mm.load_dataset("cars")


def test_archives_of_other_things_are_told(web, tmp_path):
    web.files["AugDMC_datasets.zip"] = b"<html>moved</html>"
    with pytest.raises(
        ValueError,
        match=r"AugDMC_datasets\.zip is damaged.*remove it, and it is downloaded again",
    ):
        mm.load_dataset("fruit")
    assert not (
        tmp_path / "data" / "AugDMC_datasets.zip.sha256"
    ).exists()  # nothing is trusted that is no archive
    (tmp_path / "data" / "AugDMC_datasets.zip").unlink()
    web.files["AugDMC_datasets.zip"] = zipped({"vegetables/x.jpg": PICTURES[0]})
    with pytest.raises(
        ValueError, match="holds no folder fruit or fruit_type: another version may be served"
    ):
        mm.load_dataset("fruit")
    with pytest.raises(
        ValueError,
        match="AugDMC_datasets holds no folder card or cards: remove it, and it is unpacked again",
    ):
        mm.load_dataset("card")


def test_both_sources_are_named_when_neither_answers(data):
    with pytest.raises(
        ConnectionError,
        match=r"cmu\+face\+images\.zip can't be downloaded .*; .*faces\.tar\.gz can't be downloaded",
    ):
        mm.load_dataset("cmuface")


def test_n_pictures_are_drawn_by_seed(data):
    place(data, trees("cars/color", "cars/type"))
    whole = quiet("cars")
    few, more, other, all_of_them = (
        quiet("cars", n=n, seed=s) for n, s in ((4, 3), (7, 3), (7, 4), (50, 3))
    )
    files = [[row["file"] for row in d.rows] for d in (few, more, other, all_of_them, whole)]
    assert (
        files[0] == files[1][:4]
        and files[1] != files[2]
        and files[3] == files[4]
        and len(set(files[2])) == 7
    )
    assert few.images.fingerprint == quiet("cars", n=4, seed=3).images.fingerprint
    assert all(f.split("/")[1] == color for f, color in zip(files[1], names(more, "color")))
    for n in (0, -1):
        with pytest.raises(ValueError, match=f"n must be at least 1, not {n}"):
            mm.load_dataset("cars", n=n)
    with pytest.raises(
        ValueError, match=r"'colour' is not in cars \(color, type\): did you mean 'color'"
    ):
        mm.load_dataset("cars", criterion="colour")


def test_the_fingerprint_is_of_the_pictures_alone(data):
    place(data, trees("cars/color", "cars/type"))
    here = quiet("cars").images.fingerprint
    place(data / "moved", trees("cars/color", "cars/type"))
    os.utime(data / "moved/cars/color/red/000.jpg", (0, 0))
    assert quiet("cars", data_dir=data / "moved").images.fingerprint == here
    place(
        data,
        {"moved/cars/color/red/000.jpg": picture(99), "moved/cars/type/apple/000.jpg": picture(99)},
    )
    assert quiet("cars", data_dir=data / "moved").images.fingerprint != here


def test_experiments_run_on_them(data):
    place(data, trees("fruit/color", "fruit/species"))
    with pytest.warns(UserWarning, match="12 pictures"):
        rows = mm.run(
            mm.grid(
                dataset="fruit",
                criterion=["color", "species"],
                method="KMeans",
                n=8,
                seed=[0, 1],
                kmeans_seeds=1,
            ),
            progress=False,
        )
    assert (
        rows["n"].tolist() == [8] * 4
        and sorted(rows["criterion"]) == ["color", "color", "species", "species"]
        and rows["NMI"].between(0, 1).all()
    )


def test_two_processes_download_once(web, tmp_path):
    web.files["AugDMC_datasets.zip"], web.delay = bundle(), 0.3
    script = "import mmclust as mm, warnings; warnings.simplefilter('ignore'); print(len(mm.load_dataset('fruit')))"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    assert [process.communicate()[0].strip() for process in running] == ["12", "12"] and len(
        web.requests
    ) == 1


def test_the_command(web, tmp_path, capsys):
    root = tmp_path / "data"
    place(root, trees("cars/color", "cars/type") | APART["more in one"] | {"aloi/color/x.txt": b""})
    web.files["AugDMC_datasets.zip"] = bundle()
    quiet("fruit")
    web.requests.clear()
    assert command.main([]) == 0
    lines = dict(line.strip().split(": ", 1) for line in capsys.readouterr().out.splitlines()[1:])
    assert (
        list(lines) == list(paper_datasets.PAPER_DATASETS) and not web.requests
    )  # nothing is downloaded
    assert lines["fruit"].startswith(
        f"there, in {root}/AugDMC_datasets/fruit: 12 pictures, color 3, species 2 classes; 12 pictures, where 105"
    )
    assert (
        lines["cmuface"]
        == f"not there; would be downloaded from {web.url}/cmu+face+images.zip or {web.url}/faces.tar.gz"
    )
    assert lines["cars"].startswith(
        f"there, in {root}/cars: 12 pictures, 13 pictures, color 3, type 2"
    )
    assert lines["cars"].endswith(
        "its trees hold different pictures, and each criterion is loaded by itself"
    )
    assert lines["flowers"].startswith(
        f"not there; place in {root} flowers/color/<class>/<picture>"
    )
    assert (
        lines["aloi"].startswith("there, but can't be read: ")
        and "no folder 'shape'" in lines["aloi"]
    )
    for asked, code in ((["fruit", "card"], 0), (["fruit", "aloi"], 1), (["flowers"], 1)):
        assert command.main(asked) == code
    place(
        root,
        {
            f"fruit/{c}/{i % k}/{i}.jpg": picture(i)
            for c, k in (("color", 3), ("species", 4))
            for i in range(105)
        },
    )
    capsys.readouterr()
    done = subprocess.run(
        [sys.executable, "-m", "mmclust.data", "fruit", "--data-dir", root],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (
        done.stdout.splitlines()[1].strip()
        == f"fruit: there, in {root}/fruit: 105 pictures, color 3, species 4 classes; as in the papers' table"
    )
    with pytest.raises(SystemExit):
        command.main(["fruits"])
    assert "unknown data set 'fruits': choose from fruit, fruit360" in capsys.readouterr().err


def test_names_are_listed(data):
    with pytest.raises(
        ValueError,
        match=r"neither a folder nor one of: demo-fruit.*, fruit, fruit360, card, cmuface, cars, flowers, cifar10, aloi",
    ):
        mm.load_dataset("fruits")
    assert paper_datasets.data_folder() == data and paper_datasets.data_folder("x").name == "x"
    os.environ.pop("MMCLUST_DATA")
    assert paper_datasets.data_folder() == mm.cache_dir() / "datasets"
