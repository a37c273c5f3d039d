"""What a run would do, download and ask, before it does: `python run_all.py --dry-run`."""

from __future__ import annotations

import os
from pathlib import Path

from mmclust import plugins
from mmclust.profiles import load_profile


def needs(
    names: list[str], profile: str = "demo", given: dict | None = None
) -> dict[str, list[str]]:
    """Sentences under "data", "encoders" and "words" on what these notebooks of a profile take, what of it is here, and where the rest comes from.
    Nothing is downloaded or asked. `given` are parameters in place of the profile's.

    Raises:
        ValueError: what `own_folder` finds wrong.
    """
    whole = load_profile(profile)
    settings = [whole["notebooks"][name] for name in names]
    criteria: dict[str, set] = {}
    for own in settings:
        listed = {**own.get("criteria", {})} | {name: [] for name in own.get("datasets", [])}
        if "world" in own:
            listed |= {own["world"]: own.get("keywords") or [own["keyword"]]}
        for name, wanted in listed.items():
            criteria.setdefault(name, set()).update(wanted)
    encoders = dict.fromkeys(
        [whole["encoder"], *(name for own in settings for name in own.get("encoders") or {})]
    )
    own_data, own_words = own_folder(
        {
            **next((own for own in settings if "data" in own), {}),
            "source": whole.get("source"),
            **(given or {}),
        }
    )
    return {
        "data": [f"{name}: {_data(name)}" for name in criteria] + own_data,
        "encoders": [f"{name}: {_encoder(name)}" for name in encoders],
        "words": _words(whole.get("source", "lexicon"), criteria) + own_words,
    }


def own_folder(given: dict) -> tuple[list[str], list[str]]:
    """What is in the folder `data` of one's own pictures, and which words its keyword `criterion` has, as sentences: looked at, but no picture is
    decoded and no model asked.

    Args:
        given: `data`, a path or None; `criterion`, `domain`, `words` and `source` as in notebook 00.

    Raises:
        ValueError: no such folder, no pictures in it, labels that can't be read, no keyword, or no words for it.
    """
    from mmclust.data.folder import load_folder
    from mmclust.words import reference_words

    if not given.get("data"):
        return [], []
    domain = given.get("domain") or "photo"
    try:
        photos = load_folder(given["data"], domain=domain)
    except OSError as error:
        raise ValueError(str(error)) from error
    if not (keyword := given.get("criterion") or next(iter(photos.criteria), None)):
        raise ValueError(
            f"{given['data']} has no labels: say what to look for with -p criterion=..."
        )
    found = [
        f"{given['data']}: {len(photos)} pictures, labels: {', '.join(photos.criteria) or 'none'}"
    ]
    if given.get("words"):
        return found, [f"{keyword} of {domain}: as given"]
    if (source := given.get("source") or "lexicon") != "lexicon":
        return found, [f"{keyword} of {domain}: from {source}"]
    words = reference_words(keyword, of=domain)
    return found, [f"{keyword} of {domain}: {len(words)} from {words.source}"]


def _data(name: str) -> str:
    from mmclust.data.download import source
    from mmclust.data.paper_datasets import PAPER_DATASETS, data_folder, find, how_to_place
    from mmclust.data.rendered import RENDERED_WORLDS

    if name in RENDERED_WORLDS:
        return "rendered here"
    if name not in PAPER_DATASETS:
        return "of your own" if plugins.is_plugin_name(name) else "a folder"
    root = data_folder()
    if place := find(name, root):
        return f"there, in {place}"
    if urls := PAPER_DATASETS[name].urls:
        return f"downloaded from {source(urls[0])}"
    return f"left out: {how_to_place(name, root)}"


def _encoder(name: str) -> str:
    from mmclust.encoders import REPOSITORIES
    from mmclust.encoders.mini import CHECKPOINTS

    if name == "mini" or name in CHECKPOINTS:
        return "embedded"
    if plugins.is_plugin_name(name):
        return "of your own"
    if Path(name).is_dir():
        return "a folder"
    where = (
        f"{REPOSITORIES[name]} on the Hugging Face hub"
        if name in REPOSITORIES
        else "the Hugging Face hub, or where open_clip knows it to be"
    )
    return (
        f"weights from the hub's cache; what is not there is fetched from {where} when first used"
    )


def _words(source: str, criteria: dict[str, set]) -> list[str]:
    from mmclust.data.paper_datasets import PAPER_DATASETS
    from mmclust.words import ASKED_FOR
    from mmclust.words.reviewed_answers import path_of

    kind, _, model = source.partition(":")
    model = model or os.environ.get("MMCLUST_WORDS_MODEL", "")
    if kind != "openai":
        return ["from the lexicon in the package"]
    asked = {
        (PAPER_DATASETS[name].domain, criterion)
        for name, wanted in criteria.items()
        if name in PAPER_DATASETS
        for criterion in wanted
        if criterion != "identity"
    }
    missing = sorted(
        f"{criterion} of {domain}"
        for domain, criterion in asked
        if not path_of(model, domain, criterion, ASKED_FOR).exists()
    )
    return [
        f"{len(asked) - len(missing)} answers of {model} are stored",
        f"{len(missing)} questions to be asked: {', '.join(missing) or 'none'}",
    ]
