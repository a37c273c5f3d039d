"""Several non-redundant clusterings at once, computed by ClustPy (`pip install "mmclust[baselines]"`), without a keyword."""

from __future__ import annotations

import io
import random
import warnings
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from mmclust.methods.baselines import SeveralClusterings, check_whole

if TYPE_CHECKING:
    from mmclust.encoders.base import Encoder


class ClustPyClusterer(SeveralClusterings):
    """A wrapped ClustPy estimator: `model_` after `fit`. Memory grows with n d + M d^2, not with n^2.

    `all_labels_` are the clusters whose centres are nearest in the end, what `predict` gives for the same images: ClustPy's own labels wherever
    it converged, and otherwise a few images next to a border taken to the other side.
    """

    where = ("", "")  # module and class in ClustPy

    def _check(self, images: Sized) -> None:
        super()._check(images)
        self._class()

    def _class(self) -> Any:
        try:
            return getattr(import_module(f"clustpy.{self.where[0]}"), self.where[1])
        except ImportError as e:
            raise ImportError(
                f'{type(self).__name__} needs ClustPy: pip install "mmclust[baselines]"'
            ) from e

    def _fit(self, images: Any, y: ArrayLike | None) -> None:
        x = self.image_embeddings_.astype(np.float64)
        if len(self.n_clusters) > x.shape[1]:
            raise ValueError(
                f"{len(self.n_clusters)} clusterings need at least as many features, not {x.shape[1]}"
            )
        self.model_ = self._model(x, check_random_state(self.random_state))
        self.all_labels_ = self._predict_all(x)
        found = [len(centers) for centers in self.model_.cluster_centers_]
        if found != [int(k) for k in self.n_clusters]:
            warnings.warn(
                f"{type(self).__name__} lost clusters: {found} are left of {list(self.n_clusters)}",
                ConvergenceWarning,
                stacklevel=3,
            )
        self.select_clustering(0)

    def _predict_all(self, x: np.ndarray) -> np.ndarray:
        return self.model_.predict(x.astype(np.float64)).astype(np.int64)


class NRKmeans(ClustPyClusterer):
    """Non-redundant k-means: a rotation of the features is split into subspaces, one per clustering, each with the least k-means cost.

    Mautz, Ye, Plant and Böhm, "Discovering Non-Redundant K-means Clusterings in Optimal Subspaces", KDD 2018.

    Args:
        encoder: from `mm.load_encoder`; None takes the input as features (n, d).
        n_clusters: one M per clustering. The last may be 1, the paper's noise space, which takes the directions without clusters.
        n_init: runs; the one with the lowest cost is kept, of those that lost no cluster if there are any.
        random_state: seed.

    Raises (in `fit`, before any work):
        ImportError: without ClustPy. ValueError: for parameters out of range.
    """

    where = ("alternative", "NrKmeans")
    noise_space = True

    def __init__(
        self,
        encoder: Encoder | None = None,
        n_clusters: Sequence[int] = (3, 3),
        n_init: int = 1,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.encoder, self.n_clusters, self.n_init, self.random_state = (
            encoder,
            n_clusters,
            n_init,
            random_state,
        )

    def _check(self, images: Sized) -> None:
        super()._check(images)
        check_whole(self, n_init=1)

    def _model(self, x: np.ndarray, rng: np.random.RandomState) -> Any:
        # not ClustPy's own n_init: there a cluster that one run loses is also missing from all later ones
        runs = [
            self._class()(list(self.n_clusters), random_state=int(seed)).fit(x)
            for seed in rng.randint(2**31 - 1, size=self.n_init)
        ]
        return min(runs, key=lambda r: (r.have_clusters_been_lost(), self._cost(r)))

    def _cost(self, run: Any) -> float:
        return float(
            sum(
                np.trace(run.V_[:, p].T @ scatter @ run.V_[:, p])
                for p, scatter in zip(run.P_, run.scatter_matrices_)
            )
        )


class ENRC(ClustPyClusterer):
    """Embedded non-redundant clustering: an autoencoder whose embedding is rotated and softly split among the clusterings.

    Miklautz, Mautz, Altinigneli, Böhm and Plant, "Deep Embedded Non-Redundant Clustering", AAAI 2020. It runs on the CPU, in float32.

    Args:
        encoder: from `mm.load_encoder`; None takes the input as features (n, d).
        n_clusters: one M per clustering, at least two of them. The last may be 1, a space that all clusterings share.
        pretrain_epochs, clustering_epochs, batch_size, embedding_size: of the autoencoder; ClustPy's defaults.
        random_state: seed.

    Raises (in `fit`, before any work):
        ImportError: without ClustPy. ValueError: for parameters out of range.
    """

    where = ("deep", "ENRC")
    noise_space = True
    fewest = 2

    def __init__(
        self, encoder: Encoder | None = None, n_clusters: Sequence[int] = (3, 3), pretrain_epochs: int = 100, clustering_epochs: int = 150,
        batch_size: int = 128, embedding_size: int = 20, random_state: int | np.random.RandomState | None = None,
    ) -> None:  # fmt: skip
        self.encoder, self.n_clusters, self.pretrain_epochs, self.clustering_epochs = (
            encoder,
            n_clusters,
            pretrain_epochs,
            clustering_epochs,
        )
        self.batch_size, self.embedding_size, self.random_state = (
            batch_size,
            embedding_size,
            random_state,
        )

    def _check(self, images: Sized) -> None:
        super()._check(images)
        check_whole(
            self,
            pretrain_epochs=1,
            clustering_epochs=1,
            batch_size=1,
            embedding_size=len(self.n_clusters),
        )

    def _model(self, x: np.ndarray, rng: np.random.RandomState) -> Any:
        options = {
            name: getattr(self, name)
            for name in ("pretrain_epochs", "clustering_epochs", "batch_size", "embedding_size")
        }
        options |= {
            "n_clusters": [int(k) for k in self.n_clusters],
            "device": "cpu",
            "random_state": int(rng.randint(2**31 - 1)),
        }
        with _alone():
            try:
                return self._class()(**options).fit(x)
            except ValueError as e:
                if "Number of clusterings is 1" not in str(e):
                    raise
        warnings.warn(
            "ENRC's last step, clustering its embedding anew, lost a clustering: fitting again without that step",
            ConvergenceWarning,
            stacklevel=4,
        )
        with _alone():
            return self._class()(final_reclustering=False, **options).fit(x)

    def _predict_all(self, x: np.ndarray) -> np.ndarray:
        with _alone():  # a DataLoader draws from torch's generator, even in order
            return super()._predict_all(x)


class Orth1(ClustPyClusterer):
    """Orthogonal clustering: after each k-means, what an image shares with its cluster's centre is projected away.

    Cui, Fern and Dy, "Non-redundant Multi-view Clustering via Orthogonalization", ICDM 2007, their Method 1.

    Args:
        encoder: from `mm.load_encoder`; None takes the input as features (n, d).
        n_clusters: one M per clustering.
        explained_variance: k-means runs on the principal components that hold this share of the variance; 1 leaves them out.
        random_state: seed of k-means.

    Raises (in `fit`, before any work):
        ImportError: without ClustPy. ValueError: for parameters out of range.
    """

    where = ("alternative", "OrthogonalClustering")

    def __init__(
        self,
        encoder: Encoder | None = None,
        n_clusters: Sequence[int] = (3, 3),
        explained_variance: float = 0.9,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.encoder, self.n_clusters, self.explained_variance, self.random_state = (
            encoder,
            n_clusters,
            explained_variance,
            random_state,
        )

    def _check(self, images: Sized) -> None:
        super()._check(images)
        if not 0 < self.explained_variance <= 1:
            raise ValueError(
                f"explained_variance is a share above 0 and up to 1, not {self.explained_variance!r}"
            )

    def _model(self, x: np.ndarray, rng: np.random.RandomState) -> Any:
        return self._class()(list(self.n_clusters), self.explained_variance, random_state=rng).fit(
            x
        )


class Orth2(Orth1):
    """Clustering in orthogonal subspaces: after each k-means, the whole space that its centres span is projected away.

    The same paper's Method 2, with the same parameters. Each clustering uses up M - 1 directions.
    """

    where = ("alternative", "ClusteringInOrthogonalSpaces")

    def _model(self, x: np.ndarray, rng: np.random.RandomState) -> Any:
        used = sum(self.n_clusters[:-1]) - len(self.n_clusters) + 1
        if used >= x.shape[1]:  # ClustPy would go on and cluster the rounding errors
            raise ValueError(
                f"the first {len(self.n_clusters) - 1} clusterings use up {used} directions: nothing is left of {x.shape[1]} features"
            )
        return super()._model(x, rng)


@contextmanager
def _alone() -> Iterator[None]:
    """ClustPy's deep part seeds the global generators of Python, NumPy and torch and prints its progress: undo the one, swallow the other."""
    import torch

    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with (
            torch.random.fork_rng(devices=[]),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
