"""The authors' own code beside ours, where there is a checkout of it (MMCLUST_AUTHORS_REPO)."""

import argparse
import os

import numpy as np
import pytest
from torchvision.datasets import ImageFolder

import mmclust as mm
from tools import compare_with_authors as tool

PRINTED = """\
Data path: dataset/fruit/species/ Fruit with a species of
{'apple': 0, 'corn': 1} 2
candidate 2 ['apples', 'corn']
0
Epoch 0\tLoss: 0.8125
Epoch 10\tLoss: 0.79
Word EOD: NMI:0.6797\tARI:0.5\tRI:0.75
Data path: dataset/fruit/color/ Fruit with a color of
{'red': 0} 1
candidate 1 ['red']
0
Epoch 0\tLoss: 1e-03
Combined: NMI:1.0000\tARI:-0.0100\tRI:1.0000
"""


def test_the_output_of_a_script_is_read_per_criterion():
    questions = tool.read_questions(PRINTED)
    assert questions == [
        tool.Question("species", "Fruit with a species of *", ["apples", "corn"]),
        tool.Question("color", "Fruit with a color of *", ["red"]),
    ]
    species, color = tool.read_trainings(PRINTED)
    assert species.losses == {0: 0.8125, 10: 0.79} and color.losses == {0: 0.001}
    assert species.scores == {"word-eot": {"NMI": 0.6797, "ARI": 0.5, "RI": 0.75}}
    assert color.scores == {"word+image": {"NMI": 1.0, "ARI": -0.01, "RI": 1.0}}


@pytest.mark.parametrize("criterion", tool.CRITERIA)
def test_both_sides_see_the_same_pictures_in_the_same_order(tmp_path, criterion):
    """The scripts read their folders with torchvision's ImageFolder."""
    data = mm.load_dataset(tool.WORLD, n=30)
    tool.write_pictures(data, tmp_path)
    theirs = ImageFolder(tmp_path / "dataset" / "fruit" / criterion)
    ours = tool.in_folder_order(data, criterion)
    assert [theirs.classes[k] for _, k in theirs] == list(ours.frame()[criterion])
    for (picture, _), image in zip(theirs, ours.images, strict=True):
        assert np.array_equal(picture, image)


def test_a_folder_without_their_code_is_refused(tmp_path):
    with pytest.raises(argparse.ArgumentTypeError, match=rf"{tmp_path}.*main_eval.py.*git clone"):
        tool.checkout(str(tmp_path))


@pytest.mark.parametrize("n", ["30", "0"])
def test_a_last_batch_of_another_size_is_refused(tmp_path, monkeypatch, capsys, n):
    for name in tool.NEEDED:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr("sys.argv", ["compare_with_authors", "--repo", str(tmp_path), "-n", n])
    with pytest.raises(SystemExit):
        tool.main()
    assert f"multiple of the batch, 20, not {n}" in capsys.readouterr().err


@pytest.fixture(scope="module")
def tables():
    path = os.environ.get("MMCLUST_AUTHORS_REPO")
    if not path:
        pytest.skip("needs MMCLUST_AUTHORS_REPO, a checkout of the authors' code")
    repo = tool.checkout(path)
    before = tool.commit(repo)
    yield tool.compare(repo, n=20, seed=0, map_params=tool.MAP_PARAMS)
    assert tool.commit(repo) == before


def test_our_multi_sub_scores_as_the_authors_own_code(tables):
    scores = tables[0]
    assert len(scores) == len(tool.CRITERIA) * len(tool.REPRESENTATIONS)
    for metric in ("NMI", "ARI", "RI"):
        assert np.allclose(scores[f"{metric} theirs"], scores[f"{metric} ours"], atol=0.01)


def test_our_losses_are_those_of_the_authors_own_code(tables):
    """With one batch: their weight decay acts on all images in the step of every batch."""
    losses = tables[1]
    assert set(losses["method"]) == {"MultiSub", "MultiMaP"}
    assert np.allclose(losses["loss theirs"], losses["loss ours"], rtol=1e-3)
