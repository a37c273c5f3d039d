"""What an epoch costs, beside naive references: `python -m mmclust.experiments.epoch_cost [--json FILE] [--scaling]`.

ViT-B/32 shapes with random weights (nothing is downloaded) and 105 random pictures. Ours is the estimator as it ships. The references are the
same estimator with the savings taken out, one at a time, so that both must end at the same loss, which is checked:

* frozen: all 77 tokens of the prompt for every image, through the model's own code, backward after every batch (20 images, 50 for Multi-Sub);
  what does not learn is frozen. Image features are stored.
* frozen, negatives apart (Multi-DProxy): the prompts of L_c's negatives run once more, as they must where a batch does not hold them. The
  other rows of Multi-DProxy leave L_c out on both sides, so that this is not counted as a saving of the prompt encoder.
* frozen, trunk in every batch (Multi-Sub): the image trunk runs in every batch, as it does where nobody noticed that P alone learns.
* released (Multi-MaP, Multi-Sub): as the authors' scripts do it. Nothing is frozen, so that gradients of both towers' weights are computed, and
  never used; Multi-Sub runs the image trunk in every batch and back-propagates through it.

Each pair is timed in one process, each fit after a warm-up epoch: ours, the reference, ours again, so that a machine that changes its speed
changes it for both. The median of the reference's 3 epochs beside that of our 6.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image

from mmclust.data.images import Images
from mmclust.encoders import load_encoder
from mmclust.encoders.open_clip import OpenCLIPEncoder
from mmclust.encoders.prompt import PromptEncoder
from mmclust.methods.multidproxy import MultiDProxy
from mmclust.methods.multimap import MultiMaP
from mmclust.methods.multisub import MultiSub

TEMPLATE, EPOCHS = "fruit with a color of *", 4  # the first warms up
WORDS = [
    "red",
    "orange",
    "yellow",
    "green",
    "blue",
    "purple",
    "pink",
    "brown",
    "white",
    "black",
    "gray",
    "gold",
]
SETTINGS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "MultiMaP": (MultiMaP, {"concepts": ["color", "species"], "epochs": EPOCHS}),
    "MultiSub": (MultiSub, {"alternations": 1, "phase1_epochs": EPOCHS, "phase2_epochs": 0}),
    "MultiDProxy": (MultiDProxy, {"epochs": EPOCHS, "dynamic": False, "concept_weight": 0.0}),
}
BATCH = {"MultiMaP": 20, "MultiSub": 50, "MultiDProxy": 20}


class Naive(OpenCLIPEncoder):
    """The encoder without the cached prefix."""

    def prompt(self, template: str, **options: Any) -> PromptEncoder:
        return super().prompt(template, path="full", **options)


class TrunkInEveryBatch(MultiSub):
    """Multi-Sub that runs the image trunk in every batch of Phase I; with `through`, gradients flow through it to its weights."""

    through = False
    pixels: torch.Tensor

    def _image_side(self, h: torch.Tensor, part: slice, projection: torch.Tensor) -> torch.Tensor:
        with torch.set_grad_enabled(self.through):
            features = self.encoder.image_trunk(self.pixels[part])
        return F.normalize(features @ projection, dim=-1)


class TrunkBackwards(TrunkInEveryBatch):
    through = True


def encoder(kind: type[OpenCLIPEncoder], learns: bool, architecture: str) -> OpenCLIPEncoder:
    """An open_clip architecture with random weights, the same each time, or "mini"; with `learns`, gradients of all weights are computed."""
    if architecture == "mini":
        known = load_encoder(architecture)
        model, preprocess, tokenizer = known.model, known.preprocess, known.tokenizer
    else:
        torch.manual_seed(0)
        model, _, preprocess = open_clip.create_model_and_transforms(architecture, pretrained=None)
        tokenizer = open_clip.get_tokenizer(architecture)
    built = kind(model, preprocess, tokenizer, architecture)
    model.requires_grad_(learns)
    return built


def references(
    method: str, architecture: str
) -> tuple[type[Any], OpenCLIPEncoder, dict[str, Any], int]:
    """The authors' way of a method: the estimator's class, the encoder it runs on, what is set differently, and images per batch. That of
    the released scripts; of Multi-DProxy, which has none, all 77 tokens on frozen towers."""
    if method == "MultiDProxy":
        return (
            MultiDProxy,
            encoder(Naive, False, architecture),
            {"concept_weight": 1.0},
            BATCH[method],
        )
    kind = TrunkBackwards if method == "MultiSub" else SETTINGS[method][0]
    return kind, encoder(Naive, True, architecture), {}, BATCH[method]


def fit(
    kind: type[Any], settings: dict, of: OpenCLIPEncoder, images: Images, **more: Any
) -> tuple[list[float], float]:
    """The seconds of every epoch after the first, and the last epoch's loss."""
    model = kind(of, WORDS, template=TEMPLATE, n_clusters=6, random_state=0, **settings, **more)
    if isinstance(model, TrunkInEveryBatch):
        model.pixels = torch.stack([of.preprocess(image) for image in images])
    of.model.zero_grad(set_to_none=True)
    model.fit(images)
    return model.seconds_[1:], model.history_[-1]["loss"]


def compare(
    methods: Sequence[str] = tuple(SETTINGS), n: int = 105, architecture: str = "ViT-B-32-quickgelu", only: Container[str] | None = None,
    tell: Callable[[str], object] = print,
) -> pd.DataFrame:  # fmt: skip
    """One row per method and reference: method, reference, reference_seconds, seconds, ratio, n, loss, reference_loss.

    Args:
        only: references to take, by name; all by default. tell: called with a line for each row.

    Raises:
        RuntimeError: where the two sides end at different losses.
    """
    images = Images.of(np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8))
    ours, naive, learning = (
        encoder(kind, learns, architecture)
        for kind, learns in ((OpenCLIPEncoder, False), (Naive, False), (Naive, True))
    )
    features = ours.features(images)
    rows = []
    for method in methods:
        kind = SETTINGS[method][0]
        against: dict[str, tuple[type[Any], OpenCLIPEncoder, dict[str, Any]]] = {
            "frozen": (kind, naive, {})
        }
        if method == "MultiSub":
            against |= {
                "frozen, trunk in every batch": (TrunkInEveryBatch, naive, {}),
                "released": (TrunkBackwards, learning, {}),
            }
        if method == "MultiMaP":
            against["released"] = (kind, learning, {})
        if method == "MultiDProxy":
            against["frozen, negatives apart"] = (kind, naive, {"concept_weight": 1.0})
        for name, (reference, of, changes) in against.items():
            if only and name not in only:
                continue
            of.set_features(images, features)
            settings = SETTINGS[method][1] | changes
            before, loss = fit(kind, settings, ours, images)
            naive_seconds, reference_loss = fit(
                reference, settings, of, images, chunk_size=BATCH[method]
            )
            seconds, reference_seconds = (
                median(before + fit(kind, settings, ours, images)[0]),
                median(naive_seconds),
            )
            if abs(loss - reference_loss) > 1e-3 * abs(reference_loss):
                raise RuntimeError(
                    f"{method} beside {name}: loss {loss} and {reference_loss} after {EPOCHS} epochs"
                )
            row = {
                "method": method,
                "reference": name,
                "reference_seconds": reference_seconds,
                "seconds": seconds,
            }
            rows.append(
                row
                | {
                    "ratio": reference_seconds / seconds,
                    "n": n,
                    "loss": loss,
                    "reference_loss": reference_loss,
                }
            )
            tell(
                f"{method} | {name} | {reference_seconds:.3f} s | {seconds:.3f} s | {rows[-1]['ratio']:.1f} times"
            )
    return pd.DataFrame(rows)


def epoch_times(architecture: str = "mini", n: int = 105) -> pd.DataFrame:
    """Median seconds per epoch by the authors' way (see `references`) and by ours, which end at the same loss: method, way, seconds, n."""
    rows = compare(
        n=n,
        architecture=architecture,
        only=("released", "frozen, negatives apart"),
        tell=lambda line: None,
    )
    ways = {"reference_seconds": "authors' way", "seconds": "ours"}
    tidy = (
        rows[["method", "n", *ways]]
        .rename(columns=ways)
        .melt(["method", "n"], var_name="way", value_name="seconds")
    )
    return tidy[["method", "way", "seconds", "n"]]


def _never(i: int) -> Image.Image:
    raise AssertionError(f"picture {i} is drawn although its features are given")


def scaling(
    sizes: Sequence[int] = (1000, 4000, 16000, 64000),
    methods: Sequence[str] = tuple(SETTINGS),
    name: str = "mini",
) -> pd.DataFrame:
    """Seconds per epoch of each method on n images of the embedded encoder, a row per method and n, with the log-log slope of its column."""
    of, rng, rows = load_encoder(name), np.random.default_rng(0), []
    width = of.image_projection.shape[0]
    for n in sizes:
        images = Images(n, _never, fingerprint=f"benchmark {n}")  # the features are given
        of.set_features(images, rng.normal(size=(n, width)).astype(np.float32))
        for method in methods:
            kind, settings = SETTINGS[method]
            more = {"phase2_epochs": EPOCHS} if method == "MultiSub" else {}
            start = time.perf_counter()
            model = kind(
                of, WORDS, template=TEMPLATE, n_clusters=6, random_state=0, **settings | more
            ).fit(images)
            rows.append(
                {
                    "method": method,
                    "n": n,
                    "epoch_seconds": median(model.seconds_[1:EPOCHS]),
                    "fit_seconds": time.perf_counter() - start,
                }
            )
            if method == "MultiSub":
                rows.append(
                    {
                        "method": "MultiSub, Phase II",
                        "n": n,
                        "epoch_seconds": median(model.seconds_[EPOCHS + 1 :]),
                        "fit_seconds": np.nan,
                    }
                )
    table = pd.DataFrame(rows)
    slopes = {
        m: np.polyfit(np.log(g["n"]), np.log(g["epoch_seconds"]), 1)[0]
        for m, g in table.groupby("method")
    }
    return table.assign(slope=table["method"].map(slopes)).sort_values(
        ["method", "n"], ignore_index=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", nargs="+", choices=[*SETTINGS], default=[*SETTINGS])
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument(
        "--scaling", action="store_true", help="the cost of 1,000 to 64,000 images instead"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    table = scaling(methods=args.method) if args.scaling else compare(args.method)
    if args.json:
        args.json.write_text(json.dumps(table.to_dict("records"), indent=1), encoding="utf-8")
    print(table.to_markdown(index=False, floatfmt=".4g"))


if __name__ == "__main__":
    main()
