"""Choose the number of clusters M by the mean silhouette of k-means on a representation."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from mmclust.metrics import kmeans

if TYPE_CHECKING:
    import pandas as pd

MAX_SILHOUETTE_IMAGES = 2000  # more are sampled: the cost grows with the square of their number
DEFAULT_MOST = 20  # the largest number of clusters that is tried


def choose_n_clusters(
    x: np.ndarray, most: int | None = None, random_state: int | np.random.RandomState | None = 0
) -> tuple[int, pd.DataFrame]:
    """The M from 2 to `most` (None: 20) with the largest mean silhouette of k-means on x (n, d);
    silhouette: Rousseeuw 1987.

    The proxy methods apply it to t(w), with at most one cluster per reference word. The criterion
    was chosen on the tuning data sets. On them, the estimate is good for Multi-Sub's prompts and
    less good for Multi-MaP's, whose free words keep some properties that the keyword does not mean
    (`python -m benchmarks.n_clusters --tuning --method NAME`).

    At most `MAX_SILHOUETTE_IMAGES` rows of x are used. A `random_state` that is not an integer
    counts as the seed 0. Returns M and the curve, a data frame with the columns n_clusters and
    criterion. Raises ValueError for fewer than 3 rows, or if there is no M to compare. Warns if the
    best M is `most`.
    """
    import pandas as pd
    from sklearn.metrics import silhouette_score

    if len(x) < 3:
        raise ValueError(f"a number of clusters is chosen on at least 3 images, not {len(x)}")
    most = DEFAULT_MOST if most is None else most
    rng = np.random.default_rng(random_state if isinstance(random_state, (int, np.integer)) else 0)
    if len(x) > MAX_SILHOUETTE_IMAGES:
        x = x[rng.choice(len(x), MAX_SILHOUETTE_IMAGES, replace=False)]
    rows = []
    for m in range(2, min(most, len(x) - 1) + 1):
        labels, _ = kmeans(x, m, int(rng.integers(2**31)), n_init=5)
        criterion = float(silhouette_score(x, labels)) if len(set(labels)) > 1 else -1.0
        rows.append({"n_clusters": m, "criterion": criterion})
    if not rows:
        raise ValueError(f"no number of clusters from 2 to {most} can be compared")
    curve = pd.DataFrame(rows)
    best = int(curve["n_clusters"][curve["criterion"].idxmax()])
    if best == most < len(x) - 1:
        more = "there may be more: set n_clusters (at most one cluster per reference word is tried)"
        warnings.warn(f"n_clusters='auto' gives {best}, the largest it tried; {more}", stacklevel=2)
    return best, curve
