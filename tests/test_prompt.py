"""The shortcut equals the whole prompt, output and gradient; where it does not hold it is not taken."""

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP, CustomTextCLIP

from mmclust.encoders.prompt import PromptEncoder, can_shortcut, frozen_linear

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
    model = (
        kind(embed_dim=48, vision_cfg=VISION, text_cfg=TEXT | text, quick_gelu=True)
        .eval()
        .requires_grad_(False)
    )
    with torch.no_grad():  # positions and end-of-text matter: random, not the small initial values
        model_text = getattr(model, "text", model)
        model_text.positional_embedding.normal_(std=0.5)
        model_text.token_embedding.weight.normal_(std=0.5)
    return model


def both(model, template, dtype, word_tokens=1, n=5):
    model = model.to(dtype)
    width = getattr(model, "text", model).token_embedding.weight.shape[1]
    shape = (n, width) if word_tokens == 1 else (n, word_tokens, width)
    results = []
    for path in ("cached", "full"):
        torch.manual_seed(1)
        w = torch.randn(shape, dtype=dtype, requires_grad=True)
        out = PromptEncoder(model, TOKENIZER, template, word_tokens, path)(w)
        (out * torch.linspace(-1, 1, out.numel(), dtype=dtype).view_as(out)).sum().backward()
        results.append((out.detach(), w.grad))
    return results


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("kind", [CLIP, CustomTextCLIP])
def test_cached_prefix_equals_77_tokens(template, dtype, tolerance, kind):
    (out, grad), (out_whole, grad_whole) = both(build(kind), template, dtype)
    assert (out - out_whole).abs().max() < tolerance
    assert (grad - grad_whole).abs().max() < tolerance * max(1, grad_whole.abs().max())
    assert grad_whole.abs().max() > 1e-3


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_words_of_several_tokens(template, dtype, tolerance):
    (out, grad), (out_whole, grad_whole) = both(build(), template, dtype, word_tokens=3)
    assert (out - out_whole).abs().max() < tolerance and (
        grad - grad_whole
    ).abs().max() < tolerance * max(1, grad_whole.abs().max())


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("word", ["red", "eyepatch", "turquoise green"])
def test_a_written_word_gives_what_the_model_gives_for_the_text(template, word):
    model = build().double()
    ids = TOKENIZER.encode(word)
    encoder = PromptEncoder(model, TOKENIZER, template, word_tokens=len(ids))
    assert encoder.path == "cached"
    ours = encoder(model.token_embedding.weight[ids][None])
    text = model.encode_text(TOKENIZER([template.replace("*", word)]), normalize=True)
    assert (ours - text).abs().max() < 1e-10


def test_equal_on_the_embedded_encoder(mini):
    (out, grad), (out_whole, grad_whole) = both(
        mini.model, "fruit with a color of *", torch.float32
    )
    assert (out - out_whole).abs().max() < 1e-5 and (grad - grad_whole).abs().max() < 1e-5 * max(
        1, grad_whole.abs().max()
    )
    assert mini.prompt("fruit with a color of *").path == "cached"


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
    assert not can_shortcut(model.text)
    encoder = PromptEncoder(model, TOKENIZER, "fruit with a color of *")
    assert encoder.path == "full"
    ids = TOKENIZER.encode("red")
    ours = encoder(model.text.token_embedding.weight[ids])
    assert torch.allclose(
        ours, model.encode_text(TOKENIZER(["fruit with a color of red"]), normalize=True), atol=1e-6
    )
    with pytest.raises(ValueError, match="not causal or not read at end-of-text"):
        PromptEncoder(model, TOKENIZER, "fruit with a color of *", path="cached")


def test_a_tower_that_only_looks_right_is_caught():
    model = build()
    block = model.transformer.resblocks[1]
    block.register_forward_hook(
        lambda module, args, out: out + out.mean(1, keepdim=True)
    )  # looks ahead, unseen by the structure
    assert (
        can_shortcut(model)
        and PromptEncoder(model, TOKENIZER, "fruit with a color of *").path == "full"
    )


@pytest.mark.parametrize("template", ["fruit with a color", "a * of *", ""])
def test_one_placeholder(template):
    with pytest.raises(ValueError, match="exactly one"):
        PromptEncoder(build(), TOKENIZER, template)


def test_templates_that_do_not_fit():
    with pytest.raises(ValueError, match="needs 83 tokens, the text encoder reads 77"):
        PromptEncoder(build(), TOKENIZER, "very " * 80 + "*")
    with pytest.raises(ValueError, match="proxies of shape"):
        PromptEncoder(build(), TOKENIZER, "*")(torch.zeros(4, 2, 64))
    with pytest.raises(
        ValueError, match='path is "auto", "cached", "cropped" or "full", not \'typo\''
    ):
        PromptEncoder(build(), TOKENIZER, "*", path="typo")


@pytest.mark.parametrize(
    "switches",
    [{"positions": False}, {"final_norm": False}, {"positions": False, "final_norm": False}],
)
@pytest.mark.parametrize("template", TEMPLATES)
def test_the_released_text_path_by_both_ways(template, switches):
    model = build().double()
    results = []
    for path in ("cached", "full"):
        w = torch.randn(
            4,
            64,
            dtype=torch.float64,
            generator=torch.Generator().manual_seed(2),
            requires_grad=True,
        )
        out = PromptEncoder(model, TOKENIZER, template, path=path, **switches)(w)
        out[:, 0].sum().backward()
        results.append((out.detach(), w.grad))
    (out, grad), (out_whole, grad_whole) = results
    assert (out - out_whole).abs().max() < 1e-10 and (grad - grad_whole).abs().max() < 1e-10
    assert (
        out - PromptEncoder(model, TOKENIZER, template)(w.detach())
    ).abs().max() > 1e-3  # the switch does something


@pytest.mark.parametrize("template", TEMPLATES)
def test_all_tokens_end_with_the_pooled_one(template):
    model = build().double()
    w = torch.randn(3, 64, dtype=torch.float64)
    encoders = [PromptEncoder(model, TOKENIZER, template, path=path) for path in ("cached", "full")]
    cached, full = (encode(w, all_tokens=True) for encode in encoders)
    assert cached.shape == (3, encoders[0].end - encoders[0].start + 1, 48)
    assert (cached - full).abs().max() < 1e-10 and (
        cached[:, -1] - encoders[0](w)
    ).abs().max() < 1e-10


@pytest.mark.parametrize("bias", [True, False])
def test_the_frozen_layer_is_a_linear_layer(bias):
    x = torch.randn(3, 5, 64, requires_grad=True)
    weight, b = torch.randn(32, 64), torch.randn(32) if bias else None
    ours, plain = frozen_linear(x, weight, b), F.linear(x, weight, b)
    assert (ours - plain).abs().max() < 1e-4
    grads = [
        torch.autograd.grad((out * torch.linspace(-1, 1, 32)).sum(), x)[0] for out in (ours, plain)
    ]
    assert (grads[0] - grads[1]).abs().max() < 1e-4
    learned = torch.randn(32, 64, requires_grad=True)
    frozen_linear(x, learned, b).sum().backward()
    assert learned.grad is not None  # a weight that learns goes the ordinary way


def autocast_agrees(device):
    import mmclust as mm

    half, whole = (
        mm.load_encoder("mini", device=device, autocast=autocast) for autocast in (True, False)
    )
    words = whole.word_embeddings(["red", "blue", "green"]).to(device).requires_grad_(True)
    outs = [encoder.prompt(TEMPLATES[1])(words) for encoder in (half, whole)]
    assert outs[0].dtype == torch.float32 and 0 < (outs[0] - outs[1]).abs().max() < 0.05
    assert F.cosine_similarity(*outs).min() > 0.995
    assert torch.autograd.grad(outs[0].sum(), words)[0].isfinite().all()
    fruit = mm.load_dataset("demo-fruit", n=24, seed=908)
    features = [encoder.encode_images(fruit.images) for encoder in (half, whole)]
    assert (
        features[0].dtype == features[1].dtype and (features[0] * features[1]).sum(1).min() > 0.99
    )
    settings = {"words": ["red", "blue", "green", "yellow"], "n_clusters": 3, "random_state": 0}
    for kind, more in (
        (mm.MultiMaP, {"epochs": 5}),
        (mm.MultiSub, {"alternations": 1, "phase1_epochs": 5}),
        (mm.MultiDProxy, {"epochs": 4}),
    ):
        losses = [
            kind(encoder, template=TEMPLATES[1], **settings, **more)
            .fit(fruit.images)
            .history_[-1]["loss"]
            for encoder in (half, whole)
        ]
        assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_autocast_on_the_cpu():
    autocast_agrees("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
def test_autocast_on_cuda():
    autocast_agrees("cuda")
