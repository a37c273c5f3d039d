"""Zero-shot rows: each image takes the word whose prompt is nearest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from mmclust.methods.base import ImageClusterer, cluster_words

if TYPE_CHECKING:
    import pandas as pd

    from mmclust.encoders.base import Encoder


class CLIP_GPT(ImageClusterer):
    """argmax_k cos(v_i, t(z_k)) over the language model's words (the papers' CLIP_GPT row).

    The number of clusters is the number of words that some image takes; `labels_` count them from 0, `words_` names them. A new image takes
    the nearest of these.

    Args:
        encoder: from `mm.load_encoder`.
        words: K reference words.
        template: prompt with one `*`; None takes that of the words (`mm.reference_words`), or the bare words where they have none.
    """

    def __init__(
        self,
        encoder: Encoder | None = None,
        words: Sequence[str] | None = None,
        *,
        template: str | None = None,
    ) -> None:
        self.encoder, self.words, self.template = encoder, words, template

    def _fit(self, images: Any, y: ArrayLike | None) -> None:
        self.similarity_ = (
            self.image_embeddings_ @ self.encoder.encode_words(self.words, self._template()).T
        )
        used, self.labels_ = np.unique(self.similarity_.argmax(1), return_inverse=True)
        self.labels_ = self.labels_.astype(np.int64)
        self.words_ = [self.words[k] for k in used]
        self.n_clusters_ = len(used)

    def _predict(self, images: Any) -> np.ndarray:
        return (
            (
                self.encoder.encode_images(images)
                @ self.encoder.encode_words(self.words_, self._template()).T
            )
            .argmax(1)
            .astype(np.int64)
        )

    def name_clusters(self, scores: bool = False) -> list[str] | pd.DataFrame:
        """The word of each cluster; with `scores` a frame, as for the other methods."""
        if not scores:
            return list(self.words_)
        texts = self.encoder.encode_words(self.words, self._template())
        return cluster_words(
            self.labels_,
            self.image_embeddings_,
            texts,
            self.words,
            [list(self.words).index(w) for w in self.words_],
        )


class CLIP_label(CLIP_GPT):
    """`CLIP_GPT` over the true class names: an oracle row, as in the papers. `words` are the class names."""
