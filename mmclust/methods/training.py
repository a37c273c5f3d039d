"""How the three methods learn: one row of parameters per image, steps over batches, early stopping.

Notable: gradients are accumulated over chunks, so the memory of a step does not grow with the
number of images. Not here: losses, which are in the methods' own modules.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

NORM_REDUCTIONS = ("sum", "mean", "relative")


class PerImageParameters:
    """n rows of parameters, one per image, stored as one tensor per chunk: the cost of a step
    depends on its own rows only, however many others there are.

    Args:
        start: initial values (n, e); copied.
        batch_size: rows per step; or "full", one step per epoch over all rows.
        chunk_size: rows per forward pass. The gradients of a batch's chunks are summed, so their
            size changes results by rounding only.
    """

    def __init__(self, start: torch.Tensor, batch_size: int | str, chunk_size: int) -> None:
        self.n = len(start)
        self.batches: list[list[tuple[slice, torch.Tensor]]] = []
        first = 0
        for batch in start.split(self.n if batch_size == "full" else int(batch_size)):
            chunks = []
            for chunk in batch.split(chunk_size):
                rows = slice(first, first + len(chunk))
                chunks.append((rows, chunk.clone().requires_grad_(True)))
                first += len(chunk)
            self.batches.append(chunks)

    @property
    def chunks(self) -> list[tuple[slice, torch.Tensor]]:
        """The rows of every chunk, and their parameters."""
        return [chunk for batch in self.batches for chunk in batch]

    @property
    def parameters(self) -> list[torch.Tensor]:
        return [parameters for _, parameters in self.chunks]

    def value(self) -> torch.Tensor:
        """All rows (n, e), detached."""
        return torch.cat([parameters.detach() for parameters in self.parameters])

    def map(self, function: Callable) -> tuple[torch.Tensor, ...]:
        """The tensors that `function(rows, parameters)` returns for every chunk, concatenated;
        without gradients."""
        with torch.no_grad():
            results = [function(*chunk) for chunk in self.chunks]
        return tuple(torch.cat(tensors) for tensors in zip(*results))

    def epoch(
        self,
        optimizer: torch.optim.Optimizer,
        loss_of: Callable,
        before_step: Callable | None = None,
    ) -> torch.Tensor:
        """One step per batch. Returns the terms, averaged over all rows.

        Args:
            loss_of: `loss_of(rows, parameters, size)` returns a chunk's share of the loss of its
                batch, and a tuple of terms to be recorded, all divided by the batch's `size`.
            before_step: called before each step of the optimizer.
        """
        total: Any = 0.0
        for batch in self.batches:
            optimizer.zero_grad(set_to_none=True)
            size = sum(len(parameters) for _, parameters in batch)
            for rows, parameters in batch:
                loss, terms = loss_of(rows, parameters, size)
                loss.backward()
                total = total + torch.stack([t.detach() for t in terms]) * (size / self.n)
            if before_step is not None:
                before_step()
            optimizer.step()
        return total


def make_optimizer(
    name: str, groups: list[dict], lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """ "adam" (the papers) or "adagrad" (the released code)."""
    optimizers = {"adam": torch.optim.Adam, "adagrad": torch.optim.Adagrad}
    return optimizers[name](groups, lr=lr, weight_decay=weight_decay)


def squared_norm_scale(words: torch.Tensor, reduction: str) -> torch.Tensor | float:
    """What a squared distance in token space is multiplied by; words (K, e).

    "sum": 1. "mean": 1 / e, as `MSELoss` does. "relative": 1 / mean ||word||^2, which gives a
    weight the same meaning in any token space.
    """
    if reduction == "relative":
        return 1 / words.square().sum(1).mean()
    return 1.0 if reduction == "sum" else 1 / words.shape[1]


class History:
    """What each epoch recorded, by name; values stay on their device until `table`. And the seconds
    that each epoch took."""

    def __init__(self) -> None:
        self.rows: list[tuple[tuple[str, ...], torch.Tensor, dict[str, Any]]] = []
        self.seconds: list[float] = []
        self._last = time.perf_counter()

    def add(self, names: tuple[str, ...], values: torch.Tensor, **more: Any) -> None:
        now = time.perf_counter()
        self.rows.append((names, values, more))
        self.seconds.append(now - self._last)
        self._last = now

    def table(self) -> list[dict]:
        """One dictionary per epoch."""
        return [
            more | dict(zip(names, values.double().tolist())) for names, values, more in self.rows
        ]


class LossPlateau:
    """Stop if, at `n_checks` successive checks, the loss has changed by less than `tol` of its size
    since the check before; a check is made every `every` epochs."""

    def __init__(self, every: int, n_checks: int, tol: float) -> None:
        self.every = every
        self.n_checks = n_checks
        self.tol = tol
        self.n_unchanged = 0
        self.last: float | None = None

    def reached(self, epoch: int, loss: float) -> bool:
        if (epoch + 1) % self.every:
            return False
        unchanged = self.last is not None and abs(self.last - loss) <= self.tol * abs(loss)
        self.n_unchanged = self.n_unchanged + 1 if unchanged else 0
        self.last = loss
        return self.n_unchanged >= self.n_checks


class ClusteringAgreement:
    """Stop if, at `n_checks` successive checks, the clustering agrees with that of the check before
    (adjusted Rand index of at least `least`); a check is made every `every` epochs."""

    def __init__(self, every: int, n_checks: int, least: float) -> None:
        self.every = every
        self.n_checks = n_checks
        self.least = least
        self.n_unchanged = 0
        self.last: np.ndarray | None = None
        self.centers: np.ndarray | None = None

    def reached(self, epoch: int, cluster: Callable) -> bool:
        """`cluster(centers)` returns labels (n,) and centers. It gets the centers of the check
        before (None at the first), so that k-means does not differ only by where it starts."""
        if (epoch + 1) % self.every:
            return False
        labels, self.centers = cluster(self.centers)
        unchanged = self.last is not None and same_clustering(self.last, labels, self.least)
        self.n_unchanged = self.n_unchanged + 1 if unchanged else 0
        self.last = labels
        return self.n_unchanged >= self.n_checks


def same_clustering(first: np.ndarray, second: np.ndarray | None, least: float) -> bool:
    """Whether two labelings (n,) agree: adjusted Rand index of at least `least`."""
    from sklearn.metrics import adjusted_rand_score

    return adjusted_rand_score(first, second) >= least
