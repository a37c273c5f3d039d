"""Names for clusters, chosen among the reference words."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


# The least score of a cluster's word, as a share of the score of the word that fits it best; chosen
# by hand.
FITS = 0.5


def name_clusters(
    labels: np.ndarray, image_embeddings: np.ndarray, text_embeddings: np.ndarray,
    words: Sequence[str], scores: bool = False, assigned: Sequence[int] | None = None,
) -> list[str] | pd.DataFrame:  # fmt: skip
    """Names for clusters: words are assigned to clusters so that the sum of their scores is largest
    (Hungarian method). So no name says what all clusters have in common. But a cluster whose word
    fits much less than another one (`FITS`) takes that one, with a number, such as "car 2".

    A score is the mean cosine between the cluster's images and the word, minus the mean cosine of
    all images with that word (if there are other clusters). `labels` (n,) are clusters 0..M-1;
    embeddings (n, d) and (K, d) are L2-normalized. If there are fewer words than clusters, they are
    used again with a number, and a warning. With `scores`, returns a data frame: cluster, size,
    name, score, next (the second best word), next_score. `assigned`: the index of each cluster's
    word, which replaces the assignment. Raises ValueError for no labels, or one below 0.
    """
    import pandas as pd
    from scipy.optimize import linear_sum_assignment

    labels = np.asarray(labels)
    if not len(labels) or labels.min() < 0:
        raise ValueError(f"labels must be clusters from 0 of at least one image, not {labels}")
    n_clusters = int(labels.max()) + 1
    similarity = image_embeddings @ text_embeddings.T  # (n, K)
    if len(np.unique(labels)) > 1:
        similarity = similarity - similarity.mean(0)
    means = np.zeros((n_clusters, len(words)), dtype=similarity.dtype)  # 0 for an empty cluster
    for c in np.unique(labels):
        means[c] = similarity[labels == c].mean(0)
    misfit = np.zeros(n_clusters, bool)
    if assigned is None:
        times_each_word = -(-n_clusters // len(words))
        if times_each_word > 1:
            few = f"{n_clusters} clusters, but only {len(words)} reference word(s)"
            warnings.warn(f"{few}: some names differ by a number alone", stacklevel=3)
        assigned = linear_sum_assignment(-np.tile(means, times_each_word))[1] % len(words)
        best = means.max(1)
        misfit = (best > 0) & (means[np.arange(n_clusters), assigned] < FITS * best)
    chosen = np.where(misfit, means.argmax(1), assigned)
    rows = {}
    uses: Counter[int] = Counter()
    for c in np.argsort(misfit, kind="stable"):  # those without a number first
        word = chosen[c]
        uses[word] += 1
        name = words[word] if uses[word] == 1 else f"{words[word]} {uses[word]}"
        others = np.where(np.arange(len(words)) == word, -np.inf, means[c])
        second = int(others.argmax()) if len(words) > 1 else None
        next_word = None if second is None else words[second]
        next_score = np.nan if second is None else float(others[second])
        size = int((labels == c).sum())
        rows[c] = (c, size, name, float(means[c, word]), next_word, next_score)
    columns = ["cluster", "size", "name", "score", "next", "next_score"]
    table = pd.DataFrame([rows[c] for c in range(n_clusters)], columns=columns)
    return table if scores else table["name"].tolist()
