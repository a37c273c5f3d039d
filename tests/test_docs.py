"""The documents: links and commands that exist, hooks that run, the animated picture."""

import json
import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools import animate

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "notebooks/README.md",
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
    "mmclust/encoders/mini/README.md",
    "mmclust/encoders/photo/README.md",
]
NOTEBOOKS = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "notebooks").rglob("*.ipynb"))
PROFILES = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "mmclust").rglob("*.yaml"))
CODE = ("mmclust", "benchmarks", "tools", "tests", "run_all.py")


def text_of(name: str) -> str:
    """The text of a page or a file; of a notebook, its cells."""
    text = (ROOT / name).read_text(encoding="utf-8")
    if name.endswith(".ipynb"):
        return "\n\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    return text


def without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.S)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", [*PAGES, *NOTEBOOKS])
def test_links_have_a_target(name):
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(text_of(name))):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), f"{link}: {sorted(anchors(target))}"


def commands(text: str) -> list[list[str]]:
    """The words of every `python ...`, `pytest ...` command in a text."""
    lines = re.findall(r"`((?:\w+=\S+ )*(?:python|pytest) [^`\n]+)`", text)
    for block in re.findall(r"```sh\n(.*?)```", text, re.S):
        joined = block.replace("\\\n", " ").splitlines()
        lines += [part.strip() for line in joined for part in line.split("&&")]
    return [shlex.split(line, comments=True) for line in lines if line and line.count("'") % 2 == 0]


def missing_files(words: list[str]) -> list[str]:
    """Modules and files that a command names and that do not exist."""
    modules = [b for a, b in pairwise(words) if a == "-m" and "python" in words]
    missing = [name for name in modules if find_spec(name.partition(":")[0]) is None]
    files = [word for word in words if re.fullmatch(r"(tests/|tools/|docs/)?\w+\.py", word)]
    return missing + [name for name in files if not (ROOT / name).exists()]


@pytest.mark.parametrize("name", [p for p in PAGES if p != "CHANGELOG.md"] + NOTEBOOKS + PROFILES)
def test_commands_name_what_exists(name):
    missing = {file for words in commands(text_of(name)) for file in missing_files(words)}
    assert not missing


def test_missing_files_of_commands_are_noticed():
    text = "`python -m tools.nothing -n 3` and\n```sh\npip install x && pytest tests/no.py # y\n```"
    missing = [file for words in commands(text) for file in missing_files(words)]
    assert missing == ["tools.nothing", "tests/no.py"]


def test_every_environment_variable_is_in_the_table():
    files = [path for name in CODE for path in [ROOT / name, *(ROOT / name).rglob("*.py")]]
    used = set()
    for path in files:
        if path.is_file() and path != Path(__file__):
            used |= set(re.findall(r"\bMMCLUST_[A-Z_]+\b", path.read_text(encoding="utf-8")))
    listed = re.findall(r"^\| `(MMCLUST_[A-Z_]+)` \|", text_of("CONTRIBUTING.md"), re.M)
    assert sorted(listed) == sorted(used)


def pre_commit(folder: Path, *arguments: str, home: Path, **variables: str):
    """Run the hooks of the repository in a folder."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PRE_COMMIT_HOME": str(home), "PATH": path} | variables
    command = ["pre-commit", "run", "--all-files", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_hooks_before_a_commit_pass(tmp_path):
    done = pre_commit(ROOT, home=tmp_path, SKIP="types")  # types have a test of their own
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Passed") == 3 and done.stdout.count("Skipped") == 1, done.stdout


def test_a_notebook_with_outputs_does_not_pass(tmp_path):
    output = {"name": "stdout", "output_type": "stream", "text": ["hi"]}
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "source": ["1"]}
    cell |= {"execution_count": 1, "outputs": [output]}
    book = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    file = tmp_path / "book.ipynb"
    file.write_text(json.dumps(book), encoding="utf-8")
    for command in (["git", "init", "-q"], ["git", "add", "."]):
        subprocess.run(command, cwd=tmp_path, check=True)
    config = str(ROOT / ".pre-commit-config.yaml")
    done = pre_commit(tmp_path, "--config", config, "outputs", home=tmp_path / "home")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "hi" not in file.read_text(encoding="utf-8")


def test_the_pictures_of_the_readme_are_drawn_in_true_color(tmp_path):
    animate.animate(tmp_path / "idea.webp", n=80)
    drawn, committed = Image.open(tmp_path / "idea.webp"), Image.open(animate.IDEA)
    assert drawn.n_frames == committed.n_frames > 30 and drawn.height == committed.height
    first = np.asarray(drawn.convert("RGB"))[animate.TOP :, animate.LEFT :]
    assert (first < 240).any(axis=(0, 2)).mean() > 0.8, "the first frame is filled"
    Image.new("RGBA", (1520, 800), "#029e73").save(tmp_path / animate.COMPARISON)
    animate.copy_comparison(tmp_path, tmp_path / "comparison.png")
    for path in [tmp_path / "comparison.png", *animate.IMAGES.glob("*")]:
        assert Image.open(path).mode != "P", f"{path.name} was reduced to a palette"
