"""Folders as people have them: each layout of docs/folders.md, and what is said of it."""

import io
import json
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

# layout -> its pictures, folders ("x/") and links ("x->y"), and what is printed
TREES = {
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
    "a folder in a class folder": (
        "cat/1.png dog/2.png dog/puppy/3.png",
        f"3 pictures; {CLASSES}; taken into the outer class: 1 picture (dog/puppy/3.png)",
    ),
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
        "taken as different classes of class: 1 group (Cat / cat)",
    ),
    "a linked class folder": ("cat/1.png dog->elsewhere", f"2 pictures; {CLASSES}"),
    "a broken link": (
        "a.png b.png->gone.png",
        "1 picture; no labels; "
        "left out, a link to nowhere or back, or no permission: 1 path (b.png)",
    ),
    "a link to a folder above": (
        "cat/1.png dog/2.png dog/all->..",
        f"2 pictures; {CLASSES}; "
        "left out, a link to nowhere or back, or no permission: 1 path (dog/all)",
    ),
}
# layout -> its pictures, the table's name and content, and what is printed
TABLES = {
    "labels.csv": ("a.png b.png", "labels.csv", TABLE, READ),
    "several criteria": (
        "in/a.png in/b.png",
        "labels.csv",
        "file,color,kind\nin/a.png,red,card\nin/b.png,blue,card\n",
        "2 pictures; color: 2 classes (blue, red), kind: 1 class (card), from labels.csv",
    ),
    "pictures that the table does not list": (
        "a.png b.png c.png x.png",
        "labels.csv",
        TABLE,
        f"{READ}; left out, not in labels.csv: 2 pictures (c.png, x.png)",
    ),
    "another case": ("A.PNG b.png", "Labels.CSV", TABLE, READ.replace("labels.csv", "Labels.CSV")),
    "names without suffix": ("a.png b.jpg", "labels.csv", "file,color\na,red\nb,blue\n", READ),
    "Windows separators": (
        "in/a.png in/b.png",
        "labels.csv",
        "file,color\r\nin\\a.png,red\r\nin\\b.png,blue\r\n",
        READ,
    ),
    "another name of the column": (
        "a.png b.png",
        "labels.csv",
        TABLE.replace("file", "Image"),
        READ,
    ),
    "spaces and empty rows": (
        "a.png b.png",
        "labels.csv",
        "\n File , color \na.png, red\n,\n b.png,blue \n\n",
        READ,
    ),
    "tabs": (
        "a.png b.png",
        "labels.tsv",
        TABLE.replace(",", "\t"),
        READ.replace("labels.csv", "labels.tsv"),
    ),
    "semicolons and a byte order mark": (
        "a.png b.png",
        "labels.csv",
        TABLE.replace(",", ";").encode("utf-8-sig"),
        READ,
    ),
    "commas in a column's name": (
        "a.png b.png",
        "labels.csv",
        "file;color, mostly, seen\na.png;red\nb.png;blue\n",
        READ.replace("color", "color, mostly, seen"),
    ),
    "UTF-16": ("a.png b.png", "labels.csv", TABLE.replace(",", "\t").encode("utf-16"), READ),
    "Windows-1252": (
        "a.png",
        "labels.csv",
        "file;Größe\na.png;groß\n".encode("cp1252"),
        "1 picture; Größe: 1 class (groß), from labels.csv; "
        "labels.csv is not UTF-8: read as Windows-1252",
    ),
    "accents, composed and decomposed": (
        unicodedata.normalize("NFD", "aé.png bé.png"),
        "labels.csv",
        "file,color\naé.png,red\nbé.png,blue\n",
        READ,
    ),
    "an index column": (
        "a.png b.png",
        "labels.csv",
        ",file,color\n0,a.png,red\n1,b.png,blue\n",
        f"{READ}; left out: a column without a name",
    ),
    "a column of splits": (
        "a.png b.png",
        "labels.csv",
        "file,color,split\na.png,red,train\nb.png,blue,test\n",
        f"{READ}; taken together: 2 splits (test, train)",
    ),
    "labels that differ by case": (
        "1.png 2.png 3.png",
        "labels.csv",
        "file,size\n1.png,Big\n2.png,big\n3.png,BIG\n",
        "3 pictures; size: 3 classes (BIG, Big, big), from labels.csv; "
        "taken as different classes of size: 1 group (BIG / Big / big)",
    ),
    "labels that differ by number format": (
        "1.png 2.png 3.png",
        "labels.csv",
        "file,age\n1.png,1\n2.png,1.0\n3.png,2\n",
        "3 pictures; age: 3 classes (1, 1.0, 2), from labels.csv; "
        "taken as different classes of age: 1 group (1 / 1.0)",
    ),
    "a workbook": (
        "a.png",
        "labels.xlsx",
        b"PK",
        "1 picture; no labels; not read, as labels are read from labels.csv: 1 table (labels.xlsx)",
    ),
    "a table in another folder": (
        "in/a.png in/b.png",
        "in/labels.csv",
        TABLE,
        "2 pictures; no labels; not read, as labels are read from labels.csv: "
        "1 table (in/labels.csv)",
    ),
}
# what is refused -> its pictures, the table (or "") and what the error says
REFUSED = {
    "no column of pictures": (
        "a.png",
        "name,color\na.png,red\n",
        "labels.csv has no column 'file', only: name, color",
    ),
    "an empty cell": (
        "a.png b.png",
        "file,color\na.png,red\nb.png,\n",
        "b.png has no label for 'color' (1 such cells): fill it, or remove the row or the column",
    ),
    "a missing value": (
        "a.png b.png",
        "file,color\na.png,NaN\nb.png,N/A\n",
        "a.png has no label for 'color' (2 such cells): fill it, or remove the row or the column",
    ),
    "a missing picture": (
        "in/a.png",
        "file,color\na.png,red\n",
        "lists 'a.png', which is missing: did you mean in/a.png?",
    ),
    "a name without suffix of two pictures": (
        "a.png a.jpg",
        "file,color\na,red\n",
        "lists 'a', which is missing: did you mean a.jpg or a.png?",
    ),
    "a row without a picture": (
        "a.png",
        "file,color\n,red\na.png,red\n",
        "lists '', which is missing: correct its row",
    ),
    "a duplicate picture": (
        "a.png",
        "file,color\na.png,red\nA.png,blue\n",
        "duplicate file a.png in",
    ),
    "a duplicate column": (
        "a.png",
        "file,color,color\na.png,red,blue\n",
        "duplicate column 'color' in",
    ),
    "a row longer than the header": (
        "a.png",
        "file,color\na.png,red,dark\n",
        "Expected 2 fields in line 2, saw 3): write a row per picture, "
        "and a cell that contains ',' in quotes",
    ),
    "a quote that does not end": (
        "a.png b.png",
        'file,color\na.png,"red\nb.png,blue\n',
        "EOF inside string",
    ),
    "a table without rows": ("a.png", "file,color\n", "labels.csv lists no pictures"),
    "a workbook named labels.csv": (
        "a.png",
        b"PK\3\4\0\0",
        'labels.csv is not a text file: save the table as "CSV UTF-8"',
    ),
    "two tables": (
        "a.png labels.tsv",
        TABLE,
        "has 2 tables (labels.csv, labels.tsv): keep one",
    ),
    "a file that is no picture": (
        "a.png",
        "file,color\nlabels.csv,red\na.png,blue\n",
        "lists 'labels.csv', which is missing",
    ),
    "a picture missing in a criterion": (
        "color/red/a.png color/red/b.png color/red/c.png kind/x/a.png kind/x/b.png",
        "",
        "c.png is not in both 'color' and 'kind' (1 such files): load each criterion's folder "
        "by itself, or write labels.csv",
    ),
    "a duplicate name in a criterion": (
        "color/red/a.png color/blue/a.png kind/x/a.png",
        "",
        "duplicate file name a.png below",
    ),
}


def build(root, entries, table="labels.csv", content=""):
    """A folder of small pictures, empty folders "x/" and links "x->y", with a table."""
    (root / "elsewhere").mkdir()
    (root / "elsewhere" / "z.png").write_bytes(picture("gray"))
    folder = root / "photos"
    folder.mkdir()
    for entry in entries.split():
        path, _, target = entry.partition("->")
        place = folder / path
        if entry.endswith("/"):
            place.mkdir()
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if target:
            place.symlink_to(root / target if target == "elsewhere" else target)
        else:
            place.write_bytes(picture("gray"))
    if content:
        (folder / table).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def printed(folder, encoding="utf-8", **options):
    """The data set of a folder, and what loading it prints."""
    out = io.TextIOWrapper(io.BytesIO(), encoding)
    with redirect_stdout(out):
        data = mm.load_folder(folder, **options)
    out.flush()
    return data, out.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("name", [*TREES, *TABLES])
def test_a_layout_is_understood_and_said(tmp_path, name):
    *layout, says = {**TREES, **TABLES}[name]
    folder = build(tmp_path, *layout)
    data, line = printed(folder)
    assert line == f"{folder}: {says}\n"
    assert data.provenance == says and says.startswith(str(len(data)))
    for row in data.rows:
        if "color" in data.criteria:
            assert row["color"] == COLORS[Path(row["file"]).name[0].lower()]
    assert [picture.size for picture in data.images] == [(40, 30)] * len(data)


def test_pictures_of_one_name_in_two_albums_are_not_one_picture(tmp_path):
    for album, color in [("2023/beach", "blue"), ("2024/alps", "green")]:
        (tmp_path / album).mkdir(parents=True)
        for number in range(4):  # cameras count from 1 again
            (tmp_path / album / f"IMG_{number}.png").write_bytes(picture(color))
    data, line = printed(tmp_path)
    assert len(data) == 8 and "no criteria, as their pictures differ" in line
    for number in range(3):  # now most of them are the same
        same = (tmp_path / "2023/beach" / f"IMG_{number}.png").read_bytes()
        (tmp_path / "2024/alps" / f"IMG_{number}.png").write_bytes(same)
    assert len(mm.load_folder(tmp_path, verbose=False)) == 4


BESIDE = "left out, beside the class folders: 2 pictures (bad.png, cover.png)"
LABELED = f"2 pictures; class: 2 classes (cat, dog), from folders; {BESIDE}"
ALL = "3 pictures; no labels; left out, can't be decoded: 1 picture (bad.png)"


@pytest.mark.parametrize("keyword, says", [("Classes", LABELED), ("color", ALL), (None, ALL)])
def test_labels_count_only_if_the_keyword_is_one_of_their_criteria(tmp_path, capsys, keyword, says):
    folder = build(tmp_path, "cat/1.png dog/2.png cover.png bad.png")
    (folder / "bad.png").write_bytes(picture("gray")[:60])
    data, criterion = mm.load_folder_for(folder, keyword, on_corrupt="skip", domain="pet")
    assert capsys.readouterr().out == f"{folder}: {says}\n"
    assert criterion == {"Classes": "class"}.get(keyword, keyword)
    assert data.domain == "pet" and len(data) == int(says[0])


def test_without_a_keyword_the_first_criterion_of_a_table_counts(tmp_path):
    folder = build(tmp_path, "cat/1.png dog/2.png", content="file,color\ncat/1.png,red\n")
    data, criterion = mm.load_folder_for(folder, None, verbose=False)
    assert criterion == "color" and data.classes == {"color": ["red"]}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_clear_meaning_is_refused(tmp_path, name):
    entries, content, says = REFUSED[name]
    folder = build(tmp_path, entries, "labels.csv", content)
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(says)):
        mm.load_folder(folder)


def test_the_page_lists_each_layout_and_what_is_said():
    rows = re.findall(r"^\| ([^|`]+?) \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.M)
    page = {name: text for name, text in rows if name not in ("layout", "problem")}
    layouts = TREES | TABLES | REFUSED
    assert list(page) == list(layouts)
    for name, (*_, says) in layouts.items():
        assert f"`{says}`" in page[name], name


def test_complete_paths_in_a_table(tmp_path):
    folder = build(
        tmp_path, "a.png b.png", "labels.csv", f"file,color\n{tmp_path}/photos/a.png,red\n"
    )
    data, line = printed(folder)
    assert [row["file"] for row in data.rows] == ["a.png"] and "1 picture (b.png)" in line


def test_a_line_can_be_printed_everywhere(tmp_path):
    folder = build(tmp_path, "照片/1.png b/2.png")
    assert "\\u7167\\u7247" in printed(folder, "ascii")[1]
    os.rename(os.fsencode(folder / "b"), os.fsencode(folder) + b"/\xe9")  # no UTF-8
    assert "\\udce9" in printed(folder)[1]
    assert printed(folder, verbose=False)[1] == ""


def test_some_pictures_of_a_folder(tmp_path, capsys):
    folder = build(tmp_path, " ".join(f"{c}/{c}{i}.png" for c in "ab" for i in range(4)))
    data = mm.load_dataset(str(folder), n=3, seed=1)
    assert len(data) == len(data.labels["class"]) == 3
    assert "3 of these pictures are drawn with seed 1" in capsys.readouterr().out
    assert data.rows == mm.load_dataset(str(folder), n=3, seed=1).rows
    assert data.rows != mm.load_dataset(str(folder), n=3, seed=2).rows
    (experiment,) = mm.grid(dataset=str(folder), criterion="class", method="KMeans", n=3, seed=1)
    assert Workbench().dataset(experiment).rows == data.rows
    with pytest.raises(TypeError, match="size"):
        mm.load_dataset(str(folder), size=64)


def test_links_in_a_folder_of_a_run(tmp_path):
    folder = build(tmp_path, "cat/1.png dog->elsewhere gone.png->nowhere.png")
    before = stamp(NOTEBOOKS / "18_your_pictures.ipynb", {"data": str(folder)})
    (tmp_path / "elsewhere" / "new.png").write_bytes(picture("red"))
    assert stamp(NOTEBOOKS / "18_your_pictures.ipynb", {"data": str(folder)}) != before


@pytest.mark.parametrize("name", ["18_your_pictures", "03_zero_shot", "08_tsne"])
@pytest.mark.parametrize("in_the_profile", [True, False])
def test_a_notebook_is_out_of_date_when_a_folder_that_it_reads_has_changed(
    tmp_path, name, in_the_profile
):
    folder = build(tmp_path, "photos/cat/1.png photos/cat/2.png photos/dog/3.png") / "photos"
    chosen = {
        "18_your_pictures": {"data": str(folder)},
        "03_zero_shot": {"criteria": {str(folder): ["class"]}},
        "08_tsne": {"world": str(folder), "keywords": ["class"]},
    }[name]
    profile = tmp_path / "mine.yaml"
    entry = chosen if in_the_profile else {}
    profile.write_text(json.dumps({"base": "demo", "notebooks": {name: entry}}))
    parameters = {"profile": str(profile)} | ({} if in_the_profile else chosen)
    stamps = []

    def same():
        stamps.append(stamp(NOTEBOOKS / f"{name}.ipynb", parameters))
        return stamps[-1] in stamps[:-1]

    assert not same() and same()
    (folder / "labels.csv").write_text("file,class\ncat/1.png,a\ncat/2.png,b\n")
    assert not same() and same()
    (folder / "labels.csv").write_text("file,class\ncat/1.png,a\ncat/2.png,a\n")
    assert not same() and same()
    (folder / "cat" / "2.png").unlink()
    assert not same() and same()
