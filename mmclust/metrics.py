"""Scores of a clustering against one labelling: NMI, RI, ARI, AMI."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike


def score(labels_true: ArrayLike, labels_pred: ArrayLike) -> dict[str, float]:
    """ClusteringAgreement of two labellings, each (n,).

    NMI and AMI are normalised by the arithmetic mean of the two entropies (scikit-learn's default, which the papers' released code uses);
    RI is the plain Rand index, as the papers print it; ARI the adjusted one. One contingency table serves all four, which is several times
    faster than four calls of scikit-learn and the same to rounding.

    Raises:
        ValueError: if the labellings differ in length or are empty.
    """
    true, pred = np.asarray(labels_true), np.asarray(labels_pred)
    if true.shape != pred.shape or true.ndim != 1 or not len(true):
        raise ValueError(
            f"two labellings of the same, at least one image are needed, not of shapes {true.shape} and {pred.shape}"
        )
    from sklearn.metrics import cluster

    table, n = cluster.contingency_matrix(true, pred, sparse=True), len(true)
    rows, columns = np.asarray(table.sum(1)).ravel(), np.asarray(table.sum(0)).ravel()
    mutual, expected = (
        cluster.mutual_info_score(None, None, contingency=table),
        cluster.expected_mutual_information(table, n),
    )
    mean = (_entropy(rows, n) + _entropy(columns, n)) / 2
    if min(mean - expected, mutual) < 1e-9:  # nothing to be informed of: scikit-learn's conventions
        nmi, ami = (
            cluster.normalized_mutual_info_score(true, pred),
            cluster.adjusted_mutual_info_score(true, pred),
        )
    else:
        nmi, ami = min(mutual / mean, 1.0), (mutual - expected) / (mean - expected)
    # pairs of images: together in both, in the first, in the second labelling
    both, first, second = (
        float((counts.astype(float) ** 2).sum()) - n for counts in (table.data, rows, columns)
    )
    pairs = n * (n - 1)
    chance = first * second / pairs if pairs else 0.0
    return {
        "NMI": float(nmi),
        "RI": (pairs - first - second + 2 * both) / pairs if pairs else 1.0,
        "ARI": (both - chance) / ((first + second) / 2 - chance)
        if (first + second) / 2 != chance
        else 1.0,
        "AMI": float(ami),
    }


def _entropy(sizes: np.ndarray, n: int) -> float:
    return float(-(sizes / n * np.log(sizes / n)).sum())


def score_kmeans(
    representation: np.ndarray,
    labels_true: ArrayLike,
    n_clusters: int,
    seeds: Iterable[int] = range(10),
    n_init: int = 1,
) -> dict[str, float]:
    """The papers' protocol: k-means on a representation (n, d) once per seed, scores averaged; `NMI_std` is their spread over the seeds.

    `n_init=1` is one initialisation per seed, what `n_init="auto"` does in the released code.
    """
    from sklearn.cluster import KMeans

    known: dict[bytes, dict[str, float]] = {}  # many seeds end at the same clustering
    rows = []
    for seed in seeds:
        labels = KMeans(n_clusters, n_init=n_init, random_state=seed).fit_predict(representation)
        first, cluster = np.unique(labels, return_index=True, return_inverse=True)[1:]
        key = first[
            cluster
        ].tobytes()  # each image's cluster by its first member, whatever its number
        if key not in known:
            known[key] = score(labels_true, labels)
        rows.append(known[key])
    mean = {key: float(np.mean([r[key] for r in rows])) for key in rows[0]}
    return mean | {"NMI_std": float(np.std([r["NMI"] for r in rows]))}
