"""The style that all figures share: colors, markers, fonts, axes and legends.

Color-blind readers can distinguish the colors, and every color has its own marker. Texts have at
least 9 points, so that a figure is readable in a column of a paper and on a projector.
"""

from __future__ import annotations

import colorsys
import itertools
import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.font_manager as fonts
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from PIL import Image

from mmclust.data.rendered import COLORS
from mmclust.experiments.statistics import interval
from mmclust.results.tables import printed, without_negative_zero

# seaborn's palette "colorblind", reordered: the first colors differ most.
PALETTE = [
    "#0173b2", "#de8f05", "#029e73", "#cc78bc", "#56b4e9", "#d55e00", "#949494", "#ece133",
    "#ca9161", "#fbafe4",
]  # fmt: skip
MARKERS = "o^sDXvP<>p"  # with their colors, none of the first ten is that of a method
# Color and marker of a method, by its printed name: the same in every figure.
METHOD_STYLES = {
    "k-means on v": (PALETTE[6], "o"), "CLIP_GPT": (PALETTE[1], "s"),
    "CLIP_label": ("#262626", "X"), "CRL": (PALETTE[4], "v"), "CRL, softmax": (PALETTE[8], "<"),
    "Multi-MaP": (PALETTE[3], "^"), "Multi-Sub": (PALETTE[2], "D"),
    "Multi-DProxy": (PALETTE[0], "P"),
}  # fmt: skip
PARAMETERS = {  # printed names of parameters: the papers' letters
    "alpha": "α", "beta": "β", "lam": "λ", "update_every": "R (epochs between prunings)",
    "layers": "L (layers)", "tau": "τ", "tau_alpha": "$τ_α$",
}  # fmt: skip
EDGE: dict[str, Any] = {"markeredgecolor": "0.25", "markeredgewidth": 0.4}

LARGEST = 512  # pixels, side of a picture in a figure: more are not seen, but fill the memory
FRAME = 2.5  # points, width of the frame of a picture
LIGHT = 0.8  # a frame whose red, green and blue are all above this gets a gray outline
WRONG = "#c00000"  # of the cross on a picture that is in the wrong cluster

FONT = "DejaVu Sans"  # it comes with matplotlib
# Fonts of Linux, Windows and macOS for letters that it lacks, where they are installed.
OTHER_FONTS = [
    "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei",
    "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Hiragino Sans GB", "Arial Unicode MS",
    "Noto Sans Devanagari", "Lohit Devanagari", "Nirmala UI", "Noto Sans Thai", "Leelawadee UI",
]  # fmt: skip

LETTER_WIDTH = 0.09  # inches, mean at 10.5 points; sizes are estimated before anything is drawn
LEGEND_KEY_WIDTH = 0.5  # inches
TICK_LETTER_WIDTH = 7.5  # points, with a margin


def use_theme() -> None:
    """Set the style of all later figures; the same figure has the same SVG bytes in every run."""
    rc: dict[str, Any] = {"figure.dpi": 110, "figure.constrained_layout.use": True}
    rc |= {"savefig.dpi": 200, "savefig.bbox": "tight", "savefig.pad_inches": 0.08}
    rc |= {"axes.titleweight": "bold", "axes.titlesize": 12, "legend.frameon": False}
    installed = fonts.get_font_names()
    family = [FONT, *(name for name in OTHER_FONTS if name in installed)]
    sns.set_theme(style="whitegrid", palette=PALETTE, font=family, rc=rc)
    mpl.rcParams["svg.hashsalt"] = "mmclust"


def escape_missing_letters(fig: Figure) -> str:
    """The letters that no font has; escapes such as "\\u7ea2" replace them, not equal boxes."""
    ticks = {
        axis: [label.get_text() for label in axis.get_ticklabels()]
        for ax in fig.axes
        for axis in (ax.xaxis, ax.yaxis)
    }
    texts: list[Any] = fig.findobj(Text)
    letters = {letter for text in texts for letter in text.get_text() if letter.isprintable()}
    for name in mpl.rcParams["font.family"]:
        font = FT2Font(fonts.findfont(fonts.FontProperties(family=[name])))
        letters = {letter for letter in letters if not font.get_char_index(ord(letter))}
    escapes = {ord(c): c.encode("ascii", "backslashreplace").decode() for c in letters}
    for axis, labels in ticks.items():  # they are written anew whenever they are drawn
        if letters.intersection("".join(labels)):
            axis.set_ticks(axis.get_ticklocs(), [label.translate(escapes) for label in labels])
    for text in texts if letters else []:
        text.set_text(text.get_text().translate(escapes))
    return "".join(sorted(letters))


def palette(n: int) -> list:
    """n colors; from the eleventh on they repeat."""
    return [PALETTE[i % len(PALETTE)] for i in range(n)]


def markers(n: int) -> list:
    """n markers; with the colors of `palette`, all pairs differ for up to a hundred classes."""
    return [MARKERS[(i + i // len(PALETTE)) % len(MARKERS)] for i in range(n)]


def class_colors(names: Sequence[str]) -> list:
    """A color per class; classes that are named after colors, "red 2" as well, get these colors."""
    words = without_number(names)
    if not set(words) <= set(COLORS):
        return palette(len(names))
    return [colorsys.hsv_to_rgb(h / 360, s, v) for h, s, v in map(COLORS.__getitem__, words)]


def without_number(names: Iterable[str]) -> list[str]:
    """The words of names such as "red 2", which `mm.name_clusters` gives."""
    return [re.sub(r" \d+$", "", name) for name in names]


def looks(names: Iterable[str]) -> Iterator[tuple[str, Any, str]]:
    """Printed name, color and marker of each class or method: of a method, its `METHOD_STYLES`."""
    texts = [printed(name) for name in names]
    styles = {name: METHOD_STYLES[name] for name in texts if name in METHOD_STYLES}
    if not styles:
        return zip(texts, class_colors(texts), markers(len(texts)))
    taken = [color for color, _ in styles.values()]
    free = [look for look in zip(PALETTE, MARKERS) if look[0] not in taken]
    others = [name for name in texts if name not in styles]
    styles |= zip(others, itertools.cycle(free))
    return ((name, *styles[name]) for name in texts)


def hue_style(hue: str, levels: Sequence[str]) -> dict[str, Any]:
    """`looks` of the printed `levels` of a column, as arguments of seaborn."""
    names, colors, shapes = zip(*looks(levels))
    styles = {"hue": hue, "hue_order": list(names), "palette": list(colors)}
    return styles | {"markers": list(shapes)} | EDGE


def reference_lines(ax: Axes, references: Mapping[str, float] | None, signed: bool = False) -> list:
    """A thin dashed line per method at its value, with its entry for `legend_above`. A name may end
    with a remark: "Multi-Sub (published)". `signed`: the values are differences."""
    style: dict[str, Any] = {"linestyle": "--", "linewidth": 1.4, "zorder": 1.5}
    values = {} if references is None else dict(references)
    form = "+.3f" if signed else ".3f"
    texts = {name: without_negative_zero(f"{value:{form}}") for name, value in values.items()}
    methods = [name.partition(" (")[0] for name in values]
    colors = {name: color for name, (_, color, _) in zip(values, looks(methods))}
    return [
        ax.axvline(value, color=colors[name], label=f"{printed(name)} {texts[name]}", **style)
        for name, value in values.items()
    ]


def wrap(text: object, width: int = 22) -> str:
    """Text in lines of at most `width` letters; its own lines stay apart."""
    lines = [
        line for part in str(text).split("\n") for line in textwrap.wrap(part, width) or [part]
    ]
    return "\n".join(lines).replace("$", r"\$")  # no formula


def confidence_bounds(values: pd.Series) -> tuple[float, float]:
    """Bounds of the 95 % t-interval of a mean over seeds, for the parameter `errorbar` of seaborn;
    not above 1, the largest value of a metric.

    seaborn's default, a bootstrap, is random, and too narrow for five seeds. Two seeds get no
    interval (NaN): with 12.7 standard errors it would fill the panel.
    """
    half = interval(values) if len(values) > 2 else np.nan
    return np.mean(values) - half, min(np.mean(values) + half, 1)


def show_image(ax: Axes, image: Image.Image, edge: Any = None, wrong: bool = False) -> None:
    """One picture without ticks; `edge` is the color of its frame, `wrong` marks its corner."""
    image = image.copy()
    image.thumbnail((LARGEST, LARGEST))
    smooth = "nearest" if max(image.size) < 64 else "antialiased"
    # Not clipped: the name of a clip rectangle in an SVG has the last digits of the layout, which
    # differ from run to run.
    ax.imshow(np.asarray(image), interpolation=smooth).set_clip_on(False)
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    ax.spines[:].set(visible=edge is not None, color=edge, linewidth=FRAME)
    if edge is not None and min(mpl.colors.to_rgb(edge)) > LIGHT:  # invisible on white paper
        ax.patch.set(edgecolor="0.55", linewidth=FRAME + 1.4)  # seen on both sides of the frame
    if edge is not None:  # around the picture, not over its margin
        width, height = image.size
        pad = 0.03 * max(width, height)
        ax.set(xlim=(-0.5 - pad, width - 0.5 + pad), ylim=(height - 0.5 + pad, -0.5 - pad))
    if wrong:
        style: dict[str, Any] = {"markersize": 9, "markeredgecolor": "white", "clip_on": False}
        ax.plot(0.88, 0.88, "X", color=WRONG, transform=ax.transAxes, **style)


def row_title(ax: Axes, text: str, fontsize: float = 10) -> None:
    """A horizontal text to the left of the first panel of a row."""
    ax.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=fontsize, labelpad=6)


def text_at_right(ax: Axes, y: float, text: str, **style: Any) -> None:
    """A text to the right of the axes, at y in data coordinates."""
    ax.text(1.02, y, text, transform=ax.get_yaxis_transform(), va="center", **style)


def legend_above(
    fig: Figure, ax: Axes, handles: Sequence[Any] | None = None, texts: Sequence[str] | None = None,
    lines: Sequence[Any] = (),
) -> None:  # fmt: skip
    """One legend above all panels, in as few rows as possible.

    By default it has the handles and texts of the legend of `ax`, and replaces that legend.
    `lines`: more entries, as of `reference_lines`.
    """
    if handles is None or texts is None:
        legend: Any = ax.get_legend()
        handles = legend.legend_handles
        texts = [text.get_text() for text in legend.get_texts()]
        legend.remove()
    handles = [*handles, *lines]
    texts = [*texts, *(line.get_label() for line in lines)]
    width = len(texts) * (LETTER_WIDTH * max(map(len, texts)) + LEGEND_KEY_WIDTH)
    rows = math.ceil(width / (fig.get_figwidth() - 0.2))
    style: dict[str, Any] = {"fontsize": 10.5, "columnspacing": 1.2, "handletextpad": 0.4}
    ncols = math.ceil(len(texts) / rows)
    fig.legend(handles, texts, loc="outside upper center", ncols=ncols, **style)


def category_rows(ax: Axes, names: Sequence[str], letters: int = 22) -> None:
    """The y axis of horizontal charts: names in lines of so many letters, light bands, and no grid
    lines."""
    ax.set_yticks(range(len(names)), [wrap(name, letters) for name in names])
    ax.set(ylim=(len(names) - 0.5, -0.5), ylabel="")
    for i in range(0, len(names), 2):
        ax.axhspan(i - 0.5, i + 0.5, color="0.95", zorder=0, linewidth=0)
    ax.grid(axis="y", visible=False)
    ax.set_axisbelow(True)
    sns.despine(ax=ax, left=True)


def number_ticks(ax: Axes, positions: dict[str, float]) -> None:
    """Ticks on x (text -> position), without those that would overlap. Call it after layout."""
    pixels = ax.transData.transform([(x, 1) for x in positions.values()])[:, 0]
    letter = TICK_LETTER_WIDTH * ax.figure.dpi / 72
    visible: list[str] = []
    end = -math.inf
    for text, center in zip(positions, pixels):
        half = letter * len(text) / 2
        if center - half > end:
            visible.append(text)
            end = center + half + letter
    ax.set_xticks([positions[text] for text in visible], visible)
    ax.set_xticks([], minor=True)


def category_ticks(ax: Axes, positions: dict[str, float]) -> None:
    """Ticks on x (text -> position), wrapped so that they do not overlap. Call it after layout."""
    letter = TICK_LETTER_WIDTH * ax.figure.dpi / 72
    width = max(5, int(ax.get_window_extent().width / len(positions) / letter))
    ax.set_xticks(list(positions.values()), [wrap(text, width) for text in positions])
    ax.set_xticks([], minor=True)
