"""Multi-Sub's losses over pairs of images, at a cost that grows linearly with the images.

L_intra with squared distances has a closed form. The other losses use all pairs for up to
`MAX_IMAGES_ALL_PAIRS` images; for more images, they use a uniform sample of the pairs. It is drawn
on the CPU, so that a seed draws the same pairs on every device.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_IMAGES_ALL_PAIRS = 1024
N_SAMPLED_PAIRS = 65_536


def intra_squared(x: Tensor, labels: Tensor) -> Tensor:
    """Mean of ||x_i - x_j||^2 over ordered pairs i != j within clusters (Multi-Sub, L_intra as in
    the paper); x (n, d), labels (n,). Zero if no cluster has two images.

    Closed form: in a cluster of m images, the pairs sum to 2 m sum ||x||^2 - 2 ||sum x||^2.
    """
    n_clusters = int(labels.max()) + 1
    sizes = torch.bincount(labels, minlength=n_clusters).to(x.dtype)  # (M,)
    sums = x.new_zeros(n_clusters, x.shape[1]).index_add(0, labels, x)  # (M, d)
    squares = x.new_zeros(n_clusters).index_add(0, labels, x.square().sum(1))  # (M,)
    n_pairs = (sizes * (sizes - 1)).sum()
    return (2 * sizes * squares - 2 * sums.square().sum(1)).sum() / n_pairs.clamp(min=1)


def intra_plain(x: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Mean of ||x_i - x_j|| over pairs i != j within clusters (L_intra of the released code)."""
    distances = _distances(x, labels, True, generator)
    return distances.mean() if len(distances) else x.sum() * 0


def inter_hinge(
    x: Tensor, labels: Tensor, margin: float, generator: torch.Generator | None = None
) -> Tensor:
    """Mean of max(0, margin - ||x_i - x_j||) over pairs of different clusters (L_inter)."""
    distances = _distances(x, labels, False, generator)
    return F.relu(margin - distances).mean() if len(distances) else x.sum() * 0


def contrast(
    x: Tensor, labels: Tensor, lam: float, margin: float, intra: str,
    generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """lambda L_intra + (1 - lambda) L_inter over v' (n, e + d) with pseudo-labels (n,) (Multi-Sub,
    Phase II)."""
    squared = intra == "squared"
    within = intra_squared(x, labels) if squared else intra_plain(x, labels, generator)
    return lam * within + (1 - lam) * inter_hinge(x, labels, margin, generator)


def sample_pairs(
    labels: Tensor, same: bool, count: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Indices i and j of pairs drawn uniformly from the pairs i != j within clusters (`same`), or
    between different clusters: `count` pairs are drawn from all, and the others are rejected."""
    i, j = torch.randint(len(labels), (2, count), generator=generator).to(labels.device)
    wanted = ((labels[i] == labels[j]) == same) & (i != j)
    return i[wanted], j[wanted]


def _distances(x: Tensor, labels: Tensor, same: bool, generator: torch.Generator | None) -> Tensor:
    """Distances of pairs within clusters (`same`), or of pairs between different clusters."""
    if len(x) <= MAX_IMAGES_ALL_PAIRS:
        i, j = torch.triu_indices(len(x), len(x), 1, device=x.device)
        return F.pdist(x)[(labels[i] == labels[j]) == same]
    i, j = sample_pairs(labels, same, N_SAMPLED_PAIRS, generator)
    return torch.linalg.vector_norm(x[i] - x[j], dim=1)
