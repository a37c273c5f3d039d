"""Small checkpoints with random weights in the layouts of transformers and open_clip, and a hub
that does not answer. Needs transformers."""

import json
import socket
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import mmclust as mm

transformers = pytest.importorskip("transformers")

KINDS = ["align", "blip"]
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


def tokenizer_files(folder: Path) -> Path:
    (folder / "words").write_text("\n".join(VOCABULARY))
    transformers.BertTokenizer(str(folder / "words")).save_pretrained(folder)
    (folder / "words").unlink()
    return folder


def random_model(kind: str, act: str = "gelu", projection: int = 24):
    """A small model of the real class; weights large enough for every part to matter."""
    text = {
        "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 64, "hidden_act": act,
        "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0,
    }  # fmt: skip
    torch.manual_seed(0)
    if kind == "align":
        vision = {
            "width_coefficient": 1.0, "depth_coefficient": 1.0, "image_size": 48, "hidden_dim": 64,
            "kernel_sizes": [3, 3], "in_channels": [32, 16], "out_channels": [16, projection],
            "strides": [1, 2], "num_block_repeats": [1, 1], "expand_ratios": [1, 6],
        }  # fmt: skip
        config = transformers.AlignConfig(
            text_config=text, vision_config=vision, projection_dim=projection
        )
        model = transformers.AlignModel(config)
        model.temperature.data.fill_(0.05)
    else:
        text["sep_token_id"] = 3
        vision = {
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 32, "patch_size": 16,
        }  # fmt: skip
        config = transformers.BlipConfig(
            text_config=text, vision_config=vision, image_text_hidden_size=projection
        )
        model = transformers.BlipForImageTextRetrieval(config)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "norm" not in name.lower():
            parameter.data.normal_(std=parameter[0].numel() ** -0.5)
        elif name.endswith("bias"):
            parameter.data.normal_(std=0.1)
        elif name.endswith("weight"):  # of a norm: one that is applied twice is noticed
            parameter.data.uniform_(0.5, 1.5)
    return model.eval()


def image_processor(kind: str, **options):
    if kind == "align":
        scale = {"include_top": False, "rescale_offset": True, "rescale_factor": 2 / 255}
        return transformers.EfficientNetImageProcessor(**{"size": SIZE, **scale} | options)
    return transformers.BlipImageProcessor(**{"size": SIZE} | options)


def random_clip(folder: Path, architecture: str) -> Path:
    """A CLIP of this architecture with random weights, in the layout of open_clip."""
    folder.mkdir()
    torch.manual_seed(0)
    model = open_clip.create_model(architecture, pretrained=None)
    preprocessing = {
        "mean": open_clip.constants.OPENAI_DATASET_MEAN,
        "std": open_clip.constants.OPENAI_DATASET_STD,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    config = {
        "model_cfg": open_clip.get_model_config(architecture),
        "preprocess_cfg": preprocessing,
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder


def edit(path: Path, **changes) -> None:
    """Change entries of a JSON file; ... removes one."""
    entries = json.loads(path.read_text()) | changes
    kept = {name: value for name, value in entries.items() if value is not ...}
    path.write_text(json.dumps(kept))


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    bicubic = Image.Resampling.BICUBIC
    drawn = [
        Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((60 + i, 50), bicubic)
        for i in range(12)
    ]
    return mm.Images.of(drawn)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub. The hub's address does not answer, unless a test sets another."""
    from huggingface_hub import constants

    def at(url):
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    at(f"http://127.0.0.1:{port}")
    return SimpleNamespace(at=at, path=tmp_path / "hub")
