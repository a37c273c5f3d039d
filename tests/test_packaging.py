"""The project's promises about itself: what installs it, what it imports, what its README says."""

import ast
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
README = (ROOT / "README.md").read_text()
# The order of the folders: each imports only from those before it, and from itself.
ORDER = [
    "code_fingerprint", "threads", "profiles", "storage", "plugins",  # the ground
    "data", "words", "encoders", "metrics", "methods", "experiments", "results", "pipeline", "explorer",
]  # fmt: skip


def test_import_is_light():
    code = "import time; t = time.perf_counter(); import mmclust; s = time.perf_counter() - t; import sys; print('torch' in sys.modules, s)"
    torch_loaded, seconds = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert torch_loaded == "False" and float(seconds) < 1


def test_every_public_name_is_there_and_documented():
    import mmclust as mm

    for name in mm.__all__:
        assert getattr(mm, name).__doc__, name
    with pytest.raises(AttributeError, match="nothing"):
        mm.nothing  # noqa: B018


def test_types_are_right():
    run = subprocess.run(
        [sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True
    )  # 30 s, later with its cache 2 s
    assert run.returncode == 0, run.stdout + run.stderr


def public_functions():
    """Name and function of all that `mmclust` and its modules offer: functions, and the methods and properties of classes."""
    import mmclust as mm

    things = [getattr(mm, name) for name in mm.__all__]
    for module in filter(inspect.ismodule, things[:]):
        things += [thing for name, thing in vars(module).items() if not name.startswith("_")]
    for thing in things:
        for kind in thing.__mro__ if isinstance(thing, type) else ():
            for name, member in vars(kind).items():
                member = getattr(member, "fget", getattr(member, "__func__", member))
                if inspect.isfunction(member) and (name == "__init__" or not name.startswith("_")):
                    yield f"{kind.__module__}.{kind.__name__}.{name}", member
        if inspect.isroutine(thing):
            yield f"{thing.__module__}.{thing.__name__}", thing


def test_the_public_api_has_type_hints():
    found = {name: function for name, function in public_functions() if name.startswith("mmclust.")}
    lacking = []
    for name, function in found.items():
        signature = inspect.signature(function)
        lacks = [
            p.name
            for p in signature.parameters.values()
            if p.annotation is p.empty and p.name not in ("self", "cls")
        ]
        lacks += ["return"] if signature.return_annotation is signature.empty else []
        lacking += [f"{name}: {', '.join(lacks)}"] if lacks else []
    assert len(found) > 100 and not lacking, "\n".join(lacking)


def test_conda_installs_the_same_project():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert pip == ["-e ."], "what the project needs is said in pyproject.toml alone"
    assert f"python{PYPROJECT['project']['requires-python']}" in environment["dependencies"]


def test_the_commands_of_the_readme_are_those_that_ci_runs():
    assert "pip install -e . && python run_all.py" in README
    command = 'pip install -e ".[test]" && pytest'
    assert command in README and command in (ROOT / ".ci" / "run").read_text().replace(
        "install -q", "install"
    )


def test_dependencies_are_ranges():
    groups = [
        PYPROJECT["project"]["dependencies"],
        *PYPROJECT["project"]["optional-dependencies"].values(),
    ]
    assert set(PYPROJECT["project"]["optional-dependencies"]) >= {
        "paper",
        "explorer",
        "test",
    }
    assert all(re.fullmatch(r"[\w.-]+>=[\d.]+", d) for group in groups for d in group)
    extras = PYPROJECT["project"]["optional-dependencies"]
    assert {"ipywidgets", "voila"} == {d.partition(">")[0] for d in extras["explorer"]}
    assert all(set(extras[name]) <= set(extras["test"]) for name in ("paper", "explorer")), (
        "what the tests need is not in CI"
    )


def imported_modules(path: Path) -> set[str]:
    """The modules of the package that a file imports, also inside functions; `mmclust` is the facade."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {module_of(name) for name in names if name.partition(".")[0] == "mmclust"}


def module_of(name: str) -> str:
    """The longest part of a dotted name that is a module."""
    while name != "mmclust":
        path = ROOT.joinpath(*name.split("."))
        if path.with_suffix(".py").is_file() or path.is_dir():
            break
        name = name.rpartition(".")[0]
    return name


def import_graph() -> dict[str, set[str]]:
    graph = {}
    for path in sorted((ROOT / "mmclust").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        graph[name] = imported_modules(path)
    return graph


def test_folders_import_only_from_those_before_them():
    graph = import_graph()
    assert {name.split(".")[1] for name in graph if name != "mmclust"} == set(ORDER)
    for name, imported in graph.items():
        assert "mmclust" not in imported, f"{name} imports the facade: import what is meant"
        for other in imported if name != "mmclust" else ():
            own, theirs = name.split(".")[1], other.split(".")[1]
            assert ORDER.index(theirs) <= ORDER.index(own), (
                f"{name} imports {other}, which stands below it"
            )


def test_no_modules_import_each_other_in_a_circle():
    graph = {name: imported - {name} for name, imported in import_graph().items()}
    while leaves := [name for name, imported in graph.items() if not imported & graph.keys()]:
        for name in leaves:
            del graph[name]
    assert not graph, f"a circle among {sorted(graph)}"


def test_notebooks_carry_no_outputs_and_use_public_names():
    for path in (ROOT / "notebooks").rglob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        code = [c for c in cells if c["cell_type"] == "code"]
        assert all(not c["outputs"] and c["execution_count"] is None for c in code), path.name
        assert any("parameters" in c["metadata"].get("tags", []) for c in cells), path.name
        assert all(
            len(c["source"] if isinstance(c["source"], list) else c["source"].splitlines()) <= 20
            for c in code
        ), path.name


def test_the_readmes_example_runs(tmp_path):
    example = re.search(r"```python\n(.*?)```", README, re.S).group(1)
    assert len(example.strip().splitlines()) <= 16
    scope = {}
    exec(compile(example, "README.md", "exec"), scope)
    assert scope["scores"]["NMI"] > 0.5 and len(scope["names"]) == 6


def test_nothing_points_at_this_machine():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split("\n")
    for name in filter(None, tracked):
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".yaml", ".yml", ".ipynb", ".cff", ""):
            text = path.read_text(encoding="utf-8")
            assert (
                not re.search(r"/work/|/root/|\.\./shared", text.replace("/work/|/root/|", ""))
                or name == "tests/test_packaging.py"
            ), name


def test_classes_that_are_colors_are_drawn_in_them():
    from mmclust.results.figures import class_colors

    red, blue = class_colors(["red", "blue"])
    assert red[0] > 0.7 > 0.3 > red[2] and blue[2] > 0.7 > 0.3 > blue[0]
    assert len(set(class_colors(["apple", "pear"]))) == 2


def test_the_table_of_notebooks_is_complete():
    from mmclust.profiles import load_profile

    table = (ROOT / "notebooks" / "README.md").read_text()
    names = re.findall(r"^\| \[`(\w+)`\]\(\1\.ipynb\)", table, re.M)
    assert (
        names
        == sorted(p.stem for p in (ROOT / "notebooks").glob("*.ipynb"))
        == sorted(load_profile()["notebooks"])
    )
    for name, entry in load_profile()["notebooks"].items():
        title = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())["cells"][0][
            "source"
        ][0]
        assert entry["papers"] and entry["shows"] and title.startswith("# "), name
