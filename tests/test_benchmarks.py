"""The benchmarks compare like with like, and their commands write what they say. No test asserts a time."""

import json

import pandas as pd
import pytest

import mmclust as mm
from benchmarks import early_stopping, n_clusters
from mmclust.experiments import epoch_cost
from mmclust.experiments.ablations import interval, paired
from mmclust.experiments.paper_vs_code import FLIPS, effects, flips, table, variants


def test_ours_and_the_references_end_at_the_same_loss(tmp_path, monkeypatch, capsys):
    """`compare` raises where they do not; here on 6 pictures and a smaller tower."""
    real = epoch_cost.compare
    monkeypatch.setattr(
        epoch_cost, "compare", lambda names: real(names, n=6, architecture="ViT-S-32-alt")
    )
    monkeypatch.setattr("sys.argv", ["methods", "--json", str(tmp_path / "rows.json")])
    epoch_cost.main()
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {"method", "reference", "reference_seconds", "seconds", "ratio", "n"} <= rows[0].keys()
    assert [(r["method"], r["reference"]) for r in rows] == [
        ("MultiMaP", "frozen"), ("MultiMaP", "released"), ("MultiSub", "frozen"), ("MultiSub", "frozen, trunk in every batch"),
        ("MultiSub", "released"), ("MultiDProxy", "frozen"), ("MultiDProxy", "frozen, negatives apart"),
    ]  # fmt: skip
    for r in rows:
        assert r["ratio"] == pytest.approx(r["reference_seconds"] / r["seconds"]) and r[
            "loss"
        ] == pytest.approx(r["reference_loss"], rel=1e-3)
    assert "MultiSub" in capsys.readouterr().out


def test_a_reference_that_computes_something_else_is_noticed(monkeypatch):
    monkeypatch.setattr(
        epoch_cost.TrunkInEveryBatch,
        "_image_side",
        lambda self, h, part, projection: h[part] @ projection * 0,
    )
    monkeypatch.setattr(epoch_cost, "SETTINGS", {"MultiSub": epoch_cost.SETTINGS["MultiSub"]})
    with pytest.raises(RuntimeError, match="MultiSub beside"):
        epoch_cost.compare(["MultiSub"], n=6, architecture="ViT-S-32-alt")


def test_what_is_kept_for_the_backward_pass_is_counted():
    import torch

    from mmclust.experiments.memory_cost import Kept

    x, layer = torch.ones(10, 4, requires_grad=True), torch.nn.Linear(4, 3)
    with Kept(layer) as kept:
        y = layer(
            x
        ).exp()  # keeps x, its 40 floats, for the weights, and its own 30; the layer's weights are not counted
        assert kept.live == kept.peak == 4 * (40 + 30)
        (y + y.exp()).sum().backward()
        assert kept.peak == 4 * (40 + 30 + 30)
        del y
    assert kept.live == 0


def test_the_authors_way_keeps_more_and_takes_the_same_steps():
    images = mm.load_dataset("tuning-fruit", n=24, seed=905).images
    rows = mm.kept_memory(images, methods=("MultiMaP", "MultiDProxy")).pivot(
        index="method", columns="way", values="megabytes"
    )
    assert (rows["authors' way"] > 3 * rows["ours"]).all() and (rows["ours"] > 0.01).all()


def test_epoch_times_are_two_rows_a_method(monkeypatch):
    real = epoch_cost.compare
    monkeypatch.setattr(epoch_cost, "compare", lambda **more: real(**more, methods=("MultiMaP",)))
    rows = epoch_cost.epoch_times(n=6)
    assert (
        rows["way"].tolist() == ["authors' way", "ours"]
        and set(rows["method"]) == {"MultiMaP"}
        and rows["seconds"].gt(0).all()
    )


def test_the_scaling_table_has_a_slope_per_method():
    rows = epoch_cost.scaling(sizes=(100, 200))
    assert set(rows["method"]) == {
        "MultiMaP",
        "MultiSub",
        "MultiSub, Phase II",
        "MultiDProxy",
    } and set(rows["n"]) == {100, 200}
    assert rows.groupby("method")["slope"].nunique().eq(1).all()


def test_how_found_numbers_are_judged():
    rows = pd.DataFrame(
        {"criterion": ["a"] * 3 + ["b"] * 3, "seed": [0, 1, 2] * 2, "M": [4] * 3 + [20] * 3}
    )
    rows = rows.assign(auto=[4, 4, 9, 22, 22, 30], features=[20] * 6)
    judged = n_clusters.judge(rows).set_index("way")
    assert judged.loc["auto", "criteria exact"] == 1 and judged.loc["auto", "criteria within"] == 2
    assert judged.loc["auto", "exact"] == pytest.approx(2 / 6) and judged.loc[
        "auto", "within"
    ] == pytest.approx(4 / 6)
    assert (
        judged.loc["silhouette on image features", "criteria exact"] == 1
        and judged.loc["always 5", "criteria within"] == 1
    )
    assert judged.loc["auto", "mean error"] == pytest.approx((5 + 2 + 2 + 10) / 6)


def test_numbers_are_counted_on_real_worlds(mini, monkeypatch):
    monkeypatch.setattr(n_clusters, "CRITERIA", {"fruit": ["color"]})
    rows = n_clusters.count("MultiSub", "tuning", [110], 60, mini)
    assert (
        rows.iloc[0].to_dict().keys() == {"criterion", "seed", "M", "auto", "features"}
        and abs(rows["auto"][0] - 6) <= 2
    )


def test_stopping_is_compared_on_the_same_data(mini, monkeypatch):
    monkeypatch.setattr(early_stopping, "CRITERIA", {"tuning-fruit": ["color"]})
    row = early_stopping.compare("MultiMaP", 110, 40, mini, full={"epochs": 150}).iloc[0]
    assert row["full epochs"] == 150 > row["stopped epochs"]
    assert row["loss, relative difference"] == pytest.approx(
        abs(row["stopped loss"] - row["full loss"]) / abs(row["full loss"])
    )


def test_variants_and_flips_name_what_they_change():
    profile = {
        "methods": {"MultiMaP": {"lr": 1.0}, "MultiSub": {}, "MultiDProxy": {}},
        "released": {"MultiMaP": {"variant": "released"}, "MultiSub": {}},
    }
    assert variants(profile)["MultiMaP released, prompt"] == (
        "MultiMaP",
        {"variant": "released"},
        "prompt",
    )
    named, bases = flips(profile["methods"])
    assert named["MultiMaP: positions = False"] == (
        "MultiMaP",
        {"lr": 1.0, "positions": False},
        "prompt",
    )
    assert (
        named["MultiSub: batch_size = 50"][1:] == ({"batch_size": 50}, "prompt")
        and named["MultiSub: normalize_image = False"][2] == "word+image"
    )
    assert bases["MultiSub: normalize_image = False"] == "MultiSub paper, word+image" and set(
        named
    ) - set(bases) == set(bases.values())
    assert {name.split(":")[0] for name in flips(profile["methods"], ["MultiSub"])[1]} == {
        "MultiSub"
    }
    departs = flips({"MultiMaP": {"reduction": "relative"}}, ["MultiMaP"])[0]
    assert {"MultiMaP: reduction = sum", "MultiMaP: reduction = mean"} <= set(
        departs
    ) and "MultiMaP: reduction = sum" not in named


def test_every_difference_of_the_released_variants_is_flipped_or_a_schedule():
    for kind in (mm.MultiMaP, mm.MultiSub):
        paper, released = kind.VARIANTS["paper"], kind.VARIANTS["released"]
        differ = {name for name in paper if paper[name] != released[name]} - {
            "epochs",
            "alternations",
            "phase1_epochs",
        }
        assert differ == {name for names in FLIPS[kind.__name__].values() for name in names}


def test_effects_are_paired_differences():
    rows = pd.DataFrame(
        {
            "row": ["b"] * 3 + ["MultiSub: intra = plain"] * 3,
            "seed": [0, 1, 2] * 2,
            "criterion": "x",
            "NMI": [0.5, 0.6, 0.7, 0.6, 0.6, 0.9],
        }
    )
    row = effects(rows, {"b": ("MultiSub", {}, "prompt")}, {"MultiSub: intra = plain": "b"}).iloc[0]
    assert (row["parameter"], row["here"], row["flipped"]) == ("intra", "squared", "plain")
    assert (
        row["effect"] == pytest.approx(0.1)
        and row["±"] == pytest.approx(interval([0.1, 0.0, 0.2]))
        and row["seeds"] == 3
    )


def test_intervals_and_pairs():
    from scipy import stats

    values = [0.9, 0.8, 0.85, 0.95, 0.9]
    low, high = stats.t.interval(0.95, 4, loc=sum(values) / 5, scale=stats.sem(values))
    assert interval(values) == pytest.approx((high - low) / 2)
    rows = pd.DataFrame(
        {
            "row": ["a"] * 4 + ["b"] * 4,
            "seed": [0, 0, 1, 1] * 2,
            "criterion": ["x", "y"] * 4,
            "NMI": [0.5, 0.7, 0.6, 0.8, 0.4, 0.6, 0.4, 0.4],
        }
    )
    found = paired(rows, "a", "b")
    assert found["difference"] == pytest.approx((0.1 + 0.3) / 2) and found["p"] == pytest.approx(
        stats.ttest_rel([0.6, 0.7], [0.5, 0.4]).pvalue
    )
    assert table(rows).loc["a", "mean"].startswith("0.650 ± ")
