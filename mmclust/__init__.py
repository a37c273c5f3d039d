"""mmclust: give it images and a keyword, get that clustering; another keyword, another clustering.

Heavy modules load when a name is first used: `import mmclust as mm` takes milliseconds and does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what `__getattr__` finds, for editors and type checkers; test_project.py compares the two lists
    from mmclust import plots as plots, tables as tables, teach as teach, variants as variants, worlds as worlds
    from mmclust.backend import connect as connect
    from mmclust.benchmarks.memory import kept_memory as kept_memory
    from mmclust.benchmarks.methods import epoch_times as epoch_times
    from mmclust.datasets import load_dataset as load_dataset, load_folder as load_folder, usable as usable
    from mmclust.datasets.base import ImageDataset as ImageDataset, Images as Images
    from mmclust.encoders import load_encoder as load_encoder
    from mmclust.encoders.base import Encoder as Encoder
    from mmclust.experiments import Experiment as Experiment, grid as grid, run as run
    from mmclust.explore import Explorer as Explorer
    from mmclust.methods.base import ImageClusterer as ImageClusterer, name_clusters as name_clusters
    from mmclust.methods.baselines import MCV as MCV, MSC as MSC, PUBLISHED_ONLY as PUBLISHED_ONLY, KMeans as KMeans
    from mmclust.methods.multidproxy import MultiDProxy as MultiDProxy
    from mmclust.methods.multimap import MultiMaP as MultiMaP
    from mmclust.methods.multisub import MultiSub as MultiSub
    from mmclust.methods.nonredundant import ENRC as ENRC, NRKmeans as NRKmeans, Orth1 as Orth1, Orth2 as Orth2
    from mmclust.methods.number import choose_n_clusters as choose_n_clusters
    from mmclust.methods.several import cluster_by as cluster_by
    from mmclust.methods.zeroshot import CLIP_GPT as CLIP_GPT, CLIP_label as CLIP_label
    from mmclust.metrics import score as score, score_kmeans as score_kmeans
    from mmclust.pages import Page as Page
    from mmclust.profiles import load_profile as load_profile, settings as settings, varied as varied
    from mmclust.store import cache_dir as cache_dir
    from mmclust.sweeps import ablation as ablation, defaults as defaults, estimate as estimate, paired as paired, sweep as sweep, timed as timed
    from mmclust.words import prompt_template as prompt_template, reference_words as reference_words

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


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'mmclust' has no attribute {name!r}")
    module = import_module(f"mmclust.{_WHERE[name]}")
    value = module if _WHERE[name] == name else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
