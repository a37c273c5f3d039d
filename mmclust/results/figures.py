"""Figures: one theme, readable in a column and on a projector, colors that colour-blind readers tell apart."""

from __future__ import annotations

import colorsys
import itertools
import textwrap
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.container import BarContainer
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from scipy.optimize import linear_sum_assignment

from mmclust.data.rendered import COLORS
from mmclust.experiments.statistics import interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike
    from PIL import Image

    from mmclust.data.images import ImageDataset

# seaborn's "colorblind" in another order: those that come first differ most. Every color comes with a marker of its own, too.
PALETTE = [
    "#0173b2",
    "#de8f05",
    "#029e73",
    "#cc78bc",
    "#56b4e9",
    "#d55e00",
    "#949494",
    "#ece133",
    "#ca9161",
    "#fbafe4",
]
MARKERS = "osD^vPX<>p"
EDGE: dict[str, Any] = {"markeredgecolor": "0.25", "markeredgewidth": 0.4}


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


def show_image(
    ax: Axes, image: Image.Image, title: str | None = None, edge: str | None = None
) -> None:
    """One picture without ticks; `edge` colors its frame."""
    ax.imshow(np.asarray(image), interpolation="nearest" if max(image.size) < 64 else "antialiased")
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set(visible=edge is not None, color=edge, linewidth=2.5)
    if title:
        ax.set_title(title, fontsize=10, fontweight="normal", pad=3)


def _colors(n: int) -> list:
    return [PALETTE[i % len(PALETTE)] for i in range(n)]


def _markers(n: int) -> list:
    """A color and a marker together differ for up to a hundred."""
    return [MARKERS[(i + i // len(PALETTE)) % len(MARKERS)] for i in range(n)]


def _wrapped(text: object, width: int = 22) -> str:
    return "\n".join(textwrap.wrap(str(text), width)) or str(text)


def _bounds(values: pd.Series) -> tuple[float, float]:
    """The 95 % t-interval of a mean over seeds: seaborn's bootstrap draws at random and is too narrow for five seeds. None for two seeds,
    whose interval, 12.7 standard errors, would fill the panel."""
    half = interval(values) if len(values) > 2 else np.nan
    return np.mean(values) - half, np.mean(values) + half


def _legend_above(
    fig: Figure, ax: Axes, handles: Sequence[Any] | None = None, texts: Sequence[str] | None = None
) -> None:
    """One legend over all panels, in as few lines as its texts need; replaces the legend of `ax`."""
    legend, shown, texts = ax.get_legend(), list(handles or ()), list(texts or ())
    if legend is not None:
        shown, texts = (
            shown or list[Any](legend.legend_handles),
            texts or [t.get_text() for t in legend.get_texts()],
        )
        legend.remove()
    lines = int(np.ceil(sum(0.09 * len(t) + 0.5 for t in texts) / (fig.get_figwidth() - 0.2)))
    fig.legend(
        shown,
        texts,
        loc="outside upper center",
        ncols=-(-len(texts) // lines),
        frameon=False,
        fontsize=10.5,
        columnspacing=1.2,
        handletextpad=0.4,
    )


def _ticks(ax: Axes, at: dict[str, float], dense: bool = True) -> None:
    """Ticks on x, text -> place, after the figure was laid out. Where they are `dense`, those too near to the one before are left out; else
    their text is wrapped."""
    pixels = dict(zip(at, ax.transData.transform([(x, 1) for x in at.values()])[:, 0]))
    letter = 7.5 * ax.figure.dpi / 72
    kept: list[str] = []
    for text in at:
        if (
            not dense
            or not kept
            or pixels[text] - pixels[kept[-1]] > letter * (1 + (len(text) + len(kept[-1])) / 2)
        ):
            kept.append(text)
    room = max(5, int(ax.get_window_extent().width / len(at) / letter))
    ax.set_xticks(
        [at[text] for text in kept], kept if dense else [_wrapped(text, room) for text in kept]
    )
    ax.set_xticks([], minor=True)


def _rows_of(names: Sequence[str], ax: Axes) -> None:
    """What horizontal charts share: wrapped names down, light bands between them, a grid of x alone."""
    ax.set_yticks(range(len(names)), [_wrapped(name) for name in names])
    ax.set(ylim=(len(names) - 0.5, -0.5), ylabel="")
    for i in range(0, len(names), 2):
        ax.axhspan(i - 0.5, i + 0.5, color="0.95", zorder=0, linewidth=0)
    ax.grid(axis="y", visible=False)
    ax.set_axisbelow(True)
    sns.despine(ax=ax, left=True)


def gallery(
    images: Sequence[Image.Image],
    labels: ArrayLike,
    names: Sequence[str],
    title: str | None = None,
    per_cluster: int = 8,
    order: ArrayLike | None = None,
) -> Figure:
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
    side = min(0.75, 5.6 / per_cluster)
    heads = [f"{_wrapped(names[c], 16)}\n{(labels == c).sum()} images" for c in clusters]
    heights = [max(side, 0.19 * (1 + head.count("\n"))) for head in heads]
    size = (side * per_cluster + 1.5, sum(heights) * 1.05 + (0.4 if title else 0.1))
    fig, axes = plt.subplots(
        len(clusters), per_cluster, figsize=size, squeeze=False, height_ratios=heights
    )
    for row, color, c, head in zip(
        axes, class_colors([names[c] for c in clusters]), clusters, heads
    ):
        members = np.flatnonzero(labels == c)
        if order is not None:
            shown = members[np.argsort(-np.asarray(order)[members], kind="stable")][:per_cluster]
        else:
            shown = members[np.unique(np.linspace(0, len(members) - 1, per_cluster).astype(int))]
        for ax, i in zip(row, shown):
            show_image(ax, images[int(i)], edge=color)
        for ax in row[len(shown) :]:
            ax.axis("off")
        row[0].set_ylabel(head, rotation=0, ha="right", va="center", fontsize=10.5, labelpad=6)
    if title:
        fig.suptitle(_wrapped(title, 60), fontweight="bold", fontsize=12)
    return fig


def sample_grid(datasets: Mapping[str, ImageDataset], columns: int = 8) -> Figure:
    """A row of pictures for each data set, its name and criteria beside it."""
    fig, axes = plt.subplots(
        len(datasets), columns, figsize=(0.66 * columns + 1.9, 0.7 * len(datasets)), squeeze=False
    )
    for row, (name, data) in zip(axes, datasets.items()):
        for ax, i in zip(row, range(min(columns, len(data)))):
            show_image(ax, data.images[i])
        for ax in row[len(data) :]:
            ax.axis("off")
        head = f"{_wrapped(name)}\n{_wrapped(' × '.join(data.criteria) or 'no labels')}"
        row[0].set_ylabel(head, rotation=0, ha="right", va="center", fontsize=10, labelpad=6)
    return fig


def score_bars(rows: pd.DataFrame, metric: str = "NMI", title: str | None = None) -> Figure:
    """Bars of one metric: criteria across, methods in color. `rows`: a tidy frame with criterion, method and the metric."""
    n = rows["method"].nunique()
    fig, ax = plt.subplots(
        figsize=(min(7.2, max(5, 0.42 * n * rows["criterion"].nunique() + 1.6)), 3.2)
    )
    sns.barplot(
        rows,
        x="criterion",
        y=metric,
        hue="method",
        palette=_colors(n),
        saturation=1,
        ax=ax,
        errorbar=None,
    )
    for bars in _bars(ax):
        ax.bar_label(bars, fmt="%.2f", fontsize=9, padding=1)
    ax.set(
        ylim=(0, 1.12),
        xlabel="the keyword that was asked for",
        ylabel=f"{metric} with the true classes",
    )
    ax.set_yticks(np.linspace(0, 1, 6))
    ax.set_axisbelow(True)
    ax.grid(axis="y", alpha=0.5)
    sns.despine(ax=ax, left=True)
    if title:
        ax.set_title(title)
    _legend_above(fig, ax)
    return fig


def teaser(
    images: Sequence[Image.Image],
    clusterings: Mapping[str, tuple[np.ndarray, Sequence[str]]],
    columns: int = 5,
    rows: int = 6,
) -> Figure:
    """The idea in one picture: the same images as they come, then once per keyword sorted into rows.

    Args:
        images: n pictures.
        clusterings: keyword -> (labels (n,), names per cluster).
        columns, rows: pictures across and down in each panel.
    """
    first = list(range(min(len(images), columns * rows)))
    panels: dict[str, tuple[list[list[int]], list[str] | None]] = {
        "images": ([first[i : i + columns] for i in range(0, len(first), columns)], None)
    }
    for keyword, (labels, names) in clusterings.items():
        sizes = np.bincount(labels, minlength=len(names))
        largest = sorted(c for c in np.argsort(-sizes, kind="stable")[:rows] if sizes[c])
        lines = [np.flatnonzero(labels == c)[:columns].tolist() for c in largest]
        panels[f"keyword: “{keyword}”"] = (lines, [_wrapped(names[c], 16) for c in largest])
    heads = [
        [line for name in names or [""] for line in name.split("\n")]
        for _, names in panels.values()
    ]
    widths = [0.34 * columns + 0.14 + 0.093 * max(map(len, head)) for head in heads]
    side = max(
        [
            0.4,
            *(
                0.18 * (1 + name.count("\n"))
                for _, names in panels.values()
                for name in names or []
            ),
        ]
    )
    fig = plt.figure(figsize=(sum(widths) + 0.1 * len(panels), side * rows + 0.35))
    if isinstance(
        layout := fig.get_layout_engine(), ConstrainedLayoutEngine
    ):  # as `use_theme` sets it
        layout.set(wspace=0, hspace=0, w_pad=0.03, h_pad=0.02)
    parts = fig.subfigures(1, len(panels), squeeze=False, width_ratios=widths)
    for part, (title, (lines, heads_down)) in zip(parts.flat, panels.items()):
        part.suptitle(title, fontsize=12, fontweight="bold")
        axes = part.subplots(rows, columns, squeeze=False)
        for ax in axes.flat:
            ax.axis("off")
        for k, line in enumerate(lines):
            for ax, i in zip(axes[k], line):
                ax.axis("on")
                show_image(ax, images[i])
            if heads_down:
                axes[k, 0].set_ylabel(
                    heads_down[k], rotation=0, ha="right", va="center", fontsize=10, labelpad=6
                )
    return fig


def class_colors(names: Sequence[str]) -> list:
    """A color per class: the color itself where the classes are colors (a blue dot must not mean red), else the colour-blind palette."""
    if set(names) <= set(COLORS):
        return [colorsys.hsv_to_rgb(h / 360, s, v) for h, s, v in (COLORS[name] for name in names)]
    return _colors(len(names))


def tsne_panels(
    representations: Mapping[str, np.ndarray],
    labels: Sequence[int] | np.ndarray,
    names: Sequence[str],
    columns: int = 3,
    seed: int = 0,
) -> tuple[Figure, pd.DataFrame]:
    """t-SNE of each representation (n, width), side by side, in the colors and markers of one labelling.

    Args:
        representations: title -> array (n, width).
        labels: (n,), and `names`, one per class.

    Returns:
        The figure and a tidy frame of the coordinates: panel, x, y, class.
    """
    from sklearn.manifold import TSNE

    columns = min(columns, len(representations))
    rows = -(-len(representations) // columns)
    size = (
        max(2.3 * columns, 4),
        2.45 * rows + (0 if len(representations) % columns else 0.2 + 0.06 * len(names)),
    )
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    frames = []
    for ax, (title, x) in zip(axes.flat, representations.items()):
        perplexity = min(30, max(2, (len(x) - 1) // 3))
        points = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(
            np.asarray(x, np.float32)
        )
        for c, (name, color, marker) in enumerate(
            zip(names, class_colors(names), _markers(len(names)))
        ):
            here = np.asarray(labels) == c
            ax.scatter(
                *points[here].T,
                s=17,
                color=color,
                marker=marker,
                label=name,
                linewidths=0.3,
                edgecolors="0.25",
            )
        ax.set(xticks=[], yticks=[])
        ax.set_title(_wrapped(title, 20), fontsize=11)
        frames.append(
            pd.DataFrame(
                {
                    "panel": title,
                    "x": points[:, 0],
                    "y": points[:, 1],
                    "class": [names[c] for c in labels],
                }
            )
        )
    blank = axes.flat[len(representations) :]
    for ax in blank:
        ax.axis("off")
    handles, texts = axes.flat[0].get_legend_handles_labels()
    room = 2.3 * len(blank) if len(blank) else fig.get_figwidth()
    ncols = max(1, min(len(names), int((room - 0.1) / (0.095 * max(map(len, names)) + 0.4))))
    style = dict(
        ncols=ncols, frameon=False, markerscale=1.8, fontsize=11, columnspacing=1, handletextpad=0.1
    )
    if len(blank) and len(names) <= 10 * ncols:
        blank[0].legend(handles, texts, loc="center left", **style).set_in_layout(False)
    else:
        fig.legend(handles, texts, loc="outside lower center", **style)
    return fig, pd.concat(frames)


def method_scores(
    rows: pd.DataFrame, metric: str = "NMI", order: Iterable[str] | None = None
) -> Figure:
    """A line per criterion, a dot per method (color and marker) with its 95 % interval. `rows`: criterion, method, seed, metric (0..1)."""
    order = [
        m for m in (rows["method"].unique() if order is None else order) if m in set(rows["method"])
    ]
    criteria, n = list(rows["criterion"].unique()), len(order)
    fig, ax = plt.subplots(figsize=(5.6, (0.1 * n + 0.14) * len(criteria) + 1.3))
    sns.pointplot(
        rows, y="criterion", x=metric, hue="method", order=criteria, hue_order=order, dodge=0.72 * (n > 1), linestyle="none", markers=_markers(n),
        palette=_colors(n), errorbar=_bounds, err_kws={"linewidth": 1.6}, markersize=6, ax=ax, **EDGE,
    )  # fmt: skip
    _rows_of(criteria, ax)
    ax.set(xlim=(-0.02, 1.02), xticks=np.linspace(0, 1, 6))
    _legend_above(fig, ax)
    return fig


def ablation(
    rows: pd.DataFrame,
    by: str = "row",
    metric: str = "NMI",
    baseline: str | None = None,
    order: Iterable[str] | None = None,
) -> Figure:
    """A bar per setting: the mean over criteria with its 95 % interval over seeds, a dot per criterion, and at the end of the line the mean
    or, where there is a `baseline` among the settings, the difference to it. `rows`: the column `by`, criterion, seed, metric (0..1)."""
    order, criteria = (
        list(rows[by].unique() if order is None else order),
        list(rows["criterion"].unique()),
    )
    per_seed = rows.groupby([by, "seed"], as_index=False)[metric].mean()
    means, n = per_seed.groupby(by)[metric].mean(), len(criteria)
    fig, ax = plt.subplots(figsize=(6, max(0.42, 0.07 * n) * len(order) + 1.4))
    sns.barplot(
        per_seed,
        y=by,
        x=metric,
        order=order,
        color="0.8",
        width=0.8,
        errorbar=_bounds,
        err_kws={"linewidth": 2, "color": "0.2"},
        ax=ax,
    )
    dots = dict(
        hue="criterion",
        hue_order=criteria,
        dodge=0.6 * (n > 1),
        linestyle="none",
        markers=_markers(n),
        palette=_colors(n),
        markersize=5,
    )
    sns.pointplot(rows, y=by, x=metric, order=order, errorbar=None, ax=ax, **dots, **EDGE)
    _rows_of(order, ax)
    if baseline is not None:
        ax.axvline(means[baseline], color="0.2", linestyle="--", linewidth=1.2)
    for i, setting in enumerate(order):
        own = baseline is None or setting == baseline
        text = f"{means[setting]:.3f}" if own else f"{means[setting] - means[baseline]:+.3f}"
        ax.text(
            1.02,
            i,
            text,
            transform=ax.get_yaxis_transform(),
            va="center",
            fontsize=11,
            fontweight="bold" if own else "normal",
        )
    ax.set(xlim=(0, 1.02), xticks=np.linspace(0, 1, 6), xlabel=f"{metric}, mean over criteria")
    _legend_above(fig, ax)
    return fig


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, (int, float, np.number))
        and not isinstance(value, bool)
        and value == value
    )


def _text(value: Any) -> str:
    return (
        f"{value:g}"
        if _is_number(value)
        else "none"
        if value is None or value != value
        else str(value)
    )


def _places(values: Iterable) -> dict[str, float]:
    """Where the distinct values of a parameter stand, by how they are written: numbers at their place, else one after another."""
    found = {_text(v): v for v in values}
    if all(map(_is_number, found.values())):
        return {text: float(found[text]) for text in sorted(found, key=found.__getitem__)}
    return {text: float(i) for i, text in enumerate(found)}


def _bars(ax: Axes) -> list[BarContainer]:
    return [bars for bars in ax.containers if isinstance(bars, BarContainer)]


def _log_ticks(ax: Axes) -> None:
    """Few ticks on a logarithmic x, written as plain numbers."""
    low, high = ax.get_xlim()
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 30 else (1,)))
    ax.xaxis.set_major_formatter("{x:,g}")
    ax.xaxis.set_minor_locator(NullLocator())


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def heat_maps(
    rows: pd.DataFrame,
    x: str,
    y: str,
    metric: str = "NMI",
    panel: str = "criterion",
    mark: tuple[Any, Any] | None = None,
) -> Figure:
    """A heat map of x against y for each value of `panel`, means over seeds, one color scale; `mark` = (x, y) frames the chosen setting.

    Args:
        rows: a tidy frame with the columns x, y (numbers or text), `panel` and the metric.
    """
    across, down, panels = (
        list(_places(rows[x])),
        list(_places(rows[y])),
        list(rows[panel].unique()),
    )
    columns = min(len(panels), 3 if len(across) <= 5 else 2)
    lines, cell, letters = (
        -(-len(panels) // columns),
        min(0.62, 5.6 / columns / len(across)),
        max(map(len, across)),
    )
    turned = letters * 0.1 > cell
    size = (
        max(cell * len(across) * columns + 1.8, 3.6),
        (0.4 * len(down) + 0.4) * lines + 0.7 + 0.09 * letters * turned,
    )
    fig, axes = plt.subplots(lines, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    texts = rows.assign(**{name: [_text(v) for v in rows[name]] for name in (x, y)})
    tables = [
        texts[rows[panel] == p]
        .pivot_table(index=y, columns=x, values=metric)
        .reindex(index=down, columns=across)
        for p in panels
    ]
    style = dict(
        vmin=np.nanmin(tables), vmax=np.nanmax(tables), cmap="YlGnBu", cbar=False, linewidths=0.5
    )
    for k, (ax, name, table) in enumerate(zip(axes.flat, panels, tables)):
        sns.heatmap(
            table,
            annot=True,
            fmt=".3f" if cell > 0.5 else ".2f",
            annot_kws={"fontsize": 9.5},
            ax=ax,
            **style,
        )
        lowest = k + columns >= len(panels)
        ax.set(facecolor="0.9", xlabel=x if lowest else "", ylabel=y if k % columns == 0 else "")
        ax.set_title(name, fontsize=11)
        ax.tick_params(axis="x", rotation=90 if turned else 0, labelbottom=lowest)
        ax.tick_params(axis="y", rotation=0)
        if mark is not None:
            at = across.index(_text(mark[0])), down.index(_text(mark[1]))
            ax.add_patch(
                plt.Rectangle(at, 1, 1, fill=False, edgecolor=PALETTE[5], linewidth=2.5, zorder=5)
            )
    if pd.api.types.is_numeric_dtype(rows[y]):
        axes[0, 0].invert_yaxis()
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    fig.colorbar(axes[0, 0].collections[0], ax=axes, label=metric, shrink=0.8, ticks=MaxNLocator(4))
    return fig


def curves(
    rows: pd.DataFrame,
    metric: str = "NMI",
    hue: str = "criterion",
    mark: dict[str, Any] | None = None,
    log: Container[str] = (),
) -> Figure:
    """A panel per parameter: the metric against its values, a line per `hue` with a 95 % band over seeds.

    Args:
        rows: a tidy frame with parameter, value (numbers; or text, bools, None, which become categories), the hue, seed and the metric.
        mark: parameter -> default, a dashed line. log: the parameters with a logarithmic axis.
    """
    names, hues = list(rows["parameter"].unique()), list(rows[hue].unique())
    columns = 1 if len(names) == 1 else 2 if len(names) in (2, 4) else 3
    lines, n = -(-len(names) // columns), len(hues)
    size = (5.2, 3.4) if columns == 1 else (min(3.1, 7.4 / columns) * columns, 2.5 * lines + 0.6)
    fig, axes = plt.subplots(lines, columns, figsize=size, sharey=True, squeeze=False)
    low, high = rows[metric].min(), rows[metric].max()
    style = dict(
        hue=hue,
        hue_order=hues,
        style=hue,
        style_order=hues,
        palette=_colors(n),
        markers=_markers(n),
        dashes=False,
    )
    for k, (ax, name) in enumerate(zip(axes.flat, names)):
        part = rows[rows["parameter"] == name]
        places = _places(part["value"])
        part = (
            part.assign(value=[places[_text(v)] for v in part["value"]])
            .groupby(["value", hue, "seed"], as_index=False)[metric]
            .mean()
        )
        sns.lineplot(
            part,
            x="value",
            y=metric,
            ax=ax,
            errorbar=_bounds,
            legend=k == 0 and n > 1,
            markersize=6,
            **EDGE,
            **style,
        )
        if (
            name in log
        ):  # a zero among the values stands one decade below the smallest of the others
            positive = [v for v in places.values() if v > 0]
            ax.set_xscale("log") if len(positive) == len(places) else ax.set_xscale(
                "symlog", linthresh=min(positive)
            )
            scale = ax.xaxis.get_transform()  # symlog's own margins are lopsided
            ends = scale.transform([min(places.values()), max(places.values())])
            ax.set_xlim(
                scale.inverted().transform(ends + (np.ptp(ends) or 1) * np.array([-0.06, 0.06]))
            )
        if mark and name in mark:
            spot = places.get(_text(mark[name]), mark[name])
            ax.axvline(spot, color="0.3", linestyle="--", linewidth=1.2)
            across = ax.transAxes.inverted().transform(ax.transData.transform((spot, low)))[0]
            at_top = dict(
                xycoords=ax.get_xaxis_transform(), textcoords="offset points", fontsize=9.5
            )
            ax.annotate(
                f"default {_text(mark[name])}",
                (spot, 1),
                (0, 3),
                ha="left" if across < 0.3 else "right" if across > 0.7 else "center",
                **at_top,
            )
        ax.set(xlabel=name, ylabel=metric, ylim=(max(0, low - 0.05), min(1.02, high + 0.05)))
        ax.yaxis.set_major_locator(MaxNLocator(5))
    fig.draw_without_rendering()
    for ax, name in zip(axes.flat, names):
        values = rows.loc[rows["parameter"] == name, "value"]
        _ticks(ax, _places(values), all(map(_is_number, values)))
    for ax in axes.flat[len(names) :]:
        ax.axis("off")
    if n > 1:
        _legend_above(fig, axes[0, 0])
    return fig


def convergence(history: pd.DataFrame) -> Figure:
    """A row per method: its loss against epochs, and beside it the loss's terms, each divided by its largest size.

    Args:
        history: a tidy frame with method, epoch, term ("loss" and its terms), value and, optionally, event (text at some epochs, else missing).
    """
    methods = list(history["method"].unique())
    fig = plt.figure(figsize=(6.6, 2.5 * len(methods)))
    grid = fig.add_gridspec(len(methods), 2)
    for k, method in enumerate(methods):
        own = history[history["method"] == method]
        terms = [term for term in own["term"].unique() if term != "loss"]
        left = fig.add_subplot(grid[k, 0] if terms else grid[k, :])
        panels, width = [left], 2.5 if terms else 5.8
        sns.lineplot(
            own[own["term"] == "loss"], x="epoch", y="value", color="0.2", errorbar=None, ax=left
        )
        left.set(ylabel="loss")
        if terms:
            right = fig.add_subplot(grid[k, 1])
            panels.append(right)
            largest = own.groupby("term")["value"].agg(lambda v: v.abs().max())
            shares = own[own["term"] != "loss"].assign(
                value=own["value"] / own["term"].map(largest).replace(0, 1)
            )
            shares["term"] = [f"{term} (max. {_amount(largest[term])})" for term in shares["term"]]
            sns.lineplot(
                shares,
                x="epoch",
                y="value",
                hue="term",
                style="term",
                palette=_colors(len(terms)),
                errorbar=None,
                ax=right,
            )
            style = dict(
                ncols=2,
                title=None,
                frameon=False,
                fontsize=9.5,
                columnspacing=0.8,
                handlelength=1.8,
            )
            sns.move_legend(right, "lower center", bbox_to_anchor=(0.5, 1), **style)
            right.set(ylabel="share of max.")
        events = (
            (own if "event" in own else own.assign(event=None))
            .dropna(subset="event")
            .drop_duplicates("epoch")
        )
        ends: list[float] = []
        span = max(own["epoch"].max() - own["epoch"].min(), 1)
        for epoch, event in zip(events["epoch"], events["event"]):
            for ax in panels:
                ax.axvline(epoch, color="0.45", linewidth=0.9, linestyle=":")
            start, length = (epoch - own["epoch"].min()) / span * width, 0.078 * len(event) + 0.1
            place = "left" if start + length <= width else "right"
            start -= length * (place == "right")
            line = next((i for i, end in enumerate(ends) if end <= start), len(ends))
            ends[line : line + 1] = [start + length]
            at: dict[str, Any] = dict(
                xycoords=left.get_xaxis_transform(),
                textcoords="offset points",
                fontsize=9.5,
                color="0.25",
            )
            left.annotate(event, (epoch, 1), (0, 3 + 12 * line), ha=place, **at)
        left.set_title(method, pad=6 + 13 * len(ends), loc="left", fontsize=12)
        for ax in panels:
            ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            ax.yaxis.set_major_locator(MaxNLocator(4))
            ax.set_xlabel("epoch" if k == len(methods) - 1 else "")
            sns.despine(ax=ax)
    return fig


def quality_time(rows: pd.DataFrame, metric: str = "NMI") -> Figure:
    """Seconds (logarithmic) against the mean over criteria with its 95 % interval over seeds, a line per method through its numbers of
    epochs; methods without epochs are dashed lines. `rows`: method, epochs (NaN: none), seconds, criterion, seed, metric."""
    learned, plain = rows[rows["epochs"].notna()], rows[rows["epochs"].isna()]
    methods = list(learned["method"].unique())
    fig, ax = plt.subplots(figsize=(6, 4.2))
    ax.set(
        xscale="log", xlabel="seconds for one clustering", ylabel=f"{metric}, mean over criteria"
    )
    dots: list[tuple[float, float, str]] = []
    lines: list[Any] = []  # of points (x, y) each
    for method, color, marker in zip(methods, _colors(len(methods)), _markers(len(methods))):
        own = learned[learned["method"] == method]
        seconds, per_seed = (
            own.groupby("epochs")["seconds"].mean(),
            own.groupby(["epochs", "seed"])[metric].mean().groupby("epochs"),
        )
        means, errors = per_seed.mean(), per_seed.agg(interval)
        ax.errorbar(
            seconds,
            means,
            errors,
            color=color,
            marker=marker,
            markersize=7,
            label=method,
            capsize=2,
            elinewidth=1.2,
        )
        dots += [(seconds[e], means[e], f"{e:g}") for e in seconds.index]
        lines += [
            np.stack([seconds, means], 1),
            *([[x, y - e], [x, y + e]] for x, y, e in zip(seconds, means, errors.fillna(0))),
        ]
    ax.margins(x=0.08)
    plain = plain.groupby("method", sort=False)[metric].mean().sort_values()
    low, high = min([ax.get_ylim()[0], *(plain - 0.02)]), max([ax.get_ylim()[1], *(plain + 0.02)])
    ax.set(xlim=ax.get_xlim(), ylim=(max(0, low), min(1.02, high)))
    _log_ticks(ax)
    end = -1.0
    for method, value in plain.items():
        lines.append([[ax.get_xlim()[0], value], [ax.get_xlim()[1], value]])
        ax.axhline(value, color="0.35", linestyle="--", linewidth=1.2)
        end = max(value, end + 0.06 * (high - low))
        ax.text(1.02, end, method, transform=ax.get_yaxis_transform(), va="center", fontsize=10)
    _legend_above(fig, ax, *ax.get_legend_handles_labels())
    fig.draw_without_rendering()
    corners = [ax.transData.transform(line) for line in lines]
    taken = np.concatenate(
        [np.linspace(a, b, 60) for line in corners for a, b in itertools.pairwise(line)]
        or [np.empty((0, 2))]
    )
    for x, y, text in dots:
        for offset in ((0, 13), (0, -13), (13, 6), (-13, 6), (13, -6), (-13, -6)):
            label = ax.annotate(
                text,
                (x, y),
                offset,
                textcoords="offset points",
                ha="center",
                va="center",
                fontsize=9.5,
                color="0.2",
            )
            box = label.get_window_extent()
            if not any(box.contains(*point) for point in taken):
                taken = np.concatenate(
                    [
                        taken,
                        [
                            (px, py)
                            for px in np.linspace(box.x0, box.x1, 5)
                            for py in np.linspace(box.y0, box.y1, 5)
                        ],
                    ]
                )
                break
            label.remove()
    return fig


def cost_bars(
    rows: pd.DataFrame, value: str = "seconds", unit: str = "s", title: str | None = None
) -> Figure:
    """Horizontal bars in pairs on a logarithmic axis, the cost at their ends and beside each pair how many times the second way is cheaper
    than the first. `rows`: method, way (two of them), and the column `value`, averaged where a pair has several."""
    methods, ways = list(rows["method"].unique()), list(rows["way"].unique())
    table = rows.pivot_table(index="method", columns="way", values=value)
    low, high = table.min().min(), table.max().max()
    fig, ax = plt.subplots(figsize=(6, 0.62 * len(methods) + 1.4))
    sns.barplot(
        rows,
        y="method",
        x=value,
        hue="way",
        order=methods,
        hue_order=ways,
        palette=_colors(len(ways)),
        saturation=1,
        errorbar=None,
        ax=ax,
    )
    ax.set(
        xscale="log",
        xlim=(10 ** np.floor(np.log10(low / 1.5)), high * (high / low) ** 0.25 * 2),
        xlabel=f"{value} ({unit}), logarithmic",
    )
    for bars in _bars(ax):
        ax.bar_label(
            bars,
            [f"{_amount(v)} {unit}" for v in cast(np.ndarray, bars.datavalues)],
            padding=3,
            fontsize=10,
        )
    _rows_of(methods, ax)
    _log_ticks(ax)
    for i, ratio in enumerate((table[ways[0]] / table[ways[-1]])[methods] if len(ways) > 1 else []):
        if np.isfinite(ratio):
            times = f"{ratio:.0f} times" if ratio >= 10 else f"{ratio:.1f} times"
            ax.text(
                1.02,
                i,
                times,
                transform=ax.get_yaxis_transform(),
                va="center",
                fontsize=11,
                fontweight="bold",
            )
    if title:
        ax.set_title(title)
    _legend_above(fig, ax)
    return fig


def candidates(
    updates: Sequence[dict[str, Any]], epochs: int, classes: Iterable[str] = ()
) -> Figure:
    """How long each word of Multi-DProxy was a candidate, the longest on top; names of true classes in color, with a check mark.

    Args:
        updates: `updates_` of the estimator, a list of {"epoch", "candidates"}, all words first. epochs: how many there were.
    """
    words, true = updates[0]["candidates"], {str(c).lower() for c in classes}
    lives = {
        word: next((u["epoch"] for u in updates if word not in u["candidates"]), epochs)
        for word in words
    }
    order = sorted(words, key=lambda word: -lives[word])
    hits = [word.lower() in true for word in order]
    fig, ax = plt.subplots(figsize=(5.2, 0.2 * len(order) + 1.2))
    ax.barh(
        range(len(order)),
        [lives[word] for word in order],
        color=[PALETTE[0] if hit else "0.75" for hit in hits],
        height=0.72,
    )
    _rows_of(order, ax)
    ax.set_yticks(
        range(len(order)),
        [f"{word} ✓" if hit else word for word, hit in zip(order, hits)],
        fontsize=10,
    )
    for text, hit in zip(ax.get_yticklabels(), hits):
        text.set_fontweight("bold" if hit else "normal")
    ax.set(xlim=(0, epochs), xlabel="epoch")
    at = {str(epoch): epoch for epoch in sorted({0, epochs, *(u["epoch"] for u in updates)})}
    fig.draw_without_rendering()
    _ticks(ax, at)
    if any(hits):
        _legend_above(
            fig,
            ax,
            [plt.Rectangle((0, 0), 1, 1, color=c) for c in (PALETTE[0], "0.75")],
            ["✓ name of a true class", "other word"],
        )
    return fig


def confusion(
    labels: Sequence[int] | np.ndarray,
    truth: Sequence[int] | np.ndarray,
    names: Sequence[str],
    classes: Sequence[str],
    title: str | None = None,
) -> Figure:
    """Counts of clusters (rows, with name and size) by true classes (columns), clusters matched to classes so that the diagonal is strong.

    Args:
        labels, truth: (n,) numbers of the cluster and of the class. names, one per cluster; classes, one per class.
    """
    return confusions({title or "": (labels, truth, names, classes)})


def confusions(
    items: Mapping[
        str,
        tuple[Sequence[int] | np.ndarray, Sequence[int] | np.ndarray, Sequence[str], Sequence[str]],
    ],
) -> Figure:
    """Several of them below each other, or side by side where there is room: title -> (labels, truth, names, classes)."""
    tables = {title: confusion_table(*item) for title, item in items.items()}
    sizes = [
        (0.4 * t.shape[1] + 2, 0.34 * t.shape[0] + 0.1 * max(map(len, t.columns)) + 0.9)
        for t in tables.values()
    ]
    wide, high = zip(*sizes)
    if sum(wide) <= 7.5:
        fig, axes = plt.subplots(
            1, len(items), figsize=(sum(wide), max(high)), width_ratios=wide, squeeze=False
        )
    else:
        fig, axes = plt.subplots(
            len(items), 1, figsize=(max(wide), sum(high)), height_ratios=high, squeeze=False
        )
    for ax, (title, table) in zip(axes.flat, tables.items()):
        texts = table.astype(str).where(table > 0, "")
        sns.heatmap(
            table,
            annot=texts,
            fmt="",
            annot_kws={"fontsize": 9.5},
            cmap="Blues",
            cbar=False,
            linewidths=0.6,
            linecolor="0.9",
            ax=ax,
        )
        ax.set(
            xlabel="true class",
            ylabel="cluster (size)",
            xticks=np.arange(table.shape[1]) + 0.5,
            yticks=np.arange(len(table)) + 0.5,
        )
        ax.set_xticklabels(table.columns, rotation=90, fontsize=10)
        ax.set_yticklabels(table.index, rotation=0, fontsize=10)
        if title:
            ax.set_title(_wrapped(title, 40))
    return fig


def confusion_table(
    labels: Sequence[int] | np.ndarray,
    truth: Sequence[int] | np.ndarray,
    names: Sequence[str],
    classes: Sequence[str],
) -> pd.DataFrame:
    """Counts (clusters with members, classes): rows matched to columns by the Hungarian method, what has no match comes last."""
    counts = np.zeros((max(len(names), max(labels) + 1), len(classes)), int)
    np.add.at(counts, (np.asarray(labels), np.asarray(truth)), 1)
    present = np.flatnonzero(counts.sum(1))
    rows, columns = linear_sum_assignment(-counts[present])
    pairs = sorted(zip(columns, present[rows]))
    across = [c for c, _ in pairs] + [c for c in range(len(classes)) if c not in columns]
    down = [r for _, r in pairs] + [r for r in present if r not in present[rows]]
    heads = [f"{_wrapped(names[r])} ({counts[r].sum()})" for r in down]
    return pd.DataFrame(
        counts[np.ix_(down, across)], index=heads, columns=[str(classes[c]) for c in across]
    )


def effects(table: pd.DataFrame, metric: str = "NMI") -> Figure:
    """A line per flipped difference: its effect with the 95 % interval, filled where that does not cover zero, hollow where it does. Where a
    few effects dwarf the others, a second panel magnifies what lies near zero.

    Args:
        table: as `variants.effects` returns it: method, parameter, flipped, effect, ± (half the interval, NaN for one seed).
    """
    table = table.reset_index(drop=True)
    methods, sizes = list(table["method"].unique()), table["effect"].abs()
    lines = [f"{row['parameter']} = {row['flipped']}" for _, row in table.iterrows()]
    small = table[sizes <= max(sizes.max() / 8, 1e-3)]
    near = 1.15 * (small["effect"].abs() + small["±"].fillna(0)).max() if len(small) else np.nan
    twice = len(small) < len(table) and 0 < near < sizes.max() / 2
    fig, axes = plt.subplots(
        1,
        1 + twice,
        figsize=(7.2 if twice else 6, 0.27 * len(table) + 1.4),
        sharey=True,
        squeeze=False,
    )
    for ax in axes[0]:
        for method, color, marker in zip(methods, _colors(len(methods)), _markers(len(methods))):
            own = table[table["method"] == method]
            sure = own["effect"].abs() > own["±"]
            for part, face in ((own[sure], color), (own[~sure], "white")):
                style = dict(
                    linestyle="none",
                    marker=marker,
                    markersize=7,
                    color=color,
                    markerfacecolor=face,
                    markeredgecolor=color,
                    elinewidth=1.8,
                )
                ax.errorbar(part["effect"], part.index, xerr=part["±"], **style)
        _rows_of(lines, ax)
        ax.axvline(0, color="0.2", linewidth=1.2)
        ax.set(ylim=(len(lines) - 0.5, -0.5), xlabel=f"effect on {metric}")
        ax.xaxis.set_major_locator(MaxNLocator(5))
    axes[0, 0].set_yticks(range(len(lines)), lines, fontsize=10)
    if twice:
        axes[0, 1].set(xlim=(-near, near), xlabel="the same, magnified")
        axes[0, 1].xaxis.set_major_locator(MaxNLocator(4))
        axes[0, 1].tick_params(labelleft=False)
    marks = zip(_colors(len(methods)), _markers(len(methods)))
    _legend_above(
        fig,
        axes[0, 0],
        [plt.Line2D([], [], linestyle="none", marker=m, color=c, markersize=7) for c, m in marks],
        methods,
    )
    return fig
