"""Figures of pictures next to words or classes: cosines, t-SNE panels, confusion matrices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from PIL import Image
from scipy.optimize import linear_sum_assignment

from mmclust.results.figures.theme import PALETTE, legend_above, looks, show_image, wrap
from mmclust.results.tables import without_negative_zero

FIGURE_WIDTH = 7.2  # inches
MOST_IN_CELL = 9  # entries of a legend that fit in a panel's cell


def tsne_panels(
    representations: Mapping[str, np.ndarray], labels: ArrayLike, names: Sequence[str],
    columns: int = 4, seed: int = 0,
) -> tuple[Figure, pd.DataFrame]:  # fmt: skip
    """t-SNE of each representation (n, d), as `class_panels`; and a tidy frame of the coordinates:
    panel, x, y, class."""
    points = {title: tsne(x, seed) for title, x in representations.items()}
    classes = [names[c] for c in np.asarray(labels)]
    frame = pd.DataFrame(np.concatenate(list(points.values())), columns=["x", "y"])
    frame.insert(0, "panel", np.repeat(list(points), len(classes)))
    frame["class"] = classes * len(points)
    return class_panels(points, labels, names, columns), frame


def tsne(x: np.ndarray, seed: int = 0, **options: Any) -> np.ndarray:
    """Positions (n, 2) of x (n, d) by t-SNE; `options` of scikit-learn's `TSNE`."""
    from sklearn.manifold import TSNE

    perplexity = min(30, max(2, (len(x) - 1) // 3))
    model = TSNE(perplexity=perplexity, init="pca", random_state=seed, **options)
    return model.fit_transform(np.asarray(x, np.float32))


def class_panels(
    points: Mapping[str, np.ndarray], labels: ArrayLike, names: Sequence[str], columns: int = 3
) -> Figure:
    """Points (n, 2), a panel per title, in the colors and markers of their classes: `labels` (n,)
    are indices in `names`. The legend is in the first cell without a panel, else above them."""
    columns = min(columns, len(points))
    rows = math.ceil(len(points) / columns)
    side = min(2.3, FIGURE_WIDTH / columns)
    size = (max(side * columns, 4), (side + 0.35) * rows + 0.3)
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    labels = np.asarray(labels)
    dots: dict[str, Any] = {"s": 17, "linewidths": 0.3, "edgecolors": "0.25"}
    for ax, (title, xy) in zip(axes.flat, points.items()):
        for c, (name, color, marker) in enumerate(looks(names)):
            ax.scatter(*xy[labels == c].T, color=color, marker=marker, label=name, **dots)
        ax.set(xticks=[], yticks=[])
        ax.set_title(wrap(title, 18), fontsize=10)
    for ax in axes.flat[len(points) :]:
        ax.axis("off")
    entries = axes.flat[0].get_legend_handles_labels()
    if len(points) < rows * columns and len(names) <= MOST_IN_CELL:
        axes.flat[len(points)].legend(*entries, loc="center", fontsize=10)
    else:
        legend_above(fig, axes.flat[0], *entries)
    return fig


def cosines(
    images: Sequence[Image.Image], prompts: Sequence[str], similarity: np.ndarray
) -> Figure:
    """A heat map of `similarity` (n, K): a row per picture, a column per prompt. The largest cosine
    of each row is framed."""
    n, width = len(images), 0.09 * 10  # inches of a column: ten letters
    fig = plt.figure(figsize=(0.7 + width * len(prompts), 0.62 * n + 0.9))
    grid = fig.add_gridspec(n, 2, width_ratios=(0.6, width * len(prompts)))
    ax = fig.add_subplot(grid[:, 1])
    style = {"cmap": "YlGnBu", "cbar": False, "linewidths": 0.5, "annot_kws": {"fontsize": 10.5}}
    cells = [[without_negative_zero(f"{value:.2f}") for value in row] for row in similarity]
    sns.heatmap(similarity, annot=np.array(cells), fmt="", ax=ax, **style)
    for i, image in enumerate(images):
        show_image(fig.add_subplot(grid[i, 0]), image)
        corner = (int(np.argmax(similarity[i])), i)
        frame: dict[str, Any] = {"edgecolor": PALETTE[5], "linewidth": 2.5, "zorder": 5}
        ax.add_patch(plt.Rectangle(corner, 1, 1, fill=False, **frame))
    texts = [wrap(prompt, 10) for prompt in prompts]
    ax.set_xticks(np.arange(len(prompts)) + 0.5, texts, fontsize=10)
    ax.set_yticks([])
    return fig


def confusion(
    labels: ArrayLike, truth: ArrayLike, names: Sequence[str], classes: Sequence[str]
) -> Figure:
    """A heat map of `confusion_table`: a row per cluster (name and size), a column per true class.

    `labels` and `truth` (n,): indices of each image's cluster in `names`, and class in `classes`.
    """
    table = confusion_table(labels, truth, names, classes)
    class_height = 0.1 * max(map(len, table.columns))  # inches of the vertical class names
    size = (0.4 * table.shape[1] + 2, 0.34 * table.shape[0] + class_height + 0.9)
    fig, ax = plt.subplots(figsize=size)
    texts = table.astype(str).where(table > 0, "")
    style = {"cmap": "Blues", "cbar": False, "linewidths": 0.6, "linecolor": "0.9"}
    sns.heatmap(table, annot=texts, fmt="", annot_kws={"fontsize": 9.5}, ax=ax, **style)
    ax.set_xticks(np.arange(table.shape[1]) + 0.5, table.columns, rotation=90, fontsize=10)
    ax.set_yticks(np.arange(table.shape[0]) + 0.5, table.index, rotation=0, fontsize=10)
    ax.set(xlabel="true class", ylabel="cluster (size)")
    return fig


def confusion_table(
    labels: ArrayLike, truth: ArrayLike, names: Sequence[str], classes: Sequence[str]
) -> pd.DataFrame:
    """Counts of images: a row per cluster that is not empty, a column per class.

    The Hungarian method matches clusters with classes, and matched pairs form the diagonal;
    clusters and classes without a match come last. Arguments: as for `confusion`.
    """
    labels = np.asarray(labels)
    counts = np.zeros((max(len(names), labels.max() + 1), len(classes)), int)
    np.add.at(counts, (labels, np.asarray(truth)), 1)
    present = np.flatnonzero(counts.sum(1))
    clusters, matches = linear_sum_assignment(-counts[present])
    pairs = sorted(zip(matches, present[clusters]))
    across = [c for c, _ in pairs] + [c for c in range(len(classes)) if c not in matches]
    down = [r for _, r in pairs] + [r for r in present if r not in present[clusters]]
    index = [f"{wrap(names[r])} ({counts[r].sum()})" for r in down]
    columns = [str(classes[c]) for c in across]
    return pd.DataFrame(counts[np.ix_(down, across)], index=index, columns=columns)
