"""Runs of notebooks, and run_all.py as a user calls it: real kernels, real files, failures too."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import psutil
import pytest
from helpers.notebooks import (
    ROOT,
    TABLE,
    printed_errors,
    quick_profile,
    run_all,
    write_notebooks,
)
from helpers.processes import started
from PIL import Image
from rich.console import Console

import mmclust as mm
import run_all as script
from mmclust import plugins
from mmclust.methods import METHODS
from mmclust.pipeline.gallery import write_index
from mmclust.pipeline.notebooks import notebook_parameters, plan, reproduce, select, stamp
from mmclust.profiles import load_profile, profile_names, settings
from mmclust.profiles.values import schema


@pytest.fixture
def main(monkeypatch, capsys):
    """run_all.py in this process; gives its exit status and what it printed, in one line."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))

    def call(*arguments):
        try:
            status = script.main([str(argument) for argument in arguments])
        except SystemExit as error:
            status = error.code
        printed = capsys.readouterr()
        return status, " ".join((printed.out + printed.err).split())

    return call


def colored_pictures(folder, number=24):
    """Images of one color each; returns the colors."""
    colors = [("red", "blue", "green")[i % 3] for i in range(number)]
    folder.mkdir()
    for i, color in enumerate(colors):
        Image.new("RGB", (50, 40), color).rotate(i).save(folder / f"{i}.png")
    return colors


def test_a_failing_notebook_does_not_stop_the_others(tmp_path):
    sources = {"a": TABLE.format("a"), "b": "value = 1 / (n - 1)", "c": TABLE.format("c")}
    profile = write_notebooks(tmp_path / "nb", **sources)
    places = {"profile": profile, "out": tmp_path / "out", "notebooks": tmp_path / "nb"}
    events = []
    outcomes = reproduce(**places, jobs=1, workers=2, on_event=lambda *event: events.append(event))
    assert [outcome.status for outcome in outcomes] == ["done", "failed", "done"]
    assert "ZeroDivisionError" in outcomes[1].error
    assert "1 / (n - 1)" in outcomes[1].where
    names = [name for name, *_ in events]
    assert [name for name in names if name in ("start", "end")] == ["start", "end"] * 3
    assert events[-1][2] <= 0  # seconds left
    assert names[0] == "cluster" and "dashboard at http://127.0.0.1" in events[0][1]
    assert "tick" in names
    page = (tmp_path / "out" / "index.html").read_text()
    assert "a caption" in page and "ZeroDivisionError" in page
    assert (tmp_path / "out" / "notebooks" / "b.html").exists()  # shows where it failed
    todo, fresh = plan(**places)
    assert list(todo) == ["b"] and list(fresh) == ["a", "c"]
    todo, fresh = plan(**places, parameters={"n": 2})
    assert list(todo) == ["a", "b", "c"]


def test_what_is_out_of_date_runs_again(tmp_path):
    profile = write_notebooks(tmp_path / "nb", a=TABLE.format("a"))
    places = {"profile": profile, "out": tmp_path / "out", "notebooks": tmp_path / "nb"}

    def runs_again(**options):
        return "a" in plan(**places, **options)[0]

    assert runs_again()
    assert reproduce(**places)[0].status == "done"
    assert not runs_again() and runs_again(force=True)
    assert reproduce(**places)[0].status == "up to date"
    table = tmp_path / "out" / "a_x.csv"
    table.rename(tmp_path / "a_x.csv")
    assert runs_again()
    (tmp_path / "a_x.csv").rename(table)
    assert not runs_again()
    write_notebooks(tmp_path / "nb", a=TABLE.format("a") + "\n1 + 1")
    assert runs_again()


def test_a_comment_in_the_package_runs_no_notebook_again(tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    monkeypatch.setattr("mmclust.pipeline.notebooks.PACKAGE", package)
    notebook = ROOT / "notebooks" / "01_datasets.ipynb"
    stamps = []
    for code in ("x = 1", "x = 1  # a comment", '"""A docstring."""\n\nx  =  1', "x = 2"):
        (package / "module.py").write_text(code)
        stamps.append(stamp(notebook, {"profile": "demo"}))
    assert len(set(stamps[:3])) == 1 and stamps[3] != stamps[0]
    (package / "table.csv").write_text("1,2")
    assert stamp(notebook, {"profile": "demo"}) != stamps[3]
    assert stamp(notebook, {"profile": "demo", "n": 3}) != stamp(notebook, {"profile": "demo"})


def test_a_killed_kernel_is_a_failure(tmp_path):
    kill = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    profile = write_notebooks(tmp_path / "nb", a=kill, b=TABLE.format("b"))
    outcomes = reproduce(profile=profile, out=tmp_path / "out", notebooks=tmp_path / "nb", jobs=2)
    assert [outcome.status for outcome in outcomes] == ["failed", "done"]
    assert "died" in outcomes[0].error and "out of memory" in outcomes[0].error
    assert "--jobs 1" in outcomes[0].error


def test_kernels_are_of_this_environment_and_import_its_modules_first(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = {"argv": ["/deleted/venv/bin/python"], "display_name": "Python", "language": "python"}
    (tmp_path / "kernels" / "python3").mkdir(parents=True)
    (tmp_path / "kernels" / "python3" / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    for name, text in {"statistics": "1 / 0", "yaml": "1 / 0", "a_plug_in": "value = 1"}.items():
        (tmp_path / f"{name}.py").write_text(text)
    plugins.add_search_path(str(tmp_path))
    profile = write_notebooks(tmp_path / "nb", a="import a_plug_in, statistics, yaml")
    (outcome,) = reproduce(profile=profile, out=tmp_path / "out", notebooks=tmp_path / "nb")
    assert outcome.status == "done", outcome.error


LETTERS = """import matplotlib.pyplot as plt, pandas as pd
from mmclust.results.output import NotebookOutput
plt.title('\U00013000 and \U00013001')  # hieroglyphs
output = NotebookOutput('a', out)
output.figure(plt.gcf(), 'f', caption='a figure')
output.table(pd.DataFrame({'n': [n]}), 't', 'a table');"""


def test_damaged_files_are_reported_and_the_gallery_goes_on(tmp_path):
    out = tmp_path / "out"
    profile = write_notebooks(tmp_path / "nb", a=LETTERS)
    places = {"profile": profile, "out": out, "notebooks": tmp_path / "nb"}
    (outcome,) = reproduce(**places)
    (sentence,) = outcome.warnings
    assert "\U00013000\U00013001: " in sentence and r" \U00013000." in sentence
    assert "fonts-noto" in sentence
    console = Console(file=io.StringIO(), width=1000)
    script.Progress(console).on_event("end", outcome, 0)
    assert sentence in console.file.getvalue()
    assert not plan(**places)[0]
    for file, text in [
        ("a_f.png", "image file is missing"),
        (".state/a--f.json", "a table"),
        (".state/a.json", "0 notebooks"),
    ]:
        content = (out / file).read_bytes()
        (out / file).write_bytes(content[:40])
        with pytest.warns(UserWarning, match=f"{re.escape(str(out / file))} is damaged"):
            assert text in write_index(out, profile).read_text(encoding="utf-8")
        if file.endswith("json"):
            with pytest.warns(UserWarning, match="damaged"):
                assert list(plan(**places)[0]) == ["a"]
        (out / file).write_bytes(content)
    (out / ".state" / "a--t.json").unlink()
    assert list(plan(**places)[0]) == ["a"]


def test_kernels_share_the_cores_and_do_not_spin(tmp_path):
    names = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    source = f"import os\nprint([os.environ[name] for name in {names}])"
    profile = write_notebooks(tmp_path / "nb", a=source)
    reproduce(profile=profile, out=tmp_path / "out", notebooks=tmp_path / "nb", jobs=1)
    executed = json.loads((tmp_path / "out" / "notebooks" / "a.ipynb").read_text())
    (output,) = executed["cells"][-1]["outputs"]
    threads, policy, spins = json.loads("".join(output["text"]).replace("'", '"'))
    limit = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count()))
    assert 1 <= int(threads) <= limit
    assert (policy, spins) == tuple(os.environ[name] for name in names[1:])


def test_run_all_runs_skips_and_names_its_files(tmp_path):
    arguments = ("-p", "n=40", "--out", tmp_path)
    first = run_all("--only", "01", *arguments)
    assert first.returncode == 0, first.stdout + first.stderr
    samples = {f"01_datasets_samples.{suffix}" for suffix in ("png", "svg", "csv")}
    files = {path.name for path in tmp_path.iterdir()}
    assert {"index.html", "01_datasets.csv"} | samples <= files
    table = pd.read_csv(tmp_path / "01_datasets.csv")
    assert set(table["images"]) == {40}
    assert {"color", "suits", "pose"} <= set(table["criterion"])
    second = run_all("--only", "01_datasets", *arguments)
    assert second.returncode == 0 and "1 up to date" in second.stdout


@pytest.mark.slow
def test_every_notebook_runs_and_leaves_its_figures_and_tables(tmp_path):
    out = tmp_path / "out"
    profile = quick_profile(tmp_path)
    run = run_all("--profile", profile, "--out", out)
    assert run.returncode == 0, run.stdout + run.stderr
    names = select(None, str(profile))
    assert f"{len(names)} done, 0 up to date, 0 failed" in run.stdout
    for name in names:
        notes = [json.loads(path.read_text()) for path in (out / ".state").glob(f"{name}--*")]
        files = [file for note in notes for file in note["files"]]
        assert files and all((out / file).stat().st_size for file in files), name
        assert all(note["caption"] for note in notes), name
        assert any(note.get("finding") for note in notes), name
        assert all(any(f.endswith(".csv") for f in note["files"]) for note in notes), name
        assert not printed_errors(out / "notebooks" / f"{name}.ipynb"), name
    check_numbers(out)
    again = run_all("--profile", profile, "--out", out)
    assert "0 done" in again.stdout and again.returncode == 0


def check_numbers(out):
    def table(name):
        return pd.read_csv(out / f"{name}.csv")

    rows = table("02_main_comparison")
    columns = {"dataset", "criterion", "encoder", "method", "representation", "seed"}
    assert columns | {"NMI", "RI", "ARI", "AMI"} <= set(rows.columns)
    methods = {"KMeans", "CLIP_GPT", "CLIP_label", "CRL", "MultiMaP", "MultiSub", "MultiDProxy"}
    assert set(rows["method"]) == methods and rows["criterion"].nunique() == 8
    main_rows = table("02_main_comparison_nmi")
    proxies = main_rows.loc[main_rows["method"] == "MultiDProxy", "representation"]
    assert set(proxies) == {"fused"}
    assert main_rows.groupby(["method", "criterion"]).size().eq(2).all()
    index = ["method", "criterion", "seed"]
    one = ("CLIP_GPT", "color", 1)
    zero_shot = table("03_zero_shot").set_index(index)
    assert zero_shot.loc[one, "NMI"] == rows.set_index(index).loc[one, "NMI"]
    encoders = {"mini-quarter", "mini-half", "mini"}
    assert set(table("04_text_encoders")["encoder"]) == encoders
    assert len(table("05_subspace_ablation")) == 3 * 4 * 2 * 2
    assert len(table("06_constraint_ablation_map")) == 2 * 2 * (2 + 1)  # and beta = ∞
    ablated = table("07_dproxy_ablation")
    assert ablated["row"].nunique() == 9
    assert ablated.groupby("row")["NMI"].mean().nunique() > 4
    points = table("08_tsne_color")
    assert points["panel"].nunique() == 7 and len(points) == 7 * 26
    parameters = {"lam", "update_every", "layers", "tau", "tau_alpha"}
    assert set(table("09_hyperparameters")["parameter"]) == parameters
    assert set(table("10_efficiency_epoch_mini")["way"]) == {"authors' way", "ours"}
    assert set(table("11_new_criterion")["criterion"]) == {"shape"}
    flipped = table("12_paper_vs_code")
    assert set(flipped["method"]) == {"MultiMaP", "MultiSub"} and len(flipped) > 15
    rows = table("17_when_asking_fails")
    assert (
        set(rows["method"]) == methods | {"CRL, softmax"}
        and rows["shift"].eq("evening light 0.5").all()
    )


@pytest.mark.slow
def test_a_sweep_from_the_command_line(tmp_path, main):
    command = ("--only", "09", "--out", tmp_path, "-p", "n=20", "-p", "seeds=1")
    sweep = 'sweep={"alpha": [0, 1], "init": ["word", "text"]}'
    criteria = "criteria={demo-fruit: [color]}"
    status, printed = main(*command, "-p", "method=MultiMaP", "-p", sweep, "-p", criteria)
    assert status == 0, printed
    rows = pd.read_csv(tmp_path / "09_hyperparameters.csv")
    values = rows.groupby("parameter")["value"].nunique().to_dict()
    assert values == {"alpha": 2, "init": 2} and set(rows["method"]) == {"MultiMaP"}
    status, printed = main(*command, "-p", "method=KMeans", "-p", "sweep={n_init: [1, 3]}")
    assert status == 0, printed
    with pytest.raises(ValueError, match="MultiMaP has no parameter 'R'"):
        mm.sweep("MultiMaP", {"R": [1]}, {}, dataset="demo-fruit", criterion="color")


def test_a_folder_of_pictures(tmp_path):
    """Notebook 18 on a user's folder: colored squares, labels in a CSV file, a broken link."""
    folder = tmp_path / "my pictures [1]"
    colors = colored_pictures(folder)
    files = [f"{i}.png" for i in range(len(colors))]
    pd.DataFrame({"file": files, "color": colors}).to_csv(folder / "labels.csv", index=False)
    (folder / "gone.png").symlink_to("nowhere.png")
    parameters = ("-p", f"data={folder}", "-p", "criterion=color", "-p", "domain=fruit")
    out = tmp_path / "out"
    profile = ("--profile", quick_profile(tmp_path))
    run = run_all("--only", "18_your_pictures", *profile, *parameters, "--out", out)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{folder}: 24 pictures; color: 3 classes" in run.stdout and "gone.png" in run.stdout
    members = pd.read_csv(out / "18_your_pictures.csv")
    assert len(members) == 24 and members["cluster"].nunique() == 3
    scores = pd.read_csv(out / "18_your_pictures_scores.csv").set_index("method")
    assert scores.loc["Multi-Sub", "NMI"] > 0.6
    page = (out / "index.html").read_text()
    assert "In its training captions, photo saw" in page
    finding = "24 pictures of my pictures [1] by color with the encoder photo: 3 clusters ("
    assert finding in run.stdout and finding in page
    assert "rendered pictures, a small embedded encoder" not in page
    printed = (out / "notebooks" / "18_your_pictures.ipynb").read_text()
    assert "encoder photo: it is for pictures in files" in printed


@pytest.mark.slow
def test_a_folder_without_labels_and_keyword(tmp_path, main):
    """A keyword is suggested, clusters are counted, nothing is scored; a folder that might be a
    class means nothing, and a damaged picture is left out."""
    folder = tmp_path / "photos"
    colored_pictures(folder)
    (folder / "2024").mkdir()
    Image.new("RGB", (40, 40), "red").save(folder / "2024" / "extra.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    parameters = ("-p", f"data={folder}")
    out = tmp_path / "out"
    profile = ("--profile", quick_profile(tmp_path))
    status, printed = main("--only", "18", *profile, *parameters, "--out", out)
    assert status == 0, printed
    assert 2 <= pd.read_csv(out / "18_your_pictures.csv")["cluster"].nunique() <= 8
    assert not list(out.glob("18_your_pictures_scores*"))
    suggested = pd.read_csv(out / "18_your_pictures_suggestions.csv")
    assert suggested["keyword"][0] == "color" and len(suggested) == 8
    notebook = (out / "notebooks" / "18_your_pictures.ipynb").read_text()
    assert "clusters, estimated" in notebook
    start = "25 pictures of photos by color, the first suggestion because none was given"
    assert start in printed and "broken.jpg" in printed[printed.index(start) :]


def test_files_of_a_run_with_other_parameters_are_removed(tmp_path):
    profile = write_notebooks(tmp_path / "nb", a=TABLE.format("a").replace("'x'", "f'of_{n}'"))
    for n in (1, 2):
        (outcome,) = reproduce(
            None, {"n": n}, profile, out=tmp_path / "out", notebooks=tmp_path / "nb"
        )
        assert outcome.status == "done"
    files = {path.name for path in (tmp_path / "out").glob("a_of_*")}
    assert files == {f"a_of_2.{suffix}" for suffix in ("csv", "md", "tex")}


def test_a_run_overwrites_no_files_of_the_user(tmp_path, main):
    profile = write_notebooks(tmp_path / "notebooks", a=TABLE.format("a"))
    places = {"profile": profile, "notebooks": tmp_path / "notebooks"}
    (tmp_path / "link").symlink_to(tmp_path)
    for out in (tmp_path, tmp_path / "link"):
        with pytest.raises(ValueError, match=r"notebooks holds the sources.*--out"):
            reproduce(**places, out=out)
    for name in ("index.html", "notebooks/a.ipynb"):
        file = tmp_path / name[:5] / name
        file.parent.mkdir(parents=True)
        file.write_text("mine")
        out = tmp_path / name[:5]
        with pytest.raises(ValueError, match=rf"{name} is not of an earlier run.*--out"):
            reproduce(**places, out=out)
        assert file.read_text() == "mine" and not (out / ".state").exists()
        file.rename(tmp_path / "moved away")
        for status in ("done", "up to date"):
            assert reproduce(**places, out=out)[0].status == status
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "README.md").write_text("in git")
    assert list(plan(**places, out=tmp_path / "figures")[0]) == ["a"]
    status, printed = main("--only", "01", "--out", ROOT, "--dry-run")
    assert status == 2 and "would be overwritten" in printed, printed


def test_a_failed_run_shows_and_leaves_no_results_of_another(tmp_path):
    out = tmp_path / "out"
    source = TABLE.format("a").replace("'x'", "f'of_{n}'").replace("'a caption'", "f'with {n}'")
    failing = f"from pathlib import Path\nassert not Path({str(tmp_path / 'fail')!r}).exists()"
    profile = write_notebooks(tmp_path / "nb", a=f"{failing}\n{source}")

    def run(n):
        places = {"out": out, "notebooks": tmp_path / "nb", "force": True}
        (outcome,) = reproduce(None, {"n": n}, profile, **places)
        files = sorted(path.name for path in out.glob("a_of_*.csv"))
        captions = re.findall(r"with \d", (out / "index.html").read_text())
        return outcome.status, files, sorted(set(captions))

    assert run(1) == ("done", ["a_of_1.csv"], ["with 1"])
    (tmp_path / "fail").touch()
    assert run(1) == ("failed", ["a_of_1.csv"], [])  # stays until there are new ones, but unseen
    assert run(2) == ("failed", [], [])
    (tmp_path / "fail").unlink()
    assert run(2) == ("done", ["a_of_2.csv"], ["with 2"])


@pytest.mark.parametrize("option", [(), ("--dry-run",)])
def test_figures_are_never_among_the_pictures_of_a_run(tmp_path, main, option):
    photos = tmp_path / "photos"
    colors = colored_pictures(photos, number=6)
    files = [f"{i}.png" for i in range(6)]
    pd.DataFrame({"file": files, "color": colors}).to_csv(photos / "labels.csv", index=False)
    (tmp_path / "elsewhere").mkdir()
    (photos / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "other name").symlink_to(photos)
    sort = ("--only", "18", "-p", "criterion=color", "-p", "n_clusters=3", *option)
    compare = ("--only", "03", *option)
    for inside in ("photos", "photos/new/figures", "elsewhere/figures", "other name"):
        for command in (
            (*sort, "-p", f"data={photos}"),
            (*compare, "-p", f"criteria={{{photos}: [color]}}"),
        ):
            status, printed = main(*command, "--out", tmp_path / inside)
            assert status == 2 and f"in the folder of pictures {photos}" in printed, printed
    assert not (photos / ".state").exists() and not list((tmp_path / "elsewhere").iterdir())
    choice = (["18"], {"data": str(photos), "criterion": "color", "n_clusters": 3})
    for outside in (tmp_path / "photos of figures", tmp_path):  # also around the pictures
        assert plan(*choice, out=outside)[0]


@pytest.mark.parametrize("option", [(), ("--dry-run",)])
def test_a_bad_folder_is_reported_before_anything_starts(tmp_path, main, option):
    (tmp_path / "empty").mkdir()
    colored_pictures(tmp_path / "photos", number=1)
    photos = f"data={tmp_path / 'photos'}"
    for parameters, message in [
        (["data=nowhere"], "nowhere"),
        ([f"data={tmp_path / 'empty'}"], str(tmp_path / "empty")),
        ([photos, "words=[red, blue]"], "-p criterion="),
        ([photos, "criterion=colr"], "did you mean 'color'?"),
        ([photos, "criterion=color", "n_clusters=2"], "n_clusters=2: "),
        ([photos, "criterion=color"], "too few to count clusters"),
        ([photos, "criterion=suits"], "of photo, but of the domain card"),
    ]:
        given = [word for pair in parameters for word in ("-p", pair)]
        status, printed = main("--only", "18", *given, "--out", tmp_path / "out", *option)
        assert status == 2 and message in printed, printed
    assert not (tmp_path / "out").exists()


def test_a_dry_run_describes_a_users_folder(tmp_path, main):
    for name, color in {"a": "red", "b": "blue"}.items():
        (tmp_path / "photos" / color).mkdir(parents=True)
        Image.new("RGB", (8, 8), color).save(tmp_path / "photos" / color / f"{name}.png")
    parameters = ("-p", f"data={tmp_path / 'photos'}", "-p", "criterion=Class")
    status, printed = main("--only", "18", *parameters, "--dry-run", "--out", tmp_path / "out")
    assert status == 0
    assert f"{tmp_path / 'photos'}: 2 pictures; class: 2 classes (blue, red)" in printed
    parameters = (*parameters[:2], "-p", "criterion=colour", "-p", "n_clusters=2")
    status, printed = main("--only", "18", *parameters, "--dry-run", "--out", tmp_path / "out")
    assert status == 0 and f"{tmp_path / 'photos'}: 2 pictures; no labels" in printed
    words = mm.reference_words("color", of="photo")
    assert f"colour of photo: {len(words)} from {words.source}" in printed
    assert "photo: in the package" in printed
    colored_pictures(tmp_path / "unlabeled", number=3)
    parameters = ("-p", f"data={tmp_path / 'unlabeled'}")
    status, printed = main("--only", "18", *parameters, "--dry-run", "--out", tmp_path / "out")
    assert status == 0 and "a keyword will be suggested" in printed


def test_the_remaining_time():
    texts = ["about 1:05 left", "about 0:01 left", "longer than expected"]
    assert [script.remaining(seconds) for seconds in (65, 1, 0)] == texts
    assert script.clock(39_900) == "11 h 05"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--only", "99"], "'99': profile 'demo' has 00_quickstart"),
        (["-p", "wrong=1"], "no notebook has a parameter 'wrong'"),
        (["-p", "data=photos"], "-p data=... is for 18_your_pictures: select it with --only"),
        (["-p", "n"], "'n' is not NAME=VALUE"),
        (["-p", "n=[1"], "'n=[1' is not valid YAML"),
        (["-p", "words=[sun, rain"], "'words=[sun, rain' is not valid YAML"),
        (["-p", "n_cluster=3"], "'n_cluster': did you mean 'n_clusters'?"),
        (["-p", "n=thirty"], "n must be an integer of at least 1, not 'thirty'"),
        (["-p", "n=-3"], "n must be an integer of at least 1, not -3"),
        (["-p", "n=yes"], "n must be an integer of at least 1, not True"),
        (
            ["--only", "18", "-p", "n_clusters=0"],
            "n_clusters must be an integer of at least 1, or auto, not 0",
        ),
        (
            ["--only", "18", "-p", "n_clusters="],
            "n_clusters must be an integer of at least 1, or auto, not ''",
        ),
        (["--only", "18", "-p", "words="], "words must be a list of at least one text"),
        (
            ["--only", "18", "-p", "data=.", "-p", "criterion=color", "-p", "words=red,red"],
            "duplicate reference word 'red'",
        ),
        (["--only", "18", "-p", "criterion="], "criterion must be a text without *, not ''"),
        (["--only", "18", "-p", "domain=*fruit"], "domain must be a text without *, not '*fruit'"),
        (["-p", "seeds=[0, 1]"], "seeds must be an integer of at least 1, not [0, 1]"),
        (["--only", "10", "-p", "epochs=[]"], "10_efficiency.epochs must be a list of integers"),
        (["-p", "criteria={demo-fruit: []}"], "criteria.demo-fruit must be a list"),
        (["-p", "keywords=[colour]"], "criterion 'colour' is not in demo-fruit"),
        (["-p", "world=demo-frut"], "data set 'demo-frut' is neither a folder nor one of"),
        (["--only", "08", "-p", "world=nowhere:load"], "'nowhere:load': no module 'nowhere'"),
        (["--only", "18", "-p", "encoder=nowhere:load"], "'nowhere:load': no module 'nowhere'"),
        (["-p", "out=elsewhere"], "use --out"),
        (["--only", "01", "--workers", "-3"], "workers must be at least 0, not -3: without it, "),
        (["--only", "01", "--jobs", "-2"], "jobs must be at least 1, not -2: without it, "),
        (["--only", "01", "--jobs", "0"], "jobs must be at least 1, not 0"),
        (["--device", "gpu"], "no device 'gpu' on this machine: use cpu"),
        (["--profile", "mars"], "'mars'"),
    ],
)
def test_invalid_arguments_are_reported(tmp_path, main, arguments, message):
    status, printed = main(*arguments, "--out", tmp_path / "out")
    assert status == 2 and message in printed, printed
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "must hold settings, such as base: demo, not None"),
        ("[a, b", "is not valid YAML"),
        ("base: demo\nencoder: [mini", "is not valid YAML"),
        ("base: mine.yaml", "is its own base"),
        ("base: 5", "unknown profile '5'"),
        ("notebooks: {}", "has no encoder: set one, or a base such as base: demo"),
        ("base: demo\nencodr: x", "unknown setting 'encodr': did you mean 'encoder'?"),
        ("base: demo\nmethds: {}", "unknown setting 'methds': did you mean 'methods'?"),
        ("base: demo\nmethods: {MultiSub: }", "methods.MultiSub must be settings"),
        ("base: demo\nmethods: {MultiSup: {}}", "methods must be KMeans, CRL, "),
        ("base: demo\nsource: lexcion", "source must be lexicon or openai:MODEL, not 'lexcion'"),
        ("base: demo\nnotebooks: {00_quickstart: }", "00_quickstart must be settings, {} if"),
        ("base: demo\nnotebooks: {00_quikstart: {n: 20}}", "did you mean '00_quickstart'?"),
        ("base: demo\nnotebooks: {00_quickstart: {nn: 20}}", "no setting 'nn': did you mean 'n'?"),
        ("base: demo\nnotebooks: {00_quickstart: {n: 0}}", "n must be an integer of at least 1"),
        ("base: demo\nnotebooks: {00_quickstart: {seed: }}", "seed must be an integer"),
    ],
)
def test_a_profile_with_a_mistake_is_refused_with_its_file(tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError) as error:
        load_profile(str(tmp_path / "mine.yaml"))
    assert message in str(error.value) and len(str(error.value)) < 1000
    if "unknown profile" not in message:
        assert str(tmp_path / "mine.yaml") in str(error.value)


def test_the_base_of_a_profile_is_relative_to_it(tmp_path):
    (tmp_path / "first.yaml").write_text("base: demo\nencoder: mini-half")
    (tmp_path / "second.yaml").write_text("base: first.yaml\nnotebooks: {08_tsne: {n: 7}}")
    profile = load_profile(str(tmp_path / "second.yaml"))
    assert profile["encoder"] == "mini-half" and profile["notebooks"]["08_tsne"]["n"] == 7


def test_errors_before_the_first_notebook_do_not_promise_finished_results(
    tmp_path, main, monkeypatch
):
    (tmp_path / "file").touch()
    status, printed = main("--only", "01", "--out", tmp_path / "file" / "out")
    assert status == 2 and "choose another --out" in printed and "stored" not in printed
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    status, printed = main("--only", "01", "--out", tmp_path / "out")
    assert status == 2 and "working directory no longer exists" in printed
    alone = shutil.copy(ROOT / "run_all.py", tmp_path)
    run = subprocess.run([sys.executable, alone], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 2 and "clone the repository" in run.stdout, run.stderr


def test_the_command_returns_its_exit_status(tmp_path):
    run = run_all("--only", "99", "--out", tmp_path)
    assert run.returncode == 2 and "'99'" in run.stdout and not run.stderr


GO = """
import sys
from pathlib import Path
from mmclust.pipeline.notebooks import reproduce
if __name__ == '__main__':
    reproduce(profile=sys.argv[1], out=sys.argv[2], notebooks=Path(sys.argv[3]))
"""


def test_a_killed_run_keeps_what_was_finished(tmp_path):
    sources = {"a": TABLE.format("a"), "b": "import time\ntime.sleep(120)"}
    profile = write_notebooks(tmp_path / "nb", **sources)
    (tmp_path / "go.py").write_text(GO)
    command = [sys.executable, tmp_path / "go.py", profile, tmp_path / "out", tmp_path / "nb"]
    process = subprocess.Popen(command)
    kernels = []
    for _ in range(600):
        if (tmp_path / "out" / ".state" / "a.json").exists():
            kernels = started("ipykernel", process.pid)
            if kernels:
                break
        time.sleep(0.1)
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert kernels and not psutil.wait_procs(family, timeout=20)[1], "a process outlived the run"
    write_notebooks(tmp_path / "nb", a=TABLE.format("a"), b=TABLE.format("b"))
    outcomes = reproduce(profile=profile, out=tmp_path / "out", notebooks=tmp_path / "nb")
    assert [outcome.status for outcome in outcomes] == ["up to date", "done"]


def test_parameters_are_read_as_yaml():
    pairs = ["n=3", "words=[yes, 01, 'b']", "name=x y", "none=", "seeds=null", "mine=[1, yes]"]
    values = {"n": 3, "words": ["yes", "01", "b"], "name": "x y", "none": "", "seeds": None}
    assert dict(map(script.parameter, pairs)) == values | {"mine": [1, True]}


@pytest.mark.parametrize("text", ["2024", "007", "*fruit", "@mood", "no", "a: b", "[x", "a #1"])
def test_texts_are_taken_as_they_were_typed(text):
    for value in (text, f"'{text}'", f'"{text}"'):
        assert script.parameter(f"criterion={value}") == ("criterion", text)


def test_the_lessons_run_by_default_and_come_first():
    entries = load_profile()["notebooks"]
    by_default = select(None, "demo")
    numbers = [name[:2] for name in by_default]
    assert numbers[:7] == ["00", "13", "14", "15", "03", "17", "12"]
    assert sorted(numbers) == [f"{n:02}" for n in [*range(16), 17]]
    assert by_default == [name for name in entries if name[:2] not in ("16", "18")]
    lessons = [
        "13_multimap_step_by_step",
        "14_multisub_step_by_step",
        "15_multidproxy_step_by_step",
    ]
    assert select(["teaching"], "demo") == [*lessons, "16_explorer"]
    assert select(["00", "teaching"], "demo") == ["00_quickstart", *lessons, "16_explorer"]
    assert select([lessons[0][:2]], "demo") == lessons[:1]
    assert select(["01_datasets.ipynb"], "demo") == ["01_datasets"]


@pytest.mark.parametrize("profile", ["paper", "photo"])
def test_lessons_of_other_profiles_run_when_they_are_asked_for(profile):
    assert not {"13", "14", "15", "16"} & {name[:2] for name in select(None, profile)}
    assert [name[:2] for name in select(["teaching"], profile)] == ["13", "14", "15", "16"]


def test_settings_come_from_the_profile_unless_given():
    assert settings("00_quickstart", n=7).n == 7
    assert settings("00_quickstart").n == load_profile()["notebooks"]["00_quickstart"]["n"]
    with pytest.raises(ValueError, match="'m'"):
        settings("00_quickstart", m=1)
    with pytest.raises(ValueError, match=r"no notebook '00_quikstart'.*'00_quickstart'"):
        settings("00_quikstart")


@pytest.mark.parametrize(
    "notebook, name, value, meaning",
    [
        ("18_your_pictures", "words", "sun, rain", ["sun", "rain"]),
        ("18_your_pictures", "words", [True, 2], ["yes", "2"]),
        ("18_your_pictures", "data", 2024, "2024"),
        ("18_your_pictures", "data", ROOT, str(ROOT)),
        ("18_your_pictures", "n_clusters", "auto", "auto"),
        ("08_tsne", "keywords", "color", ["color"]),
        ("12_paper_vs_code", "criteria", {"demo-card": "suits"}, {"demo-card": ["suits"]}),
        ("13_multimap_step_by_step", "epochs", np.int64(3), 3),
    ],
)
def test_values_are_converted_where_their_meaning_is_certain(notebook, name, value, meaning):
    assert getattr(settings(notebook, **{name: value}), name) == meaning


def test_every_parameter_of_a_notebook_has_a_type():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        names = notebook_parameters(path) - {"profile", "out"}
        assert names <= schema()["properties"].keys(), path
    assert all(re.match(schema()["$defs"]["method"]["pattern"], name) for name in METHODS)
    for profile in profile_names():
        for entry in load_profile(profile)["notebooks"].values():
            assert entry.keys() <= schema()["properties"].keys()
