"""The same results on a GPU. Without one, the CPU takes its place: then these tests only show that
they still run. `python -m tools.gpu_check` runs them where there is one.
"""

import numpy as np
import pytest
import torch

import mmclust as mm
from mmclust.experiments import epoch_cost
from mmclust.methods import pair_losses

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SETTINGS = {"words": ["red", "blue", "green", "yellow"], "template": "a photo of a * fruit"}
METHODS = {
    "MultiMaP": {"epochs": 10, "concepts": ["color", "species"]},
    "MultiSub": {"alternations": 2, "phase1_epochs": 5, "phase2_epochs": 3, "lr": 0.1},
    "MultiDProxy": {"epochs": 10, "update_every": 5, "negatives_grad": True},
}
OTHER_WAYS = [
    ("MultiMaP", {"variant": "released", "epochs": 3}),
    ("MultiMaP", {"early_stopping": True, "check_every": 2}),
    ("MultiSub", {"variant": "released", "phase1_epochs": 3}),
    ("MultiSub", {"intra": "plain", "early_stopping": True, "check_every": 2}),
    ("MultiSub", {"subspace": "prompt", "n_clusters": "auto"}),
    ("MultiDProxy", {"tokens": "all", "epochs": 4}),
    ("MultiDProxy", {"early_stopping": True, "check_every": 2, "chunk_size": 7}),
]


def both(cache, monkeypatch, method, params):
    """Estimators that were fitted on the CPU and on the device; each has features of its own."""
    images = mm.load_dataset("demo-fruit", n=24, seed=908).images
    models = []
    for i, device in enumerate(("cpu", DEVICE)):
        monkeypatch.setenv("MMCLUST_CACHE", str(cache / str(i)))
        encoder = mm.load_encoder("mini", device)
        settings = SETTINGS | {"n_clusters": 3, "random_state": 0} | METHODS[method] | params
        models.append(getattr(mm, method)(encoder, **settings).fit(images))
    return models, images


@pytest.mark.parametrize("method", METHODS)
def test_each_method_on_cuda(tmp_path, monkeypatch, method):
    (cpu, cuda), images = both(tmp_path, monkeypatch, method, {})
    assert cuda.labels_.tolist() == cpu.labels_.tolist()
    assert np.abs(cuda.image_embeddings_ - cpu.image_embeddings_).max() < 1e-3
    losses = [[row["loss"] for row in model.history_] for model in (cpu, cuda)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert min(cuda.seconds_) > 0
    assert cuda.predict(images[:5]).tolist() == cpu.predict(images[:5]).tolist()
    assert cuda.name_clusters() == cpu.name_clusters()
    for name in cuda.REPRESENTATIONS:
        cuda.use_representation(name)
        assert cuda.labels_.shape == cpu.labels_.shape


@pytest.mark.parametrize(("method", "params"), OTHER_WAYS)
def test_other_settings_on_cuda(tmp_path, monkeypatch, method, params):
    (cpu, cuda), images = both(tmp_path, monkeypatch, method, params)
    assert len(cuda.history_) == len(cpu.history_)
    assert cuda.history_[-1]["loss"] == pytest.approx(cpu.history_[-1]["loss"], rel=1e-3)
    assert cuda.predict(images[:3]).shape == (3,)


@pytest.mark.parametrize("intra", ["squared", "plain"])
def test_sampled_pairs_on_cuda(intra):
    n = pair_losses.MAX_IMAGES_ALL_PAIRS + 1
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 6, generator=generator)
    labels = torch.randint(4, (n,), generator=generator)
    losses = []
    for device in ("cpu", DEVICE):
        generator.manual_seed(1)
        inputs = (x.clone().to(device).requires_grad_(True), labels.to(device))
        loss = pair_losses.contrast(*inputs, 0.5, 3.0, intra, generator)
        loss.backward()
        losses += [loss.item(), inputs[0].grad.abs().sum().item()]
    assert losses[2:] == pytest.approx(losses[:2], rel=1e-4)


def test_a_fit_on_cuda_leaves_its_random_numbers_alone(mini):
    state = torch.cuda.get_rng_state if DEVICE == "cuda" else torch.get_rng_state
    before = state()
    images = mm.load_dataset("demo-fruit", n=8, seed=908).images
    mm.MultiDProxy(mini, **SETTINGS, n_clusters=2, epochs=2, random_state=3).fit(images)
    assert torch.equal(state(), before)


def test_the_epoch_benchmark_on_cuda():
    """Both sides of it end at the same loss, or it raises."""
    encoder = epoch_cost.build_encoder(epoch_cost.OpenCLIPEncoder, "ViT-S-32-alt", device=DEVICE)
    images = mm.Images.of(np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8))
    for reference in epoch_cost.AUTHORS_WAY.values():
        row = epoch_cost._compare_one(reference, encoder, images)
        assert row["n"] == 6 and row["seconds"] > 0


def test_an_encoder_on_cuda_encodes_a_large_set_in_batches(tmp_path, monkeypatch):
    from mmclust.encoders import feature_stream

    monkeypatch.setattr(feature_stream, "STREAM_ABOVE", 10)
    images = mm.load_dataset("demo-fruit", n=24, seed=908).images
    features = []
    for i, device in enumerate(("cpu", DEVICE)):
        monkeypatch.setenv("MMCLUST_CACHE", str(tmp_path / str(i)))
        features.append(mm.load_encoder("mini", device).features(images, batch_size=7))
    assert isinstance(features[1], np.memmap)
    assert np.abs(features[0] - features[1]).max() < 1e-2
