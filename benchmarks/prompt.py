"""The prompt encoder beside the whole prompt: `python -m benchmarks.prompt [--architecture align]`.

ViT-B/32 shapes with random weights (nothing is downloaded), a proxy for each of 105 images in "fruit with a color of *". The reference runs
all 77 tokens in batches of 20, backward after each batch; ours runs the tokens from the placeholder on, or, in the towers of ALIGN and BLIP,
those of the prompt without its padding. Warm, median of 3.
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

from mmclust.encoders.prompt import PromptEncoder


def timed(
    encode: PromptEncoder, proxies: torch.Tensor, batch: int, repeats: int = 3
) -> tuple[float, torch.Tensor, torch.Tensor]:
    """Median seconds of a pass over all proxies with a backward after every batch, after a warm-up; the outputs and the gradient."""
    seconds = []
    for _ in range(repeats + 1):
        w, outputs = proxies.clone().requires_grad_(True), []
        start = time.perf_counter()
        for part in w.split(batch):
            out = encode(part, normalize=False)
            out.square().sum().backward()
            outputs.append(out.detach())
        seconds.append(time.perf_counter() - start)
    return median(seconds[1:]), torch.cat(outputs), cast(torch.Tensor, w.grad)


def random_towers(architecture: str, template: str) -> tuple[Any, Any]:
    """A model of these shapes with random weights, frozen, and a tokenizer: open_clip's by name, or "align" and "blip" of transformers with their
    default configurations, and a vocabulary of the template's words."""
    torch.manual_seed(0)
    if architecture not in ("align", "blip"):
        return open_clip.create_model(architecture, pretrained=None).eval().requires_grad_(
            False
        ), open_clip.get_tokenizer(architecture)
    import transformers
    from open_clip.tokenizer import HFTokenizer

    from mmclust.encoders.prompt import PROBE_WORDS
    from mmclust.encoders.transformers_models import CONTEXT, TOWERS

    with tempfile.TemporaryDirectory() as room:
        words = dict.fromkeys(
            ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PROBE_WORDS, *template.lower().split()]
        )
        (Path(room) / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
        transformers.BertTokenizer(str(Path(room) / "vocab.txt")).save_pretrained(room)
        tokenizer = HFTokenizer(room, context_length=CONTEXT)
    kind, towers = TOWERS[architecture]
    kind = getattr(transformers, kind)
    return towers(kind(kind.config_class()).eval().requires_grad_(False)), tokenizer


def compare(
    template: str, n: int, batch: int, architecture: str = "ViT-B-32-quickgelu"
) -> pd.DataFrame:
    """One row per path: seconds, ratio to the whole prompt, largest difference in output and relative difference in gradient."""
    model, tokenizer = random_towers(architecture, template)
    whole, ours = (
        PromptEncoder(model, tokenizer, template, path="full"),
        PromptEncoder(model, tokenizer, template),
    )
    name = {"cached": "cached prefix", "cropped": f"{ours.end + 1} tokens", "full": "whole prompt"}[
        ours.path
    ]
    proxies = torch.randn(n, ours.table.weight.shape[1]) * ours.table.weight.std()
    runs = {
        f"{len(whole.tokens)} tokens, batches of {batch}": (whole, batch),
        f"{name}, batches of {batch}": (ours, batch),
        f"{name}, one batch": (ours, n),
    }
    rows, reference = [], None
    for name, (encoder, size) in runs.items():
        seconds, out, grad = timed(encoder, proxies, size)
        reference = reference or (seconds, out, grad)
        rows.append(
            {
                "path": name,
                "seconds": seconds,
                "ratio": reference[0] / seconds,
                "output difference": float((out - reference[1]).abs().max()),
                "gradient difference": float(
                    (grad - reference[2]).abs().max() / reference[2].abs().max()
                ),
            }
        )
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--template", default="fruit with a color of *")
    parser.add_argument("-n", type=int, default=105)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument(
        "--architecture", default="ViT-B-32-quickgelu", help="of open_clip; or align, blip"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    table = compare(args.template, args.n, args.batch, args.architecture)
    print(
        f"{args.n} images, {args.template!r}, {args.architecture} shapes, random weights, {args.threads} threads, warm, median of 3"
    )
    print(table.to_markdown(index=False, floatfmt=("", ".3f", ".1f", ".1e", ".1e")))


if __name__ == "__main__":
    main()
