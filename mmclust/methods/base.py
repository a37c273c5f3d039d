"""What the estimators share: checks, features, k-means, names of clusters."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClusterMixin

from mmclust.datasets.base import Images
from mmclust.encoders.prompt import split_template
from mmclust.metrics import score, score_kmeans


class ImageClusterer(ClusterMixin, BaseEstimator):
    """An estimator whose `fit` takes images: `mm.Images`, or a list of PIL pictures or uint8 arrays (h, w, 3).

    After `fit`: `labels_` int64 (n,), `image_embeddings_` float32 (n, d).
    """

    def fit(self, images, y=None):
        """Cluster the images; `y` is ignored, except by the oracle rows."""
        images = Images.of(images)
        self._check(images)
        if getattr(self, "template", None) is not None:
            split_template(self.template)
        self.image_embeddings_ = self.encoder.encode_images(images)
        self._fit(images, y)
        return self

    def fit_predict(self, images, y=None, **kwargs) -> np.ndarray:
        """`fit`, then the labels (n,)."""
        return self.fit(images, y).labels_

    def _check(self, images: Images) -> None:
        if not len(images):
            raise ValueError("no images to cluster")
        n_clusters = getattr(self, "n_clusters", 1)
        if not isinstance(n_clusters, (int, np.integer)) or not 1 <= n_clusters <= len(images):
            raise ValueError(f"n_clusters must be a whole number from 1 to the {len(images)} images, not {n_clusters!r}")
        words = getattr(self, "words", None)
        if words is not None:
            if isinstance(words, str) or not len(words):
                raise ValueError(f"words must be a list of at least one reference word, not {words!r}")
            if len(set(words)) < len(words):
                raise ValueError(f"a reference word stands twice: {next(w for w in words if list(words).count(w) > 1)!r}")

    def evaluate(self, labels_true, seeds=range(10)) -> dict[str, float]:
        """NMI, RI, ARI, AMI of the fitted clustering against labels (n,): k-means on `representation_` once per seed, averaged (the papers'
        protocol, with `NMI_std`), or the labels as they are where no k-means is involved."""
        if getattr(self, "representation_", None) is None:
            return score(labels_true, self.labels_) | {"NMI_std": 0.0}
        return score_kmeans(self.representation_, labels_true, self.n_clusters, seeds, self.n_init)

    def name_clusters(self) -> list[str]:
        """The reference word that fits each cluster's images best, a different one for each where there are enough words."""
        texts = self.encoder.encode_words(self.words, getattr(self, "template", None))
        return name_clusters(self.labels_, self.image_embeddings_, texts, self.words)


class ProxyClusterer(ImageClusterer):
    """A method that learns several representations of the images and clusters one of them by k-means."""

    def represent(self, name: str) -> np.ndarray:
        """A learned representation (n, width), float32, by name."""
        raise NotImplementedError

    def choose(self, name: str):
        """Cluster another learned representation, without learning again; sets `representation_` and `labels_`, returns self."""
        self.representation_ = self.represent(name)
        self.labels_ = kmeans_labels(self.representation_, self.n_clusters, self.random_state, self.n_init)
        return self


def name_clusters(labels, image_embeddings, text_embeddings, words) -> list[str]:
    """Names for clusters: the assignment of words to clusters with the largest summed mean cosine of members and word.

    Args:
        labels: (n,), clusters 0..M-1.
        image_embeddings: (n, d), and `text_embeddings` (K, d), both L2-normalised.
        words: the K words. With fewer words than clusters a word is used again, numbered.

    Returns:
        One name per cluster in the order of the labels.
    """
    from scipy.optimize import linear_sum_assignment

    n_clusters = int(np.max(labels)) + 1
    similarity = image_embeddings @ text_embeddings.T
    similarity = similarity - similarity.mean(0)  # what sets a cluster apart, not what every image shares
    means = np.stack([similarity[labels == c].mean(0) if (labels == c).any() else np.zeros(len(words)) for c in range(n_clusters)])
    rounds = -(-n_clusters // len(words))
    chosen = linear_sum_assignment(-np.tile(means, rounds))[1]
    return [words[k % len(words)] + (f" {k // len(words) + 1}" if k >= len(words) else "") for k in chosen]


def kmeans_labels(x: np.ndarray, n_clusters: int, random_state, n_init: int) -> np.ndarray:
    """Labels (n,) of k-means on x (n, d)."""
    from sklearn.cluster import KMeans

    return KMeans(n_clusters, n_init=n_init, random_state=random_state).fit_predict(x).astype(np.int64)


def torch_generator(random_state, device) -> torch.Generator:
    """A seeded generator; None draws a fresh seed."""
    seed = np.random.default_rng(random_state).integers(2**31) if not isinstance(random_state, np.random.RandomState) else random_state.randint(2**31)
    return torch.Generator(device).manual_seed(int(seed))
