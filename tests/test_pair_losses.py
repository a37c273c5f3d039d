"""Pair losses against float64 references written pair by pair; sampled pairs are unbiased."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmclust.methods import pair_losses


def reference(x, labels, margin=1.0):
    """(intra squared, intra plain, inter hinge) by loops over ordered pairs i != j."""
    squared, plain, hinge = [], [], []
    for i, j in itertools.permutations(range(len(x)), 2):
        distance = (x[i] - x[j]).square().sum().sqrt()
        if labels[i] == labels[j]:
            squared.append(distance**2)
            plain.append(distance)
        else:
            hinge.append(torch.clamp(margin - distance, min=0))
    mean = lambda values: torch.stack(values).mean() if values else x.sum() * 0  # noqa: E731
    return mean(squared), mean(plain), mean(hinge)


@given(st.integers(2, 14), st.integers(1, 5), st.integers(0, 10_000))
def test_values_and_gradients_equal_the_loops(n, clusters, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    labels = torch.randint(clusters, (n,), generator=generator)
    ours = (
        pair_losses.intra_squared(x, labels),
        pair_losses.intra_plain(x, labels),
        pair_losses.inter_hinge(x, labels, 3.0),
    )
    for a, b in zip(ours, reference(x, labels, 3.0)):
        assert abs(a - b) < 1e-9
        (grad_a,), (grad_b,) = (torch.autograd.grad(v, x, retain_graph=True) for v in (a, b))
        assert (grad_a - grad_b).abs().max() < 1e-6


@given(st.integers(0, 1000))
def test_losses_ignore_order_names_and_shifts(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(12, 3, dtype=torch.float64, generator=generator)
    labels = torch.randint(3, (12,), generator=generator)
    order, names = torch.randperm(12, generator=generator), torch.tensor([2, 0, 1])
    for loss in (pair_losses.intra_squared, pair_losses.intra_plain, pair_losses.inter_hinge):
        value = loss(x, labels)
        for other in (loss(x[order], labels[order]), loss(x, names[labels]), loss(x + 5, labels)):
            assert abs(value - other) < 1e-9


def test_sampled_pairs_are_what_they_say():
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 0, 3, 3, 3])
    generator = torch.Generator().manual_seed(0)
    i, j = pair_losses.sample_same(labels, 5000, generator)
    assert len(i) == 5000 and (labels[i] == labels[j]).all() and (i != j).all()
    i, j = pair_losses.sample_different(labels, 5000, generator)
    assert (labels[i] != labels[j]).all()
    assert len(pair_losses.sample_same(torch.arange(4), 10, generator)[0]) == 0


@pytest.mark.parametrize(
    "sample, same", [(pair_losses.sample_same, True), (pair_losses.sample_different, False)]
)
def test_every_pair_is_equally_likely(sample, same):
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
    i, j = sample(labels, 400_000, torch.Generator().manual_seed(1))
    pairs = [
        (a, b) for a, b in itertools.permutations(range(9), 2) if (labels[a] == labels[b]) == same
    ]
    counts = torch.zeros(9, 9).index_put((i, j), torch.ones(len(i)), accumulate=True)
    share = torch.stack([counts[a, b] for a, b in pairs]) / len(i)
    assert abs(share.sum() - 1) < 1e-6
    assert (share * len(pairs) - 1).abs().max() < 0.06


def test_sampled_losses_are_unbiased(monkeypatch):
    generator = torch.Generator().manual_seed(2)
    x, labels = (
        torch.randn(60, 3, dtype=torch.float64, generator=generator),
        torch.randint(4, (60,), generator=generator),
    )
    exact = pair_losses.intra_plain(x, labels), pair_losses.inter_hinge(x, labels, 2.0)
    monkeypatch.setattr(pair_losses, "EXACT_BELOW", 10)
    for loss, value in zip(
        (
            lambda: pair_losses.intra_plain(x, labels, generator),
            lambda: pair_losses.inter_hinge(x, labels, 2.0, generator),
        ),
        exact,
    ):
        draws = torch.stack([loss() for _ in range(20)])
        assert draws.std() > 0 and abs(draws.mean() - value) < 4 * draws.std() / 20**0.5
