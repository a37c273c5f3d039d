"""What all encoders share: image features, text and word embeddings, prompts with learned words.

An `Encoder` is frozen: nothing here trains. The features of a set of images are computed once and
stored (`feature_stream`); prompts are in `prompt`. The subclasses in `open_clip` and
`transformers_models` adapt the models.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any
from uuid import uuid4

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from tqdm import tqdm

from mmclust import storage
from mmclust.code_fingerprint import code_fingerprint
from mmclust.data.images import Images, Pictures
from mmclust.encoders import feature_stream
from mmclust.encoders.prompt import (
    PLACEHOLDER,
    PromptEncoder,
    split_template,
    token_table,
    word_ids,
)
from mmclust.profiles.values import brief

TEXT_BATCH = 256  # texts in the text tower at a time
ROWS_PER_PRODUCT = 4096  # features that are projected at a time
ARRAYS_IN_MEMORY = 16  # most recently used features, patch tokens and embeddings of words

Tower = Callable[[torch.Tensor], torch.Tensor]


class Encoder(ABC):
    """A frozen model of images and texts.

    A subclass must define `image_projection`, `logit_scale` and `image_trunk`. It may define
    `patch_trunk`, and must define `towers` if its model has no `encode_text`.

    Args:
        model: is set to evaluation mode and frozen.
        preprocess: PIL picture to tensor (3, height, width).
        tokenizer: texts to token ids (n, context), called like open_clip's tokenizers.
        name: shown in tables.
        autocast: run image tower and prompts in bfloat16; results and losses stay float32.
    """

    def __init__(
        self, model: torch.nn.Module, preprocess: Callable[[Image.Image], torch.Tensor],
        tokenizer: Callable, name: str, device: str = "cpu", autocast: bool = False,
    ) -> None:  # fmt: skip
        if damaged := [key for key, value in model.state_dict().items() if value.isnan().any()]:
            remedy = "download them again, or use another checkpoint"
            raise ValueError(f"encoder {name}: its weights have NaN ({damaged[0]}): {remedy}")
        self.model: Any = model.to(device).eval().requires_grad_(False)
        self.preprocess = preprocess
        self.tokenizer: Any = tokenizer
        self.name = name
        self.device = torch.device(device)
        self.autocast = autocast
        self._supplied_features: dict[str, np.ndarray] = {}
        self._array_cache: dict[str, np.ndarray] = {}  # the most recently used one is last
        self._prompt_cache: dict[tuple, PromptEncoder] = {}

    @property
    @abstractmethod
    def image_projection(self) -> torch.Tensor:
        """P (h, d): image embeddings are normalize(features @ P)."""

    @property
    @abstractmethod
    def logit_scale(self) -> float:
        """The inverse temperature of the model's softmax over cosines."""

    @abstractmethod
    def image_trunk(self, pixels: torch.Tensor) -> torch.Tensor:
        """The image tower without its last projection: pixels (n, 3, height, width) -> (n, h)."""

    @property
    def patch_trunk(self) -> Tower | None:
        """Pixels -> tokens (n, 1 + patches, d) as in `patch_tokens`; None if the tower has none."""
        return None

    @property
    def towers(self) -> Any:
        """An object with `encode_text`; its `text`, if it has one, is the text tower."""
        return self.model

    def __sklearn_clone__(self) -> Encoder:
        return self  # a model is shared, never copied

    def __repr__(self) -> str:
        return f"load_encoder({self.name!r})"

    def training_vocabulary_note(self, words: Sequence[str]) -> str:
        """A sentence on which of these words the encoder was trained with, if this is known."""
        return f"{self.name}: see its authors' model card for its training data."

    @property
    def token_table(self) -> torch.nn.Embedding:
        """The token embeddings: token ids to token space."""
        return token_table(self.towers)

    @property
    def token_dim(self) -> int:
        """e, the width of token space."""
        return self.token_table.weight.shape[1]

    @property
    def embedding_dim(self) -> int:
        """d, the width of the shared image-text space."""
        return self.image_projection.shape[1]

    @property
    def preprocess(self) -> Callable[[Image.Image], torch.Tensor]:
        """PIL picture to tensor (3, height, width)."""
        return self._preprocess

    @preprocess.setter
    def preprocess(self, function: Callable[[Image.Image], torch.Tensor]) -> None:
        self._preprocess = function
        vars(self).pop("fingerprint", None)  # features are stored under it

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything that determines the vectors: weights, layers, code, preprocessing.

        Versions of libraries are not part of it: other rounding would compute everything again.
        """
        digest = hashlib.blake2b(self._recipe().encode(), digest_size=16)
        for key, value in sorted(self.model.state_dict().items()):
            digest.update(f"{key} {value.dtype}".encode())
            digest.update(value.detach().cpu().float().numpy().tobytes())
        return digest.hexdigest()

    def _recipe(self) -> str:
        """What is not in the weights; layers are named since an activation has no weights."""
        code = code_fingerprint([type(self)])
        if getattr(sys.modules.get(type(self).__module__), "__file__", None) is None:
            code = uuid4().hex  # of a notebook, where it may change at any time
        # not all that a step does is in its repr, such as the color that it pads with
        settings = [getattr(s, "__dict__", {}) for s in getattr(self.preprocess, "transforms", [])]
        recipe = [self.preprocess, settings, self.model, code, tokenizer_rules(self.tokenizer)]
        # an address does not identify a function: the next one may get the same
        return re.sub(r" at 0x\w+", lambda _: uuid4().hex, repr(recipe))

    def features(self, images: Pictures, batch_size: int = 256) -> np.ndarray:
        """Output of the image tower before its last projection, float32 (n, h).

        Computed once and stored; read-only, as later calls return the same array. For more than
        4,096 images, each finished batch is stored, a killed run continues from there, and the
        result is memory-mapped. ValueError if there are no images, or one cannot be read (the
        error names it).
        """
        images = Images.of(images)
        if not len(images):
            raise ValueError("there are no images to encode")
        key = self._features_key(images)
        if key in self._supplied_features:
            return self._supplied_features[key]
        run = partial(self._batches, self.image_trunk, images, batch_size)
        load = partial(feature_stream.load_or_encode, key, len(images), batch_size, run)
        return self._cached_array(key, load)

    def batch_ranges(
        self, images: Pictures, batch_size: int = 256, batches: int = 16
    ) -> list[range]:
        """The numbers of all batches, as ranges of up to `batches` (one for at most 4,096 images),
        which any machine can compute that shares the cache; [] if the features are stored."""
        images = Images.of(images)
        if feature_stream.is_stored(self._features_key(images)):
            return []
        numbers = range(-(-len(images) // batch_size))
        if not feature_stream.is_large(len(images)):
            return [numbers]
        return [numbers[start : start + batches] for start in numbers[::batches]]

    def store_batch_range(
        self, images: Pictures, batch_range: range, batch_size: int = 256
    ) -> None:
        """Compute and store the features of a range of `batch_ranges`, unless they are stored."""
        images = Images.of(images)
        if not feature_stream.is_large(len(images)):
            self.features(images, batch_size)
            return
        subset = images[batch_range.start * batch_size : batch_range.stop * batch_size]
        run = partial(self._batches, self.image_trunk, subset, batch_size)
        feature_stream.store_batches(self._features_key(images), batch_size, batch_range.start, run)

    def set_features(self, images: Pictures, features: np.ndarray) -> None:
        """Use these features (n, h), computed elsewhere, for these images; not stored on disk."""
        images = Images.of(images)
        if len(images) != len(features):
            raise ValueError(f"{len(features)} rows of features for {len(images)} images")
        self._supplied_features[self._features_key(images)] = _read_only(
            np.asarray(features).view()
        )

    def _features_key(self, images: Images) -> str:
        return storage.key_of("features", images.fingerprint, self.fingerprint, self.autocast)

    def encode_images(self, images: Pictures) -> np.ndarray:
        """Image embeddings v, float32 (n, d), L2-normalized."""
        features = feature_stream.as_tensor(self.features(images))  # (n, h)
        projection = at_least_float32(self.image_projection).cpu()  # (h, d)
        embeddings = torch.empty(len(features), projection.shape[1], dtype=features.dtype)
        for start in range(0, len(features), ROWS_PER_PRODUCT):
            rows = slice(start, start + ROWS_PER_PRODUCT)
            embeddings[rows] = F.normalize(features[rows] @ projection, dim=-1)
        return self._without_nan(embeddings.numpy(), Images.of(images).describe)

    def patch_tokens(self, images: Pictures, batch_size: int = 256) -> np.ndarray:
        """All tokens of a vision transformer, class token first: float32 (n, 1 + patches, d).

        Each goes through the last projection and is L2-normalized. They take many times the memory
        of the features and are not stored on disk. ValueError if the image tower has none.
        """
        trunk = self.patch_trunk
        if trunk is None:
            raise ValueError(f"{self.name} gives no patch tokens: it is no vision transformer")
        images = Images.of(images)
        key = storage.key_of("patches", images.fingerprint, self.fingerprint, self.autocast)
        run = partial(self._batches, trunk, images, batch_size)
        return self._cached_array(key, lambda: np.concatenate(list(run())))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str], normalize: bool = True) -> np.ndarray:
        """Text embeddings, float32 (len(texts), d), L2-normalized unless `normalize=False`."""
        texts = list(texts)
        embeddings = []
        for start in range(0, len(texts), TEXT_BATCH):
            tokens = self.tokenizer(texts[start : start + TEXT_BATCH]).to(self.device)
            embeddings.append(self.towers.encode_text(tokens, normalize=False))
        out = at_least_float32(torch.cat(embeddings))
        out = F.normalize(out, dim=-1) if normalize else out
        return self._without_nan(out.cpu().numpy(), lambda i: repr(texts[i]))

    def _without_nan(self, embeddings: np.ndarray, describe: Callable[[int], str]) -> np.ndarray:
        """The embeddings (n, d); ValueError if one has NaN: a method would not notice it."""
        nan = np.flatnonzero(np.isnan(embeddings.sum(1)))
        if len(nan):
            first = describe(int(nan[0]))
            raise ValueError(f"encoder {self.name} gives NaN for {first}, {len(nan)} in all")
        return embeddings

    def encode_words(self, words: Sequence[str], template: str | None = None) -> np.ndarray:
        """t(z_k), float32 (K, d): each word in the template's placeholder, or alone if None.

        Kept in memory, because several methods and cluster names take the same words.
        """
        if template is not None:
            split_template(template)
            words = [template.replace(PLACEHOLDER, word) for word in words]
        key = storage.key_of("texts", list(words))
        return self._cached_array(key, lambda: self.encode_texts(words)).copy()

    def check_words(self, words: Sequence[str], template: str | None = None) -> None:
        """Warn of words that the text tower can't tell apart, or does not read to their end."""
        context = self.tokenizer([PLACEHOLDER]).shape[1]
        others = 1 + len(word_ids(self.tokenizer, template or PLACEHOLDER))  # with start and end
        first: dict[tuple, str] = {}
        for word in words:
            ids = tuple(word_ids(self.tokenizer, word))
            if len(ids) + others > context:
                warnings.warn(f"{self.name} does not read all of {brief(word)}", stacklevel=4)
            elif (other := first.setdefault(ids, word)) != word:
                warnings.warn(f"{self.name} reads {word!r} as {other!r}: keep one", stacklevel=4)

    @torch.no_grad()
    def word_embeddings(self, words: Sequence[str]) -> torch.Tensor:
        """phi(z_k), float32 (K, e): the mean of a word's token embeddings, without start and end.

        ValueError if a word is empty.
        """
        means = []
        for word in words:
            ids = word_ids(self.tokenizer, word)
            if not ids:
                raise ValueError(f"a reference word is empty: {word!r} among {list(words)}")
            tokens = self.token_table(torch.tensor(ids, device=self.device))
            means.append(at_least_float32(tokens).mean(0))
        return torch.stack(means)

    def prompt(self, template: str, **options: Any) -> PromptEncoder:
        """The `PromptEncoder` of this template and its options, built once."""
        key = (template, *sorted(options.items()))
        if key not in self._prompt_cache:
            self._prompt_cache[key] = PromptEncoder(
                self.towers, self.tokenizer, template, autocast=self.autocast, **options
            )
        return self._prompt_cache[key]

    def _cached_array(self, key: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """The array of this key; the least recently used arrays are dropped from memory."""
        array = self._array_cache.pop(key, None)
        if array is None:
            array = _read_only(compute())
        self._array_cache[key] = array
        while len(self._array_cache) > ARRAYS_IN_MEMORY:
            self._array_cache.pop(next(iter(self._array_cache)), None)
        return array

    def _batches(
        self, tower: Tower, images: Images, batch_size: int,
        store_batch: feature_stream.StoreBatch = feature_stream.compute_batch,
    ) -> Iterator[np.ndarray]:  # fmt: skip
        """`tower` of each batch, with a progress bar; see `feature_stream.batches`."""
        dtype = self.token_table.weight.dtype

        def forward(pixels: torch.Tensor) -> np.ndarray:
            half = torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast)
            with torch.inference_mode(), half, exact_convolutions():
                return at_least_float32(tower(pixels.to(self.device, dtype))).cpu().numpy()

        rows = feature_stream.batches(
            images, batch_size, self.preprocess, forward, self.device, store_batch
        )
        title = f"{self.name}: image features"
        return tqdm(rows, title, -(-len(images) // batch_size), leave=False, delay=1)


def _read_only(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


def tokenizer_rules(tokenizer: Any) -> str:
    """Vocabulary and settings of an open_clip tokenizer that change its results, as JSON."""
    settings = {}
    for name, value in getattr(tokenizer, "__dict__", {}).items():
        if value is None or isinstance(value, (str, int)):
            settings[name] = value
        elif inspect.isfunction(value):
            settings[name] = value.__name__
    inner: Any = getattr(tokenizer, "tokenizer", None)  # of Hugging Face
    if hasattr(inner, "backend_tokenizer"):
        rules = json.loads(inner.backend_tokenizer.to_str())
        # `truncation` and `padding` are those of the last call
        settings |= {k: v for k, v in rules.items() if k not in ("padding", "truncation")}
    elif hasattr(inner, "get_vocab"):
        settings["vocabulary"] = inner.get_vocab()
    else:  # CLIP's own
        settings["vocabulary"] = getattr(tokenizer, "encoder", None)
    return json.dumps(settings, sort_keys=True)


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """float32 in cuDNN's convolutions, whose default is TF32, with about three digits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """x, in float32 if it is in half precision: towers may use that, results do not."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
