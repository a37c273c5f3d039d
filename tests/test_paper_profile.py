"""The profile `paper`: what it needs, and all notebooks on generated data in the released layouts.

The encoders have random weights.
"""

import json
import os
from pathlib import Path

import open_clip
import pandas as pd
import pytest
import torch
import yaml
from helpers.notebooks import ROOT, run_all
from safetensors.torch import save_file

import mmclust as mm
from mmclust.pipeline.notebooks import select, stamp
from mmclust.pipeline.preflight import needs
from mmclust.profiles import load_profile, override_params, params_for_dataset, settings

KEY = "sk-test-3f9a1c77b2e84d06"


def test_a_profile_based_on_another(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "base: demo\nencoder: mini-half\nmethods: {MultiMaP: {epochs: 3}}\n"
        "notebooks: {03_zero_shot: {seeds: 2}}"
    )
    mine, demo = load_profile(str(path)), load_profile()
    assert mine["encoder"] == "mini-half" and mine["methods"] == {"MultiMaP": {"epochs": 3}}
    assert mine["released"] == demo["released"]
    zero_shot = demo["notebooks"]["03_zero_shot"]
    assert mine["notebooks"]["03_zero_shot"] == zero_shot | {"seeds": 2}
    assert settings("03_zero_shot", str(path)).criteria == settings("03_zero_shot").criteria
    path.write_text("base: demo\nnotebooks: {99_none: {}}")
    with pytest.raises(ValueError, match=r"'99_none'.*00_quickstart"):
        load_profile(str(path))


def test_parameters_of_a_data_set():
    params = load_profile("paper")["methods"]["MultiMaP"]
    fruit = params_for_dataset(params, "fruit")
    assert fruit["alpha"] == 0.3 and "datasets" not in fruit
    assert params_for_dataset(params, "fruit360")["alpha"] == 0.1
    axes = {"dataset": ["fruit", "fruit360"], "criterion": "color", "method": "MultiMaP"}
    grid = mm.grid(**axes, params={"MultiMaP": params})
    assert [e.params["lr"] for e in grid] == [0.005, 0.01]
    without = mm.grid(**axes, params=override_params(params, alpha=0.0))
    assert [(e.params["alpha"], e.params["lr"]) for e in without] == [(0.0, 0.005), (0.0, 0.01)]
    assert settings("10_efficiency", "paper").methods["MultiMaP"] == fruit


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
        "template": "fruit with a color of *",
    }
    path.write_text(yaml.safe_dump(record))
    axes = {"dataset": "demo-fruit", "criterion": "color", "method": "CLIP_GPT", "n": 20}
    (experiment,) = mm.grid(**axes, words="openai:some-model")
    bench = Workbench()
    words = bench.words(experiment)
    assert list(words) == ["red", "green", "yellow"] and "some-model" in words.source
    key = bench.key(experiment)
    path.write_text(yaml.safe_dump(record | {"words": ["red", "blue"]}))
    assert bench.key(experiment) != key
    assert list(bench.estimator(experiment).words) == ["red", "blue"]


def test_a_dry_run_prints_what_is_needed_and_does_nothing(tmp_path):
    run = run_all(
        *("--profile", "paper", "--dry-run"),
        *("--out", tmp_path / "out", "--data-dir", tmp_path / "data"),
        env=os.environ | {"MMCLUST_CACHE": str(tmp_path / "cache")},
    )
    assert run.returncode == 0, run.stderr
    printed = " ".join(run.stdout.split())
    assert all(name in printed for name in select(None, "paper"))
    archive = "https://faculty.washington.edu/juhuah/images/AugDMC_datasets.zip"
    assert f"fruit: downloaded from {archive}" in printed
    assert f"{tmp_path / 'data'} cars/color/<class>/<picture>" in printed
    for name in ("ViT-B-32-quickgelu/openai", "align", "blip"):
        assert f"{name}: weights from" in printed
    assert "from the lexicon" in printed
    assert not list(tmp_path.iterdir())


def test_a_notebook_is_out_of_date_when_an_answer_was_edited(tmp_path, monkeypatch):
    monkeypatch.setenv("MMCLUST_WORDS", str(tmp_path / "words"))
    (tmp_path / "words").mkdir()
    profile = tmp_path / "mine.yaml"
    stamps = []
    for source, answer in [
        ("lexicon", "a"),
        ("lexicon", "b"),
        ("openai:m", "b"),
        ("openai:m", "c"),
    ]:
        profile.write_text(f"base: paper\nsource: {source}")
        (tmp_path / "words" / "m,fruit,color,20.yaml").write_text(answer)
        stamps.append(stamp(ROOT / "notebooks" / "08_tsne.ipynb", {"profile": str(profile)}))
    assert stamps[0] == stamps[1] and len(set(stamps)) == 3


def test_questions_without_an_answer(tmp_path, monkeypatch):
    monkeypatch.setenv("MMCLUST_WORDS", str(tmp_path / "words"))
    profile = tmp_path / "mine.yaml"
    profile.write_text("base: paper\nsource: openai:some-model")
    stored, questions = needs(["08_tsne"], str(profile))["words"]
    assert stored.startswith("0 answers of some-model")
    assert questions.startswith("2 questions") and "color of fruit, species of fruit" in questions
    assert needs(["08_tsne"], "demo")["data"] == ["demo-fruit: rendered here"]


def place_data(root: Path, n: int = 12) -> None:
    """Rendered pictures in the layouts of all eight data sets, `n` of each."""
    fruit, card, face = (
        mm.load_dataset(f"demo-{name}", n=n, seed=0).images for name in ("fruit", "card", "face")
    )
    shape = ["round" if i % 2 else "elongated" for i in range(n)]
    three = [f"class {i % 3}" for i in range(n)]
    color = ["red" if i % 2 else "green" for i in range(n)]
    layouts = {
        "fruit": (fruit, {"color": color, "species": three, "shape": shape}),
        "fruit360": (fruit, {"color": color, "species": three}),
        "cards": (card, {"number": three, "suits": color}),
        "cars": (fruit, {"color": color, "type": three}),
        "flowers": (fruit, {"color": three, "species": color}),
        "cifar10": (fruit, {"type": color, "environment": three}),
        "aloi": (fruit, {"color": color, "shape": shape}),
    }
    for folder, (pictures, criteria) in layouts.items():
        for criterion, labels in criteria.items():
            for i, (picture, label) in enumerate(zip(pictures, labels)):
                path = root / folder / criterion / label / f"{i:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                picture.save(path)
    for i, picture in enumerate(face):
        pose = ("straight", "left", "right", "up")[i % 4]
        emotion = ("neutral", "happy", "sad", "angry")[i // 4 % 4]
        eyes = ("open", "sunglasses")[i % 2]
        person = f"user{i % 3}"
        path = root / "faces" / person / f"{person}_{pose}_{emotion}_{eyes}_2.pgm"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.convert("L").save(path)


def random_clip(folder: Path, architecture: str) -> Path:
    """A CLIP of this architecture with one layer per tower, in the layout of open_clip.

    Pictures, prompts and vectors have the real sizes; notebook 10 builds all layers.
    """
    folder.mkdir()
    config = open_clip.get_model_config(architecture)
    config["vision_cfg"]["layers"] = config["text_cfg"]["layers"] = 1
    preprocessing = {
        "mean": open_clip.constants.OPENAI_DATASET_MEAN,
        "std": open_clip.constants.OPENAI_DATASET_STD,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preprocessing})
    )
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder


def place_encoders(root: Path) -> dict[str, str]:
    """The papers' three encoders: folder -> name. CLIP has the real sizes, the others are small."""
    from helpers import encoder_checkpoints as small

    encoders = {str(random_clip(root / "clip", "ViT-B-32-quickgelu")): "CLIP"}
    for kind in ("align", "blip"):
        folder = root / kind
        folder.mkdir()
        small.tokenizer_files(folder)
        small.random_model(kind).save_pretrained(folder)
        small.image_processor(kind).save_pretrained(folder)
        encoders[str(folder)] = kind.upper()
    return encoders


def small_profile(folder: Path, encoders: dict[str, str]) -> Path:
    """The paper profile with few epochs and seeds, and local encoders.

    The main tables have all criteria, and one representation per method; ablations have the
    criteria of one data set.
    """
    paper = load_profile("paper")
    notebooks: dict = {}
    for name, entry in paper["notebooks"].items():
        if "seeds" in entry:
            notebooks[name] = {"seeds": 2}
        if entry.get("criteria") == paper["some"]:
            notebooks[name] |= {"criteria": {"fruit": ["color", "species"]}}
    candidates = {"world": "fruit", "criterion": "species", "length": 12}
    sweeps = {
        "MultiSub": {"lam": [0.1, 0.9]},
        "MultiDProxy": {"update_every": [2, 3], "tau": [0.02, 0.2]},
    }
    representations = paper["notebooks"]["02_main_comparison"]["representations"]
    for name, entry in {
        "00_quickstart": {"n": 10, "kmeans_seeds": 2},
        "02_main_comparison": {
            "representations": {method: names[:1] for method, names in representations.items()}
        },
        "04_text_encoders": {"encoders": encoders},
        "06_constraint_ablation": {"alphas": [0.0, 0.3], "betas": [0.0, 0.4]},
        "07_dproxy_ablation": {"candidates": candidates},
        "09_hyperparameters": {"sweeps": sweeps},
        "17_when_asking_fails": {
            "conditions": {"faded": {"shift": "faded"}},
            "kept": [0.5],
            "lengths": [4],
        },
        "10_efficiency": {"images": 6, "epochs": [1, 2]},
    }.items():
        notebooks[name] = notebooks.get(name, {}) | entry
    profile = {
        "base": "paper",
        "encoder": next(iter(encoders)),
        "methods": {
            "MultiMaP": paper["methods"]["MultiMaP"] | {"epochs": 2},
            "MultiSub": {"alternations": 1, "phase1_epochs": 2, "phase2_epochs": 1},
            "MultiDProxy": {"epochs": 4, "update_every": 2},
        },
        "released": {
            "MultiMaP": {"variant": "released", "epochs": 2},
            "MultiSub": {"variant": "released", "phase1_epochs": 2},
        },
        "notebooks": notebooks,
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(profile, sort_keys=False))
    return path


@pytest.mark.slow
def test_all_notebooks_in_the_paper_profile(tmp_path):
    pytest.importorskip("transformers")
    place_data(tmp_path / "data")
    encoders = place_encoders(tmp_path)
    out = tmp_path / "out"
    run = run_all(
        *("--profile", small_profile(tmp_path, encoders)),
        *("--data-dir", tmp_path / "data", "--out", out),
        env=os.environ
        | {
            "MMCLUST_CACHE": str(tmp_path / "cache"),
            "OPENAI_API_KEY": KEY,
            "HF_HUB_OFFLINE": "1",
        },
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{len(select(None, 'paper'))} done, 0 up to date, 0 failed" in run.stdout
    rows = pd.read_csv(out / "04_text_encoders.csv")
    assert {encoders[name] for name in rows["encoder"]} == {"CLIP", "ALIGN", "BLIP"}
    table = (out / "04_text_encoders.md").read_text()
    assert all(f"{name}: Multi-Sub" in table for name in ("CLIP", "ALIGN", "BLIP"))
    main = pd.read_csv(out / "02_main_comparison.csv")
    criteria = load_profile("paper")["criteria"].items()
    expected = {(dataset, criterion) for dataset, names in criteria for criterion in names}
    assert set(zip(main["dataset"], main["criterion"])) == expected
    written = [p for p in tmp_path.rglob("*") if p.is_file() and p.parent.name != "clip"]
    assert len(written) > 200 and not [p for p in written if KEY.encode() in p.read_bytes()]
    assert KEY not in run.stdout + run.stderr
    states = [json.loads(path.read_text()) for path in (out / ".state").glob("*.json")]
    print({s["notebook"]: round(s["seconds"]) for s in states if "seconds" in s})  # pytest -rP
