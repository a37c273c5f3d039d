"""The encoder for photographs in this package; its model card is `README.md`.

It is loaded like any other open_clip model (`mmclust.encoders.open_clip`). Its training and its
scores are in `tools/train_photo.py` and `tools/evaluate_photo.py`, not here.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
PICTURES = (
    "photo was trained on playing cards, photographs (32 px) of ten classes, outlines of fruit, "
    "and rendered fruit, cards and faces; it learned the names and definitions of ImageNet's "
    "1,000 classes from a classifier. For other words a real CLIP is needed."
)
