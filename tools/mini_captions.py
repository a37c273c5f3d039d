"""What the embedded encoder is told about its training pictures: words, templates, full descriptions.

`VOCABULARY[domain][criterion]` lists (synonyms, values for which they are true). Shape is mentioned nowhere: notebook 11 asks for a
criterion that the encoder was never told about.
"""

from __future__ import annotations

from collections.abc import Iterable

from mmclust.data.cifar10_labels import PHOTO_CLASSES, PHOTO_ENVIRONMENT, PHOTO_TYPE
from mmclust.data.rendered import COLORS, EMOTIONS, FRUITS, GLASSES, POSES, RANKS, SUITS


def _each(values: Iterable[str], synonyms: dict | None = None) -> list[tuple[list[str], set]]:
    return [([v, *(synonyms or {}).get(v, [])], {v}) for v in values]


VOCABULARY = {
    "fruit": {
        "color": _each(COLORS, {"purple": ["violet"], "turquoise": ["cyan"], "gray": ["grey"], "red": ["crimson"]}),
        "species": _each(FRUITS, {"grapes": ["grape"], "chili": ["pepper"]}),
    },
    "card": {
        "order": _each(RANKS, {r: [i] for r, i in RANKS.items() if i.isdigit()} | {"jack": ["knave"]}),
        "suits": _each(SUITS),
    },
    "face": {
        "emotion": _each(
            EMOTIONS,
            {"happy": ["smiling", "joyful"], "sad": ["unhappy"], "angry": ["furious"], "neutral": ["calm"], "surprised": ["astonished"],
             "sleepy": ["tired"], "silly": ["playful"], "scared": ["afraid"]},
        ),
        "glasses": _each(GLASSES, {"open": ["open eyes"], "spectacles": ["eyeglasses"]}),
        "pose": _each(POSES, {"straight": ["forward"], "tilted": ["leaning"], "inverted": ["upside down"]}),
    },
    "photo": {
        "class": _each(PHOTO_CLASSES, {"automobile": ["car"], "airplane": ["plane"], "ship": ["boat"]}),
        "type": [
            (["animals", "animal"], {c for c in PHOTO_CLASSES if PHOTO_TYPE[c] == "animals"}),
            (["transportation", "vehicles", "vehicle"], {c for c in PHOTO_CLASSES if PHOTO_TYPE[c] == "transportation"}),
        ],
        "environment": [
            *(([e], {c for c in PHOTO_CLASSES if PHOTO_ENVIRONMENT[c] == e}) for e in ("land", "air", "water")),
            (["sky"], {"airplane", "bird"}), (["sea", "ocean"], {"ship"}), (["pond"], {"frog"}), (["road", "street"], {"automobile", "truck"}),
            (["field", "grassland"], {"horse", "deer"}), (["house", "home"], {"cat", "dog"}),
        ],
    },
}  # fmt: skip
TEMPLATES = {
    "color": ["{}", "a {} fruit", "fruit with a color of {}", "a photo of a {} fruit"],
    "species": ["{}", "a {}", "fruit with a species of {}", "a photo of a {}"],
    "order": ["{}", "card with number of {}", "card with order of {}", "a playing card with a {}"],
    "suits": ["{}", "card with suits of {}", "a card of {}", "a playing card of {}"],
    "emotion": ["{}", "face with emotion of {}", "a {} face", "a {} person"],
    "glasses": ["{}", "face with glasses of {}", "face with glass of {}", "a face with {}"],
    "pose": ["{}", "face with pose of {}", "a face looking {}"],
    "class": ["{}", "a photo of a {}", "a {}", "photo with a class of {}"],
    "type": ["{}", "photo with a type of {}", "a photo of {}"],
    "environment": ["{}", "photo with an environment of {}", "a photo taken in the {}"],
}
FULL = {
    "fruit": ["a {color} {species}", "a photo of a {color} {species}"],
    "card": ["the {order} of {suits}", "a playing card, the {order} of {suits}"],
    "face": [
        "a {emotion} face with {glasses} looking {pose}",
        "a {emotion} person with {glasses}, {pose}",
    ],
    "photo": ["a photo of a {class}", "a photo of a {class}, {type} in the {environment}"],
}
PLAIN = {
    "fruit": ["a fruit"],
    "card": ["a playing card"],
    "face": ["a face", "a person"],
    "photo": ["a photo"],
}


def held_out(row: dict) -> bool:
    """A fifth of the color x species and order x suits pairs is never trained on: every value keeps four fifths of its partners."""
    if "color" in row:
        i, j = list(COLORS).index(row["color"]), FRUITS.index(row["species"])
    elif "order" in row:
        i, j = list(RANKS).index(row["order"]), list(SUITS).index(row["suits"])
    else:
        return False
    return (i + j) % 5 == 0
