"""Multi-DProxy: proxies over candidate words that are pruned during training, fused with the image.

Jinfeng Xu, Zheyu Chen, Shuo Yang, Jinze Li, Ziyue Peng, Zewei Liu, Hewei Wang, Jiayi Zhang,
Edith C. H. Ngai: Multi-modal Dynamic Proxy Learning for Personalized Multiple Clustering.
AAAI 2026, arXiv 2511.07274. No code was released.

Notable: written from a detailed summary of the paper; what that leaves open is a parameter.
Not here: the fusion layers (`gated_fusion.py`) and the mixture of words (`multisub.mix`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from mmclust.methods.base import (
    NOT_CHOSEN,
    ProxyClusterer,
    RandomSeed,
    kmeans,
    nearest,
    torch_generator,
)
from mmclust.methods.gated_fusion import GatedFusion
from mmclust.methods.multisub import mix
from mmclust.methods.parameters import NOT_NEGATIVE, POSITIVE, POSITIVE_INTEGER, Number
from mmclust.methods.training import (
    NORM_REDUCTIONS,
    ClusteringAgreement,
    History,
    PerImageParameters,
    make_optimizer,
    squared_norm_scale,
)

if TYPE_CHECKING:
    from mmclust.encoders.base import Encoder
    from mmclust.encoders.prompt import PromptEncoder


@dataclass
class Training:
    """The state of a fit, besides the optimizer."""

    factors: PerImageParameters  # w' (n, e)
    words: list[str]  # K candidates
    candidates: torch.Tensor  # c (K, e)
    prompt: PromptEncoder
    images: torch.Tensor  # v (n, d), or all tokens (n, 1 + patches, d)
    fusion: GatedFusion | None


class Output(NamedTuple):
    """What is computed for n images; tensors, or arrays after training."""

    weights: Any  # a (n, K)
    proxies: Any  # w (n, e)
    prompts: Any  # t(w) (n, d)
    fused: Any  # F (n, d), or (n, 2 d) as a concatenation
    text: Any  # T (n, d)
    visual: Any  # V (n, d)
    mixing: Any  # lam (n,)


@dataclass
class Negatives:
    """The images j that L_c repels in one epoch."""

    index: torch.Tensor  # (b,)
    prompts: torch.Tensor  # t(w_j) (b, d)
    heaviest: torch.Tensor  # (b,), each one's candidate with the largest weight


class MultiDProxy(ProxyClusterer):
    """Learn proxies over candidate words that are pruned during training, fuse them with the image
    by gated cross-modal attention, and cluster the result with k-means.

    Every image has a latent factor w'_i (e,). With the current candidates c,

        a_ik = softmax_k(w'_i . c_k / tau_alpha),    w_i = sum_k a_ik c_k.

    T = t(w_i) and V = v_i pass through L gated fusion layers (`GatedFusion`), and then

        F = lam * T + (1 - lam) * V    with    lam = sigmoid(<T, V> / tau).

    With f_i the F of image i, the loss is L_a + alpha(t) L_u + beta(t) L_c (+ L_align):

        L_a = mean_i (1 - cos(f_i, v_i))
        L_u = mean_i ||w_i - mean_k c_k||^2,           alpha(t) = min(0.5, 0.1 + 0.4 t / E)
        L_c = mean_i log sum_j exp(<f_i, t(w_j)> / sigma),  beta(t) = 0.1 (1 - cos(pi t / E))
        L_align = mean_i (1 - cos(t(w_i), v_i))

    Every R epochs the better half of the candidates is kept, until M are left. [?] marks what the
    summary of the paper leaves open.

    Args:
        encoder, words, template: as for `MultiSub`.
        n_clusters: M, or "auto": chosen on t(w) before the first pruning, or at the end if there is
            none, see `choose_n_clusters`.
        representation: what k-means clusters: "fused" F, "text" T, "visual" V, "concatenation"
            [T, V], all after the layers, or "word" w.
        epochs: E, full-batch steps (paper: 1000). lr, weight_decay: of Adam. fusion_lr: rate of the
            fusion layers; None takes lr.
        update_every: R. dynamic: whether candidates are pruned.
        score: of a candidate: its "mean" cosine to the M centers of the proxies (paper), which
            favors generic words, or the "max", which does not [?].
        fusion: "gated"; "concatenation", F = [T, V] before the layers (the paper's ablation); or
            "none", F = lam T + (1 - lam) V before the layers.
        modality: "both"; "text", F = T alone; or "visual", F = V alone.
        tokens: "pooled", one per modality, so that attention is a linear map; or "all", the patch
            and prompt tokens, read at the class and the end-of-text token [?]. "all" keeps all
            patch tokens in memory.
        layers, heads: L fusion layers, and their attention heads.
        tau, tau_alpha, sigma: temperatures of lam, of the weights and of L_c.
        negatives: images j of L_c, drawn in each epoch. hard: only so many of them, the most similar
            ones, count.
        repel: "other": image i is repelled by images whose heaviest candidate is another; "all": by
            every image [?].
        negatives_grad: whether the gradient of L_c reaches w_j [?].
        user_weight, concept_weight: factors of alpha(t) and beta(t); 0 leaves the constraint out.
        align_weight: of L_align, an alignment in the paper's overview figure; 0 leaves it out [?].
        user_reduction: of L_u over dimensions: "relative", divided by the mean squared norm of the
            candidates, "sum", or "mean" [?].
        early_stopping: stop if the clusterings of `n_checks` + 1 successive checks, `check_every`
            epochs apart, agree (adjusted Rand index of at least `agreement`), but never before the
            last pruning.
        chunk_size, n_init, verbose: as for `MultiSub`.
        random_state: seed of k-means, the fusion layers and the negatives.

    Attributes:
        labels_: int64 (n,). candidates_: the K' words that are left. weights_: a, float32 (n, K').
        proxies_: w (n, e). prompt_embeddings_: t(w) (n, d). text_, visual_, fused_: float32 (n, d),
            L2-normalized. mixing_: lam (n,).
        history_: per epoch the loss and its terms. seconds_: per epoch.
        updates_: per pruning the epoch and the candidates that are left.
        n_clusters_: M. n_clusters_curve_: with "auto", the criterion by M, else None.
        cluster_centers_: (M, width).
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
            "user_reduction": NORM_REDUCTIONS,
            "fusion_lr": Number(low=0, alternatives=(None,)),
        }
        | dict.fromkeys(("tau", "tau_alpha", "sigma"), POSITIVE)
        | dict.fromkeys(
            ("epochs", "update_every", "layers", "heads", "negatives", "hard"), POSITIVE_INTEGER
        )
        | dict.fromkeys(
            ("lr", "weight_decay", "user_weight", "concept_weight", "align_weight"), NOT_NEGATIVE
        )
    )

    def __init__(
        self, encoder: Encoder | None = None, words: Sequence[str] | None = None, *,
        template: str | None = None, n_clusters: int | str = 8, representation: str = "fused",
        epochs: int = 1000, lr: float = 5e-3, fusion_lr: float | None = None,
        weight_decay: float = 0.0, update_every: int = 100, dynamic: bool = True,
        score: str = "mean", fusion: str = "gated", modality: str = "both", tokens: str = "pooled",
        layers: int = 2, heads: int = 4, tau: float = 0.07, tau_alpha: float = 1.0,
        sigma: float = 0.5, negatives: int = 256, hard: int = 32, repel: str = "other",
        negatives_grad: bool = False, user_weight: float = 1.0, concept_weight: float = 1.0,
        align_weight: float = 1.0, user_reduction: str = "relative", early_stopping: bool = False,
        check_every: int = 5, n_checks: int = 3, agreement: float = 0.99, chunk_size: int = 4096,
        n_init: int = 1, random_state: RandomSeed = None, verbose: bool = False,
    ) -> None:  # fmt: skip
        self.encoder, self.words, self.template = encoder, words, template
        self.n_clusters, self.representation = n_clusters, representation
        self.epochs, self.lr, self.fusion_lr = epochs, lr, fusion_lr
        self.weight_decay = weight_decay
        self.update_every, self.dynamic, self.score = update_every, dynamic, score
        self.fusion, self.modality, self.tokens = fusion, modality, tokens
        self.layers, self.heads = layers, heads
        self.tau, self.tau_alpha, self.sigma = tau, tau_alpha, sigma
        self.negatives, self.hard, self.repel = negatives, hard, repel
        self.negatives_grad, self.user_reduction = negatives_grad, user_reduction
        self.user_weight, self.concept_weight = user_weight, concept_weight
        self.align_weight = align_weight
        self.early_stopping, self.check_every = early_stopping, check_every
        self.n_checks, self.agreement = n_checks, agreement
        self.chunk_size, self.n_init = chunk_size, n_init
        self.random_state, self.verbose = random_state, verbose

    def _check(self, n_images: int) -> None:
        super()._check(n_images)
        if self.encoder.embedding_dim % self.heads:
            raise ValueError(
                f"heads must divide the embedding width {self.encoder.embedding_dim}, "
                f"which {self.heads} does not"
            )

    def _fit(self, images: Any) -> None:
        generator = torch_generator(self.random_state, "cpu")
        training = self._training(images, list(self.words))
        groups: list[dict] = [{"params": training.factors.parameters}]
        if self.fusion == "gated" and self.modality == "both":
            training.fusion = self._fusion_layers(generator.initial_seed(), training.images)
            fusion_lr = self.fusion_lr or self.lr
            groups.append({"params": list(training.fusion.parameters()), "lr": fusion_lr})
        optimizer = make_optimizer("adam", groups, self.lr, self.weight_decay)
        stop = ClusteringAgreement(self.check_every, self.n_checks, self.agreement)
        history = History()
        self.updates_ = [{"epoch": 0, "candidates": training.words}]
        for epoch in tqdm(range(self.epochs), desc="Multi-DProxy", disable=not self.verbose):
            if self.dynamic and epoch and epoch % self.update_every == 0:
                self._prune(training, epoch)
            terms = self._step(training, optimizer, epoch, generator)
            n_candidates = len(training.words)
            history.add(("loss", "L_a", "L_u", "L_c", "L_align"), terms, candidates=n_candidates)
            if self.early_stopping and self._pruned_for_good(epoch, n_candidates):
                if stop.reached(epoch, partial(self._clustering, training)):
                    break
        self.history_ = history.table()
        self.seconds_ = history.seconds
        self.candidates_ = training.words
        self._fusion = training.fusion
        output = self._output(training)
        self.weights_, self.proxies_, self.prompt_embeddings_ = output[:3]
        self.fused_, self.text_, self.visual_, self.mixing_ = output[3:]
        self._choose_n_clusters(self.prompt_embeddings_, len(self.candidates_))
        self._cluster(self.representation)

    def _training(self, images: Any, words: list[str]) -> Training:
        """The state before the first step, without fusion layers."""
        encoder = self.encoder
        prompt = encoder.prompt(self._template())
        tokens = encoder.patch_tokens if self.tokens == "all" else encoder.encode_images
        v = torch.from_numpy(tokens(images)).to(encoder.device)
        candidates = encoder.word_embeddings(words).to(encoder.device)
        start = v.new_zeros(len(v), encoder.token_dim)
        factors = PerImageParameters(start, "full", self.chunk_size)
        return Training(factors, words, candidates, prompt, v, None)

    def _fusion_layers(self, seed: int, like: torch.Tensor) -> GatedFusion:
        """New layers, drawn from the seed whatever the state of torch's global generator."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return GatedFusion(self.encoder.embedding_dim, self.layers, self.heads).to(like)

    def _step(
        self, training: Training, optimizer: torch.optim.Optimizer, epoch: int,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """One full-batch step; returns the loss and its terms L_a, L_u, L_c, L_align.

        Without a generator, or with a concept_weight of 0, L_c is left out and recorded as 0.
        """
        images, candidates = training.images, training.candidates
        alpha, beta = schedule(epoch, self.epochs)
        weights = images.new_tensor(
            [1.0, self.user_weight * alpha, self.concept_weight * beta, self.align_weight]
        )
        scale = squared_norm_scale(candidates, self.user_reduction)
        center = candidates.mean(0)  # (e,)
        index = None  # of the negatives, (b,)
        if generator is not None and self.concept_weight > 0:
            drawn = torch.randperm(len(images), generator=generator)[: self.negatives]
            index = drawn.to(images.device)
        # With one chunk, the negatives' prompts are among those of its forward pass. With several,
        # they are computed once before; their gradient, summed over chunks, is passed on after.
        separate = None
        if index is not None and len(training.factors.chunks) > 1:
            separate, prompts = self._separate_negatives(training, index)

        def loss_of(rows: slice, p: torch.Tensor, size: int) -> tuple[torch.Tensor, tuple]:
            output = self._forward(training, rows, p)
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

        return training.factors.epoch(optimizer, loss_of, pass_on_gradient)

    def _negatives_among(self, output: Output, index: torch.Tensor) -> Negatives:
        prompts = output.prompts[index]
        if not self.negatives_grad:
            prompts = prompts.detach()
        return Negatives(index, prompts, output.weights.argmax(1)[index])

    def _separate_negatives(
        self, training: Training, index: torch.Tensor
    ) -> tuple[Negatives, torch.Tensor]:
        """Negatives whose prompts are detached, and these prompts with their graph."""
        with torch.set_grad_enabled(self.negatives_grad):
            factors = torch.cat(training.factors.parameters)[index]
            weights, proxies = mix(factors / self.tau_alpha, training.candidates)
            prompts = training.prompt(proxies)
        detached = prompts.detach().requires_grad_(self.negatives_grad)
        return Negatives(index, detached, weights.argmax(1)), prompts

    def _concept(self, output: Output, rows: slice, negatives: Negatives) -> torch.Tensor:
        """L_c, summed over the images `rows`."""
        index = negatives.index
        images = torch.arange(rows.start, rows.stop, device=index.device)
        repelled = index[None] != images[:, None]  # (chunk, b)
        if self.repel == "other":
            repelled &= negatives.heaviest[None] != output.weights.argmax(1)[:, None]
        anchors = self._anchor(negatives.prompts)
        return hard_repulsion(output.fused, anchors, repelled, self.sigma, self.hard)

    def _forward(self, training: Training, rows: slice, p: torch.Tensor) -> Output:
        """From the latent factors p (chunk, e) of some images to F."""
        weights, proxies = mix(p / self.tau_alpha, training.candidates)
        t = training.prompt(proxies, all_tokens=self.tokens == "all")  # (chunk, [l,] d)
        v = training.images[rows]  # (chunk, [1 + patches,] d)
        prompts = last_token(t)  # (chunk, d)
        if training.fusion is not None:
            t, v = training.fusion(t, v)
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

    def _anchor(self, x: torch.Tensor) -> torch.Tensor:
        """What F is compared with, for x (m, d): x itself, or [x, x] if F is a concatenation."""
        if self.fusion == "concatenation" and self.modality == "both":
            return torch.cat([x, x], -1) / math.sqrt(2)
        return x

    def _output(self, training: Training) -> Output:
        """What is learned about all images, as arrays."""
        output = training.factors.map(partial(self._forward, training))
        return Output(*(x.cpu().numpy() for x in output))

    def _prune(self, training: Training, epoch: int) -> None:
        """Keep the better half of the candidates, at least M."""
        if self.n_clusters_ == NOT_CHOSEN:
            self._choose_n_clusters(self._output(training).prompts, len(training.words))
        if len(training.words) <= self.n_clusters_:
            return
        proxies = self._output(training).proxies
        centers = kmeans(proxies, self.n_clusters_, self.random_state)[1]
        candidates = training.candidates
        better = better_half(
            candidates, torch.from_numpy(centers).to(candidates), self.n_clusters_, self.score
        )
        training.candidates = candidates[better]
        training.words = [training.words[k] for k in better.tolist()]
        self.updates_.append({"epoch": epoch, "candidates": training.words})

    def _pruned_for_good(self, epoch: int, n_candidates: int) -> bool:
        """Whether no candidates will be dropped after this epoch."""
        last_update = (self.epochs - 1) // self.update_every * self.update_every
        return not self.dynamic or epoch >= last_update or n_candidates <= self.n_clusters_

    def _clustering(
        self, training: Training, centers: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Labels and centers at a check of early stopping."""
        output = self._output(training)
        self._choose_n_clusters(output.prompts, len(training.words))
        x = named(self.representation, output)
        return kmeans(x, self.n_clusters_, self.random_state, start=centers)

    def _predict(self, images: Any) -> np.ndarray:
        """Learn new factors over the candidates as they were pruned, without fusion layers, as at
        the start of training: trained ones would pull F to V whatever the proxy is. L_c is left
        out, because it compares images. Then read the factors through the trained layers."""
        training = self._training(images, list(self.words))
        groups = [{"params": training.factors.parameters}]
        optimizer = make_optimizer("adam", groups, self.lr, self.weight_decay)
        updates = {update["epoch"]: update["candidates"] for update in self.updates_}
        for epoch in range(len(self.history_)):
            if epoch in updates:
                embeddings = self.encoder.word_embeddings(updates[epoch])
                training.candidates = embeddings.to(self.encoder.device)
            self._step(training, optimizer, epoch)
        training.fusion = self._fusion
        x = named(self.current_representation_, self._output(training))
        return nearest(x, self.cluster_centers_)

    def _represent(self, name: str) -> np.ndarray:
        """ "fused", "text", "visual" (n, d), "concatenation" (n, 2 d), "word" (n, e)."""
        output = (self.weights_, self.proxies_, self.prompt_embeddings_)
        return named(name, Output(*output, self.fused_, self.text_, self.visual_, self.mixing_))

    def _word_weights(self) -> tuple[Sequence[str], np.ndarray]:
        return self.candidates_, self.weights_

    def _events(self) -> list[str | None]:
        sizes = [row["candidates"] for row in self.history_]
        return [
            f"{before} to {size} candidates" if size != before else None
            for before, size in zip([sizes[0], *sizes], sizes)
        ]


def named(name: str, output: Output) -> np.ndarray:
    """A representation by name."""
    if name == "concatenation":
        return np.hstack([output.text, output.visual])
    return output.proxies if name == "word" else getattr(output, name)


def last_token(tokens: torch.Tensor) -> torch.Tensor:
    """(n, d) of text tokens (n, l, d), which is end-of-text; or the one pooled token (n, d)."""
    return tokens if tokens.ndim == 2 else tokens[:, -1]


def first_token(tokens: torch.Tensor) -> torch.Tensor:
    """(n, d) of image tokens (n, 1 + patches, d), the class token; or the one pooled token."""
    return tokens if tokens.ndim == 2 else tokens[:, 0]


def better_half(
    candidates: torch.Tensor, centers: torch.Tensor, n_clusters: int, score: str
) -> torch.Tensor:
    """Indices, ascending, of the max(M, ceil(K / 2)) candidates (K, e) with the largest "mean" or
    "max" cosine to the centers (M, e)."""
    cosines = F.normalize(candidates, dim=-1) @ F.normalize(centers, dim=-1).T  # (K, M)
    scores = cosines.mean(1) if score == "mean" else cosines.amax(1)
    n_left = min(len(candidates), max(n_clusters, math.ceil(len(candidates) / 2)))
    return scores.topk(n_left).indices.sort().values


def schedule(epoch: int, epochs: int) -> tuple[float, float]:
    """alpha(t) = min(0.5, 0.1 + 0.4 t / E) and beta(t) = 0.1 (1 - cos(pi t / E))."""
    alpha = min(0.5, 0.1 + 0.4 * epoch / epochs)
    beta = 0.1 * (1 - math.cos(math.pi * epoch / epochs))
    return alpha, beta


def hard_repulsion(
    fused: torch.Tensor, negatives: torch.Tensor, repelled: torch.Tensor, sigma: float, hard: int
) -> torch.Tensor:
    """sum_i log sum_j exp(<f_i, t(w_j)> / sigma) over the `hard` most similar repelled negatives j.

    fused (n, d) and negatives (b, d) L2-normalized; repelled (n, b), the pairs that count. An image
    without any adds 0.
    """
    has_any = repelled.any(1)  # (n,)
    similarity = fused @ negatives.T / sigma  # (n, b)
    similarity = similarity.masked_fill(~repelled & has_any[:, None], -torch.inf)
    hardest = similarity.topk(min(hard, similarity.shape[1]), dim=1).values  # (n, hard)
    return hardest.logsumexp(1).masked_fill(~has_any, 0.0).sum()
