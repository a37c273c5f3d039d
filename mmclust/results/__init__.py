"""Rows to tables and figures, and the files that a notebook writes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=["figures", "lesson_figures", "tables"]
)
