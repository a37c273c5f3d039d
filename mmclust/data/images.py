"""The one type for data: images that are decoded when they are needed, and named labellings of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import pandas as pd


class Images(Sequence[Image.Image]):
    """n RGB pictures, each made by `make(i)` when it is asked for.

    `fingerprint` names their content: equal fingerprints, equal pictures. `describe(i)` says which picture is meant in an error. Encoders call
    `make` from several threads at a time.
    """

    def __init__(
        self,
        n: int,
        make: Callable[[int], Image.Image],
        fingerprint: str,
        describe: Callable[[int], str] = "picture {}".format,
    ) -> None:
        self._indices, self._make, self._describe, self._whole = (
            np.arange(n),
            make,
            describe,
            fingerprint,
        )

    @classmethod
    def of(cls, images: Pictures) -> Images:
        """Images as they are, or from a list of PIL pictures or uint8 arrays (h, w, 3). What is transparent in them is shown on white."""
        if isinstance(images, Images):
            return images
        if isinstance(images, (str, Path)):
            raise TypeError(
                f"images are expected, not the path {str(images)!r}: load it with mm.load_folder first"
            )
        pictures = [
            im if isinstance(im, Image.Image) else Image.fromarray(np.asarray(im)) for im in images
        ]
        digest = hashlib.sha256()
        for picture in pictures:
            digest.update(
                f"{picture.mode}{picture.size}{' on white' * transparent(picture)}".encode()
                + picture.tobytes()
            )
        return cls(len(pictures), lambda i: opaque(pictures[i]), digest.hexdigest())

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self._whole.encode() + self._indices.tobytes()).hexdigest()

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
        part = Images.__new__(Images)
        part.__dict__.update(self.__dict__, _indices=self._indices[key])
        return part

    def cached(self) -> Images:
        """The same images, each kept in memory once it was made: for small ones that cost more to make."""
        part = self[:]
        part._make = cache(self._make)
        return part

    def __iter__(self) -> Iterator[Image.Image]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"<{len(self)} images, {self.fingerprint[:8]}>"


Pictures = (
    Sequence[Image.Image | np.ndarray] | np.ndarray
)  # `Images`, a list of PIL pictures or of uint8 arrays (h, w, 3), or all in one array


def transparent(picture: Image.Image) -> bool:
    """Whether a picture may have transparent parts: an alpha channel, or a transparent color."""
    return picture.mode in ("RGBA", "RGBa", "LA", "PA") or (
        "transparency" in picture.info and picture.mode in ("1", "L", "P", "RGB")
    )


def opaque(picture: Image.Image, background: str = "white") -> Image.Image:
    """The picture in RGB, its transparent parts on a background: they have no color of their own, and most files hold black there."""
    if not transparent(picture):
        return picture.convert("RGB")
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, background), picture).convert(
        "RGB"
    )


class Labellings(dict):
    """criterion -> integer labels (n,). An unknown criterion gets an error that lists the known ones."""

    def __init__(self, dataset: str, labels: dict[str, np.ndarray]):
        super().__init__(labels)
        self.dataset = dataset

    def __missing__(self, criterion: str) -> np.ndarray:
        raise ValueError(
            f"criterion {criterion!r} not in {self.dataset}: {', '.join(self) or 'it has no labels'}"
        )


@dataclass
class ImageDataset:
    """Images with named labellings.

    Attributes:
        name: of the data set, such as "demo-fruit".
        domain: what the pictures show, the first word of a prompt: "fruit", "card", "face", "photo".
        images: n lazily decoded pictures.
        labels: criterion -> int64 (n,), positions in `classes[criterion]`.
        classes: criterion -> class names.
        provenance: one sentence on where the pictures come from.
        derived_criteria: criteria that follow from another one, such as the shape of a fruit from its species.
    """

    name: str
    domain: str
    images: Images
    labels: dict[str, np.ndarray]
    classes: dict[str, list[str]]
    provenance: str = ""
    rows: list[dict] = field(default_factory=list, repr=False)
    derived_criteria: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.labels = Labellings(
            self.name, {c: np.asarray(v, np.int64) for c, v in self.labels.items()}
        )
        for criterion, values in self.labels.items():
            if len(values) != len(self.images):
                raise ValueError(
                    f"{self.name}: {len(values)} labels of {criterion!r} for {len(self.images)} images"
                )

    @property
    def criteria(self) -> list[str]:
        return list(self.labels)

    @property
    def independent_criteria(self) -> list[str]:
        """The criteria that do not follow from another one; Multi-MaP contrasts these."""
        return [c for c in self.labels if c not in self.derived_criteria]

    def n_clusters(self, criterion: str) -> int:
        """The number of true classes, which the papers give to every method."""
        return len(np.unique(self.labels[criterion]))

    def frame(self) -> pd.DataFrame:
        """The labels as class names: a pandas DataFrame, a row per image, a column per criterion."""
        import pandas as pd

        return pd.DataFrame(
            {c: [self.classes[c][k] for k in self.labels[c]] for c in self.criteria},
            index=range(len(self)),
        )

    def describe(self, shown: int = 8) -> list[dict]:
        """A row per criterion: data set, images, criterion, clusters, classes (the first of them)."""
        return [
            {
                "data set": self.name,
                "images": len(self),
                "criterion": c,
                "clusters": self.n_clusters(c),
            }
            | {
                "classes": ", ".join(self.classes[c][:shown])
                + ", ..." * (len(self.classes[c]) > shown)
            }
            for c in self.criteria
        ]

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: Sequence[int] | np.ndarray | slice) -> ImageDataset:
        """The same data set with the images at `indices` (n',), in that order."""
        indices = np.arange(len(self))[indices]
        rows = [self.rows[i] for i in indices] if self.rows else []
        return ImageDataset(
            self.name,
            self.domain,
            self.images[indices],
            {c: v[indices] for c, v in self.labels.items()},
            self.classes,
            self.provenance,
            rows,
            self.derived_criteria,
        )


def encode_labels(
    values: Sequence[str], order: Sequence[str] | None = None
) -> tuple[np.ndarray, list[str]]:
    """Class names (n,) to integers (n,) and the list they point into: in `order`, or sorted."""
    classes = list(order) if order is not None else sorted(set(values))
    position = {c: i for i, c in enumerate(classes)}
    return np.array([position[v] for v in values], np.int64), classes
