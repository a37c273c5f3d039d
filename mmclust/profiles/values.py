"""Values as people write them: what they mean, which are allowed, and which names are meant.

`settings.schema.json` (JSON Schema) has the type of every setting of a profile or a notebook.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import suppress
from datetime import date
from difflib import get_close_matches
from functools import lru_cache
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Any

LONGEST = 60  # characters of a value in a message
SIMILAR = 0.65  # of two names, from which one may be meant by the other: at 0.6, fruit by suits


@lru_cache(maxsize=1)
def schema() -> dict[str, Any]:
    """The content of `settings.schema.json`."""
    path = Path(__file__).with_name("settings.schema.json")
    return json.loads(path.read_text(encoding="utf-8"))


def type_of(setting: str) -> str:
    """The name of a setting's type, such as "texts"; "" for one without a named type."""
    return schema()["properties"].get(setting, {}).get("$ref", "").rpartition("/")[2]


def check_settings(values: Mapping[str, Any], notebook: str = "", place: str = "") -> dict:
    """The settings, converted to their types; one without a type may have any value.

    Raises ValueError, which begins with `place`, for a value that its type does not allow.
    """
    checked = dict(values)
    for name, value in values.items():
        key = f"{notebook}.{name}"  # of a type that differs from that of other notebooks
        key = key if key in schema()["properties"] else name
        checked[name] = _converted(value, type_of(key))
        if value is None and name in schema()["nullable"]:
            continue
        if error := _error_in({key: checked[name]}):
            setting = ".".join(map(str, error.absolute_path))
            allowed = error.schema["description"]
            raise ValueError(f"{place}{setting} must be {allowed}, not {brief(error.instance)}")
    return checked


@lru_cache(maxsize=1)
def _compiled_schema() -> Callable[[dict], dict]:
    import fastjsonschema

    return fastjsonschema.compile(schema())


def _error_in(values: dict) -> Any:
    """The error of jsonschema, or None. Only errors import it: that takes more than a second,
    because it reads the grammars of URLs when a library for them is installed."""
    with suppress(ValueError):
        _compiled_schema()(values)
        return None
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    return best_match(Draft202012Validator(schema()).iter_errors(values))


def _converted(value: Any, kind: str) -> Any:
    """A value in the form of its type where its meaning is certain, otherwise as it is."""
    if kind == "criteria" and isinstance(value, dict):
        return {_text(name): _converted(keywords, "texts") for name, keywords in value.items()}
    if kind in ("text", "phrase"):
        return _text(value)
    if kind != "texts":
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        return int(value) if whole else value  # of numpy
    if isinstance(value, str):
        value = [part for part in re.split(r"[,;\n]", value) if part.strip()]
    elif _text(value) is not value:  # a number, yes or no
        value = [value]
    elif isinstance(value, Iterable) and not isinstance(value, (Mapping, Set)):  # which have order
        value = list(value)
    return [_text(item) for item in value] if isinstance(value, list) else value


def _text(value: Any) -> Any:
    """A number, date or path as text; yes or no, which YAML reads as truth values, as well."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (Real, date, PathLike)) and value == value:  # not NaN
        return str(value)
    return str(value).strip() if isinstance(value, str) else value


def check_names(names: Iterable[str], known: Iterable[str], problem: str) -> None:
    """Raise ValueError for the first name that is not known; the message begins with `problem`."""
    known = list(known)
    for name in names:
        if name not in known:
            remedy = hint(name, known) or f": {', '.join(known)}"
            raise ValueError(f"{problem} {brief(name)}{remedy}")


def hint(name: object, known: Iterable[str]) -> str:
    """ ": did you mean 'color'?" if one of the known names is similar, otherwise ""."""
    similar = get_close_matches(str(name), list(known), n=1, cutoff=SIMILAR)
    return f": did you mean {similar[0]!r}?" if similar else ""


def brief(value: object) -> str:
    """A value for a message, cut if it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def same_name(keyword: str, known: Iterable[str]) -> str:
    """The known name that a keyword means, up to case, plural and British spelling; the keyword
    itself if there is none, or more than one."""
    same = [name for name in known if _stem(name) == _stem(keyword)]
    return same[0] if len(same) == 1 else keyword


def _stem(keyword: str) -> str:
    words = " ".join(re.split(r"[\W_]+", keyword.casefold())).strip()
    singular = re.sub("y$", "i", words.rstrip("es") or words)  # identity, identities
    return singular.replace("our", "or").replace("grey", "gray")
