"""The figures of the notebooks: pictures, scores, parameters, training and learned spaces.

Figure functions take arrays, or a tidy frame with one row per experiment, and return a matplotlib
figure, which `NotebookOutput.figure` saves. Call `use_theme` once before them.
"""

from mmclust.results.figures.parameters import curves, heat_maps
from mmclust.results.figures.pictures import gallery, sample_grid, teaser
from mmclust.results.figures.scores import ablation, effects, method_scores
from mmclust.results.figures.spaces import confusion, confusion_table, tsne_panels
from mmclust.results.figures.theme import MARKERS, PALETTE, class_colors, show_image, use_theme
from mmclust.results.figures.training import candidates, convergence, cost_bars, quality_time

__all__ = [
    "MARKERS", "PALETTE", "ablation", "candidates", "class_colors", "confusion", "confusion_table",
    "convergence", "cost_bars", "curves", "effects", "gallery", "heat_maps", "method_scores",
    "quality_time", "sample_grid", "show_image", "teaser", "tsne_panels", "use_theme",
]  # fmt: skip
