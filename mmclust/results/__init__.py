"""Turns result rows into tables and figures, and writes the output files of notebooks."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=["figures", "lesson_figures", "tables"]
)
