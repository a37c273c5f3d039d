"""ALIGN and BLIP: the numbers of transformers, prompts without padding, refused checkpoints."""

import copy
import http.server
import json
import re
import shutil
import socket
import sys
import threading
import typing
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.encoder_checkpoints import (
    TEMPLATES,
    edit_json,
    hub_without_answer,
    image_processor,
    random_model,
    random_pictures,
    tokenizer_files,
)

import mmclust as mm
from mmclust.encoders import checkpoint
from mmclust.encoders.feature_stream import OVERSAMPLING, side_to_decode
from mmclust.encoders.prompt import PromptEncoder

transformers = pytest.importorskip("transformers")

KINDS = ["align", "blip"]
WORDS = ["red", "blue", "green", "eyepatch"]


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A complete checkpoint of each kind, as transformers writes it."""
    paths = {kind: tokenizer_files(tmp_path_factory.mktemp(kind)) for kind in KINDS}
    for kind, folder in paths.items():
        random_model(kind).save_pretrained(folder)
        image_processor(kind).save_pretrained(folder)
    return paths


@pytest.fixture(scope="module")
def encoders(folders):
    return {kind: mm.load_encoder(str(folder)) for kind, folder in folders.items()}


@pytest.fixture
def encoder(kind, encoders):
    return encoders[kind]


@pytest.fixture
def folder(kind, folders, tmp_path):
    """A copy that can be damaged."""
    return Path(shutil.copytree(folders[kind], tmp_path / kind))


@pytest.fixture(scope="module")
def pictures():
    return random_pictures()


@torch.inference_mode()
def by_transformers(kind, folder, pictures, texts):
    """Embeddings of images and texts (of ALIGN only) and their scores, by transformers."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    pixels = processor(images=list(pictures), return_tensors="pt")["pixel_values"]
    words = tokenizer(texts, padding=True, return_tensors="pt")
    words.pop("token_type_ids")
    if kind == "align":
        out = transformers.AlignModel.from_pretrained(folder).eval()(pixel_values=pixels, **words)
        return out.image_embeds, out.text_embeds, out.logits_per_image
    model = transformers.BlipForImageTextRetrieval.from_pretrained(folder).eval()
    return None, None, model(pixel_values=pixels, **words, use_itm_head=False).itm_score


def test_the_same_numbers_as_transformers(kind, encoder, folders, pictures):
    texts = ["a photo of a red cat", "eyepatch", "fruit, of one color"]
    images, words, scores = by_transformers(kind, folders[kind], pictures, texts)
    v = encoder.encode_images(pictures)
    t = encoder.encode_texts(texts)
    scale = 1
    if kind == "align":
        np.testing.assert_allclose(v, images, atol=1e-5)
        np.testing.assert_allclose(t, words, atol=1e-5)
        scale = encoder.logit_scale
    np.testing.assert_allclose(v @ t.T * scale, scores, atol=1e-4)
    assert np.ptp(scores.numpy()) > 0.05
    assert v.shape == (12, 24)
    assert (encoder.embedding_dim, encoder.token_dim) == (24, 32)
    assert encoder.logit_scale == pytest.approx({"align": 20, "blip": 1 / 0.07}[kind], rel=1e-3)


def test_features_and_the_last_projection(kind, encoder, pictures):
    h = encoder.features(pictures)
    p = encoder.image_projection
    v = F.normalize(torch.from_numpy(h) @ p, dim=-1)
    np.testing.assert_allclose(v, encoder.encode_images(pictures), atol=1e-6)
    if kind == "align":
        assert torch.equal(p, torch.eye(24))
    else:
        assert p.shape == (33, 24)
        assert (h[:, -1] == 1).all()
        assert torch.equal(p[-1], encoder.model.vision_proj.bias)


def test_words_are_means_of_tokens(encoder):
    phi = encoder.word_embeddings(["red", "eyepatch"])
    table = encoder.token_table.weight
    assert torch.equal(phi[0], table[5])
    assert torch.allclose(phi[1], table[[8, 9]].mean(0))


def prompt_in(dtype, encoder, template, path="auto", **options):
    """The prompt encoder of the same model in another precision."""
    towers = type(encoder)(copy.deepcopy(encoder.model).to(dtype), None, None, "copy")
    return PromptEncoder(towers, encoder.tokenizer, template, path=path, **options)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_without_padding_as_with_it(kind, encoder, template, dtype, tolerance):
    results = []
    for path in ("auto", "full"):
        prompt = prompt_in(dtype, encoder, template, path)
        generator = torch.Generator().manual_seed(1)
        w = torch.randn(4, 32, dtype=dtype, generator=generator).requires_grad_(True)
        out = prompt(w)
        (out * torch.linspace(-1, 1, out.numel(), dtype=dtype).view_as(out)).sum().backward()
        assert not any(p.grad is not None for p in prompt.model.model.parameters())
        results.append((prompt, out.detach(), w.grad))
    (auto, out, grad), (full, full_out, full_grad) = results
    if kind == "align":  # its attention weights are float32 in every model
        tolerance = max(tolerance, 1e-6)
    assert auto.path == "cropped"
    assert len(full.tokens) == 64 and auto.end < 20
    assert (out - full_out).abs().max() < tolerance
    assert (grad - full_grad).abs().max() < tolerance * max(1, full_grad.abs().max())
    assert full_grad.abs().amax(1).min() > 1e-3


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_written_word_gives_what_the_model_gives_for_the_text(encoder, template):
    ours = encoder.prompt(template)(encoder.word_embeddings(["red", "blue"])).detach()
    np.testing.assert_allclose(ours, encoder.encode_words(["red", "blue"], template), atol=1e-5)
    assert len(set(encoder.encode_words(WORDS, template)[:, 0].round(4))) == len(WORDS)


def test_the_tower_is_bidirectional(encoder):
    w = encoder.word_embeddings(["red", "blue"])
    cat = encoder.prompt("* of a cat")(w)
    dog = encoder.prompt("* of a dog")(w)
    assert (cat - dog).abs().max() > 1e-2
    assert (cat[0] - cat[1]).abs().max() > 1e-2


def test_a_tower_that_reads_its_padding_is_run_in_full(encoder):
    towers = type(encoder)(copy.deepcopy(encoder.model), None, None, "copy")
    towers.text.config.pad_token_id = -1  # nothing is masked
    assert PromptEncoder(towers, encoder.tokenizer, TEMPLATES[0]).path == "full"


def test_options_that_such_a_tower_does_not_have(encoder):
    for switch in ("positions", "final_norm"):
        with pytest.raises(ValueError, match=f"{switch}=False.*TextModel has none"):
            encoder.prompt(TEMPLATES[0], **{switch: False})
    with pytest.raises(ValueError, match=r"needs \d+ tokens.*64"):
        encoder.prompt("a " * 80 + "*")


def test_all_tokens_end_with_the_one_that_is_read(encoder):
    w = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    prompt = encoder.prompt(TEMPLATES[2])
    full = encoder.prompt(TEMPLATES[2], path="full")
    tokens = prompt(w, all_tokens=True)
    assert tokens.shape == (3, prompt.end - prompt.start + 1, 24)
    assert (tokens[:, -1] - prompt(w)).abs().max() < 1e-6
    assert (tokens - full(w, all_tokens=True)).abs().max() < 1e-5
    assert tokens.flatten(0, 1).unique(dim=0).shape[0] == tokens.shape[0] * tokens.shape[1]


def test_patch_tokens(kind, encoder, pictures):
    if kind == "align":
        with pytest.raises(ValueError, match="no patch tokens"):
            encoder.patch_tokens(pictures)
        return
    tokens = encoder.patch_tokens(pictures)
    assert tokens.shape == (12, 1 + 4, 24)
    np.testing.assert_allclose(tokens[:, 0], encoder.encode_images(pictures), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(tokens, axis=-1), 1, atol=1e-5)


METHODS = {
    "KMeans": {},
    "CLIP_GPT": {},
    "MultiMaP": {
        "concepts": ["color", "fruit"],
        "epochs": 12,
        "lr": 0.05,
        "alpha": 0.01,
        "beta": 0.01,
    },
    "MultiSub": {"alternations": 1, "phase1_epochs": 12, "phase2_epochs": 3, "projection_lr": 1e-3},
    "MultiDProxy": {
        "epochs": 12,
        "update_every": 6,
        "lr": 0.1,
        "fusion_lr": 1e-3,
        "user_weight": 0.01,
        "concept_weight": 0.01,
    },
}


def build(encoder, name, **more):
    common = {"template": TEMPLATES[0], "words": WORDS, "n_clusters": 2, "random_state": 0}
    params = common | METHODS[name] | more
    method = getattr(mm, name)
    known = method().get_params()
    return method(encoder, **{k: v for k, v in params.items() if k in known})


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_learns(encoder, pictures, method):
    model = build(encoder, method).fit(pictures)
    assert model.labels_.shape == (12,)
    assert model.image_embeddings_.shape == (12, 24)
    if hasattr(model, "history_"):
        losses = [row["loss"] for row in model.history_]  # of Multi-Sub, 12 epochs of Phase I first
        assert losses[9] < losses[0]
        assert model.prompt_embeddings_.shape == (12, 24)
        assert model.proxies_.shape == (12, 32)
        assert model.predict(pictures[:3]).shape == (3,)
    if method == "MultiSub":
        assert np.abs(model.projection_ - encoder.image_projection.numpy()).max() > 1e-4


def test_all_tokens_in_multidproxy(kind, encoder, pictures):
    model = build(encoder, "MultiDProxy", tokens="all")
    if kind == "align":
        with pytest.raises(ValueError, match="no patch tokens"):
            model.fit(pictures)
    else:
        assert model.fit(pictures).fused_.shape == (12, 24)


@pytest.mark.parametrize("method", ["MultiMaP", "MultiSub"])
def test_the_released_code_needs_clips_tower(kind, encoder, pictures, method):
    with pytest.raises(ValueError, match="width must be the same"):
        build(encoder, method, variant="released").fit(pictures)
    equal = type(encoder)(
        random_model(kind, projection=32), encoder.preprocess, encoder.tokenizer, "as wide"
    )
    with pytest.raises(ValueError, match=r"positions=False.*TextModel has none"):
        build(equal, method, variant="released").fit(pictures)


def test_experiments_take_it_by_name(kind, folders):
    params = {"MultiSub": {"alternations": 1, "phase1_epochs": 2, "phase2_epochs": 1}}
    grid = mm.grid(
        dataset="demo-fruit", criterion="color", method=["CLIP_GPT", "MultiSub"], n=12,
        encoder=str(folders[kind]), params=params,
    )  # fmt: skip
    rows = mm.run(grid, progress=False)
    assert rows["NMI"].between(0, 1).all()
    assert set(rows["encoder"]) == {str(folders[kind])}


def test_autocast(kind, encoder, folders, pictures):
    half = mm.load_encoder(str(folders[kind]), autocast=True)
    v = half.encode_images(pictures)
    assert v.dtype == np.float32
    assert 0 < np.abs(v - encoder.encode_images(pictures)).max() < 0.1
    w = encoder.word_embeddings(WORDS)
    out = half.prompt(TEMPLATES[0])(w)
    assert out.dtype == torch.float32
    assert F.cosine_similarity(out, encoder.prompt(TEMPLATES[0])(w)).min() > 0.99


def test_other_preprocessing_words_or_layers_give_other_features(kind, encoder, folders):
    again = mm.load_encoder(str(folders[kind]))
    assert again is not encoder
    assert again.fingerprint == encoder.fingerprint
    tokenizer = mm.load_encoder(str(folders[kind])).tokenizer
    tokenizer.tokenizer.add_tokens(["turquoise"])
    processor = type(encoder.preprocess)(image_processor(kind, image_mean=[0.4] * 3))
    assert side_to_decode(processor) == OVERSAMPLING * 32
    others = [
        (random_model(kind), processor, encoder.tokenizer),
        (random_model(kind), encoder.preprocess, tokenizer),
        (random_model(kind, act="relu"), encoder.preprocess, encoder.tokenizer),
    ]
    fingerprints = {type(encoder)(*parts, "other").fingerprint for parts in others}
    assert len(fingerprints | {encoder.fingerprint}) == 4


@pytest.mark.parametrize(
    "missing, message",
    [
        ("config.json", "no open_clip_config.json .*config.json of transformers"),
        ("preprocessor_config.json", "no preprocessor_config.json.*needs its preprocessing"),
        ("tokenizer.json", "no tokenizer.json"),
        ("tokenizer_config.json", "no tokenizer_config.json"),
        ("model.safetensors", "no safetensors weights: convert them"),
    ],
)
def test_a_missing_file_is_named(folder, missing, message):
    # transformers writes one of the two, depending on its version
    for file in {missing, missing.replace("tokenizer.json", "vocab.txt")}:
        (folder / file).unlink(missing_ok=True)
    with pytest.raises(ValueError, match=message):
        mm.load_encoder(str(folder))


@pytest.mark.parametrize("key", ["image_mean", "size", "resample", "image_processor_type"])
def test_incomplete_preprocessing_is_refused(folder, key):
    edit_json(folder / "preprocessor_config.json", **{key: ...})
    with pytest.raises(ValueError, match=f"preprocessor_config.json has no '{key}'"):
        mm.load_encoder(str(folder))


def test_truncated_weights_are_named(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"model.safetensors is damaged: download it again"):
        mm.load_encoder(str(folder))


def test_the_layout_of_newer_transformers(kind, folder, encoder, pictures):
    """processor_config.json instead of preprocessor_config.json."""
    config = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": config}))
    if int(transformers.__version__.split(".")[0]) < 5:
        pytest.skip("transformers 5 reads this layout")
    loaded = mm.load_encoder(str(folder))
    np.testing.assert_array_equal(loaded.encode_images(pictures), encoder.encode_images(pictures))


def test_pickles_are_refused(folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pickles \(pytorch_model.bin\).*as model.safetensors"):
        mm.load_encoder(str(folder))


def test_weights_of_another_model_are_refused(kind, folder):
    other = "blip" if kind == "align" else "align"
    random_model(other).save_pretrained(folder / "other")
    shutil.copy(folder / "other" / "model.safetensors", folder)
    with pytest.raises(ValueError, match=r"do not match .*\d+ tensors are missing"):
        mm.load_encoder(str(folder))


def test_parts_that_do_not_match_are_refused(kind, folder):
    edit_json(folder / "config.json", model_type="clip")
    with pytest.raises(ValueError, match="model_type 'clip', expected align or blip"):
        mm.load_encoder(str(folder))
    edit_json(folder / "config.json", model_type=kind)
    transformers.BertTokenizer.from_pretrained(folder, pad_token="[UNK]").save_pretrained(folder)
    with pytest.raises(ValueError, match="pads with 1, the text tower with 0"):
        mm.load_encoder(str(folder))
    tokenizer_files(folder)
    tokenizer = transformers.BertTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"word{i}" for i in range(20)])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ValueError, match="has 45 tokens, the text tower 40"):
        mm.load_encoder(str(folder))


def test_pictures_of_another_size_are_refused(folders, tmp_path):
    folder = Path(shutil.copytree(folders["blip"], tmp_path / "blip"))
    edit_json(folder / "preprocessor_config.json", size={"height": 48, "width": 48})
    with pytest.raises(ValueError, match=r"48.*tower needs 32 x 32"):
        mm.load_encoder(str(folder))


def test_without_transformers(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)  # as if it were not installed
    with pytest.raises(ImportError, match=re.escape('pip install "mmclust[paper]"')):
        mm.load_encoder(str(folder))


class Hub(http.server.BaseHTTPRequestHandler):
    """What the hub's client asks for: a repository's commit, the list of its files, a file."""

    folder = None
    commit = "0123456789abcdef0123456789abcdef01234567"
    requested: typing.ClassVar[list] = []

    def log_message(self, *args):
        pass

    def answer(self, body: bool):
        path = self.path.partition("?")[0]
        file = path.rpartition("/")[2]
        self.requested.append(path)
        if path.startswith("/api/models/owner/name"):
            files = [
                {"type": "file", "path": f.name, "rfilename": f.name, "size": f.stat().st_size,
                 "oid": f.name}
                for f in self.folder.iterdir()
            ]  # fmt: skip
            model = {"id": "owner/name", "sha": self.commit, "siblings": files}
            data = json.dumps(files if "/tree/" in path else model).encode()
            headers = {"Content-Type": "application/json"}
        elif path.startswith("/owner/name/resolve/"):
            data = (self.folder / file).read_bytes()
            headers = {"X-Repo-Commit": self.commit, "ETag": f'"{file}"'}
        else:
            self.send_error(404)
            return
        self.send_response(200)
        for key, value in {"Content-Length": len(data), **headers}.items():
            self.send_header(key, str(value))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def do_GET(self):
        self.answer(True)

    def do_HEAD(self):
        self.answer(False)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    return hub_without_answer(tmp_path, monkeypatch)


def test_from_a_hub_and_then_from_its_cache(kind, folder, encoder, hub, pictures):
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    Hub.folder = folder
    Hub.requested.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            hub.use(f"http://127.0.0.1:{server.server_port}")
            loaded = mm.load_encoder("hf-hub:owner/name")
        finally:
            server.shutdown()
            thread.join()
    np.testing.assert_array_equal(loaded.encode_images(pictures), encoder.encode_images(pictures))
    assert loaded.fingerprint == encoder.fingerprint
    assert any(path.endswith("model.safetensors") for path in Hub.requested)
    assert not any(path.endswith(".bin") for path in Hub.requested)
    again = mm.load_encoder("hf-hub:owner/name")
    assert again.fingerprint == loaded.fingerprint
    assert again.name == "hf-hub:owner/name"
    with pytest.raises(RuntimeError, match="hf-hub:owner/name@v2 cannot be downloaded"):
        mm.load_encoder("hf-hub:owner/name@v2")


REMEDIES = r"cannot be downloaded \(.+\).*HF_HOME.*local folder.*'mini'$"


@pytest.mark.parametrize(
    "name",
    [
        "align",
        "blip",
        "kakaobrain/align-base",
        "Salesforce/blip-itm-large-coco",
        "hf-hub:owner/name",
        "ViT-B-32-quickgelu/openai",
    ],
)
@pytest.mark.parametrize("offline", [False, True])
def test_without_a_hub_the_error_names_the_remedies(hub, name, offline, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    with pytest.raises(RuntimeError, match=f"the weights of {name} {REMEDIES}") as error:
        mm.load_encoder(name)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("name", ["align", "ViT-B-32-quickgelu/openai"])
def test_a_hub_that_never_answers_is_not_waited_for(hub, name, monkeypatch):
    """Without the time limit, a request would wait for ever."""
    monkeypatch.setattr(checkpoint, "TIMEOUT", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        hub.use(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(RuntimeError, match=REMEDIES):
            mm.load_encoder(name)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", KINDS)
def test_the_benchmark_compares_like_with_like(architecture):
    """The real shapes, BERT-base."""
    from benchmarks.prompt import compare

    rows = compare("fruit with a color of *", 2, 2, architecture).set_index("path")
    assert list(rows.index) == [
        "64 tokens, batches of 2",
        "8 tokens, batches of 2",
        "8 tokens, one batch",
    ]
    assert rows["output difference"].max() < 1e-4
    assert rows["gradient difference"].max() < 1e-4
    assert rows["ratio"].iloc[0] == 1
