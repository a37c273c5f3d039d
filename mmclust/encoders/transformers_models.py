"""ALIGN and BLIP of transformers as encoders.

Their text towers are bidirectional, so prompts run without padding but without a cached prefix
(`prompt`). Their image towers end without a plain matrix; `Align` and `Blip` define P for them.
CLIP models of transformers are not read here: use them in open_clip's layout.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

from mmclust.encoders import checkpoint
from mmclust.encoders.base import Encoder, Tower

CONTEXT = 64  # tokens of a text: what ALIGN's processor pads to; BLIP's has no such number
# Required keys; for the others the processor's class has defaults, as in older checkpoints.
PREPROCESSING = ("image_processor_type", "size", "resample", "image_mean", "image_std")


class Align(Encoder):
    """ALIGN (transformers' `AlignModel`); arguments as for `Encoder`.

    A text is read at [CLS]. An image is the pooled output of an EfficientNet with nothing after
    it, so P is the identity.
    """

    @property
    def towers(self) -> Any:
        return self

    @property
    def text(self) -> Any:
        return self.model.text_model

    @property
    def project(self) -> torch.nn.Linear:
        return self.model.text_projection

    def encode_text(self, ids: torch.Tensor, normalize: bool = False) -> torch.Tensor:
        """Text embeddings (n, d) of tokens (n, l); padding is masked."""
        mask = (ids != self.text.config.pad_token_id).long()
        out = self.project(self.text(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0])
        return F.normalize(out, dim=-1) if normalize else out

    def image_trunk(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model.vision_model(pixel_values=pixels).pooler_output

    @property
    def image_projection(self) -> torch.Tensor:
        return torch.eye(self.model.projection_dim, device=self.device)

    @property
    def logit_scale(self) -> float:
        return 1 / float(self.model.temperature)

    def _recipe(self) -> str:
        # without entries on the model's origin, which change no result
        config = self.model.config.to_dict()
        for key in ("_name_or_path", "transformers_version", "dtype", "torch_dtype"):
            config.pop(key, None)
        return super()._recipe() + json.dumps(config, sort_keys=True, default=str)


class Blip(Align):
    """BLIP's towers for its contrastive space (transformers' `BlipForImageTextRetrieval`).

    Image and text are read at the class token and projected with a bias: features end with a 1, and
    the bias is the last row of P. `BlipModel` is not used: Salesforce's checkpoints for retrieval
    were saved from this class; `BlipModel` names its projections differently, and no checkpoint
    that we know has them.
    """

    @property
    def text(self) -> Any:
        return self.model.text_encoder

    @property
    def project(self) -> torch.nn.Linear:
        return self.model.text_proj

    def image_trunk(self, pixels: torch.Tensor) -> torch.Tensor:
        # not `pooler_output`, to which the last LayerNorm is applied twice
        features = self.model.vision_model(pixel_values=pixels).last_hidden_state[:, 0]  # (n, h)
        return torch.cat([features, features.new_ones(len(features), 1)], 1)  # (n, h + 1)

    @property
    def patch_trunk(self) -> Tower:
        return self._patches

    def _patches(self, pixels: torch.Tensor) -> torch.Tensor:
        tokens = self.model.vision_model(pixel_values=pixels).last_hidden_state
        return F.normalize(self.model.vision_proj(tokens), dim=-1)

    @property
    def image_projection(self) -> torch.Tensor:
        layer = self.model.vision_proj
        return torch.cat([layer.weight.T, layer.bias[None]])

    @property
    def logit_scale(self) -> float:
        """The value at the start of training: this class has no learned temperature."""
        return float(torch.tensor(self.model.config.logit_scale_init_value).exp())


# model_type in config.json -> class of transformers, encoder
ENCODERS = {"align": ("AlignModel", Align), "blip": ("BlipForImageTextRetrieval", Blip)}


class Preprocess:
    """A picture (PIL) to pixels (3, height, width) by an image processor of transformers."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        # read by `feature_stream.side_to_decode`
        size = processor.size
        self.scales_to = (size["height"], size["width"]) if processor.do_resize else None

    def __call__(self, image: Image.Image) -> torch.Tensor:
        return self.processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"][0]

    def __repr__(self) -> str:
        settings = json.dumps(self.processor.to_dict(), sort_keys=True, default=str)
        return f"{type(self.processor).__name__} {settings}"


def load_transformers(
    folder: Path, name: str, device: str = "cpu", autocast: bool = False
) -> Align:
    """ALIGN or BLIP from a folder in transformers' layout; errors as for `load_encoder`.

    It needs config.json, preprocessor_config.json (transformers 5: processor_config.json), the
    tokenizer (tokenizer.json or vocab.txt, and tokenizer_config.json), and model.safetensors, as
    one file or several with an index.
    """
    checkpoint.require_transformers(name)
    import transformers
    from open_clip.tokenizer import HFTokenizer

    path = folder / "config.json"
    config = checkpoint.read_json(path)
    if config.get("model_type") not in ENCODERS:
        known = f"{' or '.join(ENCODERS)} (CLIP models: use open_clip's layout)"
        raise ValueError(f"{path}: model_type {config.get('model_type')!r}, expected {known}")
    checkpoint.require(path, config, ("text_config", "vision_config"), "architecture")
    _check_preprocessing(folder)
    checkpoint.check_tokenizer(folder)
    if not (folder / "model.safetensors.index.json").exists():
        checkpoint.find_weights(folder, "model.safetensors")
    model_class = getattr(transformers, ENCODERS[config["model_type"]][0])
    try:
        model, report = model_class.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
        processor = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        tokenizer = HFTokenizer(str(folder), context_length=CONTEXT, local_files_only=True)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{folder} cannot be loaded: {reason}") from error
    if missing := sorted(report["missing_keys"]):
        problem = f"{len(missing)} tensors are missing, such as {missing[0]}"
        raise ValueError(f"the weights in {folder} do not match {model_class.__name__}: {problem}")
    _check_match(folder, model, processor, tokenizer)
    encoder = ENCODERS[config["model_type"]][1]
    return encoder(model.float(), Preprocess(processor), tokenizer, name, device, autocast)


def _check_preprocessing(folder: Path) -> None:
    for path in (folder / "preprocessor_config.json", folder / "processor_config.json"):
        if path.exists():
            config = checkpoint.read_json(path)
            config = config.get("image_processor", config)
            checkpoint.require(path, config, PREPROCESSING, "preprocessing")
            return
    raise ValueError(f"{folder} has no preprocessor_config.json: it needs its preprocessing")


def _check_match(folder: Path, model: Any, processor: Any, tokenizer: Any) -> None:
    """Raise ValueError if tokenizer or preprocessing belong to another model."""
    text = model.config.text_config
    n_tokens = len(tokenizer.tokenizer)
    if n_tokens > text.vocab_size:
        counts = f"has {n_tokens} tokens, the text tower {text.vocab_size}"
        raise ValueError(f"the tokenizer in {folder} {counts}")
    padding = tokenizer.tokenizer.pad_token_id
    if padding != text.pad_token_id:
        tokens = f"pads with {padding}, the text tower with {text.pad_token_id}"
        raise ValueError(f"the tokenizer in {folder} {tokens}")
    size = model.config.vision_config.image_size
    sizes = {processor.size["height"], processor.size["width"]}
    if model.config.model_type == "blip" and sizes != {size}:
        sides = f"makes pictures of {dict(processor.size)}, the image tower needs {size} x {size}"
        raise ValueError(f"the preprocessing in {folder} {sides}")
