"""Sweeps, ablations and their statistics: parameters by name or letter, tidy frames."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import mmclust as mm
from mmclust import storage
from mmclust.experiments import workbench
from mmclust.experiments.ablations import resolve_parameter
from mmclust.experiments.paper_vs_code import Flip
from mmclust.experiments.statistics import (
    adjusted_for_all,
    interval,
    p_value,
    shares_pictures,
)
from mmclust.results.tables import shared_note

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
    def sweep():
        values = {"R": [2, 3], "tau": [0.05, 0.1]}
        return mm.sweep("MultiDProxy", values, base=QUICK, **SMALL)

    rows = sweep()
    assert len(rows) == 4 * 2 * 2
    assert rows.groupby("parameter")["value"].unique().map(list).to_dict() == {
        "update_every": [2, 3],
        "tau": [0.05, 0.1],
    }
    alone = mm.run(
        mm.grid(method="MultiDProxy", params=QUICK | {"tau": 0.1}, **SMALL), progress=False
    )
    swept = rows[(rows["parameter"] == "tau") & (rows["value"] == 0.1)]
    assert swept["key"].tolist() == alone["key"].tolist()
    assert swept["NMI"].tolist() == alone["NMI"].tolist()
    pd.testing.assert_frame_equal(rows, sweep())


def test_together_all_combinations_run(cache):
    values = {"alpha": [0.0, 0.3], "beta": [0.1, 1.0]}
    axes = SMALL | {"seed": 0}
    rows = mm.sweep("MultiMaP", values, {"epochs": 3}, together=True, **axes)
    assert len(rows) == 4 * 2
    combinations = {(0.0, 0.1), (0.0, 1.0), (0.3, 0.1), (0.3, 1.0)}
    assert set(zip(rows["alpha"], rows["beta"])) == combinations
    assert rows.columns[:2].tolist() == ["alpha", "beta"]
    assert pd.api.types.is_float_dtype(rows["alpha"])


def test_settings_side_by_side(cache):
    params = {"alternations": 1, "phase1_epochs": 3}
    settings = {
        "full": ("MultiSub", params),
        "word": ("MultiSub", params, "word"),
        "k-means": ("KMeans", {}, None),
    }
    rows = mm.ablation(settings, **SMALL)
    assert rows["row"].unique().tolist() == ["full", "word", "k-means"]
    assert rows.groupby("row").size().eq(4).all()
    assert rows.groupby("row")["representation"].first().to_dict() == {
        "full": "prompt",
        "word": "word",
        "k-means": "image",
    }


def test_methods_that_learn_nothing_are_varied_too(cache):
    rows = mm.sweep("CRL", {"n_init": [1, 3]}, representation=["cosine", "softmax"], **SMALL)
    assert len(rows) == 2 * 2 * 2 * 2 and rows["NMI"].between(0, 1).all()
    assert rows["key"].is_unique


def test_timed_runs_are_not_stored(cache):
    axes = SMALL | {"seed": 0, "criterion": "color"}
    experiments = mm.grid(method="MultiMaP", params={"epochs": 3}, **axes)
    rows = mm.run_timed(experiments + mm.grid(method="KMeans", **axes))
    assert rows["epochs"].tolist()[0] == 3 and rows["epochs"].isna().tolist() == [False, True]
    assert rows["seconds"].gt(0).all() and rows["NMI"].between(0, 1).all()
    assert not list(cache.glob("rows/*"))


@pytest.mark.parametrize(
    "method, letter, name",
    [
        ("MultiDProxy", "R", "update_every"),
        ("MultiDProxy", "L", "layers"),
        ("MultiSub", "lambda", "lam"),
        ("MultiMaP", "alpha", "alpha"),
        ("MultiSub", "m", "margin"),
    ],
)
def test_letters_of_the_papers(method, letter, name):
    assert resolve_parameter(method, letter) == name


def test_invalid_sweeps_name_what_exists():
    with pytest.raises(ValueError, match=r"MultiMaP.*'R'.*alpha, beta"):
        mm.sweep("MultiMaP", {"R": [1]}, **SMALL)
    with pytest.raises(ValueError, match="'alpha'"):
        mm.sweep("MultiMaP", {"alpha": []}, **SMALL)
    with pytest.raises(ValueError, match=r"'KMean'.*KMeans"):
        mm.sweep("KMean", {"n_init": [1]}, **SMALL)


def test_rows_that_another_process_stored_meanwhile_are_not_computed_again(cache, monkeypatch):
    grid = mm.grid(method="KMeans", **SMALL)
    compute_row = workbench.Workbench.row
    computed = []

    def row(self, *args):
        computed.append(args)
        values = compute_row(self, *args)
        if len(computed) == 1:  # while the first is computed, another process writes the last
            key = self.key(grid[-1])
            storage.write_row(key, values | {"key": key, "NMI": 0.123})
        return values

    monkeypatch.setattr(workbench.Workbench, "row", row)
    rows = mm.run(grid, progress=False)
    assert len(computed) == len(grid) - 1 and rows["NMI"].iloc[-1] == 0.123


def test_defaults_are_what_runs():
    assert mm.defaults("MultiSub")["phase1_epochs"] == 100
    assert mm.defaults("MultiSub", {"variant": "released"})["intra"] == "plain"
    assert mm.defaults("MultiMaP", {"lr": 1.0})["lr"] == 1.0
    assert mm.defaults("KMeans")["n_init"] == mm.KMeans().n_init


# Paper and released code


def test_every_difference_of_the_released_variants_is_a_flip_or_a_schedule():
    params = {"MultiMaP": {}, "MultiSub": {}}
    _, flips = mm.paper_vs_code.flips(params)
    for method in (mm.MultiMaP, mm.MultiSub):
        paper = method.VARIANTS["paper"]
        released = method.VARIANTS["released"]
        differences = {name for name in paper if paper[name] != released[name]}
        flipped = {flip.parameter for flip in flips if flip.method == method.__name__}
        assert differences - {"epochs", "alternations"} == flipped


def test_flips_change_one_parameter_each():
    params = {"MultiMaP": {"lr": 1.0}, "MultiSub": {}}
    settings, flips = mm.paper_vs_code.flips(params)
    by_name = {flip.name: flip for flip in flips}
    assert by_name["MultiMaP: positions = False"] == Flip(
        "MultiMaP", "positions", True, False, "MultiMaP paper, prompt"
    )
    changed = {"lr": 1.0, "positions": False}
    assert settings["MultiMaP: positions = False"] == ("MultiMaP", changed, "prompt")
    assert settings["MultiSub: batch_size = 50"] == ("MultiSub", {"batch_size": 50}, "prompt")
    normalize = by_name["MultiSub: normalize_image = False"]
    assert settings[normalize.name][2] == "word+image"
    assert normalize.base == "MultiSub paper, word+image"
    assert settings.keys() - by_name.keys() == {flip.base for flip in flips}
    assert {flip.method for flip in mm.paper_vs_code.flips(params, ["MultiSub"])[1]} == {"MultiSub"}


def test_parameters_that_depart_from_the_paper_are_flipped_to_it_as_well():
    params = {"MultiMaP": {"reduction": "relative"}}
    _, flips = mm.paper_vs_code.flips(params, ["MultiMaP"])
    assert [flip.value for flip in flips if flip.parameter == "reduction"] == ["sum", "mean"]


def test_everything_as_released_is_one_more_flip_per_method():
    params = {"MultiMaP": {"lr": 1.0}, "MultiSub": {}}
    scripts = {"MultiMaP": {"variant": "released"}, "MultiSub": {"variant": "released"}}
    settings, flips = mm.paper_vs_code.flips(params, released=scripts)
    flips = [flip for flip in flips if flip.parameter == "variant"]
    assert settings[flips[0].name] == ("MultiMaP", {"variant": "released"}, "prompt")
    assert settings[flips[0].base] == ("MultiMaP", {"lr": 1.0}, "prompt")
    assert [(flip.before, flip.value) for flip in flips] == [("paper", "released")] * 2


def test_an_encoder_whose_texts_and_tokens_differ_in_width_has_fewer_flips():
    scripts = {"MultiMaP": {"variant": "released", "lr": 1.0}, "MultiSub": {"variant": "released"}}
    params = {"MultiMaP": {}, "MultiSub": {}}
    every, _ = mm.paper_vs_code.flips(params, released=scripts)
    fewer, _ = mm.paper_vs_code.flips(params, released=scripts, text_as_tokens=False)
    missing = {f"MultiMaP: {name} = text" for name in ("init", "targets")}
    assert every.keys() - fewer.keys() == missing | {"MultiSub: init = text"}
    encoder = mm.load_encoder("photo")
    assert encoder.token_dim != encoder.embedding_dim
    images = mm.load_dataset("demo-card", n=8, seed=0).images
    for name in ("MultiMaP", "MultiSub"):
        method, settings, _ = fewer[f"{name}: variant = released"]
        assert settings["variant"] == "released" and settings["init"] != "text"
        assert settings.get("lr") == scripts[name].get("lr")
        few = {"epochs": 1} if name == "MultiMaP" else {"phase1_epochs": 1}
        settings = settings | few | {"template": "card with suits of *", "n_clusters": 2}
        getattr(mm, method)(encoder, ["clubs", "spades"], **settings).fit(images)


def test_effects_are_paired_differences():
    flip = Flip("MultiSub", "intra", "squared", "plain", base="b")
    rows = pd.DataFrame(
        {
            "row": ["b"] * 3 + [flip.name] * 3,
            "seed": [0, 1, 2] * 2,
            "criterion": "x",
            "NMI": [0.5, 0.6, 0.7, 0.6, 0.6, 0.9],
        }
    )
    (row,) = mm.paper_vs_code.effects(rows, [flip]).to_dict("records")
    assert (row["parameter"], row["here"], row["flipped"]) == ("intra", "squared", "plain")
    assert row["difference"] == pytest.approx(0.1) and row["seeds"] == 3
    assert row["±"] == pytest.approx(interval([0.1, 0.0, 0.2]))


# Statistics


def test_intervals_and_pairs():
    values = [0.9, 0.8, 0.85, 0.95, 0.9]
    low, high = stats.t.interval(0.95, 4, loc=sum(values) / 5, scale=stats.sem(values))
    assert interval(values) == pytest.approx((high - low) / 2)
    assert pd.isna(interval([0.9]))
    rows = pd.DataFrame(
        {
            "row": ["a"] * 4 + ["b"] * 4,
            "seed": [0, 0, 1, 1] * 2,
            "criterion": ["x", "y"] * 4,
            "NMI": [0.5, 0.7, 0.6, 0.8, 0.4, 0.6, 0.4, 0.4],
        }
    )
    comparison = mm.paired(rows, "a", "b")
    assert comparison["difference"] == pytest.approx((0.1 + 0.3) / 2)
    assert comparison["p"] == pytest.approx(stats.ttest_rel([0.6, 0.7], [0.5, 0.4]).pvalue)
    rounded = rows.assign(NMI=[0.3] * 4 + [0.1 + 0.2] * 4)
    assert mm.paired(rounded, "a", "b")["difference"] == 0, "neither a gain nor a loss"
    equal = mm.paired(rows, "a", "a")
    assert equal["difference"] == 0 and pd.isna(equal["p"]) and pd.isna(equal["±"])
    p = pd.DataFrame({"p": [0.01, np.nan, 0.02]})
    adjusted = adjusted_for_all(p)["adjusted p"]
    assert pd.isna(adjusted[1]) and adjusted[0] == pytest.approx(0.01 * 3 * (1 + 1 / 2 + 1 / 3))


def test_only_criteria_that_both_settings_have_are_compared():
    scores = {"a": {"easy": 0.9, "hard": np.nan}, "b": {"easy": 0.92, "hard": 0.1}}
    rows = pd.DataFrame(
        {
            "row": row,
            "criterion": criterion,
            "seed": seed,
            "NMI": level + 0.01 * seed * (row == "a"),
        }
        for row, levels in scores.items()
        for criterion, level in levels.items()
        for seed in range(4)
    )
    pair = mm.paired(rows, "a", "b")
    assert pair["difference"] == pytest.approx(-0.005) and pair["seeds"] == 4
    assert mm.paired(rows.dropna(), "a", "b") == pytest.approx(pair)
    rows.loc[(rows["row"] == "b") & (rows["seed"] == 3), "NMI"] = np.nan
    assert mm.paired(rows, "a", "b")["seeds"] == 3


def rows_with_pools(pools, n=100, seeds=5):
    """Method a is better than b on every data set; data set -> its pool."""
    return pd.DataFrame(
        {"dataset": dataset, "criterion": f"{dataset} kind", "row": row, "seed": seed, "n": n,
         "pool": pool, "NMI": 0.5 + 0.2 * (row == "a") + 0.01 * (seed % 3) * (row == "b")}
        for dataset, pool in pools.items()
        for row in "ab"
        for seed in range(seeds)
    )  # fmt: skip


def test_seeds_that_share_pictures_have_no_p():
    rows = rows_with_pools({"new": np.nan, "large": 1000, "small": 999, "all": 100})
    p = mm.paired_within(rows, [("a", "b")], "dataset").set_index("dataset")
    assert (p.loc[["new", "large"], "adjusted p"] < 0.05).all()
    assert p.loc[["small", "all"], ["p", "adjusted p"]].isna().all(axis=None)
    assert (p["±"] > 0).all(), "the interval for these pictures stays"
    assert pd.isna(mm.paired(rows, "a", "b")["p"]), "some of the pictures are shared"
    bold = mm.tables.best(rows, by="row").set_index("row").any()
    assert bold.to_dict() == {
        "new kind": True, "large kind": True, "small kind": False, "all kind": False, "mean": False
    }  # fmt: skip
    few = rows[rows["seed"] < 2]
    assert not shares_pictures(few[few["dataset"] == "small"]).any()
    one_seed = rows[rows["seed"] == 0]
    assert not shares_pictures(one_seed).any() and shared_note(one_seed) == ""


def test_the_note_on_seeds_that_share_pictures():
    rows = rows_with_pools({"new": np.nan, "small": 300, "all": 100})
    assert shared_note(rows[rows["dataset"] == "new"]) == ""
    assert shared_note(rows.drop(columns="pool")) == ""
    assert "share pictures of small, all, so intervals hold for these" in shared_note(rows)
    assert "share pictures, so" in shared_note(rows[rows["dataset"] == "all"])


def test_criteria_of_the_same_name_are_compared_by_data_set():
    gains = {"fruit": [0.1, 0.2, 0.3], "cars": [-0.1, -0.2, -0.3]}  # their mean is 0
    rows = pd.DataFrame(
        {"dataset": name, "criterion": "color", "row": row, "seed": seed, "NMI": 0.5 + gain}
        for name, of_seeds in gains.items()
        for seed, of_seed in enumerate(of_seeds)
        for row, gain in (("a", of_seed), ("b", 0))
    )
    table = mm.paired_within(rows, [("a", "b")], "criterion")
    assert list(table["criterion"]) == ["fruit color", "cars color"]
    assert list(table["difference"]) == pytest.approx([0.2, -0.2])
    one = mm.paired_within(rows[rows["dataset"] == "cars"], [("a", "b")], "criterion")
    assert list(one["criterion"]) == ["color"]


@pytest.mark.parametrize(
    "differences, expected",
    [
        ([0.10, 0.11, 0.09], True),
        ([0.3, -0.2, 0.0], False),
        ([0.1, 0.1, 0.1], False),
        ([0.3, 0.1 + 0.2, 0.3], False),
        ([0.0, 0.0, 0.0], False),
        ([0.1], False),
    ],
)
def test_differences_by_a_paired_test(differences, expected):
    """Without variation there is no p, and a NaN is not below 0.05."""
    assert (p_value(differences) < 0.05) is expected
