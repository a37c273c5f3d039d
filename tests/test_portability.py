"""What Windows and macOS need of the code, as far as it can be tested here; files for GitHub."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import mmclust as mm

ROOT = Path(__file__).parents[1]
SOURCES = [*sorted((ROOT / "mmclust").rglob("*.py")), ROOT / "run_all.py"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# Missing on Windows, as modules, functions or signals. What has a substitute is asked for with
# `hasattr` in the same function.
POSIX_MODULES = {"fcntl", "grp", "pwd", "resource", "termios", "pty", "tty", "syslog"}
POSIX_NAMES = {
    "fork", "forkpty", "geteuid", "getuid", "getpgid", "killpg", "setsid", "setpgrp", "mkfifo",
    "nice", "sched_getaffinity", "sched_setaffinity", "SIGKILL", "SIGHUP", "SIGALRM", "SIGUSR1",
    "preexec_fn", "start_new_session",
}  # fmt: skip


def posix_only(source: str) -> list[str]:
    """Uses of what Windows lacks, outside functions that look for it first."""
    tree = ast.parse(source)
    problems = []
    for node in ast.walk(tree):
        names = [alias.name for alias in getattr(node, "names", []) if hasattr(alias, "name")]
        problems += [name for name in names if name in POSIX_MODULES]
    functions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.Lambda))]
    guarded = {
        text.value
        for function in functions
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "hasattr"
        for text in call.args[1:]
        if isinstance(text, ast.Constant)
    }
    for node in ast.walk(tree):
        for name in (getattr(node, "attr", None), getattr(node, "arg", None)):
            if name in POSIX_NAMES - guarded:
                problems.append(name)
    return problems


def without_encoding(source: str) -> list[str]:
    """Text files that are read or written in the encoding of the system (cp1252 on Windows)."""
    problems = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        text = ast.unparse(node)
        has_encoding = any(keyword.arg == "encoding" for keyword in node.keywords)
        binary = re.search(r"""['"][rwax]\+?b['"]""", text)
        library = re.match(r"(Image|tarfile|gzip|zipfile|webbrowser)\b", text)
        opens = name == "open" and not binary and not library
        if (name in ("read_text", "write_text") or opens) and not has_encoding:
            problems.append(text)
    return problems


def test_what_windows_lacks_is_noticed():
    source = "import fcntl\nos.kill(1, signal.SIGKILL)\nopen('x').read()\npath.open('rb')"
    assert posix_only(source) == ["fcntl", "SIGKILL"]
    assert without_encoding(source) == ["open('x')"]
    guarded = "def f():\n    if hasattr(os, 'fork'):\n        os.fork()"
    assert posix_only(guarded) == [] and posix_only("os.fork()") == ["fork"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_windows_has_all_that_a_module_uses(path):
    source = path.read_text(encoding="utf-8")
    assert not posix_only(source)
    assert not without_encoding(source)


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_the_versions_that_a_report_needs(encoding):
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "mmclust", "--version"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert lines[0] == f"mmclust {mm.__version__}" and lines[1].startswith("python 3.")
    assert re.search(r"\btorch==\d+\.\d+", done.stdout), done.stderr
    assert "pytest" not in done.stdout and len(lines) <= 10


def test_the_workflows_run_the_commands_of_this_repository():
    tests, gallery = ({p.stem: p.read_text(encoding="utf-8") for p in WORKFLOWS}[n] for n in
                      ("tests", "gallery"))  # fmt: skip
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    slow = re.search(r"^pytest -m slow.*$", ci, re.M)[0]
    assert f"run: {slow}\n" in tests and 'run: pip install -e ".[test]"\n' in tests
    assert "run: python run_all.py\n" in gallery
    matrix = yaml.safe_load(tests)["jobs"]["fast"]["strategy"]["matrix"]
    assert {name.partition("-")[0] for name in matrix["os"]} == {"ubuntu", "windows", "macos"}
    for text in (tests, gallery):
        assert "never run" in text


def test_the_issue_templates_ask_for_what_exists():
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.stem != "config":
            assert {"name", "description", "body"} <= form.keys()
            assert "python -m mmclust --version" in path.read_text(encoding="utf-8")
