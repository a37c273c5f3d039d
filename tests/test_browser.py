"""The gallery, executed notebooks and JupyterLab in Chromium, as wide as a phone and a laptop.

MMCLUST_BROWSER=required: a missing browser is a failure, not a skip.
MMCLUST_FIGURES=DIR: that output folder is checked, too.
MMCLUST_LAB_NOTEBOOKS=00_quickstart,01_datasets: the notebooks that run in JupyterLab.
"""

import json
import os
import re
import shutil
import subprocess
import time
import unicodedata
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from helpers import local_servers as web
from helpers.notebooks import parameters_cell, quick_profile, write_notebook
from helpers.pages import OVERFLOW, look

from mmclust.pipeline.gallery import write_index
from mmclust.pipeline.notebooks import commit, reproduce, seeds, versions

ROOT = Path(__file__).parents[1]
FIGURES = os.environ.get("MMCLUST_FIGURES")
LAB_NOTEBOOKS = os.environ.get("MMCLUST_LAB_NOTEBOOKS", "00_quickstart").split(",")
WIDTHS = [390, 1440]
LONG_WORD = "Donaudampfschifffahrtselektrizitaetenhauptbetriebswerkbauunterbeamtengesellschaft" * 3
LONG_CAPTION = "Sines of growing frequency, drawn to be looked at. " * 12 + "It ends here."
FINDING = "The fastest of eight sines is above 0.9 in <5 % of its points & below it elsewhere."
NOTEBOOKS = {
    "01_wide": """
%matplotlib inline
import matplotlib.pyplot as plt, numpy as np, pandas as pd
from IPython.display import display
import mmclust as mm
page = mm.NotebookOutput("01_wide", out)
mm.figures.use_theme()
x = np.linspace(0, 1, 200)
fig, axes = plt.subplots(2, 4, figsize=(16, 6))
for k, ax in enumerate(axes.flat):
    ax.plot(x, np.sin(9 * k * x))
page.figure(fig, "sines", pd.DataFrame({"x": x}), LONG_CAPTION)
page.finding(FINDING, "sines")
wide = pd.DataFrame(np.arange(1800).reshape(60, 30) / 7, columns=[f"column {k}" for k in range(30)])
page.table(wide, "columns", "Thirty columns & sixty rows of <numbers>.")
display(wide)
print("a line of output that goes on and on " * 9)
plt.show()
""",
    "02_word": """
%matplotlib inline
import matplotlib.pyplot as plt, pandas as pd
import mmclust as mm
page = mm.NotebookOutput("02_word", out)
fig, ax = plt.subplots(figsize=(3, 9))
ax.plot([0, 1])
page.figure(fig, "tall", None, "A word: " + LONG_WORD)
word = pd.DataFrame({"word": [LONG_WORD], "length": [len(LONG_WORD)]})
page.table(word, "", "A long word in a cell.")
page.table(word, "RI", "The same in RI.")
print(LONG_WORD)
""",
    "03_fails": "raise RuntimeError('no such thing as ' + LONG_WORD)",
}
PAPERS = {
    "01_wide": ["Multi-MaP", "Multi-Sub"],
    "02_word": ["Multi-DProxy"],
    "03_fails": ["teaching"],
}


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """An output folder after a run: figures and tables that are hard to lay out, and a failure."""
    folder = tmp_path_factory.mktemp("gallery")
    table = f"|a|b|\n|-|-|\n|{LONG_WORD}|{'many words ' * 30}|"
    entries = {}
    for name, source in NOTEBOOKS.items():
        text = f"# {name}\n\nWith `{LONG_WORD}`, {LONG_WORD} and $x$\n\n{table}"
        source = f"FINDING = {FINDING!r}\n{source}"
        source = f"LONG_WORD = {LONG_WORD!r}\nLONG_CAPTION = {LONG_CAPTION!r}\n{source}"
        cells = (nbformat.v4.new_markdown_cell(text), parameters_cell(), source)
        write_notebook(folder / f"{name}.ipynb", *cells)
        entries[name] = {
            "title": f"Notebook {name}",
            "seconds": 5,
            "question": f"Does notebook {name} answer?",
            "papers": PAPERS[name],
            "shows": f"table 1 of {PAPERS[name][0]}",
            "seeds": 3,
        }
    profile = folder / "profile.yaml"
    profile.write_text(json.dumps({"encoder": "mini", "notebooks": entries}))
    outcomes = reproduce(
        profile=str(profile), parameters={"n": 7}, out=folder / "out", notebooks=folder
    )
    assert [outcome.status for outcome in outcomes] == ["done", "done", "failed"], outcomes
    return folder / "out"


def captions(out):
    notes = (Path(out) / ".state").glob("*--*.json")
    return [json.loads(path.read_text(encoding="utf-8"))["caption"] for path in notes]


def without_spaces(text):
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", text))  # a PDF has ligatures


def visible(page, selector, attribute="id"):
    """An attribute of all visible elements."""
    elements = f"[...document.querySelectorAll('{selector}')].filter(e => e.checkVisibility())"
    return page.evaluate(f"{elements}.map(e => e.getAttribute('{attribute}'))")


def check_print(page, out, folder):
    """On paper: every caption, every picture on one page, nothing beyond the edge, no buttons."""
    from pypdf import PdfReader

    page.pdf(path=folder / "page.pdf", prefer_css_page_size=True)
    sheets = PdfReader(folder / "page.pdf").pages
    text = without_spaces("".join(sheet.extract_text() for sheet in sheets))
    assert [caption for caption in captions(out) if without_spaces(caption) not in text] == []
    pictures = sum(len(sheet.images) for sheet in sheets)
    assert pictures == page.locator("figure img").count(), "a picture is missing or cut in two"
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 686, "height": 1000})  # A4 without its margins
    assert page.evaluate(OVERFLOW) == []
    assert visible(page, ".bar, .card") == [], "buttons or cards are printed"
    scrolling = "e => e.scrollWidth > innerWidth || e.scrollHeight > e.clientHeight + 2"
    boxes = f"[...document.querySelectorAll('.scroll')].filter({scrolling})"
    assert page.evaluate(f"{boxes}.length") == 0, "a table is cut off"
    page.emulate_media(media="screen")


@pytest.mark.parametrize("width", WIDTHS)
def test_the_gallery_is_complete(chromium, gallery, width, tmp_path):
    page, faults = look(chromium, gallery / "index.html", width)
    assert faults == []
    assert page.locator("figure").count() == 5 and page.locator(".card").count() == 4
    tall = [image.get_attribute("class") for image in page.locator(".thumb img").all()]
    assert tall == [None, "tall"]  # its upper part is on the card
    images = page.locator("figure img")
    descriptions = [images.nth(k).get_attribute("alt") for k in range(2)]
    assert descriptions == [LONG_CAPTION, "A word: " + LONG_WORD]
    assert page.locator(".thumb img").count() == 2
    assert "RuntimeError: no such thing" in page.locator("[id='03_fails'] .failed").inner_text()
    places = (".hero a", "[id='01_wide'] .finding", "[id='01_wide--sines'] figcaption strong")
    for place in (*places, ".card .card-caption >> nth=0"):
        assert page.locator(place).inner_text() == FINDING, place
    assert page.locator(".hero img").get_attribute("src") == "01_wide_sines.png"
    assert page.locator("[id='01_wide'] .question").inner_text() == "Does notebook 01_wide answer?"
    click(page, "Both")
    text = page.inner_text("[id='01_wide']")
    assert text.index("answer?") < text.index(FINDING) < text.index("Thirty columns")
    page.locator("[id='01_wide'] summary").click()
    made = page.locator("[id='01_wide'] dl").inner_text()
    for word in ("0, 1, 2", "n = 7", "cpu", "torch ", "profile.yaml", "run_all.py"):
        assert word in made
    files = {
        "01_wide_columns.csv",
        "01_wide_sines.svg",
        "01_wide_sines.csv",
        "02_word.csv",
        "notebooks/01_wide.html",
        "notebooks/03_fails.html",
    }
    assert files <= set(visible(page, "section a", "href"))
    page.locator(".card").first.click()
    top = "document.getElementById('01_wide--sines').getBoundingClientRect().top"
    page.wait_for_function(f"{top} < 300", timeout=5000)  # it scrolls a moment later
    check_print(page, gallery, tmp_path)
    page.close()


def listed(page):
    """Ids of the visible figures and tables; cards, count and message must agree with them, except
    that a table in RI has no card."""
    page.wait_for_timeout(50)  # a new address is handled a moment later
    ids = visible(page, "figure")
    assert [f"#{name}" for name in ids if name != RI] == visible(page, ".card", "href")
    assert page.locator(".count").inner_text() == f"{len(ids)} of 5 shown"
    assert page.locator(".no-match").is_visible() == (not ids)
    return ids


def pressed(page):
    return page.locator("button[aria-pressed=true]").all_inner_texts()


def click(page, name):
    page.get_by_role("button", name=name).click()


RI = "02_word--RI"
ITEMS = ["01_wide--sines", "01_wide--columns", "02_word--tall", "02_word--main", RI]


def test_the_filter_by_mouse_keyboard_and_link(chromium, gallery):
    page, faults = look(chromium, gallery / "index.html", 1440)
    assert listed(page) == [ITEMS[0], ITEMS[2]] and pressed(page) == ["All", "Figures"]
    groups = page.locator(".filter-group").all()
    assert [group.inner_text().split("\n")[0] for group in groups] == ["Paper", "Show"]
    assert page.get_by_role("group", name="Show").count() == 1
    assert page.get_by_role("button", name="Teaching").count() == 1
    click(page, "Both")
    assert listed(page) == ITEMS and pressed(page) == ["All", "Both"]
    assert len(visible(page, "section")) == 3
    assert not page.locator(f"[id='{RI}'] table").is_visible()
    page.locator(f"[id='{RI}'] summary").click()
    assert page.locator(f"[id='{RI}'] table").is_visible()
    click(page, "Multi-Sub")
    assert listed(page) == ITEMS[:2] and pressed(page) == ["Multi-Sub", "Both"]
    assert visible(page, "section") == ["01_wide"]
    click(page, "Tables")
    assert listed(page) == ["01_wide--columns"] and pressed(page) == ["Multi-Sub", "Tables"]
    address = page.url
    page.get_by_role("button", name="All", exact=True).click()
    assert listed(page) == ["01_wide--columns", "02_word--main", RI]
    assert len(visible(page, "section")) == 3  # a failure stays visible
    page.go_back()
    assert listed(page) == ["01_wide--columns"]

    index = (gallery / "index.html").as_uri()
    page.goto(f"{index}#all")
    page.reload()
    page.get_by_role("button", name="All", exact=True).focus()
    for key, ids, buttons in [
        ("Enter", ITEMS[2:], ["Multi-DProxy", "Both"]),
        ("Space", ["02_word--tall"], ["Multi-DProxy", "Figures"]),
    ]:
        for _ in range(3):
            page.keyboard.press("Tab")
        page.keyboard.press(key)
        assert listed(page) == ids and pressed(page) == buttons

    other = chromium.new_page()
    other.goto(address)
    assert listed(other) == ["01_wide--columns"] and pressed(other) == ["Multi-Sub", "Tables"]
    other.goto(f"{index}#paper=Multi-Nothing")
    assert listed(other) == []
    click(other, "Show all")
    assert listed(other) == ITEMS
    other.goto(f"{index}#kind=table")
    other.goto(f"{index}#02_word--tall")  # a link to what the filter hides
    assert listed(other) == ITEMS
    other.close()
    assert faults == []
    page.close()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_an_executed_notebook_is_complete(chromium, gallery, name, width):
    page, faults = look(chromium, gallery / "notebooks" / f"{name}.html", width, contrast=False)
    assert faults == [] and name in page.inner_text("body")
    assert page.locator(".jp-OutputArea-output img").count() == (name != "03_fails")
    page.close()


FAULTS = {
    "missing image": "<img src='thumbs/nowhere.png' alt='x'>",
    "failed request": "<img src='thumbs/nowhere.png' alt='x'>",
    "scrolls": "<div style='width:2000px;height:9px'></div>",
    "cut off": "<div style='overflow:hidden'><div style='width:2000px;height:9px'></div></div>",
    "console": "<script>console.error('broken')</script>",
    "script": "<script>throw new Error('broken')</script>",
    "outside": "<img src='http://127.0.0.1:9/x.png' alt='x'>",
    "image without words": "<figure><img src='01_wide_sines.png'></figure>",
    "dead link": "<a href='nowhere.csv'>x</a>",
    "dead anchor": "<a href='#nowhere'>x</a>",
    "contrast": "<p style='color:#999'>pale</p>",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_check_can_fail(chromium, gallery, fault):
    source = (gallery / "index.html").read_text(encoding="utf-8")
    broken = gallery / "broken.html"
    broken.write_text(source.replace("<main>", f"<main>{FAULTS[fault]}"), encoding="utf-8")
    page, faults = look(chromium, broken, 390)
    page.close()
    broken.unlink()
    assert any(text.startswith(fault) for text in faults), faults


def test_the_print_check_can_fail(chromium, gallery, tmp_path):
    source = (gallery / "index.html").read_text(encoding="utf-8")
    tall = source.replace("max-height: 215mm;", "height: 400mm !important;")
    broken = {
        "picture": tall.replace("figure.one-page,", ""),
        "It ends here": source.replace(f"</strong> {LONG_CAPTION}", "</strong>"),
        "buttons": re.sub(r"\.bar,\s+\.hero,", ".hero,", source),
        "cut off": re.sub(r"overflow: visible;\s+max-height: none", "max-height: 90px", source),
    }
    for fault, text in broken.items():
        assert text != source
        (gallery / "broken.html").write_text(text, encoding="utf-8")
        page = chromium.new_page()
        page.goto((gallery / "broken.html").as_uri())
        click(page, "Both")  # tables as well
        with pytest.raises(AssertionError, match=fault):
            check_print(page, gallery, tmp_path)
        page.close()
    (gallery / "broken.html").unlink()


def test_text_of_notebooks_is_escaped(gallery, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(gallery, out)
    attack = "<script>alert(1)</script>"
    profile = json.loads((gallery.parent / "profile.yaml").read_text())
    profile["notebooks"]["01_wide"] |= {"title": attack, "shows": attack, "papers": [attack]}
    (tmp_path / "profile.yaml").write_text(json.dumps(profile))
    for name, entry in {"01_wide": "error", "01_wide--sines": "caption"}.items():
        state = out / ".state" / f"{name}.json"
        state.write_text(json.dumps(json.loads(state.read_text()) | {entry: attack}))
    text = write_index(out, str(tmp_path / "profile.yaml")).read_text(encoding="utf-8")
    assert attack not in text and text.count("&lt;script&gt;") > 5
    assert "&lt;numbers&gt;" in text and text.count("<script>") == 1


def test_the_page_of_one_notebook_is_its_section(chromium, gallery, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(gallery, out)
    for name in ("01_wide", "03_fails"):
        (out / ".state" / f"{name}.json").unlink()
    page, faults = look(chromium, write_index(out, str(gallery.parent / "profile.yaml")), 390)
    assert faults == [] and visible(page, ".bar, .hero, .card, .back") == []
    kinds = visible(page, "figure", "data-kind")
    assert kinds == ["figure", "table", "table"] and "1 notebook," in page.inner_text("footer")
    page.close()


def test_a_missing_figure_is_named(gallery, tmp_path):
    out, profile = tmp_path / "out", str(gallery.parent / "profile.yaml")
    shutil.copytree(gallery, out)
    (out / "02_word_tall.png").unlink()
    text = write_index(out, profile).read_text(encoding="utf-8")
    assert "run the notebook again" in text and "02_word_tall.png" not in text


def test_how_a_notebook_was_made_is_kept(gallery):
    state = json.loads((gallery / ".state" / "01_wide.json").read_text())
    assert state["device"] == "cpu" and state["seeds"] == [0, 1, 2]
    assert state["versions"] == versions()
    assert bool(state["commit"]) == bool(commit())
    assert seeds({"seeds": 2}, {"seeds": 5}) == [0, 1]
    assert seeds({"seed": 3}, {"seeds": 5}) == [3]
    assert seeds({"seeds": None}, {"seed": 0}) == [0]
    assert seeds({}, {}) is None


def test_the_commit_is_that_of_the_package(tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.setattr("mmclust.pipeline.notebooks.PACKAGE", package)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    def git(*arguments):
        command = ["git", "-c", "user.name=x", "-c", "user.email=x@x", *arguments]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    assert commit() == ""  # not in a repository
    git("init")
    git("commit", "--allow-empty", "-m", "x")
    assert commit() == ""  # the repository of another project
    git("add", "package")
    git("commit", "-m", "y")
    assert re.fullmatch("[0-9a-f]{10}", commit())
    (package / "__init__.py").write_text("x = 1")
    assert re.fullmatch(r"[0-9a-f]{10}\+", commit())


@pytest.mark.skipif(not FIGURES, reason="MMCLUST_FIGURES names no folder")
@pytest.mark.parametrize("width", WIDTHS)
def test_a_real_output_folder(chromium, width, tmp_path):
    out = Path(FIGURES or ".")
    page, faults = look(chromium, out / "index.html", width)
    wrong = {"index.html": faults}
    assert page.locator("figure").count() == len(captions(out)) > 0
    assert page.locator("figure:not(:has(details))").count() == page.locator(".card").count()
    page.goto(f"{(out / 'index.html').as_uri()}#all")
    check_print(page, out, tmp_path)
    page.close()
    for path in sorted((out / "notebooks").glob("*.html")):
        page, wrong[path.name] = look(chromium, path, width, contrast=False)
        page.close()
    assert {name: faults for name, faults in wrong.items() if faults} == {}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab, and its folder with a copy of the notebooks, some made quick."""
    folder, port = tmp_path_factory.mktemp("lab"), web.free_port()
    ignored = shutil.ignore_patterns(".ipynb_checkpoints")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=ignored)
    quick = json.dumps(str(quick_profile(folder)))
    for name in LAB_NOTEBOOKS:
        book = nbformat.read(folder / "notebooks" / f"{name}.ipynb", as_version=4)
        (cell,) = [c for c in book.cells if "parameters" in c.metadata.get("tags", [])]
        assert 'profile = "demo"' in cell.source
        cell.source = cell.source.replace('profile = "demo"', f"profile = {quick}")
        nbformat.write(book, folder / "notebooks" / f"{name}.ipynb")
    command = [
        *("-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"),
        *("--ServerApp.port_retries=0", "--IdentityProvider.token="),
        f"--ServerApp.root_dir={folder / 'notebooks'}",
        *("--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None"),
    ]
    address = f"http://127.0.0.1:{port}"
    with web.running(command, f"{address}/api/status", folder, OMP_NUM_THREADS="1"):
        yield address, folder


# The state of a notebook's cells in JupyterLab; null while there is no kernel.
CELLS = """name => {
  const widgets = [...window.jupyterapp?.shell.widgets("main") ?? []];
  const panel = widgets.find(widget => widget.context?.path === name + ".ipynb");
  const kernel = panel?.sessionContext?.session?.kernel;
  if (!kernel) return null;
  const isCode = cell => cell.type === "code" && cell.sharedModel.getSource().trim();
  const cells = [...panel.content.model.cells].filter(isCode);
  const outputs = cell =>
    [...Array(cell.outputs.length).keys()].map(k => cell.outputs.get(k).toJSON());
  const errors = cells.flatMap(outputs).filter(output => output.output_type === "error");
  return {
    status: kernel.status,
    counts: cells.map(cell => cell.executionCount),
    running: cells.filter(cell => cell.executionState === "running").length,
    errors: errors.map(error => `${error.ename}: ${error.evalue}`),
  };
}"""


@contextmanager
def all_cells_run(chromium, address, name, seconds):
    """A notebook in JupyterLab after Run > Run All Cells, and the errors of its cells."""
    page = chromium.new_page(viewport={"width": 1440, "height": 900})
    page.goto(f"{address}/lab/workspaces/{name}/tree/{name}.ipynb")  # a workspace without tabs
    page.wait_for_function(f"name => ({CELLS})(name)?.status === 'idle'", arg=name, timeout=180_000)
    page.locator(".lm-MenuBar-itemLabel", has_text=re.compile(r"^Run$")).click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile(r"^Run All Cells$")).click()
    end = time.time() + seconds
    while time.time() < end:
        cells = page.evaluate(CELLS, name)
        idle = cells and not cells["running"] and cells["status"] == "idle"
        if cells and (cells["errors"] or (idle and all(cells["counts"]))):
            yield page, cells["errors"]
            page.close()
            return
        page.wait_for_timeout(300)
    pytest.fail(f"{name} has not ended after {seconds} s: {cells}")


@pytest.mark.slow
@pytest.mark.parametrize("name", LAB_NOTEBOOKS)
def test_jupyterlab_runs_a_notebook_from_top_to_bottom(chromium, lab, name):
    address, folder = lab
    with all_cells_run(chromium, address, name, 900) as (_, errors):
        assert errors == []
    assert list((folder / "figures").glob(f"{name}*.csv"))


def test_jupyterlab_shows_a_failing_cell(chromium, lab):
    address, folder = lab
    write_notebook(folder / "notebooks" / "broken.ipynb", "1 + 1", "1 / 0", "2 + 2")
    with all_cells_run(chromium, address, "broken", 300) as (_, errors):
        assert errors == ["ZeroDivisionError: division by zero"]


@pytest.mark.slow
def test_jupyterlab_shows_the_explorer(chromium, lab):
    pytest.importorskip("ipywidgets")
    with all_cells_run(chromium, lab[0], "16_explorer", 300) as (page, errors):
        assert errors == []
        page.locator(".mm-status", has_text="200 pictures sorted by color").wait_for(
            timeout=120_000
        )
        page.get_by_label("Clusters, or auto").fill("3")
        page.locator(".mm-go").click()
        page.locator("h3", has_text="3 clusters").wait_for(timeout=120_000)
        page.locator(".mm-map path").nth(199).wait_for(timeout=120_000)  # it comes last
        assert page.locator(".mm-cluster").count() == 3
        assert page.locator(".mm-map path").count() == 200
        fits = page.locator(".mmx").first.evaluate("e => e.scrollWidth <= e.clientWidth")
        assert fits, "the explorer is cut off in its cell"
