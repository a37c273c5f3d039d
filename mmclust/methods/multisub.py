"""Multi-Sub: proxy words in the subspace that the reference words span.

Jiawei Yao, Qi Qian, Juhua Hu: Customized Multiple Clustering via Multi-Modal Subspace Proxy
Learning. NeurIPS 2024, pp. 82705-82725, arXiv 2411.03978.

Notable: only the last projection of the image encoder is trained, so the layers before it run once
per set of images. `variant="released"` is what the authors' code executes, Phase I alone. Not here:
the losses over pairs of images (`pair_losses.py`) and the prompt (`mmclust.encoders.prompt`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmclust.encoders.feature_stream import as_tensor
from mmclust.methods import pair_losses, training
from mmclust.methods.base import ProxyClusterer, RandomSeed, nearest, torch_generator
from mmclust.methods.parameters import NOT_NEGATIVE, POSITIVE_INTEGER, Number
from mmclust.metrics import kmeans

if TYPE_CHECKING:
    from mmclust.encoders.base import Encoder


class Mixture(NamedTuple):
    """What Phase I learns about n images."""

    weights: Tensor  # a (n, K)
    proxies: Tensor  # w (n, e)
    prompts: Tensor  # t(w) (n, d)


@dataclass
class State:
    """Inputs, parameters and history of one fit, shared by its phases."""

    phi: Tensor  # reference words (K, e)
    prompt: Callable[[Tensor], Tensor]  # w (n, e) -> t(w) (n, d)
    factors: training.PerImageParameters  # p (n, e)
    features: Tensor  # h (n, h): image features before the last projection
    projection: Tensor  # P (h, d)
    generator: torch.Generator | None = None  # draws pairs of images
    history: training.History = field(default_factory=training.History)

    def mixture(self) -> Mixture:
        """a, w and t(w) of all images, without gradients."""

        def forward(rows: slice, p: Tensor) -> Mixture:
            weights, proxies = mix(p, self.phi)
            return Mixture(weights, proxies, self.prompt(proxies))

        return Mixture(*self.factors.map(forward))


class MultiSub(ProxyClusterer):
    """Learn for each image a word in the subspace that the reference words span, then cluster.

    Every image has a latent factor p_i (e,). Its proxy word is a mixture of the reference words,

        a_ik = softmax_k(p_i . phi(z_k)),    w_i = sum_k a_ik phi(z_k).

    Phase I minimizes -<v_i, t(w_i)>, as a mean over images, over p_i and the image encoder's last
    projection P, where v_i = P h_i / ||P h_i||. Phase II keeps w_i, takes pseudo-labels from the
    proxies and minimizes over P, with v'_i = [w_i, v_i],

        lambda * L_intra + (1 - lambda) * L_inter
        L_intra = mean of ||v'_i - v'_j||^2 over pairs within clusters
        L_inter = mean of max(0, margin - ||v'_i - v'_j||) over pairs between different clusters.

    The phases alternate. [?] marks what could not be read in the paper.

    Args:
        encoder, words, template, variant, positions, final_norm, optimizer, chunk_size, n_init,
            verbose: see `ProxyClusterer`.
        n_clusters: M, or "auto": chosen on t(w) after the first Phase I.
        representation: what is clustered by k-means: "prompt" t(w_i), "word" w_i, "word-eot" the
            text encoder's output for w_i without the template, not normalized (released), "image"
            v_i, "word+image" v'_i. Or "assignment", the paper's end-to-end rule: the word with the
            largest weight if K = M, else k-means on v'. Token embeddings have small norms (near 0.5
            in the encoder "mini"), so v dominates v' as the paper concatenates it.
        subspace: the vectors phi that span it (the paper's ablation). "token": token embeddings;
            the proxy goes through the text encoder. "prompt": outputs of the text encoder for the
            filled template; "text": for the word alone. In the last two cases t(w_i) is w_i,
            normalized, and no text encoder runs during training [?].
        normalize_parts: L2-normalize w before it is concatenated with v.
        normalize_image: "image" and "word+image" use v, L2-normalized (paper), or P h (released).
            Losses always use v.
        init: p starts at "zero", equal weights [?], or at "text", the text encoder's output for `*`
            (released).
        batch_size: images per step of Phase I, in their order: "full", one step per epoch (paper
            variant), or 50 (released: 20 or 50). Phase II always takes full-batch steps.
        alternations: rounds of the two phases: 9, about the paper's 1000 epochs with 110 epochs
            per round; or 1 (released).
        phase1_epochs, phase2_epochs: per round: 100 and 10 (paper), 100 and 0 (released).
        lr, weight_decay: of p. projection_lr, contrast_lr: learning rates of P in Phase I and in
            Phase II (values of the released code).
        lam: lambda, the weight of L_intra. margin: of L_inter.
        intra: "squared" distances (paper) or "plain" ones (released) in L_intra.
        early_stopping: Phase I stops if the clusterings of `n_checks` + 1 successive checks,
            `check_every` epochs apart, agree (adjusted Rand index of at least `agreement`); the
            alternation stops if the clustering of a round agrees with that of the round before.
        random_state: seed of k-means and of sampled pairs; the rest of training is deterministic.

    Attributes, besides those of `ProxyClusterer`:
        weights_: a, float32 (n, K). projection_: P, (h, d).
        image_embeddings_: v with the learned P, float32 (n, d).
    """

    VARIANTS: ClassVar[dict[str, dict]] = {
        "paper": {
            "positions": True, "final_norm": True, "init": "zero", "optimizer": "adam",
            "batch_size": "full", "intra": "squared", "alternations": 9, "phase1_epochs": 100,
            "phase2_epochs": 10, "normalize_image": True,
        },
        "released": {
            "positions": False, "final_norm": False, "init": "text", "optimizer": "adagrad",
            "batch_size": 50, "intra": "plain", "alternations": 1, "phase1_epochs": 100,
            "phase2_epochs": 0, "normalize_image": False,
        },
    }  # fmt: skip
    REPRESENTATIONS = ("prompt", "word", "word-eot", "image", "word+image", "assignment")
    TEXT_AS_TOKENS = ("init",)
    CONSTRAINTS = (
        ProxyClusterer.CONSTRAINTS
        | {
            "representation": REPRESENTATIONS,
            "subspace": ("token", "prompt", "text"),
            "init": ("zero", "text"),
            "optimizer": ("adam", "adagrad"),
            "intra": ("squared", "plain"),
            "phase2_epochs": Number(low=0, integer=True),
            "lam": Number(low=0, high=1),
        }
        | dict.fromkeys(("alternations", "phase1_epochs"), POSITIVE_INTEGER)
        | dict.fromkeys(("lr", "projection_lr", "contrast_lr"), NOT_NEGATIVE)
        | dict.fromkeys(("weight_decay", "margin"), NOT_NEGATIVE)
    )

    def __init__(
        self, encoder: Encoder | None = None, words: Sequence[str] | None = None, *,
        template: str | None = None, n_clusters: int | str = 8, representation: str = "prompt",
        variant: str = "paper", subspace: str = "token", normalize_parts: bool = False,
        normalize_image: bool | None = None, positions: bool | None = None,
        final_norm: bool | None = None, init: str | None = None, optimizer: str | None = None,
        batch_size: int | str | None = None, alternations: int | None = None,
        phase1_epochs: int | None = None, phase2_epochs: int | None = None, lr: float = 0.05,
        projection_lr: float = 1e-5, contrast_lr: float = 1e-4, weight_decay: float = 0.0,
        lam: float = 0.5, margin: float = 1.0, intra: str | None = None,
        early_stopping: bool = False, check_every: int = 5, n_checks: int = 3,
        agreement: float = 0.99, chunk_size: int = 4096, n_init: int = 1,
        random_state: RandomSeed = None, verbose: bool | None = None,
    ) -> None:  # fmt: skip
        self.encoder, self.words, self.template = encoder, words, template
        self.n_clusters, self.representation, self.variant = n_clusters, representation, variant
        self.subspace, self.init, self.intra = subspace, init, intra
        self.normalize_parts, self.normalize_image = normalize_parts, normalize_image
        self.positions, self.final_norm = positions, final_norm
        self.optimizer, self.batch_size, self.alternations = optimizer, batch_size, alternations
        self.phase1_epochs, self.phase2_epochs = phase1_epochs, phase2_epochs
        self.lr, self.projection_lr, self.contrast_lr = lr, projection_lr, contrast_lr
        self.weight_decay, self.lam, self.margin = weight_decay, lam, margin
        self.early_stopping, self.check_every = early_stopping, check_every
        self.n_checks, self.agreement = n_checks, agreement
        self.chunk_size, self.n_init = chunk_size, n_init
        self.random_state, self.verbose = random_state, verbose

    def _check(self, n_images: int) -> None:
        super()._check(n_images)
        self._check_subspace(self.representation)

    def _check_subspace(self, representation: str) -> None:
        if representation == "word-eot" and self.subspace != "token":
            raise ValueError(
                f"representation 'word-eot' needs subspace='token': with {self.subspace!r} the "
                "proxies are outputs of the text encoder already, use 'word'"
            )

    def _fit(self, images: Any) -> None:
        s = self.settings()
        state = self._initial_state(images)
        state.generator = torch_generator(self.random_state)
        projection = state.projection.requires_grad_(True)
        projection_group = {"params": [projection], "lr": s.projection_lr, "weight_decay": 0.0}
        groups = [{"params": state.factors.parameters}, projection_group]
        phase1 = training.make_optimizer(s.optimizer, groups, s.lr, s.weight_decay)
        phase2 = training.make_optimizer(s.optimizer, [projection], s.contrast_lr, weight_decay=0.0)
        stop = training.clustering_agreement(1, 1, s.agreement)
        epochs = s.alternations * (s.phase1_epochs + s.phase2_epochs)
        state.history = training.History("Multi-Sub", epochs, self.verbose)
        for alternation in range(s.alternations):
            self._phase1(state, phase1, alternation)
            learned = state.mixture()
            if alternation == 0:
                self._choose_n_clusters(learned.prompts.cpu().numpy(), len(self.words))
            if s.phase2_epochs or s.early_stopping:
                clustering = self._pseudo_labels(learned)
                self._phase2(state, phase2, alternation, learned.proxies, clustering[0])
                if s.early_stopping and stop.reached(alternation, lambda _, c=clustering: c):
                    break
        self.history_, self.seconds_ = state.history.finish()
        self.weights_, self.proxies_, self.prompt_embeddings_ = (x.cpu().numpy() for x in learned)
        self.projection_ = projection.detach().cpu().numpy()
        self.image_embeddings_, self._image_norms = self._project(state.features)
        self._cluster(self.representation)

    def _initial_state(self, images: Any) -> State:
        s = self.settings()
        if self.subspace == "token":
            phi = self.encoder.word_embeddings(self.words).to(self.encoder.device)  # (K, e)
        else:
            template = self._template() if self.subspace == "prompt" else None
            texts = self.encoder.encode_words(self.words, template)
            phi = torch.from_numpy(texts).to(self.encoder.device)
        h = as_tensor(self.encoder.features(images)).to(self.encoder.device)  # (n, h)
        start = phi.new_zeros(len(h), phi.shape[1])  # p before training, (n, e)
        if s.init == "text":
            placeholder = self.encoder.encode_texts(["*"], normalize=False)  # (1, e)
            start = torch.from_numpy(placeholder).to(phi).repeat(len(h), 1)
        factors = training.PerImageParameters(start, s.batch_size, s.chunk_size)
        projection = self.encoder.image_projection.to(h.dtype).clone()  # (h, d)
        return State(phi, self._prompt(), factors, h, projection)

    def _phase1(self, state: State, optimizer: torch.optim.Optimizer, alternation: int) -> None:
        s = self.settings()
        stop = training.clustering_agreement(s.check_every, s.n_checks, s.agreement)

        def loss_of(rows: slice, p: Tensor, size: int) -> tuple[Tensor, tuple]:
            v = self._image_side(state.features, rows, state.projection)
            return alignment(state.prompt(mix(p, state.phi)[1]), v, size)

        def cluster(last: Any) -> tuple[np.ndarray, Any]:
            return self._pseudo_labels(state.mixture(), last)

        for epoch in range(s.phase1_epochs):
            terms = state.factors.epoch(optimizer, loss_of)
            state.history.add(("loss",), terms, alternation=alternation, phase=1)
            if s.early_stopping and stop.reached(epoch, cluster):
                break

    def _phase2(
        self, state: State, optimizer: torch.optim.Optimizer, alternation: int,
        proxies: Tensor, labels: np.ndarray,
    ) -> None:  # fmt: skip
        """Learn P with lambda L_intra + (1 - lambda) L_inter for pseudo-labels (n,)."""
        s = self.settings()
        w = self._word_half(proxies)  # (n, e)
        index = torch.from_numpy(labels).to(self.encoder.device)
        for _ in range(s.phase2_epochs):
            optimizer.zero_grad()
            v = F.normalize(state.features @ state.projection, dim=-1)  # (n, d)
            joint = torch.cat([w, v], 1)  # (n, e + d)
            loss = pair_losses.contrast(joint, index, s.lam, s.margin, s.intra, state.generator)
            loss.backward()
            optimizer.step()
            terms = loss.detach()[None]
            state.history.add(("loss",), terms, alternation=alternation, phase=2)

    def _pseudo_labels(self, learned: Mixture, last: Any = None) -> tuple[np.ndarray, Any]:
        """Labels (n,) and centers: the word with the largest weight, without centers, if K = M or M
        is not chosen yet; else k-means on t(w) [?], from the centers of the `last` result."""
        if self._n_clusters in (0, len(self.words)):
            return learned.weights.argmax(1).cpu().numpy(), None
        prompts = learned.prompts.cpu().numpy()
        return kmeans(prompts, self._n_clusters, self.random_state, start=last and last[1])

    def _predict(self, images: Any) -> np.ndarray:
        s = self.settings()
        state = self._initial_state(images)
        v, norms = self._project(state.features)
        on_device = torch.from_numpy(v).to(self.encoder.device)

        def loss_of(rows: slice, p: Tensor, size: int) -> tuple[Tensor, tuple]:
            return alignment(state.prompt(mix(p, state.phi)[1]), on_device[rows], size)

        factors = state.factors.parameters
        optimizer = training.make_optimizer(s.optimizer, factors, s.lr, s.weight_decay)
        for _ in range(sum(row["phase"] == 1 for row in self.history_)):
            state.factors.epoch(optimizer, loss_of)
        weights, proxies, prompts = (x.cpu().numpy() for x in state.mixture())
        if self.representation_ is None:
            return weights[:, self._taken].argmax(1).astype(np.int64)
        x = self._named(self.current_representation_, proxies, prompts, v, norms)
        return nearest(x, self.cluster_centers_)

    def _cluster(self, name: str) -> None:
        if name != "assignment" or len(self.words) != self._n_clusters:
            super()._cluster(name)
            return
        self.current_representation_ = name
        self.representation_ = None  # the words that are some image's heaviest are the clusters
        self.cluster_centers_ = None
        self._taken, labels = np.unique(self.weights_.argmax(1), return_inverse=True)
        self.labels_ = labels.astype(np.int64)

    def _represent(self, name: str) -> np.ndarray:
        """ "prompt", "word-eot", "image" (n, d), "word" (n, e), "word+image" and "assignment", both
        v' (n, e + d). With subspace "prompt" or "text", e is d, "prompt" is "word", normalized, and
        there is no "word-eot"."""
        self._check_subspace(name)
        images = (self.image_embeddings_, self._image_norms)
        return self._named(name, self.proxies_, self.prompt_embeddings_, *images)

    def _named(self, name: str, proxies: Any, prompts: Any, v: Any, norms: Any) -> np.ndarray:
        """A representation by name, from w, t(w), v and the norms (n, 1) of P h, all arrays."""
        image = v if self.settings().normalize_image else v * norms
        if name == "prompt":
            return prompts
        if name == "word":
            return proxies
        if name == "image":
            return image
        if name == "word-eot":
            return self._encode_proxies(partial(self._prompt("*"), normalize=False), proxies)
        return np.hstack([self._word_half(torch.from_numpy(proxies)).numpy(), image])

    def _word_weights(self) -> tuple[Sequence[str], np.ndarray]:
        return self.words, self.weights_

    def _events(self) -> list[str | None]:
        phases = [row["phase"] for row in self.history_]
        names = {1: "Phase I", 2: "Phase II"}
        return [
            names[phase] if phase != before else None for before, phase in zip([1, *phases], phases)
        ]

    def _prompt(self, template: str | None = None) -> Callable[..., Tensor]:
        """A function from proxies (n, e) to prompts (n, d), L2-normalized."""
        if self.subspace != "token":
            return partial(F.normalize, dim=-1)
        s = self.settings()
        template = template or self._template()
        return self.encoder.prompt(template, positions=s.positions, final_norm=s.final_norm)

    def _image_side(self, h: Tensor, rows: slice, projection: Tensor) -> Tensor:
        """v (rows, d). `experiments.epoch_cost` overrides it to run the complete image encoder."""
        return F.normalize(h[rows] @ projection, dim=-1)

    def _project(self, features: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """v (n, d) with the learned P, and the norms (n, 1) of P h."""
        projected = features.cpu() @ torch.from_numpy(self.projection_)  # (n, d)
        norms = projected.norm(dim=-1, keepdim=True)
        return F.normalize(projected, dim=-1).numpy(), norms.numpy()

    def _word_half(self, proxies: Tensor) -> Tensor:
        return F.normalize(proxies, dim=-1) if self.normalize_parts else proxies


def mix(factors: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
    """Weights a (n, K) and proxies w (n, e) for latent factors p (n, e) and reference words phi
    (K, e) (Multi-Sub, subspace proxy)."""
    weights = (factors @ phi.T).softmax(-1)  # (n, K)
    return weights, weights @ phi


def alignment(prompts: Tensor, images: Tensor, n: int) -> tuple[Tensor, tuple[Tensor]]:
    """-sum_i <v_i, t(w_i)> / n over a chunk of n images (Multi-Sub, Phase I): the loss, and the
    terms to record. prompts t(w) and images v (chunk, d), both L2-normalized."""
    loss = -(prompts * images).sum() / n
    return loss, (loss,)
