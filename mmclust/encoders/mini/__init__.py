"""The encoder in this package: its weights, their model card (`README.md`), its training words.

It is loaded like any other open_clip model (`mmclust.encoders.open_clip`). Its training and its
scores are in `tools/train_mini.py` and `tools/evaluate_mini.py`, not here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent
# the same training after a quarter and half of its steps: name of the encoder -> name in the file
CHECKPOINTS = {"mini-quarter": "quarter", "mini-half": "half"}
PICTURES = (
    "Its pictures were rendered fruit, cards and faces, and small photographs (32 px) of ten "
    "classes: airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck. It knows "
    "nothing else: for other pictures a real CLIP is needed."
)


def checkpoint_state(checkpoint: str) -> dict:
    """All tensors of a checkpoint, "quarter" or "half", by name.

    Its file lacks the rows of the token embedding that training does not change.
    """
    from safetensors.torch import load_file

    final = load_file(FOLDER / "open_clip_model.safetensors")
    changed = load_file(FOLDER / f"checkpoint-{checkpoint}.safetensors")
    table = final["token_embedding.weight"]
    table[changed.pop("token_ids")] = changed.pop("token_rows")
    return final | changed | {"token_embedding.weight": table}


def caption_words() -> set[str]:
    """The words of the captions that `mini` was trained with (`vocabulary.json`)."""
    vocabulary = json.loads((FOLDER / "vocabulary.json").read_text(encoding="utf-8"))
    return {word for lists in vocabulary.values() for words in lists.values() for word in words}


def training_vocabulary_note(words: Iterable[str]) -> str:
    """A sentence on which of these words were in the captions that `mini` was trained with."""
    words = list(words)
    taught = caption_words()
    known = ", ".join(word for word in words if word in taught)
    unknown = ", ".join(word for word in words if word not in taught)
    if not known:
        return f"mini never saw any of these words in a caption. {PICTURES}"
    rest = f"; it never saw {unknown}" if unknown else ""
    return f"mini was trained on captions with the words {known}{rest}. {PICTURES}"
