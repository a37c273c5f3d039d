"""The three methods once more, written from their equations for clarity: float64, image by image, all 77 tokens of every prompt through the
tower, every sum, softmax and optimiser spelt out. Only the derivative of a loss is left to autograd, and k-means to scikit-learn.

Nothing here is imported from the methods: `test_against_reference.py` holds the library to it. Symbols are those of the papers: images i, reference
words z_k with token embeddings phi_k, proxies w_i, image embeddings v_i = P h_i / ||P h_i||, prompt embeddings t(w_i), M clusters.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from sklearn.cluster import KMeans

# What the paper says and what the released code does. Epochs are those of whole runs.
MULTIMAP = {
    "paper": {
        "choose_by": "template", "positions": True, "final_norm": True, "init": "word", "targets": "word", "concept_loss": "contrastive",
        "reduction": "sum", "optimizer": "adam", "batch_size": "full", "epochs": 1000,
    },
    "released": {
        "choose_by": "word", "positions": False, "final_norm": False, "init": "text", "targets": "text", "concept_loss": "mse",
        "reduction": "mean", "optimizer": "adagrad", "batch_size": 20, "epochs": 50,
    },
}  # fmt: skip
MULTISUB = {
    "paper": {
        "normalize_image": True, "positions": True, "final_norm": True, "init": "zero", "optimizer": "adam", "batch_size": "full",
        "alternations": 9, "phase1_epochs": 100, "phase2_epochs": 10, "intra": "squared",
    },
    "released": {
        "normalize_image": False, "positions": False, "final_norm": False, "init": "text", "optimizer": "adagrad", "batch_size": 50,
        "alternations": 1, "phase1_epochs": 100, "phase2_epochs": 0, "intra": "plain",
    },
}  # fmt: skip


# --- vectors ---------------------------------------------------------------------------------------------------------------------------


def unit(x):
    """x / ||x||, along the last dimension."""
    return x / x.square().sum(-1, keepdim=True).sqrt()


def cos(x, y):
    """<x, y> / (||x|| ||y||)."""
    return (x @ y) / (x @ x).sqrt() / (y @ y).sqrt()


def softmax(scores):
    """exp(s_k) / sum_j exp(s_j), along the last dimension."""
    e = torch.exp(scores)
    return e / e.sum(-1, keepdim=True)


def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return 1 / (1 + torch.exp(-x))


# --- CLIP ------------------------------------------------------------------------------------------------------------------------------


def layer_norm(x, weights):
    """(x - mean) / sqrt(variance + 1e-5) * g + b."""
    centred = x - x.mean(-1, keepdim=True)
    return (
        centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weights["weight"]
        + weights["bias"]
    )


def multihead(x, context, weights, heads, causal=False):
    """MultiHead(x, c, c) = [softmax(Q_h K_h^T / sqrt(e / heads)) V_h]_h W_o + b_o with Q from x (.., l, e), K and V from the context (.., m, e)."""
    projections = zip(
        (x, context, context), weights["in_proj_weight"].chunk(3), weights["in_proj_bias"].chunk(3)
    )
    queries, keys, values = ((s @ W.T + b).chunk(heads, -1) for s, W, b in projections)
    outputs = []
    for q, k, v in zip(queries, keys, values):
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        if causal:  # a token sees itself and what came before
            scores = scores + torch.full_like(scores, -math.inf).triu(1)
        outputs.append(softmax(scores) @ v)
    return torch.cat(outputs, -1) @ weights["out_proj.weight"].T + weights["out_proj.bias"]


def block(x, weights, heads, quick, causal):
    """x <- x + MultiHead(LN x); x <- x + MLP(LN x), with x sigmoid(1.702 x) or GELU in the MLP."""
    y = layer_norm(x, part(weights, "ln_1"))
    x = x + multihead(y, y, part(weights, "attn"), heads, causal)
    y = (
        layer_norm(x, part(weights, "ln_2")) @ weights["mlp.c_fc.weight"].T
        + weights["mlp.c_fc.bias"]
    )
    y = y * sigmoid(1.702 * y) if quick else y * (1 + torch.erf(y / math.sqrt(2))) / 2
    return x + y @ weights["mlp.c_proj.weight"].T + weights["mlp.c_proj.bias"]


def part(weights, prefix):
    """The weights below a prefix."""
    return {
        name[len(prefix) + 1 :]: value
        for name, value in weights.items()
        if name.startswith(f"{prefix}.")
    }


def blocks(weights):
    """The weights of each residual block of a tower."""
    found = (part(weights, f"transformer.resblocks.{i}") for i in itertools.count())
    return list(itertools.takewhile(bool, found))


class Clip:
    """CLIP by its equations, from the weights of an open_clip model; prompts come stacked, nothing joins them. `quick`: QuickGELU, not GELU."""

    def __init__(self, model, tokenizer, preprocess, text_heads, image_heads, quick):
        weights = {name: value.detach() for name, value in model.state_dict().items()}
        self.tokenizer, self.preprocess, self.quick, self.text_heads, self.image_heads = (
            tokenizer,
            preprocess,
            quick,
            text_heads,
            image_heads,
        )
        self.table, self.places, self.head = (
            weights["token_embedding.weight"],
            weights["positional_embedding"],
            weights["text_projection"],
        )
        self.final, self.visual = part(weights, "ln_final"), part(weights, "visual")
        self.P = self.visual["proj"]
        self.text_blocks, self.image_blocks = blocks(weights), blocks(self.visual)
        self.read = {}

    def ids(self, text):
        """All 77 token numbers of a text, and the places of `*`, if it is there, and of end-of-text, the largest number."""
        if text not in self.read:
            ids, (star,) = self.tokenizer([text])[0], self.tokenizer.encode("*")
            self.read[text] = (
                ids,
                ids.tolist().index(star) if star in ids else None,
                int(ids.argmax()),
            )
        return self.read[text]

    def tower(self, embedded, positions=True, final_norm=True):
        """What the text tower gives for every one of 77 tokens (.., 77, e)."""
        x = embedded + self.places if positions else embedded
        for weights in self.text_blocks:
            x = block(x, weights, self.text_heads, self.quick, causal=True)
        return (layer_norm(x, self.final) if final_norm else x) @ self.head

    def text(self, text):
        """The text encoder's output for a text, as it comes."""
        ids, _, end = self.ids(text)
        return self.tower(self.table[ids])[end]

    def prompts(self, template, proxies, positions=True, final_norm=True, all_tokens=False):
        """t(w) for each w of a list: all 77 tokens of the template with w in the place of `*`, read at end-of-text, or from w to end-of-text."""
        ids, place, end = self.ids(template)
        embedded = torch.stack(
            [
                torch.cat([self.table[ids[:place]], w[None], self.table[ids[place + 1 :]]])
                for w in proxies
            ]
        )
        out = self.tower(embedded, positions, final_norm)
        return unit(out[:, place : end + 1]) if all_tokens else unit(out[:, end])

    def word(self, word):
        """phi(z): the mean of the word's token embeddings, without those of start and end."""
        ids, _, end = self.ids(word)
        return self.table[ids[1:end]].mean(0)

    def trunk(self, picture):
        """All tokens of a picture before the last projection, the class token first (1 + patches, h)."""
        pixels, W = self.preprocess(picture), self.visual["conv1.weight"]
        size = W.shape[-1]
        corners = itertools.product(
            range(0, pixels.shape[1], size), range(0, pixels.shape[2], size)
        )
        patches = [
            W.flatten(1) @ pixels[:, y : y + size, x : x + size].flatten() for y, x in corners
        ]
        x = (
            torch.stack([self.visual["class_embedding"], *patches])
            + self.visual["positional_embedding"]
        )
        x = layer_norm(x, part(self.visual, "ln_pre"))
        for weights in self.image_blocks:
            x = block(x, weights, self.image_heads, self.quick, causal=False)
        return layer_norm(x, part(self.visual, "ln_post"))

    def image(self, picture):
        """v_i = P h_i / ||P h_i||."""
        return unit(self.trunk(picture)[0] @ self.P)


# --- learning --------------------------------------------------------------------------------------------------------------------------


class Adam:
    """g <- g + decay x; m <- 0.9 m + 0.1 g; s <- 0.999 s + 0.001 g^2; x <- x - lr m / (1 - 0.9^t) / (sqrt(s / (1 - 0.999^t)) + 1e-8)."""

    def __init__(self, lr, decay=0.0):
        self.lr, self.decay, self.t, self.m, self.s = lr, decay, 0, 0.0, 0.0

    def step(self, x, g):
        g = g + self.decay * x
        self.t += 1
        self.m, self.s = 0.9 * self.m + 0.1 * g, 0.999 * self.s + 0.001 * g**2
        return x - self.lr * (self.m / (1 - 0.9**self.t)) / (
            (self.s / (1 - 0.999**self.t)).sqrt() + 1e-8
        )


class Adagrad:
    """g <- g + decay x; s <- s + g^2; x <- x - lr g / (sqrt(s) + 1e-10)."""

    def __init__(self, lr, decay=0.0):
        self.lr, self.decay, self.s = lr, decay, 0.0

    def step(self, x, g):
        g = g + self.decay * x
        self.s = self.s + g**2
        return x - self.lr * g / (self.s.sqrt() + 1e-10)


OPTIMIZERS = {"adam": Adam, "adagrad": Adagrad}


def gradients(loss, variables):
    """d loss / d x for each variable; zero where the loss does not depend on it."""
    found = torch.autograd.grad(loss, variables, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(variables, found)]


def variable(x):
    """x, ready to be derived by."""
    return x.detach().clone().requires_grad_(True)


def batches(n, size):
    """0..n-1 in batches of consecutive images."""
    size = n if size == "full" else size
    return [range(start, min(start + size, n)) for start in range(0, n, size)]


def kmeans(rows, n_clusters, seed):
    """k-means of a list of vectors, one initialisation."""
    return KMeans(n_clusters, n_init=1, random_state=seed).fit(
        torch.stack(list(rows)).detach().numpy()
    )


# --- Multi-MaP -------------------------------------------------------------------------------------------------------------------------


def concept_contrastive(w_i, concepts, temperature):
    """-log softmax_j(cos(w_i, u_j) / temperature) at j = 1."""
    return -torch.log(softmax(torch.stack([cos(w_i, u_j) / temperature for u_j in concepts]))[0])


def squared_distance(x, y):
    """||x - y||^2."""
    return ((x - y) ** 2).sum()


def multimap(clip, pictures, template, words, concepts, s):
    """mean_i -cos(v_i, t(w_i)) + alpha concept_i + beta ||w_i - u_k(i)||^2 over free w_i; s holds the settings."""
    v = [clip.image(picture) for picture in pictures]
    texts = [clip.text(template.replace("*", z) if s.choose_by == "template" else z) for z in words]
    k = [max(range(len(words)), key=lambda k: float(cos(v_i, texts[k]))) for v_i in v]

    def points(names, kind):
        return [clip.word(z) if kind == "word" else clip.text(z) for z in names]

    goals, starts, u = (
        points(words, s.targets),
        points(words, s.init),
        points(concepts or [], s.targets),
    )
    scale = {
        "sum": 1.0,
        "mean": 1 / len(goals[0]),
        "relative": 1 / (sum(squared_distance(g, 0 * g) for g in goals) / len(goals)),
    }[s.reduction]
    w = [starts[k_i] for k_i in k]
    optimizers = [OPTIMIZERS[s.optimizer](s.lr, s.weight_decay) for _ in w]
    history, steps = [], []
    for _ in range(s.epochs):
        epoch = 0.0
        for batch in batches(len(v), s.batch_size):
            terms = 0.0
            w = [variable(w_i) if i in batch else w_i for i, w_i in enumerate(w)]
            for i, t_i in zip(
                batch, clip.prompts(template, [w[i] for i in batch], s.positions, s.final_norm)
            ):
                align = -cos(v[i], t_i)
                reference = scale * squared_distance(w[i], goals[k[i]])
                concept = 0 * align
                if u:
                    concept = (
                        concept_contrastive(w[i], u, s.concept_temperature)
                        if s.concept_loss == "contrastive"
                        else scale * squared_distance(w[i], u[0])
                    )
                terms = terms + torch.stack(
                    [align + s.alpha * concept + s.beta * reference, align, concept, reference]
                )
            g = gradients(terms[0] / len(batch), [w[i] for i in batch])
            for i, g_i in zip(batch, g):
                w[i] = optimizers[i].step(w[i].detach(), g_i)
            epoch = epoch + terms.detach()
            steps.append(torch.cat(g))
        history.append(
            dict(zip(("loss", "align", "concept", "reference"), (epoch / len(v)).tolist()))
        )
    prompts = clip.prompts(template, w, s.positions, s.final_norm)
    return {"proxies": torch.stack(w), "prompt_embeddings": prompts, "reference": k, "history": history, "steps": steps,
            "prompt": prompts, "word": torch.stack(w), "image": torch.stack(v)}  # fmt: skip


# --- Multi-Sub -------------------------------------------------------------------------------------------------------------------------


def mixture(p_i, phi, temperature=1.0):
    """a_ik = softmax_k(p_i . phi_k / temperature) and w_i = sum_k a_ik phi_k."""
    a_i = softmax(torch.stack([p_i @ phi_k / temperature for phi_k in phi]))
    return a_i, sum(a_ik * phi_k for a_ik, phi_k in zip(a_i, phi))


def mean(values, like):
    """The mean of a list of numbers; zero of none."""
    return sum(values) / len(values) if values else 0 * like.sum()


def intra(x, labels, squared):
    """L_intra: the mean over same-cluster pairs i != j of ||x_i - x_j||^2, or of ||x_i - x_j||."""
    pairs = [(i, j) for i, j in itertools.permutations(range(len(x)), 2) if labels[i] == labels[j]]
    return mean(
        [
            squared_distance(x[i], x[j]) if squared else squared_distance(x[i], x[j]).sqrt()
            for i, j in pairs
        ],
        x[0],
    )


def inter(x, labels, margin):
    """L_inter: the mean over different-cluster pairs of max(0, margin - ||x_i - x_j||)."""
    pairs = [(i, j) for i, j in itertools.permutations(range(len(x)), 2) if labels[i] != labels[j]]
    return mean(
        [torch.clamp(margin - squared_distance(x[i], x[j]).sqrt(), min=0) for i, j in pairs], x[0]
    )


def contrast(x, labels, lam, margin, squared):
    """lambda L_intra + (1 - lambda) L_inter."""
    return lam * intra(x, labels, squared) + (1 - lam) * inter(x, labels, margin)


def multisub(clip, pictures, template, words, n_clusters, s):
    """Phase I: mean_i -<v_i, t(w_i)> over p_i and P. Phase II: lambda L_intra + (1 - lambda) L_inter over P. In turn."""
    h, P, phi = (
        [clip.trunk(picture)[0] for picture in pictures],
        clip.P,
        [clip.word(z) for z in words],
    )
    p = [0 * phi[0] if s.init == "zero" else clip.text("*") for _ in h]
    make = OPTIMIZERS[s.optimizer]
    of_p, of_P, of_P_again = (
        [make(s.lr, s.weight_decay) for _ in h],
        make(s.projection_lr),
        make(s.contrast_lr),
    )
    history, steps = [], []

    def prompts(proxies):
        return clip.prompts(template, proxies, s.positions, s.final_norm)

    def word(w_i):
        return unit(w_i) if s.normalize_parts else w_i

    for alternation in range(s.alternations):
        for _ in range(s.phase1_epochs):
            epoch = 0.0
            for batch in batches(len(h), s.batch_size):
                P, loss = variable(P), 0.0
                p = [variable(p_i) if i in batch else p_i for i, p_i in enumerate(p)]
                for i, t_i in zip(batch, prompts([mixture(p[i], phi)[1] for i in batch])):
                    loss = loss - unit(h[i] @ P) @ t_i
                *g, g_P = gradients(loss / len(batch), [p[i] for i in batch] + [P])
                for i, g_i in zip(batch, g):
                    p[i] = of_p[i].step(p[i].detach(), g_i)
                P = of_P.step(P.detach(), g_P)
                epoch = epoch + loss.detach()
                steps.append(torch.cat([*g, g_P.flatten()]))
            history.append({"alternation": alternation, "phase": 1, "loss": float(epoch / len(h))})
        a, w = map(torch.stack, zip(*(mixture(p_i, phi) for p_i in p)))
        t = prompts(w)
        labels = (
            a.argmax(1).tolist()
            if len(words) == n_clusters
            else kmeans(t, n_clusters, s.random_state).labels_.tolist()
        )
        for _ in range(s.phase2_epochs):
            P = variable(P)
            x = [torch.cat([word(w_i), unit(h_i @ P)]) for w_i, h_i in zip(w, h)]
            loss = contrast(x, labels, s.lam, s.margin, s.intra == "squared")
            (g_P,) = gradients(loss, [P])
            P = of_P_again.step(P.detach(), g_P)
            steps.append(g_P.flatten())
            history.append({"alternation": alternation, "phase": 2, "loss": loss.detach().item()})
    image = torch.stack([unit(h_i @ P) if s.normalize_image else h_i @ P for h_i in h])
    return {
        "weights": a, "proxies": w, "prompt_embeddings": t, "projection": P, "image_embeddings": torch.stack([unit(h_i @ P) for h_i in h]),
        "history": history, "steps": steps, "pseudo": labels,
        "prompt": t, "word": w, "image": image, "word+image": torch.cat([word(w), image], 1),
        "word-eot": clip.prompts("*", w, s.positions, s.final_norm),
    }  # fmt: skip


# --- Multi-DProxy ----------------------------------------------------------------------------------------------------------------------


def fusion(T, V, weights, heads):
    """L layers: V <- V + sigmoid(W_g [V; V_attn]) * V_attn with V_attn = MultiHead(V, T, T), and the same for T from V; T (l, d), V (m, d).

    weights: of layer l's visual and textual half under `attention.l.0`, `gates.l.0` and `attention.l.1`, `gates.l.1`; none, no layer.
    """

    def gated(x, x_attn, gate):
        return x + sigmoid(torch.cat([x, x_attn], -1) @ gate["weight"].T + gate["bias"]) * x_attn

    for layer in itertools.takewhile(
        lambda layer: f"gates.{layer}.0.bias" in weights, itertools.count()
    ):
        V_attn = multihead(V, T, part(weights, f"attention.{layer}.0"), heads)
        T_attn = multihead(T, V, part(weights, f"attention.{layer}.1"), heads)
        V, T = (
            gated(V, V_attn, part(weights, f"gates.{layer}.0")),
            gated(T, T_attn, part(weights, f"gates.{layer}.1")),
        )
    return T, V


def repulsion(f_i, negatives, sigma, hard):
    """log sum_j exp(<f_i, t_j> / sigma) over the `hard` negatives most similar to f_i; zero of none."""
    similarities = sorted(
        (f_i @ t_j / sigma for t_j in negatives), key=lambda x: x.detach().item(), reverse=True
    )[:hard]
    return torch.log(sum(torch.exp(x) for x in similarities)) if similarities else 0 * f_i.sum()


def drawn(seed, n, count, epochs):
    """The images that L_c is computed on, epoch by epoch: `count` of n, drawn without replacement."""
    generator = torch.Generator().manual_seed(int(np.random.default_rng(seed).integers(2**31)))
    return [torch.randperm(n, generator=generator)[:count].tolist() for _ in range(epochs)]


def keep(candidates, centres, n_clusters, score):
    """The max(M, ceil(K / 2)) candidates with the largest mean (or maximal) cosine to the M centres, by index, in order."""
    scores = [[cos(c_k, m).detach().item() for m in centres] for c_k in candidates]
    scores = [sum(s) / len(s) if score == "mean" else max(s) for s in scores]
    left = min(len(candidates), max(n_clusters, math.ceil(len(candidates) / 2)))
    return sorted(sorted(range(len(candidates)), key=lambda k: -scores[k])[:left])


def multidproxy(clip, pictures, template, words, n_clusters, s, start):
    """L_a + alpha(t) L_u + beta(t) L_c + L_align over p_i and the fusion layers, whose weights begin at `start`."""
    tokens = [unit(clip.trunk(picture) @ clip.P) for picture in pictures]
    v, n, E = [x[0] for x in tokens], len(tokens), s.epochs
    p, phi, kept = (
        [0 * clip.word(words[0]) for _ in v],
        [clip.word(z) for z in words],
        list(range(len(words))),
    )
    theta = dict(start) if s.fusion == "gated" and s.modality == "both" else {}
    of_p, of_theta = (
        [Adam(s.lr, s.weight_decay) for _ in p],
        [Adam(s.fusion_lr or s.lr, s.weight_decay) for _ in theta],
    )
    updates, history, steps, pools = (
        [{"epoch": 0, "candidates": list(words)}],
        [],
        [],
        drawn(s.random_state, n, s.negatives, E),
    )
    both = s.modality == "both"

    def fused(prompt_i, image_i):
        """F, T, V and lambda of an image from its prompt's and its picture's tokens."""
        T, V = fusion(
            *((prompt_i, image_i) if s.tokens == "all" else (prompt_i[-1:], image_i[:1])),
            theta,
            s.heads,
        )
        T, V = unit(T[-1]), unit(V[0])
        lam = sigmoid(T @ V / s.tau)
        F = (
            torch.cat([T, V]) / math.sqrt(2)
            if s.fusion == "concatenation"
            else unit(lam * T + (1 - lam) * V)
        )
        return F if both else T if s.modality == "text" else V, T, V, lam

    def forward():
        """a, w, t(w), F, T, V and lambda, image by image."""
        a, w = zip(*(mixture(p_i, [phi[k] for k in kept], s.tau_alpha) for p_i in p))
        prompts = clip.prompts(template, w, all_tokens=True)
        return a, w, prompts[:, -1], *zip(*map(fused, prompts, tokens))

    def beside(x):
        """What F is compared with; a concatenation with x in both halves."""
        return torch.cat([x, x]) / math.sqrt(2) if both and s.fusion == "concatenation" else x

    for epoch in range(E):
        if s.dynamic and epoch > 0 and epoch % s.update_every == 0 and len(kept) > n_clusters:
            c = [phi[k] for k in kept]
            proxies = [mixture(p_i, c, s.tau_alpha)[1] for p_i in p]
            centres = torch.from_numpy(kmeans(proxies, n_clusters, s.random_state).cluster_centers_)
            kept = [kept[k] for k in keep(c, centres, n_clusters, s.score)]
            updates.append({"epoch": epoch, "candidates": [words[k] for k in kept]})
        c = [phi[k] for k in kept]
        average = sum(c) / len(c)
        scale = {
            "sum": 1.0,
            "mean": 1 / len(average),
            "relative": 1 / (sum(c_k @ c_k for c_k in c) / len(c)),
        }[s.user_reduction]
        p, theta = [variable(p_i) for p_i in p], {name: variable(x) for name, x in theta.items()}
        a, w, t, F, _, _, _ = forward()
        heaviest = [int(a_i.argmax()) for a_i in a]
        repelled = [
            [j for j in pools[epoch] if j != i and (s.repel == "all" or heaviest[j] != heaviest[i])]
            for i in range(n)
        ]
        anchors = [beside(t_j if s.negatives_grad else t_j.detach()) for t_j in t]
        L_a = sum(1 - cos(F[i], beside(v[i])) for i in range(n)) / n
        L_u = scale * sum(squared_distance(w[i], average) for i in range(n)) / n
        L_c = (
            sum(
                repulsion(F[i], [anchors[j] for j in repelled[i]], s.sigma, s.hard)
                for i in range(n)
            )
            / n
        )
        L_align = sum(1 - cos(t[i], v[i]) for i in range(n)) / n
        alpha, beta = min(0.5, 0.1 + 0.4 * epoch / E), 0.1 * (1 - math.cos(math.pi * epoch / E))
        loss = (
            L_a
            + s.user_weight * alpha * L_u
            + s.concept_weight * beta * L_c
            + s.align_weight * L_align
        )
        g = gradients(loss, [*p, *theta.values()])
        p = [optimizer.step(p_i.detach(), g_i) for optimizer, p_i, g_i in zip(of_p, p, g)]
        theta = {
            name: optimizer.step(theta[name].detach(), g_x)
            for optimizer, name, g_x in zip(of_theta, theta, g[n:])
        }
        steps.append(torch.cat([g_x.flatten() for g_x in g]))
        shown = L_c if s.concept_weight else 0 * L_c  # without a weight it is not computed
        terms = zip(("loss", "L_a", "L_u", "L_c", "L_align"), (loss, L_a, L_u, shown, L_align))
        history.append(
            {"candidates": len(kept)} | {name: value.detach().item() for name, value in terms}
        )
    a, w, t, F, T, V, lam = (torch.stack(list(x)) for x in forward())
    return {
        "weights": a, "proxies": w, "prompt_embeddings": t, "fused": F, "text": T, "visual": V, "mixing": lam,
        "history": history, "steps": steps, "updates": updates, "word": w, "concatenation": torch.cat([T, V], 1),
    }  # fmt: skip
