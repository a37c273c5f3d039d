"""Methods, encoders and data sets of your own, by name: "module:thing", as entry points of Python packages are written."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_source: dict[str, str] = {}  # of each module as it was imported


def is_plugin_name(name: object) -> bool:
    """Whether a name has the form "module:thing"."""
    return isinstance(name, str) and NAME.fullmatch(name) is not None


def resolve(name: str) -> Any:
    """What "module:thing" names. A module whose file has changed since is imported again.

    Raises:
        ValueError: no such module is on Python's path, it holds no such thing, or it is a notebook, which workers can't import.
    """
    return getattr(_module(name), name.partition(":")[2])


def source(name: str) -> str:
    """The text of the module: what is computed with it is computed again when it changes."""
    _module(name)
    return _source[name.partition(":")[0]]


def filter_kwargs(function: Callable, **offered: Any) -> dict[str, Any]:
    """Those of the keyword arguments that a function takes."""
    known = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in known):
        return offered
    return {k: v for k, v in offered.items() if k in {p.name for p in known}}


def _module(name: str) -> ModuleType:
    module, _, thing = name.partition(":")
    if module == "__main__":
        raise ValueError(f"{name!r}: write it into a file, which other processes can import")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in (module, module.partition(".")[0]):
            raise  # something that the module itself imports
        raise ValueError(
            f"{name!r}: no module {module!r} in {Path.cwd()} or elsewhere on Python's path (PYTHONPATH)"
        ) from error
    text = Path(cast(str, inspect.getsourcefile(found))).read_text(encoding="utf-8")
    if _source.setdefault(module, text) != text:
        found, _source[module] = importlib.reload(found), text
    if not hasattr(found, thing):
        raise ValueError(f"{name!r}: {found.__file__} has no {thing!r}")
    return found


def names_in(value: Any) -> list[str]:
    """All such names among the strings of nested dictionaries and lists. The sources of words, "openai:MODEL", look alike and are none."""
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list):
        return sorted({name for part in value for name in names_in(part)})
    return [value] if is_plugin_name(value) and not value.startswith("openai:") else []


def add_search_path(folder: str) -> None:
    """Let this process and those that it starts import from a folder, after everything else."""
    if folder not in sys.path:
        sys.path.append(folder)
    os.environ["PYTHONPATH"] = os.pathsep.join(
        dict.fromkeys([*filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), folder])
    )
