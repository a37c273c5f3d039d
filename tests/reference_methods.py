"""A second, simple implementation of the methods, written from their equations to be read.

All numbers are float64, and images are processed one by one. All 77 tokens of every prompt go
through the text encoder, and every sum, softmax and optimizer step is written out. Only derivatives
come from autograd, and k-means from scikit-learn.

Nothing is imported from the library, with which `test_against_reference.py` compares this module.
Symbols are those of the papers: images i, reference words z_k with token embeddings phi_k, proxies
w_i, image embeddings v_i = P h_i / ||P h_i||, prompt embeddings t(w_i), M clusters. `s` holds the
settings of a method, under the names of the library's parameters.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from sklearn.cluster import KMeans

# --- vectors -------------------------------------------------------------------------------------


def unit(x):
    """x / ||x||, along the last dimension."""
    return x / x.square().sum(-1, keepdim=True).sqrt()


def cos(x, y):
    """<x, y> / (||x|| ||y||)."""
    return (x @ y) / (x @ x).sqrt() / (y @ y).sqrt()


def squared_distance(x, y):
    """||x - y||^2."""
    return ((x - y) ** 2).sum()


def softmax(scores):
    """exp(s_k) / sum_j exp(s_j), along the last dimension."""
    e = torch.exp(scores)
    return e / e.sum(-1, keepdim=True)


def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return 1 / (1 + torch.exp(-x))


def mean(values, like):
    """The mean of a list of numbers; for an empty list a zero that is differentiable by `like`."""
    return sum(values) / len(values) if values else 0 * like.sum()


# --- CLIP ----------------------------------------------------------------------------------------


def layer_norm(x, weights):
    """(x - mean) / sqrt(variance + 1e-5) * g + b."""
    centered = x - x.mean(-1, keepdim=True)
    variance = centered.square().mean(-1, keepdim=True)
    return centered / (variance + 1e-5).sqrt() * weights["weight"] + weights["bias"]


def multihead(x, context, weights, heads, causal=False):
    """MultiHead(x, c, c) = [softmax(Q_h K_h^T / sqrt(e / heads)) V_h]_h W_o + b_o, with Q from
    x (.., l, e), K and V from the context c (.., m, e)."""
    inputs = (x, context, context)
    matrices = weights["in_proj_weight"].chunk(3)
    biases = weights["in_proj_bias"].chunk(3)
    queries, keys, values = (
        (y @ W.T + b).chunk(heads, -1) for y, W, b in zip(inputs, matrices, biases)
    )
    outputs = []
    for q, k, v in zip(queries, keys, values):
        scores = q @ k.mT / math.sqrt(q.shape[-1])  # (.., l, m)
        if causal:  # a token attends to itself and to those before it
            scores = scores + torch.full_like(scores, -math.inf).triu(1)
        outputs.append(softmax(scores) @ v)
    return torch.cat(outputs, -1) @ weights["out_proj.weight"].T + weights["out_proj.bias"]


def block(x, weights, heads, quick, causal):
    """x <- x + MultiHead(LN x); x <- x + MLP(LN x). The activation in the MLP is QuickGELU(x) =
    x sigmoid(1.702 x) if `quick`, else GELU."""
    y = layer_norm(x, below(weights, "ln_1"))
    x = x + multihead(y, y, below(weights, "attn"), heads, causal)
    y = layer_norm(x, below(weights, "ln_2"))
    y = y @ weights["mlp.c_fc.weight"].T + weights["mlp.c_fc.bias"]
    y = y * sigmoid(1.702 * y) if quick else y * (1 + torch.erf(y / math.sqrt(2))) / 2
    return x + y @ weights["mlp.c_proj.weight"].T + weights["mlp.c_proj.bias"]


def below(weights, prefix):
    """The weights whose names start with a prefix, without the prefix."""
    start = f"{prefix}."
    return {
        name.removeprefix(start): value for name, value in weights.items() if name.startswith(start)
    }


def blocks(weights):
    """The weights of each residual block of an encoder."""
    each = (below(weights, f"transformer.resblocks.{i}") for i in itertools.count())
    return list(itertools.takewhile(bool, each))


class Clip:
    """CLIP by its equations, with the weights of an open_clip model.

    `quick`: whether the activation is QuickGELU, not GELU.
    """

    def __init__(self, model, tokenizer, preprocess, text_heads, image_heads, quick):
        weights = {name: value.detach() for name, value in model.state_dict().items()}
        self.tokenizer = tokenizer
        self.preprocess = preprocess
        self.quick = quick
        self.text_heads = text_heads
        self.image_heads = image_heads
        self.token_table = weights["token_embedding.weight"]
        self.positions = weights["positional_embedding"]
        self.text_projection = weights["text_projection"]
        self.final_norm = below(weights, "ln_final")
        self.visual = below(weights, "visual")
        self.P = self.visual["proj"]
        self.scale = torch.exp(weights["logit_scale"])  # 1 / temperature
        self.text_blocks = blocks(weights)
        self.image_blocks = blocks(self.visual)
        self.cache = {}

    def ids(self, text):
        """All 77 token ids of a text, the position of `*` or None, and the position of the
        end-of-text token, which has the largest id."""
        if text not in self.cache:
            ids = self.tokenizer([text])[0]
            (star,) = self.tokenizer.encode("*")
            position = ids.tolist().index(star) if star in ids else None
            self.cache[text] = (ids, position, int(ids.argmax()))
        return self.cache[text]

    def text_encoder(self, embedded, positions=True, final_norm=True):
        """The outputs (.., 77, d) for 77 embedded tokens (.., 77, e)."""
        x = embedded + self.positions if positions else embedded
        for weights in self.text_blocks:
            x = block(x, weights, self.text_heads, self.quick, causal=True)
        x = layer_norm(x, self.final_norm) if final_norm else x
        return x @ self.text_projection

    def text(self, text):
        """The text encoder's output for a text (d,), not normalized."""
        ids, _, end = self.ids(text)
        return self.text_encoder(self.token_table[ids])[end]

    def prompts(
        self, template, proxies, positions=True, final_norm=True, all_tokens=False, unit=unit
    ):
        """t(w) (n, d) for each w of a list: the output at the end-of-text token for the template
        with w in place of `*`, normalized by `unit`. With `all_tokens`, the outputs (n, l, d) from
        the position of w to end-of-text."""
        ids, star, end = self.ids(template)
        before, after = self.token_table[ids[:star]], self.token_table[ids[star + 1 :]]
        embedded = torch.stack([torch.cat([before, w[None], after]) for w in proxies])
        outputs = self.text_encoder(embedded, positions, final_norm)  # (n, 77, d)
        return unit(outputs[:, star : end + 1]) if all_tokens else unit(outputs[:, end])

    def word(self, word):
        """phi(z) (e,): the mean of the word's token embeddings, without start and end tokens."""
        ids, _, end = self.ids(word)
        return self.token_table[ids[1:end]].mean(0)

    def trunk(self, picture):
        """All tokens (1 + patches, h) of a picture before the last projection; the first one is the
        class token."""
        pixels = self.preprocess(picture)  # (3, height, width)
        W = self.visual["conv1.weight"]  # (h, 3, size, size)
        size = W.shape[-1]
        corners = itertools.product(
            range(0, pixels.shape[1], size), range(0, pixels.shape[2], size)
        )
        patches = [
            W.flatten(1) @ pixels[:, y : y + size, x : x + size].flatten() for y, x in corners
        ]
        x = torch.stack([self.visual["class_embedding"], *patches])
        x = x + self.visual["positional_embedding"]
        x = layer_norm(x, below(self.visual, "ln_pre"))
        for weights in self.image_blocks:
            x = block(x, weights, self.image_heads, self.quick, causal=False)
        return layer_norm(x, below(self.visual, "ln_post"))

    def image(self, picture):
        """v_i = P h_i / ||P h_i||."""
        return unit(self.trunk(picture)[0] @ self.P)


# --- learning ------------------------------------------------------------------------------------


class Adam:
    """g <- g + decay x; m <- 0.9 m + 0.1 g; s <- 0.999 s + 0.001 g^2;
    x <- x - lr m / (1 - 0.9^t) / (sqrt(s / (1 - 0.999^t)) + 1e-8)."""

    def __init__(self, lr, decay=0.0):
        self.lr = lr
        self.decay = decay
        self.t = 0
        self.m = 0.0
        self.s = 0.0

    def step(self, x, g):
        g = g + self.decay * x
        self.t += 1
        self.m = 0.9 * self.m + 0.1 * g
        self.s = 0.999 * self.s + 0.001 * g**2
        m = self.m / (1 - 0.9**self.t)
        s = self.s / (1 - 0.999**self.t)
        return x - self.lr * m / (s.sqrt() + 1e-8)


class Adagrad:
    """g <- g + decay x; s <- s + g^2; x <- x - lr g / (sqrt(s) + 1e-10)."""

    def __init__(self, lr, decay=0.0):
        self.lr = lr
        self.decay = decay
        self.s = 0.0

    def step(self, x, g):
        g = g + self.decay * x
        self.s = self.s + g**2
        return x - self.lr * g / (self.s.sqrt() + 1e-10)


OPTIMIZERS = {"adam": Adam, "adagrad": Adagrad}


def in_step(batch, g, x, decay):
    """The images that a batch's step moves, and their gradients: those of the batch; with weight
    decay, which acts on all images in every step, also the others, whose gradient is 0."""
    of_batch = dict(zip(batch, g))
    return [(i, of_batch.get(i, 0 * x[i])) for i in range(len(x)) if decay or i in of_batch]


def gradients(loss, variables):
    """d loss / d x for each variable x; zero if the loss does not depend on it."""
    results = torch.autograd.grad(loss, variables, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(variables, results)]


def variable(x):
    """A copy of x for which `gradients` can be computed."""
    return x.detach().clone().requires_grad_(True)


def batches(n, size):
    """The indices 0..n-1 in batches of `size` successive ones, or in one batch ("full")."""
    size = n if size == "full" else size
    return [range(start, min(start + size, n)) for start in range(0, n, size)]


def kmeans(rows, n_clusters, seed):
    """k-means on a list of vectors, with one initialization."""
    x = torch.stack(list(rows)).detach().numpy()
    return KMeans(n_clusters, n_init=1, random_state=seed).fit(x)


def reduction_scale(words, reduction):
    """The factor of a squared norm for the reductions "sum", "mean" and "relative"."""
    if reduction == "relative":
        return len(words) / sum(c_k @ c_k for c_k in words)
    return 1.0 if reduction == "sum" else 1 / len(words[0])


# --- CRL -----------------------------------------------------------------------------------------


def crl(clip, pictures, template, words):
    """Two representations of each picture: r_i / ||r_i|| with r_ik = <v_i, t(z_k)>, and
    softmax_k(scale r_ik)."""
    t = [unit(clip.text(template.replace("*", z))) for z in words]
    r = [torch.stack([clip.image(picture) @ t_k for t_k in t]) for picture in pictures]
    return {"cosine": [unit(r_i) for r_i in r], "softmax": [softmax(clip.scale * r_i) for r_i in r]}


# --- Multi-MaP -----------------------------------------------------------------------------------


def concept_contrastive(w_i, concepts, temperature):
    """-log softmax_j(cos(w_i, u_j) / temperature) at j = 1."""
    cosines = torch.stack([cos(w_i, u_j) for u_j in concepts])
    return -torch.log(softmax(cosines / temperature)[0])


def multimap(clip, pictures, template, words, concepts, s):
    """Minimize mean_i -cos(v_i, t(w_i)) + alpha concept_i + beta ||w_i - u_k(i)||^2 over w_i."""
    v = [clip.image(picture) for picture in pictures]
    texts = [clip.text(template.replace("*", z) if s.choose_by == "template" else z) for z in words]
    k = [max(range(len(words)), key=lambda k: float(cos(v_i, texts[k]))) for v_i in v]

    def points(names, space):
        return [clip.word(z) if space == "word" else clip.text(z) for z in names]

    targets = points(words, s.targets)
    u = points(concepts or [], s.targets)
    scale = reduction_scale(targets, s.reduction)
    starts = points(words, s.init)
    w = [starts[k_i] for k_i in k]
    optimizers = [OPTIMIZERS[s.optimizer](s.lr, s.weight_decay) for _ in w]
    history, steps = [], []
    for _ in range(s.epochs):
        epoch_terms = 0.0
        for batch in batches(len(v), s.batch_size):
            terms = 0.0
            w = [variable(w_i) if i in batch else w_i for i, w_i in enumerate(w)]
            prompts = clip.prompts(template, [w[i] for i in batch], s.positions, s.final_norm)
            for i, t_i in zip(batch, prompts):
                align = -cos(v[i], t_i)
                reference = scale * squared_distance(w[i], targets[k[i]])
                if not u:
                    concept = 0 * align
                elif s.concept_loss == "contrastive":
                    concept = concept_contrastive(w[i], u, s.concept_temperature)
                else:
                    concept = scale * squared_distance(w[i], u[0])
                loss = align + s.alpha * concept + s.beta * reference
                terms = terms + torch.stack([loss, align, concept, reference])
            g = gradients(terms[0] / len(batch), [w[i] for i in batch])
            moved = in_step(batch, g, w, s.weight_decay)
            for i, g_i in moved:
                w[i] = optimizers[i].step(w[i].detach(), g_i)
            epoch_terms = epoch_terms + terms.detach()
            steps.append(torch.cat([g_i for _, g_i in moved]))
        names = ("loss", "align", "concept", "reference")
        history.append(dict(zip(names, (epoch_terms / len(v)).tolist())))
    prompts = clip.prompts(template, w, s.positions, s.final_norm)
    return {
        "proxies": torch.stack(w),
        "prompt_embeddings": prompts,
        "reference": k,
        "history": history,
        "steps": steps,
        "prompt": prompts,
        "word": torch.stack(w),
        "image": torch.stack(v),
    }


# --- Multi-Sub -----------------------------------------------------------------------------------


def mixture(p_i, phi, temperature=1.0):
    """a_ik = softmax_k(p_i . phi_k / temperature) and w_i = sum_k a_ik phi_k."""
    a_i = softmax(torch.stack([p_i @ phi_k / temperature for phi_k in phi]))
    return a_i, sum(a_ik * phi_k for a_ik, phi_k in zip(a_i, phi))


def intra(x, labels, squared):
    """L_intra: the mean of ||x_i - x_j||^2, or ||x_i - x_j||, over pairs i != j within clusters."""
    pairs = itertools.permutations(range(len(x)), 2)
    squares = [squared_distance(x[i], x[j]) for i, j in pairs if labels[i] == labels[j]]
    return mean(squares if squared else [d.sqrt() for d in squares], x[0])


def inter(x, labels, margin):
    """L_inter: the mean of max(0, margin - ||x_i - x_j||) over pairs between different clusters."""
    pairs = itertools.permutations(range(len(x)), 2)
    squares = [squared_distance(x[i], x[j]) for i, j in pairs if labels[i] != labels[j]]
    return mean([torch.clamp(margin - d.sqrt(), min=0) for d in squares], x[0])


def contrast(x, labels, lam, margin, squared):
    """lambda L_intra + (1 - lambda) L_inter."""
    return lam * intra(x, labels, squared) + (1 - lam) * inter(x, labels, margin)


def multisub(clip, pictures, template, words, n_clusters, s):
    """Alternately, Phase I minimizes mean_i -<v_i, t(w_i)> over p_i and P, Phase II minimizes
    lambda L_intra + (1 - lambda) L_inter over P."""
    h = [clip.trunk(picture)[0] for picture in pictures]
    P = clip.P
    phi = [clip.word(z) for z in words]
    p = [0 * phi[0] if s.init == "zero" else clip.text("*") for _ in h]
    make = OPTIMIZERS[s.optimizer]
    p_optimizers = [make(s.lr, s.weight_decay) for _ in h]
    P_optimizer1, P_optimizer2 = make(s.projection_lr), make(s.contrast_lr)
    history, steps = [], []

    def prompts(proxies):
        return clip.prompts(template, proxies, s.positions, s.final_norm)

    def word(w_i):
        return unit(w_i) if s.normalize_parts else w_i

    for alternation in range(s.alternations):
        for _ in range(s.phase1_epochs):
            epoch_loss = 0.0
            for batch in batches(len(h), s.batch_size):
                P = variable(P)
                p = [variable(p_i) if i in batch else p_i for i, p_i in enumerate(p)]
                loss = 0.0
                for i, t_i in zip(batch, prompts([mixture(p[i], phi)[1] for i in batch])):
                    loss = loss - unit(h[i] @ P) @ t_i
                *g, g_P = gradients(loss / len(batch), [p[i] for i in batch] + [P])
                moved = in_step(batch, g, p, s.weight_decay)
                for i, g_i in moved:
                    p[i] = p_optimizers[i].step(p[i].detach(), g_i)
                P = P_optimizer1.step(P.detach(), g_P)
                epoch_loss = epoch_loss + loss.detach()
                steps.append(torch.cat([*(g_i for _, g_i in moved), g_P.flatten()]))
            loss = float(epoch_loss / len(h))
            history.append({"alternation": alternation, "phase": 1, "loss": loss})
        a, w = map(torch.stack, zip(*(mixture(p_i, phi) for p_i in p)))
        t = prompts(w)
        if len(words) == n_clusters:
            labels = a.argmax(1).tolist()
        else:
            labels = kmeans(t, n_clusters, s.random_state).labels_.tolist()
        for _ in range(s.phase2_epochs):
            P = variable(P)
            x = [torch.cat([word(w_i), unit(h_i @ P)]) for w_i, h_i in zip(w, h)]
            loss = contrast(x, labels, s.lam, s.margin, s.intra == "squared")
            (g_P,) = gradients(loss, [P])
            P = P_optimizer2.step(P.detach(), g_P)
            steps.append(g_P.flatten())
            history.append({"alternation": alternation, "phase": 2, "loss": loss.detach().item()})
    image = torch.stack([unit(h_i @ P) if s.normalize_image else h_i @ P for h_i in h])
    return {
        "weights": a,
        "proxies": w,
        "prompt_embeddings": t,
        "projection": P,
        "image_embeddings": torch.stack([unit(h_i @ P) for h_i in h]),
        "history": history,
        "steps": steps,
        "pseudo_labels": labels,
        "prompt": t,
        "word": w,
        "word-eot": clip.prompts("*", w, s.positions, s.final_norm, unit=lambda x: x),
        "image": image,
        "word+image": torch.cat([word(w), image], 1),
    }


# --- Multi-DProxy --------------------------------------------------------------------------------


def fusion(T, V, weights, heads):
    """L layers of V <- V + sigmoid(W_g [V; V_attn]) * V_attn with V_attn = MultiHead(V, T, T), and
    of the same update for T with T and V exchanged; T (l, d), V (m, d).

    weights: layer i has the weights `attention.i.0` and `gates.i.0` for V, and `attention.i.1` and
    `gates.i.1` for T. Without weights there is no layer.
    """

    def gated(x, x_attn, gate):
        return x + sigmoid(torch.cat([x, x_attn], -1) @ gate["weight"].T + gate["bias"]) * x_attn

    for layer in itertools.count():
        if f"gates.{layer}.0.bias" not in weights:
            return T, V
        V_attn = multihead(V, T, below(weights, f"attention.{layer}.0"), heads)
        T_attn = multihead(T, V, below(weights, f"attention.{layer}.1"), heads)
        V = gated(V, V_attn, below(weights, f"gates.{layer}.0"))
        T = gated(T, T_attn, below(weights, f"gates.{layer}.1"))


def repulsion(f_i, negatives, sigma, hard):
    """log sum_j exp(<f_i, t_j> / sigma) over the `hard` negatives t_j that are most similar to f_i;
    zero without negatives."""
    similarities = [f_i @ t_j / sigma for t_j in negatives]
    similarities.sort(key=lambda x: -x.detach().item())
    if not similarities:
        return 0 * f_i.sum()
    return torch.log(sum(torch.exp(x) for x in similarities[:hard]))


def draw_negatives(seed, n, count, epochs):
    """The images j of L_c in each epoch: `count` of the n images, drawn without replacement."""
    generator = torch.Generator().manual_seed(int(np.random.default_rng(seed).integers(2**31)))
    return [torch.randperm(n, generator=generator)[:count].tolist() for _ in range(epochs)]


def better_half(candidates, centers, n_clusters, score):
    """The indices, ascending, of the max(M, ceil(K / 2)) candidates with the largest "mean" (or
    "max") cosine to the M centers."""
    cosines = [[cos(c_k, center).detach().item() for center in centers] for c_k in candidates]
    scores = [sum(row) / len(row) if score == "mean" else max(row) for row in cosines]
    n_left = min(len(candidates), max(n_clusters, math.ceil(len(candidates) / 2)))
    return sorted(sorted(range(len(candidates)), key=lambda k: -scores[k])[:n_left])


def multidproxy(clip, pictures, template, words, n_clusters, s, fusion_weights):
    """Minimize L_a + alpha(t) L_u + beta(t) L_c + L_align over p_i and the fusion layers, whose
    weights start at `fusion_weights`."""
    tokens = [unit(clip.trunk(picture) @ clip.P) for picture in pictures]
    v = [x[0] for x in tokens]
    n, E = len(v), s.epochs
    p = [0 * clip.word(words[0]) for _ in v]
    candidates = list(words)
    both = s.modality == "both"
    theta = dict(fusion_weights) if s.fusion == "gated" and both else {}
    p_optimizers = [Adam(s.lr, s.weight_decay) for _ in p]
    theta_optimizers = [Adam(s.fusion_lr or s.lr, s.weight_decay) for _ in theta]
    negatives = draw_negatives(s.random_state, n, s.negatives, E)
    updates = [{"epoch": 0, "candidates": candidates}]
    history, steps = [], []

    def fused(prompt_i, image_i):
        """F, T, V and lambda of an image, from the tokens of its prompt and of its picture."""
        T, V = prompt_i, image_i
        if s.tokens == "pooled":
            T, V = T[-1:], V[:1]
        T, V = fusion(T, V, theta, s.heads)
        T, V = unit(T[-1]), unit(V[0])
        lam = sigmoid(T @ V / s.tau)
        if not both:
            F = T if s.modality == "text" else V
        elif s.fusion == "concatenation":
            F = torch.cat([T, V]) / math.sqrt(2)
        else:
            F = unit(lam * T + (1 - lam) * V)
        return F, T, V, lam

    def forward():
        """a, w, t(w), F, T, V and lambda, image by image."""
        c = [clip.word(z) for z in candidates]
        a, w = zip(*(mixture(p_i, c, s.tau_alpha) for p_i in p))
        prompts = clip.prompts(template, w, all_tokens=True)
        return a, w, prompts[:, -1], *zip(*map(fused, prompts, tokens))

    def anchor(x):
        """What F is compared with: x, or [x, x] if F is a concatenation."""
        return torch.cat([x, x]) / math.sqrt(2) if both and s.fusion == "concatenation" else x

    R = s.update_every
    if R == "auto":  # from K words to M in b halvings, M for the last R epochs
        R = E // (math.ceil(math.log2(len(words) / n_clusters)) + 1)
    for epoch in range(E):
        c = [clip.word(z) for z in candidates]
        update = s.dynamic and epoch > 0 and epoch % R == 0
        if update and len(candidates) > n_clusters:
            proxies = [mixture(p_i, c, s.tau_alpha)[1] for p_i in p]
            centers = kmeans(proxies, n_clusters, s.random_state).cluster_centers_
            left = better_half(c, torch.from_numpy(centers), n_clusters, s.score)
            candidates = [candidates[k] for k in left]
            c = [c[k] for k in left]
            updates.append({"epoch": epoch, "candidates": candidates})
        p = [variable(p_i) for p_i in p]
        theta = {name: variable(x) for name, x in theta.items()}
        a, w, t, F, _, _, _ = forward()

        center = sum(c) / len(c)
        scale = reduction_scale(c, s.user_reduction)
        heaviest = [int(a_i.argmax()) for a_i in a]
        t_j = [anchor(t_i if s.negatives_grad else t_i.detach()) for t_i in t]
        L_a = sum(1 - cos(F[i], anchor(v[i])) for i in range(n)) / n
        L_u = sum(scale * squared_distance(w[i], center) for i in range(n)) / n
        L_c = 0.0
        for i in range(n):
            others = [j for j in negatives[epoch] if j != i]
            if s.repel == "other":
                others = [j for j in others if heaviest[j] != heaviest[i]]
            L_c = L_c + repulsion(F[i], [t_j[j] for j in others], s.sigma, s.hard) / n
        L_align = sum(1 - cos(t[i], v[i]) for i in range(n)) / n
        alpha = min(0.5, 0.1 + 0.4 * epoch / E)
        beta = 0.1 * (1 - math.cos(math.pi * epoch / E))
        loss = L_a + s.user_weight * alpha * L_u + s.concept_weight * beta * L_c
        loss = loss + s.align_weight * L_align

        g = gradients(loss, [*p, *theta.values()])
        p = [optimizer.step(p_i.detach(), g_i) for optimizer, p_i, g_i in zip(p_optimizers, p, g)]
        theta = {
            name: optimizer.step(theta[name].detach(), g_x)
            for optimizer, name, g_x in zip(theta_optimizers, theta, g[n:])
        }
        steps.append(torch.cat([g_x.flatten() for g_x in g]))
        if not s.concept_weight:  # then L_c is not computed
            L_c = 0 * L_c
        terms = {"loss": loss, "L_a": L_a, "L_u": L_u, "L_c": L_c, "L_align": L_align}
        history.append(
            {"candidates": len(candidates)} | {name: x.detach().item() for name, x in terms.items()}
        )
    a, w, t, F, T, V, lam = (torch.stack(list(x)) for x in forward())
    return {
        "weights": a,
        "proxies": w,
        "prompt_embeddings": t,
        "fused": F,
        "text": T,
        "visual": V,
        "mixing": lam,
        "history": history,
        "steps": steps,
        "updates": updates,
        "word": w,
        "concatenation": torch.cat([T, V], 1),
    }
