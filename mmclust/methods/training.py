"""Training, shared by the three proxy methods: parameters per image, batches, early stopping.

Notable: gradients are accumulated over chunks, so the memory of a step does not grow with the
number of images. Not here: losses, which are in the methods' own modules.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

QUIET_SECONDS = 2  # of a fit, before its progress bar appears
NORM_REDUCTIONS = ("sum", "mean", "relative")


class PerImageParameters:
    """n rows of parameters, one per image, stored as one tensor per chunk, so that the cost of a
    step depends on the number of rows in its batch, not on n, if there is no weight decay.

    `start`: initial values (n, e). `batch_size`: rows per step; or "full", all rows. `chunk_size`:
    rows per forward pass; the gradients of the chunks of a batch are summed.
    """

    def __init__(self, start: Tensor, batch_size: int | str, chunk_size: int) -> None:
        self.n = len(start)
        self.batches: list[list[tuple[slice, Tensor]]] = []
        first = 0
        for batch in start.split(self.n if batch_size == "full" else int(batch_size)):
            chunks = []
            for chunk in batch.split(chunk_size):
                rows = slice(first, first + len(chunk))
                chunks.append((rows, chunk.clone().requires_grad_(True)))
                first += len(chunk)
            self.batches.append(chunks)

    @property
    def chunks(self) -> list[tuple[slice, Tensor]]:
        """The rows of every chunk (a slice of 0..n-1), and their parameters."""
        return [chunk for batch in self.batches for chunk in batch]

    @property
    def parameters(self) -> list[Tensor]:
        return [parameters for _, parameters in self.chunks]

    def value(self) -> Tensor:
        """All rows (n, e), detached."""
        return torch.cat([parameters.detach() for parameters in self.parameters])

    def map(self, function: Callable) -> tuple[Tensor, ...]:
        """Call `function(rows, parameters)`, which returns several tensors, for every chunk without
        gradients; returns the tensors, concatenated over the chunks."""
        with torch.no_grad():
            results = [function(*chunk) for chunk in self.chunks]
        return tuple(torch.cat(tensors) for tensors in zip(*results))

    def epoch(
        self, optimizer: torch.optim.Optimizer, loss_of: Callable,
        before_step: Callable | None = None,
    ) -> Tensor:  # fmt: skip
        """One step per batch. Returns the recorded terms (terms,), averaged over all rows.

        `loss_of(rows, parameters, size)` returns a chunk's share of the loss of its batch, and a
        tuple of terms to record: sums over the chunk, divided by `size`, the rows of the batch.
        `before_step` is called when all gradients of a batch are computed. Weight decay acts on all
        rows in the step of every batch, as on the one tensor of the released code.
        """
        total: Any = 0.0
        decays = optimizer.param_groups[0]["weight_decay"] > 0
        for batch in self.batches:
            optimizer.zero_grad(set_to_none=True)
            if decays and len(self.batches) > 1:
                for parameters in self.parameters:
                    parameters.grad = torch.zeros_like(parameters)
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
    name: str, params: list[Any], lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """An optimizer, "adam" (the papers) or "adagrad" (the released code), for `params`: tensors,
    or parameter groups of torch."""
    optimizers = {"adam": torch.optim.Adam, "adagrad": torch.optim.Adagrad}
    return optimizers[name](params, lr=lr, weight_decay=weight_decay)


def squared_norm_scale(words: Tensor, reduction: str) -> Tensor | float:
    """What a squared distance in token space is multiplied by; words (K, e).

    "sum": 1. "mean": 1 / e, as `MSELoss` does. "relative": 1 / mean ||word||^2, so that a loss
    weight has the same meaning in any token space.
    """
    if reduction == "relative":
        return 1 / words.square().sum(1).mean()
    return 1.0 if reduction == "sum" else 1 / words.shape[1]


class History:
    """The recorded terms of each epoch, one dictionary per epoch, and its seconds; with a progress
    bar over `epochs`, which disappears at the end. `verbose`: see `ProxyClusterer`."""

    def __init__(self, title: str = "", epochs: int = 0, verbose: bool | None = False) -> None:
        self.rows: list[dict[str, Any]] = []
        self.seconds: list[float] = []
        # Not `disable=False`, which would override the user's TQDM_DISABLE.
        watched = _somebody_watches() if verbose is None else verbose
        hidden: dict[str, Any] = {} if watched else {"disable": True}
        delay = 0 if verbose else QUIET_SECONDS
        self._bar = tqdm(desc=title, total=epochs, delay=delay, leave=False, **hidden)
        self._last = time.perf_counter()

    def add(self, names: tuple[str, ...], values: Tensor, **more: Any) -> None:
        self.rows.append(more | dict(zip(names, values.double().tolist())))
        now = time.perf_counter()  # after `tolist`, which waits for a GPU
        self.seconds.append(now - self._last)
        self._last = now
        self._bar.update()

    def finish(self) -> tuple[list[dict[str, Any]], list[float]]:
        """Remove the progress bar; returns the rows and the seconds."""
        self._bar.close()
        return self.rows, self.seconds


def _somebody_watches() -> bool:
    """Whether errors are printed to a terminal or to a cell of a notebook, by its main thread."""
    foreground = threading.current_thread() is threading.main_thread()
    return foreground and ("ipykernel" in sys.modules or sys.stderr.isatty())


class EarlyStopping:
    """Early stopping: every `every` epochs a value is checked. Stop when `unchanged(last, value)`
    was true, compared with the check before, at `n_checks` successive checks."""

    def __init__(self, every: int, n_checks: int, unchanged: Callable[[Any, Any], bool]) -> None:
        self.every = every
        self.n_checks = n_checks
        self.unchanged = unchanged
        self.n_unchanged = 0
        self.last: Any = None

    def reached(self, epoch: int, compute: Callable) -> bool:
        """Whether to stop after this epoch (from 0). At a check, `compute(last)` returns the value;
        `last` is the value of the check before, None at the first check."""
        if (epoch + 1) % self.every:
            return False
        value = compute(self.last)
        is_unchanged = self.last is not None and self.unchanged(self.last, value)
        self.n_unchanged = self.n_unchanged + 1 if is_unchanged else 0
        self.last = value
        return self.n_unchanged >= self.n_checks


def clustering_agreement(every: int, n_checks: int, least: float) -> EarlyStopping:
    """Early stopping when clusterings (labels, centers) agree: adjusted Rand index of at least
    `least`. Compute each from the centers of the one before, if it has any: otherwise two
    clusterings may differ only because k-means starts at other centers."""
    from sklearn.metrics import adjusted_rand_score

    def agree(last: tuple, clustering: tuple) -> bool:
        return adjusted_rand_score(last[0], clustering[0]) >= least

    return EarlyStopping(every, n_checks, agree)
