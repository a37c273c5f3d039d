"""A hash of what code means. Comments, docstrings, type-checking imports and formatting do not change it.

It is part of the key of every stored row: a changed method never serves old rows, and tidying
costs none. Only the modules count that a method or an encoder really imports, directly or not.
The ground (`GROUND`) is left out: it moves bytes and settings, and computes no result.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

PACKAGE = Path(__file__).parent
GROUND = ("storage", "plugins", "profiles", "threads", "code_fingerprint")
COMPUTING = (
    "data",
    "words",
    "encoders",
    "methods",
    "metrics",
)  # what the facade `mmclust` may give


def code_fingerprint(with_imports: Iterable[object], alone: Iterable[object] = ()) -> str:
    """A hash (32 hex digits) of the code of classes and functions.

    Args:
        with_imports: classes or functions; their modules count, those of their base classes, and
            all modules of this package that these import.
        alone: classes or functions whose own module counts, without what it imports.
    """
    pending = [file for thing in with_imports for file in _files_of(thing)]
    files = {file for thing in alone for file in _files_of(thing)}
    reached: set[Path] = set()
    while pending:
        file = pending.pop()
        if file not in reached:
            reached.add(file)
            pending += _parsed(file)[1]
    digest = hashlib.sha256()
    for file in sorted(files | reached, key=_name):
        digest.update(f"{_name(file)}\n{_parsed(file)[0]}\n".encode())
    return digest.hexdigest()[:32]


def meaning(file: Path) -> str:
    """The syntax tree of a Python file as text, without comments, docstrings and formatting."""
    return _parsed(file)[0]


def _files_of(thing: object) -> Iterator[Path]:
    """The files of a class and its bases, or of a function: of this package or of a plug-in."""
    kinds = thing.__mro__ if isinstance(thing, type) else (thing,)
    own = getattr(thing, "__module__", "")
    for kind in kinds:
        module = kind.__module__
        file = getattr(sys.modules.get(module), "__file__", None)
        if file and (module == own or module.partition(".")[0] == PACKAGE.name):
            yield Path(file)


def _name(file: Path) -> str:
    inside = file.is_relative_to(PACKAGE)
    return file.relative_to(PACKAGE).as_posix() if inside else file.name


def _parsed(file: Path) -> tuple[str, list[Path]]:
    stat = file.stat()
    return _parse(file, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1024)
def _parse(file: Path, modified: int, size: int) -> tuple[str, list[Path]]:
    """What a file means, and the files of this package that it imports."""
    tree = _Stripped().visit(ast.parse(file.read_text(encoding="utf-8")))
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    imported = [path for name in names for path in _files_of_name(name)]
    return ast.dump(tree), imported


def _files_of_name(name: str) -> list[Path]:
    """The files behind an imported name "mmclust.a.b", where b is a module or something in a."""
    package, *parts = name.split(".")
    if package != PACKAGE.name or (parts and parts[0] in GROUND):
        return []
    for length in range(len(parts), 0, -1):
        path = PACKAGE.joinpath(*parts[:length])
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return [file]
    return [file for room in COMPUTING for file in _python_files(PACKAGE / room)]


def _python_files(path: Path) -> list[Path]:
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


class _Stripped(ast.NodeTransformer):
    """A syntax tree without docstrings and without `if TYPE_CHECKING:` blocks."""

    def visit(self, node: ast.AST) -> ast.AST:
        body = getattr(node, "body", None)
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            node.body = body[1:] if body else []
        self.generic_visit(node)
        return node

    def visit_If(self, node: ast.If) -> ast.AST | None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return None
        return self.generic_visit(node)
