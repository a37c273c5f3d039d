"""Losses over pairs of images, at a cost that grows linearly with their number."""

from __future__ import annotations

import torch
import torch.nn.functional as F

EXACT_BELOW = 1024  # up to this many images every pair is taken; above, a sample of them
SAMPLED_PAIRS = 65_536


def intra_squared(x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean of ||x_i - x_j||^2 over ordered pairs i != j of one cluster (Multi-Sub, L_intra as in the paper); x (n, d), labels (n,).

    In closed form: the pairs of a cluster of m images sum to 2 m sum ||x||^2 - 2 ||sum x||^2. Zero where no cluster has a pair.
    """
    n_clusters = int(labels.max()) + 1
    sizes = torch.bincount(labels, minlength=n_clusters).to(x.dtype)
    sums = torch.zeros(n_clusters, x.shape[1], dtype=x.dtype, device=x.device).index_add(
        0, labels, x
    )
    squares = torch.zeros(n_clusters, dtype=x.dtype, device=x.device).index_add(
        0, labels, x.square().sum(1)
    )
    pairs = (sizes * (sizes - 1)).sum()
    return (2 * sizes * squares - 2 * sums.square().sum(1)).sum() / pairs.clamp(min=1)


def intra_plain(
    x: torch.Tensor, labels: torch.Tensor, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Mean of ||x_i - x_j|| over pairs i != j of one cluster (the released code's L_intra), exact up to `EXACT_BELOW` images, else sampled."""
    if len(x) <= EXACT_BELOW:
        distances, same = _all_pairs(x, labels)
        return distances[same].mean() if same.any() else x.sum() * 0
    i, j = sample_same(labels, SAMPLED_PAIRS, generator)
    return _distance(x, i, j).mean() if len(i) else x.sum() * 0


def inter_hinge(
    x: torch.Tensor,
    labels: torch.Tensor,
    margin: float = 1.0,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Mean of max(0, margin - ||x_i - x_j||) over pairs of different clusters (L_inter), exact up to `EXACT_BELOW` images, else sampled."""
    if len(x) <= EXACT_BELOW:
        distances, same = _all_pairs(x, labels)
        return F.relu(margin - distances[~same]).mean() if not same.all() else x.sum() * 0
    i, j = sample_different(labels, SAMPLED_PAIRS, generator)
    return F.relu(margin - _distance(x, i, j)).mean() if len(i) else x.sum() * 0


def sample_same(
    labels: torch.Tensor, count: int, generator: torch.Generator | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """`count` pairs, uniform over ordered pairs i != j of one cluster; empty where no cluster has two images."""
    order = labels.argsort(stable=True)
    sizes = torch.bincount(labels)
    starts = sizes.cumsum(0) - sizes
    if not (sizes > 1).any():
        return order[:0], order[:0]
    # an image is the first of a pair in proportion to its partners; searching the cumulated weights takes any number of images
    cumulated = (sizes[labels[order]] - 1).cumsum(0)
    draws = torch.randint(int(cumulated[-1]), (count,), generator=generator, device=labels.device)
    first = torch.searchsorted(cumulated, draws, right=True)
    cluster = labels[order[first]]
    step = (
        1
        + (
            torch.rand(count, generator=generator, device=labels.device) * (sizes[cluster] - 1)
        ).long()
    )
    second = starts[cluster] + (first - starts[cluster] + step) % sizes[cluster]
    return order[first], order[second]


def sample_different(
    labels: torch.Tensor, count: int, generator: torch.Generator | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """About `count` pairs, uniform over pairs of different clusters (drawn uniformly, those of one cluster rejected)."""
    i, j = torch.randint(len(labels), (2, count), generator=generator, device=labels.device)
    different = labels[i] != labels[j]
    return i[different], j[different]


def _all_pairs(x: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    i, j = torch.triu_indices(len(x), len(x), 1, device=x.device)
    return F.pdist(x), labels[i] == labels[j]


def _distance(x: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(x[i] - x[j], dim=1)
