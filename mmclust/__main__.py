"""`python -m mmclust`: a list of the commands; with `--version`, what a report needs."""

import platform
import sys
import textwrap
from importlib.metadata import PackageNotFoundError, requires, version

import mmclust


def versions() -> str:
    """Versions of mmclust, Python, the system, and the installed libraries."""
    lines = [f"mmclust {mmclust.__version__}", f"python {platform.python_version()}"]
    lines.append(f"system {platform.platform()}, {platform.machine()}")
    try:
        listed = requires("mmclust") or []
    except PackageNotFoundError:  # used from a folder, without an installation
        listed = ["torch", "open_clip_torch", "numpy", "scikit-learn"]
    libraries = []
    for requirement in (line for line in listed if "test" not in line.partition(";")[2]):
        name = requirement.partition(">=")[0].partition(";")[0].strip()
        try:
            libraries.append(f"{name}=={version(name)}")
        except PackageNotFoundError:  # of an extra
            continue
    paragraph = ", ".join(dict.fromkeys(libraries))
    return "\n".join([*lines, *textwrap.wrap(paragraph, 100, break_on_hyphens=False)])


if sys.argv[1:] == ["--version"]:
    print(versions())
else:
    print(
        "python run_all.py, python -m mmclust.storage, or python -m mmclust --version; see --help"
    )
