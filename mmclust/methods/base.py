"""What the estimators share: checks, features, variants, k-means, names of clusters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from mmclust.data.images import Images, Pictures
from mmclust.encoders.prompt import split_template
from mmclust.methods.n_clusters import choose_n_clusters
from mmclust.metrics import score, score_kmeans

if TYPE_CHECKING:
    import pandas as pd
    from typing_extensions import Self


class ImageClusterer(ClusterMixin, BaseEstimator):
    """An estimator whose `fit` takes images: `mm.Images`, or a list of PIL pictures or uint8 arrays (h, w, 3).

    Those with `takes_features` also work without an encoder: `fit` then takes a matrix (n, d).

    After `fit`: `labels_` int64 (n,), `image_embeddings_` float32 (n, d), `n_clusters_`.
    """

    takes_features = False
    auto_clusters = False  # whether n_clusters="auto" is offered

    encoder: Any  # parameters are checked in `fit`: until then they may be anything
    words: Any
    template: Any
    n_clusters: Any
    n_init: Any
    random_state: Any
    labels_: np.ndarray
    image_embeddings_: np.ndarray
    representation_: np.ndarray | None
    cluster_centers_: np.ndarray
    n_clusters_: int
    n_clusters_curve_: pd.DataFrame

    def fit(self, images: Pictures, y: ArrayLike | None = None) -> Self:
        """Cluster the images. `y` is not used; it is there because scikit-learn passes it."""
        images = self._inputs(images, reset=True)
        self._check(images)
        for name in ("n_clusters_", "n_clusters_curve_", "cluster_centers_"):  # of an earlier fit
            self.__dict__.pop(name, None)
        if not isinstance(getattr(self, "n_clusters", "none"), str):
            self.n_clusters_ = self.n_clusters
        self.image_embeddings_ = self._embed(images)
        self._fit(images, y)
        return self

    def fit_predict(
        self, images: Pictures, y: ArrayLike | None = None, **kwargs: Any
    ) -> np.ndarray:
        """`fit`, then the labels (n,)."""
        return self.fit(images, y).labels_

    def predict(self, images: Pictures) -> np.ndarray:
        """Clusters, int64 (n,), of images that were not there in training: what is learned per image is learned for them with the rest
        frozen, then the nearest centre is taken.

        Raises:
            NotFittedError: before `fit`. ValueError: for no images.
        """
        check_is_fitted(self, "labels_")
        images = self._inputs(images, reset=False)
        if not len(images):
            raise ValueError("no images to predict for")
        return self._predict(images)

    def _fit(self, images: Any, y: ArrayLike | None) -> None:
        raise NotImplementedError(f"{type(self).__name__} does not say how to cluster")

    def _predict(self, images: Any) -> np.ndarray:
        raise NotImplementedError(
            f"{type(self).__name__} does not say how to cluster images that were not there in training"
        )

    def evaluate(
        self, labels_true: ArrayLike, seeds: Iterable[int] = range(10)
    ) -> dict[str, float]:
        """NMI, RI, ARI, AMI of the fitted clustering against labels (n,): k-means on `representation_` once per seed, averaged (the papers'
        protocol, with `NMI_std`), or the labels as they are where no k-means is involved."""
        check_is_fitted(self, "labels_")
        representation = getattr(self, "representation_", None)
        if representation is None:
            return score(labels_true, self.labels_) | {"NMI_std": 0.0}
        return score_kmeans(representation, labels_true, self.n_clusters_, seeds, self.n_init)

    def name_clusters(self, scores: bool = False) -> list[str] | pd.DataFrame:
        """The reference word that fits each cluster's images best, a different one for each where there are enough words.

        With `scores` a frame: cluster, size, name, its score (mean cosine of the members and the word above that of all images), and the
        word that would come next with its score. See `mm.name_clusters`.
        """
        check_is_fitted(self, "labels_")
        texts = self.encoder.encode_words(self.words, self._template())
        table = cluster_words(self.labels_, self.image_embeddings_, texts, self.words)
        return table if scores else table["name"].tolist()

    def explain(self, i: int | None = None, top: int | None = None) -> pd.Series | pd.DataFrame:
        """Image i's weights over the reference words, largest first: a pandas Series, word -> weight, summing to 1 over all words. Without i those of
        all images: a frame (n, K) in the order of the words.

        The method's own mixture where it has one (Multi-Sub, Multi-DProxy), else the softmax of the cosines of its prompt, or of the image
        itself, with those of the words, at the model's own temperature.

        Raises:
            IndexError: for an image that is not there.
        """
        import pandas as pd

        check_is_fitted(self, "labels_")
        if i is None:
            words, weights = self._word_weights(slice(None))
            return pd.DataFrame(weights, columns=list(words))
        if not -len(self.labels_) <= i < len(self.labels_):
            raise IndexError(f"image {i} of {len(self.labels_)}: the first is 0")
        words, weights = self._word_weights(i)
        return pd.Series(weights, index=list(words), name=f"image {i}").sort_values(
            ascending=False, kind="stable"
        )[:top]

    def _word_weights(self, i: int | slice) -> tuple[Sequence[str], np.ndarray]:
        if hasattr(self, "weights_"):
            return getattr(self, "candidates_", self.words), self.weights_[i]
        embeddings = getattr(self, "prompt_embeddings_", self.image_embeddings_)[i]
        return self.words, softmax(
            self.encoder.logit_scale
            * (embeddings @ self.encoder.encode_words(self.words, self._template()).T),
            axis=-1,
        )

    def _inputs(self, images: Any, reset: bool) -> Any:
        if self.encoder is not None:
            return Images.of(images)
        if not self.takes_features:
            raise ValueError(
                f"{type(self).__name__} needs an encoder, such as mm.load_encoder('mini')"
            )
        return validate_data(self, images, dtype=[np.float64, np.float32], reset=reset)

    def _embed(self, images: Any) -> np.ndarray:
        return self.encoder.encode_images(images) if self.encoder is not None else images

    def _check(self, images: Sized) -> None:
        if not len(images):
            raise ValueError("no images to cluster")
        m, n = getattr(self, "n_clusters", 1), len(images)
        whole = isinstance(m, (int, np.integer)) and not isinstance(m, bool) and 1 <= m <= n
        if not whole and not (self.auto_clusters and isinstance(m, str) and m == "auto"):
            raise ValueError(
                f"n_clusters must be a whole number from 1 to the {n} images{', or auto' * self.auto_clusters}, not {m!r}"
            )
        if hasattr(self, "words"):
            words = self.words
            if words is None or isinstance(words, str) or not len(words):
                raise ValueError(
                    f"words must be a list of at least one reference word, not {words!r}"
                )
            if len(set(words)) < len(words):
                raise ValueError(
                    f"a reference word stands twice: {next(w for w in words if list(words).count(w) > 1)!r}"
                )
        if isinstance(m, str) and len(images) < 3:
            raise ValueError(f"n_clusters='auto' needs at least 3 images, not {len(images)}")
        if isinstance(m, str) and hasattr(self, "words") and len(self.words) < 2:
            raise ValueError(
                "n_clusters='auto' needs at least 2 reference words: it finds at most one cluster for each"
            )
        if (template := self._template()) is not None:
            split_template(template)

    def _template(self) -> str | None:
        """The prompt template: the parameter, or else the one that the reference words bring (`mm.reference_words`)."""
        template = getattr(self, "template", None)
        return (
            getattr(getattr(self, "words", None), "template", None)
            if template is None
            else template
        )

    def _choices(self, values: object, **allowed: Sequence[str]) -> None:
        for name, options in allowed.items():
            if getattr(values, name) not in options:
                raise ValueError(f"{name} {getattr(values, name)!r} is none of {options}")

    def _count_clusters(self, x: np.ndarray, most: int | None = None) -> None:
        """With n_clusters="auto", and not yet done in this fit: choose M on a representation x (n, d); see `choose_n_clusters`."""
        if not hasattr(self, "n_clusters_"):
            self.n_clusters_, self.n_clusters_curve_ = choose_n_clusters(x, most, self.random_state)

    def _kmeans(self, x: np.ndarray) -> None:
        self.representation_ = x
        self.labels_, self.cluster_centers_ = kmeans(
            x, self.n_clusters_, self.random_state, self.n_init
        )


class ProxyClusterer(ImageClusterer):
    """A method that learns several representations of the images and clusters one of them by k-means.

    `VARIANTS` holds what differs between the paper and its released code. A parameter that is None takes the variant's value; any other
    value stands, so that one difference can be flipped at a time.
    """

    auto_clusters = True
    VARIANTS: ClassVar[dict[str, dict]] = {"paper": {}}

    history_: list[dict[str, Any]]
    seconds_: list[float]
    chosen_: str

    def settings(self) -> SimpleNamespace:
        """The parameters with the variant's values filled in.

        Raises:
            ValueError: for an unknown variant.
        """
        own = self.get_params(deep=False)
        variant = own.get("variant", "paper")
        if variant not in self.VARIANTS:
            raise ValueError(f"variant {variant!r} is none of {tuple(self.VARIANTS)}")
        return SimpleNamespace(
            **{k: self.VARIANTS[variant].get(k) if v is None else v for k, v in own.items()}
        )

    def _check(self, images: Sized) -> None:
        super()._check(images)
        if self._template() is None:
            raise ValueError("a template is needed, such as 'fruit with a color of *'")
        s = self.settings()
        for name in (
            "epochs",
            "alternations",
            "phase1_epochs",
            "chunk_size",
            "check_every",
            "n_checks",
            "n_init",
        ):
            if hasattr(s, name) and (
                isinstance(getattr(s, name), bool)
                or not isinstance(getattr(s, name), (int, np.integer))
                or getattr(s, name) < 1
            ):
                raise ValueError(
                    f"{name} is a whole number of at least 1, not {getattr(s, name)!r}"
                )
        size = getattr(s, "batch_size", "full")
        if size != "full" and (not isinstance(size, (int, np.integer)) or size < 1):
            raise ValueError(f'batch_size is "full" or a number of images, not {size!r}')
        if (
            getattr(s, "init", None) == "text"
            and self.encoder.token_dim != self.encoder.embedding_dim
        ):
            raise ValueError(
                f'init="text" starts in token space ({self.encoder.token_dim} wide) at the text encoder\'s output ({self.encoder.embedding_dim} wide): '
                "the widths must be equal"
            )

    def represent(self, name: str) -> np.ndarray:
        """A learned representation (n, width), float32, by name."""
        raise NotImplementedError

    def history_frame(self) -> pd.DataFrame:
        """`history_` in long form, a pandas DataFrame: epoch (from 1), term, value, and event, what began with that epoch, else None."""
        import pandas as pd

        check_is_fitted(self, "history_")
        wide = pd.DataFrame(self.history_)
        wide.insert(0, "epoch", range(1, len(wide) + 1))
        wide["event"] = self._events()
        about = [c for c in ("epoch", "event", "alternation", "phase", "candidates") if c in wide]
        long = wide.melt(about, var_name="term", value_name="value")
        if "phase" in long:
            long["term"] = long["term"].mask(long["phase"] == 2, "loss of Phase II")
        return long[["epoch", "term", "value", "event"]]

    def _events(self) -> list[str | None]:
        """What began with each epoch."""
        return [None] * len(self.history_)

    def use_representation(self, name: str) -> Self:
        """Cluster another learned representation, without learning again; sets `representation_` and `labels_`, returns self."""
        self.chosen_ = name
        self._kmeans(self.represent(name))
        return self


def name_clusters(
    labels: np.ndarray,
    image_embeddings: np.ndarray,
    text_embeddings: np.ndarray,
    words: Sequence[str],
) -> list[str]:
    """Names for clusters: the assignment of words to clusters with the largest summed mean cosine of members and word.

    Args:
        labels: (n,), clusters 0..M-1.
        image_embeddings: (n, d), and `text_embeddings` (K, d), both L2-normalised.
        words: the K words. With fewer words than clusters a word is used again, numbered.

    Returns:
        One name per cluster in the order of the labels.
    """
    return cluster_words(labels, image_embeddings, text_embeddings, words)["name"].tolist()


def cluster_words(
    labels: np.ndarray,
    image_embeddings: np.ndarray,
    text_embeddings: np.ndarray,
    words: Sequence[str],
    chosen: Sequence[int] | np.ndarray | None = None,
) -> pd.DataFrame:
    """`name_clusters` as a frame with scores: cluster, size, name, score, next, next_score.

    A score is the mean cosine of the cluster's members with the word, less that of all images: what sets the cluster apart. `chosen` gives
    each cluster's word by index, where that is settled already.
    """
    import pandas as pd
    from scipy.optimize import linear_sum_assignment

    n_clusters = int(np.max(labels)) + 1
    similarity = image_embeddings @ text_embeddings.T
    similarity = similarity - similarity.mean(0)
    means = np.stack(
        [
            similarity[labels == c].mean(0) if (labels == c).any() else np.zeros(len(words))
            for c in range(n_clusters)
        ]
    )
    rounds = -(-n_clusters // len(words))
    chosen = linear_sum_assignment(-np.tile(means, rounds))[1] if chosen is None else chosen
    rows = []
    for c, k in enumerate(chosen):
        word = k % len(words)
        others = np.where(np.arange(len(words)) == word, -np.inf, means[c])
        following = int(others.argmax()) if len(words) > 1 else None
        rows.append(
            {
                "cluster": c,
                "size": int((labels == c).sum()),
                "name": words[word] + (f" {k // len(words) + 1}" if k >= len(words) else ""),
                "score": float(means[c, word]),
                "next": None if following is None else words[following],
                "next_score": np.nan if following is None else float(others[following]),
            }
        )
    return pd.DataFrame(rows)


def kmeans(
    x: np.ndarray,
    n_clusters: int,
    random_state: int | np.random.RandomState | None,
    n_init: int = 1,
    start: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,) and centres (M, d) of k-means on x (n, d), from given centres if there are some."""
    from sklearn.cluster import KMeans

    options = {"init": start, "n_init": 1} if start is not None else {"n_init": n_init}
    model = KMeans(n_clusters, random_state=random_state, **options).fit(x)
    return model.labels_.astype(np.int64), model.cluster_centers_


def nearest(x: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The nearest centre (M, d) of each row of x (n, d), int64 (n,)."""
    from sklearn.metrics import pairwise_distances_argmin

    return pairwise_distances_argmin(x, centres.astype(x.dtype)).astype(np.int64)


def torch_generator(
    random_state: int | np.random.RandomState | None, device: str | torch.device
) -> torch.Generator:
    """A seeded generator; None draws a fresh seed."""
    seed = (
        np.random.default_rng(random_state).integers(2**31)
        if not isinstance(random_state, np.random.RandomState)
        else random_state.randint(2**31)
    )
    return torch.Generator(device).manual_seed(int(seed))
