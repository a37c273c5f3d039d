"""Data sets: rendered worlds, the papers' data sets, folders of pictures, and plug-ins."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from mmclust import plugins
from mmclust.data.download import source
from mmclust.data.folder import load_folder
from mmclust.data.images import ImageDataset
from mmclust.data.paper_datasets import (
    PAPER_DATASETS,
    data_folder,
    draw,
    find,
    how_to_place,
    load_paper,
)
from mmclust.data.rendered import RENDERED_WORLDS, load_rendered

Names = TypeVar("Names", dict[str, Any], list[str])


def load_dataset(name: str, **options: Any) -> ImageDataset:
    """A data set by its name.

    Args:
        name: a rendered world ("demo-fruit", "demo-card", "demo-face" or "tuning-..."), a data set
            of the papers ("fruit", "cars", ...), "module:function" of your own, or the path of a
            folder. A folder with the name of a data set is written as "./cars".
        options: those of `load_rendered`, `load_paper` or `load_folder`, or those of your own
            function that it accepts. Of a folder, or if your function has no `n`, `n` pictures are
            drawn with `seed`.

    Raises:
        ValueError: the name is unknown, or an option is invalid. Others: see these functions.
    """
    if name in RENDERED_WORLDS:
        return load_rendered(name, **options)
    if name in PAPER_DATASETS:
        return load_paper(name, **options)
    if plugins.is_plugin_name(name):
        load = plugins.resolve(name)
        chosen = {k: v for k, v in options.items() if v is not None}
        accepted = plugins.filter_kwargs(load, **chosen)
        data = load(**accepted)
        return data if "n" in accepted else draw(data, options.get("n"), options.get("seed") or 0)
    if Path(name).expanduser().is_dir():
        n = options.pop("n", None)
        seed = options.pop("seed", 0)
        data = load_folder(name, **options)
        if n is not None and n < len(data):
            print(f"{name}: {n} of these pictures are drawn with seed {seed}")
        return draw(data, n, seed)
    known = ", ".join([*RENDERED_WORLDS, *PAPER_DATASETS])
    raise ValueError(f"data set {name!r} is neither a folder nor one of: {known}")


def folder_of(name: str) -> Path | None:
    """The folder that holds a data set: None if it is not there, rendered, or from a plug-in."""
    if name in PAPER_DATASETS:
        return find(name, data_folder())
    folder = Path(name).expanduser()
    made = name in RENDERED_WORLDS or plugins.is_plugin_name(name)
    return folder if folder.is_dir() and not made else None


def to_be_placed(name: str, download: bool = True) -> bool:
    """Whether a user must provide a data set, such as "cars", and has not; without `download`, the
    papers' other data sets as well."""
    spec = PAPER_DATASETS.get(name)
    by_hand = spec is not None and not (spec.url and download)
    return by_hand and find(name, data_folder()) is None


def to_be_downloaded(name: str, download: bool = True) -> bool:
    """Whether loading a data set of the papers begins with its download."""
    offered = name in PAPER_DATASETS and bool(PAPER_DATASETS[name].url) and download
    return offered and folder_of(name) is None


def available_datasets(names: Names, download: bool = True) -> Names:
    """`names` (a list, or a dictionary with names as keys) without data sets that are
    `to_be_placed`; a note on each is printed."""
    available = []
    for name in names:
        if to_be_placed(name, download):
            print(f"without {name}: {how_to_place(name, data_folder())}")
        else:
            available.append(name)
    return {name: names[name] for name in available} if isinstance(names, dict) else available


def where_from(name: str, download: bool = True) -> str:
    """Where a data set is or comes from, as a phrase. Nothing is downloaded."""
    if name in RENDERED_WORLDS:
        return "rendered here"
    if name not in PAPER_DATASETS:
        return "a plug-in" if plugins.is_plugin_name(name) else "a folder"
    root = data_folder()
    if place := find(name, root):
        return f"present in {place}"
    if (url := PAPER_DATASETS[name].url) and download:
        return f"downloaded from {source(url)}"
    return f"left out: {how_to_place(name, root)}"
