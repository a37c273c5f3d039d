"""How the three methods learn: one row of parameters per image, steps over batches of them, and when to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch


class PerImageParameters:
    """n rows of parameters, one per image, kept as one tensor per chunk: the cost of a step is that of its rows, however many there are.

    Args:
        start: initial values (n, e); copied.
        batch_size: "full", one step per epoch over all rows with gradients accumulated over chunks; or rows per step.
        chunk_size: rows per forward pass. Where a batch has several chunks, their size changes the sum by rounding only.
    """

    def __init__(self, start: torch.Tensor, batch_size: int | str, chunk_size: int) -> None:
        self.n, at = len(start), 0
        self.batches: list[list[tuple[slice, torch.Tensor]]] = []
        for batch in start.split(len(start) if batch_size == "full" else batch_size):
            chunks = []
            for chunk in batch.split(chunk_size):
                chunks.append((slice(at, at + len(chunk)), chunk.clone().requires_grad_(True)))
                at += len(chunk)
            self.batches.append(chunks)

    @property
    def chunks(self) -> list[tuple[slice, torch.Tensor]]:
        """Which rows, and their parameters."""
        return [chunk for batch in self.batches for chunk in batch]

    @property
    def parameters(self) -> list[torch.Tensor]:
        return [leaf for _, leaf in self.chunks]

    def value(self) -> torch.Tensor:
        """All rows (n, e), detached."""
        return torch.cat([leaf.detach() for leaf in self.parameters])

    def map(self, f: Callable) -> Any:
        """`f(rows, parameters)` for every chunk without gradients, its tensor or each of its tensors put together."""
        with torch.no_grad():
            parts = [f(*chunk) for chunk in self.chunks]
        return (
            torch.cat(parts)
            if isinstance(parts[0], torch.Tensor)
            else tuple(torch.cat(column) for column in zip(*parts))
        )

    def epoch(
        self, optimizer: torch.optim.Optimizer, loss_of: Callable, after: Callable | None = None
    ) -> torch.Tensor:
        """One pass: a step per batch. `loss_of(rows, parameters, size)` gives a chunk's share of its batch's loss and of the terms to be
        recorded, both divided by the batch's `size`; `after()` is called before a step. Returns the terms, averaged over all rows."""
        total: Any = 0.0
        for batch in self.batches:
            optimizer.zero_grad(set_to_none=True)
            size = sum(len(leaf) for _, leaf in batch)
            for rows, leaf in batch:
                loss, terms = loss_of(rows, leaf, size)
                loss.backward()
                total = total + torch.stack([t.detach() for t in terms]) * (size / self.n)
            if after is not None:
                after()
            optimizer.step()
        return total


def make_optimizer(
    name: str, groups: list[dict], lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """ "adam" (the papers) or "adagrad" (the released code)."""
    return {"adam": torch.optim.Adam, "adagrad": torch.optim.Adagrad}[name](
        groups, lr=lr, weight_decay=weight_decay
    )


class History:
    """What was recorded in every epoch: names and values, still on their device until they are read; and the seconds each took."""

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
    """Stop when the loss has moved by less than `tol` of its size between two checks, `n_checks` times running."""

    def __init__(self, every: int, n_checks: int, tol: float) -> None:
        self.every, self.n_checks, self.tol, self.quiet = every, n_checks, tol, 0
        self.last: float | None = None

    def reached(self, epoch: int, loss: float) -> bool:
        if (epoch + 1) % self.every:
            return False
        self.quiet = (
            self.quiet + 1
            if self.last is not None and abs(self.last - loss) <= self.tol * abs(loss)
            else 0
        )
        self.last = loss
        return self.quiet >= self.n_checks


class ClusteringAgreement:
    """Stop when the clustering has agreed with the one before (ARI of at least `least`), `n_checks` times running."""

    def __init__(self, every: int, n_checks: int, least: float) -> None:
        self.every, self.n_checks, self.least, self.quiet = every, n_checks, least, 0
        self.last: np.ndarray | None = None
        self.centres: np.ndarray | None = None

    def reached(self, epoch: int, cluster: Callable) -> bool:
        """`cluster(centres)` is asked for labels (n,) and centres at every `every`-th epoch, given the centres of the check before (None at
        the first): what has settled is told apart from k-means that starts elsewhere."""
        if (epoch + 1) % self.every:
            return False
        labels, self.centres = cluster(self.centres)
        self.quiet = (
            self.quiet + 1
            if self.last is not None and self.same(self.last, labels, self.least)
            else 0
        )
        self.last = labels
        return self.quiet >= self.n_checks

    @staticmethod
    def same(one: np.ndarray, other: np.ndarray, least: float) -> bool:
        """Whether two labellings (n,) agree: ARI of at least `least`."""
        from sklearn.metrics import adjusted_rand_score

        return adjusted_rand_score(one, other) >= least
