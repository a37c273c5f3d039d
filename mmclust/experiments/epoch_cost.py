"""The time of an epoch, compared with references that lack this package's optimizations.

Each estimator of the package, and a reference for it without the optimizations, are timed on random
images. Both take the same steps, so they must end at the same loss, which is checked. All
references run all 77 tokens of the prompt for every image through the code of the model, with a
backward pass after every batch. `AUTHORS_WAY` has the references that represent the papers:

* Multi-MaP, Multi-Sub: as in the authors' scripts. Nothing is frozen: gradients of the weights of
  both encoders are computed and never used; Multi-Sub runs the image encoder in every batch and
  back-propagates through it.
* Multi-DProxy has no released code: frozen weights, stored image features. The prompts of the
  negatives of L_c are computed a second time, as is necessary if a batch does not contain them.

`python -m benchmarks.epochs` adds references that lack one optimization each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import torch
import torch.nn.functional as F

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
    references: Iterable[Reference] = tuple(AUTHORS_WAY.values()), n: int = 105,
    architecture: str = "ViT-B-32-quickgelu", report_line: Callable[[str], object] = print,
) -> pd.DataFrame:  # fmt: skip
    """Time each reference, and this package's estimator of the same method.

    Args:
        n: number of random images.
        report_line: called with a line of text for each reference.

    Returns:
        A data frame: method, reference, reference_seconds, seconds (medians per epoch), ratio, n,
        loss, reference_loss.

    Raises:
        RuntimeError: a reference and the estimator end at different losses.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    images = Images.of(pixels)
    ours = build_encoder(OpenCLIPEncoder, architecture)
    rows = []
    for reference in references:
        row = _compare_one(reference, ours, images)
        rows.append({"method": reference.method, "reference": reference.name, **row})
        report_line(
            f"{reference.method} | {reference.name} | {row['reference_seconds']:.3f} s | "
            f"{row['seconds']:.3f} s | {row['ratio']:.1f} times"
        )
    return pd.DataFrame(rows)


def _compare_one(reference: Reference, ours: OpenCLIPEncoder, images: Images) -> dict[str, float]:
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
    row = {"reference_seconds": reference_seconds, "seconds": seconds}
    row |= {"ratio": reference_seconds / seconds, "n": len(images)}
    return row | {"loss": loss, "reference_loss": reference_loss}


def epoch_times(
    architecture: str = "mini", n: int = 105, methods: Sequence[str] = tuple(SETTINGS)
) -> pd.DataFrame:
    """Median seconds per epoch of the references in `AUTHORS_WAY` and of this package's estimators.

    Returns:
        A data frame: method, way ("authors' way", "ours"), seconds, n.
    """
    references = [AUTHORS_WAY[method] for method in methods]
    rows = compare(references, n, architecture, report_line=lambda line: None)
    rows = rows.rename(columns={"reference_seconds": "authors' way", "seconds": "ours"})
    tidy = rows.melt(["method", "n"], ["authors' way", "ours"], "way", "seconds")
    return tidy[["method", "way", "seconds", "n"]]
