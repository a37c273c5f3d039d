"""The page that shows everything: `index.html` in the output folder, and notebooks as HTML."""

from __future__ import annotations

import json
import time
from pathlib import Path

from jinja2 import Template
from PIL import Image

from mmclust.pages import STATE
from mmclust.profiles import load_profile

_PAGE = Template(
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>mmclust: figures</title>
<style>
:root{--ink:#1d2330;--soft:#5b6475;--line:#e3e6ec;--paper:#fff;--ground:#f6f7f9;--accent:#0b6e99}
*{box-sizing:border-box}body{margin:0;font:16px/1.55 system-ui,sans-serif;color:var(--ink);background:var(--ground)}
header,main,footer{max-width:1080px;margin:auto;padding:0 20px}header{padding-top:40px}h1{font-size:30px;margin:0 0 4px}
h2{font-size:21px;margin:0}p.lead{color:var(--soft);margin:0 0 20px}nav{display:flex;flex-wrap:wrap;gap:8px;margin:0 0 28px}
nav a{border:1px solid var(--line);background:var(--paper);border-radius:99px;padding:4px 13px;text-decoration:none;font-size:14px}
a{color:var(--accent)}section{background:var(--paper);border:1px solid var(--line);border-radius:12px;padding:22px 24px;margin:0 0 24px}
.head{display:flex;flex-wrap:wrap;gap:6px 14px;align-items:baseline;justify-content:space-between;margin-bottom:8px}.meta{color:var(--soft);font-size:14px}
figure{margin:22px 0 6px}figure img{max-width:100%;height:auto;display:block;margin:auto}figcaption{color:var(--soft);font-size:14.5px;margin-top:8px}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums;margin:auto}
th,td{padding:5px 12px;border-bottom:1px solid var(--line);text-align:left;white-space:nowrap}th{color:var(--soft);font-weight:600}
.failed{color:#a11;white-space:pre-wrap}footer{color:var(--soft);font-size:13.5px;padding-bottom:40px}
@media print{body{background:#fff}nav{display:none}section{border:0;padding:0;break-inside:avoid-page}}
</style></head><body>
<header><h1>mmclust: figures and tables</h1><p class="lead">Personalised multiple clustering, rebuilt by <code>python run_all.py</code>, profile
<b>{{ profile }}</b>.</p><nav>{% for n in notebooks %}<a href="#{{ n.name }}">{{ n.title }}</a>{% endfor %}</nav></header><main>
{% for n in notebooks %}<section id="{{ n.name }}"><div class="head"><h2>{{ n.title }}</h2>
<span class="meta">{% if n.html %}<a href="{{ n.html }}">executed notebook</a> · {% endif %}{{ n.made }}</span></div>
{% if n.error %}<p class="failed">failed in {{ n.where }}: {{ n.error }}</p>{% endif %}
{% for i in n['items'] %}<figure>
{% if i.kind == 'figure' %}<a href="{{ i.svg }}"><img src="{{ i.png }}" width="{{ i.width }}" alt="{{ i.caption }}" loading="lazy"></a>
{% else %}<div class="scroll">{{ i.table }}</div>{% endif %}<figcaption>{{ i.caption }}{% for f in i.files %} · <a href="{{ f }}">{{ f.rsplit('.')[-1] }}</a>
{%- endfor %}</figcaption></figure>{% endfor %}</section>{% endfor %}
</main><footer>{% for k, v in made.items() %}{{ k }} {{ v }}{% if not loop.last %} · {% endif %}{% endfor %}</footer></body></html>
""",
    autoescape=True,
)


def write_index(out: Path, profile: str) -> Path:
    """Write `out/index.html` from the notes that the notebooks left; it needs nothing outside `out` and opens from disk."""
    from markupsafe import Markup

    from mmclust.reproduce import versions

    entries = []
    for name, setting in load_profile(profile)["notebooks"].items():
        state = out / STATE / f"{name}.json"
        if not state.exists():
            continue
        run = json.loads(state.read_text(encoding="utf-8"))
        notes = sorted((json.loads(p.read_text(encoding="utf-8")) for p in (out / STATE).glob(f"{name}--*.json")), key=lambda note: note["order"])
        for note in notes:
            if note["kind"] == "table":
                note["table"] = Markup(note["table"])  # written, escaped, by Page.table
            else:
                note["png"], note["svg"] = note["files"][:2]
                with Image.open(out / note["png"]) as picture:
                    note["width"] = round(picture.width * 0.55)  # figures are saved at twice the size they are read at
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(run["time"]))
        html = f"notebooks/{name}.html" if (out / "notebooks" / f"{name}.html").exists() else ""
        made = f"{when}, {run['seconds']:.0f} s"
        entries.append({"name": name, "title": setting["title"], "items": notes, "html": html, "made": made, "error": run["error"], "where": run["where"]})
    page = out / "index.html"
    page.write_text(_PAGE.render(notebooks=entries, profile=profile, made=versions()), encoding="utf-8")
    return page


def to_html(notebook, path: Path) -> None:
    """An executed notebook as one HTML file that asks for nothing from outside."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_name="lab", mathjax_url="", require_js_url="", exclude_input_prompt=True, exclude_output_prompt=True)
    path.write_text(exporter.from_notebook_node(notebook)[0], encoding="utf-8")
