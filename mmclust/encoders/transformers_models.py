"""ALIGN and BLIP of transformers as encoders: towers that look both ways, image towers without a bare last projection."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

from mmclust.encoders import checkpoint
from mmclust.encoders.base import Encoder

CONTEXT = 64  # tokens of a text: what ALIGN's processor pads to; BLIP's has no such number
PREPROCESSING = (
    "image_processor_type",
    "size",
    "image_mean",
    "image_std",
)  # the rest is that class's own, as in older checkpoints


class Align:
    """ALIGN's towers (transformers' `AlignModel`): a text is read at [CLS], an image is the pooled output of an EfficientNet, with nothing after it.

    So P starts as the identity.
    """

    patches: Callable[[torch.Tensor], torch.Tensor] | None = None

    def __init__(self, model: Any) -> None:
        self.model, self.text, self.project = model, model.text_model, model.text_projection

    def encode_text(self, ids: torch.Tensor, normalize: bool = False) -> torch.Tensor:
        """Text embeddings (n, d) of tokens (n, l); padding is masked."""
        mask = (ids != self.text.config.pad_token_id).long()
        out = self.project(self.text(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0])
        return F.normalize(out, dim=-1) if normalize else out

    def trunk(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features (n, h) of pixels (n, 3, height, width)."""
        return self.model.vision_model(pixel_values=pixels).pooler_output

    @property
    def image_projection(self) -> torch.Tensor:
        return torch.eye(self.model.projection_dim, device=self.project.weight.device)

    @property
    def logit_scale(self) -> float:
        return 1 / float(self.model.temperature)


class Blip(Align):
    """BLIP's towers for its contrastive space (transformers' `BlipForImageTextRetrieval`): both are read at the class token and projected with a bias.

    The features end with a 1, and the bias is the last row of P. This class, not `BlipModel`: it is the one that Salesforce's checkpoints for
    retrieval were saved from; the projections of `BlipModel` have other names and are in none that we know of.
    """

    def __init__(self, model: Any) -> None:
        self.model, self.text, self.project = model, model.text_encoder, model.text_proj

    def trunk(self, pixels: torch.Tensor) -> torch.Tensor:
        # not `pooler_output`, which has the last LayerNorm twice
        return with_one(self.model.vision_model(pixel_values=pixels).last_hidden_state[:, 0])

    def patches(self, pixels: torch.Tensor) -> torch.Tensor:
        """All tokens (n, 1 + patches, d), class token first, L2-normalised."""
        return F.normalize(
            self.model.vision_proj(self.model.vision_model(pixel_values=pixels).last_hidden_state),
            dim=-1,
        )

    @property
    def image_projection(self) -> torch.Tensor:
        layer = self.model.vision_proj
        return torch.cat([layer.weight.T, layer.bias[None]])

    @property
    def logit_scale(self) -> float:
        """What training started at: this class has no learned temperature."""
        return float(torch.tensor(self.model.config.logit_scale_init_value).exp())


def with_one(x: torch.Tensor) -> torch.Tensor:
    """x (n, h) with a column of ones, (n, h + 1)."""
    return torch.cat([x, x.new_ones(len(x), 1)], 1)


TOWERS = {
    "align": ("AlignModel", Align),
    "blip": ("BlipForImageTextRetrieval", Blip),
}  # config.json's model_type -> transformers' class, and ours


class Preprocess:
    """A picture (PIL) to pixels (3, height, width) by an image processor of transformers."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, image: Image.Image) -> torch.Tensor:
        return self.processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"][0]

    def __repr__(self) -> str:
        return f"{type(self.processor).__name__} {json.dumps(self.processor.to_dict(), sort_keys=True, default=str)}"


class TransformersEncoder(Encoder):
    """ALIGN or BLIP; arguments and methods as for `Encoder`. `model` is transformers' `AlignModel` or `BlipForImageTextRetrieval`."""

    def __init__(
        self,
        model: Any,
        preprocess: Preprocess,
        tokenizer: Callable,
        name: str,
        device: str = "cpu",
        autocast: bool = False,
    ) -> None:
        super().__init__(model, preprocess, tokenizer, name, device, autocast)
        self._towers = TOWERS[model.config.model_type][1](self.model)

    def _recipe(self) -> str:
        about = {
            k: v
            for k, v in self.model.config.to_dict().items()
            if k not in ("_name_or_path", "transformers_version", "dtype", "torch_dtype")
        }
        words = {
            k: v
            for k, v in json.loads(self.tokenizer.tokenizer.backend_tokenizer.to_str()).items()
            if k not in ("padding", "truncation")
        }
        return super()._recipe() + json.dumps([about, words], sort_keys=True, default=str)

    @property
    def towers(self) -> Align:
        return self._towers

    @property
    def image_projection(self) -> torch.Tensor:
        """P (h, d): image embeddings are normalise(features @ P)."""
        return self._towers.image_projection

    @property
    def logit_scale(self) -> float:
        """The inverse temperature of the model's softmax over cosines."""
        return self._towers.logit_scale

    @property
    def _trunk(self) -> Callable[[torch.Tensor], torch.Tensor]:
        return self._towers.trunk

    @property
    def _patches(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        return self._towers.patches


def load_transformers(
    folder: Path, name: str, device: str = "cpu", autocast: bool = False
) -> TransformersEncoder:
    """ALIGN or BLIP from a folder in transformers' layout.

    It must hold config.json (architecture), preprocessor_config.json (or processor_config.json, as transformers 5 writes it), the tokenizer
    (tokenizer.json or vocab.txt, and tokenizer_config.json), and model.safetensors, whole or in parts.

    Raises:
        ValueError: for what is missing or does not fit together. ImportError: without transformers.
    """
    checkpoint.needs_transformers(name)
    import transformers
    from open_clip.tokenizer import HFTokenizer

    config = checkpoint.read_json(folder / "config.json")
    if config.get("model_type") not in TOWERS:
        known = ", ".join(TOWERS)
        raise ValueError(
            f"{folder / 'config.json'} is of model_type {config.get('model_type')!r}, not one of {known} (CLIP models: in open_clip's layout)"
        )
    checkpoint.require(
        folder / "config.json", config, ("text_config", "vision_config"), "architecture"
    )
    _check_preprocessing(folder)
    checkpoint.check_tokenizer(folder)
    if not (folder / "model.safetensors.index.json").exists():
        checkpoint.weights_in(folder, "model.safetensors")
    kind = getattr(transformers, TOWERS[config["model_type"]][0])
    try:
        model, about = kind.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
        processor = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        tokenizer = HFTokenizer(str(folder), context_length=CONTEXT, local_files_only=True)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise ValueError(
            f"{folder} can't be loaded: {' '.join(str(error).split())[:300]}"
        ) from error
    if missing := sorted(about["missing_keys"]):
        raise ValueError(
            f"the weights in {folder} lack {len(missing)} tensors of {kind.__name__}, such as {missing[0]}: they are another model's"
        )
    _check_fit(folder, model, processor, tokenizer)
    return TransformersEncoder(
        model.float(), Preprocess(processor), tokenizer, name, device, autocast
    )


def _check_preprocessing(folder: Path) -> None:
    path = next(
        (
            p
            for p in (folder / "preprocessor_config.json", folder / "processor_config.json")
            if p.exists()
        ),
        None,
    )
    if path is None:
        raise ValueError(
            f"{folder} holds no preprocessor_config.json: a checkpoint must bring its preprocessing"
        )
    found = checkpoint.read_json(path)
    checkpoint.require(path, found.get("image_processor", found), PREPROCESSING, "preprocessing")


def _check_fit(folder: Path, model: Any, processor: Any, tokenizer: Any) -> None:
    rows, words = model.config.text_config.vocab_size, len(tokenizer.tokenizer)
    if words > rows:
        raise ValueError(f"the tokenizer in {folder} has {words} tokens, the text tower {rows}")
    if tokenizer.tokenizer.pad_token_id != model.config.text_config.pad_token_id:
        raise ValueError(
            f"the tokenizer in {folder} pads with {tokenizer.tokenizer.pad_token_id}, the text tower with {model.config.text_config.pad_token_id}"
        )
    size = model.config.vision_config.image_size
    if model.config.model_type == "blip" and {
        processor.size["height"],
        processor.size["width"],
    } != {size}:
        raise ValueError(
            f"the preprocessing in {folder} makes pictures of {dict(processor.size)}, the image tower takes {size} x {size}"
        )
