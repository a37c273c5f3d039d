"""Multi-MaP: a free proxy word for each image.

Jiawei Yao, Qi Qian, Juhua Hu: Multi-Modal Proxy Learning Towards Personalized Visual Multiple
Clustering. CVPR 2024, pp. 14066-14075, arXiv 2404.15655.

Notable: the paper and the authors' released code differ in ten settings; `MultiMaP.VARIANTS` lists
them. Not here: the text encoder for prompts that contain a proxy (`mmclust.encoders.prompt`), steps
over batches (`training.py`) and k-means (`base.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmclust.methods import training
from mmclust.methods.base import ProxyClusterer, RandomSeed, nearest
from mmclust.methods.parameters import NOT_NEGATIVE, POSITIVE, POSITIVE_INTEGER

if TYPE_CHECKING:
    from mmclust.encoders.base import Encoder
    from mmclust.encoders.prompt import PromptEncoder


class MultiMaP(ProxyClusterer):
    """Learn a free proxy word for each image, close to the image, to the image's reference word and
    to the user's concept; then cluster the prompts with k-means.

    Each image takes a reference word, k(i) = argmax_k cos(v_i, t(z_k)). With both encoders frozen,
    its proxy w_i (e,) minimizes, as a mean over images,

        -cos(v_i, t(w_i)) + alpha * concept_i + beta * ||w_i - phi(z_k(i))||^2

        concept_i = -log softmax_j(cos(w_i, phi(u_j)) / temperature) at j = 1,

    where phi is the token embedding, u_1 is the user's concept word and the other u_j are other
    concepts. [?] marks what could not be read in the paper.

    Args:
        encoder, words, template, n_clusters, variant, positions, final_norm, optimizer, chunk_size,
            n_init, verbose: see `ProxyClusterer`.
        concepts: concept words, the user's first, such as ["color", "species"]; None leaves the
            concept term out.
        representation: what k-means clusters: "prompt" t(w_i) (paper), "word" w_i, "image" v_i.
        alpha, beta: weights of the concept and the reference term; the paper searches {0.1 .. 1.0},
            the code has 0.3 and 0.4 for fruit.
        choose_by: z_k in the choice of k(i) is the "template" filled with the word (paper), or the
            "word" alone (released).
        init: w starts at its reference word's token embedding, "word" [?], or at the text encoder's
            output for that word, "text" (released).
        targets: u and z_k(i) in the two constraints are token embeddings, "word" (paper), or
            outputs of the text encoder, "text" (released).
        concept_loss: "contrastive" (paper), or "mse", the squared distance to u_1 alone (released).
        concept_temperature: of the contrastive term [?].
        reduction: of squared distances over dimensions: "sum", the paper's squared norm; "mean",
            1 / e of it, as MSELoss in the released code; or "relative", divided by the mean squared
            norm of the reference words, so that beta means the same in any token space.
        batch_size: images per step, in their order: "full", one step per epoch (paper variant), or
            20 (released).
        epochs: 1000 (paper) or 50 (released).
        lr, weight_decay: of the optimizer. The loss is a mean over the batch, weight decay is not:
            with a full batch, the effect of weight decay on a proxy, relative to that of the loss,
            grows with the number of images; 0 avoids that.
        early_stopping: stop if the loss changes by less than `tol` of its size over `check_every`
            epochs, `n_checks` times in a row.
        random_state: seed of k-means; learning itself is deterministic.

    Attributes, besides those of `ProxyClusterer`:
        reference_: int64 (n,), the index of each image's reference word.
    """

    VARIANTS: ClassVar[dict[str, dict]] = {
        "paper": {
            "choose_by": "template", "positions": True, "final_norm": True, "init": "word",
            "targets": "word", "concept_loss": "contrastive", "reduction": "sum",
            "optimizer": "adam", "batch_size": "full", "epochs": 1000,
        },
        "released": {
            "choose_by": "word", "positions": False, "final_norm": False, "init": "text",
            "targets": "text", "concept_loss": "mse", "reduction": "mean",
            "optimizer": "adagrad", "batch_size": 20, "epochs": 50,
        },
    }  # fmt: skip
    REPRESENTATIONS = ("prompt", "word", "image")
    TEXT_AS_TOKENS = ("init", "targets")
    CONSTRAINTS = (
        ProxyClusterer.CONSTRAINTS
        | {
            "representation": REPRESENTATIONS,
            "choose_by": ("template", "word"),
            "init": ("word", "text"),
            "targets": ("word", "text"),
            "concept_loss": ("contrastive", "mse"),
            "reduction": training.NORM_REDUCTIONS,
            "optimizer": ("adam", "adagrad"),
            "epochs": POSITIVE_INTEGER,
            "concept_temperature": POSITIVE,
        }
        | dict.fromkeys(("alpha", "beta", "lr", "weight_decay"), NOT_NEGATIVE)
    )

    def __init__(
        self, encoder: Encoder | None = None, words: Sequence[str] | None = None, *,
        template: str | None = None, concepts: Sequence[str] | None = None,
        n_clusters: int | str = 8, representation: str = "prompt", variant: str = "paper",
        alpha: float = 0.3, beta: float = 0.4, choose_by: str | None = None,
        positions: bool | None = None, final_norm: bool | None = None, init: str | None = None,
        targets: str | None = None, concept_loss: str | None = None,
        concept_temperature: float = 0.1, reduction: str | None = None,
        optimizer: str | None = None, batch_size: int | str | None = None,
        epochs: int | None = None, lr: float = 5e-3, weight_decay: float = 5e-5,
        early_stopping: bool = False, check_every: int = 10, n_checks: int = 3, tol: float = 1e-3,
        chunk_size: int = 4096, n_init: int = 1, random_state: RandomSeed = None,
        verbose: bool | None = None,
    ) -> None:  # fmt: skip
        self.encoder, self.words, self.template = encoder, words, template
        self.concepts, self.n_clusters = concepts, n_clusters
        self.representation, self.variant = representation, variant
        self.alpha, self.beta, self.reduction = alpha, beta, reduction
        self.choose_by, self.init, self.targets = choose_by, init, targets
        self.positions, self.final_norm = positions, final_norm
        self.concept_loss, self.concept_temperature = concept_loss, concept_temperature
        self.optimizer, self.batch_size, self.epochs = optimizer, batch_size, epochs
        self.lr, self.weight_decay = lr, weight_decay
        self.early_stopping, self.check_every = early_stopping, check_every
        self.n_checks, self.tol = n_checks, tol
        self.chunk_size, self.n_init = chunk_size, n_init
        self.random_state, self.verbose = random_state, verbose

    def _check(self, n_images: int) -> None:
        super()._check(n_images)
        if self.concepts is not None and not isinstance(self.concepts, (list, tuple)):
            example = "a list with the user's concept first, such as ['color', 'species']"
            raise ValueError(f"concepts must be {example}, not {self.concepts!r}")

    def _fit(self, images: Any) -> None:
        history = training.History("Multi-MaP", self.settings().epochs, self.verbose)
        self.proxies_, self.reference_ = self._learn(self.image_embeddings_, history)
        self.history_, self.seconds_ = history.finish()
        self.prompt_embeddings_ = self._encode_proxies(self._prompt(), self.proxies_)
        self._choose_n_clusters(self.prompt_embeddings_, len(self.words))
        self._cluster(self.representation)

    def _predict(self, images: Any) -> np.ndarray:
        v = self.encoder.encode_images(images)
        if self.current_representation_ == "image":
            return nearest(v, self.cluster_centers_)
        proxies = self._learn(v, training.History(), epochs=len(self.history_))[0]
        if self.current_representation_ == "word":
            return nearest(proxies, self.cluster_centers_)
        return nearest(self._encode_proxies(self._prompt(), proxies), self.cluster_centers_)

    def _represent(self, name: str) -> np.ndarray:
        if name == "prompt":
            return self.prompt_embeddings_
        return self.proxies_ if name == "word" else self.image_embeddings_

    def _prompt(self) -> PromptEncoder:
        s = self.settings()
        return self.encoder.prompt(self._template(), positions=s.positions, final_norm=s.final_norm)

    def _points(self, words: Sequence[str], space: str) -> Tensor:
        """Words as points in token space (K, e): token embeddings ("word"), or outputs of the text
        encoder, not normalized ("text")."""
        if space == "word":
            return self.encoder.word_embeddings(words).to(self.encoder.device)
        outputs = self.encoder.encode_texts(words, normalize=False)
        return torch.from_numpy(outputs).to(self.encoder.device)

    def _learn(
        self, embeddings: np.ndarray, history: training.History, epochs: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Proxies (n, e) and indices of reference words (n,) for image embeddings (n, d). `epochs`,
        for new images: the number of epochs, without early stopping."""
        s = self.settings()
        prompt = self._prompt()
        v = torch.from_numpy(embeddings).to(self.encoder.device)  # (n, d)
        template = self._template() if s.choose_by == "template" else None
        texts = self.encoder.encode_words(self.words, template)  # (K, d)
        reference = (embeddings @ texts.T).argmax(1)  # (n,)
        index = torch.from_numpy(reference).to(self.encoder.device)
        targets = self._points(self.words, s.targets)  # (K, e)
        concepts = self._points(self.concepts, s.targets) if self.concepts else None  # (C, e)
        scale = training.squared_norm_scale(targets, s.reduction)
        start = self._points(self.words, s.init)[index]  # (n, e)
        proxies = training.PerImageParameters(start, s.batch_size, s.chunk_size)
        optimizer = training.make_optimizer(s.optimizer, proxies.parameters, s.lr, s.weight_decay)

        def unchanged(last: float, loss: float) -> bool:
            return abs(last - loss) <= s.tol * abs(loss)

        def loss_of(rows: slice, w: Tensor, size: int) -> tuple[Tensor, tuple]:
            align = -(prompt(w) * v[rows]).sum() / size
            reference = scale * (w - targets[index[rows]]).square().sum() / size
            concept = torch.zeros_like(align)
            if concepts is not None:
                concept = concept_term(w, concepts, s.concept_loss, s.concept_temperature, scale)
                concept = concept / size
            loss = align + s.alpha * concept + s.beta * reference
            return loss, (loss, align, concept, reference)

        stop = training.EarlyStopping(s.check_every, s.n_checks, unchanged)
        for epoch in range(epochs or s.epochs):
            terms = proxies.epoch(optimizer, loss_of)
            history.add(("loss", "align", "concept", "reference"), terms)
            can_stop = s.early_stopping and epochs is None
            if can_stop and stop.reached(epoch, lambda _, loss=terms[0]: float(loss)):
                break
        return proxies.value().cpu().numpy(), reference


def concept_term(w: Tensor, concepts: Tensor, loss: str, temperature: float, scale: Any) -> Tensor:
    """The concept constraint, summed over images; w (n, e), concepts u (C, e). "contrastive":
    -sum_i log softmax_j(cos(w_i, u_j) / temperature) at the user's concept u_1 = concepts[0].
    "mse": scale * sum_i ||w_i - u_1||^2."""
    if loss == "mse":
        return scale * (w - concepts[0]).square().sum()
    logits = F.normalize(w, dim=-1) @ F.normalize(concepts, dim=-1).T / temperature  # (n, C)
    return -logits.log_softmax(-1)[:, 0].sum()
