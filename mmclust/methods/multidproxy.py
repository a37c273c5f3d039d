"""Multi-DProxy: Multi-modal Dynamic Proxy Learning for Personalized Multiple Clustering (AAAI 2026, arXiv 2511.07274). No code was released."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Sized
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import nn
from tqdm import tqdm

from mmclust.methods.base import ProxyClusterer, kmeans, nearest, torch_generator
from mmclust.methods.multisub import mix
from mmclust.methods.training import (
    ClusteringAgreement,
    History,
    PerImageParameters,
    make_optimizer,
)

if TYPE_CHECKING:
    from mmclust.encoders.base import Encoder
    from mmclust.encoders.prompt import PromptEncoder

REPRESENTATIONS = ("fused", "text", "visual", "concatenation", "word")
CHOICES = {
    "representation": REPRESENTATIONS,
    "score": ("mean", "max"),
    "fusion": ("gated", "concatenation", "none"),
    "modality": ("both", "text", "visual"),
    "tokens": ("pooled", "all"),
    "repel": ("other", "all"),
    "user_reduction": ("relative", "sum", "mean"),
}


class MultiDProxy(ProxyClusterer):
    """Proxies over candidates that are pruned while they are learned, fused with the image by gated cross-modal attention.

    w_i = sum_k a_ik c_k with a_ik = softmax_k(w'_i . c_k / tau_alpha) over the current candidates c; V = v_i and T = t(w_i) pass through L
    gated fusion layers and become F = lam T + (1 - lam) V. The loss is L_a + alpha(t) L_u + beta(t) L_c (+ an alignment of t(w_i) with v_i).
    Every R epochs the better half of the candidates is kept, until M remain.

    What the summary that we could read leaves open [?] is a parameter here: pooled or patch and prompt tokens, the alignment term of the
    overview figure, which negatives L_c repels and whether its gradient reaches them, how candidates are scored.

    Args:
        encoder, template, words: as for `MultiSub`.
        n_clusters: M, or "auto": chosen on t(w) before the first pruning, or at the end where there is none, see `choose_n_clusters`.
        representation: what k-means clusters: "fused" F, "text" T, "visual" V, "concatenation" [T, V] after the layers, or "word" w.
        epochs: E, full-batch steps (paper: 1000). lr, weight_decay: Adam's; fusion_lr: its rate for the fusion layers, None takes lr.
        update_every: R. dynamic: prune candidates at all.
        score: candidates by their "mean" cosine to the M centres of the proxies (paper) or the "max" (favours none that is generic).
        fusion: "gated"; "concatenation", F = [T, V] of what went in, the paper's ablation; or "none", F = lam T + (1 - lam) V of what went in.
        modality: "both"; "text", F = T alone; or "visual", F = V alone.
        tokens: "pooled", one per modality, so that attention is a linear map; or "all", patch and prompt tokens, read at the class token and at
            end-of-text. The latter keeps all patch tokens in memory.
        layers: L fusion layers of `heads` heads.
        tau: temperature of lam = sigmoid(<T, V> / tau). tau_alpha: temperature of the weights.
        sigma: temperature of L_c. negatives: images it is computed on per epoch. hard: of these, the most similar ones that count.
        repel: "other" restricts L_c to images whose heaviest candidate is another one, "all" repels every image.
        negatives_grad: whether L_c also moves its negatives' proxies [?].
        user_weight, concept_weight: scale alpha(t) and beta(t); 0 leaves the constraint out.
        align_weight: weight of mean_i (1 - cos(t(w_i), v_i)); 0 is the loss without it.
        user_reduction: "relative" divides L_u by the mean squared norm of the candidates, "sum" and "mean" go over dimensions [?].
        early_stopping: stop when the clusterings of `n_checks` + 1 successive checks, `check_every` epochs apart, agree (ARI of at least
            `agreement`); never before the last pruning.
        chunk_size, n_init, random_state, verbose: as for `MultiSub`; the seed also draws the fusion layers and the negatives.

    Attributes:
        labels_: int64 (n,). weights_: a, float32 (n, K'), over the candidates that are left, `candidates_`.
        proxies_: w (n, e). text_, visual_, fused_: float32 (n, d), L2-normalised. prompt_embeddings_: t(w) (n, d). mixing_: lam (n,).
        history_: per epoch the loss and its terms; seconds_: what each took; updates_: per pruning the epoch and the candidates kept.
        n_clusters_: M. n_clusters_curve_: with "auto", the criterion by M. cluster_centers_: (M, width).
    """

    def __init__(
        self, encoder: Encoder | None = None, words: Sequence[str] | None = None, *, template: str | None = None, n_clusters: int | str = 8,
        representation: str = "fused", epochs: int = 1000, lr: float = 5e-3, fusion_lr: float | None = None, weight_decay: float = 0.0, update_every: int = 100,
        dynamic: bool = True, score: str = "mean", fusion: str = "gated", modality: str = "both", tokens: str = "pooled", layers: int = 2,
        heads: int = 4, tau: float = 0.07, tau_alpha: float = 1.0, sigma: float = 0.5, negatives: int = 256, hard: int = 32, repel: str = "other",
        negatives_grad: bool = False, user_weight: float = 1.0, concept_weight: float = 1.0, align_weight: float = 1.0,
        user_reduction: str = "relative", early_stopping: bool = False, check_every: int = 5, n_checks: int = 3, agreement: float = 0.99,
        chunk_size: int = 4096, n_init: int = 1, random_state: int | np.random.RandomState | None = None, verbose: bool = False,
    ) -> None:  # fmt: skip
        self.encoder, self.template, self.words, self.n_clusters, self.representation = (
            encoder,
            template,
            words,
            n_clusters,
            representation,
        )
        self.epochs, self.lr, self.fusion_lr, self.weight_decay = (
            epochs,
            lr,
            fusion_lr,
            weight_decay,
        )
        self.update_every, self.dynamic, self.score = update_every, dynamic, score
        self.fusion, self.modality, self.tokens, self.layers, self.heads = (
            fusion,
            modality,
            tokens,
            layers,
            heads,
        )
        self.tau, self.tau_alpha, self.sigma, self.negatives, self.hard, self.repel = (
            tau,
            tau_alpha,
            sigma,
            negatives,
            hard,
            repel,
        )
        self.negatives_grad, self.user_weight, self.concept_weight, self.align_weight = (
            negatives_grad,
            user_weight,
            concept_weight,
            align_weight,
        )
        self.user_reduction, self.early_stopping, self.check_every = (
            user_reduction,
            early_stopping,
            check_every,
        )
        self.n_checks, self.agreement = n_checks, agreement
        self.chunk_size, self.n_init, self.random_state, self.verbose = (
            chunk_size,
            n_init,
            random_state,
            verbose,
        )

    def _check(self, images: Sized) -> None:
        super()._check(images)
        self._choices(self, **CHOICES)
        if (
            min(self.tau, self.tau_alpha, self.sigma) <= 0
            or min(self.update_every, self.layers, self.heads, self.negatives, self.hard) < 1
        ):
            raise ValueError(
                "temperatures are above 0; update_every, layers, heads, negatives and hard at least 1"
            )
        if (
            min(
                self.user_weight,
                self.concept_weight,
                self.align_weight,
                self.lr,
                self.fusion_lr or 0,
                self.weight_decay,
            )
            < 0
        ):
            raise ValueError("weights and rates are at least 0")
        if self.encoder.embedding_dim % self.heads:
            raise ValueError(
                f"heads must divide the embedding width {self.encoder.embedding_dim}, not be {self.heads}"
            )

    def _fit(self, images: Any, y: ArrayLike | None) -> None:
        generator = torch_generator(self.random_state, "cpu")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator.initial_seed())
            gated = self.fusion == "gated" and self.modality == "both"
            fuse = (
                GatedFusion(self.encoder.embedding_dim, self.layers, self.heads).to(
                    self.encoder.device
                )
                if gated
                else None
            )
        prompt, phi, v = (
            self.encoder.prompt(self._template()),
            self.encoder.word_embeddings(self.words).to(self.encoder.device),
            self._images(images),
        )
        fuse = fuse.to(v.dtype) if fuse else None
        rows, history = PerImageParameters(self._start(v), "full", self.chunk_size), History()
        groups = [{"params": rows.parameters}] + (
            [{"params": list(fuse.parameters()), "lr": self.fusion_lr or self.lr}] if fuse else []
        )
        optimizer = make_optimizer("adam", groups, self.lr, self.weight_decay)
        kept, self.updates_ = (
            torch.arange(len(phi), device=phi.device),
            [{"epoch": 0, "candidates": list(self.words)}],
        )
        stop = (
            ClusteringAgreement(self.check_every, self.n_checks, self.agreement)
            if self.early_stopping
            else None
        )
        for epoch in tqdm(range(self.epochs), desc="Multi-DProxy", disable=not self.verbose):
            if self.dynamic and epoch and epoch % self.update_every == 0:
                self._count_clusters(
                    self._keep(rows, phi[kept], prompt, fuse, v)["prompt_embeddings_"], len(kept)
                )
                if len(kept) > self.n_clusters_:
                    kept = kept[self._better_half(rows, phi[kept])]
                    self.updates_.append(
                        {"epoch": epoch, "candidates": [self.words[k] for k in kept.tolist()]}
                    )
            terms = self._step(rows, optimizer, epoch, phi[kept], prompt, fuse, v, generator)
            history.add(("loss", "L_a", "L_u", "L_c", "L_align"), terms, candidates=len(kept))
            if (
                stop
                and self._pruned(epoch, len(kept))
                and stop.reached(epoch, partial(self._clustering, rows, phi[kept], prompt, fuse, v))
            ):
                break
        self._fusion = fuse
        self.history_, self.seconds_ = history.table(), history.seconds
        self.__dict__.update(self._keep(rows, phi[kept], prompt, fuse, v))
        self.candidates_ = [self.words[k] for k in kept.tolist()]
        self._count_clusters(self.prompt_embeddings_, len(kept))
        self.use_representation(self.representation)

    def _step(
        self, rows: PerImageParameters, optimizer: torch.optim.Optimizer, epoch: int, candidates: torch.Tensor, prompt: PromptEncoder, fuse: GatedFusion | None,
        v: torch.Tensor, generator: torch.Generator | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """One full-batch step; the loss and its terms L_a, L_u, L_c, L_align. Without a generator, or a weight for it, L_c is 0."""
        alpha, beta = schedule(epoch, self.epochs)
        weights = torch.tensor(
            [1.0, self.user_weight * alpha, self.concept_weight * beta, self.align_weight],
            dtype=v.dtype,
            device=v.device,
        )
        scale: Any = {
            "sum": 1.0,
            "mean": 1 / candidates.shape[1],
            "relative": 1 / candidates.square().sum(1).mean(),
        }[self.user_reduction]
        compared = generator is not None and self.concept_weight > 0
        pool = (
            torch.randperm(rows.n, generator=generator)[: self.negatives].to(v.device)
            if compared
            else None
        )
        leaf: Any = None
        labels: Any = None
        whole: Any = None
        if pool is not None and len(rows.chunks) > 1:
            with torch.set_grad_enabled(self.negatives_grad):
                mixed, words = mix(torch.cat(rows.parameters)[pool] / self.tau_alpha, candidates)
                whole = prompt(words)
            leaf, labels = whole.detach().requires_grad_(self.negatives_grad), mixed.argmax(1)

        def loss_of(
            part: slice, p: torch.Tensor, size: int
        ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
            nonlocal leaf, labels
            a, w = mix(p / self.tau_alpha, candidates)
            text, tokens = self._text(prompt, w)
            pooled = v[part] if v.ndim == 2 else v[part, 0]
            fused = self._fuse(fuse, tokens, v[part])[0]
            if (
                pool is not None and len(rows.chunks) == 1
            ):  # the negatives are among the prompts at hand
                leaf, labels = (
                    text[pool] if self.negatives_grad else text[pool].detach(),
                    a.argmax(1)[pool],
                )
            align = (1 - (fused * self._anchor(pooled)).sum(-1)).sum() / size
            user = scale * (w - candidates.mean(0)).square().sum() / size
            concept = align * 0
            if pool is not None:
                repelled = (
                    pool[None] != torch.arange(part.start, part.stop, device=v.device)[:, None]
                )
                if self.repel == "other":
                    repelled &= labels[None] != a.argmax(1)[:, None]
                concept = (
                    hard_repulsion(fused, self._anchor(leaf), repelled, self.sigma, self.hard)
                    / size
                )
            terms = torch.stack([align, user, concept, (1 - (text * pooled).sum(-1)).sum() / size])
            loss = weights @ terms
            return loss, (loss, *terms)

        after = (
            (lambda: whole.backward(leaf.grad))
            if whole is not None and whole.requires_grad and self.concept_weight * beta
            else None
        )
        return rows.epoch(optimizer, loss_of, after)

    def _predict(self, images: Any) -> np.ndarray:
        """New factors, learned over the candidates as they were pruned, then read through the fusion layers that training ended with.

        While they are learned the layers are left out, as they were at the start of training (their end would pull F to V whatever the
        proxy says), and so is L_c, which compares images with each other.
        """
        prompt, v = self.encoder.prompt(self._template()), self._images(images)
        rows = PerImageParameters(self._start(v), "full", self.chunk_size)
        optimizer = make_optimizer(
            "adam", [{"params": rows.parameters}], self.lr, self.weight_decay
        )
        updates = {update["epoch"]: update["candidates"] for update in self.updates_}
        candidates: Any = None  # until epoch 0, which has an update
        for epoch in range(len(self.history_)):
            if epoch in updates:
                candidates = self.encoder.word_embeddings(updates[epoch]).to(v.device)
            self._step(rows, optimizer, epoch, candidates, prompt, None, v)
        return nearest(
            self._named(self._keep(rows, candidates, prompt, self._fusion, v), self.chosen_),
            self.cluster_centers_,
        )

    def _events(self) -> list[str | None]:
        left = [row["candidates"] for row in self.history_]
        return [
            f"{before} to {now} candidates" if now != before else None
            for before, now in zip([left[0], *left], left)
        ]

    def represent(self, name: str) -> np.ndarray:
        """A representation by name, float32: "fused", "text", "visual" (n, d), "concatenation" (n, 2 d), "word" (n, e)."""
        return self._named(vars(self), name)

    @staticmethod
    def _named(learned: Mapping[str, Any], name: str) -> np.ndarray:
        if name == "concatenation":
            return np.hstack([learned["text_"], learned["visual_"]])
        return learned["proxies_" if name == "word" else f"{name}_"]

    def _images(self, images: Any) -> torch.Tensor:
        """v (n, d), or all tokens (n, 1 + patches, d)."""
        found = (
            self.encoder.patch_tokens(images)
            if self.tokens == "all"
            else self.encoder.encode_images(images)
        )
        return torch.from_numpy(found).to(self.encoder.device)

    def _start(self, v: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(v), self.encoder.token_dim, dtype=v.dtype, device=v.device)

    def _text(self, prompt: PromptEncoder, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """t(w) (n, d), L2-normalised, and T^0 as the fusion takes it: that, or all tokens from the word to end-of-text (n, l, d)."""
        tokens = prompt(w, all_tokens=self.tokens == "all")
        return tokens if tokens.ndim == 2 else tokens[:, -1], tokens

    def _fuse(
        self, fuse: GatedFusion | None, text: torch.Tensor, image: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """F, T, V (L2-normalised) and lam, from T^0 and V^0."""
        t, u = fuse(text, image) if fuse else (text, image)
        t, u = t if t.ndim == 2 else t[:, -1], u if u.ndim == 2 else u[:, 0]
        t, u = F.normalize(t, dim=-1), F.normalize(u, dim=-1)
        lam = torch.sigmoid((t * u).sum(-1, keepdim=True) / self.tau)
        if self.modality != "both":
            fused = t if self.modality == "text" else u
        elif self.fusion == "concatenation":
            fused = torch.cat([t, u], -1) / math.sqrt(2)
        else:
            fused = F.normalize(lam * t + (1 - lam) * u, dim=-1)
        return fused, t, u, lam[:, 0]

    def _anchor(self, x: torch.Tensor) -> torch.Tensor:
        """What F is compared with: x (m, d), stacked twice where F is a concatenation, so that both halves are."""
        return (
            torch.cat([x, x], -1) / math.sqrt(2)
            if self.fusion == "concatenation" and self.modality == "both"
            else x
        )

    def _pruned(self, epoch: int, left: int) -> bool:
        """Whether no candidates will be dropped any more."""
        later = (self.epochs - 1) // self.update_every * self.update_every
        return not self.dynamic or epoch >= later or left <= getattr(self, "n_clusters_", 0)

    def _clustering(
        self,
        rows: PerImageParameters,
        candidates: torch.Tensor,
        prompt: PromptEncoder,
        fuse: GatedFusion | None,
        v: torch.Tensor,
        centres: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        learned = self._keep(rows, candidates, prompt, fuse, v)
        self._count_clusters(learned["prompt_embeddings_"], len(candidates))
        return kmeans(
            self._named(learned, self.representation),
            self.n_clusters_,
            self.random_state,
            start=centres,
        )

    def _better_half(self, rows: PerImageParameters, candidates: torch.Tensor) -> torch.Tensor:
        proxies = rows.map(lambda part, p: mix(p / self.tau_alpha, candidates)[1])
        centres = torch.from_numpy(
            kmeans(proxies.cpu().numpy(), self.n_clusters_, self.random_state)[1]
        ).to(candidates)
        return better_half(candidates, centres, self.n_clusters_, self.score)

    def _keep(
        self,
        rows: PerImageParameters,
        candidates: torch.Tensor,
        prompt: PromptEncoder,
        fuse: GatedFusion | None,
        v: torch.Tensor,
    ) -> dict[str, np.ndarray]:
        """What is learned, by attribute name."""

        def whole(part: slice, p: torch.Tensor) -> tuple[torch.Tensor, ...]:
            weights, w = mix(p / self.tau_alpha, candidates)
            text, tokens = self._text(prompt, w)
            return weights, w, text, *self._fuse(fuse, tokens, v[part])

        names = (
            "weights_",
            "proxies_",
            "prompt_embeddings_",
            "fused_",
            "text_",
            "visual_",
            "mixing_",
        )
        return {name: t.cpu().numpy() for name, t in zip(names, rows.map(whole))}


def better_half(
    candidates: torch.Tensor, centres: torch.Tensor, n_clusters: int, score: str
) -> torch.Tensor:
    """Indices, ascending, of the max(M, ceil(K / 2)) candidates (K, e) with the largest "mean" or "max" cosine to the M centres (M, e)."""
    cosines = F.normalize(candidates, dim=-1) @ F.normalize(centres, dim=-1).T
    scores = cosines.mean(1) if score == "mean" else cosines.amax(1)
    return (
        scores.topk(min(len(candidates), max(n_clusters, math.ceil(len(candidates) / 2))))
        .indices.sort()
        .values
    )


class GatedFusion(nn.Module):
    """L layers of V <- V + sigmoid(W_g [V; V_attn]) V_attn with V_attn = MultiHead(V, T, T), and the same for T from V.

    With one pooled token per modality the attention weights are all 1 and MultiHead is a linear map of the other modality. Its output
    projection starts at zero, so that the layers begin as the identity.
    """

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.attention: Any = nn.ModuleList(
            [
                nn.ModuleList(
                    [nn.MultiheadAttention(width, heads, batch_first=True) for _ in range(2)]
                )
                for _ in range(layers)
            ]
        )
        self.gates: Any = nn.ModuleList(
            [nn.ModuleList([nn.Linear(2 * width, width) for _ in range(2)]) for _ in range(layers)]
        )
        for attention in self.attention.modules():
            if isinstance(attention, nn.MultiheadAttention):
                nn.init.zeros_(attention.out_proj.weight)

    def forward(self, text: torch.Tensor, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """T^0 and V^0, (n, d) or (n, tokens, d) each, to T^L and V^L of the same shapes."""
        t, v = text, image
        for (attend_v, attend_t), (gate_v, gate_t) in zip(self.attention, self.gates):
            v_attn, t_attn = attend(attend_v, v, t), attend(attend_t, t, v)
            v = v + torch.sigmoid(gate_v(torch.cat([v, v_attn], -1))) * v_attn
            t = t + torch.sigmoid(gate_t(torch.cat([t, t_attn], -1))) * t_attn
        return t, v


def attend(
    attention: nn.MultiheadAttention, x: torch.Tensor, context: torch.Tensor
) -> torch.Tensor:
    """MultiHead(x, context, context). One token to attend to has weight 1, whatever the query: values and output projection are all of it."""
    if context.ndim == 3:
        return attention(x, context, context, need_weights=False)[0]
    width = attention.embed_dim
    return attention.out_proj(
        F.linear(
            context, attention.in_proj_weight[2 * width :], attention.in_proj_bias[2 * width :]
        )
    )


def schedule(epoch: int, epochs: int) -> tuple[float, float]:
    """alpha(t) = min(0.5, 0.1 + 0.4 t / E) and beta(t) = 0.1 (1 - cos(pi t / E))."""
    return min(0.5, 0.1 + 0.4 * epoch / epochs), 0.1 * (1 - math.cos(math.pi * epoch / epochs))


def hard_repulsion(
    fused: torch.Tensor, negatives: torch.Tensor, repelled: torch.Tensor, sigma: float, hard: int
) -> torch.Tensor:
    """sum_i log sum_j exp(<f_i, t(w_j)> / sigma) over the `hard` most similar repelled negatives j (L_c, on a batch's negatives).

    fused (n, d) and negatives (b, d) L2-normalised, repelled (n, b) which pairs count. A row without any adds nothing.
    """
    some = repelled.any(1)
    similarity = (fused @ negatives.T / sigma).masked_fill(~repelled & some[:, None], -torch.inf)
    hardest = similarity.topk(min(hard, similarity.shape[1]), dim=1).values
    return (
        hardest.logsumexp(1) * some
    ).sum()  # a product, not a selection: that would wait for the device
