#!/usr/bin/env bash
# Wheels for `tools/gpu_check.py` on a machine without a network, in one folder that git ignores.
#
#   tools/gpu_bundle.sh [--without FILE] [FOLDER]      (default: .gpu/wheels)
#
# They are for Python 3.12 on x86-64 Linux and are downloaded from the package index. FILE lists
# what that machine has, one name a line; these packages, torch and torchvision are left out, and so
# is what the check does not import. The folder is emptied first. Prints the sizes; fails if wheels
# and working tree are larger than 60 MB together.
#
# There:
#   python3 -m pip install -q --no-index --no-deps --target /tmp/site FOLDER/*.whl
#   export PYTHONPATH=/tmp/site JUPYTER_DATA_DIR=/tmp/site/share/jupyter
#   python3 -m tools.gpu_check --out OUT
set -euo pipefail
without=/dev/null
if [ "${1:-}" = --without ]; then
  without=$(realpath "$2")
  shift 2
fi
cd "$(dirname "$0")/.."
folder=${1:-.gpu/wheels}
limit=60000000 # bytes
mkdir -p "$folder"
rm -f "$folder"/*.whl

python3 - "$without" "$folder" << 'PYTHON'
"""Download the packages, and then what their metadata requires, until nothing is missing."""

import re
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name

WANTED = """
open_clip_torch timm scikit-learn pandas matplotlib seaborn distributed papermill ipykernel
nbconvert filelock jinja2 jsonschema latex2mathml lazy_loader numpy pillow platformdirs psutil
pyyaml rich safetensors scipy tabulate tqdm pytest pytest-xdist hypothesis
""".split()
# torch fits the driver there; the others are needed by parts of packages that the check never runs
LEFT_OUT = {"torch", "torchvision", "triton", "debugpy", "jedi", "parso"}
MARKERS = {
    "python_version": "3.12", "python_full_version": "3.12.3", "sys_platform": "linux",
    "os_name": "posix", "platform_system": "Linux", "platform_machine": "x86_64",
    "implementation_name": "cpython", "platform_python_implementation": "CPython", "extra": "",
}  # fmt: skip
TAGS = [f"manylinux_2_{minor}_x86_64" for minor in range(39, 4, -1)]
TAGS += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]

without, folder = Path(sys.argv[1]), Path(sys.argv[2])
left_out = LEFT_OUT | {canonicalize_name(name) for name in without.read_text().split()}
options = ["--only-binary=:all:", "--python-version=3.12", "--implementation=cp", "--no-deps"]
options += [f"--platform={tag}" for tag in TAGS]
required: dict[str, list[Requirement]] = {}  # by each package that is downloaded
followed: set[tuple[str, str]] = set()  # packages and extras


def read(wheel: Path) -> list[Requirement]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n))
        lines = message_from_bytes(archive.read(name)).get_all("Requires-Dist", [])
    return [Requirement(line) for line in lines]


todo = [Requirement(name) for name in WANTED]
while todo := [r for r in todo if canonicalize_name(r.name) not in left_out]:
    new = [r for r in todo if canonicalize_name(r.name) not in required]
    chosen = {canonicalize_name(r.name): f"{r.name}{r.specifier}" for r in new}
    if chosen:
        download = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
        subprocess.run([*download, *options, "-d", folder, *chosen.values()], check=True)
    for wheel in folder.glob("*.whl"):
        required.setdefault(canonicalize_name(wheel.name.partition("-")[0]), read(wheel))
    pairs = {(canonicalize_name(r.name), extra) for r in todo for extra in ("", *r.extras)}
    todo = []
    for name, extra in pairs - followed:
        values = MARKERS | {"extra": extra}
        todo += [r for r in required[name] if r.marker is None or r.marker.evaluate(values)]
    followed |= pairs
PYTHON

wheels=$(cat "$folder"/*.whl | wc -c)
tree=$(git ls-files -z --cached --others --exclude-standard -- . ':!docs/img' \
  ':!mmclust/encoders/mini/checkpoint-*' | xargs -0 cat 2> /dev/null | wc -c)
echo "$(ls "$folder"/*.whl | wc -l) wheels in $folder: $((wheels / 1000000)) MB," \
  "with the working tree $(((wheels + tree) / 1000000)) MB of at most $((limit / 1000000)) MB"
if [ $((wheels + tree)) -gt $limit ]; then
  echo "too large: list with --without what the machine has" >&2
  exit 1
fi
