"""Base classes of the estimators: the scikit-learn interface for images, checks, k-means, names.

Notable: `fit` checks all parameters before it computes anything, and the encoder computes image
embeddings once per set of images. The methods themselves are in the other modules of this folder.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from mmclust.data.images import Images, Pictures
from mmclust.encoders.prompt import split_template
from mmclust.methods.cluster_names import name_clusters
from mmclust.methods.n_clusters import choose_n_clusters
from mmclust.methods.parameters import (
    POSITIVE_INTEGER,
    Constraint,
    Number,
    check_choice,
    check_parameters,
    check_words,
)
from mmclust.metrics import kmeans, score, score_kmeans

if TYPE_CHECKING:
    import pandas as pd
    from typing_extensions import Self

RandomSeed = int | np.random.RandomState | None  # scikit-learn's `random_state`


class ImageClusterer(ClusterMixin, BaseEstimator, ABC):
    """An estimator whose `fit` takes images: `mm.Images`, or a list of PIL pictures or uint8
    arrays (h, w, 3). A subclass implements `_fit`, which sets `labels_`, and `_predict`.

    Parameters: `encoder`, from `mm.load_encoder`; with `takes_features`, it may be None: then `fit`
    takes features (n, d). `words`, K reference words. `template`, a prompt with one `*`; None takes
    that of the words (`ReferenceWords.template`), and the words alone if they have none.
    `n_clusters`, M. `fit` checks those of them that a subclass has; others against `CONSTRAINTS`.

    After `fit`: `labels_` int64 (n,), `image_embeddings_` (n, d), `n_clusters_`, the number of
    clusters: less than M, with a warning, if there are not so many different values.
    """

    CONSTRAINTS: ClassVar[dict[str, Constraint]] = {"n_init": POSITIVE_INTEGER}
    takes_features: ClassVar[bool] = False
    auto_clusters: ClassVar[bool] = False  # whether n_clusters="auto" is allowed

    encoder: Any  # parameters may be of any type until `fit` checks them
    words: Any
    n_init: Any
    random_state: Any
    labels_: np.ndarray
    image_embeddings_: np.ndarray
    representation_: np.ndarray | None
    cluster_centers_: Any  # (M, width), or None if there was no k-means
    n_clusters_: int
    _n_clusters: int  # M; with n_clusters="auto", it is 0 until M is chosen
    n_clusters_curve_: pd.DataFrame | None

    def fit(self, images: Pictures, y: ArrayLike | None = None) -> Self:
        """Cluster the images. `y` is not used; scikit-learn's pipelines pass it."""
        images = self._inputs(images, reset=True)
        self._check(len(images))
        n_clusters = self._parameters().get("n_clusters", "auto")
        self._n_clusters = 0 if n_clusters == "auto" else n_clusters
        self.n_clusters_curve_ = None
        self.cluster_centers_ = None
        self.image_embeddings_ = self._embed(images)
        self._fit(images)
        self._count_clusters()
        return self

    def predict(self, images: Pictures) -> np.ndarray:
        """Clusters, int64 (n,), of new images. What a method learns per image is learned for the
        new images, with everything else frozen; each image then takes the nearest center. Raises
        NotFittedError before `fit`, and ValueError for no images."""
        check_is_fitted(self, "labels_")
        images = self._inputs(images, reset=False)
        if not len(images):
            raise ValueError("no images to predict for")
        return self._predict(images)

    @abstractmethod
    def _fit(self, images: Any) -> None:
        """Cluster the images, whose embeddings are in `image_embeddings_`."""

    def _count_clusters(self) -> None:
        """Set `n_clusters_`; warn if it is less than M, with what could not be distinguished."""
        self.n_clusters_ = int(self.labels_.max()) + 1
        if self.n_clusters_ >= self._n_clusters:
            return
        name = getattr(self, "current_representation_", "image")
        reason = f"the representation {name!r} has no more different values; more words may help"
        n_different = len(kmeans(self.image_embeddings_, self._n_clusters, random_state=0)[1])
        if n_different < self._n_clusters:
            images = f"all {len(self.labels_)} images look"
            looks = "the same" if n_different == 1 else f"like {n_different} different ones"
            reason = f"to {getattr(self.encoder, 'name', 'k-means')}, {images} {looks}"
        message = f"{self.n_clusters_} instead of {self._n_clusters} clusters: {reason}"
        warnings.warn(message, stacklevel=3)

    def _predict(self, images: Any) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__} does not implement _predict(images)")

    def evaluate(
        self, labels_true: ArrayLike, seeds: Iterable[int] = range(10)
    ) -> dict[str, float]:
        """NMI, RI, ARI, AMI of the fitted clustering against labels (n,), and `NMI_std`. As in the
        papers, k-means runs on `representation_` once per seed, and scores are averaged; a
        clustering without k-means is scored as it is."""
        check_is_fitted(self, "labels_")
        representation = getattr(self, "representation_", None)
        if representation is None:
            return score(labels_true, self.labels_) | {"NMI_std": 0.0}
        return score_kmeans(representation, labels_true, self._n_clusters, seeds, self.n_init)

    def name_clusters(self, scores: bool = False) -> list[str] | pd.DataFrame:
        """A reference word for each cluster, see `mm.name_clusters`; all differ if there are at
        least M words. With `scores` a data frame: cluster, size, name, score, next, next_score.
        A score is the mean cosine between the cluster's images and the word, minus the mean
        cosine of all images with that word; `next` is the second best word."""
        check_is_fitted(self, "labels_")
        texts = self._texts(self.words)
        return name_clusters(self.labels_, self.image_embeddings_, texts, self.words, scores)

    def explain(self, i: int | None = None, top: int | None = None) -> pd.Series | pd.DataFrame:
        """The weights of image i over the reference words, which sum to 1: a pandas Series, word ->
        weight, the `top` largest first. Without i: a data frame (n, K), words in their order.

        Multi-Sub and Multi-DProxy return their mixture weights. The others return the softmax of
        `encoder.logit_scale` times the cosines between the words and the image's learned prompt, or
        the image itself if the method learns no prompt. Raises IndexError if there is no image i.
        """
        import pandas as pd

        check_is_fitted(self, "labels_")
        words, weights = self._word_weights()
        if i is None:
            return pd.DataFrame(weights, columns=list(words))
        if not -len(self.labels_) <= i < len(self.labels_):
            raise IndexError(f"image {i} of {len(self.labels_)}: the first is 0")
        series = pd.Series(weights[i], index=list(words), name=f"image {i}")
        return series.sort_values(ascending=False, kind="stable")[:top]

    def _word_weights(self) -> tuple[Sequence[str], np.ndarray]:
        """The words, and the weights (n, K) of each image over them."""
        embeddings = getattr(self, "prompt_embeddings_", self.image_embeddings_)
        similarity = embeddings @ self._texts(self.words).T
        return self.words, softmax(self.encoder.logit_scale * similarity, axis=-1)

    def _texts(self, words: Sequence[str]) -> np.ndarray:
        """Embeddings (K, d) of the template filled with each word."""
        return self.encoder.encode_words(words, self._template())

    def _inputs(self, images: Any, reset: bool) -> Any:
        if self.encoder is not None:
            return Images.of(images)
        if not self.takes_features:
            name = type(self).__name__
            raise ValueError(f"{name} needs an encoder, such as mm.load_encoder('mini')")
        dtypes = [np.float64, np.float32]  # `kmeans` looks for NaN
        return validate_data(self, images, dtype=dtypes, reset=reset, ensure_all_finite=False)

    def _embed(self, images: Any) -> np.ndarray:
        return images if self.encoder is None else self.encoder.encode_images(images)

    def _parameters(self) -> dict[str, Any]:
        """The parameters by name, with the values that `fit` uses."""
        return self.get_params(deep=False)

    def _template(self) -> str | None:
        """The prompt template: the parameter, or else that of the reference words."""
        parameters = self._parameters()
        template = parameters.get("template")
        return getattr(parameters.get("words"), "template", None) if template is None else template

    def _check(self, n_images: int) -> None:
        if not n_images:
            raise ValueError("no images to cluster")
        parameters = self._parameters()
        check_parameters(parameters, self.CONSTRAINTS)
        check_random_state(parameters.get("random_state"))  # ValueError for what is no seed
        if "words" in parameters:
            check_words(parameters["words"])
        if "n_clusters" in parameters:
            self._check_n_clusters(parameters["n_clusters"], n_images)
        template = self._template()
        if template is not None:
            split_template(template)
        if "words" in parameters and self.encoder is not None:
            self.encoder.check_words(parameters["words"], template)

    def _check_n_clusters(self, n_clusters: object, n_images: int) -> None:
        auto = ("auto",) if self.auto_clusters else ()
        limits = Number(low=1, high=n_images, integer=True, alternatives=auto)
        if not limits.allows(n_clusters):
            error = f"n_clusters must be {limits}, not {n_clusters!r}; there are {n_images} images"
            raise ValueError(error)
        words = self._parameters().get("words")
        if n_clusters == "auto" and n_images < 3:
            raise ValueError(f"n_clusters='auto' needs at least 3 images, not {n_images}")
        if n_clusters == "auto" and words is not None and len(words) < 2:
            raise ValueError("n_clusters='auto' needs at least 2 reference words, one per cluster")

    def _choose_n_clusters(self, x: np.ndarray, most: int | None = None) -> None:
        """With n_clusters="auto", choose M on x (n, d), unless this fit has already chosen it."""
        if not self._n_clusters:
            self._n_clusters, self.n_clusters_curve_ = choose_n_clusters(x, most, self.random_state)

    def _kmeans(self, x: np.ndarray) -> None:
        self.representation_ = x
        result = kmeans(x, self._n_clusters, self.random_state, self.n_init)
        self.labels_, self.cluster_centers_ = result


class RepresentationClusterer(ImageClusterer):
    """A method with several representations of the images; k-means clusters one of them.

    A subclass lists them in `REPRESENTATIONS`, computes each in `_represent`, and has the parameter
    `representation`. After `fit`: `representation_`, what is clustered (n, width), with its name
    `current_representation_`; `cluster_centers_` (M, width), None if no k-means was needed.
    """

    REPRESENTATIONS: ClassVar[tuple[str, ...]]
    auto_clusters = True

    current_representation_: str

    def represent(self, name: str) -> np.ndarray:
        """A representation (n, width), float32; raises ValueError for an unknown name."""
        check_choice("representation", name, self.REPRESENTATIONS)
        return self._represent(name)

    @abstractmethod
    def _represent(self, name: str) -> np.ndarray: ...

    def use_representation(self, name: str) -> Self:
        """Cluster another representation, without learning again: sets `labels_`, `n_clusters_`,
        `representation_`, `cluster_centers_` and `current_representation_`. Does nothing if `name`
        is the current one. Raises NotFittedError before `fit`, ValueError for an unknown name."""
        check_is_fitted(self, "labels_")
        if name != self.current_representation_:
            self._cluster(name)
            self._count_clusters()
        return self

    def _cluster(self, name: str) -> None:
        self._kmeans(self.represent(name))
        self.current_representation_ = name


class ProxyClusterer(RepresentationClusterer):
    """A method that learns several representations of the images and clusters one of them.

    `VARIANTS` has the parameters that differ between the paper and its released code. Such a
    parameter, if it is None, takes the value of the chosen variant; each can be set alone.

    Parameters that the methods share:
        encoder: from `mm.load_encoder`. words: K reference words.
        template: as of `ImageClusterer`, but required.
        n_clusters: M, in the papers the number of true classes; or "auto", see `choose_n_clusters`.
        representation: the learned representation that is clustered, see `use_representation`.
        chunk_size: images per forward pass; changes results by rounding only.
        n_init: initializations of k-means. random_state: a seed.
        verbose: show a progress bar from the start (True), never (False), or (None) in a terminal
            or notebook when a fit takes more than two seconds.

    Of Multi-MaP and Multi-Sub:
        variant: "paper", or "released" for the authors' code; sets each parameter that is None.
        positions, final_norm: whether the prompt with the proxy gets its positional embedding and
            its final LayerNorm (released: neither).
        optimizer: "adam" (paper) or "adagrad" (released).

    Attributes after `fit`, besides those of `RepresentationClusterer`:
        prompt_embeddings_: t(w), float32 (n, d). proxies_: w, float32 (n, e).
        history_: one dictionary per epoch. seconds_: the duration of each epoch.
        n_clusters_curve_: with "auto", a data frame: n_clusters, criterion; else None.
    """

    CONSTRAINTS: ClassVar[dict[str, Constraint]] = {
        "n_init": POSITIVE_INTEGER,
        "chunk_size": POSITIVE_INTEGER,
        "check_every": POSITIVE_INTEGER,
        "n_checks": POSITIVE_INTEGER,
        "batch_size": Number(low=1, integer=True, alternatives=("full",)),
    }
    VARIANTS: ClassVar[dict[str, dict]] = {"paper": {}}
    # Parameters whose value "text" uses outputs of the text encoder instead of token embeddings.
    TEXT_AS_TOKENS: ClassVar[tuple[str, ...]] = ()

    proxies_: np.ndarray
    prompt_embeddings_: np.ndarray
    history_: list[dict[str, Any]]
    seconds_: list[float]

    def settings(self) -> SimpleNamespace:
        """The parameters; those that are None have the value of the variant, if it has one. Raises
        ValueError for an unknown variant."""
        parameters = self.get_params(deep=False)
        variant = parameters.get("variant", "paper")
        check_choice("variant", variant, tuple(self.VARIANTS))
        defaults = self.VARIANTS[variant]
        used = {k: defaults.get(k) if v is None else v for k, v in parameters.items()}
        return SimpleNamespace(**used)

    def _parameters(self) -> dict[str, Any]:
        return vars(self.settings())

    def _check(self, n_images: int) -> None:
        super()._check(n_images)
        if self._template() is None:
            raise ValueError(
                "own words need a template, a text with * in the place of the word: "
                "template='a photo of a *'"
            )
        encoder = self.encoder
        parameters = self._parameters()
        for name in self.TEXT_AS_TOKENS:
            if parameters[name] == "text" and encoder.token_dim != encoder.embedding_dim:
                raise ValueError(
                    f'{name}="text" uses outputs of the text encoder ({encoder.embedding_dim} '
                    f"wide) as token embeddings ({encoder.token_dim} wide), whose width must be "
                    f"the same: choose another {name}"
                )

    def _encode_proxies(self, prompt: Callable, proxies: np.ndarray) -> np.ndarray:
        """t(w), float32 (n, d), of proxies (n, e)."""
        with torch.no_grad():
            chunks = torch.from_numpy(proxies).split(self.chunk_size)
            return torch.cat([prompt(w.to(self.encoder.device)).cpu() for w in chunks]).numpy()

    def history_frame(self) -> pd.DataFrame:
        """`history_` as a data frame: epoch (from 1), term, value, event. An event is a text, such
        as the phase that begins at this epoch, or None."""
        import pandas as pd

        check_is_fitted(self, "history_")
        wide = pd.DataFrame(self.history_)
        wide.insert(0, "epoch", range(1, len(wide) + 1))
        wide["event"] = self._events()
        not_terms = ["epoch", "event", "alternation", "phase", "candidates"]
        long = wide.melt(wide.columns.intersection(not_terms), var_name="term", value_name="value")
        if "phase" in long:
            long["term"] = long["term"].mask(long["phase"] == 2, "loss of Phase II")
        return long[["epoch", "term", "value", "event"]]

    def _events(self) -> list[str | None]:
        return [None] * len(self.history_)


def nearest(x: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """The index, int64 (n,), of the center (M, d) that is nearest to each row of x (n, d)."""
    from sklearn.metrics import pairwise_distances_argmin

    return pairwise_distances_argmin(x, centers.astype(x.dtype)).astype(np.int64)


def torch_generator(random_state: RandomSeed) -> torch.Generator:
    """A torch generator on the CPU, seeded from `random_state`; None takes a random seed."""
    if isinstance(random_state, np.random.RandomState):
        seed = int(random_state.randint(2**31))
    else:
        seed = int(np.random.default_rng(random_state).integers(2**31))
    return torch.Generator().manual_seed(seed)
