"""Data sets: rendered worlds, the papers' sets, and folders of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from mmclust import plugins
from mmclust.data.rendered import RENDERED_WORLDS

if TYPE_CHECKING:
    from mmclust.data.images import ImageDataset

V = TypeVar("V")


def load_dataset(name: str, **options: Any) -> ImageDataset:
    """A data set by name: a world (demo-fruit, demo-card, demo-face and tuning-...: `n`, `seed`, `size`), one of the papers (fruit, fruit360,
    card, cmuface, cars, flowers, cifar10, aloi: `n`, `seed`, `data_dir`, `criterion`, see `mmclust.data.paper_datasets.load_paper`), a folder's
    path (`domain`, `background`), or "module:function" of your own, which returns an `ImageDataset` and takes what it likes of the options. A folder
    that is called like a data set is meant by "./cars".

    Raises:
        ValueError: for a name that is none of these.
    """
    from mmclust.data.demo import load_demo
    from mmclust.data.folder import load_folder
    from mmclust.data.paper_datasets import PAPER_DATASETS, load_paper

    if name in RENDERED_WORLDS:
        return load_demo(name, **options)
    if name in PAPER_DATASETS:
        return load_paper(name, **options)
    if plugins.is_plugin_name(name):
        load = plugins.resolve(name)
        return load(
            **plugins.filter_kwargs(load, **{k: v for k, v in options.items() if v is not None})
        )
    if Path(name).expanduser().is_dir():
        return load_folder(
            name,
            **{k: v for k, v in options.items() if k in ("domain", "on_corrupt", "background")},
        )
    raise ValueError(
        f"data set {name!r} is neither a folder nor one of: {', '.join([*RENDERED_WORLDS, *PAPER_DATASETS])}"
    )


def load_folder(path: str | Path, **options: Any) -> ImageDataset:
    """Any directory of pictures, with `labels.csv` or class folders if there are any. See `mmclust.data.folder.load_folder`."""
    from mmclust.data.folder import load_folder as load

    return load(path, **options)


@overload
def available_datasets(names: dict[str, V]) -> dict[str, V]: ...
@overload
def available_datasets(names: Sequence[str]) -> list[str]: ...
def available_datasets(names: dict[str, V] | Sequence[str]) -> dict[str, V] | list[str]:
    """Those of some data sets (a list of names, or a dictionary by name) that are there or can be downloaded. What somebody would have to place
    first, such as the papers' cars, is left out, and that is printed."""
    from mmclust.data.paper_datasets import PAPER_DATASETS, data_folder, find, how_to_place

    root = data_folder()
    out = [
        name
        for name in names
        if name in PAPER_DATASETS and not PAPER_DATASETS[name].urls and find(name, root) is None
    ]
    for name in out:
        print(f"without {name}: {how_to_place(name, root)}")
    return (
        {k: v for k, v in names.items() if k not in out}
        if isinstance(names, dict)
        else [name for name in names if name not in out]
    )


def where_from(name: str) -> str:
    """Where a data set is or comes from, as a phrase. Nothing is downloaded."""
    from mmclust.data.download import source
    from mmclust.data.paper_datasets import PAPER_DATASETS, data_folder, find, how_to_place

    if name in RENDERED_WORLDS:
        return "rendered here"
    if name not in PAPER_DATASETS:
        return "a plug-in" if plugins.is_plugin_name(name) else "a folder"
    root = data_folder()
    if place := find(name, root):
        return f"present in {place}"
    if urls := PAPER_DATASETS[name].urls:
        return f"downloaded from {source(urls[0])}"
    return f"left out: {how_to_place(name, root)}"
