"""The prompt encoder beside the whole prompt: `python -m mmclust.benchmarks.prompt`.

ViT-B/32 shapes with random weights (nothing is downloaded), a proxy for each of 105 images in "fruit with a color of *". The reference runs
all 77 tokens in batches of 20, backward after each batch; ours runs the tokens from the placeholder on. Warm, median of 3.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import open_clip
import pandas as pd
import torch

from mmclust.encoders.prompt import PromptEncoder


def timed(encode: PromptEncoder, proxies: torch.Tensor, batch: int, repeats: int = 3) -> tuple[float, torch.Tensor, torch.Tensor]:
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
    return median(seconds[1:]), torch.cat(outputs), w.grad


def compare(template: str, n: int, batch: int, architecture: str = "ViT-B-32-quickgelu") -> pd.DataFrame:
    """One row per path: seconds, ratio to the 77 tokens, largest difference in output and relative difference in gradient."""
    torch.manual_seed(0)
    model = open_clip.create_model(architecture, pretrained=None).eval().requires_grad_(False)
    tokenizer = open_clip.get_tokenizer(architecture)
    proxies = torch.randn(n, model.token_embedding.weight.shape[1]) * model.token_embedding.weight.std()
    runs = {
        f"77 tokens, batches of {batch}": (PromptEncoder(model, tokenizer, template, path="full"), batch),
        f"cached prefix, batches of {batch}": (PromptEncoder(model, tokenizer, template, path="cached"), batch),
        "cached prefix, one batch": (PromptEncoder(model, tokenizer, template, path="cached"), n),
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
                "gradient difference": float((grad - reference[2]).abs().max() / reference[2].abs().max()),
            }
        )
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--template", default="fruit with a color of *")
    parser.add_argument("-n", type=int, default=105)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    table = compare(args.template, args.n, args.batch)
    print(f"{args.n} images, {args.template!r}, ViT-B/32 shapes, random weights, {args.threads} threads, warm, median of 3")
    print(table.to_markdown(index=False, floatfmt=("", ".3f", ".1f", ".1e", ".1e")))


if __name__ == "__main__":
    main()
