"""Clusters as HTML for the explorer: galleries whose pictures open to their word weights, a map of them, and two clusterings crossed.

Plain HTML and CSS: what is clickable are the browser's own <details>, so that the keyboard works and no script runs. All names are escaped.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from mmclust import storage

if TYPE_CHECKING:
    import pandas as pd

    from mmclust.data.images import Images

SIDE, SHOWN, WEIGHTS = (
    128,
    48,
    6,
)  # pixels of a thumbnail, of a cluster's pictures at most, words of a picture's list
SHAPES = [  # within -1..1: a cluster is told by its color and its shape
    "M-.9,0a.9,.9 0 1,0 1.8,0a.9,.9 0 1,0 -1.8,0z", "M-.8-.8H.8V.8H-.8z", "M0-1.1L1.1,0L0,1.1L-1.1,0z", "M0-1L1,.8H-1z", "M0,1L1-.8H-1z",
    "M-.35-1h.7v.65h.65v.7h-.65v.65h-.7v-.65h-.65v-.7h.65z", "M-1,0L.8-1V1z",
]  # fmt: skip
CSS = """
.mmx{--ink:#1c2230;--soft:#566072;--line:#e2e6ec;--edge:#c9d0da;--ground:#f5f6f8;--accent:#0a6489;--bad:#9b1c1c;color:var(--ink);color-scheme:light;
  background:var(--ground);font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif;width:100%;container-type:inline-size;overflow-wrap:anywhere}
.mmx *{box-sizing:border-box}.mmx :is(p,ol){margin:0}
.mmx h3+.mm-note{margin:6px 0 14px;max-width:96ch}
.mmx.widget-box,.mmx .widget-box{overflow:visible;max-width:100%;margin:0}
.mmx .widget-html,.mmx .widget-html-content{height:auto;width:100%;min-width:0;margin:0;font:inherit;line-height:inherit;color:inherit;overflow:visible}
.mmx .mm-card{background:#fff;border:1px solid var(--line);border-radius:14px;padding:22px 26px}
.mmx>:is(.widget-box,.mm-card){margin-bottom:20px}
.mmx :focus-visible{outline:3px solid #4aa3c7;outline-offset:2px}
.mmx :is(h3,h4){color:inherit;margin:0;line-height:1.3;font-weight:600}.mmx h3{font-size:20px;letter-spacing:-.01em;padding-bottom:10px}.mmx h4{font-size:16px}
.mmx :is(h3,h4) small{font-weight:400;color:var(--soft);font-size:14px;letter-spacing:0}
.mmx .mm-form{display:grid;gap:20px 32px;grid-template-columns:minmax(0,1fr)}
.mmx .mm-field{gap:6px;min-width:0}
.mmx .mm-field>.jupyter-widgets:not(.widget-html,.widget-box,.jupyter-button){width:auto;height:auto;margin:0;display:flex;flex-direction:column;
  align-items:stretch}
.mmx .widget-label{width:auto;height:auto;text-align:left;font:600 14px/1.7 system-ui,sans-serif;color:inherit}
.mmx .mm-field :is(input[type=text],select,textarea){flex:none;width:100%;height:40px;padding:6px 10px;font:15px/1.45 system-ui,sans-serif;color:inherit;
  background-color:#fff;border:1px solid var(--edge);border-radius:8px}
.mmx .mm-field .widget-textarea textarea{height:118px;resize:vertical}.mmx .mm-field :disabled{background:var(--ground);color:var(--soft)}
.mmx .jupyter-button{width:auto;height:auto;margin:0;font:14.5px/1.3 system-ui,sans-serif;color:var(--ink);background:#fff;border:1px solid var(--edge);
  border-radius:99px;padding:6px 14px;box-shadow:none;align-self:flex-start}
.mmx .jupyter-button:hover:enabled{border-color:var(--accent);box-shadow:none}
.mmx .jupyter-button:is(.mm-go,.mm-on){background:var(--accent);border-color:var(--accent);color:#fff}
.mmx .jupyter-button.mm-go{font-weight:600;font-size:16px;padding:10px 24px}.mmx .jupyter-button:disabled{opacity:.6}
.mmx .mm-chips{flex-flow:row wrap;gap:6px}
.mmx .mm-note{color:var(--soft);font-size:14px;line-height:1.45}
.mmx .mm-bad{color:var(--bad);background:#fdf1f0;border:1px solid #f0cfcb;border-radius:8px;padding:7px 11px;font-size:14px;line-height:1.45}
.mmx .mm-strip{display:flex;flex-wrap:wrap;gap:4px;max-height:140px;overflow:hidden}.mmx .mm-strip img{width:44px;height:44px}
.mmx :is(.mm-strip,.mm-grid,.mm-cross) img{display:block;aspect-ratio:1;border-radius:6px;border:1px solid var(--line)}
.mmx .mm-bar{flex-flow:row wrap;gap:10px 24px;align-items:center}.mmx .mm-bar>.widget-html{width:auto}.mmx .mm-bar>:first-child{flex:1 1 280px}
.mmx .mm-status{display:flex;gap:10px;align-items:baseline;color:var(--soft)}
.mmx .mm-status::before{content:"";flex:none;width:10px;height:10px;border-radius:9px;background:var(--edge)}
.mmx .mm-done::before{background:#2e8b57}.mmx .mm-wrong::before{background:var(--bad)}.mmx .mm-busy::before{background:var(--accent);animation:mm 1s infinite}
@keyframes mm{50%{opacity:.2}}@media(prefers-reduced-motion:reduce){.mmx .mm-busy::before{animation:none}}
.mmx a.mm-csv{display:inline-block;padding:7px 16px;border:1px solid var(--accent);border-radius:99px;color:var(--accent);background:#fff;font-size:14.5px;
  font-weight:600;text-decoration:none}.mmx a.mm-csv:hover{background:var(--accent);color:#fff}
.mmx .mm-looks,.mmx .mm-look{display:grid;gap:20px;grid-template-columns:minmax(0,1fr);align-items:start}.mmx .mm-look{gap:14px 36px}
.mmx .mm-cluster{border-top:1px solid var(--line);padding:14px 0 16px}.mmx .mm-cluster h4{margin-bottom:8px}
.mmx .mm-cluster:last-child{padding-bottom:0}
.mmx svg.mm-mark{width:.95em;height:.95em;vertical-align:-.1em;margin-right:2px}
.mmx .mm-grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(54px,1fr));gap:5px;grid-auto-flow:dense}
.mmx .mm-grid details{min-width:0}.mmx .mm-grid summary{list-style:none;cursor:pointer;display:block;border-radius:6px}
.mmx .mm-grid summary::-webkit-details-marker{display:none}.mmx .mm-grid summary img{width:100%;height:auto}
.mmx .mm-grid details:not([open]) summary:hover img{border-color:var(--accent)}
.mmx .mm-grid details[open]{grid-column:1/-1;background:var(--ground);border-radius:10px;padding:14px;display:flex;flex-wrap:wrap;gap:12px 20px}
.mmx .mm-grid details[open]::details-content{flex:1 1 230px}
.mmx .mm-grid details[open] summary{width:128px;flex:none}
.mmx .mm-grid details:not([open]) .mm-why{display:none}
.mmx .mm-why{font-size:14px;flex:1 1 230px;min-width:0}.mmx .mm-why p{margin-bottom:4px}.mmx .mm-why ol{list-style:none;padding:0;margin-top:6px}
.mmx .mm-why li{display:grid;grid-template-columns:minmax(72px,28%) 1fr 36px;gap:10px;align-items:center;line-height:1.6}
.mmx .mm-why i{display:block;height:10px;border-radius:5px;background:linear-gradient(90deg,var(--c) var(--w),var(--line) var(--w))}
.mmx .mm-why span{text-align:right;font-variant-numeric:tabular-nums}
.mmx .mm-map{display:block;width:100%;max-width:520px;height:auto;background:#fff;border:1px solid var(--line);border-radius:10px;margin-top:10px}
.mmx .mm-crossed{max-width:84ch;color:var(--soft);margin-bottom:14px}
.mmx .mm-scroll{overflow-x:auto;max-width:100%;width:fit-content}
.mmx table.mm-cross{border-collapse:separate;border-spacing:3px;font-size:14px;line-height:1.3;margin:0;overflow-wrap:normal}
.mmx .mm-cross :is(th,td){padding:4px;border:0;text-align:center;min-width:58px;color:inherit;background-color:#fff;vertical-align:middle;white-space:nowrap}
.mmx .mm-cross td{border-radius:8px}.mmx .mm-cross th{font-weight:600}.mmx .mm-cross tr>:first-child{text-align:right;padding-right:10px;position:sticky;left:0}
.mmx .mm-cross thead th:first-child{font-weight:400;color:var(--soft)}.mmx .mm-cross img{width:44px;height:44px;margin:0 auto 2px}
@container (min-width:560px){.mmx .mm-form{grid-template-columns:repeat(2,minmax(0,1fr));
  grid-template-areas:"pictures pictures" "keyword second" "words second_words" "method clusters" "encoder encoder" "go go"}
  .mmx .mm-field-pictures{grid-area:pictures}.mmx .mm-field-keyword{grid-area:keyword}.mmx .mm-field-words{grid-area:words}
  .mmx .mm-field-second{grid-area:second}.mmx .mm-field-second_words{grid-area:second_words}.mmx .mm-field-method{grid-area:method}
  .mmx .mm-field-encoder{grid-area:encoder}.mmx .mm-field-clusters{grid-area:clusters}.mmx .mm-field-run{grid-area:go}}
@container (min-width:880px){.mmx .mm-form{grid-template-columns:repeat(3,minmax(0,1fr));
  grid-template-areas:"pictures keyword second" "pictures words second_words" "method clusters encoder" "go go go"}
  .mmx .mm-one .mm-look{grid-template-columns:minmax(0,3fr) minmax(0,2fr)}.mmx .mm-one .mm-look>:last-child{position:sticky;top:16px}
  .mmx .mm-looks:not(.mm-one){grid-template-columns:repeat(2,minmax(0,1fr))}.mmx .mm-looks:not(.mm-one) .mm-look>:last-child{order:-1}
  .mmx .mm-looks:not(.mm-one) .mm-map{max-width:400px}}
@container (max-width:559px){.mmx .mm-card{padding:18px 16px}}
"""
# Voila's page around it: the window scrolls, not a panel as high as the window, so that it prints, too
PAGE = """
body[data-voila]{background:#f5f6f8;padding:0;height:auto;overflow:visible}
body[data-voila] :is(#main,#jp-main-content-panel,#rendered_cells){position:static!important;width:auto!important;height:auto!important;
  min-height:0!important;overflow:visible!important;contain:none!important;background:none!important}
#rendered_cells{max-width:1248px;margin:0 auto!important;padding:36px 24px 60px!important}
#rendered_cells :is(.jp-Cell,.jp-MarkdownOutput,.jp-RenderedHTMLCommon,.jp-OutputArea,.jp-OutputArea-child,.jp-OutputArea-output){display:block;padding:0;
  margin:0!important;overflow:visible}
#rendered_cells .jp-RenderedHTMLCommon{font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif;color:#566072;margin-bottom:22px!important}
#rendered_cells .jp-RenderedHTMLCommon p{max-width:84ch;margin:0}
#rendered_cells .jp-RenderedHTMLCommon h1{font-size:32px;line-height:1.2;letter-spacing:-.015em;font-weight:700;color:#1c2230;margin:0 0 8px}
#rendered_cells :is(.jp-OutputPrompt,.anchor-link){display:none}
@media(max-width:700px){#rendered_cells{padding:24px 16px 40px!important}#rendered_cells .jp-RenderedHTMLCommon h1{font-size:26px}}
"""


def thumbnails(images: Images, before: Callable = lambda: None) -> list[str]:
    """A square JPEG of each picture as a data URI; the pixels are kept in the store, so that a picture is made or read once. `before()` is called before
    each that has to be made."""

    def small(i: int) -> np.ndarray:
        before()
        return np.asarray(ImageOps.pad(images[i], (SIDE, SIDE), color="white"))

    def draw() -> np.ndarray:
        return np.stack([small(i) for i in range(len(images))])

    return [
        _uri(pixels)
        for pixels in storage.load_or_compute(
            storage.key_of("thumbnails", images.fingerprint, SIDE), draw
        )
    ]


def _uri(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=75)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def strip(thumbs: list[str], shown: int = 21) -> str:
    """A few of the pictures in a row."""
    return f'<div class="mm-strip" aria-hidden="true">{"".join(f"""<img src="{uri}" alt="">""" for uri in thumbs[:shown])}</div>'


def colors(names: Sequence[str]) -> list[str]:
    """A cluster's color: that of its name where all names are colors, else of the colour-blind palette."""
    from matplotlib.colors import to_hex

    from mmclust.results.figures import (
        class_colors,  # loads matplotlib and seaborn: not before there is something to show
    )

    return [to_hex(c) for c in class_colors(names)]


def mark(c: int, color: str) -> str:
    """The sign of cluster c."""
    return f'<svg class="mm-mark" viewBox="-1.3 -1.3 2.6 2.6" aria-hidden="true"><path d="{_shape(c)}" fill="{color}" stroke="#333" stroke-width=".15"/></svg>'


def _shape(c: int) -> str:
    return SHAPES[c % len(SHAPES)]


def gallery(
    keyword: str,
    labels: np.ndarray,
    names: Sequence[str],
    thumbs: list[str],
    said: list[str],
    weights: pd.DataFrame,
    about: list[str] | None = None,
) -> str:
    """The clusters of one keyword, each with its name and pictures; a picture opens to its weights over the reference words.

    Args:
        labels: (n,), and `names` per cluster.
        thumbs, said: n data URIs, and what each picture is called.
        weights: a frame (n, K), word by word.
        about: a sentence on each picture, told with it.
    """
    parts, palette = [], colors(names)
    order, values, words = (
        np.argsort(-weights.to_numpy(), axis=1, kind="stable")[:, :WEIGHTS],
        weights.to_numpy(),
        [escape(w) for w in weights.columns],
    )
    for c in np.argsort(-np.bincount(labels, minlength=len(names)), kind="stable"):
        members = np.flatnonzero(labels == c)
        shown = (
            members[
                np.unique(np.linspace(0, len(members) - 1, min(SHOWN, len(members))).astype(int))
            ]
            if len(members)
            else []
        )
        size = (
            f"{len(members)} picture{'s' * (len(members) != 1)}"
            + f", {len(shown)} of them shown" * (len(shown) < len(members))
        )
        tiles = []
        for i in shown:
            name = escape(said[i])
            bars = "".join(
                f'<li>{words[k]}<i style="--w:{100 * values[i, k]:.0f}%"></i><span>{values[i, k]:.2f}</span></li>'
                for k in order[i]
            )
            also = f'<p class="mm-note">{escape(about[i])}</p>' if about and about[i] else ""
            tiles.append(
                f'<details name="mm-{escape(keyword)}"><summary title="{name}">'
                f'<img src="{thumbs[i]}" alt="{name}, in {escape(names[c])}: word weights"></summary>'
                f'<div class="mm-why"><p><b>{name}</b></p>{also}<ol aria-label="weights over the reference words">{bars}</ol></div></details>'
            )
        parts.append(
            f'<section class="mm-cluster" style="--c:{palette[c]}"><h4>{mark(c, palette[c])} {escape(names[c])} <small>{size}</small></h4>'
            f'<div class="mm-grid">{"".join(tiles)}</div></section>'
        )
    return "".join(parts)


def positions(x: np.ndarray, seed: int = 0) -> np.ndarray | None:
    """t-SNE of x (n, d): (n, 2), or None where fewer than 5 different rows leave nothing to lay out. 500 steps instead of scikit-learn's 1,000, so that the
    map comes sooner; neighbours are kept as well, which a test compares."""
    from sklearn.manifold import TSNE

    x = np.asarray(x, np.float32)
    if len(np.unique(x, axis=0)) < 5:
        return None
    return TSNE(
        perplexity=min(30, max(2, (len(x) - 1) // 3)), init="pca", max_iter=500, random_state=seed
    ).fit_transform(x)


def scatter(
    points: np.ndarray | None, labels: np.ndarray, names: Sequence[str], said: list[str], about: str
) -> str:
    """A map of the pictures as SVG: points (n, 2) in the colors and shapes of their clusters, with what each is called."""
    if points is None:
        return '<p class="mm-note">Too few different pictures for a map.</p>'
    span = np.ptp(points, axis=0)
    at, palette, radius = (
        (points - points.min(0)) / np.where(span > 0, span, 1) * 380 + 10,
        colors(names),
        4.5 if len(points) < 600 else 2.5,
    )
    dots = "".join(
        f'<path transform="translate({x:.1f} {y:.1f}) scale({radius})" d="{_shape(c)}" fill="{palette[c]}" stroke="#333" stroke-width=".12">'
        f"<title>{escape(said[i])}: {escape(names[c])}</title></path>"
        for i, ((x, y), c) in enumerate(zip(at, labels))
    )
    return f'<svg class="mm-map" viewBox="0 0 400 400" role="img" aria-label="{escape(about)}">{dots}</svg>'


def crossing(table: pd.DataFrame, rows: str, columns: str, firsts: dict | None = None) -> str:
    """A frame of counts, clusters by clusters: darker cells hold a larger share of their row. `firsts`: (row, column) -> a thumbnail for that cell."""
    head = "".join(f'<th scope="col">{escape(str(c))}</th>' for c in table.columns)
    body = []
    for r, (name, row) in enumerate(table.iterrows()):
        cells = "".join(
            f'<td style="background-color:{_shade(n / max(1, row.sum()))}">{_picture((firsts or {}).get((r, c)))}{n}</td>'
            if n
            else "<td></td>"
            for c, n in enumerate(row)
        )
        body.append(f'<tr><th scope="row">{escape(str(name))}</th>{cells}</tr>')
    corner = f"{escape(rows)} \\ {escape(columns)}"
    return (
        f'<div class="mm-scroll" tabindex="0" role="region" aria-label="{corner}"><table class="mm-cross"><thead><tr><th>{corner}</th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _picture(uri: str | None) -> str:
    return f'<img src="{uri}" alt="">' if uri else ""


def _shade(share: float) -> str:
    return f"hsl(210 85% {100 - 35 * share:.0f}%)"
