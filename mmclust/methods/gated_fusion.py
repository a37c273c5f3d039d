"""Gated cross-modal fusion, the layers of Multi-DProxy in which text and image attend to each other."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


class GatedFusion(nn.Module):
    """L layers of V <- V + sigmoid(W_g [V; V_attn]) * V_attn with V_attn = MultiHead(V, T, T), and
    the same for T, from V.

    With one pooled token per modality all attention weights are 1, and MultiHead is a linear map of
    the other modality. Its output projection starts at zero, so the layers start as the identity.
    """

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()

        def pair(make: Any) -> nn.ModuleList:  # for V and for T
            return nn.ModuleList([make(), make()])

        def attention() -> nn.MultiheadAttention:
            return nn.MultiheadAttention(width, heads, batch_first=True)

        def gate() -> nn.Linear:
            return nn.Linear(2 * width, width)

        self.attention: Any = nn.ModuleList([pair(attention) for _ in range(layers)])
        self.gates: Any = nn.ModuleList([pair(gate) for _ in range(layers)])
        for module in self.attention.modules():
            if isinstance(module, nn.MultiheadAttention):
                nn.init.zeros_(module.out_proj.weight)

    def forward(self, text: torch.Tensor, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """T^0 and V^0, (n, d) or (n, tokens, d) each, to T^L and V^L of the same shapes."""
        t, v = text, image
        for (attend_v, attend_t), (gate_v, gate_t) in zip(self.attention, self.gates):
            v_attn = attend(attend_v, v, t)
            t_attn = attend(attend_t, t, v)
            v = v + torch.sigmoid(gate_v(torch.cat([v, v_attn], -1))) * v_attn
            t = t + torch.sigmoid(gate_t(torch.cat([t, t_attn], -1))) * t_attn
        return t, v


def attend(
    attention: nn.MultiheadAttention, x: torch.Tensor, context: torch.Tensor
) -> torch.Tensor:
    """MultiHead(x, context, context). With one context token (n, d), its weight is 1 for every
    query, so that only the value and output projections are left."""
    if context.ndim == 3:  # (n, tokens, d)
        return attention(x, context, context, need_weights=False)[0]
    width = attention.embed_dim
    weight = attention.in_proj_weight[2 * width :]  # after those of queries and keys
    bias = attention.in_proj_bias[2 * width :]
    return attention.out_proj(F.linear(context, weight, bias))
