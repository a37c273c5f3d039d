"""Worse lists of reference words: some of the true names missing, wrong words in the list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmclust.words import ReferenceWords, draw_nouns


@dataclass(frozen=True)
class WordList:
    """How an experiment's reference words differ from the given ones.

    Args:
        kept: share (0 to 1) of the true class names in the list that stay in it; which ones depends
            on the experiment's seed.
        length: None keeps all wrong words, and adds none. A number of words: after the true names
            that are kept come wrong words up to this length, first those of the list, then random
            nouns of the lexicon; 0 means the true names alone.
    """

    kept: float = 1.0
    length: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.kept <= 1:
            raise ValueError(f"kept is a share from 0 to 1, not {self.kept!r}")
        if self.length is not None and self.length < 0:
            raise ValueError(f"length is a number of words, not {self.length!r}")

    def apply(
        self, words: ReferenceWords, true_names: Sequence[str], seed: int = 0
    ) -> ReferenceWords:
        """`words`, changed in this way. ValueError: there are not so many wrong words."""
        classes = {name.casefold() for name in true_names}
        present = [word for word in words if word.casefold() in classes]
        order = np.random.default_rng(seed).permutation(len(present))
        kept = {present[i] for i in order[: round(self.kept * len(present))]}
        if self.length is None:
            changed = [word for word in words if word in kept or word not in present]
        else:
            n_wrong = max(0, self.length - len(kept))
            possible = dict.fromkeys([*words, *draw_nouns(None, seed)])
            wrong = [word for word in possible if word.casefold() not in classes]
            if n_wrong > len(wrong):
                raise ValueError(f"{n_wrong} wrong words: there are only {len(wrong)}")
            changed = [word for word in present if word in kept] + wrong[:n_wrong]
        source = f"{words.source}; {len(kept)} of {len(present)} true names kept"
        return ReferenceWords(changed, source, words.template)
