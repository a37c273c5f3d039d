"""Several keywords in one call: one clustering each, and how different they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from mmclust.data.images import Images, Pictures
from mmclust.methods.base import ImageClusterer
from mmclust.methods.multisub import MultiSub
from mmclust.words import ReferenceWords, prompt_template, reference_words

if TYPE_CHECKING:
    import pandas as pd

    from mmclust.encoders.base import Encoder


class Clusterings(dict):
    """Fitted estimators by keyword. `labels` puts their clusterings side by side, `difference` compares them."""

    @property
    def labels(self) -> pd.DataFrame:
        """A frame with a row per image and a column per keyword: the cluster, from 0."""
        import pandas as pd

        return pd.DataFrame({keyword: model.labels_ for keyword, model in self.items()})

    @property
    def names(self) -> pd.DataFrame:
        """The same with the clusters' names."""
        import pandas as pd

        return pd.DataFrame(
            {
                keyword: np.array(model.name_clusters(), dtype=object)[model.labels_]
                for keyword, model in self.items()
            }
        )

    @property
    def difference(self) -> pd.DataFrame:
        """1 - AMI of every two clusterings, a square frame: 0 where two are the same, about 1 where they have nothing in common.

        AMI and not NMI: two clusterings by chance would share some NMI, the more the finer they are.
        """
        import pandas as pd
        from sklearn.metrics import adjusted_mutual_info_score

        table = pd.DataFrame(0.0, index=list(self), columns=list(self))
        for a, b in combinations(self, 2):
            table.loc[a, b] = table.loc[b, a] = 1 - adjusted_mutual_info_score(
                self[a].labels_, self[b].labels_
            )
        return table


def cluster_by(
    images: Pictures, keywords: Sequence[str], encoder: Encoder, of: str = "photo", n_clusters: int | str | dict[str, Any] = "auto",
    method: type[ImageClusterer] = MultiSub, words: Mapping[str, Sequence[str]] | None = None, seed: int = 0, **params: Any,
) -> Clusterings:  # fmt: skip
    """One clustering of the same images per keyword; their features are computed once.

    Args:
        images: `mm.Images` or a list of pictures.
        keywords: such as ["color", "species"].
        encoder: from `mm.load_encoder`.
        of: the domain, for `mm.reference_words`.
        n_clusters: M for all, keyword -> M, or "auto".
        method: the estimator's class. params: its other parameters.
        words: keyword -> reference words, in place of the lexicon's.
        seed: of words that are drawn, and of the methods.

    Returns:
        Keyword -> fitted estimator, with `labels`, `names` and `difference`.

    Raises:
        ValueError: for no keyword, one that stands twice, or one without words; before any work.
    """
    keywords = [keywords] if isinstance(keywords, str) else list(keywords)
    if not keywords or len(set(keywords)) < len(keywords):
        raise ValueError(f"at least one keyword, and none twice, not {keywords}")
    given, counts = (
        words or {},
        n_clusters if isinstance(n_clusters, dict) else dict.fromkeys(keywords, n_clusters),
    )
    if missing := [k for k in keywords if k not in counts]:
        raise ValueError(f"n_clusters says nothing about {missing[0]!r}: {counts}")
    models: dict[str, Any] = {}
    for k in keywords:
        found = (
            ReferenceWords(given[k], template=prompt_template(k, of=of))
            if k in given
            else reference_words(k, of=of, seed=seed)
        )
        models[k] = method(
            encoder,
            template=found.template,
            words=list(found),
            n_clusters=counts[k],
            random_state=seed,
            **params,
        )
        if "concepts" in models[k].get_params():
            models[k].set_params(concepts=[k, *(other for other in keywords if other != k)])
    images = Images.of(images)
    for model in models.values():
        model.fit(images)
    return Clusterings(models)
