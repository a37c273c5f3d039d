"""Multi-MaP and Multi-DProxy: their terms against plain float64 references, and what their parameters do."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone

import mmclust as mm
from mmclust.methods.multidproxy import GatedFusion, hard_repulsion, schedule
from mmclust.methods.multimap import contrastive_concept

TEMPLATE, WORDS = (
    "fruit with a color of *",
    [
        "red",
        "orange",
        "yellow",
        "green",
        "blue",
        "purple",
        "pink",
        "brown",
        "white",
        "black",
        "gray",
        "gold",
    ],
)


@pytest.fixture(scope="module")
def fruit():
    return mm.load_dataset("demo-fruit", n=60, seed=902)


def multimap(mini, **changes):
    return mm.MultiMaP(
        mini,
        **(
            {
                "template": TEMPLATE,
                "words": WORDS,
                "concepts": ["color", "species"],
                "n_clusters": 6,
                "random_state": 0,
                "epochs": 15,
            }
            | changes
        ),
    )


def dproxy(mini, **changes):
    return mm.MultiDProxy(
        mini,
        **(
            {
                "template": TEMPLATE,
                "words": WORDS,
                "n_clusters": 3,
                "random_state": 0,
                "epochs": 12,
                "update_every": 4,
            }
            | changes
        ),
    )


def test_multimap_starts_at_the_reference_word_and_beta_holds_it(mini, fruit):
    phi = mini.word_embeddings(WORDS).numpy()
    drift = []
    for beta in (0.0, 1.0, 100.0):
        model = multimap(mini, beta=beta, alpha=0.0).fit(fruit.images)
        np.testing.assert_array_equal(
            model.reference_,
            mm.CLIP_GPT(mini, WORDS, template=TEMPLATE).fit(fruit.images).similarity_.argmax(1),
        )
        assert model.history_[0]["reference"] == 0
        drift.append(np.linalg.norm(model.proxies_ - phi[model.reference_], axis=1).mean())
    assert drift[0] > drift[1] > drift[2]


def test_multimap_lowers_its_loss_and_reports_its_terms(mini, fruit):
    history = multimap(mini, alpha=0.3, beta=0.4).fit(fruit.images).history_
    assert history[-1]["loss"] < history[0]["loss"]
    for row in history:
        assert row["loss"] == pytest.approx(
            row["align"] + 0.3 * row["concept"] + 0.4 * row["reference"], abs=1e-6
        )


@pytest.mark.parametrize("reduction", ["sum", "mean", "relative"])
def test_multimap_reference_term_is_its_definition(mini, fruit, reduction):
    model = multimap(mini, reduction=reduction, epochs=3, lr=0.05, concepts=None).fit(fruit.images)
    before = multimap(mini, reduction=reduction, epochs=2, lr=0.05, concepts=None).fit(
        fruit.images
    )  # the state that the third epoch started from
    phi = mini.word_embeddings(WORDS).numpy().astype(np.float64)
    squared = ((before.proxies_ - phi[before.reference_]) ** 2).sum(1).mean()
    scale = {"sum": 1, "mean": 1 / 128, "relative": 1 / (phi**2).sum(1).mean()}[reduction]
    assert model.history_[2]["reference"] == pytest.approx(scale * squared, rel=1e-4)


@given(st.integers(0, 1000))
def test_contrastive_concept_is_its_definition(seed):
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(4, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    u = torch.randn(3, 5, dtype=torch.float64, generator=generator)
    plain = 0
    for i in range(4):
        e = [torch.exp((w[i] @ u[j]) / (w[i].norm() * u[j].norm()) / 0.2) for j in range(3)]
        plain = plain - torch.log(e[0] / sum(e))
    ours = contrastive_concept(w, u, 0.2)
    assert abs(ours - plain) < 1e-9
    assert (
        torch.autograd.grad(ours, w, retain_graph=True)[0] - torch.autograd.grad(plain, w)[0]
    ).abs().max() < 1e-6


def test_concept_pulls_the_proxies_to_the_users_concept(mini, fruit):
    concepts = mini.word_embeddings(["color", "species"])
    closeness = []
    for alpha in (0.0, 1.0):
        w = torch.from_numpy(multimap(mini, alpha=alpha, beta=0.0).fit(fruit.images).proxies_)
        cosines = F.normalize(w, dim=-1) @ F.normalize(concepts, dim=-1).T
        closeness.append((cosines[:, 0] - cosines[:, 1]).mean().item())
    assert closeness[1] > closeness[0]


def test_candidates_halve_and_stop_at_the_number_of_clusters(mini, fruit):
    model = dproxy(mini, epochs=20).fit(fruit.images)
    assert [len(u["candidates"]) for u in model.updates_] == [12, 6, 3] and [
        u["epoch"] for u in model.updates_
    ] == [0, 4, 8]
    assert model.weights_.shape == (60, 3) and set(model.candidates_) <= set(WORDS)
    for before, after in zip(model.updates_, model.updates_[1:]):
        assert set(after["candidates"]) <= set(before["candidates"])
    assert len(dproxy(mini, dynamic=False).fit(fruit.images).candidates_) == 12
    assert len(dproxy(mini, n_clusters=5, epochs=20).fit(fruit.images).candidates_) == 5


def test_what_dproxy_learns(mini, fruit):
    model = dproxy(mini).fit(fruit.images)
    np.testing.assert_allclose(model.weights_.sum(1), 1, atol=1e-5)
    for part in ("fused", "text", "visual"):
        np.testing.assert_allclose(np.linalg.norm(model.represent(part), axis=1), 1, atol=1e-5)
    lam = model.mixing_[:, None]
    fused = lam * model.text_ + (1 - lam) * model.visual_
    np.testing.assert_allclose(
        model.fused_, fused / np.linalg.norm(fused, axis=1, keepdims=True), atol=1e-5
    )
    np.testing.assert_allclose(
        model.mixing_,
        1 / (1 + np.exp(-(model.text_ * model.visual_).sum(1) / model.tau)),
        atol=1e-4,
    )
    whole = dproxy(mini, dynamic=False, n_clusters=12).fit(fruit.images).history_
    assert whole[-1]["L_align"] < whole[0]["L_align"]
    again = dproxy(mini).fit(fruit.images)
    np.testing.assert_array_equal(model.labels_, again.labels_)
    np.testing.assert_array_equal(model.fused_, again.fused_)


def test_without_fusion_text_and_image_stay_as_they_are(mini, fruit):
    model = dproxy(mini, fusion="none").fit(fruit.images)
    np.testing.assert_allclose(model.visual_, mini.encode_images(fruit.images), atol=1e-5)


def test_gated_fusion_is_its_equations():
    torch.manual_seed(0)
    fuse = GatedFusion(8, layers=2, heads=2).double()
    t, v = torch.randn(2, 5, 8, dtype=torch.float64)
    out_t, out_v = fuse(t, v)
    assert torch.equal(out_t, t) and torch.equal(out_v, v)  # the output projections start at zero
    for pair in fuse.attention:
        for attention in pair:
            torch.nn.init.normal_(attention.out_proj.weight)
    x, y = t, v
    for (attend_v, attend_t), (gate_v, gate_t) in zip(fuse.attention, fuse.gates):
        linear = lambda a, s: (
            (s @ a.in_proj_weight[16:].T + a.in_proj_bias[16:]) @ a.out_proj.weight.T
            + a.out_proj.bias
        )  # noqa: E731
        v_attn, t_attn = (
            linear(attend_v, x),
            linear(attend_t, y),
        )  # attention over one token is a linear map
        gate = lambda g, s, s_attn: torch.sigmoid(torch.cat([s, s_attn], -1) @ g.weight.T + g.bias)  # noqa: E731
        x, y = x + gate(gate_t, x, t_attn) * t_attn, y + gate(gate_v, y, v_attn) * v_attn
    out_t, out_v = fuse(t, v)
    assert (out_t - x).abs().max() < 1e-9 and (out_v - y).abs().max() < 1e-9


@given(st.integers(0, 500), st.integers(1, 8))
def test_hard_repulsion_is_its_definition(seed, hard):
    generator = torch.Generator().manual_seed(seed)
    f, b = (
        F.normalize(torch.randn(n, 4, dtype=torch.float64, generator=generator), dim=-1)
        for n in (5, 6)
    )
    repelled = torch.rand(5, 6, generator=generator) < 0.7
    plain = 0.0
    for i in range(5):
        terms = sorted(
            (float(f[i] @ b[j]) / 0.5 for j in range(6) if repelled[i, j]), reverse=True
        )[:hard]
        plain += math.log(sum(map(math.exp, terms))) if terms else 0.0
    assert float(hard_repulsion(f, b, repelled, 0.5, hard)) == pytest.approx(plain, abs=1e-9)


def test_the_schedule_is_the_papers():
    assert schedule(0, 100) == (0.1, 0.0)
    assert schedule(100, 100) == (0.5, pytest.approx(0.2))
    assert schedule(50, 100) == (pytest.approx(0.3), pytest.approx(0.1))


@pytest.mark.parametrize(
    "build, changes, message",
    [
        (multimap, {"reduction": "max"}, "reduction 'max' is none of"),
        (multimap, {"concepts": "color"}, "concepts is a list"),
        (multimap, {"beta": -1}, "at least 0"),
        (dproxy, {"representation": "image"}, "representation 'image' is none of"),
        (dproxy, {"tau": 0}, "temperatures are above 0"),
        (dproxy, {"heads": 3}, "heads must divide"),
    ],
)
def test_bad_parameters(mini, fruit, build, changes, message):
    with pytest.raises(ValueError, match=message):
        build(mini, **changes).fit(fruit.images)


def test_clones(mini):
    for model in (multimap(mini), dproxy(mini)):
        assert clone(model).get_params() == model.get_params()
