"""Train the embedded encoder: `python -m tools.train_mini --out DIR [--photos ARCHIVE_OR_FOLDER]`.

A CLIP with open_clip's own modules learns rendered pictures and, if CIFAR-10's training pictures
are available, photographs. The loss of a step is the sum of two:

- each image against all words of each of its criteria in one random template, together with a few
  random words of the tokenizer's vocabulary, which are never right;
- CLIP's symmetric contrast between images and one caption each, with soft targets if a caption
  occurs more than once.

Pictures are drawn once and stored in DIR; an interrupted training continues from its last
checkpoint. Each exported folder has the vocabulary of the captions as well (`vocabulary.json`).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from safetensors.torch import load_file, save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from mmclust.encoders.mini import FOLDER
from tools.mini_captions import (
    FULL,
    PLAIN,
    TEMPLATES,
    VOCABULARY,
    caption,
    completes_held_out_pair,
    training_vocabulary,
    true_words,
)
from tools.mini_pictures import (
    PREPROCESS,
    SIZE,
    WORLDS,
    Pool,
    augment,
    photo_row,
    photographs,
    render_pool,
    split_photographs,
)

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
BATCH = {"fruit": 24, "card": 40, "face": 36, "photo": 28}  # images of each domain in a step
PEAK_LR = 1e-3
WARMUP = 300  # steps
RANDOM_WORDS = 4  # wrong answers in each comparison
CONTEXT = 20  # tokens of a caption in training, at most
MAX_SCALE = 100
CHECKPOINT_EVERY = 250  # steps
PRINT_EVERY = 100


class Tokenizer:
    """CLIP's tokenizer, and its plain words."""

    def __init__(self) -> None:
        self.tokenize: Any = open_clip.get_tokenizer("ViT-B-32")
        self.cache: dict[str, list[int]] = {}
        words = [token[:-4] for token in self.tokenize.encoder if token.endswith("</w>")]
        self.words = [w for w in words if w.isalpha() and w.isascii() and 3 <= len(w) <= 12]

    def encode(self, texts: list[str], length: int) -> torch.Tensor:
        """Token ids (n, length), padded with 0; longer texts are cut."""
        for text in set(texts) - self.cache.keys():
            ids = self.tokenize.encode(text)[: length - 2]
            ids = [self.tokenize.sot_token_id, *ids, self.tokenize.eot_token_id]
            self.cache[text] = ids + [0] * (length - len(ids))
        return torch.tensor([self.cache[text] for text in texts])

    def ids_in(self, texts: list[str]) -> list[int]:
        """The ids of all tokens of the texts."""
        ids = {i for text in texts for i in self.tokenize.encode(text)}
        return sorted(ids | {self.tokenize.sot_token_id, self.tokenize.eot_token_id})


class Text(Tokenizer):
    """Captions to token ids."""

    def __call__(self, captions: list[str]) -> torch.Tensor:
        return self.encode(captions, CONTEXT)

    def token_ids(self) -> list[int]:
        """The ids of all tokens of the captions, with the placeholder of templates."""
        texts = [t.replace("{}", "*") for ts in TEMPLATES.values() for t in ts]
        texts += [t for ts in PLAIN.values() for t in ts]
        texts += [w for c in training_vocabulary().values() for words in c.values() for w in words]
        texts += [t.replace("{", " ").replace("}", " ") for ts in FULL.values() for t in ts]
        return self.ids_in(texts)


class Embedding(torch.nn.Module):
    """A token embedding of which only the rows that captions use are learned."""

    frozen: torch.Tensor
    slot: torch.Tensor
    ids: torch.Tensor

    def __init__(self, weight: torch.Tensor, ids: list[int]) -> None:
        super().__init__()
        slot = torch.full((len(weight),), -1)
        self.register_buffer("frozen", weight)
        self.register_buffer("slot", slot.index_put((torch.tensor(ids),), torch.arange(len(ids))))
        self.register_buffer("ids", torch.tensor(ids))
        self.rows = torch.nn.Parameter(weight[ids].clone())

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        slot = self.slot[tokens]
        learned = self.rows[slot.clamp(min=0)]
        return torch.where((slot >= 0)[..., None], learned, self.frozen[tokens])

    def table(self) -> torch.Tensor:
        return self.frozen.index_put((self.ids,), self.rows.detach())


def encode_text(model: CLIP, tokens: torch.Tensor, embedding: torch.nn.Module) -> torch.Tensor:
    """Token ids (b, CONTEXT) to unit vectors (b, 128), without padding."""
    length = int((tokens != 0).sum(1).max())
    tokens = tokens[:, :length]
    x = embedding(tokens) + model.positional_embedding[:length]
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    x = model.ln_final(x)[torch.arange(len(x)), tokens.argmax(-1)].float()
    return F.normalize(x @ model.text_projection, dim=-1)


def soft_cross_entropy(
    logits: torch.Tensor, true: torch.Tensor, left_out: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy with a uniform target over the true columns of each row.

    Columns that are left out do not count.
    """
    target = true.float() / true.sum(1, keepdim=True)
    return -(target * logits.masked_fill(left_out, -1e4).log_softmax(1)).sum(1).mean()


class Comparison:
    """Images of one domain against the words of one criterion in a template."""

    def __init__(
        self, domain: str, criterion: str, members: list[int], rows: list[dict], text: Text,
        rng: random.Random,
    ) -> None:  # fmt: skip
        entries = VOCABULARY[domain][criterion]
        template = rng.choice(TEMPLATES[criterion])
        words = [rng.choice(synonyms) for synonyms, _ in entries]
        words += rng.sample(text.words, RANDOM_WORDS)
        self.members = members
        self.captions = [template.format(word) for word in words]
        self.true, self.left_out = torch.zeros(2, len(members), len(words), dtype=torch.bool)
        for k, i in enumerate(members):
            self.true[k, true_words(domain, rows[i])[criterion]] = True
            if domain in ("fruit", "card"):
                hidden = [completes_held_out_pair(rows[i], *values) for _, values in entries]
                self.left_out[k, : len(entries)] = torch.tensor(hidden)


def step_loss(
    model: Any, embedding: Embedding, text: Text, pixels: torch.Tensor, domains: list[str],
    rows: list[dict], rng: random.Random,
) -> torch.Tensor:  # fmt: skip
    """The loss of a batch: pixels (n, 3, 96, 96), the domain of each picture and what it shows."""
    n = len(rows)
    with torch.autocast("cpu", torch.bfloat16):
        images = model.visual(pixels)
    images = F.normalize(images.float(), dim=-1)
    scale = model.logit_scale.exp().clamp(max=MAX_SCALE)
    drawn = [caption(domain, row, rng) for domain, row in zip(domains, rows)]
    captions = [words for words, _ in drawn]
    comparisons = []
    for domain, criteria in VOCABULARY.items():
        members = [i for i, d in enumerate(domains) if d == domain]
        for criterion in criteria:
            comparison = Comparison(domain, criterion, members, rows, text, rng)
            comparisons.append(comparison)
            captions += comparison.captions
    unique = {words: i for i, words in enumerate(dict.fromkeys(captions))}
    index = torch.tensor([unique[words] for words in captions])
    with torch.autocast("cpu", torch.bfloat16):
        texts = encode_text(model, text(list(unique)), embedding).float()
    texts = texts[index]
    logits = scale * images @ texts[:n].T
    same = index[:n, None] == index[None, :n]
    left_out = torch.tensor(
        [
            [value is not None and completes_held_out_pair(row, value) for _, value in drawn]
            for row in rows
        ]
    )
    by_row = soft_cross_entropy(logits, same, left_out)
    by_column = soft_cross_entropy(logits.T, same, left_out.T)
    by_word: Any = 0
    start = n
    for c in comparisons:
        word_logits = scale * images[c.members] @ texts[start : start + len(c.captions)].T
        by_word += soft_cross_entropy(word_logits, c.true, c.left_out) * len(c.members)
        start += len(c.captions)
    return (by_row + by_column) / 2 + by_word / n


class Training:
    """A model in training: its state, its batches, its steps."""

    def __init__(self, data: dict[str, Pool], steps: int, seed: int) -> None:
        self.data = data
        self.steps = steps
        self.seed = seed
        self.step = 0  # steps done
        self.seconds = 0.0  # of earlier runs
        torch.manual_seed(seed)
        self.model = CLIP(**MODEL).train()
        self.text = Text()
        weight = self.model.token_embedding.weight.detach().clone()
        self.embedding = Embedding(weight, self.text.token_ids())
        self.model.token_embedding.requires_grad_(False)
        without_decay = ("rows", "positional_embedding", "visual.positional_embedding")
        plain = [p for name, p in self.learned if p.ndim < 2 or name in without_decay]
        decayed = [p for _, p in self.learned if not any(p is other for other in plain)]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
            lr=PEAK_LR,
            betas=(0.9, 0.98),
        )

    @cached_property
    def learned(self) -> list[tuple[str, torch.nn.Parameter]]:
        parameters = [*self.model.named_parameters(), ("rows", self.embedding.rows)]
        return [(name, p) for name, p in parameters if p.requires_grad]

    def resume(self, checkpoint: Path) -> None:
        state = torch.load(checkpoint, weights_only=True)
        if state["steps"] != self.steps or state["seed"] != self.seed:
            raise SystemExit(
                f"{checkpoint} belongs to a run of {state['steps']} steps with seed "
                f"{state['seed']}: use another --out, or remove it"
            )
        self.model.load_state_dict(state["model"])
        self.embedding.load_state_dict(state["embedding"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self.seconds = state["seconds"]

    def save(self, checkpoint: Path, seconds: float) -> None:
        state = {
            "model": self.model.state_dict(),
            "embedding": self.embedding.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "steps": self.steps,
            "seed": self.seed,
            "seconds": seconds,
        }
        temporary = checkpoint.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(checkpoint)

    def batch(self) -> tuple[torch.Tensor, list[str], list[dict], random.Random]:
        """Pixels, domains and what the pictures show, drawn for this step."""
        step_seed = self.seed * 1_000_003 + self.step
        rng = random.Random(step_seed)
        generator = torch.Generator().manual_seed(step_seed)
        images = []
        domains = []
        rows = []
        for domain, size in BATCH.items():
            if domain not in self.data:
                continue
            pool, labels = self.data[domain]
            chosen = sorted(rng.sample(range(len(labels)), size))
            pixels = torch.from_numpy(pool[chosen]).permute(0, 3, 1, 2)
            images.append(augment(pixels, domain == "photo", generator))
            domains += [domain] * size
            rows += [labels[i] for i in chosen]
        return torch.cat(images), domains, rows, rng

    def do_step(self) -> float:
        """One step of the optimizer; returns the loss."""
        cosine = 0.5 * (1 + math.cos(math.pi * self.step / self.steps)) + 1e-3
        for group in self.optimizer.param_groups:
            group["lr"] = PEAK_LR * min((self.step + 1) / WARMUP, cosine)
        pixels, domains, rows, rng = self.batch()
        # on short sequences the backward pass of the fused kernel is slower on a CPU
        with sdpa_kernel(SDPBackend.MATH):
            loss = step_loss(self.model, self.embedding, self.text, pixels, domains, rows, rng)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in self.learned], 1.0)
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=math.log(MAX_SCALE))
        self.step += 1
        return loss.item()


def train(
    out: Path, photos: Path | None, steps: int, seed: int, renders: int, workers: int
) -> None:
    """Train for `steps` steps; `out` gets renders, checkpoints and the exported models."""
    start = time.time()
    out.mkdir(parents=True, exist_ok=True)
    rendered = sum(BATCH[domain] for domain in WORLDS)
    counts = {domain: int(renders * BATCH[domain] / rendered) for domain in WORLDS}
    data = render_pool(out, counts, workers)
    if photos:
        pixels, classes = photographs(photos)
        chosen, _ = split_photographs(classes)
        data["photo"] = pixels[chosen], [photo_row(classes[i]) for i in chosen]
    training = Training(data, steps, seed)
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        training.resume(checkpoint)
    start -= training.seconds
    first = training.step
    exports = {steps // 4: "quarter", steps // 2: "half", steps: "full"}
    for _ in tqdm(range(first, steps), initial=first, total=steps, mininterval=30):
        loss = training.do_step()
        done = training.step
        if done % PRINT_EVERY == 0:
            scale = training.model.logit_scale.exp().item()
            seconds = time.time() - start
            print(f"step {done}/{steps}  {seconds:.0f} s  loss {loss:.3f}  scale {scale:.1f}")
        if done % CHECKPOINT_EVERY == 0 or done == steps:
            training.save(checkpoint, time.time() - start)
        if done in exports:
            export(training.model, training.embedding, out / exports[done])
    print(f"trained {steps} steps in {time.time() - start:.0f} s (rendering included)")


def export(model: CLIP, embedding: Embedding, folder: Path) -> None:
    """Write a folder that open_clip loads as `local-dir:`, with the vocabulary of the captions.

    The weights are float16 in the layout of the original CLIP.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = model.state_dict() | {"token_embedding.weight": embedding.table()}
    half = {k: v.to(torch.float16).contiguous() for k, v in state.items()}
    save_file(half, folder / "open_clip_model.safetensors")
    config = {"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}
    for name, value in {"open_clip_config": config, "vocabulary": training_vocabulary()}.items():
        (folder / f"{name}.json").write_text(json.dumps(value, indent=2) + "\n")


def write_checkpoint(folder: Path, checkpoint: str) -> None:
    """Store what differs from the final weights in an exported folder, "quarter" or "half"."""
    final = load_file(FOLDER / "open_clip_model.safetensors")
    state = load_file(folder / "open_clip_model.safetensors")
    table = state.pop("token_embedding.weight")
    ids = (table != final["token_embedding.weight"]).any(1).nonzero()[:, 0]
    state |= {"token_ids": ids, "token_rows": table[ids].contiguous()}
    save_file(state, FOLDER / f"checkpoint-{checkpoint}.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for renders, checkpoints and weights"
    )
    parser.add_argument(
        "--photos",
        type=Path,
        help="CIFAR-10 training pictures: an archive or a folder of class folders, or a folder for "
        "torchvision's download",
    )
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument(
        "--renders", type=int, default=80_000, help="number of pictures drawn before training"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="number of processes that draw")
    args = parser.parse_args()
    train(args.out, args.photos, args.steps, args.seed, args.renders, args.workers)


if __name__ == "__main__":
    main()
