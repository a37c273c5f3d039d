"""open_clip's other towers, small and with random weights, from folders.

Each works by the path that is right for it, or is refused with the reason.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from helpers.encoder_checkpoints import (
    TEMPLATES,
    VOCABULARY,
    edit_json,
    hub_without_answer,
    random_pictures,
    tokenizer_files,
)
from safetensors.torch import load_file, save_file

import mmclust as mm
from mmclust.encoders.open_clip import load_open_clip

transformers = pytest.importorskip("transformers")

VISION = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16}
TEXT = {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
OWN_TOKENS = TEXT | {"hf_tokenizer_name": "own", "vocab_size": len(VOCABULARY), "eos_id": 3}
BIDIRECTIONAL = {"no_causal_mask": True}
CLIP = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT, "quick_gelu": True}
PREPROCESSING = {
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.3, 0.4],
    "interpolation": "bicubic",
    "resize_mode": "squash",
}
TIMM = {
    "image_size": 32, "timm_model_name": "test_vit", "timm_pool": "avg", "timm_proj": "linear",
}  # fmt: skip
RESNET = {
    "image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8, "patch_size": None,
}  # fmt: skip
BERT = {
    "hf_proj_type": "mlp", "hf_pooler_type": "mean_pooler", "hf_tokenizer_name": "own",
    "context_length": 24,
}  # fmt: skip
AT_CLS = {"hf_pooler_type": "cls_pooler"}
COCA = {
    "context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1,
    "attn_pooler_heads": 2,
}  # fmt: skip


def clip(**changes) -> dict:
    return CLIP | changes


TOWERS = {  # architecture, and the path of its prompts
    "CLIP": (CLIP, "cached"),
    "CLIP, text tower apart": (clip(custom_text=True), "cached"),
    "MetaCLIP 2": (clip(text_cfg=OWN_TOKENS | {"pool_type": "eos"}), "cached"),
    "SigLIP": (
        clip(
            text_cfg=OWN_TOKENS | BIDIRECTIONAL | {
                "pool_type": "last", "proj_bias": True,
                "tokenizer_kwargs": {"clean": "canonicalize"},
            },
            vision_cfg=TIMM, custom_text=True,
        ),
        "full",
    ),
    "CLIPA": (
        clip(text_cfg=OWN_TOKENS | BIDIRECTIONAL | {
            "pool_type": "last", "tokenizer_kwargs": {"strip_sep_token": True},
        }),
        "full",
    ),
    "bidirectional, read at end-of-text": (
        clip(text_cfg=TEXT | BIDIRECTIONAL, custom_text=True), "full",
    ),
    "ResNet": (clip(vision_cfg=RESNET), "cached"),
    "CoCa": (
        clip(
            text_cfg=TEXT | {"embed_cls": True, "output_tokens": True, "context_length": 23},
            vision_cfg=VISION | {
                "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True,
            },
            multimodal_cfg=COCA, custom_text=True,
        ),
        "full",
    ),
    "RoBERTa": (clip(text_cfg=BERT | {"hf_model_name": "roberta"}), "cropped"),
    "BERT, read at [CLS]": (
        clip(text_cfg=BERT | AT_CLS | {"hf_model_name": "bert", "hf_proj_type": "linear"}),
        "cropped",
    ),
    "mT5": (clip(text_cfg=BERT | {"hf_model_name": "mt5"}), "cropped"),
    "NLLB": (clip(text_cfg=BERT | AT_CLS | {"hf_model_name": "m2m_100"}), "cropped"),
}  # fmt: skip
SMALL = {"vocab_size": 40, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
BASE = SMALL | {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}
CONFIGS = {
    "roberta": lambda: transformers.RobertaConfig(**BASE),
    "bert": lambda: transformers.BertConfig(**BASE),
    "mt5": lambda: transformers.MT5Config(
        **SMALL, d_model=32, d_kv=16, d_ff=48, num_layers=2, num_heads=2, decoder_start_token_id=0
    ),
    "m2m_100": lambda: transformers.M2M100Config(
        **SMALL, d_model=32, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=48, decoder_ffn_dim=48,
        max_position_embeddings=64, decoder_start_token_id=2,
    ),
}  # fmt: skip


def preprocessing(**changes) -> dict:
    return {key: value for key, value in (PREPROCESSING | changes).items() if value is not ...}


def checkpoint(folder: Path, architecture: dict) -> Path:
    """A folder in open_clip's layout."""
    architecture = json.loads(json.dumps(architecture))
    if (kind := architecture["text_cfg"].get("hf_model_name")) in CONFIGS:
        architecture["text_cfg"]["hf_model_name"] = str(folder / kind)
        transformers.AutoModel.from_config(CONFIGS[kind]()).save_pretrained(folder / kind)
    if "hf_tokenizer_name" in architecture["text_cfg"]:
        tokenizer_files(folder)
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": architecture, "preprocess_cfg": PREPROCESSING})
    )
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    for name, parameter in model.named_parameters():
        # open_clip leaves the projection of CoCa's decoder as the memory was, NaN at times
        if any(
            part in name for part in ("positional", "token_embedding", "text_decoder.text_proj")
        ):
            parameter.data.normal_(std=0.3)
    save_file(
        {k: v.clone().contiguous() for k, v in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    return folder


@pytest.fixture(scope="module", params=list(TOWERS))
def tower(request, tmp_path_factory):
    """Name, encoder, and the path of its prompts."""
    architecture, path = TOWERS[request.param]
    folder = checkpoint(tmp_path_factory.mktemp("tower"), architecture)
    return request.param, mm.load_encoder(str(folder)), path


@pytest.fixture(scope="module")
def pictures():
    return random_pictures()


@pytest.fixture
def folder(tmp_path):
    return checkpoint(tmp_path, CLIP)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    return hub_without_answer(tmp_path, monkeypatch)


def test_images_and_texts_are_encoded_as_open_clip_does(tower, pictures):
    _, encoder, _ = tower
    with torch.inference_mode():
        theirs = encoder.model.encode_image(torch.stack([encoder.preprocess(p) for p in pictures]))
    v = encoder.encode_images(pictures)
    np.testing.assert_allclose(v, F.normalize(theirs, dim=-1), atol=1e-5)
    texts = ["red", "a blue cat"]
    raw = encoder.encode_texts(texts, normalize=False)
    norms = np.linalg.norm(raw, axis=1, keepdims=True)
    assert np.abs(norms - 1).min() > 1e-3  # CoCa's own method normalizes by default
    np.testing.assert_allclose(raw / norms, encoder.encode_texts(texts), atol=1e-5)
    assert encoder.embedding_dim == 24
    assert "0.4" in repr(encoder.preprocess)
    assert isinstance(encoder.logit_scale, float)


@pytest.mark.parametrize("template", TEMPLATES)
def test_prompts_with_a_written_word_are_the_texts(tower, template):
    _, encoder, path = tower
    prompt = encoder.prompt(template)
    assert prompt.path == path
    words = ["red", "blue", "green"]
    learned = encoder.word_embeddings(words).requires_grad_(True)
    out = prompt(learned)
    np.testing.assert_allclose(out.detach(), encoder.encode_words(words, template), atol=1e-5)
    (gradient,) = torch.autograd.grad(out[:, 0].sum(), learned)
    assert gradient.abs().amax(1).min() > 1e-5
    full = encoder.prompt(template, path="full")(learned)
    np.testing.assert_allclose(full.detach(), out.detach(), atol=1e-5)


def test_methods_learn(tower, pictures):
    name, encoder, _ = tower
    settings = {
        "template": TEMPLATES[0],
        "words": ["red", "blue", "green"],
        "n_clusters": 2,
        "random_state": 0,
    }
    model = mm.MultiSub(encoder, **settings, alternations=1, phase1_epochs=8, phase2_epochs=2).fit(
        pictures
    )
    losses = [row["loss"] for row in model.history_[:8]]  # Phase I
    assert min(losses) < losses[0]
    dproxy = mm.MultiDProxy(encoder, **settings, epochs=2, tokens="all")
    if name in ("ResNet", "SigLIP"):
        with pytest.raises(ValueError, match="no patch tokens"):
            dproxy.fit(pictures)
    elif name == "CoCa":
        with pytest.raises(ValueError, match="no embeddings of its tokens"):
            dproxy.fit(pictures)
    else:
        assert dproxy.fit(pictures).fused_.shape == (12, 24)


def test_switches_of_clips_tower(tower):
    name, encoder, _ = tower
    options = {"positions": False, "final_norm": False}
    if name in ("CoCa", "RoBERTa", "BERT, read at [CLS]", "mT5", "NLLB"):
        with pytest.raises(ValueError, match="positions=False and final_norm=False"):
            encoder.prompt(TEMPLATES[0], **options)
    else:
        w = encoder.word_embeddings(["red", "blue"])
        changed = encoder.prompt(TEMPLATES[0], **options)(w)
        assert (changed - encoder.prompt(TEMPLATES[0])(w)).abs().max() > 1e-3


def test_a_table_that_is_not_looked_up_is_refused(tmp_path):
    encoder = mm.load_encoder(str(checkpoint(tmp_path, TOWERS["BERT, read at [CLS]"][0])))
    encoder.model.text.transformer.set_input_embeddings(torch.nn.Embedding(40, 32))
    other = torch.nn.Embedding(40, 32)
    encoder.model.text.transformer.get_input_embeddings = lambda: other
    with pytest.raises(ValueError, match="does not look up its tokens"):
        encoder.prompt(TEMPLATES[0])


def test_a_tokenizer_without_words_of_one_token_is_refused(tmp_path):
    encoder = mm.load_encoder(str(checkpoint(tmp_path, TOWERS["RoBERTa"][0])))
    (tmp_path / "letters").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"])
    )
    encoder.tokenizer.tokenizer = transformers.BertTokenizer(str(tmp_path / "letters"))
    with pytest.raises(ValueError, match="single tokens for red, blue"):
        encoder.prompt("a *")


def test_the_same_weights_with_another_activation_are_another_encoder(folder):
    first = mm.load_encoder(str(folder))
    edit_json(folder / "open_clip_config.json", model_cfg=clip(quick_gelu=False))
    assert mm.load_encoder(str(folder)).fingerprint != first.fingerprint


def test_another_tokenizer_or_padding_is_another_encoder(tmp_path):
    folder = checkpoint(tmp_path, TOWERS["RoBERTa"][0])
    words = folder / "tokenizer.json"
    longest = PREPROCESSING | {"resize_mode": "longest"}
    edits = [
        lambda: None,
        lambda: edit_json(folder / "open_clip_config.json", preprocess_cfg=longest),
        lambda: edit_json(
            folder / "open_clip_config.json", preprocess_cfg=longest | {"fill_color": 255}
        ),
        lambda: words.write_text(words.read_text().replace('"red"', '"scarlet"')),
    ]
    fingerprints = []
    for edit in edits:
        edit()
        encoder = mm.load_encoder(str(folder))
        fingerprints.append(encoder.fingerprint)
        encoder.encode_texts(["red", "a red fruit"])
        assert mm.load_encoder(str(folder)).fingerprint == encoder.fingerprint
    assert len(set(fingerprints)) == len(edits)


def test_code_without_a_file_is_new_each_time(folder):
    """A class or function of a notebook, which may be another one when it is defined again."""
    encoder = mm.load_encoder(str(folder))
    parts = (encoder.model, encoder.preprocess, encoder.tokenizer, "mine")
    mine = type("Mine", (type(encoder),), {"__module__": "a notebook"})
    assert mine(*parts).fingerprint != mine(*parts).fingerprint
    first, second = (type(encoder)(*parts) for _ in range(2))
    assert first.fingerprint == second.fingerprint
    first, second = (type(encoder)(*parts) for _ in range(2))
    first.preprocess = second.preprocess = lambda picture: encoder.preprocess(picture.rotate(90))
    assert first.fingerprint != second.fingerprint


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model_cfg": ...}, "no 'model_cfg'.*architecture"),
        ({"preprocess_cfg": ...}, "no 'preprocess_cfg'"),
        ({"preprocess_cfg": preprocessing(std=...)}, "no 'std'.*preprocessing"),
        ({"preprocess_cfg": preprocessing(resize_mode=...)}, "no 'resize_mode'"),
        ({"preprocess_cfg": preprocessing(interpolation=...)}, "no 'interpolation'"),
        (
            {"preprocess_cfg": preprocessing(resize_mod="squash")},
            "unknown 'resize_mod'.*resize_mode",
        ),
        ({"preprocess_cfg": preprocessing(resize_mode="stretch")}, "'stretch' is not.*squash"),
        ({"preprocess_cfg": preprocessing(resize_mode=None)}, "None is not one of shortest"),
        ({"preprocess_cfg": preprocessing(mean=[123.7, 116.3, 103.5])}, "mean .*from 0 to 1"),
        ({"preprocess_cfg": preprocessing(std=[0.5, 0.5, 0])}, "std .*three numbers"),
        ({"model_cfg": clip(quickgelu=True)}, "cannot be loaded: .*quickgelu"),
        ({"model_cfg": {"embed_dim": 24, "vision_cfg": VISION}}, "no 'text_cfg'"),
        ({"model_cfg": clip(embed_dim=32)}, "cannot be loaded: .*size mismatch"),
        (
            {"model_cfg": clip(vision_cfg=VISION | {"image_size": 64})},
            r"visual.positional_embedding of shape \[5, 64\].* \[17, 64\]",
        ),
        (
            {"model_cfg": clip(text_cfg=TEXT | {"context_length": 30})},
            r"positional_embedding of shape \[24, 32\]",
        ),
        ({"model_cfg": clip(text_cfg=OWN_TOKENS)}, "no tokenizer.json"),
    ],
)
def test_incomplete_or_wrong_configurations_are_refused(folder, change, message):
    edit_json(folder / "open_clip_config.json", **change)
    with pytest.raises(ValueError, match=message):
        mm.load_encoder(str(folder))


def test_what_older_open_clip_did_not_write_is_said(folder):
    edit_json(folder / "open_clip_config.json", preprocess_cfg=preprocessing(resize_mode=...))
    with pytest.warns(UserWarning, match="lacks resize_mode: .*'shortest'"):
        encoder = load_open_clip("hf-hub:owner/name", folder=folder)
    assert "CenterCrop" in repr(encoder.preprocess)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n"


@pytest.mark.parametrize(
    "file, damage, message",
    [
        (
            "open_clip_model.safetensors",
            lambda data: LFS,
            "is a git-lfs pointer: run `git lfs pull`",
        ),
        ("open_clip_model.safetensors", lambda data: data[:-100], "is damaged: download it again"),
        ("open_clip_model.safetensors", lambda data: b"", "is damaged: download it again"),
        ("tokenizer.json", lambda data: LFS, "is a git-lfs pointer"),
    ],
)
def test_damaged_files_are_named(tmp_path, file, damage, message):
    path = checkpoint(tmp_path, TOWERS["MetaCLIP 2"][0]) / file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"{file} {message}"):
        mm.load_encoder(str(tmp_path))


def test_weights_with_nan_are_refused(folder):
    path = folder / "open_clip_model.safetensors"
    weights = load_file(path)
    weights["visual.proj"][3, 3] = torch.nan
    save_file(weights, path)
    with pytest.raises(ValueError, match=rf"encoder {folder}: .*NaN \(visual.proj\): download"):
        mm.load_encoder(str(folder))


def test_weights_are_one_safetensors_file(folder, pictures):
    preferred = folder / "open_clip_model.safetensors"
    expected = mm.load_encoder(str(folder)).encode_images(pictures)
    shutil.copy(preferred, folder / "a.safetensors")
    np.testing.assert_array_equal(mm.load_encoder(str(folder)).encode_images(pictures), expected)
    preferred.rename(folder / "b.safetensors")
    several = r"\(a.safetensors, b.safetensors\): rename .* open_clip_model.safetensors"
    with pytest.raises(ValueError, match=several):
        mm.load_encoder(str(folder))
    (folder / "a.safetensors").unlink()
    np.testing.assert_array_equal(mm.load_encoder(str(folder)).encode_images(pictures), expected)
    torch.save(load_file(folder / "b.safetensors"), folder / "open_clip_pytorch_model.bin")
    (folder / "b.safetensors").unlink()
    with pytest.raises(ValueError, match=r"pickles \(open_clip_pytorch_model.bin\)"):
        mm.load_encoder(str(folder))
    (folder / "open_clip_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"open_clip_config\.json is not valid JSON"):
        mm.load_encoder(str(folder))


@pytest.mark.parametrize(
    "name, message",
    [
        ("ViT-B-32/openai", "are marked as trained.*use ViT-B-32-quickgelu/openai"),
        ("RN50/openai", "are marked as trained.*use RN50-quickgelu/openai"),
        (
            "roberta-ViT-B-32/laion2b_s12b_b32k",
            "are not marked.*use hf-hub:laion/CLIP-ViT-B-32-roberta-base-laion2B-s12B-b32k",
        ),
        ("ViT-B-32-quickgelu/laion2b_s34b_b79k", "'laion2b_s34b_b79k'.*expected: openai"),
        ("ViT-B-32-quickgelu/nobody", "'nobody' of ViT-B-32-quickgelu, expected: openai"),
        ("mt5-xl-ViT-H-14/any", "unknown weights 'any' of mt5-xl-ViT-H-14"),
    ],
)
def test_names_that_must_not_be_loaded(hub, name, message):
    with pytest.raises(ValueError, match=message):  # before anything is downloaded
        mm.load_encoder(name)


def test_text_towers_of_transformers_need_it(folder, tmp_path, monkeypatch, hub):
    (tmp_path / "roberta").mkdir()
    roberta = checkpoint(tmp_path / "roberta", TOWERS["RoBERTa"][0])
    on_hub = clip(text_cfg=BERT | {"hf_model_name": "owner/roberta"})
    edit_json(roberta / "open_clip_config.json", model_cfg=on_hub)
    with pytest.raises(RuntimeError, match="cannot be downloaded"):
        mm.load_encoder(str(roberta))
    monkeypatch.setitem(sys.modules, "transformers", None)  # as if it were not installed
    with pytest.raises(ImportError, match="pip install"):
        mm.load_encoder(str(roberta))
    assert mm.load_encoder(str(folder)).embedding_dim == 24  # CLIP's own tower does not need it
