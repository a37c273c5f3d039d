"""The gallery `index.html` of an output folder, and executed notebooks as HTML.

The page is built from the notes that notebooks leave in the folder (`NotebookOutput`) and from the
state of their last run. It loads nothing from the network. All text is escaped (jinja2's
`autoescape`); only the HTML of tables, which `NotebookOutput.table` has escaped, goes in as markup.
"""

from __future__ import annotations

import json
import re
import shlex
import time
import warnings
from contextlib import suppress
from operator import itemgetter
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from PIL import Image

from mmclust.profiles import load_profile
from mmclust.results.output import STATE
from mmclust.storage import write_atomically

HERE = Path(__file__).parent
TEMPLATE = Environment(
    loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
).get_template("gallery.html.j2")
PAPERS = ["Multi-MaP", "Multi-Sub", "Multi-DProxy"]  # in order of appearance; others come after
# Their findings come first.
HERO = ["18_your_pictures", "00_quickstart", "17_when_asking_fails", "12_paper_vs_code"]
TALL = 0.75  # height by width; of a taller figure, the card shows the upper part
FOLDED = re.compile("(^|_)RI$")  # names of tables that repeat another one, in the Rand index
FIGURE_SCALE = 0.55  # CSS pixels per pixel: figures are saved at about twice their reading size
PREVIEW_ROWS = 9  # of a table, on its card
LONG_CELL = 45  # characters; the text of a longer cell breaks into lines
ROWS_PER_PAGE = 40  # a longer table may be split between printed pages
# TeX in Markdown. Code is left as it is; so are amounts of money, which Jupyter takes for TeX.
FORMULA = re.compile(
    r"```.*?```|`[^`]+`|\$\$(?P<display>.+?)\$\$|\$(?P<inline>(?! )[^$\n`]+?)(?<! )\$(?!\d)", re.S
)


def write_index(out: Path, profile: str) -> Path:
    """Write `out/index.html` with the figures and tables of the notebooks of a profile that ran."""
    notebooks = [
        _notebook(out, name, settings, profile)
        for name, settings in load_profile(profile)["notebooks"].items()
        if read_state(out, name)
    ]
    named = {paper for notebook in notebooks for paper in notebook["papers"]}
    papers = [paper for paper in PAPERS if paper in named] + sorted(named.difference(PAPERS))
    kinds = {"figure": "Figures", "table": "Tables"}
    axes = {"paper": ("Paper", {p: p for p in papers}), "kind": ("Show", kinds)}
    paper_class = {paper: f"paper-{i}" for i, paper in enumerate(PAPERS)}
    with_finding = [notebook for notebook in notebooks if notebook["findings"]]
    rank = {name: place for place, name in enumerate(HERO, -len(HERO))}
    with_finding.sort(key=lambda notebook: rank.get(notebook["name"], 0))
    hero = [notebook["findings"][0] for notebook in with_finding[:3]]
    rendered = profile == "demo" and not any(notebook["folder"] for notebook in notebooks)
    context = {"notebooks": notebooks, "hero": hero, "profile": profile, "axes": axes}
    html = TEMPLATE.render(**context, paper_class=paper_class, rendered=rendered)
    page = out / "index.html"
    write_atomically(page, html.encode())
    return page


def read_state(out: Path, name: str) -> dict:
    """What is known of a notebook's last run into a folder; empty if it never ran there."""
    return _read(out / STATE / f"{name}.json", "error", "where", "seconds", "time") or {}


def read_notes(out: Path, name: str) -> list[dict]:
    """The notes on a notebook's figures and tables, in the order of the notebook."""
    files = sorted((out / STATE).glob(f"{name}--*.json"))
    notes = [_read(file, "notebook", "name", "kind", "files", "caption", "order") for file in files]
    return sorted(filter(None, notes), key=lambda note: note["order"])


def output_files(out: Path, name: str) -> list[str]:
    """A notebook's files: those of its figures and tables, its executed copy, and its HTML."""
    files = [file for note in read_notes(out, name) for file in note["files"]]
    return [*files, f"notebooks/{name}.ipynb", f"notebooks/{name}.html"]


def _read(file: Path, *keys: str) -> dict | None:
    """A JSON file with these keys; None if it is missing, or damaged, of which it warns."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        itemgetter(*keys)(content)
        return content
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        warnings.warn(f"{file} is damaged ({error!r}): its notebook is out of date", stacklevel=1)
        return None


def _notebook(out: Path, name: str, settings: dict, profile: str) -> dict:
    """What the template needs of a notebook."""
    state = read_state(out, name)
    html = f"notebooks/{name}.html"
    notes = sorted(read_notes(out, name), key=itemgetter("kind"))  # figures, then tables
    items = [_item(out, note) for note in notes]
    facts = {
        "name": name,
        "number": re.findall(r"^\d*", name)[0],
        "items": items,
        "findings": [item for item in items if item.get("finding")],
        "html": html if (out / html).exists() else "",
        "made": _provenance(name, state, profile, out),
        "error": state["error"],
        "where": state["where"],
        "folder": state.get("parameters", {}).get("data"),  # of the user's pictures
    }
    return {"papers": []} | settings | facts


def _item(out: Path, note: dict) -> dict:
    """What the template needs of a figure or table."""
    files = [file for file in note["files"] if (out / file).exists()]
    item = note | {"id": f"{note['notebook']}--{note['name'] or 'main'}", "files": files}
    if note["kind"] == "table":
        item["folded"] = bool(FOLDED.search(note["name"]))
        return item | _table(note.get("table", ""))
    by_suffix = {Path(file).suffix: file for file in files}
    png = by_suffix.get(".png")
    if png and (size := _size(out / png)):
        item |= {"png": png, "svg": by_suffix.get(".svg", png), "size": size}
        item["tall"] = size[1] > TALL * size[0]
    return item


def _size(figure: Path) -> list[int] | None:
    """Width and height of a figure in CSS pixels; None if it is damaged, of which it warns."""
    try:
        with Image.open(figure) as picture:
            picture.verify()
            return [round(side * FIGURE_SCALE) for side in picture.size]
    except (OSError, SyntaxError) as error:  # SyntaxError: damaged inside
        warnings.warn(f"{figure} is damaged ({error}): run its notebook again", stacklevel=1)
        return None


def _table(html: str) -> dict:
    """A table, as `NotebookOutput.table` wrote it, for the page and for its card."""
    html = re.sub(r"<style.*?</style>", "", html, flags=re.S)  # the page has its own colors
    html = re.sub(r'(<\w+[^>]*?) id="[^"]*"', r"\1", html)  # the table is on the page twice
    html = re.sub(rf"<td(?=[^>]*>[^<]{{{LONG_CELL},}}<)", "<td data-long", html)
    head, tbody, body = html.partition("<tbody>")
    rows = re.findall(r"<tr.*?</tr>", body, flags=re.S)
    preview = f"{head}<tbody>{''.join(rows[:PREVIEW_ROWS])}</tbody></table>" if tbody else html
    several_pages = len(rows) >= ROWS_PER_PAGE
    return {"table": Markup(html), "preview": Markup(preview), "several_pages": several_pages}


def _provenance(name: str, state: dict, profile: str, out: Path) -> dict[str, str]:
    """How a notebook was run, for the reader; empty where its state does not say."""
    profile = state.get("profile", profile)
    device = state.get("device", "")
    options = ("profile", "device")
    parameters = {k: v for k, v in state.get("parameters", {}).items() if k not in options}
    command = ["python", "run_all.py", "--force", "--only", name]
    if profile != "demo":
        command += ["--profile", profile]
    if device not in ("", "cpu"):
        command += ["--device", device]
    if out.name != "figures":
        command += ["--out", out.name]
    for key, value in parameters.items():
        plain = isinstance(value, str) and re.fullmatch("[A-Za-z][A-Za-z_/-]*", value)
        command += ["-p", f"{key}={value if plain else json.dumps(value)}"]
    written = ", ".join(f"{k} = {json.dumps(v)}" for k, v in parameters.items())
    finished = time.strftime("%Y-%m-%d %H:%M", time.localtime(state["time"]))
    return {
        "when": f"{finished}, {state['seconds']:.0f} s",
        "profile": profile,
        "device": device,
        "seeds": ", ".join(map(str, state.get("seeds") or [])),
        "parameters": written or "the profile's",
        "commit": state.get("commit", ""),
        "versions": ", ".join(f"{k} {v}" for k, v in state.get("versions", {}).items()),
        "command": shlex.join(command),
    }


def _typeset(match: re.Match) -> str:
    """A formula as MathML, which browsers draw without a script; code, and TeX with errors, stay.

    The number of an equation, `\\tag{...}`, stands at the end of its line.
    """
    formula = match["display"] or match["inline"]
    if not formula:
        return match[0]
    from latex2mathml.converter import convert

    tex, _, tag = formula.partition(r"\tag{")
    with suppress(Exception):  # of many types, such as IndexError
        math = convert(tex, display="block" if match["display"] else "inline")
        number = f"<span>({tag.strip()[:-1]})</span>" if tag else ""
        return f'<div class="equation">{math}{number}</div>' if match["display"] else math
    return match[0]


def to_html(path: Path) -> None:
    """Write an executed notebook as one HTML file that loads nothing from the network."""
    import nbformat
    from nbconvert import HTMLExporter

    notebook = nbformat.read(path, as_version=4)
    exporter = HTMLExporter(template_name="lab", mathjax_url="", require_js_url="")
    exporter.exclude_input_prompt = True
    exporter.exclude_output_prompt = True
    # Widgets need a kernel, and a script from the network: the page shows their text instead.
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = FORMULA.sub(_typeset, cell.source)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    html = exporter.from_notebook_node(notebook)[0]
    style = (HERE / "notebook.css").read_text(encoding="utf-8")
    html = html.replace("</head>", f"<style>{style}</style></head>", 1)
    path.with_suffix(".html").write_text(html, encoding="utf-8")
