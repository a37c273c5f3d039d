"""Scripts of users and commands: a missing guard, and consoles that lack letters."""

import os
import subprocess
import sys

import pytest
from helpers.notebooks import ROOT
from PIL import Image

CLUSTER = "from mmclust.experiments.dask_backend import local_cluster\nwith local_cluster(): pass"
NOTEBOOKS = "from mmclust.pipeline.execution import run_jobs, Backend\n"
NOTEBOOKS += "run_jobs({}, Backend(None, 1), print, print)"
GUARD = "from mmclust.scripts import require_main_guard\n"


def run(*command, **environment):
    return subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | environment,
        timeout=120,
    )


@pytest.mark.parametrize(
    "source, line",
    [
        (CLUSTER, 2),
        (NOTEBOOKS, 2),
        (GUARD + "def main():\n    require_main_guard()\nmain()", 4),
        (GUARD + "require_main_guard()\nif __name__ == '__main__':\n    pass", 2),
        (GUARD + "if __name__ == '__main__':\n    require_main_guard()", None),
        (GUARD + "def main(): require_main_guard()\nif 'main' in __name__: main()", None),
    ],
)
def test_a_script_without_a_guard_is_refused(tmp_path, source, line):
    script = tmp_path / "script.py"
    script.write_text(source)
    done = run(script)
    if line:
        assert f"{script}, line {line}, " in done.stderr.replace(os.sep, "/")
        assert 'if __name__ == "__main__":' in done.stderr.splitlines()[-1]
    else:
        assert done.returncode == 0, done.stderr


def test_what_is_no_script_needs_no_guard():
    assert run("-c", GUARD + "require_main_guard()").returncode == 0


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_console_without_the_letters(tmp_path, encoding):
    folder = tmp_path / "照片"
    for name in ("苹果", "香蕉"):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / name / "图.png")
    path = str(folder).encode("ascii", "backslashreplace").decode()
    data = run("-m", "mmclust.storage", MMCLUST_CACHE=str(folder), PYTHONIOENCODING=encoding)
    assert data.returncode == 0 and data.stdout.startswith(path), data.stderr
    command = ("--dry-run", "--only", "18", "-p", f"data={folder}", "-p", "criterion=class")
    plan = run("run_all.py", *command, PYTHONIOENCODING=encoding)
    assert plan.returncode == 0 and path in plan.stdout, plan.stderr
