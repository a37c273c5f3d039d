"""The embedded encoder: weights, their card (`README.md`), and the commands that made and measured them."""

from __future__ import annotations


def what_it_saw(words) -> str:
    """A sentence on which of these words stood in the captions that `mini` was trained with."""
    from mmclust.encoders.mini.captions import VOCABULARY

    taught = {w for criteria in VOCABULARY.values() for entries in criteria.values() for synonyms, _ in entries for w in synonyms}
    known, unknown = [w for w in words if w in taught], [w for w in words if w not in taught]
    said = f"mini learned from captions with the words {', '.join(known)}" if known else "mini never saw any of these words in a caption"
    rest = f"; it never saw {', '.join(unknown)}" if known and unknown else ""
    return (
        f"{said}{rest}. Its pictures were rendered fruit, cards and faces, and small photographs (32 px) of ten kinds: airplane, automobile, "
        "bird, cat, deer, dog, frog, horse, ship, truck. Of anything else it knows nothing; profile paper uses an encoder that does."
    )
