"""Clusterings that know no keyword."""

from __future__ import annotations

from mmclust.methods.base import ImageClusterer, kmeans_labels


class KMeans(ImageClusterer):
    """k-means on the encoder's image embeddings: one clustering, whatever the user asks for.

    Args:
        encoder: from `mm.load_encoder`.
        n_clusters: M.
        n_init: initialisations per fit; the best by inertia is kept.
        random_state: seed of k-means.
    """

    def __init__(self, encoder, n_clusters: int = 8, n_init: int = 1, random_state=None):
        self.encoder, self.n_clusters, self.n_init, self.random_state = encoder, n_clusters, n_init, random_state

    def _fit(self, images, y) -> None:
        self.representation_ = self.image_embeddings_
        self.labels_ = kmeans_labels(self.representation_, self.n_clusters, self.random_state, self.n_init)
