"""Prompts with a learned word in the placeholder's place, at the cost of the tokens that matter.

CLIP's text tower is causal and reads its output at end-of-text. What stands before the placeholder is the same for every image, so its keys
and values are computed once; what stands after end-of-text is never read. Only the tokens from the placeholder to end-of-text run per
image. Output and gradient are those of the whole prompt.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import nn

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
    L2-normalised unless `normalize=False`. `path` says how they are computed: "cached" where the shortcut holds (checked against the whole
    prompt when the encoder is built), else "full", every token of the context through the model's own code.

    Args:
        model: an open_clip model.
        tokenizer: its tokenizer.
        template: text with one placeholder `*`.
        word_tokens: tokens that a proxy takes, L.
        path: "auto", "cached" or "full".

    Raises:
        ValueError: for a template without exactly one placeholder, one that is too long for the tower, or `path="cached"` on a tower
            that is not causal or not read at end-of-text.
    """

    def __init__(self, model: nn.Module, tokenizer, template: str, word_tokens: int = 1, path: str = "auto"):
        self.model, self.template, self.word_tokens = model, template, word_tokens
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

    def __call__(self, proxies: torch.Tensor, normalize: bool = True) -> torch.Tensor:
        words = proxies[:, None] if proxies.ndim == 2 else proxies
        if words.ndim != 3 or words.shape[1] != self.word_tokens:
            raise ValueError(f"proxies of shape (n, e) or (n, {self.word_tokens}, e) are expected, not {tuple(proxies.shape)}")
        out = self._tail(words) if self.path == "cached" else self._whole(words)
        return F.normalize(out, dim=-1) if normalize else out

    def _whole(self, words: torch.Tensor) -> torch.Tensor:
        """Every token of the context, by the model's own `encode_text`; a hook puts the words in their place."""

        def place(module, args, embedded):
            return torch.cat([embedded[:, : self.start], words.to(embedded.dtype), embedded[:, self.start + self.word_tokens :]], 1)

        handle = self.tower.token_embedding.register_forward_hook(place)
        try:
            return self.model.encode_text(self.tokens.expand(len(words), -1))
        finally:
            handle.remove()

    @torch.no_grad()
    def _fill_cache(self) -> None:
        tower = self.tower
        x = tower.token_embedding(self.tokens[None, : self.start]) + tower.positional_embedding[: self.start]
        self._cache = []
        for block in tower.transformer.resblocks:
            x, key_value = _attend(block, x)
            self._cache.append(key_value)
        self._suffix = tower.token_embedding(self.tokens[self.start + self.word_tokens : self.end + 1])
        self._positions = tower.positional_embedding[self.start : self.end + 1].detach().clone()

    def _tail(self, words: torch.Tensor) -> torch.Tensor:
        tower = self.tower
        x = torch.cat([words.to(self._suffix.dtype), self._suffix.expand(len(words), -1, -1)], 1) + self._positions
        blocks = tower.transformer.resblocks
        for i, (block, key_value) in enumerate(zip(blocks, self._cache)):
            x, _ = _attend(block, x, key_value, last_only=i == len(blocks) - 1)
        x = tower.ln_final(x[:, -1])
        projection = tower.text_projection
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


def _attend(block: ResidualAttentionBlock, x: torch.Tensor, prefix=None, last_only: bool = False):
    """One residual block on tokens x (n, l, e) behind the keys and values of a prefix; `last_only` follows the last token alone."""
    y = block.ln_1(x)
    q, k, v = F.linear(y, block.attn.in_proj_weight, block.attn.in_proj_bias).unflatten(-1, (3, block.attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    here = (k, v)
    if prefix is not None:
        k, v = (torch.cat([p.expand(len(x), -1, -1, -1), new], 2) for p, new in zip(prefix, here))
    if last_only:
        q, x = q[:, :, -1:], x[:, -1:]
    mask = None if q.shape[2] == 1 else torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=x.device).tril(k.shape[2] - q.shape[2])
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
    x = x + block.ls_1(block.attn.out_proj(y))
    return x + block.ls_2(block.mlp(block.ln_2(x))), here
