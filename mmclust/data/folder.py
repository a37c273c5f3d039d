"""Any directory of pictures as a data set."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from pathlib import Path

import pandas as pd
from PIL import Image, ImageColor

from mmclust.data.images import ImageDataset, Images, encode_labels, opaque
from mmclust.storage import key_of

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}


def load_folder(
    path: str | Path, domain: str = "photo", on_corrupt: str = "raise", background: str = "white"
) -> ImageDataset:
    """Pictures below `path`, with the labels that come with them.

    Labels are read from `labels.csv` in the folder (a column `file`, relative to the folder, and one column per criterion); without it from
    class folders (`<class>/<picture>`: one criterion, "class"), or from one tree of class folders per criterion
    (`<criterion>/<class>/<picture>`, the same pictures in each tree, matched by their names). Otherwise the pictures have no labels.

    Args:
        domain: what the pictures show, for prompts and reference words ("photo", "fruit", ...).
        on_corrupt: "raise" when a picture that is needed can't be decoded, naming it, or "skip": decode all now and leave the bad ones out
            with a warning.
        background: a color, as Pillow names them ("white", "#808080"), that shows through where a picture is transparent.

    Raises:
        FileNotFoundError: the folder does not exist or holds no pictures, or a picture that labels.csv names is missing.
        ValueError: an unknown background; labels.csv has no column `file`, a cell without a label, or a picture twice; trees whose pictures
            can't be matched; (when it is decoded) a picture that is damaged.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}")
    if on_corrupt not in ("raise", "skip"):
        raise ValueError(f'on_corrupt is "raise" or "skip", not {on_corrupt!r}')
    try:
        ImageColor.getrgb(background)
    except ValueError as error:
        raise ValueError(
            f'background {background!r} is no color: give a name or a code, such as "white" or "#808080"'
        ) from error
    table = read_csv(root) if (root / "labels.csv").exists() else _from_tree(root)
    files = [root / f for f in table.index]
    if on_corrupt == "skip":
        bad = [f for f in files if not _readable(f)]
        if bad:
            names = ", ".join(str(f.relative_to(root)) for f in bad[:5])
            warnings.warn(
                f"{root}: left out {len(bad)} of {len(files)} pictures that can't be decoded: {names}{', ...' * (len(bad) > 5)}",
                stacklevel=2,
            )
            table = table.drop(index=[str(f.relative_to(root)) for f in bad])
            files = [root / f for f in table.index]
    if not files:
        raise FileNotFoundError(f"{root} holds no pictures ({', '.join(sorted(SUFFIXES))})")
    stats = [f.stat() for f in files]
    fingerprint = key_of(
        "folder",
        background,
        [(str(f), s.st_size, s.st_mtime_ns) for f, s in zip(table.index, stats)],
    )
    return from_table(
        root.resolve().name,
        domain,
        root,
        table,
        fingerprint,
        f"{len(files)} files of a folder",
        background,
    )


def from_table(
    name: str,
    domain: str,
    root: Path,
    table: pd.DataFrame,
    fingerprint: str,
    provenance: str,
    background: str = "white",
) -> ImageDataset:
    """The pictures that the index of a table names, relative to `root`, with its columns as criteria."""
    files = [root / f for f in table.index]
    images = Images(
        len(files), lambda i: _decode(files[i], background), fingerprint, lambda i: str(files[i])
    )
    encoded = {c: encode_labels(table[c].tolist()) for c in table.columns}
    rows = [{"file": f, **row} for f, row in zip(table.index, table.to_dict("records"))]
    labels, classes = (
        {c: v for c, (v, _) in encoded.items()},
        {c: names for c, (_, names) in encoded.items()},
    )
    return ImageDataset(name, domain, images, labels, classes, provenance, rows)


def _decode(file: Path, background: str = "white") -> Image.Image:
    try:
        with Image.open(file) as image:
            return opaque(image, background)
    except (
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:  # the warning where it is an error
        raise ValueError(
            f"picture {file} can't be decoded ({error}): mend or remove it, or load the folder with on_corrupt='skip'"
        ) from error


def _readable(file: Path) -> bool:
    try:
        _decode(file)
    except ValueError:
        return False
    return True


def pictures(root: Path) -> list[Path]:
    return sorted(
        f.relative_to(root)
        for f in root.rglob("*")
        if f.suffix.lower() in SUFFIXES and f.is_file() and not f.name.startswith(".")
    )


def read_csv(root: Path) -> pd.DataFrame:
    """Index: files relative to the root; columns: criteria."""
    source = root / "labels.csv"
    table = pd.read_csv(source, dtype=str, keep_default_na=False)
    if "file" not in table:
        raise ValueError(f"{source} has no column 'file', only: {', '.join(table.columns)}")
    table = table.set_index("file")
    if twice := [f for f, n in Counter(table.index).items() if n > 1]:
        raise ValueError(f"{source} names {twice[0]} more than once")
    for criterion in table.columns:
        if empty := table.index[table[criterion].str.strip() == ""].tolist():
            raise ValueError(
                f"{source}: {empty[0]} has no label for {criterion!r} ({len(empty)} such cells)"
            )
    if missing := [f for f in table.index if not (root / f).is_file()]:
        raise FileNotFoundError(
            f"{source} names {missing[0]}, which is not there ({len(missing)} such files)"
        )
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
    trees: dict[str, dict[str, Path]] = defaultdict(dict)
    for f in files:
        criterion, _, name = f.parts
        if name in trees[criterion]:
            raise ValueError(
                f"{root / criterion}: {name} stands in two classes, so its trees can't be matched by name: load each criterion's folder by itself"
            )
        trees[criterion][name] = f
    first, *others = trees
    for other in others:
        if odd := sorted(trees[first].keys() ^ trees[other].keys()):
            raise ValueError(
                f"{root}: {odd[0]} is not in both {first!r} and {other!r} ({len(odd)} such files): load each criterion's folder by itself"
            )
    names = sorted(trees[first])
    return pd.DataFrame(
        {c: [trees[c][n].parts[1] for n in names] for c in trees},
        index=[str(trees[first][n]) for n in names],
    )
