"""What a notebook leaves behind: figures and tables as files, each with the numbers it shows and a caption for the index."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pandas.io.formats.style import Styler

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STATE = ".state"  # captions and stamps, below the output folder
_LATEX: dict[str, Any] = {c: "\\" + c for c in "&%$#_{}"} | {c: f"${c}$" for c in "<>|"}
_LATEX |= {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "[": "{[}",
}  # [ after \\ would be its option


class NotebookOutput:
    """The outputs of one notebook, `OUT/<notebook>[_<name>].csv|png|svg`.

    Args:
        notebook: its name, such as "00_quickstart".
        out: the output folder.
    """

    def __init__(self, notebook: str, out: str | Path = "../figures") -> None:
        self.notebook, self.out = notebook, Path(out)
        (self.out / STATE).mkdir(parents=True, exist_ok=True)
        for old in (self.out / STATE).glob(f"{notebook}--*.json"):
            old.unlink()

    def figure(
        self, fig: Figure, name: str = "", data: pd.DataFrame | None = None, caption: str = ""
    ) -> None:
        """Save a figure as PNG and SVG, with the frame of the numbers it shows as CSV."""
        stem = self._stem(name)
        fig.savefig(f"{stem}.png")
        fig.savefig(f"{stem}.svg", metadata={"Date": None})
        files = [stem.name + ".png", stem.name + ".svg"]
        if data is not None:
            data.to_csv(f"{stem}.csv", index=False)
            files.append(stem.name + ".csv")
        self._note(name, "figure", files, caption)

    def table(
        self,
        frame: pd.DataFrame,
        name: str = "",
        caption: str = "",
        shown: pd.DataFrame | None = None,
        decimals: int = 3,
        bold: pd.DataFrame | None = None,
        other: pd.DataFrame | None = None,
    ) -> Styler:
        """Save a frame as CSV, and as Markdown, as LaTeX (booktabs, xcolor) and for the index what is shown of it (by default all).

        Args:
            decimals: of numbers; text stays as it is written.
            bold, other: boolean frames of the shape of what is shown: cells in bold, and cells in grey, which are of something else.

        Returns:
            What is shown, for a notebook to display.

        Raises:
            ValueError: if `bold` or `other` has another shape.
        """
        stem = self._stem(name)
        frame.to_csv(f"{stem}.csv", index=False)
        shown = frame if shown is None else shown
        text = (
            shown.map(lambda value: _text(value, decimals))
            .set_axis(map(str, shown.columns), axis=1)
            .reset_index(drop=True)
        )
        for marks in (bold, other):
            if marks is not None and marks.shape != text.shape:
                raise ValueError(f"marks of shape {marks.shape} for a table of shape {text.shape}")
        number = [pd.api.types.is_numeric_dtype(kind) for kind in shown.dtypes]

        markdown = _marked(
            text, lambda cell: cell.replace("|", r"\|"), bold, "**{}**", other, "*({})*"
        )
        right = (
            {"colalign": ["right" if n else "left" for n in number]} if len(text) else {}
        )  # tabulate 0.9 cannot align an empty table
        Path(f"{stem}.md").write_text(
            markdown.to_markdown(index=False, disable_numparse=True, **right) + "\n",
            encoding="utf-8",
        )

        latex = Styler(
            _marked(text, _latex, bold, r"\textbf{{{}}}", other, r"\textcolor{{gray}}{{{}}}")
        ).hide(axis="index")
        form = {
            "hrules": True,
            "column_format": "".join("r" if n else "l" for n in number),
            "position_float": "centering",
        }
        tex = latex.to_latex(caption=_latex(caption), label=f"tab:{stem.name}", **form)
        Path(f"{stem}.tex").write_text("% \\usepackage{booktabs,xcolor}\n" + tex, encoding="utf-8")

        cells = _marked(text, escape, bold, "<b>{}</b>")
        styler = Styler(cells, uuid=re.sub(r"\W", "-", stem.name), cell_ids=False).hide(
            axis="index"
        )  # a name of its own: the same page each time
        if other is not None:
            grey = pd.DataFrame("", cells.index, cells.columns).mask(
                other.to_numpy(dtype=bool), "other"
            )
            styler.set_td_classes(grey).set_table_styles(
                [{"selector": ".other", "props": "color: #6a7385"}]
            )
        self._note(
            name,
            "table",
            [stem.name + kind for kind in (".csv", ".md", ".tex")],
            caption,
            styler.to_html(),
        )
        return styler

    def _stem(self, name: str) -> Path:
        return self.out / (f"{self.notebook}_{name}" if name else self.notebook)

    def _note(self, name: str, kind: str, files: list[str], caption: str, html: str = "") -> None:
        order = len(list((self.out / STATE).glob(f"{self.notebook}--*.json")))
        note = {
            "notebook": self.notebook,
            "name": name,
            "kind": kind,
            "files": files,
            "caption": caption,
            "order": order,
            "table": html,
        }
        (self.out / STATE / f"{self.notebook}--{name or 'main'}.json").write_text(
            json.dumps(note, indent=1), encoding="utf-8"
        )


def _text(value: Any, decimals: int) -> str:
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return ""
    return (
        f"{value:.{decimals}f}" if pd.api.types.is_float(value) else str(value).replace("\n", " ")
    )


def _latex(text: str) -> str:
    return text.translate(str.maketrans(_LATEX))


def _marked(
    text: pd.DataFrame,
    escaped: Callable[[str], str],
    bold: pd.DataFrame | None,
    strong: str,
    other: pd.DataFrame | None = None,
    grey: str = "",
) -> pd.DataFrame:
    """A frame of text, escaped with its column names; the cells that `bold` and `other` mark, unless empty, put into a template each."""
    out = text.map(escaped)
    for marks, form in ((bold, strong), (other, grey)):
        if marks is not None:
            out = out.mask(marks.to_numpy(dtype=bool) & (text != ""), out.map(form.format))
    return out.set_axis([escaped(c) for c in text.columns], axis=1)
