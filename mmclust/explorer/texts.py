"""The texts and choices of the explorer's form."""

from __future__ import annotations

from mmclust.data.shifts import SHIFTS
from mmclust.explorer.session import METHOD_LABELS, WORD_LISTS

WORLD_LABELS = {
    "demo-fruit": "rendered fruit",
    "demo-card": "rendered playing cards",
    "demo-face": "rendered faces",
}
LABELS = {
    "pictures": "Pictures", "keyword": "Keyword", "words": "Reference words",
    "second": "Second keyword", "second_words": "Second reference words", "method": "Method",
    "second_method": "Second method", "clusters": "Clusters", "encoder": "Encoder",
    "shift": "Light and drawing", "word_list": "Lists of words", "run": "the note at the button",
}  # fmt: skip
KEYWORD_FIELDS = ("keyword", "second")
WORDS_FIELDS = ("words", "second_words")
N_CHIPS = 6  # keywords to pick with one click
STRIP_LENGTH = 21  # pictures in the form
ENCODERS = ("mini", "photo", "mini-half", "mini-quarter")  # offered; others can be typed
NO_KERNEL = (
    "The explorer needs a running kernel: run this notebook in JupyterLab, "
    "or show it as a web page with python run_all.py explore."
)
METHODS = list(zip(METHOD_LABELS.values(), METHOD_LABELS))
SECOND_METHODS = [("the same", ""), *METHODS]
STRENGTHS = {"half": 0.5, "full": 1.0}
SHIFT_CHOICES = [
    ("as they are", ()),
    *(
        (f"{name}, {amount}", (name, strength))
        for name in SHIFTS
        for amount, strength in STRENGTHS.items()
    ),
]
WORD_LIST_CHOICES = list(WORD_LISTS)
METHOD_NOTES = {
    "CLIP_GPT": "one cluster per word that is nearest to a picture; nothing is learned",
    "KMeans": "keyword and words only name the clusters; they may be empty",
}
