"""What a user adds by name: docs/extend.md's method, encoder, data set; errors for wrong names."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import mmclust as mm
from mmclust import plugins
from mmclust.experiments.workbench import Workbench
from mmclust.pipeline.notebooks import stamp

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
FILES = {name: text for text, name in re.findall(r"```\w+\n(# (\w+\.\w+)\b.*?)```", PAGE, re.S)}
USE = re.search(
    r"```python\n(import mmclust as mm\n\nrows = mm\.run\([^`]*inked:digits.*?)```", PAGE, re.S
).group(1)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the page's files on Python's path; the modules are forgotten afterwards."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in FILES:
        sys.modules.pop(Path(name).stem, None)
        plugins._sources.pop(Path(name).stem, None)


def test_the_examples_run_together(folder):
    assert set(FILES) == {"linkage.py", "gray.py", "inked.py", "mine.yaml"}
    scope = {"mm": mm}
    exec(compile(USE, "extend.md", "exec"), scope)
    means = scope["rows"].groupby(["criterion", "encoder", "method"])["NMI"].mean()
    assert len(means) == 12
    assert means["color", "mini", "linkage:Linkage"] > 0.8
    assert means["color", "gray:color_blind", "linkage:Linkage"] < 0.4
    assert means["number", "mini", "linkage:Linkage"] > 0.05


def test_the_readmes_method_can_do_what_the_others_can(folder, mini):
    data = mm.load_dataset("inked:digits", n=60, seed=1)
    assert len(data) == 60 and data.classes["color"] == ["red", "green", "blue"]
    words = mm.reference_words("color", of=data.domain)
    linkage = plugins.resolve("linkage:Linkage")
    model = linkage(mini, words=words, template=words.template, n_clusters=3).fit(data.images)
    assert mm.score(data.labels["color"], model.predict(data.images))["NMI"] > 0.8
    assert len(model.name_clusters()) == 3 and model.explain(0).sum() == pytest.approx(1)
    common = {"dataset": "inked:digits", "criterion": "color"}
    params = {"linkage:Linkage": {"linkage": "single"}}
    assert len(mm.grid(**common, method="linkage:Linkage", params=params)) == 1
    values = ["ward", "single"]
    swept = mm.sweep("linkage:Linkage", {"linkage": values}, {}, **common, n=60)
    assert set(swept["value"]) == set(values)


@pytest.mark.slow
def test_the_readmes_profile_makes_its_tables(folder):
    """03 with these names in a kernel and on workers, which are other processes."""
    command = [sys.executable, str(ROOT / "run_all.py"), "--profile", "mine.yaml", "--only", "03"]
    options = ["-p", "n=40", "-p", "seeds=2", "--out", "figures"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    table = (folder / "figures" / "03_zero_shot.csv").read_text()
    assert "linkage:Linkage" in table and "inked:digits" in table


def test_a_changed_file_is_imported_again_and_changes_row_keys(folder):
    common = {"dataset": "inked:digits", "criterion": "color", "n": 30}
    (experiment,) = mm.grid(method="linkage:Linkage", **common)
    key = Workbench().key(experiment)
    notebook = ROOT / "notebooks" / "03_zero_shot.ipynb"
    before = stamp(notebook, {"profile": str(folder / "mine.yaml")})
    (folder / "linkage.py").write_text(FILES["linkage.py"] + "\nMARK = 1\n", encoding="utf-8")
    assert Workbench().key(experiment) != key
    assert plugins.resolve("linkage:MARK") == 1
    assert stamp(notebook, {"profile": str(folder / "mine.yaml")}) != before


def test_a_notebook_is_out_of_date_if_the_profiles_encoder_has_changed(folder):
    (folder / "gray.yaml").write_text("base: demo\nencoder: gray:color_blind")
    notebook = ROOT / "notebooks" / "00_quickstart.ipynb"
    before = stamp(notebook, {"profile": str(folder / "gray.yaml")})
    (folder / "gray.py").write_text(FILES["gray.py"] + "\nMARK = 1\n", encoding="utf-8")
    assert stamp(notebook, {"profile": str(folder / "gray.yaml")}) != before


def test_a_file_that_changed_before_its_first_use_by_name_is_imported_again(folder):
    import linkage  # as a notebook does

    text = FILES["linkage.py"] + "\nMARK = 1\n"
    (folder / "linkage.py").write_text(text, encoding="utf-8")
    assert plugins.resolve("linkage:MARK") == 1 and plugins.source("linkage:MARK") == text
    assert linkage.MARK == 1


WRONG = [
    (lambda: mm.load_encoder("nowhere:thing"), r"'nowhere:thing'.*PYTHONPATH"),
    (lambda: mm.load_dataset("gray:nothing"), r"gray\.py has no 'nothing'"),
    (lambda: plugins.resolve("__main__:Mine"), "write it into a file"),
    (lambda: plugins.resolve("math:sin"), "math is not written in Python: wrap it"),
    (
        lambda: mm.grid(dataset="demo-fruit", criterion="color", method="Ward"),
        "or module:Class, not 'Ward'",
    ),
]


@pytest.mark.parametrize("call, message", WRONG)
def test_wrong_names_are_errors_with_a_remedy(folder, call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_missing_import_of_a_module_is_reported_as_such(folder):
    (folder / "lacking.py").write_text("import something_that_is_not_there\n")
    with pytest.raises(ModuleNotFoundError, match="something_that_is_not_there"):
        plugins.resolve("lacking:thing")


@pytest.mark.parametrize(
    "name",
    [
        "hf-hub:owner/name",
        "C:\\photos",
        "tcp://127.0.0.1:8786",
        "mini",
        "",
        None,
        3,
        "a:b:c",
        "ViT-B-32/openai",
    ],
)
def test_other_names_are_no_plugins(name):
    assert not plugins.is_plugin_name(name)


def test_names_in_settings():
    settings = {
        "encoders": {"gray:color_blind": "no color", "mini": "mini"},
        "criteria": {"inked:digits": ["color"]},
        "source": "openai:gpt",
    }
    assert plugins.names_in([settings, {"method": "linkage:Linkage"}]) == [
        "gray:color_blind",
        "inked:digits",
        "linkage:Linkage",
    ]


def test_only_accepted_arguments_are_passed():
    assert plugins.filter_kwargs(lambda a, *, b=1: 0, a=1, b=2, c=3) == {"a": 1, "b": 2}
    assert plugins.filter_kwargs(lambda **others: 0, a=1) == {"a": 1}
