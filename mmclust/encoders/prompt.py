"""Prompts with a learned word in the placeholder's place, at the cost of the tokens that matter.

CLIP's text tower is causal and reads its output at end-of-text. What stands before the placeholder is the same for every image, so its keys
and values are computed once; what stands after end-of-text is never read. Only the tokens from the placeholder to end-of-text run per
image. Output and gradient are those of the whole prompt.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import nn
from torch.autograd.function import once_differentiable

PLACEHOLDER = "*"


def split_template(template: str) -> tuple[str, str]:
    """The text before and after the one placeholder.

    Raises:
        ValueError: if the template does not hold exactly one `*`.
    """
    if template.count(PLACEHOLDER) != 1:
        raise ValueError(f"a template needs exactly one {PLACEHOLDER!r} where the word goes, as in 'fruit with a color of *'; got {template!r}")
    before, after = template.split(PLACEHOLDER)
    return before.strip(), after.strip()


class PromptEncoder:
    """The text tower's output for a template with learned proxies in the placeholder.

    Called with proxies (n, e), or (n, L, e) for a placeholder of L tokens (`word_tokens=L`), it gives prompt embeddings (n, d),
    L2-normalised unless `normalize=False`; `all_tokens=True` gives those of every token from the placeholder to end-of-text, (n, l, d).
    `path` says how they are computed: "cached" where the shortcut holds (checked against the whole prompt when the encoder is built), else
    "full", every token of the context through the model's own code.

    Args:
        model: an open_clip model.
        tokenizer: its tokenizer.
        template: text with one placeholder `*`.
        word_tokens: tokens that a proxy takes, L.
        path: "auto", "cached" or "full".
        positions: add the positional embedding; the released code of Multi-MaP and Multi-Sub leaves it out.
        final_norm: apply the final LayerNorm; the released code leaves it out, too.
        autocast: run in bfloat16 where that is precise enough (torch's autocast); outputs are float32.

    Raises:
        ValueError: for a template without exactly one placeholder, one that is too long for the tower, or `path="cached"` on a tower
            that is not causal or not read at end-of-text.
    """

    def __init__(
        self, model: nn.Module, tokenizer, template: str, word_tokens: int = 1, path: str = "auto", positions: bool = True, final_norm: bool = True,
        autocast: bool = False,
    ):  # fmt: skip
        self.model, self.template, self.word_tokens, self.positions, self.final_norm = model, template, word_tokens, positions, final_norm
        self.autocast = autocast
        self.tower = getattr(model, "text", model)
        before, after = (tokenizer.encode(part) for part in split_template(template))
        self.start = 1 + len(before)
        self.end = self.start + word_tokens + len(after)  # where end-of-text stands
        length = self.tower.context_length
        if self.end >= length:
            raise ValueError(f"template {template!r} needs {self.end + 1} tokens, the text encoder reads {length}")
        ids = [tokenizer.sot_token_id, *before, *[0] * word_tokens, *after, tokenizer.eot_token_id]
        device = self.tower.token_embedding.weight.device
        self.tokens = torch.tensor(ids + [0] * (length - len(ids)), device=device)
        shortcut = can_shortcut(self.tower)
        if path == "cached" and not shortcut:
            raise ValueError("this text tower is not causal or not read at end-of-text: the cached prefix does not hold for it")
        self.path = "cached" if shortcut and path != "full" else "full"
        if self.path == "cached":
            self._fill_cache()
            if path == "auto" and not self._agrees():
                self.path = "full"

    def __call__(self, proxies: torch.Tensor, normalize: bool = True, all_tokens: bool = False) -> torch.Tensor:
        words = proxies[:, None] if proxies.ndim == 2 else proxies
        if words.ndim != 3 or words.shape[1] != self.word_tokens:
            raise ValueError(f"proxies of shape (n, e) or (n, {self.word_tokens}, e) are expected, not {tuple(proxies.shape)}")
        with torch.autocast(words.device.type, torch.bfloat16, enabled=self.autocast):
            out = self._tail(words, all_tokens) if self.path == "cached" else self._whole(words, all_tokens)
        out = out.float() if self.autocast else out
        return F.normalize(out, dim=-1) if normalize else out

    def _whole(self, words: torch.Tensor, all_tokens: bool = False) -> torch.Tensor:
        """Every token of the context, by the model's own `encode_text`; hooks put the words in their place and skip what is switched off."""
        tower, states = self.tower, []

        def place(module, args, embedded):
            x = torch.cat([embedded[:, : self.start], words.to(embedded.dtype), embedded[:, self.start + self.word_tokens :]], 1)
            return x if self.positions else x - tower.positional_embedding  # the model adds it again

        def norm(module, args, normed):
            states.append(normed if self.final_norm else args[0])
            return states[-1]

        handles = [tower.token_embedding.register_forward_hook(place), tower.ln_final.register_forward_hook(norm)]
        try:
            out = self.model.encode_text(self.tokens.expand(len(words), -1))
        finally:
            for handle in handles:
                handle.remove()
        return self._project(states[0][:, self.start : self.end + 1]) if all_tokens else out

    @torch.no_grad()
    def _fill_cache(self) -> None:
        tower = self.tower
        self._position = tower.positional_embedding[: self.end + 1].detach() * float(self.positions)
        x = tower.token_embedding(self.tokens[None, : self.start]) + self._position[: self.start]
        self._cache = []
        for block in tower.transformer.resblocks:
            x, (key, value) = _attend(block, x)
            self._cache.append((key[:, 0], value[:, 0]))
        self._suffix = tower.token_embedding(self.tokens[self.start + self.word_tokens : self.end + 1])
        first = tower.transformer.resblocks[0]  # what follows the word enters it the same for every image
        after = first.ln_1(self._suffix + self._position[self.start + self.word_tokens :])
        self._entered = F.linear(after, first.attn.in_proj_weight, first.attn.in_proj_bias)

    def _tail(self, words: torch.Tensor, all_tokens: bool = False) -> torch.Tensor:
        x = torch.cat([words.to(self._suffix.dtype), self._suffix.expand(len(words), -1, -1)], 1) + self._position[self.start :]
        blocks = self.tower.transformer.resblocks
        for i, (block, prefix) in enumerate(zip(blocks, self._cache)):
            x, _ = _attend(block, x, prefix, last_only=i == len(blocks) - 1 and not all_tokens, known=self._entered if i == 0 else None)
        x = x if all_tokens else x[:, -1]
        return self._project(self.tower.ln_final(x) if self.final_norm else x)

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        projection = self.tower.text_projection
        return x if projection is None else projection(x) if isinstance(projection, nn.Linear) else x @ projection

    @torch.no_grad()
    def _agrees(self) -> bool:
        weight = self.tower.token_embedding.weight
        words = weight[torch.linspace(0, len(weight) - 1, 2 * self.word_tokens).long()].unflatten(0, (2, self.word_tokens))
        short, whole = F.normalize(self._tail(words), dim=-1), F.normalize(self._whole(words), dim=-1)
        return torch.allclose(short.float(), whole.float(), atol=2e-2 if weight.dtype in (torch.float16, torch.bfloat16) else 1e-4)


def can_shortcut(tower: nn.Module) -> bool:
    """Whether the tower is causal, pools at end-of-text and is built of open_clip's plain residual blocks."""
    mask = getattr(tower, "attn_mask", None)
    blocks = getattr(getattr(tower, "transformer", None), "resblocks", [])
    pool = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
    causal = mask is not None and mask.ndim == 2 and bool((torch.isinf(mask) == torch.ones_like(mask, dtype=torch.bool).triu(1)).all())
    plain = len(blocks) > 0 and all(type(b) is ResidualAttentionBlock and not hasattr(b, "ln_1_kv") for b in blocks)
    return causal and plain and pool in ("argmax", "eos") and getattr(tower, "cls_emb", None) is None


def _attend(block: ResidualAttentionBlock, x: torch.Tensor, prefix=None, last_only: bool = False, known: torch.Tensor | None = None):
    """One residual block on tokens x (n, l, e) behind the keys and values of a prefix, (heads, P, e / heads) each; `last_only` follows the
    last token alone. `known` are the queries, keys and values, (k, 3 e), of the last k tokens, where they are the same for every image.
    Also gives the tokens' own keys and values, (heads, n, l, e / heads).

    The prefix is the same for every image: its part of the scores is one product per head, and its keys are never copied.
    """
    n, heads = len(x), block.attn.num_heads
    new = x if known is None else x[:, : x.shape[1] - len(known)]
    y = frozen_linear(block.ln_1(new), block.attn.in_proj_weight, block.attn.in_proj_bias)
    y = y if known is None else torch.cat([y, known.expand(n, -1, -1)], 1)
    q, k, v = y.unflatten(-1, (3, heads, -1)).permute(2, 3, 0, 1, 4)
    if last_only:
        q, x = q[:, :, -1:], x[:, -1:]
    length = q.shape[2]
    scores = q @ k.transpose(-1, -2)
    if length > 1:
        scores = scores + torch.full((length, length), -torch.inf, dtype=scores.dtype, device=x.device).triu(1)
    if prefix is not None:
        before = (q.flatten(1, 2) @ prefix[0].transpose(1, 2)).unflatten(1, (n, length))
        scores = torch.cat([before, scores], -1)
    weights = (scores * q.shape[-1] ** -0.5).softmax(-1)
    y = weights[..., -k.shape[2] :] @ v
    if prefix is not None:
        y = y + (weights[..., : -k.shape[2]].flatten(1, 2) @ prefix[1]).unflatten(1, (n, length))
    x = x + block.ls_1(frozen_linear(y.permute(1, 2, 0, 3).flatten(2), block.attn.out_proj.weight, block.attn.out_proj.bias))
    return x + block.ls_2(_mlp(block.mlp, block.ln_2(x))), (k, v)


def _mlp(mlp: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    x = frozen_linear(x, mlp.c_fc.weight, mlp.c_fc.bias)
    x = _QuickGELU.apply(x) if isinstance(mlp.gelu, QuickGELU) else mlp.gelu(x)
    return frozen_linear(x, mlp.c_proj.weight, mlp.c_proj.bias)


class _QuickGELU(torch.autograd.Function):
    """x sigmoid(1.702 x) through SiLU's kernels: one pass backward, one tensor kept."""

    @staticmethod
    def forward(ctx, x):
        scaled = 1.702 * x
        ctx.save_for_backward(scaled)
        return F.silu(scaled) / 1.702

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return torch.ops.aten.silu_backward(grad, *ctx.saved_tensors)  # the two factors cancel


class _FrozenLinear(torch.autograd.Function):
    """oneDNN's linear layer with a gradient for its input alone; on some CPUs it is a quarter faster than the BLAS behind `F.linear`."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.weight = weight
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return torch.ops.mkldnn._linear_pointwise(grad.contiguous(), ctx.weight.T, None, "none", [], ""), None, None


def frozen_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """`F.linear`, by oneDNN where that is exact and there: float32 on the CPU, a weight that does not learn, no autocast."""
    exact = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if exact and not weight.requires_grad and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return _FrozenLinear.apply(x, weight, bias)
    return F.linear(x, weight, bias)
