"""Any folder of pictures as a data set, with the labels that the folder contains."""

from __future__ import annotations

import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageColor

from mmclust.code_fingerprint import code_fingerprint
from mmclust.data.contents import Files
from mmclust.data.decoding import SUFFIXES, decode, is_hidden, is_picture
from mmclust.data.images import ImageDataset, Images, encode_labels
from mmclust.storage import key_of


def load_folder(
    path: str | Path, domain: str = "photo", on_corrupt: str = "raise", background: str = "white"
) -> ImageDataset:
    """The pictures below `path`, with the labels that the folder has.

    Labels are read from `labels.csv` in the folder (a column `file`, relative to the folder, and
    one column per criterion); without it from class folders (`<class>/<picture>`: one criterion,
    "class"), or from one tree of class folders per criterion (`<criterion>/<class>/<picture>`, the
    same pictures in each tree, matched by file name). Otherwise the pictures have no labels.

    Args:
        domain: what the pictures show, for prompts and reference words ("photo", "fruit", ...).
        on_corrupt: "raise": an error that names the picture, when one that is needed can't be
            decoded. "skip": decode all now, and leave out the damaged ones with a warning.
        background: a color, as Pillow names them ("white", "#808080"), for transparent parts.

    Raises:
        FileNotFoundError: there is no such folder, it has no picture, or one that labels.csv lists
            is missing.
        ValueError: an invalid option; labels.csv without a column `file`, with an empty cell or a
            duplicate picture; trees that can't be matched; a damaged picture (when it is decoded).
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}")
    if on_corrupt not in ("raise", "skip"):
        raise ValueError(f'on_corrupt is "raise" or "skip", not {on_corrupt!r}')
    try:
        ImageColor.getrgb(background)
    except ValueError as error:
        remedy = 'give a color such as "white" or "#808080"'
        raise ValueError(f"unknown background {background!r}: {remedy}") from error
    table = read_csv(root) if (root / "labels.csv").exists() else _from_tree(root)
    if on_corrupt == "skip":
        table = _without_damaged(root, table)
    if table.index.empty:
        raise FileNotFoundError(f"{root} holds no pictures ({', '.join(sorted(SUFFIXES))})")
    data = from_table(root.resolve().name, domain, root, table, background)
    data.provenance = f"{len(table)} files of a folder"
    return data


def from_table(
    name: str, domain: str, root: Path, table: pd.DataFrame, background: str = "white"
) -> ImageDataset:
    """The pictures in the index of `table`, relative to `root`, with its columns as criteria."""
    files = Files(root, table.index)

    def make(i: int, side: int = 0) -> Image.Image:
        picture = decode(files.path(i), background, side)
        files.check(i)
        return picture

    def fingerprint(positions: np.ndarray) -> str:
        # of content and decoding alone: it does not depend on the folder or the files' names
        contents = files.hashes(positions.tolist())
        return key_of("pictures", contents, background, code_fingerprint([decode]))

    images = Images(len(table), make, fingerprint, lambda i: str(files.path(i)), make)
    labels, classes = encode_labels({c: table[c].tolist() for c in table.columns})
    rows = [{"file": f, **row} for f, row in zip(table.index, table.to_dict("records"))]
    return ImageDataset(name, domain, images, labels, classes, rows=rows)


def _without_damaged(root: Path, table: pd.DataFrame) -> pd.DataFrame:
    damaged = []
    for file in table.index:
        try:
            decode(root / file, side=1)  # all of its bytes, the fastest way
        except ValueError:
            damaged.append(file)
    if damaged:
        names = ", ".join(damaged[:5]) + (", ..." if len(damaged) > 5 else "")
        if len(damaged) == len(table):
            raise ValueError(f"{root}: none of {len(table)} pictures ({names}) can be decoded")
        counts = f"{len(damaged)} of {len(table)} pictures that can't be decoded"
        warnings.warn(f"{root}: left out {counts}: {names}", stacklevel=3)
    return table.drop(index=damaged)


def pictures(root: Path) -> list[Path]:
    """The picture files below a folder, relative to it, sorted; hidden files are left out."""
    files = (f.relative_to(root) for f in root.rglob("*") if f.is_file())
    return sorted(f for f in files if not is_hidden(f) and is_picture(root / f))


def read_csv(root: Path) -> pd.DataFrame:
    """`labels.csv` as a table; index: files relative to `root`; errors as for `load_folder`."""
    source = root / "labels.csv"
    table = pd.read_csv(source, dtype=str, keep_default_na=False)
    if "file" not in table:
        raise ValueError(f"{source} has no column 'file', only: {', '.join(table.columns)}")
    table = table.set_index("file")
    if table.index.has_duplicates:
        duplicate = table.index[table.index.duplicated()][0]
        raise ValueError(f"duplicate file {duplicate} in {source}: list each picture once")
    for criterion in table.columns:
        if empty := table.index[table[criterion].str.strip() == ""].tolist():
            cells = f"({len(empty)} such cells)"
            raise ValueError(f"{source}: {empty[0]} has no label for {criterion!r} {cells}")
    if missing := [f for f in table.index if not (root / f).is_file()]:
        count = f"({len(missing)} such files)"
        raise FileNotFoundError(f"{source} lists {missing[0]}, which is missing {count}")
    return table


def _from_tree(root: Path) -> pd.DataFrame:
    files = pictures(root)
    depths = {len(f.parts) for f in files}
    if depths == {2} and len({f.parts[0] for f in files}) > 1:
        return pd.DataFrame({"class": [f.parts[0] for f in files]}, index=[str(f) for f in files])
    if depths == {3}:
        return match_trees(root, files)
    return pd.DataFrame(index=[str(f) for f in files])


def match_trees(root: Path, files: list[Path]) -> pd.DataFrame:
    """A table of the trees `<criterion>/<class>/<picture>`, matched by the pictures' file names."""
    remedy = "load each criterion's folder by itself"
    trees: dict[str, dict[str, Path]] = defaultdict(dict)
    for f in files:
        criterion, _, name = f.parts
        if name in trees[criterion]:
            raise ValueError(f"duplicate file name {name} below {root / criterion}: {remedy}")
        trees[criterion][name] = f
    first, *others = trees
    for other in others:
        if unmatched := sorted(trees[first].keys() ^ trees[other].keys()):
            problem = f"{unmatched[0]} is not in both {first!r} and {other!r}"
            raise ValueError(f"{root}: {problem} ({len(unmatched)} such files): {remedy}")
    names = sorted(trees[first])
    classes = {c: [files[n].parts[1] for n in names] for c, files in trees.items()}
    return pd.DataFrame(classes, index=[str(trees[first][n]) for n in names])
