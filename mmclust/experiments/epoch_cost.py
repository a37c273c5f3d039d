"""Time and memory of an epoch, compared with references that lack this package's optimizations.

Each estimator of the package and its reference take the same steps, so they must end at the same
loss, which is checked when they are timed. All references run all 77 tokens of the prompt for every
image through the code of the model, with a backward pass after every batch. `AUTHORS_WAY` has those
that represent the papers; `python -m benchmarks.epochs` adds some that lack one optimization each.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import torch
import torch.nn.functional as F
from torch.autograd.graph import saved_tensors_hooks

from mmclust.data.images import Images
from mmclust.encoders import load_encoder
from mmclust.encoders.open_clip import OpenCLIPEncoder
from mmclust.encoders.prompt import PromptEncoder
from mmclust.methods.multidproxy import MultiDProxy
from mmclust.methods.multimap import MultiMaP
from mmclust.methods.multisub import MultiSub

TEMPLATE = "fruit with a color of *"
WORDS = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "white", "black",
         "gray", "gold"]  # fmt: skip
EPOCHS = 4  # the first is a warm-up and is not timed
LOSS_TOLERANCE = 1e-3  # relative difference between the last losses of estimator and reference
SETTINGS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "MultiMaP": (MultiMaP, {"concepts": ["color", "species"], "epochs": EPOCHS}),
    "MultiSub": (MultiSub, {"alternations": 1, "phase1_epochs": EPOCHS, "phase2_epochs": 0}),
    "MultiDProxy": (MultiDProxy, {"epochs": EPOCHS, "dynamic": False, "concept_weight": 0.0}),
}
BATCH_SIZES = {"MultiMaP": 20, "MultiSub": 50, "MultiDProxy": 20}  # of the references, in images


class FullPromptEncoder(OpenCLIPEncoder):
    """An encoder without the cached prefix: it runs all tokens of the prompt for every image."""

    def prompt(self, template: str, **options: Any) -> PromptEncoder:
        return super().prompt(template, path="full", **options)


class TrunkInEveryBatch(MultiSub):
    """Multi-Sub that runs the image encoder in every batch of Phase I; if its weights require
    gradients, they are computed, too."""

    pixels: torch.Tensor  # (n, 3, h, w)

    def _image_side(self, h: torch.Tensor, batch: slice, projection: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.encoder.image_trunk(self.pixels[batch]) @ projection, dim=-1)


@dataclass(frozen=True)
class Reference:
    """A method without some of this package's optimizations."""

    name: str
    method: str
    estimator: type[Any]
    learns: bool = False  # whether gradients of the encoders' weights are computed
    # Parameters that differ from `SETTINGS`, for the reference and for the estimator compared:
    changes: dict[str, Any] = field(default_factory=dict)

    def build(self, params: dict[str, Any], ours: OpenCLIPEncoder, images: Images) -> Any:
        """The reference's estimator, not fitted, with another encoder but the image features of
        `ours`."""
        encoder = build_encoder(FullPromptEncoder, ours.name, self.learns, str(ours.device))
        encoder.set_features(images, ours.features(images))
        params = params | self.changes | {"chunk_size": BATCH_SIZES[self.method]}
        return build_model(self.estimator, params, encoder, images)


# Multi-MaP, Multi-Sub: as in the authors' scripts. Nothing is frozen: gradients of the weights of
# both encoders are computed and never used; Multi-Sub runs the image encoder in every batch.
# Multi-DProxy has no released code: frozen weights, stored image features; the prompts of L_c's
# negatives are computed a second time, as is necessary if a batch does not contain them.
AUTHORS_WAY = {
    "MultiMaP": Reference("released", "MultiMaP", MultiMaP, learns=True),
    "MultiSub": Reference("released", "MultiSub", TrunkInEveryBatch, learns=True),
    "MultiDProxy": Reference(
        "frozen, negatives apart", "MultiDProxy", MultiDProxy, changes={"concept_weight": 1.0}
    ),
}


def build_encoder(
    encoder_class: type[OpenCLIPEncoder], architecture: str, learns: bool = False,
    device: str = "cpu",
) -> OpenCLIPEncoder:  # fmt: skip
    """An open_clip encoder with random weights from a fixed seed; or the trained "mini"."""
    if architecture == "mini":
        mini = load_encoder(architecture)
        model = mini.model
        preprocess = mini.preprocess
        tokenizer = mini.tokenizer
    else:
        torch.manual_seed(0)
        model, _, preprocess = open_clip.create_model_and_transforms(architecture, pretrained=None)
        tokenizer = open_clip.get_tokenizer(architecture)
    encoder = encoder_class(model, preprocess, tokenizer, architecture, device)
    model.requires_grad_(learns)
    return encoder


def build_model(
    estimator: type[Any], params: dict, encoder: OpenCLIPEncoder, images: Images
) -> Any:
    """An estimator, not fitted, with the words and the template of this module."""
    common = {"words": WORDS, "template": TEMPLATE, "n_clusters": 6, "random_state": 0}
    model = estimator(encoder, **common | params)
    if isinstance(model, TrunkInEveryBatch):
        pixels = np.concatenate([*encoder._batches(torch.Tensor.contiguous, images, 256)])
        model.pixels = torch.from_numpy(pixels).to(encoder.device)
    encoder.model.zero_grad(set_to_none=True)
    return model


def compare(
    references: Iterable[Reference], n: int = 105, architecture: str = "ViT-B-32-quickgelu"
) -> pd.DataFrame:
    """Time each reference, and this package's estimator of the same method, on n random images.

    Returns a data frame: method, reference, reference_seconds, seconds (medians per epoch), ratio,
    n, loss, reference_loss. Raises RuntimeError if a reference and the estimator end at different
    losses.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    images = Images.of(pixels)
    ours = build_encoder(OpenCLIPEncoder, architecture)
    return pd.DataFrame([_compare_one(reference, ours, images) for reference in references])


def _compare_one(reference: Reference, ours: OpenCLIPEncoder, images: Images) -> dict[str, Any]:
    """Time our estimator before and after the reference, so that a drift of the machine's speed
    affects both."""
    estimator, params = SETTINGS[reference.method]
    params = params | reference.changes
    slow_model = reference.build(params, ours, images)
    first = build_model(estimator, params, ours, images).fit(images)
    slow = slow_model.fit(images)
    second = build_model(estimator, params, ours, images).fit(images)
    loss = first.history_[-1]["loss"]
    reference_loss = slow.history_[-1]["loss"]
    if abs(loss - reference_loss) > LOSS_TOLERANCE * abs(reference_loss):
        raise RuntimeError(
            f"{reference.method} and its reference {reference.name!r} end at different losses "
            f"after {EPOCHS} epochs: {loss} and {reference_loss}"
        )
    seconds = median(first.seconds_[1:] + second.seconds_[1:])
    reference_seconds = median(slow.seconds_[1:])
    row: dict[str, Any] = {"method": reference.method, "reference": reference.name}
    row |= {"reference_seconds": reference_seconds, "seconds": seconds}
    row |= {"ratio": reference_seconds / seconds, "n": len(images)}
    return row | {"loss": loss, "reference_loss": reference_loss}


def epoch_times(
    architecture: str = "mini", n: int = 105, methods: Sequence[str] = tuple(SETTINGS)
) -> pd.DataFrame:
    """Median seconds per epoch of the references in `AUTHORS_WAY` and of this package's estimators:
    a data frame, method, way ("authors' way", "ours"), seconds, n."""
    rows = compare([AUTHORS_WAY[method] for method in methods], n, architecture)
    rows = rows.rename(columns={"reference_seconds": "authors' way", "seconds": "ours"})
    tidy = rows.melt(["method", "n"], ["authors' way", "ours"], "way", "seconds")
    return tidy[["method", "way", "seconds", "n"]]


class SavedTensorCounter(saved_tensors_hooks):
    """A context manager that counts the bytes that autograd keeps for the backward pass: `live`
    now, `peak` the maximum. They grow with the numbers of images and tokens, and are the same on
    every device. A tensor that is saved twice counts once; the weights of `model` do not count.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(self._save, lambda saved: saved)
        weights = model.state_dict().values()
        self.weights = {tensor.untyped_storage().data_ptr() for tensor in weights}
        self.live = 0
        self.peak = 0
        self.references: Counter[int] = Counter()  # by address of the storage

    def _save(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        address = storage.data_ptr()
        size = 0 if address in self.weights else storage.nbytes()
        if not self.references[address]:
            self.live += size
            self.peak = max(self.peak, self.live)
        self.references[address] += 1
        saved = tensor.detach()
        weakref.finalize(saved, self._release, address, size)
        return saved

    def _release(self, address: int, size: int) -> None:
        self.references[address] -= 1
        if not self.references[address]:
            self.live -= size


def kept_memory(
    images: Images, architecture: str = "mini", methods: Sequence[str] = tuple(SETTINGS)
) -> pd.DataFrame:
    """The peak of the memory that is kept for the backward pass, in one epoch of each method: a
    data frame, method, way (see `epoch_times`), megabytes (10^6 bytes), n."""
    ours = build_encoder(OpenCLIPEncoder, architecture)
    rows = []
    for method in methods:
        estimator, params = SETTINGS[method]
        epochs = "phase1_epochs" if "phase1_epochs" in params else "epochs"
        params = params | {epochs: 1}
        models = {
            "authors' way": AUTHORS_WAY[method].build(params, ours, images),
            "ours": build_model(estimator, params, ours, images),
        }
        for way, model in models.items():
            counter = SavedTensorCounter(model.encoder.model)
            with counter:
                model.fit(images)
            megabytes = counter.peak / 1e6
            rows.append({"method": method, "way": way, "megabytes": megabytes, "n": len(images)})
    return pd.DataFrame(rows)
