"""Figures of scores by method, criterion and setting, with 95 % intervals over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import mmclust.results.figures.theme as theme
from mmclust.results.tables import printed, without_negative_zero

ROW_LETTERS = 40  # of the name of a difference, in one line
DWARFED = 8  # differences that are this many times smaller than the largest are magnified


def method_scores(
    rows: pd.DataFrame, metric: str = "NMI", order: Iterable[str] | None = None,
    references: Mapping[str, float] | None = None, magnified: float | None = None,
) -> Figure:  # fmt: skip
    """A row per criterion, with a dot per method (color and marker) and, for several seeds, its
    95 % interval.

    `rows`: a tidy frame with criterion, method and the metric (0 to 1), a row per seed; `order`:
    the order of the methods, by default that of `rows`; methods without rows are left out;
    `references`: method -> value, as dashed lines; `magnified`: a second panel from there to 1.
    """
    measured = list(rows["method"].unique())
    methods = measured if order is None else [name for name in order if name in measured]
    criteria = list(rows["criterion"].unique())
    height = (0.1 * len(methods) + 0.14) * len(criteria) + 1.5
    panels = 1 if magnified is None else 2
    size = (5.6 if panels == 1 else 7.2, height)
    fig, axes = plt.subplots(1, panels, figsize=size, sharey=True, squeeze=False)
    rows = rows.assign(method=rows["method"].map(printed))
    for ax in axes[0]:
        style = {"errorbar": theme.confidence_bounds, "err_kws": {"linewidth": 1.6}}
        style |= _dot_style("method", methods, spread=0.72) | {"markersize": 6}
        sns.pointplot(rows, y="criterion", x=metric, order=criteria, ax=ax, **style)
        theme.category_rows(ax, criteria)
        ax.set(xlim=(-0.02, 1.02), xticks=np.linspace(0, 1, 6))
        lines = theme.reference_lines(ax, references)
    theme.legend_above(fig, axes[0, 0], lines=lines)
    if magnified is not None:
        axes[0, 1].get_legend().remove()
        axes[0, 1].set(xlabel=f"{metric}, from {magnified:g}")
        axes[0, 1].set(xlim=(magnified, 1.005), xticks=np.linspace(magnified, 1, 4).round(3)[1:])
        axes[0, 1].tick_params(labelleft=False)
    return fig


def _dot_style(hue: str, levels: Sequence[str], spread: float) -> dict[str, Any]:
    """Style of dots: a color and a marker per level; `spread`: the share of a row's height that the
    dots take."""
    dodge = spread if len(levels) > 1 else 0
    return theme.hue_style(hue, levels) | {"dodge": dodge, "linestyle": "none"}


def ablation(
    rows: pd.DataFrame, by: str = "row", metric: str = "NMI", baseline: str | None = None,
    references: Mapping[str, float] | None = None,
) -> Figure:  # fmt: skip
    """A bar per setting, the mean over criteria with its 95 % interval, and a dot per criterion. To
    the right of each bar: the mean, or its difference from `baseline`, one of the settings.
    `rows`: a tidy frame with the column `by`, criterion, seed and the metric (0 to 1);
    `references`: method -> value, as dashed lines."""
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
    for i, setting in enumerate(settings):
        if baseline is None or setting == baseline:
            theme.text_at_right(ax, i, f"{means[setting]:.3f}", fontsize=11, fontweight="bold")
        else:
            difference = without_negative_zero(f"{means[setting] - means[baseline]:+.3f}")
            theme.text_at_right(ax, i, difference, fontsize=11)
    ax.set(xlim=(0, 1.02), xticks=np.linspace(0, 1, 6), xlabel=f"{metric}, mean over criteria")
    theme.legend_above(fig, ax, lines=theme.reference_lines(ax, references))
    return fig


def differences(
    table: pd.DataFrame, by: str, metric: str = "NMI", hue: str | None = None,
    panel: str | None = None, references: Mapping[str, float] | None = None, magnify: bool = True,
) -> Figure:  # fmt: skip
    """A row per value of `by`: paired differences of the metric with their 95 % intervals.

    The marker is filled if the difference is certain, and hollow if not. If a few differences are
    far larger than the others, a second column of panels magnifies the small ones (`magnify`).

    `table`: a row per difference, as `mm.paired_within` or `mm.paper_vs_code.effects` return it:
    `by`, difference, ± (half the width of the interval, NaN: none) and, optionally, adjusted p,
    without which a difference is certain if its interval excludes zero. `hue`: a column whose
    values get a color and a marker each, such as the method; `panel`: a column whose values get a
    panel each; `references`: method -> its difference, as dashed lines.
    """
    groups = [("", table)] if panel is None else list(table.groupby(panel, sort=False))
    styles = list(theme.looks(table[hue].unique())) if hue else [("", theme.PALETTE[0], "o")]
    near = _magnified_limit(table) if magnify else None
    columns = 1 if near is None else 2
    row_height = max(0.27, 0.13 * len(styles))
    heights = [row_height * group[by].nunique() + 0.3 for _, group in groups]
    size = (6 if near is None else 7.2, sum(heights) + 1.2)
    shared: dict[str, Any] = {"sharex": "col", "squeeze": False, "height_ratios": heights}
    fig, axes = plt.subplots(len(groups), columns, figsize=size, **shared)
    for (title, group), row in zip(groups, axes):
        for ax in row:
            _draw_differences(ax, group, by, hue, styles)
            lines = theme.reference_lines(ax, references, signed=True)
            ax.xaxis.set_major_locator(MaxNLocator(4 if columns == 2 else 5))
        row[0].set_title(printed(title), loc="left", fontsize=11)
        if near is not None:
            row[1].tick_params(labelleft=False)
    axes[-1, 0].set_xlabel(f"difference in {metric}")
    if near is not None:
        axes[-1, 1].set(xlim=(-near, near), xlabel="the same, magnified")
    handles = [plt.Line2D([], [], color=c, marker=m, linestyle="none") for _, c, m in styles]
    texts = [name for name, *_ in styles]
    if panel is not None or len(styles) == 1:  # titles say it
        handles, texts = [], []
    if handles or lines:
        theme.legend_above(fig, axes[0, 0], handles, texts, lines)
    return fig


def _magnified_limit(table: pd.DataFrame) -> float | None:
    """The end of an axis for the small differences, if a few others are far larger."""
    sizes = table["difference"].abs()
    small = table[sizes <= max(sizes.max() / DWARFED, 1e-3)]
    if len(small) in (0, len(table)):
        return None
    near = 1.15 * (small["difference"].abs() + small["±"].fillna(0)).max()
    return near if 0 < near < sizes.max() / 2 else None


def _draw_differences(
    ax: Axes, table: pd.DataFrame, by: str, hue: str | None, styles: list[tuple[str, Any, str]]
) -> None:
    """Differences and their intervals; those of a row are below each other, one per style."""
    rows = list(dict.fromkeys(table[by]))
    certain = table["difference"].abs() > table["±"]
    if "adjusted p" in table:
        certain = table["adjusted p"] < 0.05
    names = table[hue].map(printed) if hue else pd.Series("", table.index)
    used = [style for style in styles if style[0] in set(names)]
    for place, (name, color, marker) in enumerate(used):
        offset = 0.7 * ((place + 0.5) / len(used) - 0.5)
        for filled in (True, False):
            group = table[(names == name) & (certain == filled)]
            y = [rows.index(row) + offset for row in group[by]]
            dot: dict[str, Any] = {"marker": marker, "markersize": 7, "color": color}
            dot |= {"markerfacecolor": color if filled else "white", "elinewidth": 1.8}
            ax.errorbar(group["difference"], y, xerr=group["±"], linestyle="none", **dot)
    theme.category_rows(ax, rows, ROW_LETTERS)
    ax.tick_params(axis="y", labelsize=10)
    ax.axvline(0, color="0.2", linewidth=1.2)
