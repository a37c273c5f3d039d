"""Figures of training: losses by epoch, candidate words, time and memory, quality by time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

import mmclust.results.figures.theme as theme
from mmclust.experiments.statistics import interval
from mmclust.results.tables import printed

BAR_COLORS = {True: theme.PALETTE[0], False: "0.75"}  # whether the candidate is a true class
TERM_COLUMNS = 4  # of the panels of `convergence`
MOST_WORDS = 30  # with a bar each; of more, equal ones share a bar
LABEL_OFFSETS = ((0, 13), (0, -13), (13, 6), (-13, 6), (13, -6), (-13, -6))  # points, as tried


def _amount(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 1 else f"{value:.2g}"


def _log_ticks(ax: Axes) -> None:
    """Few ticks on a logarithmic x, written as plain numbers."""
    low, high = ax.get_xlim()
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 30 else (1,)))
    ax.xaxis.set_major_formatter("{x:,g}")
    ax.xaxis.set_minor_locator(NullLocator())


def convergence(history: pd.DataFrame) -> Figure:
    """A panel per method and term of its loss, by epoch, with an axis of its own.

    A line has a gap where a term does not exist. Phases that take turns are shaded in turn; other
    events are dotted lines.

    `history`: a tidy frame with method, epoch, term ("loss" and its terms), value and, optionally,
    event (a text at some epochs, missing at the others).
    """
    panels: list[Any] = []
    for _, rows in history.groupby("method", sort=False):
        panels += [(rows, term) for term in rows["term"].unique()]
        panels += [None] * (-len(panels) % TERM_COLUMNS)  # a method starts a line
    lines = len(panels) // TERM_COLUMNS
    size = (7.2, 1.6 * lines + 0.5)
    fig, axes = plt.subplots(lines, TERM_COLUMNS, figsize=size, squeeze=False)
    entries: dict[str, Any] = {}
    for ax, panel in zip(axes.flat, panels):
        if panel is None:
            ax.axis("off")
            continue
        rows, term = panel
        values = rows[rows["term"] == term].set_index("epoch")["value"]
        values = values.reindex(range(values.index.min(), values.index.max() + 1))
        _, color, _ = next(theme.looks(rows["method"].iloc[:1]))
        ax.plot(values, color=color)
        entries |= _draw_events(ax, rows) if "event" in rows else {}
        ax.set_title(f"{printed(rows['method'].iloc[0])}\n{term}", fontsize=10)
        ax.set_xlim(rows["epoch"].min() - 1, rows["epoch"].max() + 1)
        ax.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(4))
        ax.tick_params(labelsize=9)
        ax.grid(axis="x", visible=False)  # it looks like an event
        sns.despine(ax=ax)
    fig.supxlabel("epoch", fontsize=11)
    if entries:
        theme.legend_above(fig, axes[0, 0], list(entries.values()), list(entries))
    return fig


def _draw_events(ax: Axes, rows: pd.DataFrame) -> dict[str, Any]:
    """Draw the events of a method; returns the entries of a legend."""
    events = rows.dropna(subset="event").drop_duplicates("epoch")
    starts = list(events["epoch"])
    if not events["event"].duplicated().any():
        drawn = [ax.axvline(x, color="0.45", linewidth=1, linestyle=":") for x in starts]
        return {", ".join(events["event"]): drawn[0]} if drawn else {}
    # the phase that does not come first is shaded; the first may begin without an event
    phases = list(events["event"].unique())
    shaded = phases[1] if starts[0] == rows["epoch"].min() else phases[0]
    ends = [*starts[1:], rows["epoch"].max() + 1]
    spans = [(x, end) for x, end, event in zip(starts, ends, events["event"]) if event == shaded]
    shades = [ax.axvspan(x, end, color="0.88", linewidth=0) for x, end in spans]
    return {shaded: shades[0]}


def candidates(
    updates: Sequence[dict[str, Any]], epochs: int, classes: Iterable[str] = ()
) -> Figure:
    """A bar per word of Multi-DProxy: the epochs in which it was a candidate, the longest on top.
    Of many words, those that are no class and were dropped together share a bar.

    `updates`: `MultiDProxy.updates_`, whose first entry has all words; `epochs`: the number of all
    epochs; `classes`: names of true classes, whose bars have a color and a check mark.
    """
    words = updates[0]["candidates"]
    true = {str(name).lower() for name in classes}
    lifetimes = {
        word: next((u["epoch"] for u in updates if word not in u["candidates"]), epochs)
        for word in words
    }
    for epoch in sorted(set(lifetimes.values())) if len(words) > MOST_WORDS else []:
        others = [w for w, end in lifetimes.items() if end == epoch and w.lower() not in true]
        if len(others) > 3:
            lifetimes = {w: end for w, end in lifetimes.items() if w not in others}
            lifetimes[f"{others[0]}, {others[1]} and {len(others) - 2} others"] = epoch
    order = sorted(lifetimes, key=lifetimes.__getitem__, reverse=True)
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


def costs(rows: pd.DataFrame, value: str = "seconds", unit: str = "s") -> Figure:
    """Two dots per method on a logarithmic axis, joined by a line, with the cost next to each.

    To the right: the cost of the first way divided by that of the second. `rows`: method, way (two
    of them) and the column `value`; rows with equal method and way are averaged.
    """
    methods = list(rows["method"].unique())
    ways = list(rows["way"].unique())
    table = rows.pivot_table(index="method", columns="way", values=value).loc[methods, ways]
    low = table.min().min()
    high = table.max().max()
    margin = max(high / low, 4) ** 0.4  # beside the outermost dots, for their labels
    fig, ax = plt.subplots(figsize=(6, 0.5 * len(methods) + 1.4))
    ax.set(xscale="log", xlim=(low / margin, high * margin), xlabel=f"{value} ({unit})")
    ax.hlines(range(len(methods)), table.min(axis=1), table.max(axis=1), color="0.6", linewidth=2)
    text: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 10}
    for way, marker, color in zip(ways, "Xo", ("0.45", "0.1")):
        ax.plot(table[way], range(len(methods)), marker, color=color, markersize=8, label=way)
        for i, cost in enumerate(table[way]):
            right = cost >= table.iloc[i].max()
            place: dict[str, Any] = {"xytext": (9 if right else -9, 0)}
            place["ha"] = "left" if right else "right"
            ax.annotate(f"{_amount(cost)} {unit}", (cost, i), **place, **text)
    theme.category_rows(ax, [printed(method) for method in methods])
    _log_ticks(ax)
    for i, ratio in enumerate(table[ways[0]] / table[ways[-1]] if len(ways) > 1 else []):
        if np.isfinite(ratio):
            times = f"{ratio:.0f} times" if ratio >= 10 else f"{ratio:.1f} times"
            theme.text_at_right(ax, i, times, fontsize=11, fontweight="bold")
    theme.legend_above(fig, ax, *ax.get_legend_handles_labels())
    return fig


def quality_time(rows: pd.DataFrame, metric: str = "NMI") -> Figure:
    """The metric, a mean over criteria, by seconds (logarithmic); with several seeds, their 95 %
    intervals.

    A line per method, whose dots are its numbers of epochs; a method without epochs is one dot.
    `rows`: method, epochs (NaN: none), seconds, criterion, seed and the metric.
    """
    fig, ax = plt.subplots(figsize=(6, 4.2))
    ax.set(xscale="log", xlabel="seconds for one clustering")
    ax.set_ylabel(f"{metric}, mean over criteria")
    labels: list[tuple[float, float, str]] = []  # x, y and the number of epochs of a dot
    lines: list[Any] = []  # the lines that labels must not cover, as points (x, y)
    methods = list(rows["method"].unique())
    for method, (name, color, marker) in zip(methods, theme.looks(methods)):
        group = rows[rows["method"] == method].fillna({"epochs": 0})
        seconds = group.groupby("epochs")["seconds"].mean()
        per_seed = group.groupby(["epochs", "seed"])[metric].mean().groupby("epochs")
        means = per_seed.mean()
        errors = per_seed.agg(interval)
        bounds = [errors, np.minimum(errors, 1 - means)]
        style = {"color": color, "marker": marker, "markersize": 7, "capsize": 2}
        ax.plot(seconds, means, label=name, color=color, marker=marker, markersize=7)
        if errors.notna().any():
            ax.errorbar(seconds, means, bounds, elinewidth=1.2, linestyle="none", **style)
        labels += [(seconds[e], means[e], f"{e:g}") for e in seconds.index if e]
        lines.append(np.stack([seconds, means], 1))
        for x, y, error in zip(seconds, means, errors.fillna(0)):
            lines.append([[x, y - error], [x, y + error]])
    low, high = ax.get_ylim()
    ax.set_ylim(max(0, low), min(1.02, high))
    ax.margins(x=0.08)
    _log_ticks(ax)
    theme.legend_above(fig, ax, *ax.get_legend_handles_labels())
    fig.draw_without_rendering()
    _label_dots(ax, labels, lines)
    return fig


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
