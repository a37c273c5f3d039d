"""A user's own methods, encoders and data sets, named "module:object" as in entry points."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil

NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_sources: dict[str, str] = {}  # module -> its text when it was last imported here


def is_plugin_name(name: object) -> bool:
    """Whether a name has the form "module:object"."""
    return isinstance(name, str) and NAME.fullmatch(name) is not None


def resolve(name: str) -> Any:
    """The object that "module:object" names. The module is imported again if its file has changed.

    ValueError: the module is missing, lacks the object, or is `__main__` (a notebook).
    """
    return getattr(_module(name), name.partition(":")[2])


def source(name: str) -> str:
    """The module's source text; it is part of the key of what is computed with the plug-in."""
    _module(name)
    return _sources[name.partition(":")[0]]


def filter_kwargs(function: Callable, **options: Any) -> dict[str, Any]:
    """The keyword arguments that a function accepts, from `options`."""
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return options
    return {name: value for name, value in options.items() if name in parameters}


def _module(name: str) -> ModuleType:
    module_name, _, attribute = name.partition(":")
    if module_name == "__main__":
        raise ValueError(f"{name!r}: write it into a file, which other processes can import")
    before = sys.modules.get(module_name)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name not in (module_name, module_name.partition(".")[0]):
            raise  # the module exists, and imports something that is missing
        places = f"{Path.cwd()} or elsewhere on Python's path (PYTHONPATH)"
        raise ValueError(f"{name!r}: no module {module_name!r} in {places}") from error
    file = Path(getattr(module, "__file__", None) or "")
    if file.suffix != ".py":
        raise ValueError(f"{name!r}: {module_name} is not written in Python: wrap it in a module")
    text = file.read_text(encoding="utf-8")
    # it may have been imported elsewhere before its file was changed
    unknown = module is before and file.stat().st_mtime > psutil.Process().create_time()
    if _sources.get(module_name, "" if unknown else text) != text:
        module = importlib.reload(module)
    _sources[module_name] = text
    if not hasattr(module, attribute):
        raise ValueError(f"{name!r}: {module.__file__} has no {attribute!r}")
    return module


def names_in(value: Any) -> list[str]:
    """All plug-in names in nested dictionaries and lists; "openai:MODEL", for words, is none."""
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list):
        return sorted({name for item in value for name in names_in(item)})
    return [value] if is_plugin_name(value) and not value.startswith("openai:") else []


def add_search_path(folder: str) -> None:
    """Let this process import from a folder, searched last; and the kernels of `pipeline`."""
    if folder not in sys.path:
        sys.path.append(folder)
