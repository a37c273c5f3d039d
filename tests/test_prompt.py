"""The shortcut equals the whole prompt, output and gradient; where it does not hold it is not taken."""

import open_clip
import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP

from mmclust.encoders.prompt import PromptEncoder, can_shortcut

VISION = {"image_size": 32, "layers": 1, "width": 64, "head_width": 64, "patch_size": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 3}
TOKENIZER = open_clip.get_tokenizer("ViT-B-32")
TEMPLATES = ["* is the color of this fruit", "fruit with a color of *", "a fruit of * color, on a table", "*"]


def build(kind=CLIP, **text):
    torch.manual_seed(0)
    model = kind(embed_dim=48, vision_cfg=VISION, text_cfg=TEXT | text, quick_gelu=True).eval().requires_grad_(False)
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
    assert (out - out_whole).abs().max() < tolerance and (grad - grad_whole).abs().max() < tolerance * max(1, grad_whole.abs().max())


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
    (out, grad), (out_whole, grad_whole) = both(mini.model, "fruit with a color of *", torch.float32)
    assert (out - out_whole).abs().max() < 1e-5 and (grad - grad_whole).abs().max() < 1e-5 * max(1, grad_whole.abs().max())
    assert mini.prompt("fruit with a color of *").path == "cached"


@pytest.mark.parametrize("text", [{"pool_type": "last"}, {"no_causal_mask": True, "pool_type": "last"}, {"pool_type": "first"}, {"no_causal_mask": True}])
def test_other_towers_are_run_in_full(text):
    model = build(CustomTextCLIP, **text)
    assert not can_shortcut(model.text)
    encoder = PromptEncoder(model, TOKENIZER, "fruit with a color of *")
    assert encoder.path == "full"
    ids = TOKENIZER.encode("red")
    ours = encoder(model.text.token_embedding.weight[ids])
    assert torch.allclose(ours, model.encode_text(TOKENIZER(["fruit with a color of red"]), normalize=True), atol=1e-6)
    with pytest.raises(ValueError, match="not causal or not read at end-of-text"):
        PromptEncoder(model, TOKENIZER, "fruit with a color of *", path="cached")


def test_a_tower_that_only_looks_right_is_caught():
    model = build()
    block = model.transformer.resblocks[1]
    block.register_forward_hook(lambda module, args, out: out + out.mean(1, keepdim=True))  # looks ahead, unseen by the structure
    assert can_shortcut(model) and PromptEncoder(model, TOKENIZER, "fruit with a color of *").path == "full"


@pytest.mark.parametrize("template", ["fruit with a color", "a * of *", ""])
def test_one_placeholder(template):
    with pytest.raises(ValueError, match="exactly one"):
        PromptEncoder(build(), TOKENIZER, template)


def test_templates_that_do_not_fit():
    with pytest.raises(ValueError, match="needs 83 tokens, the text encoder reads 77"):
        PromptEncoder(build(), TOKENIZER, "very " * 80 + "*")
    with pytest.raises(ValueError, match="proxies of shape"):
        PromptEncoder(build(), TOKENIZER, "*")(torch.zeros(4, 2, 64))
