"""Multi-DProxy: Multi-modal Dynamic Proxy Learning for Personalized Multiple Clustering (AAAI 2026, arXiv 2511.07274). No code was released."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

from mmclust.methods.base import ProxyClusterer, kmeans_labels, torch_generator
from mmclust.methods.multisub import mix

REPRESENTATIONS = ("fused", "text", "visual", "concatenation", "word")


class MultiDProxy(ProxyClusterer):
    """Proxies over candidates that are pruned while they are learned, fused with the image by gated cross-modal attention.

    w_i = sum_k a_ik c_k with a_ik = softmax_k(w'_i . c_k / tau_alpha) over the current candidates c; V = v_i and T = t(w_i) pass through L
    gated fusion layers and become F = lam T + (1 - lam) V. The loss is L_a + alpha(t) L_u + beta(t) L_c (+ an alignment of t(w_i) with v_i).
    Every R epochs the better half of the candidates is kept, until M remain.

    What the summary that we could read leaves open [?] is a parameter here: pooled tokens (one per modality, so that attention is a
    linear map), the alignment term of the overview figure, which negatives L_c repels, how candidates are scored.

    Args:
        encoder, template, words, n_clusters: as for `MultiSub`.
        representation: what k-means clusters: "fused" F, "text" T, "visual" V, "concatenation" [T, V] after the layers, or "word" w.
        epochs: E, full-batch steps (paper: 1000). lr, weight_decay: Adam's; fusion_lr: its rate for the fusion layers, None takes lr.
        update_every: R. dynamic: prune candidates at all.
        score: candidates by their "mean" cosine to the M centres of the proxies (paper) or the "max" (favours none that is generic).
        layers: L fusion layers of `heads` heads. fusion: "gated" or "none" (T and V as they are).
        tau: temperature of lam = sigmoid(<T, V> / tau). tau_alpha: temperature of the weights.
        sigma: temperature of L_c. negatives: images it is computed on per epoch. hard: of these, the most similar ones that count.
        repel: "other" restricts L_c to images whose heaviest candidate is another one, "all" repels every image.
        user_weight, concept_weight: scale alpha(t) and beta(t); 0 leaves the constraint out.
        align_weight: weight of mean_i (1 - cos(t(w_i), v_i)); 0 is the loss without it.
        user_reduction: "relative" divides L_u by the mean squared norm of the candidates, "sum" and "mean" go over dimensions [?].
        chunk_size, n_init, random_state, verbose: as for `MultiSub`; the seed also draws the fusion layers and the negatives.

    Attributes:
        labels_: int64 (n,). weights_: a, float32 (n, K'), over the candidates that are left, `candidates_`.
        proxies_: w (n, e). text_, visual_, fused_: float32 (n, d), L2-normalised. mixing_: lam (n,).
        history_: per epoch the loss and its terms; updates_: per pruning the epoch and the candidates kept.
    """

    def __init__(
        self, encoder, template: str, words, n_clusters: int = 8, representation: str = "fused", epochs: int = 1000,
        lr: float = 5e-3, fusion_lr: float | None = None,
        weight_decay: float = 0.0, update_every: int = 100, dynamic: bool = True, score: str = "mean", layers: int = 2, heads: int = 4,
        fusion: str = "gated", tau: float = 0.07, tau_alpha: float = 1.0, sigma: float = 0.5, negatives: int = 256, hard: int = 32,
        repel: str = "other", user_weight: float = 1.0, concept_weight: float = 1.0, align_weight: float = 1.0, user_reduction: str = "relative",
        chunk_size: int = 4096, n_init: int = 1, random_state=None, verbose: bool = False,
    ):  # fmt: skip
        self.encoder, self.template, self.words, self.n_clusters, self.representation = encoder, template, words, n_clusters, representation
        self.epochs, self.lr, self.fusion_lr, self.weight_decay = epochs, lr, fusion_lr, weight_decay
        self.update_every, self.dynamic, self.score = update_every, dynamic, score
        self.layers, self.heads, self.fusion, self.tau, self.tau_alpha = layers, heads, fusion, tau, tau_alpha
        self.sigma, self.negatives, self.hard, self.repel = sigma, negatives, hard, repel
        self.user_weight, self.concept_weight, self.align_weight, self.user_reduction = user_weight, concept_weight, align_weight, user_reduction
        self.chunk_size, self.n_init, self.random_state, self.verbose = chunk_size, n_init, random_state, verbose

    def _check(self, images) -> None:
        super()._check(images)
        choices = {
            "representation": REPRESENTATIONS,
            "score": ("mean", "max"),
            "fusion": ("gated", "none"),
            "repel": ("other", "all"),
            "user_reduction": ("relative", "sum", "mean"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} {getattr(self, name)!r} is none of {allowed}")
        if min(self.tau, self.tau_alpha, self.sigma) <= 0 or min(self.epochs, self.update_every, self.layers, self.negatives, self.hard, self.chunk_size) < 1:
            raise ValueError("temperatures are above 0; epochs, update_every, layers, negatives, hard and chunk_size at least 1")
        if self.encoder.embedding_dim % self.heads:
            raise ValueError(f"heads must divide the embedding width {self.encoder.embedding_dim}, not be {self.heads}")

    def _fit(self, images, y) -> None:
        encoder, device = self.encoder, self.encoder.device
        prompt, phi = encoder.prompt(self.template), encoder.word_embeddings(self.words).to(device)
        v = torch.from_numpy(self.image_embeddings_).to(device)
        n, parts, generator = len(v), torch.arange(len(v), device=device).split(self.chunk_size), torch_generator(self.random_state, "cpu")
        fork = torch.random.fork_rng(devices=[])
        with fork:
            torch.manual_seed(generator.initial_seed())
            fuse = GatedFusion(v.shape[1], self.layers, self.heads).to(device) if self.fusion == "gated" else None
        factors = torch.zeros(n, phi.shape[1], device=device, requires_grad=True)
        learned = [{"params": [factors]}] + ([{"params": list(fuse.parameters()), "lr": self.fusion_lr or self.lr}] if fuse else [])
        optimizer = torch.optim.Adam(learned, lr=self.lr, weight_decay=self.weight_decay)
        kept = torch.arange(len(phi), device=device)
        self.history_, self.updates_ = [], [{"epoch": 0, "candidates": list(self.words)}]
        for epoch in tqdm(range(self.epochs), desc="Multi-DProxy", disable=not self.verbose):
            if self.dynamic and epoch and epoch % self.update_every == 0 and len(kept) > self.n_clusters:
                kept = kept[self._better_half(factors, phi[kept])]
                self.updates_.append({"epoch": epoch, "candidates": [self.words[k] for k in kept.tolist()]})
            alpha, beta = schedule(epoch, self.epochs)
            candidates = phi[kept]
            scale = {"sum": 1.0, "mean": 1 / phi.shape[1], "relative": 1 / float(candidates.square().sum(1).mean())}[self.user_reduction]
            pool = torch.randperm(n, generator=generator)[: self.negatives].to(device)
            with torch.no_grad():
                pool_weights, pool_words = mix(factors[pool] / self.tau_alpha, candidates)
                pool_text, pool_label = prompt(pool_words), pool_weights.argmax(1)
            optimizer.zero_grad()
            terms = np.zeros(4)
            for part in parts:
                weights, w = mix(factors[part] / self.tau_alpha, candidates)
                text = prompt(w)
                fused, *_ = self._fuse(fuse, text, v[part])
                align = (1 - (fused * v[part]).sum(-1)).sum() / n
                user = scale * (w - candidates.mean(0)).square().sum() / n
                repelled = pool[None] != part[:, None]
                if self.repel == "other":
                    repelled &= pool_label[None] != weights.argmax(1)[:, None]
                concept = hard_repulsion(fused, pool_text, repelled, self.sigma, self.hard) / n
                word_align = (1 - (text * v[part]).sum(-1)).sum() / n
                loss = align + self.user_weight * alpha * user + self.concept_weight * beta * concept + self.align_weight * word_align
                loss.backward()
                terms += [align.item(), user.item(), concept.item(), word_align.item()]
            optimizer.step()
            total = terms @ [1, self.user_weight * alpha, self.concept_weight * beta, self.align_weight]
            self.history_.append({"loss": total, **dict(zip(("L_a", "L_u", "L_c", "L_align"), terms)), "candidates": len(kept)})
        self._keep(factors, phi[kept], prompt, fuse, v, parts)
        self.candidates_ = [self.words[k] for k in kept.tolist()]
        self.choose(self.representation)

    def represent(self, name: str) -> np.ndarray:
        """A representation by name, float32: "fused", "text", "visual" (n, d), "concatenation" (n, 2 d), "word" (n, e)."""
        if name == "concatenation":
            return np.hstack([self.text_, self.visual_])
        return {"fused": self.fused_, "text": self.text_, "visual": self.visual_, "word": self.proxies_}[name]

    def _fuse(self, fuse, text, image):
        """F, T, V (L2-normalised) and lam."""
        t, u = fuse(text, image) if fuse else (text, image)
        t, u = F.normalize(t, dim=-1), F.normalize(u, dim=-1)
        lam = torch.sigmoid((t * u).sum(-1, keepdim=True) / self.tau)
        return F.normalize(lam * t + (1 - lam) * u, dim=-1), t, u, lam[:, 0]

    @torch.no_grad()
    def _better_half(self, factors: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
        proxies = mix(factors / self.tau_alpha, candidates)[1]
        labels = torch.from_numpy(kmeans_labels(proxies.cpu().numpy(), self.n_clusters, self.random_state, 1))
        centres = torch.stack([proxies[labels == c].mean(0) for c in labels.unique()])
        cosines = F.normalize(candidates, dim=-1) @ F.normalize(centres, dim=-1).T
        scores = cosines.mean(1) if self.score == "mean" else cosines.amax(1)
        return scores.topk(max(self.n_clusters, math.ceil(len(candidates) / 2))).indices.sort().values

    @torch.no_grad()
    def _keep(self, factors, candidates, prompt, fuse, v, parts) -> None:
        rows = []
        for part in parts:
            weights, w = mix(factors[part] / self.tau_alpha, candidates)
            rows.append((weights, w, *self._fuse(fuse, prompt(w), v[part])))
        whole = (torch.cat(column).cpu().numpy() for column in zip(*rows))
        self.weights_, self.proxies_, self.fused_, self.text_, self.visual_, self.mixing_ = whole


class GatedFusion(nn.Module):
    """L layers of V <- V + sigmoid(W_g [V; V_attn]) V_attn with V_attn = MultiHead(V, T, T), and the same for T from V.

    With one pooled token per modality the attention weights are all 1 and MultiHead is a linear map. Its output projection starts at zero,
    so that the layers begin as the identity.
    """

    def __init__(self, width: int, layers: int, heads: int):
        super().__init__()
        self.attention = nn.ModuleList([nn.ModuleList([nn.MultiheadAttention(width, heads, batch_first=True) for _ in range(2)]) for _ in range(layers)])
        self.gates = nn.ModuleList([nn.ModuleList([nn.Linear(2 * width, width) for _ in range(2)]) for _ in range(layers)])
        for pair in self.attention:
            for attention in pair:
                nn.init.zeros_(attention.out_proj.weight)

    def forward(self, text: torch.Tensor, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """T^0 and V^0, (n, d) each, to T^L and V^L."""
        t, v = text[:, None], image[:, None]
        for (attend_v, attend_t), (gate_v, gate_t) in zip(self.attention, self.gates):
            v_attn = attend_v(v, t, t, need_weights=False)[0]
            t_attn = attend_t(t, v, v, need_weights=False)[0]
            v = v + torch.sigmoid(gate_v(torch.cat([v, v_attn], -1))) * v_attn
            t = t + torch.sigmoid(gate_t(torch.cat([t, t_attn], -1))) * t_attn
        return t[:, 0], v[:, 0]


def schedule(epoch: int, epochs: int) -> tuple[float, float]:
    """alpha(t) = min(0.5, 0.1 + 0.4 t / E) and beta(t) = 0.1 (1 - cos(pi t / E))."""
    return min(0.5, 0.1 + 0.4 * epoch / epochs), 0.1 * (1 - math.cos(math.pi * epoch / epochs))


def hard_repulsion(fused: torch.Tensor, negatives: torch.Tensor, repelled: torch.Tensor, sigma: float, hard: int) -> torch.Tensor:
    """sum_i log sum_j exp(<f_i, t(w_j)> / sigma) over the `hard` most similar repelled negatives j (L_c, on a batch's negatives).

    fused (n, d) and negatives (b, d) L2-normalised, repelled (n, b) which pairs count. A row without any adds nothing.
    """
    similarity = (fused @ negatives.T / sigma).masked_fill(~repelled, -torch.inf)
    hardest = similarity.topk(min(hard, similarity.shape[1]), dim=1).values
    some = repelled.any(1)
    return hardest[some].logsumexp(1).sum()
