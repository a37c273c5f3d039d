"""Clusterings that know no keyword: k-means, MCV, MSC; those that ClustPy computes are in `mmclust.methods.clustpy_baselines`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.preprocessing import normalize
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted

from mmclust.data.images import Images
from mmclust.methods.base import ImageClusterer, kmeans, nearest
from mmclust.metrics import score

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self

    from mmclust.encoders.base import Encoder

# The papers also print AugDMC, DDMC and iMClusts. They have no implementation here: where these names appear, the values are the published ones.
PUBLISHED_ONLY = ("AugDMC", "DDMC", "iMClusts")


class KMeans(ImageClusterer):
    """k-means on the encoder's image embeddings: one clustering, whatever the user asks for.

    Args:
        encoder: from `mm.load_encoder`; None takes the input as features (n, d).
        n_clusters: M, or "auto": the largest mean silhouette for M up to 20.
        n_init: initialisations per fit; the best by inertia is kept.
        random_state: seed of k-means.
    """

    takes_features = True
    auto_clusters = True

    def __init__(
        self,
        encoder: Encoder | None = None,
        *,
        n_clusters: int | str = 8,
        n_init: int = 1,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.encoder, self.n_clusters, self.n_init, self.random_state = (
            encoder,
            n_clusters,
            n_init,
            random_state,
        )

    def _fit(self, images: Any, y: ArrayLike | None) -> None:
        self._count_clusters(self.image_embeddings_)
        self._kmeans(self.image_embeddings_)

    def _predict(self, images: Any) -> np.ndarray:
        return nearest(self._embed(images), self.cluster_centers_)


def check_whole(estimator: object, **least: int) -> None:
    """Raise ValueError for a parameter that is not a whole number of at least the given one."""
    for name, low in least.items():
        value = getattr(estimator, name)
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
            raise ValueError(f"{name} is a whole number of at least {low}, not {value!r}")


class MCV(ImageClusterer):
    """Multi-view clustering: each pretrained encoder is a view of the same images; k-means on all views at once.

    Guérin and Boots, "Improving Image Clustering With Multiple Pretrained CNN Feature Extractors", BMVC 2018, in its simplest form: each
    encoder's features are L2-normalised, put side by side and divided by the square root of the number of views, so that the squared distance
    of two images is the mean over the views. The paper goes on to train a deep multi-view network on these features; that network is not built
    here, so this is not the row that the papers print.

    Args:
        encoders: a list of encoders from `mm.load_encoder`. Empty: `fit` and `predict` take a list of matrices, one (n, d_v) per view.
        n_clusters: M.
        n_init: initialisations per fit; the best by inertia is kept.
        random_state: seed of k-means.

    Raises (in `fit`, before any work):
        ValueError: without views, for views of different length, or parameters that are out of range.
    """

    view_widths_: list[int]

    def __init__(
        self,
        encoders: Sequence[Encoder] = (),
        n_clusters: int = 8,
        n_init: int = 1,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.encoders, self.n_clusters, self.n_init, self.random_state = (
            encoders,
            n_clusters,
            n_init,
            random_state,
        )

    def _inputs(self, images: Any, reset: bool) -> Any:
        if not isinstance(self.encoders, (list, tuple)):
            raise ValueError(f"encoders is a list of encoders, not {self.encoders!r}")
        if self.encoders:
            return Images.of(images)
        if not isinstance(images, (list, tuple)) or not images:
            raise ValueError(
                "no views: give encoders, or fit on a list of matrices, one (n, d) per view"
            )
        views = [check_array(v, dtype=[np.float64, np.float32]) for v in images]
        lengths, widths = [len(v) for v in views], [v.shape[1] for v in views]
        if len(set(lengths)) > 1:
            raise ValueError(f"all views must have the same images: they are of length {lengths}")
        if not reset and widths != self.view_widths_:
            raise ValueError(f"views of width {widths}, fitted on {self.view_widths_}")
        self.view_widths_ = widths
        return self._join(views)

    def _check(self, images: Sized) -> None:
        super()._check(images)
        check_whole(self, n_init=1)

    def _join(self, views: Sequence[np.ndarray]) -> np.ndarray:
        return np.hstack([normalize(v) for v in views]) / np.sqrt(len(views)).astype(views[0].dtype)

    def _embed(self, images: Any) -> np.ndarray:
        return (
            self._join([encoder.encode_images(images) for encoder in self.encoders])
            if self.encoders
            else images
        )

    def _fit(self, images: Any, y: ArrayLike | None) -> None:
        self._kmeans(self.image_embeddings_)

    def _predict(self, images: Any) -> np.ndarray:
        return nearest(self._embed(images), self.cluster_centers_)


class SeveralClusterings(ImageClusterer):
    """What finds S clusterings at once, without a keyword. `n_clusters` holds one M per clustering.

    After `fit`: `all_labels_` int64 (n, S), a clustering per column; `labels_` (n,) is the chosen one, the first until `select_clustering` is called, and
    `n_clusters_` the number of its clusters. `predict` gives the chosen clustering.
    """

    takes_features = True
    noise_space = False  # whether the last M may be 1: directions that hold no clusters
    fewest = 1  # clusterings

    all_labels_: np.ndarray
    chosen_: int

    def select_clustering(self, j: int) -> Self:
        """Make clustering j (0..S-1) the `labels_`; returns self.

        Raises:
            IndexError: for a clustering that is not there.
        """
        found = self.all_labels_.shape[1]
        if j not in range(found):
            raise IndexError(f"clustering {j} of {found}: the first is 0")
        self.chosen_, self.labels_ = j, self.all_labels_[:, j].copy()
        self.n_clusters_ = int(self.labels_.max()) + 1
        return self

    def evaluate(self, labels_true: ArrayLike, seeds: Iterable[int] = ()) -> dict[str, float]:
        """NMI, RI, ARI, AMI of the clustering among the S that agrees most (largest NMI) with labels (n,), as evaluations of multiple
        clusterings do. So the choice among the S sees the truth: whoever asks for one criterion has to select_clustering without it. `select_clustering` changes
        nothing here. `NMI_std` is 0.0: the labels are scored as they are, and `seeds` is not used."""
        check_is_fitted(self, "all_labels_")
        return max(
            (score(labels_true, column) for column in self.all_labels_.T), key=lambda s: s["NMI"]
        ) | {"NMI_std": 0.0}

    def _check(self, images: Sized) -> None:
        n, m = len(images), self.n_clusters
        if not n:
            raise ValueError("no images to cluster")
        if not isinstance(m, (list, tuple)) or len(m) < self.fewest:
            raise ValueError(
                f"n_clusters is a list with one number of clusters per clustering, at least {self.fewest} of them, not {m!r}"
            )
        for j, k in enumerate(m):
            low = 1 if self.noise_space and 0 < j == len(m) - 1 else 2
            if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not low <= k <= n:
                raise ValueError(
                    f"n_clusters[{j}] must be a whole number from {low} to the {n} images, not {k!r}"
                )

    def _predict(self, images: Any) -> np.ndarray:
        return self._predict_all(self._embed(images))[:, self.chosen_]


class MSC(SeveralClusterings):
    """Multiple stable clusterings: feature subspaces in which the graph Laplacian's eigengap is largest.

    Hu, Qian, Pei, Jin and Zhu, "Finding Multiple Stable Clusterings", ICDM 2015 (extended in Knowledge and Information Systems 51, 2017): the
    larger the gap between the M-th and the (M+1)-th eigenvalue, the less a small change of the data changes the clustering. For each clustering
    this learns nonnegative feature weights that sum to 1 and maximise

        lambda_{M+1}(L) - lambda_M(L) - penalty * sum over the clusterings s found before of cos(w, w_s)

    where L is the normalised Laplacian of the affinity exp(-|x_i - x_j|_w^2 / (h_i h_j)) on at most `sample` points; then k-means on the features
    times sqrt(w), for all points. Features should be in like units.

    Only the abstract was at hand, so what follows is this project's reading [?]: the Gaussian affinity, h_i as the weighted distance to the
    neighbour of rank `sample` / 4M (a fixed width lets a single far point make the gap), the softmax that keeps the weights on the simplex, the
    penalty, the starts, and k-means in place of spectral clustering. The paper also estimates how many clusterings there are and M; both are
    given here.

    Args:
        encoder: from `mm.load_encoder`; None takes the input as features (n, d).
        n_clusters: one M per clustering.
        sample: points on which the weights are learned; each step costs its cube.
        steps, lr: of Adam, per start. The problem has many local optima: the uniform weights and up to 50 features, each with those that depend
            on it, are tried as they are, the best `n_starts` of them followed.
        penalty: of the overlap with the weights already found.
        n_init: initialisations of k-means.
        random_state: seed of the sample, the starts and k-means.

    After `fit` also: `feature_weights_` (S, d), `eigengaps_` (S,) without the penalty.

    Raises (in `fit`):
        ValueError: for parameters out of range, before any work; if no feature varies over the sample.
    """

    def __init__(
        self, encoder: Encoder | None = None, n_clusters: Sequence[int] = (3, 3), sample: int = 500, steps: int = 40, lr: float = 0.2, penalty: float = 1.0,
        n_starts: int = 3, n_init: int = 1, random_state: int | np.random.RandomState | None = None,
    ) -> None:  # fmt: skip
        self.encoder, self.n_clusters, self.sample, self.steps, self.lr = (
            encoder,
            n_clusters,
            sample,
            steps,
            lr,
        )
        self.penalty, self.n_starts, self.n_init, self.random_state = (
            penalty,
            n_starts,
            n_init,
            random_state,
        )

    def _check(self, images: Sized) -> None:
        super()._check(images)
        check_whole(self, sample=1, steps=1, n_starts=1, n_init=1)
        if not self.lr > 0 or not self.penalty >= 0:
            raise ValueError(
                f"lr must be above 0 and penalty at least 0, not {self.lr!r} and {self.penalty!r}"
            )
        if max(self.n_clusters) >= min(self.sample, len(images)):
            raise ValueError(
                f"the eigengap after M = {max(self.n_clusters)} needs more points than that: {min(self.sample, len(images))} are sampled"
            )

    def _fit(self, images: Any, y: ArrayLike | None) -> None:
        rng, x = check_random_state(self.random_state), self.image_embeddings_
        sample = x[rng.permutation(len(x))[: self.sample]].astype(np.float64)
        varies = np.ptp(sample, axis=0) > 0
        if not varies.any():
            raise ValueError("no feature varies over the images: there is nothing to weigh")
        sample = (
            sample[:, varies] / sample[:, varies].std()
        )  # one number for all: it only keeps the distances near 1
        logits = _starts(sample[:100], rng)
        self.feature_weights_, self.eigengaps_ = (
            np.zeros((len(self.n_clusters), x.shape[1])),
            np.zeros(len(self.n_clusters)),
        )
        fits = []
        for j, m in enumerate(self.n_clusters):
            self.feature_weights_[j, varies], self.eigengaps_[j] = self._learn(
                sample, m, logits, self.feature_weights_[:j, varies]
            )
            fits.append(kmeans(self._weighted(x, j), m, rng, self.n_init))
        self.all_labels_ = np.stack([labels for labels, _ in fits], 1)
        self.all_cluster_centers_ = [centers for _, centers in fits]
        self.select_clustering(0)

    def _learn(
        self, points: np.ndarray, m: int, logits: np.ndarray, before: np.ndarray
    ) -> tuple[np.ndarray, float]:
        import torch

        x, found = (
            torch.from_numpy(points),
            torch.from_numpy(
                before / np.maximum(np.linalg.norm(before, axis=1, keepdims=True), 1e-12)
            ),
        )

        def objective(t: torch.Tensor) -> torch.Tensor:
            w = torch.softmax(t, 0)
            return eigengap(x, w, m) - self.penalty * (found @ (w / w.norm())).sum()

        with torch.no_grad():
            values = np.array([float(objective(torch.from_numpy(t))) for t in logits])
        ends = []
        for i in np.argsort(-values, kind="stable")[: self.n_starts]:
            t = torch.tensor(logits[i], requires_grad=True)
            adam = torch.optim.Adam([t], lr=self.lr, maximize=True)
            for _ in range(self.steps):
                adam.zero_grad()
                objective(t).backward()
                adam.step()
            ends.append(t.detach())
        with torch.no_grad():
            w = torch.softmax(max(ends, key=lambda t: float(objective(t))), 0)
            return w.numpy(), float(eigengap(x, w, m))

    def _weighted(self, x: np.ndarray, j: int) -> np.ndarray:
        return x * np.sqrt(self.feature_weights_[j]).astype(x.dtype)

    def _predict_all(self, x: np.ndarray) -> np.ndarray:
        return np.stack(
            [
                nearest(self._weighted(x, j), centers)
                for j, centers in enumerate(self.all_cluster_centers_)
            ],
            1,
        )


def eigengap(x: torch.Tensor, weights: torch.Tensor, m: int) -> torch.Tensor:
    """lambda_{M+1} - lambda_M of the normalised Laplacian of x (n, d) under feature weights (d,), torch float64, differentiable; M < n."""
    import torch

    squares = (x * x) @ weights
    distance = (squares[:, None] + squares - 2 * (x * weights) @ x.T).clamp_min(0)
    # each point's own width: the distance to a neighbour that is surely of its cluster, were the clusters of like size
    width = (
        distance.kthvalue(min(len(x), max(2, len(x) // (4 * m))), dim=1)
        .values.clamp_min(1e-12)
        .sqrt()
    )
    affinity = torch.exp(-distance / (width[:, None] * width))
    degree = affinity.sum(1).sqrt()
    # of D^-1/2 A D^-1/2 = I - L, in ascending order. eigvalsh and not eigh: its gradient stands where eigenvalues meet
    values = torch.linalg.eigvalsh(affinity / (degree[:, None] * degree))
    return values[-m] - values[-m - 1]


def _starts(x: np.ndarray, rng: np.random.RandomState, most: int = 50) -> np.ndarray:
    """Logits (up to most + 1, d): uniform weights, and features drawn by chance, each with the others by how much they depend on it.

    The dependence is the alignment of centred Gaussian kernels (HSIC; Gretton et al., ALT 2005): features that hold the same clustering have it,
    even where they are uncorrelated. x (n, d) should be few points: n^2 d numbers are kept.
    """
    columns = []
    for column in x.T:
        distance = (column[:, None] - column) ** 2
        kernel = np.exp(-distance / max(distance.mean(), 1e-12))
        kernel = kernel - kernel.mean(0) - kernel.mean(1)[:, None] + kernel.mean()
        columns.append(kernel.ravel() / max(np.linalg.norm(kernel), 1e-12))
    kernels = np.array(columns)
    dependence = kernels[rng.permutation(x.shape[1])[:most]] @ kernels.T
    return np.vstack([np.zeros(x.shape[1]), np.log(np.maximum(dependence, 0) + 1e-3)])
