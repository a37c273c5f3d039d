"""Clusters as HTML for the explorer: galleries whose pictures open to their word weights, a map of them, and two clusterings crossed.

Plain HTML and CSS: what is clickable are the browser's own <details>, so that the keyboard works and no script runs. All names are escaped.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from html import escape

import numpy as np
from PIL import Image, ImageOps

from mmclust import store

SIDE, SHOWN, WEIGHTS = 128, 48, 6  # pixels of a thumbnail, of a cluster's pictures at most, words of a picture's list
SHAPES = [  # within -1..1: a cluster is told by its color and its shape
    "M-.9,0a.9,.9 0 1,0 1.8,0a.9,.9 0 1,0 -1.8,0z", "M-.8-.8H.8V.8H-.8z", "M0-1.1L1.1,0L0,1.1L-1.1,0z", "M0-1L1,.8H-1z", "M0,1L1-.8H-1z",
    "M-.35-1h.7v.65h.65v.7h-.65v.65h-.7v-.65h-.65v-.7h.65z", "M-1,0L.8-1V1z",
]  # fmt: skip
CSS = """
.mmx{--line:#d5dae3;--soft:#f4f6f9;--dim:#566073;--bad:#b3261e;--go:#0b5cad;color:#1a2233;font:15px/1.45 system-ui,sans-serif;max-width:100%}
.mmx *{box-sizing:border-box}
.mmx.widget-box,.mmx .widget-box{overflow:visible;max-width:100%;margin:0}
.mmx .mm-form{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,15.5rem),1fr));gap:.3rem 1.1rem;align-items:start}
.mmx .mm-field>.jupyter-widgets:not(.widget-html):not(.jupyter-button){width:auto;height:auto;margin:0;display:flex;flex-direction:column;align-items:stretch}
.mmx .mm-field .widget-label{width:auto;text-align:left;font:600 14px/1.6 system-ui,sans-serif;color:inherit;height:auto}
.mmx .mm-field input,.mmx .mm-field select,.mmx .mm-field textarea{width:100%;font:15px system-ui,sans-serif;min-height:2.3rem;border:1px solid #8791a3;
  border-radius:5px;padding:.3rem .5rem;background-color:#fff;color:inherit}
.mmx .mm-field :is(input,select){flex:0 0 auto;height:2.3rem}
.mmx .mm-field textarea{flex:0 0 auto;height:6.6rem;line-height:1.4}
.mmx .mm-field .widget-upload{align-self:flex-start;height:2.3rem;width:auto;margin:0;padding:0 1rem}
.mmx .widget-html,.mmx .widget-html-content{height:auto;width:100%;margin:0;font:inherit;line-height:1.45;overflow:visible}
.mmx .mm-go{background:var(--go);color:#fff;font:600 16px system-ui,sans-serif;height:2.6rem;width:auto;padding:0 1.6rem;border-radius:6px;margin:.6rem 0;
  align-self:flex-start}
.mmx .mm-go:disabled{opacity:.55}
.mmx :focus-visible{outline:3px solid #f0a020;outline-offset:1px}
.mmx .mm-note{color:var(--dim);font-size:13.5px;overflow-wrap:anywhere;margin:.15rem 0 .5rem}
.mmx .mm-bad{color:var(--bad);font-size:14px;font-weight:600;overflow-wrap:anywhere;margin:.15rem 0 .5rem}
.mmx .mm-bad::before{content:"\\26A0\\00A0"}
.mmx .mm-status{background:var(--soft);border-left:4px solid var(--go);padding:.4rem .7rem;margin:.2rem 0 .8rem;overflow-wrap:anywhere}
.mmx .mm-looks{display:grid;grid-template-columns:1fr;gap:1.4rem;align-items:start}
@media (min-width:900px){.mmx .mm-looks:not(.mm-one){grid-template-columns:1fr 1fr}.mmx .mm-one .mm-look{display:grid;grid-template-columns:3fr 2fr;gap:1.6rem}
  .mmx .mm-one .mm-look:nth-child(2){display:none}}
.mmx h3{font-size:1.25rem;margin:.2rem 0;line-height:1.3;overflow-wrap:anywhere}
.mmx .mm-cluster{border-top:1px solid var(--line);padding:.45rem 0 .7rem}
.mmx h4{font-size:1.02rem;margin:0 0 .35rem;line-height:1.35;overflow-wrap:anywhere}
.mmx h4 small,.mmx h3 small{font-weight:400;color:var(--dim);font-size:13.5px}
.mmx svg.mm-mark{width:.95em;height:.95em;vertical-align:-.1em}
.mmx .mm-grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(3.4rem,1fr));gap:4px;grid-auto-flow:dense}
.mmx .mm-grid details{min-width:0}
.mmx .mm-grid summary{list-style:none;cursor:pointer;display:block;border-radius:4px}
.mmx .mm-grid summary::-webkit-details-marker{display:none}
.mmx .mm-grid summary img{display:block;width:100%;height:auto;aspect-ratio:1;border-radius:4px;border:1px solid var(--line)}
.mmx .mm-grid details[open]{grid-column:1/-1;background:var(--soft);border-radius:6px;padding:.6rem}
.mmx .mm-grid details[open] summary{width:8.2rem;float:left;margin:0 .9rem .3rem 0}
.mmx .mm-grid details[open]::after{content:"";display:block;clear:both}
.mmx .mm-why{overflow:hidden;min-width:11rem;font-size:14px;overflow-wrap:anywhere}
.mmx .mm-why p{margin:0 0 .3rem}
.mmx .mm-why ol{list-style:none;margin:0;padding:0}
.mmx .mm-why li{display:grid;grid-template-columns:minmax(4.5rem,30%) 1fr 2.6rem;gap:.5rem;align-items:center;line-height:1.5}
.mmx .mm-why i{display:block;height:.7rem;background:var(--c);width:var(--w);min-width:1px;border:1px solid #0004;border-radius:2px}
.mmx .mm-map{width:100%;max-width:34rem;height:auto;background:#fff;border:1px solid var(--line);border-radius:6px}
.mmx .mm-scroll{overflow-x:auto;max-width:100%}
.mmx table.mm-cross{border-collapse:collapse;font-size:14px;margin:.4rem 0}
.mmx .mm-cross th,.mmx .mm-cross td{padding:.3rem .55rem;text-align:right;border:1px solid var(--line);color:inherit;background-clip:padding-box}
.mmx .mm-cross th{font-weight:600;text-align:left;background:var(--soft)}
.mmx a.mm-csv{display:inline-block;margin-bottom:.6rem;padding:.4rem .9rem;border:2px solid var(--go);border-radius:6px;color:var(--go);
  font-weight:600;text-decoration:none}
.mmx .mm-strip{display:flex;flex-wrap:wrap;gap:3px;margin-top:.7rem}
.mmx .mm-strip img{width:2.6rem;height:2.6rem;border-radius:3px;border:1px solid var(--line)}
"""


def thumbnails(images, before: Callable = lambda: None) -> list[str]:
    """A square JPEG of each picture as a data URI; the pixels are kept in the store, so that a picture is made or read once. `before()` is called before
    each that has to be made."""

    def small(i: int) -> np.ndarray:
        before()
        return np.asarray(ImageOps.pad(images[i], (SIDE, SIDE), color="white"))

    def draw() -> np.ndarray:
        return np.stack([small(i) for i in range(len(images))])

    return [_uri(pixels) for pixels in store.array(store.key_of("thumbnails", images.fingerprint, SIDE), draw)]


def _uri(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=75)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def strip(thumbs: list[str], shown: int = 12) -> str:
    """A few of the pictures in a row."""
    return f'<div class="mm-strip">{"".join(f"""<img src="{uri}" alt="">""" for uri in thumbs[:shown])}</div>'


def colors(names) -> list[str]:
    """A cluster's color: that of its name where all names are colors, else of the colour-blind palette."""
    from matplotlib.colors import to_hex

    from mmclust.plots import class_colors  # loads matplotlib and seaborn: not before there is something to show

    return [to_hex(c) for c in class_colors(names)]


def mark(c: int, color: str) -> str:
    """The sign of cluster c."""
    return f'<svg class="mm-mark" viewBox="-1.3 -1.3 2.6 2.6" aria-hidden="true"><path d="{_shape(c)}" fill="{color}" stroke="#333" stroke-width=".15"/></svg>'


def _shape(c: int) -> str:
    return SHAPES[c % len(SHAPES)]


def gallery(keyword: str, labels, names, thumbs: list[str], said: list[str], weights, others: dict | None = None) -> str:
    """The clusters of one keyword, each with its name and pictures; a picture opens to its weights over the reference words.

    Args:
        labels: (n,), and `names` per cluster.
        thumbs, said: n data URIs, and what each picture is called.
        weights: a frame (n, K), word by word.
        others: another keyword -> each picture's cluster there by name, told with the picture.
    """
    parts, palette = [], colors(names)
    order, values, words = np.argsort(-weights.to_numpy(), axis=1, kind="stable")[:, :WEIGHTS], weights.to_numpy(), [escape(w) for w in weights.columns]
    for c in np.argsort(-np.bincount(labels, minlength=len(names)), kind="stable"):
        members = np.flatnonzero(labels == c)
        shown = members[np.unique(np.linspace(0, len(members) - 1, min(SHOWN, len(members))).astype(int))] if len(members) else []
        size = f"{len(members)} picture{'s' * (len(members) != 1)}" + f", {len(shown)} of them shown" * (len(shown) < len(members))
        tiles = []
        for i in shown:
            name = escape(said[i])
            bars = "".join(f'<li>{words[k]}<i style="--w:{100 * values[i, k]:.0f}%"></i><span>{values[i, k]:.2f}</span></li>' for k in order[i])
            also = "".join(f"<p>by {escape(k)}: {escape(str(there[i]))}</p>" for k, there in (others or {}).items())
            tiles.append(
                f'<details name="mm-{escape(keyword)}"><summary title="{name}">'
                f'<img loading="lazy" src="{thumbs[i]}" alt="{name}, in {escape(names[c])}: word weights"></summary>'
                f'<div class="mm-why"><p><b>{name}</b></p>{also}<ol aria-label="weights over the reference words">{bars}</ol></div></details>'
            )
        parts.append(
            f'<section class="mm-cluster" style="--c:{palette[c]}"><h4>{mark(c, palette[c])} {escape(names[c])} <small>{size}</small></h4>'
            f'<div class="mm-grid">{"".join(tiles)}</div></section>'
        )
    return "".join(parts)


def positions(x: np.ndarray, seed: int = 0) -> np.ndarray | None:
    """t-SNE of x (n, d): (n, 2), or None where fewer than 5 different rows leave nothing to lay out."""
    from sklearn.manifold import TSNE

    x = np.asarray(x, np.float32)
    if len(np.unique(x, axis=0)) < 5:
        return None
    return TSNE(perplexity=min(30, max(2, (len(x) - 1) // 3)), init="pca", random_state=seed).fit_transform(x)


def scatter(points, labels, names, said: list[str], about: str) -> str:
    """A map of the pictures as SVG: points (n, 2) in the colors and shapes of their clusters, with what each is called."""
    if points is None:
        return '<p class="mm-note">Too few different pictures for a map.</p>'
    span = np.ptp(points, axis=0)
    at, palette, radius = (points - points.min(0)) / np.where(span > 0, span, 1) * 380 + 10, colors(names), 4.5 if len(points) < 600 else 2.5
    dots = "".join(
        f'<path transform="translate({x:.1f} {y:.1f}) scale({radius})" d="{_shape(c)}" fill="{palette[c]}" stroke="#333" stroke-width=".12">'
        f"<title>{escape(said[i])}: {escape(names[c])}</title></path>"
        for i, ((x, y), c) in enumerate(zip(at, labels))
    )
    return f'<svg class="mm-map" viewBox="0 0 400 400" role="img" aria-label="{escape(about)}">{dots}</svg>'


def crossing(table, rows: str, columns: str) -> str:
    """A frame of counts, clusters by clusters, with darker cells for larger shares of their row."""
    head = "".join(f'<th scope="col">{escape(str(c))}</th>' for c in table.columns)
    body = []
    for name, row in table.iterrows():
        cells = "".join(f'<td style="background-color:{_shade(n / max(1, row.sum()))}">{n}</td>' for n in row)
        body.append(f'<tr><th scope="row">{escape(str(name))}</th>{cells}</tr>')
    corner = f"{escape(rows)} \\ {escape(columns)}"
    return (
        f'<div class="mm-scroll" tabindex="0" role="region" aria-label="{corner}"><table class="mm-cross"><thead><tr><th>{corner}</th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _shade(share: float) -> str:
    return f"hsl(210 85% {100 - 35 * share:.0f}%)"
