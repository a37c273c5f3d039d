"""Prompts with learned words: their text embeddings and gradients, from as few tokens as possible.

CLIP's text tower is causal and is read at end-of-text. What precedes the placeholder is the same
for every image, so its keys and values are computed once; what follows end-of-text is never read.
Only the tokens from the placeholder to end-of-text run per image. A bidirectional tower (ALIGN's,
BLIP's) runs all tokens of the prompt, but no padding if that is masked. Output and gradient equal
those of a run over all tokens of the context.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import nn

PLACEHOLDER = "*"
# Pairs of words that are one token each in almost every vocabulary.
PROBE_WORDS = ("red", "blue", "one", "two", "cat", "dog")

KeysAndValues = tuple[torch.Tensor, torch.Tensor]


def split_template(template: str) -> tuple[str, str]:
    """The text before and after the placeholder; ValueError unless there is exactly one."""
    if template.count(PLACEHOLDER) != 1:
        example = "'fruit with a color of *'"
        raise ValueError(f"a template needs exactly one '*', as in {example}; got {template!r}")
    before, after = template.split(PLACEHOLDER)
    return before.strip(), after.strip()


def word_ids(tokenizer: Any, word: str) -> list[int]:
    """Token ids of a word, without start and end, by a tokenizer of open_clip or transformers."""
    if hasattr(tokenizer, "encode"):
        return tokenizer.encode(word)
    return tokenizer.tokenizer(tokenizer.clean_fn(word), add_special_tokens=False)["input_ids"]


def tokenize_template(tokenizer: Any, template: str) -> tuple[list[int], int, list[int], int]:
    """Token ids before the placeholder (with start), of a word in it, after it, and of padding.

    The template is tokenized with two different one-token words: the placeholder is where the ids
    differ.
    """
    prefix, suffix = split_template(template)
    texts = [" ".join(filter(None, (prefix, word, suffix))) for word in PROBE_WORDS]
    longest = 4 * len(template) + 64  # more tokens than any text of so many characters
    rows = tokenizer(texts, context_length=longest)
    padding = int(rows[0, -1])
    for first, second in zip(rows[::2], rows[1::2]):
        differences = (first != second).nonzero()
        if len(differences) == 1:
            start = int(differences)
            end = 1 + int((first != padding).nonzero().max())
            after = first[start + 1 : end].tolist()
            return first[:start].tolist(), int(first[start]), after, padding
    words = ", ".join(PROBE_WORDS)
    raise ValueError(f"{template!r}: this tokenizer has no single tokens for {words}")


def token_table(model: Any) -> nn.Embedding:
    """The token embeddings of a text tower, or of a model that has one; ValueError if unknown."""
    tower = getattr(model, "text", model)
    if hasattr(tower, "token_embedding"):
        return tower.token_embedding
    inner = getattr(tower, "transformer", tower)
    if hasattr(inner, "embed_tokens"):
        return inner.embed_tokens
    if hasattr(inner, "get_input_embeddings"):
        return inner.get_input_embeddings()
    raise ValueError(f"a text tower of type {type(tower).__name__} has no known token embeddings")


class PromptEncoder:
    """The text tower's output for a template with learned words in its placeholder.

    Call it with words (n, e): it returns prompt embeddings (n, d), L2-normalized unless
    `normalize=False`. With `all_tokens=True` it returns the embeddings of every token from the
    placeholder on, (n, l, d). The last one is the one that is read: in CLIP at end-of-text;
    elsewhere it replaces that of the end token.

    Args:
        model: an open_clip model, or an object with its `encode_text`.
        path: "full" runs all tokens of the context. "auto" takes the fastest way that agrees with
            it, which is checked here: "cached" (the prefix once), "cropped" (without padding) or
            "full". The attribute `path` says which.
        positions, final_norm: add the positional embedding, apply the final LayerNorm. The
            released code of Multi-MaP and Multi-Sub leaves both out.
        autocast: run in bfloat16 (torch's autocast); outputs are float32.

    Raises:
        ValueError: not exactly one placeholder, a template that is too long, an unknown path,
            `positions` or `final_norm` off for a tower without them, or a tower that does not look
            up its tokens in its table.
    """

    def __init__(
        self, model: Any, tokenizer: Any, template: str, path: str = "auto", positions: bool = True,
        final_norm: bool = True, autocast: bool = False,
    ) -> None:  # fmt: skip
        self.model = model
        self.positions = positions
        self.final_norm = final_norm
        self.autocast = autocast
        self.tower = getattr(model, "text", model)
        self.table = token_table(model)
        is_clip = hasattr(self.tower, "ln_final") and getattr(self.tower, "cls_emb", None) is None
        if not (positions and final_norm) and not is_clip:
            problem = f"{type(self.tower).__name__} has none of these parts of CLIP's text tower"
            raise ValueError(f"positions=False and final_norm=False: {problem}")
        before, word, after, padding = tokenize_template(tokenizer, template)
        ids = [*before, word, *after]
        length = tokenizer.context_length
        if tower_length := getattr(self.tower, "context_length", 0):  # mT5 has no limit
            length = min(tower_length, length)
        if len(ids) > length:
            raise ValueError(f"{template!r} needs {len(ids)} tokens, the text tower reads {length}")
        self.start = len(before)  # position of the placeholder
        self.end = len(ids) - 1  # position of end-of-text
        ids += [padding] * (length - len(ids))
        self.tokens = torch.tensor(ids, device=self.table.weight.device)
        self.path = self._choose_path(path)

    def __call__(
        self, words: torch.Tensor, normalize: bool = True, all_tokens: bool = False
    ) -> torch.Tensor:
        if words.ndim != 2:
            raise ValueError(f"words of shape (n, e) are expected, not {tuple(words.shape)}")
        with torch.autocast(words.device.type, torch.bfloat16, enabled=self.autocast):
            out = self._encode(self.path, words, all_tokens)
        out = out.float() if self.autocast else out
        return F.normalize(out, dim=-1) if normalize else out

    def _choose_path(self, path: str) -> str:
        """The path to take; computes the prefix if it is "cached"."""
        if path not in ("auto", "full"):
            raise ValueError(f'path must be "auto" or "full", not {path!r}')
        if path == "auto" and can_cache_prefix(self.tower):
            self._compute_prefix()
            if self._agrees_with_full("cached"):
                return "cached"
        return "cropped" if path == "auto" and self._agrees_with_full("cropped") else "full"

    @torch.no_grad()
    def _agrees_with_full(self, path: str) -> bool:
        """Whether a path gives the same as "full" for two words of the table."""
        table = self.table.weight
        words = self.table(torch.tensor([0, len(table) - 1], device=table.device))
        try:
            outputs = [self._encode(p, words).float() for p in (path, "full")]
        except RuntimeError:  # open_clip's own towers need all tokens of the context
            return False
        tolerance = 2e-2 if table.dtype in (torch.float16, torch.bfloat16) else 1e-4
        short, full = (F.normalize(out, dim=-1) for out in outputs)
        return torch.allclose(short, full, atol=tolerance)

    def _encode(self, path: str, words: torch.Tensor, all_tokens: bool = False) -> torch.Tensor:
        if path == "cached":
            return self._after_prefix(words, all_tokens)
        tokens = self.tokens[: self.end + 1] if path == "cropped" else self.tokens
        return self._by_model(tokens, words, all_tokens)

    def _by_model(
        self, tokens: torch.Tensor, words: torch.Tensor, all_tokens: bool
    ) -> torch.Tensor:
        """The model's own `encode_text`; hooks insert the words and undo what is switched off."""
        tower = self.tower
        states: list[torch.Tensor] = []
        inserted = []

        def insert(module: nn.Module, args: tuple, embedded: torch.Tensor) -> torch.Tensor:
            inserted.append(True)
            before = embedded[:, : self.start]
            after = embedded[:, self.start + 1 :]
            x = torch.cat([before, words.to(embedded.dtype)[:, None], after], 1)
            # cancels the positions, which the model adds next
            return x if self.positions else x - tower.positional_embedding

        def last_layer(module: nn.Module, args: tuple, out: Any) -> Any:
            if not self.final_norm:
                out = args[0]
            states.append(getattr(out, "last_hidden_state", out))
            return out

        top = getattr(tower, "ln_final", None) or getattr(tower, "transformer", tower)
        handles = [self.table.register_forward_hook(insert), top.register_forward_hook(last_layer)]
        try:
            out = self.model.encode_text(tokens.expand(len(words), -1), normalize=False)
        finally:
            for handle in handles:
                handle.remove()
        tower_type = f"a text tower of type {type(tower).__name__}"
        if not inserted:
            raise ValueError(f"{tower_type} does not look up its tokens in its table")
        if not all_tokens:
            return out
        if states[0].ndim != 3:
            raise ValueError(f"{tower_type} gives no embeddings of its tokens")
        return torch.cat([self._project(states[0][:, self.start : self.end]), out[:, None]], 1)

    @torch.no_grad()
    def _compute_prefix(self) -> None:
        """Compute what is the same for every image."""
        tower = self.tower
        blocks = tower.transformer.resblocks
        self._position = tower.positional_embedding[: self.end + 1].detach()
        if not self.positions:
            self._position = torch.zeros_like(self._position)
        x = tower.token_embedding(self.tokens[None, : self.start]) + self._position[: self.start]
        self._prefixes: list[KeysAndValues] = []  # per block, each (heads, P, e / heads)
        for block in blocks:
            x, (keys, values) = _run_block(block, x)
            self._prefixes.append((keys[:, 0], values[:, 0]))
        self._suffix = tower.token_embedding(self.tokens[self.start + 1 : self.end + 1])
        attention = blocks[0].attn
        suffix = blocks[0].ln_1(self._suffix + self._position[self.start + 1 :])
        self._suffix_qkv = F.linear(suffix, attention.in_proj_weight, attention.in_proj_bias)

    def _after_prefix(self, words: torch.Tensor, all_tokens: bool) -> torch.Tensor:
        """The tokens from the placeholder on, after the cached keys and values of the prefix."""
        suffix = self._suffix.expand(len(words), -1, -1)
        x = torch.cat([words.to(suffix.dtype)[:, None], suffix], 1) + self._position[self.start :]
        blocks = self.tower.transformer.resblocks
        for i, (block, prefix) in enumerate(zip(blocks, self._prefixes)):
            known_qkv = self._suffix_qkv if i == 0 else None
            last_only = i == len(blocks) - 1 and not all_tokens
            x, _ = _run_block(block, x, prefix, last_only, known_qkv)
        x = x if all_tokens else x[:, -1]
        return self._project(self.tower.ln_final(x) if self.final_norm else x)

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        if hasattr(self.tower, "text_projection"):
            projection = self.tower.text_projection
        else:
            projection = getattr(self.tower, "proj", None) or self.model.project
        if projection is None:
            return x
        return x @ projection if isinstance(projection, torch.Tensor) else projection(x)


def can_cache_prefix(tower: Any) -> bool:
    """Whether a tower is causal, read at end-of-text and built of open_clip's plain blocks."""
    mask = getattr(tower, "attn_mask", None)
    blocks = getattr(getattr(tower, "transformer", None), "resblocks", [])
    pool = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
    if mask is None or mask.ndim != 2 or pool not in ("argmax", "eos"):
        return False
    causal = torch.equal(torch.isinf(mask), torch.ones_like(mask, dtype=torch.bool).triu(1))
    plain = len(blocks) > 0 and all(
        type(block) is ResidualAttentionBlock and not hasattr(block, "ln_1_kv") for block in blocks
    )
    return causal and plain and getattr(tower, "cls_emb", None) is None


def _run_block(
    block: Any, x: torch.Tensor, prefix: KeysAndValues | None = None, last_only: bool = False,
    known_qkv: torch.Tensor | None = None,
) -> tuple[torch.Tensor, KeysAndValues]:  # fmt: skip
    """One residual block of a causal tower on tokens x (n, l, e), or the last of them only.

    The prefix (keys and values of the tokens before them, each (heads, P, e / heads)) is the same
    for every image: its share of the scores is one product per head, and its keys are never copied.
    `known_qkv` (k, 3 e) are queries, keys and values of the last k tokens, if they are the same for
    every image. Returns tokens, and their keys and values, each (heads, n, l, e / heads).
    """
    n = len(x)
    attention = block.attn
    new = x if known_qkv is None else x[:, : x.shape[1] - len(known_qkv)]
    qkv = F.linear(block.ln_1(new), attention.in_proj_weight, attention.in_proj_bias)
    if known_qkv is not None:
        qkv = torch.cat([qkv, known_qkv.expand(n, -1, -1)], 1)  # (n, l, 3 e)
    q, k, v = qkv.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 3, 0, 1, 4)
    if last_only:
        q = q[:, :, -1:]
        x = x[:, -1:]
    length = q.shape[2]
    scores = q @ k.transpose(-1, -2)  # (heads, n, l, l)
    if length > 1:
        masked = torch.full((length, length), -torch.inf, dtype=scores.dtype, device=x.device)
        scores = scores + masked.triu(1)
    if prefix is not None:
        keys, values = prefix
        before = (q.flatten(1, 2) @ keys.transpose(1, 2)).unflatten(1, (n, length))
        scores = torch.cat([before, scores], -1)  # (heads, n, l, P + l)
    weights = (scores * q.shape[-1] ** -0.5).softmax(-1)
    y = weights[..., -k.shape[2] :] @ v  # (heads, n, l, e / heads)
    if prefix is not None:
        before = weights[..., : -k.shape[2]].flatten(1, 2) @ values
        y = y + before.unflatten(1, (n, length))
    x = x + block.ls_1(attention.out_proj(y.permute(1, 2, 0, 3).flatten(2)))
    return x + block.ls_2(block.mlp(block.ln_2(x))), (k, v)
