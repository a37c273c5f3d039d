"""The figures of the notebooks: pictures, scores, parameters, training and learned spaces.

Figure functions take arrays, or a tidy frame with one row per experiment, and return a matplotlib
figure, which `NotebookOutput.figure` saves. Call `use_theme` once before them.
"""

from mmclust.results.figures.parameters import curves, heat_maps
from mmclust.results.figures.pictures import gallery, misplaced, mistakes, sample_grid, teaser
from mmclust.results.figures.scores import ablation, differences, method_scores
from mmclust.results.figures.spaces import confusion, confusion_table, cosines, tsne_panels
from mmclust.results.figures.theme import PALETTE, PARAMETERS, class_colors, show_image, use_theme
from mmclust.results.figures.training import candidates, convergence, costs, quality_time

__all__ = [
    "PALETTE", "PARAMETERS", "ablation", "candidates", "class_colors", "confusion",
    "confusion_table", "convergence", "cosines", "costs", "curves", "differences", "gallery",
    "heat_maps", "method_scores", "misplaced", "mistakes", "quality_time", "sample_grid",
    "show_image", "teaser", "tsne_panels", "use_theme",
]  # fmt: skip
