"""Multi-MaP: Multi-Modal Proxy Learning Towards Personalized Visual Multiple Clustering (CVPR 2024, arXiv 2404.15655)."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from tqdm import tqdm

from mmclust.methods.base import ProxyClusterer, nearest
from mmclust.methods.training import History, LossPlateau, PerImageParameters, make_optimizer

if TYPE_CHECKING:
    from mmclust.encoders.base import Encoder
    from mmclust.encoders.prompt import PromptEncoder

REPRESENTATIONS = ("prompt", "word", "image")


class MultiMaP(ProxyClusterer):
    """Learn for each image a free proxy word, held near its reference word and near the user's concept, then cluster the prompts.

    Each image picks a reference word, k(i) = argmax_k cos(v_i, t(z_k)). Its proxy w_i (e,) minimises
    -cos(v_i, t(w_i)) + alpha * concept + beta * reference with both encoders frozen; reference is ||w_i - phi(z_k(i))||^2, concept a
    contrastive term that keeps w_i near the user's concept word u_1 among the other concepts.

    Args:
        encoder: from `mm.load_encoder`.
        template: prompt with one `*`.
        words: K reference words.
        concepts: concept words, the user's first, such as ["color", "species"]; None leaves the concept term out.
        n_clusters: M, or "auto": chosen on t(w), see `choose_n_clusters`.
        variant: "paper" or "released", the authors' code. It sets every parameter below that is None; each can also be set alone.
        representation: what k-means clusters: "prompt" t(w_i) (the paper), "word" w_i or "image" v_i.
        alpha, beta: weights of the concept and the reference term; the paper searches {0.1 .. 1.0}, the code has 0.3 and 0.4 for fruit.
        choose_by: reference words by the "template" filled with the word (paper), or by the bare "word" (released).
        positions, final_norm: whether the prompt with the proxy gets its positional embedding and its final LayerNorm (released: neither).
        init: w starts at its reference word's token embedding, "word" [?], or at the text encoder's output for it, "text" (released).
        targets: both constraints aim at embeddings in token space, "word" (paper), or at the text encoder's outputs, "text" (released).
        concept_loss: "contrastive" (paper: softmax over the concepts of the cosine with w_i) or "mse" to u_1 alone (released).
        concept_temperature: of that softmax [?].
        reduction: "sum" over the dimensions, the paper's squared norm; "mean", 1 / e of it, as the released code's MSELoss; or "relative",
            divided by the mean squared norm of the reference words' targets, which makes beta the same in any token space.
        optimizer: "adam" (paper) or "adagrad" (released).
        batch_size: images per step, in their order: "full", one step per epoch (paper variant), or 20 (released).
        epochs: 1000 (paper) or 50 (released).
        lr, weight_decay: the optimiser's. The loss is a mean over the batch, weight decay is not: in a full batch the decay that a proxy
            feels grows with the number of images; 0 takes that out.
        early_stopping: stop when the loss moves by less than `tol` of its size over `check_every` epochs, `n_checks` times running.
        chunk_size: images per forward pass; gradients are accumulated, so it changes results by rounding only.
        n_init: k-means initialisations. random_state: seed of k-means; learning draws nothing.
        verbose: show a progress bar.

    Attributes:
        labels_: int64 (n,). proxies_: w, float32 (n, e). prompt_embeddings_: t(w), float32 (n, d).
        reference_: int64 (n,), each image's reference word.
        history_: per epoch the loss and its three terms. seconds_: what each epoch took.
        n_clusters_: M. n_clusters_curve_: with "auto", the criterion by M. cluster_centers_: (M, width).
    """

    VARIANTS: ClassVar[dict[str, dict]] = {
        "paper": {
            "choose_by": "template", "positions": True, "final_norm": True, "init": "word", "targets": "word", "concept_loss": "contrastive",
            "reduction": "sum", "optimizer": "adam", "batch_size": "full", "epochs": 1000,
        },
        "released": {
            "choose_by": "word", "positions": False, "final_norm": False, "init": "text", "targets": "text", "concept_loss": "mse",
            "reduction": "mean", "optimizer": "adagrad", "batch_size": 20, "epochs": 50,
        },
    }  # fmt: skip

    def __init__(
        self, encoder: Encoder | None = None, words: Sequence[str] | None = None, *, template: str | None = None, concepts: Sequence[str] | None = None,
        n_clusters: int | str = 8, representation: str = "prompt",
        variant: str = "paper", alpha: float = 0.3, beta: float = 0.4, choose_by: str | None = None, positions: bool | None = None,
        final_norm: bool | None = None, init: str | None = None, targets: str | None = None, concept_loss: str | None = None,
        concept_temperature: float = 0.1, reduction: str | None = None, optimizer: str | None = None, batch_size: int | str | None = None,
        epochs: int | None = None, lr: float = 5e-3, weight_decay: float = 5e-5, early_stopping: bool = False, check_every: int = 10,
        n_checks: int = 3, tol: float = 1e-3, chunk_size: int = 4096, n_init: int = 1,
        random_state: int | np.random.RandomState | None = None, verbose: bool = False,
    ) -> None:  # fmt: skip
        self.encoder, self.template, self.words, self.concepts, self.n_clusters = (
            encoder,
            template,
            words,
            concepts,
            n_clusters,
        )
        self.variant, self.representation, self.alpha, self.beta = (
            variant,
            representation,
            alpha,
            beta,
        )
        self.choose_by, self.positions, self.final_norm, self.init, self.targets = (
            choose_by,
            positions,
            final_norm,
            init,
            targets,
        )
        self.concept_loss, self.concept_temperature, self.reduction = (
            concept_loss,
            concept_temperature,
            reduction,
        )
        self.optimizer, self.batch_size, self.epochs, self.lr, self.weight_decay = (
            optimizer,
            batch_size,
            epochs,
            lr,
            weight_decay,
        )
        self.early_stopping, self.check_every, self.n_checks, self.tol = (
            early_stopping,
            check_every,
            n_checks,
            tol,
        )
        self.chunk_size, self.n_init, self.random_state, self.verbose = (
            chunk_size,
            n_init,
            random_state,
            verbose,
        )

    def _check(self, images: Sized) -> None:
        super()._check(images)
        s = self.settings()
        self._choices(
            s, representation=REPRESENTATIONS, choose_by=("template", "word"), init=("word", "text"), targets=("word", "text"),
            concept_loss=("contrastive", "mse"), reduction=("sum", "mean", "relative"), optimizer=("adam", "adagrad"),
        )  # fmt: skip
        if min(s.alpha, s.beta, s.lr, s.weight_decay) < 0 or s.concept_temperature <= 0:
            raise ValueError(
                "alpha, beta, lr and weight_decay are at least 0, concept_temperature is above 0"
            )
        if isinstance(self.concepts, str):
            raise ValueError(
                f"concepts is a list, the user's concept first, not the text {self.concepts!r}"
            )
        if s.targets == "text" and self.encoder.token_dim != self.encoder.embedding_dim:
            raise ValueError(
                f'targets="text" needs token space ({self.encoder.token_dim} wide) as wide as embeddings ({self.encoder.embedding_dim})'
            )

    def _fit(self, images: Any, y: ArrayLike | None) -> None:
        history = History()
        self.proxies_, self.reference_ = self._learn(self.image_embeddings_, history, self.verbose)
        self.history_, self.seconds_ = history.table(), history.seconds
        self.prompt_embeddings_ = self._prompts(self.proxies_)
        self._count_clusters(self.prompt_embeddings_, len(self.words))
        self.use_representation(self.representation)

    def _predict(self, images: Any) -> np.ndarray:
        v = self.encoder.encode_images(images)
        w: Any = (
            self._learn(v, History(), False, len(self.history_))[0]
            if self.chosen_ != "image"
            else None
        )
        return nearest(
            {"prompt": lambda: self._prompts(w), "word": lambda: w, "image": lambda: v}[
                self.chosen_
            ](),
            self.cluster_centers_,
        )

    def represent(self, name: str) -> np.ndarray:
        """A representation by name, float32: "prompt" (n, d), "word" (n, e), "image" (n, d)."""
        return {
            "prompt": self.prompt_embeddings_,
            "word": self.proxies_,
            "image": self.image_embeddings_,
        }[name]

    def _prompt(self) -> PromptEncoder:
        s = self.settings()
        return self.encoder.prompt(self._template(), positions=s.positions, final_norm=s.final_norm)

    def _prompts(self, proxies: np.ndarray) -> np.ndarray:
        prompt = self._prompt()
        with torch.no_grad():
            return torch.cat(
                [
                    prompt(part.to(self.encoder.device)).cpu()
                    for part in torch.from_numpy(proxies).split(self.chunk_size)
                ]
            ).numpy()

    def _embeddings(self, texts: Sequence[str], kind: str) -> torch.Tensor:
        """Words as points in token space: their token embeddings, or the text encoder's outputs for them as they come."""
        if kind == "word":
            return self.encoder.word_embeddings(texts).to(self.encoder.device)
        return torch.from_numpy(self.encoder.encode_texts(texts, normalize=False)).to(
            self.encoder.device
        )

    def _learn(
        self, embeddings: np.ndarray, history: History, verbose: bool, epochs: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Proxies (n, e) and reference words (n,) for image embeddings (n, d)."""
        s, encoder, prompt = self.settings(), self.encoder, self._prompt()
        v = torch.from_numpy(embeddings).to(encoder.device)
        chosen = (
            embeddings
            @ encoder.encode_words(
                self.words, self._template() if s.choose_by == "template" else None
            ).T
        ).argmax(1)
        index = torch.from_numpy(chosen).to(encoder.device)
        goals = self._embeddings(self.words, s.targets)
        concepts = self._embeddings(self.concepts, s.targets) if self.concepts else None
        scale = {
            "sum": 1.0,
            "mean": 1 / goals.shape[1],
            "relative": 1 / float(goals.square().sum(1).mean()),
        }[s.reduction]
        rows = PerImageParameters(
            self._embeddings(self.words, s.init)[index], s.batch_size, s.chunk_size
        )
        optimizer = make_optimizer(s.optimizer, [{"params": rows.parameters}], s.lr, s.weight_decay)
        stop = (
            LossPlateau(s.check_every, s.n_checks, s.tol)
            if s.early_stopping and epochs is None
            else None
        )

        def loss_of(
            part: slice, w: torch.Tensor, size: int
        ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
            align = -(prompt(w) * v[part]).sum() / size
            reference = scale * (w - goals[index[part]]).square().sum() / size
            concept = (
                concept_term(w, concepts, s.concept_loss, s.concept_temperature, scale) / size
                if concepts is not None
                else align * 0
            )
            loss = align + s.alpha * concept + s.beta * reference
            return loss, (loss, align, concept, reference)

        for epoch in tqdm(range(epochs or s.epochs), desc="Multi-MaP", disable=not verbose):
            terms = rows.epoch(optimizer, loss_of)
            history.add(("loss", "align", "concept", "reference"), terms)
            if stop and stop.reached(epoch, float(terms[0])):
                break
        return rows.value().cpu().numpy(), chosen


def concept_term(
    w: torch.Tensor, concepts: torch.Tensor, kind: str, temperature: float, scale: float
) -> torch.Tensor:
    """The concept-level constraint, summed over images: "contrastive" or "mse", scale * sum_i ||w_i - u_1||^2; w (n, e), concepts (C, e)."""
    return (
        contrastive_concept(w, concepts, temperature)
        if kind == "contrastive"
        else scale * (w - concepts[0]).square().sum()
    )


def contrastive_concept(
    w: torch.Tensor, concepts: torch.Tensor, temperature: float
) -> torch.Tensor:
    """-sum_i log softmax_j(cos(w_i, u_j) / temperature) at the user's concept u_1 = concepts[0]; w (n, e), concepts (C, e)."""
    logits = F.normalize(w, dim=-1) @ F.normalize(concepts, dim=-1).T / temperature
    return -logits.log_softmax(-1)[:, 0].sum()
