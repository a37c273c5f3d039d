"""How the papers' data sets are laid out on disk: trees, a table, file names, or files of their
own.

The `from_*` functions return a table: index: files relative to `place`; columns: criteria.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from mmclust.code_fingerprint import code_fingerprint
from mmclust.data.cifar10_labels import PHOTO_ENVIRONMENT, PHOTO_TYPE
from mmclust.data.contents import Files
from mmclust.data.folder import pictures
from mmclust.data.folder_tree import match_trees
from mmclust.data.images import ImageDataset, Images, counted, encode_labels
from mmclust.data.labels_table import read_labels, split_column
from mmclust.storage import key_of

# as the README of the faces defines it, whose poses are these four
FACE = re.compile(
    r"(?P<identity>[^_]+)_(?P<pose>straight|left|right|up)_(?P<emotion>neutral|happy|sad|angry)"
    r"_(?P<glasses>open|sunglasses)(_(?P<scale>[24]))?\.\w+"
)
FACE_NAMES = (
    "user_pose_emotion_eyes.pgm, with pose straight, left, right or up, emotion neutral, happy, "
    "sad or angry, eyes open or sunglasses, and _2 or _4 before .pgm in a smaller size"
)
ANNOTATIONS = "clevr_4_annots.json"
BATCHES = "cifar-10-batches-py"  # the folder in CIFAR-10's archive


class SeparateCriteria(ValueError):
    """The trees of a data set hold different pictures: each criterion is a data set of its own."""


def from_csv(
    place: Path,
    criteria: list[str],
    optional: tuple[str, ...],
    other_names: dict[str, str],
    split: str,
) -> pd.DataFrame:
    """From `labels.csv`, whose columns may have other names (name -> criterion); the pictures of
    one split, all if it is ""."""
    table = read_labels(place / "labels.csv", pictures(place), []).rename(columns=other_names)
    if split:
        column = split_column(table)
        splits = table[column].str.casefold() if column else pd.Series("", table.index)
        table = table[splits == split]
        if table.empty:
            remedy = "add it to the rows of the pictures that belong to it"
            raise ValueError(f"{place / 'labels.csv'}: no {split!r} in a column 'split': {remedy}")
    wanted = [c for c in criteria if c in table or c not in optional]
    if absent := [c for c in wanted if c not in table]:
        columns = ", ".join(table.columns)
        raise ValueError(f"{place / 'labels.csv'} has no column {absent[0]!r}, only: {columns}")
    return table[wanted]


def from_names(place: Path, criteria: list[str], notes: list[str]) -> pd.DataFrame:
    """CMU faces: `user_pose_emotion_eyes[_scale].pgm`, each once, in the largest size.

    Other names are not guessed at, but noted: `forward` for `straight`, say.
    """
    files = pictures(place)
    faces = {f.name: (str(f), match) for f in files if (match := FACE.fullmatch(f.name))}
    if others := [f.name for f in files if f.name not in faces]:
        listed = counted(others, "picture")
        notes.append(f"left out {listed}: rename them as {FACE_NAMES}")
    finest = min((match["scale"] or "1" for _, match in faces.values()), default="1")
    chosen = [face for face in faces.values() if (face[1]["scale"] or "1") == finest]
    labels = {c: [match[c] for _, match in chosen] for c in criteria}
    return pd.DataFrame(labels, index=[file for file, _ in chosen])


def from_annotations(place: Path, criteria: list[str]) -> pd.DataFrame:
    """Clevr-4: `images/<name>.png`, and name -> class by each criterion in a JSON file, where a
    count may be a number."""
    annotations = json.loads((place / ANNOTATIONS).read_text(encoding="utf-8"))
    files = [f"images/{name.removesuffix('.png')}.png" for name in annotations]
    if absent := [file for file in files if not (place / file).exists()]:
        problem = f"{place / absent[0]} is missing, and {len(absent) - 1} others of {ANNOTATIONS}"
        raise ValueError(f"{problem}: remove {place}, and it is downloaded again")
    labels = {c: [str(classes[c]) for classes in annotations.values()] for c in criteria}
    return pd.DataFrame(labels, index=files)


def from_trees(place: Path, trees: dict[str, Path], criterion: str | None) -> pd.DataFrame:
    """From one tree `<class>/<picture>` per criterion, their pictures matched by content or name.

    If they can't be matched: only the tree of `criterion`; without one, raises `SeparateCriteria`.
    """
    files = {c: [tree.relative_to(place) / f for f in pictures(tree)] for c, tree in trees.items()}
    hashes = {c: Files(place, paths).hashes(range(len(paths))) for c, paths in files.items()}
    all_files = [f for paths in files.values() for f in paths]
    if misplaced := [place / f for f in all_files if len(f.parts) != 3]:
        raise ValueError(f"{misplaced[0]} is not in a folder <criterion>/<class>: move it there")
    # matched by content; among copies of one picture, by name
    keyed = [sorted((h, f.name, f) for h, f in zip(hashes[c], files[c])) for c in files]
    contents = [[key for key, _, _ in entries] for entries in keyed]
    if all(keys == contents[0] for keys in contents):
        rows = sorted(zip(*([f for _, _, f in entries] for entries in keyed)))
        classes = [[f.parts[1] for f in row] for row in rows]
        return pd.DataFrame(classes, [str(row[0]) for row in rows], list(trees))
    try:
        shared = set.intersection(*map(set, contents))
        first, *others = ([entry[:2] for entry in e if entry[0] in shared] for e in keyed)
        if any(other != first for other in others):  # then one name means different pictures
            raise ValueError("the same picture has different names")
        table = match_trees(place, {f: f.parts for f in all_files})
        return table.rename(columns={tree.name: c for c, tree in trees.items()})
    except ValueError as error:
        if criterion in files:
            labels = {criterion: [f.parts[1] for f in files[criterion]]}
            return pd.DataFrame(labels, [str(f) for f in files[criterion]])
        counts = ", ".join(f"{c} {len(paths):,}" for c, paths in files.items())
        raise SeparateCriteria(
            f"the trees in {place} hold different pictures ({counts}), by content and by name "
            f"({error}): give criterion= one of {', '.join(files)}"
        ) from error


def cifar10_batches(place: Path, domain: str) -> ImageDataset:
    """CIFAR-10 by torchvision, which checks each md5: 50,000 training and 10,000 test images."""
    from torchvision.datasets import CIFAR10

    try:
        splits = [CIFAR10(place.parent, train=train) for train in (True, False)]
    except RuntimeError as error:
        problem = "is incomplete (a file is missing or its md5 does not match)"
        raise ValueError(f"{place} {problem}: remove it, and it is downloaded again") from error
    pixels = np.concatenate([split.data for split in splits])  # (60000, 32, 32, 3)
    names = [split.classes[k] for split in splits for k in split.targets]
    criteria = {"type": PHOTO_TYPE, "environment": PHOTO_ENVIRONMENT}
    columns = {c: [classes[n] for n in names] for c, classes in criteria.items()}
    labels, classes = encode_labels(columns)
    code = code_fingerprint([], alone=[cifar10_batches])
    fingerprint = key_of("cifar10", CIFAR10.train_list, CIFAR10.test_list, code)
    describe = "picture {} of CIFAR-10 (train, then test)".format
    images = Images(len(pixels), lambda i: Image.fromarray(pixels[i]), fingerprint, describe)
    provenance = "CIFAR-10, train and test, by torchvision"
    return ImageDataset("cifar10", domain, images, labels, classes, provenance)
