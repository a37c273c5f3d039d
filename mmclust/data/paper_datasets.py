"""The data sets of the papers: where they come from, their layout on disk, and the papers' numbers.

What differs from the papers' table (`paper_datasets.csv`) is a warning, never an error: the papers
do not describe their data sets completely.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock

from mmclust import storage
from mmclust.data import download, paper_layouts
from mmclust.data.folder import from_table
from mmclust.data.images import ImageDataset, unknown_criterion
from mmclust.data.paper_layouts import ANNOTATIONS, BATCHES

# The READMEs of Multi-Sub's repository link to it, but do not give its layout: `find` searches it.
_BUNDLE = "https://faculty.washington.edu/juhuah/images/AugDMC_datasets.zip"


@dataclass(frozen=True)
class PaperDataset:
    """A data set of the papers, or a part of one."""

    domain: str  # the first word of its prompts
    folders: tuple[str, ...]  # accepted names of its folder, in lower case; our name first
    url: str = ""  # of the archive that holds it; none: it is placed by hand
    inner: str | None = None  # file name of archives inside it
    md5: str | None = None  # of the archive
    sums: str = ""  # URL of a file with the SHA-512 of the archive, as sha512sum writes it
    trees: dict[str, str] = field(default_factory=dict)  # criterion -> its folder, if different
    optional: tuple[str, ...] = ()  # criteria that the released archive need not have
    images: tuple[int, ...] = ()  # image counts that are also accepted
    origin: str = ""  # where the pictures come from, for data sets without a download
    part_of: str = ""  # the data set that it is a part of; its labels come from `labels.csv`
    split: str = ""  # the value in the column `split` of its pictures; none: all of the table


_CARD = PaperDataset("card", ("card", "cards"), _BUNDLE, trees={"order": "number"})
_CARD_PART = replace(_CARD, url="", part_of="card", origin="a public collection of card pictures")
PAPER_DATASETS = {
    # AugDMC's code keeps the trees of criteria in fruit_type, and one class per picture in fruit
    "fruit": PaperDataset("fruit", ("fruit", "fruit_type"), _BUNDLE, optional=("shape",)),
    "fruit360": PaperDataset("fruit", ("fruit360",), _BUNDLE),
    "card": _CARD,
    "cmuface": PaperDataset(
        "face", ("cmuface", "faces", "faces_4"),
        "https://archive.ics.uci.edu/static/public/124/cmu+face+images.zip",
        inner="faces.tar.gz",
        images=(624,),  # UCI: 16 of the 640 are damaged, and end in .bad instead of .pgm
    ),
    "cars": PaperDataset("car", ("cars",), origin="1,200 of Stanford Cars, whose page "
        "https://ai.stanford.edu/~jkrause/cars/car_dataset.html no longer offers them"),
    "flowers": PaperDataset("flower", ("flowers",), origin="1,600 of Flowers; perhaps of "
        "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/ [?]"),
    "cifar10": PaperDataset(  # URL and hash as in torchvision
        "photo", ("cifar10", "cifar10_mc", BATCHES),
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        md5="c58f30108f718f92721af3b95e74349a",
    ),
    "clevr4": PaperDataset(  # of CRL's comparison; CC BY 4.0
        "object", ("clevr4", "clevr_4_10k_v1"),
        "https://thor.robots.ox.ac.uk/clevr4/clevr_4_10k_v1.zip",
        sums="https://thor.robots.ox.ac.uk/clevr4/SHA512SUMS",
    ),
    "aloi": PaperDataset("object", ("aloi",), origin="288 of ALOI, "
        "https://aloi.science.uva.nl/: red and green objects, balls and cylinders"),
    "card-train": replace(_CARD_PART, split="train", images=(7509,)),
    "card-valid": replace(_CARD_PART, split="valid", images=(260,)),
    "card-test": replace(_CARD_PART, split="test", images=(260,)),
    "cifar10-mc": PaperDataset("photo", ("cifar10-mc", "cifar10_mc"), part_of="cifar10",
        images=(2000,), origin="200 test pictures of each class of CIFAR-10"),
}  # fmt: skip


def data_folder(data_dir: str | Path | None = None) -> Path:
    """The folder of the papers' data: `data_dir`, else `MMCLUST_DATA`, else in the cache folder."""
    folder = data_dir or os.environ.get("MMCLUST_DATA") or storage.cache_dir() / "datasets"
    return Path(folder).expanduser()


def expected(name: str) -> pd.DataFrame:
    """The papers' numbers: a row per criterion with images, clusters (missing if not stated).

    Those of the complete data set for a part of it.
    """
    table = pd.read_csv(Path(__file__).with_name("paper_datasets.csv"), dtype={"clusters": "Int64"})
    complete = PAPER_DATASETS[name].part_of or name
    return table[table["data set"] == complete].set_index("criterion")


def load_paper(
    name: str, n: int | None = None, seed: int = 0, data_dir: str | Path | None = None,
    criterion: str | None = None,
) -> ImageDataset:  # fmt: skip
    """A data set of the papers, from `data_folder(data_dir)`; downloaded if missing and possible.

    The released archives hold one tree of class folders per criterion, whose pictures are matched
    by their content, else by their names. CMU faces are labeled by their file names and read in the
    finest size of the folder. CIFAR-10 is that of torchvision, train and test, or the authors'
    trees (cifar10_mc.zip) where a user placed them. Any set may instead have a `labels.csv`, as in
    `load_folder`; parts of a set, such as "card-test", are read from it alone. Other numbers of
    pictures or classes than the papers' give a warning, and so do faces of another name.

    Args:
        n, seed: a random sample, see `draw`.
        criterion: the one to load of a data set whose trees can't be matched; else ignored.

    Raises:
        OSError: it can't be downloaded or stored, or must be placed by hand (where and how).
        ValueError: another layout, damage, an invalid option; `SeparateCriteria`: see `criterion`.
    """
    known = list(expected(name).index)
    if criterion not in (None, *known):
        raise ValueError(unknown_criterion(str(criterion), name, known))
    root = data_folder(data_dir)
    place = find(name, root) or obtain(name, root)
    data = read(name, place, criterion)
    for difference in [*data.notes, *differences(name, data)]:
        warnings.warn(f"{name} in {place}: {difference}", stacklevel=3)  # load_dataset's caller
    return draw(data, n, seed)


def draw(data: ImageDataset, n: int | None, seed: int) -> ImageDataset:
    """A random sample of `n` pictures, which for equal seeds is the beginning of a larger sample.

    All pictures in their order if n is None or at least their number. ValueError if n < 1.
    """
    if n is None or n >= len(data):
        return data
    if n < 1:
        raise ValueError(f"{data.name}: n must be at least 1, not {n}")
    sample = data.subset(np.random.default_rng(seed).permutation(len(data))[:n])
    sample.provenance = f"{n:,} drawn with seed {seed} from {data.provenance}"
    return sample


def differences(name: str, data: ImageDataset) -> list[str]:
    """How a complete data set differs from the papers' table: pictures, and classes."""
    table = expected(name)
    spec = PAPER_DATASETS[name]
    counts = [*spec.images] if spec.part_of else [int(table["images"].iloc[0]), *spec.images]
    out = []
    if len(data) not in counts:
        listed = " or ".join(f"{k:,}" for k in counts)
        out.append(f"{len(data):,} pictures, where {listed} are expected")
    for criterion, k in table["clusters"].dropna().items():
        if criterion in data.criteria and (n := data.n_clusters(criterion)) != k:
            out.append(f"{n} classes of {criterion}, where {k} are expected")
    return out


def find(name: str, root: Path) -> Path | None:
    """A data set's folder, or None: in `root`, an unpacked archive, or a folder of its name."""
    spec = PAPER_DATASETS[name]
    searched = [root.glob("*")]
    if spec.url:
        searched += [_unpacked(root, spec.url).glob(depth) for depth in ("*", "*/*", "*/*/*")]
    searched += [(root / spec.folders[0]).glob("*")]
    paths = [path for level in searched for path in sorted(level)]
    candidates = [p for p in paths if p.name.casefold() in spec.folders and p.is_dir()]
    complete = [path for path in candidates if not missing(name, path)]
    return next(iter(complete if spec.part_of else complete or candidates), None)


def missing(name: str, place: Path) -> list[str]:
    """The criteria without a tree of class folders; [] if the labels do not come from trees."""
    tables = (place / "labels.csv", place / ANNOTATIONS)
    if any(map(Path.exists, tables)) or name == "cmuface" or place.name == BATCHES:
        return []
    if PAPER_DATASETS[name].part_of:
        return ["labels.csv"]
    present = [*_trees(name, place), *PAPER_DATASETS[name].optional]
    return [c for c in expected(name).index if c not in present]


def _trees(name: str, place: Path) -> dict[str, Path]:
    """criterion -> its tree of class folders, for the criteria that have one."""
    paths = sorted(place.iterdir(), reverse=True)  # the first of names equal but for case wins
    folders = {path.name.casefold(): path for path in paths if path.is_dir()}
    names = {c: PAPER_DATASETS[name].trees.get(c, c) for c in expected(name).index}
    trees = {c: folders.get(other, folders.get(c)) for c, other in names.items()}
    return {c: tree for c, tree in trees.items() if tree}


def _unpacked(root: Path, url: str) -> Path:
    return root / download.file_name(url).partition(".")[0]


def how_to_place(name: str, root: Path) -> str:
    """One sentence: which files a user must place where."""
    spec = PAPER_DATASETS[name]
    top = spec.folders[0]
    criteria = list(expected(name).index)
    trees = " and ".join(f"{top}/{c}/<class>/<picture>" for c in criteria)
    columns = [*criteria, f"split ({spec.split})"] if spec.split else criteria
    table = f"{top}/labels.csv with columns file (a picture in {top}), {', '.join(columns)}"
    if spec.part_of:
        return f"place in {root} {table}"
    if name == "cmuface":
        return f"place in {root} {top}/<user>/<picture>, named {paper_layouts.FACE_NAMES}"
    return f"place in {root} {trees}, the same pictures in each; or {table}"


def obtain(name: str, root: Path) -> Path:
    """Download and unpack a data set; returns its folder. A second process waits for the first."""
    spec = PAPER_DATASETS[name]
    folders = " or ".join(spec.folders)
    if not spec.url:
        problem = f"is not in {root} and has no public download with its labels ({spec.origin})"
        raise FileNotFoundError(f"{name} {problem}: {how_to_place(name, root)}")
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".lock"):
        if place := find(name, root):
            return place
        unpacked = _unpacked(root, spec.url)
        if unpacked.exists():
            problem = f"{unpacked} holds no folder {folders}"
            raise ValueError(f"{problem}: remove it, and it is unpacked again")
        archive = download.fetch(spec.url, root, _known_hash(spec, root))
        download.unpack(archive, unpacked, spec.inner)
        if place := find(name, root):
            return place
    remedy = f"another version may be served at {spec.url}"
    raise ValueError(f"{archive} holds no folder {folders}: {remedy}")


def _known_hash(spec: PaperDataset, root: Path) -> str | None:
    """The hash of a data set's archive, as `download.fetch` takes it; None if none is known."""
    if not spec.sums:
        return f"md5:{spec.md5}" if spec.md5 else None
    sums = download.fetch(spec.sums, root)
    lines = map(str.split, sums.read_text(encoding="utf-8").splitlines())
    hashes = {line[1].lstrip("*"): line[0] for line in lines if len(line) == 2}
    sums.unlink()  # the next download reads it anew
    archive = download.file_name(spec.url)
    if archive not in hashes:
        raise ValueError(f"{spec.sums} has no line for {archive}: another version may be served")
    return f"sha512:{hashes[archive]}"


def read(name: str, place: Path, criterion: str | None = None) -> ImageDataset:
    """The data set in a folder, in any of the layouts of `load_paper`."""
    spec = PAPER_DATASETS[name]
    if name == "cifar10" and place.name == BATCHES:
        return paper_layouts.cifar10_batches(place, spec.domain)
    remedy = how_to_place(name, place.parent)
    if absent := missing(name, place):
        raise ValueError(f"{place} has no folder {absent[0]!r}: {remedy}")
    criteria = list(expected(name).index)
    notes: list[str] = []
    if (place / "labels.csv").exists():
        names = {v: k for k, v in spec.trees.items()}
        table = paper_layouts.from_csv(place, criteria, spec.optional, names, spec.split)
    elif (place / ANNOTATIONS).exists():
        table = paper_layouts.from_annotations(place, criteria)
    elif name == "cmuface":
        table = paper_layouts.from_names(place, criteria, notes)
    else:
        table = paper_layouts.from_trees(place, _trees(name, place), criterion)
    if table.empty:
        again = "remove it, and it is downloaded again, or " if spec.url else ""
        raise FileNotFoundError(f"{place} holds no pictures of {name}: {again}{remedy}")
    data = from_table(name, spec.domain, place, table)
    data.provenance = f"the papers' {spec.part_of or name}, {len(table)} pictures"
    data.provenance += f" of the split {spec.split}" if spec.split else ""
    data.notes = tuple(notes)
    data.derived_criteria = spec.optional  # the shape of a fruit follows from its species
    return data
