"""Multi-DProxy: proxies over candidate words, which are pruned during training; fusion with images.

Jinfeng Xu, Zheyu Chen, Shuo Yang, Jinze Li, Ziyue Peng, Zewei Liu, Hewei Wang, Jiayi Zhang,
Edith C. H. Ngai: Multi-modal Dynamic Proxy Learning for Personalized Multiple Clustering.
AAAI 2026, arXiv 2511.07274. No code was released.

Notable: written from a detailed summary of the paper; what the summary leaves open is a parameter.
Not here: fusion layers, repulsion and pruning (`dproxy_terms.py`), the mixture (`multisub.mix`).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmclust.encoders.feature_stream import as_tensor
from mmclust.methods import training
from mmclust.methods.base import ProxyClusterer, RandomSeed, nearest, torch_generator
from mmclust.methods.dproxy_terms import (
    GatedFusion,
    Negatives,
    better_half,
    first_token,
    halving_interval,
    hard_repulsion,
    last_token,
    schedule,
)
from mmclust.methods.multisub import mix
from mmclust.methods.n_clusters import choose_n_clusters
from mmclust.methods.parameters import NOT_NEGATIVE, POSITIVE, POSITIVE_INTEGER, Number
from mmclust.metrics import kmeans

if TYPE_CHECKING:
    from mmclust.encoders.base import Encoder
    from mmclust.encoders.prompt import PromptEncoder

ONE_AT_A_TIME = threading.Lock()  # fits in threads share torch's random numbers


@dataclass
class State:
    """Inputs and parameters of one fit, without the optimizer."""

    factors: training.PerImageParameters  # w' (n, e)
    words: list[str]  # K candidates
    candidates: Tensor  # c (K, e)
    prompt: PromptEncoder
    images: Tensor  # v (n, d), or all tokens (n, 1 + patches, d)
    fusion: GatedFusion | None


class Output(NamedTuple):
    """What is computed for n images: tensors in training, arrays as attributes of the estimator."""

    weights: Any  # a (n, K)
    proxies: Any  # w (n, e)
    prompts: Any  # t(w) (n, d)
    fused: Any  # F (n, d), or (n, 2 d) as a concatenation
    text: Any  # T (n, d)
    visual: Any  # V (n, d)
    mixing: Any  # lam (n,)


class MultiDProxy(ProxyClusterer):
    """Learn proxies over candidate words that are pruned during training, fuse them with the image
    by gated cross-modal attention, and cluster the result with k-means.

    Every image has a latent factor w'_i (e,). With the current candidates c,

        a_ik = softmax_k(w'_i . c_k / tau_alpha),    w_i = sum_k a_ik c_k.

    T = t(w_i) and V = v_i pass through L gated fusion layers (`GatedFusion`), and then

        F = lam * T + (1 - lam) * V    with    lam = sigmoid(<T, V> / tau),

    all L2-normalized. The loss at epoch t is L_a + alpha(t) L_u + beta(t) L_c (+ L_align); f_i is
    the F of image i:

        L_a = mean_i (1 - cos(f_i, v_i))
        L_u = mean_i ||w_i - mean_k c_k||^2,           alpha(t) = min(0.5, 0.1 + 0.4 t / E)
        L_c = mean_i log sum_j exp(<f_i, t(w_j)> / sigma),  beta(t) = 0.1 (1 - cos(pi t / E))
        L_align = mean_i (1 - cos(t(w_i), v_i))

    Every R epochs the better half of the candidates is kept, until M are left. The paper starts
    with 2^b M words, b = E / R, and so ends with M. [?] marks what the summary of the paper leaves
    open.

    Args:
        encoder, words, template, chunk_size, n_init, verbose: see `ProxyClusterer`.
        n_clusters: M, or "auto": chosen on t(w) before the first pruning; without one, at the end.
        representation: what k-means clusters: "fused" F, "text" T, "visual" V, "concatenation"
            [T, V], all after the layers, or "word" w.
        epochs: E, full-batch steps (paper: 1000). lr, weight_decay: of Adam. fusion_lr: learning
            rate of the fusion layers; None takes lr.
        update_every: R, or "auto": E / (b + 1), rounded down, with b the number of halvings from
            K to M words, so that M are left for the last R epochs. If M is "auto", b is for M = 2.
        dynamic: whether candidates are pruned.
        score: of a candidate in pruning: its "mean" cosine to the M k-means centers of the proxies
            (paper), which favors generic words, or the "max", which does not [?].
        fusion: "gated"; "concatenation", F = [T, V] / sqrt(2) without layers (the paper's
            ablation); or "none", F as above without layers.
        modality: "both"; "text", F = T alone; or "visual", F = V alone.
        tokens: "pooled", one per modality, so that attention is a linear map; or "all", the patch
            and prompt tokens, read at the class and the end-of-text token [?]. "all" keeps all
            patch tokens in memory.
        layers, heads: L fusion layers, and their attention heads.
        tau, tau_alpha, sigma: temperatures of lam, of the weights a and of L_c.
        negatives: number of images j in L_c, drawn anew in each epoch. hard: how many of them, the
            most similar ones, count.
        repel: the images that repel image i: "other", those whose candidate with the largest weight
            is not that of image i; or "all" [?].
        negatives_grad: whether the gradient of L_c reaches w_j [?].
        user_weight, concept_weight: multiply alpha(t) and beta(t); 0 leaves the constraint out.
        align_weight: of L_align, an alignment in the paper's overview figure; 0 leaves it out [?].
        user_reduction: of L_u over dimensions: "sum", "mean", or "relative", divided by the mean
            squared norm of the candidates [?].
        early_stopping: stop if the clusterings of `n_checks` + 1 successive checks, `check_every`
            epochs apart, agree (adjusted Rand index of at least `agreement`), but never before the
            last pruning.
        random_state: seed of k-means, the fusion layers and the negatives.

    Attributes, besides those of `ProxyClusterer`:
        candidates_: the K' words that are left. weights_: a, float32 (n, K').
        text_, visual_, fused_: T, V, F, float32 (n, d), L2-normalized; F is (n, 2 d) if it is a
            concatenation. mixing_: lam (n,).
        updates_: a list of {"epoch", "candidates"}: the words at the start, and after each pruning.
    """

    REPRESENTATIONS = ("fused", "text", "visual", "concatenation", "word")
    CONSTRAINTS = (
        ProxyClusterer.CONSTRAINTS
        | {
            "representation": REPRESENTATIONS,
            "score": ("mean", "max"),
            "fusion": ("gated", "concatenation", "none"),
            "modality": ("both", "text", "visual"),
            "tokens": ("pooled", "all"),
            "repel": ("other", "all"),
            "user_reduction": training.NORM_REDUCTIONS,
            "fusion_lr": Number(low=0, alternatives=(None,)),
        }
        | dict.fromkeys(("tau", "tau_alpha", "sigma"), POSITIVE)
        | {"update_every": Number(low=1, integer=True, alternatives=("auto",))}
        | dict.fromkeys(("epochs", "layers", "heads"), POSITIVE_INTEGER)
        | dict.fromkeys(("negatives", "hard"), POSITIVE_INTEGER)
        | dict.fromkeys(("lr", "weight_decay", "align_weight"), NOT_NEGATIVE)
        | dict.fromkeys(("user_weight", "concept_weight"), NOT_NEGATIVE)
    )

    def __init__(
        self, encoder: Encoder | None = None, words: Sequence[str] | None = None, *,
        template: str | None = None, n_clusters: int | str = 8, representation: str = "fused",
        epochs: int = 1000, lr: float = 5e-3, fusion_lr: float | None = None,
        weight_decay: float = 0.0, update_every: int | str = "auto", dynamic: bool = True,
        score: str = "mean", fusion: str = "gated", modality: str = "both", tokens: str = "pooled",
        layers: int = 2, heads: int = 4, tau: float = 0.07, tau_alpha: float = 1.0,
        sigma: float = 0.5, negatives: int = 256, hard: int = 32, repel: str = "other",
        negatives_grad: bool = False, user_weight: float = 1.0, concept_weight: float = 1.0,
        align_weight: float = 1.0, user_reduction: str = "relative", early_stopping: bool = False,
        check_every: int = 5, n_checks: int = 3, agreement: float = 0.99, chunk_size: int = 4096,
        n_init: int = 1, random_state: RandomSeed = None, verbose: bool | None = None,
    ) -> None:  # fmt: skip
        self.encoder, self.words, self.template = encoder, words, template
        self.n_clusters, self.representation = n_clusters, representation
        self.epochs, self.weight_decay = epochs, weight_decay
        self.lr, self.fusion_lr = lr, fusion_lr
        self.update_every, self.dynamic, self.score = update_every, dynamic, score
        self.fusion, self.modality, self.tokens = fusion, modality, tokens
        self.layers, self.heads = layers, heads
        self.tau, self.tau_alpha, self.sigma = tau, tau_alpha, sigma
        self.negatives, self.hard, self.repel = negatives, hard, repel
        self.negatives_grad, self.user_reduction = negatives_grad, user_reduction
        self.user_weight, self.concept_weight = user_weight, concept_weight
        self.align_weight, self.early_stopping = align_weight, early_stopping
        self.check_every, self.n_checks, self.agreement = check_every, n_checks, agreement
        self.chunk_size, self.n_init = chunk_size, n_init
        self.random_state, self.verbose = random_state, verbose

    def _check(self, n_images: int) -> None:
        super()._check(n_images)
        width = self.encoder.embedding_dim
        if width % self.heads:
            raise ValueError(f"heads must divide the embedding width {width}, not be {self.heads}")

    def _fit(self, images: Any) -> None:
        generator = torch_generator(self.random_state)
        state = self._initial_state(images)
        groups: list[Any] = [{"params": state.factors.parameters}]
        if self.fusion == "gated" and self.modality == "both":
            with ONE_AT_A_TIME, torch.random.fork_rng(devices=[]):  # drawn from random_state alone
                torch.default_generator.manual_seed(generator.initial_seed())
                layers = GatedFusion(self.encoder.embedding_dim, self.layers, self.heads)
            state.fusion = layers.to(state.images)
            groups.append({"params": state.fusion.parameters(), "lr": self.fusion_lr or self.lr})
        optimizer = training.make_optimizer("adam", groups, self.lr, self.weight_decay)
        stop = training.clustering_agreement(self.check_every, self.n_checks, self.agreement)
        history = training.History("Multi-DProxy", self.epochs, self.verbose)
        self.updates_ = [{"epoch": 0, "candidates": state.words}]
        automatic = halving_interval(len(state.words), self._n_clusters, self.epochs)
        every = automatic if isinstance(self.update_every, str) else self.update_every
        for epoch in range(self.epochs):
            if self.dynamic and epoch and epoch % every == 0:
                self._prune(state, epoch)
            terms = self._step(state, optimizer, epoch, generator)
            n_candidates = len(state.words)
            history.add(("loss", "L_a", "L_u", "L_c", "L_align"), terms, candidates=n_candidates)
            can_stop = self.early_stopping and self._pruned_for_good(epoch, every, n_candidates)
            if can_stop and stop.reached(epoch, partial(self._clustering, state)):
                break
        self.history_, self.seconds_ = history.finish()
        self.candidates_ = state.words
        self._fusion = state.fusion
        self._learned = self._output(state)
        self.weights_, self.proxies_, self.prompt_embeddings_ = self._learned[:3]
        self.fused_, self.text_, self.visual_, self.mixing_ = self._learned[3:]
        self._choose_n_clusters(self.prompt_embeddings_, len(self.candidates_))
        self._cluster(self.representation)

    def _initial_state(self, images: Any) -> State:
        """The state before the first step, without fusion layers."""
        encoder = self.encoder
        prompt = encoder.prompt(self._template())
        tokens = encoder.patch_tokens if self.tokens == "all" else encoder.encode_images
        v = as_tensor(tokens(images)).to(encoder.device)
        candidates = encoder.word_embeddings(self.words).to(encoder.device)
        start = v.new_zeros(len(v), encoder.token_dim)
        factors = training.PerImageParameters(start, "full", self.chunk_size)
        return State(factors, list(self.words), candidates, prompt, v, None)

    def _step(
        self, state: State, optimizer: torch.optim.Optimizer, epoch: int,
        generator: torch.Generator | None = None,
    ) -> Tensor:  # fmt: skip
        """One full-batch step; returns the loss and its terms L_a, L_u, L_c, L_align.

        Without a generator, or with a concept_weight of 0, L_c is left out and recorded as 0.
        """
        images, candidates = state.images, state.candidates
        alpha, beta = schedule(epoch, self.epochs)
        factors = [1.0, self.user_weight * alpha, self.concept_weight * beta, self.align_weight]
        weights = images.new_tensor(factors)
        scale = training.squared_norm_scale(candidates, self.user_reduction)
        center = candidates.mean(0)  # (e,)
        index = None  # of the negatives, (b,)
        if generator is not None and self.concept_weight > 0:
            drawn = torch.randperm(len(images), generator=generator)[: self.negatives]
            index = drawn.to(images.device)
        # With one chunk, its forward pass contains the prompts of the negatives. With several, the
        # prompts are computed first; their gradient is summed over the chunks and used at the end.
        separate = None
        if index is not None and len(state.factors.chunks) > 1:
            separate, prompts = self._separate_negatives(state, index)

        def loss_of(rows: slice, p: Tensor, size: int) -> tuple[Tensor, tuple]:
            output = self._forward(state, rows, p)
            v = first_token(images[rows])  # (chunk, d)
            fused_align = (1 - (output.fused * self._anchor(v)).sum(-1)).sum() / size
            user = scale * (output.proxies - center).square().sum() / size
            concept = torch.zeros_like(fused_align)
            if index is not None:
                negatives = separate or self._negatives_among(output, index)
                concept = self._concept(output, rows, negatives) / size
            align = (1 - (output.prompts * v).sum(-1)).sum() / size
            terms = torch.stack([fused_align, user, concept, align])
            loss = weights @ terms
            return loss, (loss, *terms)

        def pass_on_gradient() -> None:
            if separate is not None and self.negatives_grad:
                prompts.backward(separate.prompts.grad)

        return state.factors.epoch(optimizer, loss_of, pass_on_gradient)

    def _negatives_among(self, output: Output, index: Tensor) -> Negatives:
        prompts = output.prompts[index] if self.negatives_grad else output.prompts[index].detach()
        return Negatives(index, prompts, output.weights.argmax(1)[index])

    def _separate_negatives(self, state: State, index: Tensor) -> tuple[Negatives, Tensor]:
        """The negatives, with detached prompts; and the prompts with their autograd graph."""
        with torch.set_grad_enabled(self.negatives_grad):
            factors = torch.cat(state.factors.parameters)[index]
            weights, proxies = mix(factors / self.tau_alpha, state.candidates)
            prompts = state.prompt(proxies)
        detached = prompts.detach().requires_grad_(self.negatives_grad)
        return Negatives(index, detached, weights.argmax(1)), prompts

    def _concept(self, output: Output, rows: slice, negatives: Negatives) -> Tensor:
        """L_c, summed over the images `rows`."""
        index = negatives.index
        images = torch.arange(rows.start, rows.stop, device=index.device)
        repelled = index[None] != images[:, None]  # (chunk, b)
        if self.repel == "other":
            repelled &= negatives.heaviest[None] != output.weights.argmax(1)[:, None]
        anchors = self._anchor(negatives.prompts)
        return hard_repulsion(output.fused, anchors, repelled, self.sigma, self.hard)

    def _forward(self, state: State, rows: slice, p: Tensor) -> Output:
        """The output for the images `rows` with latent factors p (chunk, e)."""
        weights, proxies = mix(p / self.tau_alpha, state.candidates)
        t = state.prompt(proxies, all_tokens=self.tokens == "all")  # (chunk, [l,] d)
        v = state.images[rows]  # (chunk, [1 + patches,] d)
        prompts = last_token(t)  # (chunk, d)
        if state.fusion is not None:
            t, v = state.fusion(t, v)
        text = F.normalize(last_token(t), dim=-1)  # (chunk, d)
        visual = F.normalize(first_token(v), dim=-1)  # (chunk, d)
        lam = torch.sigmoid((text * visual).sum(-1, keepdim=True) / self.tau)  # (chunk, 1)
        if self.modality != "both":
            fused = text if self.modality == "text" else visual
        elif self.fusion == "concatenation":
            fused = torch.cat([text, visual], -1) / math.sqrt(2)  # (chunk, 2 d)
        else:
            fused = F.normalize(lam * text + (1 - lam) * visual, dim=-1)
        return Output(weights, proxies, prompts, fused, text, visual, lam[:, 0])

    def _anchor(self, x: Tensor) -> Tensor:
        """What F is compared with, for x (m, d): x itself, or, if F is a concatenation, [x, x] with
        the norm of x."""
        if self.fusion == "concatenation" and self.modality == "both":
            return torch.cat([x, x], -1) / math.sqrt(2)
        return x

    def _output(self, state: State) -> Output:
        output = state.factors.map(partial(self._forward, state))
        return Output(*(x.cpu().numpy() for x in output))

    def _prune(self, state: State, epoch: int) -> None:
        """Keep the better half of the candidates, at least M."""
        if not self._n_clusters:
            self._choose_n_clusters(self._output(state).prompts, len(state.words))
        if len(state.words) <= self._n_clusters:
            return
        candidates = state.candidates
        (proxies,) = state.factors.map(lambda _, p: mix(p / self.tau_alpha, candidates)[1:])
        centers = kmeans(proxies.cpu().numpy(), self._n_clusters, self.random_state)[1]
        on_device = torch.from_numpy(centers).to(candidates)
        better = better_half(candidates, on_device, self._n_clusters, self.score)
        state.candidates = candidates[better]
        state.words = [state.words[k] for k in better.tolist()]
        self.updates_.append({"epoch": epoch, "candidates": state.words})

    def _pruned_for_good(self, epoch: int, every: int, n_candidates: int) -> bool:
        """Whether no candidates will be dropped after this epoch."""
        last_update = (self.epochs - 1) // every * every
        return not self.dynamic or epoch >= last_update or n_candidates <= self._n_clusters

    def _clustering(self, state: State, last: Any) -> tuple[np.ndarray, np.ndarray]:
        """Labels and centers at a check of early stopping, from the centers at the `last` one."""
        output = self._output(state)
        n_clusters = self._n_clusters or (last and len(last[1]))
        if not n_clusters:  # for the checks alone: M is chosen on the trained prompts
            n_clusters, _ = choose_n_clusters(output.prompts, len(state.words), self.random_state)
        x = named(self.representation, output)
        return kmeans(x, n_clusters, self.random_state, start=last and last[1])

    def _predict(self, images: Any) -> np.ndarray:
        """Learn latent factors for new images, with the candidates of the same epochs as in `fit`.
        L_c is left out, because it compares images. So are the fusion layers, which start as the
        identity: trained layers move F to V for any proxy. The trained layers are applied last."""
        state = self._initial_state(images)
        factors = state.factors.parameters
        optimizer = training.make_optimizer("adam", factors, self.lr, self.weight_decay)
        updates = {update["epoch"]: update["candidates"] for update in self.updates_}
        for epoch in range(len(self.history_)):
            if epoch in updates:
                embeddings = self.encoder.word_embeddings(updates[epoch])
                state.candidates = embeddings.to(self.encoder.device)
            self._step(state, optimizer, epoch)
        state.fusion = self._fusion
        x = named(self.current_representation_, self._output(state))
        return nearest(x, self.cluster_centers_)

    def _represent(self, name: str) -> np.ndarray:
        return named(name, self._learned)

    def _word_weights(self) -> tuple[Sequence[str], np.ndarray]:
        return self.candidates_, self.weights_

    def _events(self) -> list[str | None]:
        sizes = [row["candidates"] for row in self.history_]
        return [
            f"{before} to {size} candidates" if size != before else None
            for before, size in zip([sizes[0], *sizes], sizes)
        ]


def named(name: str, output: Output) -> np.ndarray:
    if name == "concatenation":
        return np.hstack([output.text, output.visual])
    return output.proxies if name == "word" else getattr(output, name)
