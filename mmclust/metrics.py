"""Scores of a clustering against one labelling: NMI, RI, ARI, AMI."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def score(labels_true, labels_pred) -> dict[str, float]:
    """Agreement of two labellings, each (n,).

    NMI and AMI are normalised by the arithmetic mean of the two entropies (scikit-learn's default, which the papers' released code uses);
    RI is the plain Rand index, as the papers print it; ARI the adjusted one.

    Raises:
        ValueError: if the labellings differ in length or are empty.
    """
    from sklearn import metrics

    true, pred = np.asarray(labels_true), np.asarray(labels_pred)
    if true.shape != pred.shape or true.ndim != 1 or not len(true):
        raise ValueError(f"two labellings of the same, at least one image are needed, not of shapes {true.shape} and {pred.shape}")
    return {
        "NMI": float(metrics.normalized_mutual_info_score(true, pred)),
        "RI": float(metrics.rand_score(true, pred)),
        "ARI": float(metrics.adjusted_rand_score(true, pred)),
        "AMI": float(metrics.adjusted_mutual_info_score(true, pred)),
    }


def score_kmeans(representation: np.ndarray, labels_true, n_clusters: int, seeds: Iterable[int] = range(10), n_init: int = 1) -> dict[str, float]:
    """The papers' protocol: k-means on a representation (n, d) once per seed, scores averaged; `NMI_std` is their spread over the seeds.

    `n_init=1` is one initialisation per seed, what `n_init="auto"` does in the released code.
    """
    from sklearn.cluster import KMeans

    rows = [score(labels_true, KMeans(n_clusters, n_init=n_init, random_state=s).fit_predict(representation)) for s in seeds]
    mean = {key: float(np.mean([r[key] for r in rows])) for key in rows[0]}
    return mean | {"NMI_std": float(np.std([r["NMI"] for r in rows]))}
