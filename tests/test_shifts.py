"""Pictures in another light and lists of words with errors, as axes of experiments."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import mmclust as mm
from mmclust.experiments.workbench import Workbench

NAMES = sorted(mm.SHIFTS)


@pytest.fixture(scope="module")
def fruit():
    return mm.load_dataset("demo-fruit", n=8, seed=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_shift_changes_pictures_and_nothing_else(fruit, name):
    half, full = (mm.shifted(fruit, mm.Shift(name, strength)) for strength in (0.5, 1.0))
    original, *changed = (np.asarray(d.images[0], float) for d in (fruit, half, full))
    distances = [np.abs(pixels - original).mean() for pixels in changed]
    assert 0 < distances[0] < distances[1]
    assert full.images[0].size == fruit.images[0].size and full.images[0].mode == "RGB"
    assert full.frame().equals(fruit.frame()) and full.rows == fruit.rows
    fingerprints = {d.images.fingerprint for d in (fruit, half, full)}
    assert len(fingerprints) == 3
    again = mm.shifted(fruit, mm.Shift(name)).images
    assert again.fingerprint == full.images.fingerprint
    assert again[0].tobytes() == full.images[0].tobytes()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(1, 1), (40, 7), (7, 40)])
def test_any_size(name, size):
    picture = Image.new("RGB", size, "red")
    assert mm.Shift(name).apply(picture).size == size
    assert mm.Shift(name, 0).apply(picture) is picture


def test_what_the_shifts_do():
    white = Image.new("RGB", (16, 16), "white")
    assert mm.Shift("evening light").apply(white).getpixel((0, 0)) == (255, 184, 115)
    red, green, blue = mm.Shift("faded").apply(Image.new("RGB", (4, 4), "red")).getpixel((0, 0))
    assert red == green == blue
    assert mm.Shift("line drawing").apply(white).getpixel((8, 8)) == (255, 255, 255)


@pytest.mark.parametrize(
    "make, value",
    [
        (lambda: mm.Shift("dusk"), "dusk.*evening light"),
        (lambda: mm.Shift("faded", 2), "from 0 to 1.*2"),
        (lambda: mm.WordList(kept=1.5), "from 0 to 1.*1.5"),
        (lambda: mm.WordList(length=-1), "number of words.*-1"),
    ],
)
def test_invalid_conditions(make, value):
    with pytest.raises(ValueError, match=value):
        make()


TRUE = ["apple", "pear", "kiwi", "lemon"]
WORDS = mm.ReferenceWords(["plum", "Apple", "pear", "fig", "kiwi", "lemon"], template="a *")


@given(st.floats(0, 1), st.none() | st.integers(0, 60), st.integers(0, 5))
def test_a_list_of_words_has_the_true_names_that_are_kept(kept, length, seed):
    if length == round(kept * len(TRUE)) == 0:
        with pytest.raises(ValueError, match="words must be a list of at least one"):
            mm.WordList(kept, length).apply(WORDS, TRUE, seed)
        return
    changed = mm.WordList(kept, length).apply(WORDS, TRUE, seed)
    true = [word for word in changed if word.lower() in TRUE]
    wrong = [word for word in changed if word not in true]
    assert len(true) == round(kept * len(TRUE)) and len(set(changed)) == len(changed)
    assert changed.template == WORDS.template
    if length is None:
        assert wrong == ["plum", "fig"]
    else:
        assert len(changed) == max(length, len(true))
        assert wrong[:2] == ["plum", "fig"][: len(wrong)]  # before the nouns of the lexicon
    assert changed == mm.WordList(kept, length).apply(WORDS, TRUE, seed)


def test_there_are_not_so_many_wrong_words():
    with pytest.raises(ValueError, match=r"1000.*only"):
        mm.WordList(length=1004).apply(WORDS, TRUE)


def test_conditions_are_axes_of_a_grid(tmp_path, monkeypatch):
    monkeypatch.setenv("MMCLUST_CACHE", str(tmp_path))
    experiments = mm.grid(
        dataset="demo-fruit",
        criterion="color",
        method=["CLIP_GPT", "CRL"],
        n=24,
        shift=[None, mm.Shift("faded")],
        word_list=[None, mm.WordList(kept=0.5, length=30)],
    )
    rows = mm.run(experiments, progress=False)
    assert len(rows) == 8 and rows["key"].nunique() == 8
    assert rows["shift"].value_counts().to_dict() == {"none": 4, "faded": 4}
    assert set(rows["kept"]) == {1.0, 0.5} and set(rows[rows["kept"] == 0.5]["words"]) == {30}
    plain = rows[(rows["method"] == "CLIP_GPT") & (rows["kept"] == 1)].set_index("shift")["NMI"]
    assert plain["faded"] < plain["none"]
    bench = Workbench()
    oracle = mm.grid(
        dataset="demo-fruit", criterion="color", method="CLIP_label", n=24,
        word_list=mm.WordList(kept=0.0),
    )  # fmt: skip
    assert bench.words(oracle[0]) == bench.dataset(oracle[0]).classes["color"]


def test_names_are_compared_with_the_most_frequent_class():
    truth = [0, 0, 1, 1, 1, 2]
    clusters = [0, 0, 1, 1, 0, 3]  # cluster 2 has no images
    names = ["Red", "blue", "green", "yellow"]
    assert mm.name_accuracy(truth, ["red", "green", "yellow"], clusters, names) == 2 / 3
