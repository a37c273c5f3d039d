"""What a run needs, and whether it is there: `python run_all.py --dry-run`.

Nothing is downloaded, no image is decoded and no language model is asked.
"""

from __future__ import annotations

from mmclust import data, encoders, words
from mmclust.data import paper_datasets
from mmclust.profiles import load_profile


def needs(
    names: list[str], profile: str = "demo", parameters: dict | None = None
) -> dict[str, list[str]]:
    """What notebooks need and where it comes from: sentences on "data", "encoders" and "words".

    `parameters` replace the profile's. Raises ValueError: see `describe_folder`.
    """
    settings = load_profile(profile)
    source = settings.get("source", "lexicon")
    notebooks = [settings["notebooks"][name] for name in names]
    criteria: dict[str, set[str]] = {}  # of each data set
    for notebook in notebooks:
        wanted = {name: [] for name in notebook.get("datasets", [])} | notebook.get("criteria", {})
        if "world" in notebook:
            wanted[notebook["world"]] = notebook.get("keywords") or [notebook["keyword"]]
        for name, keywords in wanted.items():
            criteria.setdefault(name, set()).update(keywords)
    used = [settings["encoder"]]
    for notebook in notebooks:
        used += notebook.get("encoders") or []
    folder: dict = next((notebook for notebook in notebooks if "data" in notebook), {})
    folder_data, folder_words = describe_folder(folder | {"source": source} | (parameters or {}))
    questions = {
        (paper_datasets.PAPER_DATASETS[name].domain, criterion)
        for name, keywords in criteria.items()
        if name in paper_datasets.PAPER_DATASETS
        for criterion in keywords
        if criterion != "identity"  # its words are random nouns
    }
    return {
        "data": [f"{name}: {data.where_from(name)}" for name in criteria] + folder_data,
        "encoders": [f"{name}: {encoders.where_from(name)}" for name in dict.fromkeys(used)],
        "words": words.where_from(source, questions) + folder_words,
    }


def describe_folder(parameters: dict) -> tuple[list[str], list[str]]:
    """Sentences on a user's images and on the words for the keyword, from notebook 00's parameters.

    Raises ValueError if images, readable labels, a keyword or words for it are missing.
    """
    path = parameters.get("data")
    if not path:
        return [], []
    domain = parameters.get("domain") or "photo"
    try:
        photos = data.load_folder(path, domain=domain, verbose=False)
    except OSError as error:
        raise ValueError(str(error)) from error
    keyword = parameters.get("criterion") or next(iter(photos.criteria), None)
    if not keyword:
        raise ValueError(f"{path} has no labels: give a keyword with -p criterion=...")
    images = [f"{path}: {photos.provenance}"]
    source = parameters.get("source") or "lexicon"
    if parameters.get("words"):
        return images, [f"{keyword} of {domain}: from the parameter words"]
    if source != "lexicon":
        return images, [f"{keyword} of {domain}: from {source}"]
    chosen = words.reference_words(keyword, of=domain)
    return images, [f"{keyword} of {domain}: {len(chosen)} from {chosen.source}"]
