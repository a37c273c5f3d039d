"""Reference words: the values that a keyword may take, and the prompt template for them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
import yaml

from mmclust.profiles.values import brief, check_settings, hint, same_name
from mmclust.words import reviewed_answers

SOURCES = ("lexicon", "openai")
ANY_DOMAIN = "photo"  # pictures of which nothing else is known
ASKED_FOR = 20  # words that a language model is asked for, unless `n` is set
NOT_DOMAINS = ("nouns", "common")  # lists of the lexicon that belong to no domain
RANDOM_NOUNS = 40  # words of a criterion without natural words, unless `n` is set


class ReferenceWords(list[str]):
    """A list of words with their `source` (a sentence) and their prompt `template`.

    A text is split at commas; numbers, yes and no become texts. ValueError for other words, a
    duplicate, or none.
    """

    def __init__(
        self, words: Iterable[str], source: str = "a list", template: str | None = None
    ) -> None:
        super().__init__(check_settings({"reference words": words})["reference words"])
        check_different(self)
        self.source = source
        self.template = template


def check_different(words: Iterable[str]) -> None:
    """Raise ValueError for a duplicate reference word."""
    if duplicates := [word for word, count in Counter(words).items() if count > 1]:
        raise ValueError(f"duplicate reference word {duplicates[0]!r}: list each word once")


@lru_cache(maxsize=1)
def _lexicon() -> dict:
    return yaml.safe_load((Path(__file__).parent / "lexicon.yaml").read_text(encoding="utf-8"))


def _domains() -> dict:
    return {name: entry for name, entry in _lexicon().items() if name not in NOT_DOMAINS}


def prompt_template(keyword: str, of: str) -> str:
    """The lexicon's prompt, such as "fruit with a color of *"; without one, in this style. Of
    photos it is then CLIP's own "a photo of a *": no caption says "photo with a kind of"."""
    of, keyword = _domain(of), _known(keyword, of)
    if entry := _domains().get(of, {}).get(keyword):
        return entry["template"]
    if of == ANY_DOMAIN and keyword not in _lexicon()["common"]:
        return "a photo of a *"
    article = "an" if keyword[:1] in "aeiou" else "a"
    return f"{of} with {article} {keyword} of *"


def keywords(of: str) -> list[str]:
    """The keywords with words in the lexicon: those of the domain first, then the common ones."""
    return list(dict.fromkeys([*_domains().get(_domain(of), {}), *_lexicon()["common"]]))


def lexicon_lists() -> list[tuple[str, str]]:
    """All (keyword, domain) whose `reference_words` differ and are not random nouns."""
    pairs = [(keyword, domain) for domain, entry in _domains().items() for keyword in entry]
    pairs += [(keyword, ANY_DOMAIN) for keyword in keywords(ANY_DOMAIN)]
    different: dict[str, tuple[str, str]] = {}
    for keyword, domain in pairs:
        words, _ = _listed(keyword, domain)
        if words != "random":
            different.setdefault(str(words), (keyword, domain))
    return list(different.values())


def _domain(of: str) -> str:
    """The domain that is meant, up to case and plural; other domains may be named, too."""
    return same_name(of, _domains())


def _known(keyword: str, of: str) -> str:
    return same_name(check_settings({"keyword": keyword})["keyword"], keywords(of))


def reference_words(
    keyword: str, of: str, n: int | None = None, seed: int = 0, source: str = "lexicon",
    model: str | None = None,
) -> ReferenceWords:  # fmt: skip
    """Words for a keyword ("color") in a domain ("fruit"), from the lexicon or a language model.

    Criteria such as identity have no natural words: whatever the source, `n` random nouns (default
    40) are drawn for them from the lexicon, with `seed`. Multi-Sub draws from WordNet. A keyword
    may differ from the lexicon's in case, plural and British spelling ("Colours").

    Args:
        n: number of words; None takes all that the lexicon lists, or asks a model for 20.
        source: "lexicon", where the domain's own list comes before the common list; or "openai"
            ("openai:MODEL" names the model as well): its stored answer, or a new one.
        model: a model of the server in OPENAI_BASE_URL; None takes MMCLUST_WORDS_MODEL.

    Raises:
        ValueError: unknown keyword, domain or source, too few words, no model, an invalid answer.
        mmclust.words.language_model.AskError: the model gave no words.
        ImportError: `openai` or `inflect` is missing.
    """
    of, keyword = _domain(of), _known(keyword, of)
    n = check_settings({"n": n})["n"]
    source, _, model_in_source = source.partition(":")
    if source not in SOURCES:
        raise ValueError(f"unknown source of words {source!r}: use {' or '.join(SOURCES)}")
    template = prompt_template(keyword, of)
    words, origin = _listed(keyword, of)
    if words == "random":
        nouns = draw_nouns(n or RANDOM_NOUNS, seed)
        return ReferenceWords(nouns, f"random nouns of the lexicon, seed {seed}", template)
    if source == "openai":
        from mmclust.words.language_model import answered

        model = model or model_in_source
        record, origin = answered(keyword, of, n or ASKED_FOR, template, model)
        return ReferenceWords(record["words"], origin, record["template"])
    if words is None:
        raise ValueError(_no_words(keyword, of))
    if n is not None and n > len(words):
        raise ValueError(f"{n} words for {keyword!r} of {of}: the lexicon has {len(words)}")
    return ReferenceWords(words[:n], origin, template)


def _listed(keyword: str, of: str) -> tuple[list[str] | str | None, str]:
    """The lexicon's words, "random" or None for a keyword, and which list they are from."""
    if entry := _domains().get(of, {}).get(keyword):
        return entry["words"], "the lexicon"
    return _lexicon()["common"].get(keyword), f"the lexicon's common list for {keyword!r}"


def _no_words(keyword: str, of: str) -> str:
    known = keywords(of)
    problem = f"words for {brief(keyword)} of {of}{hint(keyword.lower(), known)}"
    if of not in _domains():
        domains = ", ".join(_domains())
        problem = f"domain {of!r}: {domains}; and {brief(keyword)} is not common"
    elif having := [other for other in _domains() if keyword in keywords(other)]:
        problem = f"words for {brief(keyword)} of {of}, but of the domain {' or '.join(having)}"
    remedy = "choose another, give words of your own, or ask a language model (source openai)"
    end = "" if problem.endswith("?") else "."
    return f"the lexicon has no {problem}{end} It has {', '.join(known[:8])}, ...: {remedy}."


def draw_nouns(n: int | None, seed: int) -> list[str]:
    """`n` random nouns of the lexicon, or all of them in random order; ValueError for too many."""
    nouns = _lexicon()["nouns"]
    if n is not None and n > len(nouns):
        raise ValueError(f"{n} random nouns: the lexicon has {len(nouns)}")
    return [nouns[i] for i in np.random.default_rng(seed).permutation(len(nouns))[:n]]


def where_from(source: str, questions: Iterable[tuple[str, str]]) -> list[str]:
    """Where the words for questions (domain, keyword) come from, as sentences. Nothing is asked."""
    origin, _, model = source.partition(":")
    if origin != "openai":
        return ["from the lexicon in the package"]
    model = model or os.environ.get("MMCLUST_WORDS_MODEL", "")
    stored: list[str] = []
    missing: list[str] = []
    for domain, keyword in questions:
        path = reviewed_answers.path_of(model, domain, keyword, ASKED_FOR)
        (stored if path.exists() else missing).append(f"{keyword} of {domain}")
    to_ask = f"{len(missing)} questions will be asked: {', '.join(sorted(missing)) or 'none'}"
    return [f"{len(stored)} answers of {model} are stored", to_ask]
