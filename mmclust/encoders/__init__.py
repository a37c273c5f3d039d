"""Encoders: images, words and prompts to vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmclust import plugins

if TYPE_CHECKING:
    from mmclust.encoders.base import Encoder

# The repositories of the papers' other encoders. Where we could look, BLIP's main branch had pickles alone; refs/pr/5 adds the same weights as
# safetensors, by the hub's conversion bot. Of ALIGN we saw pytorch_model.bin and could not look further [?].
REPOSITORIES = {"align": "kakaobrain/align-base", "blip": "Salesforce/blip-itm-base-coco@refs/pr/5"}
OWNERS = ("kakaobrain/", "Salesforce/")


def load_encoder(name: str = "mini", device: str = "cpu", autocast: bool = False) -> Encoder:
    """An encoder by name, frozen.

    Args:
        name: "mini" (embedded); "architecture/pretrained" of open_clip, such as "ViT-B-32-quickgelu/openai"; "align" or "blip"; a repository of such
            models on the Hugging Face hub, "hf-hub:owner/name", or "hf-hub:owner/name@revision" for a branch, tag or commit ("kakaobrain/align-base" and
            Salesforce's need no prefix); a folder with a checkpoint; or "module:function" of your own, which returns an `Encoder` and takes what it likes
            of device and autocast. What a folder must hold: `load_open_clip`, `load_transformers`.
        device: torch device.
        autocast: run its towers in bfloat16: faster on a GPU, results to about two digits less.

    Raises:
        ValueError: for an unknown name, or a checkpoint that does not bring its architecture, preprocessing, tokenizer and safetensors weights.
        RuntimeError: when weights can't be fetched.
        ImportError: where transformers is needed and missing.
    """
    from pathlib import Path

    from mmclust.encoders.checkpoint import fetched
    from mmclust.encoders.mini import CHECKPOINTS
    from mmclust.encoders.open_clip import load_open_clip

    if name == "mini" or name in CHECKPOINTS:
        return load_open_clip(name, device, autocast)
    if plugins.is_plugin_name(name):
        load = plugins.resolve(name)
        return load(**plugins.filter_kwargs(load, device=device, autocast=autocast))
    folder, repository = Path(name), REPOSITORIES.get(name, name)
    if name in REPOSITORIES or (name.startswith(("hf-hub:", *OWNERS)) and not folder.exists()):
        folder = fetched(repository.removeprefix("hf-hub:"), name)
    if folder.is_file():
        raise ValueError(
            f"{folder} is a bare checkpoint: put it into a folder with open_clip_config.json, which says its architecture and preprocessing"
        )
    if not folder.is_dir():
        return load_open_clip(name, device, autocast)
    if (folder / "open_clip_config.json").exists():
        return load_open_clip(name, device, autocast, folder)
    if (folder / "config.json").exists():
        from mmclust.encoders.transformers_models import load_transformers

        return load_transformers(folder, name, device, autocast)
    raise ValueError(
        f"{folder} holds no open_clip_config.json (nor transformers' config.json): a checkpoint must bring its architecture and its preprocessing"
    )


def where_from(name: str) -> str:
    """Where an encoder's weights come from, as a phrase. Nothing is downloaded."""
    from pathlib import Path

    from mmclust.encoders.mini import CHECKPOINTS

    if name == "mini" or name in CHECKPOINTS:
        return "in the package"
    if plugins.is_plugin_name(name):
        return "a plug-in"
    if Path(name).is_dir():
        return "a folder"
    repository = REPOSITORIES.get(name)
    origin = f"{repository} on the Hugging Face hub" if repository else "the hub that open_clip names"
    return f"weights from the local cache, downloaded from {origin} at the first use"
