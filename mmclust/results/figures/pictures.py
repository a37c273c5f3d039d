"""Figures of pictures: members of each cluster, samples of data sets, one set sorted twice."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import ArrayLike
from PIL import Image

from mmclust.data.images import ImageDataset, Images
from mmclust.data.rendered import COLORS
from mmclust.results.figures.theme import (
    LARGEST,
    class_colors,
    row_title,
    show_image,
    without_number,
    wrap,
)

TITLE_LETTER = 0.093  # inches, mean width of a letter in a row title
TEXT_MARGIN = 0.14  # inches, next to the names of rows
BETWEEN_PANELS = 0.28  # inches, so that a name does not seem to belong to the panel on its left
BETWEEN_CLUSTERS = 0.12  # inches, where a cluster has several rows
MOST_WIDTH = 7.4  # inches, of a figure
TITLE_LINE = 0.19  # inches, height of a line in a row title


def misplaced(labels: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """Whether an image is of another class than most of its cluster: (n,), of bool.

    `labels` and `truth` (n,): the cluster and the class of each image, from 0."""
    labels = np.asarray(labels)
    truth = np.asarray(truth)
    counts = np.zeros((labels.max() + 1, truth.max() + 1), int)
    np.add.at(counts, (labels, truth), 1)
    return truth != counts.argmax(1)[labels]


def _draw_row(
    row: Any, images: Sequence[Image.Image], members: Iterable[int], edge: Any = None,
    wrong: np.ndarray | None = None,
) -> None:  # fmt: skip
    """The pictures `members` in the panels of a row, `wrong` (n,) ones marked; other panels are
    blank."""
    for ax, i in itertools.zip_longest(row, members):
        if i is None:
            ax.axis("off")
        else:
            if isinstance(images, Images):
                image = images.reduced(int(i), LARGEST)  # large files are decoded faster
            else:
                image = images[int(i)]
            show_image(ax, image, edge, wrong is not None and bool(wrong[i]))


def gallery(
    images: Sequence[Image.Image], labels: ArrayLike, names: Sequence[str],
    title: str | None = None, per_cluster: int = 8, truth: ArrayLike | None = None,
    columns: int | None = None,
) -> Figure:  # fmt: skip
    """Rows of `columns` pictures for each cluster, with its name and size; by default one row.

    Up to `per_cluster` members of a cluster are drawn, evenly spaced over their order, because the
    files of a folder are often sorted by class. `labels` (n,); `names`, one per cluster; `truth`
    (n,): the true classes, with which `misplaced` pictures are marked, and the others counted.
    """
    labels = np.asarray(labels)
    clusters = [c for c in range(len(names)) if (labels == c).any()]
    colors = ["0.75"] * len(clusters)  # a frame of any color would disturb the pictures
    if set(without_number(names)) <= set(COLORS):
        colors = class_colors([names[c] for c in clusters])
    wrong = None if truth is None else misplaced(labels, truth)
    counts = [int((labels == c).sum()) for c in clusters]
    sizes = ["1 picture" if n == 1 else f"{n} pictures" for n in counts]
    if wrong is not None:
        sizes = [f"{(~wrong[labels == c]).sum()} of {n}" for c, n in zip(clusters, counts)]
    titles = [f"{wrap(names[c], 16)}\n{size}" for c, size in zip(clusters, sizes)]
    columns = min(columns or per_cluster, per_cluster)
    rows: list[tuple[np.ndarray, Any, str]] = []  # pictures, color, title
    spaced = min(max(counts), per_cluster) > columns
    for c, color, text in zip(clusters, colors, titles):
        members = np.flatnonzero(labels == c)
        if spaced and rows:
            rows.append((members[:0], color, ""))
        spread = np.unique(np.linspace(0, len(members) - 1, per_cluster).astype(int))
        parts = np.array_split(members[spread], range(columns, len(spread), columns))
        rows += [(part, color, "" if k else text) for k, part in enumerate(parts)]
    side = min(0.75, 5.6 / columns)
    heights = [
        max(side, TITLE_LINE * (1 + text.count("\n"))) if len(part) else BETWEEN_CLUSTERS
        for part, _, text in rows
    ]
    size = (side * columns + 1.5, sum(heights) * 1.05 + (0.4 if title else 0.1))
    fig, axes = plt.subplots(len(rows), columns, figsize=size, squeeze=False, height_ratios=heights)
    for panels, (members, color, text) in zip(axes, rows):
        _draw_row(panels, images, members, color, wrong)
        row_title(panels[0], text, 10.5)
    if title:
        fig.suptitle(wrap(title, 60), fontweight="bold", fontsize=12)
    return fig


def mistakes(
    images: Sequence[Image.Image], texts: Mapping[int, str], columns: int = 5, most: int = 15
) -> Figure:
    """Pictures with a text of a few short lines below each. `texts`: index of the picture -> text;
    the first `most` of them are drawn."""
    chosen = dict(itertools.islice(texts.items(), most))
    rows = -(-len(chosen) // columns)
    columns = -(-len(chosen) // rows)
    lines = max(1 + text.count("\n") for text in chosen.values())
    size = (1.45 * columns, (0.95 + TITLE_LINE * lines) * rows)
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for ax, item in itertools.zip_longest(axes.flat, chosen.items()):
        if item is None:
            ax.axis("off")
            continue
        show_image(ax, images[item[0]])
        ax.set_xlabel(item[1], fontsize=9)
    return fig


def sample_grid(datasets: Mapping[str, ImageDataset], columns: int = 6) -> Figure:
    """A row with the first pictures of each data set, titled with its name and, if they are not the
    same for all, its criteria, with the classes of each picture below it."""
    criteria = {name: " × ".join(data.criteria) or "no labels" for name, data in datasets.items()}
    one_for_all = len(datasets) > 1 and len(set(criteria.values())) == 1
    lines = [0 if one_for_all else len(data.criteria) for data in datasets.values()]
    heights = [0.72 + TITLE_LINE * n for n in lines]
    size = (0.95 * columns + 1.5, sum(heights))
    if one_for_all:
        size = (0.7 * columns + 1.9, sum(heights))
    options: dict[str, Any] = {"figsize": size, "squeeze": False, "height_ratios": heights}
    fig, axes = plt.subplots(len(datasets), columns, **options)
    for row, (name, data) in zip(axes, datasets.items()):
        _draw_row(row, data.images, range(min(columns, len(data))))
        if one_for_all:
            row_title(row[0], wrap(name))
            continue
        row_title(row[0], "\n".join([wrap(name), *(f"{c} ×" for c in data.criteria)])[:-2])
        for i, ax in enumerate(row[: len(data)]):
            classes = [str(data.classes[c][data.labels[c][i]]) for c in data.criteria]
            ax.set_xlabel("\n".join(classes), fontsize=9)
    return fig


def teaser(
    images: Sequence[Image.Image], clusterings: Mapping[str, tuple[np.ndarray, Sequence[str]]],
    truth: Mapping[str, ArrayLike] | None = None, n: int = 24,
) -> Figure:  # fmt: skip
    """The idea in one figure: the first n pictures unsorted, and the same ones sorted into rows
    once per keyword.

    `clusterings`: keyword -> (labels of all images, names per cluster); `truth`: keyword -> the
    true classes of all images, with which `misplaced` pictures are marked.
    """
    n = min(len(images), n)
    # title, indices of the pictures in each row, names of the rows, marks
    panels: list[tuple[str, list[np.ndarray], list[str], Any]] = []
    for keyword, (labels, names) in clusterings.items():
        present = np.unique(labels[:n])
        members = [np.flatnonzero(labels[:n] == c) for c in present]
        wrong = misplaced(labels, truth[keyword]) if truth else None
        panels.append((f"by {keyword}", members, [wrap(names[c], 16) for c in present], wrong))
    rows = max(len(members) for _, members, *_ in panels)
    unsorted = np.array_split(np.arange(n), rows)
    panels.insert(0, (f"{n} pictures", unsorted, [], None))
    columns = [max(map(len, members)) for _, members, *_ in panels]
    texts = []  # inches, of the names
    for _, _, names, _ in panels:
        letters = max(len(line) for name in names or [""] for line in name.split("\n"))
        texts.append(TEXT_MARGIN + TITLE_LETTER * letters)
    gaps = BETWEEN_PANELS * (len(panels) - 1)
    side = round(min(0.4, (MOST_WIDTH - sum(texts) - gaps) / sum(columns)), 2)
    widths = [side * count + text for count, text in zip(columns, texts)]
    lines = max((1 + name.count("\n") for _, _, names, _ in panels for name in names), default=1)
    fig = plt.figure(figsize=(sum(widths) + gaps, max(side * 1.1, 0.18 * lines) * rows + 0.35))
    layout = fig.get_layout_engine()
    if isinstance(layout, ConstrainedLayoutEngine):  # set by `use_theme`
        layout.set(wspace=0, hspace=0, w_pad=0.03, h_pad=0.02)
    ratios = np.full(2 * len(panels) - 1, BETWEEN_PANELS)  # empty subfigures between the panels
    ratios[::2] = widths
    subfigures = fig.subfigures(1, len(ratios), squeeze=False, width_ratios=ratios)[0, ::2]
    titles = []
    for subfigure, (title, members, names, wrong), count in zip(subfigures, panels, columns):
        titles.append(subfigure.suptitle(title, fontsize=12, fontweight="bold"))
        axes = subfigure.subplots(rows, count, squeeze=False)
        for row, numbers in itertools.zip_longest(axes, members, fillvalue=()):
            _draw_row(row, images, numbers, wrong=wrong)
        for row, name in zip(axes, names):
            row_title(row[0], name)
    # The layout's last digits differ from run to run; the files should not.
    fig.draw_without_rendering()
    fig.set_layout_engine("none")
    for ax in fig.axes:
        left, bottom, width, height = np.round(ax.get_position().bounds, 6)
        ax.set_position((left, bottom, width, height))
    for text in titles:
        text.set_y(round(text.get_position()[1], 6))
    return fig
