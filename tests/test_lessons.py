"""The notebooks that teach: their figures are right, and they and their solutions run."""

import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import papermill
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text

import mmclust as mm
from mmclust.pipeline.gallery import to_html
from mmclust.pipeline.notebooks import reproduce
from mmclust.profiles import load_profile
from mmclust.results import schematics

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
NAMES = ["13_multimap_step_by_step", "14_multisub_step_by_step", "15_multidproxy_step_by_step"]
LESSONS = [NOTEBOOKS / f"{name}.ipynb" for name in NAMES]
SOLUTIONS = [NOTEBOOKS / "solutions" / f"{name}_solutions.ipynb" for name in NAMES]
COUNT_SECONDS = "import time\n\nprint(f'process seconds {time.process_time()}')"


def cells(path: Path, kind: str) -> list[dict]:
    """The cells of a notebook that are "code" or "markdown", their source as text."""
    everything = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [c | {"source": "".join(c["source"])} for c in everything if c["cell_type"] == kind]


def markdown_of(path: Path) -> str:
    return "\n".join(cell["source"] for cell in cells(path, "markdown"))


def page_of(folder: Path, text: str) -> str:
    """The page of a notebook with this Markdown, without its head."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])
    nbformat.write(notebook, folder / "page.ipynb")
    to_html(folder / "page.ipynb")
    return (folder / "page.html").read_text(encoding="utf-8").partition("<main>")[2]


def random_words(seed=0, n=3, e=6):
    return torch.randn(n, e, generator=torch.Generator().manual_seed(seed))


# --- figures ------------------------------------------------------------------------------


def test_the_tokens_of_a_prompt(mini):
    tokens = mm.lesson_figures.prompt_tokens(mini, "fruit with a color of * please")
    read = tokens[tokens["role"] != "never read"]
    assert len(tokens) == 77
    assert read["token"].tolist()[1:-1] == ["fruit", "with", "a", "color", "of", "*", "please"]
    assert read["role"].tolist() == ["before"] * 6 + ["word"] + ["after"] * 2
    written = mini.tokenizer(["fruit with a color of red please"])[0].tolist()
    assert read["id"].dropna().tolist() == written[:6] + written[7:9]


@given(st.floats(-2, 3), st.floats(-2, 3), st.integers(0, 20))
def test_a_point_of_the_plane_has_its_coordinates(x, y, seed):
    plane = mm.lesson_figures.Plane(random_words(seed), "abc")
    point = plane.point([x], [y])
    assert np.allclose(plane.coordinates(point), [[x, y]], atol=1e-3)
    assert plane.distance(point)[0] < 1e-3
    off = point + torch.linalg.svd(plane.axes).Vh[-1]  # orthogonal to the plane, of length 1
    assert np.allclose(plane.coordinates(off), [[x, y]], atol=1e-3)
    assert abs(plane.distance(off)[0] - 1) < 1e-3


def test_three_words_on_a_line_are_refused():
    a, b, _ = random_words()
    with pytest.raises(ValueError, match="one, two, half"):
        mm.lesson_figures.Plane(torch.stack([a, b, (a + b) / 2]), ["one", "two", "half"])


def test_a_landscape_has_its_lowest_point_where_the_loss_has():
    z = random_words()
    plane = mm.lesson_figures.Plane(z, "abc")
    landscape = mm.lesson_figures.landscape(lambda w: (w - z[1]).square().sum(1), plane)
    lowest = landscape.loc[landscape["loss"].idxmin()]
    assert len(landscape) == 41**2 and np.allclose(lowest, [1, 0, 0], atol=1e-6)
    there = torch.stack([z[0], z[1]])
    paths = {"one": ("free", there), "two": ("held", there)}
    figure = mm.lesson_figures.draw_landscapes({"one": landscape, "two": landscape}, plane, paths)
    trail = next(line for line in figure.axes[0].lines if len(line.get_xdata()) == 2)
    assert np.allclose(trail.get_xydata(), [[0, 0], [1, 0]], atol=1e-4)
    # Each path has the color and the marker that it has in a walk of the same paths.
    scores = np.eye(2)
    picture = mm.load_dataset("demo-fruit", n=1, seed=0).images[0]
    paths = {"free": there, "held": there}
    walk = mm.lesson_figures.Walk(picture, landscape, plane, paths, scores, "ab", "weight")
    ends = [ax.lines[-1] for ax in figure.axes[:2]]
    in_walk, names = walk.key_frames([0, 1]).axes[0].get_legend_handles_labels()
    looks = [[(end.get_color(), end.get_marker()) for end in both] for both in (ends, in_walk)]
    assert looks[0] == looks[1] and len(set(looks[0])) == 2
    assert names == [text.get_text() for text in figure.legends[0].texts] == ["free", "held"]
    plt.close("all")


def make_walk(epochs=12):
    """A proxy that moves from the first of three words to the second."""
    z, picture = random_words(), mm.load_dataset("demo-fruit", n=1, seed=0).images[0]
    plane = mm.lesson_figures.Plane(z, ["a", "b", "c"], hull=True)
    landscape = mm.lesson_figures.landscape(lambda w: w.square().sum(1), plane)
    share = torch.linspace(0, 1, epochs)[:, None]
    scores = torch.cat([1 - share, share, share * torch.nan], 1)
    paths = {"it": (1 - share) * z[0] + share * z[1]}
    walk = mm.lesson_figures.Walk
    return walk(picture, landscape, plane, paths, scores, ["a", "b", "c"], "weight")


def test_a_walk_is_shown_frame_by_frame_and_loads_nothing(monkeypatch):
    monkeypatch.setattr(mm.lesson_figures, "MAX_BARS", 2)
    walk = make_walk()
    frames = walk.frames(5)
    assert walk.words == ["a", "b"] and frames[[0, -1]].tolist() == [0, 11]
    assert len(walk.frames(30)) <= 12
    table = walk.table()
    assert table.iloc[0][["x", "y"]].abs().max() < 1e-4 and abs(table.iloc[-1]["x"] - 1) < 1e-4
    html = walk.player(6).data
    assert len(re.findall(r"frames\[\d+\] = \"data:image/png", html)) == len(walk.frames(6))
    assert not re.search(r"(href|src)=\"http", html) and "fa fa-" not in html and "▶" in html
    figure = walk.key_frames([0, 11])
    bars = [[bar.get_width() for bar in ax.patches] for ax in figure.axes if ax.patches]
    assert np.allclose(bars, [[1, 0], [0, 1]])
    plt.close("all")


def test_paths_and_scores_must_have_one_length():
    walk = make_walk()
    landscape = mm.lesson_figures.landscape(lambda w: w.square().sum(1), walk.plane)
    short = {"it": random_words()}
    with pytest.raises(ValueError, match=r"\b3\b.*\b2\b"):
        mm.lesson_figures.Walk(
            walk.picture, landscape, walk.plane, short, np.ones((2, 3)), ["a", "b", "c"], "weight"
        )


def test_comparisons_have_their_numbers():
    figure, both = mm.lesson_figures.same_curve([3.0, 2.0], [3.0, 2.5])
    assert "5e-01" in figure.axes[0].get_title() and both["library"].tolist() == [3.0, 2.5]
    rng = np.random.default_rng(0)
    panels = {"one": (rng.normal(size=(9, 4)), 0.123), "two": (rng.normal(size=(9, 4)), 1.0)}
    figure = mm.lesson_figures.spaces(panels, [0, 1, 2] * 3, ["pear", "apple", "corn"])
    assert [ax.get_title() for ax in figure.axes[:2]] == [
        "one: NMI\N{NO-BREAK SPACE}0.12",
        "two: NMI\N{NO-BREAK SPACE}1.00",
    ]
    assert [len(dots.get_offsets()) for dots in figure.axes[0].collections] == [3, 3, 3]
    plt.close("all")


METHODS = ["MultiMaP", "MultiSub", "MultiDProxy"]
LEARNED = {  # what each method learns, by its text in the diagram
    "MultiMaP": ["word $w_i$"],
    "MultiSub": ["projection $P$", "factor $p_i$"],
    "MultiDProxy": ["factor $p_i$", "gated fusion"],
}


@pytest.mark.parametrize("method", METHODS)
def test_a_diagram_shows_what_is_learned_frozen_and_clustered(method):
    boxes, with_gradient, without = schematics.DIAGRAMS[method]
    arrows = [tuple(arrow.split(">")) for arrow in with_gradient.split()]
    everything = arrows + [tuple(arrow.split(">")) for arrow in without.split()]
    assert {name for arrow in everything for name in arrow} == set(boxes)
    assert [box.text for box in boxes.values() if box.kind == "learned"] == LEARNED[method]
    # A gradient flows from a loss back to everything that is learned, and to nothing else.
    starts = {start for start, _ in arrows} - {end for _, end in arrows}
    ends = {end for _, end in arrows} - {start for start, _ in arrows}
    assert all(boxes[name].kind == "learned" for name in starts)
    assert all(boxes[name].kind == "loss" for name in ends)
    learned = {name for name, box in boxes.items() if box.kind == "learned"}
    assert learned <= {start for start, _ in arrows}

    figure = mm.lesson_figures.schematic(method)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert mm.tables.printed(method) in texts
    for kind in ("learned", "frozen", "loss", "clustered"):  # by a word, not by color alone
        assert texts.count(kind) == [box.kind for box in boxes.values()].count(kind) > 0
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    patches = [patch.get_window_extent(renderer) for patch in figure.axes[0].patches]
    assert len(patches) == len(boxes)
    for text in filter(Text.get_text, figure.axes[0].texts):
        extent = text.get_window_extent(renderer)
        touched = [box for box in patches if box.overlaps(extent)]
        inside = [box for box in touched if box.contains(*extent.min) and box.contains(*extent.max)]
        assert touched == inside, f"{text} is wider than its box"
    plt.close(figure)


def test_a_method_without_a_diagram_is_named():
    with pytest.raises(ValueError, match=r"MultiMap.*MultiMaP, MultiSub, MultiDProxy"):
        mm.lesson_figures.schematic("MultiMap")


# --- exercises ----------------------------------------------------------------------------


@pytest.mark.parametrize(("lesson", "solution"), list(zip(LESSONS, SOLUTIONS)), ids=NAMES)
def test_each_exercise_has_a_solution_that_checks_itself(lesson, solution):
    exercises = markdown_of(lesson).partition("\n## Exercises\n")[2]
    titles = re.findall(r"^\*\*(\d\. .*?)\.?\*\*", exercises, re.M)
    empty = [c for c in cells(lesson, "code") if "exercise" in c["metadata"].get("tags", [])]
    assert len(titles) == len(empty) == 3 and solution.name in exercises
    sections: dict[str, str] = {}
    title = ""
    for cell in json.loads(solution.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown" and source.startswith("## "):
            title = source.partition("\n")[0].removeprefix("## ")
        elif cell["cell_type"] == "code":
            sections[title] = sections.get(title, "") + "\n" + source
    for title in titles:
        assert re.search(r"^ *assert ", sections[title], re.M), title


def test_all_lessons_are_tested_here():
    profile = load_profile()["notebooks"]
    assert all(profile[name]["teaching"] for name in NAMES)
    assert sorted((NOTEBOOKS / "solutions").glob("*.ipynb")) == SOLUTIONS
    with_exercises = [p for p in NOTEBOOKS.glob("*.ipynb") if "## Exercises" in p.read_text()]
    assert sorted(with_exercises) == LESSONS


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_answer_is_folded(path):
    texts = [cell["source"] for cell in cells(path, "markdown")]
    questions = [text for text in texts if "**Check yourself.**" in text]
    assert len(questions) >= 8
    for text in questions:
        question, answer = text.split("<details><summary>Answer</summary>\n\n")
        assert "?" in question and "\n\n</details>" in answer


@pytest.mark.parametrize("path", [*LESSONS, *SOLUTIONS], ids=lambda path: path.stem)
def test_a_cell_fits_into_a_readers_head(path):
    for cell in cells(path, "code"):
        lines = [line for line in cell["source"].splitlines() if line.strip()]
        if "parameters" not in cell["metadata"].get("tags", []):
            assert len(lines) <= 12, f"{len(lines)} lines: {lines[0]}"
        assert max(map(len, lines), default=0) <= 100


# --- formulas ---------------------------------------------------------------------------------


def test_formulas_are_typeset_without_a_script(tmp_path):
    text = r"""The length of $w_i$ costs $5 or $10; `$code$` stays, as do $\left( x$ and $5 and $6.

$$L = \frac{1}{n} \sum_i x_i \tag{7}$$

```
$fenced$
```"""
    page = page_of(tmp_path, text)
    assert page.count("<math") == 2 and "<mfrac>" in page
    assert "</math><span>(7)</span></div>" in page
    for kept in ("costs $5 or $10;", "$code$", r"$\left( x$", "$5 and $6", "$fenced$"):
        assert kept in page


@pytest.mark.parametrize("path", [*LESSONS, *SOLUTIONS], ids=lambda path: path.stem)
def test_every_formula_is_typeset(path, tmp_path):
    page = page_of(tmp_path, markdown_of(path))
    text = re.sub(r"<code.*?</code>|<pre.*?</pre>|<script.*?</script>", "", page, flags=re.S)
    assert "<math" in page or path not in LESSONS
    assert "$" not in text and not re.search(r"<m[a-z]+[^>]*>[^<]*\\", text)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_equations_are_numbered_in_order(path):
    numbers = [int(number) for number in re.findall(r"\\tag\{(\d+)\}", markdown_of(path))]
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) >= 7


# --- runs ---------------------------------------------------------------------------------


def play(browser, page_file: Path) -> dict:
    """Play an animation without a network: its frames, three pictures, and outside requests."""
    context = browser.new_context(offline=True)
    page = context.new_page()
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(page_file.as_uri())
    image = "document.querySelector('.animation img')"
    slider = ".animation input[type=range]"
    page.wait_for_function(f"{image}.naturalWidth > 300", timeout=30_000)  # its script has started
    assert not [p for p in page.locator("details p").all() if p.is_visible()], "an answer is open"
    last = page.locator(slider).first.get_attribute("max")
    pictures = [page.evaluate(f"{image}.src")]
    page.locator('.animation button[title="Next frame"]').first.click()
    pictures.append(page.evaluate(f"{image}.src"))
    page.locator('.animation button[title="Play"]').first.click()
    at_end = f"document.querySelector('{slider}').value === '{last}'"
    page.wait_for_function(at_end, timeout=30_000)
    pictures.append(page.evaluate(f"{image}.src"))
    context.close()
    outside = [url for url in requests if not url.startswith(("file:", "data:"))]
    return {"frames": int(last) + 1, "pictures": len(set(pictures)), "outside": outside}


def test_an_animation_plays_without_the_network(chromium, tmp_path):
    walk = make_walk()
    player = walk.player(6).data
    page = tmp_path / "walk.html"
    html = f'<!doctype html><meta charset="utf-8"><body>{player}</body>'
    page.write_text(html, encoding="utf-8")
    assert play(chromium, page) == {"frames": len(walk.frames(6)), "pictures": 3, "outside": []}
    plt.close("all")


def copy_with_timer(original: Path, copy: Path) -> Path:
    """A copy whose last cell prints the processor time of its kernel."""
    book = nbformat.read(original, as_version=4)
    book.cells.append(nbformat.v4.new_code_cell(COUNT_SECONDS, id="timer"))
    nbformat.write(book, copy)
    return copy


def kernel_seconds(path: Path) -> float:
    last = cells(path, "code")[-1]
    return float(re.search(r"process seconds ([\d.]+)", json.dumps(last["outputs"]))[1])


@pytest.mark.slow
def test_the_lessons_run(tmp_path, chromium, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)  # set for tests; notebooks show their figures
    sources = tmp_path / "sources"
    sources.mkdir()
    for path in LESSONS:
        copy_with_timer(path, sources / path.name)
    only = [name[:2] for name in NAMES]
    outcomes = reproduce(only, out=tmp_path, jobs=2, workers=0, notebooks=sources)
    assert [outcome.notebook for outcome in outcomes] == NAMES
    assert all(o.status == "done" for o in outcomes), [(o.notebook, o.error) for o in outcomes]
    for name in NAMES:
        page, book = (tmp_path / "notebooks" / f"{name}{kind}" for kind in (".html", ".ipynb"))
        html = page.read_text(encoding="utf-8")
        assert not re.search(r"<(?:link|script|img|iframe)[^>]*(?:href|src)=\"https?://", html)
        assert html.count("<summary>Answer</summary>") >= 8
        played = play(chromium, page)
        assert played["frames"] >= 10 and played["pictures"] == 3 and not played["outside"]
        for output in ("method", "tokens", "landscape", "walk", "switches", "same"):
            assert (tmp_path / f"{name}_{output}.png").exists()
            if output != "method":  # a diagram has no numbers
                assert (tmp_path / f"{name}_{output}.csv").exists()
        outputs = [output for cell in cells(book, "code") for output in cell["outputs"]]
        assert not [output for output in outputs if output.get("name") == "stderr"]
        print(f"{name}: {kernel_seconds(book):.0f} seconds of the processor")  # see pytest -rP


@pytest.mark.slow
@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_the_solutions_run(path, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    copy = copy_with_timer(path, tmp_path / path.name)
    options = {"kernel_name": "python3", "cwd": path.parent, "progress_bar": False}
    papermill.execute_notebook(copy, copy, **options)
    print(f"{path.stem}: {kernel_seconds(copy):.0f} seconds of the processor")
