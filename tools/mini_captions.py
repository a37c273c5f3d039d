"""The captions that the embedded encoder is trained with: words, templates, full descriptions.

`VOCABULARY[domain][criterion]` lists (synonyms, the values for which they are true). No caption
mentions a shape, because notebook 11 needs a criterion that the encoder was never trained on.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from mmclust.data.cifar10_labels import PHOTO_CLASSES, PHOTO_ENVIRONMENT, PHOTO_TYPE
from mmclust.data.rendered import COLORS, EMOTIONS, FRUITS, GLASSES, POSES, RANKS, SUITS


def _each(values: Iterable[str], synonyms: dict | None = None) -> list[tuple[list[str], set]]:
    return [([v, *(synonyms or {}).get(v, [])], {v}) for v in values]


RANK_SYNONYMS = {rank: [index] for rank, index in RANKS.items() if index.isdigit()}
ANIMALS = {c for c in PHOTO_CLASSES if PHOTO_TYPE[c] == "animals"}
VOCABULARY = {
    "fruit": {
        "color": _each(COLORS, {"purple": ["violet"], "turquoise": ["cyan"], "gray": ["grey"],
                                "red": ["crimson"]}),
        "species": _each(FRUITS, {"grapes": ["grape"], "chili": ["pepper"]}),
    },
    "card": {
        "order": _each(RANKS, RANK_SYNONYMS | {"jack": ["knave"]}),
        "suits": _each(SUITS),
    },
    "face": {
        "emotion": _each(
            EMOTIONS,
            {"happy": ["smiling", "joyful"], "sad": ["unhappy"], "angry": ["furious"],
             "neutral": ["calm"], "surprised": ["astonished"], "sleepy": ["tired"],
             "silly": ["playful"], "scared": ["afraid"]},
        ),
        "glasses": _each(GLASSES, {"open": ["open eyes"], "spectacles": ["eyeglasses"]}),
        "pose": _each(POSES, {"straight": ["forward"], "tilted": ["leaning"],
                              "inverted": ["upside down"]}),
    },
    "photo": {
        "class": _each(PHOTO_CLASSES, {"automobile": ["car"], "airplane": ["plane"],
                                       "ship": ["boat"]}),
        "type": [
            (["animals", "animal"], ANIMALS),
            (["transportation", "vehicles", "vehicle"], set(PHOTO_CLASSES) - ANIMALS),
        ],
        "environment": [
            *(([e], {c for c in PHOTO_CLASSES if PHOTO_ENVIRONMENT[c] == e})
              for e in ("land", "air", "water")),
            (["sky"], {"airplane", "bird"}), (["sea", "ocean"], {"ship"}), (["pond"], {"frog"}),
            (["road", "street"], {"automobile", "truck"}),
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
# A random number below the first: only the domain; below the second: the full description.
PLAIN_BELOW = 0.08
FULL_BELOW = 0.55


def training_vocabulary() -> dict[str, dict[str, list[str]]]:
    """The words of all captions, by domain and criterion: what `vocabulary.json` contains."""
    return {
        domain: {
            criterion: [word for synonyms, _ in entries for word in synonyms]
            for criterion, entries in criteria.items()
        }
        for domain, criteria in VOCABULARY.items()
    }


def held_out(row: dict) -> bool:
    """Whether a color x species or order x suits pair is never trained on.

    This is a fifth of them; each value is trained with four fifths of its partners.
    """
    if "color" in row:
        i = list(COLORS).index(row["color"])
        j = FRUITS.index(row["species"])
    elif "order" in row:
        i = list(RANKS).index(row["order"])
        j = list(SUITS).index(row["suits"])
    else:
        return False
    return (i + j) % 5 == 0


def true_words(domain: str, row: dict) -> dict[str, list[int]]:
    """Criterion -> indices of the vocabulary entries that are true for a picture."""
    out = {}
    for criterion, entries in VOCABULARY[domain].items():
        value = row["class"] if domain == "photo" else row[criterion]
        out[criterion] = [i for i, (_, values) in enumerate(entries) if value in values]
    return out


def caption(domain: str, row: dict, rng: random.Random) -> tuple[str, str | None]:
    """A random caption, and the value that it names if it is about one criterion.

    It is the full description, one criterion, or only that it is a picture of the domain.
    """
    number = rng.random()
    if number < PLAIN_BELOW:
        return rng.choice(PLAIN[domain]), None
    words = {
        criterion: rng.choice(VOCABULARY[domain][criterion][rng.choice(indices)][0])
        for criterion, indices in true_words(domain, row).items()
    }
    if number < FULL_BELOW:
        return rng.choice(FULL[domain]).format(**words), None
    criterion = rng.choice(list(words))
    return rng.choice(TEMPLATES[criterion]).format(words[criterion]), row.get(criterion)


def completes_held_out_pair(row: dict, value: str) -> bool:
    """Whether `value` and a value of the picture are a pair that is never trained on.

    Training never shows such a pair, so it could learn that a red picture is not an apple because
    it is red. Therefore such a value is not used as a wrong answer either.
    """
    values = {"color": COLORS, "species": FRUITS, "order": RANKS, "suits": SUITS}
    return any(
        criterion in row and value in known and held_out(row | {criterion: value})
        for criterion, known in values.items()
    )
