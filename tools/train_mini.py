"""Train the embedded encoder: `python -m tools.train_mini --out DIR [--photos ARCHIVE_OR_FOLDER]`.

A CLIP with open_clip's own modules learns rendered pictures and, given CIFAR-10's training pictures, photographs. Per step the loss has two
parts: every image against every word of each of its criteria in one drawn template (with a few random words of the tokenizer's vocabulary,
which are never right), and CLIP's symmetric contrast between images and one caption each, with soft targets where a caption repeats.
Renders are drawn once and kept in DIR; training resumes from the last checkpoint after an interruption.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import random
import tarfile
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from PIL import Image
from safetensors.torch import save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from mmclust.data.rendered import COLORS, EMOTIONS, FRUITS, GLASSES, POSES, RANKS, SUITS, World
from tools.mini_captions import (
    FULL,
    PHOTO_CLASSES,
    PHOTO_ENVIRONMENT,
    PHOTO_TYPE,
    PLAIN,
    TEMPLATES,
    VOCABULARY,
    held_out,
)

SIZE = 96
MODEL = {
    "embed_dim": 128,
    "vision_cfg": {
        "image_size": SIZE,
        "layers": 6,
        "width": 192,
        "head_width": 64,
        "patch_size": 16,
    },
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 3},
    "quick_gelu": True,
}
PREPROCESS = {
    "mean": open_clip.OPENAI_DATASET_MEAN,
    "std": open_clip.OPENAI_DATASET_STD,
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
BATCH = {"fruit": 24, "card": 40, "face": 36, "photo": 28}  # images of each domain in a step
PEAK_LR, WARMUP, RANDOM_WORDS = 1e-3, 300, 4
CONTEXT = 20  # positions that captions reach in training
WORLDS = {
    "fruit": World("train-fruit", "fruit", {"color": tuple(COLORS), "species": FRUITS}, {}),
    "card": World("train-card", "card", {"order": tuple(RANKS), "suits": tuple(SUITS)}, {}),
    "face": World(
        "train-face",
        "face",
        {
            "identity": tuple(f"stranger {i}" for i in range(5000)),
            "emotion": EMOTIONS,
            "glasses": GLASSES,
            "pose": POSES,
        },
        {},
    ),
}
KEPT_OUT = 500  # the last photographs of each class, for tuning


# --- pictures ------------------------------------------------------------------------------------------------------------------------


def _render(domain: str, index: int) -> tuple[np.ndarray, dict]:
    """Training picture `index` of a world, drawn at 128 px as the data sets are and resized as the encoder's preprocessing does."""
    world = WORLDS[domain]
    row = next(
        row
        for attempt in range(1000)
        if not held_out(row := world.sample_one(index + attempt * 10_000_000))
    )
    return np.asarray(
        world.render(row, index, size=128).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    ), row


def render_pool(
    folder: Path, counts: dict[str, int], workers: int
) -> dict[str, tuple[np.ndarray, list[dict]]]:
    """Per domain the pixels, (n, 96, 96, 3) uint8 memory-mapped, and their factors; drawn once, in parallel."""
    pools = {}
    for domain, count in counts.items():
        pixels, rows = (
            folder / f"renders-{domain}-{count}.npy",
            folder / f"renders-{domain}-{count}.json",
        )
        if not rows.exists():
            out = np.lib.format.open_memmap(pixels, "w+", np.uint8, (count, SIZE, SIZE, 3))
            with ProcessPoolExecutor(workers) as pool:
                drawn = []
                for i, (picture, row) in enumerate(
                    tqdm(
                        pool.map(partial(_render, domain), range(count), chunksize=64),
                        total=count,
                        desc=domain,
                    )
                ):
                    out[i] = picture
                    drawn.append(row)
            out.flush()
            rows.write_text(json.dumps(drawn))
        pools[domain] = np.load(pixels, mmap_mode="r"), json.loads(rows.read_text())
    return pools


def photographs(path: Path) -> tuple[np.ndarray, list[str]]:
    """All CIFAR-10 training pictures below `path`, (n, 32, 32, 3) uint8, and their classes, in the order of their names.

    `path` is an archive or a folder of class folders (`train/<class>/<number>.jpg`), or a folder for torchvision's own copy.
    """
    if path.is_dir() and not any(p.is_dir() and p.name in PHOTO_CLASSES for p in path.rglob("*")):
        from torchvision.datasets import CIFAR10

        data = CIFAR10(path, train=True, download=True)
        return data.data, [PHOTO_CLASSES[t] for t in data.targets]
    if path.is_dir():
        named = [
            (p.relative_to(path), p.read_bytes())
            for p in sorted(path.rglob("*.*"))
            if p.parent.name in PHOTO_CLASSES
        ]
    else:
        with tarfile.open(path) as archive:
            named = sorted(
                (Path(m.name), cast(IO[bytes], archive.extractfile(m)).read())
                for m in archive
                if m.isfile() and Path(m.name).parent.name in PHOTO_CLASSES
            )
    return np.stack([np.asarray(Image.open(io.BytesIO(b)).convert("RGB")) for _, b in named]), [
        p.parent.name for p, _ in named
    ]


def split_photographs(classes: list[str]) -> tuple[list[int], list[int]]:
    """Indices to train on, and the last `KEPT_OUT` of each class."""
    by_class = defaultdict(list)
    for i, c in enumerate(classes):
        by_class[c].append(i)
    return [i for v in by_class.values() for i in v[:-KEPT_OUT]], [
        i for v in by_class.values() for i in v[-KEPT_OUT:]
    ]


def photo_row(name: str) -> dict:
    return {"class": name, "type": PHOTO_TYPE[name], "environment": PHOTO_ENVIRONMENT[name]}


def augment(pixels: torch.Tensor, photo: bool, generator: torch.Generator) -> torch.Tensor:
    """uint8 (b, 3, h, w) to normalised float (b, 3, 96, 96): a shift, gain and offset per image; photographs are also mirrored."""
    x = pixels.float() / 255
    if photo:
        x = F.interpolate(x, (SIZE, SIZE), mode="bicubic", align_corners=False).clamp(0, 1)
        mirrored = torch.rand(len(x), generator=generator) < 0.5
        x[mirrored] = x[mirrored].flip(-1)
    reach = 12 if photo else 2
    padded = F.pad(x, [reach] * 4, mode="replicate")
    shifts = torch.randint(0, 2 * reach + 1, (len(x), 2), generator=generator).tolist()
    x = torch.stack([p[:, i : i + SIZE, j : j + SIZE] for p, (i, j) in zip(padded, shifts)])
    x = x * (0.85 + 0.3 * torch.rand(len(x), 1, 1, 1, generator=generator)) + 0.1 * (
        torch.rand(len(x), 3, 1, 1, generator=generator) - 0.5
    ) * (2.0 if photo else 0.4)
    mean, std = (torch.tensor(PREPROCESS[k])[:, None, None] for k in ("mean", "std"))
    return (x - mean) / std


# --- captions ------------------------------------------------------------------------------------------------------------------------


def true_words(domain: str, row: dict) -> dict[str, list[int]]:
    """criterion -> indices of the vocabulary entries that hold for a picture."""
    out = {}
    for criterion, entries in VOCABULARY[domain].items():
        value = row["class"] if domain == "photo" else row[criterion]
        out[criterion] = [i for i, (_, values) in enumerate(entries) if value in values]
    return out


def caption(domain: str, row: dict, rng: random.Random) -> tuple[str, str | None]:
    """One caption at random, the full description, one criterion, or the kind of picture alone; and the value where it names one criterion."""
    kind = rng.random()
    if kind < 0.08:
        return rng.choice(PLAIN[domain]), None
    true = true_words(domain, row)
    words = {
        c: rng.choice(VOCABULARY[domain][c][rng.choice(indices)][0]) for c, indices in true.items()
    }
    if kind < 0.55:
        return rng.choice(FULL[domain]).format(**words), None
    criterion = rng.choice(list(words))
    return rng.choice(TEMPLATES[criterion]).format(words[criterion]), row.get(criterion)


class Text:
    """Captions to compact tokens: rows of the embedding that no caption uses stay as they were drawn, and cost nothing."""

    def __init__(self) -> None:
        self.tokenize: Any = open_clip.get_tokenizer("ViT-B-32")
        self.cache: dict[str, list[int]] = {}
        self.words = [
            w[:-4]
            for w in self.tokenize.encoder
            if w.endswith("</w>") and w[:-4].isalpha() and w.isascii() and 3 <= len(w) - 4 <= 12
        ]

    def __call__(self, captions: list[str]) -> torch.Tensor:
        for c in set(captions) - self.cache.keys():
            ids = [self.tokenize.sot_token_id, *self.tokenize.encode(c), self.tokenize.eot_token_id]
            self.cache[c] = ids + [0] * (CONTEXT - len(ids))
        return torch.tensor([self.cache[c] for c in captions])

    def vocabulary(self) -> list[int]:
        """Token ids of all that captions say, with the template's placeholder."""
        text = [t.replace("{}", "*") for ts in TEMPLATES.values() for t in ts] + [
            t for ts in PLAIN.values() for t in ts
        ]
        text += [
            w
            for v in VOCABULARY.values()
            for entries in v.values()
            for words, _ in entries
            for w in words
        ]
        text += [t.replace("{", " ").replace("}", " ") for ts in FULL.values() for t in ts]
        return sorted(
            {i for t in text for i in self.tokenize.encode(t)}
            | {self.tokenize.sot_token_id, self.tokenize.eot_token_id}
        )


def encode_text(model: CLIP, tokens: torch.Tensor, embedding: torch.nn.Module) -> torch.Tensor:
    """Cropped captions, (b, CONTEXT) token ids, to unit vectors (b, 128)."""
    length = int((tokens != 0).sum(1).max())
    tokens = tokens[:, :length]
    x = model.transformer(
        embedding(tokens) + model.positional_embedding[:length],
        attn_mask=model.attn_mask[:length, :length],
    )
    x = model.ln_final(x)[torch.arange(len(x)), tokens.argmax(-1)].float()
    return F.normalize(x @ model.text_projection, dim=-1)


# --- training ------------------------------------------------------------------------------------------------------------------------


class Embedding(torch.nn.Module):
    """The rows that captions use are learned; the others stay as drawn."""

    frozen: torch.Tensor
    slot: torch.Tensor
    ids: torch.Tensor

    def __init__(self, weight: torch.Tensor, ids: list[int]) -> None:
        super().__init__()
        self.register_buffer("frozen", weight)
        self.register_buffer(
            "slot",
            torch.full((len(weight),), -1).index_put((torch.tensor(ids),), torch.arange(len(ids))),
        )
        self.register_buffer("ids", torch.tensor(ids))
        self.rows = torch.nn.Parameter(weight[ids].clone())

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        slot = self.slot[tokens]
        return torch.where(
            (slot >= 0)[..., None], self.rows[slot.clamp(min=0)], self.frozen[tokens]
        )

    def table(self) -> torch.Tensor:
        return self.frozen.index_put((self.ids,), self.rows.detach())


def soft_cross_entropy(
    logits: torch.Tensor, true: torch.Tensor, left_out: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy against a uniform choice among the true columns of each row, without the columns that are left out."""
    target = true.float() / true.sum(1, keepdim=True)
    return -(target * logits.masked_fill(left_out, -1e4).log_softmax(1)).sum(1).mean()


def silent(row: dict, value: str) -> bool:
    """Whether `value` would make a held-back pair with what the picture shows.

    Training never sees such a pair, so it could learn that a red picture is not an apple because it is red. A held-back word is therefore
    not used as a wrong answer either.
    """
    partner = {"color": "species", "species": "color", "order": "suits", "suits": "order"}
    return any(
        c in row and value in domain_values(c) and held_out(row | {c: value}) for c in partner
    )


@cache
def domain_values(criterion: str) -> frozenset:
    return frozenset(
        {"color": COLORS, "species": FRUITS, "order": RANKS, "suits": SUITS}[criterion]
    )


def step_loss(
    model: Any,
    embedding: Embedding,
    text: Text,
    pixels: torch.Tensor,
    domains: list[str],
    rows: list[dict],
    rng: random.Random,
) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        images = model.visual(pixels)
    images = F.normalize(images.float(), dim=-1)
    scale = model.logit_scale.exp().clamp(max=100)
    drawn, groups = [caption(d, r, rng) for d, r in zip(domains, rows)], []
    captions = [text_of for text_of, _ in drawn]
    for domain, criteria in VOCABULARY.items():
        members = [i for i, d in enumerate(domains) if d == domain]
        for criterion, entries in criteria.items():
            template = rng.choice(TEMPLATES[criterion])
            words = [rng.choice(synonyms) for synonyms, _ in entries] + rng.sample(
                text.words, RANDOM_WORDS
            )
            true, left_out = torch.zeros(2, len(members), len(words), dtype=torch.bool)
            for k, i in enumerate(members):
                true[k, true_words(domain, rows[i])[criterion]] = True
                left_out[
                    k,
                    [j for j, (_, values) in enumerate(entries) if silent(rows[i], *values)]
                    if domain in ("fruit", "card")
                    else [],
                ] = True
            groups.append((members, len(captions), len(words), true, left_out))
            captions += [template.format(w) for w in words]
    unique = {c: i for i, c in enumerate(dict.fromkeys(captions))}
    with torch.autocast("cpu", torch.bfloat16):
        texts = encode_text(model, text(list(unique)), embedding).float()
    texts = texts[[unique[c] for c in captions]]
    n = len(rows)
    logits = scale * images @ texts[:n].T
    same = torch.tensor([unique[c] for c in captions[:n]])
    same = same[:, None] == same[None]
    left_out = torch.tensor(
        [[value is not None and silent(row, value) for _, value in drawn] for row in rows]
    )
    contrast = (
        soft_cross_entropy(logits, same, left_out) + soft_cross_entropy(logits.T, same, left_out.T)
    ) / 2
    by_word = (
        sum(
            soft_cross_entropy(scale * images[m] @ texts[start : start + k].T, true, out) * len(m)
            for m, start, k, true, out in groups
        )
        / n
    )
    return contrast + by_word


def train(
    out: Path, photos: Path | None, steps: int, seed: int, renders: int, workers: int
) -> None:
    start = time.time()
    out.mkdir(parents=True, exist_ok=True)
    total = sum(BATCH.values())
    counts = {d: int(renders * BATCH[d] / (total - BATCH["photo"])) for d in WORLDS}
    data = render_pool(out, counts, workers)
    batch = dict(BATCH)
    if photos:
        pixels, classes = photographs(photos)
        keep, _ = split_photographs(classes)
        data["photo"] = pixels[keep], [photo_row(classes[i]) for i in keep]
    else:
        batch.pop("photo")
    torch.manual_seed(seed)
    model, text = CLIP(**MODEL).train(), Text()
    embedding = Embedding(model.token_embedding.weight.detach().clone(), text.vocabulary())
    model.token_embedding.requires_grad_(False)
    learned = [
        (n, p) for n, p in [*model.named_parameters(), ("rows", embedding.rows)] if p.requires_grad
    ]
    plain = [
        p
        for n, p in learned
        if p.ndim < 2 or n in ("rows", "positional_embedding", "visual.positional_embedding")
    ]
    decayed = [p for n, p in learned if not any(p is q for q in plain)]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
        lr=PEAK_LR,
        betas=(0.9, 0.98),
    )
    first, spent = 0, 0.0
    if (checkpoint := out / "checkpoint.pt").exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["steps"] != steps or state["seed"] != seed:
            raise SystemExit(
                f"{checkpoint} belongs to a run of {state['steps']} steps with seed {state['seed']}: give another --out or remove it"
            )
        (
            model.load_state_dict(state["model"]),
            embedding.load_state_dict(state["embedding"]),
            optimizer.load_state_dict(state["optimizer"]),
        )
        first, spent = state["step"], state["seconds"]
    bar = tqdm(range(first, steps), initial=first, total=steps, mininterval=30)
    for step in bar:
        rng, generator = (
            random.Random(seed * 1_000_003 + step),
            torch.Generator().manual_seed(seed * 1_000_003 + step),
        )
        for group in optimizer.param_groups:
            group["lr"] = PEAK_LR * min(
                (step + 1) / WARMUP, 0.5 * (1 + math.cos(math.pi * step / steps)) + 1e-3
            )
        images, domains, rows = [], [], []
        for domain, size in batch.items():
            pool, labels = data[domain]
            chosen = rng.sample(range(len(labels)), size)
            images.append(
                augment(
                    torch.from_numpy(pool[sorted(chosen)]).permute(0, 3, 1, 2),
                    domain == "photo",
                    generator,
                )
            )
            domains += [domain] * size
            rows += [labels[i] for i in sorted(chosen)]
        with sdpa_kernel(
            SDPBackend.MATH
        ):  # on short sequences the fused kernel's backward is the slower one on a CPU
            loss = step_loss(model, embedding, text, torch.cat(images), domains, rows, rng)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in learned], 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100))
        done = step + 1
        if done % 100 == 0:
            print(
                f"step {done}/{steps}  {spent + time.time() - start:.0f} s  loss {loss.item():.3f}  scale {model.logit_scale.exp().item():.1f}",
                flush=True,
            )
        if done % 250 == 0 or done == steps:
            state = {
                "model": model.state_dict(),
                "embedding": embedding.state_dict(),
                "optimizer": optimizer.state_dict(),
            }
            torch.save(
                state
                | {
                    "step": done,
                    "steps": steps,
                    "seed": seed,
                    "seconds": spent + time.time() - start,
                },
                out / "checkpoint.tmp",
            )
            (out / "checkpoint.tmp").replace(checkpoint)
        for part, name in ((steps // 4, "quarter"), (steps // 2, "half"), (steps, "full")):
            if done == part:
                export(model, embedding, out / name)
    print(f"trained {steps} steps in {spent + time.time() - start:.0f} s (rendering included)")


def export(model: CLIP, embedding: Embedding, folder: Path) -> None:
    """A folder that open_clip loads as `local-dir:`: architecture and preprocessing, and float16 weights in the original CLIP layout."""
    folder.mkdir(parents=True, exist_ok=True)
    state = model.state_dict() | {"token_embedding.weight": embedding.table()}
    save_file(
        {k: v.to(torch.float16).contiguous() for k, v in state.items()},
        folder / "open_clip_model.safetensors",
    )
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}, indent=2) + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder for renders, checkpoints and the exported weights",
    )
    parser.add_argument(
        "--photos",
        type=Path,
        help="CIFAR-10 training pictures: an archive of class folders, such a folder, or a folder for torchvision's download",
    )
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument(
        "--renders", type=int, default=80_000, help="pictures drawn once before training"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes that draw")
    args = parser.parse_args()
    train(args.out, args.photos, args.steps, args.seed, args.renders, args.workers)


if __name__ == "__main__":
    main()
