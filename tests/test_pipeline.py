"""run_all.py as a user calls it: real kernels, real files, failures included."""

import json
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import psutil
import pytest
from helpers.processes import started
from PIL import Image

import mmclust as mm
from mmclust.pipeline.notebooks import parse_parameters, reproduce, select
from mmclust.profiles import load_profile, settings

ROOT = Path(__file__).parents[1]


def run_all(*args, **kwargs):
    return subprocess.run(
        [sys.executable, ROOT / "run_all.py", *map(str, args)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        **kwargs,
    )


def write_notebooks(folder, **sources):
    """Notebooks of a parameters cell and one more, and a profile that lists them."""
    folder.mkdir(exist_ok=True)
    for name, source in sources.items():
        book = nbformat.v4.new_notebook(
            metadata={
                "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
            }
        )
        parameters = nbformat.v4.new_code_cell(
            "out = None\nn = 1", metadata={"tags": ["parameters"]}
        )
        book.cells = [parameters, nbformat.v4.new_code_cell(source)]
        for k, cell in enumerate(book.cells):
            cell["id"] = f"cell-{k}"  # not random: the same source is the same notebook
        nbformat.write(book, folder / f"{name}.ipynb")
    profile = folder / "profile.yaml"
    profile.write_text(
        json.dumps(
            {
                "encoder": "mini",
                "notebooks": {name: {"title": name, "seconds": 2} for name in sources},
            }
        )
    )
    return str(profile)


GOOD = "import pandas as pd\nfrom mmclust.results.output import NotebookOutput\nNotebookOutput('{0}', out).table(pd.DataFrame({{'n': [n]}}), 'x', 'a caption');"


def test_a_failing_notebook_does_not_stop_the_others(tmp_path):
    profile = write_notebooks(
        tmp_path / "nb", a=GOOD.format("a"), b="value = 1 / (n - 1)", c=GOOD.format("c")
    )
    told = []
    outcomes = reproduce(
        profile=profile,
        out=tmp_path / "out",
        notebooks=tmp_path / "nb",
        jobs=1,
        workers=2,
        on_event=lambda *what: told.append(what),
    )
    assert [o.status for o in outcomes] == ["done", "failed", "done"]
    assert "ZeroDivisionError" in outcomes[1].error and "1 / (n - 1)" in outcomes[1].where
    assert [event for event, *_ in told if event not in ("tick", "cluster")] == [
        "start",
        "end",
    ] * 3 and told[-1][2] <= 0
    assert {"tick", "cluster"} <= {
        event for event, *_ in told
    } and "dashboard at http://127.0.0.1" in told[0][1]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "a caption" in page and "ZeroDivisionError" in page
    assert (
        tmp_path / "out" / "notebooks" / "b.html"
    ).exists()  # the copy that shows where it failed
    again = reproduce(
        profile=profile, out=tmp_path / "out", notebooks=tmp_path / "nb", parameters={"n": 1}
    )
    assert [o.status for o in again] == [
        "done",
        "failed",
        "done",
    ]  # other parameters than before: nothing is taken for granted
    third = reproduce(
        profile=profile, out=tmp_path / "out", notebooks=tmp_path / "nb", parameters={"n": 1}
    )
    assert [o.status for o in third] == ["up to date", "failed", "up to date"]


def test_what_is_out_of_date_runs_again(tmp_path):
    profile = write_notebooks(tmp_path / "nb", a=GOOD.format("a"))
    go = lambda **more: (
        reproduce(profile=profile, out=tmp_path / "out", notebooks=tmp_path / "nb", **more)[
            0
        ].status
    )  # noqa: E731
    assert (go(), go()) == ("done", "up to date")
    assert go(force=True) == "done"
    (tmp_path / "out" / "a_x.csv").unlink()
    assert (go(), go()) == ("done", "up to date")
    write_notebooks(tmp_path / "nb", a=GOOD.format("a") + "\n1 + 1")
    assert (go(), go()) == ("done", "up to date")


def test_a_killed_kernel_is_a_failure_in_words(tmp_path):
    profile = write_notebooks(
        tmp_path / "nb",
        a="import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
        b=GOOD.format("b"),
    )
    outcomes = reproduce(profile=profile, out=tmp_path / "out", notebooks=tmp_path / "nb")
    assert [o.status for o in outcomes] == ["failed", "done"] and "died" in outcomes[
        0
    ].error.lower()


def test_notebooks_at_the_same_time(tmp_path):
    profile = write_notebooks(tmp_path / "nb", a=GOOD.format("a"), b=GOOD.format("b"))
    assert [
        o.status
        for o in reproduce(profile=profile, out=tmp_path / "out", notebooks=tmp_path / "nb", jobs=2)
    ] == ["done", "done"]


def test_run_all_runs_skips_and_names_its_files(tmp_path):
    first = run_all("--only", "01", "-p", "n=40", "--out", tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    names = {p.name for p in tmp_path.iterdir()}
    assert {
        "index.html",
        "01_datasets.csv",
        "01_datasets_samples.png",
        "01_datasets_samples.svg",
        "01_datasets_samples.csv",
    } <= names
    table = pd.read_csv(tmp_path / "01_datasets.csv")
    assert set(table["images"]) == {40} and {"color", "suits", "pose"} <= set(table["criterion"])
    start = time.time()
    second = run_all("--only", "01_datasets", "-p", "n=40", "--out", tmp_path)
    assert second.returncode == 0 and "1 up to date" in second.stdout and time.time() - start < 15


def quick_profile(folder):
    """The demo profile with a few pictures and epochs: every notebook as it is, in seconds."""
    profile = load_profile()
    for settings_of in (profile["methods"], profile["released"]):
        settings_of["MultiMaP"] |= {"epochs": 4}
        settings_of["MultiSub"] |= {
            "alternations": 1,
            "phase1_epochs": 4,
            "phase2_epochs": 0 if settings_of is profile["released"] else 2,
        }
    profile["methods"]["MultiDProxy"] |= {"epochs": 6, "update_every": 3}
    for entry in profile["notebooks"].values():
        entry |= {key: value for key, value in {"n": 26, "seeds": 2}.items() if key in entry}
    profile["notebooks"]["07_dproxy_ablation"]["candidates"]["update_every"] = 2
    profile["notebooks"]["09_hyperparameters"]["sweeps"]["MultiDProxy"]["update_every"] = [2, 3]
    profile["notebooks"]["10_efficiency"] |= {"epochs": [2, 4], "images": 12}
    path = folder / "quick.yaml"
    path.write_text(json.dumps(profile))
    return path


@pytest.mark.slow
def test_every_notebook_runs_and_leaves_its_figures_and_tables(tmp_path):
    out = tmp_path / "out"
    run = run_all("--profile", quick_profile(tmp_path), "--out", out)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{len(select(None, 'demo'))} done, 0 up to date, 0 failed" in run.stdout
    for name in select(None, "demo"):
        notes = [json.loads(p.read_text()) for p in (out / ".state").glob(f"{name}--*.json")]
        assert notes and all(
            (out / file).stat().st_size for note in notes for file in note["files"]
        ), name
        assert all(
            note["caption"] and any(f.endswith(".csv") for f in note["files"]) for note in notes
        ), name
        cells = json.loads((out / "notebooks" / f"{name}.ipynb").read_text())["cells"]
        noise = [
            "".join(o["text"])
            for c in cells
            for o in c.get("outputs", [])
            if o.get("name") == "stderr"
        ]
        assert not noise, f"{name}: {noise[0][:300]}"
    rows = pd.read_csv(out / "02_main_comparison.csv")
    assert {
        "dataset",
        "criterion",
        "encoder",
        "method",
        "representation",
        "seed",
        "NMI",
        "RI",
        "ARI",
        "AMI",
    } <= set(rows.columns)
    assert (
        set(rows["method"])
        == {"KMeans", "CLIP_GPT", "CLIP_label", "MultiMaP", "MultiSub", "MultiDProxy"}
        and rows["criterion"].nunique() == 8
    )
    main = pd.read_csv(out / "02_main_comparison_nmi.csv")
    assert main.groupby("method")["representation"].unique().map(list).to_dict()["MultiDProxy"] == [
        "fused"
    ]
    assert main.groupby(["method", "criterion"]).size().eq(2).all()
    zero_shot = pd.read_csv(out / "03_zero_shot.csv").set_index(["method", "criterion", "seed"])
    assert (
        zero_shot.loc[("CLIP_GPT", "color", 1), "NMI"]
        == rows.set_index(["method", "criterion", "seed"]).loc[("CLIP_GPT", "color", 1), "NMI"]
    )
    assert set(pd.read_csv(out / "04_text_encoders.csv")["encoder"]) == {
        "mini-quarter",
        "mini-half",
        "mini",
    }
    assert len(pd.read_csv(out / "05_subspace_ablation.csv")) == 3 * 4 * 7 * 2
    assert len(pd.read_csv(out / "06_constraint_ablation_map.csv")) == 4 * 4 * 2
    ablated = pd.read_csv(out / "07_dproxy_ablation.csv")
    assert ablated["row"].nunique() == 7 and ablated.groupby("row")["NMI"].mean().nunique() > 4
    points = pd.read_csv(out / "08_tsne_color.csv")
    assert points["panel"].nunique() == 7 and len(points) == 7 * 26
    assert set(pd.read_csv(out / "09_hyperparameters.csv")["parameter"]) == {
        "lam",
        "update_every",
        "layers",
        "tau",
        "tau_alpha",
    }
    assert set(pd.read_csv(out / "10_efficiency_epoch_mini.csv")["way"]) == {"authors' way", "ours"}
    assert pd.read_csv(out / "11_new_criterion.csv")["criterion"].unique().tolist() == ["shape"]
    flipped = pd.read_csv(out / "12_paper_vs_code.csv")
    assert set(flipped["method"]) == {"MultiMaP", "MultiSub"} and len(flipped) > 15
    again = run_all("--profile", tmp_path / "quick.yaml", "--out", out)
    assert "0 done" in again.stdout and again.returncode == 0


@pytest.mark.slow
def test_a_sweep_from_the_command_line(tmp_path):
    sweep = (
        "-p",
        "method=MultiMaP",
        "-p",
        'sweep={"alpha": [0, 1], "init": ["word", "text"]}',
        "-p",
        "criteria={demo-fruit: [color]}",
    )
    run = run_all(
        "--only", "09_hyperparameters", *sweep, "-p", "n=20", "-p", "seeds=1", "--out", tmp_path
    )
    assert run.returncode == 0, run.stdout + run.stderr
    rows = pd.read_csv(tmp_path / "09_hyperparameters.csv")
    assert rows.groupby("parameter")["value"].nunique().to_dict() == {
        "alpha": 2,
        "init": 2,
    } and set(rows["method"]) == {"MultiMaP"}
    plain = run_all(
        "--only",
        "09",
        "-p",
        "method=KMeans",
        "-p",
        "sweep={n_init: [1, 3]}",
        "-p",
        "n=20",
        "-p",
        "seeds=1",
        "--out",
        tmp_path / "plain",
    )
    assert plain.returncode == 0, plain.stdout + plain.stderr
    wrong = run_all(
        "--only", "09", "-p", "method=MultiMaP", "-p", 'sweep={"R": [1]}', "--out", tmp_path
    )
    assert wrong.returncode == 1 and "MultiMaP has no parameter 'R'" in " ".join(
        wrong.stdout.split()
    )


def test_a_folder_of_pictures(tmp_path):
    """The quickstart on a directory that is not ours: colored squares, labels in a CSV file."""
    folder, rows = tmp_path / "my pictures", []
    folder.mkdir()
    for i in range(24):
        color = ("red", "blue", "green")[i % 3]
        Image.new("RGB", (50, 40), color).rotate(i).save(folder / f"{i}.png")
        rows.append({"file": f"{i}.png", "color": color})
    pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)
    run = run_all(
        "--only",
        "00_quickstart",
        "-p",
        f"data={folder}",
        "-p",
        "criterion=color",
        "-p",
        "domain=fruit",
        "-p",
        "n=60",
        "--out",
        tmp_path / "out",
    )
    assert run.returncode == 0, run.stdout + run.stderr
    members = pd.read_csv(tmp_path / "out" / "00_quickstart_folder.csv")
    assert len(members) == 24 and members["cluster"].nunique() == 3
    scores = pd.read_csv(tmp_path / "out" / "00_quickstart_folder_scores.csv").set_index("method")
    assert scores.loc["Multi-Sub", "NMI"] > 0.6
    assert "mini learned from captions" in (tmp_path / "out" / "index.html").read_text()


@pytest.mark.slow
def test_a_folder_without_labels(tmp_path):
    """Clusters are counted, nothing is scored."""
    (tmp_path / "photos").mkdir()
    for i in range(24):
        Image.new("RGB", (50, 40), ("red", "blue", "green")[i % 3]).rotate(i).save(
            tmp_path / "photos" / f"{i}.png"
        )
    command = (
        "--only",
        "00_quickstart",
        "-p",
        f"data={tmp_path / 'photos'}",
        "-p",
        "criterion=color",
        "-p",
        "domain=fruit",
        "-p",
        "n=40",
    )
    run = run_all(*command, "--out", tmp_path / "out")
    assert run.returncode == 0, run.stdout + run.stderr
    assert 2 <= pd.read_csv(tmp_path / "out" / "00_quickstart_folder.csv")["cluster"].nunique() <= 8
    assert not list((tmp_path / "out").glob("00_quickstart_folder_scores*"))
    assert (
        "clusters, counted" in (tmp_path / "out" / "notebooks" / "00_quickstart.ipynb").read_text()
    )


def test_what_a_run_with_other_parameters_left_is_taken_away(tmp_path):
    source = "import pandas as pd\nfrom mmclust.results.output import NotebookOutput\nNotebookOutput('a', out).table(pd.DataFrame({'n': [n]}), f'of_{n}', 'a caption');"
    profile = write_notebooks(tmp_path / "nb", a=source)
    for n in (1, 2):
        assert (
            reproduce(None, {"n": n}, profile, out=tmp_path / "out", notebooks=tmp_path / "nb")[
                0
            ].status
            == "done"
        )
    assert {p.name for p in (tmp_path / "out").glob("a_of_*")} == {
        f"a_of_2.{kind}" for kind in ("csv", "md", "tex")
    }


@pytest.mark.parametrize("also", [(), ("--dry-run",)])
def test_a_bad_folder_is_told_before_anything_starts(tmp_path, also):
    (tmp_path / "empty").mkdir()
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "a.png")
    for given, message in {
        ("data=nowhere",): "no folder nowhere",
        (f"data={tmp_path / 'empty'}",): "holds no pictures",
        (
            f"data={tmp_path / 'photos'}",
        ): "has no labels: say what to look for with -p criterion=...",
        (
            f"data={tmp_path / 'photos'}",
            "criterion=colour",
        ): "no words for 'colour' of photo (did you mean 'color'?)",
    }.items():
        run = run_all(
            "--only",
            "00",
            *[word for p in given for word in ("-p", p)],
            "--out",
            tmp_path / "out",
            *also,
        )
        assert (
            run.returncode == 2
            and message in " ".join(run.stdout.split())
            and "Traceback" not in run.stderr
        ), run.stdout
    assert not (tmp_path / "out" / "index.html").exists()


def test_a_dry_run_looks_at_ones_own_folder(tmp_path):
    for name, color in {"a": "red", "b": "blue"}.items():
        (tmp_path / "photos" / color).mkdir(parents=True)
        Image.new("RGB", (8, 8), color).save(tmp_path / "photos" / color / f"{name}.png")
    given = ("-p", f"data={tmp_path / 'photos'}", "-p", "criterion=color")
    said = " ".join(
        run_all("--only", "00", *given, "--dry-run", "--out", tmp_path / "out").stdout.split()
    )
    assert f"{tmp_path / 'photos'}: 2 pictures, labels: class" in said
    assert (
        f"color of photo: {len(mm.reference_words('color', of='photo'))} from the lexicon's common list for 'color'"
        in said
    )


def test_the_time_that_is_left():
    sys.path.insert(0, str(ROOT))
    import run_all as script

    assert [script.remaining(s) for s in (65, 1, 0)] == [
        "about 1:05 left",
        "about 0:01 left",
        "longer than expected",
    ]


@pytest.mark.parametrize(
    "args, message",
    [
        (["--only", "99"], "no notebook '99' in profile 'demo': 00_quickstart"),
        (["-p", "wrong=1"], "no selected notebook has a parameter 'wrong'"),
        (["-p", "n"], "-p takes name=value, not 'n'"),
        (["--profile", "mars"], "'mars'"),
    ],
)
def test_wrong_calls_are_answered_in_one_line(tmp_path, args, message):
    run = run_all(*args, "--out", tmp_path)
    assert (
        run.returncode == 2
        and message in " ".join(run.stdout.split())
        and "Traceback" not in run.stderr
    )


def test_a_stopped_run_keeps_what_was_finished(tmp_path):
    profile = write_notebooks(tmp_path / "nb", a=GOOD.format("a"), b="import time\ntime.sleep(120)")
    code = (
        "import sys; from pathlib import Path; from mmclust.pipeline.notebooks import reproduce\n"
        "if __name__ == '__main__': reproduce(profile=sys.argv[1], out=sys.argv[2], notebooks=Path(sys.argv[3]))"
    )
    script = tmp_path / "go.py"
    script.write_text(code)
    process = subprocess.Popen([sys.executable, script, profile, tmp_path / "out", tmp_path / "nb"])
    kernels = []
    for _ in range(600):
        if (tmp_path / "out" / ".state" / "a.json").exists():
            kernels = started("ipykernel", process.pid)
            if kernels:
                break
        time.sleep(0.1)
    everything = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert kernels and not psutil.wait_procs(everything, timeout=20)[1], (
        "a kernel or worker outlived the run"
    )
    write_notebooks(tmp_path / "nb", a=GOOD.format("a"), b=GOOD.format("b"))
    outcomes = reproduce(profile=profile, out=tmp_path / "out", notebooks=tmp_path / "nb")
    assert [o.status for o in outcomes] == ["up to date", "done"]


def test_parameters_are_read_as_yaml():
    assert parse_parameters(["n=3", "words=[a, b]", "name=x y", "none="]) == {
        "n": 3,
        "words": ["a", "b"],
        "name": "x y",
        "none": "",
    }
    assert select(["01"], "demo") == ["01_datasets"]


def test_notebooks_that_teach_run_when_they_are_asked_for():
    known = load_profile()["notebooks"]
    teaching = [name for name in known if known[name].get("teaching")]
    assert teaching and select(None, "demo") == [name for name in known if name not in teaching]
    assert select(["teaching"], "demo") == teaching and select(["00", "teaching"], "demo") == [
        "00_quickstart",
        *teaching,
    ]
    assert select([teaching[0][:2]], "demo") == teaching[:1]


def test_settings_come_from_the_profile_unless_given():
    assert (
        settings("00_quickstart", n=7).n == 7
        and settings("00_quickstart").n == load_profile()["notebooks"]["00_quickstart"]["n"]
    )
    with pytest.raises(ValueError, match="has no setting 'm'"):
        settings("00_quickstart", m=1)
