"""Runs of notebooks, and run_all.py as a user calls it: real kernels, real files, failures too."""

import json
import os
import subprocess
import sys
import time

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

import mmclust as mm
import run_all as script
from mmclust.pipeline.notebooks import plan, reproduce, select, stamp
from mmclust.profiles import load_profile, settings


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
    assert "died" in outcomes[0].error.lower()


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
    run = run_all("--profile", quick_profile(tmp_path), "--out", out)
    assert run.returncode == 0, run.stdout + run.stderr
    names = select(None, "demo")
    assert f"{len(names)} done, 0 up to date, 0 failed" in run.stdout
    for name in names:
        notes = [json.loads(path.read_text()) for path in (out / ".state").glob(f"{name}--*")]
        files = [file for note in notes for file in note["files"]]
        assert files and all((out / file).stat().st_size for file in files), name
        assert all(note["caption"] for note in notes), name
        assert all(any(f.endswith(".csv") for f in note["files"]) for note in notes), name
        assert not printed_errors(out / "notebooks" / f"{name}.ipynb"), name
    check_numbers(out)
    again = run_all("--profile", tmp_path / "quick.yaml", "--out", out)
    assert "0 done" in again.stdout and again.returncode == 0


def check_numbers(out):
    def table(name):
        return pd.read_csv(out / f"{name}.csv")

    rows = table("02_main_comparison")
    columns = {"dataset", "criterion", "encoder", "method", "representation", "seed"}
    assert columns | {"NMI", "RI", "ARI", "AMI"} <= set(rows.columns)
    methods = {"KMeans", "CLIP_GPT", "CLIP_label", "MultiMaP", "MultiSub", "MultiDProxy"}
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
    assert len(table("05_subspace_ablation")) == 3 * 4 * 7 * 2
    assert len(table("06_constraint_ablation_map")) == 4 * 4 * 2
    ablated = table("07_dproxy_ablation")
    assert ablated["row"].nunique() == 7
    assert ablated.groupby("row")["NMI"].mean().nunique() > 4
    points = table("08_tsne_color")
    assert points["panel"].nunique() == 7 and len(points) == 7 * 26
    parameters = {"lam", "update_every", "layers", "tau", "tau_alpha"}
    assert set(table("09_hyperparameters")["parameter"]) == parameters
    assert set(table("10_efficiency_epoch_mini")["way"]) == {"authors' way", "ours"}
    assert set(table("11_new_criterion")["criterion"]) == {"shape"}
    flipped = table("12_paper_vs_code")
    assert set(flipped["method"]) == {"MultiMaP", "MultiSub"} and len(flipped) > 15


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
    status, printed = main(*command, "-p", "method=MultiMaP", "-p", 'sweep={"R": [1]}')
    assert status == 1 and "MultiMaP has no parameter 'R'" in printed


def test_a_folder_of_pictures(tmp_path):
    """The quickstart on a user's folder: colored squares, labels in a CSV file, a broken link."""
    folder = tmp_path / "my pictures [1]"
    colors = colored_pictures(folder)
    files = [f"{i}.png" for i in range(len(colors))]
    pd.DataFrame({"file": files, "color": colors}).to_csv(folder / "labels.csv", index=False)
    (folder / "gone.png").symlink_to("nowhere.png")
    parameters = ("-p", f"data={folder}", "-p", "criterion=color", "-p", "domain=fruit")
    out = tmp_path / "out"
    profile = ("--profile", quick_profile(tmp_path))
    run = run_all("--only", "00_quickstart", *profile, *parameters, "--out", out)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{folder}: 24 pictures; color: 3 classes" in run.stdout and "gone.png" in run.stdout
    members = pd.read_csv(out / "00_quickstart_folder.csv")
    assert len(members) == 24 and members["cluster"].nunique() == 3
    scores = pd.read_csv(out / "00_quickstart_folder_scores.csv").set_index("method")
    assert scores.loc["Multi-Sub", "NMI"] > 0.6
    assert "mini was trained on captions" in (out / "index.html").read_text()


@pytest.mark.slow
def test_a_folder_without_labels(tmp_path, main):
    """Clusters are counted, nothing is scored."""
    folder = tmp_path / "photos"
    colored_pictures(folder)
    parameters = ("-p", f"data={folder}", "-p", "criterion=color", "-p", "domain=fruit")
    out = tmp_path / "out"
    profile = ("--profile", quick_profile(tmp_path))
    status, printed = main("--only", "00", *profile, *parameters, "--out", out)
    assert status == 0, printed
    assert 2 <= pd.read_csv(out / "00_quickstart_folder.csv")["cluster"].nunique() <= 8
    assert not list(out.glob("00_quickstart_folder_scores*"))
    assert "clusters, estimated" in (out / "notebooks" / "00_quickstart.ipynb").read_text()


def test_files_of_a_run_with_other_parameters_are_removed(tmp_path):
    profile = write_notebooks(tmp_path / "nb", a=TABLE.format("a").replace("'x'", "f'of_{n}'"))
    for n in (1, 2):
        (outcome,) = reproduce(
            None, {"n": n}, profile, out=tmp_path / "out", notebooks=tmp_path / "nb"
        )
        assert outcome.status == "done"
    files = {path.name for path in (tmp_path / "out").glob("a_of_*")}
    assert files == {f"a_of_2.{suffix}" for suffix in ("csv", "md", "tex")}


@pytest.mark.parametrize("option", [(), ("--dry-run",)])
def test_a_bad_folder_is_reported_before_anything_starts(tmp_path, main, option):
    (tmp_path / "empty").mkdir()
    colored_pictures(tmp_path / "photos", number=1)
    photos = f"data={tmp_path / 'photos'}"
    for parameters, message in [
        (["data=nowhere"], "nowhere"),
        ([f"data={tmp_path / 'empty'}"], str(tmp_path / "empty")),
        ([photos], "-p criterion="),
        ([photos, "criterion=colour"], "did you mean 'color'?"),
    ]:
        given = [word for pair in parameters for word in ("-p", pair)]
        status, printed = main("--only", "00", *given, "--out", tmp_path / "out", *option)
        assert status == 2 and message in printed, printed
    assert not (tmp_path / "out" / "index.html").exists()


def test_a_dry_run_describes_a_users_folder(tmp_path, main):
    for name, color in {"a": "red", "b": "blue"}.items():
        (tmp_path / "photos" / color).mkdir(parents=True)
        Image.new("RGB", (8, 8), color).save(tmp_path / "photos" / color / f"{name}.png")
    parameters = ("-p", f"data={tmp_path / 'photos'}", "-p", "criterion=color")
    status, printed = main("--only", "00", *parameters, "--dry-run", "--out", tmp_path / "out")
    assert (
        status == 0
        and f"{tmp_path / 'photos'}: 2 pictures; class: 2 classes (blue, red)" in printed
    )
    words = mm.reference_words("color", of="photo")
    assert f"color of photo: {len(words)} from {words.source}" in printed


def test_the_remaining_time():
    texts = ["about 1:05 left", "about 0:01 left", "longer than expected"]
    assert [script.remaining(seconds) for seconds in (65, 1, 0)] == texts
    assert script.clock(39_900) == "11 h 05"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--only", "99"], "'99': profile 'demo' has 00_quickstart"),
        (["-p", "wrong=1"], "no selected notebook has a parameter 'wrong'"),
        (["-p", "n"], "'n' is not NAME=VALUE"),
        (["-p", "n=[1"], "'n=[1' is not valid YAML"),
        (["--profile", "mars"], "'mars'"),
    ],
)
def test_invalid_arguments_are_reported(tmp_path, main, arguments, message):
    status, printed = main(*arguments, "--out", tmp_path)
    assert status == 2 and message in printed


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
    pairs = ["n=3", "words=[a, b]", "name=x y", "none="]
    values = {"n": 3, "words": ["a", "b"], "name": "x y", "none": ""}
    assert dict(map(script.parameter, pairs)) == values


def test_lessons_run_when_they_are_asked_for():
    entries = load_profile()["notebooks"]
    lessons = [name for name in entries if entries[name].get("teaching")]
    others = [name for name in entries if name not in lessons]
    assert lessons and select(None, "demo") == others
    assert select(["teaching"], "demo") == lessons
    assert select(["00", "teaching"], "demo") == ["00_quickstart", *lessons]
    assert select([lessons[0][:2]], "demo") == lessons[:1]
    assert select(["01_datasets.ipynb"], "demo") == ["01_datasets"]


def test_settings_come_from_the_profile_unless_given():
    assert settings("00_quickstart", n=7).n == 7
    assert settings("00_quickstart").n == load_profile()["notebooks"]["00_quickstart"]["n"]
    with pytest.raises(ValueError, match="'m'"):
        settings("00_quickstart", m=1)
