"""What a run needs, and whether it is there: `python run_all.py --dry-run`.

Nothing is downloaded, no image is decoded and no language model is asked.
"""

from __future__ import annotations

import os
from pathlib import Path

from mmclust import data, encoders, plugins, words
from mmclust.data import paper_datasets
from mmclust.data.folder import load_folder_for
from mmclust.data.folder_tree import walk
from mmclust.encoders.embedded import encoder_for
from mmclust.profiles import load_profile
from mmclust.profiles.values import check_settings
from mmclust.results.output import STATE


def needs(
    names: list[str], profile: str = "demo", parameters: dict | None = None
) -> dict[str, list[str]]:
    """What notebooks need and where it comes from: sentences on "data", "encoders" and "words".

    `parameters` replace the profile's. Raises ValueError for a data set, criterion or plug-in that
    does not exist, for notebooks without any data set that is there, and as `describe_folder`.
    """
    settings = load_profile(profile)
    source = settings.get("source", "lexicon")
    download = settings.get("download", True)
    changes = {name: value for name, value in (parameters or {}).items() if value is not None}
    notebooks = []
    for name in names:
        entry = settings["notebooks"][name]
        chosen = {key: value for key, value in changes.items() if key in entry}
        notebooks.append(entry | check_settings(chosen, name))
    criteria: dict[str, set[str]] = {}  # of each data set
    for notebook in notebooks:
        for name, keywords in datasets_of(notebook).items():
            criteria.setdefault(name, set()).update(keywords)
    _require_data(dict(zip(names, notebooks)), download)
    for name in plugins.names_in([changes, settings | {"notebooks": notebooks}]):
        plugins.resolve(name)
    for name, asked in criteria.items():
        if name not in paper_datasets.PAPER_DATASETS and not plugins.is_plugin_name(name):
            dataset = data.load_dataset(name)
            for keyword in asked:
                dataset.n_clusters(keyword)
                if source == "lexicon" and not changes.get("words"):
                    words.reference_words(keyword, of=dataset.domain)
    used = []
    folders = []
    for notebook in notebooks:
        if notebook.get("data"):
            named = {"source": source, "encoder": changes.get("encoder")}
            *sentences, encoder = describe_folder(named | notebook, settings["encoder"])
            folders.append(sentences)
        else:
            encoder = changes.get("encoder", settings["encoder"])
        used += [encoder, *(notebook.get("encoders") or [])]
    questions = {
        (paper_datasets.PAPER_DATASETS[name].domain, criterion)
        for name, keywords in criteria.items()
        if name in paper_datasets.PAPER_DATASETS
        for criterion in keywords
        if criterion != "identity"  # its words are random nouns
    }
    return {
        "data": [f"{name}: {data.where_from(name, download)}" for name in criteria]
        + [f[0] for f in folders],
        "encoders": [f"{name}: {encoders.where_from(name)}" for name in dict.fromkeys(used)],
        "words": words.where_from(source, questions) + [f[1] for f in folders],
    }


def datasets_of(notebook: dict) -> dict[str, list[str]]:
    """Data set -> criteria, of a notebook with these settings."""
    wanted = {name: [] for name in notebook.get("datasets", [])} | notebook.get("criteria", {})
    if "world" in notebook:
        wanted[notebook["world"]] = notebook.get("keywords") or [notebook["keyword"]]
    return wanted


def folders_of(notebook: dict) -> list[Path]:
    """The folders of pictures that a notebook with these settings reads, if they are there."""
    folders = [data.folder_of(name) for name in datasets_of(notebook)]
    if path := notebook.get("data"):
        folders.append(Path(path).expanduser())
    return [folder for folder in folders if folder and folder.is_dir()]


def check_out(out: Path, sources: Path, notebooks: dict[str, dict]) -> None:
    """Raise ValueError if a run of notebooks (name -> settings) into `out` would overwrite files
    that no run wrote, or if its figures would be among the pictures that it reads.

    `sources`: the folder of the notebooks.
    """
    remedy = "choose another --out"
    if (out / "notebooks").resolve() == sources.resolve():
        problem = "its folder notebooks holds the sources, which would be overwritten"
        raise ValueError(f"--out {out}: {problem}: {remedy}, such as {out / 'figures'}")
    around = {_identity(place) for place in (out, *out.parents) if place.is_dir()}
    for folder in {folder for settings in notebooks.values() for folder in folders_of(settings)}:
        below = [folder / name for name in walk(folder, [])[1]]  # links to other folders, too
        if not around.isdisjoint(map(_identity, [folder, *below])):
            problem = f"is in the folder of pictures {folder}, and figures are pictures, too"
            raise ValueError(f"--out {out} {problem}: {remedy}, outside of it")
    if not (out / STATE).is_dir():
        for name in ["index.html", *(f"notebooks/{notebook}.ipynb" for notebook in notebooks)]:
            if (out / name).exists():
                problem = "is not of an earlier run, and would be overwritten"
                raise ValueError(f"{out / name} {problem}: {remedy}, or move this file")


def _identity(folder: Path) -> tuple[int, int]:
    """The same for all paths of one folder."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _require_data(notebooks: dict[str, dict], download: bool) -> None:
    """Raise ValueError for notebooks (name -> settings) all of whose data sets must be placed."""
    absent: dict[str, None] = {}
    without = []
    for name, notebook in notebooks.items():
        wanted = datasets_of(notebook)
        if wanted and all(data.to_be_placed(dataset, download) for dataset in wanted):
            without.append(name)
            absent |= dict.fromkeys(wanted)
    if without:
        root = paper_datasets.data_folder()
        ways = [f"for {name}, {paper_datasets.how_to_place(name, root)}" for name in absent]
        others = [name for name in notebooks if name not in without]
        ways.append("or set the folder in which they are with --data-dir")
        ways += [f"or run the others: --only {' '.join(others)}"] if others else []
        raise ValueError("\n  ".join([f"there are no pictures for {', '.join(without)}:", *ways]))


def describe_folder(parameters: dict, default_encoder: str) -> tuple[str, str, str]:
    """A sentence on a user's images, one on the words for the keyword, and the encoder's name,
    from 18's settings. `default_encoder`: the profile's.

    Raises ValueError if images, readable labels or words for the keyword are missing, if there are
    words without a keyword, or fewer images than clusters.
    """
    path = parameters["data"]
    domain = parameters.get("domain", "photo")
    try:
        photos, keyword = load_folder_for(path, parameters.get("criterion"), verbose=False)
    except OSError as error:
        raise ValueError(str(error)) from error
    if not keyword and parameters.get("words"):
        raise ValueError("words without a keyword: give them one with -p criterion=...")
    n_clusters = parameters.get("n_clusters")
    if isinstance(n_clusters, int) and n_clusters > len(photos):
        raise ValueError(f"n_clusters={n_clusters}: {path} has only {len(photos)} pictures")
    encoder, _ = encoder_for(photos, parameters.get("encoder"), default_encoder)
    if not keyword:
        source = "a keyword will be suggested from the pictures, with the lexicon's words"
    elif parameters.get("words"):
        words.ReferenceWords(parameters["words"])
        source = f"{keyword} of {domain}: from the parameter words"
    elif parameters["source"] != "lexicon":
        source = f"{keyword} of {domain}: from {parameters['source']}"
    else:
        chosen = words.reference_words(keyword, of=domain)
        source = f"{keyword} of {domain}: {len(chosen)} from {chosen.source}"
    if n_clusters in (None, "auto") and keyword not in photos.criteria and len(photos) < 3:
        number = "set their number with -p n_clusters=..."
        raise ValueError(f"{path} has fewer than 3 pictures, too few to count clusters: {number}")
    return f"{path}: {photos.provenance}", source, encoder
