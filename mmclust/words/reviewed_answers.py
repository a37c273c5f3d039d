"""The answers of language models: what is taken of them, and the files that keep them for a person to review.

One YAML file per model, domain, keyword and count, in the folder that `MMCLUST_WORDS` names (by default `words` in the cache). Whoever edits its words
sets `reviewed: true`; a file is never asked for again, nor written over.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import yaml

from mmclust import storage

HEADER = "# Reference words that a language model gave. Edit `words` as you see fit, then set `reviewed: true`; all else says where they come from.\n"
NAMES = ("model", "domain", "keyword", "count")
LONGEST, MOST_WORDS = 30, 3  # characters and words of one reference word
TOLD = 20  # dropped words that are listed, of one answer
IRREGULAR = {
    "children": "child",
    "people": "person",
    "mice": "mouse",
    "geese": "goose",
    "feet": "foot",
    "teeth": "tooth",
}


def folder() -> Path:
    """Where answers are kept: `MMCLUST_WORDS`, by default `words` in the cache."""
    return Path(os.environ.get("MMCLUST_WORDS") or storage.cache_dir() / "words").expanduser()


def path_of(model: str, domain: str, keyword: str, count: int) -> Path:
    """The file of an answer: no two of them share one."""
    return (
        folder()
        / f"{','.join(quote(str(part), safe=' ') for part in (model, domain, keyword, count))}.yaml"
    )


def read(path: Path) -> dict | None:
    """A stored answer, or None where there is none.

    Raises:
        ValueError: the file is damaged, was edited into something else, or is another's answer; it is never overwritten.
    """
    try:
        record = yaml.safe_load(path.read_bytes())
        if fault := _fault(record, path):
            raise ValueError(fault)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{path} can't be used ({why[:300]}): mend it, or remove it to ask again; somebody may have edited it"
        ) from None
    return record


def _fault(record: object, path: Path) -> str:
    if not isinstance(record, dict):
        return "it holds no answer"
    if missing := [name for name in (*NAMES, "template", "words") if name not in record]:
        return f"it lacks {missing[0]!r}"
    if (own := path_of(*(record[name] for name in NAMES)).name) != path.name:
        return f"it is the answer of {own}"
    words = record["words"]
    if not isinstance(words, list) or len(words) < 2:
        return "its words are no list of at least two"
    if wrong := [word for word in words if not isinstance(word, str) or not word.strip()]:
        return f"its word {wrong[0]!r} is no text: put it in quotes"
    if len({word.strip().lower() for word in words}) < len(words):
        return "a word stands twice"
    return (
        ""
        if str(record["template"]).count("*") == 1
        else f"its template {record['template']!r} has no single *"
    )


def keep(path: Path, record: dict) -> None:
    """Write an answer whole, or not at all where there is one by now: two processes that ask at the same time end with the same words."""
    text = yaml.safe_dump(record, sort_keys=False, allow_unicode=True, width=120)
    if (
        yaml.safe_load(text) != record
    ):  # some control characters are read back as others, unless they are escaped
        text = yaml.safe_dump(record, sort_keys=False, width=120)
    mine = path.with_name(f".{uuid4().hex}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        mine.write_bytes((HEADER + text).encode())
        try:
            os.link(mine, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            os.replace(mine, path)
    finally:
        mine.unlink(missing_ok=True)


def stored() -> dict[Path, dict | str]:
    """All stored answers by file; in place of one that can't be used, why."""
    found: dict[Path, dict | str] = {}
    for path in sorted(folder().glob("*.yaml")):
        try:
            found[path] = read(path) or "it is gone"
        except ValueError as error:
            found[path] = str(error)
    return found


def clean(
    values: Iterable, n: int, keyword: str, domain: str, had: Iterable[str] = ()
) -> tuple[list[str], dict[str, str]]:
    """What can be used of an answer: at most `n` words, apart from those that it `had`; and what was dropped, with reasons.

    Words come out in lower case, of ASCII letters, digits, hyphens and apostrophes, at most 3 words of 30 characters in all, none twice and
    none beside its own plural. That a word is English, and a value of the keyword, is for the reviewer to see: only the script is checked.
    """
    values, had = list(values), list(had)
    kept: list[str] = []
    dropped: dict[str, str] = {}
    for at, value in enumerate(values):
        if len(had) + len(kept) >= n:
            return kept, dropped | {"...": f"{len(values) - at} more than the {n} asked for"}
        word = _plain(value) if isinstance(value, str) else ""
        if not isinstance(value, str):
            reason = "no text"
        elif not word:
            reason = "empty"
        elif len(word) > LONGEST or len(word.split()) > MOST_WORDS:
            reason = "too long"
        elif not re.fullmatch(r"[a-z0-9][a-z0-9 '-]*", word):
            reason = "not in English letters"
        elif same(word, keyword.lower()) or same(word, domain.lower()):
            reason = "the keyword or the domain itself"
        elif twin := next((other for other in (*had, *kept) if same(word, other)), None):
            reason = f"as {twin}"
        else:
            kept.append(word)
            continue
        if len(dropped) < TOLD:
            dropped[_shown(value)] = reason
    return kept, dropped


def _plain(text: str) -> str:
    """A value without numbering, quotes and the like; in lower case, blanks as one space."""
    text = unicodedata.normalize("NFKC", text[:1000]).replace("’", "'").lower()
    return " ".join(re.sub(r"^\s*(?:[-*•]|\d+[.)])\s+", "", text).split()).strip(" .,;:!?\"'`*_")


def _shown(value: object) -> str:
    text = str(value)[:1000].encode("utf-8", "replace").decode()
    return text if len(text) <= 40 else f"{text[:40]}..."


def same(one: str, other: str) -> bool:
    """Whether two words are one: equal, or singular and plural by the common rules of English."""
    return one == other or one in _singulars(other) or other in _singulars(one)


def _singulars(word: str) -> set[str]:
    found = set()
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 2:
        found.add(word[:-1])
        if word.endswith(("ses", "xes", "zes", "ches", "shes", "oes")):
            found.add(word[:-2])
        if word.endswith("ies"):
            found.add(word[:-3] + "y")
        if word.endswith("ves"):
            found |= {word[:-3] + "f", word[:-3] + "fe"}
    if word.endswith("men"):
        found.add(word[:-3] + "man")
    head, space, last = word.rpartition(" ")
    if last in IRREGULAR:
        found.add(head + space + IRREGULAR[last])
    return found
