"""A diagram of each method: what is frozen, what is learned, where gradients flow, what is
clustered. A method is data (`DIAGRAMS`): the form that the lessons build, *not* its variants.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch

from mmclust.methods.parameters import check_choice
from mmclust.results.tables import PRINTED_NAMES


class Box(NamedTuple):
    """A box of a schematic: its center in inches, its text, and its kind, a key of `KINDS`."""

    x: float
    y: float
    text: str
    kind: str = "value"
    width: float = 1.1


SIZE = (7.2, 4.3)  # inches
HEIGHT = 0.7  # of a box, inches
TOP, MIDDLE, LOW, BOTTOM = 3.85, 2.85, 1.85, 0.8  # rows, inches
KINDS = {  # color of a box, style of its edge; the kind is also written in it, unless it is "value"
    "frozen": ("#cfe3f1", "-"), "learned": ("#f3b14b", "-"), "loss": ("white", ":"),
    "clustered": ("#9fd8c4", "-"), "value": ("white", "-"),
}  # fmt: skip
GRADIENT: dict[str, Any] = {"color": "#c04f00", "lw": 2.4, "ls": "-"}
NO_GRADIENT: dict[str, Any] = {"color": "0.45", "lw": 1.3, "ls": (0, (4, 2))}
DIAGRAMS: dict[str, tuple[dict[str, Box], str, str]] = {  # boxes, arrows with a gradient, without
    "MultiMaP": ({
        "x": Box(0.75, TOP, "picture $x_i$"),
        "image": Box(2.6, TOP, "image encoder", "frozen", 1.5),
        "v": Box(4.7, TOP, "$v_i$"),
        "align": Box(4.7, MIDDLE, "$-\\cos(v_i, t(w_i))$", "loss", 1.7),
        "w": Box(0.75, LOW, "word $w_i$", "learned"),
        "text": Box(2.6, LOW, "text encoder:\nprompt with $w_i$", "frozen", 1.5),
        "t": Box(4.7, LOW, "$t(w_i)$", "clustered"),
        "k": Box(6.45, LOW, "k-means"),
        "held": Box(
            2.35, BOTTOM, "$w_i$ near its reference word\nand near the keyword", "loss", 2.5
        ),
        "words": Box(5.8, BOTTOM, "the K words\nand the keyword", "frozen", 1.5),
    }, "w>text text>t t>align w>held",
        "x>image image>v v>align t>k words>held"),
    "MultiSub": ({
        "x": Box(0.65, TOP, "picture $x_i$"),
        "image": Box(2.05, TOP, "image trunk", "frozen", 1.2),
        "P": Box(3.55, TOP, "projection $P$", "learned", 1.25),
        "v": Box(4.95, TOP, "$v_i$", "value", 0.8),
        "one": Box(4.95, MIDDLE, "Phase I:\n$-⟨v_i, t(w_i)⟩$", "loss", 1.4),
        "two": Box(6.45, TOP, "Phase II: pairs\nof $[w_i, v_i]$", "loss", 1.3),
        "p": Box(0.65, LOW, "factor $p_i$", "learned"),
        "w": Box(2.1, LOW, "mixture $w_i$\nof the words", "value", 1.2),
        "text": Box(3.55, LOW, "text encoder", "frozen", 1.2),
        "t": Box(4.95, LOW, "$t(w_i)$", "clustered", 0.95),
        "k": Box(6.45, LOW, "k-means: clusters\n(pseudo-labels)", "value", 1.35),
        "words": Box(2.1, BOTTOM, "the K words", "frozen", 1.2),
    }, "P>v v>one v>two p>w w>text text>t t>one",
        "x>image image>P words>w t>k k>two"),
    "MultiDProxy": ({
        "x": Box(0.65, TOP, "picture $x_i$", "value", 1.05),
        "image": Box(2.3, TOP, "image encoder", "frozen", 1.35),
        "v": Box(4.1, TOP, "$v_i$", "value", 0.9),
        "align": Box(4.1, MIDDLE, "$t(w_i)$\nnear $v_i$", "loss", 0.9),
        "a": Box(6.5, TOP, "$F$ near $v_i$, away\nfrom other $t(w_j)$", "loss", 1.3),
        "p": Box(0.6, LOW, "factor $p_i$", "learned", 1.0),
        "w": Box(1.8, LOW, "mixture $w_i$\nof the words", "value", 1.05),
        "text": Box(3.0, LOW, "text\nencoder", "frozen", 0.85),
        "t": Box(4.1, LOW, "$t(w_i)$", "value", 0.9),
        "fusion": Box(5.35, MIDDLE, "gated fusion", "learned", 1.05),
        "F": Box(6.6, MIDDLE, "$F$", "clustered", 0.95),
        "k": Box(6.6, LOW, "k-means", "value", 0.95),
        "words": Box(0.95, BOTTOM, "candidate words,\nhalved in training", "frozen", 1.6),
        "user": Box(3.2, BOTTOM, "$w_i$ near the center\nof the candidates", "loss", 1.75),
    }, "p>w w>text text>t t>align t>fusion fusion>F F>a w>user",
        "x>image image>v v>align v>fusion v>a F>k words>w words>user"),
}  # fmt: skip


def schematic(method: str) -> Figure:
    """A diagram of "MultiMaP", "MultiSub" or "MultiDProxy"; ValueError for another name."""
    check_choice("method", method, tuple(DIAGRAMS))
    boxes, with_gradient, without = DIAGRAMS[method]
    fig, ax = plt.subplots(figsize=SIZE, layout="none")
    fig.subplots_adjust(0, 0, 1, 1)
    ax.set(xlim=(0, SIZE[0]), ylim=(0, SIZE[1]))
    ax.axis("off")
    patches = {name: _draw_box(ax, box) for name, box in boxes.items()}
    shape: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 13, "shrinkA": 0, "shrinkB": 1}
    for arrows, style in ((with_gradient, GRADIENT), (without, NO_GRADIENT)):
        for start, end in (arrow.split(">") for arrow in arrows.split()):
            line = shape | style | {"patchA": patches[start], "patchB": patches[end]}
            ax.annotate("", boxes[end][:2], boxes[start][:2], arrowprops=line, zorder=1)
    ax.text(0.15, MIDDLE, PRINTED_NAMES[method], fontsize=14, weight="bold", va="center")
    handles = [Line2D([], [], **style) for style in (GRADIENT, NO_GRADIENT)]
    texts = ["a gradient flows against the arrow", "no gradient"]
    ax.legend(handles, texts, ncols=2, loc="lower center", fontsize=10.5, handlelength=3)
    return fig


def _draw_box(ax: Any, box: Box) -> FancyBboxPatch:
    color, edge = KINDS[box.kind]
    corner = (box.x - box.width / 2, box.y - HEIGHT / 2)
    style: dict[str, Any] = {"boxstyle": "round,pad=0,rounding_size=0.08", "ls": edge}
    patch = FancyBboxPatch(corner, box.width, HEIGHT, fc=color, ec="0.25", zorder=2, **style)
    ax.add_patch(patch)
    kind = "" if box.kind == "value" else box.kind
    up = 0.1 if kind else 0.0  # inches
    style = {"ha": "center", "va": "center", "fontsize": 10, "zorder": 3}
    ax.text(box.x, box.y + up, box.text, **style)
    ax.text(box.x, box.y - HEIGHT / 2 + 0.11, kind, **style, style="italic", weight="bold")
    return patch
