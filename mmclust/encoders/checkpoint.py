"""Checkpoints on disk and on the Hugging Face hub: complete, or refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TIMEOUT = 10  # seconds for the hub's first answer
FILES = [
    "*.json",
    "*.txt",
    "*.model",
    "*.safetensors",
]  # of a repository: architecture, preprocessing, tokenizer, weights; no pickles


def reason(error: Exception) -> str:
    """The first sentence of an error, for a sentence of ours."""
    return " ".join(str(error).split())[:300].split(". ")[0].rstrip(".") or type(error).__name__


def unfetchable(name: str, error: Exception) -> RuntimeError:
    """The error that names the ways out when the weights of an encoder can't be had."""
    ways = "fill the cache (HF_HOME) on a machine with the internet, give a local folder, or use the demo profile's encoder 'mini'"
    return RuntimeError(f"the weights of {name} can't be fetched ({reason(error)}): {ways}")


def answers(repository: str, revision: str | None = None) -> None:
    """Ask the hub for a repository, once and with a time limit: its clients wait without one, or try again for most of a minute."""
    from huggingface_hub import HfApi

    HfApi().model_info(repository, revision=revision, timeout=TIMEOUT)


def fetched(repository: str, name: str) -> Path:
    """The folder of a repository "owner/name" or "owner/name@revision" in the hub's cache, filled where the hub answers.

    Raises:
        RuntimeError: when it is neither there nor to be had; says the ways out.
    """
    from huggingface_hub import snapshot_download

    repository, _, revision = repository.partition("@")
    options: dict[str, Any] = {"revision": revision or None, "allow_patterns": FILES}
    try:
        answers(repository, revision or None)
        return Path(snapshot_download(repository, **options))
    except (
        Exception
    ) as error:  # of the network, the hub, the disk: each library below has its own classes
        try:
            return Path(snapshot_download(repository, **options, local_files_only=True))
        except Exception:
            raise unfetchable(name, error) from error


def expect(repository: str, name: str) -> None:
    """Fail soon where a repository is not in the hub's cache and the hub does not answer.

    Raises:
        RuntimeError: says the ways out.
    """
    from huggingface_hub import constants

    try:
        answers(repository)
    except Exception as error:
        if not (
            Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "snapshots"
        ).is_dir():
            raise unfetchable(name, error) from error


def read_json(path: Path) -> dict:
    """A JSON object from a file.

    Raises:
        ValueError: for a file that holds none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no JSON object")
    return found


def require(where: Path, found: dict, keys: tuple[str, ...], what: str) -> None:
    """Raise ValueError for what a configuration leaves open: libraries would fill it with their own values and say nothing."""
    if missing := [key for key in keys if key not in found]:
        raise ValueError(f"{where} says no {missing[0]}: a checkpoint must bring its {what}")


def weights_in(folder: Path, preferred: str) -> Path:
    """The folder's safetensors file.

    Raises:
        ValueError: for none, or several of which none is the preferred one.
    """
    found = sorted(folder.glob("*.safetensors"))
    if folder / preferred in found or len(found) == 1:
        return folder / preferred if folder / preferred in found else found[0]
    if found:
        raise ValueError(
            f"{folder} holds several weights ({', '.join(f.name for f in found)}): call those to be used {preferred}"
        )
    pickles = [
        f.name
        for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt")
        for f in sorted(folder.glob(pattern))
    ]
    instead = (
        f" but pickles ({', '.join(pickles)}), which can run code: save them as {preferred} where you trust them"
        if pickles
        else ""
    )
    ways = "convert them, or name a revision that has them (owner/name@refs/pr/N, where the hub's bot made one)"
    raise ValueError(f"{folder} holds no safetensors weights{instead or f': {ways}'}")


def check_tokenizer(folder: Path) -> None:
    """Raise ValueError where a folder does not say how texts become tokens."""
    files = {f.name for f in folder.iterdir()}
    if (
        not {
            "tokenizer.json",
            "vocab.txt",
            "tokenizer.model",
            "spiece.model",
            "sentencepiece.bpe.model",
            "vocab.json",
        }
        & files
    ):
        raise ValueError(
            f"{folder} holds no tokenizer.json (nor vocab.txt): a checkpoint must bring its tokenizer"
        )
    if "tokenizer_config.json" not in files:
        raise ValueError(
            f"{folder} holds no tokenizer_config.json: a checkpoint must bring its tokenizer"
        )


def needs_transformers(name: str) -> None:
    """Raise ImportError, with the command that helps, where transformers is missing."""
    try:
        import transformers  # noqa: F401
    except ImportError:
        raise ImportError(
            f'encoder {name} needs the package transformers: pip install "mmclust[paper]"'
        ) from None
