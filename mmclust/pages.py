"""What a notebook leaves behind: figures and tables as files, each with the numbers it shows and a caption for the index."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

STATE = ".state"  # captions and stamps, below the output folder


class Page:
    """The outputs of one notebook, `OUT/<notebook>[_<name>].csv|png|svg`.

    Args:
        notebook: its name, such as "00_quickstart".
        out: the output folder.
    """

    def __init__(self, notebook: str, out: str | Path = "../figures"):
        self.notebook, self.out = notebook, Path(out)
        (self.out / STATE).mkdir(parents=True, exist_ok=True)
        for old in (self.out / STATE).glob(f"{notebook}--*.json"):
            old.unlink()

    def figure(self, fig, name: str = "", data: pd.DataFrame | None = None, caption: str = "") -> None:
        """Save a figure as PNG and SVG, with the frame of the numbers it shows as CSV."""
        stem = self._stem(name)
        fig.savefig(f"{stem}.png")
        fig.savefig(f"{stem}.svg", metadata={"Date": None})
        files = [stem.name + ".png", stem.name + ".svg"]
        if data is not None:
            data.to_csv(f"{stem}.csv", index=False)
            files.append(stem.name + ".csv")
        self._note(name, "figure", files, caption)

    def table(self, frame: pd.DataFrame, name: str = "", caption: str = "", shown: pd.DataFrame | None = None, decimals: int = 3) -> pd.DataFrame:
        """Save a frame as CSV, and as Markdown and for the index what is shown of it (by default all); returns that, rounded for the eye."""
        stem = self._stem(name)
        frame.to_csv(f"{stem}.csv", index=False)
        shown = (frame if shown is None else shown).round(decimals)
        text = [i for i, kind in enumerate(shown.dtypes) if not pd.api.types.is_numeric_dtype(kind)]  # "0.960" stays as it is written
        Path(f"{stem}.md").write_text(shown.to_markdown(index=False, floatfmt=f".{decimals}f", disable_numparse=text) + "\n", encoding="utf-8")
        html = shown.to_html(index=False, border=0, float_format=f"{{:.{decimals}f}}".format, na_rep="", escape=True)
        self._note(name, "table", [stem.name + ".csv", stem.name + ".md"], caption, html)
        return shown

    def _stem(self, name: str) -> Path:
        return self.out / (f"{self.notebook}_{name}" if name else self.notebook)

    def _note(self, name: str, kind: str, files: list[str], caption: str, html: str = "") -> None:
        order = len(list((self.out / STATE).glob(f"{self.notebook}--*.json")))
        note = {"notebook": self.notebook, "name": name, "kind": kind, "files": files, "caption": caption, "order": order, "table": html}
        (self.out / STATE / f"{self.notebook}--{name or 'main'}.json").write_text(json.dumps(note, indent=1), encoding="utf-8")
