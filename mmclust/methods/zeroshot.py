"""Zero-shot rows: each image takes the word whose prompt is nearest."""

from __future__ import annotations

import numpy as np

from mmclust.methods.base import ImageClusterer


class CLIP_GPT(ImageClusterer):
    """argmax_k cos(v_i, t(z_k)) over the language model's words (the papers' CLIP_GPT row).

    The number of clusters is the number of words that some image takes; `labels_` count them from 0, `words_` names them.

    Args:
        encoder: from `mm.load_encoder`.
        words: K reference words.
        template: prompt with one `*`; None takes the bare words.
    """

    def __init__(self, encoder, words, template: str | None = None):
        self.encoder, self.words, self.template = encoder, words, template

    def _fit(self, images, y) -> None:
        self.similarity_ = self.image_embeddings_ @ self.encoder.encode_words(self.words, self.template).T
        used, self.labels_ = np.unique(self.similarity_.argmax(1), return_inverse=True)
        self.labels_ = self.labels_.astype(np.int64)
        self.words_ = [self.words[k] for k in used]
        self.n_clusters_ = len(used)

    def name_clusters(self) -> list[str]:
        """The word of each cluster."""
        return list(self.words_)


class CLIP_label(CLIP_GPT):
    """`CLIP_GPT` over the true class names: an oracle row, as in the papers. `words` are the class names."""
