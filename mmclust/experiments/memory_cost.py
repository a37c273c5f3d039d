"""Counts the memory that autograd keeps for the backward pass.

This memory grows with the numbers of images and tokens, and is the same on every device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pandas as pd
import torch
from torch.autograd.graph import saved_tensors_hooks

from mmclust.data.images import Images
from mmclust.encoders.open_clip import OpenCLIPEncoder
from mmclust.experiments.epoch_cost import AUTHORS_WAY, SETTINGS, build_encoder, build_model

SMALL = {"words": ["red", "green", "blue"], "template": "photo of *", "n_clusters": 3}


class SavedTensorCounter(saved_tensors_hooks):
    """A context manager that counts the bytes that autograd keeps: `live` now, `peak` the maximum.

    A tensor that is saved twice counts once; the weights of `model` do not count.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(lambda tensor: _SavedTensor(self, tensor), lambda saved: saved.tensor)
        weights = model.state_dict().values()
        self.weights = {tensor.untyped_storage().data_ptr() for tensor in weights}
        self.live = 0
        self.peak = 0
        self.references: Counter[int] = Counter()  # by address of the storage

    def __enter__(self) -> SavedTensorCounter:  # type: ignore[override]  # the base returns None
        super().__enter__()
        return self


class _SavedTensor:
    def __init__(self, counter: SavedTensorCounter, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        self.counter = counter
        self.tensor = tensor
        self.address = storage.data_ptr()
        self.bytes = 0 if self.address in counter.weights else storage.nbytes()
        if not counter.references[self.address]:
            counter.live += self.bytes
            counter.peak = max(counter.peak, counter.live)
        counter.references[self.address] += 1

    def __del__(self) -> None:
        self.counter.references[self.address] -= 1
        if not self.counter.references[self.address]:
            self.counter.live -= self.bytes


def kept_memory(
    images: Images, architecture: str = "mini", methods: Sequence[str] = tuple(SETTINGS)
) -> pd.DataFrame:
    """The peak of the memory that is kept for the backward pass, in one epoch of each method.

    Returns:
        A data frame: method, way ("authors' way", see `AUTHORS_WAY`, or "ours"), megabytes (10^6
        bytes), n.
    """
    ours = build_encoder(OpenCLIPEncoder, architecture)
    rows = []
    for method in methods:
        estimator, params = SETTINGS[method]
        epochs = "phase1_epochs" if "phase1_epochs" in params else "epochs"
        params = params | {epochs: 1} | SMALL
        reference = AUTHORS_WAY[method]
        models = {
            "authors' way": reference.build(params, ours, images),
            "ours": build_model(estimator, params, ours, images),
        }
        for way, model in models.items():
            with SavedTensorCounter(model.encoder.model) as counter:
                model.fit(images)
            megabytes = counter.peak / 1e6
            rows.append({"method": method, "way": way, "megabytes": megabytes, "n": len(images)})
    return pd.DataFrame(rows)
