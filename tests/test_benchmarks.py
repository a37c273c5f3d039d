"""The benchmarks compare like with like, and their commands write what they say. No test asserts a time."""

import json

import pandas as pd
import pytest

from mmclust.benchmarks import clusters, methods, stopping
from mmclust.variants import flips, interval, paired, table, variants


def test_ours_and_the_references_end_at_the_same_loss(tmp_path, monkeypatch, capsys):
    """`compare` raises where they do not; here on 6 pictures and a smaller tower."""
    real = methods.compare
    monkeypatch.setattr(methods, "compare", lambda names: real(names, n=6, architecture="ViT-S-32-alt"))
    monkeypatch.setattr("sys.argv", ["methods", "--json", str(tmp_path / "rows.json")])
    methods.main()
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {"method", "reference", "reference_seconds", "seconds", "ratio", "n"} <= rows[0].keys()
    assert [(r["method"], r["reference"]) for r in rows] == [
        ("MultiMaP", "frozen"), ("MultiMaP", "released"), ("MultiSub", "frozen"), ("MultiSub", "frozen, trunk in every batch"),
        ("MultiSub", "released"), ("MultiDProxy", "frozen"), ("MultiDProxy", "frozen, negatives apart"),
    ]  # fmt: skip
    for r in rows:
        assert r["ratio"] == pytest.approx(r["reference_seconds"] / r["seconds"]) and r["loss"] == pytest.approx(r["reference_loss"], rel=1e-3)
    assert "MultiSub" in capsys.readouterr().out


def test_a_reference_that_computes_something_else_is_noticed(monkeypatch):
    monkeypatch.setattr(methods.TrunkInEveryBatch, "_image_side", lambda self, h, part, projection: h[part] @ projection * 0)
    monkeypatch.setattr(methods, "SETTINGS", {"MultiSub": methods.SETTINGS["MultiSub"]})
    with pytest.raises(RuntimeError, match="MultiSub beside"):
        methods.compare(["MultiSub"], n=6, architecture="ViT-S-32-alt")


def test_the_scaling_table_has_a_slope_per_method():
    rows = methods.scaling(sizes=(100, 200))
    assert set(rows["method"]) == {"MultiMaP", "MultiSub", "MultiSub, Phase II", "MultiDProxy"} and set(rows["n"]) == {100, 200}
    assert rows.groupby("method")["slope"].nunique().eq(1).all()


def test_how_found_numbers_are_judged():
    rows = pd.DataFrame({"criterion": ["a"] * 3 + ["b"] * 3, "seed": [0, 1, 2] * 2, "M": [4] * 3 + [20] * 3})
    rows = rows.assign(auto=[4, 4, 9, 22, 22, 30], features=[20] * 6)
    judged = clusters.judge(rows).set_index("way")
    assert judged.loc["auto", "criteria exact"] == 1 and judged.loc["auto", "criteria within"] == 2
    assert judged.loc["auto", "exact"] == pytest.approx(2 / 6) and judged.loc["auto", "within"] == pytest.approx(4 / 6)
    assert judged.loc["silhouette on image features", "criteria exact"] == 1 and judged.loc["always 5", "criteria within"] == 1
    assert judged.loc["auto", "mean error"] == pytest.approx((5 + 2 + 2 + 10) / 6)


def test_numbers_are_counted_on_real_worlds(mini, monkeypatch):
    monkeypatch.setattr(clusters, "CRITERIA", {"fruit": ["color"]})
    rows = clusters.count("MultiSub", "tuning", [110], 60, mini)
    assert rows.iloc[0].to_dict().keys() == {"criterion", "seed", "M", "auto", "features"} and abs(rows["auto"][0] - 6) <= 2


def test_stopping_is_compared_on_the_same_data(mini, monkeypatch):
    monkeypatch.setattr(stopping, "CRITERIA", {"tuning-fruit": ["color"]})
    row = stopping.compare("MultiMaP", 110, 40, mini, full={"epochs": 150}).iloc[0]
    assert row["full epochs"] == 150 > row["stopped epochs"]
    assert row["loss, relative difference"] == pytest.approx(abs(row["stopped loss"] - row["full loss"]) / abs(row["full loss"]))


def test_variants_and_flips_name_what_they_change():
    profile = {"methods": {"MultiMaP": {"lr": 1.0}, "MultiSub": {}, "MultiDProxy": {}}, "released": {"MultiMaP": {"variant": "released"}, "MultiSub": {}}}
    assert variants(profile)["MultiMaP released, prompt"] == ("MultiMaP", "prompt", {"variant": "released"})
    one = flips(profile)
    assert one["MultiMaP paper, positions as released"] == ("MultiMaP", "prompt", {"lr": 1.0, "positions": False})
    assert one["MultiSub paper, batch_size as released"][2] == {"batch_size": 50}


def test_intervals_and_pairs():
    from scipy import stats

    values = [0.9, 0.8, 0.85, 0.95, 0.9]
    low, high = stats.t.interval(0.95, 4, loc=sum(values) / 5, scale=stats.sem(values))
    assert interval(values) == pytest.approx((high - low) / 2)
    rows = pd.DataFrame({"row": ["a"] * 4 + ["b"] * 4, "seed": [0, 0, 1, 1] * 2, "criterion": ["x", "y"] * 4, "NMI": [0.5, 0.7, 0.6, 0.8, 0.4, 0.6, 0.4, 0.4]})
    found = paired(rows, "a", "b")
    assert found["difference"] == pytest.approx((0.1 + 0.3) / 2) and found["p"] == pytest.approx(stats.ttest_rel([0.6, 0.7], [0.5, 0.4]).pvalue)
    assert table(rows).loc["a", "mean"].startswith("0.650 ± ")
