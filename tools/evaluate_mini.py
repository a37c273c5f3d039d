"""What the embedded encoder can do: `python -m tools.evaluate_mini [--photos ARCHIVE_OR_FOLDER]`.

Prints the zero-shot accuracy (argmax of the cosine over the exact class names, in the data set's
prompt) of each criterion of the demo worlds. Color x species and order x suits pairs that were in
training and pairs that were held out are counted separately. With `--photos`, CIFAR-10's training
pictures, also on those that training kept out. Finally, whether the weights give the same
embeddings in the original CLIP class.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from open_clip.model import build_model_from_openai_state_dict
from PIL import Image

from mmclust.data import load_dataset
from mmclust.data.images import Images
from mmclust.encoders import load_encoder
from mmclust.encoders.base import Encoder
from mmclust.words import prompt_template
from tools.mini_captions import held_out
from tools.mini_pictures import photo_row, photographs, split_photographs

NEVER_TAUGHT = ("identity", "shape")  # criteria that are in no caption


def zero_shot(
    encoder: Encoder, images: Images, classes: list[str], labels: Sequence[int] | np.ndarray,
    template: str,
) -> np.ndarray:  # fmt: skip
    """Whether each image is assigned to its true class name, bool (n,)."""
    similarity = encoder.encode_images(images) @ encoder.encode_words(classes, template).T
    return similarity.argmax(1) == np.asarray(labels)


def world_rows(encoder: Encoder, name: str, n: int, seed: int) -> list[dict]:
    """Accuracies of the criteria of a world, on seen and unseen pairs."""
    data = load_dataset(name, n=n, seed=seed)
    unseen = np.array([held_out(row) for row in data.rows])
    rows = []
    for criterion in data.criteria:
        if criterion in NEVER_TAUGHT:
            continue
        classes = data.classes[criterion]
        template = prompt_template(criterion, data.domain)
        right = zero_shot(encoder, data.images, classes, data.labels[criterion], template)
        rows.append(
            {
                "data": name,
                "criterion": criterion,
                "classes": len(classes),
                "seen pairs": right[~unseen].mean(),
                "unseen pairs": right[unseen].mean() if unseen.any() else None,
                "images": n,
            }
        )
    return rows


def photo_rows(encoder: Encoder, photos: Path) -> list[dict]:
    """Accuracies on the photographs of CIFAR-10's training set that training kept out."""
    pixels, classes = photographs(photos)
    _, kept_out = split_photographs(classes)
    images = Images.of([Image.fromarray(pixels[i]) for i in kept_out])
    rows = []
    for criterion in ("class", "type", "environment"):
        values = [photo_row(classes[i])[criterion] for i in kept_out]
        names = sorted(set(values))
        labels = [names.index(value) for value in values]
        right = zero_shot(encoder, images, names, labels, prompt_template(criterion, "photo"))
        rows.append(
            {
                "data": "photographs (kept out)",
                "criterion": criterion,
                "classes": len(names),
                "seen pairs": right.mean(),
                "images": len(kept_out),
            }
        )
    return rows


def original_layout_difference(encoder: Encoder, images: Images) -> tuple[float, float]:
    """Largest difference of image and of text embeddings between this model and the original CLIP.

    The original CLIP class is built from the same weights.
    """
    original = build_model_from_openai_state_dict(dict(encoder.model.state_dict())).float()
    pixels = torch.stack([encoder.preprocess(image) for image in images])
    tokens = encoder.tokenizer(["a red apple", "the ten of spades", "fruit with a color of *"])
    with torch.inference_mode():
        image = (original.encode_image(pixels) - encoder.model.encode_image(pixels)).abs().max()
        text = (original.encode_text(tokens) - encoder.model.encode_text(tokens)).abs().max()
    return float(image), float(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--encoder", default="mini", help="mini, photo, or the folder of another checkpoint"
    )
    parser.add_argument(
        "--photos", type=Path, help="CIFAR-10 training pictures, as for the training command"
    )
    parser.add_argument("-n", type=int, default=1000, help="number of pictures of each world")
    parser.add_argument(
        "--seed", type=int, default=1000, help="of the worlds; the experiments use small seeds"
    )
    args = parser.parse_args()
    encoder = load_encoder(args.encoder)
    rows = []
    for name in ("demo-fruit", "demo-card", "demo-face"):
        rows += world_rows(encoder, name, args.n, args.seed)
    if args.photos:
        rows += photo_rows(encoder, args.photos)
    table = pd.DataFrame(rows).astype(object)
    print(table.where(table.notna(), None).to_markdown(index=False, floatfmt=".3f", missingval="-"))
    if not args.photos:
        print("photographs were not measured: use --photos")
    if not hasattr(encoder.model.visual, "conv1"):  # `photo`
        return
    image, text = original_layout_difference(encoder, load_dataset("demo-fruit", n=16).images)
    print(
        "\noriginal CLIP layout (build_model_from_openai_state_dict): largest difference "
        f"{image:.1e} in image, {text:.1e} in text embeddings"
    )


if __name__ == "__main__":
    main()
