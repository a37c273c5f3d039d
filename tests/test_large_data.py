"""Cost and memory grow with the number of images, not with its square."""

import json
import resource
import subprocess
import sys

import numpy as np
import pytest
import torch

from mmclust.methods import pair_losses
from mmclust.methods.training import PerImageParameters

FIT = """
import json, resource, sys
import numpy as np, open_clip, torch
import mmclust as mm
from mmclust.encoders.open_clip import OpenCLIPEncoder
from open_clip.model import CLIP

torch.manual_seed(0)
text = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 1}
vision = {"image_size": 32, "layers": 1, "width": 64, "head_width": 64, "patch_size": 32}
model = CLIP(embed_dim=512, vision_cfg=vision, text_cfg=text, quick_gelu=True).eval()
encoder = OpenCLIPEncoder(model, None, open_clip.get_tokenizer("ViT-B-32"), "512 wide")
n = 60_000
method = sys.argv[1]
options = json.loads(sys.argv[2])
images = mm.Images(n, lambda i: None, fingerprint="random features")
encoder.set_features(images, np.random.default_rng(0).normal(size=(n, 64)).astype(np.float32))
words = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "white", "black"]
possible = {
    "template": "fruit with a color of *", "words": words, "n_clusters": 5, "random_state": 0,
    "concepts": ["color", "species"],
}
build = getattr(mm, method)
known = build().get_params()
fixed = {name: value for name, value in possible.items() if name in known}
model = build(encoder, **fixed | options).fit(images)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
result = {"gigabytes": peak, "n": len(model.labels_), "width": model.image_embeddings_.shape[1]}
print(json.dumps(result))
"""


PHASES = {"alternations": 1, "phase1_epochs": 1, "phase2_epochs": 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    "method, options",
    [
        ("MultiMaP", {"epochs": 1}),
        ("MultiSub", PHASES | {"intra": "plain", "representation": "word+image"}),
        ("MultiDProxy", {"epochs": 2, "update_every": 1, "negatives_grad": True, "layers": 1}),
        ("KMeans", {}),
        ("CLIP_GPT", {}),
    ],
)
def test_sixty_thousand_images_within_four_gigabytes(method, options):
    command = [sys.executable, "-c", FIT, method, json.dumps(options)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    result = json.loads(run.stdout.splitlines()[-1])
    print(method, options, result)
    assert result["n"] == 60_000
    assert result["width"] == 512
    assert result["gigabytes"] < 4


def test_no_square_matrix_above_the_documented_size():
    n = 40 * pair_losses.MAX_IMAGES_ALL_PAIRS
    x = torch.randn(n, 2, requires_grad=True)
    labels = torch.randint(5, (n,))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for intra in ("squared", "plain"):
        pair_losses.contrast(x, labels, 0.5, 1.0, intra).backward()
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert growth < n * n / 10  # bytes: a square matrix of single bits would take more than this


def test_a_step_costs_what_its_chunks_cost():
    rows = PerImageParameters(torch.zeros(1000, 3), batch_size=20, chunk_size=7)
    assert len(rows.batches) == 50
    assert all(len(parameters) <= 7 for parameters in rows.parameters)
    assert [chunk.start for chunk, _ in rows.chunks][:4] == [0, 7, 14, 20]
    assert rows.value().shape == (1000, 3)
    with_gradients = []
    optimizer = torch.optim.SGD(rows.parameters, lr=1.0)

    def count(*_):
        with_gradients.append(sum(p.grad is not None for p in rows.parameters))

    def loss_of(chunk, p, size):
        return (p.sum() + 1) / size, (p.sum() / size + 1,)

    optimizer.register_step_post_hook(count)
    terms = rows.epoch(optimizer, loss_of)
    assert with_gradients == 50 * [3]  # only those of the batch's own chunks
    np.testing.assert_allclose(rows.value(), -1 / 20, atol=1e-7)
    assert terms.shape == (1,)
