"""Zero-shot baselines: each image takes the word whose prompt is nearest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmclust.methods.base import ImageClusterer
from mmclust.methods.cluster_names import name_clusters

if TYPE_CHECKING:
    import pandas as pd

    from mmclust.encoders.base import Encoder


class CLIP_GPT(ImageClusterer):
    """Each image i takes the word argmax_k cos(v_i, t(z_k)). The papers' row CLIP_GPT, where the
    words come from a language model.

    Each word that at least one image takes is a cluster: `labels_` numbers these words from 0,
    `words_` lists them. A new image takes the nearest word of `words_`.
    """

    def __init__(
        self, encoder: Encoder | None = None, words: Sequence[str] | None = None, *,
        template: str | None = None,
    ) -> None:  # fmt: skip
        self.encoder = encoder
        self.words = words
        self.template = template

    def _fit(self, images: Any) -> None:
        self.similarity_ = self.image_embeddings_ @ self._texts(self.words).T  # (n, K)
        taken, labels = np.unique(self.similarity_.argmax(1), return_inverse=True)
        self.labels_ = labels.astype(np.int64)
        self.words_ = [self.words[k] for k in taken]

    def _predict(self, images: Any) -> np.ndarray:
        similarity = self._embed(images) @ self._texts(self.words_).T
        return similarity.argmax(1).astype(np.int64)

    def name_clusters(self, scores: bool = False) -> list[str] | pd.DataFrame:
        """The word of each cluster; with `scores` a data frame, as for the other methods."""
        if not scores:
            return list(self.words_)
        assigned = [list(self.words).index(word) for word in self.words_]
        arguments = (self.labels_, self.image_embeddings_, self._texts(self.words), self.words)
        return name_clusters(*arguments, scores=True, assigned=assigned)


class CLIP_label(CLIP_GPT):
    """`CLIP_GPT` for the true class names, passed as `words`: an oracle, as in the papers."""
