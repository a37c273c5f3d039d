"""The files to cite from: complete entries, the same authors in each, the version of the kit."""

import importlib
import re
from pathlib import Path

import pytest
import yaml

import mmclust as mm

ROOT = Path(__file__).parents[1]
CFF = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
PAPERS = {"MultiMaP": "2404.15655", "MultiSub": "2411.03978", "MultiDProxy": "2511.07274"}


def entries(text: str) -> list[dict[str, str]]:
    """The entries of a BibTeX file: kind, key, and its fields without the outer braces."""
    parsed = []
    rest = text.strip()
    while rest:
        kind, key, rest = re.match(r"@(\w+)\{(\w+),\s*(.*)", rest, re.S).groups()
        entry = {"kind": kind, "key": key}
        while not rest.startswith("}"):
            name, rest = re.match(r"(\w+)\s*=\s*\{(.*)", rest, re.S).groups()
            end, depth = 0, 1
            while depth:
                depth += {"{": 1, "}": -1}.get(rest[end], 0)
                end += 1
            entry[name] = " ".join(rest[: end - 1].split())
            rest = re.match(r",?\s*(.*)", rest[end:], re.S).group(1)
        parsed.append(entry)
        rest = rest[1:].strip()
    return parsed


BIB = entries((ROOT / "CITATION.bib").read_text(encoding="utf-8"))


def test_a_damaged_entry_is_noticed():
    with pytest.raises((AttributeError, IndexError)):
        entries("@article{key, title = {A {B}, year = {2024} }")


def test_the_kit_can_be_cited_with_its_version():
    entry = BIB[-1]
    assert entry["kind"] == "software" and len(BIB) == len(PAPERS) + 1
    assert CFF["version"] == entry["version"] == mm.__version__
    assert CFF["title"] == entry["title"]
    assert {"cff-version", "message", "authors", "license"} <= CFF.keys()


@pytest.mark.parametrize("method", PAPERS)
def test_a_paper_has_the_same_authors_wherever_it_is_cited(method):
    number = PAPERS[method]
    reference = next(r for r in CFF["references"] if number in r["url"])
    entry = next(e for e in BIB if number in e.get("url", ""))
    docstring = importlib.import_module(getattr(mm, method).__module__).__doc__
    docstring = " ".join(docstring.split())
    people = [(a["given-names"], a["family-names"]) for a in reference["authors"]]
    assert entry["author"] == " and ".join(f"{last}, {first}" for first, last in people)
    assert ", ".join(f"{first} {last}" for first, last in people) in docstring
    assert entry["title"] == reference["title"] and reference["title"] in docstring
    assert int(entry["year"]) == reference["year"]
    assert entry["booktitle"] == reference["conference"]["name"]
    if "start" in reference:
        assert entry["pages"] == f"{reference['start']}--{reference['end']}"
