"""The encoders in this package: `mini` for rendered pictures, `photo` for photographs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from mmclust.encoders import mini, photo

if TYPE_CHECKING:
    from mmclust.data.images import ImageDataset

PICTURES = {"mini": mini.PICTURES, "photo": photo.PICTURES}
FOLDERS = dict.fromkeys(("mini", *mini.CHECKPOINTS), mini.FOLDER) | {"photo": photo.FOLDER}


def caption_words(folder: Path) -> set[str]:
    """The words of the captions that an encoder was trained with (`vocabulary.json`)."""
    vocabulary = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
    return {word for lists in vocabulary.values() for words in lists.values() for word in words}


def training_vocabulary_note(name: str, words: Iterable[str]) -> str:
    """A sentence on which of these words were in the captions that an encoder was trained with."""
    words = list(words)
    taught = caption_words(FOLDERS[name])
    unknown = [word for word in words if word not in taught]
    seen = f"{len(words) - len(unknown)} of these {len(words)} words, but not {', '.join(unknown)}"
    if not unknown:
        seen = f"all of these {len(words)} words"
    elif len(unknown) == len(words):
        seen = "none of these words"
    return f"In its training captions, {name} saw {seen}. {PICTURES[name]}"


def encoder_for(
    data: ImageDataset, named: str | None = None, default: str = "mini"
) -> tuple[str, str]:
    """The name of the encoder for these pictures, and a sentence that says why.

    Args:
        named: the encoder that the user has named, which is taken in any case.
        default: the profile's encoder. Instead of `mini`, `photo` is taken for pictures in files.
    """
    if named or default != "mini":
        reason = "you named it" if named else "the profile names it"
        return named or default, f"encoder {named or default}: {reason}"
    if any("file" in row for row in data.rows[:1]):
        return "photo", "encoder photo: it is for pictures in files; mini is for rendered worlds"
    return "mini", "encoder mini: it is for rendered worlds; photo is for pictures in files"
