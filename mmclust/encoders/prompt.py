"""Prompts with a learned word in the placeholder's place, at the cost of the tokens that matter.

CLIP's text tower is causal and reads its output at end-of-text. What stands before the placeholder is the same for every image, so its keys
and values are computed once; what stands after end-of-text is never read. Only the tokens from the placeholder to end-of-text run per
image. A tower that looks both ways (ALIGN's, BLIP's) runs the whole prompt, without its padding where that is masked. Output and gradient are
those of the whole prompt.
"""

from __future__ import annotations

from typing import Any

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
        raise ValueError(
            f"a template needs exactly one {PLACEHOLDER!r} where the word goes, as in 'fruit with a color of *'; got {template!r}"
        )
    before, after = template.split(PLACEHOLDER)
    return before.strip(), after.strip()


PROBE_WORDS = (
    "red",
    "blue",
    "one",
    "two",
    "cat",
    "dog",
)  # words of one token each, in about every vocabulary


def word_ids(tokenizer: Any, word: str) -> list[int]:
    """A word's tokens, without start and end, from open_clip's own tokenizer or its wrapper of transformers'."""
    if hasattr(tokenizer, "encode"):
        return tokenizer.encode(word)
    return tokenizer.tokenizer(tokenizer.clean_fn(word), add_special_tokens=False)["input_ids"]


def tokenize_template(tokenizer: Any, template: str) -> tuple[list[int], int, list[int], int]:
    """Tokens before the placeholder, a word in it, tokens after it (start and end among them), and padding.

    Two words of one token each stand in the placeholder by turns: where the tokens differ, it is.

    Raises:
        ValueError: for a template without exactly one placeholder; if no two such words are found.
    """
    before, after = split_template(template)
    texts = [" ".join(part for part in (before, word, after) if part) for word in PROBE_WORDS]
    rows = tokenizer(
        texts, context_length=4 * len(template) + 64
    )  # longer than any text of that many characters
    pad = int(rows[0, -1])
    for first, second in zip(rows[::2], rows[1::2]):
        if len(differ := (first != second).nonzero()) == 1:
            at, end = int(differ), 1 + int((first != pad).nonzero().max())
            return first[:at].tolist(), int(first[at]), first[at + 1 : end].tolist(), pad
    raise ValueError(
        f"this tokenizer has no single tokens for {', '.join(PROBE_WORDS)}: the placeholder of {template!r} can't be found in its tokens"
    )


def token_table(model: Any) -> nn.Embedding:
    """The module of a text tower (or of the model that has one) that gives tokens their embeddings.

    Raises:
        ValueError: for a tower without one.
    """
    tower = getattr(model, "text", model)
    if hasattr(tower, "token_embedding"):
        return tower.token_embedding
    inner = getattr(tower, "transformer", tower)
    if hasattr(inner, "embed_tokens") or hasattr(inner, "get_input_embeddings"):
        return (
            inner.embed_tokens if hasattr(inner, "embed_tokens") else inner.get_input_embeddings()
        )
    raise ValueError(
        f"a text tower of type {type(tower).__name__} has no token embeddings that are known here"
    )


class PromptEncoder:
    """The text tower's output for a template with learned proxies in the placeholder.

    Called with proxies (n, e), or (n, L, e) for a placeholder of L tokens (`word_tokens=L`), it gives prompt embeddings (n, d),
    L2-normalised unless `normalize=False`; `all_tokens=True` gives those of every token from the placeholder on, (n, l, d), the last of them the
    one that is read (at end-of-text in CLIP; elsewhere it stands for the end token).
    `path` says how they are computed: "cached" where that shortcut holds, "cropped" where the tower gives the same without padding, else "full",
    every token of the context. "auto" takes the first that agrees with the whole prompt, checked when the encoder is built.

    Args:
        model: an open_clip model, or what has its `encode_text`.
        tokenizer: its tokenizer.
        template: text with one placeholder `*`.
        word_tokens: tokens that a proxy takes, L.
        path: "auto", "cached", "cropped" or "full".
        positions: add the positional embedding; the released code of Multi-MaP and Multi-Sub leaves it out.
        final_norm: apply the final LayerNorm; the released code leaves it out, too.
        autocast: run in bfloat16 where that is precise enough (torch's autocast); outputs are float32.

    Raises:
        ValueError: for an unknown path, a template without exactly one placeholder, one that is too long for the tower, `path="cached"` on a tower
            that is not causal or not read at end-of-text, `path="cropped"` on one that reads its padding, a switch that the tower does not have, or
            a tower that does not look its tokens up in its table.
    """

    def __init__(
        self, model: Any, tokenizer: Any, template: str, word_tokens: int = 1, path: str = "auto", positions: bool = True, final_norm: bool = True,
        autocast: bool = False,
    ) -> None:  # fmt: skip
        self.model, self.template, self.word_tokens, self.positions, self.final_norm = (
            model,
            template,
            word_tokens,
            positions,
            final_norm,
        )
        self.autocast = autocast
        if path not in ("auto", "cached", "cropped", "full"):
            raise ValueError(f'path is "auto", "cached", "cropped" or "full", not {path!r}')
        self.tower, self.table = getattr(model, "text", model), token_table(model)
        if not (positions and final_norm) and (
            not hasattr(self.tower, "ln_final") or getattr(self.tower, "cls_emb", None) is not None
        ):
            raise ValueError(
                f"positions=False and final_norm=False switch off parts of CLIP's text tower, which {type(self.tower).__name__} is not"
            )
        before, word, after, pad = tokenize_template(tokenizer, template)
        self.start = len(before)
        self.end = self.start + word_tokens + len(after) - 1  # where end-of-text stands
        length = min(
            getattr(self.tower, "context_length", 0) or tokenizer.context_length,
            tokenizer.context_length,
        )  # mT5 knows no longest text
        if self.end >= length:
            raise ValueError(
                f"template {template!r} needs {self.end + 1} tokens, the text encoder reads {length}"
            )
        ids = [*before, *[word] * word_tokens, *after]
        self.tokens = torch.tensor(
            ids + [pad] * (length - len(ids)), device=self.table.weight.device
        )
        self.path = (
            next(p for p in ("cached", "cropped", "full") if self._holds(p))
            if path == "auto"
            else path
        )
        if path == "cached" and not self._holds(path, check=False):
            raise ValueError(
                "this text tower is not causal or not read at end-of-text: the cached prefix does not hold for it"
            )
        if path == "cropped" and not self._holds(path):
            raise ValueError(
                "this text tower reads its padding: without it, it gives something else"
            )

    def __call__(
        self, proxies: torch.Tensor, normalize: bool = True, all_tokens: bool = False
    ) -> torch.Tensor:
        words = proxies[:, None] if proxies.ndim == 2 else proxies
        if words.ndim != 3 or words.shape[1] != self.word_tokens:
            raise ValueError(
                f"proxies of shape (n, e) or (n, {self.word_tokens}, e) are expected, not {tuple(proxies.shape)}"
            )
        with torch.autocast(words.device.type, torch.bfloat16, enabled=self.autocast):
            out = self._by(self.path, words, all_tokens)
        out = out.float() if self.autocast else out
        return F.normalize(out, dim=-1) if normalize else out

    def _by(self, path: str, words: torch.Tensor, all_tokens: bool = False) -> torch.Tensor:
        return (
            self._tail(words, all_tokens)
            if path == "cached"
            else self._whole(words, all_tokens, crop=path == "cropped")
        )

    @torch.no_grad()
    def _holds(self, path: str, check: bool = True) -> bool:
        """Whether a path can be taken: it gives what the whole prompt gives, for two words of the table."""
        if path == "cached":
            if not can_shortcut(self.tower):
                return False
            self._fill_cache()
        if path == "full" or not check:
            return True
        table = self.table.weight
        ids = torch.linspace(0, len(table) - 1, 2 * self.word_tokens, device=table.device).long()
        words = self.table(ids).unflatten(0, (2, self.word_tokens))
        try:
            short, whole = (F.normalize(self._by(p, words), dim=-1) for p in (path, "full"))
        except RuntimeError:  # open_clip's own towers take one length
            return False
        return torch.allclose(
            short.float(),
            whole.float(),
            atol=2e-2 if table.dtype in (torch.float16, torch.bfloat16) else 1e-4,
        )

    def _whole(
        self, words: torch.Tensor, all_tokens: bool = False, crop: bool = False
    ) -> torch.Tensor:
        """Every token of the context (or, cropped, of the prompt) by the model's own `encode_text`; hooks put the words in their place and skip
        what is switched off."""
        tower, placed = self.tower, []
        states: list[torch.Tensor] = []

        def place(module: nn.Module, args: tuple, embedded: torch.Tensor) -> torch.Tensor:
            placed.append(True)
            x = torch.cat(
                [
                    embedded[:, : self.start],
                    words.to(embedded.dtype),
                    embedded[:, self.start + self.word_tokens :],
                ],
                1,
            )
            return (
                x if self.positions else x - tower.positional_embedding
            )  # the model adds it again

        def last(module: nn.Module, args: tuple, out: Any) -> Any:
            states.append(getattr(out, "last_hidden_state", out) if self.final_norm else args[0])
            return out if self.final_norm else args[0]

        top = getattr(tower, "ln_final", None) or getattr(tower, "transformer", tower)
        handles = [self.table.register_forward_hook(place), top.register_forward_hook(last)]
        try:
            tokens = self.tokens[: self.end + 1] if crop else self.tokens
            out = self.model.encode_text(tokens.expand(len(words), -1), normalize=False)
        finally:
            for handle in handles:
                handle.remove()
        if not placed:
            raise ValueError(
                f"a text tower of type {type(tower).__name__} does not look its tokens up in its table: a learned word has no way in"
            )
        if not all_tokens:
            return out
        if states[0].ndim != 3:
            raise ValueError(
                f"a text tower of type {type(tower).__name__} gives no embeddings of its tokens"
            )
        return torch.cat([self._project(states[0][:, self.start : self.end]), out[:, None]], 1)

    @torch.no_grad()
    def _fill_cache(self) -> None:
        tower = self.tower
        self._position = tower.positional_embedding[: self.end + 1].detach() * float(self.positions)
        x = tower.token_embedding(self.tokens[None, : self.start]) + self._position[: self.start]
        self._cache = []
        for block in tower.transformer.resblocks:
            x, (key, value) = _attend(block, x)
            self._cache.append((key[:, 0], value[:, 0]))
        self._suffix = tower.token_embedding(
            self.tokens[self.start + self.word_tokens : self.end + 1]
        )
        first = tower.transformer.resblocks[
            0
        ]  # what follows the word enters it the same for every image
        after = first.ln_1(self._suffix + self._position[self.start + self.word_tokens :])
        self._entered = F.linear(after, first.attn.in_proj_weight, first.attn.in_proj_bias)

    def _tail(self, words: torch.Tensor, all_tokens: bool = False) -> torch.Tensor:
        x = (
            torch.cat([words.to(self._suffix.dtype), self._suffix.expand(len(words), -1, -1)], 1)
            + self._position[self.start :]
        )
        blocks = self.tower.transformer.resblocks
        for i, (block, prefix) in enumerate(zip(blocks, self._cache)):
            x, _ = _attend(
                block,
                x,
                prefix,
                last_only=i == len(blocks) - 1 and not all_tokens,
                known=self._entered if i == 0 else None,
            )
        x = x if all_tokens else x[:, -1]
        return self._project(self.tower.ln_final(x) if self.final_norm else x)

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        tower = self.tower
        projection = (
            tower.text_projection
            if hasattr(tower, "text_projection")
            else getattr(tower, "proj", None) or self.model.project
        )
        return (
            x
            if projection is None
            else x @ projection
            if isinstance(projection, torch.Tensor)
            else projection(x)
        )


def can_shortcut(tower: Any) -> bool:
    """Whether the tower is causal, pools at end-of-text and is built of open_clip's plain residual blocks."""
    mask = getattr(tower, "attn_mask", None)
    blocks = getattr(getattr(tower, "transformer", None), "resblocks", [])
    pool = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
    causal = (
        mask is not None
        and mask.ndim == 2
        and bool((torch.isinf(mask) == torch.ones_like(mask, dtype=torch.bool).triu(1)).all())
    )
    plain = len(blocks) > 0 and all(
        type(b) is ResidualAttentionBlock and not hasattr(b, "ln_1_kv") for b in blocks
    )
    return (
        causal and plain and pool in ("argmax", "eos") and getattr(tower, "cls_emb", None) is None
    )


def _attend(
    block: Any,
    x: torch.Tensor,
    prefix: tuple[torch.Tensor, torch.Tensor] | None = None,
    last_only: bool = False,
    known: torch.Tensor | None = None,
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
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
        scores = scores + torch.full(
            (length, length), -torch.inf, dtype=scores.dtype, device=x.device
        ).triu(1)
    if prefix is not None:
        before = (q.flatten(1, 2) @ prefix[0].transpose(1, 2)).unflatten(1, (n, length))
        scores = torch.cat([before, scores], -1)
    weights = (scores * q.shape[-1] ** -0.5).softmax(-1)
    y = weights[..., -k.shape[2] :] @ v
    if prefix is not None:
        y = y + (weights[..., : -k.shape[2]].flatten(1, 2) @ prefix[1]).unflatten(1, (n, length))
    x = x + block.ls_1(
        frozen_linear(
            y.permute(1, 2, 0, 3).flatten(2), block.attn.out_proj.weight, block.attn.out_proj.bias
        )
    )
    return x + block.ls_2(_mlp(block.mlp, block.ln_2(x))), (k, v)


def _mlp(mlp: Any, x: torch.Tensor) -> torch.Tensor:
    x = frozen_linear(x, mlp.c_fc.weight, mlp.c_fc.bias)
    x = _QuickGELU.apply(x) if isinstance(mlp.gelu, QuickGELU) else mlp.gelu(x)
    return frozen_linear(x, mlp.c_proj.weight, mlp.c_proj.bias)


class _QuickGELU(torch.autograd.Function):
    """x sigmoid(1.702 x) through SiLU's kernels: one pass backward, one tensor kept."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        scaled = 1.702 * x
        ctx.save_for_backward(scaled)
        return F.silu(scaled) / 1.702

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten.silu_backward(grad, *ctx.saved_tensors)  # the two factors cancel


class _FrozenLinear(torch.autograd.Function):
    """oneDNN's linear layer with a gradient for its input alone; on some CPUs it is a quarter faster than the BLAS behind `F.linear`."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.weight = weight
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return (
            torch.ops.mkldnn._linear_pointwise(
                grad.contiguous(), ctx.weight.T, None, "none", [], ""
            ),
            None,
            None,
        )


def frozen_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """`F.linear`, by oneDNN where that is exact and there: float32 on the CPU, a weight that does not learn, no autocast."""
    exact = (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )
    if (
        exact
        and not weight.requires_grad
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    ):
        return _FrozenLinear.apply(x, weight, bias)
    return F.linear(x, weight, bias)
