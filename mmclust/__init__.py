"""mmclust: give it images and a keyword, get that clustering; another keyword, another clustering.

Heavy modules load when a name is first used: `import mmclust as mm` takes milliseconds and does not import torch.
"""

from importlib import import_module

__version__ = "0.1.0"

_WHERE = {
    "load_dataset": "datasets", "load_folder": "datasets", "usable": "datasets", "ImageDataset": "datasets.base", "Images": "datasets.base",
    "ImageClusterer": "methods.base", "Encoder": "encoders.base",
    "load_encoder": "encoders", "reference_words": "words", "prompt_template": "words", "score": "metrics", "score_kmeans": "metrics",
    "KMeans": "methods.baselines", "CLIP_GPT": "methods.zeroshot", "CLIP_label": "methods.zeroshot", "MultiSub": "methods.multisub",
    "MultiMaP": "methods.multimap", "MultiDProxy": "methods.multidproxy", "name_clusters": "methods.base",
    "cluster_by": "methods.several", "choose_n_clusters": "methods.number",
    "MCV": "methods.baselines", "MSC": "methods.baselines", "PUBLISHED_ONLY": "methods.baselines",
    "NRKmeans": "methods.nonredundant", "ENRC": "methods.nonredundant", "Orth1": "methods.nonredundant", "Orth2": "methods.nonredundant",
    "connect": "backend", "grid": "experiments", "run": "experiments", "Experiment": "experiments",
    "sweep": "sweeps", "ablation": "sweeps", "estimate": "sweeps", "paired": "sweeps", "timed": "sweeps", "defaults": "sweeps", "variants": "variants",
    "epoch_times": "benchmarks.methods", "kept_memory": "benchmarks.memory", "load_profile": "profiles",
    "plots": "plots", "tables": "tables", "teach": "teach", "worlds": "worlds", "cache_dir": "store", "Page": "pages", "settings": "profiles",
    "varied": "profiles", "Explorer": "explore",
}  # fmt: skip
__all__ = sorted(_WHERE)


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module 'mmclust' has no attribute {name!r}")
    module = import_module(f"mmclust.{_WHERE[name]}")
    value = module if _WHERE[name] == name else getattr(module, name)
    globals()[name] = value
    return value


def __dir__():
    return sorted([*globals(), *_WHERE])
