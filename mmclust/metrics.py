"""Scores of a clustering against labels (NMI, RI, ARI, AMI of scikit-learn), and of its names."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

# The expected value in AMI takes up to n x min(classes, clusters) steps; so many take about 7 s.
MAX_AMI_STEPS = 50_000_000


def score(labels_true: ArrayLike, labels_pred: ArrayLike) -> dict[str, float]:
    """Agreement of two labelings, each (n,): NMI, RI, ARI, AMI.

    NMI and AMI are normalized by the arithmetic mean of the two entropies (scikit-learn's default,
    which the papers' released code uses). RI, as in the papers, is not adjusted for chance; ARI is.
    AMI is nan, with a warning, for so many classes and clusters that it would take minutes. Raises
    ValueError for different shapes, no labels, other shapes than (n,), or a label None.
    """
    from sklearn import metrics

    true = np.asarray(labels_true)
    pred = np.asarray(labels_pred)
    if true.shape != pred.shape or true.ndim != 1 or not len(true):
        shapes = f"{true.shape} and {pred.shape}"
        raise ValueError(f"two labelings of the same shape (n,) are required, not {shapes}")
    if any(label is None for label in [*true, *pred]):
        raise ValueError("a label is None: leave out the images without a label")
    nmi = float(metrics.normalized_mutual_info_score(true, pred))
    ami = np.nan
    n_classes, n_clusters = len(np.unique(true)), len(np.unique(pred))
    if len(true) * min(n_classes, n_clusters) <= MAX_AMI_STEPS:
        ami = float(metrics.adjusted_mutual_info_score(true, pred))
    else:
        sizes = f"{n_classes:,} classes and {n_clusters:,} clusters of {len(true):,} images"
        warnings.warn(f"{sizes}: AMI is left out (an id column as criterion?)", stacklevel=2)
    return {
        "NMI": min(nmi, 1.0),  # rounding can give 1 + 2e-16
        "RI": float(metrics.rand_score(true, pred)),
        "ARI": float(metrics.adjusted_rand_score(true, pred)),
        "AMI": ami,
    }


def score_kmeans(
    representation: np.ndarray, labels_true: ArrayLike, n_clusters: int,
    seeds: Iterable[int] = range(10), n_init: int = 1,
) -> dict[str, float]:  # fmt: skip
    """The papers' protocol: k-means of the representation (n, d) once per seed, with `n_init`
    initializations (1 is what `n_init="auto"` does in the released code).

    Returns the scores averaged over the seeds, and `NMI_std`, the standard deviation of NMI. Warns
    of fewer clusters than M. Raises ValueError for no seeds, or a row with NaN.
    """
    known: dict[bytes, dict[str, float]] = {}
    scores = []
    for seed in seeds:
        labels, _ = kmeans(representation, n_clusters, seed, n_init)
        # Many seeds give the same clustering, which is scored once. Its clusters may have other
        # numbers, so it is identified by the first image of each image's cluster.
        _, first_image, cluster = np.unique(labels, return_index=True, return_inverse=True)
        key = first_image[cluster].tobytes()
        if key not in known:
            known[key] = score(labels_true, labels)
        scores.append(known[key])
    if not scores:
        raise ValueError("seeds must be at least one seed of k-means, such as range(10)")
    if len(first_image) < n_clusters:
        few = f"scored with {len(first_image)} clusters instead of {n_clusters}"
        warnings.warn(f"{few}: the representation has no more different rows", stacklevel=2)
    means = {name: float(np.mean([s[name] for s in scores])) for name in scores[0]}
    return means | {"NMI_std": float(np.std([s["NMI"] for s in scores]))}


def name_accuracy(
    labels_true: ArrayLike, classes: Sequence[str], labels_pred: ArrayLike, names: Sequence[str]
) -> float:
    """The share of clusters that are named as their most frequent class (semantic accuracy).

    `labels_true` (n,) are positions in `classes`, `labels_pred` (n,) in `names`. Letter case does
    not count, nor do clusters without images.
    """
    true = np.asarray(labels_true)
    pred = np.asarray(labels_pred)
    clusters = np.unique(pred)
    majority = [classes[int(np.bincount(true[pred == c]).argmax())] for c in clusters]
    right = [names[c].casefold() == name.casefold() for c, name in zip(clusters, majority)]
    return float(np.mean(right))


def kmeans(
    x: ArrayLike, n_clusters: int, random_state: int | np.random.RandomState | None,
    n_init: int = 1, start: Any = None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Labels (n,) and centers (M, d) of k-means on x (n, d). `start`: initial centers (M, d).

    Centers that differ by rounding alone are one. So if fewer than M rows differ, there are fewer
    clusters: callers warn, once for many runs. Raises ValueError for a row with NaN or infinity.
    """
    from scipy.spatial.distance import pdist
    from sklearn.cluster import DBSCAN, KMeans
    from sklearn.exceptions import ConvergenceWarning

    finite = np.isfinite(np.asarray(x)).all(axis=-1)
    if not finite.all():
        row = f"row {np.argmin(finite)} has NaN or infinity"
        raise ValueError(f"k-means needs numbers: {row} (learned? try a smaller learning rate)")
    options = {"n_init": n_init}
    if start is not None and len(start) == n_clusters:
        options = {"init": start, "n_init": 1}
    model = KMeans(n_clusters, random_state=random_state, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x)
    centers = model.cluster_centers_
    rounding = 100 * np.finfo(centers.dtype).eps * max(np.abs(centers).max(), 1e-9)
    # Nearly always; DBSCAN takes longer for few centers, and less memory for many.
    if len(centers) < 1000 and pdist(centers).min(initial=np.inf) > rounding:
        return model.labels_.astype(np.int64), centers
    same = DBSCAN(rounding, min_samples=1, algorithm="kd_tree").fit_predict(centers)
    _, first, labels = np.unique(same[model.labels_], return_index=True, return_inverse=True)
    return labels.astype(np.int64), centers[model.labels_[first]]
