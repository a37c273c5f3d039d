"""Checkpoints in folders and on the Hugging Face hub: complete ones are loaded, others refused.

Weights are read from safetensors only, never from pickles, which can run code.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

TIMEOUT = 10  # seconds to wait for the hub's first response
# Files to download: architecture, preprocessing, tokenizer, weights; no pickles.
FILE_PATTERNS = ["*.json", "*.txt", "*.model", "*.safetensors"]
LFS_POINTER = b"version https://git-lfs"  # what git without git-lfs leaves instead of a large file
PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.ckpt")
TOKENIZER_FILES = (  # any one of them
    "tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model",
    "sentencepiece.bpe.model",
)  # fmt: skip


def download_error(name: str, error: Exception) -> RuntimeError:
    """The error for weights that cannot be downloaded, with what to do instead."""
    reason = " ".join(str(error).split())[:300].split(". ")[0].rstrip(".") or type(error).__name__
    return RuntimeError(
        f"the weights of {name} cannot be downloaded ({reason}): fill the cache (HF_HOME) on a "
        "machine with internet access, use a local folder, or use the demo profile's encoder 'mini'"
    )


def check_hub(repository: str, revision: str | None = None) -> None:
    """Raise the hub's error if it does not provide a repository; one request with a time limit."""
    from huggingface_hub import HfApi

    HfApi().model_info(repository, revision=revision, timeout=TIMEOUT)


def download(repository: str, name: str) -> Path:
    """The folder of "owner/name" or "owner/name@revision" in the hub's cache, up to date if online.

    RuntimeError if it is not in the cache and cannot be downloaded.
    """
    from huggingface_hub import snapshot_download

    repository, _, tag = repository.partition("@")
    revision = tag or None
    get = partial(snapshot_download, repository, revision=revision, allow_patterns=FILE_PATTERNS)
    try:
        check_hub(repository, revision)
        return Path(get())
    except Exception as error:  # network, hub and disk: each library has its own classes
        try:
            return Path(get(local_files_only=True))
        except Exception:
            raise download_error(name, error) from error


def check_available(repository: str, name: str) -> None:
    """Raise RuntimeError if a repository is not in the cache and the hub does not provide it."""
    from huggingface_hub import constants

    try:
        check_hub(repository)
    except Exception as error:
        folder = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
        if not (folder / "snapshots").is_dir():
            raise download_error(name, error) from error


def check_files(folder: Path) -> None:
    """Raise ValueError for a file that git-lfs has not fetched, or damaged weights."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(path for pattern in FILE_PATTERNS for path in folder.glob(pattern)):
        with path.open("rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                raise ValueError(f"{path} is a git-lfs pointer: run `git lfs pull` in its folder")
        try:
            if path.suffix == ".safetensors":
                safe_open(path, "pt").__exit__(None, None, None)
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged: download it again ({error})") from None


def read_json(path: Path) -> dict:
    """The JSON object in a file; ValueError if there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} contains no JSON object")
    return value


def require(path: Path, config: dict, keys: tuple[str, ...], what: str) -> None:
    """Raise ValueError for a missing key: libraries would silently use their own default."""
    if missing := [key for key in keys if key not in config]:
        raise ValueError(f"{path} has no {missing[0]!r}: a checkpoint needs its {what}")


def find_weights(folder: Path, preferred: str) -> Path:
    """The folder's safetensors file: of several, the preferred; otherwise ValueError."""
    files = sorted(folder.glob("*.safetensors"))
    if folder / preferred in files:
        return folder / preferred
    if len(files) == 1:
        return files[0]
    if files:
        names = ", ".join(file.name for file in files)
        raise ValueError(f"{folder} has several weights ({names}): rename one {preferred}")
    pickles = [file.name for pattern in PICKLE_PATTERNS for file in sorted(folder.glob(pattern))]
    remedy = "convert them, or choose a revision that has them (owner/name@refs/pr/N)"
    if pickles:
        problem = f"only pickles ({', '.join(pickles)}), which can run code"
        remedy = f"if you trust them, save them as {preferred}"
        raise ValueError(f"{folder} has no safetensors weights, {problem}: {remedy}")
    raise ValueError(f"{folder} has no safetensors weights: {remedy}")


def check_tokenizer(folder: Path) -> None:
    """Raise ValueError if a folder lacks its tokenizer."""
    for names in (TOKENIZER_FILES, ("tokenizer_config.json",)):
        if not any((folder / name).exists() for name in names):
            raise ValueError(f"{folder} has no {' or '.join(names[:2])}: it needs a tokenizer")


def require_transformers(name: str) -> None:
    """Raise ImportError, with the command to install it, if transformers is missing."""
    try:
        import transformers  # noqa: F401
    except ImportError:
        remedy = 'pip install "mmclust[paper]"'
        raise ImportError(f"encoder {name} needs the package transformers: {remedy}") from None
