"""Many fits, each computed once: experiments, the rows that they give, and where they run."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["paper_vs_code"])
