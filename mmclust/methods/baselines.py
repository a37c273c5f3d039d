"""Baselines that learn nothing: k-means on image embeddings, or on their cosines with words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import softmax
from sklearn.preprocessing import normalize

from mmclust.methods.base import ImageClusterer, RandomSeed, RepresentationClusterer, nearest

if TYPE_CHECKING:
    from mmclust.encoders.base import Encoder


class KMeans(ImageClusterer):
    """k-means on the encoder's image embeddings: the same clustering for every keyword.

    `encoder=None` takes the input as features (n, d). `n_clusters`: M, or "auto", see
    `choose_n_clusters`. `n_init`: initializations; the one with the smallest inertia is used.
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


class CRL(RepresentationClusterer):
    """Conditional representation learning: k-means on each image's cosines with all words.

    Honglin Liu, Chao Sun, Peng Hu, Yunfan Li, Xi Peng. NeurIPS 2025, arXiv 2510.04564.

    With image embeddings V (n, d) and text embeddings T (K, d), the representation "cosine" is
    V T^T with each row divided by its norm, as in the paper. "softmax" is our addition: the softmax
    of `encoder.logit_scale` V T^T over the words, so that words that do not fit count little.

    The paper uses many words. `n_clusters`: M, or "auto", see `choose_n_clusters`. Attributes,
    besides those of `RepresentationClusterer`: `similarity_` V T^T, (n, K).
    """

    REPRESENTATIONS = ("cosine", "softmax")
    CONSTRAINTS = RepresentationClusterer.CONSTRAINTS | {"representation": REPRESENTATIONS}

    def __init__(
        self, encoder: Encoder | None = None, words: Sequence[str] | None = None, *,
        template: str | None = None, n_clusters: int | str = 8, representation: str = "cosine",
        n_init: int = 1, random_state: RandomSeed = None,
    ) -> None:  # fmt: skip
        self.encoder = encoder
        self.words = words
        self.template = template
        self.n_clusters = n_clusters
        self.representation = representation
        self.n_init = n_init
        self.random_state = random_state

    def _fit(self, images: Any) -> None:
        self.similarity_ = self.image_embeddings_ @ self._texts(self.words).T
        self._choose_n_clusters(self.represent(self.representation), len(self.words))
        self._cluster(self.representation)

    def _represent(self, name: str, similarity: np.ndarray | None = None) -> np.ndarray:
        similarity = self.similarity_ if similarity is None else similarity
        if name == "softmax":
            return softmax(self.encoder.logit_scale * similarity, axis=1)
        return normalize(similarity)

    def _predict(self, images: Any) -> np.ndarray:
        similarity = self._embed(images) @ self._texts(self.words).T
        x = self._represent(self.current_representation_, similarity)
        return nearest(x, self.cluster_centers_)
