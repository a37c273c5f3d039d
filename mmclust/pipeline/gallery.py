"""The page that shows everything: `index.html` in the output folder, and notebooks as HTML."""

from __future__ import annotations

import json
import os
import re
import shlex
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Template
from PIL import Image

from mmclust.profiles import load_profile
from mmclust.results.output import STATE

if TYPE_CHECKING:
    from nbformat import NotebookNode

THUMBS, THUMB_WIDTH = "thumbs", 480
PAPERS = [
    "Multi-MaP",
    "Multi-Sub",
    "Multi-DProxy",
]  # in order of appearance; what else a profile names comes after them
_STYLE = """
:root{--ink:#1c2230;--soft:#566072;--faint:#6a7385;--line:#e2e6ec;--paper:#fff;--ground:#f5f6f8;--accent:#0a6489;color-scheme:light}
*{box-sizing:border-box}[hidden]{display:none!important}html{scroll-behavior:smooth;-webkit-text-size-adjust:100%}
body{margin:0;font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif;color:var(--ink);background:var(--ground);overflow-wrap:anywhere}
header,main,footer,.bar>div{max-width:1200px;margin:0 auto;padding:0 24px}header{padding-top:44px}
h1{font-size:32px;line-height:1.2;letter-spacing:-.015em;margin:0 0 8px}h2{font-size:22px;line-height:1.3;letter-spacing:-.01em;margin:0}
.lead{color:var(--soft);margin:0 0 18px;max-width:78ch}a{color:var(--accent);text-underline-offset:2px}code{font-size:.92em}
:focus-visible{outline:3px solid #4aa3c7;outline-offset:2px}
.bar{position:sticky;top:0;z-index:3;background:var(--ground);border-bottom:1px solid var(--line);margin-bottom:24px}
.bar>div{display:flex;flex-wrap:wrap;gap:8px 26px;align-items:center;padding-top:10px;padding-bottom:10px}
.set{display:flex;flex-wrap:wrap;gap:6px;border:0;margin:0;padding:0;min-width:0}
button{font:inherit;font-size:14.5px;line-height:1.3;color:var(--ink);background:var(--paper);border:1px solid #c9d0da;border-radius:99px}
button{padding:5px 14px;cursor:pointer}
button:hover{border-color:var(--accent)}button[aria-pressed=true]{background:var(--accent);border-color:var(--accent);color:#fff}
.count{margin:0 0 0 auto;font-size:14.5px;color:var(--soft)}.none{text-align:center;color:var(--soft);padding:40px 0}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(260px,100%),1fr));gap:18px;margin:0 0 44px}
.card{display:flex;flex-direction:column;min-width:0;background:var(--paper);border:1px solid var(--line);border-radius:12px;overflow:hidden;
color:inherit;text-decoration:none;transition:border-color .15s,box-shadow .15s}.card:hover{border-color:var(--accent);box-shadow:0 4px 18px #1c22301a}
.thumb{aspect-ratio:16/10;padding:12px;overflow:hidden;border-bottom:1px solid var(--line);background:#fff}
.thumb img{width:100%;height:100%;object-fit:contain;display:block}.thumb table{font-size:9.5px;line-height:1.25;margin:0}
.thumb th,.thumb td{padding:3px 7px 3px 0}.thumb.cut{-webkit-mask:linear-gradient(90deg,#000 80%,#0003),linear-gradient(#000 70%,#0003);
-webkit-mask-composite:source-in;mask:linear-gradient(90deg,#000 80%,#0003),linear-gradient(#000 70%,#0003);mask-composite:intersect}
.about{padding:12px 14px 14px;display:flex;flex-direction:column;gap:4px;flex:1}.about .of{color:var(--soft);font-size:13.5px;line-height:1.35}
.about .what{font-size:15px;line-height:1.4;display:-webkit-box;-webkit-line-clamp:3;-webkit-box-orient:vertical;overflow:hidden}
.tags{display:flex;flex-wrap:wrap;gap:5px;margin-top:auto;padding-top:6px}.head .tags{margin:0;padding:0}
.tag{font-size:12.5px;line-height:1.5;padding:1px 9px;border-radius:99px;background:#eceff3;color:#414a5a}
.tag.kind{background:none;border:1px solid #c9d0da;padding:0 8px}
.p0{background:#e0eef9;color:#0d4f7c}.p1{background:#e3f2e6;color:#1d5a31}.p2{background:#f8e9dc;color:#7c4010}
section{background:var(--paper);border:1px solid var(--line);border-radius:14px;padding:26px 30px 22px;margin:0 0 28px}
section,figure,.overview{scroll-margin-top:68px}
.head{display:flex;flex-wrap:wrap;gap:6px 14px;align-items:center;justify-content:space-between}
.number{color:var(--faint);font-weight:500;margin-right:.45em;font-variant-numeric:tabular-nums}.sub{color:var(--soft);margin:4px 0 0;font-size:15px}
figure{margin:30px 0 8px}figure:target figcaption{box-shadow:-14px 0 0 -10px var(--accent)}figure img{max-width:100%;height:auto;display:block}
figcaption{color:var(--soft);font-size:15px;margin:12px 0 0;max-width:90ch}.files{white-space:nowrap;font-size:14px}.files a{margin-left:9px}
.scroll{overflow:auto;width:fit-content;max-width:100%;max-height:720px;border-bottom:1px solid var(--line)}
.scroll{background:linear-gradient(90deg,#fff 40%,#fff0) 0/36px 100% local,linear-gradient(-90deg,#fff 40%,#fff0) 100%/36px 100% local,
linear-gradient(90deg,#1c223026,#1c223000) 0/14px 100%,linear-gradient(-90deg,#1c223026,#1c223000) 100%/14px 100%;background-repeat:no-repeat}
table{border-collapse:collapse;font-size:14px;line-height:1.4;font-variant-numeric:tabular-nums;overflow-wrap:normal}
th,td{padding:6px 9px;border-bottom:1px solid var(--line);text-align:left;white-space:nowrap}tbody tr:last-child>*{border-bottom:0}
th{color:var(--soft);font-weight:600}.scroll thead th{position:sticky;top:0;background:var(--paper);box-shadow:inset 0 -1px var(--line);border:0}
td[data-long]{white-space:normal;min-width:44ch;overflow-wrap:anywhere}.thumb td[data-long]{white-space:nowrap}
.other{color:var(--faint)}.bold,td b{font-weight:700}
.failed{color:#9b1c1c;background:#fdf1f0;border:1px solid #f0cfcb;border-radius:8px;padding:10px 14px;white-space:pre-wrap;margin:16px 0 0}
details{margin-top:22px;border-top:1px solid var(--line);padding-top:12px;font-size:14.5px}summary{cursor:pointer;color:var(--soft)}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:3px 18px;margin:12px 0 2px}dt{color:var(--soft)}dd{margin:0}
footer{color:var(--soft);font-size:14px;padding-bottom:48px}
@media(max-width:700px){header,main,footer,.bar>div{padding-left:16px;padding-right:16px}header{padding-top:28px}h1{font-size:27px}.bar{position:static}
section{padding:20px 16px 16px}section,figure{scroll-margin-top:12px}.count{margin:0;width:100%}.grid{gap:12px}.files{white-space:normal}
.card{flex-direction:row}.thumb{flex:none;width:36%;aspect-ratio:auto;min-height:110px;padding:8px;border:0;border-right:1px solid var(--line)}
.thumb table{font-size:7px}.thumb img{max-height:130px}.thumb.cut{max-height:170px}}
@media print{@page{size:A4;margin:14mm}html{scroll-behavior:auto}body{background:#fff;font-size:10.5pt}.bar,.overview,.up,.files{display:none!important}
header,main,footer{max-width:none;padding:0}header{padding-top:0}section{border:0;border-radius:0;padding:0;margin:0 0 10mm}figure{margin:6mm 0}
.head,.sub{break-after:avoid}figure.whole,.head,.sub,tr,details,.failed,figcaption{break-inside:avoid}figcaption{break-before:avoid;max-width:none;font-size:10pt}
figure img{max-height:215mm;width:auto}
.scroll{overflow:visible;max-height:none;border:0;background:none}.scroll table{font-size:var(--print,9.5pt)}
.scroll th,.scroll td{padding:.35em .5em}.scroll thead th{position:static}
details{font-size:9.5pt;margin-top:4mm}a{color:inherit}footer{padding:0}section:last-child{margin:0}}
"""
# What is too wide scrolls in its own box, or breaks; the page stays as wide as the screen.
_NOTEBOOK_STYLE = """
.jp-InputArea-editor,.jp-OutputArea-output,.jp-MarkdownOutput{overflow-x:auto!important;max-width:100%}
.jp-RenderedHTMLCommon{overflow-wrap:break-word}.jp-RenderedText pre{white-space:pre-wrap;overflow-wrap:anywhere}
.jp-OutputArea-output img,.jp-OutputArea-output svg{max-width:100%;height:auto}.jp-OutputArea-output table td{white-space:nowrap}
@media(max-width:700px){body.jp-Notebook{padding:8px}.jp-RenderedHTMLCommon h1{font-size:1.6em}}
@media print{.jp-InputArea-editor pre{white-space:pre-wrap;overflow-wrap:anywhere}.jp-OutputArea-output img{break-inside:avoid}}
"""
_SCRIPT = """
(() => {
  const all = selector => [...document.querySelectorAll(selector)], bar = document.querySelector(".bar"), buttons = all("button[data-axis]");
  const cards = all(".card"), items = all("figure"), sections = all("section"), none = document.querySelector(".none");
  const chosen = {paper: "", kind: ""};
  const fits = e => !chosen.paper || e.dataset.papers.split("|").includes(chosen.paper);
  const both = e => fits(e) && (!chosen.kind || e.dataset.kind === chosen.kind);
  function show() {
    for (const b of buttons) b.setAttribute("aria-pressed", String(chosen[b.dataset.axis] === b.value));
    for (const e of [...cards, ...items]) e.hidden = !both(e);
    for (const s of sections) s.hidden = !fits(s) || !(s.querySelector("figure:not([hidden])") || s.querySelector(".failed") || !s.querySelector("figure"));
    const shown = items.filter(e => !e.hidden).length;
    document.querySelector(".count").textContent = `${shown} of ${items.length} shown`;
    none.hidden = shown > 0 || !items.length;
  }
  function read() {  // "#paper=Multi-Sub&kind=table" is a filter, "#all" none, and anything else a place on the page, which leaves the filter as it is
    const hash = location.hash.slice(1), place = hash && document.getElementById(decodeURIComponent(hash));
    if (!place) { const q = new URLSearchParams(hash); chosen.paper = q.get("paper") || ""; chosen.kind = q.get("kind") || ""; }
    else if (place.closest("[hidden]")) chosen.paper = chosen.kind = "";
    show();
    if (place) place.scrollIntoView({behavior: "instant"});
  }
  function choose(axis, value) {
    chosen[axis] = value;
    const q = new URLSearchParams(Object.entries(chosen).filter(([, v]) => v));
    location.hash = String(q) || "all";
    show();
    if (scrollY > bar.offsetTop + 1) document.querySelector(".overview").scrollIntoView({behavior: "instant"});
  }
  for (const b of buttons) b.addEventListener("click", () => choose(b.dataset.axis, b.value));
  document.querySelector(".none button").addEventListener("click", () => { location.hash = "all"; buttons[0].focus(); });
  addEventListener("hashchange", read);
  let closed = [];  // on paper there is nothing to click
  addEventListener("beforeprint", () => { closed = all("details:not([open])"); for (const d of closed) d.open = true; });
  addEventListener("afterprint", () => { for (const d of closed) d.open = false; });
  bar.hidden = false;
  read();
})();
"""
_PAGE = Template(
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>mmclust: figures and tables</title>
<link rel="icon" href="data:,"><style>{{ style }}</style></head><body>
{% macro tags(papers) %}{% for p in papers %}<span class="tag p{{ known.index(p) if p in known else 9 }}">{{ p }}</span>{% endfor %}{% endmacro -%}
<header><h1>Figures and tables</h1><p class="lead">Personalised multiple clustering, rebuilt by <code>python run_all.py</code>: every figure and table of the
notebooks, with the numbers behind it and how it was made.</p></header>
<nav class="bar" aria-label="Filter" hidden><div>
{% for axis, choices in axes.items() if choices|length > 1 %}<div class="set" role="group" aria-label="{{ axis }}">
<button type="button" data-axis="{{ axis }}" value="" aria-pressed="true">{{ 'All papers' if axis == 'paper' else 'Both' }}</button>
{% for value, label in choices.items() %}<button type="button" data-axis="{{ axis }}" value="{{ value }}" aria-pressed="false">{{ label }}</button>
{% endfor %}</div>{% endfor %}<p class="count" role="status"></p></div></nav>
<main><div class="overview grid" id="overview">
{% for n in notebooks %}{% for i in n['items'] %}<a class="card" href="#{{ i.id }}" data-kind="{{ i.kind }}" data-papers="{{ n.papers|join('|') }}">
{% if i.kind == 'table' %}<div class="thumb cut" aria-hidden="true">{{ i.few }}</div>
{% else %}<div class="thumb">
{% if i.thumb %}<img src="{{ i.thumb }}" width="{{ i.thumb_size[0] }}" height="{{ i.thumb_size[1] }}" alt="{{ i.caption }}">{% endif %}</div>{% endif %}
<div class="about"><span class="of"><span class="number">{{ n.number }}</span>{{ n.title }}</span>
<span class="what"{% if i.thumb %} aria-hidden="true"{% endif %}>{{ i.caption }}</span>
<span class="tags"><span class="tag kind">{{ i.kind }}</span>{{ tags(n.papers) }}</span></div></a>
{% endfor %}{% endfor %}</div>
<div class="none" hidden><p>Nothing matches.</p><button type="button">Show all</button></div>
{% for n in notebooks %}<section id="{{ n.name }}" data-papers="{{ n.papers|join('|') }}"><div class="head">
<h2><span class="number">{{ n.number }}</span>{{ n.title }}</h2><span class="tags">{{ tags(n.papers) }}</span></div>
<p class="sub">{% if n.shows %}{{ n.shows }} · {% endif %}{% if n.html %}<a href="{{ n.html }}">executed notebook</a> · {% endif
%}{{ n.when }}<span class="up"> · <a href="#overview">overview</a></span></p>
{% if n.error %}<p class="failed">failed in {{ n.where }}: {{ n.error }}</p>{% endif %}
{% for i in n['items'] %}<figure{% if i.whole %} class="whole"{% endif %} id="{{ i.id }}" data-kind="{{ i.kind }}" data-papers="{{ n.papers|join('|') }}">
{% if i.kind == 'table' %}<div class="scroll" tabindex="0" role="region" aria-label="{{ i.caption }}" style="--print:{{ i.print }}pt">{{ i.table }}</div>
{% elif i.png %}<a href="{{ i.svg }}"><img src="{{ i.png }}" width="{{ i.size[0] }}" height="{{ i.size[1] }}" alt="{{ i.caption }}"></a>
{% else %}<p class="failed">The picture is not in this folder any more; run the notebook again.</p>
{% endif %}<figcaption>{{ i.caption }}
<span class="files">{% for f in i.files %}<a href="{{ f }}">{{ f.rsplit('.')[-1] }}</a>{% endfor %}</span></figcaption></figure>
{% endfor %}<details><summary>How it was made</summary><dl>
{% for k, v in n.made.items() if v %}<dt>{{ k }}</dt><dd>{% if k == 'command' %}<code>{{ v }}</code>{% else %}{{ v }}{% endif %}</dd>
{% endfor %}</dl></details></section>
{% endfor %}</main><footer>{{ notebooks|length }} notebooks, profile {{ profile }}. This folder is complete: it opens from disk and asks for nothing from
outside.</footer><script>{{ script }}</script></body></html>
""",
    autoescape=True,
)


def write_index(out: Path, profile: str) -> Path:
    """Write `out/index.html` from the notes that the notebooks left; it needs nothing outside `out` and opens from disk."""
    from markupsafe import Markup

    entries = []
    for name, setting in load_profile(profile)["notebooks"].items():
        state = out / STATE / f"{name}.json"
        if not state.exists():
            continue
        run = json.loads(state.read_text(encoding="utf-8"))
        notes = sorted(
            (
                json.loads(p.read_text(encoding="utf-8"))
                for p in (out / STATE).glob(f"{name}--*.json")
            ),
            key=lambda note: note["order"],
        )
        for note in notes:
            note["whole"] = True  # on paper, on one page
            note["id"] = f"{name}--{note['name'] or 'main'}"
            note["files"] = [f for f in note["files"] if (out / f).exists()]
            if note["kind"] == "table":
                note |= _table(note.get("table", ""))
            elif pictures := [f for f in note["files"] if f.endswith(".png")]:
                note |= {
                    "png": pictures[0],
                    "svg": next((f for f in note["files"] if f.endswith(".svg")), pictures[0]),
                }
        html = f"notebooks/{name}.html" if (out / "notebooks" / f"{name}.html").exists() else ""
        number = re.findall(r"^\d*", name)[0]
        entry = {
            "name": name,
            "number": number,
            "title": setting["title"],
            "papers": setting.get("papers", []),
            "shows": setting.get("shows", ""),
        }
        made = _made(name, run, profile)
        entries.append(
            entry
            | {
                "items": notes,
                "html": html,
                "when": made["when"],
                "made": made,
                "error": run["error"],
                "where": run["where"],
            }
        )
    figures = [note for entry in entries for note in entry["items"] if "png" in note]
    with ThreadPoolExecutor() as pool:  # Pillow reads and writes outside the lock
        for note, sizes in zip(figures, pool.map(lambda note: _picture(out, note["png"]), figures)):
            note.update(sizes)
    named = {p for entry in entries for p in entry["papers"]}
    papers = [p for p in PAPERS if p in named] + sorted(named.difference(PAPERS))
    axes = {"paper": {p: p for p in papers}, "kind": {"figure": "Figures", "table": "Tables"}}
    style, script = Markup(_STYLE), Markup(_SCRIPT)
    page = out / "index.html"
    page.write_text(
        _PAGE.render(
            notebooks=entries, profile=profile, axes=axes, known=PAPERS, style=style, script=script
        ),
        encoding="utf-8",
    )
    return page


def _picture(out: Path, png: str) -> dict:
    """Sizes for the page, and a small copy, rewritten when the picture is newer."""
    source, thumb = out / png, out / THUMBS / f"{Path(png).stem}.webp"
    with Image.open(source) as picture:
        size = [
            round(side * 0.55) for side in picture.size
        ]  # figures are saved at twice the size they are read at
        if not thumb.exists() or thumb.stat().st_mtime_ns < source.stat().st_mtime_ns:
            thumb.parent.mkdir(exist_ok=True)
            small = picture.convert(
                "RGB"
            )  # a figure has a ground of its own: nothing shows through
            small.thumbnail(
                (THUMB_WIDTH, 2 * THUMB_WIDTH), Image.Resampling.LANCZOS, reducing_gap=2
            )
            small.save(part := thumb.with_suffix(".part"), "WEBP", quality=85, method=2)
            os.replace(part, thumb)  # whole or not at all
    with Image.open(thumb) as small:
        return {"size": size, "thumb": f"{THUMBS}/{thumb.name}", "thumb_size": small.size}


def _table(html: str) -> dict:
    """A table's HTML (written, escaped, by Page.table) for this page, its first rows, and a size of type at which it fits on paper."""
    from markupsafe import Markup

    html = re.sub(r"<style.*?</style>", "", html, flags=re.S)  # this page has colours of its own
    html = re.sub(r'(<\w+[^>]*?) id="[^"]*"', r"\1", html)  # the table stands here twice
    html = re.sub(
        r"<td(?=[^>]*>[^<]{45,}<)", "<td data-long", html
    )  # prose may wrap, numbers may not
    head, found, body = html.partition("<tbody>")
    rows = re.findall(r"<tr.*?</tr>", body, flags=re.S)
    few = f"{head}<tbody>{''.join(rows[:9])}</tbody></table>" if found else html
    cells = [
        [
            len(re.sub(r"<.*?>|&\w+;", "", cell).strip())
            for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.S)
        ]
        for row in [head, *rows]
    ]
    letters = sum(
        min(max(column), 45) + 2
        for column in zip(*(row + [0] * (max(map(len, cells)) - len(row)) for row in cells))
    )
    points = min(9.5, 500 / 0.64 / max(letters, 1))  # A4 leaves 516; a letter is up to 0.64 em wide
    return {
        "table": Markup(html),
        "few": Markup(few),
        "whole": len(rows) < 40,
        "print": round(points, 1),
    }


def _made(name: str, run: dict, profile: str) -> dict[str, str]:
    """How a notebook was run, as words; what an older state does not say is empty."""
    given = {k: v for k, v in run.get("parameters", {}).items() if k not in ("profile", "device")}
    profile, device, seeds = run.get("profile", profile), run.get("device", ""), run.get("seeds")
    command = ["python", "run_all.py", "--force", "--only", name] + ["--profile", profile] * (
        profile != "demo"
    )
    command += ["--device", device] * (device not in ("", "cpu"))
    for key, value in given.items():
        command += [
            "-p",
            f"{key}={value if isinstance(value, str) and re.fullmatch('[A-Za-z][A-Za-z_/-]*', value) else json.dumps(value)}",
        ]
    return {
        "when": f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(run['time']))}, {run['seconds']:.0f} s",
        "profile": profile,
        "device": device,
        "seeds": ", ".join(map(str, seeds))
        if isinstance(seeds, list)
        else str(seeds if seeds is not None else ""),
        "parameters": ", ".join(f"{k} = {json.dumps(v)}" for k, v in given.items())
        or "the profile's",
        "commit": run.get("commit", ""),
        "versions": ", ".join(f"{k} {v}" for k, v in run.get("versions", {}).items()),
        "command": shlex.join(command),
    }


def to_html(notebook: NotebookNode, path: Path) -> None:
    """An executed notebook as one HTML file that asks for nothing from outside."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        template_name="lab",
        mathjax_url="",
        require_js_url="",
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    notebook.metadata.pop(
        "widgets", None
    )  # without a kernel they do nothing, and their script would come from outside: what they say instead is shown
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    page = exporter.from_notebook_node(notebook)[0].replace(
        "</head>", f"<style>{_NOTEBOOK_STYLE}</style></head>", 1
    )
    path.write_text(page, encoding="utf-8")
