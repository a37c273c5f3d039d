"""Several keywords in one call: a clustering for each, and how much they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from mmclust.data.images import Images, Pictures
from mmclust.methods.base import ImageClusterer
from mmclust.methods.multisub import MultiSub
from mmclust.profiles.values import check_settings
from mmclust.words import ReferenceWords, prompt_template, reference_words

if TYPE_CHECKING:
    import pandas as pd

    from mmclust.encoders.base import Encoder


class Clusterings(dict):
    """Fitted estimators by keyword."""

    @property
    def labels(self) -> pd.DataFrame:
        """A data frame with a row per image and a column per keyword: the cluster, from 0."""
        import pandas as pd

        return pd.DataFrame({keyword: model.labels_ for keyword, model in self.items()})

    @property
    def names(self) -> pd.DataFrame:
        """A data frame like `labels`, with the name of the cluster instead of its number."""
        import pandas as pd

        names = {keyword: np.array(m.name_clusters(), dtype=object) for keyword, m in self.items()}
        return pd.DataFrame({keyword: names[keyword][m.labels_] for keyword, m in self.items()})

    @property
    def difference(self) -> pd.DataFrame:
        """1 - AMI of every two clusterings, a square data frame: 0 for equal clusterings, about 1
        for independent ones. (Not NMI, which is above 0 even for independent clusterings.)"""
        import pandas as pd
        from sklearn.metrics import adjusted_mutual_info_score

        table = pd.DataFrame(0.0, index=list(self), columns=list(self))
        for first, second in combinations(self, 2):
            ami = adjusted_mutual_info_score(self[first].labels_, self[second].labels_)
            table.loc[first, second] = 1 - ami
            table.loc[second, first] = 1 - ami
        return table


def cluster_by(
    images: Pictures, keywords: Sequence[str], encoder: Encoder, of: str = "photo",
    n_clusters: int | str | dict[str, Any] = "auto", method: type[ImageClusterer] = MultiSub,
    words: Mapping[str, Sequence[str]] | None = None, seed: int = 0, **params: Any,
) -> Clusterings:  # fmt: skip
    """One clustering of the images per keyword; image features are computed once.

    Args:
        images: `mm.Images` or a list of pictures.
        keywords: such as ["color", "species"]. of: the domain, for `mm.reference_words`.
        n_clusters: M for all keywords, or keyword -> M; M may be "auto".
        method: the estimator's class, one that takes reference words. params: its other parameters.
        words: keyword -> reference words that replace those of the lexicon.
        seed: `random_state` of the method, and the seed of words that are drawn at random.

    Returns:
        Keyword -> fitted estimator, with `labels`, `names` and `difference`. Raises ValueError
        before any fit for no keyword, a duplicate keyword, or one without words or n_clusters.
    """
    keywords = check_settings({"keywords": keywords})["keywords"]
    if len(set(keywords)) < len(keywords):
        raise ValueError(f"keywords must be without duplicates, not {keywords}")
    counts = n_clusters if isinstance(n_clusters, dict) else dict.fromkeys(keywords, n_clusters)
    models: dict[str, Any] = {}
    for keyword in keywords:
        if keyword not in counts:
            raise ValueError(f"n_clusters has no entry for keyword {keyword!r}: {counts}")
        if words and keyword in words:
            chosen = ReferenceWords(words[keyword], template=prompt_template(keyword, of=of))
        else:
            chosen = reference_words(keyword, of=of, seed=seed)
        options = {"n_clusters": counts[keyword], "random_state": seed} | params
        models[keyword] = method(encoder, chosen, **options)
        if "concepts" in models[keyword].get_params():
            others = [other for other in keywords if other != keyword]
            models[keyword].set_params(concepts=[keyword, *others])
    images = Images.of(images)
    for model in models.values():
        model.fit(images)
    return Clusterings(models)
