"""The public names of mmclust, one per line: where each is defined."""

from .data import available_datasets as available_datasets
from .data import load_dataset as load_dataset
from .data import load_folder as load_folder
from .data import rendered as rendered
from .data.images import ImageDataset as ImageDataset
from .data.images import Images as Images
from .encoders import load_encoder as load_encoder
from .encoders.base import Encoder as Encoder
from .experiments import paper_vs_code as paper_vs_code
from .experiments.ablations import ablation as ablation
from .experiments.ablations import defaults as defaults
from .experiments.ablations import estimate_cost as estimate_cost
from .experiments.ablations import run_timed as run_timed
from .experiments.ablations import sweep as sweep
from .experiments.dask_backend import connect as connect
from .experiments.epoch_cost import epoch_times as epoch_times
from .experiments.experiment import Experiment as Experiment
from .experiments.experiment import grid as grid
from .experiments.memory_cost import kept_memory as kept_memory
from .experiments.run import run as run
from .experiments.statistics import paired as paired
from .explorer.widgets import Explorer as Explorer
from .methods.base import ImageClusterer as ImageClusterer
from .methods.baselines import KMeans as KMeans
from .methods.cluster_names import name_clusters as name_clusters
from .methods.multi_keyword import cluster_by as cluster_by
from .methods.multidproxy import MultiDProxy as MultiDProxy
from .methods.multimap import MultiMaP as MultiMaP
from .methods.multisub import MultiSub as MultiSub
from .methods.n_clusters import choose_n_clusters as choose_n_clusters
from .methods.zero_shot import CLIP_GPT as CLIP_GPT
from .methods.zero_shot import CLIP_label as CLIP_label
from .metrics import score as score
from .metrics import score_kmeans as score_kmeans
from .profiles import load_profile as load_profile
from .profiles import override_params as override_params
from .profiles import settings as settings
from .results import figures as figures
from .results import lesson_figures as lesson_figures
from .results import tables as tables
from .results.output import NotebookOutput as NotebookOutput
from .storage import cache_dir as cache_dir
from .words import prompt_template as prompt_template
from .words import reference_words as reference_words

__version__: str
