"""What the explorer shows, as HTML and SVG: clusters, a map, a table of two clusterings.

This module computes what is shown; the markup is `explorer.html.j2`, the style `explorer.css`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from mmclust.data.images import ImageDataset
from mmclust.explorer.session import Clustering
from mmclust.metrics import score

FOLDER = Path(__file__).parent
PICTURES_PER_CLUSTER = 48
TOP_WORDS = 6  # words in a picture's list of weights
MAP_SIDE = 400  # units of the SVG
MAP_MARGIN = 10
MARKERS = [  # paths within -1..1: color and shape both identify the cluster
    "M-.9,0a.9,.9 0 1,0 1.8,0a.9,.9 0 1,0 -1.8,0z", "M-.8-.8H.8V.8H-.8z",
    "M0-1.1L1.1,0L0,1.1L-1.1,0z", "M0-1L1,.8H-1z", "M0,1L1-.8H-1z",
    "M-.35-1h.7v.65h.65v.7h-.65v.65h-.7v-.65h-.65v-.7h.65z", "M-1,0L.8-1V1z",
]  # fmt: skip
markup: Any = jinja2.Environment(  # the macros of the template
    loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True
).get_template("explorer.html.j2").module  # fmt: skip


def style_sheet() -> str:
    """The CSS of the explorer, after the theme that it shares with the gallery."""
    theme = (FOLDER.parent / "pipeline" / "theme.css").read_text(encoding="utf-8")
    style = (FOLDER / "explorer.css").read_text(encoding="utf-8")
    # In JupyterLab `:root` is the complete application, which keeps its own colors.
    return theme.replace(":root", "body[data-voila]") + style


def cluster_styles(names: Sequence[str]) -> list[dict[str, str]]:
    """A hex color and a marker's path per cluster. If all names are colors, those are used."""
    # Imported late: matplotlib and seaborn take more than a second, and the form must appear first.
    from matplotlib.colors import to_hex

    from mmclust.results.figures import class_colors

    colors = map(to_hex, class_colors(names))
    return [{"color": color, "marker": marker} for color, marker in zip(colors, cycle(MARKERS))]


def heading(clustering: Clustering, data: ImageDataset) -> str:
    """Title, number of clusters, agreement with the labels, and what the encoder has learned."""
    facts = f"{clustering.model.n_clusters_} clusters"
    if clustering.keyword in data.labels:
        nmi = score(data.labels[clustering.keyword], clustering.labels)["NMI"]
        n_wrong = sum(map(bool, wrong_pictures(clustering, data)))
        facts += (
            f", NMI {nmi:.2f} with the labels; {n_wrong} marked: not their cluster's main class"
        )
    # Clusters may be named by words that a small encoder has never seen in training.
    words = list(clustering.weights)
    note = "No keyword: the clusters have numbers."
    if words:
        note = clustering.model.encoder.training_vocabulary_note(words)
    return markup.heading(
        clustering.title or "no keyword", facts, " ".join([*clustering.notes, note])
    )


def wrong_pictures(clustering: Clustering, data: ImageDataset) -> list[str]:
    """For each picture whose label is not the most frequent one of its cluster, both classes; ""
    for the others, and for all if the keyword is no criterion of the pictures."""
    if clustering.keyword not in data.labels:
        return [""] * len(data)
    true = data.labels[clustering.keyword]
    classes = data.classes[clustering.keyword]
    counts = np.zeros((len(clustering.names), len(classes)), np.int64)
    np.add.at(counts, (clustering.labels, true), 1)
    main = counts.argmax(1)[clustering.labels]  # (n,)
    texts = [f"{classes[t]}; most of this cluster: {classes[m]}" for t, m in zip(true, main)]
    return [text if wrong else "" for text, wrong in zip(texts, true != main)]


def captions(data: ImageDataset, others: Sequence[Clustering]) -> list[str]:
    """A caption for each picture: its clusters in other clusterings, and its labels."""
    facts = [[f"by {c.title}: {name}" for name in c.label_names] for c in others]
    if data.criteria:
        rows = data.frame()[data.criteria].itertuples(index=False)
        facts.append([f"labels: {', '.join(row)}" for row in rows])
    return [" · ".join(fact) for fact in zip(*facts)]


def clusters(
    clustering: Clustering, uris: list[str], picture_names: list[str],
    captions: Sequence[str] = (), wrong: Sequence[str] = (),
) -> str:  # fmt: skip
    """The clusters, largest first, with some of their pictures; a click shows a picture's weights.

    `uris` (thumbnails), `picture_names`, `captions` and `wrong` (see `wrong_pictures`) have one
    entry for each picture.
    """
    names = clustering.names
    styles = cluster_styles(names)
    words = list(clustering.weights)
    values = clustering.weights.to_numpy()
    sizes = np.bincount(clustering.labels, minlength=len(names))
    groups = []
    for c in np.argsort(-sizes, kind="stable"):
        members = np.flatnonzero(clustering.labels == c)
        spread = np.linspace(0, sizes[c] - 1, min(PICTURES_PER_CLUSTER, sizes[c])).astype(int)
        pictures = []
        for i in members[spread]:
            top = np.argsort(-values[i], kind="stable")[:TOP_WORDS]
            weights = [(words[k], values[i, k]) for k in top]
            picture = {"name": picture_names[i], "uri": uris[i], "weights": weights}
            picture["wrong"] = wrong[i] if wrong else ""
            pictures.append(picture | ({"caption": captions[i]} if captions else {}))
        groups.append(styles[c] | {"name": names[c], "size": sizes[c], "pictures": pictures})
    return markup.clusters(clustering.title, groups)


def tsne(x: np.ndarray, seed: int = 0) -> np.ndarray | None:
    """Positions (n, 2) of x (n, d) by t-SNE; None where fewer than 5 rows are different.

    500 steps instead of scikit-learn's 1,000 take less time and preserve neighbors equally well.
    """
    from mmclust.results.figures import spaces

    return spaces.tsne(x, seed, max_iter=500) if len(np.unique(x, axis=0)) >= 5 else None


def scatter(clustering: Clustering, positions: np.ndarray | None, picture_names: list[str]) -> str:
    """A map of the pictures: positions (n, 2) in the colors and markers of their clusters."""
    if positions is None:
        return markup.note("Too few different pictures for a map.")
    span = np.ptp(positions, axis=0)
    places = (positions - positions.min(0)) / np.where(span > 0, span, 1)  # (n, 2) in 0..1
    places = MAP_MARGIN + places * (MAP_SIDE - 2 * MAP_MARGIN)
    styles = cluster_styles(clustering.names)
    dots = [
        styles[c] | {"x": x, "y": y, "title": f"{name}: {clustering.names[c]}"}
        for (x, y), c, name in zip(places, clustering.labels, picture_names)
    ]
    title = f"t-SNE of {len(dots)} pictures by {clustering.title}"
    return markup.map(title, dots, MAP_SIDE, 4.5 if len(dots) < 600 else 2.5)


def cross_table(counts: pd.DataFrame, one: Clustering, other: Clustering, uris: list[str]) -> str:
    """The counts, with each cell's first picture; darker cells have a larger share of their row."""
    pairs = list(zip(one.labels, other.labels))
    first = dict(zip(reversed(pairs), reversed(uris)))  # the first picture replaces later ones
    cells = []
    for r, row in enumerate(counts.to_numpy()):
        lightness = 100 - 35 * row / max(1, row.sum())
        colors = [f"hsl(210 85% {value:.0f}%)" for value in lightness]
        cells.append([(row[c], colors[c], first.get((r, c))) for c in range(len(row))])
    corner = f"{one.title} \\ {other.title}"
    return markup.cross_table(corner, list(counts.index), list(counts.columns), cells)
