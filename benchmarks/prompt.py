"""The prompt encoder compared with the full prompt.

`python -m benchmarks.prompt [--architecture align]`

ViT-B/32 shapes with random weights (nothing is downloaded), and a learned word for each of 105
images in "fruit with a color of *". The reference runs all 77 tokens in batches of 20 with a
backward pass after each batch. Ours runs the tokens from the placeholder on or, in the towers of
ALIGN and BLIP, those of the prompt without its padding. Median of 3 runs after a warm-up.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, cast

import open_clip
import pandas as pd
import torch

from mmclust.encoders.prompt import PROBE_WORDS, PromptEncoder

Timing = tuple[float, torch.Tensor, torch.Tensor]


def timed(encode: PromptEncoder, words: torch.Tensor, batch: int, repeats: int = 3) -> Timing:
    """Median seconds of a pass over all words, the outputs and the gradient.

    Each pass has a backward pass after every batch; the first one is a warm-up.
    """
    seconds = []
    for _ in range(repeats + 1):
        w = words.clone().requires_grad_(True)
        outputs = []
        start = time.perf_counter()
        for part in w.split(batch):
            out = encode(part, normalize=False)
            out.square().sum().backward()
            outputs.append(out.detach())
        seconds.append(time.perf_counter() - start)
    return median(seconds[1:]), torch.cat(outputs), cast(torch.Tensor, w.grad)


def random_towers(architecture: str, template: str) -> tuple[Any, Any]:
    """A frozen model of this architecture with random weights, and a tokenizer.

    "align" and "blip" are those of transformers with their default configurations and a vocabulary
    of the template's words; other names are open_clip's.
    """
    torch.manual_seed(0)
    if architecture not in ("align", "blip"):
        model = open_clip.create_model(architecture, pretrained=None).eval().requires_grad_(False)
        return model, open_clip.get_tokenizer(architecture)
    import transformers
    from open_clip.tokenizer import HFTokenizer

    from mmclust.encoders.transformers_models import CONTEXT, ENCODERS

    with tempfile.TemporaryDirectory() as folder:
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        vocabulary = dict.fromkeys([*special, *PROBE_WORDS, *template.lower().split()])
        file = Path(folder) / "vocab.txt"
        file.write_text("\n".join(vocabulary), encoding="utf-8")
        transformers.BertTokenizer(str(file)).save_pretrained(folder)
        tokenizer = HFTokenizer(folder, context_length=CONTEXT)
    name, encoder = ENCODERS[architecture]
    model_class = getattr(transformers, name)
    model = model_class(model_class.config_class())
    return encoder(model, lambda picture: picture, tokenizer, architecture), tokenizer


def compare(
    template: str, n: int, batch: int, architecture: str = "ViT-B-32-quickgelu"
) -> pd.DataFrame:
    """One row per path: seconds, ratio to the full prompt, and largest differences.

    The difference of the gradient is relative to its largest entry.
    """
    model, tokenizer = random_towers(architecture, template)
    full = PromptEncoder(model, tokenizer, template, path="full")
    ours = PromptEncoder(model, tokenizer, template)
    names = {"cached": "cached prefix", "cropped": f"{ours.end + 1} tokens", "full": "full prompt"}
    name = names[ours.path]
    words = torch.randn(n, ours.table.weight.shape[1]) * ours.table.weight.std()
    runs = {
        f"{len(full.tokens)} tokens, batches of {batch}": (full, batch),
        f"{name}, batches of {batch}": (ours, batch),
        f"{name}, one batch": (ours, n),
    }
    timings = {run: timed(encoder, words, size) for run, (encoder, size) in runs.items()}
    reference_seconds, reference_out, reference_grad = next(iter(timings.values()))
    rows = []
    for run, (seconds, out, grad) in timings.items():
        gradient_difference = (grad - reference_grad).abs().max() / reference_grad.abs().max()
        rows.append(
            {
                "path": run,
                "seconds": seconds,
                "ratio": reference_seconds / seconds,
                "output difference": float((out - reference_out).abs().max()),
                "gradient difference": float(gradient_difference),
            }
        )
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--template", default="fruit with a color of *")
    parser.add_argument("-n", type=int, default=105, help="number of images")
    parser.add_argument("--batch", type=int, default=20, help="images per batch")
    parser.add_argument(
        "--architecture", default="ViT-B-32-quickgelu", help="a name of open_clip, align or blip"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    table = compare(args.template, args.n, args.batch, args.architecture)
    print(
        f"{args.n} images, {args.template!r}, {args.architecture} shapes, random weights, "
        f"{args.threads} threads, median of 3 after a warm-up"
    )
    print(table.to_markdown(index=False, floatfmt=("", ".3f", ".1f", ".1e", ".1e")))


if __name__ == "__main__":
    main()
