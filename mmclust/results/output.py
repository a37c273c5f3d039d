"""The files that a notebook writes: figures and tables, their numbers, and captions.

The gallery (`mmclust.pipeline.gallery`) reads the captions, one JSON file per figure or table.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from mmclust.results.tables import without_negative_zero
from mmclust.storage import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STATE = ".state"  # subfolder of the output folder, with captions and stamps
GRAY_CLASS = "other"  # CSS class of gray cells, which the CSS of the gallery colors as well
LATEX_ESCAPES = str.maketrans({
    **{char: "\\" + char for char in "&%$#_{}"},
    **{char: f"${char}$" for char in "<>|"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "[": "{[}",  # after \\ it would open an option
})  # fmt: skip


class NotebookOutput:
    """The outputs of a notebook such as "00_quickstart": files `<notebook>[_<name>]` with .png,
    .svg, .csv, .md or .tex, in the folder `out`. Captions of an earlier run are deleted."""

    def __init__(self, notebook: str, out: str | Path = "../figures") -> None:
        self.notebook = notebook
        self.out = Path(out)
        (self.out / STATE).mkdir(parents=True, exist_ok=True)
        for old in (self.out / STATE).glob(f"{notebook}--*.json"):
            old.unlink()

    def figure(
        self, fig: Figure, name: str = "", data: pd.DataFrame | None = None, caption: str = ""
    ) -> None:
        """Save a figure as PNG and SVG, and `data`, the numbers in it, as CSV. A notebook also
        shows the figure, and its caption below it."""
        from mmclust.results.figures.theme import escape_missing_letters

        if escaped := escape_missing_letters(fig):
            warnings.warn(missing_font(escaped), stacklevel=2)
        stem = self._stem(name)
        fig.savefig(f"{stem}.png")
        fig.set_layout_engine("none")  # that of the PNG: computing it takes as long as drawing
        fig.savefig(f"{stem}.svg", metadata={"Date": None})
        suffixes = [".png", ".svg"]
        if data is not None:
            data.to_csv(f"{stem}.csv", index=False)
            suffixes.append(".csv")
        self._write_caption(name, "figure", suffixes, caption, escaped=escaped)
        _show_in_notebook(fig, caption, f"{stem}.png")

    def finding(self, text: str, name: str = "") -> None:
        """What the figure or table `name` shows, as a sentence that was computed from its numbers.

        The notebook shows it, and the gallery under the notebook's title and in the caption. Raises
        ValueError if this notebook has no such figure or table.
        """
        text = without_negative_zero(text)
        path = self._note(name)
        if not path.exists():
            raise ValueError(f"{self.notebook} has no figure or table {name!r}: write it first")
        note = json.loads(path.read_text(encoding="utf-8"))
        write_atomically(path, json.dumps(note | {"finding": text}, indent=1).encode())
        _show_in_notebook(None, f"> **{text}**")

    def table(
        self, frame: pd.DataFrame, name: str = "", caption: str = "",
        displayed: pd.DataFrame | None = None, decimals: int = 3,
        bold: pd.DataFrame | None = None, not_comparable: pd.DataFrame | None = None,
    ) -> Styler:  # fmt: skip
        """Save a frame as CSV and a table of it as Markdown, as LaTeX and for the gallery.

        Returns the table, to show in the notebook. LaTeX needs the packages booktabs and xcolor.

        `displayed`: the table to print; by default the frame, which is saved as CSV in any case.
        `decimals`: digits of floating-point numbers. `bold`, `not_comparable`: boolean frames, True
        for the cells to print in bold, and in gray; ValueError if they have another shape.
        """
        stem = self._stem(name)
        frame.to_csv(f"{stem}.csv", index=False)
        displayed = frame if displayed is None else displayed
        text = displayed.map(lambda value: _text(value, decimals)).reset_index(drop=True)
        text.columns = [str(column) for column in displayed.columns]
        strong = _marked_cells(bold, text, "bold")
        gray = _marked_cells(not_comparable, text, "not_comparable")
        sides = ["right" if pd.api.types.is_numeric_dtype(t) else "left" for t in displayed.dtypes]

        cells = _format(text, "markdown", strong, gray)
        align = {"colalign": sides} if len(cells) else {}  # tabulate cannot align an empty table
        markdown = cells.to_markdown(index=False, disable_numparse=True, **align) + "\n"
        Path(f"{stem}.md").write_text(markdown, encoding="utf-8")

        cells = _format(text, "latex", strong, gray)
        style: dict[str, Any] = {"hrules": True, "position_float": "centering"}
        style |= {"column_format": "".join(side[0] for side in sides), "label": f"tab:{stem.name}"}
        style["caption"] = caption.translate(LATEX_ESCAPES)
        latex = Styler(cells).hide(axis="index").to_latex(**style)
        latex = "% \\usepackage{booktabs,xcolor}\n" + latex
        Path(f"{stem}.tex").write_text(latex, encoding="utf-8")

        cells = _format(text, "html", strong, gray)
        uuid = re.sub(r"\W", "-", stem.name)  # not random: the HTML is the same in every run
        styler = Styler(cells, uuid=uuid, cell_ids=False).hide(axis="index")
        if gray.any():
            styler.set_td_classes(cells.mask(gray, GRAY_CLASS).where(gray, ""))
            styler.set_table_styles([{"selector": f".{GRAY_CLASS}", "props": "color: #6a7385"}])
        self._write_caption(name, "table", [".csv", ".md", ".tex"], caption, table=styler.to_html())
        return styler

    def _stem(self, name: str) -> Path:
        return self.out / (f"{self.notebook}_{name}" if name else self.notebook)

    def _note(self, name: str) -> Path:
        return self.out / STATE / f"{self.notebook}--{name or 'main'}.json"

    def _write_caption(
        self, name: str, kind: str, suffixes: list[str], caption: str, **more: str
    ) -> None:
        note = {
            "notebook": self.notebook,
            "name": name,
            "kind": kind,
            "files": [self._stem(name).name + suffix for suffix in suffixes],
            "caption": caption,
            "order": len(list((self.out / STATE).glob(f"{self.notebook}--*.json"))),
        }
        write_atomically(self._note(name), json.dumps(note | more, indent=1).encode())


def _show_in_notebook(fig: Figure | None, markdown: str, png: str = "") -> None:
    """Show a figure that was saved, and a text below it; nothing outside a notebook."""
    from IPython import get_ipython
    from IPython.display import Image, Markdown, display
    from matplotlib.pyplot import close

    if get_ipython() is None:
        return
    if fig is not None:
        display(Image(png, retina=True))
        close(fig)  # else it appears again at the end of the cell
    display(Markdown(markdown))


def missing_font(letters: str) -> str:
    """What a user can do if no font has these letters, as a sentence."""
    import matplotlib

    example = letters[0].encode("ascii", "backslashreplace").decode()
    return (
        f"no installed font has {letters}: figures write such letters as {example}. Install a font "
        "(on Debian fonts-noto-cjk or fonts-noto-core), delete matplotlib's list of fonts in "
        f"{matplotlib.get_cachedir()}, and run again with --force"
    )


def _text(value: Any, decimals: int) -> str:
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return ""
    if pd.api.types.is_float(value):
        return without_negative_zero(f"{value:.{decimals}f}")
    return str(value).replace("\n", " ")


def _marked_cells(marks: pd.DataFrame | None, text: pd.DataFrame, name: str) -> np.ndarray:
    """A boolean array of the shape of `text`; empty cells are never marked."""
    if marks is None:
        return np.zeros(text.shape, bool)
    if marks.shape != text.shape:
        raise ValueError(f"{name}: its shape {marks.shape} is not that of the table, {text.shape}")
    return (text != "").to_numpy() & marks.to_numpy(dtype=bool)


def _format(text: pd.DataFrame, syntax: str, bold: np.ndarray, gray: np.ndarray) -> pd.DataFrame:
    """Cells and column names in a syntax of `SYNTAXES`: escaped, marked cells bold or gray."""
    escape, bold_template, gray_template = SYNTAXES[syntax]
    cells = text.map(escape)
    cells = cells.mask(bold, cells.map(bold_template.format))
    cells = cells.mask(gray, cells.map(gray_template.format))
    return cells.set_axis([escape(column) for column in text.columns], axis=1)


SYNTAXES: dict[str, tuple[Callable[[str], str], str, str]] = {  # escape, template of bold, of gray
    "markdown": (lambda text: text.replace("|", r"\|"), "**{}**", "*({})*"),
    "latex": (
        lambda text: text.translate(LATEX_ESCAPES),
        r"\textbf{{{}}}",
        r"\textcolor{{gray}}{{{}}}",
    ),
    "html": (escape, "<b>{}</b>", "{}"),  # gray is a class there
}
