"""Any folder of pictures as a data set, with the labels that the folder contains."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from mmclust.code_fingerprint import code_fingerprint
from mmclust.data.contents import Files
from mmclust.data.decoding import SUFFIXES, decode, describe_others, is_picture
from mmclust.data.folder_tree import tree_labels, walk, without_pictures
from mmclust.data.images import ImageDataset, Images, counted, encode_labels
from mmclust.data.labels_table import (
    TABLES,
    find_table,
    read_labels,
    similar_labels,
    split_column,
)
from mmclust.storage import key_of


def load_folder(
    path: str | Path, domain: str = "photo", on_corrupt: str = "raise", verbose: bool = True,
    labels: bool = True,
) -> ImageDataset:  # fmt: skip
    """The pictures below `path`, with the labels that the folder has.

    Labels are read from `labels.csv` in the folder (a column `file`, relative to the folder, and
    one column per criterion; perhaps `split`, which is kept in `rows`); without it from class
    folders (`<class>/<picture>`: one criterion, "class"), or from one tree of class folders per
    criterion (`<criterion>/<class>/<picture>`, the same pictures in each tree, matched by file
    name). Otherwise the pictures have no labels. What was understood and left out is printed in one
    line; docs/folders.md lists what a folder may be.

    Args:
        domain: what the pictures show, for prompts and reference words ("photo", "fruit", ...).
        on_corrupt: "raise": a damaged picture is an error when it is decoded. "skip": decode all
            now, and leave out the damaged ones.
        verbose: print that line; it is also the `provenance` of the data set.
        labels: False: all pictures of all folders, without labels.

    Raises:
        FileNotFoundError: there is no such folder, no picture in it, or not all of labels.csv.
        ValueError: an invalid option, labels.csv or tree; a damaged picture.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        file = " (it is a file)" if root.exists() else ""
        raise FileNotFoundError(f"no folder {root}{file}")
    if on_corrupt not in ("raise", "skip"):
        raise ValueError(f'on_corrupt is "raise" or "skip", not {on_corrupt!r}')
    notes: list[str] = []
    table, origin = _labels(root, notes, labels)
    if on_corrupt == "skip":
        table = _without_damaged(root, table, notes)
    if table.index.empty:
        none = f"{root} holds no pictures ({', '.join(sorted(SUFFIXES))})"
        raise FileNotFoundError("; ".join([none, *notes]))
    data = from_table(root.resolve().name, domain, root, table)
    data.notes = (*notes, *similar_labels(table))
    parts = [f"{c}: {counted(data.classes[c], 'class')}" for c in data.criteria]
    parts = [*parts, f"from {origin}"] if parts else ["no labels"]
    number = f"{len(data):,} picture{'' if len(data) == 1 else 's'}"
    data.provenance = "; ".join([number, ", ".join(parts), *data.notes])
    if verbose:
        line = " ".join(f"{root}: {data.provenance}".split())
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"  # a name may have any letter
        print(line.encode(encoding, "backslashreplace").decode(encoding))
    return data


def load_folder_for(
    path: str | Path, keyword: str | None, **options: Any
) -> tuple[ImageDataset, str | None]:
    """`load_folder`, to sort the pictures by a keyword; and the keyword, as
    `ImageDataset.criterion` finds it in the labels.

    Labels are read only if the keyword is one of their criteria. Otherwise they and class folders
    mean nothing, and all pictures are there. The keyword is None if none was asked for, and the
    labels have none but "class". `options`: those of `load_folder`, except `labels`.
    """
    labeled = load_folder(path, verbose=False)
    criterion = labeled.criterion(keyword)
    return load_folder(path, labels=criterion in labeled.criteria, **options), criterion


def _labels(root: Path, notes: list[str], wanted: bool) -> tuple[pd.DataFrame, str]:
    """A table (index: pictures, columns: criteria), and what it was read from."""
    all_files, folders = walk(root, notes)
    pictures = {f: is_picture(root / f) for f in all_files}
    files = [f for f in all_files if pictures[f]]
    if others := [f for f in all_files if not pictures[f] and f.suffix.lower() not in TABLES]:
        notes.append(describe_others(others))
    if empty := without_pictures(folders, files):
        notes.append(f"without pictures: {counted(empty, 'folder')}")
    if not wanted:
        return pd.DataFrame(index=[str(f) for f in files]), ""
    if source := find_table(root, all_files, notes):
        table = read_labels(source, files, notes)
        if split := split_column(table):
            notes.append(f"taken together: {counted(sorted(set(table[split])), 'split')}")
        return table, source.name
    return tree_labels(root, files, notes), "folders"


def from_table(name: str, domain: str, root: Path, table: pd.DataFrame) -> ImageDataset:
    """The pictures in the index of `table`, relative to `root`, with its columns as criteria.

    A column with their splits is no criterion; it is in `rows`, as all columns are.
    """
    files = Files(root, table.index)

    def make(i: int, side: int = 0) -> Image.Image:
        picture = decode(files.path(i), side)
        files.check(i)
        return picture

    def fingerprint(positions: np.ndarray) -> str:
        # of content and decoding alone: it does not depend on the folder or the files' names
        contents = files.hashes(positions.tolist())
        return key_of("pictures", contents, code_fingerprint([decode]))

    images = Images(len(table), make, fingerprint, lambda i: str(files.path(i)), make)
    split = split_column(table)
    labels, classes = encode_labels({c: table[c].tolist() for c in table.columns if c != split})
    rows = [{"file": f, **row} for f, row in zip(table.index, table.to_dict("records"))]
    return ImageDataset(name, domain, images, labels, classes, rows=rows)


def _without_damaged(root: Path, table: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    damaged = []
    for file in table.index:
        try:
            decode(root / file, side=1)  # all of its bytes, the fastest way
        except ValueError:
            damaged.append(file)
    if damaged and len(damaged) == len(table):
        raise ValueError(f"{root}: none of {counted(damaged, 'picture')} can be decoded")
    if damaged:
        notes.append(f"left out, can't be decoded: {counted(damaged, 'picture')}")
    return table.drop(index=damaged)


def pictures(root: Path) -> list[Path]:
    """The picture files below a folder, relative to it, sorted, without hidden ones."""
    return [f for f in walk(root, [])[0] if is_picture(root / f)]
