"""What the front door promises: links that lead somewhere, the map of the house, hooks that run, the animated picture."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "notebooks/README.md",
    "docs/scaling.md",
    "docs/measured.md",
    "mmclust/encoders/mini/README.md",
]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub writes them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", text, re.M)
    }


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    page = ROOT / name
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), f"{name} points to {target}"
        assert not anchor or anchor in anchors(there), (
            f"{name} points to {target}, {there.name} has {sorted(anchors(there))}"
        )


def test_the_hooks_before_a_commit_pass(tmp_path):
    """All but the types, which have a test of their own."""
    around = {
        "SKIP": "types",
        "PRE_COMMIT_HOME": str(tmp_path),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    done = subprocess.run(
        ["pre-commit", "run", "--all-files"],
        cwd=ROOT,
        env=os.environ | around,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Passed") == 3 and done.stdout.count("Skipped") == 1, done.stdout


def test_a_notebook_with_outputs_does_not_pass(tmp_path):
    output = {"name": "stdout", "output_type": "stream", "text": ["hi"]}
    cell = {
        "cell_type": "code",
        "execution_count": 1,
        "id": "a",
        "metadata": {},
        "outputs": [output],
        "source": ["1"],
    }
    (tmp_path / "book.ipynb").write_text(
        json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}),
        encoding="utf-8",
    )
    for command in (["git", "init", "-q"], ["git", "add", "."]):
        subprocess.run(command, cwd=tmp_path, check=True)
    around = {
        "PRE_COMMIT_HOME": str(tmp_path / "home"),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    command = [
        "pre-commit",
        "run",
        "--all-files",
        "--config",
        str(ROOT / ".pre-commit-config.yaml"),
        "outputs",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | around, capture_output=True, text=True
    )
    assert done.returncode == 1 and "hi" not in (tmp_path / "book.ipynb").read_text(), (
        done.stdout + done.stderr
    )


def test_the_animated_picture_is_drawn(tmp_path):
    runpy.run_path(str(ROOT / "docs" / "animate.py"))["main"](tmp_path / "idea.gif", n=80)
    drawn, kept = Image.open(tmp_path / "idea.gif"), Image.open(ROOT / "docs" / "img" / "idea.gif")
    assert drawn.n_frames == kept.n_frames > 30 and drawn.height == kept.height
