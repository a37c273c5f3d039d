"""What an epoch costs: `python -m benchmarks.epochs [--scaling] [--json FILE]`.

ViT-B/32 shapes with random weights (nothing is downloaded) and 105 random images: the estimators of
the package, next to references without our savings (`mmclust.experiments.epoch_cost`). With
`--scaling`, the growth with the number of images instead. Run it while nothing else runs.

* frozen: all 77 tokens of the prompt for every image. Weights that do not learn are frozen, image
  features are stored.
* frozen, negatives apart (Multi-DProxy): the prompts of L_c's negatives run once more. The other
  row of Multi-DProxy leaves L_c out on both sides, so that this is not counted as a saving of the
  prompt encoder.
* frozen, trunk in every batch (Multi-Sub): the image trunk runs in every batch, although P alone
  learns.
* released (Multi-MaP, Multi-Sub): as in the authors' scripts.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from mmclust.data.images import Images
from mmclust.encoders import load_encoder
from mmclust.experiments.epoch_cost import (
    AUTHORS_WAY,
    EPOCHS,
    SETTINGS,
    Reference,
    TrunkInEveryBatch,
    build_model,
    compare,
)
from mmclust.methods.multidproxy import MultiDProxy
from mmclust.methods.multimap import MultiMaP
from mmclust.methods.multisub import MultiSub

REFERENCES = [
    Reference("frozen", "MultiMaP", MultiMaP),
    AUTHORS_WAY["MultiMaP"],
    Reference("frozen", "MultiSub", MultiSub),
    Reference("frozen, trunk in every batch", "MultiSub", TrunkInEveryBatch),
    AUTHORS_WAY["MultiSub"],
    Reference("frozen", "MultiDProxy", MultiDProxy),
    AUTHORS_WAY["MultiDProxy"],
]


def _no_image(i: int) -> Image.Image:
    raise AssertionError(f"image {i} is decoded although its features are set")


def scaling(
    sizes: Sequence[int] = (1000, 4000, 16000, 64000),
    methods: Sequence[str] = tuple(SETTINGS),
    encoder_name: str = "mini",
) -> pd.DataFrame:
    """Seconds per epoch of each method on n images whose features are set.

    Returns:
        method, n, epoch_seconds, fit_seconds (NaN for Phase II), and the log-log slope of
        epoch_seconds over n.
    """
    encoder = load_encoder(encoder_name)
    rng = np.random.default_rng(0)
    width = encoder.image_projection.shape[0]
    rows: list[dict[str, Any]] = []
    for n in sizes:
        images = Images(n, _no_image, fingerprint=f"benchmark {n}")
        encoder.set_features(images, rng.normal(size=(n, width)).astype(np.float32))
        for method in methods:
            estimator, params = SETTINGS[method]
            if method == "MultiSub":
                params = params | {"phase2_epochs": EPOCHS}
            model = build_model(estimator, params, encoder, images)
            start = time.perf_counter()
            model.fit(images)
            fit_seconds = time.perf_counter() - start
            phases = {method: (model.seconds_[1:EPOCHS], fit_seconds)}
            if method == "MultiSub":
                phases["MultiSub, Phase II"] = (model.seconds_[EPOCHS + 1 :], np.nan)
            for name, (epoch_seconds, seconds) in phases.items():
                row = {"method": name, "n": n, "epoch_seconds": median(epoch_seconds)}
                rows.append(row | {"fit_seconds": seconds})
    table = pd.DataFrame(rows)
    slopes = {
        method: np.polyfit(np.log(group["n"]), np.log(group["epoch_seconds"]), 1)[0]
        for method, group in table.groupby("method")
    }
    table = table.assign(slope=table["method"].map(slopes))
    return table.sort_values(["method", "n"], ignore_index=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", nargs="+", choices=[*SETTINGS], default=[*SETTINGS])
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("-n", type=int, default=105, help="images")
    parser.add_argument("--architecture", default="ViT-B-32-quickgelu", help="of open_clip")
    parser.add_argument("--scaling", action="store_true", help="1,000 to 64,000 images instead")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.scaling:
        table = scaling(methods=args.method)
    else:
        table = compare(
            [reference for reference in REFERENCES if reference.method in args.method],
            args.n,
            args.architecture,
        )
    if args.json:
        args.json.write_text(json.dumps(table.to_dict("records"), indent=1), encoding="utf-8")
    print(table.to_markdown(index=False, floatfmt=".4g"))


if __name__ == "__main__":
    main()
