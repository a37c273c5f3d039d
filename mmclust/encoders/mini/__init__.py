"""The encoder in this package: its weights, their model card (`README.md`), its training words.

It is loaded like any other open_clip model (`mmclust.encoders.open_clip`). Its training and its
scores are in `tools/train_mini.py` and `tools/evaluate_mini.py`, not here.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
# the same training after a quarter and half of its steps: name of the encoder -> name in the file
CHECKPOINTS = {"mini-quarter": "quarter", "mini-half": "half"}
PICTURES = (
    "mini was trained on rendered fruit, cards and faces, and small photographs (32 px) of ten "
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
