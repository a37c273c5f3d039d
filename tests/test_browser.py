"""What a reader sees: the gallery, the executed notebooks and JupyterLab in a real Chromium, at the width of a phone and of a laptop.

MMCLUST_BROWSER=required turns a missing browser from a skip into a failure. MMCLUST_FIGURES=DIR checks that output folder, too.
MMCLUST_LAB_NOTEBOOKS=00_quickstart,01_datasets names the notebooks to run in JupyterLab (00_quickstart unless set).
"""

import json
import os
import re
import shutil
import subprocess
import time
import unicodedata
import urllib.parse
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from helpers import local_servers as web
from PIL import Image

from mmclust.pipeline.gallery import write_index
from mmclust.pipeline.notebooks import commit, reproduce, seeds, versions

ROOT = Path(__file__).parents[1]
FIGURES = os.environ.get("MMCLUST_FIGURES")
LAB_NOTEBOOKS = os.environ.get("MMCLUST_LAB_NOTEBOOKS", "00_quickstart").split(",")
WIDTHS = [390, 1440]
LONG_WORD = "Donaudampfschifffahrtselektrizitaetenhauptbetriebswerkbauunterbeamtengesellschaft" * 3
LONG_CAPTION = "Sines of growing frequency, drawn to be looked at. " * 12 + "It ends here."


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
page.table(pd.DataFrame({"word": [LONG_WORD], "length": [len(LONG_WORD)]}), "", "A long word in a cell.")
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
    """A small output folder as a run leaves it: two notebooks with figures and tables that are hard to lay out, and one that fails."""
    room = tmp_path_factory.mktemp("gallery")
    for name, source in NOTEBOOKS.items():
        text = f"# {name}\n\nWith `{LONG_WORD}`, {LONG_WORD} and $x$\n\n|a|b|\n|-|-|\n|{LONG_WORD}|{'many words ' * 30}|"
        cells = [
            nbformat.v4.new_markdown_cell(text),
            nbformat.v4.new_code_cell("out = None\nn = 1", metadata={"tags": ["parameters"]}),
        ]
        source = f"LONG_WORD = {LONG_WORD!r}\nLONG_CAPTION = {LONG_CAPTION!r}\n{source}"
        kernel = {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        }
        nbformat.write(
            nbformat.v4.new_notebook(
                metadata=kernel, cells=[*cells, nbformat.v4.new_code_cell(source)]
            ),
            room / f"{name}.ipynb",
        )
    entries = {
        n: {
            "title": f"Notebook {n}",
            "seconds": 5,
            "papers": PAPERS[n],
            "shows": f"table 1 of {PAPERS[n][0]}",
            "seeds": 3,
        }
        for n in NOTEBOOKS
    }
    (room / "profile.yaml").write_text(json.dumps({"encoder": "mini", "notebooks": entries}))
    outcomes = reproduce(
        profile=str(room / "profile.yaml"), parameters={"n": 7}, out=room / "out", notebooks=room
    )
    assert [o.status for o in outcomes] == ["done", "done", "failed"], outcomes
    return room / "out"


OVERFLOW = """() => {
  const page = document.scrollingElement, wide = page.clientWidth + 1, name = e => e.tagName.toLowerCase() + (e.id ? "#" + e.id : "") + "." + e.className;
  const faults = page.scrollWidth > page.clientWidth ? [`scrolls: ${page.scrollWidth} of ${page.clientWidth} px`] : [];
  const inside = e => {  // its own box scrolls, or it is decoration
    for (let p = e; p && p !== document.body; p = p.parentElement) {
      if (p.getAttribute("aria-hidden") === "true") return true;
      if (["auto", "scroll"].includes(getComputedStyle(p).overflowX) && p.getBoundingClientRect().right <= wide) return true;
    }
  };
  for (const e of document.body.querySelectorAll("*")) if (e.getBoundingClientRect().right > wide && !inside(e)) faults.push("cut off: " + name(e));
  return faults.slice(0, 5);
}"""
IMAGES = """async () => {
  for (let y = 0; y < document.body.scrollHeight; y += innerHeight) { scrollTo(0, y); await new Promise(requestAnimationFrame); }
  scrollTo(0, 0);
  await Promise.all([...document.images].map(i => i.decode().catch(() => {})));
  return [...document.images].filter(i => !i.naturalWidth).map(i => "missing image: " + i.getAttribute("src").slice(0, 80))
    .concat([...document.images].filter(i => !i.alt && i.closest("figure, .card")).map(i => "image without words: " + i.getAttribute("src").slice(0, 80)));
}"""
CONTRAST = """() => {
  const read = c => { const n = c.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const light = c => c.slice(0, 3).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [.2126, .7152, .0722][k], 0);
  const back = e => e ? read(getComputedStyle(e).backgroundColor) : [255, 255, 255, 1], ground = e => back(e)[3] === 1 ? back(e) : ground(e.parentElement);
  const faults = new Set(), walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !e.getClientRects().length || e.closest(".thumb, script, style")) continue;
    const [a, b] = [light(read(getComputedStyle(e).color)), light(ground(e))], ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) faults.add(`contrast ${ratio.toFixed(1)}: ${e.tagName.toLowerCase()}.${e.className} ${e.textContent.slice(0, 30)}`);
  }
  return [...faults].slice(0, 5);
}"""


def look(browser, path, width, contrast=True):
    """Open a file at a width; returns the page, and everything that is wrong with it."""
    page, faults = browser.new_page(viewport={"width": width, "height": 844}), []
    page.on(
        "console",
        lambda message: (
            faults.append(f"console: {message.text}")
            if message.type in ("error", "warning")
            else None
        ),
    )
    page.on("pageerror", lambda error: faults.append(f"script: {error}"))
    page.on("requestfailed", lambda request: faults.append(f"failed request: {request.url}"))
    page.on(
        "request",
        lambda r: (
            None
            if r.url.startswith(("file://", "data:", "blob:"))
            else faults.append(f"outside: {r.url}")
        ),
    )
    page.goto(Path(path).resolve().as_uri(), wait_until="load")
    for check in [IMAGES, OVERFLOW] + [CONTRAST] * contrast:
        faults += page.evaluate(check)
    for link in page.evaluate("[...document.querySelectorAll('a[href]')].map(a => a.href)"):
        address, _, anchor = link.partition("#")
        if (
            address.startswith("file:")
            and not Path(urllib.parse.unquote(urllib.parse.urlsplit(address).path)).exists()
        ):
            faults.append(f"dead link: {link}")
        if (
            anchor
            and address == page.url.partition("#")[0]
            and not page.evaluate("id => !!document.getElementById(decodeURIComponent(id))", anchor)
        ):
            faults.append(f"dead anchor: {link}")
    return page, faults


def captions(out):
    return [
        json.loads(p.read_text(encoding="utf-8"))["caption"]
        for p in (Path(out) / ".state").glob("*--*.json")
    ]


def packed(text):
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", text))  # on paper there are ligatures


def check_print(page, out, folder):
    """On paper: every caption, every picture on one page, nothing beyond the edge, no buttons."""
    from pypdf import PdfReader

    page.pdf(path=folder / "page.pdf", prefer_css_page_size=True)
    sheets = PdfReader(folder / "page.pdf").pages
    text = packed("".join(sheet.extract_text() for sheet in sheets))
    assert [c for c in captions(out) if packed(c) not in text] == []
    assert sum(len(sheet.images) for sheet in sheets) == page.locator("figure img").count(), (
        "a picture is cut in two, missing, or shown twice"
    )
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 686, "height": 1000})  # A4 without its margins
    assert (
        page.evaluate(OVERFLOW) == []
        and not page.locator(".bar").is_visible()
        and not page.locator(".card").first.is_visible()
    )
    assert (
        page.evaluate(
            "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > innerWidth || e.scrollHeight > e.clientHeight + 2).length"
        )
        == 0
    )
    page.emulate_media(media="screen")


@pytest.mark.parametrize("width", WIDTHS)
def test_the_gallery_is_whole(chromium, gallery, width, tmp_path):
    page, faults = look(chromium, gallery / "index.html", width)
    assert faults == []
    assert page.locator("figure").count() == page.locator(".card").count() == 4
    assert [page.locator("figure img").nth(k).get_attribute("alt") for k in range(2)] == [
        LONG_CAPTION,
        "A word: " + LONG_WORD,
    ]
    thumbs = page.evaluate(
        "[...document.querySelectorAll('.thumb img')].map(i => [i.getAttribute('src'), i.naturalWidth])"
    )
    assert len(thumbs) == 2 and all(
        src.startswith("thumbs/") and size <= 480 for src, size in thumbs
    )
    assert "RuntimeError: no such thing" in page.locator("[id='03_fails'] .failed").inner_text()
    page.locator("[id='01_wide'] summary").click()
    made = page.locator("[id='01_wide'] dl").inner_text()
    assert all(
        word in made for word in ("0, 1, 2", "n = 7", "cpu", "torch ", "profile.yaml", "run_all.py")
    )
    links = page.evaluate(
        "[...document.querySelectorAll('section a')].map(a => a.getAttribute('href'))"
    )
    assert {
        "01_wide_columns.csv",
        "01_wide_sines.svg",
        "01_wide_sines.csv",
        "02_word.csv",
        "notebooks/01_wide.html",
        "notebooks/03_fails.html",
    } <= set(links)
    page.locator(".card").first.click()
    assert (
        page.evaluate("document.getElementById('01_wide--sines').getBoundingClientRect().top") < 300
    )
    check_print(page, gallery, tmp_path)
    page.close()


def shown(page):
    """Ids of the figures and tables that are shown; cards and sections must say the same."""
    page.evaluate(
        "new Promise(done => setTimeout(done, 50))"
    )  # a change of the address is told a moment later
    ids = page.evaluate(
        "[...document.querySelectorAll('figure')].filter(e => e.checkVisibility()).map(e => e.id)"
    )
    cards = page.evaluate(
        "[...document.querySelectorAll('.card')].filter(e => e.checkVisibility()).map(e => e.getAttribute('href').slice(1))"
    )
    assert ids == cards and page.locator(".count").inner_text() == f"{len(ids)} of 4 shown"
    assert page.locator(".none").is_visible() == (not ids)
    return ids


def test_the_filter_by_mouse_keyboard_and_link(chromium, gallery):
    page, faults = look(chromium, gallery / "index.html", 1440)
    everything = ["01_wide--sines", "01_wide--columns", "02_word--tall", "02_word--main"]
    sections = lambda: page.evaluate(
        "[...document.querySelectorAll('section')].filter(e => e.checkVisibility()).map(e => e.id)"
    )  # noqa: E731
    pressed = lambda: page.locator("button[aria-pressed=true]").all_inner_texts()  # noqa: E731
    assert (
        shown(page) == everything and pressed() == ["All papers", "Both"] and len(sections()) == 3
    )
    page.get_by_role("button", name="Multi-Sub").click()
    assert (
        shown(page) == everything[:2]
        and pressed() == ["Multi-Sub", "Both"]
        and sections() == ["01_wide"]
    )
    page.get_by_role("button", name="Tables").click()
    assert shown(page) == ["01_wide--columns"] and pressed() == ["Multi-Sub", "Tables"]
    address = page.url
    page.get_by_role("button", name="All papers").click()
    assert (
        shown(page) == ["01_wide--columns", "02_word--main"] and len(sections()) == 3
    )  # the failure stays in sight
    page.go_back()
    assert shown(page) == ["01_wide--columns"]

    page.goto((gallery / "index.html").as_uri() + "#all")
    page.reload()
    page.get_by_role("button", name="All papers").focus()
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert shown(page) == everything[2:] and pressed() == ["Multi-DProxy", "Both"]
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert shown(page) == ["02_word--tall"] and pressed() == ["Multi-DProxy", "Figures"]

    other = chromium.new_page()
    other.goto(address)
    assert shown(other) == ["01_wide--columns"] and other.locator(
        "button[aria-pressed=true]"
    ).all_inner_texts() == ["Multi-Sub", "Tables"]
    other.goto(f"{address.split('#')[0]}#paper=Multi-Nothing")
    assert shown(other) == []
    other.get_by_role("button", name="Show all").click()
    assert shown(other) == everything
    other.goto(f"{address.split('#')[0]}#kind=table")
    other.goto(f"{address.split('#')[0]}#02_word--tall")  # a link to what the filter hides
    assert shown(other) == everything and other.locator("[id='02_word--tall']").is_visible()
    other.close()
    assert faults == []
    page.close()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_an_executed_notebook_is_whole(chromium, gallery, name, width):
    page, faults = look(chromium, gallery / "notebooks" / f"{name}.html", width, contrast=False)
    assert faults == [] and name in page.inner_text("body")
    assert page.locator(".jp-OutputArea-output img").count() == (name != "03_fails")
    page.close()


BREAKAGE = {
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


@pytest.mark.parametrize("fault", BREAKAGE)
def test_each_check_can_fail(chromium, gallery, fault):
    broken = gallery / "broken.html"
    broken.write_text(
        (gallery / "index.html")
        .read_text(encoding="utf-8")
        .replace("<main>", f"<main>{BREAKAGE[fault]}"),
        encoding="utf-8",
    )
    page, faults = look(chromium, broken, 390)
    page.close()
    broken.unlink()
    assert any(f.startswith(fault) for f in faults), faults


def test_the_print_check_can_fail(chromium, gallery, tmp_path):
    source = (gallery / "index.html").read_text(encoding="utf-8")
    breakage = {
        "picture": source.replace("figure.whole,", "").replace(
            "figure img{max-height:215mm;", "figure img{height:400mm!important;"
        ),
        "It ends here": source.replace(f"<figcaption>{LONG_CAPTION}", "<figcaption>"),
        "is_visible": source.replace(".bar,.overview,", ".overview,"),
        "scrollWidth": source.replace("overflow:visible;max-height:none", "max-height:90px"),
    }
    for word, text in breakage.items():
        assert text != source
        (gallery / "broken.html").write_text(text, encoding="utf-8")
        page = chromium.new_page()
        page.goto((gallery / "broken.html").as_uri())
        with pytest.raises(AssertionError, match=word):
            check_print(page, gallery, tmp_path)
        page.close()
    (gallery / "broken.html").unlink()


def test_thumbnails_follow_their_figures(gallery, tmp_path):
    out, profile = tmp_path / "out", str(gallery.parent / "profile.yaml")
    shutil.copytree(gallery, out, copy_function=shutil.copy2)
    old, other = (out / "thumbs" / f"{name}.webp" for name in ("01_wide_sines", "02_word_tall"))
    before = old.read_bytes(), old.stat().st_mtime_ns
    write_index(out, profile)
    assert (old.read_bytes(), old.stat().st_mtime_ns) == before, (
        "written again though the figure is the same"
    )
    Image.new("RGB", (1000, 500), "red").save(out / "01_wide_sines.png")
    (out / "02_word_tall.png").unlink()
    untouched = other.stat().st_mtime_ns
    text = write_index(out, profile).read_text(encoding="utf-8")
    with Image.open(old) as thumb:
        assert thumb.size == (480, 240) and thumb.getpixel((9, 9))[0] > 240
    assert (
        "not in this folder any more" in text
        and "02_word_tall.png" not in text
        and other.stat().st_mtime_ns == untouched
    )
    for state in (out / ".state").glob(
        "*.json"
    ):  # as an older run left it, and notebooks that did not run
        kept = {
            k: v
            for k, v in json.loads(state.read_text()).items()
            if k not in ("device", "versions", "commit", "seeds", "profile", "table")
        }
        state.write_text(json.dumps(kept)) if "02" not in state.name else state.unlink()
    assert "01_wide_columns.csv" in write_index(out, profile).read_text(encoding="utf-8")


def test_how_a_notebook_was_made_is_kept(gallery, tmp_path, monkeypatch):
    state = json.loads((gallery / ".state" / "01_wide.json").read_text())
    assert (
        state["device"] == "cpu" and state["seeds"] == [0, 1, 2] and state["versions"] == versions()
    )
    assert bool(state["commit"]) == bool(commit())
    assert (
        seeds({"seeds": 2}, {"seeds": 5}) == [0, 1]
        and seeds({"seed": 3}, {"seeds": 5}) == [3]
        and seeds({"seeds": None}, {"seed": 0}) == [0]
    )
    assert seeds({}, {}) is None
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.setattr("mmclust.pipeline.notebooks.PACKAGE", package)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    git = lambda *args: subprocess.run(
        ["git", "-c", "user.name=x", "-c", "user.email=x@x", *args],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )  # noqa: E731
    assert commit() == ""  # no repository
    git("init")
    git("commit", "--allow-empty", "-m", "x")
    assert commit() == ""  # somebody else's
    git("add", "package")
    git("commit", "-m", "y")
    assert re.fullmatch("[0-9a-f]{10}", commit())
    (package / "__init__.py").write_text("x = 1")
    assert re.fullmatch(r"[0-9a-f]{10}\+", commit())


@pytest.mark.skipif(not FIGURES, reason="MMCLUST_FIGURES names no folder")
@pytest.mark.parametrize("width", WIDTHS)
def test_a_real_output_folder(chromium, width, tmp_path):
    out, wrong = Path(FIGURES or "."), {}
    page, wrong["index.html"] = look(chromium, out / "index.html", width)
    assert page.locator("figure").count() == page.locator(".card").count() == len(captions(out)) > 0
    check_print(page, out, tmp_path)
    page.close()
    for path in sorted((out / "notebooks").glob("*.html")):
        page, wrong[path.name] = look(chromium, path, width, contrast=False)
        page.close()
    assert {name: faults for name, faults in wrong.items() if faults} == {}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a real JupyterLab in a room with a copy of the notebooks; what they write goes to ROOM/figures."""
    room, port = tmp_path_factory.mktemp("lab"), web.free_port()
    shutil.copytree(
        ROOT / "notebooks", room / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints")
    )
    options = [
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--ServerApp.port_retries=0",
        "--IdentityProvider.token=",
    ]
    options += [
        f"--ServerApp.root_dir={room / 'notebooks'}",
        "--LabApp.expose_app_in_browser=True",
        "--LabApp.news_url=None",
    ]
    address = f"http://127.0.0.1:{port}"
    with web.running(
        ["-m", "jupyterlab", *options], f"{address}/api/status", room, OMP_NUM_THREADS="1"
    ):  # two wait for each other where others work
        yield address, room


CELLS = """name => {
  const panel = [...window.jupyterapp?.shell.widgets("main") ?? []].find(w => w.context?.path === name + ".ipynb");
  const session = panel?.sessionContext?.session;
  if (!session?.kernel) return null;
  const cells = [...panel.content.model.cells].filter(c => c.type === "code" && c.sharedModel.getSource().trim());
  const outputs = c => [...Array(c.outputs.length).keys()].map(k => c.outputs.get(k).toJSON());
  return {status: session.kernel.status, counts: cells.map(c => c.executionCount), running: cells.filter(c => c.executionState === "running").length,
          errors: cells.flatMap(outputs).filter(o => o.output_type === "error").map(o => `${o.ename}: ${o.evalue}`)};
}"""


@contextmanager
def all_cells_run(chromium, address, name, seconds):
    """The page of a notebook in JupyterLab after Run > Run All Cells, and the errors of its cells, once all have run."""
    page = chromium.new_page(viewport={"width": 1440, "height": 900})
    page.goto(
        f"{address}/lab/workspaces/{name}/tree/{name}.ipynb"
    )  # a workspace of its own: no tabs of another test
    page.wait_for_function(f"name => ({CELLS})(name)?.status === 'idle'", arg=name, timeout=90_000)
    page.locator(".lm-MenuBar-itemLabel", has_text=re.compile(r"^Run$")).click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile(r"^Run All Cells$")).click()
    end = time.time() + seconds
    while time.time() < end:
        cells = page.evaluate(CELLS, name)
        if cells is None:
            pass  # no kernel at this moment
        elif cells["errors"] or (
            all(cells["counts"]) and not cells["running"] and cells["status"] == "idle"
        ):
            yield page, cells["errors"]
            page.close()
            return
        page.wait_for_timeout(300)
    pytest.fail(f"{name} was not through after {seconds} s: {cells}")


@pytest.mark.slow
@pytest.mark.parametrize("name", LAB_NOTEBOOKS)
def test_jupyterlab_runs_a_notebook_from_top_to_bottom(chromium, lab, name):
    address, room = lab
    with all_cells_run(chromium, address, name, 600) as (_, errors):
        assert errors == []
    written = [p.name for p in (room / "figures").glob(f"{name}*.csv")]
    assert written and (name != "01_datasets" or "01_datasets.csv" in written)


def test_jupyterlab_shows_a_failing_cell(chromium, lab):
    address, room = lab
    book = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in ("1 + 1", "1 / 0", "2 + 2")]
    )
    book.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    nbformat.write(book, room / "notebooks" / "broken.ipynb")
    with all_cells_run(chromium, address, "broken", 60) as (_, errors):
        assert errors == ["ZeroDivisionError: division by zero"]


@pytest.mark.slow
def test_jupyterlab_shows_the_explorer(chromium, lab):
    pytest.importorskip("ipywidgets")
    with all_cells_run(chromium, lab[0], "16_explorer", 60) as (page, errors):
        assert errors == []
        page.locator(".mm-status", has_text="200 pictures sorted by color").wait_for(
            timeout=120_000
        )
        page.get_by_label("Clusters: a number, or auto").fill("3")
        page.locator(".mm-go").click()
        page.locator("h3", has_text="3 clusters").wait_for(timeout=60_000)
        page.locator(".mm-map path").nth(199).wait_for(
            timeout=60_000
        )  # the map comes after the galleries
        assert (
            page.locator(".mm-cluster").count() == 3 and page.locator(".mm-map path").count() == 200
        )
        assert page.evaluate(
            "document.querySelector('.mmx').scrollWidth <= document.querySelector('.mmx').clientWidth"
        ), "cut off in its cell"
