"""Components of Multi-DProxy: fusion layers, loss weights by epoch, repulsion, pruning."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GatedFusion(nn.Module):
    """L layers of V <- V + sigmoid(W_g [V; V_attn]) * V_attn with V_attn = MultiHead(V, T, T), and
    of the same update for T, with V and T exchanged.

    With one pooled token per modality all attention weights are 1, and MultiHead is a linear map of
    the other modality. The output projection of MultiHead starts at zero, so that every layer is
    the identity before training.
    """

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()

        def pairs(make: Callable[[], nn.Module]) -> Any:  # two per layer, for V and for T
            return nn.ModuleList([nn.ModuleList([make(), make()]) for _ in range(layers)])

        self.attention = pairs(lambda: nn.MultiheadAttention(width, heads, batch_first=True))
        self.gates = pairs(lambda: nn.Linear(2 * width, width))
        for module in self.attention.modules():
            if isinstance(module, nn.MultiheadAttention):
                nn.init.zeros_(module.out_proj.weight)

    def forward(self, text: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """T and V after all layers; both inputs and outputs (n, d) or (n, tokens, d)."""
        t, v = text, image
        for (attend_v, attend_t), (gate_v, gate_t) in zip(self.attention, self.gates):
            v_attn = attend(attend_v, v, t)
            t_attn = attend(attend_t, t, v)
            v = v + torch.sigmoid(gate_v(torch.cat([v, v_attn], -1))) * v_attn
            t = t + torch.sigmoid(gate_t(torch.cat([t, t_attn], -1))) * t_attn
        return t, v


def attend(attention: nn.MultiheadAttention, x: Tensor, context: Tensor) -> Tensor:
    """MultiHead(x, context, context). With one context token per image (n, d), its attention weight
    is 1 for every query, so that only the value and output projections are computed."""
    if context.ndim == 3:  # (n, tokens, d)
        return attention(x, context, context, need_weights=False)[0]
    width = attention.embed_dim
    weight = attention.in_proj_weight[2 * width :]  # after those of queries and keys
    bias = attention.in_proj_bias[2 * width :]
    return attention.out_proj(F.linear(context, weight, bias))


@dataclass
class Negatives:
    """The images j that L_c repels in one epoch."""

    index: Tensor  # (b,)
    prompts: Tensor  # t(w_j) (b, d)
    heaviest: Tensor  # (b,), index of the candidate with the largest weight in each image


def last_token(tokens: Tensor) -> Tensor:
    """The end-of-text token (n, d), the last of (n, l, d); a pooled token (n, d) as it is."""
    return tokens if tokens.ndim == 2 else tokens[:, -1]


def first_token(tokens: Tensor) -> Tensor:
    """The class token (n, d), the first of (n, 1 + patches, d); a pooled token (n, d) as it is."""
    return tokens if tokens.ndim == 2 else tokens[:, 0]


def better_half(candidates: Tensor, centers: Tensor, n_clusters: int, score: str) -> Tensor:
    """Indices, ascending, of the max(M, ceil(K / 2)) candidates (K, e) with the largest "mean" or
    "max" cosine to the centers (M, e)."""
    cosines = F.normalize(candidates, dim=-1) @ F.normalize(centers, dim=-1).T  # (K, M)
    scores = cosines.mean(1) if score == "mean" else cosines.amax(1)
    n_left = min(len(candidates), max(n_clusters, math.ceil(len(candidates) / 2)))
    return scores.topk(n_left).indices.sort().values


def halving_interval(n_words: int, n_clusters: int, epochs: int) -> int:
    """R such that `n_words` are halved to M in equal steps, and M are left for the last R epochs:
    E / (b + 1), rounded down, with b halvings. An unknown M, 0, is taken as 2."""
    halvings = max(0, math.ceil(math.log2(n_words / (n_clusters or 2))))
    return max(1, epochs // (halvings + 1))


def schedule(epoch: int, epochs: int) -> tuple[float, float]:
    """Weights of L_u and L_c at epoch t of E: alpha(t) = min(0.5, 0.1 + 0.4 t / E) and
    beta(t) = 0.1 (1 - cos(pi t / E))."""
    alpha = min(0.5, 0.1 + 0.4 * epoch / epochs)
    beta = 0.1 * (1 - math.cos(math.pi * epoch / epochs))
    return alpha, beta


def hard_repulsion(
    fused: Tensor, negatives: Tensor, repelled: Tensor, sigma: float, hard: int
) -> Tensor:
    """sum_i log sum_j exp(<f_i, t(w_j)> / sigma) over the `hard` most similar repelled negatives j.

    fused f (n, d) and negatives t(w_j) (b, d), L2-normalized; repelled (n, b), bool: the pairs that
    count. An image without such a pair adds 0.
    """
    has_any = repelled.any(1)  # (n,)
    similarity = fused @ negatives.T / sigma  # (n, b)
    similarity = similarity.masked_fill(~repelled & has_any[:, None], -torch.inf)
    hardest = similarity.topk(min(hard, similarity.shape[1]), dim=1).values  # (n, hard)
    return hardest.logsumexp(1).masked_fill(~has_any, 0.0).sum()
