"""Figures of scores by method, criterion and setting, with 95 % intervals over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import mmclust.results.figures.theme as theme

DWARFED = 8  # effects that are this many times smaller than the largest are magnified


def method_scores(
    rows: pd.DataFrame, metric: str = "NMI", order: Iterable[str] | None = None
) -> Figure:
    """A row per criterion, with a dot per method (color and marker) and, for several seeds, its
    95 % interval.

    `rows`: a tidy frame with criterion, method and the metric (0 to 1), a row per seed; `order`:
    the order of the methods, by default that of `rows`; methods without rows are left out.
    """
    measured = list(rows["method"].unique())
    methods = measured if order is None else [name for name in order if name in measured]
    criteria = list(rows["criterion"].unique())
    height = (0.1 * len(methods) + 0.14) * len(criteria) + 1.3
    fig, ax = plt.subplots(figsize=(5.6, height))
    style = {"errorbar": theme.confidence_bounds, "err_kws": {"linewidth": 1.6}, "markersize": 6}
    style |= _dot_style("method", methods, spread=0.72)
    sns.pointplot(rows, y="criterion", x=metric, order=criteria, ax=ax, **style)
    theme.category_rows(ax, criteria)
    ax.set(xlim=(-0.02, 1.02), xticks=np.linspace(0, 1, 6))
    theme.legend_above(fig, ax)
    return fig


def _dot_style(hue: str, levels: Sequence[str], spread: float) -> dict[str, Any]:
    """Style of dots: a color and a marker per level; `spread`: the share of a row's height that the
    dots take."""
    n = len(levels)
    style = {"hue": hue, "hue_order": levels, "dodge": spread if n > 1 else 0, "linestyle": "none"}
    return style | {"palette": theme.palette(n), "markers": theme.markers(n)} | theme.EDGE


def ablation(
    rows: pd.DataFrame, by: str = "row", metric: str = "NMI", baseline: str | None = None
) -> Figure:
    """A bar per setting, the mean over criteria with its 95 % interval, and a dot per criterion. To
    the right of each bar: the mean, or its difference from `baseline`, one of the settings.
    `rows`: a tidy frame with the column `by`, criterion, seed and the metric (0 to 1)."""
    settings = list(rows[by].unique())
    criteria = list(rows["criterion"].unique())
    per_seed = rows.groupby([by, "seed"], as_index=False)[metric].mean()
    means = per_seed.groupby(by)[metric].mean()
    fig, ax = plt.subplots(figsize=(6, max(0.42, 0.07 * len(criteria)) * len(settings) + 1.4))
    bars = {"color": "0.8", "width": 0.8, "errorbar": theme.confidence_bounds}
    bars["err_kws"] = {"linewidth": 2, "color": "0.2"}
    sns.barplot(per_seed, y=by, x=metric, order=settings, ax=ax, **bars)
    dots = _dot_style("criterion", criteria, spread=0.6) | {"errorbar": None, "markersize": 5}
    sns.pointplot(rows, y=by, x=metric, order=settings, ax=ax, **dots)
    theme.category_rows(ax, settings)
    if baseline is not None:
        ax.axvline(means[baseline], color="0.2", linestyle="--", linewidth=1.2)
    for i, setting in enumerate(settings):
        if baseline is None or setting == baseline:
            theme.text_at_right(ax, i, f"{means[setting]:.3f}", fontsize=11, fontweight="bold")
        else:
            theme.text_at_right(ax, i, f"{means[setting] - means[baseline]:+.3f}", fontsize=11)
    ax.set(xlim=(0, 1.02), xticks=np.linspace(0, 1, 6), xlabel=f"{metric}, mean over criteria")
    theme.legend_above(fig, ax)
    return fig


def effects(table: pd.DataFrame, metric: str = "NMI") -> Figure:
    """A row per flip (a difference between paper and code): its effect with the 95 % interval.

    The marker is filled if the interval excludes zero, and hollow if not. If a few effects are far
    larger than the others, a second panel magnifies the small ones.

    `table`: a result of `paper_vs_code.effects`, with method, parameter, flipped, effect and ±
    (half the width of the interval, NaN for one seed).
    """
    table = table.reset_index(drop=True)
    methods = list(table["method"].unique())
    lines = [f"{row['parameter']} = {row['flipped']}" for _, row in table.iterrows()]
    sizes = table["effect"].abs()
    small = table[sizes <= max(sizes.max() / DWARFED, 1e-3)]
    near = 1.15 * (small["effect"].abs() + small["±"].fillna(0)).max() if len(small) else np.nan
    magnify = len(small) < len(table) and 0 < near < sizes.max() / 2
    panels = 2 if magnify else 1
    size = (7.2 if magnify else 6, 0.27 * len(table) + 1.4)
    fig, axes = plt.subplots(1, panels, figsize=size, sharey=True, squeeze=False)
    for ax in axes[0]:
        for method, color, marker in theme.looks(methods):
            rows = table[table["method"] == method]
            certain = rows["effect"].abs() > rows["±"]
            for group, face in ((rows[certain], color), (rows[~certain], "white")):
                dot: dict[str, Any] = {"marker": marker, "markersize": 7, "color": color}
                dot |= {"markerfacecolor": face, "elinewidth": 1.8, "linestyle": "none"}
                ax.errorbar(group["effect"], group.index, xerr=group["±"], **dot)
        theme.category_rows(ax, lines)
        ax.axvline(0, color="0.2", linewidth=1.2)
        ax.set_xlabel(f"effect on {metric}")
        ax.xaxis.set_major_locator(MaxNLocator(5))
    axes[0, 0].set_yticks(range(len(lines)), lines, fontsize=10)
    if magnify:
        axes[0, 1].set(xlim=(-near, near), xlabel="the same, magnified")
        axes[0, 1].xaxis.set_major_locator(MaxNLocator(4))
        axes[0, 1].tick_params(labelleft=False)
    style: dict[str, Any] = {"markersize": 7, "linestyle": "none"}
    looks = theme.looks(methods)
    handles = [plt.Line2D([], [], color=c, marker=marker, **style) for _, c, marker in looks]
    theme.legend_above(fig, axes[0, 0], handles, methods)
    return fig
