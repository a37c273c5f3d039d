"""Figures for notebooks 13 to 15, which build each method step by step.

They show the tokens of a prompt, a loss as a landscape over the plane through three words, and, as
an animation, the path of a proxy in it. *Not* here: figures of results, which are in `mm.figures`.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.animation import FuncAnimation
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from mmclust.encoders.base import Encoder
from mmclust.encoders.prompt import PLACEHOLDER, tokenize_template
from mmclust.results.figures.theme import EDGE, PALETTE, class_colors, looks, show_image

if TYPE_CHECKING:
    from IPython.display import HTML

ROLES = {"before": "#cfe3f1", "word": "#de8f05", "after": "#bfe3d6", "never read": "#eeeeee"}
ROLE_NAMES = ["the same for every picture", "learned", "after it, to end-of-text", "never read"]
TOKEN_NAMES = {"<start_of_text>": "start", "<end_of_text>": "end", PLACEHOLDER: "w"}
LEVELS = 14  # of a landscape's contours
FLAT_BOTTOM = 1.6  # exponent > 1: levels are closer together at the bottom, where a loss is flat
SLOW_START = 1.7  # exponent > 1: frames are closer together in the first epochs
LINE_STYLES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (7, 2))]
# Characters that replace the icons of matplotlib's player, which are loaded from a server.
BUTTONS = {
    "minus": "−", "fast-backward": "|◀", "step-backward": "◂|", "play fa-flip-horizontal": "◀",
    "pause": "❚❚", "play": "▶", "step-forward": "|▸", "fast-forward": "▶|", "plus": "+",
}  # fmt: skip


def prompt_tokens(encoder: Encoder, template: str) -> pd.DataFrame:
    """The input of the text encoder: position, token (as text), id and role (a key of `ROLES`).

    The positions after end-of-text are "never read", because a causal encoder's output at
    end-of-text does not depend on them.
    """
    before, _, after, padding = tokenize_template(encoder.tokenizer, template)
    ids = [*before, None, *after]
    names = [PLACEHOLDER if i is None else encoder.tokenizer.decoder[i] for i in ids]
    unread = encoder.tokenizer.context_length - len(ids)
    roles = ["before"] * len(before) + ["word"] + ["after"] * len(after)
    tokens = pd.DataFrame({"position": range(len(ids) + unread)})
    tokens["token"] = [name.removesuffix("</w>") for name in names] + [""] * unread
    tokens["id"] = pd.array(ids + [padding] * unread, dtype="Int64")
    tokens["role"] = roles + ["never read"] * unread
    return tokens


def draw_tokens(tokens: pd.DataFrame) -> Figure:
    """`prompt_tokens` as a row of boxes, colored by role, with only three that are never read."""
    visible = tokens.iloc[: (tokens["role"] != "never read").sum() + 3]
    fig, ax = plt.subplots(figsize=(7.2, 1.7))
    center: dict[str, Any] = {"ha": "center", "va": "center"}
    for i, row in enumerate(visible.itertuples()):
        ax.add_patch(plt.Rectangle((i + 0.04, 0), 0.92, 1, color=ROLES[row.role], ec="0.4", lw=0.8))
        text = TOKEN_NAMES.get(row.token, row.token)
        weight = "bold" if row.role == "word" else "normal"
        ax.text(i + 0.5, 0.5, text, fontsize=10, fontweight=weight, **center)
        ax.text(i + 0.5, -0.25, row.position, fontsize=9.5, color="0.35", **center)
    ax.text(len(visible) + 0.1, 0.5, f"… to {len(tokens) - 1}", va="center", fontsize=10)
    handles = [plt.Rectangle((0, 0), 1, 1, color=color, ec="0.4") for color in ROLES.values()]
    style = {"ncols": 4, "fontsize": 9.5, "handlelength": 1, "columnspacing": 1}
    fig.legend(handles, ROLE_NAMES, loc="outside upper center", **style)
    ax.set(xlim=(0, len(visible) + 1.2), ylim=(-0.5, 1.1))
    ax.axis("off")
    return fig


class Plane:
    """The plane through three words: w(x, y) = a + x (b - a) + y (c - a).

    `points`: embeddings (3, e) of the words a, b and c. Raises ValueError if they are on one line.
    `hull`: whether figures show the triangle of the three words, which contains their mixtures.
    """

    def __init__(self, points: torch.Tensor, names: Sequence[str], hull: bool = False) -> None:
        self.origin = points[0].detach()
        self.axes = (points[1:] - points[0]).detach()
        self.names = list(names)
        self.hull = hull
        if torch.linalg.matrix_rank(self.axes) < 2:
            words = ", ".join(self.names)
            raise ValueError(f"{words} are on one line and define no plane: choose another word")

    def point(self, x: Any, y: Any) -> torch.Tensor:
        """Words (m, e) at the coordinates x and y, (m,) each."""
        xy = torch.stack([torch.as_tensor(x), torch.as_tensor(y)], -1).to(self.axes)
        return self.origin + xy @ self.axes

    def coordinates(self, w: torch.Tensor) -> np.ndarray:
        """Coordinates (m, 2) of the points of the plane that are nearest to words w (m, e)."""
        return torch.linalg.lstsq(self.axes.T, (w.detach() - self.origin).T).solution.T.numpy()

    def distance(self, w: torch.Tensor) -> np.ndarray:
        """Distance (m,) of words w (m, e) from the plane, which no figure of the plane shows."""
        nearest = self.point(*torch.as_tensor(self.coordinates(w)).T)
        return (w.detach() - nearest).norm(dim=1).numpy()


def landscape(loss: Callable, plane: Plane) -> pd.DataFrame:
    """The values of a loss at 41 x 41 points of the plane: a data frame, x, y and loss. `loss` is a
    function from words (m, e) to numbers (m,)."""
    axis = np.linspace(-0.5, 1.5, 41)
    x, y = (grid.ravel() for grid in np.meshgrid(axis, axis))
    with torch.no_grad():
        values = loss(plane.point(x, y))
    return pd.DataFrame({"x": x, "y": y, "loss": np.asarray(values, dtype=float)})


def _contour(ax: Axes, surface: pd.DataFrame, plane: Plane, names: Sequence[str]) -> Any:
    """Draw a landscape with the three words on it; returns the filled contours."""
    size = int(np.sqrt(len(surface)))
    x, y, loss = (surface[column].to_numpy().reshape(size, size) for column in ("x", "y", "loss"))
    levels = loss.min() + np.ptp(loss) * np.linspace(0, 1, LEVELS) ** FLAT_BOTTOM
    norm = mpl.colors.BoundaryNorm(levels, 256)
    filled = ax.contourf(x, y, loss, levels=levels, norm=norm, cmap="cividis")
    if plane.hull:
        ax.plot([0, 1, 0, 0], [0, 0, 1, 0], "--", color="white", lw=1.2)
    style: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "top"}
    style |= {"fontsize": 9.5, "color": "0.1", "clip_on": True}
    style["bbox"] = {"fc": "white", "ec": "none", "alpha": 0.75, "pad": 0.8}
    for corner, name in zip([(0, 0), (1, 0), (0, 1)], names):
        ax.plot(*corner, "s", color="white", ms=5, **EDGE)
        ax.annotate(name, corner, (0, -7), **style)
    ax.set(xlim=(x.min(), x.max()), ylim=(y.min(), y.max()))
    ax.grid(False)
    return filled


def draw_landscapes(
    landscapes: dict[str, pd.DataFrame], plane: Plane, paths: dict[str, torch.Tensor] | None = None
) -> Figure:
    """A panel per landscape (title -> frame of `landscape`), with a cross at its lowest point.

    `paths`: title -> a proxy by epoch (epochs, e), drawn as its nearest points in the plane, with
    an open circle at the start and a filled circle at the end.
    """
    n = len(landscapes)
    size = (7.2 if n > 1 else 4.4, 7.0 / max(n, 2) + 0.45)
    fig, axes = plt.subplots(1, n, figsize=size, squeeze=False, sharey=True)
    style: dict[str, Any] = {"orientation": "horizontal", "aspect": 18, "pad": 0.03}
    for ax, (title, surface) in zip(axes[0], landscapes.items()):
        filled = _contour(ax, surface, plane, plane.names)
        ticks = filled.levels[[0, 4, 8, -1]]
        bar = fig.colorbar(filled, ax=ax, ticks=ticks, format="%.2f", **style)
        bar.set_label("loss", fontsize=10)
        bar.ax.tick_params(labelsize=9.5)
        lowest = surface.loc[surface["loss"].idxmin()]
        ax.plot(lowest["x"], lowest["y"], "x", color="white", ms=8, mew=2.5)
        if paths and title in paths:
            path = plane.coordinates(paths[title])
            ax.plot(*path.T, color=PALETTE[1], lw=2)
            ax.plot(*path[0], "o", mfc="white", mec=PALETTE[1], ms=7)
            ax.plot(*path[-1], "o", color=PALETTE[1], ms=7, **EDGE)
        ax.set_title(title, fontsize=10.5)
        ax.set(xticks=[0, 1], yticks=[0, 1])
        ax.tick_params(labelsize=10)
        ax.set_xlabel(f"x: {plane.names[0]} → {plane.names[1]}", fontsize=10)
    axes[0, 0].set_ylabel(f"y: {plane.names[0]} → {plane.names[2]}", fontsize=10)
    return fig


@dataclass(eq=False, repr=False)
class Walk:
    """The path of one picture's proxy, or several paths to compare, over a landscape.

    Args:
        picture: the picture whose proxy it is.
        surface, plane: the landscape, a result of `landscape`, and its plane.
        paths: name -> words (epochs, e). Raises ValueError if their number differs from `scores`.
        scores: a score per epoch and word (epochs, K), drawn as bars that change; NaN: no bar.
        words, label: the K names of the bars, and the label of their axis.
        max_bars: only so many bars are drawn, those with the largest score in any epoch.
    """

    picture: Image.Image
    surface: pd.DataFrame
    plane: Plane
    paths: dict[str, Any]  # replaced by their coordinates in the plane (epochs, 2)
    scores: Any
    words: Sequence[str]
    label: str
    max_bars: int = 7

    def __post_init__(self) -> None:
        self.paths = {name: self.plane.coordinates(path) for name, path in self.paths.items()}
        scores = np.asarray(self.scores, dtype=float)
        self.epochs = len(scores)
        for name, path in self.paths.items():
            if len(path) != self.epochs:
                raise ValueError(f"path {name!r}: {len(path)} epochs, {self.epochs} in the scores")
        largest = np.where(np.isnan(scores), -np.inf, scores).max(0)
        top = np.sort(np.argsort(-largest, kind="stable")[: self.max_bars])
        self.scores = scores[:, top]
        self.words = [self.words[k] for k in top]

    def frames(self, max_frames: int = 30) -> np.ndarray:
        """The epochs to draw: more of them at the start, where a proxy moves most."""
        share = np.linspace(0, 1, max_frames) ** SLOW_START
        return np.unique(np.round((self.epochs - 1) * share).astype(int))

    def table(self) -> pd.DataFrame:
        """The coordinates of the paths: a data frame, epoch, path, x, y."""
        frames = {name: pd.DataFrame(path, columns=["x", "y"]) for name, path in self.paths.items()}
        table = pd.concat(frames, names=["path", "epoch"]).reset_index()
        return table[["epoch", "path", "x", "y"]]

    def animation(self, max_frames: int = 30) -> FuncAnimation:
        """An animation of picture, plane and bars, with a frame for each epoch of `frames`."""
        fig, axes = plt.subplots(1, 3, figsize=(7.2, 2.9), width_ratios=[0.75, 1.5, 1])
        left, middle, right = axes
        show_image(left, self.picture)
        moving = self._panel(middle, self.plane.names)
        middle.legend(loc="upper right", fontsize=9, frameon=True, framealpha=0.9)
        bars = right.barh(self.words, np.nan_to_num(self.scores[0]), color=PALETTE[0])
        right.set_xlim(min(0, np.nanmin(self.scores)), np.nanmax(self.scores) * 1.05)
        right.set_xlabel(self.label)
        right.invert_yaxis()

        def draw(epoch: int) -> Any:
            left.set_title(f"epoch {epoch}", fontsize=11)
            self._move(moving, epoch)
            for bar, value in zip(bars, np.nan_to_num(self.scores[epoch])):
                bar.set_width(value)

        return FuncAnimation(fig, draw, frames=self.frames(max_frames), interval=180)

    def key_frames(self, epochs: Sequence[int] | None = None) -> Figure:
        """A panel for each of some epochs, by default four: the paths up to it, and its bars."""
        frames = self.frames()
        epochs = epochs or [int(frames[k * len(frames) // 3]) for k in range(3)] + [int(frames[-1])]
        size: dict[str, Any] = {"figsize": (7.4, 4.6), "height_ratios": [1, 0.9]}
        fig, axes = plt.subplots(2, len(epochs), sharey="row", sharex="row", **size)
        for upper, lower, epoch in zip(*axes, epochs):
            self._move(self._panel(upper, "abc"), epoch)
            upper.set_title(f"epoch {epoch}", fontsize=11)
            lower.barh(self.words, np.nan_to_num(self.scores[epoch]), color=PALETTE[0])
            lower.tick_params(labelsize=10)
        axes[1, 0].invert_yaxis()
        fig.supxlabel(self.label, fontsize=10)
        words = "\n".join(f"{letter} = {word}" for letter, word in zip("abc", self.plane.names))
        axes[0, 0].set_ylabel(words, rotation=0, ha="right", va="center", fontsize=10)
        handles, names = axes[0, 0].get_legend_handles_labels()
        fig.legend(handles, names, loc="outside upper center", ncols=len(names), fontsize=10)
        return fig

    def _panel(self, ax: Axes, names: Sequence[str]) -> list:
        """Draw the landscape; returns a line and a dot for each path, which `_move` moves."""
        _contour(ax, self.surface, self.plane, names)
        ax.set(xticks=[], yticks=[])
        moving = []
        dot_style: dict[str, Any] = {"ms": 8, "mec": "0.1", "mew": 0.8, "ls": "none"}
        for name, color, marker in zip(self.paths, ("white", PALETTE[1], PALETTE[3]), "oDs"):
            (trail,) = ax.plot([], [], color=color, lw=2)
            (dot,) = ax.plot([], [], marker, color=color, label=name, **dot_style)
            moving.append((trail, dot))
        return moving

    def _move(self, moving: list, epoch: int) -> None:
        for (trail, dot), path in zip(moving, self.paths.values()):
            trail.set_data(*path[: epoch + 1].T)
            dot.set_data(*path[epoch : epoch + 1].T)


def player(animation: FuncAnimation) -> HTML:
    """A player for an animation, as HTML that needs no server: frames with 256 colors and the
    buttons are embedded."""
    from IPython.display import HTML

    def compress(match: re.Match) -> str:
        png = io.BytesIO(base64.b64decode(match[1].replace("\\\n", "")))
        picture = Image.open(png).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        packed = io.BytesIO()
        picture.save(packed, "PNG", optimize=True)
        return f'"data:image/png;base64,{base64.b64encode(packed.getvalue()).decode()}"'

    with mpl.rc_context({"savefig.dpi": 96, "animation.embed_limit": 5}):
        html = animation.to_jshtml(default_mode="once")
    plt.close(getattr(animation, "_fig"))  # noqa: B009  (not in matplotlib's stubs)
    html = re.sub(r'"data:image/png;base64,([^"]*)"', compress, html)
    html = re.sub(r"<link rel=\"stylesheet\"\s+href=\"https?:[^>]*>", "", html)
    return HTML(re.sub(r'<i class="fa fa-([a-z -]+)"></i>', lambda icon: BUTTONS[icon[1]], html))


def spaces(
    panels: dict[str, tuple[np.ndarray, float]],
    labels: Sequence[int] | np.ndarray,
    names: Sequence[str],
) -> Figure:
    """The first two principal components of each representation (title -> (array (n, d), NMI)).

    Colors and markers show the classes: `labels` (n,) are indices in `names`.
    """
    from sklearn.decomposition import PCA

    labels = np.asarray(labels)
    rows = -(-len(panels) // 3)
    fig, axes = plt.subplots(rows, 3, figsize=(7.2, 2.35 * rows + 0.6), squeeze=False)
    for ax in axes.flat[len(panels) :]:
        ax.axis("off")
    style: dict[str, Any] = {"ms": 5.5, "ls": "none", **EDGE}
    for ax, (title, (x, score)) in zip(axes.flat, panels.items()):
        points = PCA(2, svd_solver="full").fit_transform(x)
        for c, (name, color, marker) in enumerate(looks(names)):
            ax.plot(*points[labels == c].T, marker, color=color, label=name, **style)
        ax.set(xticks=[], yticks=[])
        ax.set_title(f"{title}\nNMI {score:.2f}", fontsize=10.5)
    handles, texts = axes[0, 0].get_legend_handles_labels()
    style = {"ncols": min(len(names), 6), "columnspacing": 1, "handletextpad": 0.2}
    fig.legend(handles, texts, loc="outside lower center", fontsize=10, **style)
    return fig


def same_curve(
    by_hand: Sequence[float], library: Sequence[float], ylabel: str = "loss"
) -> tuple[Figure, pd.DataFrame]:
    """A figure of two losses by epoch, with their largest difference, and a data frame of both."""
    both = pd.DataFrame({"by hand": by_hand, "library": library}, dtype=float)
    both.insert(0, "epoch", both.index + 1)
    fig, ax = plt.subplots(figsize=(6.2, 2.7))
    ax.plot(both["epoch"], both["library"], color=PALETTE[4], lw=6, alpha=0.6, label="the library")
    ax.plot(both["epoch"], both["by hand"], "--", color="0.15", lw=1.5, label="by hand")
    ax.set(xlabel="epoch", ylabel=ylabel)
    difference = (both["by hand"] - both["library"]).abs().max()
    ax.set_title(f"largest difference {difference:.0e}", fontsize=11)
    ax.legend(fontsize=10)
    return fig, both


def lines(frame: pd.DataFrame, x: str, y: str, by: str) -> Figure:
    """A line, y by x, per value of `by`; if these values are names of colors, it has that color."""
    fig, ax = plt.subplots(figsize=(6.4, 2.9))
    colors = class_colors(frame[by].unique())
    for k, (name, group) in enumerate(frame.groupby(by, sort=False)):
        style = LINE_STYLES[k % len(LINE_STYLES)]
        ax.plot(group[x], group[y], ls=style, color=colors[k], lw=2, label=str(name))
    ax.set(xlabel=x, ylabel=y)
    ax.legend(fontsize=10, loc="center left", bbox_to_anchor=(1, 0.5))
    return fig
