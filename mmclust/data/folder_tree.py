"""What lies below a folder, and the labels that its subfolders mean.

Subfolders mean classes (`<class>/<picture>`) or criteria (`<criterion>/<class>/<picture>`, the same
file names in each). Splits such as `train` and `test`, and a folder around all others, mean
nothing. Links to folders are followed: in a file manager they look like folders.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from filecmp import cmp
from itertools import takewhile
from pathlib import Path

import pandas as pd

from mmclust.data.decoding import is_hidden
from mmclust.data.images import clean, counted

SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev"}
SAMPLE = 100  # pictures of each tree that are compared with those of the same name in others
Parts = Mapping[Path, tuple[str, ...]]  # of files: the folders that may be labels, and the name


def walk(root: Path, notes: list[str]) -> tuple[list[Path], list[Path]]:
    """Files and folders below `root`, relative to it, sorted, without hidden ones.

    A note lists links that lead nowhere or back, and folders that can't be opened.
    """
    closed: list[Path] = []
    visited = list(visit(root, closed))
    if closed:
        kinds = "a link to nowhere or back, or no permission"
        notes.append(f"left out, {kinds}: {counted(sorted(closed), 'path')}")
    files = [file for _, files in visited for file in files]
    return sorted(files), sorted(folder for folders, _ in visited for folder in folders)


def visit(root: Path, closed: list[Path]) -> Iterator[tuple[list[Path], list[Path]]]:
    """The folders and files in each folder below `root`, as in `walk`; `closed` gets the rest."""
    for place, below, names in os.walk(
        root, onerror=lambda error: closed.append(Path(error.filename).relative_to(root)),
        followlinks=True,
    ):  # fmt: skip
        here = Path(place).relative_to(root)
        closed.extend(here / name for name in below if _leads_back(Path(place, name)))
        below[:] = [name for name in below if not is_hidden(name) and here / name not in closed]
        names = [name for name in names if not is_hidden(name)]
        files = [name for name in names if os.path.isfile(os.path.join(place, name))]
        links = [name for name in names if os.path.islink(os.path.join(place, name))]
        closed.extend(here / name for name in links if name not in files)
        yield [here / name for name in below], [here / name for name in files]


def _leads_back(folder: Path) -> bool:
    """Whether it is a link to a folder that contains it: following it would have no end."""
    parents = folder.absolute().parents
    return folder.is_symlink() and folder.resolve() in {p.resolve() for p in parents}


def without_pictures(folders: Iterable[Path], pictures: Iterable[Path]) -> list[Path]:
    """The topmost folders with no picture below them."""
    parents = {picture.parent for picture in pictures}
    filled = parents.union(*(parent.parents for parent in parents))
    return [f for f in folders if f not in filled and f.parent in filled]


def tree_labels(root: Path, files: Iterable[Path], notes: list[str]) -> pd.DataFrame:
    """The labels of pictures by their folders; index: files, columns: criteria, perhaps none.

    Raises ValueError: see `match_trees`.
    """
    parts = _without_splits({f: f.parts for f in files}, notes)
    around = _shared(p[:-1] for p in parts.values() if len(p) > 1)
    labeled = {f: p[len(around) :] for f, p in parts.items() if len(p) > len(around) + 1}
    deeper = {f: p for f, p in labeled.items() if len(p) > 2}
    tops = sorted({p[0] for p in labeled.values()})
    unlabeled = pd.DataFrame(index=[str(f) for f in parts])
    if len(tops) < 2 or 2 * len(labeled) < len(parts):
        notes += ["most pictures are beside the folders"] if len(tops) > 1 else []
        return unlabeled
    if 2 * len(deeper) > len(labeled) and len({p[0] for p in deeper.values()}) == len(tops):
        pictures = [
            {clean(p[-1]): root / f for f, p in deeper.items() if p[0] == top} for top in tops
        ]
        names = [set(tree) for tree in pictures]
        if 2 * len(set.intersection(*names)) < len(set.union(*names)) or _differ(pictures):
            reason = "no classes, as they hold folders, and no criteria, as their pictures differ"
            notes.append(f"{reason}: {counted(tops, 'folder')}")
            return unlabeled
        labeled = deeper
        table = match_trees(root, labeled)
    else:
        criterion = clean(around[-1]) if around else "class"
        classes = [clean(p[0]) for p in labeled.values()]
        table = pd.DataFrame({criterion: classes}, index=[str(f) for f in labeled])
        if deeper:
            notes.append(f"taken into the outer class: {counted(list(deeper), 'picture')}")
    if beside := [f for f in parts if f not in labeled]:
        notes.append(f"left out, beside the class folders: {counted(beside, 'picture')}")
    return table


def _differ(trees: list[dict[str, Path]]) -> bool:
    """Whether most files of one name differ, in a sample of names: cameras count from 1 again."""
    names = sorted(set.intersection(*map(set, trees)))
    sample = names[:: -(-len(names) // SAMPLE)]
    first, *others = trees
    same = [all(cmp(first[n], tree[n], shallow=False) for tree in others) for n in sample]
    return 2 * sum(same) < len(same)


def _shared(folders: Iterable[tuple[str, ...]]) -> list[str]:
    """The folders that all have in common, from the outermost on."""
    return [names[0] for names in takewhile(lambda names: len(set(names)) == 1, zip(*folders))]


def _without_splits(parts: Parts, notes: list[str]) -> Parts:
    """Folders of which all are splits become part of the file's name."""
    for level in (0, 1):
        names = {p[level] for p in parts.values() if len(p) > level + 1}
        if names and {name.casefold() for name in names} <= SPLITS:
            notes.append(f"taken together: {counted(sorted(names), 'split')}")
            return {
                f: (*folders[:level], *folders[level + 1 :], "/".join([*folders[level:][:1], name]))
                for f, (*folders, name) in parts.items()
            }
    return parts


def match_trees(root: Path, parts: Parts) -> pd.DataFrame:
    """A table of the trees `<criterion>/<class>/<picture>`, matched by the pictures' file names.

    A class that lies deeper is named by its path, without the folders that all classes share.
    Raises ValueError: a file name is a duplicate in one tree, or missing in another.
    """
    remedy = "load each criterion's folder by itself, or write labels.csv"
    trees: dict[str, dict[str, Path]] = defaultdict(dict)
    for f, (criterion, *_, file_name) in parts.items():
        name = clean(file_name)
        if name in trees[criterion]:
            raise ValueError(f"duplicate file name {name} below {root / criterion}: {remedy}")
        trees[criterion][name] = f
    first, *others = trees
    for other in others:
        if unmatched := sorted(trees[first].keys() ^ trees[other].keys()):
            problem = f"{unmatched[0]} is not in both {first!r} and {other!r}"
            raise ValueError(f"{root}: {problem} ({len(unmatched)} such files): {remedy}")
    names = sorted(trees[first])
    columns = {}
    for criterion, tree in trees.items():
        shared = 1 + len(_shared(parts[f][1:-2] for f in tree.values()))
        columns[clean(criterion)] = [clean("/".join(parts[tree[n]][shared:-1])) for n in names]
    return pd.DataFrame(columns, index=[str(trees[first][n]) for n in names])
