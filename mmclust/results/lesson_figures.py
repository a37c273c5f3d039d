"""Figures for notebooks 13 to 15, which build each method step by step.

They show a diagram of each method, the tokens of a prompt, a loss as a landscape over the plane
through three words, and, as an animation, the path of a proxy in it. *Not* here: figures of
results, which are in `mm.figures`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.animation import HTMLWriter
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from PIL import Image

from mmclust.encoders.base import Encoder
from mmclust.encoders.prompt import PLACEHOLDER, tokenize_template
from mmclust.results.figures.spaces import class_panels
from mmclust.results.figures.theme import EDGE, PALETTE, class_colors, legend_above, show_image
from mmclust.results.schematics import schematic as schematic

if TYPE_CHECKING:
    from IPython.display import HTML

ROLES = {  # of a token: color, and its name in the legend
    "before": ("#cfe3f1", "the same for every picture"), "word": ("#de8f05", "learned"),
    "after": ("#bfe3d6", "after it, to end-of-text"), "never read": ("#eeeeee", "never read, to"),
}  # fmt: skip
TOKEN_NAMES = {"<start_of_text>": "start", "<end_of_text>": "end", PLACEHOLDER: "w"}
LEVELS = 14  # of a landscape's contours
FLAT_BOTTOM = 1.6  # exponent > 1: levels are closer together at the bottom, where a loss is flat
SLOW_START = 1.7  # exponent > 1: frames are closer together in the first epochs
FPS = 5  # frames per second of a walk
PATH_STYLES = [(PALETTE[1], "D"), ("white", "o"), (PALETTE[3], "s")]  # color, marker
DOT: dict[str, Any] = {"ms": 8, "mec": "0.1", "mew": 0.8, "zorder": 3}  # the end of a path
MAX_BARS = 7  # of a walk: those with the largest score in any epoch
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
    colors = [ROLES[role][0] for role in visible["role"]]
    texts = [visible["token"].replace(TOKEN_NAMES).tolist(), visible["position"].tolist()]
    fig, ax = plt.subplots(figsize=(7.2, 1.4))
    place: dict[str, Any] = {"cellLoc": "center", "bbox": [0, 0, 1, 1]}
    table = ax.table(texts, [colors, ["white"] * len(visible)], **place)
    table.auto_set_font_size(False)
    ax.axis("off")
    handles = [plt.Rectangle((0, 0), 1, 1, color=color, ec="0.4") for color, _ in ROLES.values()]
    names = [name for _, name in ROLES.values()]
    names[-1] += f" {len(tokens) - 1}"
    legend_above(fig, ax, handles, names)
    return fig


class Plane:
    """The plane through three words: w(x, y) = a + x (b - a) + y (c - a).

    `points`: their embeddings (3, e); ValueError if they are on one line. `hull`: whether figures
    show the triangle of the words, which contains their mixtures."""

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
    landscapes: dict[str, pd.DataFrame], plane: Plane,
    paths: dict[str, tuple[str, torch.Tensor]] | None = None,
) -> Figure:  # fmt: skip
    """A panel per landscape (title -> frame of `landscape`), with a cross at its lowest point.
    `paths`: title -> a name and a proxy by epoch (epochs, e), drawn as its nearest points in the
    plane, from a ring to a filled marker. Names have the colors and markers of a `Walk` whose
    paths are in the same order, and a legend."""
    n = len(landscapes)
    size = (7.2 if n > 1 else 4.4, 7.0 / max(n, 2) + 0.45)
    fig, axes = plt.subplots(1, n, figsize=size, squeeze=False, sharey=True)
    style: dict[str, Any] = {"orientation": "horizontal", "aspect": 18, "pad": 0.03}
    styles = dict(zip(dict.fromkeys(name for name, _ in (paths or {}).values()), PATH_STYLES))
    ends: dict[str, Any] = {}
    for ax, (title, surface) in zip(axes[0], landscapes.items()):
        filled = _contour(ax, surface, plane, plane.names)
        ticks = filled.levels[[0, 4, 8, -1]]
        bar = fig.colorbar(filled, ax=ax, ticks=ticks, format="%.2f", **style)
        bar.set_label("loss", fontsize=10)
        lowest = surface.loc[surface["loss"].idxmin()]
        ax.plot(lowest["x"], lowest["y"], "x", color=PALETTE[9], ms=8, mew=2.5, zorder=2.5)
        if paths and title in paths:
            name, proxy = paths[title]
            color, marker = styles[name]
            path = plane.coordinates(proxy)
            ax.plot(*path.T, color=color, lw=2)
            ax.plot(*path[0], "o", mfc="none", mec=color, mew=1.5, ms=11)
            (ends[name],) = ax.plot(*path[-1], marker, color=color, label=name, ls="none", **DOT)
        ax.set_title(title, fontsize=10.5)
        ax.set(xticks=[0, 1], yticks=[0, 1])
        ax.set_xlabel(f"x: {plane.names[0]} → {plane.names[1]}", fontsize=10)
    axes[0, 0].set_ylabel(f"y: {plane.names[0]} → {plane.names[2]}", fontsize=10)
    if ends:
        legend_above(fig, axes[0, 0], list(ends.values()), list(ends))
    return fig


@dataclass(eq=False, repr=False)
class Walk:
    """The path of one picture's proxy, or several paths to compare, over a landscape.

    Raises ValueError if a path has not as many epochs as the scores.
    """

    picture: Image.Image  # the picture whose proxy it is
    surface: pd.DataFrame  # a result of `landscape`
    plane: Plane
    paths: dict[str, Any]  # name -> words (epochs, e); replaced by their coordinates (epochs, 2)
    scores: Any  # (epochs, K), drawn as bars that change, in the first path's color; NaN: no bar
    words: Sequence[str]  # the K names of the bars
    label: str  # of the axis of the bars

    def __post_init__(self) -> None:
        self.paths = {name: self.plane.coordinates(path) for name, path in self.paths.items()}
        scores = np.asarray(self.scores, dtype=float)
        self.epochs = len(scores)
        for name, path in self.paths.items():
            if len(path) != self.epochs:
                raise ValueError(f"path {name!r}: {len(path)} epochs, {self.epochs} in the scores")
        largest = np.where(np.isnan(scores), -np.inf, scores).max(0)
        top = np.sort(np.argsort(-largest, kind="stable")[:MAX_BARS])
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

    def player(self, max_frames: int = 20) -> HTML:
        """An animation of picture, plane and bars, with a frame for each epoch of `frames`, in a
        player that needs no server: for notebooks."""
        from IPython.display import HTML

        fig, (left, *axes) = plt.subplots(1, 3, figsize=(7.2, 2.9), width_ratios=[0.75, 1.5, 1])
        show_image(left, self.picture)
        update = self._panel(axes[0], axes[1], self.plane.names)
        update(self.epochs - 1)
        axes[0].legend(loc="upper right", fontsize=9, frameon=True, framealpha=0.9)
        axes[1].set_xlabel(self.label)
        fig.draw_without_rendering()
        writer = HTMLWriter(fps=FPS, embed_frames=True, default_mode="once")
        as_it_is: Any = {"savefig.bbox": None, "figure.constrained_layout.use": False}
        with TemporaryDirectory() as folder, mpl.rc_context(as_it_is):
            fig.set_layout_engine(None)  # all frames have the layout of the first
            file = Path(folder, "walk.html")
            # Not `FuncAnimation`, which draws the whole figure three times for each frame.
            with writer.saving(fig, str(file), dpi=96):
                for epoch in self.frames(max_frames):
                    update(epoch)
                    writer.grab_frame()
            html = file.read_text(encoding="utf-8")
        plt.close(fig)
        html = re.sub(r"<link rel=\"stylesheet\"\s+href=\"https?:[^>]*>", "", html)
        return HTML(re.sub(r'<i class="fa fa-([a-z -]+)"></i>', lambda i: BUTTONS[i[1]], html))

    def key_frames(self, epochs: Sequence[int] | None = None) -> Figure:
        """A panel for each of some epochs, by default four: the paths up to it, and its bars."""
        frames = self.frames()
        epochs = epochs or [int(frames[k * len(frames) // 3]) for k in range(3)] + [int(frames[-1])]
        size: dict[str, Any] = {"figsize": (7.4, 4.6), "height_ratios": [1, 0.9]}
        fig, axes = plt.subplots(2, len(epochs), sharey="row", sharex="row", **size)
        for upper, lower, epoch in zip(*axes, epochs):
            self._panel(upper, lower, "abc")(epoch)
        fig.supxlabel(self.label, fontsize=10)
        words = "\n".join(f"{letter} = {word}" for letter, word in zip("abc", self.plane.names))
        axes[0, 0].set_ylabel(words, rotation=0, ha="right", va="center", fontsize=10)
        legend_above(fig, axes[0, 0], *axes[0, 0].get_legend_handles_labels())
        return fig

    def _panel(self, ax: Axes, bars: Axes, names: Sequence[str]) -> Callable[[int], None]:
        """Draw the landscape; returns a function that draws, or changes, the paths up to an epoch
        and the bars of this epoch."""
        _contour(ax, self.surface, self.plane, names)
        ax.set(xticks=[], yticks=[])
        trails = []
        for name, (color, marker) in zip(self.paths, PATH_STYLES):
            (line,) = ax.plot([], [], color=color, lw=2)
            (end,) = ax.plot([], [], marker, color=color, label=name, ls="none", **DOT)
            trails.append((self.paths[name], line, end))
        rectangles = bars.barh(self.words, np.zeros(len(self.words)), color=PATH_STYLES[0][0])
        low, high = np.nanmin(self.scores), np.nanmax(self.scores)
        bars.set(xlim=(min(0, low), high * 1.05), ylim=(len(self.words) - 0.5, -0.5))
        bars.tick_params(labelsize=10)

        def update(epoch: int) -> None:
            ax.set_title(f"epoch {epoch}", fontsize=11)
            for path, line, end in trails:
                line.set_data(*path[: epoch + 1].T)
                end.set_data(*path[epoch : epoch + 1].T)
            for rectangle, score in zip(rectangles, np.nan_to_num(self.scores[epoch])):
                rectangle.set_width(score)

        return update


def spaces(
    panels: dict[str, tuple[np.ndarray, float]], labels: ArrayLike, names: Sequence[str]
) -> Figure:
    """The first two principal components of each representation (title -> (array (n, d), NMI)).

    Colors and markers show the classes: `labels` (n,) are indices in `names`.
    """
    from sklearn.decomposition import PCA

    pca = PCA(2, svd_solver="full")
    points = {
        f"{title}: NMI\N{NO-BREAK SPACE}{nmi:.2f}": pca.fit_transform(x)
        for title, (x, nmi) in panels.items()
    }
    return class_panels(points, labels, names)


def same_curve(
    by_hand: Sequence[float], library: Sequence[float], ylabel: str = "loss"
) -> tuple[Figure, pd.DataFrame]:
    """A figure of two losses by epoch, with their largest difference, and a data frame of both."""
    both = pd.DataFrame({"library": library, "by hand": by_hand}, dtype=float)
    both.insert(0, "epoch", both.index + 1)
    fig = lines(both.melt("epoch", var_name="way", value_name=ylabel), "epoch", ylabel, "way")
    difference = (both["by hand"] - both["library"]).abs().max()
    fig.axes[0].set_title(f"largest difference {difference:.0e}", fontsize=11)
    return fig, both


def lines(frame: pd.DataFrame, x: str, y: str, by: str) -> Figure:
    """A line, y by x, per value of `by`; if these values are names of colors, it has that color."""
    fig, ax = plt.subplots(figsize=(6.4, 2.9))
    style = {"hue": by, "style": by, "palette": class_colors(frame[by].unique())}
    sns.lineplot(frame, x=x, y=y, errorbar=None, linewidth=2, ax=ax, **style)
    sns.move_legend(ax, "center left", bbox_to_anchor=(1, 0.5), title=None, fontsize=10)
    return fig
