"""Figures: one theme, readable in a column and on a projector, colors that colour-blind readers tell apart."""

from __future__ import annotations

import colorsys

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from mmclust.worlds import COLORS

PALETTE = "colorblind"


def use_theme() -> None:
    """Set the house style for the figures that follow; SVGs come out the same bytes each time."""
    sns.set_theme(context="notebook", style="whitegrid", palette=PALETTE, font="DejaVu Sans")
    mpl.rcParams.update(
        {
            "figure.dpi": 110,
            "savefig.dpi": 200,
            "savefig.bbox": "tight",
            "savefig.pad_inches": 0.08,
            "axes.titleweight": "bold",
            "axes.titlesize": 12,
            "svg.hashsalt": "mmclust",
            "figure.constrained_layout.use": True,
        }
    )


def show_image(ax, image, title: str | None = None, edge: str | None = None) -> None:
    """One picture without ticks; `edge` colors its frame."""
    ax.imshow(np.asarray(image), interpolation="nearest" if max(image.size) < 64 else "antialiased")
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set(visible=edge is not None, color=edge, linewidth=2.5)
    if title:
        ax.set_title(title, fontsize=10, fontweight="normal", pad=3)


def gallery(images, labels, names, title: str | None = None, per_cluster: int = 8, order=None):
    """A row of members for each cluster, with its name and size.

    Args:
        images: n pictures; labels (n,); names, one per cluster.
        per_cluster: pictures in a row.
        order: ranking key (n,), larger first: which members stand for their cluster. Default: evenly spread over its members, so that a
            folder whose files are sorted by class shows more than its first class.

    Returns:
        The matplotlib figure.
    """
    labels = np.asarray(labels)
    clusters = [c for c in range(len(names)) if (labels == c).any()]
    colors = sns.color_palette(PALETTE, max(len(clusters), 1))
    fig, axes = plt.subplots(len(clusters), per_cluster, figsize=(0.95 * per_cluster + 1.6, 0.98 * len(clusters) + (0.45 if title else 0.1)), squeeze=False)
    for row, color, c in zip(axes, [colors[i % len(colors)] for i in range(len(clusters))], clusters):
        members = np.flatnonzero(labels == c)
        if order is not None:
            shown = members[np.argsort(-np.asarray(order)[members], kind="stable")][:per_cluster]
        else:
            shown = members[np.unique(np.linspace(0, len(members) - 1, per_cluster).astype(int))]
        for ax, i in zip(row, shown):
            show_image(ax, images[int(i)], edge=color)
        for ax in row[len(shown) :]:
            ax.axis("off")
        row[0].set_ylabel(f"{names[c]}\n{len(members)} images", rotation=0, ha="right", va="center", fontsize=11, labelpad=8)
    if title:
        fig.suptitle(title, fontweight="bold")
    return fig


def sample_grid(datasets: dict, columns: int = 10):
    """A row of pictures for each data set, its name and criteria beside it."""
    fig, axes = plt.subplots(len(datasets), columns, figsize=(1.0 * columns + 2.4, 1.05 * len(datasets)), squeeze=False)
    for row, (name, data) in zip(axes, datasets.items()):
        for ax, i in zip(row, range(min(columns, len(data)))):
            show_image(ax, data.images[i])
        for ax in row[len(data) :]:
            ax.axis("off")
        row[0].set_ylabel(f"{name}\n{' × '.join(data.criteria) or 'no labels'}", rotation=0, ha="right", va="center", fontsize=10, labelpad=8)
    return fig


def score_bars(rows, metric: str = "NMI", title: str | None = None):
    """Bars of one metric: criteria across, methods in color. `rows`: a tidy frame with criterion, method and the metric."""
    fig, ax = plt.subplots(figsize=(max(5.5, 1.5 * rows["criterion"].nunique() + 3), 3.2))
    sns.barplot(rows, x="criterion", y=metric, hue="method", ax=ax, errorbar=None)
    for bars in ax.containers:
        ax.bar_label(bars, fmt="%.2f", fontsize=8.5, padding=1)
    ax.set(ylim=(0, 1.12), xlabel="the keyword that was asked for", ylabel=f"{metric} with the true classes")
    ax.set_yticks(np.linspace(0, 1, 6))
    ax.set_axisbelow(True)
    ax.grid(axis="y", alpha=0.5)
    sns.despine(ax=ax, left=True)
    if title:
        ax.set_title(title)
    sns.move_legend(ax, "upper left", bbox_to_anchor=(1.01, 1), frameon=False, title=None)
    return fig


def teaser(images, clusterings: dict, columns: int = 6, rows: int = 6):
    """The idea in one picture: the same images as they come, then once per keyword sorted into rows.

    Args:
        images: n pictures.
        clusterings: keyword -> (labels (n,), names per cluster).
        columns, rows: pictures across and down in each panel.
    """
    n_panels = 1 + len(clusterings)
    fig = plt.figure(figsize=(4.1 * n_panels, 0.58 * rows + 0.55))
    panels = fig.subfigures(1, n_panels, width_ratios=[1] + [1.22] * len(clusterings))
    first = list(range(min(len(images), columns * rows)))
    _mosaic(panels[0], [first[i : i + columns] for i in range(0, len(first), columns)], images, None)
    panels[0].suptitle("images", fontsize=14, fontweight="bold")
    for panel, (keyword, (labels, names)) in zip(panels[1:], clusterings.items()):
        sizes = np.bincount(labels, minlength=len(names))
        largest = [c for c in np.argsort(-sizes, kind="stable")[:rows] if sizes[c]]
        lines = [np.flatnonzero(labels == c)[:columns].tolist() for c in sorted(largest)]
        _mosaic(panel, lines, images, [names[c] for c in sorted(largest)])
        panel.suptitle(f"keyword: “{keyword}”", fontsize=14, fontweight="bold")
    return fig


def _mosaic(panel, lines: list[list[int]], images, names) -> None:
    axes = panel.subplots(len(lines), max(map(len, lines)), squeeze=False)
    for k, (row, line) in enumerate(zip(axes, lines)):
        for ax, i in zip(row, line):
            show_image(ax, images[i])
        for ax in row[len(line) :]:
            ax.axis("off")
        if names:
            row[0].set_ylabel(names[k], rotation=0, ha="right", va="center", fontsize=12, labelpad=6)


def class_colors(names) -> list:
    """A color per class: the color itself where the classes are colors (a blue dot must not mean red), else the colour-blind palette."""
    if set(names) <= set(COLORS):
        return [colorsys.hsv_to_rgb(h / 360, s, v) for h, s, v in (COLORS[name] for name in names)]
    return [sns.color_palette(PALETTE, 10)[i % 10] for i in range(len(names))]


def tsne_panels(representations: dict, labels, names, columns: int = 4, seed: int = 0):
    """t-SNE of each representation (n, width), side by side, in the colors of one labelling.

    Args:
        representations: title -> array (n, width).
        labels: (n,), and `names`, one per class.

    Returns:
        The figure and a tidy frame of the coordinates: panel, x, y, class.
    """
    import pandas as pd
    from sklearn.manifold import TSNE

    rows = -(-len(representations) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(2.9 * columns, 2.95 * rows + 0.5), squeeze=False)
    colors, markers = class_colors(names), "osD^vPX"
    named = set(names) <= set(COLORS)  # colors that a reader can tell apart only by hue get a marker each, too
    frames = []
    for ax, (title, x) in zip(axes.flat, representations.items()):
        perplexity = min(30, max(2, (len(x) - 1) // 3))
        points = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(np.asarray(x, np.float32))
        for c, name in enumerate(names):
            here = np.asarray(labels) == c
            marker = markers[(c if named else c // 10) % 7]
            ax.scatter(*points[here].T, s=16 if named else 13, color=colors[c], marker=marker, label=name, linewidths=0)
        ax.set(xticks=[], yticks=[], title=title)
        frames.append(pd.DataFrame({"panel": title, "x": points[:, 0], "y": points[:, 1], "class": [names[c] for c in labels]}))
    for ax in axes.flat[len(representations) :]:
        ax.axis("off")
    handles, texts = axes.flat[0].get_legend_handles_labels()
    fig.legend(handles, texts, loc="outside lower center", ncols=min(len(names), 10), frameon=False, markerscale=2, fontsize=11)
    return fig, pd.concat(frames)


def method_bars(rows, metric: str = "NMI", order=None):
    """Mean of one metric per criterion and method, with 95 % intervals over seeds. `rows`: criterion, method, seed and the metric."""
    fig, ax = plt.subplots(figsize=(max(7, 1.25 * rows["criterion"].nunique() + 2.5), 3.6))
    sns.barplot(rows, x="criterion", y=metric, hue="method", hue_order=order, ax=ax, errorbar=("ci", 95), err_kws={"linewidth": 1.2})
    ax.set(ylim=(0, 1.02), xlabel="", ylabel=f"{metric}")
    ax.set_axisbelow(True)
    ax.grid(axis="y", alpha=0.5)
    sns.despine(ax=ax, left=True)
    sns.move_legend(ax, "lower center", bbox_to_anchor=(0.5, 1.0), ncols=7, frameon=False, title=None)
    return fig
