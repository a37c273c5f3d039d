"""Any open_clip model as an encoder of images, words and prompts; the embedded ones are such."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open

from mmclust.encoders import checkpoint, embedded, mini
from mmclust.encoders.base import Encoder, Tower

SCALING = {"mean": 0, "std": 0.001}  # required in preprocess_cfg, with the least values; at most 1
RESIZING = {  # required, too, with all values; if one is missing, open_clip takes the first value
    "interpolation": ("bicubic", "bilinear", "random"),
    "resize_mode": ("shortest", "longest", "squash"),
}


class OpenCLIPEncoder(Encoder):
    """A frozen open_clip model; arguments and methods as for `Encoder`."""

    def training_vocabulary_note(self, words: Sequence[str]) -> str:
        if self.name in embedded.PICTURES:
            return embedded.training_vocabulary_note(self.name, words)
        return super().training_vocabulary_note(words)

    @property
    def image_projection(self) -> torch.Tensor:
        """P (h, d), the identity if the image tower does not end with a plain matrix."""
        projection = getattr(self.model.visual, "proj", None)
        if isinstance(projection, torch.Tensor):
            return projection.detach()
        if self._timm_projection is not None:
            return self._timm_projection.weight.detach().T
        return torch.eye(self._trunk_width, device=self.device)

    @property
    def _timm_projection(self) -> torch.nn.Linear | None:
        """The last layer of a timm tower, if it is a plain matrix."""
        layer = getattr(getattr(self.model.visual, "head", None), "proj", None)
        is_matrix = isinstance(layer, torch.nn.Linear) and layer.bias is None
        return layer if is_matrix else None

    @cached_property
    def _trunk_width(self) -> int:
        pixels = self.preprocess(Image.new("RGB", (64, 64)))[None].to(self.device)
        with torch.inference_mode():
            return self.image_trunk(pixels).shape[1]

    @property
    def logit_scale(self) -> float:
        return float(self.model.logit_scale.exp())

    def image_trunk(self, pixels: torch.Tensor) -> torch.Tensor:
        tower = self.model.visual
        projection = getattr(tower, "proj", None)
        if isinstance(projection, torch.Tensor):
            # a copy with the same weights: other threads may be using the tower itself
            tower = copy.copy(tower)
            identity = torch.eye(len(projection), dtype=projection.dtype, device=projection.device)
            parameter = torch.nn.Parameter(identity, requires_grad=False)
            tower._parameters = tower._parameters | {"proj": parameter}
        elif self._timm_projection is not None:
            tower = copy.copy(tower)
            head = copy.copy(tower.head)
            head._modules = head._modules | {"proj": torch.nn.Identity()}
            tower._modules = tower._modules | {"head": head}
        out = tower(pixels)
        return out[0] if isinstance(out, tuple) else out  # CoCa's tower also returns its tokens

    @property
    def patch_trunk(self) -> Tower | None:
        return self._all_tokens if hasattr(self.model.visual, "output_tokens") else None

    def _all_tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        tower = copy.copy(self.model.visual)
        tower.output_tokens = True
        pooled, tokens = tower(pixels)
        return F.normalize(torch.cat([pooled[:, None], tokens @ self.image_projection], 1), dim=-1)


def load_open_clip(
    name: str, device: str = "cpu", autocast: bool = False, folder: Path | None = None
) -> OpenCLIPEncoder:
    """A model of open_clip; arguments and errors as for `load_encoder`.

    A folder is a checkpoint in the layout of open_clip's `local-dir:`. It needs
    `open_clip_config.json` (architecture and preprocessing), the weights as safetensors, and the
    tokenizer's files if the model has its own. On the hub, where older versions of open_clip did
    not write how pictures are resized, its defaults are taken, with a warning.
    """
    pretrained = weights = None
    if name in embedded.FOLDERS:
        folder = embedded.FOLDERS[name]
    if folder is not None:
        source = f"local-dir:{folder}"
        weights = _check_folder(folder, local=Path(name) == folder)
    else:
        source, _, pretrained = name.rpartition("/")
        _check_name(source, pretrained, name)
    _check_text_tower(open_clip.get_model_config(source)["text_cfg"], name, folder)
    try:
        model, _, preprocess = open_clip.create_model_and_transforms(
            source, pretrained, require_pretrained=True
        )
        tokenizer = open_clip.get_tokenizer(source)
    except Exception as error:  # network, hub, disk, weights, configuration: all sorts of classes
        if folder is None:
            raise checkpoint.download_error(name, error) from error
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"{folder} cannot be loaded: {reason}") from error
    if weights is not None:
        _check_shapes(model, weights)
    if name in mini.CHECKPOINTS:
        model.load_state_dict(mini.checkpoint_state(mini.CHECKPOINTS[name]))
    return OpenCLIPEncoder(model, preprocess, tokenizer, name, device, autocast)


def _check_text_tower(config: dict, name: str, folder: Path | None) -> None:
    """Raise early if what the text tower needs of transformers or of the hub is missing."""
    if "hf_model_name" in config or "hf_tokenizer_name" in config:
        checkpoint.require_transformers(name)
    # a folder has the tokenizer's files itself
    for key in ("hf_model_name",) if folder else ("hf_model_name", "hf_tokenizer_name"):
        if key in config and not Path(config[key]).is_dir():
            checkpoint.check_available(config[key], name)


def _check_name(architecture: str, pretrained: str, name: str) -> None:
    """Raise for a wrong name, or activation (open_clip only warns of it), before a download."""
    if architecture not in open_clip.list_models():
        raise ValueError(
            f"unknown encoder {name!r}: expected mini, photo, align, blip, architecture/pretrained "
            "(such as ViT-B-32-quickgelu/openai), hf-hub:owner/name or a folder"
        )
    tag = open_clip.get_pretrained_cfg(architecture, pretrained)
    if not tag:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
        raise ValueError(f"unknown weights {pretrained!r} of {architecture}, expected: {tags}")
    repository = tag["hf_hub"].rpartition("/")[0]
    trained_with_quick_gelu = bool(tag.get("quick_gelu"))
    if trained_with_quick_gelu != bool(open_clip.get_model_config(architecture).get("quick_gelu")):
        marked = "marked" if trained_with_quick_gelu else "not marked"
        base = architecture.removesuffix("-quickgelu")
        other = f"{base}-quickgelu" if trained_with_quick_gelu else base
        remedy = f"use hf-hub:{repository} if it has its own configuration"
        if other != architecture and open_clip.get_pretrained_cfg(other, pretrained):
            remedy = f"use {other}/{pretrained}"
        raise ValueError(
            f"{name} is a QuickGELU mismatch: its weights are {marked} as trained with that "
            f"activation: {remedy}"
        )
    checkpoint.check_available(repository, name)


def _check_folder(folder: Path, local: bool) -> Path:
    """The weights file of a checkpoint folder; ValueError if the folder is incomplete."""
    path = folder / "open_clip_config.json"
    config = checkpoint.read_json(path)
    keys = ("model_cfg", "preprocess_cfg")
    checkpoint.require(path, config, keys, "architecture and preprocessing")
    _check_preprocessing(path, config["preprocess_cfg"], local)
    architecture = config["model_cfg"]
    checkpoint.require(path, architecture, ("embed_dim", "vision_cfg", "text_cfg"), "architecture")
    if "hf_tokenizer_name" in architecture["text_cfg"]:
        checkpoint.check_tokenizer(folder)
    return checkpoint.find_weights(folder, "open_clip_model.safetensors")


def _check_preprocessing(path: Path, config: dict, local: bool) -> None:
    """Raise ValueError for what open_clip would replace by its default, or silently ignore."""
    required = (*SCALING, *RESIZING)
    if unknown := sorted(config.keys() - {*required, "size", "mode", "fill_color"}):
        raise ValueError(f"{path}: unknown {unknown[0]!r}, expected {', '.join(required)}")
    defaults = {key: values[0] for key, values in RESIZING.items() if key not in config}
    if defaults and not local:
        warnings.warn(f"{path} lacks {', '.join(defaults)}: {defaults} is assumed", stacklevel=5)
        config = config | defaults
    checkpoint.require(path, config, required, f"preprocessing ({', '.join(required)})")
    for key, values in RESIZING.items():
        if config[key] not in values:
            raise ValueError(f"{path}: {key} {config[key]!r} is not one of {', '.join(values)}")
    for key, least in SCALING.items():
        numbers = [x for x in config[key] if isinstance(x, (int, float)) and least <= x <= 1]
        if len(numbers) != 3 or numbers != config[key]:
            raise ValueError(f"{path}: {key} {config[key]} is not three numbers from {least} to 1")


def _check_shapes(model: torch.nn.Module, weights: Path) -> None:
    """Refuse positional embeddings of another shape: open_clip would silently resize them."""
    state = model.state_dict()
    with safe_open(weights, "pt") as file:
        for key in file.keys():  # noqa: SIM118
            expected = state.get(key, state.get(f"text.{key}"))
            if "positional_embedding" not in key or expected is None:
                continue
            shape = file.get_slice(key).get_shape()
            if shape != list(expected.shape):
                raise ValueError(
                    f"{weights} has {key} of shape {shape}, but the architecture in "
                    f"open_clip_config.json expects {list(expected.shape)}"
                )
