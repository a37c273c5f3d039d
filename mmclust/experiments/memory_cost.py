"""What autograd keeps for the backward pass, counted: the memory that grows with images and tokens, the same on every device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch

from mmclust.data.images import Images
from mmclust.encoders.open_clip import OpenCLIPEncoder
from mmclust.experiments.epoch_cost import SETTINGS, encoder, references


class Kept:
    """While it is entered, counts the bytes that autograd keeps: `live` now, `peak` at most. A tensor that is kept twice counts once, the
    model's weights not at all."""

    def __init__(self, model: torch.nn.Module | None = None) -> None:
        self.weights = {
            t.untyped_storage().data_ptr()
            for t in (model.state_dict().values() if model is not None else ())
        }
        self.live, self.peak = 0, 0
        self.holders: Counter[int] = Counter()

    def __enter__(self) -> Kept:
        self._hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: _Held(self, tensor), lambda held: held.tensor
        )
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)


class _Held:
    def __init__(self, owner: Kept, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        self.owner, self.tensor, self.bytes = owner, tensor, storage.nbytes()
        self.key: int | None = None if storage.data_ptr() in owner.weights else storage.data_ptr()
        if self.key is None:
            return
        if not owner.holders[self.key]:
            owner.live += self.bytes
            owner.peak = max(owner.peak, owner.live)
        owner.holders[self.key] += 1

    def __del__(self) -> None:
        if self.key is not None:
            self.owner.holders[self.key] -= 1
            if not self.owner.holders[self.key]:
                self.owner.live -= self.bytes


def kept_memory(
    images: Images, architecture: str = "mini", methods: Sequence[str] = tuple(SETTINGS)
) -> pd.DataFrame:
    """Peak of what is kept in one epoch: method, way ("authors' way", "ours"), megabytes (10^6 bytes), n."""
    ours, rows = encoder(OpenCLIPEncoder, False, architecture), []
    for method in methods:
        kind, settings = SETTINGS[method]
        naive, of, changes, size = references(method, architecture)
        of.set_features(images, ours.features(images))
        for way, estimator, model, more in (
            ("authors' way", naive, of, changes | {"chunk_size": size}),
            ("ours", kind, ours, {}),
        ):
            one = {"phase1_epochs": 1} if "phase1_epochs" in settings else {"epochs": 1}
            built = estimator(
                model,
                "photo of *",
                ["red", "green", "blue"],
                n_clusters=3,
                random_state=0,
                **settings | one | more,
            )
            if hasattr(estimator, "through"):
                built.pixels = torch.stack([model.preprocess(image) for image in images])
            with Kept(model.model) as kept:
                built.fit(images)
            rows.append(
                {"method": method, "way": way, "megabytes": kept.peak / 1e6, "n": len(images)}
            )
    return pd.DataFrame(rows)
