"""Folders as people have them: each layout of docs/folders.md, and what is said of it."""

import io
import os
import re
import unicodedata
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from helpers.pictures import picture

import mmclust as mm
from mmclust.experiments.workbench import Workbench
from mmclust.pipeline.notebooks import NOTEBOOKS, stamp

PAGE = Path(__file__).parents[1] / "docs" / "folders.md"
COLORS = {"a": "red", "b": "blue", "c": "green"}  # of the pictures a.png, b.png and c.png below
TABLE = "file,color\na.png,red\nb.png,blue\n"
READ = "2 pictures; color: 2 classes (blue, red), from labels.csv"
CLASSES = "class: 2 classes (cat, dog), from folders"
CYRILLIC = "file,class\na.png,é\n"

# Name of the layout -> its files (text: pictures; a pair: any other file, "->": a link) and what is
# said: the line, or a part of the error.
FOLDERS = {
    "only pictures": ("a.png b.png", "2 pictures; no labels"),
    "class folders": ("cat/1.png dog/1.png", f"2 pictures; {CLASSES}"),
    "criterion folders": (
        "color/red/a.png color/blue/b.png kind/card/a.png kind/coin/b.png",
        "2 pictures; color: 2 classes (blue, red), kind: 2 classes (card, coin), from folders",
    ),
    "a folder around all": (
        "color/red/a.png color/blue/b.png",
        "2 pictures; color: 2 classes (blue, red), from folders",
    ),
    "classes a folder deeper": (
        "color/light/red/a.png color/light/blue/b.png kind/card/a.png kind/coin/b.png",
        "2 pictures; color: 2 classes (blue, red), kind: 2 classes (card, coin), from folders",
    ),
    "one class folder": ("cat/1.png cat/2.png", "2 pictures; no labels"),
    "an empty class folder": (
        "cat/1.png dog/2.png bird/",
        f"2 pictures; {CLASSES}; without pictures: 1 folder (bird)",
    ),
    "a picture beside class folders": (
        "cat/1.png dog/2.png cover.png",
        f"2 pictures; {CLASSES}; left out, beside the class folders: 1 picture (cover.png)",
    ),
    "more pictures beside folders than in them": (
        "1.png 2.png 3.png old/4.png new/5.png",
        "5 pictures; no labels; most pictures are beside the folders",
    ),
    "a folder in a class folder": ("cat/1.png dog/2.png dog/puppy/3.png", f"3 pictures; {CLASSES}"),
    "folders of class folders": (
        "animal/cat/1.png vehicle/car/2.png",
        "2 pictures; no labels; no classes, as they hold folders, and no criteria, "
        "as their pictures differ: 2 folders (animal, vehicle)",
    ),
    "splits": (
        "train/cat/1.png train/dog/1.png test/cat/1.png test/dog/1.png",
        f"4 pictures; {CLASSES}; taken together: 2 splits (test, train)",
    ),
    "splits in class folders": (
        "cat/train/1.png cat/val/1.png dog/train/1.png",
        f"3 pictures; {CLASSES}; taken together: 2 splits (train, val)",
    ),
    "splits in criterion folders": (
        "color/train/red/a.png color/test/blue/b.png kind/train/x/a.png kind/test/y/b.png",
        "2 pictures; color: 2 classes (blue, red), kind: 2 classes (x, y), from folders; "
        "taken together: 2 splits (test, train)",
    ),
    "splits without classes": (
        "train/1.png test/1.png",
        "2 pictures; no labels; taken together: 2 splits (test, train)",
    ),
    "names that differ by case": (
        "cat/1.png Cat/2.png",
        "2 pictures; class: 2 classes (Cat, cat), from folders; "
        "different classes of class: 1 similar name (Cat / cat)",
    ),
    "a linked class folder": ("cat/1.png dog->elsewhere", f"2 pictures; {CLASSES}"),
    "a broken link": (
        "a.png b.png->gone.png",
        "1 pictures; no labels; "
        "left out, a link to nowhere or back, or no permission: 1 path (b.png)",
    ),
    "a link to a folder above": (
        "cat/1.png dog/2.png dog/all->..",
        f"2 pictures; {CLASSES}; "
        "left out, a link to nowhere or back, or no permission: 1 path (dog/all)",
    ),
}
