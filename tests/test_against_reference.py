"""The library against float64 references (`reference_methods.py`) on a tiny CLIP: losses, gradients
and complete training runs; invariances and bounds.

The tiny CLIP is a real open_clip model in float64 with random weights, as wide in token space as in
its embeddings, behind the library's encoder. The references read its weights; from the library they
take only the random start of the fusion layers.
"""

import itertools
import math

import numpy as np
import open_clip
import pytest
import reference_methods as reference
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from open_clip.model import CLIP
from PIL import Image

import mmclust as mm
from mmclust.encoders.open_clip import OpenCLIPEncoder
from mmclust.methods import pair_losses, training
from mmclust.methods.dproxy_terms import (
    GatedFusion,
    better_half,
    halving_interval,
    hard_repulsion,
    schedule,
)
from mmclust.methods.multimap import concept_term
from mmclust.methods.multisub import alignment, mix
from mmclust.methods.pair_losses import contrast

TEMPLATES = ["fruit with a color of *", "a fruit of * color, on a table", "*", "the * fruit"]
TEMPLATE = TEMPLATES[3]
CONCEPTS = ["color", "species", "size"]
WORDS = ["red", "orange", "eyepatch", "turquoise green", "blue", "gold"]  # of one to three tokens
TOKENIZER = open_clip.get_tokenizer("ViT-B-32")
SEEDS = st.integers(0, 2**32 - 1)


def pixels(picture):
    return torch.tensor(np.asarray(picture)).double().permute(2, 0, 1) / 127.5 - 1


def tiny_model(quick=True):
    """16 wide everywhere, two text layers, one image layer over four patches; all weights random
    and none small."""
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text, quick_gelu=quick).double()
        tables = [model.token_embedding.weight, model.positional_embedding]
        tables.append(model.visual.positional_embedding)
        for parameter in model.parameters():
            if any(parameter is table for table in tables):
                parameter.data.normal_(std=0.5)
            elif parameter.ndim < 2:  # biases, LayerNorms' weights, the class token
                parameter.data += 0.3 * torch.randn_like(parameter)
            else:
                parameter.data.normal_(std=2 * parameter[0].numel() ** -0.5)
    return model


@pytest.fixture(scope="module")
def tiny():
    return OpenCLIPEncoder(tiny_model(), pixels, TOKENIZER, "tiny")


@pytest.fixture(scope="module")
def clip(tiny):
    return reference.Clip(tiny.model, TOKENIZER, pixels, text_heads=2, image_heads=2, quick=True)


@pytest.fixture(scope="module")
def pictures():
    """Six small pictures: coarse random patterns."""
    rng = np.random.default_rng(6)
    arrays = [rng.integers(0, 256, (4, 4, 3), dtype=np.uint8) for _ in range(6)]
    return [Image.fromarray(a).resize((32, 32), Image.Resampling.NEAREST) for a in arrays]


@pytest.fixture
def gradients(monkeypatch):
    """Every gradient that the library's optimizers step with: one vector per step."""
    steps = []
    make_optimizer = training.make_optimizer

    def watched(*args, **options):
        optimizer = make_optimizer(*args, **options)
        leaves = [leaf for group in optimizer.param_groups for leaf in group["params"]]

        def record(*_):
            used = [leaf.grad.flatten() for leaf in leaves if leaf.grad is not None]
            steps.append(torch.cat(used))

        optimizer.register_step_pre_hook(record)
        return optimizer

    monkeypatch.setattr(training, "make_optimizer", watched)
    return steps


def close(ours, theirs):
    """Equal to 1e-6 of the size of each value; values near zero to 1e-9."""
    ours, theirs = (
        np.asarray(x.detach() if isinstance(x, torch.Tensor) else x) for x in (ours, theirs)
    )
    assert ours.dtype == theirs.dtype == np.float64
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)


def same_run(model, expected, gradients, names):
    """Recorded losses, the gradient of every step, and what was learned."""
    assert len(model.history_) == len(expected["history"])
    for ours, theirs in zip(model.history_, expected["history"]):
        assert ours.keys() == theirs.keys()
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-9)
    assert len(gradients) == len(expected["steps"])
    for ours, theirs in zip(gradients, expected["steps"]):
        close(ours, theirs)
    assert max(step.abs().max() for step in expected["steps"]) > 1e-3  # not all of them are zero
    for name in names:
        close(getattr(model, f"{name}_"), expected[name])


def same_representations(model, expected, n_clusters, seed=0):
    """Every representation, and k-means on it."""
    for name in [name for name in model.REPRESENTATIONS if name != "assignment"]:
        close(model.use_representation(name).representation_, expected[name])
        rows = torch.from_numpy(model.representation_)
        labels = reference.kmeans(rows, n_clusters, seed).labels_
        np.testing.assert_array_equal(model.labels_, labels)


# --- the tiny CLIP, and what the references are made of ------------------------------------------


def test_everything_is_float64(tiny, pictures):
    assert tiny.token_dim == tiny.embedding_dim == 16
    arrays = [tiny.features(pictures), tiny.encode_images(pictures), tiny.patch_tokens(pictures)]
    arrays += [tiny.encode_texts(WORDS), tiny.encode_words(WORDS)]
    assert {array.dtype for array in arrays} == {np.dtype(np.float64)}
    assert tiny.word_embeddings(WORDS).dtype == tiny.image_projection.dtype == torch.float64
    for options in ({}, {"positions": False}, {"final_norm": False}):
        prompt = tiny.prompt(TEMPLATE, **options)
        assert prompt(torch.zeros(2, 16, dtype=torch.float64)).dtype == torch.float64
        assert prompt.path == "cached"


@pytest.mark.parametrize("quick", [True, False])
def test_the_reference_clip_is_open_clips(pictures, quick):
    model = tiny_model(quick).requires_grad_(False)
    clip = reference.Clip(model, TOKENIZER, pixels, 2, 2, quick)
    for text in [*WORDS, TEMPLATE]:
        assert (clip.text(text) - model.encode_text(TOKENIZER([text]))[0]).abs().max() < 1e-12
    for picture in pictures[:3]:
        v = F.normalize(model.encode_image(pixels(picture)[None]), dim=-1)[0]
        assert (clip.image(picture) - v).abs().max() < 1e-12


def test_the_encoder_is_the_reference_clip(tiny, clip, pictures):
    tokens = torch.stack([clip.trunk(picture) for picture in pictures])
    filled = [clip.text(TEMPLATE.replace("*", z)) for z in WORDS]
    close(tiny.features(pictures), tokens[:, 0])
    close(tiny.encode_images(pictures), torch.stack([clip.image(picture) for picture in pictures]))
    close(tiny.patch_tokens(pictures), reference.unit(tokens @ clip.P))
    close(tiny.word_embeddings(WORDS), torch.stack([clip.word(z) for z in WORDS]))
    close(tiny.encode_texts(WORDS, normalize=False), torch.stack([clip.text(z) for z in WORDS]))
    close(tiny.encode_words(WORDS, TEMPLATE), reference.unit(torch.stack(filled)))


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize(
    "positions, final_norm, all_tokens", list(itertools.product((True, False), repeat=3))
)
def test_prompts_are_those_of_all_77_tokens(
    tiny, clip, template, positions, final_norm, all_tokens
):
    (w,) = draw(1, (3, 16))
    prompt = tiny.prompt(template, positions=positions, final_norm=final_norm)
    expected = clip.prompts(template, w, positions, final_norm, all_tokens)
    same_with_gradients(prompt(w, all_tokens=all_tokens), expected, w)


@pytest.mark.parametrize("name", reference.OPTIMIZERS)
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_optimizers_are_their_equations(name, decay):
    x = torch.linspace(-1, 1, 7, dtype=torch.float64)
    leaf = x.clone().requires_grad_(True)
    expected = reference.OPTIMIZERS[name](0.03, decay)
    optimizer = training.make_optimizer(name, [{"params": [leaf]}], 0.03, decay)
    for g in torch.randn(20, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(2)):
        leaf.grad = g.clone()
        optimizer.step()
        x = expected.step(x, g)
        assert (leaf.detach() - x).abs().max() < 1e-12


# --- complete training runs ----------------------------------------------------------------------
# One variant is run with every setting changed in turn, the other as it is and in smaller batches.

MAP = {
    "concepts": CONCEPTS, "alpha": 0.3, "beta": 0.4, "lr": 0.02, "weight_decay": 0.01,
    "concept_temperature": 0.2, "epochs": 3,
}  # fmt: skip
MAP_CHANGES = [
    ("paper", {}), ("paper", {"choose_by": "word"}), ("paper", {"positions": False}),
    ("paper", {"final_norm": False}), ("paper", {"init": "text"}), ("paper", {"targets": "text"}),
    ("paper", {"concept_loss": "mse"}), ("paper", {"reduction": "mean"}),
    ("paper", {"reduction": "relative"}), ("paper", {"optimizer": "adagrad"}),
    ("paper", {"batch_size": 4}), ("paper", {"batch_size": 5, "chunk_size": 2}),
    ("paper", {"chunk_size": 4}), ("paper", {"concepts": None}), ("paper", {"concepts": ["color"]}),
    ("paper", {"concept_loss": "mse", "reduction": "relative", "init": "text"}),
    ("released", {}), ("released", {"batch_size": 4}),
    ("released", {"batch_size": 5, "chunk_size": 2}),
]  # fmt: skip


@pytest.mark.parametrize("name", ["cosine", "softmax"])
def test_crl_is_its_equation(tiny, clip, pictures, name):
    options = {"template": TEMPLATE, "n_clusters": 3, "random_state": 0}
    model = mm.CRL(tiny, WORDS, representation=name, **options).fit(pictures)
    expected = reference.crl(clip, pictures, TEMPLATE, WORDS)[name]
    close(torch.from_numpy(model.representation_), torch.stack(expected))
    labels = reference.kmeans(expected, 3, 0).labels_
    np.testing.assert_array_equal(model.labels_, labels)
    np.testing.assert_array_equal(model.predict(pictures), labels)
    other = {"cosine": "softmax", "softmax": "cosine"}[name]
    assert model.use_representation(other).current_representation_ == other


@pytest.mark.parametrize("variant, changes", MAP_CHANGES, ids=str)
def test_multimap_is_its_equations(tiny, clip, pictures, gradients, variant, changes):
    options = MAP | changes | {"variant": variant, "n_clusters": 3, "random_state": 0}
    model = mm.MultiMaP(tiny, WORDS, template=TEMPLATE, **options).fit(pictures)
    concepts = options["concepts"]
    expected = reference.multimap(clip, pictures, TEMPLATE, WORDS, concepts, model.settings())
    assert model.reference_.tolist() == expected["reference"]
    assert len(set(expected["reference"])) > 1
    same_run(model, expected, gradients, ("proxies", "prompt_embeddings"))
    same_representations(model, expected, n_clusters=3)


SUB = {
    "paper": {
        "phase1_epochs": 2, "phase2_epochs": 2, "alternations": 2, "lr": 0.5, "projection_lr": 0.01,
        "contrast_lr": 0.02, "weight_decay": 0.01, "lam": 0.3, "margin": 2.0,
    },
    "released": {"phase1_epochs": 2, "lr": 0.5, "projection_lr": 0.01, "contrast_lr": 0.02},
}  # fmt: skip
SUB_CHANGES = [
    (3, "paper", {}), (3, "paper", {"intra": "plain"}), (3, "paper", {"normalize_parts": True}),
    (3, "paper", {"normalize_parts": True, "intra": "plain"}),
    (3, "paper", {"normalize_image": False}), (3, "paper", {"positions": False}),
    (3, "paper", {"final_norm": False}), (3, "paper", {"init": "text"}),
    (3, "paper", {"optimizer": "adagrad"}), (3, "paper", {"batch_size": 4}),
    (3, "paper", {"batch_size": 5, "chunk_size": 2}), (3, "paper", {"chunk_size": 4}),
    (3, "paper", {"phase2_epochs": 0}), (3, "paper", {"alternations": 1}),
    (3, "paper", {"projection_lr": 0.0}), (3, "released", {}), (3, "released", {"batch_size": 4}),
    (3, "released", {"phase2_epochs": 2}), (6, "paper", {}), (6, "paper", {"init": "text"}),
    (6, "released", {"batch_size": "full", "phase2_epochs": 2}),
]  # fmt: skip


@pytest.mark.parametrize("n_words, variant, changes", SUB_CHANGES, ids=str)
def test_multisub_is_its_equations(tiny, clip, pictures, gradients, n_words, variant, changes):
    words = WORDS[:n_words]
    options = SUB[variant] | changes | {"variant": variant, "n_clusters": 3, "random_state": 0}
    model = mm.MultiSub(tiny, words, template=TEMPLATE, **options).fit(pictures)
    expected = reference.multisub(clip, pictures, TEMPLATE, words, 3, model.settings())
    if model.settings().phase2_epochs:
        assert 1 < len(set(expected["pseudo_labels"])) < len(pictures)
        assert expected["steps"][-1].abs().max() > 1e-4
    names = ("weights", "proxies", "prompt_embeddings", "projection", "image_embeddings")
    same_run(model, expected, gradients, names)
    same_representations(model, expected, n_clusters=3)
    if n_words == 3:
        assigned = expected["weights"].argmax(1)
    else:
        assigned = reference.kmeans(torch.from_numpy(model.represent("word+image")), 3, 0).labels_
    np.testing.assert_array_equal(model.use_representation("assignment").labels_, assigned)


PROXY = {
    "epochs": 5, "lr": 0.05, "fusion_lr": 0.02, "weight_decay": 0.01, "update_every": 2,
    "dynamic": True, "score": "mean", "fusion": "gated", "modality": "both", "tokens": "pooled",
    "layers": 2, "heads": 2, "tau": 0.3, "tau_alpha": 0.7, "sigma": 0.5, "negatives": 5, "hard": 2,
    "repel": "other", "negatives_grad": False, "user_weight": 1.3, "concept_weight": 5.0,
    "align_weight": 0.6, "user_reduction": "relative", "random_state": 0, "n_clusters": 2,
}  # fmt: skip
PROXY_CHANGES = [
    {}, {"repel": "all"}, {"negatives_grad": True}, {"negatives_grad": True, "repel": "all"},
    {"negatives": 100, "hard": 100}, {"negatives": 1, "repel": "all"}, {"user_reduction": "sum"},
    {"user_reduction": "mean"}, {"user_weight": 0.0}, {"concept_weight": 0.0},
    {"align_weight": 0.0}, {"fusion": "concatenation"},
    {"fusion": "concatenation", "negatives_grad": True}, {"fusion": "none"}, {"modality": "text"},
    {"modality": "visual"}, {"modality": "text", "fusion": "none", "negatives_grad": True},
    {"tokens": "all"}, {"tokens": "all", "fusion": "none"},
    {"tokens": "all", "fusion": "concatenation"}, {"score": "max"}, {"dynamic": False},
    {"update_every": 1}, {"update_every": "auto"}, {"fusion_lr": None}, {"layers": 1, "heads": 4},
    {"chunk_size": 4}, {"chunk_size": 4, "repel": "all"},
    {"chunk_size": 4, "negatives_grad": True},
    {"chunk_size": 4, "negatives_grad": True, "repel": "all", "tokens": "all"},
    {"chunk_size": 4, "fusion": "concatenation", "negatives_grad": True},
    {"chunk_size": 4, "modality": "text", "negatives_grad": True},
    {"chunk_size": 4, "negatives_grad": True, "concept_weight": 0.0},
]  # fmt: skip


def fusion_start(s):
    """The random start of the fusion layers, drawn by the library: a reference cannot know it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.default_rng(s.random_state).integers(2**31)))
        layers = GatedFusion(16, s.layers, s.heads)
    return {name: value.detach().double() for name, value in layers.named_parameters()}


@pytest.mark.parametrize("changes", PROXY_CHANGES, ids=str)
def test_multidproxy_is_its_equations(tiny, clip, pictures, gradients, changes):
    model = mm.MultiDProxy(tiny, WORDS, template=TEMPLATE, **PROXY | changes).fit(pictures)
    s = model.settings()
    expected = reference.multidproxy(clip, pictures, TEMPLATE, WORDS, 2, s, fusion_start(s))
    assert model.updates_ == expected["updates"]
    assert len(model.updates_) == (3 if s.dynamic else 1)
    assert model.candidates_ == expected["updates"][-1]["candidates"]
    names = ("weights", "proxies", "prompt_embeddings", "fused", "text", "visual", "mixing")
    same_run(model, expected, gradients, names)
    if s.concept_weight:
        assert any(abs(row["L_c"]) > 1e-3 for row in expected["history"])
    same_representations(model, expected, n_clusters=2)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_predicting_for_the_same_images_learns_the_same(tiny, pictures, variant):
    """Multi-MaP learns nothing but proxies. Learned again for the same images they are the same,
    and so are the clusters."""
    options = {"concepts": CONCEPTS, "n_clusters": 3, "epochs": 3, "random_state": 0}
    model = mm.MultiMaP(tiny, WORDS, template=TEMPLATE, variant=variant, **options).fit(pictures)
    np.testing.assert_array_equal(model.predict(pictures), model.labels_)


# --- losses and their gradients, one by one ------------------------------------------------------


def draw(seed, *shapes):
    generator = torch.Generator().manual_seed(seed)
    options = {"dtype": torch.float64, "generator": generator, "requires_grad": True}
    return [torch.randn(shape, **options) for shape in shapes]


def same_gradients(ours, theirs, *variables):
    for one, other in zip(*(reference.gradients(loss, variables) for loss in (ours, theirs))):
        close(one, other)


def same_with_gradients(ours, theirs, *variables):
    """Equal values and, along a fixed random direction of the output, equal gradients."""
    close(ours, theirs)
    (direction,) = draw(3, ours.shape)
    same_gradients((ours * direction).sum(), (theirs * direction).sum(), *variables)


@given(SEEDS, st.integers(1, 5), st.integers(1, 6))
def test_mixture(seed, n, k):
    p, phi = draw(seed, (n, 4), (k, 4))
    weights, proxies = mix(p, phi)
    a, w = map(torch.stack, zip(*(reference.mixture(p_i, phi) for p_i in p)))
    same_with_gradients(weights, a, phi, p)
    same_with_gradients(proxies, w, phi, p)


@given(SEEDS, st.integers(1, 5), st.integers(0, 5))
def test_alignment(seed, n, n_others):
    t, v = draw(seed, (n, 4), (n, 4))
    size = n + n_others
    expected = -sum(reference.cos(t_i, v_i) for t_i, v_i in zip(t, v)) / size
    loss, terms = alignment(F.normalize(t, dim=-1), F.normalize(v, dim=-1), size)
    same_with_gradients(loss, expected, t, v)
    assert terms == (loss,)


@given(
    SEEDS,
    st.integers(2, 8),
    st.integers(1, 4),
    st.sampled_from(["squared", "plain"]),
    st.floats(0, 1),
)
def test_contrast(seed, n, n_clusters, intra, lam):
    (x,) = draw(seed, (n, 3))
    labels = torch.randint(n_clusters, (n,), generator=torch.Generator().manual_seed(seed))
    ours = contrast(x, labels, lam, 2.0, intra)
    expected = reference.contrast(x, labels.tolist(), lam, 2.0, intra == "squared")
    same_with_gradients(ours, expected, x)


@given(
    SEEDS,
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from(["contrastive", "mse"]),
    st.floats(0.05, 2),
    st.floats(0.01, 1),
)
def test_concept_terms(seed, n, n_concepts, loss, temperature, scale):
    w, u = draw(seed, (n, 5), (n_concepts, 5))
    if loss == "contrastive":
        expected = sum(reference.concept_contrastive(w_i, u, temperature) for w_i in w)
    else:
        expected = sum(scale * reference.squared_distance(w_i, u[0]) for w_i in w)
    same_with_gradients(concept_term(w, u, loss, temperature, scale), expected, w, u)


@given(SEEDS, st.integers(1, 5), st.integers(1, 6), st.integers(1, 8), st.floats(0, 1))
def test_hard_repulsion(seed, n, b, hard, share):
    f, t = draw(seed, (n, 4), (b, 4))
    repelled = torch.rand(n, b, generator=torch.Generator().manual_seed(seed)) < share
    ours = hard_repulsion(F.normalize(f, dim=-1), F.normalize(t, dim=-1), repelled, 0.3, hard)
    expected = 0.0
    for i in range(n):
        negatives = [reference.unit(t[j]) for j in range(b) if repelled[i, j]]
        expected = expected + reference.repulsion(reference.unit(f[i]), negatives, 0.3, hard)
    same_with_gradients(ours, expected, f, t)


@pytest.mark.parametrize("text_tokens, image_tokens", [(None, None), (3, 5), (1, 5), (4, 1)])
@pytest.mark.parametrize("layers, heads", [(1, 1), (2, 4), (3, 2)])
def test_gated_fusion(text_tokens, image_tokens, layers, heads):
    torch.manual_seed(4)
    fusion = GatedFusion(8, layers, heads).double()
    T, V = draw(
        5,
        (2, 8) if text_tokens is None else (2, text_tokens, 8),
        (2, 8) if image_tokens is None else (2, image_tokens, 8),
    )
    for x, y in zip((T, V), fusion(T, V)):
        assert torch.equal(x, y)  # the layers start as the identity
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    weights = dict(fusion.named_parameters())
    expected = zip(
        *(
            reference.fusion(T_i.reshape(-1, 8), V_i.reshape(-1, 8), weights, heads)
            for T_i, V_i in zip(T, V)
        )
    )
    for ours, theirs in zip(fusion(T, V), expected):
        same_with_gradients(ours, torch.stack(theirs).reshape(ours.shape), T, V, *weights.values())


@given(SEEDS, st.integers(1, 40), st.integers(1, 6), st.sampled_from(["mean", "max"]))
def test_better_half(seed, k, m, score):
    candidates, centers = draw(seed, (k, 4), (m, 4))
    expected = reference.better_half(candidates, centers, m, score)
    assert better_half(candidates, centers, m, score).tolist() == expected


# --- same seed, chunks, order --------------------------------------------------------------------

RUNS = {
    "MultiMaP": {"concepts": CONCEPTS, "epochs": 8, "weight_decay": 0.01},
    "MultiSub": {
        "alternations": 2, "phase1_epochs": 5, "phase2_epochs": 3, "projection_lr": 1e-3,
        "contrast_lr": 1e-2,
    },
    "MultiDProxy": {"epochs": 8, "update_every": 3, "negatives": 20, "concept_weight": 5.0},
}  # fmt: skip
LEARNED = (
    "proxies_", "prompt_embeddings_", "weights_", "projection_", "image_embeddings_", "fused_",
    "text_", "visual_", "mixing_", "representation_",
)  # fmt: skip


def method(name, encoder, **changes):
    """A small run of a method in its paper's variant, by name."""
    common = {"template": TEMPLATE, "words": WORDS, "n_clusters": 3, "random_state": 0}
    return getattr(mm, name)(encoder, **common | RUNS[name] | changes)


def learned(model):
    return {name: getattr(model, name) for name in LEARNED if hasattr(model, name)}


@pytest.mark.parametrize(
    "name, changes",
    [(m, {}) for m in RUNS] + [(m, {"variant": "released"}) for m in ("MultiMaP", "MultiSub")],
)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_same_seed_same_machine_same_bits(mini, tiny, pictures, precision, name, changes):
    if precision == "float64":
        encoder, images = tiny, pictures
    else:
        encoder, images = mini, mm.load_dataset("demo-fruit", n=20, seed=905).images
    torch.manual_seed(1)
    one = method(name, encoder, **changes).fit(images)
    torch.manual_seed(2)  # the global generators have no effect
    np.random.seed(3)  # noqa: NPY002
    before = torch.random.get_rng_state()
    two = method(name, encoder, **changes).fit(images)
    assert torch.equal(before, torch.random.get_rng_state())
    np.testing.assert_array_equal(one.labels_, two.labels_)
    assert one.history_ == two.history_
    assert one.proxies_.dtype == precision
    for a, b in zip(learned(one).values(), learned(two).values()):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "name, changes",
    [
        ("MultiMaP", {}),
        ("MultiSub", {}),
        ("MultiSub", {"words": WORDS[:3]}),
        ("MultiDProxy", {}),
        ("MultiDProxy", {"negatives_grad": True}),
        (
            "MultiDProxy",
            {"negatives_grad": True, "repel": "all", "tokens": "all", "negatives": 4},
        ),
    ],
)
def test_chunks_change_results_by_rounding_only(tiny, pictures, gradients, name, changes):
    runs = []
    for chunk_size in (3, 4, 100, len(pictures)):
        gradients.clear()
        runs.append(method(name, tiny, chunk_size=chunk_size, **changes).fit(pictures))
        assert len(gradients) == len(runs[-1].history_)  # one step per epoch
    for other in runs[1:]:
        np.testing.assert_array_equal(runs[0].labels_, other.labels_)
        for a, b in zip(learned(runs[0]).values(), learned(other).values()):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)
        for a, b in zip(runs[0].history_, other.history_):
            assert a == pytest.approx(b, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    "name, changes",
    [
        ("MultiMaP", {}),
        ("MultiMaP", {"variant": "released", "batch_size": "full"}),
        ("MultiSub", {"words": WORDS[:3]}),
        ("MultiSub", {"words": WORDS[:3], "intra": "plain", "normalize_parts": True}),
        ("MultiSub", {"phase2_epochs": 0}),
        ("MultiDProxy", {"dynamic": False}),
        ("MultiDProxy", {"dynamic": False, "negatives_grad": True, "repel": "all"}),
        ("MultiDProxy", {"dynamic": False, "negatives_grad": True, "chunk_size": 3}),
        ("MultiDProxy", {"dynamic": False, "tokens": "all"}),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_permuting_the_images_permutes_what_is_learned(tiny, pictures, name, changes, seed):
    order = np.random.default_rng(seed).permutation(len(pictures))
    one = method(name, tiny, **changes).fit(pictures)
    other = method(name, tiny, **changes).fit([pictures[i] for i in order])
    for key, value in learned(one).items():
        expected = value if key == "projection_" else value[order]
        np.testing.assert_allclose(learned(other)[key], expected, rtol=0, atol=1e-9, err_msg=key)
    for a, b in zip(one.history_, other.history_):
        assert a == pytest.approx(b, rel=1e-9, abs=1e-9)


# --- the simplex, the candidates, Proposition 1 --------------------------------------------------


@given(SEEDS, st.integers(1, 6), st.integers(1, 8), st.floats(0.01, 100))
def test_weights_are_on_the_simplex_and_proxies_in_the_hull(seed, n, k, size):
    p, phi = (x.detach() for x in draw(seed, (n, 4), (k, 4)))
    a, w = mix(size * p, phi)
    assert (a >= 0).all()
    assert (a.sum(1) - 1).abs().max() < 1e-12
    assert (w <= phi.amax(0) + 1e-9).all()
    assert (w >= phi.amin(0) - 1e-9).all()
    assert w.norm(dim=1).max() <= phi.norm(dim=1).max() + 1e-9
    close(mix(0 * p, phi)[1], phi.mean(0).expand(n, -1))  # without a preference, the mean word
    # Adding a vector to all words leaves the weights, and adds it to the proxies.
    shifted_a, shifted_w = mix(size * p, phi + 3)
    np.testing.assert_allclose(shifted_a, a, atol=1e-8)
    np.testing.assert_allclose(shifted_w, w + 3, atol=1e-7)


@pytest.mark.parametrize("name", ["MultiSub", "MultiDProxy"])
def test_learned_weights_are_on_the_simplex(tiny, pictures, name):
    a = method(name, tiny, lr=1.0).fit(pictures).weights_
    assert (a >= 0).all()
    assert np.abs(a.sum(1) - 1).max() < 1e-12


@given(SEEDS, st.integers(1, 200), st.integers(1, 12), st.sampled_from(["mean", "max"]))
def test_candidates_halve_and_stop_at_the_number_of_clusters(seed, k, m, score):
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(k, 3, generator=generator)
    for _ in range(10):
        index = better_half(left, torch.randn(m, 3, generator=generator), m, score).tolist()
        assert len(index) == min(len(left), max(m, math.ceil(len(left) / 2)))
        assert index == sorted(set(index) & set(range(len(left))))
        left = left[index]
    assert len(left) == min(k, m)


@given(SEEDS, st.integers(2, 30), st.integers(1, 5), st.sampled_from(["mean", "max"]))
def test_pruning_depends_on_directions_only(seed, k, m, score):
    candidates, centers = (x.detach() for x in draw(seed, (k, 4), (m, 4)))
    expected = better_half(candidates, centers, m, score)
    generator = torch.Generator().manual_seed(seed)
    lengths = 0.1 + torch.rand(k, 1, dtype=torch.float64, generator=generator)
    assert torch.equal(better_half(candidates * lengths, 7 * centers, m, score), expected)
    Q = rotation(seed)
    assert torch.equal(better_half(candidates @ Q, centers @ Q, m, score), expected)
    order = torch.randperm(k, generator=generator)
    permuted = order[better_half(candidates[order], centers.flip(0), m, score)]
    assert set(permuted.tolist()) == set(expected.tolist())


@given(SEEDS, st.integers(1, 6), st.integers(1, 8), st.floats(0, 3), st.floats(0.1, 10))
def test_proposition_1_proxies_drift_no_further_than_candidates(seed, n, k, drift, size):
    """||w_i(c') - w_i(c)|| <= gamma max_k ||c'_k - c_k|| with gamma = max_i sum_k a_ik <= 1, for a
    fixed attention a."""
    p, before, step = (x.detach() for x in draw(seed, (n, 4), (k, 4), (k, 4)))
    after = before + drift * step
    a, w = mix(size * p, before)
    gamma = a.sum(1).max()
    assert gamma <= 1 + 1e-12
    bound = gamma * (after - before).norm(dim=1).max()
    assert ((a @ after - w).norm(dim=1) <= bound + 1e-12).all()
    # The bound is tight: if all candidates move together, the proxies move with them.
    together = (a @ (before + step[:1]) - w).norm(dim=1)
    np.testing.assert_allclose(together, step[0].norm() * a.sum(1), atol=1e-9)


def test_proposition_1_on_a_fit(tiny, pictures):
    model = method("MultiDProxy", tiny, dynamic=False, lr=0.3).fit(pictures)
    phi = tiny.word_embeddings(WORDS).numpy()
    for seed in range(20):
        after = phi + np.random.default_rng(seed).normal(size=phi.shape) * 10.0 ** (seed % 5 - 3)
        moved = np.linalg.norm(model.weights_ @ after - model.proxies_, axis=1)
        bound = model.weights_.sum(1).max() * np.linalg.norm(after - phi, axis=1).max()
        assert (moved <= bound + 1e-12).all()


@given(st.integers(1, 2000), st.data())
def test_the_schedule_rises_within_its_bounds(epochs, data):
    t = data.draw(st.integers(0, epochs))
    alpha, beta = schedule(t, epochs)
    assert alpha == pytest.approx(min(0.5, 0.1 + 0.4 * t / epochs))
    assert beta == pytest.approx(0.2 * math.sin(math.pi * t / epochs / 2) ** 2)
    assert 0.1 <= alpha <= 0.5
    assert 0 <= beta <= 0.2
    if t:
        assert all(now >= before for now, before in zip((alpha, beta), schedule(t - 1, epochs)))


# --- invariances ---------------------------------------------------------------------------------


def rotation(seed, width=4):
    """A random orthogonal matrix."""
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(width, width, dtype=torch.float64, generator=generator))[0]


PAIR_LOSSES = {  # a loss with its margin times s; the power of s that it grows with
    "intra_squared": (lambda x, labels, s: pair_losses.intra_squared(x, labels), 2),
    "intra_plain": (lambda x, labels, s: pair_losses.intra_plain(x, labels), 1),
    "inter_hinge": (lambda x, labels, s: pair_losses.inter_hinge(x, labels, 2.0 * s), 1),
}


@pytest.mark.parametrize("loss, power", PAIR_LOSSES.values(), ids=PAIR_LOSSES)
@given(SEEDS, st.integers(2, 12), st.floats(0.1, 10))
def test_invariances_of_pair_losses(loss, power, seed, n, s):
    """Order, numbers of clusters, translation and rotation change nothing."""
    x, shift = (y.detach() for y in draw(seed, (n, 4), (4,)))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (n,), generator=generator)
    order = torch.randperm(n, generator=generator)
    numbers = torch.randperm(4, generator=generator)
    value = loss(x, labels, 1.0)
    assert value >= 0
    for points, clusters in (
        (x[order], labels[order]),
        (x, numbers[labels]),
        (x + shift, labels),
        (x @ rotation(seed), labels),
    ):
        np.testing.assert_allclose(loss(points, clusters, 1.0), value, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(loss(s * x, labels, s), s**power * value, rtol=1e-9, atol=1e-9)


@given(SEEDS, st.integers(2, 12))
def test_pair_losses_are_zero_without_pairs_or_far_apart(seed, n):
    (x,) = draw(seed, (n, 4))
    labels = torch.arange(n) % 2
    value = pair_losses.inter_hinge(x + 1000 * labels[:, None], labels, 1.0)
    assert value == 0
    assert reference.gradients(value, [x])[0].abs().max() == 0
    assert pair_losses.inter_hinge(x, torch.zeros(n, dtype=torch.long), 1.0) == 0
    assert pair_losses.intra_squared(x, torch.arange(n)) == 0
    assert pair_losses.intra_plain(x, torch.arange(n)) == 0


@given(SEEDS, st.integers(1, 8))
def test_alignment_under_a_common_rotation_and_order(seed, n):
    t, v = (F.normalize(x.detach(), dim=-1) for x in draw(seed, (n, 4), (n, 4)))
    value = alignment(t, v, n)[0]
    Q = rotation(seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    for a, b in ((t @ Q, v @ Q), (t[order], v[order]), (v, t)):
        np.testing.assert_allclose(alignment(a, b, n)[0], value, atol=1e-12)
    assert -1 - 1e-12 <= value <= 1 + 1e-12
    assert alignment(t, t, n)[0] == pytest.approx(-1)
    assert alignment(t, -t, n)[0] == pytest.approx(1)


@given(SEEDS, st.integers(1, 6), st.integers(1, 5), st.floats(0.05, 2))
def test_the_contrastive_concept_depends_on_directions_only(seed, n, n_concepts, temperature):
    w, u = draw(seed, (n, 4), (n_concepts, 4))
    value = concept_term(w, u, "contrastive", temperature, 1.0)
    generator = torch.Generator().manual_seed(seed)
    lengths = 0.1 + torch.rand(n, 1, dtype=torch.float64, generator=generator)
    Q = rotation(seed)
    order = torch.randperm(n, generator=generator)
    others = 1 + torch.randperm(n_concepts - 1, generator=generator)
    others_permuted = torch.cat([u[:1], u[others]])
    for a, b in (
        (lengths * w, u),
        (w, 3 * u),
        (w @ Q, u @ Q),
        (w[order], u),
        (w, others_permuted),
    ):
        other = concept_term(a, b, "contrastive", temperature, 1.0)
        np.testing.assert_allclose(other.detach(), value.detach(), rtol=1e-9, atol=1e-9)
    (g,) = reference.gradients(value, [w])
    assert (g * w).sum(1).abs().max() < 1e-9  # it turns proxies, and does not change their lengths
    assert value >= -1e-12
    assert n_concepts > 1 or value.abs() < 1e-12


@given(SEEDS, st.integers(1, 6), st.floats(0.1, 10))
def test_the_squared_concept_under_shifts_rotations_and_scale(seed, n, s):
    w, u, shift = (x.detach() for x in draw(seed, (n, 4), (2, 4), (4,)))
    Q = rotation(seed)

    def loss(w, u, scale=1.0, temperature=0.1):
        return concept_term(w, u, "mse", temperature, scale)

    value = loss(w, u)
    for other in (
        loss(w + shift, u + shift),
        loss(w @ Q, u @ Q, temperature=9.0),
        loss(w, u[:1]),
        loss(s * w, s * u) / s**2,
        loss(s * w, s * u, scale=1 / s**2),  # as with reduction="relative"
    ):
        np.testing.assert_allclose(other, value, rtol=1e-9)


@given(SEEDS, st.integers(1, 6), st.integers(1, 7))
def test_invariances_of_the_repulsion(seed, n, b):
    """A common rotation and any order change nothing; more hard examples only add; pairs that are
    not repelled have no effect."""
    f, t = (F.normalize(x.detach(), dim=-1) for x in draw(seed, (n, 4), (b, 4)))
    generator = torch.Generator().manual_seed(seed)
    repelled = torch.rand(n, b, generator=generator) < 0.6
    Q = rotation(seed)
    rows = torch.randperm(n, generator=generator)
    columns = torch.randperm(b, generator=generator)
    value = hard_repulsion(f, t, repelled, 0.5, 3)
    for other in (
        hard_repulsion(f @ Q, t @ Q, repelled, 0.5, 3),
        hard_repulsion(f[rows], t, repelled[rows], 0.5, 3),
        hard_repulsion(f, t[columns], repelled[:, columns], 0.5, 3),
    ):
        np.testing.assert_allclose(other, value, rtol=1e-9, atol=1e-9)
    by_hard = [hard_repulsion(f, t, repelled, 0.5, hard) for hard in range(1, b + 3)]
    assert all(more >= less - 1e-12 for less, more in itertools.pairwise(by_hard))
    assert by_hard[b - 1] == by_hard[b + 1]
    leaf = t.clone().requires_grad_(True)
    (g,) = reference.gradients(hard_repulsion(f, leaf, repelled, 0.5, b), [leaf])
    assert torch.equal(g.abs().sum(1) > 0, repelled.any(0))
    assert hard_repulsion(f, t, torch.zeros_like(repelled), 0.5, 3) == 0


@given(SEEDS, st.integers(2, 5))
def test_fusion_reads_its_context_as_a_set(seed, tokens):
    """Reordering the image's tokens reorders V and leaves T; other images have no effect."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fusion = GatedFusion(4, 2, 2).double()
        for parameter in fusion.parameters():
            torch.nn.init.normal_(parameter)
    T, V = (x.detach() for x in draw(seed, (3, 2, 4), (3, tokens, 4)))
    order = torch.randperm(tokens, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        t, v = fusion(T, V)
        t_reordered, v_reordered = fusion(T, V[:, order])
        t_alone, v_alone = fusion(T[1:2], V[1:2])
    np.testing.assert_allclose(t_reordered, t, atol=1e-9)
    np.testing.assert_allclose(v_reordered, v[:, order], atol=1e-9)
    np.testing.assert_allclose(t_alone, t[1:2], atol=1e-9)
    np.testing.assert_allclose(v_alone, v[1:2], atol=1e-9)


@given(st.integers(1, 500), st.integers(1, 40), st.integers(1, 300))
def test_the_automatic_schedule_ends_with_m_words(n_words, n_clusters, epochs):
    every = halving_interval(n_words, n_clusters, epochs)
    candidates = n_words
    for _ in range(every, epochs, every):
        candidates = max(min(candidates, n_clusters), math.ceil(candidates / 2))
    halvings = max(0, math.ceil(math.log2(n_words / n_clusters)))
    if halvings and epochs > halvings:
        assert candidates == n_clusters
        assert epochs - halvings * every >= every  # M words are left for at least R epochs
