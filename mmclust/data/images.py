"""The one type for data: images with named labels.

Images are decoded when they are used, and not kept: a data set may be larger than the memory. The
fingerprint identifies the pictures; features are stored under it.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from PIL import Image

from mmclust.data.decoding import as_seen
from mmclust.profiles.values import brief, hint, same_name

if TYPE_CHECKING:
    import pandas as pd


class Images(Sequence[Image.Image]):
    """n RGB pictures, each made when it is asked for.

    Args:
        make: position -> picture. Encoders call it from several threads at a time.
        fingerprint: identifies the content: the same fingerprint means the same pictures. Or a
            function that returns that of the pictures at its argument, positions (n',).
        describe: position -> how an error names that picture.
        make_reduced: (position, side) -> picture, which may be scaled down, but to no less than
            `side` pixels on either side: files can be decoded faster so. By default, `make`.
    """

    def __init__(
        self,
        n: int,
        make: Callable[[int], Image.Image],
        fingerprint: str | Callable[[np.ndarray], str],
        describe: Callable[[int], str] = "picture {}".format,
        make_reduced: Callable[[int, int], Image.Image] | None = None,
    ) -> None:
        self._indices = np.arange(n)
        self._make = make
        self._make_reduced = make_reduced
        self._content = fingerprint
        self._describe = describe

    @classmethod
    def of(cls, images: Pictures) -> Images:
        """`Images` unchanged, or made of PIL pictures (as `load_folder` decodes them) or of arrays.

        Raises:
            TypeError: something else than pictures, such as paths, floats, or channels first.
        """
        if isinstance(images, Images):
            return images
        other = ""
        if isinstance(images, (str, Path)):
            other = f"a path: mm.load_folder({str(images)!r})"
        elif isinstance(images, ImageDataset):
            other = f"the data set {images.name!r}: give its .images"
        elif isinstance(images, Image.Image) or not isinstance(images, Iterable):
            other = f"{type(images).__name__}: give a list of pictures"
        elif isinstance(images, np.ndarray) and images.dtype != object:
            shape = images.shape
            if len(shape) < 3 or shape[2:] in CHANNELS:
                other = f"an array {shape}: give (n, h, w, 3), or one picture in a list"
        if other:
            raise TypeError(f"images are required, not {other}")
        pictures = [_picture(image, i) for i, image in enumerate(images)]
        digest = hashlib.sha256()
        for picture in pictures:
            seen = as_seen(picture)
            digest.update(f"{seen.size}".encode() + seen.tobytes())
        return cls(len(pictures), lambda i: as_seen(pictures[i]), digest.hexdigest())

    @property
    def fingerprint(self) -> str:
        if callable(self._content):
            return self._content(self._indices)
        return hashlib.sha256(self._content.encode() + self._indices.tobytes()).hexdigest()

    def describe(self, i: int) -> str:
        return self._describe(int(self._indices[i]))

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, key: int | np.integer) -> Image.Image: ...
    @overload
    def __getitem__(self, key: slice | Sequence[int] | np.ndarray) -> Images: ...
    def __getitem__(self, key: Any) -> Image.Image | Images:
        if isinstance(key, (int, np.integer)):
            return self._make(int(self._indices[key]))
        chosen = copy(self)
        chosen._indices = self._indices[key]
        return chosen

    def reduced(self, i: int, side: int | None) -> Image.Image:
        """Picture i, perhaps scaled down, but to no less than `side` pixels on either side."""
        if side is None or self._make_reduced is None:
            return self[i]
        return self._make_reduced(int(self._indices[i]), side)

    def cached(self) -> Images:
        """The same images, each kept in memory once it was made: for few and small ones."""
        images = copy(self)
        images._make = cache(self._make)
        images._make_reduced = self._make_reduced and cache(self._make_reduced)
        return images

    def __repr__(self) -> str:
        return f"<{len(self)} images>"


# `Images`, a list of PIL pictures or of uint8 arrays (h, w, 3), or one array (n, h, w, 3)
Pictures = Sequence[Image.Image | np.ndarray] | np.ndarray
CHANNELS = ((1,), (3,), (4,))  # gray, RGB, RGB with alpha


def _picture(image: Any, i: int) -> Image.Image:
    """A PIL picture of item `i` of a list; an array is taken if it has only one meaning."""
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, (str, Path)):
        raise TypeError(f"picture {i} is a path, {str(image)!r}: give PIL.Image.open of it")
    x = np.asarray(image)
    if x.dtype == bool:
        x = x.astype(np.uint8) * 255
    if x.dtype == np.uint8 and x.size and (x.ndim == 2 or x.shape[2:] in CHANNELS):
        return Image.fromarray(x[..., 0] if x.shape[2:] == (1,) else x)
    raise TypeError(
        f"picture {i}: a PIL picture or an array uint8 (h, w, 3) is expected, not {x.dtype} "
        f"{x.shape}; x.transpose(1, 2, 0) puts channels last; (255 * x).astype('uint8') is for "
        "floats from 0 to 1, (x // 257).astype('uint8') for uint16"
    )


class Labels(dict):
    """criterion -> integer labels (n,). The error for an unknown criterion lists the known ones."""

    def __init__(self, dataset: str, labels: dict[str, np.ndarray]):
        super().__init__(labels)
        self.dataset = dataset

    def __missing__(self, criterion: str) -> np.ndarray:
        raise ValueError(unknown_criterion(criterion, self.dataset, self))


def unknown_criterion(criterion: str, dataset: str, known: Sequence[str] | dict) -> str:
    """The message for a criterion that a data set does not have."""
    listed = ", ".join(known) or "it has no labels"
    return f"criterion {brief(criterion)} is not in {dataset} ({listed}){hint(criterion, known)}"


def clean(name: str) -> str:
    """A name as it is compared and printed: accents composed, no space around it."""
    return unicodedata.normalize("NFC", name).strip()


def counted(names: Sequence[object], noun: str, most: int = 5) -> str:
    """Their number and the first of them: "2 pictures (a.png, b.png)"."""
    listed = ", ".join([*map(str, names[:most]), "..."][: len(names)])
    ending = "es" if noun.endswith("s") else "s"
    return f"{len(names):,} {noun}{'' if len(names) == 1 else ending} ({listed})"


@dataclass
class ImageDataset:
    """Images with named labels. ValueError: a label that is missing, or of no class.

    Attributes:
        domain: what the pictures show, the first word of a prompt: "fruit", "card", "photo".
        labels: criterion -> int64 (n,), positions in `classes[criterion]`.
        classes: criterion -> class names.
        provenance: one sentence on where the pictures come from.
        notes: what was left out or might be meant otherwise, a sentence each.
        rows: what is known about each picture: n dictionaries, or an empty list.
        derived_criteria: those that follow from another one, as a fruit's shape from its species.
    """

    name: str
    domain: str
    images: Images
    labels: dict[str, np.ndarray] = field(repr=False)
    classes: dict[str, list[str]]
    provenance: str = ""
    rows: list[dict] = field(default_factory=list, repr=False)
    derived_criteria: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for criterion, values in self.labels.items():
            if len(values) != len(self):
                counts = f"{len(values)} labels of {criterion!r} for {len(self)} images"
                raise ValueError(f"{self.name}: {counts}")
            n_classes = len(self.classes.get(criterion, []))
            wrong = np.asarray(values)[~np.isin(values, np.arange(n_classes))]
            if len(wrong):
                rule = f"a label is a position in the {n_classes} class names"
                advice = "leave out pictures without a label"
                text = f"{wrong[0]} is a label of {criterion!r}: {rule}; {advice}"
                raise ValueError(f"{self.name}: {text}")
        labels = {c: np.asarray(v, np.int64) for c, v in self.labels.items()}
        self.labels = Labels(self.name, labels)

    @property
    def criteria(self) -> list[str]:
        return list(self.labels)

    @property
    def independent_criteria(self) -> list[str]:
        """The criteria that do not follow from another one; Multi-MaP contrasts these."""
        return [c for c in self.labels if c not in self.derived_criteria]

    def criterion(self, keyword: str | None) -> str | None:
        """The criterion that a keyword means, up to case, plural and spelling; the keyword itself
        if it means none. Without a keyword the first criterion but "class", which class folders
        have whatever they mean; None if there is none."""
        if keyword is None:
            return next((criterion for criterion in self.labels if criterion != "class"), None)
        return same_name(keyword, self.labels)

    def n_clusters(self, criterion: str) -> int:
        """The number of true classes that occur; the papers give it to every method."""
        return len(np.unique(self.labels[criterion]))

    def frame(self) -> pd.DataFrame:
        """The class names: a row per image, a column per criterion."""
        import pandas as pd

        names = {c: [self.classes[c][k] for k in self.labels[c]] for c in self.criteria}
        return pd.DataFrame(names, index=range(len(self)))

    def describe(self) -> list[dict]:
        """A row per criterion: data set, images, criterion, clusters, its first classes."""
        rows = []
        for criterion in self.criteria:
            classes = self.classes[criterion]
            listed = ", ".join([*classes[:8], "..."][: len(classes)])
            row = {"data set": self.name, "images": len(self), "criterion": criterion}
            rows.append(row | {"clusters": self.n_clusters(criterion), "classes": listed})
        return rows

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: Sequence[int] | np.ndarray | slice) -> ImageDataset:
        """The same data set with the images at `indices` (n',), in that order."""
        positions = np.arange(len(self))[indices]
        return replace(
            self,
            images=self.images[positions],
            labels={c: v[positions] for c, v in self.labels.items()},
            rows=[self.rows[i] for i in positions] if self.rows else [],
        )


def encode_labels(
    columns: Mapping[str, Sequence[str]], orders: Mapping[str, Sequence[str]] | None = None
) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """Class names (n,) per criterion as `labels` and `classes` of an `ImageDataset`.

    Classes are those of `orders`, in its order; without `orders` those that occur, sorted.
    """
    labels = {}
    classes = {}
    for criterion, values in columns.items():
        classes[criterion] = list(orders[criterion] if orders else sorted(set(values)))
        position = {name: k for k, name in enumerate(classes[criterion])}
        labels[criterion] = np.array([position[v] for v in values], np.int64)
    return labels, classes
