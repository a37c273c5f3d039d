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
from mmclust.profiles import load_profile
from mmclust.reproduce import reproduce

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
NAMES = ["13_multimap_step_by_step", "14_multisub_step_by_step", "15_multidproxy_step_by_step"]
SOLUTIONS = [NOTEBOOKS / "solutions" / f"{name}_solutions.ipynb" for name in NAMES]


def words(seed=0, n=3, e=6):
    return torch.randn(n, e, generator=torch.Generator().manual_seed(seed))


def test_a_prompt_token_by_token(mini):
    tokens = mm.teach.prompt_tokens(mini, "fruit with a color of * please")
    used = tokens[tokens["role"] != "never read"]
    assert len(tokens) == 77 and used["token"].tolist()[1:-1] == ["fruit", "with", "a", "color", "of", "*", "please"]
    assert used["role"].tolist() == ["before"] * 6 + ["word"] + ["after"] * 2
    written = mini.tokenizer(["fruit with a color of red please"])[0].tolist()
    assert [i for i in used["id"].astype(object) if i is not None and i == i and str(i) != "<NA>"] == written[:6] + written[7:9]
    ax = mm.teach.draw_tokens(tokens, more=2).axes[0]
    assert {"start", "w", "end", "… to 76"} <= {t.get_text() for t in ax.texts} and len(ax.patches) == len(used) + 2
    plt.close("all")


@given(st.floats(-2, 3), st.floats(-2, 3), st.integers(0, 20))
def test_a_point_of_the_plane_has_its_coordinates(x, y, seed):
    plane = mm.teach.Plane(words(seed), "abc")
    point = plane.point([x], [y])
    assert np.allclose(plane.coordinates(point), [[x, y]], atol=1e-3) and plane.distance(point)[0] < 1e-3
    off = point + torch.linalg.svd(plane.axes).Vh[-1]  # orthogonal to the plane, of length 1
    assert np.allclose(plane.coordinates(off), [[x, y]], atol=1e-3) and abs(plane.distance(off)[0] - 1) < 1e-3


def test_three_words_on_a_line_are_refused():
    a, b, _ = words()
    with pytest.raises(ValueError, match="one, two, half lie on one line"):
        mm.teach.Plane(torch.stack([a, b, (a + b) / 2]), ["one", "two", "half"])


def test_a_landscape_has_its_lowest_point_where_the_loss_has():
    z = words()
    plane = mm.teach.Plane(z, "abc")
    ground = mm.teach.landscape(lambda w: (w - z[1]).square().sum(1), plane)
    lowest = ground.loc[ground["loss"].idxmin()]
    assert len(ground) == 41**2 and np.allclose(lowest, [1, 0, 0], atol=1e-6)
    path = {"one": torch.stack([z[0], z[1]])}
    fig = mm.teach.draw_landscapes({"one": ground, "two": ground}, plane, path)
    trail = next(line for line in fig.axes[0].lines if len(line.get_xdata()) == 2)
    assert np.allclose(trail.get_xydata(), [[0, 0], [1, 0]], atol=1e-4)
    plt.close("all")


def walk(epochs=12):
    z, picture = words(), mm.load_dataset("demo-fruit", n=1, seed=0).images[0]
    plane = mm.teach.Plane(z, ["a", "b", "c"], hull=True)
    share = torch.linspace(0, 1, epochs)[:, None]
    scores = torch.cat([1 - share, share, share * torch.nan], 1)
    path = (1 - share) * z[0] + share * z[1]
    return mm.teach.Walk(picture, mm.teach.landscape(lambda w: w.square().sum(1), plane), plane, {"it": path}, scores, ["a", "b", "c"], "weight", most=2)


@pytest.mark.filterwarnings("ignore:All-NaN")
def test_a_walk_is_shown_frame_by_frame_and_asks_for_nothing_from_outside():
    way = walk()
    assert way.words == ["a", "b"] and way.frames(5)[[0, -1]].tolist() == [0, 11] and len(way.frames(30)) <= 12
    table = way.table()
    assert table.iloc[0][["x", "y"]].abs().max() < 1e-4 and abs(table.iloc[-1]["x"] - 1) < 1e-4
    html = mm.teach.player(way.animation(6)).data
    assert len(re.findall(r"frames\[\d+\] = \"data:image/png", html)) == len(way.frames(6)) and len(html) < 200_000
    assert not re.search(r"(href|src)=\"http", html) and "fa fa-" not in html and "▶" in html
    fig = way.key_frames([0, 11])
    bars = [[bar.get_width() for bar in ax.patches] for ax in fig.axes if ax.patches]
    assert np.allclose(bars, [[1, 0], [0, 1]])
    assert not [n for n in plt.get_fignums() if plt.figure(n) is not fig]
    plt.close("all")


def test_paths_and_scores_of_one_length():
    way = walk()
    with pytest.raises(ValueError, match="paths of 3 epochs and scores of 2"):
        mm.teach.Walk(way.picture, way.ground, way.plane, {"it": words()}, np.ones((2, 3)), ["a", "b", "c"], "weight")


def test_comparisons_say_their_numbers():
    fig, both = mm.teach.same_curve([3.0, 2.0], [3.0, 2.5])
    assert fig.axes[0].get_title() == "largest difference 5e-01" and both["library"].tolist() == [3.0, 2.5]
    rng = np.random.default_rng(0)
    fig = mm.teach.spaces({"one": (rng.normal(size=(9, 4)), 0.123), "two": (rng.normal(size=(9, 4)), 1.0)}, [0, 1, 2] * 3, ["pear", "apple", "corn"])
    assert [ax.get_title() for ax in fig.axes[:2]] == ["one\nNMI 0.12", "two\nNMI 1.00"]
    assert [len(line.get_xdata()) for line in fig.axes[0].lines] == [3, 3, 3]
    plt.close("all")


@pytest.mark.parametrize("path", [NOTEBOOKS / f"{name}.ipynb" for name in NAMES] + SOLUTIONS, ids=lambda path: path.stem)
def test_cells_are_short_and_ask(path):
    cells = nbformat.read(path, as_version=4).cells
    assert all(len(cell.source.splitlines()) < 15 for cell in cells)
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    if path in SOLUTIONS:
        assert len(re.findall(r"^## \d\. ", text, re.M)) == 3 and sum("assert" in cell.source for cell in cells) >= 3
        return
    questions = [cell.source for cell in cells if "**Check yourself.**" in cell.source]
    assert len(questions) >= 5 and all("<details><summary>Answer</summary>" in q and "</details>" in q for q in questions)
    assert len(re.findall(r"^\*\*\d\. ", text.split("## Exercises")[1], re.M)) == 3
    assert sum(cell.source == "# your code" for cell in cells) == 3
    numbers = [int(k) for k in re.findall(r"\s\((\d+)\)$", text, re.M)]
    assert numbers == list(range(1, len(numbers) + 1)) and "ours [?]" in text


@pytest.mark.slow
def test_the_notebooks_run_within_a_minute_of_compute(tmp_path):
    sources = tmp_path / "sources"
    sources.mkdir()
    for name in NAMES:
        timed(NOTEBOOKS / f"{name}.ipynb", sources / f"{name}.ipynb")
    outcomes = reproduce([name[:2] for name in NAMES], out=tmp_path, jobs=2, workers=0, notebooks=sources)
    assert [o.notebook for o in outcomes] == NAMES
    assert all(o.status == "done" for o in outcomes), [(o.notebook, o.where, o.error) for o in outcomes]
    for name in NAMES:
        html = (tmp_path / "notebooks" / f"{name}.html").read_text()
        assert len(html) < 2_000_000 and html.count("<details>") >= 5 and "data:image/png" in html
        assert len(re.findall(r"frames\[\d+\] = ", html)) >= 10 and not re.search(r"(?:href|src)=\"https?://", html)
        assert (tmp_path / f"{name}_walk.png").exists() and (tmp_path / f"{name}_same.csv").exists()
        assert kernel_seconds(tmp_path / "notebooks" / f"{name}.ipynb") < 60


@pytest.mark.slow
@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_the_solutions_run(path, tmp_path, monkeypatch):
    import papermill

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    copy = timed(path, tmp_path / path.name)
    papermill.execute_notebook(copy, copy, kernel_name="python3", cwd=path.parent, progress_bar=False)
    assert 0 < kernel_seconds(copy) < 60


def timed(source: Path, copy: Path) -> Path:
    """A copy that says at its end how long its kernel has computed: seconds of the processor, whatever else the machine does."""
    book = nbformat.read(source, as_version=4)
    book.cells.append(nbformat.v4.new_code_cell("import time\n\nprint(f'process seconds {time.process_time()}')", id="timed"))
    nbformat.write(book, copy)
    return copy


def kernel_seconds(path: Path) -> float:
    last = json.loads(path.read_text())["cells"][-1]
    return float(re.search(r"process seconds ([\d.]+)", json.dumps(last["outputs"]))[1])


def test_the_profile_lists_what_teaches():
    known = load_profile()["notebooks"]
    assert all(known[name]["teaching"] and known[name]["papers"][0] == "teaching" for name in NAMES)
    assert {p.stem.removesuffix("_solutions") for p in SOLUTIONS if p.exists()} == set(NAMES)
