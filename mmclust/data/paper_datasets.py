"""The data sets of the papers: where each comes from, how it lies on disk, and whether what is there is what the papers describe."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock
from PIL import Image

from mmclust import storage
from mmclust.data import download, folder
from mmclust.data.cifar10_labels import PHOTO_ENVIRONMENT, PHOTO_TYPE
from mmclust.data.images import ImageDataset, Images, encode_labels

# Linked so in the READMEs of the authors' Multi-Sub repository; how deep its folders lie within it is not documented, and searched for.
_BUNDLE = ("https://faculty.washington.edu/juhuah/images/AugDMC_datasets.zip",)
FACE = re.compile(
    r"(?P<identity>[^_]+)_(?P<pose>straight|left|right|up)_(?P<emotion>neutral|happy|sad|angry)_(?P<glasses>open|sunglasses)(_(?P<scale>[24]))?\.\w+"
)
BATCHES = "cifar-10-batches-py"  # the folder in CIFAR-10's archive


class SeparateCriteria(ValueError):
    """The trees of a data set hold different pictures, so that each criterion is a data set of its own."""


@dataclass(frozen=True)
class PaperDataset:
    """A data set of the papers.

    Attributes:
        domain: the first word of its prompts.
        folders: what its folder may be called, in lower case; the first is ours.
        urls: archives that hold it, the best first; none, if a user must place it. inner: an archive within these. md5: of the archive.
        trees: criterion -> what its folder is called where that differs. optional: criteria that the released archive need not have.
        images: further numbers of pictures that are as they should be.
        about: where the pictures come from, for those who must find them.
    """

    domain: str
    folders: tuple[str, ...]
    urls: tuple[str, ...] = ()
    inner: str | None = None
    md5: str | None = None
    trees: dict[str, str] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    images: tuple[int, ...] = ()
    about: str = ""


PAPER_DATASETS = {
    # AugDMC's code keeps the trees of criteria in fruit_type, and one class per picture in fruit
    "fruit": PaperDataset("fruit", ("fruit", "fruit_type"), _BUNDLE, optional=("shape",)),
    "fruit360": PaperDataset("fruit", ("fruit360",), _BUNDLE),
    "card": PaperDataset("card", ("card", "cards"), _BUNDLE, trees={"order": "number"}),
    "cmuface": PaperDataset(
        "face", ("cmuface", "faces", "faces_4"),
        ("https://archive.ics.uci.edu/static/public/124/cmu+face+images.zip", "https://archive.ics.uci.edu/ml/machine-learning-databases/faces-mld/faces.tar.gz"),
        inner="faces.tar.gz", images=(624,),  # UCI: 16 of the 640 are damaged, and end in .bad instead of .pgm
    ),
    "cars": PaperDataset("car", ("cars",), about="1,200 of Stanford Cars, whose page https://ai.stanford.edu/~jkrause/cars/car_dataset.html no longer gives them"),
    "flowers": PaperDataset("flower", ("flowers",), about="1,600 of Flowers; perhaps of https://www.robots.ox.ac.uk/~vgg/data/flowers/102/ [?]"),
    "cifar10": PaperDataset(  # URL and hash as in torchvision
        "photo", ("cifar10", "cifar10_mc", BATCHES), ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",), md5="c58f30108f718f92721af3b95e74349a",
    ),
    "aloi": PaperDataset("object", ("aloi",), about="288 of ALOI, https://aloi.science.uva.nl/: red and green objects, balls and cylinders"),
}  # fmt: skip


def data_folder(data_dir: str | Path | None = None) -> Path:
    """Where the papers' data lie: `data_dir`, else `MMCLUST_DATA`, else datasets in the cache folder."""
    return Path(
        data_dir or os.environ.get("MMCLUST_DATA") or storage.cache_dir() / "datasets"
    ).expanduser()


def expected(name: str) -> pd.DataFrame:
    """What the papers say of a data set: a row per criterion with images, clusters (missing where no source that we could read says)."""
    table = pd.read_csv(Path(__file__).with_name("paper_datasets.csv"), dtype={"clusters": "Int64"})
    return table[table["data set"] == name].set_index("criterion")


def load_paper(
    name: str,
    n: int | None = None,
    seed: int = 0,
    data_dir: str | Path | None = None,
    criterion: str | None = None,
) -> ImageDataset:
    """A data set of the papers, from `data_folder(data_dir)`; downloaded and unpacked there if it is not there and can be.

    The released archives hold one tree of class folders per criterion. The pictures of these trees are matched by their content, else by
    their names. CMU faces are labelled by their file names and read in the finest size that is there. CIFAR-10 is that of torchvision, train
    and test, or the authors' trees (cifar10_mc.zip) where a user placed them. Any set may instead have a `labels.csv`, as in `load_folder`.

    Args:
        n, seed: so many of the pictures, as `draw` draws them.
        criterion: of a set whose trees can't be matched, the one to load: its pictures and its labels alone. Else all criteria are there.

    Raises:
        ConnectionError, OSError: it can't be downloaded, or stored. FileNotFoundError: it must be placed; the message says what and where.
        SeparateCriteria: its trees can't be matched; the message says what differs. ValueError: what is there has another layout or is
        damaged, or n or criterion is impossible.

    A number of pictures or classes other than the papers' is a warning.
    """
    if criterion not in (None, *expected(name).index):
        raise ValueError(
            f"criterion {criterion!r} not in {name}: {', '.join(expected(name).index)}"
        )
    root = data_folder(data_dir)
    place = find(name, root) or obtain(name, root)
    data = read(name, place, criterion)
    for difference in differences(name, data):
        warnings.warn(f"{name} in {place}: {difference}", stacklevel=3)  # of load_dataset
    return draw(data, n, seed)


def draw(data: ImageDataset, n: int | None, seed: int) -> ImageDataset:
    """`n` pictures without replacement, in random order, a prefix of any larger draw; the data set as it is if there are no more, or with None.

    Raises:
        ValueError: n is less than 1.
    """
    if n is not None and n < 1:
        raise ValueError(f"{data.name}: n must be at least 1, not {n}")
    return (
        data
        if n is None or n >= len(data)
        else data.subset(np.random.default_rng(seed).permutation(len(data))[:n])
    )


def differences(name: str, data: ImageDataset) -> list[str]:
    """Where a whole data set is not what the papers' table says: number of pictures, number of classes."""
    table = expected(name)
    said = [int(table["images"].iloc[0]), *PAPER_DATASETS[name].images]
    out = (
        []
        if len(data) in said
        else [f"{len(data):,} pictures, where {' or '.join(f'{k:,}' for k in said)} are expected"]
    )
    clusters = table["clusters"].dropna()
    return out + [
        f"{data.n_clusters(c)} classes of {c}, where {k} are expected"
        for c, k in clusters.items()
        if c in data.criteria and data.n_clusters(c) != k
    ]


def find(name: str, root: Path) -> Path | None:
    """The folder of a data set below the data folder: placed there, or in an unpacked archive, at most two folders down there."""
    spec = PAPER_DATASETS[name]
    unpacked = [root / _stem(url) for url in spec.urls]
    below = [
        root.glob("*"),
        *(u.glob(depth) for u in unpacked for depth in ("*", "*/*", "*/*/*")),
        (root / spec.folders[0]).glob("*"),
    ]
    found = [
        p
        for places in below
        for p in sorted(places)
        if p.name.casefold() in spec.folders and p.is_dir()
    ]
    return next((p for p in found if not missing(name, p)), found[0] if found else None)


def missing(name: str, place: Path) -> list[str]:
    """The criteria for which a folder of trees has none; empty where its labels come from elsewhere."""
    if (place / "labels.csv").exists() or name == "cmuface" or place.name == BATCHES:
        return []
    return [
        c
        for c in expected(name).index
        if c not in PAPER_DATASETS[name].optional and _tree(name, place, c) is None
    ]


def _tree(name: str, place: Path, criterion: str) -> Path | None:
    names = (criterion, PAPER_DATASETS[name].trees.get(criterion))
    return next(
        (p for p in sorted(place.iterdir()) if p.is_dir() and p.name.casefold() in names), None
    )


def _stem(url: str) -> str:
    return re.sub(r"\.(zip|tar\.gz|tgz)$", "", download.file_name(url))


def how_to_place(name: str, root: Path) -> str:
    """What a user must put where: one sentence."""
    own, criteria = PAPER_DATASETS[name].folders[0], list(expected(name).index)
    trees = " and ".join(f"{own}/{c}/<class>/<picture>" for c in criteria)
    return f"place in {root} {trees}, the same pictures in each; or {own}/labels.csv with columns file (a picture in {own}), {', '.join(criteria)}"


def obtain(name: str, root: Path) -> Path:
    """Download and unpack a data set; its folder. Processes that want it at the same time wait for the first of them.

    Raises:
        As `load_paper`.
    """
    spec = PAPER_DATASETS[name]
    if not spec.urls:
        raise FileNotFoundError(
            f"{name} is not in {root} and has no public download with its labels ({spec.about}): {how_to_place(name, root)}"
        )
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".lock"):
        if (place := find(name, root)) is not None:
            return place
        if taken := [root / _stem(url) for url in spec.urls if (root / _stem(url)).exists()]:
            raise ValueError(
                f"{taken[0]} holds no folder {' or '.join(spec.folders)}: remove it, and it is unpacked again"
            )
        failed = []
        for url in sorted(
            spec.urls, key=lambda url: not (root / download.file_name(url)).exists()
        ):  # what is there needs no download
            try:
                archive = download.fetch(url, root, spec.md5 and f"md5:{spec.md5}")
            except ConnectionError as error:
                failed.append(error)
                continue
            download.unpack(archive, root / _stem(url), spec.inner)
            if not spec.md5:
                download.record(archive, url)  # now that it has shown to be a whole archive
            if (place := find(name, root)) is None:
                raise ValueError(
                    f"{archive} holds no folder {' or '.join(spec.folders)}: another version may be served at {url}"
                )
            return place
    raise ConnectionError("; ".join(map(str, failed))) from failed[0]


def read(name: str, place: Path, criterion: str | None = None) -> ImageDataset:
    """The data set in a folder, in any of the layouts of `load_paper`."""
    spec = PAPER_DATASETS[name]
    if name == "cifar10" and place.name == BATCHES:
        return _batches(place)
    if absent := missing(name, place):
        raise ValueError(f"{place} has no folder {absent[0]!r}: {how_to_place(name, place.parent)}")
    digest = cache(lambda file: hashlib.sha256((place / file).read_bytes()).hexdigest())
    if (place / "labels.csv").exists():
        table = _listed(name, place)
    elif name == "cmuface":
        table = _named(place)
    else:
        table = _matched(name, place, criterion, digest)
    if table.empty:
        again = "remove it, and it is downloaded again, or " if spec.urls else ""
        raise FileNotFoundError(
            f"{place} holds no pictures of {name}: {again}{how_to_place(name, place.parent)}"
        )
    # of the pictures alone: another disk or another download gives the same fingerprint
    fingerprint = storage.key_of("pictures", [digest(f) for f in table.index])
    data = folder.from_table(
        name, spec.domain, place, table, fingerprint, f"the papers' {name}, {len(table)} pictures"
    )
    data.derived_criteria = spec.optional  # the shape of a fruit follows from its species
    return data


def _listed(name: str, place: Path) -> pd.DataFrame:
    table = folder.read_csv(place).rename(
        columns={v: k for k, v in PAPER_DATASETS[name].trees.items()}
    )
    criteria = [
        c for c in expected(name).index if c in table or c not in PAPER_DATASETS[name].optional
    ]
    if absent := [c for c in criteria if c not in table]:
        raise ValueError(
            f"{place / 'labels.csv'} has no column {absent[0]!r}, only: {', '.join(table.columns)}"
        )
    return table[criteria]


def _named(place: Path) -> pd.DataFrame:
    """CMU faces: `user_pose_emotion_eyes[_scale].pgm`, each once, in the finest size that is there."""
    faces = {
        f.name: (str(f), match) for f in folder.pictures(place) if (match := FACE.fullmatch(f.name))
    }
    finest = min((match["scale"] or "1" for _, match in faces.values()), default=None)
    kept = [(f, match) for f, match in faces.values() if (match["scale"] or "1") == finest]
    return pd.DataFrame(
        {c: [match[c] for _, match in kept] for c in expected("cmuface").index},
        index=[f for f, _ in kept],
    )


def _matched(
    name: str, place: Path, criterion: str | None, digest: Callable[[str], str]
) -> pd.DataFrame:
    """The pictures of one tree per criterion, matched by content, else by name; else those of the criterion."""
    trees = {c: tree for c in expected(name).index if (tree := _tree(name, place, c))}
    files = {
        c: [tree.relative_to(place) / f for f in folder.pictures(tree)] for c, tree in trees.items()
    }
    every = [f for own in files.values() for f in own]
    if odd := [f for f in every if len(f.parts) != 3]:
        raise ValueError(f"{place / odd[0]} does not stand as <criterion>/<class>/<picture>")
    keyed = {
        c: sorted((digest(str(f)), f.name, f) for f in own) for c, own in files.items()
    }  # by name among copies of one picture
    contents = [[key for key, _, _ in own] for own in keyed.values()]
    if all(own == contents[0] for own in contents):
        rows = sorted(zip(*([f for _, _, f in own] for own in keyed.values())))
        return pd.DataFrame(
            [[f.parts[1] for f in row] for row in rows], [str(row[0]) for row in rows], list(trees)
        )
    try:
        shared = set.intersection(*map(set, contents))
        first, *others = (
            [(key, name) for key, name, _ in own if key in shared] for own in keyed.values()
        )
        if any(own != first for own in others):  # then one name means different pictures
            raise ValueError("the same picture has different names")
        return folder.match_trees(place, every).rename(
            columns={tree.name: c for c, tree in trees.items()}
        )
    except ValueError as error:
        if criterion in files:
            return pd.DataFrame(
                {criterion: [f.parts[1] for f in files[criterion]]},
                [str(f) for f in files[criterion]],
            )
        counts = ", ".join(f"{c} {len(own):,}" for c, own in files.items())
        why = f"the trees in {place} hold different pictures ({counts}), by content and by name ({error})"
        raise SeparateCriteria(
            f"{name}: {why}: give criterion= one of {', '.join(files)}"
        ) from error


def _batches(place: Path) -> ImageDataset:
    """CIFAR-10 by torchvision, which checks the md5 of every file: 50,000 training pictures, then 10,000 test pictures."""
    from torchvision.datasets import CIFAR10

    try:
        parts = [CIFAR10(place.parent, train=train) for train in (True, False)]
    except RuntimeError as error:
        raise ValueError(
            f"{place} is not whole (a file is missing or its md5 is wrong): remove it, and it is downloaded again"
        ) from error
    pixels = np.concatenate([part.data for part in parts])
    kinds = [part.classes[k] for part in parts for k in part.targets]
    fingerprint = storage.key_of("cifar10", CIFAR10.train_list, CIFAR10.test_list)
    images = Images(
        len(pixels),
        lambda i: Image.fromarray(pixels[i]),
        fingerprint,
        "picture {} of CIFAR-10 (train, then test)".format,
    )
    encoded = {
        c: encode_labels([of[k] for k in kinds])
        for c, of in (("type", PHOTO_TYPE), ("environment", PHOTO_ENVIRONMENT))
    }
    labels, classes = (
        {c: v for c, (v, _) in encoded.items()},
        {c: names for c, (_, names) in encoded.items()},
    )
    return ImageDataset(
        "cifar10",
        PAPER_DATASETS["cifar10"].domain,
        images,
        labels,
        classes,
        "CIFAR-10, train and test, by torchvision",
    )


def status(name: str, root: Path) -> tuple[bool, str]:
    """Whether a data set is usable or can be downloaded, and in words: what is there, or where it would come from, or what must be placed."""
    place = find(name, root)
    if place is None:
        urls = " or ".join(download.source(url) for url in PAPER_DATASETS[name].urls)
        return (
            bool(urls),
            f"not there; would be downloaded from {urls}"
            if urls
            else f"not there; {how_to_place(name, root)} ({PAPER_DATASETS[name].about})",
        )
    try:
        with contextlib.suppress(SeparateCriteria):
            return True, _summary(name, place, [read(name, place)])
        return True, _summary(
            name,
            place,
            [read(name, place, c) for c in expected(name).index if _tree(name, place, c)],
        )
    except (OSError, ValueError) as error:
        return False, f"there, but can't be read: {error}"


def _summary(name: str, place: Path, parts: list[ImageDataset]) -> str:
    counts = ", ".join(dict.fromkeys(f"{len(data):,} pictures" for data in parts))
    clusters = ", ".join(f"{c} {data.n_clusters(c)}" for data in parts for c in data.criteria)
    said = (
        "; ".join(dict.fromkeys(d for data in parts for d in differences(name, data)))
        or "as in the papers' table"
    )
    apart = (
        "; its trees hold different pictures, and each criterion is loaded by itself"
        if len(parts) > 1
        else ""
    )
    return f"there, in {place}: {counts}, {clusters} classes; {said}{apart}"
