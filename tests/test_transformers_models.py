"""ALIGN and BLIP: transformers' own numbers, prompts without padding, and checkpoints that are complete or refused."""

import copy
import http.server
import json
import re
import shutil
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import mmclust as mm
from mmclust.encoders import checkpoint
from mmclust.encoders.prompt import PromptEncoder
from mmclust.encoders.transformers_models import TOWERS, TransformersEncoder

transformers = pytest.importorskip("transformers")

KINDS = ["align", "blip"]
WORDS = ["red", "blue", "green", "eyepatch"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "green", "eye", "##patch", "fruit", "with", "a", "color", "of", "*", ",",
              "is", "the", "this", "one", "two", "cat", "dog", "photo"]  # fmt: skip
TEMPLATES = [
    "fruit with a color of *",
    "* is the color of this fruit",
    "a fruit of * color, with a cat",
    "*",
]
SIZE = {"height": 32, "width": 32}


def tokenizer_files(folder: Path) -> Path:
    (folder / "words").write_text("\n".join(VOCABULARY))
    transformers.BertTokenizer(str(folder / "words")).save_pretrained(folder)
    (folder / "words").unlink()
    return folder


def random_model(kind: str, act: str = "gelu", projection: int = 24):
    """A small model of the real class; weights large enough for every part to matter."""
    text = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64,
            "hidden_act": act, "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}  # fmt: skip
    torch.manual_seed(0)
    if kind == "align":
        vision = {"width_coefficient": 1.0, "depth_coefficient": 1.0, "image_size": 48, "hidden_dim": 64, "kernel_sizes": [3, 3], "in_channels": [32, 16],
                  "out_channels": [16, projection], "strides": [1, 2], "num_block_repeats": [1, 1], "expand_ratios": [1, 6]}  # fmt: skip
        model = transformers.AlignModel(
            transformers.AlignConfig(
                text_config=text, vision_config=vision, projection_dim=projection
            )
        )
        model.temperature.data.fill_(0.05)
    else:
        text["sep_token_id"] = 3
        vision = {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 16,
        }
        config = transformers.BlipConfig(
            text_config=text, vision_config=vision, image_text_hidden_size=projection
        )
        model = transformers.BlipForImageTextRetrieval(config)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "norm" not in name.lower():
            parameter.data.normal_(std=parameter[0].numel() ** -0.5)
        elif name.endswith("bias"):
            parameter.data.normal_(std=0.1)
        elif name.endswith("weight"):  # of a norm: one that is applied twice shows
            parameter.data.uniform_(0.5, 1.5)
    return model.eval()


def image_processor(kind: str, **options):
    if kind == "align":
        return transformers.EfficientNetImageProcessor(
            **{
                "size": SIZE,
                "include_top": False,
                "rescale_offset": True,
                "rescale_factor": 2 / 255,
            }
            | options
        )
    return transformers.BlipImageProcessor(**{"size": SIZE} | options)


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A whole checkpoint of each kind, as transformers writes it."""
    found = {}
    for kind in KINDS:
        found[kind] = tokenizer_files(tmp_path_factory.mktemp(kind))
        random_model(kind).save_pretrained(found[kind])
        image_processor(kind).save_pretrained(found[kind])
    return found


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
    rng = np.random.default_rng(0)
    drawn = [
        Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize(
            (60 + i, 50), Image.Resampling.BICUBIC
        )
        for i in range(12)
    ]
    return mm.Images.of(drawn)


@torch.inference_mode()
def by_transformers(kind, folder, pictures, texts):
    """Embeddings of images and texts as the library's own forward gives them, through its own processor."""
    tokenizer, images = (
        transformers.AutoTokenizer.from_pretrained(folder),
        transformers.AutoImageProcessor.from_pretrained(folder),
    )
    pixels = images(images=list(pictures), return_tensors="pt")["pixel_values"]
    words = tokenizer(texts, padding=True, return_tensors="pt")
    words.pop("token_type_ids")
    if kind == "align":
        out = transformers.AlignModel.from_pretrained(folder).eval()(pixel_values=pixels, **words)
        return out.image_embeds, out.text_embeds, out.logits_per_image
    model = transformers.BlipForImageTextRetrieval.from_pretrained(folder).eval()
    return None, None, model(pixel_values=pixels, **words, use_itm_head=False).itm_score


def test_the_same_numbers_as_transformers(kind, encoder, folders, pictures):
    texts = ["a photo of a red cat", "eyepatch", "fruit, of one color"]
    v, t, scores = by_transformers(kind, folders[kind], pictures, texts)
    ours_v, ours_t = encoder.encode_images(pictures), encoder.encode_texts(texts)
    if kind == "align":
        np.testing.assert_allclose(ours_v, v, atol=1e-5)
        np.testing.assert_allclose(ours_t, t, atol=1e-5)
    np.testing.assert_allclose(
        ours_v @ ours_t.T * (encoder.logit_scale if kind == "align" else 1), scores, atol=1e-4
    )
    assert (
        np.ptp(scores.numpy()) > 0.05
        and ours_v.shape == (12, 24)
        and encoder.embedding_dim == 24
        and encoder.token_dim == 32
    )
    assert encoder.logit_scale == pytest.approx({"align": 20, "blip": 1 / 0.07}[kind], rel=1e-3)


def test_features_and_the_last_projection(kind, encoder, pictures):
    h, p = encoder.features(pictures), encoder.image_projection
    np.testing.assert_allclose(
        F.normalize(torch.from_numpy(h) @ p, dim=-1), encoder.encode_images(pictures), atol=1e-6
    )
    if kind == "align":
        assert torch.equal(p, torch.eye(24))
    else:
        assert (
            p.shape == (33, 24)
            and (h[:, -1] == 1).all()
            and torch.equal(p[-1], encoder.model.vision_proj.bias)
        )


def test_words_are_means_of_tokens(encoder):
    phi, table = encoder.word_embeddings(["red", "eyepatch"]), encoder.token_table.weight
    assert torch.equal(phi[0], table[5]) and torch.allclose(phi[1], table[[8, 9]].mean(0))
    with pytest.raises(ValueError, match="a reference word is empty"):
        encoder.word_embeddings(["red", " "])


def prompt(encoder, template, path="auto", dtype=torch.float64, **options):
    """The prompt encoder of the same model in another precision."""
    towers = TOWERS[encoder.model.config.model_type][1](copy.deepcopy(encoder.model).to(dtype))
    return PromptEncoder(towers, encoder.tokenizer, template, path=path, **options)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("word_tokens", [1, 3])
def test_without_padding_as_with_it(kind, encoder, template, dtype, tolerance, word_tokens):
    results = []
    for path in ("auto", "full"):
        of = prompt(encoder, template, path, dtype, word_tokens=word_tokens)
        w = torch.randn(
            4, word_tokens, 32, dtype=dtype, generator=torch.Generator().manual_seed(1)
        ).requires_grad_(True)
        out = of(w)
        (out * torch.linspace(-1, 1, out.numel(), dtype=dtype).view_as(out)).sum().backward()
        assert not any(p.grad is not None for p in of.model.model.parameters())
        results.append((of, out.detach(), w.grad))
    (auto, out, grad), (full, out_whole, grad_whole) = results
    tolerance = max(
        tolerance, 1e-6 * (kind == "align")
    )  # its attention weights are float32 whatever the model is
    assert auto.path == "cropped" and len(full.tokens) == 64 and auto.end < 20
    assert (out - out_whole).abs().max() < tolerance and (
        grad - grad_whole
    ).abs().max() < tolerance * max(1, grad_whole.abs().max())
    assert grad_whole.abs().amax((0, 2)).min() > 1e-3  # every token of the word counts


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("word", ["red", "eyepatch"])
def test_a_written_word_gives_what_the_model_gives_for_the_text(encoder, template, word):
    ids = encoder.tokenizer.tokenizer(word, add_special_tokens=False)["input_ids"]
    of = encoder.prompt(template, word_tokens=len(ids))
    ours = of(encoder.token_table.weight[ids][None]).detach()
    np.testing.assert_allclose(ours, encoder.encode_words([word], template), atol=1e-5)
    assert len(set(encoder.encode_words(WORDS, template)[:, 0].round(4))) == len(WORDS)


def test_the_tower_looks_both_ways(encoder):
    w = encoder.word_embeddings(["red", "blue"])
    one, other = encoder.prompt("* of a cat")(w), encoder.prompt("* of a dog")(w)
    assert (one - other).abs().max() > 1e-2 and (one[0] - one[1]).abs().max() > 1e-2


def test_a_tower_that_reads_its_padding_is_run_in_full(encoder):
    of = TOWERS[encoder.model.config.model_type][1](copy.deepcopy(encoder.model))
    of.text.config.pad_token_id = -1  # nothing is masked
    assert PromptEncoder(of, encoder.tokenizer, TEMPLATES[0]).path == "full"
    with pytest.raises(ValueError, match="reads its padding"):
        PromptEncoder(of, encoder.tokenizer, TEMPLATES[0], path="cropped")


def test_what_such_a_tower_does_not_have(encoder):
    for switch in ("positions", "final_norm"):
        with pytest.raises(
            ValueError, match=r"parts of CLIP's text tower, which .*TextModel is not"
        ):
            encoder.prompt(TEMPLATES[0], **{switch: False})
    with pytest.raises(ValueError, match="not causal"):
        encoder.prompt(TEMPLATES[0], path="cached")
    with pytest.raises(ValueError, match=r"needs \d+ tokens, the text encoder reads 64"):
        encoder.prompt("a " * 80 + "*")


def test_all_tokens_end_with_the_one_that_is_read(encoder):
    w = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    of, full = encoder.prompt(TEMPLATES[2]), encoder.prompt(TEMPLATES[2], path="full")
    tokens = of(w, all_tokens=True)
    assert (
        tokens.shape == (3, of.end - of.start + 1, 24)
        and (tokens[:, -1] - of(w)).abs().max() < 1e-6
    )
    assert (tokens - full(w, all_tokens=True)).abs().max() < 1e-5
    assert tokens.flatten(0, 1).unique(dim=0).shape[0] == tokens.shape[0] * tokens.shape[1]


def test_patch_tokens(kind, encoder, pictures):
    if kind == "align":
        with pytest.raises(ValueError, match="gives no patch tokens"):
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


def build(encoder, method, **more):
    offered = (
        {"template": TEMPLATES[0], "words": WORDS, "n_clusters": 2, "random_state": 0}
        | METHODS[method]
        | more
    )
    method = getattr(mm, method)
    known = method().get_params()
    return method(encoder, **{k: v for k, v in offered.items() if k in known})


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_learns(encoder, pictures, method):
    model = build(encoder, method).fit(pictures)
    assert model.labels_.shape == (12,) and model.image_embeddings_.shape == (12, 24)
    if hasattr(model, "history_"):
        losses = [row["loss"] for row in model.history_]  # Phase II of Multi-Sub has another one
        assert (
            losses[9] < losses[0]
            and model.prompt_embeddings_.shape == (12, 24)
            and model.proxies_.shape == (12, 32)
        )
        assert model.predict(pictures[:3]).shape == (3,)
    if method == "MultiSub":
        assert np.abs(model.projection_ - encoder.image_projection.numpy()).max() > 1e-4


def test_all_tokens_in_multidproxy(kind, encoder, pictures):
    model = build(encoder, "MultiDProxy", tokens="all")
    if kind == "align":
        with pytest.raises(ValueError, match="gives no patch tokens"):
            model.fit(pictures)
    else:
        assert model.fit(pictures).fused_.shape == (12, 24)


@pytest.mark.parametrize("method", ["MultiMaP", "MultiSub"])
def test_the_released_code_needs_clips_tower(kind, encoder, pictures, method):
    with pytest.raises(ValueError, match="the widths must be equal"):
        build(encoder, method, variant="released").fit(pictures)
    equal = TransformersEncoder(
        random_model(kind, projection=32), encoder.preprocess, encoder.tokenizer, "as wide"
    )
    with pytest.raises(ValueError, match="parts of CLIP's text tower"):
        build(equal, method, variant="released").fit(pictures)


def test_experiments_take_it_by_name(kind, folders):
    rows = mm.run(mm.grid(dataset="demo-fruit", criterion="color", method=["CLIP_GPT", "MultiSub"], n=12, encoder=str(folders[kind]),
                          params={"MultiSub": {"alternations": 1, "phase1_epochs": 2, "phase2_epochs": 1}}), progress=False)  # fmt: skip
    assert rows["NMI"].between(0, 1).all() and set(rows["encoder"]) == {str(folders[kind])}


def test_autocast(kind, encoder, folders, pictures):
    half = mm.load_encoder(str(folders[kind]), autocast=True)
    v = half.encode_images(pictures)
    assert v.dtype == np.float32 and 0 < np.abs(v - encoder.encode_images(pictures)).max() < 0.1
    w = encoder.word_embeddings(WORDS)
    out = half.prompt(TEMPLATES[0])(w)
    assert (
        out.dtype == torch.float32
        and F.cosine_similarity(out, encoder.prompt(TEMPLATES[0])(w)).min() > 0.99
    )


def test_other_preprocessing_words_or_layers_other_features(kind, encoder, folders, tmp_path):
    seen = {encoder.fingerprint}
    again = mm.load_encoder(str(folders[kind]))
    assert again is not encoder and again.fingerprint in seen
    tokenizer = mm.load_encoder(str(folders[kind])).tokenizer
    tokenizer.tokenizer.add_tokens(["turquoise"])
    processor = type(encoder.preprocess)(image_processor(kind, image_mean=[0.4] * 3))
    for other in (
        TransformersEncoder(random_model(kind), processor, encoder.tokenizer, "other mean"),
        TransformersEncoder(random_model(kind), encoder.preprocess, tokenizer, "other words"),
        TransformersEncoder(
            random_model(kind, act="relu"),
            encoder.preprocess,
            encoder.tokenizer,
            "other activation",
        ),
    ):
        assert other.fingerprint not in seen
        seen.add(other.fingerprint)


def edit(path: Path, **changes) -> None:
    path.write_text(
        json.dumps(
            {k: v for k, v in (json.loads(path.read_text()) | changes).items() if v is not ...}
        )
    )


@pytest.mark.parametrize(
    "missing, message",
    [
        ("config.json", "nor transformers' config.json"),
        (
            "preprocessor_config.json",
            "no preprocessor_config.json: a checkpoint must bring its preprocessing",
        ),
        ("tokenizer.json", "no tokenizer.json"),
        ("tokenizer_config.json", "no tokenizer_config.json"),
        ("model.safetensors", "no safetensors weights: convert them, or name a revision"),
    ],
)
def test_what_is_missing_is_named(folder, missing, message):
    for file in {
        missing,
        missing.replace("tokenizer.json", "vocab.txt"),
    }:  # which of the two there is depends on transformers' version
        (folder / file).unlink(missing_ok=True)
    with pytest.raises(ValueError, match=message):
        mm.load_encoder(str(folder))


@pytest.mark.parametrize("key", ["image_mean", "size", "image_processor_type"])
def test_preprocessing_that_is_left_open_is_refused(folder, key):
    edit(folder / "preprocessor_config.json", **{key: ...})
    with pytest.raises(
        ValueError,
        match=f"preprocessor_config.json says no {key}: a checkpoint must bring its preprocessing",
    ):
        mm.load_encoder(str(folder))


def test_the_layout_of_newer_transformers(kind, folder, encoder, pictures):
    """One processor_config.json in the place of preprocessor_config.json."""
    found = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": found}))
    if int(transformers.__version__.split(".")[0]) >= 5:
        np.testing.assert_array_equal(
            mm.load_encoder(str(folder)).encode_images(pictures), encoder.encode_images(pictures)
        )


def test_pickles_are_refused(folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(
        ValueError,
        match=r"no safetensors weights but pickles \(pytorch_model.bin\), which can run code: save them as model.safetensors",
    ):
        mm.load_encoder(str(folder))


def test_weights_of_another_model_are_refused(kind, folder):
    other = "blip" if kind == "align" else "align"
    random_model(other).save_pretrained(folder / "other")
    shutil.copy(folder / "other" / "model.safetensors", folder)
    with pytest.raises(ValueError, match=r"lack \d+ tensors of .*they are another model's"):
        mm.load_encoder(str(folder))


def test_what_does_not_fit_together_is_refused(kind, folder):
    edit(folder / "config.json", model_type="clip")
    with pytest.raises(ValueError, match="model_type 'clip', not one of align, blip"):
        mm.load_encoder(str(folder))
    edit(folder / "config.json", model_type=kind)
    transformers.BertTokenizer.from_pretrained(folder, pad_token="[UNK]").save_pretrained(folder)
    with pytest.raises(ValueError, match="pads with 1, the text tower with 0"):
        mm.load_encoder(str(folder))
    tokenizer_files(folder)
    more = transformers.BertTokenizer.from_pretrained(folder)
    more.add_tokens([f"word{i}" for i in range(20)])
    more.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"has 45 tokens, the text tower 40"):
        mm.load_encoder(str(folder))


def test_pictures_of_another_size_are_refused(folders, tmp_path):
    folder = Path(shutil.copytree(folders["blip"], tmp_path / "blip"))
    edit(folder / "preprocessor_config.json", size={"height": 48, "width": 48})
    with pytest.raises(ValueError, match="the image tower takes 32 x 32"):
        mm.load_encoder(str(folder))


def test_without_transformers(folder, monkeypatch):
    monkeypatch.setitem(
        __import__("sys").modules, "transformers", None
    )  # as if it were not installed
    with pytest.raises(
        ImportError, match=re.escape('needs the package transformers: pip install "mmclust[paper]"')
    ):
        mm.load_encoder(str(folder))


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub's protocol as its client asks for: a repository's commit, its files, a file."""

    folder, commit, asked = None, "0123456789abcdef0123456789abcdef01234567", []

    def log_message(self, *args):
        pass

    def answer(self, body: bool):
        path = self.path.partition("?")[0]
        self.asked.append(path)
        if path.startswith("/api/models/owner/name"):
            files = [
                {
                    "type": "file",
                    "path": f.name,
                    "rfilename": f.name,
                    "size": f.stat().st_size,
                    "oid": f.name,
                }
                for f in self.folder.iterdir()
            ]
            found = (
                files
                if "/tree/" in path
                else {"id": "owner/name", "sha": self.commit, "siblings": files}
            )
            data, more = json.dumps(found).encode(), {"Content-Type": "application/json"}
        elif path.startswith("/owner/name/resolve/"):
            data, more = (
                (self.folder / path.rpartition("/")[2]).read_bytes(),
                {"X-Repo-Commit": self.commit, "ETag": f'"{path.rpartition("/")[2]}"'},
            )
        else:
            self.send_error(404)
            return
        self.send_response(200)
        for key, value in {"Content-Length": len(data), **more}.items():
            self.send_header(key, str(value))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def do_GET(self):
        self.answer(True)

    def do_HEAD(self):
        self.answer(False)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub; what asks the hub asks an address that nobody listens at, unless a test says another."""
    from huggingface_hub import constants

    def at(url):
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            url + "/{repo_id}/resolve/{revision}/{filename}",
        )

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    at(f"http://127.0.0.1:{port}")
    return SimpleNamespace(at=at, path=tmp_path / "hub")


def test_from_a_hub_and_then_from_its_cache(kind, folder, encoder, cache, pictures):
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    Hub.folder, Hub.asked = folder, []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            cache.at(f"http://127.0.0.1:{server.server_port}")
            found = mm.load_encoder("hf-hub:owner/name")
        finally:
            server.shutdown()
            thread.join()
    np.testing.assert_array_equal(found.encode_images(pictures), encoder.encode_images(pictures))
    assert found.fingerprint == encoder.fingerprint
    assert any(path.endswith("model.safetensors") for path in Hub.asked) and not any(
        path.endswith(".bin") for path in Hub.asked
    )
    start = time.perf_counter()
    assert (
        mm.load_encoder("hf-hub:owner/name").fingerprint == found.fingerprint
        and found.name == "hf-hub:owner/name"
    )
    assert time.perf_counter() - start < 10
    with pytest.raises(RuntimeError, match="hf-hub:owner/name@v2 can't be fetched"):
        mm.load_encoder("hf-hub:owner/name@v2")


WAYS = r"can't be fetched \(.+\): fill the cache \(HF_HOME\) .*, give a local folder, or use the demo profile's encoder 'mini'$"


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
def test_without_a_hub_one_sentence_says_the_ways_out(cache, name, offline, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    start = time.perf_counter()
    with pytest.raises(RuntimeError, match=f"the weights of {name} {WAYS}") as error:
        mm.load_encoder(name)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("name", ["align", "ViT-B-32-quickgelu/openai"])
def test_a_hub_that_never_answers_is_not_waited_for(cache, name, monkeypatch):
    monkeypatch.setattr(checkpoint, "TIMEOUT", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        cache.at(f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.perf_counter()
        with pytest.raises(RuntimeError, match=WAYS):
            mm.load_encoder(name)
        assert time.perf_counter() - start < 5


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
    assert (
        rows["output difference"].max() < 1e-4
        and rows["gradient difference"].max() < 1e-4
        and rows["ratio"].iloc[0] == 1
    )
