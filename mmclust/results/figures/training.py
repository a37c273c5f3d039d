"""Figures of training: losses by epoch, candidate words, time and memory, quality by time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

import mmclust.results.figures.theme as theme
from mmclust.experiments.statistics import interval

BAR_COLORS = {True: theme.PALETTE[0], False: "0.75"}  # whether the candidate is a true class
EVENT_LETTER = 0.078  # inches, mean width of a letter at 9.5 points
LABEL_OFFSETS = ((0, 13), (0, -13), (13, 6), (-13, 6), (13, -6), (-13, -6))  # points, as tried


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _log_ticks(ax: Axes) -> None:
    """Few ticks on a logarithmic x, written as plain numbers."""
    low, high = ax.get_xlim()
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 30 else (1,)))
    ax.xaxis.set_major_formatter("{x:,g}")
    ax.xaxis.set_minor_locator(NullLocator())


def convergence(history: pd.DataFrame) -> Figure:
    """A row per method: its loss by epoch; to the right, each term divided by its largest absolute
    value.

    `history`: a tidy frame with method, epoch, term ("loss" and its terms), value and, optionally,
    event (a text at some epochs, missing at the others).
    """
    methods = list(history["method"].unique())
    fig = plt.figure(figsize=(6.6, 2.5 * len(methods)))
    grid = fig.add_gridspec(len(methods), 2)
    for k, method in enumerate(methods):
        rows = history[history["method"] == method]
        loss = rows[rows["term"] == "loss"]
        terms = rows[rows["term"] != "loss"]
        panels = [fig.add_subplot(grid[k, 0] if len(terms) else grid[k, :])]
        sns.lineplot(loss, x="epoch", y="value", color="0.2", errorbar=None, ax=panels[0])
        panels[0].set(ylabel="loss")
        if len(terms):
            panels.append(fig.add_subplot(grid[k, 1]))
            _draw_terms(panels[1], terms)
        lines = _draw_events(panels, rows) if "event" in rows else 0
        panels[0].set_title(method, pad=6 + 13 * lines, loc="left", fontsize=12)
        for ax in panels:
            ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            ax.yaxis.set_major_locator(MaxNLocator(4))
            ax.set_xlabel("epoch" if k == len(methods) - 1 else "")
            sns.despine(ax=ax)
    return fig


def _draw_terms(ax: Axes, terms: pd.DataFrame) -> None:
    """A line per term, divided by its largest absolute value; the legend has that value."""
    largest = terms.groupby("term")["value"].agg(lambda values: values.abs().max())
    shares = terms["value"] / terms["term"].map(largest).replace(0, 1)
    names = [f"{term} (max. {_amount(largest[term])})" for term in terms["term"]]
    shares = terms.assign(value=shares, term=names)
    colors = theme.palette(len(largest))
    style: dict[str, Any] = {"hue": "term", "style": "term", "errorbar": None, "palette": colors}
    sns.lineplot(shares, x="epoch", y="value", ax=ax, **style)
    style = {"ncols": 2, "fontsize": 9.5, "columnspacing": 0.8, "handlelength": 1.8}
    sns.move_legend(ax, "lower center", bbox_to_anchor=(0.5, 1), title=None, **style)
    ax.set(ylabel="share of max.")


def _draw_events(panels: Sequence[Axes], rows: pd.DataFrame) -> int:
    """A dotted line at the epoch of each event, and its text above the first panel.

    Texts that would overlap are on different lines; returns the number of lines of text.
    """
    width = 2.5 if len(panels) > 1 else 5.8  # inches of the first panel
    first = rows["epoch"].min()
    span = max(rows["epoch"].max() - first, 1)
    style: dict[str, Any] = {"textcoords": "offset points", "fontsize": 9.5, "color": "0.25"}
    style["xycoords"] = panels[0].get_xaxis_transform()
    ends: list[float] = []  # of the last text on each line, in inches
    events = rows.dropna(subset="event").drop_duplicates("epoch")
    for epoch, event in zip(events["epoch"], events["event"]):
        for ax in panels:
            ax.axvline(epoch, color="0.45", linewidth=0.9, linestyle=":")
        start = (epoch - first) / span * width
        length = EVENT_LETTER * len(event) + 0.1
        place = "left"
        if start + length > width:
            place = "right"
            start -= length
        line = next((i for i, end in enumerate(ends) if end <= start), len(ends))
        ends[line : line + 1] = [start + length]
        panels[0].annotate(event, (epoch, 1), (0, 3 + 12 * line), ha=place, **style)
    return len(ends)


def candidates(
    updates: Sequence[dict[str, Any]], epochs: int, classes: Iterable[str] = ()
) -> Figure:
    """A bar per word of Multi-DProxy: the epochs in which it was a candidate, the longest on top.

    `updates`: `MultiDProxy.updates_`, whose first entry has all words; `epochs`: the number of all
    epochs; `classes`: names of true classes, whose bars have a color and a check mark.
    """
    words = updates[0]["candidates"]
    true = {str(name).lower() for name in classes}
    lifetimes = {
        word: next((u["epoch"] for u in updates if word not in u["candidates"]), epochs)
        for word in words
    }
    order = sorted(words, key=lifetimes.__getitem__, reverse=True)
    hits = [word.lower() in true for word in order]
    fig, ax = plt.subplots(figsize=(5.2, 0.2 * len(order) + 1.2))
    colors = [BAR_COLORS[hit] for hit in hits]
    ax.barh(range(len(order)), [lifetimes[word] for word in order], color=colors, height=0.72)
    theme.category_rows(ax, order)
    texts = [f"{word} ✓" if hit else word for word, hit in zip(order, hits)]
    ax.set_yticks(range(len(order)), texts, fontsize=10)
    for text, hit in zip(ax.get_yticklabels(), hits):
        text.set_fontweight("bold" if hit else "normal")
    ax.set(xlim=(0, epochs), xlabel="epoch")
    fig.draw_without_rendering()
    ticks = sorted({0, epochs, *(update["epoch"] for update in updates)})
    theme.number_ticks(ax, {str(epoch): epoch for epoch in ticks})
    if any(hits):
        handles = [plt.Rectangle((0, 0), 1, 1, color=color) for color in BAR_COLORS.values()]
        theme.legend_above(fig, ax, handles, ["✓ name of a true class", "other word"])
    return fig


def cost_bars(rows: pd.DataFrame, value: str = "seconds", unit: str = "s") -> Figure:
    """A pair of horizontal bars per method on a logarithmic axis, with the cost at their ends.

    To the right of each pair: the cost of the first way divided by that of the second. `rows`:
    method, way (two of them) and the column `value`; rows with equal method and way are averaged.
    """
    methods = list(rows["method"].unique())
    ways = list(rows["way"].unique())
    table = rows.pivot_table(index="method", columns="way", values=value)
    low = table.min().min()
    high = table.max().max()
    fig, ax = plt.subplots(figsize=(6, 0.62 * len(methods) + 1.4))
    style = {"palette": theme.palette(len(ways)), "saturation": 1, "errorbar": None}
    orders = {"order": methods, "hue_order": ways}
    sns.barplot(rows, y="method", x=value, hue="way", ax=ax, **orders, **style)
    xlim = (10 ** np.floor(np.log10(low / 1.5)), high * (high / low) ** 0.25 * 2)
    ax.set(xscale="log", xlim=xlim, xlabel=f"{value} ({unit}), logarithmic")
    for bars in cast(list[BarContainer], ax.containers):
        ax.bar_label(bars, fmt=lambda width: f"{_amount(width)} {unit}", padding=3, fontsize=10)
    theme.category_rows(ax, methods)
    _log_ticks(ax)
    if len(ways) > 1:
        for i, ratio in enumerate((table[ways[0]] / table[ways[-1]])[methods]):
            if np.isfinite(ratio):
                text = f"{ratio:.0f} times" if ratio >= 10 else f"{ratio:.1f} times"
                theme.text_at_right(ax, i, text, fontsize=11, fontweight="bold")
    theme.legend_above(fig, ax)
    return fig


def quality_time(rows: pd.DataFrame, metric: str = "NMI") -> Figure:
    """The metric, a mean over criteria with its 95 % interval over seeds, by seconds (logarithmic).

    A line per method, whose dots are its numbers of epochs; methods without epochs are horizontal
    dashed lines. `rows`: method, epochs (NaN: none), seconds, criterion, seed and the metric.
    """
    trained = rows[rows["epochs"].notna()]
    untrained = rows[rows["epochs"].isna()].groupby("method", sort=False)[metric].mean()
    fig, ax = plt.subplots(figsize=(6, 4.2))
    ax.set(xscale="log", xlabel="seconds for one clustering")
    ax.set_ylabel(f"{metric}, mean over criteria")
    labels: list[tuple[float, float, str]] = []  # x, y and the number of epochs of a dot
    lines: list[Any] = []  # the lines that labels must not cover, as points (x, y)
    for method, color, marker in theme.looks(trained["method"].unique()):
        group = trained[trained["method"] == method]
        seconds = group.groupby("epochs")["seconds"].mean()
        per_seed = group.groupby(["epochs", "seed"])[metric].mean().groupby("epochs")
        means = per_seed.mean()
        errors = per_seed.agg(interval)
        style = {"color": color, "marker": marker, "markersize": 7, "capsize": 2}
        ax.errorbar(seconds, means, errors, label=method, elinewidth=1.2, **style)
        labels += [(seconds[e], means[e], f"{e:g}") for e in seconds.index]
        lines.append(np.stack([seconds, means], 1))
        for x, y, error in zip(seconds, means, errors.fillna(0)):
            lines.append([[x, y - error], [x, y + error]])
    lines += _draw_untrained(ax, untrained.sort_values())
    theme.legend_above(fig, ax, *ax.get_legend_handles_labels())
    fig.draw_without_rendering()
    _label_dots(ax, labels, lines)
    return fig


def _draw_untrained(ax: Axes, values: pd.Series) -> list[list[list[float]]]:
    """A dashed line per method, with its name to the right; names do not overlap. Sets the limits
    of the axes. Returns the two ends of each line."""
    ax.margins(x=0.08)
    low = min([ax.get_ylim()[0], *(values - 0.02)])
    high = max([ax.get_ylim()[1], *(values + 0.02)])
    left, right = ax.get_xlim()
    ax.set(xlim=(left, right), ylim=(max(0, low), min(1.02, high)))
    _log_ticks(ax)
    text_y = -1.0
    for method, value in values.items():
        ax.axhline(value, color="0.35", linestyle="--", linewidth=1.2)
        text_y = max(value, text_y + 0.06 * (high - low))
        theme.text_at_right(ax, text_y, str(method), fontsize=10)
    return [[[left, value], [right, value]] for value in values]


def _label_dots(ax: Axes, labels: list[tuple[float, float, str]], lines: list[Any]) -> None:
    """A label next to each dot where it covers no line and no other label; none if there is no
    such position."""
    paths = [Path(ax.transData.transform(line)) for line in lines]  # in pixels
    boxes: list[Any] = []
    style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 9.5, "color": "0.2"}
    for x, y, text in labels:
        for offset in LABEL_OFFSETS:
            label = ax.annotate(text, (x, y), offset, textcoords="offset points", **style)
            box = label.get_window_extent()
            covers_line = any(path.intersects_bbox(box, filled=False) for path in paths)
            if not covers_line and not box.count_overlaps(boxes):
                boxes.append(box)
                break
            label.remove()
