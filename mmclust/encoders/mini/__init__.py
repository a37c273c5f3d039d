"""The embedded encoder: weights, their card (`README.md`), and the commands that made and measured them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

CHECKPOINTS = {
    "mini-quarter": "quarter",
    "mini-half": "half",
}  # the same training at a quarter and at half of its steps


def checkpoint_state(part: str) -> dict:
    """What a checkpoint ("quarter", "half") has of its own: every tensor but the rows of the token embedding that training leaves alone."""
    from safetensors.torch import load_file

    here = Path(__file__).parent
    whole, own = (
        load_file(here / "open_clip_model.safetensors"),
        load_file(here / f"checkpoint-{part}.safetensors"),
    )
    table = whole["token_embedding.weight"]
    table[own.pop("token_ids")] = own.pop("token_rows")
    return whole | own | {"token_embedding.weight": table}


def write_checkpoint(folder: Path, part: str) -> None:
    """Keep of an exported checkpoint (`DIR/quarter`, `DIR/half` of the training command) what differs from the final weights."""
    from safetensors.torch import load_file, save_file

    here = Path(__file__).parent
    final, state = (
        load_file(here / "open_clip_model.safetensors"),
        load_file(folder / "open_clip_model.safetensors"),
    )
    table = state.pop("token_embedding.weight")
    ids = (table != final["token_embedding.weight"]).any(1).nonzero()[:, 0]
    save_file(
        state | {"token_ids": ids, "token_rows": table[ids].contiguous()},
        here / f"checkpoint-{part}.safetensors",
    )


def training_vocabulary_note(words: Iterable[str]) -> str:
    """A sentence on which of these words stood in the captions that `mini` was trained with."""
    from mmclust.encoders.mini.captions import VOCABULARY

    taught = {
        w
        for criteria in VOCABULARY.values()
        for entries in criteria.values()
        for synonyms, _ in entries
        for w in synonyms
    }
    known, unknown = [w for w in words if w in taught], [w for w in words if w not in taught]
    said = (
        f"mini learned from captions with the words {', '.join(known)}"
        if known
        else "mini never saw any of these words in a caption"
    )
    rest = f"; it never saw {', '.join(unknown)}" if known and unknown else ""
    return (
        f"{said}{rest}. Its pictures were rendered fruit, cards and faces, and small photographs (32 px) of ten kinds: airplane, automobile, "
        "bird, cat, deer, dog, frog, horse, ship, truck. Of anything else it knows nothing: there, a real CLIP is needed."
    )
