"""Multi-Sub: Customized Multiple Clustering via Multi-Modal Subspace Proxy Learning (NeurIPS 2024, arXiv 2411.03978), the paper's variant."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from mmclust.methods import losses
from mmclust.methods.base import ProxyClusterer, kmeans_labels, torch_generator

REPRESENTATIONS = ("prompt", "word", "image", "word+image", "assignment")


class MultiSub(ProxyClusterer):
    """Learn for each image a word in the subspace that the reference words span, then cluster.

    Every image has a latent factor p_i (e,). Its proxy word is a mixture of the reference words,
    a_ik = softmax_k(p_i . phi(z_k)), w_i = sum_k a_ik phi(z_k). Phase I minimises -<v_i, t(w_i)> over p_i and the image encoder's last
    projection P; Phase II holds w_i, takes pseudo-labels from the proxies and trains P on
    lambda L_intra + (1 - lambda) L_inter over v'_i = [w_i, v_i]. The phases alternate. The image trunk runs once per data set.

    Args:
        encoder: from `mm.load_encoder`.
        template: prompt with one `*`, such as "fruit with a color of *".
        words: K reference words.
        n_clusters: M; the papers give the number of true classes.
        representation: what is clustered: "prompt" t(w_i), "word" w_i, "image" v_i, "word+image" v'_i, each by k-means; or "assignment",
            each image's heaviest word where K = M and k-means on v' otherwise (the paper's end-to-end rule). Token embeddings are short
            (norms near 0.5 in the embedded encoder), so v dominates the raw v' that the paper concatenates.
        normalize_parts: L2-normalise w before it is concatenated with v.
        alternations: rounds of the two phases; 9 rounds of 110 epochs are the paper's 1000 epochs.
        phase1_epochs, phase2_epochs: full-batch steps of each phase.
        lr: Adam's rate for p; `projection_lr` and `contrast_lr` those for P in Phase I and Phase II (released code).
        weight_decay: on p.
        lam: lambda, the weight of L_intra in Phase II.
        margin: m of L_inter.
        intra: "squared" distances (paper) or "plain" ones (released code) in L_intra.
        chunk_size: images per forward pass; gradients are accumulated, so it changes results by rounding only.
        n_init: k-means initialisations.
        random_state: seed of k-means and of sampled pairs; p starts at zero (equal weights) [?], so training itself draws nothing.
        verbose: show a progress bar.

    Attributes:
        labels_: int64 (n,).
        weights_: a, float32 (n, K), rows on the simplex.
        proxies_: w, float32 (n, e).
        prompt_embeddings_: t(w), float32 (n, d). `image_embeddings_`: v with the learned P, float32 (n, d).
        history_: one dictionary per epoch: alternation, phase, loss.
    """

    def __init__(
        self, encoder, template: str, words, n_clusters: int = 8, representation: str = "prompt", normalize_parts: bool = False,
        alternations: int = 9, phase1_epochs: int = 100, phase2_epochs: int = 10, lr: float = 0.05, projection_lr: float = 1e-5,
        contrast_lr: float = 1e-4, weight_decay: float = 0.0, lam: float = 0.5, margin: float = 1.0, intra: str = "squared",
        chunk_size: int = 4096, n_init: int = 1, random_state=None, verbose: bool = False,
    ):  # fmt: skip
        self.encoder, self.template, self.words, self.n_clusters = encoder, template, words, n_clusters
        self.representation, self.normalize_parts = representation, normalize_parts
        self.alternations, self.phase1_epochs, self.phase2_epochs = alternations, phase1_epochs, phase2_epochs
        self.lr, self.projection_lr, self.contrast_lr, self.weight_decay = lr, projection_lr, contrast_lr, weight_decay
        self.lam, self.margin, self.intra = lam, margin, intra
        self.chunk_size, self.n_init, self.random_state, self.verbose = chunk_size, n_init, random_state, verbose

    def _check(self, images) -> None:
        super()._check(images)
        if self.representation not in REPRESENTATIONS:
            raise ValueError(f"representation {self.representation!r} is none of {REPRESENTATIONS}")
        if self.intra not in ("squared", "plain"):
            raise ValueError(f'intra is "squared" or "plain", not {self.intra!r}')
        if not 0 <= self.lam <= 1:
            raise ValueError(f"lam lies between 0 and 1, not {self.lam}")
        if min(self.alternations, self.phase1_epochs, self.chunk_size) < 1 or self.phase2_epochs < 0:
            raise ValueError("alternations, phase1_epochs and chunk_size are at least 1, phase2_epochs at least 0")

    def _fit(self, images, y) -> None:
        encoder, device = self.encoder, self.encoder.device
        prompt = encoder.prompt(self.template)
        phi = encoder.word_embeddings(self.words).to(device)
        h = torch.from_numpy(encoder.features(images)).to(device)
        projection = encoder.image_projection.float().clone().requires_grad_(True)
        factors = torch.zeros(len(h), phi.shape[1], device=device, requires_grad=True)
        phase1 = torch.optim.Adam([{"params": [factors], "lr": self.lr, "weight_decay": self.weight_decay}, {"params": [projection], "lr": self.projection_lr}])
        phase2 = torch.optim.Adam([projection], lr=self.contrast_lr)
        generator, parts = torch_generator(self.random_state, device), torch.arange(len(h), device=device).split(self.chunk_size)
        self.history_ = []
        for alternation in tqdm(range(self.alternations), desc="Multi-Sub", disable=not self.verbose):
            for _ in range(self.phase1_epochs):
                phase1.zero_grad()
                total = 0.0
                for part in parts:
                    loss = alignment_loss(prompt(mix(factors[part], phi)[1]), F.normalize(h[part] @ projection, dim=-1), len(h))
                    loss.backward()
                    total += loss.item()
                phase1.step()
                self.history_.append({"alternation": alternation, "phase": 1, "loss": total})
            weights, proxies, prompts = self._forward(factors, phi, prompt, parts)
            if not self.phase2_epochs:
                continue
            labels = torch.from_numpy(self._pseudo_labels(weights, prompts)).to(device)
            word = self._word_part(proxies)
            for _ in range(self.phase2_epochs):
                phase2.zero_grad()
                x = torch.cat([word, F.normalize(h @ projection, dim=-1)], 1)
                intra = losses.intra_squared(x, labels) if self.intra == "squared" else losses.intra_plain(x, labels, generator)
                loss = self.lam * intra + (1 - self.lam) * losses.inter_hinge(x, labels, self.margin, generator)
                loss.backward()
                phase2.step()
                self.history_.append({"alternation": alternation, "phase": 2, "loss": loss.item()})
        self.weights_, self.proxies_, self.prompt_embeddings_ = (t.cpu().numpy() for t in (weights, proxies, prompts))
        with torch.no_grad():
            self.image_embeddings_ = F.normalize(h @ projection, dim=-1).cpu().numpy()
        self.choose(self.representation)

    def choose(self, name: str):
        """Cluster another learned representation, without learning again; sets `representation_` and `labels_`, returns self."""
        if name == "assignment" and len(self.words) == self.n_clusters:
            self.representation_ = None  # the heaviest words are the clusters: no k-means
            self.labels_ = self.weights_.argmax(1).astype(np.int64)
            return self
        return super().choose("word+image" if name == "assignment" else name)

    def represent(self, name: str) -> np.ndarray:
        """A learned representation by name, float32: "prompt" (n, d), "word" (n, e), "image" (n, d), "word+image" (n, e + d)."""
        if name == "word+image":
            word = self._word_part(torch.from_numpy(self.proxies_)).numpy()
            return np.hstack([word, self.image_embeddings_])
        return {"prompt": self.prompt_embeddings_, "word": self.proxies_, "image": self.image_embeddings_}[name]

    @torch.no_grad()
    def _forward(self, factors, phi, prompt, parts):
        mixed = [mix(factors[part], phi) for part in parts]
        weights, proxies = (torch.cat(t) for t in zip(*mixed))
        return weights, proxies, torch.cat([prompt(w) for _, w in mixed])

    def _pseudo_labels(self, weights: torch.Tensor, prompts: torch.Tensor) -> np.ndarray:
        """From the proxies: the heaviest word where K = M, else k-means on t(w) [?]."""
        if len(self.words) == self.n_clusters:
            return weights.argmax(1).cpu().numpy()
        return kmeans_labels(prompts.cpu().numpy(), self.n_clusters, self.random_state, 1)

    def _word_part(self, proxies: torch.Tensor) -> torch.Tensor:
        return F.normalize(proxies, dim=-1) if self.normalize_parts else proxies


def mix(factors: torch.Tensor, phi: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Latent factors (n, e) and reference words phi (K, e) to weights a (n, K) and proxies w (n, e) (Multi-Sub, subspace proxy)."""
    weights = (factors @ phi.T).softmax(-1)
    return weights, weights @ phi


def alignment_loss(prompts: torch.Tensor, images: torch.Tensor, n: int) -> torch.Tensor:
    """-sum_i <v_i, t(w_i)> / n over a chunk of n images' rows; both (chunk, d), L2-normalised (Multi-Sub, Phase I)."""
    return -(prompts * images).sum() / n
