"""Figures of a metric by the values of one parameter (curves) or of two parameters (heat maps)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import mmclust.results.figures.theme as theme
from mmclust.results.tables import printed


def _is_number(value: Any) -> bool:
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    return number and value == value  # not NaN


def _text(value: Any) -> str:
    if _is_number(value):
        return f"{value:g}".replace("inf", "∞")
    return "none" if value is None or value != value else str(value)


def _positions(values: Iterable) -> dict[str, float]:
    """Text -> position of each distinct value: the number itself, in ascending order; if not all
    are numbers, 0, 1, 2, ... in the order of `values`."""
    by_text = {_text(value): value for value in values}
    if all(map(_is_number, by_text.values())):
        return {text: float(by_text[text]) for text in sorted(by_text, key=by_text.__getitem__)}
    return {text: float(i) for i, text in enumerate(by_text)}


def heat_maps(
    rows: pd.DataFrame, x: str, y: str, metric: str = "NMI", panel: str = "criterion",
    mark: tuple[Any, Any] | None = None,
) -> Figure:  # fmt: skip
    """For each value of `panel`, a heat map of the metric by x and y, averaged over seeds. All have
    the same color scale.

    `rows`: a tidy frame with the columns x, y (numbers or text), `panel` and the metric; `mark`:
    (x, y) of the chosen setting, which gets a frame.
    """
    across = list(_positions(rows[x]))
    down = list(_positions(rows[y]))
    panels = list(rows[panel].unique())
    columns = min(len(panels), 3 if len(across) <= 5 else 2)
    lines = math.ceil(len(panels) / columns)
    cell = min(0.62, 5.6 / columns / len(across))
    label = 0.1 * max(map(len, across))  # inches
    vertical = label > cell
    height = (0.4 * len(down) + 0.4) * lines + 0.7 + (0.9 * label if vertical else 0)
    size = (max(cell * len(across) * columns + 1.8, 3.6), height)
    fig, axes = plt.subplots(lines, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    texts = rows.assign(**{name: [_text(v) for v in rows[name]] for name in (x, y)})
    means = texts.groupby([panel, y, x])[metric].mean()
    style = {"vmin": means.min(), "vmax": means.max(), "cmap": "YlGnBu", "cbar": False}
    style |= {"linewidths": 0.5, "annot": True, "annot_kws": {"fontsize": 9.5}}
    for k, (ax, name) in enumerate(zip(axes.flat, panels)):
        table = means[name].unstack().reindex(down, columns=across)
        sns.heatmap(table, fmt=".3f" if cell > 0.5 else ".2f", ax=ax, **style)
        lowest = k + columns >= len(panels)
        names = [theme.PARAMETERS.get(name, name) for name in (x, y)]
        ax.set(facecolor="0.9", xlabel=names[0] if lowest else "")
        ax.set(ylabel=names[1] if k % columns == 0 else "")
        ax.set_title(name, fontsize=11)
        ax.tick_params(axis="x", rotation=90 if vertical else 0, labelbottom=lowest)
        ax.tick_params(axis="y", rotation=0)
        if mark is not None:
            corner = (across.index(_text(mark[0])), down.index(_text(mark[1])))
            frame: dict[str, Any] = {"edgecolor": theme.PALETTE[5], "linewidth": 2.5, "zorder": 5}
            ax.add_patch(plt.Rectangle(corner, 1, 1, fill=False, **frame))
    if pd.api.types.is_numeric_dtype(rows[y]):
        axes[0, 0].invert_yaxis()
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    fig.colorbar(axes[0, 0].collections[0], ax=axes, label=metric, shrink=0.8, ticks=MaxNLocator(4))
    return fig


MOST_BANDS = 4  # more of them cover each other


def curves(
    rows: pd.DataFrame, metric: str = "NMI", hue: str = "criterion",
    mark: dict[str, Any] | None = None, each_seed: bool = False,
) -> Figure:  # fmt: skip
    """A panel per parameter: the metric by its values, with a line and, for at most `MOST_BANDS`
    lines, a 95 % band per `hue`; or, with `each_seed`, a thin line per seed instead of the band.

    `rows`: a tidy frame with parameter, value (numbers; text, bools and None are categories), the
    column `hue`, seed and the metric; `mark`: parameter -> default value, drawn as a dashed line.
    """
    names = list(rows["parameter"].unique())
    rows = rows.assign(**{hue: rows[hue].map(printed)})
    levels = list(rows[hue].unique())
    n = len(levels)
    columns = {1: 1, 2: 2, 4: 2}.get(len(names), 3)
    lines = math.ceil(len(names) / columns)
    size = (5.2, 3.4) if columns == 1 else (min(3.1, 7.4 / columns) * columns, 2.5 * lines + 0.6)
    fig, axes = plt.subplots(lines, columns, figsize=size, sharey=True, squeeze=False)
    low = rows[metric].min()
    high = rows[metric].max()
    style = theme.hue_style(hue, levels) | {"style": hue, "style_order": levels, "dashes": False}
    bands = n <= MOST_BANDS and not each_seed
    style |= {"errorbar": theme.confidence_bounds if bands else None, "markersize": 6}
    thin = {"hue": hue, "hue_order": levels, "palette": style["palette"], "legend": False}
    thin |= {"units": "seed", "estimator": None, "linewidth": 0.7, "alpha": 0.6}
    for k, (ax, name) in enumerate(zip(axes.flat, names)):
        group = rows[rows["parameter"] == name]
        positions = _positions(group["value"])
        points = group.assign(value=[positions[_text(value)] for value in group["value"]])
        points = points.groupby(["value", hue, "seed"], as_index=False)[metric].mean()
        legend = k == 0 and n > 1
        if each_seed:
            sns.lineplot(points, x="value", y=metric, ax=ax, **thin)
        sns.lineplot(points, x="value", y=metric, legend=legend, ax=ax, **style)
        if mark and name in mark:
            default = _text(mark[name])
            _mark_default(ax, positions.get(default, mark[name]), f"default {default}")
        if low < 0:  # differences
            ax.axhline(0, color="0.2", linewidth=1.2, zorder=1)
            ax.set_ylim(low - 0.02, high + 0.02)
        else:
            ax.set_ylim(max(0, low - 0.05), min(1.02, high + 0.05))
        ax.set(xlabel=theme.PARAMETERS.get(name, name), ylabel=metric)
        ax.yaxis.set_major_locator(MaxNLocator(5))
    fig.draw_without_rendering()
    for ax, name in zip(axes.flat, names):
        values = rows.loc[rows["parameter"] == name, "value"]
        set_ticks = theme.number_ticks if all(map(_is_number, values)) else theme.category_ticks
        set_ticks(ax, _positions(values))
    for ax in axes.flat[len(names) :]:
        ax.axis("off")
    if n > 1:
        theme.legend_above(fig, axes[0, 0])
    return fig


def _mark_default(ax: Axes, x: float, text: str) -> None:
    """A dashed line at x with a text above it that stays within the width of the panel."""
    ax.axvline(x, color="0.3", linestyle="--", linewidth=1.2)
    pixel = ax.transData.transform((x, ax.get_ylim()[0]))
    across = ax.transAxes.inverted().transform(pixel)[0]
    place = ["left", "center", "right"][np.searchsorted([0.3, 0.7], across)]
    style: dict[str, Any] = {"xycoords": ax.get_xaxis_transform(), "textcoords": "offset points"}
    ax.annotate(text, (x, 1), (0, 3), ha=place, fontsize=9.5, **style)
