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
n, method, options = 60_000, sys.argv[1], json.loads(sys.argv[2])
images = mm.Images(n, lambda i: None, fingerprint="given")
encoder.set_features(images, np.random.default_rng(0).normal(size=(n, 64)).astype(np.float32))
words = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "white", "black"]
offered = {"template": "fruit with a color of *", "words": words, "n_clusters": 5, "random_state": 0, "concepts": ["color", "species"]}
kind = getattr(mm, method)
known = kind().get_params()
fitted = kind(encoder, **{k: v for k, v in offered.items() if k in known} | options).fit(images)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"gigabytes": peak, "n": len(fitted.labels_), "embeddings": fitted.image_embeddings_.shape[1]}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "method, options",
    [
        ("MultiMaP", {"epochs": 1}),
        (
            "MultiSub",
            {
                "alternations": 1,
                "phase1_epochs": 1,
                "phase2_epochs": 2,
                "intra": "plain",
                "representation": "word+image",
            },
        ),
        ("MultiDProxy", {"epochs": 2, "update_every": 1, "negatives_grad": True, "layers": 1}),
        ("KMeans", {}),
        ("CLIP_GPT", {}),
    ],
)
def test_sixty_thousand_images_within_four_gigabytes(method, options):
    done = subprocess.run(
        [sys.executable, "-c", FIT, method, json.dumps(options)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    print(method, options, found)
    assert found["n"] == 60_000 and found["embeddings"] == 512 and found["gigabytes"] < 4


def test_no_square_matrix_above_the_documented_size():
    n = 40 * pair_losses.EXACT_BELOW
    x, labels = torch.randn(n, 2, requires_grad=True), torch.randint(5, (n,))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for value in (
        pair_losses.intra_squared(x, labels),
        pair_losses.intra_plain(x, labels),
        pair_losses.inter_hinge(x, labels),
    ):
        value.backward()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < n * n / 10  # bytes: a square matrix of single bits would take more than this


def test_a_row_steps_at_the_cost_of_its_chunk():
    rows = PerImageParameters(torch.zeros(1000, 3), batch_size=20, chunk_size=7)
    assert len(rows.batches) == 50 and all(len(leaf) <= 7 for leaf in rows.parameters)
    assert [r.start for r, _ in rows.chunks][:4] == [0, 7, 14, 20] and rows.value().shape == (
        1000,
        3,
    )
    steps = []
    optimizer = torch.optim.SGD(rows.parameters, lr=1.0)
    optimizer.register_step_post_hook(
        lambda *a: steps.append(sum(p.grad is not None for p in rows.parameters))
    )
    terms = rows.epoch(
        optimizer, lambda part, p, size: ((p.sum() + 1) / size, (p.sum() / size + 1,))
    )
    assert steps == [3] * 50  # only the chunks of the batch have gradients
    np.testing.assert_allclose(rows.value(), -1 / 20, atol=1e-7)
    assert terms.shape == (1,)
