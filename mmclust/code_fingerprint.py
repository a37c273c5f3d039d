"""A hash of what code means: comments, docstrings, type-checking imports and layout do not count.

It is part of the key of every stored row. What counts: the modules of the given classes and
functions, of their base classes in this package, and every module of this package that one of them
imports, directly or indirectly, also inside functions. A module with `import mmclust` counts as if
it imported all modules in `COMPUTING`. Modules in `GROUND` never count as imports: they handle
files and settings, and compute no result.
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
COMPUTING = ("data", "words", "encoders", "methods", "metrics")


def code_fingerprint(with_imports: Iterable[object], alone: Iterable[object] = ()) -> str:
    """A hash (32 hex digits) of the code of classes and functions.

    The modules of `with_imports` count with their imports, those of `alone` without them.
    """
    pending = [file for item in with_imports for file in _files_of(item)]
    reached: set[Path] = set()
    while pending:
        file = pending.pop()
        if file not in reached:
            reached.add(file)
            pending += _parsed(file)[1]
    files = sorted(reached.union(*map(_files_of, alone)), key=_name)
    text = "".join(f"{_name(file)}\n{meaning(file)}\n" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def meaning(file: Path) -> str:
    """What a Python file means: its syntax tree as text, without comments and docstrings."""
    return _parsed(file)[0]


def _files_of(item: object) -> Iterator[Path]:
    """The file of a function; the files of a class and of its base classes in this package."""
    for definition in item.__mro__ if isinstance(item, type) else (item,):
        module = definition.__module__
        file = getattr(sys.modules.get(module), "__file__", None)
        if file and (module == item.__module__ or module.partition(".")[0] == PACKAGE.name):
            yield Path(file)


def _name(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix() if file.is_relative_to(PACKAGE) else file.name


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
    """The files behind an imported name "mmclust.a.b", where b is a module or defined in a."""
    package, *parts = name.split(".")
    if package != PACKAGE.name or (parts and parts[0] in GROUND):
        return []
    for length in range(len(parts), 0, -1):
        path = PACKAGE.joinpath(*parts[:length])
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return [file]
    patterns = [pattern for name in COMPUTING for pattern in (f"{name}.py", f"{name}/**/*.py")]
    return [file for pattern in patterns for file in PACKAGE.glob(pattern)]


class _Stripped(ast.NodeTransformer):
    """A syntax tree without docstrings and without `if TYPE_CHECKING:` blocks."""

    def visit(self, node: ast.AST) -> ast.AST:
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
        return super().visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.AST]:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return [self.visit(statement) for statement in node.orelse]
        return self.generic_visit(node)
