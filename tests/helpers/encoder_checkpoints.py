"""Small checkpoints with random weights in transformers' layout, and a hub that is offline."""

import json
import socket
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import mmclust as mm

transformers = pytest.importorskip("transformers")

VOCABULARY = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "green", "eye", "##patch", "fruit",
    "with", "a", "color", "of", "*", ",", "is", "the", "this", "one", "two", "cat", "dog", "photo",
]  # fmt: skip
TEMPLATES = [
    "fruit with a color of *",
    "* is the color of this fruit",
    "a fruit of * color, with a cat",
    "*",
]
SIZE = {"height": 32, "width": 32}
TEXT_CONFIG = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 2, "max_position_embeddings": 64, "bos_token_id": None,
    "eos_token_id": None, "pad_token_id": 0,
}  # fmt: skip
ALIGN_VISION = {
    "width_coefficient": 1.0, "depth_coefficient": 1.0, "image_size": 48, "hidden_dim": 64,
    "kernel_sizes": [3, 3], "in_channels": [32, 16], "strides": [1, 2],
    "num_block_repeats": [1, 1], "expand_ratios": [1, 6],
}  # fmt: skip
BLIP_VISION = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 32, "patch_size": 16,
}  # fmt: skip


def edit_json(path: Path, **changes) -> None:
    """Change entries of a JSON object in a file; `...` removes one."""
    edited = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in edited.items() if v is not ...}))


def tokenizer_files(folder: Path) -> Path:
    (folder / "words").write_text("\n".join(VOCABULARY))
    transformers.BertTokenizer(str(folder / "words")).save_pretrained(folder)
    (folder / "words").unlink()
    return folder


def random_model(kind: str, act: str = "gelu", projection: int = 24):
    """A small "align" or "blip" of the real class; weights large enough for each to matter."""
    import torch

    text = TEXT_CONFIG | {"hidden_act": act}
    torch.manual_seed(0)
    if kind == "align":
        config = transformers.AlignConfig(
            text_config=text,
            vision_config=ALIGN_VISION | {"out_channels": [16, projection]},
            projection_dim=projection,
        )
        model = transformers.AlignModel(config)
        model.temperature.data.fill_(0.05)
    else:
        config = transformers.BlipConfig(
            text_config=text | {"sep_token_id": 3},
            vision_config=BLIP_VISION,
            image_text_hidden_size=projection,
        )
        model = transformers.BlipForImageTextRetrieval(config)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "norm" not in name.lower():
            parameter.data.normal_(std=parameter[0].numel() ** -0.5)
        elif name.endswith("bias"):
            parameter.data.normal_(std=0.1)
        elif name.endswith("weight"):  # of a norm: applying it twice must change the result
            parameter.data.uniform_(0.5, 1.5)
    return model.eval()


def image_processor(kind: str, **options):
    if kind == "align":
        efficient_net = {"include_top": False, "rescale_offset": True, "rescale_factor": 2 / 255}
        options = {"size": SIZE} | efficient_net | options
        return transformers.EfficientNetImageProcessor(**options)
    return transformers.BlipImageProcessor(**{"size": SIZE} | options)


def random_pictures(n: int = 12):
    rng = np.random.default_rng(0)
    return mm.Images.of(
        [
            Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize(
                (60 + i, 50), Image.Resampling.BICUBIC
            )
            for i in range(n)
        ]
    )


def hub_without_answer(tmp_path, monkeypatch):
    """An empty cache of the hub, and a hub at an address where nobody listens.

    `use(url)` of the result changes the address.
    """
    from huggingface_hub import constants

    def use(url):
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    use(f"http://127.0.0.1:{port}")
    return SimpleNamespace(use=use, path=tmp_path / "hub")
