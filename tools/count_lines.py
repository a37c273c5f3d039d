"""The size of the package: `python -m tools.count_lines`.

Per folder of `mmclust/`: files, lines, code, documentation and the longest module; the functions
and modules above the limits; the lines of the reading path and of the services around it.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import defaultdict
from pathlib import Path

import pandas as pd

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
PACKAGE = Path(__file__).parents[1] / "mmclust"
MODULE_LIMIT, FUNCTION_LIMIT, PACKAGE_LIMIT, PATH_LIMIT = 400, 60, 12_000, 4_700
# The thin library: what one reads to understand the example of the README.
READING_PATH = (
    "data/__init__.py", "data/images.py", "data/folder.py",
    "words/__init__.py",
    "encoders/__init__.py", "encoders/base.py", "encoders/open_clip.py", "encoders/prompt.py",
    "metrics.py",
    "methods/__init__.py", "methods/base.py", "methods/parameters.py", "methods/training.py",
    "methods/pair_losses.py", "methods/dproxy_terms.py", "methods/cluster_names.py",
    "methods/multimap.py", "methods/multisub.py", "methods/multidproxy.py",
    "methods/zero_shot.py", "methods/baselines.py",
    "experiments/experiment.py", "experiments/workbench.py", "experiments/run.py",
    "experiments/ablations.py", "profiles/__init__.py",
)  # fmt: skip


def count(path: Path) -> dict[str, int]:
    """Numbers of lines of a Python file: all, code, documentation (docstrings and comments)."""
    source = path.read_text(encoding="utf-8")
    documentation: set[int] = set()
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        lines = range(token.start[0], token.end[0] + 1)
        if token.type == tokenize.COMMENT:
            documentation.update(lines)
        elif token.type not in (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT):
            code.update(lines)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            docstring = range(first.lineno, (first.end_lineno or first.lineno) + 1)
            documentation.update(docstring)
            code.difference_update(docstring)
    documentation -= code
    total = len(source.splitlines())
    return {"lines": total, "code": len(code), "documentation": len(documentation)}


def long_functions(path: Path) -> list[tuple[str, int]]:
    """Functions longer than `FUNCTION_LIMIT` lines, their docstrings included."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [
        n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    lengths = [(f.name, (f.end_lineno or 0) - f.lineno + 1) for f in functions]
    return [(name, length) for name, length in lengths if length > FUNCTION_LIMIT]


def main() -> int:
    files = {path: count(path) for path in sorted(PACKAGE.rglob("*.py"))}
    folders = defaultdict(list)
    for path in files:
        inside = path.relative_to(PACKAGE)
        folders[f"{inside.parts[0]}/" if len(inside.parts) > 1 else "(top)"].append(path)
    rows = []
    for folder, paths in folders.items():
        longest = max(paths, key=lambda path: files[path]["lines"])
        sums = {
            key: sum(files[p][key] for p in paths) for key in ("lines", "code", "documentation")
        }
        longest_name = f"{longest.name} {files[longest]['lines']}"
        rows.append({"folder": folder, "files": len(paths), **sums, "longest module": longest_name})
    table = pd.DataFrame(rows)
    total = table[["files", "lines", "code", "documentation"]].sum()
    reading = sum(
        files[PACKAGE / name]["lines"] for name in READING_PATH if (PACKAGE / name).exists()
    )
    modules = [(p, c["lines"]) for p, c in files.items() if c["lines"] > MODULE_LIMIT]
    functions = [(p, *f) for p in files for f in long_functions(p)]
    print(table.to_markdown(index=False))
    print(f"\n{total['files']} files, {total['lines']:,} lines: {total['code']:,} of code, "
          f"{total['documentation']:,} of documentation")  # fmt: skip
    print(f"reading path: {reading:,} lines; services around it: {total['lines'] - reading:,}")
    for path, lines in modules:
        print(f"module above {MODULE_LIMIT} lines: {path.relative_to(PACKAGE)} {lines}")
    for path, name, lines in functions:
        print(f"function above {FUNCTION_LIMIT} lines: {path.relative_to(PACKAGE)} {name} {lines}")
    return int(bool(modules or functions or total["lines"] > PACKAGE_LIMIT or reading > PATH_LIMIT))


if __name__ == "__main__":
    sys.exit(main())
