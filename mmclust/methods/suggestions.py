"""Keywords by which pictures can be sorted: lists of words, scored without labels.

X-Cluster (CVPR 2026 Findings) asks large models for criteria and their values. Here nothing is
asked: only the lists of the lexicon, or those of the user, are compared, which takes seconds. What
no list has a word for is never suggested, nor is a criterion without natural words (identity).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import entr, logsumexp, softmax

from mmclust import storage
from mmclust.data.images import Images, Pictures
from mmclust.profiles.values import check_names, check_settings
from mmclust.words import ReferenceWords, draw_nouns, lexicon_lists, reference_words

if TYPE_CHECKING:
    import pandas as pd

    from mmclust.encoders.base import Encoder

# Chosen on the tuning worlds, photographs that are not reported, and noise, from the table of
# `python -m tools.tune_suggestions --tune`: of the rows that reduce the scores of similar keywords,
# the best one, and the largest power among equal ones.
FITS = 0.51  # the score from which on a keyword fits
SIMILAR = 0.25  # the power of 1 - NMI by which a score is reduced
MIN_ENTROPY = 0.1  # nats: below it, nearly all pictures take the same word
MAX_IMAGES = 2000  # more are sampled
MIN_SHARE = 0.02  # of the pictures: a word that fewer of them take is not listed

Lists = list[tuple[str, str, list[str]]]  # keyword, domain, words


def suggest_keywords(
    images: Pictures, encoder: Encoder,
    keywords: Iterable[str] | Mapping[str, Sequence[str]] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Keywords by which these pictures can be sorted, the best first; no labels are used.

    The score, from 0 to 1, is a product: the share of the uncertainty about the word that a look
    at the picture removes (mutual information of picture and word, divided by the entropy of the
    word), and the mean probability of the keyword's words where all nouns of the lexicon compete
    with them. If a keyword has several lists in the lexicon, the one with the highest score counts.
    A keyword comes later if it sorts the pictures like one that is listed before it: its place is
    that of score * (1 - NMI) ** `SIMILAR`. At most `MAX_IMAGES` pictures are used.

    Args:
        keywords: keywords of the lexicon, or keyword -> words of your own; None takes the lexicon.

    Returns a data frame: keyword; score; fits, whether the score is at least `FITS`; similar, the
    largest NMI with a keyword before it; names, the words that would name the clusters, the most
    frequent first; of, the domain for `mm.reference_words`, "" for your own words. Warns if no
    keyword fits, or the only one does not. Raises ValueError for no images or keywords, and for a
    keyword without words.
    """
    import pandas as pd

    images = Images.of(images)
    if not len(images):
        raise ValueError("no images to suggest keywords for")
    if len(images) > MAX_IMAGES:
        chosen = np.random.default_rng(0).choice(len(images), MAX_IMAGES, replace=False)
        images = images[np.sort(chosen)]
    lists = word_lists(keywords)
    best: dict[str, tuple] = {}  # keyword -> score, words (n,), row
    for (keyword, domain, words), cosines, rivals in similarities(images, encoder, lists):
        score = separation(encoder.logit_scale * cosines, encoder.logit_scale * rivals)
        if keyword not in best or score > best[keyword][0]:
            taken = cosines.argmax(1)
            names = ", ".join(words[k] for k in _frequent(taken))
            best[keyword] = (score, taken, {"names": names, "of": domain})
    scores = np.array([score for score, _, _ in best.values()])
    order, similar = rank(scores, [taken for _, taken, _ in best.values()])
    keys = list(best)
    rows = [
        {"keyword": keys[k], "score": scores[k], "fits": bool(scores[k] >= FITS), "similar": nmi}
        | best[keys[k]][2]
        for k, nmi in zip(order, similar)
    ]
    if scores.max() < FITS:
        number = f"{scores[order[0]]:.2f}; {FITS} is required"
        message = f"no keyword fits these pictures (the best, {keys[order[0]]!r}, has {number})"
        message = f"{message}: try your own"
        if len(keys) == 1:
            message = (
                f"the words of {keys[0]!r} do not fit these pictures (score {number}): do not "
            )
            message += "rely on these clusters"
        warnings.warn(message, stacklevel=2)
    return pd.DataFrame(rows)


def word_lists(keywords: Iterable[str] | Mapping[str, Sequence[str]] | None = None) -> Lists:
    """Keyword, domain and words of each list. Raises ValueError as `suggest_keywords`."""
    if isinstance(keywords, Mapping):
        lists = [(keyword, "", list(ReferenceWords(words))) for keyword, words in keywords.items()]
    else:
        pairs = lexicon_lists()
        if keywords is not None:
            keywords = check_settings({"keywords": keywords})["keywords"]
            check_names(keywords, {keyword for keyword, _ in pairs}, "the lexicon has no words for")
            pairs = [pair for pair in pairs if pair[0] in keywords]
        lists = [(keyword, of, list(reference_words(keyword, of=of))) for keyword, of in pairs]
    if not lists:
        raise ValueError("no keywords to compare: None takes those of the lexicon")
    return lists


def similarities(images: Pictures, encoder: Encoder, lists: Lists) -> Iterable[tuple]:
    """For each list: the list; the cosines (n, K) of the pictures with its words, alone without a
    template; and those with the nouns of the lexicon that are not in it (n, R)."""
    nouns = draw_nouns(None, seed=0)
    others = dict.fromkeys(word for *_, listed in lists for word in listed)
    listed_only = [word for word in others if word not in set(nouns)]
    embeddings = [_word_embeddings(encoder, words) for words in (nouns, listed_only) if words]
    cosines = encoder.encode_images(images) @ np.concatenate(embeddings).T
    column = {word: k for k, word in enumerate([*nouns, *listed_only])}
    for item in lists:
        rivals = [column[noun] for noun in nouns if noun not in item[2]]
        yield item, cosines[:, [column[word] for word in item[2]]], cosines[:, rivals]


def _word_embeddings(encoder: Encoder, words: list[str]) -> np.ndarray:
    key = storage.key_of("words", encoder.fingerprint, words)
    return storage.load_or_compute(key, lambda: encoder.encode_words(words))


def separation(logits: np.ndarray, rivals: np.ndarray) -> float:
    """The score of a keyword from 0 to 1, see `suggest_keywords`; logits (n, K), of rivals (n, R).

    With p the softmax over the K words: (H(mean p) - mean H(p)) / H(mean p), times the mean
    probability of these words in the softmax over all K + R.
    """
    p = softmax(logits.astype(np.float64), axis=1)
    entropy = entr(p.mean(0)).sum()
    information = entropy - entr(p).sum(1).mean()
    words = logsumexp(logits, axis=1)
    fit = np.exp(words - np.logaddexp(words, logsumexp(rivals, axis=1))).mean()
    return float(max(information, 0) / max(entropy, MIN_ENTROPY) * fit)


def rank(
    scores: np.ndarray, labels: Sequence[np.ndarray], power: float = SIMILAR
) -> tuple[list[int], list[float]]:
    """The positions of the scores, best first, and the largest NMI of each with one before it."""
    nmi = nmi_matrix(labels)
    left = list(range(len(scores)))
    similar = np.zeros(len(scores))
    order: list[int] = []
    while left:
        best = max(left, key=lambda k: scores[k] * (1 - similar[k]) ** power)
        order.append(best)
        left.remove(best)
        similar[left] = np.maximum(similar[left], nmi[best, left])
    return order, [float(similar[k]) for k in order]


def nmi_matrix(labels: Sequence[np.ndarray]) -> np.ndarray:
    """NMI of every two of m labelings, each (n,) from 0: (m, m). scikit-learn's function, called
    for every pair, takes seconds. Labelings with a single class have NMI 1 with each other."""
    one_hot = [np.eye(values.max() + 1)[values] for values in labels]
    starts = np.cumsum([0, *(block.shape[1] for block in one_hot)])[:-1]
    table = np.concatenate(one_hot, axis=1)
    joint = entr(table.T @ table / len(table))
    joint = np.add.reduceat(np.add.reduceat(joint, starts, axis=0), starts, axis=1)  # H(a, b)
    entropy = np.diag(joint)  # H(a, a) = H(a)
    mean = (entropy[:, None] + entropy) / 2
    information = (2 * mean - joint).clip(0)
    return np.divide(information, mean, out=np.ones_like(mean), where=mean > 1e-12).clip(max=1)


def _frequent(taken: np.ndarray) -> np.ndarray:
    """The words that at least `MIN_SHARE` of the pictures take, the most frequent first."""
    counts = np.bincount(taken)
    order = np.argsort(-counts, kind="stable")
    return order[counts[order] >= max(1, MIN_SHARE * len(taken))]
