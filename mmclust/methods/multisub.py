"""Multi-Sub: Customized Multiple Clustering via Multi-Modal Subspace Proxy Learning (NeurIPS 2024, arXiv 2411.03978)."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from tqdm import tqdm

from mmclust.encoders.feature_stream import as_tensor
from mmclust.methods import pair_losses
from mmclust.methods.base import ProxyClusterer, kmeans, nearest, torch_generator
from mmclust.methods.training import (
    ClusteringAgreement,
    History,
    PerImageParameters,
    make_optimizer,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from mmclust.encoders.base import Encoder

REPRESENTATIONS = ("prompt", "word", "word-eot", "image", "word+image", "assignment")
SUBSPACES = ("token", "prompt", "text")


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
        n_clusters: M, the papers give the number of true classes; or "auto": chosen on t(w) after the first Phase I, see `choose_n_clusters`.
        variant: "paper" or "released": the authors' code in the form that runs, Phase I alone. It sets every parameter below that is None;
            each can also be set alone.
        representation: what is clustered: "prompt" t(w_i), "word" w_i, "word-eot" the text encoder's output for w_i without the template [?],
            "image" v_i, "word+image" v'_i, each by k-means; or "assignment", each image's heaviest word where K = M and k-means on v'
            otherwise (the paper's end-to-end rule). Token embeddings are short (norms near 0.5 in the embedded encoder), so v dominates
            the raw v' that the paper concatenates.
        subspace: what spans it (the paper's ablation). "token": phi(z), token embeddings, and the proxy goes through the text encoder. "prompt": the
            text encoder's outputs t(z) for the filled template, or "text": for the bare word. The mixture is then taken among outputs [?]: it is
            compared with the image as it is, normalised, and no text encoder runs while it is learned.
        normalize_parts: L2-normalise w before it is concatenated with v.
        normalize_image: "image" and "word+image" take v L2-normalised (paper), or P h as it comes (released). Losses always take v.
        positions, final_norm: whether the prompt with the proxy gets its positional embedding and its final LayerNorm (released: neither).
        init: p starts at "zero", equal weights [?], or at "text", the text encoder's output for `*` (released).
        optimizer: "adam" (paper) or "adagrad" (released).
        batch_size: images per step of Phase I, in their order: "full", one step per epoch (paper variant), or 50 (released: 20 or 50).
        alternations: rounds of the two phases; 9 rounds of 110 epochs are the paper's 1000 epochs (released: 1).
        phase1_epochs, phase2_epochs: of each phase: 100 and 10 (paper), 100 and 0 (released). Phase II always takes full-batch steps.
        lr: the rate for p; `projection_lr` and `contrast_lr` those for P in Phase I and Phase II (released code).
        weight_decay: on p.
        lam: lambda, the weight of L_intra in Phase II.
        margin: m of L_inter.
        intra: "squared" distances (paper) or "plain" ones (released) in L_intra.
        early_stopping: a Phase I stops when the clusterings of `n_checks` + 1 successive checks, `check_every` epochs apart, agree (ARI of at
            least `agreement`); the alternation stops when a round ends as the one before.
        chunk_size: images per forward pass; gradients are accumulated, so it changes results by rounding only.
        n_init: k-means initialisations.
        random_state: seed of k-means and of sampled pairs; training itself draws nothing.
        verbose: show a progress bar.

    Attributes:
        labels_: int64 (n,).
        weights_: a, float32 (n, K), rows on the simplex.
        proxies_: w, float32 (n, e).
        prompt_embeddings_: t(w), float32 (n, d). `image_embeddings_`: v with the learned P, float32 (n, d). `projection_`: P, (h, d).
        history_: one dictionary per epoch: alternation, phase, loss. seconds_: what each took.
        n_clusters_: M. n_clusters_curve_: with "auto", the criterion by M. cluster_centers_: (M, width), where k-means gave the labels.
    """

    VARIANTS: ClassVar[dict[str, dict]] = {
        "paper": {
            "normalize_image": True, "positions": True, "final_norm": True, "init": "zero", "optimizer": "adam", "batch_size": "full",
            "alternations": 9, "phase1_epochs": 100, "phase2_epochs": 10, "intra": "squared",
        },
        "released": {
            "normalize_image": False, "positions": False, "final_norm": False, "init": "text", "optimizer": "adagrad", "batch_size": 50,
            "alternations": 1, "phase1_epochs": 100, "phase2_epochs": 0, "intra": "plain",
        },
    }  # fmt: skip

    def __init__(
        self, encoder: Encoder | None = None, words: Sequence[str] | None = None, *, template: str | None = None, n_clusters: int | str = 8,
        representation: str = "prompt",
        variant: str = "paper", subspace: str = "token", normalize_parts: bool = False, normalize_image: bool | None = None, positions: bool | None = None,
        final_norm: bool | None = None, init: str | None = None, optimizer: str | None = None, batch_size: int | str | None = None,
        alternations: int | None = None, phase1_epochs: int | None = None, phase2_epochs: int | None = None, lr: float = 0.05,
        projection_lr: float = 1e-5, contrast_lr: float = 1e-4, weight_decay: float = 0.0, lam: float = 0.5, margin: float = 1.0,
        intra: str | None = None, early_stopping: bool = False, check_every: int = 5, n_checks: int = 3, agreement: float = 0.99,
        chunk_size: int = 4096, n_init: int = 1, random_state: int | np.random.RandomState | None = None, verbose: bool = False,
    ) -> None:  # fmt: skip
        self.encoder, self.template, self.words, self.n_clusters, self.variant = (
            encoder,
            template,
            words,
            n_clusters,
            variant,
        )
        self.representation, self.subspace = representation, subspace
        self.normalize_parts, self.normalize_image = normalize_parts, normalize_image
        self.positions, self.final_norm, self.init, self.optimizer, self.batch_size = (
            positions,
            final_norm,
            init,
            optimizer,
            batch_size,
        )
        self.alternations, self.phase1_epochs, self.phase2_epochs = (
            alternations,
            phase1_epochs,
            phase2_epochs,
        )
        self.lr, self.projection_lr, self.contrast_lr, self.weight_decay = (
            lr,
            projection_lr,
            contrast_lr,
            weight_decay,
        )
        self.lam, self.margin, self.intra = lam, margin, intra
        self.early_stopping, self.check_every, self.n_checks, self.agreement = (
            early_stopping,
            check_every,
            n_checks,
            agreement,
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
            s, representation=REPRESENTATIONS, subspace=SUBSPACES, init=("zero", "text"), optimizer=("adam", "adagrad"), intra=("squared", "plain")
        )  # fmt: skip
        self._has_text(s.representation)
        if not 0 <= s.lam <= 1:
            raise ValueError(f"lam lies between 0 and 1, not {s.lam}")
        if (
            s.phase2_epochs < 0
            or min(s.lr, s.projection_lr, s.contrast_lr, s.weight_decay, s.margin) < 0
        ):
            raise ValueError("phase2_epochs, rates, weight_decay and margin are at least 0")

    def _fit(self, images: Any, y: ArrayLike | None) -> None:
        s, encoder, device = self.settings(), self.encoder, self.encoder.device
        phi, prompt = self._basis(), self._prompt()
        h = self._trunk(images)
        projection = encoder.image_projection.to(h.dtype).clone().requires_grad_(True)
        rows, history, generator = (
            PerImageParameters(self._start(len(h), phi), s.batch_size, s.chunk_size),
            History(),
            torch_generator(self.random_state, device),
        )
        phase1 = make_optimizer(
            s.optimizer,
            [
                {"params": rows.parameters},
                {"params": [projection], "lr": s.projection_lr, "weight_decay": 0.0},
            ],
            s.lr,
            s.weight_decay,
        )
        phase2 = make_optimizer(s.optimizer, [{"params": [projection]}], s.contrast_lr, 0.0)
        before = None
        for alternation in tqdm(range(s.alternations), desc="Multi-Sub", disable=not self.verbose):
            stop = (
                ClusteringAgreement(s.check_every, s.n_checks, s.agreement)
                if s.early_stopping
                else None
            )
            for epoch in range(s.phase1_epochs):
                terms = rows.epoch(
                    phase1,
                    lambda part, p, size: alignment(
                        prompt(mix(p, phi)[1]), self._image_side(h, part, projection), size
                    ),
                )
                history.add(("loss",), terms, alternation=alternation, phase=1)
                if stop and stop.reached(
                    epoch,
                    lambda centres: self._pseudo_labels(*self._forward(rows, phi, prompt), centres),
                ):
                    break
            weights, proxies, prompts = self._forward(rows, phi, prompt)
            if alternation == 0:
                self._count_clusters(prompts.cpu().numpy(), len(self.words))
            labels = (
                self._pseudo_labels(weights, proxies, prompts)[0]
                if s.phase2_epochs or s.early_stopping
                else None
            )
            if s.phase2_epochs:
                word, index = self._word_part(proxies), torch.from_numpy(labels).to(device)
                for _ in range(s.phase2_epochs):
                    phase2.zero_grad()
                    x = torch.cat([word, F.normalize(h @ projection, dim=-1)], 1)
                    loss = contrast(x, index, s.lam, s.margin, s.intra, generator)
                    loss.backward()
                    phase2.step()
                    history.add(("loss",), loss.detach()[None], alternation=alternation, phase=2)
            if (
                s.early_stopping
                and before is not None
                and labels is not None
                and ClusteringAgreement.same(before, labels, s.agreement)
            ):
                break
            before = labels
        self.history_, self.seconds_ = history.table(), history.seconds
        self.weights_, self.proxies_, self.prompt_embeddings_ = (
            t.cpu().numpy() for t in (weights, proxies, prompts)
        )
        self.projection_ = projection.detach().cpu().numpy()
        self.image_embeddings_, self._image_norms = self._embeddings(h)
        self.use_representation(self.representation)

    def use_representation(self, name: str) -> Self:
        """Cluster another learned representation, without learning again; sets `representation_` and `labels_`, returns self."""
        if name == "assignment" and len(self.words) == self.n_clusters_:
            self.chosen_, self.representation_ = (
                name,
                None,
            )  # the heaviest words are the clusters: no k-means
            self.labels_ = self.weights_.argmax(1).astype(np.int64)
            return self
        return super().use_representation("word+image" if name == "assignment" else name)

    def _events(self) -> list[str | None]:
        phases = [row["phase"] for row in self.history_]
        return [
            f"Phase {'I' * now}" if now != before else None
            for before, now in zip([1, *phases], phases)
        ]

    def represent(self, name: str) -> np.ndarray:
        """A learned representation by name, float32: "prompt", "word-eot", "image" (n, d), "word" (n, e), "word+image" (n, e + d).

        e is d in the subspaces of text outputs, where "prompt" is "word" normalised and there is no "word-eot".
        """
        self._has_text(name)
        return self._representation(
            name, self.proxies_, self.prompt_embeddings_, self.image_embeddings_, self._image_norms
        )

    def _representation(
        self,
        name: str,
        proxies: np.ndarray,
        prompts: np.ndarray,
        images: np.ndarray,
        norms: np.ndarray,
    ) -> np.ndarray:
        if name == "word-eot":
            prompt = self._prompt("*")
            with torch.no_grad():
                return torch.cat(
                    [
                        prompt(w.to(self.encoder.device)).cpu()
                        for w in torch.from_numpy(proxies).split(self.chunk_size)
                    ]
                ).numpy()
        image = images if self.settings().normalize_image else images * norms
        word = self._word_part(torch.from_numpy(proxies)).numpy()
        return {
            "prompt": lambda: prompts,
            "word": lambda: proxies,
            "image": lambda: image,
            "word+image": lambda: np.hstack([word, image]),
        }[name]()

    def _predict(self, images: Any) -> np.ndarray:
        s, device = self.settings(), self.encoder.device
        phi, prompt = self._basis(), self._prompt()
        v, norms = self._embeddings(self._trunk(images))
        side = torch.from_numpy(v).to(device)
        rows = PerImageParameters(self._start(len(v), phi), s.batch_size, s.chunk_size)
        optimizer = make_optimizer(s.optimizer, [{"params": rows.parameters}], s.lr, s.weight_decay)
        for _ in range(sum(row["phase"] == 1 for row in self.history_)):
            rows.epoch(
                optimizer, lambda part, p, size: alignment(prompt(mix(p, phi)[1]), side[part], size)
            )
        weights, proxies, prompts = (t.cpu().numpy() for t in self._forward(rows, phi, prompt))
        if self.chosen_ == "assignment":
            return weights.argmax(1).astype(np.int64)
        return nearest(
            self._representation(self.chosen_, proxies, prompts, v, norms), self.cluster_centers_
        )

    def _has_text(self, name: str) -> None:
        if name == "word-eot" and self.subspace != "token":
            raise ValueError(
                f'"word-eot" is the text encoder\'s output for w: with subspace={self.subspace!r} w is one already'
            )

    def _basis(self) -> torch.Tensor:
        """What the proxies are mixtures of, (K, e)."""
        if self.subspace == "token":
            return self.encoder.word_embeddings(self.words).to(self.encoder.device)
        texts = self.encoder.encode_words(
            self.words, self._template() if self.subspace == "prompt" else None
        )
        return torch.from_numpy(texts).to(self.encoder.device)

    def _prompt(self, template: str | None = None) -> Callable[[torch.Tensor], torch.Tensor]:
        """Proxies (n, e) to prompts (n, d), L2-normalised."""
        if self.subspace != "token":
            return partial(F.normalize, dim=-1)
        s = self.settings()
        return self.encoder.prompt(
            template or self._template(), positions=s.positions, final_norm=s.final_norm
        )

    def _start(self, n: int, phi: torch.Tensor) -> torch.Tensor:
        if self.settings().init == "zero":
            return torch.zeros(n, phi.shape[1], dtype=phi.dtype, device=phi.device)
        return (
            torch.from_numpy(self.encoder.encode_texts(["*"], normalize=False)).to(phi).repeat(n, 1)
        )

    def _trunk(self, images: Any) -> torch.Tensor:
        return as_tensor(self.encoder.features(images)).to(self.encoder.device)

    def _image_side(self, h: torch.Tensor, part: slice, projection: torch.Tensor) -> torch.Tensor:
        return F.normalize(h[part] @ projection, dim=-1)

    def _embeddings(self, h: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """v with the learned P, and the norms it had."""
        out = h.cpu() @ torch.from_numpy(self.projection_)
        return F.normalize(out, dim=-1).numpy(), out.norm(dim=-1, keepdim=True).numpy()

    @staticmethod
    def _forward(
        rows: PerImageParameters, phi: torch.Tensor, prompt: Callable[[torch.Tensor], torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """a, w and t(w) of all images."""

        def whole(part: slice, p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            weights, proxies = mix(p, phi)
            return weights, proxies, prompt(proxies)

        return rows.map(whole)

    def _pseudo_labels(
        self,
        weights: torch.Tensor,
        proxies: torch.Tensor,
        prompts: torch.Tensor,
        centres: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """From the proxies: the heaviest word where K = M (or M is not known yet), else k-means on t(w) [?]. Labels (n,) and centres."""
        m = getattr(self, "n_clusters_", len(self.words))
        if m == len(self.words):
            return weights.argmax(1).cpu().numpy(), None
        return kmeans(prompts.cpu().numpy(), m, self.random_state, start=centres)

    def _word_part(self, proxies: torch.Tensor) -> torch.Tensor:
        return F.normalize(proxies, dim=-1) if self.normalize_parts else proxies


def mix(factors: torch.Tensor, phi: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Latent factors (n, e) and reference words phi (K, e) to weights a (n, K) and proxies w (n, e) (Multi-Sub, subspace proxy)."""
    weights = (factors @ phi.T).softmax(-1)
    return weights, weights @ phi


def alignment(
    prompts: torch.Tensor, images: torch.Tensor, n: int
) -> tuple[torch.Tensor, tuple[torch.Tensor]]:
    """-sum_i <v_i, t(w_i)> / n over a chunk of n images' rows; both (chunk, d), L2-normalised (Multi-Sub, Phase I). Loss and terms."""
    loss = -(prompts * images).sum() / n
    return loss, (loss,)


def contrast(
    x: torch.Tensor,
    labels: torch.Tensor,
    lam: float,
    margin: float,
    intra: str,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """lambda L_intra + (1 - lambda) L_inter over v' (n, e + d) with pseudo-labels (n,) (Multi-Sub, Phase II)."""
    within = (
        pair_losses.intra_squared(x, labels)
        if intra == "squared"
        else pair_losses.intra_plain(x, labels, generator)
    )
    return lam * within + (1 - lam) * pair_losses.inter_hinge(x, labels, margin, generator)
