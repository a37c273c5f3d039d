"""Scores of a clustering against labels (NMI, RI, ARI, AMI of scikit-learn), and of its names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike


def score(labels_true: ArrayLike, labels_pred: ArrayLike) -> dict[str, float]:
    """Agreement of two labelings, each (n,): NMI, RI, ARI, AMI.

    NMI and AMI are normalized by the arithmetic mean of the two entropies (scikit-learn's default,
    which the papers' released code uses). RI, as in the papers, is not adjusted for chance; ARI is.

    Raises:
        ValueError: the labelings differ in shape, are empty, or are not one-dimensional.
    """
    from sklearn import metrics

    true = np.asarray(labels_true)
    pred = np.asarray(labels_pred)
    if true.shape != pred.shape or true.ndim != 1 or not len(true):
        shapes = f"{true.shape} and {pred.shape}"
        raise ValueError(f"two labelings of the same shape (n,) are required, not {shapes}")
    nmi = float(metrics.normalized_mutual_info_score(true, pred))
    return {
        "NMI": min(nmi, 1.0),  # rounding can give 1 + 2e-16
        "RI": float(metrics.rand_score(true, pred)),
        "ARI": float(metrics.adjusted_rand_score(true, pred)),
        "AMI": float(metrics.adjusted_mutual_info_score(true, pred)),
    }


def score_kmeans(
    representation: np.ndarray, labels_true: ArrayLike, n_clusters: int,
    seeds: Iterable[int] = range(10), n_init: int = 1,
) -> dict[str, float]:  # fmt: skip
    """The papers' protocol: k-means once per seed, with the scores averaged over the seeds.

    Args:
        representation: (n, d), what is clustered.
        n_init: initializations per seed; 1 is what `n_init="auto"` does in the released code.

    Returns:
        The means of the scores, and `NMI_std`, the standard deviation of NMI over the seeds.
    """
    from sklearn.cluster import KMeans

    known: dict[bytes, dict[str, float]] = {}
    scores = []
    for seed in seeds:
        labels = KMeans(n_clusters, n_init=n_init, random_state=seed).fit_predict(representation)
        # Many seeds give the same clustering, which is scored once. Its clusters may have other
        # numbers, so it is identified by the first image of each image's cluster.
        _, first_image, cluster = np.unique(labels, return_index=True, return_inverse=True)
        key = first_image[cluster].tobytes()
        if key not in known:
            known[key] = score(labels_true, labels)
        scores.append(known[key])
    means = {name: float(np.mean([s[name] for s in scores])) for name in scores[0]}
    return means | {"NMI_std": float(np.std([s["NMI"] for s in scores]))}


def name_accuracy(
    labels_true: ArrayLike, classes: Sequence[str], labels_pred: ArrayLike, names: Sequence[str]
) -> float:
    """The share of clusters that are named as their most frequent class (semantic accuracy).

    Args:
        labels_true: (n,), positions in `classes`. labels_pred: (n,), positions in `names`.
        names: a name per cluster; letter case does not count. Clusters without images are left out.
    """
    true = np.asarray(labels_true)
    pred = np.asarray(labels_pred)
    clusters = np.unique(pred)
    majority = [classes[np.bincount(true[pred == c]).argmax()] for c in clusters]
    right = [names[c].casefold() == name.casefold() for c, name in zip(clusters, majority)]
    return float(np.mean(right))
