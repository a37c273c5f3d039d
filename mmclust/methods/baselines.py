"""The baseline that uses no keyword: k-means on image embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mmclust.methods.base import ImageClusterer, RandomSeed, nearest

if TYPE_CHECKING:
    from mmclust.encoders.base import Encoder


class KMeans(ImageClusterer):
    """k-means on the encoder's image embeddings: the same clustering for every keyword.

    Args:
        encoder: from `mm.load_encoder`; None takes the input as features (n, d).
        n_clusters: M, or "auto": the largest mean silhouette for M up to 20.
        n_init: initializations per fit; the one with the smallest inertia is used.
        random_state: seed of k-means.
    """

    takes_features = True
    auto_clusters = True

    def __init__(
        self, encoder: Encoder | None = None, *, n_clusters: int | str = 8, n_init: int = 1,
        random_state: RandomSeed = None,
    ) -> None:  # fmt: skip
        self.encoder = encoder
        self.n_clusters = n_clusters
        self.n_init = n_init
        self.random_state = random_state

    @property
    def words(self) -> Any:
        remedy = "mm.name_clusters takes any words, mm.CLIP_GPT weighs them for each image"
        raise AttributeError(f"KMeans has no reference words: {remedy}")

    def _fit(self, images: Any) -> None:
        self._choose_n_clusters(self.image_embeddings_)
        self._kmeans(self.image_embeddings_)

    def _predict(self, images: Any) -> np.ndarray:
        return nearest(self._embed(images), self.cluster_centers_)
