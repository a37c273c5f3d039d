"""What a user adds by name: the README's method, encoder and data set as they stand there, and what is said when one is wrong."""

import os
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
README = (ROOT / "README.md").read_text(encoding="utf-8")
FILES = {name: text for text, name in re.findall(r"```\w+\n(# (\w+\.\w+)\b.*?)```", README, re.S)}
USE = re.search(
    r"```python\n(import mmclust as mm\n\nrows = mm\.run\([^`]*inked:digits.*?)```", README, re.S
).group(1)


@pytest.fixture
def room(tmp_path, monkeypatch):
    """A folder with the README's files that Python looks into, forgotten afterwards."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in FILES:
        sys.modules.pop(Path(name).stem, None)
        plugins._source.pop(Path(name).stem, None)


def test_the_readmes_examples_are_short():
    assert set(FILES) == {"linkage.py", "gray.py", "inked.py", "mine.yaml"}
    assert all(text.count("\n") < 30 for text in FILES.values())


def test_the_readmes_examples_run_together(room):
    scope = {"mm": mm}
    exec(compile(USE, "README.md", "exec"), scope)
    means = scope["rows"].groupby(["criterion", "encoder", "method"])["NMI"].mean()
    assert len(means) == 12
    assert (
        means["color", "mini", "linkage:Linkage"]
        > 0.8
        > 0.4
        > means["color", "gray:color_blind", "linkage:Linkage"]
    )  # it sees no color
    assert means["number", "mini", "linkage:Linkage"] > 0.05


def test_the_readmes_method_has_what_the_others_have(room, mini):
    data, kind = mm.load_dataset("inked:digits", n=60, seed=1), plugins.resolve("linkage:Linkage")
    assert len(data) == 60 and data.classes["color"] == ["red", "green", "blue"]
    words = mm.reference_words("color", of=data.domain)
    model = kind(mini, words.template, words, n_clusters=3).fit(data.images)
    assert mm.score(data.labels["color"], model.predict(data.images))["NMI"] > 0.8
    assert len(model.name_clusters()) == 3 and model.explain(0).sum() == pytest.approx(1)
    assert (
        len(
            mm.grid(
                dataset="inked:digits",
                criterion="color",
                method="linkage:Linkage",
                params={"linkage:Linkage": {"linkage": "single"}},
            )
        )
        == 1
    )
    swept = mm.sweep(
        "linkage:Linkage",
        {"linkage": ["ward", "single"]},
        {},
        dataset="inked:digits",
        criterion="color",
        n=60,
        on_cost=None,
    )
    assert set(swept["value"]) == {"ward", "single"}


@pytest.mark.slow
def test_the_readmes_profile_makes_its_tables(room):
    """03 with these names in a kernel and on workers, which are other processes than the one that was told where to look."""
    command = [
        sys.executable,
        str(ROOT / "run_all.py"),
        "--profile",
        "mine.yaml",
        "--only",
        "03",
        "-p",
        "n=40",
        "-p",
        "seeds=2",
        "--out",
        "figures",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=room)
    assert done.returncode == 0, done.stdout + done.stderr
    table = (room / "figures" / "03_zero_shot.csv").read_text()
    assert "linkage:Linkage" in table and "inked:digits" in table


def test_a_file_that_changes_is_imported_again_and_its_rows_are_others(room):
    experiment = mm.grid(dataset="inked:digits", criterion="color", method="linkage:Linkage", n=30)[
        0
    ]
    key, notebook = Workbench().key(experiment), ROOT / "notebooks" / "03_zero_shot.ipynb"
    before = stamp(notebook, {"profile": str(room / "mine.yaml")})
    (room / "linkage.py").write_text(FILES["linkage.py"] + "\nMARK = 1\n", encoding="utf-8")
    assert Workbench().key(experiment) != key
    assert plugins.resolve("linkage:MARK") == 1
    assert stamp(notebook, {"profile": str(room / "mine.yaml")}) != before


@pytest.mark.parametrize(
    "call, said",
    [
        (
            lambda: mm.load_encoder("nowhere:thing"),
            "'nowhere:thing': no module 'nowhere' in .* .PYTHONPATH.",
        ),
        (lambda: mm.load_dataset("gray:nothing"), r"gray\.py has no 'nothing'"),
        (
            lambda: mm.grid(dataset="demo-fruit", criterion="color", method="__main__:Mine"),
            "write it into a file",
        ),
        (
            lambda: mm.grid(dataset="demo-fruit", criterion="color", method="Ward"),
            '"module:Class" of your own',
        ),
    ],
)
def test_what_is_said_of_a_wrong_name(room, call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_what_a_module_lacks_itself_is_said_as_it_is(room):
    (room / "lacking.py").write_text("import something_that_is_not_there\n")
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
def test_other_names_are_not_taken_for_ones_own(name):
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


def test_children_look_where_the_run_was_started(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    plugins.add_search_path(str(tmp_path))
    plugins.add_search_path(str(tmp_path))
    assert (
        os.environ["PYTHONPATH"] == os.pathsep.join(["/somewhere", str(tmp_path)])
        and sys.path.count(str(tmp_path)) == 1
    )
