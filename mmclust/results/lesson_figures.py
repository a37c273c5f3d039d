"""Drawings of the step-by-step notebooks 13 to 15: a prompt token by token, a loss as a landscape over words, proxies on their way through it."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.animation import FuncAnimation
from PIL import Image

from mmclust.encoders.prompt import PLACEHOLDER, tokenize_template
from mmclust.results.figures import EDGE, PALETTE, _markers, class_colors, show_image

if TYPE_CHECKING:
    from IPython.display import HTML
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mmclust.encoders.base import Encoder

ROLES = {"before": "#cfe3f1", "word": "#de8f05", "after": "#bfe3d6", "never read": "#eeeeee"}
LEVELS = 14
_ICONS = {"minus": "−", "fast-backward": "|◀", "step-backward": "◂|", "play fa-flip-horizontal": "◀", "pause": "❚❚", "play": "▶", "step-forward": "|▸",
          "fast-forward": "▶|", "plus": "+"}  # fmt: skip


# --- the prompt ------------------------------------------------------------------------------------------------------------------------


def prompt_tokens(encoder: Encoder, template: str) -> pd.DataFrame:
    """What the text tower reads: position, token (as text), id and role: "before" the word, "word", "after" it, and, beyond end-of-text, "never read"
    (by a causal tower)."""
    before, _, after, pad = tokenize_template(encoder.tokenizer, template)
    ids = [*before, None, *after]
    roles = ["before"] * len(before) + ["word"] + ["after"] * len(after)
    rest = encoder.tokenizer.context_length - len(ids)
    tokens = [
        PLACEHOLDER if i is None else encoder.tokenizer.decoder[i].removesuffix("</w>") for i in ids
    ] + [""] * rest
    ids, roles = ids + [pad] * rest, roles + ["never read"] * rest
    return pd.DataFrame(
        {
            "position": range(len(ids)),
            "token": tokens,
            "id": pd.array(ids, dtype="Int64"),
            "role": roles,
        }
    )


def draw_tokens(tokens: pd.DataFrame, more: int = 3) -> Figure:
    """The prompt as a row of boxes, colored by role; of what is never read `more` boxes, and the number of the others."""
    used = tokens[tokens["role"] != "never read"]
    shown = tokens.iloc[: len(used) + more]
    fig, ax = plt.subplots(figsize=(7.2, 1.7))
    for i, row in enumerate(shown.itertuples()):
        ax.add_patch(plt.Rectangle((i + 0.04, 0), 0.92, 1, color=ROLES[row.role], ec="0.4", lw=0.8))
        text = {"<start_of_text>": "start", "<end_of_text>": "end", PLACEHOLDER: "w"}.get(
            row.token, row.token
        )
        ax.text(
            i + 0.5,
            0.5,
            text,
            ha="center",
            va="center",
            fontsize=10,
            fontweight="bold" if row.role == "word" else "normal",
        )
        ax.text(i + 0.5, -0.25, row.position, ha="center", va="center", fontsize=9.5, color="0.35")
    ax.text(len(shown) + 0.1, 0.5, f"… to {len(tokens) - 1}", va="center", fontsize=10)
    handles = [plt.Rectangle((0, 0), 1, 1, color=color, ec="0.4") for color in ROLES.values()]
    names = ["the same for every picture", "learned", "after it, to end-of-text", "never read"]
    fig.legend(
        handles,
        names,
        loc="outside upper center",
        ncols=4,
        frameon=False,
        fontsize=9.5,
        handlelength=1,
        columnspacing=1,
    )
    ax.set(xlim=(0, len(shown) + 1.2), ylim=(-0.5, 1.1))
    ax.axis("off")
    return fig


# --- the plane of three words ----------------------------------------------------------------------------------------------------------


class Plane:
    """The plane through three words, w(x, y) = a + x (b - a) + y (c - a): a lies at (0, 0), b at (1, 0), c at (0, 1).

    Args:
        points: their embeddings (3, e), not on one line.
        names: the words.
        hull: whether drawings show the triangle of the three, their mixtures.
    """

    def __init__(self, points: torch.Tensor, names: Sequence[str], hull: bool = False) -> None:
        self.hull = hull
        self.origin, self.axes, self.names = (
            points[0].detach(),
            (points[1:] - points[0]).detach(),
            list(names),
        )
        if torch.linalg.matrix_rank(self.axes) < 2:
            raise ValueError(f"{', '.join(self.names)} lie on one line: they span no plane")

    def point(self, x: Any, y: Any) -> torch.Tensor:
        """Words at coordinates x and y, (m,) each: (m, e)."""
        xy = torch.stack([torch.as_tensor(x), torch.as_tensor(y)], -1).to(self.axes)
        return self.origin + xy @ self.axes

    def coordinates(self, w: torch.Tensor) -> np.ndarray:
        """Coordinates (m, 2) of the points of the plane that are nearest to words w (m, e)."""
        return torch.linalg.lstsq(self.axes.T, (w.detach() - self.origin).T).solution.T.numpy()

    def distance(self, w: torch.Tensor) -> np.ndarray:
        """How far words w (m, e) lie off the plane, (m,): what a picture of the plane hides."""
        return (
            (w.detach() - self.point(*torch.as_tensor(self.coordinates(w)).T)).norm(dim=1).numpy()
        )


def landscape(
    loss: Callable,
    plane: Plane,
    size: int = 41,
    x: tuple[float, float] = (-0.5, 1.5),
    y: tuple[float, float] = (-0.5, 1.5),
) -> pd.DataFrame:
    """A loss over the plane: x, y, loss at size x size points; `loss` takes words (m, e) and gives (m,)."""
    xs, ys = np.meshgrid(np.linspace(x[0], x[1], size), np.linspace(y[0], y[1], size))
    with torch.no_grad():
        values = loss(plane.point(xs.ravel(), ys.ravel()))
    return pd.DataFrame({"x": xs.ravel(), "y": ys.ravel(), "loss": np.asarray(values, dtype=float)})


def _contour(ax: Axes, ground: pd.DataFrame, plane: Plane, names: Sequence[str]) -> Any:
    """The landscape with the three words on it; levels lie closer together at the bottom, where the loss is flat."""
    size = int(np.sqrt(len(ground)))
    levels = ground["loss"].min() + np.ptp(ground["loss"]) * np.linspace(0, 1, LEVELS) ** 1.6
    values = (ground[c].to_numpy().reshape(size, size) for c in ("x", "y", "loss"))
    filled = ax.contourf(
        *values, levels=levels, norm=mpl.colors.BoundaryNorm(levels, 256), cmap="cividis"
    )
    if plane.hull:
        ax.plot([0, 1, 0, 0], [0, 0, 1, 0], "--", color="white", lw=1.2)
    for x, y, name in zip((0, 1, 0), (0, 0, 1), names):
        ax.plot(x, y, "s", color="white", ms=5, **EDGE)
        box = {"fc": "white", "ec": "none", "alpha": 0.75, "pad": 0.8}
        ax.annotate(
            name,
            (x, y),
            (0, -7),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=9.5,
            color="0.1",
            bbox=box,
            clip_on=True,
        )
    ax.set(xlim=(ground["x"].min(), ground["x"].max()), ylim=(ground["y"].min(), ground["y"].max()))
    ax.grid(False)
    return filled


def draw_landscapes(
    grounds: dict[str, pd.DataFrame], plane: Plane, paths: dict[str, torch.Tensor] | None = None
) -> Figure:
    """A panel per landscape (title -> what `landscape` gave), its lowest point a cross; on it a proxy's path (epochs, e), by the same titles, projected
    onto the plane: start a circle, end a filled one."""
    fig, axes = plt.subplots(
        1,
        len(grounds),
        figsize=(7.2 if len(grounds) > 1 else 4.4, 7.0 / max(len(grounds), 2) + 0.45),
        squeeze=False,
        sharey=True,
    )
    for ax, (title, ground) in zip(axes[0], grounds.items()):
        filled = _contour(ax, ground, plane, plane.names)
        bar = fig.colorbar(
            filled,
            ax=ax,
            orientation="horizontal",
            aspect=18,
            pad=0.03,
            ticks=filled.levels[[0, 4, 8, -1]],
            format="%.2f",
        )
        bar.set_label("loss", fontsize=10)
        bar.ax.tick_params(labelsize=9.5)
        lowest = ground.loc[ground["loss"].idxmin()]
        ax.plot(lowest["x"], lowest["y"], "x", color="white", ms=8, mew=2.5)
        if paths and title in paths:
            at = plane.coordinates(paths[title])
            ax.plot(*at.T, color=PALETTE[1], lw=2)
            ax.plot(*at[0], "o", mfc="white", mec=PALETTE[1], ms=7)
            ax.plot(*at[-1], "o", color=PALETTE[1], ms=7, **EDGE)
        ax.set_title(title, fontsize=10.5)
        ax.set(xticks=[0, 1], yticks=[0, 1])
        ax.tick_params(labelsize=10)
        ax.set_xlabel(f"x: {plane.names[0]} → {plane.names[1]}", fontsize=10)
    axes[0, 0].set_ylabel(f"y: {plane.names[0]} → {plane.names[2]}", fontsize=10)
    return fig


# --- a proxy on its way ----------------------------------------------------------------------------------------------------------------


class Walk:
    """One picture's proxy, or several ways it may take, through the plane of three words.

    Args:
        picture: PIL.
        ground: what lies below, from `landscape`.
        plane: the plane.
        paths: name -> words (epochs, e), all of the same length.
        scores: (epochs, K), shown as bars that change, and `words`, what each bar is of; NaN: no bar.
        label: what the bars are.
        most: bars, those that are largest at any time.
    """

    def __init__(
        self,
        picture: Image.Image,
        ground: pd.DataFrame,
        plane: Plane,
        paths: dict[str, torch.Tensor],
        scores: Any,
        words: Sequence[str],
        label: str,
        most: int = 7,
    ) -> None:
        self.picture, self.ground, self.plane, self.label = picture, ground, plane, label
        self.paths = {name: plane.coordinates(path) for name, path in paths.items()}
        scores = np.asarray(scores, dtype=float)
        if any(len(path) != len(scores) for path in self.paths.values()):
            raise ValueError(
                f"paths of {', '.join(str(len(p)) for p in self.paths.values())} epochs and scores of {len(scores)}"
            )
        largest = np.where(np.isnan(scores), -np.inf, scores).max(0)
        top = np.sort(np.argsort(-largest, kind="stable")[:most])
        self.scores, self.words, self.epochs = scores[:, top], [words[k] for k in top], len(scores)

    def frames(self, most: int = 30) -> np.ndarray:
        """Epochs to show, at most so many, closer together at the beginning, where most happens."""
        return np.unique(np.round((self.epochs - 1) * np.linspace(0, 1, most) ** 1.7).astype(int))

    def table(self) -> pd.DataFrame:
        """What is drawn: epoch, path, x, y."""
        parts = [
            pd.DataFrame(path, columns=["x", "y"]).assign(epoch=range(self.epochs), path=name)
            for name, path in self.paths.items()
        ]
        return pd.concat(parts)[["epoch", "path", "x", "y"]]

    def animation(self, most: int = 30) -> FuncAnimation:
        """Picture, plane and bars, a frame per epoch of `frames`."""
        fig, (left, middle, right) = plt.subplots(
            1, 3, figsize=(7.2, 2.9), width_ratios=[0.75, 1.5, 1]
        )
        show_image(left, self.picture)
        moving = self._panel(middle, self.plane.names)
        middle.legend(loc="upper right", fontsize=9, framealpha=0.9)
        bars = right.barh(self.words, np.nan_to_num(self.scores[0]), color=PALETTE[0])
        right.set(
            xlim=(min(0, np.nanmin(self.scores)), np.nanmax(self.scores) * 1.05), xlabel=self.label
        )
        right.invert_yaxis()

        def draw(epoch: int) -> Any:
            left.set_title(f"epoch {epoch}", fontsize=11)
            for (trail, dot), path in zip(moving, self.paths.values()):
                trail.set_data(*path[: epoch + 1].T)
                dot.set_data(*path[epoch : epoch + 1].T)
            for bar, value in zip(bars, np.nan_to_num(self.scores[epoch])):
                bar.set_width(value)

        return FuncAnimation(fig, draw, frames=self.frames(most), interval=180)

    def key_frames(self, epochs: Sequence[int] | None = None) -> Figure:
        """The plane (its words a, b, c) at some epochs, by default four, each with the way so far, and the bars below."""
        epochs = epochs or [
            int(self.frames()[k])
            for k in (0, len(self.frames()) // 3, 2 * len(self.frames()) // 3, -1)
        ]
        fig, axes = plt.subplots(
            2, len(epochs), figsize=(7.4, 4.6), height_ratios=[1, 0.9], sharey="row", sharex="row"
        )
        for k, epoch in enumerate(epochs):
            for (trail, dot), path in zip(self._panel(axes[0, k], "abc"), self.paths.values()):
                trail.set_data(*path[: epoch + 1].T)
                dot.set_data(*path[epoch : epoch + 1].T)
            axes[0, k].set_title(f"epoch {epoch}", fontsize=11)
            axes[1, k].barh(self.words, np.nan_to_num(self.scores[epoch]), color=PALETTE[0])
            axes[1, k].tick_params(labelsize=10)
        axes[1, 0].invert_yaxis()
        fig.supxlabel(self.label, fontsize=10)
        handles, names = axes[0, 0].get_legend_handles_labels()
        axes[0, 0].set_ylabel(
            "\n".join(f"{a} = {word}" for a, word in zip("abc", self.plane.names)),
            rotation=0,
            ha="right",
            va="center",
            fontsize=10,
        )
        fig.legend(
            handles, names, loc="outside upper center", ncols=len(names), frameon=False, fontsize=10
        )
        return fig

    def _panel(self, ax: Axes, names: Sequence[str]) -> list:
        """The ground, and for each path a trail and a dot to be moved."""
        _contour(ax, self.ground, self.plane, names)
        ax.set(xticks=[], yticks=[])
        moving = []
        for name, color, marker in zip(self.paths, ("white", PALETTE[1], PALETTE[3]), "oDs"):
            (trail,) = ax.plot([], [], color=color, lw=2)
            (dot,) = ax.plot(
                [], [], marker, color=color, ms=8, label=name, mec="0.1", mew=0.8, ls="none"
            )
            moving.append((trail, dot))
        return moving


def player(animation: FuncAnimation, dpi: int = 96) -> HTML:
    """An animation with its buttons, as HTML that a notebook shows; the frames are in it, in up to 256 colors each, and it asks for nothing from outside."""
    from IPython.display import HTML

    def small(found: re.Match) -> str:
        picture = Image.open(io.BytesIO(base64.b64decode(found[1].replace("\\\n", "")))).convert(
            "RGB"
        )
        picture.quantize(256, dither=Image.Dither.NONE).save(
            packed := io.BytesIO(), "PNG", optimize=True
        )
        return f'"data:image/png;base64,{base64.b64encode(packed.getvalue()).decode()}"'

    with mpl.rc_context({"savefig.dpi": dpi, "animation.embed_limit": 5}):
        html = animation.to_jshtml(default_mode="once")
    plt.close(getattr(animation, "_fig"))  # noqa: B009  (not in matplotlib's stubs)
    html = re.sub(r'"data:image/png;base64,([^"]*)"', small, html)
    html = re.sub(
        r"<link rel=\"stylesheet\"\s+href=\"https?:[^>]*>", "", html
    )  # matplotlib's icons come from a server
    return HTML(re.sub(r'<i class="fa fa-([a-z -]+)"></i>', lambda icon: _ICONS[icon[1]], html))


# --- comparisons -----------------------------------------------------------------------------------------------------------------------


def spaces(
    panels: dict[str, tuple[np.ndarray, float]],
    labels: Sequence[int] | np.ndarray,
    names: Sequence[str],
    columns: int = 3,
) -> Figure:
    """Small multiples: title -> (representation (n, d), score). Each is drawn by its first two principal components, classes by color and marker, the
    score above it."""
    from sklearn.decomposition import PCA

    labels, rows = np.asarray(labels), -(-len(panels) // columns)
    colors, markers = class_colors(names), _markers(len(names))
    fig, axes = plt.subplots(rows, columns, figsize=(7.2, 2.35 * rows + 0.6), squeeze=False)
    for ax in axes.flat[len(panels) :]:
        ax.axis("off")
    for ax, (title, (x, score)) in zip(axes.flat, panels.items()):
        points = PCA(2, svd_solver="full").fit_transform(x)
        for c, name in enumerate(names):
            ax.plot(
                *points[labels == c].T,
                markers[c],
                color=colors[c],
                ms=5.5,
                ls="none",
                label=name,
                **EDGE,
            )
        ax.set(xticks=[], yticks=[])
        ax.set_title(f"{title}\nNMI {score:.2f}", fontsize=10.5)
    handles, texts = axes[0, 0].get_legend_handles_labels()
    fig.legend(
        handles,
        texts,
        loc="outside lower center",
        ncols=min(len(names), 6),
        frameon=False,
        fontsize=10,
        columnspacing=1,
        handletextpad=0.2,
    )
    return fig


def same_curve(
    mine: Sequence[float], library: Sequence[float], ylabel: str = "loss"
) -> tuple[Figure, pd.DataFrame]:
    """Two losses by epoch, one upon the other, and the largest difference between them; the frame of both."""
    both = pd.DataFrame(
        {
            "epoch": range(1, len(mine) + 1),
            "by hand": np.asarray(mine, float),
            "library": np.asarray(library, float),
        }
    )
    fig, ax = plt.subplots(figsize=(6.2, 2.7))
    ax.plot(both["epoch"], both["library"], color=PALETTE[4], lw=6, alpha=0.6, label="the library")
    ax.plot(both["epoch"], both["by hand"], "--", color="0.15", lw=1.5, label="by hand")
    ax.set(xlabel="epoch", ylabel=ylabel)
    ax.set_title(
        f"largest difference {(both['by hand'] - both['library']).abs().max():.0e}", fontsize=11
    )
    ax.legend(frameon=False, fontsize=10)
    return fig, both


def lines(frame: pd.DataFrame, x: str, y: str, by: str) -> Figure:
    """A line per value of `by`, in its own color where it is one."""
    fig, ax = plt.subplots(figsize=(6.4, 2.9))
    styles = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (7, 2))]
    colors = class_colors(frame[by].unique())
    for k, (name, part) in enumerate(frame.groupby(by, sort=False)):
        ax.plot(
            part[x], part[y], ls=styles[k % len(styles)], color=colors[k], lw=2, label=str(name)
        )
    ax.set(xlabel=x, ylabel=y)
    ax.legend(frameon=False, fontsize=10, loc="center left", bbox_to_anchor=(1, 0.5))
    return fig
