"""Sweeps and ablations: any parameter by name or letter, a cost before they start, a tidy frame after."""

import pandas as pd
import pytest

import mmclust as mm
from mmclust.experiments import workbench
from mmclust.experiments.ablations import parameter

QUICK = {"epochs": 6, "update_every": 2, "concept_weight": 0.0}
SMALL = {
    "dataset": "demo-fruit",
    "criterion": ["color", "species"],
    "n": 24,
    "kmeans_seeds": 2,
    "seed": [0, 1],
}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMCLUST_CACHE", str(tmp_path))
    return tmp_path


def test_each_parameter_is_varied_alone(cache):
    told = []
    rows = mm.sweep(
        "MultiDProxy", {"R": [2, 3], "tau": [0.05, 0.1]}, base=QUICK, on_cost=told.append, **SMALL
    )
    assert len(rows) == 4 * 2 * 2 and set(rows["parameter"]) == {"update_every", "tau"}
    assert rows.groupby("parameter")["value"].unique().map(list).to_dict() == {
        "update_every": [2, 3],
        "tau": [0.05, 0.1],
    }
    alone = mm.run(
        mm.grid(method="MultiDProxy", params=QUICK | {"tau": 0.1}, **SMALL), progress=False
    )
    swept = rows[(rows["parameter"] == "tau") & (rows["value"] == 0.1)]
    assert (
        swept["NMI"].tolist() == alone["NMI"].tolist()
        and swept["key"].tolist() == alone["key"].tolist()
    )
    cost = told[0]
    assert (
        cost.fits == 16 and cost.stored == 0 and cost.seconds > 0 and "16 fits to make" in str(cost)
    )
    again = []
    same = mm.sweep(
        "MultiDProxy", {"R": [2, 3], "tau": [0.05, 0.1]}, base=QUICK, on_cost=again.append, **SMALL
    )
    pd.testing.assert_frame_equal(rows, same)
    assert (
        again[0].fits == 0
        and again[0].stored == 16
        and again[0].seconds == 0
        and "nothing to wait for" in str(again[0])
    )


def test_together_all_combinations_run(cache):
    rows = mm.sweep(
        "MultiMaP",
        {"alpha": [0.0, 0.3], "beta": [0.1, 1.0]},
        {"epochs": 3},
        together=True,
        on_cost=None,
        **SMALL | {"seed": 0},
    )
    assert len(rows) == 4 * 2 and set(zip(rows["alpha"], rows["beta"])) == {
        (0.0, 0.1),
        (0.0, 1.0),
        (0.3, 0.1),
        (0.3, 1.0),
    }
    assert rows.columns[:2].tolist() == ["alpha", "beta"] and pd.api.types.is_float_dtype(
        rows["alpha"]
    )


def test_settings_side_by_side(cache):
    settings = {
        "full": ("MultiSub", {"alternations": 1, "phase1_epochs": 3}),
        "word": ("MultiSub", {"alternations": 1, "phase1_epochs": 3}, "word"),
        "k-means": ("KMeans", {}, None),
    }
    rows = mm.ablation(settings, on_cost=None, **SMALL)
    assert (
        rows["row"].unique().tolist() == ["full", "word", "k-means"]
        and rows.groupby("row").size().eq(4).all()
    )
    assert rows.groupby("row")["representation"].first().to_dict() == {
        "full": "prompt",
        "word": "word",
        "k-means": "image",
    }


def test_the_cost_grows_with_the_epochs(cache):
    short, long = (
        mm.estimate_cost(mm.grid(method="MultiMaP", params={"epochs": e}, **SMALL))
        for e in (10, 100_000)
    )
    assert short.fits == long.fits == 4 and long.seconds > 100 * short.seconds
    both = mm.estimate_cost(
        mm.grid(
            method="MultiSub",
            representation=["prompt", "word"],
            params={"alternations": 1, "phase1_epochs": 2},
            **SMALL,
        )
    )
    assert both.fits == 4, "representations share a fit"
    assert not list(cache.glob("rows/*")), "a probe is not a result"


@pytest.mark.parametrize(
    "method, name, found",
    [
        ("MultiDProxy", "R", "update_every"),
        ("MultiDProxy", "L", "layers"),
        ("MultiSub", "lambda", "lam"),
        ("MultiMaP", "alpha", "alpha"),
        ("MultiSub", "m", "margin"),
    ],
)
def test_letters_of_the_papers(method, name, found):
    assert parameter(method, name) == found


def test_wrong_sweeps_say_what_there_is():
    with pytest.raises(ValueError, match=r"MultiMaP has no parameter 'R': .*alpha, beta"):
        mm.sweep("MultiMaP", {"R": [1]}, on_cost=None, **SMALL)
    with pytest.raises(ValueError, match="no values to try for 'alpha'"):
        mm.sweep("MultiMaP", {"alpha": []}, on_cost=None, **SMALL)
    with pytest.raises(ValueError, match="KMean"):
        mm.sweep("KMean", {"n_init": [1]}, on_cost=None, **SMALL)


def test_rows_that_another_process_wrote_in_the_meantime_are_not_computed_again(cache, monkeypatch):
    grid = mm.grid(method="KMeans", **SMALL)
    real, computed = workbench.Workbench.row, []

    def row(self, *args):
        computed.append(args)
        found = real(self, *args)
        if len(computed) == 1:  # while the first is computed, another process writes the last
            key = self.key(grid[-1])
            workbench.write_row(key, found | {"key": key, "NMI": 0.123})
        return found

    monkeypatch.setattr(workbench.Workbench, "row", row)
    rows = mm.run(grid, progress=False)
    assert len(computed) == len(grid) - 1 and rows["NMI"].iloc[-1] == 0.123


def test_defaults_are_what_runs():
    assert (
        mm.defaults("MultiSub")["phase1_epochs"] == 100
        and mm.defaults("MultiSub", {"variant": "released"})["intra"] == "plain"
    )
    assert (
        mm.defaults("MultiMaP", {"lr": 1.0})["lr"] == 1.0
        and mm.defaults("KMeans")["n_init"] == mm.KMeans().n_init
    )
