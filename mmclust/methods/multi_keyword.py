"""Several keywords in one call: a clustering for each, and how much they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mmclust.data.images import Images, Pictures
from mmclust.methods.base import ImageClusterer
from mmclust.methods.multisub import MultiSub
from mmclust.methods.parameters import check_words
from mmclust.metrics import score
from mmclust.plugins import filter_kwargs
from mmclust.profiles.values import check_settings
from mmclust.words import ReferenceWords, prompt_template, reference_words

if TYPE_CHECKING:
    from mmclust.encoders.base import Encoder


class Clusterings(dict):
    """Fitted estimators by keyword."""

    @property
    def labels(self) -> pd.DataFrame:
        """A data frame with a row per image and a column per keyword: the cluster, from 0."""
        return pd.DataFrame({keyword: model.labels_ for keyword, model in self.items()})

    @property
    def names(self) -> pd.DataFrame:
        """A data frame like `labels`, with the name of the cluster instead of its number."""
        names = {keyword: np.array(m.name_clusters(), dtype=object) for keyword, m in self.items()}
        return pd.DataFrame({keyword: names[keyword][m.labels_] for keyword, m in self.items()})

    @property
    def difference(self) -> pd.DataFrame:
        """1 - AMI of every two clusterings, a square data frame: 0 for equal clusterings, about 1
        for independent ones. (Not NMI, which is above 0 even for independent clusterings.)"""
        table = pd.DataFrame(0.0, index=list(self), columns=list(self))
        for first, second in combinations(self, 2):
            ami = score(self[first].labels_, self[second].labels_)["AMI"]
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
        keywords: such as ["color", "species"]. of: the domain, for `mm.reference_words`.
        n_clusters: M for all keywords, or keyword -> M; M may be "auto".
        method: the estimator's class, one that takes reference words. params: its other parameters;
            of `concepts`, each keyword's model takes its keyword first.
        words: keyword -> reference words that replace those of the lexicon.
        seed: `random_state` of the method, and the seed of words that are drawn at random.

    Returns keyword -> fitted estimator, with `labels`, `names` and `difference`. Raises ValueError
    before any fit for no keyword, a duplicate or unknown one, one without words or n_clusters, or a
    method that takes none.
    """
    keywords = check_settings({"keywords": keywords})["keywords"]
    if len(set(keywords)) < len(keywords):
        raise ValueError(f"keywords must be without duplicates, not {keywords}")
    takes = filter_kwargs(method, words=words, n_clusters=n_clusters, concepts=keywords)
    needs = ("words",) if n_clusters == "auto" else ("words", "n_clusters")
    if missing := [name for name in needs if name not in takes]:
        raise ValueError(f"cluster_by(method={method.__name__}) takes no {missing[0]}")
    counts = n_clusters if isinstance(n_clusters, dict) else dict.fromkeys(keywords, n_clusters)
    if other := [k for k in [*counts, *(words or {})] if k not in keywords]:
        raise ValueError(f"n_clusters or words are for {other[0]!r}, not one of {keywords}")
    models: dict[str, Any] = {}
    for keyword in keywords:
        if keyword not in counts:
            raise ValueError(f"n_clusters has no entry for keyword {keyword!r}: {counts}")
        if words and keyword in words:
            check_words(words[keyword])
            chosen = ReferenceWords(words[keyword], template=prompt_template(keyword, of=of))
        else:
            chosen = reference_words(keyword, of=of, seed=seed)
        options = filter_kwargs(method, n_clusters=counts[keyword], random_state=seed) | params
        if "concepts" in takes:
            concepts = params.get("concepts") or keywords
            if isinstance(concepts, (list, tuple)):  # else `fit` refuses them
                options["concepts"] = [keyword, *(c for c in concepts if c != keyword)]
        models[keyword] = method(encoder, chosen, **options)
    images = Images.of(images)
    for model in models.values():
        model.fit(images)
    return Clusterings(models)
