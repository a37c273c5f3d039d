"""Many fits, each computed once: experiments, their result rows, and where they are computed."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["paper_vs_code"])
