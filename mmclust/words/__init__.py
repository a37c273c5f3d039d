"""Reference words: the values that a keyword may take, and the prompt they stand in."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmclust.words.language_model import Limits

SOURCES = ("lexicon", "openai")
ASKED_FOR = 20  # words that a language model is asked for, unless `n` says otherwise


class ReferenceWords(list[str]):
    """A list of words that knows where it came from (`source`) and the prompt template made for them (`template`)."""

    def __init__(
        self, words: Iterable[str], source: str = "given", template: str | None = None
    ) -> None:
        super().__init__(words)
        self.source, self.template = source, template


@lru_cache(maxsize=1)
def _lexicon() -> dict:
    import yaml

    return yaml.safe_load((Path(__file__).parent / "lexicon.yaml").read_text(encoding="utf-8"))


def _domains() -> dict:
    return {
        name: entries for name, entries in _lexicon().items() if name not in ("nouns", "common")
    }


def prompt_template(keyword: str, of: str) -> str:
    """The prompt for a keyword in a domain, as in "fruit with a color of *"; one in the same style where the lexicon has none."""
    entry = _domains().get(of, {}).get(keyword)
    return (
        entry["template"]
        if entry
        else f"{of} with {'an' if keyword[:1] in 'aeiou' else 'a'} {keyword} of *"
    )


def keywords(of: str) -> list[str]:
    """The keywords that the lexicon has words for in a domain: its own first, then those that are common to all."""
    return list(dict.fromkeys([*_domains().get(of, {}), *_lexicon()["common"]]))


def reference_words(
    keyword: str,
    of: str,
    n: int | None = None,
    seed: int = 0,
    source: str = "lexicon",
    model: str | None = None,
    limits: Limits | None = None,
) -> ReferenceWords:
    """Words for a keyword ("color") in a domain ("fruit"): from the offline lexicon, or from a language model. `source` of what is returned says which.

    Identity-like criteria have no natural words: `n` random nouns are drawn (Multi-Sub draws from WordNet), 40 by default, whatever the source.

    Args:
        n: how many; None takes the lexicon's whole list, or asks for 20.
        seed: of words that are drawn.
        source: "lexicon", whose list of the domain comes before its common one of the keyword; or "openai" ("openai:MODEL" names the model, too): the
            stored answer of `model` (see `mmclust.words.reviewed_answers`), and where there is none, it is asked (see `mmclust.words.language_model`) and its answer stored.
        model: of the server in OPENAI_BASE_URL; None takes the name in MMCLUST_WORDS_MODEL.
        limits: `mmclust.words.language_model.Limits` on time, requests and tokens; None takes those in MMCLUST_WORDS_LIMITS, or the defaults.

    Raises:
        ValueError: for a domain or a keyword that the lexicon does not know, with those it knows; more words than it has; an unknown source; no
            model; or a stored answer that is damaged. mmclust.words.language_model.AskError: there is no answer to be had. ImportError: without `openai`.
    """
    source, _, named = source.partition(":")
    model = model or named or None
    if source not in SOURCES:
        raise ValueError(f"words come from {' or '.join(SOURCES)}, not from {source!r}")
    lexicon, template, where = _lexicon(), prompt_template(keyword, of), "the lexicon"
    words = _domains().get(of, {}).get(keyword, {}).get("words")
    if words is None and keyword in lexicon["common"]:
        words, where = lexicon["common"][keyword], f"the lexicon's common list for {keyword!r}"
    if words == "random":
        return ReferenceWords(
            _nouns(n or 40, seed), f"random nouns of the lexicon, seed {seed}", template
        )
    if source == "openai":
        from mmclust.words.language_model import answered

        found, where = answered(keyword, of, n or ASKED_FOR, template, model, limits)
        return ReferenceWords(found["words"], where, found["template"])
    if words is None:
        ways = f'Common keywords: {", ".join(lexicon["common"])}. Give your own words as a list, or ask a language model with source="openai".'
        if of not in _domains():
            raise ValueError(
                f"the lexicon has no domain {of!r}: {', '.join(_domains())}; and {keyword!r} is not common. {ways}"
            )
        raise ValueError(
            f"the lexicon has no words for {keyword!r} of {of}{meant(keyword, of)}: {', '.join(_domains()[of])}. {ways}"
        )
    if n is not None and n > len(words):
        raise ValueError(
            f"{n} words are asked for, the lexicon has {len(words)} for {keyword!r} of {of}"
        )
    return ReferenceWords(words[:n], where, template)


def meant(keyword: str, of: str) -> str:
    """A question after the keyword that is spelled nearly so ("colour", "Suit"); empty where there is none."""
    near = get_close_matches(keyword.lower(), keywords(of), n=1, cutoff=0.8)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _nouns(n: int, seed: int) -> list[str]:
    import numpy as np

    nouns = _lexicon()["nouns"]
    if n > len(nouns):
        raise ValueError(f"{n} random nouns are asked for, the lexicon has {len(nouns)}")
    return [nouns[i] for i in np.random.default_rng(seed).permutation(len(nouns))[:n]]


def where_from(source: str, questions: Iterable[tuple[str, str]]) -> list[str]:
    """Where the words for questions (domain, keyword) come from, as sentences. Nothing is asked.

    Args:
        source: "lexicon", "openai" or "openai:MODEL".
    """
    import os

    from mmclust.words.reviewed_answers import path_of

    origin, _, model = source.partition(":")
    if origin != "openai":
        return ["from the lexicon in the package"]
    model = model or os.environ.get("MMCLUST_WORDS_MODEL", "")
    asked = sorted(questions)
    missing = [
        f"{keyword} of {domain}"
        for domain, keyword in asked
        if not path_of(model, domain, keyword, ASKED_FOR).exists()
    ]
    return [
        f"{len(asked) - len(missing)} answers of {model} are stored",
        f"{len(missing)} questions will be asked: {', '.join(sorted(missing)) or 'none'}",
    ]
