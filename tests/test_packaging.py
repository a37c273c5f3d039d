"""What holds for the repository: packaging, imports between folders, vocabulary, notebooks."""

import ast
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import mmclust as mm
from tools import count_lines

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mmclust"
MODULES = sorted(PACKAGE.rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
# The order of the folders: each imports only from those before it, and from itself.
ORDER = [
    "code_fingerprint", "scripts", "threads", "profiles", "storage", "plugins",  # the ground
    "data", "words", "encoders", "metrics", "methods",
    "experiments", "results", "pipeline", "explorer",
]  # fmt: skip
VAGUE_NAMES = {"found", "own", "about", "given", "shown"}
VAGUE_TEXT = re.compile(
    r"\brooms?\b|\btold\b|as_others_do|stands twice|is no age|has not the|says no\b"
)
DATA = {"lexicon.yaml"}  # words of the world, not of the kit
CELL_LINES, CELL_COLUMNS = 12, 100
LESSON_LINES = 20  # of cells in notebooks 13 to 15 and their solutions


# --- packaging ----------------------------------------------------------------------------


def test_the_import_does_not_load_torch():
    code = "import mmclust, sys; print('torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


def test_conda_installs_the_same_project():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert pip == ["-e ."], "dependencies are listed in pyproject.toml only"
    assert f"python{PYPROJECT['project']['requires-python']}" in environment["dependencies"]


def test_the_commands_of_the_readme_are_those_that_ci_runs():
    assert "pip install -e . && python run_all.py" in README
    command = 'pip install -e ".[test]" && pytest'
    ci = (ROOT / ".ci" / "run").read_text().replace("install -q --no-compile", "install")
    assert command in README and command in ci


def test_dependencies_are_ranges():
    extras = PYPROJECT["project"]["optional-dependencies"]
    assert set(extras) >= {"paper", "explorer", "test"}
    for group in (PYPROJECT["project"]["dependencies"], *extras.values()):
        assert all(re.fullmatch(r"[\w.-]+>=[\d.]+", dependency) for dependency in group)
    for name, group in extras.items():
        assert set(group) <= set(extras["test"]), f"CI does not install the extra {name!r}"


def test_no_file_names_a_path_of_one_machine():
    command = ["git", "ls-files"]
    tracked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    for path in (ROOT / name for name in tracked):
        kinds = (".py", ".md", ".toml", ".yaml", ".yml", ".ipynb", ".cff", "")
        if path.suffix in kinds and path != Path(__file__) and path.exists():
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"/work/|/root/|\.\./shared", text), path


# --- public names -------------------------------------------------------------------------


def test_every_public_name_has_a_docstring():
    for name in mm.__all__:
        assert getattr(mm, name).__doc__, name
    with pytest.raises(AttributeError, match="nothing"):
        mm.nothing  # noqa: B018


def test_types_are_right():
    command = [sys.executable, "-m", "mypy"]  # 30 s, with its cache 2 s
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def public_functions():
    """Name and function of everything public: functions, methods and properties."""
    objects = [getattr(mm, name) for name in mm.__all__]
    for module in filter(inspect.ismodule, objects[:]):
        objects += [value for name, value in vars(module).items() if not name.startswith("_")]
    for value in objects:
        for base in value.__mro__ if isinstance(value, type) else ():
            for name, member in vars(base).items():
                member = getattr(member, "fget", getattr(member, "__func__", member))
                if inspect.isfunction(member) and (name == "__init__" or not name.startswith("_")):
                    yield f"{base.__module__}.{base.__name__}.{name}", member
        if inspect.isroutine(value):
            yield f"{value.__module__}.{value.__name__}", value


def test_the_public_api_has_type_hints():
    functions = {name: f for name, f in public_functions() if name.startswith("mmclust.")}
    incomplete = []
    for name, function in functions.items():
        signature = inspect.signature(function)
        hints = {p.name: p.annotation for p in signature.parameters.values()}
        hints |= {"return": signature.return_annotation, "self": None, "cls": None}
        missing = [
            parameter for parameter, hint in hints.items() if hint is inspect.Parameter.empty
        ]
        if missing:
            incomplete.append(f"{name}: {', '.join(missing)}")
    assert len(functions) > 100 and not incomplete, "\n".join(incomplete)


def test_the_readmes_example_runs():
    example = re.search(r"```python\n(.*?)```", README, re.S).group(1)
    scope = {}
    exec(compile(example, "README.md", "exec"), scope)
    assert scope["scores"]["NMI"] > 0.5 and len(scope["names"]) == 6


def test_classes_that_are_colors_are_drawn_in_them():
    red, blue = mm.figures.class_colors(["red", "blue"])
    assert red[0] > 0.7 > 0.3 > red[2] and blue[2] > 0.7 > 0.3 > blue[0]
    assert len(set(mm.figures.class_colors(["apple", "pear"]))) == 2


# --- modules ------------------------------------------------------------------------------


def imported_modules(path: Path) -> set[str]:
    """The modules of the package that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {module_of(name) for name in names if name.partition(".")[0] == "mmclust"}


def module_of(name: str) -> str:
    """The longest prefix of a dotted name that is a module."""
    while name != "mmclust":
        path = ROOT.joinpath(*name.split("."))
        if path.with_suffix(".py").is_file() or path.is_dir():
            break
        name = name.rpartition(".")[0]
    return name


def import_graph() -> dict[str, set[str]]:
    graph = {}
    for path in MODULES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        graph[name] = imported_modules(path)
    return graph


def test_folders_import_only_from_those_before_them():
    graph = import_graph()
    del graph["mmclust"], graph["mmclust.__main__"]
    assert {name.split(".")[1] for name in graph} == set(ORDER)
    for name, imported in graph.items():
        assert "mmclust" not in imported, f"{name} imports the whole package: import the module"
        place = ORDER.index(name.split(".")[1])
        for other in imported:
            assert ORDER.index(other.split(".")[1]) <= place, f"{name} must not import {other}"


def test_no_modules_import_each_other_in_a_circle():
    graph = {name: imported - {name} for name, imported in import_graph().items()}
    while leaves := [name for name, imported in graph.items() if not imported & graph.keys()]:
        for name in leaves:
            del graph[name]
    assert not graph, f"a circle among {sorted(graph)}"


def test_contributing_lists_the_folders_in_order():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition("| in `mmclust/` |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)(?:\.py|/)` \|", table, re.M) == ORDER


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_and_functions_are_short(path):
    assert count_lines.count(path)["lines"] <= count_lines.MODULE_LIMIT
    assert not count_lines.long_functions(path)


# --- vocabulary ---------------------------------------------------------------------------


def identifiers(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that the code defines or uses, with its line."""
    for node in ast.walk(tree):
        for field in ("id", "arg", "attr", "name", "asname"):
            name = getattr(node, field, None)
            if isinstance(name, str):
                yield name, getattr(node, "lineno", 0)


def code_of(path: Path) -> str:
    """The code cells of a notebook as one text."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")


def test_identifiers_have_a_meaning():
    sources = {path: path.read_text(encoding="utf-8") for path in MODULES}
    sources |= {path: code_of(path) for path in NOTEBOOKS}
    vague = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path, source in sources.items()
        for name, line in identifiers(ast.parse(source))
        if name in VAGUE_NAMES
    ]
    assert not vague, "\n".join(vague)


def test_the_text_is_plain_english():
    paths = [path for path in (*MODULES, *sorted(PACKAGE.rglob("*.yaml"))) if path.name not in DATA]
    vague = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if VAGUE_TEXT.search(line)
    ]
    assert not vague, "\n".join(vague)


# --- notebooks ----------------------------------------------------------------------------


def dotted_name(node: ast.Attribute) -> list[str]:
    """["mm", "figures", "curves"] of `mm.figures.curves`; empty if it does not start at a name."""
    parts = []
    value: ast.expr = node
    while isinstance(value, ast.Attribute):
        parts.append(value.attr)
        value = value.value
    return [value.id, *reversed(parts)] if isinstance(value, ast.Name) else []


def unknown_names(source: str) -> list[str]:
    """Names that a notebook takes from the package, and that are not public."""
    problems = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mmclust"):
            problems.append(f"from {node.module} import ...")
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("mmclust.")]
            problems += [f"import {name}" for name in names]
        elif isinstance(node, ast.Attribute) and re.match(r"_[^_]", node.attr):
            problems.append(f".{node.attr}")
        elif isinstance(node, ast.Attribute) and dotted_name(node)[:1] == ["mm"]:
            _, name, *rest = dotted_name(node)
            value = getattr(mm, name) if name in mm.__all__ else None
            if value is None or (inspect.ismodule(value) and rest and not hasattr(value, rest[0])):
                problems.append(".".join(["mm", name, *rest]))
    return problems


def test_unknown_names_are_noticed():
    source = (
        "from mmclust.words import keywords\nimport mmclust.data\n"
        "mm.nothing(1)\nmm.figures.nothing()\nmodel._fit()\nmm.figures.curves(rows)\nmm.run(rows)"
    )
    problems = ["from mmclust.words import ...", "import mmclust.data", "mm.nothing"]
    assert set(unknown_names(source)) == {*problems, "mm.figures.nothing", "._fit"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_carry_no_outputs_and_use_public_names(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    tags = [cell["metadata"].get("tags", []) for cell in code]
    assert sum("parameters" in tag for tag in tags) == 1
    assert not unknown_names(code_of(path))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_code_cells_are_short(path):
    most = LESSON_LINES if "step_by_step" in path.stem else CELL_LINES
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        lines = "".join(cell["source"]).splitlines() if cell["cell_type"] == "code" else []
        if "parameters" not in cell["metadata"].get("tags", []):
            assert sum(map(bool, map(str.strip, lines))) <= most, cell["id"]
        if any("figure = " in line for line in lines):  # else the notebook shows it twice
            assert "output.figure(" in "".join(cell["source"]), cell["id"]
        assert all(len(line) <= CELL_COLUMNS for line in lines), cell["id"]


def test_the_table_of_notebooks_is_complete():
    table = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    names = re.findall(r"^\| \[`(\w+)`\]\(\1\.ipynb\)", table, re.M)
    profile = mm.load_profile()["notebooks"]
    assert names == sorted(profile)
    assert names == sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
    for name, entry in profile.items():
        cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())["cells"]
        assert entry["papers"] and entry["shows"] and cells[0]["source"][0].startswith("# "), name
