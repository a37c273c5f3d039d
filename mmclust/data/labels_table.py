"""`labels.csv` as people write it: common encodings and separators, names that almost match.

What can be read in one way only is read, what might be meant otherwise is noted, and all else is an
error. Labels that differ by case or number format stay different.
"""

from __future__ import annotations

import io
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pandas as pd

from mmclust.data.decoding import is_picture
from mmclust.data.folder_tree import SPLITS
from mmclust.data.images import clean, counted

TABLES = {".csv", ".tsv", ".xlsx", ".xls", ".ods"}
FILE_COLUMNS = ["file", "filename", "file name", "file_name", "path", "image", "picture", "photo"]
# what spreadsheets, pandas and R write for a missing value; "none" may well be a class
MISSING = {"", "nan", "na", "n/a", "#n/a", "<na>", "null"}


def find_table(root: Path, files: Iterable[Path], notes: list[str]) -> Path | None:
    """`labels.csv` or `labels.tsv` in `root`, in any case. ValueError if there are several."""
    tables = [f for f in files if f.suffix.lower() in TABLES]
    labels = [f for f in tables if str(f).lower() in ("labels.csv", "labels.tsv")]
    if len(labels) > 1:
        raise ValueError(f"{root} has {counted(labels, 'table')}: keep one")
    if others := [f for f in tables if f not in labels]:
        notes.append(f"not read, as labels are read from labels.csv: {counted(others, 'table')}")
    return root / labels[0] if labels else None


def read_labels(source: Path, files: Sequence[Path], notes: list[str]) -> pd.DataFrame:
    """The labels in a table; index: those of `files` that it lists; columns: criteria.

    `files` are the pictures below the table's folder, relative to it. Raises FileNotFoundError: one
    of the table is missing. ValueError: the table can't be read, has no column `file`, a duplicate
    picture or column, or a missing label.
    """
    table = _parse(source, notes)
    columns = [c for c in table.columns if c.lower() in FILE_COLUMNS]
    if not columns:
        raise ValueError(f"{source} has no column 'file', only: {', '.join(table.columns)}")
    column = min(columns, key=lambda c: FILE_COLUMNS.index(c.lower()))
    matched = _matched(source, table[column], [str(f) for f in files])
    table = table.drop(columns=column).set_axis(matched)
    if table.index.has_duplicates:
        duplicate = table.index[table.index.duplicated()][0]
        raise ValueError(f"duplicate file {duplicate} in {source}: list each picture once")
    for criterion in table.columns:
        if empty := table.index[table[criterion].str.lower().isin(MISSING)].tolist():
            remedy = f"({len(empty)} such cells): fill it, or remove the row or the column"
            raise ValueError(f"{source}: {empty[0]} has no label for {criterion!r} {remedy}")
    if unlisted := sorted({str(f) for f in files} - set(matched)):
        notes.append(f"left out, not in {source.name}: {counted(unlisted, 'picture')}")
    return table


def split_column(table: pd.DataFrame) -> str | None:
    """The column that says which split (train, test, ...) each picture is in: no criterion."""
    return next(
        (c for c in table if c.casefold() == "split" and {*table[c].str.casefold()} <= SPLITS), None
    )


def similar_labels(table: pd.DataFrame) -> list[str]:
    """A note on each criterion with labels that differ by case, number format or spaces only."""
    notes = []
    for criterion in table.columns:
        spellings: dict[object, list[str]] = defaultdict(list)
        for label in sorted(set(table[criterion])):
            try:
                spellings[float(label.replace(",", "."))].append(label)
            except ValueError:
                spellings[re.sub(r"[\s_-]+", " ", label.casefold())].append(label)
        if similar := [" / ".join(labels) for labels in spellings.values() if len(labels) > 1]:
            notes.append(f"taken as different classes of {criterion}: {counted(similar, 'group')}")
    return notes


def _parse(source: Path, notes: list[str]) -> pd.DataFrame:
    """All cells as text, without the space around them and columns without a name."""
    data = source.read_bytes()
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
        notes.append(f"{source.name} is not UTF-8: read as Windows-1252")
    if "\0" in text:
        raise ValueError(f'{source} is not a text file: save the table as "CSV UTF-8"')
    header = text.lstrip().partition("\n")[0]
    separator = max(",;\t", key=lambda mark: (_has_file(header.split(mark)), header.count(mark)))
    options: dict[str, Any] = {"header": None, "dtype": str, "keep_default_na": False}
    try:
        cells = pd.read_csv(io.StringIO(text), sep=separator, skipinitialspace=True, **options)
    except ValueError as error:
        remedy = f"write a row per picture, and a cell that contains {separator!r} in quotes"
        raise ValueError(f"{source} can't be read ({str(error).strip()}): {remedy}") from error
    cells = cells.fillna("").map(clean)
    cells = cells[(cells != "").any(axis=1)]
    if len(cells) < 2:
        raise ValueError(f"{source} lists no pictures: write a header, and a row per picture")
    table = cells.iloc[1:].set_axis(cells.iloc[0].tolist(), axis=1)
    unnamed = table.columns.str.fullmatch(r"(Unnamed: \d+)?")  # the latter is of pandas
    if (table.loc[:, unnamed] != "").any(axis=None):
        notes.append("left out: a column without a name")
    table = table.loc[:, ~unnamed]
    if table.columns.has_duplicates:
        duplicate = table.columns[table.columns.duplicated()][0]
        raise ValueError(f"duplicate column {duplicate!r} in {source}: rename or remove one")
    return table


def _has_file(columns: list[str]) -> bool:
    """Whether one of at least two columns is that of the files."""
    return len(columns) > 1 and any(clean(c.strip('"')).lower() in FILE_COLUMNS for c in columns)


def _matched(source: Path, cells: Iterable[str], files: Sequence[str]) -> list[str]:
    """The files that cells name, up to case, accents, "\\" and suffix."""

    def plain(name: str) -> str:
        return clean(name).replace("\\", "/").removeprefix("./").casefold()

    spelled: dict[str, set[str]] = defaultdict(set)
    for file in files:
        for name in (file, os.path.splitext(file)[0]):
            spelled[plain(name)].add(file)
    known = set(files)
    matched: list[str] = []
    for cell in cells:
        same = {cell} if cell in known else spelled[plain(cell)]
        path = source.parent / cell
        if not same and path.is_file() and is_picture(path):  # a complete path, or with ".."
            same = {os.path.relpath(path, source.parent)}
        if len(same) != 1:
            similar = sorted(same) or get_close_matches(cell, files, n=1, cutoff=0.5)
            hint = f"did you mean {' or '.join(similar)}?" if similar else "correct its row"
            raise FileNotFoundError(f"{source} lists {cell!r}, which is missing: {hint}")
        matched += same
    return matched
