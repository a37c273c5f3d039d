"""The profile `paper`: what it says it needs, and all notebooks on data in the released layouts with encoders of the real shapes and random weights."""

import json
import os
import subprocess
import sys
from pathlib import Path

import open_clip
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import save_file

import mmclust as mm
from mmclust.pipeline.notebooks import select, stamp
from mmclust.pipeline.preflight import needs
from mmclust.profiles import load_profile, override_params, params_for_dataset, settings

ROOT = Path(__file__).parents[1]
KEY = "sk-test-3f9a1c77b2e84d06"


def run_all(*args, **more):
    return subprocess.run(
        [sys.executable, ROOT / "run_all.py", *map(str, args)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        **more,
    )


def test_a_profile_on_top_of_another(tmp_path):
    own = tmp_path / "mine.yaml"
    own.write_text(
        "base: demo\nencoder: mini-half\nmethods: {MultiMaP: {epochs: 3}}\nnotebooks: {03_zero_shot: {seeds: 2}}"
    )
    mine, demo = load_profile(str(own)), load_profile()
    assert (
        mine["encoder"] == "mini-half"
        and mine["methods"] == {"MultiMaP": {"epochs": 3}}
        and mine["released"] == demo["released"]
    )
    assert mine["notebooks"]["03_zero_shot"] == demo["notebooks"]["03_zero_shot"] | {"seeds": 2}
    assert settings("03_zero_shot", str(own)).criteria == settings("03_zero_shot").criteria
    own.write_text("base: demo\nnotebooks: {99_none: {}}")
    with pytest.raises(
        ValueError, match="'99_none'.*'demo'.*00_quickstart"
    ):
        load_profile(str(own))


def test_parameters_of_a_data_set():
    of = load_profile("paper")["methods"]["MultiMaP"]
    assert (
        params_for_dataset(of, "fruit")["alpha"] == 0.3
        and params_for_dataset(of, "fruit360")["alpha"] == 0.1
        and "datasets" not in params_for_dataset(of, "fruit")
    )
    grid = mm.grid(
        dataset=["fruit", "fruit360"], criterion="color", method="MultiMaP", params={"MultiMaP": of}
    )
    assert [e.params["lr"] for e in grid] == [0.005, 0.01]
    without = mm.grid(
        dataset=["fruit", "fruit360"],
        criterion="color",
        method="MultiMaP",
        params=override_params(of, alpha=0.0),
    )
    assert [(e.params["alpha"], e.params["lr"]) for e in without] == [(0.0, 0.005), (0.0, 0.01)]
    assert settings("10_efficiency", "paper").methods["MultiMaP"] == params_for_dataset(of, "fruit")


def test_words_of_a_model_are_part_of_what_is_computed(tmp_path, monkeypatch):
    """An answer that a person edits is another experiment."""
    from mmclust.experiments.workbench import Workbench
    from mmclust.words import reviewed_answers

    monkeypatch.setenv("MMCLUST_WORDS", str(tmp_path))
    path = reviewed_answers.path_of("some-model", "fruit", "color", 20)
    record = {
        "reviewed": True,
        "words": ["red", "green", "yellow"],
        "dropped": {},
        "model": "some-model",
        "domain": "fruit",
        "keyword": "color",
        "count": 20,
    }
    path.write_text(yaml.safe_dump(record | {"template": "fruit with a color of *"}))
    (e,) = mm.grid(
        dataset="demo-fruit", criterion="color", method="CLIP_GPT", n=20, words="openai:some-model"
    )
    bench = Workbench()
    assert (
        list(bench.words(e)) == ["red", "green", "yellow"] and "some-model" in bench.words(e).source
    )
    before = bench.key(e)
    path.write_text(
        yaml.safe_dump(record | {"words": ["red", "blue"], "template": "fruit with a color of *"})
    )
    assert bench.key(e) != before and list(bench.estimator(e).words) == ["red", "blue"]


def test_a_dry_run_says_what_is_needed_and_does_nothing(tmp_path):
    environment = os.environ | {"MMCLUST_CACHE": str(tmp_path / "cache")}
    run = run_all(
        "--profile",
        "paper",
        "--dry-run",
        "--out",
        tmp_path / "out",
        "--data-dir",
        tmp_path / "data",
        env=environment,
    )
    assert run.returncode == 0, run.stderr
    said = " ".join(run.stdout.split())
    for name in select(None, "paper"):
        assert name in said
    assert (
        "fruit: downloaded from https://faculty.washington.edu/juhuah/images/AugDMC_datasets.zip"
        in said
    )
    assert f"cars: left out: place in {tmp_path / 'data'} cars/color/<class>/<picture>" in said
    assert (
        "ViT-B-32-quickgelu/openai: weights from" in said
        and "align: weights" in said
        and "from the lexicon" in said
    )
    assert not list(tmp_path.iterdir())
    wrong = run_all("--dry-run", "--only", "99", "--out", tmp_path / "out")
    assert wrong.returncode == 2 and "no notebook '99'" in wrong.stdout


def test_a_notebook_is_out_of_date_when_an_answer_was_edited(tmp_path, monkeypatch):
    monkeypatch.setenv("MMCLUST_WORDS", str(tmp_path / "words"))
    (tmp_path / "words").mkdir()
    own = tmp_path / "mine.yaml"
    stamps = []
    for source, answer in (
        ("lexicon", "a"),
        ("lexicon", "b"),
        ("openai:m", "b"),
        ("openai:m", "c"),
    ):
        own.write_text(f"base: paper\nsource: {source}")
        (tmp_path / "words" / "m,fruit,color,20.yaml").write_text(answer)
        stamps.append(stamp(ROOT / "notebooks" / "08_tsne.ipynb", {"profile": str(own)}))
    assert stamps[0] == stamps[1] and len(set(stamps)) == 3


def test_questions_that_are_not_answered_yet(tmp_path, monkeypatch):
    monkeypatch.setenv("MMCLUST_WORDS", str(tmp_path / "words"))
    own = tmp_path / "mine.yaml"
    own.write_text("base: paper\nsource: openai:some-model")
    said = needs(["08_tsne"], str(own))["words"]
    assert said == [
        "0 answers of some-model are stored",
        "2 questions to be asked: color of fruit, species of fruit",
    ]
    assert needs(["08_tsne"], "demo")["data"] == ["demo-fruit: rendered here"]


def place_data(root: Path, n: int = 12) -> None:
    """Rendered pictures in the layouts of all eight sets; a few of each."""

    def trees(folder, pictures, criteria):
        for name, labels in criteria.items():
            for i, (picture, label) in enumerate(zip(pictures, labels)):
                path = root / folder / name / str(label) / f"{i:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                picture.save(path)

    fruit, card, face = (
        mm.load_dataset(f"demo-{name}", n=n, seed=0) for name in ("fruit", "card", "face")
    )
    shape = ["round" if i % 2 else "elongated" for i in range(n)]
    kind = [f"kind {i % 3}" for i in range(n)]
    color = ["red" if i % 2 else "green" for i in range(n)]
    trees("fruit", fruit.images, {"color": color, "species": kind, "shape": shape})
    trees("fruit360", fruit.images, {"color": color, "species": kind})
    trees("cards", card.images, {"number": kind, "suits": color})
    trees("cars", fruit.images, {"color": color, "type": kind})
    trees("flowers", fruit.images, {"color": kind, "species": color})
    trees("cifar10", fruit.images, {"type": color, "environment": kind})
    trees("aloi", fruit.images, {"color": color, "shape": shape})
    for i, picture in enumerate(face.images):
        pose, emotion, eyes = (
            ("straight", "left", "right", "up")[i % 4],
            ("neutral", "happy", "sad", "angry")[i // 4 % 4],
            ("open", "sunglasses")[i % 2],
        )
        path = (
            root
            / "faces"
            / f"user{i % 3}"
            / f"user{i % 3}_{pose}_{emotion}_{eyes}_{i % 1 or 2}.pgm"
        )
        path = path.with_name(f"user{i % 3}_{pose}_{emotion}_{eyes}_2.pgm")
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.convert("L").save(path)


def random_clip(folder: Path, architecture: str) -> Path:
    """CLIP of these shapes with random weights, in open_clip's layout."""
    folder.mkdir()
    torch.manual_seed(0)
    model = open_clip.create_model(architecture, pretrained=None)
    config = open_clip.get_model_config(architecture)
    mean, std = open_clip.constants.OPENAI_DATASET_MEAN, open_clip.constants.OPENAI_DATASET_STD
    about = {
        "model_cfg": config,
        "preprocess_cfg": {
            "mean": mean,
            "std": std,
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
    (folder / "open_clip_config.json").write_text(json.dumps(about))
    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    return folder


def small_profile(folder: Path, encoders: dict[str, str]) -> Path:
    """The paper profile as it is, with a few epochs, one or two seeds and local encoders."""
    clip = next(iter(encoders))
    profile = {
        "base": "paper",
        "encoder": clip,
        "methods": {
            "MultiMaP": load_profile("paper")["methods"]["MultiMaP"] | {"epochs": 2},
            "MultiSub": {"alternations": 1, "phase1_epochs": 2, "phase2_epochs": 1},
            "MultiDProxy": {"epochs": 4, "update_every": 2},
        },
        "released": {
            "MultiMaP": {"variant": "released", "epochs": 2},
            "MultiSub": {"variant": "released", "phase1_epochs": 2},
        },
        "notebooks": {
            name: {"seeds": 2, "seconds": 60}
            for name, own in load_profile("paper")["notebooks"].items()
            if "seeds" in own
        },
    }
    more = {
        "00_quickstart": {"n": 10, "kmeans_seeds": 2},
        "04_text_encoders": {"encoders": encoders},
        "07_dproxy_ablation": {
            "candidates": {"world": "fruit", "criterion": "species", "update_every": 2}
        },
        "09_hyperparameters": {
            "sweeps": {
                "MultiSub": {"lam": [0.1, 0.9]},
                "MultiDProxy": {"update_every": [2, 3], "tau": [0.02, 0.2]},
            }
        },
        "10_efficiency": {"images": 8, "epochs": [1, 2]},
        "06_constraint_ablation": {"alphas": [0.0, 0.3], "betas": [0.0, 0.4]},
    }
    for name, own in more.items():
        profile["notebooks"][name] = profile["notebooks"].get(name, {}) | own
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(profile, sort_keys=False))
    return path


@pytest.mark.slow
def test_all_notebooks_in_the_paper_profile(tmp_path):
    transformers = pytest.importorskip("transformers")
    from helpers.encoder_checkpoints import image_processor, random_model, tokenizer_files

    assert transformers
    place_data(tmp_path / "data")
    encoders = {str(random_clip(tmp_path / "clip", "ViT-B-32-quickgelu")): "CLIP"}
    for kind, label in (("align", "ALIGN"), ("blip", "BLIP")):
        folder = tmp_path / kind
        folder.mkdir()
        tokenizer_files(folder)
        random_model(kind).save_pretrained(folder)
        image_processor(kind).save_pretrained(folder)
        encoders[str(folder)] = label
    environment = os.environ | {
        "MMCLUST_CACHE": str(tmp_path / "cache"),
        "OPENAI_API_KEY": KEY,
        "HF_HUB_OFFLINE": "1",
    }
    command = (
        "--profile",
        small_profile(tmp_path, encoders),
        "--data-dir",
        tmp_path / "data",
        "--out",
        tmp_path / "out",
    )
    run = run_all(*command, env=environment)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{len(select(None, 'paper'))} done, 0 up to date, 0 failed" in run.stdout
    rows = pd.read_csv(tmp_path / "out" / "04_text_encoders.csv")
    assert {encoders[name] for name in rows["encoder"]} == {"CLIP", "ALIGN", "BLIP"}
    table = (tmp_path / "out" / "04_text_encoders.md").read_text()
    assert all(f"{name}: MultiSub" in table for name in ("CLIP", "ALIGN", "BLIP"))
    main = pd.read_csv(tmp_path / "out" / "02_main_comparison.csv")
    assert {(d, c) for d, c in zip(main["dataset"], main["criterion"])} == {
        (d, c) for d, own in load_profile("paper")["criteria"].items() for c in own
    }
    written = [p for p in tmp_path.rglob("*") if p.is_file() and p.parent.name != "clip"]
    assert (
        len(written) > 200
        and not [p for p in written if KEY.encode() in p.read_bytes()]
        and KEY not in run.stdout + run.stderr
    )
