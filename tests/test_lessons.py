"""The notebooks that teach: their drawings; their form; that they and their solutions run, and how long they compute."""

import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mmclust as mm
from mmclust.pipeline.notebooks import notebook_parameters, reproduce
from mmclust.profiles import load_profile

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
NAMES = ["13_multimap_step_by_step", "14_multisub_step_by_step", "15_multidproxy_step_by_step"]
LESSONS = [NOTEBOOKS / f"{name}.ipynb" for name in NAMES]
SOLUTIONS = [NOTEBOOKS / "solutions" / f"{name}_solutions.ipynb" for name in NAMES]
ASKED = re.compile(
    r"\*\*Check yourself\.\*\*(?:(?!\n\n).)*\?(?:(?!\n\n).)*\n\n<details><summary>Answer</summary>\n\n.{80,}?\n\n</details>",
    re.S,
)


def source(cell: dict) -> str:
    return "".join(cell["source"])


def text_of(path: Path) -> str:
    return "\n".join(
        source(cell)
        for cell in json.loads(path.read_text())["cells"]
        if cell["cell_type"] == "markdown"
    )


def words(seed=0, n=3, e=6):
    return torch.randn(n, e, generator=torch.Generator().manual_seed(seed))


def test_a_prompt_token_by_token(mini):
    tokens = mm.lesson_figures.prompt_tokens(mini, "fruit with a color of * please")
    used = tokens[tokens["role"] != "never read"]
    assert len(tokens) == 77 and used["token"].tolist()[1:-1] == [
        "fruit",
        "with",
        "a",
        "color",
        "of",
        "*",
        "please",
    ]
    assert used["role"].tolist() == ["before"] * 6 + ["word"] + ["after"] * 2
    written = mini.tokenizer(["fruit with a color of red please"])[0].tolist()
    assert used["id"].dropna().tolist() == written[:6] + written[7:9]
    ax = mm.lesson_figures.draw_tokens(tokens, unread=2).axes[0]
    assert {"start", "w", "end", "… to 76"} <= {t.get_text() for t in ax.texts} and len(
        ax.patches
    ) == len(used) + 2
    plt.close("all")


@given(st.floats(-2, 3), st.floats(-2, 3), st.integers(0, 20))
def test_a_point_of_the_plane_has_its_coordinates(x, y, seed):
    plane = mm.lesson_figures.Plane(words(seed), "abc")
    point = plane.point([x], [y])
    assert (
        np.allclose(plane.coordinates(point), [[x, y]], atol=1e-3)
        and plane.distance(point)[0] < 1e-3
    )
    off = point + torch.linalg.svd(plane.axes).Vh[-1]  # orthogonal to the plane, of length 1
    assert (
        np.allclose(plane.coordinates(off), [[x, y]], atol=1e-3)
        and abs(plane.distance(off)[0] - 1) < 1e-3
    )


def test_three_words_on_a_line_are_refused():
    a, b, _ = words()
    with pytest.raises(ValueError, match=r"one, two, half are on one line.*choose"):
        mm.lesson_figures.Plane(torch.stack([a, b, (a + b) / 2]), ["one", "two", "half"])


def test_a_landscape_has_its_lowest_point_where_the_loss_has():
    z = words()
    plane = mm.lesson_figures.Plane(z, "abc")
    ground = mm.lesson_figures.landscape(lambda w: (w - z[1]).square().sum(1), plane)
    lowest = ground.loc[ground["loss"].idxmin()]
    assert len(ground) == 41**2 and np.allclose(lowest, [1, 0, 0], atol=1e-6)
    path = {"one": torch.stack([z[0], z[1]])}
    fig = mm.lesson_figures.draw_landscapes({"one": ground, "two": ground}, plane, path)
    trail = next(line for line in fig.axes[0].lines if len(line.get_xdata()) == 2)
    assert np.allclose(trail.get_xydata(), [[0, 0], [1, 0]], atol=1e-4)
    plt.close("all")


def walk(epochs=12):
    z, picture = words(), mm.load_dataset("demo-fruit", n=1, seed=0).images[0]
    plane = mm.lesson_figures.Plane(z, ["a", "b", "c"], hull=True)
    share = torch.linspace(0, 1, epochs)[:, None]
    scores = torch.cat([1 - share, share, share * torch.nan], 1)
    path = (1 - share) * z[0] + share * z[1]
    return mm.lesson_figures.Walk(
        picture,
        mm.lesson_figures.landscape(lambda w: w.square().sum(1), plane),
        plane,
        {"it": path},
        scores,
        ["a", "b", "c"],
        "weight",
        max_bars=2,
    )


def test_a_walk_is_shown_frame_by_frame_and_asks_for_nothing_from_outside():
    way = walk()
    assert (
        way.words == ["a", "b"]
        and way.frames(5)[[0, -1]].tolist() == [0, 11]
        and len(way.frames(30)) <= 12
    )
    table = way.table()
    assert table.iloc[0][["x", "y"]].abs().max() < 1e-4 and abs(table.iloc[-1]["x"] - 1) < 1e-4
    html = mm.lesson_figures.player(way.animation(6)).data
    assert (
        len(re.findall(r"frames\[\d+\] = \"data:image/png", html)) == len(way.frames(6))
        and len(html) < 200_000
    )
    assert not re.search(r"(href|src)=\"http", html) and "fa fa-" not in html and "▶" in html
    fig = way.key_frames([0, 11])
    bars = [[bar.get_width() for bar in ax.patches] for ax in fig.axes if ax.patches]
    assert np.allclose(bars, [[1, 0], [0, 1]])
    assert not [n for n in plt.get_fignums() if plt.figure(n) is not fig]
    plt.close("all")


def test_paths_and_scores_of_one_length():
    way = walk()
    with pytest.raises(ValueError, match=r"'it' has 3 epochs.*2"):
        mm.lesson_figures.Walk(
            way.picture,
            way.surface,
            way.plane,
            {"it": words()},
            np.ones((2, 3)),
            ["a", "b", "c"],
            "weight",
        )


def test_comparisons_say_their_numbers():
    fig, both = mm.lesson_figures.same_curve([3.0, 2.0], [3.0, 2.5])
    assert fig.axes[0].get_title() == "largest difference 5e-01" and both["library"].tolist() == [
        3.0,
        2.5,
    ]
    rng = np.random.default_rng(0)
    fig = mm.lesson_figures.spaces(
        {"one": (rng.normal(size=(9, 4)), 0.123), "two": (rng.normal(size=(9, 4)), 1.0)},
        [0, 1, 2] * 3,
        ["pear", "apple", "corn"],
    )
    assert [ax.get_title() for ax in fig.axes[:2]] == ["one\nNMI 0.12", "two\nNMI 1.00"]
    assert [len(line.get_xdata()) for line in fig.axes[0].lines] == [3, 3, 3]
    plt.close("all")


@pytest.mark.parametrize("path", LESSONS + SOLUTIONS, ids=lambda path: path.stem)
def test_a_notebook_is_clean_and_its_cells_are_short(path):
    book = json.loads(path.read_text())
    cells, code = book["cells"], [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert all(len(source(cell).splitlines()) < 15 for cell in cells)
    assert [cell["id"] for cell in cells] == [f"{path.stem[:2]}-{k:02d}" for k in range(len(cells))]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert [
        cell["metadata"].get("tags")
        for cell in code
        if "parameters" in cell["metadata"].get("tags", [])
    ] == [["parameters"]]
    assert notebook_parameters(path) >= {"profile", "n", "epochs"} and "TODO" not in "".join(
        map(source, cells)
    )
    assert "mmclust." not in "".join(map(source, code))  # public names alone, from `mm`


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_idea_ends_with_a_question(path):
    lesson, exercises = text_of(path).split("\n## Exercises\n")
    title, *ideas = re.split(r"^## ", lesson, flags=re.M)
    assert title.startswith("# ") and len(ideas) >= 8
    for k, idea in enumerate(ideas, 1):
        assert idea.startswith(f"{k}. ") and re.search(ASKED, idea), idea.splitlines()[0]
    assert (
        lesson.count("**Check yourself.**") == len(re.findall(ASKED, lesson))
        and "Check yourself" not in exercises
    )
    assert "library's version" in ideas[-1]


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_equations_are_numbered_in_order_and_referred_to_by_number(path):
    text = text_of(path)
    numbers = [int(k) for k in re.findall(r"^    .*\s\((\d+)\)(?:$|\s{4})", text, re.M)]
    assert (
        len(numbers) >= 7
        and numbers == list(range(1, len(numbers) + 1))
        and "numbers are ours [?]" in text
    )
    code = "\n".join(
        source(cell)
        for cell in json.loads(path.read_text())["cells"]
        if cell["cell_type"] == "code"
    )
    said = {
        int(k) for k in re.findall(r"(?:# |, )\((\d+)\)", code)
    }  # in a cell: "# (3)", or "(6), (7)"
    assert said and said <= set(numbers)


@pytest.mark.parametrize(("lesson", "solution"), list(zip(LESSONS, SOLUTIONS)), ids=NAMES)
def test_three_exercises_and_a_solution_of_each_that_checks_itself(lesson, solution):
    exercises = text_of(lesson).split("\n## Exercises\n")[1]
    titles = re.findall(r"^\*\*(\d\. .*?)\.?\*\*", exercises, re.M)
    assert len(titles) == 3 and f"`solutions/{solution.name}`" in exercises
    tags = [
        cell
        for cell in json.loads(lesson.read_text())["cells"]
        if "exercise" in cell["metadata"].get("tags", [])
    ]
    assert [source(cell) for cell in tags] == ["# your code"] * 3
    assert re.findall(r"^## (.*)$", text_of(solution), re.M) == titles
    parts, code = [], []
    for cell in json.loads(solution.read_text())["cells"]:
        if cell["cell_type"] == "markdown" and source(cell).startswith("## "):
            parts.append(code := [])
        code.append(source(cell) if cell["cell_type"] == "code" else "")
    for title, part in zip(titles, parts):
        assert re.search(r"^ *assert ", "\n".join(part), re.M), title


def play(browser, path: Path) -> dict:
    """What an animation in a page does when its button is pressed, without a network: frames, those shown, and what was asked for from outside."""
    context = browser.new_context(offline=True)
    page, asked = context.new_page(), []
    page.on(
        "request",
        lambda request: (
            asked.append(request.url) if not request.url.startswith(("file:", "data:")) else None
        ),
    )
    page.goto(path.as_uri())
    state = "document.querySelector('.animation img').src"
    page.wait_for_function(
        "document.querySelector('.animation img').naturalWidth > 300", timeout=30_000
    )  # its script has begun
    first, last = (
        page.evaluate(state),
        page.locator(".animation input[type=range]").first.get_attribute("max"),
    )
    page.locator('.animation button[title="Next frame"]').first.click()
    second = page.evaluate(state)
    page.locator('.animation button[title="Play"]').first.click()
    page.wait_for_function(
        f"document.querySelector('.animation input[type=range]').value === '{last}'", timeout=30_000
    )
    shown = [first, second, page.evaluate(state)]
    context.close()
    return {"frames": int(last) + 1, "shown": shown, "asked": asked}


def test_an_animation_plays_without_the_network(chromium, tmp_path):
    page = tmp_path / "walk.html"
    page.write_text(
        f'<!doctype html><meta charset="utf-8"><body>{mm.lesson_figures.player(walk().animation(6)).data}</body>',
        encoding="utf-8",
    )
    played = play(chromium, page)
    assert (
        played["frames"] == len(walk().frames(6))
        and len(set(played["shown"])) == 3
        and not played["asked"]
    )
    plt.close("all")


@pytest.mark.slow
def test_the_notebooks_run(tmp_path, chromium, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the tests' own; a notebook shows its figures
    sources = tmp_path / "sources"
    sources.mkdir()
    for name in NAMES:
        timed(NOTEBOOKS / f"{name}.ipynb", sources / f"{name}.ipynb")
    outcomes = reproduce(
        [name[:2] for name in NAMES], out=tmp_path, jobs=2, workers=0, notebooks=sources
    )
    assert [o.notebook for o in outcomes] == NAMES
    assert all(o.status == "done" for o in outcomes), [
        (o.notebook, o.where, o.error) for o in outcomes
    ]
    for name in NAMES:
        page = tmp_path / "notebooks" / f"{name}.html"
        html = page.read_text()
        assert (
            len(html) < 6_000_000
            and html.count("<details>") >= 8
            and len(re.findall(r'<img[^>]*src="data:image/png', html)) >= 6
        )
        assert not re.search(r"<(?:link|script|img|iframe)[^>]*(?:href|src)=\"https?://", html)
        played = play(chromium, page)
        assert played["frames"] >= 10 and len(set(played["shown"])) == 3 and not played["asked"]
        for kind in ("tokens", "landscape", "walk", "switches", "same"):
            assert (tmp_path / f"{name}_{kind}.png").exists() and (
                tmp_path / f"{name}_{kind}.csv"
            ).exists()
        cells = json.loads((tmp_path / "notebooks" / f"{name}.ipynb").read_text())["cells"]
        noise = [
            "".join(o["text"])
            for c in cells
            for o in c.get("outputs", [])
            if o.get("name") == "stderr"
        ]
        assert not noise, f"{name}: {noise[0][:300]}"
        print(
            f"{name}: {kernel_seconds(tmp_path / 'notebooks' / f'{name}.ipynb'):.0f} seconds of the processor"
        )  # told, not tested: pytest -rP


@pytest.mark.slow
@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_the_solutions_run(path, tmp_path, monkeypatch):
    import papermill

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    copy = timed(path, tmp_path / path.name)
    papermill.execute_notebook(
        copy, copy, kernel_name="python3", cwd=path.parent, progress_bar=False
    )
    print(f"{path.stem}: {kernel_seconds(copy):.0f} seconds of the processor")


def timed(original: Path, copy: Path) -> Path:
    """A copy that says at its end how long its kernel has computed: seconds of the processor, whatever else the machine does."""
    book = nbformat.read(original, as_version=4)
    book.cells.append(
        nbformat.v4.new_code_cell(
            "import time\n\nprint(f'process seconds {time.process_time()}')", id="timed"
        )
    )
    nbformat.write(book, copy)
    return copy


def kernel_seconds(path: Path) -> float:
    last = json.loads(path.read_text())["cells"][-1]
    return float(re.search(r"process seconds ([\d.]+)", json.dumps(last["outputs"]))[1])


def test_all_that_teaches_is_listed_and_run_here():
    known = load_profile()["notebooks"]
    assert all(known[name]["teaching"] and known[name]["papers"][0] == "teaching" for name in NAMES)
    assert sorted((NOTEBOOKS / "solutions").glob("*.ipynb")) == SOLUTIONS
    assert (
        sorted(path for path in NOTEBOOKS.glob("*.ipynb") if "## Exercises" in path.read_text())
        == LESSONS
    )
