"""Any open_clip model as an encoder of images, words and prompts; the embedded `mini` is one of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open

from mmclust.encoders import checkpoint
from mmclust.encoders.base import Encoder
from mmclust.encoders.mini import CHECKPOINTS, checkpoint_state, training_vocabulary_note

MINI = Path(__file__).parent / "mini"


class OpenCLIPEncoder(Encoder):
    """A frozen open_clip model; arguments and methods as for `Encoder`."""

    def training_vocabulary_note(self, words: Sequence[str]) -> str:
        """A sentence on what the encoder was trained with, as far as it is known here."""
        return (
            training_vocabulary_note(words)
            if self.name == "mini"
            else super().training_vocabulary_note(words)
        )

    @property
    def image_projection(self) -> torch.Tensor:
        """P (h, d): image embeddings are normalise(features @ P). Identity where the tower has no bare last projection."""
        projection = getattr(self.model.visual, "proj", None)
        if isinstance(projection, torch.Tensor):
            return projection.detach()
        if "width" not in self._kept:
            with torch.inference_mode():
                self._kept["width"] = self._trunk(
                    self.preprocess(Image.new("RGB", (64, 64)))[None].to(self.device)
                ).shape[1]
        return torch.eye(self._kept["width"], device=self.device)

    @property
    def logit_scale(self) -> float:
        """The inverse temperature of the model's own softmax over cosines."""
        return float(self.model.logit_scale.exp())

    def _trunk(self, pixels: torch.Tensor) -> torch.Tensor:
        visual, projection = self.model.visual, getattr(self.model.visual, "proj", None)
        if isinstance(projection, torch.Tensor):
            visual = copy.copy(
                visual
            )  # shares the weights; the tower itself is not touched, other threads may be in it
            identity = torch.eye(
                projection.shape[0], dtype=projection.dtype, device=projection.device
            )
            visual._parameters = visual._parameters | {
                "proj": torch.nn.Parameter(identity, requires_grad=False)
            }
        out = visual(pixels)
        return out[0] if isinstance(out, tuple) else out  # CoCa's tower gives its tokens, too

    @property
    def _patches(self) -> Callable | None:
        return self._tokens if hasattr(self.model.visual, "output_tokens") else None

    def _tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        visual = copy.copy(self.model.visual)
        visual.output_tokens = True
        pooled, tokens = visual(pixels)
        return F.normalize(torch.cat([pooled[:, None], tokens @ self.image_projection], 1), dim=-1)


def load_open_clip(
    name: str, device: str = "cpu", autocast: bool = False, folder: Path | None = None
) -> OpenCLIPEncoder:
    """An encoder by name: "mini" (and "mini-quarter", "mini-half"), or "architecture/pretrained" as open_clip spells them; or from a folder.

    A folder must hold `open_clip_config.json` (architecture and preprocessing), its weights as safetensors, and the tokenizer's files where it has
    its own: the layout that open_clip's `local-dir:` reads.

    Raises:
        ValueError: for a name that is none of these, for weights whose activation does not fit the architecture, or for an incomplete folder.
        RuntimeError: when weights can't be fetched.
        ImportError: where the text tower or the tokenizer needs transformers.
    """
    if name == "mini" or name in CHECKPOINTS:
        source, pretrained, folder, weights = f"local-dir:{MINI}", None, MINI, None
    elif folder is not None:
        source, pretrained, weights = f"local-dir:{folder}", None, _check(folder)
    else:
        source, _, pretrained = name.rpartition("/")
        weights = None
        _expect(source, pretrained, name)
    text = open_clip.get_model_config(source)["text_cfg"]
    if "hf_model_name" in text or "hf_tokenizer_name" in text:
        checkpoint.needs_transformers(name)
    for part in ("hf_model_name", "hf_tokenizer_name")[
        : 1 if folder else 2
    ]:  # a folder brings its tokenizer
        if part in text and not Path(text[part]).is_dir():
            checkpoint.expect(text[part], name)
    try:
        model, _, preprocess = open_clip.create_model_and_transforms(
            source, pretrained, require_pretrained=True
        )
        tokenizer = open_clip.get_tokenizer(source)
    except (RuntimeError, OSError, ValueError) as error:
        if folder is None:
            raise checkpoint.unfetchable(name, error) from error
        raise ValueError(
            f"{folder} can't be loaded: {' '.join(str(error).split())[:300]}"
        ) from error
    if weights is not None:
        _check_shapes(model, weights)
    if name in CHECKPOINTS:
        model.load_state_dict(checkpoint_state(CHECKPOINTS[name]))
    return OpenCLIPEncoder(model, preprocess, tokenizer, name, device, autocast)


def _expect(source: str, pretrained: str, name: str) -> None:
    """Raise for what can't be had, or must not be, before anything is fetched; of a wrong activation open_clip would only warn."""
    if source not in open_clip.list_models():
        known = "mini, align, blip, architecture/pretrained (such as ViT-B-32-quickgelu/openai), hf-hub:owner/name or a folder"
        raise ValueError(f"encoder {name!r} is none of: {known}")
    tag = open_clip.get_pretrained_cfg(source, pretrained)
    if not tag:
        known = ", ".join(open_clip.list_pretrained_tags_by_model(source)) or "none"
        raise ValueError(f"open_clip knows no weights {pretrained!r} of {source}: {known}")
    repository = tag["hf_hub"].rpartition("/")[0]
    if bool(tag.get("quick_gelu")) != bool(open_clip.get_model_config(source).get("quick_gelu")):
        marked, other = (
            (" ", f"{source}-quickgelu")
            if tag.get("quick_gelu")
            else (" not ", source.removesuffix("-quickgelu"))
        )
        fits = other in set(open_clip.list_models()) - {source} and open_clip.get_pretrained_cfg(
            other, pretrained
        )
        instead = (
            f"{other}/{pretrained} fits"
            if fits
            else f"hf-hub:{repository} brings its own configuration, if it has one"
        )
        raise ValueError(
            f"{name} is a QuickGELU mismatch, its weights are{marked}marked as trained with that activation: {instead}"
        )
    checkpoint.expect(repository, name)


def _check(folder: Path) -> Path:
    """The weights of a folder that brings everything else, too."""
    path = folder / "open_clip_config.json"
    config = checkpoint.read_json(path)
    checkpoint.require(
        path, config, ("model_cfg", "preprocess_cfg"), "architecture and its preprocessing"
    )
    checkpoint.require(path, config["preprocess_cfg"], ("mean", "std"), "preprocessing")
    checkpoint.require(
        path, config["model_cfg"], ("embed_dim", "vision_cfg", "text_cfg"), "architecture"
    )
    if "hf_tokenizer_name" in config["model_cfg"]["text_cfg"]:
        checkpoint.check_tokenizer(folder)
    return checkpoint.weights_in(folder, "open_clip_model.safetensors")


def _check_shapes(model: torch.nn.Module, weights: Path) -> None:
    """open_clip stretches positional embeddings to the architecture's image size and context: of a checkpoint, that is a wrong configuration."""
    state = model.state_dict()
    with safe_open(weights, "pt") as file:
        for key in file.keys():  # noqa: SIM118
            ours = state.get(key, state.get(f"text.{key}"))
            if (
                "positional_embedding" in key
                and ours is not None
                and (shape := file.get_slice(key).get_shape()) != list(ours.shape)
            ):
                raise ValueError(
                    f"{weights} has {key} of shape {shape}, the architecture in open_clip_config.json {list(ours.shape)}"
                )
