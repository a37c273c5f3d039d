"""Reference words: the values that a keyword may take, and the prompt they stand in."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path


class ReferenceWords(list):
    """A list of words that knows where it came from (`source`) and the prompt template made for them (`template`)."""

    def __init__(self, words, source: str = "given", template: str | None = None):
        super().__init__(words)
        self.source, self.template = source, template


@lru_cache(maxsize=1)
def _lexicon() -> dict:
    import yaml

    return yaml.safe_load((Path(__file__).parent / "lexicon.yaml").read_text(encoding="utf-8"))


def prompt_template(keyword: str, of: str) -> str:
    """The prompt for a keyword in a domain, as in "fruit with a color of *"; one in the same style where the lexicon has none."""
    entry = _lexicon().get(of, {}).get(keyword)
    return entry["template"] if entry else f"{of} with {'an' if keyword[:1] in 'aeiou' else 'a'} {keyword} of *"


def reference_words(keyword: str, of: str, n: int | None = None, seed: int = 0) -> ReferenceWords:
    """Words for a keyword ("color") in a domain ("fruit"), from the offline lexicon.

    Identity-like criteria have no natural words: `n` random nouns are drawn (Multi-Sub draws from WordNet), 40 by default.

    Raises:
        ValueError: for a domain or a keyword that the lexicon does not know; the message lists those it knows.
    """
    lexicon = _lexicon()
    domains = [d for d in lexicon if d != "nouns"]
    if of not in domains:
        raise ValueError(f"the lexicon has no domain {of!r}: {', '.join(domains)}. Give your own words as a list.")
    if keyword not in lexicon[of]:
        raise ValueError(f"the lexicon has no words for {keyword!r} of {of}: {', '.join(lexicon[of])}. Give your own words as a list.")
    entry = lexicon[of][keyword]
    if entry["words"] == "random":
        import numpy as np

        nouns = lexicon["nouns"]
        n = n or 40
        if n > len(nouns):
            raise ValueError(f"{n} random nouns are asked for, the lexicon has {len(nouns)}")
        drawn = np.random.default_rng(seed).permutation(len(nouns))[:n]
        return ReferenceWords([nouns[i] for i in drawn], "random nouns of the lexicon", entry["template"])
    words = entry["words"]
    if n is not None and n > len(words):
        raise ValueError(f"{n} words are asked for, the lexicon has {len(words)} for {keyword!r} of {of}")
    return ReferenceWords(words[:n], "lexicon", entry["template"])
