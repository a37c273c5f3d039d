"""Small notebooks and profiles, and `run_all.py` as a user calls it."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat

from mmclust.profiles import load_profile

ROOT = Path(__file__).parents[2]
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
# The cell of a notebook, "{0}", that makes a table of its parameter n.
TABLE = """import pandas as pd
from mmclust.results.output import NotebookOutput
NotebookOutput('{0}', out).table(pd.DataFrame({{'n': [n]}}), 'x', 'a caption');"""


def write_notebook(path, *cells, **metadata):
    """A notebook of code cells, or of (type, source) pairs; the same cells give the same file."""
    book = nbformat.v4.new_notebook(metadata=KERNEL)
    for k, cell in enumerate(cells):
        if isinstance(cell, str):
            cell = nbformat.v4.new_code_cell(cell)
        cell["id"] = f"cell-{k}"  # not random
        book.cells.append(cell)
    nbformat.write(book, path)


def parameters_cell(source="out = None\nn = 1"):
    return nbformat.v4.new_code_cell(source, metadata={"tags": ["parameters"]})


def write_notebooks(folder, **sources):
    """Notebooks of a parameters cell and one more, and the path of a profile that lists them."""
    folder.mkdir(exist_ok=True)
    for name, source in sources.items():
        write_notebook(folder / f"{name}.ipynb", parameters_cell(), source)
    entries = {name: {"title": name, "seconds": 2} for name in sources}
    profile = folder / "profile.yaml"
    profile.write_text(json.dumps({"encoder": "mini", "notebooks": entries}))
    return str(profile)


def quick_profile(folder):
    """The demo profile with few pictures, epochs and seeds: every notebook, in seconds, except the
    lessons, which tests/test_lessons.py runs."""
    profile = load_profile()
    for methods in (profile["methods"], profile["released"]):
        methods["MultiMaP"] |= {"epochs": 4}
        methods["MultiSub"] |= {"alternations": 1, "phase1_epochs": 4, "phase2_epochs": 2}
    profile["released"]["MultiSub"]["phase2_epochs"] = 0
    profile["methods"]["MultiDProxy"] |= {"epochs": 6, "update_every": 3}
    notebooks = profile["notebooks"]
    for entry in notebooks.values():
        entry |= {name: value for name, value in {"n": 26, "seeds": 2}.items() if name in entry}
        entry |= {"by_default": not entry.get("teaching", False)}
    for name in ("04_text_encoders", "05_subspace_ablation"):  # 02 has all criteria
        notebooks[name]["criteria"] = {"demo-fruit": ["color", "species"]}
    notebooks["06_constraint_ablation"] |= {"alphas": [0.0, 0.1], "betas": [0.0, 1.0]}
    sweeps = notebooks["09_hyperparameters"]["sweeps"]
    sweeps["MultiSub"]["lam"] = [0.1, 0.9]
    sweeps["MultiDProxy"] |= {"update_every": [2, 3], "layers": [1, 2], "tau": [0.02, 0.2]}
    notebooks["12_paper_vs_code"]["criteria"] = {"demo-fruit": ["species"]}
    few = {"evening light": {"shift": "evening light", "words": {"length": 20}}}
    notebooks["17_when_asking_fails"] |= {"conditions": few, "kept": [0.5], "lengths": [12]}
    notebooks["10_efficiency"] |= {"epochs": [2, 4], "images": 12}
    path = folder / "quick.yaml"
    path.write_text(json.dumps(profile))
    return path


def start_run_all(*arguments, **options):
    """`run_all.py` as a process that runs; `communicate()` gives its output and errors."""
    command = [sys.executable, ROOT / "run_all.py", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT, **options)


def run_all(*arguments, **options):
    """`run_all.py` as a process that has ended."""
    command = [sys.executable, ROOT / "run_all.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, **options)


def printed_errors(notebook):
    """What the cells of an executed notebook wrote to stderr."""
    cells = json.loads(Path(notebook).read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return ["".join(output["text"]) for output in outputs if output.get("name") == "stderr"]
