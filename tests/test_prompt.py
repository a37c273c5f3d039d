"""The cached prefix gives the output and gradient of the full prompt, or is not used."""

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP, CustomTextCLIP

import mmclust as mm
from mmclust.encoders.prompt import PromptEncoder, can_cache_prefix

VISION = {"image_size": 32, "layers": 1, "width": 64, "head_width": 64, "patch_size": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 3}
TOKENIZER = open_clip.get_tokenizer("ViT-B-32")
TEMPLATES = [
    "* is the color of this fruit",
    "fruit with a color of *",
    "a fruit of * color, on a table",
    "*",
]


def build(kind=CLIP, **text):
    torch.manual_seed(0)
    model = kind(embed_dim=48, vision_cfg=VISION, text_cfg=TEXT | text, quick_gelu=True)
    model.eval().requires_grad_(False)
    tower = getattr(model, "text", model)
    with torch.no_grad():  # large values, so that positions and end-of-text matter
        tower.positional_embedding.normal_(std=0.5)
        tower.token_embedding.weight.normal_(std=0.5)
    return model


def compare_paths(model, template, dtype, tolerance, **switches):
    """Output and gradient are equal by the cached prefix and in full; returns the output."""
    model = model.to(dtype)
    width = getattr(model, "text", model).token_embedding.weight.shape[1]
    results = []
    for path, expected in (("auto", "cached"), ("full", "full")):
        generator = torch.Generator().manual_seed(1)
        w = torch.randn(5, width, dtype=dtype, generator=generator).requires_grad_(True)
        encoder = PromptEncoder(model, TOKENIZER, template, path, **switches)
        assert encoder.path == expected
        out = encoder(w)
        (out * torch.linspace(-1, 1, out.numel(), dtype=dtype).view_as(out)).sum().backward()
        results.append((out.detach(), w.grad))
    (out, grad), (full_out, full_grad) = results
    assert (out - full_out).abs().max() < tolerance
    assert (grad - full_grad).abs().max() < tolerance * max(1, full_grad.abs().max())
    assert full_grad.abs().max() > 1e-3
    return out


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("kind", [CLIP, CustomTextCLIP])
def test_cached_prefix_equals_77_tokens(template, dtype, tolerance, kind):
    compare_paths(build(kind), template, dtype, tolerance)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("word", ["red", "turquoise"])
def test_a_written_word_gives_what_the_model_gives_for_the_text(template, word):
    model = build().double()
    encoder = PromptEncoder(model, TOKENIZER, template)
    assert encoder.path == "cached"
    ours = encoder(model.token_embedding.weight[TOKENIZER.encode(word)])
    text = model.encode_text(TOKENIZER([template.replace("*", word)]), normalize=True)
    assert (ours - text).abs().max() < 1e-10


def test_equal_on_the_embedded_encoder(mini):
    compare_paths(mini.model, "fruit with a color of *", torch.float32, 1e-5)


@pytest.mark.parametrize(
    "text",
    [
        {"pool_type": "last"},
        {"no_causal_mask": True, "pool_type": "last"},
        {"pool_type": "first"},
        {"no_causal_mask": True},
    ],
)
def test_other_towers_are_run_in_full(text):
    model = build(CustomTextCLIP, **text)
    assert not can_cache_prefix(model.text)
    encoder = PromptEncoder(model, TOKENIZER, "fruit with a color of *")
    assert encoder.path == "full"
    ids = TOKENIZER.encode("red")
    ours = encoder(model.text.token_embedding.weight[ids])
    text = model.encode_text(TOKENIZER(["fruit with a color of red"]), normalize=True)
    assert torch.allclose(ours, text, atol=1e-6)


def test_a_tower_that_only_looks_causal_is_noticed():
    model = build()
    # every token sees the later ones, which the structure does not show
    model.transformer.resblocks[1].register_forward_hook(
        lambda module, args, out: out + out.mean(1, keepdim=True)
    )
    assert can_cache_prefix(model)
    assert PromptEncoder(model, TOKENIZER, "fruit with a color of *").path == "full"


@pytest.mark.parametrize("template", ["fruit with a color", "a * of *", ""])
def test_one_placeholder(template):
    with pytest.raises(ValueError, match="exactly one"):
        PromptEncoder(build(), TOKENIZER, template)


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"needs 83 tokens.*reads 77"):
        PromptEncoder(build(), TOKENIZER, "very " * 80 + "*")
    with pytest.raises(ValueError, match=r"\(n, e\).*\(4, 2, 64\)"):
        PromptEncoder(build(), TOKENIZER, "*")(torch.zeros(4, 2, 64))
    with pytest.raises(ValueError, match=r'"auto" or "full".*typo'):
        PromptEncoder(build(), TOKENIZER, "*", path="typo")


@pytest.mark.parametrize(
    "switches",
    [{"positions": False}, {"final_norm": False}, {"positions": False, "final_norm": False}],
)
@pytest.mark.parametrize("template", TEMPLATES)
def test_the_text_path_of_the_released_code(template, switches):
    out = compare_paths(build(), template, torch.float64, 1e-10, **switches)
    unchanged = compare_paths(build(), template, torch.float64, 1e-10)
    assert (out - unchanged).abs().max() > 1e-3


@pytest.mark.parametrize("template", TEMPLATES)
def test_all_tokens_end_with_the_pooled_one(template):
    model = build().double()
    w = torch.randn(3, 64, dtype=torch.float64)
    encoders = [PromptEncoder(model, TOKENIZER, template, path=path) for path in ("auto", "full")]
    cached, full = (encode(w, all_tokens=True) for encode in encoders)
    assert cached.shape == (3, encoders[0].end - encoders[0].start + 1, 48)
    assert (cached - full).abs().max() < 1e-10
    assert (cached[:, -1] - encoders[0](w)).abs().max() < 1e-10


def check_autocast(device):
    half = mm.load_encoder("mini", device=device, autocast=True)
    single = mm.load_encoder("mini", device=device)
    words = single.word_embeddings(["red", "blue", "green"]).to(device).requires_grad_(True)
    outs = [encoder.prompt(TEMPLATES[1])(words) for encoder in (half, single)]
    assert outs[0].dtype == torch.float32
    assert 0 < (outs[0] - outs[1]).abs().max() < 0.05
    assert F.cosine_similarity(*outs).min() > 0.995
    assert torch.autograd.grad(outs[0].sum(), words)[0].isfinite().all()
    fruit = mm.load_dataset("demo-fruit", n=24, seed=908)
    v_half, v_single = (encoder.encode_images(fruit.images) for encoder in (half, single))
    assert v_half.dtype == v_single.dtype
    assert (v_half * v_single).sum(1).min() > 0.99
    settings = {"words": ["red", "blue", "green", "yellow"], "n_clusters": 3, "random_state": 0}
    for method, more in (
        (mm.MultiMaP, {"epochs": 5}),
        (mm.MultiSub, {"alternations": 1, "phase1_epochs": 5}),
        (mm.MultiDProxy, {"epochs": 4}),
    ):
        losses = []
        for encoder in (half, single):
            model = method(encoder, template=TEMPLATES[1], **settings, **more)
            losses.append(model.fit(fruit.images).history_[-1]["loss"])
        assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_autocast_on_the_cpu():
    check_autocast("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
def test_autocast_on_cuda():
    check_autocast("cuda")
