"""Multi-Sub's subspaces: token embeddings, or the text encoder's outputs for prompts or words."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import mmclust as mm

TEMPLATE = "fruit with a color of *"
WORDS = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "white"]
SHORT = {
    "alternations": 1, "phase1_epochs": 12, "phase2_epochs": 0, "lr": 0.1, "projection_lr": 0.0,
    "random_state": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def fruit():
    return mm.load_dataset("tuning-fruit", n=60, seed=904)


def multisub(mini, subspace, **changes):
    options = SHORT | {"template": TEMPLATE, "n_clusters": 4, "subspace": subspace}
    return mm.MultiSub(mini, WORDS, **options | changes)


@pytest.mark.parametrize("subspace", ["prompt", "text"])
def test_mixtures_of_outputs_are_those_of_a_plain_loop(mini, fruit, subspace):
    model = multisub(mini, subspace).fit(fruit.images)
    texts = [TEMPLATE.replace("*", w) for w in WORDS] if subspace == "prompt" else WORDS
    z = torch.from_numpy(mini.encode_texts(texts))
    v = torch.from_numpy(mini.encode_images(fruit.images))
    p = torch.zeros(60, z.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([p], lr=0.1)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = -(F.normalize((p @ z.T).softmax(1) @ z, dim=1) * v).sum(1).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert [row["loss"] for row in model.history_] == pytest.approx(losses, abs=1e-5)
    weights = (p.detach() @ z.T).softmax(1)
    proxies = weights @ z
    np.testing.assert_allclose(model.weights_, weights, atol=2e-3)
    np.testing.assert_allclose(model.represent("word"), proxies, atol=2e-3)
    np.testing.assert_allclose(model.represent("prompt"), F.normalize(proxies, dim=1), atol=2e-3)
    assert model.represent("word+image").shape == (60, z.shape[1] + v.shape[1])
    # The projection did not move, so that the same proxies are learned again.
    assert (model.predict(fruit.images) == model.labels_).mean() > 0.95


def test_the_subspaces_differ_and_the_keyword_still_chooses(mini, fruit):
    models = {
        subspace: multisub(mini, subspace, n_clusters=6).fit(fruit.images)
        for subspace in ("token", "prompt", "text")
    }
    losses = {round(model.history_[-1]["loss"], 4) for model in models.values()}
    assert len(losses) == 3
    kmeans = mm.KMeans(mini, n_clusters=6, random_state=0).fit(fruit.images)
    nmi = [model.evaluate(fruit.labels["color"])["NMI"] for model in (models["prompt"], kmeans)]
    assert nmi[0] > nmi[1]


def test_word_eot_needs_the_token_subspace(mini, fruit):
    model = multisub(mini, "prompt").fit(fruit.images)
    with pytest.raises(ValueError, match=r"word-eot.*subspace='token'.*use 'word'"):
        model.use_representation("word-eot")
    assert model.current_representation_ == "prompt"
