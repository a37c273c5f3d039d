"""Multi-MaP: Multi-Modal Proxy Learning Towards Personalized Visual Multiple Clustering (CVPR 2024, arXiv 2404.15655), the paper's variant."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from mmclust.methods.base import ProxyClusterer

REPRESENTATIONS = ("prompt", "word", "image")


class MultiMaP(ProxyClusterer):
    """Learn for each image a free proxy word, held near its reference word and near the user's concept, then cluster the prompts.

    Each image picks a reference word, k(i) = argmax_k cos(v_i, t(z_k)) (template filled with the word). Its proxy w_i (e,) starts at
    phi(z_k(i)) [?] and minimises -cos(v_i, t(w_i)) + alpha * concept + beta * reference with both encoders frozen; reference is
    ||w_i - phi(z_k(i))||^2, concept a contrastive term that keeps w_i near the user's concept word u_1 among the other concepts.

    Args:
        encoder: from `mm.load_encoder`.
        template: prompt with one `*`.
        words: K reference words.
        concepts: concept words, the user's first, such as ["color", "species"]; None leaves the concept term out.
        n_clusters: M.
        representation: what k-means clusters: "prompt" t(w_i) (the paper), "word" w_i or "image" v_i.
        alpha, beta: weights of the concept and the reference term; the paper searches {0.1 .. 1.0}.
        concept_loss: "contrastive" (paper: softmax over the concepts of the cosine with w_i) or "mse" to u_1 alone (released code).
        concept_temperature: of that softmax [?].
        reduction: "sum" over the token dimensions, the paper's squared norm; "mean", 1 / e of it, as the released code's MSELoss; or
            "relative", divided by the mean squared norm of the reference words, which makes beta the same in any token space.
        epochs: full-batch steps (paper: 1000).
        lr, weight_decay: Adam's.
        chunk_size: images per forward pass; gradients are accumulated, so it changes results by rounding only.
        n_init: k-means initialisations. random_state: seed of k-means; learning draws nothing.
        verbose: show a progress bar.

    Attributes:
        labels_: int64 (n,). proxies_: w, float32 (n, e). prompt_embeddings_: t(w), float32 (n, d).
        reference_: int64 (n,), each image's reference word.
        history_: per epoch the loss and its three terms.
    """

    def __init__(
        self, encoder, template: str, words, concepts=None, n_clusters: int = 8, representation: str = "prompt", alpha: float = 0.3,
        beta: float = 0.4, concept_loss: str = "contrastive", concept_temperature: float = 0.1, reduction: str = "sum", epochs: int = 1000,
        lr: float = 5e-3, weight_decay: float = 5e-5, chunk_size: int = 4096, n_init: int = 1, random_state=None, verbose: bool = False,
    ):  # fmt: skip
        self.encoder, self.template, self.words, self.concepts, self.n_clusters = encoder, template, words, concepts, n_clusters
        self.representation, self.alpha, self.beta, self.concept_loss = representation, alpha, beta, concept_loss
        self.concept_temperature, self.reduction, self.epochs, self.lr = concept_temperature, reduction, epochs, lr
        self.weight_decay, self.chunk_size, self.n_init, self.random_state, self.verbose = weight_decay, chunk_size, n_init, random_state, verbose

    def _check(self, images) -> None:
        super()._check(images)
        for name, allowed in (("representation", REPRESENTATIONS), ("concept_loss", ("contrastive", "mse")), ("reduction", ("sum", "mean", "relative"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} {getattr(self, name)!r} is none of {allowed}")
        if min(self.alpha, self.beta) < 0 or self.epochs < 1 or self.chunk_size < 1:
            raise ValueError("alpha and beta are at least 0, epochs and chunk_size at least 1")
        if isinstance(self.concepts, str):
            raise ValueError(f"concepts is a list, the user's concept first, not the text {self.concepts!r}")

    def _fit(self, images, y) -> None:
        encoder, device = self.encoder, self.encoder.device
        prompt, phi = encoder.prompt(self.template), encoder.word_embeddings(self.words).to(device)
        v = torch.from_numpy(self.image_embeddings_).to(device)
        self.reference_ = (self.image_embeddings_ @ encoder.encode_words(self.words, self.template).T).argmax(1)
        target = phi[torch.from_numpy(self.reference_).to(device)]
        concepts = encoder.word_embeddings(self.concepts).to(device) if self.concepts else None
        scale = {"sum": 1.0, "mean": 1 / phi.shape[1], "relative": 1 / float(phi.square().sum(1).mean())}[self.reduction]
        w = target.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([w], lr=self.lr, weight_decay=self.weight_decay)
        parts, n = torch.arange(len(v), device=device).split(self.chunk_size), len(v)
        self.history_ = []
        for _ in tqdm(range(self.epochs), desc="Multi-MaP", disable=not self.verbose):
            optimizer.zero_grad()
            terms = np.zeros(3)
            for part in parts:
                align = -(prompt(w[part]) * v[part]).sum() / n
                reference = scale * (w[part] - target[part]).square().sum() / n
                concept = self._concept(w[part], concepts, scale) / n if concepts is not None else align * 0
                (align + self.alpha * concept + self.beta * reference).backward()
                terms += [align.item(), concept.item(), reference.item()]
            optimizer.step()
            self.history_.append({"loss": terms @ [1, self.alpha, self.beta], "align": terms[0], "concept": terms[1], "reference": terms[2]})
        with torch.no_grad():
            self.prompt_embeddings_ = torch.cat([prompt(w[part]) for part in parts]).cpu().numpy()
        self.proxies_ = w.detach().cpu().numpy()
        self.choose(self.representation)

    def represent(self, name: str) -> np.ndarray:
        """A representation by name, float32: "prompt" (n, d), "word" (n, e), "image" (n, d)."""
        return {"prompt": self.prompt_embeddings_, "word": self.proxies_, "image": self.image_embeddings_}[name]

    def _concept(self, w: torch.Tensor, concepts: torch.Tensor, scale: float) -> torch.Tensor:
        if self.concept_loss == "mse":
            return scale * (w - concepts[0]).square().sum()
        return contrastive_concept(w, concepts, self.concept_temperature)


def contrastive_concept(w: torch.Tensor, concepts: torch.Tensor, temperature: float) -> torch.Tensor:
    """-sum_i log softmax_j(cos(w_i, u_j) / temperature) at the user's concept u_1 = concepts[0]; w (n, e), concepts (C, e)."""
    logits = F.normalize(w, dim=-1) @ F.normalize(concepts, dim=-1).T / temperature
    return -logits.log_softmax(-1)[:, 0].sum()
