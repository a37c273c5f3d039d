"""Sampled pairs are uniform, and losses over them unbiased.

Values and gradients over all pairs, and their invariances, are in `test_against_reference.py`.
"""

import itertools

import pytest
import torch

from mmclust.methods import pair_losses


def test_sampled_pairs_are_of_one_cluster_or_of_two():
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 0, 3, 3, 3])
    generator = torch.Generator().manual_seed(0)
    i, j = pair_losses.sample_pairs(labels, True, 5000, generator)
    assert (labels[i] == labels[j]).all()
    assert (i != j).all()
    i, j = pair_losses.sample_pairs(labels, False, 5000, generator)
    assert (labels[i] != labels[j]).all()
    assert len(pair_losses.sample_pairs(torch.arange(4), True, 10, generator)[0]) == 0


@pytest.mark.parametrize("same", [True, False])
def test_every_pair_is_equally_likely(same):
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
    i, j = pair_losses.sample_pairs(labels, same, 1_600_000, torch.Generator().manual_seed(1))
    pairs = [
        (a, b) for a, b in itertools.permutations(range(9), 2) if (labels[a] == labels[b]) == same
    ]
    counts = torch.zeros(9, 9).index_put((i, j), torch.ones(len(i)), accumulate=True)
    share = torch.stack([counts[a, b] for a, b in pairs]) / len(i)
    assert abs(share.sum() - 1) < 1e-6
    assert (share * len(pairs) - 1).abs().max() < 0.06


@pytest.mark.parametrize("intra", ["plain", "squared"])
def test_sampled_losses_are_unbiased(monkeypatch, intra):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(60, 3, dtype=torch.float64, generator=generator)
    labels = torch.randint(4, (60,), generator=generator)
    exact = pair_losses.contrast(x, labels, 0.5, 2.0, intra)
    monkeypatch.setattr(pair_losses, "MAX_IMAGES_ALL_PAIRS", 10)
    monkeypatch.setattr(pair_losses, "N_SAMPLED_PAIRS", 2000)
    draws = torch.stack(
        [pair_losses.contrast(x, labels, 0.5, 2.0, intra, generator) for _ in range(50)]
    )
    assert draws.std() > 0
    assert abs(draws.mean() - exact) < 4 * draws.std() / 50**0.5
