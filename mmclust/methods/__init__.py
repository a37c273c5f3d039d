"""The methods, as scikit-learn style estimators of images, and their names in experiments."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mmclust import plugins

METHODS = {  # class name -> its module, which is imported when it is first used
    "KMeans": "mmclust.methods.baselines",
    "CRL": "mmclust.methods.baselines",
    "CLIP_GPT": "mmclust.methods.zero_shot",
    "CLIP_label": "mmclust.methods.zero_shot",
    "MultiMaP": "mmclust.methods.multimap",
    "MultiSub": "mmclust.methods.multisub",
    "MultiDProxy": "mmclust.methods.multidproxy",
}


def method_class(name: str) -> type[Any]:
    """The estimator class with this name. Raises ValueError if the name is neither in `METHODS` nor
    the "module:Class" of a plug-in."""
    if plugins.is_plugin_name(name):
        return plugins.resolve(name)
    if name not in METHODS:
        known = f'one of {", ".join(METHODS)}, or "module:Class" of your own'
        raise ValueError(f"unknown method {name!r}: use {known}")
    return getattr(import_module(METHODS[name]), name)
