"""Multi-Sub's subspaces: token embeddings, or the text encoder's outputs for prompts or bare words."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import mmclust as mm

TEMPLATE, WORDS = (
    "fruit with a color of *",
    ["red", "orange", "yellow", "green", "blue", "purple", "pink", "white"],
)
SHORT = {
    "alternations": 1,
    "phase1_epochs": 12,
    "phase2_epochs": 0,
    "lr": 0.1,
    "projection_lr": 0.0,
}


@pytest.fixture(scope="module")
def fruit():
    return mm.load_dataset("tuning-fruit", n=60, seed=904)


@pytest.mark.parametrize("subspace", ["prompt", "text"])
def test_mixtures_of_outputs_against_a_plain_loop(mini, fruit, subspace):
    model = mm.MultiSub(
        mini, WORDS, template=TEMPLATE, n_clusters=4, subspace=subspace, random_state=0, **SHORT
    ).fit(fruit.images)
    texts = [TEMPLATE.replace("*", w) for w in WORDS] if subspace == "prompt" else WORDS
    z, v = (
        torch.from_numpy(mini.encode_texts(texts)),
        torch.from_numpy(mini.encode_images(fruit.images)),
    )
    p = torch.zeros(60, z.shape[1], requires_grad=True)
    optimizer, losses = torch.optim.Adam([p], lr=0.1), []
    for _ in range(12):
        optimizer.zero_grad()
        loss = -(F.normalize((p @ z.T).softmax(1) @ z, dim=1) * v).sum(1).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert [row["loss"] for row in model.history_] == pytest.approx(losses, abs=1e-5)
    weights = (p.detach() @ z.T).softmax(1)
    np.testing.assert_allclose(model.weights_, weights.numpy(), atol=2e-3)
    np.testing.assert_allclose(model.represent("word"), (weights @ z).numpy(), atol=2e-3)
    np.testing.assert_allclose(
        model.represent("prompt"), F.normalize(weights @ z, dim=1).numpy(), atol=2e-3
    )
    assert model.represent("word+image").shape == (60, z.shape[1] + v.shape[1])
    assert (
        model.predict(fruit.images) == model.labels_
    ).mean() > 0.95  # the projection did not move: the same proxies are learned again


def test_the_subspaces_differ_and_the_keyword_still_chooses(mini, fruit):
    found = {
        s: mm.MultiSub(
            mini, WORDS, template=TEMPLATE, n_clusters=6, subspace=s, random_state=0, **SHORT
        ).fit(fruit.images)
        for s in ("token", "prompt", "text")
    }
    losses = {s: m.history_[-1]["loss"] for s, m in found.items()}
    assert len({round(x, 4) for x in losses.values()}) == 3
    k_means = (
        mm.KMeans(mini, n_clusters=6, random_state=0)
        .fit(fruit.images)
        .evaluate(fruit.labels["color"])["NMI"]
    )
    assert found["prompt"].evaluate(fruit.labels["color"])["NMI"] > k_means


def test_what_a_subspace_does_not_have(mini, fruit):
    with pytest.raises(ValueError, match="subspace 'words' is none of"):
        mm.MultiSub(mini, WORDS, template=TEMPLATE, n_clusters=4, subspace="words").fit(
            fruit.images
        )
    with pytest.raises(ValueError, match='"word-eot" is the text encoder'):
        mm.MultiSub(
            mini, WORDS, template=TEMPLATE, n_clusters=4, representation="word-eot", subspace="text"
        ).fit(fruit.images)
    with pytest.raises(ValueError, match='"word-eot" is the text encoder'):
        mm.MultiSub(mini, WORDS, template=TEMPLATE, n_clusters=4, subspace="prompt", **SHORT).fit(
            fruit.images
        ).use_representation("word-eot")
