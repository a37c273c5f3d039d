"""The captions that the encoder `photo` is trained with.

A pool is a set of pictures with the same criteria: the rendered `fruit`, `card` and `face` of the
encoder `mini`, photographs of `playing` cards, the `photo`s of CIFAR-10, and the `produce` of
Fruits-360. The 1,000 classes of ImageNet have names, definitions and, from these, hypernyms.
"""

from __future__ import annotations

import random
import re
from functools import cache
from typing import Any

from tools import mini_captions
from tools.mini_captions import FULL, FULL_BELOW, PLAIN, PLAIN_BELOW, TEMPLATES, VOCABULARY

Entries = list[tuple[list[str], set]]

SPECIES = {  # kind of Fruits-360 in small letters, without a number: words for its species
    "apple": ["apple"], "apricot": ["apricot"], "avocado": ["avocado"], "banana": ["banana"],
    "cactus fruit": ["cactus fruit", "prickly pear"], "carambula": ["carambola", "star fruit"],
    "cherry": ["cherry"], "clementine": ["clementine"], "cocos": ["coconut"], "dates": ["date"],
    "granadilla": ["granadilla"], "grape": ["grapes", "grape"], "grapefruit": ["grapefruit"],
    "guava": ["guava"], "huckleberry": ["huckleberry"], "kaki": ["kaki", "persimmon"],
    "kiwi": ["kiwi"], "kumquats": ["kumquat"], "lemon": ["lemon"], "limes": ["lime"],
    "litchi": ["lychee", "litchi"], "mandarine": ["mandarin"], "mango": ["mango"],
    "maracuja": ["maracuja"], "nectarine": ["nectarine"], "orange": ["orange"],
    "papaya": ["papaya"], "passion fruit": ["passion fruit"], "peach": ["peach"],
    "pear": ["pear"], "pepino": ["pepino"], "pineapple": ["pineapple"],
    "pitahaya": ["dragon fruit", "pitahaya"], "plum": ["plum"], "pomegranate": ["pomegranate"],
    "quince": ["quince"], "raspberry": ["raspberry"], "salak": ["salak"],
    "strawberry": ["strawberry"], "tamarillo": ["tamarillo"], "tangelo": ["tangelo"],
}  # fmt: skip
COLOR_WORDS: Entries = VOCABULARY["fruit"]["color"]
PHOTO = VOCABULARY["photo"] | {"color": COLOR_WORDS}
POOLS: dict[str, dict[str, Entries]] = {
    "fruit": VOCABULARY["fruit"],
    "card": VOCABULARY["card"],
    "face": VOCABULARY["face"],
    "playing": VOCABULARY["card"],
    "photo": PHOTO,
    "produce": {"species": [(words, {words[0]}) for words in SPECIES.values()],
                "color": COLOR_WORDS},
}  # fmt: skip
FACE_TEMPLATES = {
    "emotion": [*TEMPLATES["emotion"], "a photo of a {} face"],
    "glasses": [*TEMPLATES["glasses"], "a photo of a face with {}"],
    "pose": [*TEMPLATES["pose"], "a face turned {}"],
}
PHOTO_COLORS = ["{}", "a {} object", "a photo of something {}", "photo with a color of {}",
                "object with a color of {}"]  # fmt: skip
POOL_TEMPLATES: dict[str, dict[str, list[str]]] = {
    pool: {criterion: TEMPLATES[criterion] for criterion in criteria}
    for pool, criteria in POOLS.items()
}
POOL_TEMPLATES["face"] = FACE_TEMPLATES
POOL_TEMPLATES["photo"]["color"] = PHOTO_COLORS
POOL_FULL = FULL | {
    "playing": [*FULL["card"], "a photo of the {order} of {suits}"],
    "photo": [*FULL["photo"], "a photo of {type}, a {class}"],
    "produce": ["a {species}", "a photo of a {species}, a fruit"],
}
POOL_PLAIN = PLAIN | {
    "playing": ["a playing card", "a photo of a playing card"],
    "produce": ["a fruit", "a photo of a fruit"],
}
NAME_TEMPLATES = ("{}", "a photo of a {}", "a {}", "a picture of a {}", "photo with a class of {}",
                  "photo with a type of {}", "object with a type of {}")  # fmt: skip
HEAD_ENDS = re.compile(
    r"[,;:()]| (?:of|with|that|used|having|for|in|which|from|by|on|to|as|who|made|native|resembling"
    r"|consisting|containing|designed|worn|formed|where|whose|at|found|and|or)\b"
)
NO_HEADS = {
    "breed", "variety", "type", "kind", "piece", "pair", "any", "one", "name", "group", "set", "a",
    "an", "the", "part", "form", "species", "genus", "device", "something", "developed", "bred",
    "originally", "living", "enough", "carried", "american", "based", "characterized", "common",
    "constructed", "covered", "equipped", "large", "marine", "mounted", "orange", "powered",
    "propelled", "served", "similar", "small", "smaller", "smallest", "support", "usually",
    "valued", "version", "yellow", "golden", "control", "memorial", "head", "place",
}  # fmt: skip
GROUPS = (  # word, first and last class of ImageNet that it is true for
    ("animal", 0, 397), ("fish", 0, 6), ("fish", 389, 397), ("bird", 7, 24), ("bird", 80, 100),
    ("bird", 127, 146), ("snake", 52, 68), ("dog", 151, 268), ("cat", 281, 285), ("bear", 294, 297),
    ("insect", 300, 326), ("butterfly", 321, 326), ("rabbit", 330, 332), ("monkey", 369, 382),
    ("food", 924, 969), ("fruit", 948, 957),
)  # fmt: skip
VEHICLES = {
    "car", "truck", "van", "bus", "ship", "boat", "aircraft", "airplane", "vehicle", "wagon",
    "locomotive", "cart", "bicycle", "motorcycle", "canoe", "submarine", "tractor", "train",
    "minivan", "limousine", "trolleybus", "ambulance", "taxi", "airliner",
}  # fmt: skip


def species(kind: str) -> str:
    """The species of a kind of Fruits-360: "Apple Golden 1" -> "apple"."""
    name = kind.lower()
    match = max((k for k in SPECIES if name == k or name.startswith(k + " ")), key=len)
    return SPECIES[match][0]


def is_rendered(pool: str) -> bool:
    return pool in ("fruit", "card", "face")


def true_words(pool: str, row: dict) -> dict[str, list[int]]:
    """Criterion -> the true entries; criteria that it lacks are left out."""
    out = {}
    for criterion, entries in POOLS[pool].items():
        photo = pool == "photo" and criterion != "color"
        value = row["class"] if photo else row.get(criterion)
        if value is not None:
            out[criterion] = [i for i, (_, values) in enumerate(entries) if value in values]
    return out


def hides(pool: str, row: dict, value: str | None) -> bool:
    """Whether this value completes a pair that is never trained on (rendered pools only)."""
    if value is None or pool not in ("fruit", "card"):
        return False
    return _hides(tuple((criterion, row[criterion]) for criterion in POOLS[pool]), value)


@cache
def _hides(shown: tuple[tuple[str, str], ...], value: str) -> bool:
    return mini_captions.completes_held_out_pair(dict(shown), value)


def caption(
    pool: str, row: dict, true: dict[str, list[int]], rng: random.Random
) -> tuple[str, str | None]:
    """A random caption, and the value that it names if it is about one criterion."""
    number = rng.random()
    if number < PLAIN_BELOW:
        return rng.choice(POOL_PLAIN[pool]), None
    entries = POOLS[pool]
    words = {c: rng.choice(entries[c][rng.choice(indices)][0]) for c, indices in true.items()}
    if number < FULL_BELOW:
        text = rng.choice(POOL_FULL[pool]).format(**words)
        if pool in ("photo", "produce") and "color" in words and rng.random() < 0.5:
            text = f"a {words['color']} {words.get('class', words.get('species'))}"
        return text, None
    criterion = rng.choice(list(words))
    return rng.choice(POOL_TEMPLATES[pool][criterion]).format(words[criterion]), row.get(criterion)


def head_noun(definition: str) -> str | None:
    """The noun of a definition: "small golden freshwater fishes of Europe" -> "fish"."""
    text = re.sub(r"\([^)]*\)", "", definition.lower())
    text = re.sub(r"^(?:any|one) of (?:various|several|numerous|many|a number of) ", "", text)
    text = re.sub(r"^(?:a|an|the) ", "", text)
    text = re.sub(r"^(?:\w+ )?(?:breed|variety|type|kind|pair|genus|species) of ", "", text)
    words = HEAD_ENDS.split(text)[0].split()
    if not words or words[-1] in NO_HEADS or not words[-1].isalpha() or len(words) > 6:
        return None
    return _singular(words[-1])


def _singular(word: str) -> str:
    for ending, replacement in (("ies", "y"), ("shes", "sh"), ("ches", "ch"), ("xes", "x")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word[: -len(ending)] + replacement
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        return word[:-1]
    return word


def imagenet_texts() -> list[dict[str, Any]]:
    """What the captions of each ImageNet class are built from: names, definition, hypernyms."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    rows = []
    for i in range(1000):
        name, _, definition = info.index_to_description(i, detailed=True).partition(": ")
        noun = head_noun(definition)
        hypernyms = [noun] if noun else []
        hypernyms += [group for group, first, last in GROUPS if first <= i <= last]
        names = name.split(", ")
        if not VEHICLES.isdisjoint([*hypernyms, *" ".join(names).split()]):
            hypernyms += ["vehicle", "transportation"]
        hypernyms = list(dict.fromkeys(hypernyms))
        rows.append({"names": names, "definition": definition, "hypernyms": hypernyms})
    counts: dict[str, int] = {}
    for row in rows:
        for noun in row["hypernyms"]:
            counts[noun] = counts.get(noun, 0) + 1
    for row in rows:  # a noun of one class is no group
        row["hypernyms"] = [noun for noun in row["hypernyms"] if counts[noun] > 1]
    return rows


def pool_captions() -> list[str]:
    """All words and templates of the pools, for the tokens that are learned."""
    texts = [w for criteria in POOLS.values() for e in criteria.values() for ws, _ in e for w in ws]
    texts += [t for criteria in POOL_TEMPLATES.values() for ts in criteria.values() for t in ts]
    texts += [t for ts in [*POOL_FULL.values(), *POOL_PLAIN.values(), NAME_TEMPLATES] for t in ts]
    return [re.sub(r"{\w*}", "*", text) for text in texts]


def training_vocabulary(imagenet: list[dict[str, Any]]) -> dict[str, dict[str, list[str]]]:
    """The words of all captions, by pool and criterion: what `vocabulary.json` contains."""
    vocabulary = {
        pool: {criterion: [w for ws, _ in entries for w in ws] for criterion, entries in c.items()}
        for pool, c in POOLS.items()
    }
    names = list(dict.fromkeys(name for row in imagenet for name in row["names"]))
    nouns = sorted({noun for row in imagenet for noun in row["hypernyms"]})
    return vocabulary | {"imagenet": {"class": names, "type": nouns}}
