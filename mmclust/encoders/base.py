"""What all encoders share: image features computed once and kept, texts, words, and prompts with learned words."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from tqdm import tqdm

from mmclust import storage
from mmclust.data.images import Images, Pictures
from mmclust.encoders.feature_stream import (
    STREAM_ABOVE,
    as_tensor,
    batches,
    is_stored,
    store_batches,
    stored,
)
from mmclust.encoders.prompt import (
    PLACEHOLDER,
    PromptEncoder,
    split_template,
    token_table,
    word_ids,
)


class Encoder:
    """A frozen model of images and texts: image features (computed once per set of images and kept), text and prompt embeddings, token-space words.

    A subclass says how its model computes: `image_projection`, `logit_scale`, `_trunk`, `_patches`, and `towers` where the model has no `encode_text`.

    Args:
        model: put into evaluation mode and frozen.
        preprocess: PIL picture to tensor.
        tokenizer: texts to tokens (n, context), called as open_clip's tokenizers are.
        name: shown in tables.
        device: torch device.
        autocast: run trunk and prompts in bfloat16 (torch's autocast); everything that is kept and all losses stay float32.
    """

    if TYPE_CHECKING:

        @property
        def image_projection(self) -> torch.Tensor:
            """P (h, d): image embeddings are normalise(features @ P)."""

        @property
        def logit_scale(self) -> float:
            """The inverse temperature of the model's softmax over cosines."""

        @property
        def _trunk(self) -> Callable[[torch.Tensor], torch.Tensor]: ...

        @property
        def _patches(self) -> Callable[[torch.Tensor], torch.Tensor] | None: ...

    def __init__(
        self, model: torch.nn.Module, preprocess: Callable[[Image.Image], torch.Tensor], tokenizer: Callable, name: str, device: str = "cpu",
        autocast: bool = False,
    ) -> None:  # fmt: skip
        self.model: Any = model.to(device).eval().requires_grad_(False)
        self.preprocess, self.name, self.device, self.autocast = (
            preprocess,
            name,
            torch.device(device),
            autocast,
        )
        self.tokenizer: Any = tokenizer
        self._kept: dict = {}

    def __sklearn_clone__(self) -> Encoder:
        return self  # a model is shared, never copied

    def __repr__(self) -> str:
        return f"load_encoder({self.name!r})"

    def training_vocabulary_note(self, words: Sequence[str]) -> str:
        """A sentence on what the encoder was trained with, as far as it is known here."""
        return f"{self.name}: see its authors' model card for what it was trained with."

    @property
    def towers(self) -> Any:
        """What has `encode_text`, and the text tower as `text` (or is it): open_clip's models do."""
        return self.model

    @property
    def token_table(self) -> torch.nn.Embedding:
        """Token ids to token space."""
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
    def fingerprint(self) -> str:
        """A hash of the weights and of what else makes the features: features of other weights are other features."""
        if "fingerprint" not in self._kept:
            digest = hashlib.blake2b(self._recipe().encode(), digest_size=16)
            for key, value in sorted(self.model.state_dict().items()):
                digest.update(
                    f"{key} {value.dtype}".encode() + value.detach().cpu().float().numpy().tobytes()
                )
            self._kept["fingerprint"] = digest.hexdigest()
        return self._kept["fingerprint"]

    def _recipe(self) -> str:
        """What the weights leave open: preprocessing and layers (an activation has no weights)."""
        return f"{self.preprocess!r} {self.model!r}"

    def features(self, images: Pictures, batch_size: int = 256) -> np.ndarray:
        """What the image trunk gives before its last projection, float32 (n, h); computed once, kept in memory and on disk.

        Of more than 4096 images every batch is stored when it is done, a killed run goes on from there, and the features are memory-mapped:
        read-only, and in memory only as far as they are read.

        Raises:
            ValueError: for no images; an unreadable one is named.
        """
        images = Images.of(images)
        if not len(images):
            raise ValueError("no images to encode")
        key = self._features_key(images)
        if key not in self._kept:
            if len(images) > STREAM_ABOVE:
                self._kept[key] = stored(
                    key,
                    len(images),
                    batch_size,
                    lambda keep: self._batches(self._trunk, images, batch_size, keep),
                )
            else:
                self._kept[key] = storage.load_or_compute(
                    key, lambda: self._run(self._trunk, images, batch_size)
                )
        return self._kept[key]

    def shares(self, images: Pictures, batch_size: int = 256, batches: int = 16) -> list[range]:
        """What is left to do before `features` of these images is a matter of reading, as spans of batches that `store_share` computes, on any
        machine that sees the store: one of everything where the images are few, none where the features are there."""
        images = Images.of(images)
        if is_stored(self._features_key(images)):
            return []
        n = -(-len(images) // batch_size)
        if len(images) <= STREAM_ABOVE:
            return [range(n)]
        return [range(b, min(b + batches, n)) for b in range(0, n, batches)]

    def store_share(self, images: Pictures, share: range, batch_size: int = 256) -> None:
        """Compute and store the features of a span of batches, those that are not stored yet."""
        images = Images.of(images)
        if len(images) <= STREAM_ABOVE:
            self.features(images, batch_size)
            return
        some = images[share.start * batch_size : share.stop * batch_size]
        store_batches(
            self._features_key(images),
            batch_size,
            share.start,
            lambda keep: self._batches(self._trunk, some, batch_size, keep),
        )

    def set_features(self, images: Pictures, features: np.ndarray) -> None:
        """Take features (n, h), computed elsewhere, as those of these images: the trunk does not run for them.

        Raises:
            ValueError: if there is not one row for each image.
        """
        images = Images.of(images)
        if len(images) != len(features):
            raise ValueError(f"{len(features)} rows of features for {len(images)} images")
        self._kept[self._features_key(images)] = features

    def _features_key(self, images: Images) -> str:
        return storage.key_of("features", images.fingerprint, self.fingerprint, self.autocast)

    def encode_images(self, images: Pictures) -> np.ndarray:
        """Image embeddings v, float32 (n, d), L2-normalised."""
        features, projection = (
            as_tensor(self.features(images)),
            at_least_float32(self.image_projection).cpu(),
        )
        out = torch.empty(len(features), projection.shape[1], dtype=features.dtype)
        for part, rows in zip(features.split(STREAM_ABOVE), out.split(STREAM_ABOVE)):
            rows.copy_(F.normalize(part @ projection, dim=-1))
        return out.numpy()

    def patch_tokens(self, images: Pictures, batch_size: int = 256) -> np.ndarray:
        """The vision transformer's tokens, class token first, each through the last projection: float32 (n, 1 + patches, d), L2-normalised.

        They take patches times the memory of the features; not stored on disk.

        Raises:
            ValueError: for an image tower that has none.
        """
        if self._patches is None:
            raise ValueError(
                f"the image tower of {self.name} gives no patch tokens: it is not a vision transformer"
            )
        images = Images.of(images)
        key = storage.key_of("patches", images.fingerprint, self.fingerprint, self.autocast)
        if key not in self._kept:
            self._kept[key] = self._run(self._patches, images, batch_size)
        return self._kept[key]

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str], normalize: bool = True) -> np.ndarray:
        """Text embeddings, float32 (len(texts), d), L2-normalised unless told otherwise."""
        texts = list(texts)
        parts = [
            self.towers.encode_text(
                self.tokenizer(texts[i : i + 256]).to(self.device), normalize=False
            )
            for i in range(0, len(texts), 256)
        ]
        out = at_least_float32(torch.cat(parts))
        return (F.normalize(out, dim=-1) if normalize else out).cpu().numpy()

    def encode_words(self, words: Sequence[str], template: str | None = None) -> np.ndarray:
        """t(z_k), float32 (K, d): each word in the template's placeholder, or bare where there is no template."""
        if template is not None:
            split_template(template)
            words = [template.replace(PLACEHOLDER, word) for word in words]
        return self.encode_texts(words)

    @torch.no_grad()
    def word_embeddings(self, words: Sequence[str]) -> torch.Tensor:
        """phi(z_k), float32 (K, e): the mean of a word's token embeddings, without start and end tokens.

        Raises:
            ValueError: for an empty word.
        """
        ids = [word_ids(self.tokenizer, word) for word in words]
        if empty := [word for word, i in zip(words, ids) if not i]:
            raise ValueError(f"a reference word is empty: {empty[0]!r} among {list(words)}")
        return torch.stack(
            [
                at_least_float32(self.token_table(torch.tensor(i, device=self.device))).mean(0)
                for i in ids
            ]
        )

    def prompt(self, template: str, **options: Any) -> PromptEncoder:
        """The encoder of this template with learned proxies in its placeholder; built once per template. Options as for `PromptEncoder`."""
        key = ("prompt", template, *sorted(options.items()))
        if key not in self._kept:
            self._kept[key] = PromptEncoder(
                self.towers, self.tokenizer, template, autocast=self.autocast, **options
            )
        return self._kept[key]

    def _run(
        self, tower: Callable[[torch.Tensor], torch.Tensor], images: Images, batch_size: int
    ) -> np.ndarray:
        return np.concatenate(list(self._batches(tower, images, batch_size)))

    def _batches(
        self,
        tower: Callable[[torch.Tensor], torch.Tensor],
        images: Images,
        batch_size: int,
        keep: Callable | None = None,
    ) -> Iterator[np.ndarray]:
        """What the tower gives for each batch, in order, with a progress bar; see `stream.batches`."""
        dtype = self.token_table.weight.dtype

        def forward(pixels: torch.Tensor) -> np.ndarray:
            with (
                torch.inference_mode(),
                torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast),
            ):
                return at_least_float32(tower(pixels.to(self.device, dtype))).cpu().numpy()

        found = batches(images, batch_size, self.preprocess, forward, self.device, keep)
        total = -(-len(images) // batch_size)
        quiet = (
            {"disable": True} if total == 1 else {}
        )  # not False: that would overrule TQDM_DISABLE
        return tqdm(found, desc=f"{self.name}: image features", total=total, leave=False, **quiet)


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """At least float32: half precision is for towers, not for what is kept."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
