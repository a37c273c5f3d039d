"""Figures of pictures: members of each cluster, samples of data sets, one set sorted twice."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import ArrayLike
from PIL import Image

from mmclust.data.images import ImageDataset
from mmclust.results.figures.theme import class_colors, row_title, show_image, wrap

TITLE_LETTER = 0.093  # inches, mean width of a letter in a row title
TITLE_LINE = 0.19  # inches, height of a line in a row title


def _draw_row(row: Any, images: list[Image.Image], edge: Any = None) -> None:
    """A picture per panel of a row; panels without a picture are blank."""
    for ax in row[len(images) :]:
        ax.axis("off")
    for ax, image in zip(row, images):
        show_image(ax, image, edge)


def gallery(
    images: Sequence[Image.Image], labels: ArrayLike, names: Sequence[str],
    title: str | None = None, per_cluster: int = 8,
) -> Figure:  # fmt: skip
    """A row of pictures for each cluster, with its name and size.

    Up to `per_cluster` members of a cluster are drawn, evenly spaced over their order, because the
    files of a folder are often sorted by class. `labels` (n,); `names`, one per cluster.
    """
    labels = np.asarray(labels)
    clusters = [c for c in range(len(names)) if (labels == c).any()]
    colors = class_colors([names[c] for c in clusters])
    titles = [f"{wrap(names[c], 16)}\n{(labels == c).sum()} images" for c in clusters]
    side = min(0.75, 5.6 / per_cluster)
    heights = [max(side, TITLE_LINE * (1 + text.count("\n"))) for text in titles]
    size = (side * per_cluster + 1.5, sum(heights) * 1.05 + (0.4 if title else 0.1))
    fig, axes = plt.subplots(
        len(clusters), per_cluster, figsize=size, squeeze=False, height_ratios=heights
    )
    for row, c, color, text in zip(axes, clusters, colors, titles):
        members = np.flatnonzero(labels == c)
        spread = np.unique(np.linspace(0, len(members) - 1, per_cluster).astype(int))
        _draw_row(row, [images[int(i)] for i in members[spread]], color)
        row_title(row[0], text, 10.5)
    if title:
        fig.suptitle(wrap(title, 60), fontweight="bold", fontsize=12)
    return fig


def sample_grid(datasets: Mapping[str, ImageDataset], columns: int = 8) -> Figure:
    """A row with the first pictures of each data set, titled with its name and, if they are not the
    same for all, its criteria."""
    size = (0.66 * columns + 1.9, 0.7 * len(datasets))
    fig, axes = plt.subplots(len(datasets), columns, figsize=size, squeeze=False)
    criteria = {name: " × ".join(data.criteria) or "no labels" for name, data in datasets.items()}
    one_for_all = len(datasets) > 1 and len(set(criteria.values())) == 1
    for row, (name, data) in zip(axes, datasets.items()):
        _draw_row(row, [data.images[i] for i in range(min(columns, len(data)))])
        row_title(row[0], wrap(name) if one_for_all else f"{wrap(name)}\n{wrap(criteria[name])}")
    return fig


def teaser(
    images: Sequence[Image.Image], clusterings: Mapping[str, tuple[np.ndarray, Sequence[str]]],
    columns: int = 5, rows: int = 6,
) -> Figure:  # fmt: skip
    """The idea in one figure: the same images unsorted, then sorted into rows once per keyword.

    `clusterings`: keyword -> (labels (n,), names per cluster); `columns` and `rows`: pictures
    across and down in each panel.
    """
    first = list(range(min(len(images), columns * rows)))
    unsorted = [first[i : i + columns] for i in range(0, len(first), columns)]
    # title, indices of the pictures in each row, names of the rows
    panels: list[tuple[str, list[list[int]], list[str]]] = [("images", unsorted, [])]
    for keyword, (labels, names) in clusterings.items():
        sizes = np.bincount(labels, minlength=len(names))
        largest = sorted(c for c in np.argsort(-sizes, kind="stable")[:rows] if sizes[c])
        members = [np.flatnonzero(labels == c)[:columns].tolist() for c in largest]
        panels.append((f"keyword: “{keyword}”", members, [wrap(names[c], 16) for c in largest]))
    widths = []
    for *_, names in panels:
        letters = max(len(line) for name in names or [""] for line in name.split("\n"))
        widths.append(0.34 * columns + 0.14 + TITLE_LETTER * letters)
    lines = max((1 + name.count("\n") for *_, names in panels for name in names), default=1)
    height = max(0.4, 0.18 * lines) * rows + 0.35
    fig = plt.figure(figsize=(sum(widths) + 0.1 * len(panels), height))
    layout = fig.get_layout_engine()
    if isinstance(layout, ConstrainedLayoutEngine):  # set by `use_theme`
        layout.set(wspace=0, hspace=0, w_pad=0.03, h_pad=0.02)
    subfigures = fig.subfigures(1, len(panels), squeeze=False, width_ratios=widths)
    for subfigure, (title, members, names) in zip(subfigures.flat, panels):
        subfigure.suptitle(title, fontsize=12, fontweight="bold")
        axes = subfigure.subplots(rows, columns, squeeze=False)
        for row, numbers in itertools.zip_longest(axes, members, fillvalue=()):
            _draw_row(row, [images[i] for i in numbers])
        for row, name in zip(axes, names):
            row_title(row[0], name)
    return fig
