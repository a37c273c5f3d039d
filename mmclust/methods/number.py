"""How many clusters? A criterion on a representation, with the curve to look at."""

from __future__ import annotations

import numpy as np

SAMPLE = 2000  # images that silhouettes are taken on: their cost grows with the square


def silhouette_curve(x: np.ndarray, most: int, random_state=0):
    """Mean silhouette of k-means on x (n, d) for M = 2..most, taken on at most `SAMPLE` rows: a frame, n_clusters and criterion."""
    import pandas as pd
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    rng = np.random.default_rng(random_state if isinstance(random_state, (int, np.integer)) else 0)
    x = x if len(x) <= SAMPLE else x[rng.choice(len(x), SAMPLE, replace=False)]
    rows = []
    for m in range(2, min(most, len(x) - 1) + 1):
        labels = KMeans(m, n_init=5, random_state=int(rng.integers(2**31))).fit_predict(x)
        rows.append({"n_clusters": m, "criterion": float(silhouette_score(x, labels)) if len(set(labels)) > 1 else -1.0})
    return pd.DataFrame(rows)


def choose_n_clusters(x: np.ndarray, most: int | None = None, random_state=0):
    """M by the largest mean silhouette. Returns M and the curve."""
    curve = silhouette_curve(x, most or 20, random_state)
    return int(curve["n_clusters"][curve["criterion"].idxmax()]), curve
