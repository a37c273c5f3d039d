"""Clusterings that know no keyword."""

from __future__ import annotations

from mmclust.methods.base import ImageClusterer, nearest
from mmclust.methods.number import silhouette_curve


class KMeans(ImageClusterer):
    """k-means on the encoder's image embeddings: one clustering, whatever the user asks for.

    Args:
        encoder: from `mm.load_encoder`; None takes the input as features (n, d).
        n_clusters: M, or "auto": the largest mean silhouette.
        n_init: initialisations per fit; the best by inertia is kept.
        random_state: seed of k-means.
    """

    takes_features = True
    auto_clusters = True

    def __init__(self, encoder=None, n_clusters: int | str = 8, n_init: int = 1, random_state=None):
        self.encoder, self.n_clusters, self.n_init, self.random_state = encoder, n_clusters, n_init, random_state

    def _fit(self, images, y) -> None:
        if not hasattr(self, "n_clusters_"):
            self.n_clusters_curve_ = silhouette_curve(self.image_embeddings_, 20, self.random_state)
            self.n_clusters_ = int(self.n_clusters_curve_["n_clusters"][self.n_clusters_curve_["criterion"].idxmax()])
        self._kmeans(self.image_embeddings_)

    def _predict(self, images):
        return nearest(self._embed(images), self.cluster_centers_)
