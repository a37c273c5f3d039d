"""Stored answers of language models, for a person to review, and the check of their words.

An answer is one YAML file per model, domain, keyword and count, in the folder that `MMCLUST_WORDS`
names (default: `words` in the cache). A person edits its words and sets `reviewed: true`. What is
stored is never asked for again and never overwritten.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import yaml

from mmclust import storage
from mmclust.profiles.values import check_settings

HEADER = (
    "# Reference words that a language model gave. Edit `words` as you see fit, then set\n"
    "# `reviewed: true`; all else says where they are from.\n"
)
FILE_KEYS = ("model", "domain", "keyword", "count")  # the file's name is made of these
MIN_WORDS = 2  # in an answer
MAX_CHARACTERS = 30  # of one reference word
MAX_PARTS = 3  # words in one reference word
MAX_DROPPED = 20  # dropped words that are listed, of one answer


def folder() -> Path:
    """Where answers are stored: `MMCLUST_WORDS`, by default `words` in the cache."""
    return Path(os.environ.get("MMCLUST_WORDS") or storage.cache_dir() / "words").expanduser()


def path_of(model: str, domain: str, keyword: str, count: int) -> Path:
    """The file of an answer; different answers have different files."""
    escaped = [quote(str(value), safe=" ") for value in (model, domain, keyword, count)]
    return folder() / f"{','.join(escaped)}.yaml"


def read(path: Path) -> dict | None:
    """A stored answer, or None without one; ValueError if the file is invalid."""
    try:
        record = yaml.safe_load(path.read_bytes())
        _check(record, path)
        return record
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, yaml.YAMLError) as error:
        fault = " ".join(str(error).split())[:300]
        remedy = "correct it, or delete it to ask again"
        raise ValueError(f"{path} is invalid ({fault}): {remedy}") from error


def _check(record: Any, path: Path) -> None:
    """Raise ValueError for what is wrong with the content of an answer's file."""
    if not isinstance(record, dict):
        raise ValueError("it contains no answer")
    if missing := [name for name in (*FILE_KEYS, "template", "words") if name not in record]:
        raise ValueError(f"{missing[0]!r} is missing")
    name = path_of(*(record[key] for key in FILE_KEYS)).name
    if name != path.name:
        raise ValueError(f"it is the answer of {name}")
    check_settings({"reference words": record["words"]})
    if str(record["template"]).count("*") != 1:
        raise ValueError(f"'template' must contain one *, not {record['template']!r}")


def write_once(path: Path, record: dict) -> dict:
    """Store an answer; if another process was faster, return that one's."""
    text = HEADER + yaml.safe_dump(record, sort_keys=False, width=120)
    temporary = path.with_name(f".{uuid4().hex}.tmp")
    storage.write_atomically(temporary, text.encode())
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return read(path) or record


def clean(
    values: Iterable, n: int, keyword: str, domain: str, named: Iterable[str] = ()
) -> tuple[list[str], list[str]]:
    """The valid words of an answer, in lower case, and what was dropped.

    Valid are short words of ASCII letters, without duplicates, a plural beside its singular, the
    keyword and the domain. Whether a word fits the keyword is for the reviewer to judge. `n` words
    are wanted, those in `named` included, which are valid already.
    """
    named = list(named)
    words: list[str] = []
    dropped: list[str] = []
    for value in values:
        if len(named) + len(words) >= n:
            break
        word = _normalize(value) if isinstance(value, str) else ""
        is_short = len(word) <= MAX_CHARACTERS and len(word.split()) <= MAX_PARTS
        is_word = is_short and re.fullmatch(r"[a-z0-9][a-z0-9 '-]*", word)
        others = [keyword.lower(), domain.lower(), *named, *words]
        if not is_word or any(same(word, other) for other in others):
            dropped.append(str(value)[:40])
        else:
            words.append(word)
    return words, dropped[:MAX_DROPPED]


def _normalize(text: str) -> str:
    """A value in lower case, with single spaces, without numbering, quotes and the like."""
    text = unicodedata.normalize("NFKC", text[:1000]).replace("’", "'").lower()
    unnumbered = re.sub(r"^\s*(?:[-*•]|\d+[.)])\s+", "", text)
    return " ".join(unnumbered.split()).strip(" .,;:!?\"'`*_")


def same(one: str, other: str) -> bool:
    """Whether two words are equal, or singular and plural of each other."""
    return one == other or _plural(one) == other or _plural(other) == one


@lru_cache(maxsize=10_000)
def _plural(word: str) -> str:
    return _english().plural_noun(word)


@lru_cache(maxsize=1)
def _english() -> Any:
    import inflect

    return inflect.engine()
