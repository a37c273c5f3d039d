"""Encoders turn images, words and prompts into vectors; `load_encoder` finds them by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mmclust import plugins
from mmclust.encoders import checkpoint
from mmclust.encoders.embedded import FOLDERS
from mmclust.threads import check_device

if TYPE_CHECKING:
    from mmclust.encoders.base import Encoder

# Hub repositories of the papers' other encoders. Where we could look, BLIP's main branch had only
# pickles; refs/pr/5 adds the same weights as safetensors, made by the hub's conversion bot. For
# ALIGN we saw pytorch_model.bin and could not look further [?].
REPOSITORIES = {"align": "kakaobrain/align-base", "blip": "Salesforce/blip-itm-base-coco@refs/pr/5"}
OWNERS = ("kakaobrain/", "Salesforce/")


def load_encoder(name: str = "mini", device: str = "cpu", autocast: bool = False) -> Encoder:
    """An encoder by name, with frozen weights.

    Args:
        name: "mini" or "photo", which are part of this package; "architecture/pretrained" as in
            open_clip, for example "ViT-B-32-quickgelu/openai"; "align" or "blip";
            "hf-hub:owner/name" or "hf-hub:owner/name@revision" (branch, tag, commit), a repository
            with such a model on the Hugging Face hub (those of kakaobrain and Salesforce need no
            prefix); a folder with a checkpoint (required files: `load_open_clip`,
            `load_transformers`); or "module:function", your own function, which returns an
            `Encoder` and is called with those of the arguments device and autocast that it accepts.
        autocast: run the image tower and prompts with learned words in bfloat16: faster on a GPU,
            but results agree to about two digits only.

    Raises:
        ValueError: unknown name or device, or a checkpoint without its architecture, preprocessing,
            tokenizer or safetensors weights, or with damaged ones.
        RuntimeError: the weights cannot be downloaded.
        ImportError: the package transformers is required but not installed.
    """
    from mmclust.encoders.open_clip import load_open_clip

    check_device(device)
    if name in FOLDERS:
        return load_open_clip(name, device, autocast)
    if plugins.is_plugin_name(name):
        load = plugins.resolve(name)
        return load(**plugins.filter_kwargs(load, device=device, autocast=autocast))
    folder = Path(name)
    on_hub = name.startswith(("hf-hub:", *OWNERS)) and not folder.exists()
    if name in REPOSITORIES or on_hub:
        repository = REPOSITORIES.get(name, name)
        folder = checkpoint.download(repository.removeprefix("hf-hub:"), name)
    if folder.is_file():
        remedy = "put it into a folder, with the open_clip_config.json that describes it"
        raise ValueError(f"{folder} is a single checkpoint file: {remedy}")
    if not folder.is_dir():
        return load_open_clip(name, device, autocast)
    checkpoint.check_files(folder)
    if (folder / "open_clip_config.json").exists():
        return load_open_clip(name, device, autocast, folder)
    if (folder / "config.json").exists():
        from mmclust.encoders.transformers_models import load_transformers

        return load_transformers(folder, name, device, autocast)
    files = "open_clip_config.json (and no config.json of transformers)"
    raise ValueError(f"{folder} has no {files}: it needs its architecture and preprocessing")


def where_from(name: str) -> str:
    """Where an encoder's weights come from, as a phrase. Nothing is downloaded."""
    if name in FOLDERS:
        return "in the package"
    if plugins.is_plugin_name(name):
        return "a plug-in"
    if Path(name).is_dir():
        return "a folder"
    origin = "the hub that open_clip names"
    if name in REPOSITORIES:
        origin = f"{REPOSITORIES[name]} on the Hugging Face hub"
    return f"weights from the local cache, downloaded from {origin} at the first use"
