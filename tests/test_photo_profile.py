"""The profile `photo`: what it needs, and its notebooks on drawn pictures in the real layouts."""

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from helpers.notebooks import printed_errors, run_all

import mmclust as mm
from mmclust.pipeline.notebooks import NOTEBOOKS, plan, select, stamp
from mmclust.pipeline.preflight import needs
from mmclust.profiles import load_profile, settings

BY_DEFAULT = [
    "03_zero_shot", "17_when_asking_fails", "12_paper_vs_code", "02_main_comparison", "08_tsne",
    "11_new_criterion",
]  # fmt: skip


def place_pictures(root: Path, n: int = 16) -> None:
    """Drawn pictures in the layouts of the cards, faces and photographs, `n` of each."""
    cards = mm.load_dataset("demo-card", n=n, seed=0)
    faces = mm.load_dataset("demo-face", n=n, seed=0)
    fruit = mm.load_dataset("demo-fruit", n=n, seed=0)
    tables = {"card": [], "cifar10-mc": []}
    for i, (card, face, photo) in enumerate(zip(cards.images, faces.images, fruit.images)):
        drawn = {c: cards.classes[c][cards.labels[c][i]] for c in cards.criteria}
        tables["card"].append(drawn | {"split": "train" if i % 4 == 3 else "test"})
        kind = {"type": "animals" if i % 2 else "transportation"}
        tables["cifar10-mc"].append(kind | {"environment": ("land", "air", "water")[i % 3]})
        for folder, picture in {"card": card, "cifar10-mc": photo}.items():
            tables[folder][-1] = {"file": f"images/{i}.png"} | tables[folder][-1]
            (root / folder / "images").mkdir(parents=True, exist_ok=True)
            picture.save(root / folder / "images" / f"{i}.png")
        user = ("ann", "bob", "eve")[i % 3]
        pose = ("straight", "left", "right", "up")[i // 4 % 4]
        look = ("neutral", "happy", "sad", "angry")[i % 4]
        eyes = ("open", "sunglasses")[i // 2 % 2]
        (root / "cmuface" / user).mkdir(parents=True, exist_ok=True)
        face.convert("L").save(root / "cmuface" / user / f"{user}_{pose}_{look}_{eyes}_2.pgm")
    for folder, rows in tables.items():
        pd.DataFrame(rows).to_csv(root / folder / "labels.csv", index=False)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The data folder, still empty."""
    monkeypatch.setenv("MMCLUST_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def small_profile(folder: Path) -> Path:
    """The profile with few pictures, epochs and seeds."""
    notebooks = {
        name: {key: value for key, value in {"n": 12, "seeds": 2}.items() if key in entry}
        for name, entry in load_profile("photo")["notebooks"].items()
    }
    notebooks["17_when_asking_fails"] |= {
        "conditions": {"line drawing": {"only": ["suits"], "shift": "line drawing"}},
        "kept": [0.5],
        "lengths": [12],
    }
    methods = {
        "MultiMaP": {"epochs": 2},
        "MultiSub": {"alternations": 1, "phase1_epochs": 2, "phase2_epochs": 1},
        "MultiDProxy": {"epochs": 4, "update_every": 2},
    }
    profile = {"base": "photo", "methods": methods, "notebooks": notebooks}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(profile))
    return path


def run(tmp_path: Path, *arguments: object):
    environment = os.environ | {"MMCLUST_CACHE": str(tmp_path / "cache")}
    shared = ("--profile", small_profile(tmp_path), "--out", tmp_path / "out")
    return run_all(*shared, *arguments, env=environment)


def problems(out: Path, notebook: str) -> list[str]:
    """What a notebook wrote to stderr, except that data sets are small."""
    texts = printed_errors(out / "notebooks" / f"{notebook}.ipynb")
    lines = [line for text in texts for line in text.splitlines() if not line.startswith("  ")]
    known = (" expected", "Results may be unreliable.")  # the latter of scipy, for equal rows
    return [line for line in lines if not line.endswith(known)]


def test_its_notebooks_and_settings():
    assert select(None, "photo") == BY_DEFAULT
    assert select(["05"], "photo") == ["05_subspace_ablation"]
    cfg = settings("02_main_comparison", "photo")
    assert cfg.encoder == "photo" and not cfg.download and settings("02_main_comparison").download
    asked = {criterion for criteria in cfg.criteria.values() for criterion in criteria}
    assert set(cfg.judged) == asked - {"identity"}
    for name in BY_DEFAULT:
        for dataset, criteria in settings(name, "photo").__dict__.get("criteria", {}).items():
            assert set(criteria) <= set(cfg.criteria[dataset])


def test_without_pictures_it_says_what_to_place_before_anything_runs(root, tmp_path):
    done = run(tmp_path, "--data-dir", root)
    printed = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 2 and not (tmp_path / "out" / "index.html").exists()
    assert all(name in printed for name in BY_DEFAULT)
    for way in (
        f"card-test, place in {root} card/labels.csv with columns file (a picture in card), order",
        f"cmuface, place in {root} cmuface/<user>/<picture>, named user_pose_emotion_eyes.pgm",
        f"cifar10-mc, place in {root} cifar10-mc/labels.csv with columns file",
        "--data-dir",
    ):
        assert way in printed, printed
    assert not root.exists()


def test_what_is_missing_is_left_out_not_downloaded(root, capsys):
    place_pictures(root)
    before = stamp(NOTEBOOKS / "02_main_comparison.ipynb", {"profile": "photo"})
    assert all("present in" in sentence for sentence in needs(BY_DEFAULT, "photo")["data"])
    shutil.rmtree(root / "cmuface")
    assert stamp(NOTEBOOKS / "02_main_comparison.ipynb", {"profile": "photo"}) != before
    sentences = needs(["02_main_comparison"], "photo")["data"]
    (absent,) = [s for s in sentences if "left out: place in" in s]
    assert absent.startswith("cmuface: ")
    with pytest.raises(ValueError, match=r"for 11_new_criterion:[^!]*--only 03_zero_shot .*12_p"):
        needs(BY_DEFAULT, "photo")
    assert "cmuface: downloaded from" in "".join(needs(["02_main_comparison"], "paper")["data"])
    criteria = settings("02_main_comparison", "photo").criteria
    assert list(mm.available_datasets(criteria, download=False)) == ["card-test", "cifar10-mc"]
    assert "without cmuface: place in" in capsys.readouterr().out


def test_folders_of_a_user_are_the_same_in_kernels(tmp_path, monkeypatch):
    """Kernels run in the folder of the notebooks."""
    place_pictures(tmp_path / "data")
    monkeypatch.chdir(tmp_path / "data")
    Path("cifar10-mc").rename("photos")
    table = pd.read_csv("photos/labels.csv")
    table.assign(color="red").to_csv("photos/labels.csv", index=False)
    wanted = {"./photos": ["color"], "demo-card": ["order"]}
    todo, _ = plan(["02", "17"], {"criteria": wanted}, "photo", out=tmp_path / "out")
    for job in todo.values():
        assert list(job.parameters["criteria"]) == [str(tmp_path / "data" / "photos"), "demo-card"]
    todo, _ = plan(["08"], {"world": "./photos", "keywords": ["color"]}, "photo", out=tmp_path)
    assert todo["08_tsne"].parameters["world"] == str(tmp_path / "data" / "photos")


def test_tables_of_placed_pictures_and_of_a_folder(root, tmp_path):
    place_pictures(root)
    shutil.move(root / "cifar10-mc", tmp_path / "photos")
    done = run(tmp_path, "--only", "02", "03", "--data-dir", root)
    assert done.returncode == 0, done.stdout + done.stderr
    out = tmp_path / "out"
    for name in ("02_main_comparison", "03_zero_shot"):
        rows = pd.read_csv(out / f"{name}.csv")
        assert set(rows["encoder"]) == {"photo"} and set(rows["n"]) == {12}
        assert set(rows["dataset"]) == {"card-test", "cmuface"}
        assert not problems(out, name)
        assert "without cifar10-mc: place in" in (out / "notebooks" / f"{name}.ipynb").read_text()
    published = pd.read_csv(out / "02_main_comparison_published_NMI.csv")
    assert set(published["published_dataset"]) == {"card", "cmuface"}
    assert not published["comparable"].any()
    done = run(tmp_path, "--only", "02", "-p", f"criteria={{{tmp_path / 'photos'}: [suits]}}")
    assert done.returncode == 2 and "'suits' is not in photos" in done.stdout
    done = run(tmp_path, "--only", "02", "-p", f"criteria={{{root / 'card'}: [suits]}}")
    assert done.returncode == 2 and "no words for 'suits' of photo" in done.stdout
    criteria = f"criteria={{{tmp_path / 'photos'}: [environment]}}"
    done = run(tmp_path, "--only", "02", "-p", criteria)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = pd.read_csv(out / "02_main_comparison.csv")
    assert set(rows["criterion"]) == {"environment"}
    assert set(rows["dataset"]) == {str(tmp_path / "photos")}


@pytest.mark.slow
def test_all_its_notebooks(root, tmp_path):
    place_pictures(root)
    done = run(tmp_path, "--data-dir", root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(BY_DEFAULT)} done, 0 up to date, 0 failed" in done.stdout
    for name in BY_DEFAULT:
        assert not problems(tmp_path / "out", name), name
