"""Keys of rows, features and thumbnails: what code means counts, not comments and formatting."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "mmclust"
SCRIPT = """
import sys
from pathlib import Path

from PIL import Image

import mmclust as mm
from mmclust.experiments.workbench import Workbench
from mmclust.explorer.pictures import thumbnails

package = Path(mm.__file__).parent
QUOTE = chr(34)
bench = Workbench()


def keys():
    small = dict(dataset="demo-fruit", criterion="color", n=6, seed=0)
    methods = ("MultiMaP", "MultiSub", "MultiDProxy", "KMeans")
    return {m: bench.key(mm.grid(method=m, **small)[0]) for m in methods}


def pictures():
    worlds = ("demo-fruit", "demo-card")
    return {name: mm.load_dataset(name, n=1).images.fingerprint for name in worlds}


def edit(file, before, after):
    path = package / file
    text = path.read_text(encoding="utf-8")
    assert before in text, (file, before)
    path.write_text(text.replace(before, after, 1), encoding="utf-8")


def stored():
    images = mm.load_folder("photos").images
    thumbnails(images)
    names = {path.name for path in (mm.cache_dir() / "features").glob("*.npy")}
    return {
        "pictures": images.fingerprint, "encoder": mm.load_encoder("mini").fingerprint,
        "thumbnails": names,
    }


def changed(before):
    now = stored()
    return [name for name in now if now[name] != before[name]], now


Path("photos").mkdir()
Image.new("RGB", (20, 20)).save("photos/1.png")
state = stored()
edit("data/decoding.py", "import io", "import io  # a comment")
assert changed(state)[0] == []
edit("explorer/pictures.py", "SIDE = 128", "SIDE = 127")
names, state = changed(state)
assert names == ["thumbnails"], names
edit("encoders/feature_stream.py", "OVERSAMPLING = ", "OVERSAMPLING = 1 + ")
names, state = changed(state)
assert names == ["encoder"], names
edit("data/decoding.py", "draft(None", "draft('RGB'")
names, state = changed(state)
assert names == ["pictures", "encoder", "thumbnails"], names

first = keys()
drawn = pictures()
for file in ("methods/multimap.py", "data/download.py", "data/draw_card.py", "data/rendered.py"):
    edit(file, 3 * QUOTE, 3 * QUOTE + "Another headline. ")
    edit(file, "from __future__", "# a comment\\nfrom __future__")
checked = "if TYPE_CHECKING:\\n"
edit("methods/multimap.py", checked, checked + "    from mmclust import encoders\\n")
assert keys() == first
assert pictures() == drawn
edit("methods/multimap.py", "s.alpha * concept", "2 * s.alpha * concept")
second = keys()
assert [m for m in first if first[m] != second[m]] == ["MultiMaP"], second
edit("methods/base.py", "cluster_centers_ = None", "cluster_centers_ = 0")
assert all(key != second[m] for m, key in keys().items())
edit("data/draw_card.py", "HALF_WIDTH = 0.72", "HALF_WIDTH = 0.71")
assert [name for name, key in pictures().items() if key != drawn[name]] == ["demo-card"]
"""


def test_only_the_meaning_of_the_code_counts(tmp_path):
    """Edits a copy of the package and asks it for keys, as a later process would."""
    shutil.copytree(PACKAGE, tmp_path / "mmclust", ignore=shutil.ignore_patterns("__pycache__"))
    around = os.environ | {"PYTHONPATH": str(tmp_path), "MMCLUST_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", SCRIPT]
    run = subprocess.run(command, cwd=tmp_path, env=around, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_a_plug_in_counts_with_its_base_class(tmp_path, monkeypatch):
    from mmclust.code_fingerprint import code_fingerprint

    def fingerprint(number):
        source = "import mmclust as mm\n\nclass Mine(mm.KMeans):\n    n = {}  # any\n"
        (tmp_path / "my_method.py").write_text(source.format(number))
        sys.modules.pop("my_method", None)
        import my_method

        return code_fingerprint([my_method.Mine])

    monkeypatch.syspath_prepend(tmp_path)
    first = fingerprint(1)
    assert fingerprint(10) != first
    assert fingerprint(1) == first
