"""The gallery `index.html` of an output folder, and executed notebooks as HTML.

The page is built from the notes that notebooks leave in the folder (`NotebookOutput`) and from the
state of their last run. It is one file: style sheets and script are written into it, and it loads
nothing from the network. Captions, titles and errors are escaped (jinja2's `autoescape`); only our
own files and the HTML of tables, which `NotebookOutput.table` has escaped, go in as markup.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from PIL import Image

from mmclust.profiles import load_profile
from mmclust.results.output import STATE
from mmclust.storage import write_atomically

if TYPE_CHECKING:
    from nbformat import NotebookNode

HERE = Path(__file__).parent
PAPERS = ["Multi-MaP", "Multi-Sub", "Multi-DProxy"]  # in order of appearance; others come after
THUMBS = "thumbs"  # the folder of the small copies of figures
THUMB_WIDTH = 480  # pixels
FIGURE_SCALE = 0.55  # CSS pixels per pixel: figures are saved at about twice their reading size
PREVIEW_ROWS = 9  # of a table, on its card
LONG_CELL = 45  # characters; the text of a longer cell breaks into lines
ROWS_PER_PAGE = 40  # a longer table may be split between printed pages
PRINT_WIDTH = 500  # points; A4 leaves 516 between our margins
LETTER_WIDTH = 0.64  # em, at most
PRINT_SIZE = 9.5  # points, at most


def write_index(out: Path, profile: str) -> Path:
    """Write `out/index.html`, the figures and tables of all notebooks of a profile that have run."""
    notebooks = [
        _notebook(out, name, settings, profile)
        for name, settings in load_profile(profile)["notebooks"].items()
        if read_state(out, name)
    ]
    figures = [item for notebook in notebooks for item in notebook["items"] if "png" in item]
    with ThreadPoolExecutor() as pool:  # Pillow reads and writes without holding the GIL
        for figure, sizes in zip(figures, pool.map(lambda item: _thumb(out, item), figures)):
            figure.update(sizes)
    named = {paper for notebook in notebooks for paper in notebook["papers"]}
    papers = [paper for paper in PAPERS if paper in named] + sorted(named.difference(PAPERS))
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    html = environment.get_template("gallery.html.j2").render(
        notebooks=notebooks,
        profile=profile,
        axes={
            "paper": {paper: paper for paper in papers},
            "kind": {"figure": "Figures", "table": "Tables"},
        },
        paper_class={paper: f"paper-{i}" for i, paper in enumerate(PAPERS)},
        style=Markup(_asset("theme.css") + _asset("gallery.css")),
        script=Markup(_asset("gallery.js")),
    )
    page = out / "index.html"
    page.write_text(html, encoding="utf-8")
    return page


def read_state(out: Path, name: str) -> dict:
    """What is known of a notebook's last run into a folder; empty if it never ran there."""
    try:
        return json.loads((out / STATE / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def read_notes(out: Path, name: str) -> list[dict]:
    """The notes on a notebook's figures and tables, in its order."""
    files = (out / STATE).glob(f"{name}--*.json")
    notes = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    return sorted(notes, key=lambda note: note["order"])


def _asset(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _notebook(out: Path, name: str, settings: dict, profile: str) -> dict:
    """What the template needs of a notebook."""
    state = read_state(out, name)
    html = f"notebooks/{name}.html"
    return {
        "name": name,
        "number": re.findall(r"^\d*", name)[0],
        "title": settings["title"],
        "papers": settings.get("papers", []),
        "shows": settings.get("shows", ""),
        "items": [_item(out, note) for note in read_notes(out, name)],
        "html": html if (out / html).exists() else "",
        "made": _provenance(name, state, profile),
        "error": state["error"],
        "where": state["where"],
    }


def _item(out: Path, note: dict) -> dict:
    """What the template needs of a figure or table."""
    files = [file for file in note["files"] if (out / file).exists()]
    item = note | {
        "id": f"{note['notebook']}--{note['name'] or 'main'}",
        "files": files,
        "one_page": True,  # when printed
    }
    by_suffix = {Path(file).suffix: file for file in files}
    if note["kind"] == "table":
        item |= _table(note.get("table", ""))
    elif ".png" in by_suffix:
        item["png"] = by_suffix[".png"]
        item["svg"] = by_suffix.get(".svg", item["png"])
    return item


def _thumb(out: Path, item: dict) -> dict:
    """The sizes of a figure on the page, and a small copy, written again if the figure is newer."""
    source = out / item["png"]
    thumb = out / THUMBS / f"{source.stem}.webp"
    with Image.open(source) as picture:
        size = [round(side * FIGURE_SCALE) for side in picture.size]
        if not thumb.exists() or thumb.stat().st_mtime_ns < source.stat().st_mtime_ns:
            small = picture.convert("RGB")  # figures have an opaque background
            box = (THUMB_WIDTH, 2 * THUMB_WIDTH)
            small.thumbnail(box, Image.Resampling.LANCZOS, reducing_gap=2)
            data = BytesIO()
            small.save(data, "WEBP", quality=85, method=2)
            write_atomically(thumb, data.getvalue())
    with Image.open(thumb) as small:
        return {"size": size, "thumb": f"{THUMBS}/{thumb.name}", "thumb_size": small.size}


def _table(html: str) -> dict:
    """A table for the page and its card, and the font size at which it fits on paper.

    Args:
        html: as `NotebookOutput.table` wrote it, escaped.
    """
    html = re.sub(r"<style.*?</style>", "", html, flags=re.S)  # the page has its own colors
    html = re.sub(r'(<\w+[^>]*?) id="[^"]*"', r"\1", html)  # the table is on the page twice
    html = re.sub(rf"<td(?=[^>]*>[^<]{{{LONG_CELL},}}<)", "<td data-long", html)
    head, tbody, body = html.partition("<tbody>")
    rows = re.findall(r"<tr.*?</tr>", body, flags=re.S)
    preview = f"{head}<tbody>{''.join(rows[:PREVIEW_ROWS])}</tbody></table>" if tbody else html
    return {
        "table": Markup(html),
        "preview": Markup(preview),
        "one_page": len(rows) < ROWS_PER_PAGE,
        "print_size": _print_size([head, *rows]),
    }


def _print_size(rows: list[str]) -> float:
    """The font size, in points, at which rows (HTML) are as wide as a printed page or less."""
    widths: dict[int, int] = {}  # column -> characters
    for row in rows:
        for column, cell in enumerate(re.findall(r"<t[hd].*?</t[hd]>", row, re.S)):
            characters = len(re.sub(r"<.*?>|&\w+;", "", cell).strip())
            widths[column] = max(widths.get(column, 0), min(characters, LONG_CELL))
    characters = sum(width + 2 for width in widths.values())  # 2: the space between columns
    return round(min(PRINT_SIZE, PRINT_WIDTH / LETTER_WIDTH / max(characters, 1)), 1)


def _provenance(name: str, state: dict, profile: str) -> dict[str, str]:
    """How a notebook was run, for the reader; empty where its state does not say."""
    profile = state.get("profile", profile)
    device = state.get("device", "")
    seeds = state.get("seeds")
    parameters = {
        key: value
        for key, value in state.get("parameters", {}).items()
        if key not in ("profile", "device")
    }
    command = ["python", "run_all.py", "--force", "--only", name]
    if profile != "demo":
        command += ["--profile", profile]
    if device not in ("", "cpu"):
        command += ["--device", device]
    for key, value in parameters.items():
        plain = isinstance(value, str) and re.fullmatch("[A-Za-z][A-Za-z_/-]*", value)
        command += ["-p", f"{key}={value if plain else json.dumps(value)}"]
    finished = time.strftime("%Y-%m-%d %H:%M", time.localtime(state["time"]))
    return {
        "when": f"{finished}, {state['seconds']:.0f} s",
        "profile": profile,
        "device": device,
        "seeds": ", ".join(map(str, seeds or [])),
        "parameters": ", ".join(f"{k} = {json.dumps(v)}" for k, v in parameters.items())
        or "the profile's",
        "commit": state.get("commit", ""),
        "versions": ", ".join(f"{k} {v}" for k, v in state.get("versions", {}).items()),
        "command": shlex.join(command),
    }


def to_html(notebook: NotebookNode, path: Path) -> None:
    """Write an executed notebook as one HTML file that loads nothing from the network."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        template_name="lab",
        mathjax_url="",
        require_js_url="",
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    # Widgets do nothing without a kernel, and their script would be loaded from the network: the
    # page shows the text that stands beside them in the notebook's outputs.
    notebook.metadata.pop("widgets", None)
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    html = exporter.from_notebook_node(notebook)[0]
    style = f"<style>{_asset('notebook.css')}</style></head>"
    path.write_text(html.replace("</head>", style, 1), encoding="utf-8")
